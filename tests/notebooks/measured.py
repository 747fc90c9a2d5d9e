"""What a chapter's source measures, and what each measurement needs."""

import ast

import jupytext

from labkit.workbook.build import sources
from labkit.workbook.chapters import chapter


def needs_of(name: str) -> dict[str, tuple[str, ...]]:
    """The needs of each measurement of a chapter, by its id. Needs that the run chooses count as the chapter's."""
    (path,) = sources([name])
    code = "\n".join(cell.source for cell in jupytext.read(path, fmt="py:percent").cells if cell.cell_type == "code")
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    found = {}
    for call in calls:
        if ast.unparse(call.func) == "book.measure":
            own = {keyword.arg: keyword.value for keyword in call.keywords}.get("needs")
            found[ast.literal_eval(call.args[0])] = (
                ast.literal_eval(own) if isinstance(own, ast.Tuple) else chapter(name[:2]).needs
            )
    return found
