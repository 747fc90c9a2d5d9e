"""No test is written so that it cannot fail. Each rule is one that a test of this repository has broken before."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FILES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(TESTS.rglob("*.py"))}
SAME_LENGTH = {"enumerate", "zip", "sorted", "reversed", "list", "tuple", "set", "items", "keys", "values"}
"""What gives as many things as it is given, or (`zip`) at least one when each of its arguments has one."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
With = ast.With | ast.AsyncWith


def called(node: ast.AST) -> str:
    """The last part of the name that a call calls: `raises` of `pytest.raises(…)`."""
    function = node.func if isinstance(node, ast.Call) else None
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def is_check(node: ast.AST, helpers: set[str]) -> bool:
    """An assertion, `with pytest.raises(…)`, a call that only fails (`pytest.fail`), or a call of a helper that has one."""
    if isinstance(node, With):
        return any(called(item.context_expr) in ("raises", "warns") for item in node.items)
    name = called(node)
    return isinstance(node, ast.Assert) or name in helpers or name == "fail" or name.startswith("assert_")


def helpers_in(files: dict[Path, ast.Module]) -> set[str]:
    """Functions beside the tests that check something, or call one that does."""
    found: set[str] = set()
    functions = [n for tree in files.values() for n in ast.walk(tree) if isinstance(n, Function)]
    while more := {
        f.name
        for f in functions
        if not f.name.startswith("test") and f.name not in found and any(is_check(n, found) for n in ast.walk(f))
    }:
        found |= more
    return found


def has_items(node: ast.AST | None, known: dict[str, ast.expr]) -> bool:
    """Whether this is seen to hold something: written out here, or a name for what is."""
    if isinstance(node, ast.Name):
        return has_items(known.get(node.id), {name: value for name, value in known.items() if name != node.id})
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(not isinstance(item, ast.Starred) or has_items(item.value, known) for item in node.elts)
    if isinstance(node, ast.Dict):
        return bool(node.keys)
    if isinstance(node, ast.Call) and called(node) == "range":
        return all(isinstance(bound, ast.Constant) for bound in node.args)
    if isinstance(node, ast.Call) and called(node) in SAME_LENGTH:
        inside = [*node.args, *([node.func.value] if isinstance(node.func, ast.Attribute) else [])]
        return all(has_items(part, known) for part in inside)
    return isinstance(node, ast.Constant) and bool(node.value)


def always_checks(body: list[ast.stmt], known: dict[str, ast.expr], helpers: set[str]) -> bool:
    """Whether something is checked whatever the data: not only in loops that may have no turn or branches not taken."""
    for node in body:
        if isinstance(node, ast.For | ast.AsyncFor | ast.While):
            turns = has_items(node.test if isinstance(node, ast.While) else node.iter, known)
            if turns and always_checks(node.body, known, helpers):
                return True
        elif isinstance(node, ast.If):
            if node.orelse and all(always_checks(part, known, helpers) for part in (node.body, node.orelse)):
                return True
        elif isinstance(node, With | ast.Try | Function):
            if is_check(node, helpers) or always_checks(node.body, known, helpers):
                return True
        elif any(is_check(inner, helpers) for inner in ast.walk(node)):
            return True
    return False


def bound(nodes: list[ast.AST]) -> dict[str, ast.expr]:
    """Names with what they are bound to."""
    ones = [(n.targets[0] if isinstance(n, ast.Assign) else n.target, n.value) for n in nodes if isinstance(n, BOUND)]
    return {target.id: value for target, value in ones if isinstance(target, ast.Name) and value is not None}


BOUND = (ast.Assign, ast.AnnAssign)


def faults(tree: ast.Module, helpers: set[str]):
    """What in a file of tests cannot fail: (line, what)."""
    for test in (node for node in ast.walk(tree) if isinstance(node, Function) and node.name.startswith("test")):
        known = bound(list(tree.body)) | bound(list(ast.walk(test)))
        given = {argument.arg for argument in test.args.args} - set(bound(list(ast.walk(test))))
        if not any(is_check(node, helpers) for node in ast.walk(test)):
            yield test.lineno, f"{test.name} checks nothing"
        elif not always_checks(test.body, known, helpers):
            yield test.lineno, f"{test.name} checks only in a loop or a branch: prove that it is entered"
        for node in ast.walk(test):
            if isinstance(node, ast.Assert) and isinstance(node.test, ast.Name) and node.test.id in given:
                yield node.lineno, f"{test.name} asserts its own argument {node.test.id}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            said = ast.unparse(node.test)
            if isinstance(node.test, ast.Constant | ast.Tuple | ast.List | ast.Lambda | ast.GeneratorExp | ast.JoinedStr):
                yield node.lineno, f"`assert {said}` is true whatever happens"
            for inner in ast.walk(node.test):
                sides = [inner.left, *inner.comparators] if isinstance(inner, ast.Compare) else []
                alike = len(sides) > len({ast.unparse(side) for side in sides})
                if alike and not any(isinstance(part, ast.Call) for part in ast.walk(inner)):
                    yield node.lineno, f"`{said}` compares a thing with itself"
        elif isinstance(node, ast.Try) and any(
            isinstance(inner, ast.Assert) for part in node.body for inner in ast.walk(part)
        ):
            for handler in node.handlers:
                caught = "AssertionError" if handler.type is None else ast.unparse(handler.type)
                if caught in ("AssertionError", "Exception", "BaseException") and all(
                    isinstance(n, ast.Pass) for n in handler.body
                ):
                    yield node.lineno, f"`except {caught}: pass` swallows the assertion before it"


@pytest.fixture(scope="module")
def helpers():
    """Those of all files: to find them takes a walk through every test."""
    return helpers_in(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_every_test_can_fail(path, helpers):
    found = [f"{path.relative_to(TESTS)}:{line} {what}" for line, what in faults(FILES[path], helpers)]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("run()", "checks nothing"),
        ("for x in found(): assert x == 1", "only in a loop"),
        ("if found(): assert 1 == one()", "only in a loop or a branch"),
        ("with suppress(E): run()", "checks nothing"),
        ("assert path", "asserts its own argument path"),
        ("assert (found(), 'why')", "is true whatever happens"),
        ("assert (x == 1 for x in found())", "is true whatever happens"),
        ("assert found.x == found.x", "compares a thing with itself"),
        ("try:\n        assert run() == 1\n    except Exception:\n        pass", "swallows the assertion"),
    ],
)
def test_each_way_of_not_failing_is_seen(body, told):
    ((_, what),) = faults(ast.parse(f"def test_it(path):\n    {body}\n"), set())
    assert told in what


@pytest.mark.parametrize(
    "body",
    [
        "for x in (1, 2): assert double(x) == 2 * x",
        "if wanted: assert run() == 1\n    else:\n        assert run() is None",
        "with pytest.raises(E): run()",
        "all_of = found()\n    assert all_of\n    for x in all_of: assert x == 1",
        "checked(run())",
        "assert run(1) == run(1)",
    ],
)
def test_what_can_fail_is_left_alone(body):
    assert list(faults(ast.parse(f"def test_it(wanted):\n    {body}\n"), {"checked"})) == []
