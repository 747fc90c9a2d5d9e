"""The cost calculator as a widget: settings on the left, the month by model and token kind on the right, tornado below.

It works in JupyterLab and under Voilà. `labkit.cost.calculator` does all arithmetic; this module draws the results. After a
setting that makes no sense, the last good charts stay and a message says what is wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import fields, replace
from decimal import Decimal
from difflib import get_close_matches
from functools import lru_cache
from html import escape
from math import gcd
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import altair as alt
import ipywidgets as w

from labkit.cost import MonthlyCost, Scenario, api_month, hosted_month, hosts, listed, month, price_named, tornado
from labkit.request import LabError
from labkit.workbook.charts import PALETTE, Figure, bundle, caption_html
from labkit.workbook.render import STYLE

_KINDS = {
    "fresh_input": ("fresh input", PALETTE["blue"]),
    "cached_input": ("cached input", PALETTE["sky"]),
    "cache_write": ("cache write", PALETTE["pink"]),
    "visible_output": ("visible output", PALETTE["orange"]),
    "reasoning": ("reasoning", PALETTE["red"]),
    "infrastructure": ("machines", PALETTE["green"]),
}
# The providers whose models the menus offer. Code can use every other listed model, with Scenario(models=...).
_PROVIDERS = ("openai", "anthropic", "google", "mistral", "deepseek")
_WORDS = {
    "users": "users a day",
    "requests_per_user": "requests per user",
    "input_tokens": "input tokens",
    "cached_share": "cached share",
    "output_tokens": "output tokens",
    "reasoning_share": "reasoning share",
    "retry_rate": "retry rate",
    "shadow_share": "shadow share",
    "batch_share": "batch share",
}


def month_figure(rows: tuple[MonthlyCost, ...]) -> Figure:
    """Stacked bars: what each way of serving costs in USD a month, by kind of token. A model named twice has one bar."""
    rows = tuple({row.name: row for row in rows}.values())
    parts = [
        {"model": row.name, "kind": _KINDS[kind][0], "usd": float(amount), "order": i}
        for row in rows
        for i, (kind, amount) in enumerate(row.parts().items())
        if amount
    ]
    cheapest = min(rows, key=lambda row: row.total)
    labels, colours = zip(*_KINDS.values(), strict=True)
    chart = (
        alt.Chart(
            alt.Data(values=parts or [{"model": row.name, "kind": "machines", "usd": 0.0, "order": 0} for row in rows])
        )
        .mark_bar()
        .encode(
            x=alt.X("usd:Q", title="US dollars per month", axis=alt.Axis(format="~s")),
            y=alt.Y("model:N", title=None, sort=[row.name for row in rows], axis=alt.Axis(labelLimit=240)),
            color=alt.Color(
                "kind:N",
                title=None,
                scale=alt.Scale(domain=list(labels), range=list(colours)),
                legend=alt.Legend(orient="bottom", columns=3),
            ),
            order="order:Q",
            tooltip=["model:N", "kind:N", alt.Tooltip("usd:Q", title="USD per month", format=",.0f")],
        )
        .properties(title=f"{cheapest.name} is cheapest: ${cheapest.total:,.0f} a month", height=150)
    )
    words = "; ".join(f"{row.name} {row.total:,.0f} dollars a month" for row in rows)
    return Figure(
        chart, alt=f"Stacked bars of monthly cost. {words}.", source=" · ".join(f"{r.name}: {r.note}" for r in rows)
    )


def tornado_figure(scenario: Scenario, by: float = 0.25) -> Figure:
    """Tornado of the scenario's first model: how its monthly cost changes when each setting moves alone, by the part `by`.

    `labkit.cost.tornado` says how far that is.
    """
    price = price_named(scenario.models[0])
    swings = tornado(scenario, lambda s: api_month(s, price).total, by=by)
    base = float(api_month(scenario, price).total)
    rows = [
        {
            "setting": _WORDS[s.name],
            "end": "lower" if end == "low" else "higher",
            "moved to": f"{value:,.4g}",
            "usd": float(cost) - base,
        }
        for s in swings
        for end, value, cost in (("low", s.low, s.cost_low), ("high", s.high, s.cost_high))
    ]
    widest = swings[0]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("usd:Q", title=f"change of {price.model}'s month (US dollars)", axis=alt.Axis(format="~s")),
            y=alt.Y("setting:N", title=None, sort=[_WORDS[s.name] for s in swings]),
            color=alt.Color(
                "end:N", title="setting", scale=alt.Scale(domain=["lower", "higher"], range=[PALETTE["sky"], PALETTE["red"]])
            ),
            tooltip=["setting:N", "moved to:N", alt.Tooltip("usd:Q", title="change, USD", format="+,.0f")],
        )
        .properties(title=f"{_WORDS[widest.name].capitalize()} moves the bill most", height=220)
    )
    words = "; ".join(
        f"{_WORDS[s.name]}: {float(s.cost_low) - base:+,.0f} to {float(s.cost_high) - base:+,.0f}" for s in swings
    )
    return Figure(
        chart,
        alt=f"Tornado, widest first, in dollars a month. {words}.",
        source=f"One setting at a time: down by {by:.0%} of its value; up by as much, or for a share by {by:.0%} of what is "
        f"left to 100%. {price.source}.",
    )


@lru_cache(maxsize=1)
def _model_names() -> tuple[str, ...]:
    return tuple(f"{price.provider}/{price.model}" for provider in _PROVIDERS for price in listed(provider))


# Parameters that servers put into the address for their own use: Jupyter's token, JupyterHub's and Voilà's parameters.
_SERVERS_OWN = re.compile(r"token|_xsrf|reset|redirects|template|theme|(?:voila|jupyter|hub)[-_].*")


def settings_from_url() -> tuple[Scenario, tuple[str, ...]]:
    """The scenario in the URL's query, which Voilà hands over as QUERY_STRING, and a note on each parameter left out.

    Settings that the query does not name have their defaults. The server's own parameters are skipped without a note. A
    parameter that is no setting is left out, and its note names the setting that it may have meant. A setting whose value
    makes no sense keeps its default, and its note says why.
    """
    names = [f.name for f in fields(Scenario)]
    good: dict[str, str] = {}
    notes = []
    for name, value in parse_qsl(os.environ.get("QUERY_STRING", ""), keep_blank_values=True):
        if _SERVERS_OWN.fullmatch(name):
            continue
        if name not in names:
            near = get_close_matches(name, names, n=1)
            notes.append(f"there is no setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
            continue
        try:
            # Price it as well: only pricing finds a model or machine that no list has.
            month(Scenario.from_mapping({name: value}))
            good[name] = value
        except LabError as error:
            notes.append(str(error))
    return Scenario.from_mapping(good), tuple(notes)


class Dashboard:
    """The calculator's widgets and their wiring. Display `widget`; `scenario` holds the current settings."""

    def __init__(self, scenario: Scenario, file: Path) -> None:
        self._headline, self._message, self._link = w.HTML(), w.HTML(), w.HTML()
        self._month, self._tornado = _Picture(), _Picture()
        self._file = w.Text(str(file), description="File", continuous_update=False)
        self._controls: dict[str, Any] = {}
        self._fields = w.VBox()
        self.widget = self._layout()
        self.load(scenario)

    def load(self, scenario: Scenario) -> None:
        """Show `scenario`: draw its charts and make its controls.

        The controls are made anew because their ranges and the number of models depend on the scenario. Raises `LabError`
        for a model or machine that no list has; then nothing has changed.
        """
        self._draw(scenario)
        old, self._controls = self._controls, _controls(scenario)
        for control in self._controls.values():
            control.observe(self._changed, names="value")
        self._fields.children = _grouped(self._controls)
        for control in old.values():
            control.close()

    def _changed(self, _: Any) -> None:
        values = {name: self._meant(name, control) for name, control in self._controls.items()}
        models = tuple(values.pop(f"model{i}") for i in range(len(self.scenario.models)))
        self._guarded(lambda: self._draw(replace(self.scenario, **values, models=models)))

    def _meant(self, name: str, control: Any) -> Any:
        # The browser rounds a slider to its steps and reports that as a change. Only half a step or more is the user's.
        now = getattr(self.scenario, name, None)
        if isinstance(control, w.FloatSlider) and now is not None and abs(control.value - now) < control.step / 2:
            return now
        return control.value

    def _draw(self, scenario: Scenario) -> None:
        rows = month(scenario)
        by_kind, swings = month_figure(rows), tornado_figure(scenario)
        self._month.draw(by_kind)
        self._tornado.draw(swings)
        first, own = rows[0], hosted_month(scenario)
        per = first.per_thousand_requests
        self._headline.value = (
            f"<div style='font-size:1.25em'><b>${first.total:,.0f}</b> a month with {escape(first.name)}"
            + (f" · <b>${per:,.2f}</b> per 1,000 requests" if per is not None else "")
            + f" · self-hosted <b>${own.total:,.0f}</b></div>"
        )
        query = scenario.to_query()
        code = f"<code style='overflow-wrap:anywhere;white-space:normal'>?{escape(query)}</code>"
        shared = f"add {code} to the app's address" if query else "these are the defaults"
        self._link.value = f"<small>Share: {shared}</small>"
        self.scenario = scenario

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
            self._message.value = ""
        except (LabError, OSError, UnicodeDecodeError) as error:
            self._message.value = f"<div role='alert'><b>Not changed:</b> {escape(str(error))}</div>"

    def _save(self, _: Any) -> None:
        def act() -> None:
            self.scenario.save(Path(self._file.value))

        self._guarded(act)

    def _layout(self) -> Any:
        buttons = {"Save": self._save, "Load": self._load, "Reset": lambda _: self._guarded(lambda: self.load(Scenario()))}
        row = []
        for label, act in buttons.items():
            button = w.Button(description=label, layout=w.Layout(width="5.5em"))
            button.on_click(act)
            row.append(button)
        left = [w.HTML(STYLE), self._fields, w.HTML("<b>Settings</b>"), self._file, w.HBox(row), self._link]
        right = [self._headline, self._message, self._month.widget, self._tornado.widget]
        return w.HBox(
            [
                w.VBox(left, layout=w.Layout(flex="0 0 27em")),
                w.VBox(right, layout=w.Layout(flex="1 1 36em", overflow="hidden")),
            ],
            layout=w.Layout(flex_flow="row wrap", grid_gap="1.5em"),
        )

    def _load(self, _: Any) -> None:
        self._guarded(lambda: self.load(Scenario.from_json(Path(self._file.value).read_text())))


_WIDTH_PX = 720


class _Picture:
    """A chart with its caption and text alternative, redrawn in place."""

    def __init__(self) -> None:
        self._output, self._words = w.Output(), w.HTML()
        self.widget = w.VBox([self._output, self._words])

    def draw(self, figure: Figure) -> None:
        data, metadata = bundle(figure, _WIDTH_PX)
        # Replace the outputs in one assignment: clearing them first would make the page flicker.
        self._output.outputs = ({"output_type": "display_data", "data": data, "metadata": metadata},)
        self._words.value = caption_html(figure)


def _grouped(controls: dict[str, Any]) -> tuple[Any, ...]:
    groups: dict[str, tuple[str, ...]] = {
        "Traffic": ("users", "requests_per_user", "days", "peak_factor"),
        "One request": ("input_tokens", "cached_share", "output_tokens", "reasoning_share"),
        "Overheads": ("retry_rate", "shadow_share", "batch_share"),
        "Compared": (*(name for name in controls if name.startswith("model")), "host", "host_tokens_per_second"),
    }
    column: list[Any] = []
    for title, names in groups.items():
        column += [w.HTML(f"<b>{title}</b>"), *(controls[name] for name in names)]
    return tuple(column)


def _decimals(number: str) -> int:
    exponent = Decimal(number).as_tuple().exponent
    return max(0, -int(exponent))


_MOST_DECIMALS = 4  # of a measured share, say; finer steps would be too small to drag a slider by


def _controls(scenario: Scenario) -> dict[str, Any]:
    style = {"description_width": "11.5em"}
    layout = w.Layout(width="auto")

    # A slider rounds its value to its steps, so the steps are made fine enough to hold the scenario's own value.
    def whole(name: str, label: str, high: int, step: int, low: int = 0) -> Any:
        value = getattr(scenario, name)
        step = gcd(step, value - low)
        return w.IntSlider(value, low, max(high, value), step, description=label, style=style, layout=layout)

    def real(name: str, label: str, high: float, step: str, low: float = 0.0) -> Any:
        value = getattr(scenario, name)
        digits = _decimals(step)
        if Decimal(str(value)) % Decimal(step):
            digits = min(max(digits, _decimals(str(value))), _MOST_DECIMALS)
            step = str(Decimal(10) ** -digits)
        return w.FloatSlider(
            value,
            min=low,
            max=max(high, value),
            step=float(step),
            description=label,
            readout_format=f".{digits}f",
            style=style,
            layout=layout,
        )

    names = _model_names()
    menus = {
        f"model{i}": w.Dropdown(
            options=names if name in names else (*names, name),
            value=name,
            description=f"Model {i + 1}",
            style=style,
            layout=layout,
        )
        for i, name in enumerate(scenario.models)
    }
    machines = [(machine.name, key) for key, machine in hosts().items()]
    return {
        "users": whole("users", "Users a day", 1_000_000, 1_000),
        "requests_per_user": real("requests_per_user", "Requests per user", 50, "0.5"),
        "days": whole("days", "Days a month", 31, 1, low=1),
        "peak_factor": real("peak_factor", "Peak / mean", 20, "0.5", low=1),
        "input_tokens": whole("input_tokens", "Input tokens", 50_000, 1),
        "cached_share": real("cached_share", "Cached share", 1, "0.01"),
        "output_tokens": whole("output_tokens", "Output tokens", 5_000, 1),
        "reasoning_share": real("reasoning_share", "Reasoning share", 1, "0.01"),
        "retry_rate": real("retry_rate", "Retries per request", 2, "0.01"),
        "shadow_share": real("shadow_share", "Shadow per request", 1, "0.01"),
        "batch_share": real("batch_share", "Batch share", 1, "0.01"),
        **menus,
        "host": w.Dropdown(options=machines, value=scenario.host, description="Own machine", style=style, layout=layout),
        "host_tokens_per_second": w.BoundedFloatText(
            scenario.host_tokens_per_second, min=1, max=1e7, description="Its output tok/s", style=style, layout=layout
        ),
    }


def dashboard(scenario: Scenario | None = None, file: Path = Path("scenario.json")) -> Any:
    """The calculator as one widget. It shows `scenario`; without one, the settings in the URL and defaults for the rest.

    `file` is where Save and Load start from. Settings in the URL that cannot be applied are named above the calculator.
    Raises `LabError` for a `scenario` with a model or machine that no list has.
    """
    if scenario is not None:
        return Dashboard(scenario, file).widget
    settings, notes = settings_from_url()
    shown = Dashboard(settings, file).widget
    if not notes:
        return shown
    listed_notes = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return w.VBox([w.HTML(f"<div role='alert'><b>Not applied from the address:</b><ul>{listed_notes}</ul></div>"), shown])
