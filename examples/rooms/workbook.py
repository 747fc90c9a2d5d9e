"""The cost calculator as a widget, for a notebook of one's own. Needs the extra "workbook"."""

from labkit import cost, workbook

scenario = cost.Scenario(users=5_000, output_tokens=400)
widget = workbook.dashboard(scenario)
print(type(widget).__name__, len(widget.children))
