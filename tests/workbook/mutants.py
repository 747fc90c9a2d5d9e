"""Mutants of a piece of Python: the same code with one small mistake, such as a learner makes.

`mutants` gives each as a description, `line 3: n < 2 -> n <= 2`, and its source. Lines are counted in the source that was
given. Docstrings, annotations, decorators, f-strings (messages for people) and the `strict=` of `zip` stay as they are.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

_FLIPS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt, ast.LtE),
    ast.Eq: (ast.NotEq, ast.LtE, ast.GtE),
    ast.NotEq: (ast.Eq, ast.Lt, ast.Gt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OTHER: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
}
_NOT_COMMUTATIVE = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_TWINS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_BLANKS = {"int": "1", "float": "1.0", "str": "''", "bool": "False"}  # what stands for an argument of that type; else None
_KEPT = frozenset({"annotation", "returns", "decorator_list", "type_params"})
_SHOWN = 80
Node = TypeVar("Node", bound=ast.AST)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def mutants(source: str) -> Iterator[tuple[str, str]]:
    """(description, source) of every mutant of `source` that compiles and is not the same code; each source once."""
    tree = ast.parse(source)
    seen, told = {ast.unparse(tree)}, Counter[str]()
    for node, parent in _nodes(tree, tree):
        for new in _changes(node):
            if parent is tree and isinstance(new, ast.Pass):
                continue  # the answer itself may not be dropped
            made = ast.unparse(_exchanged(tree, node, new))
            if made in seen or not _compiles(made):
                continue
            seen.add(made)
            says = f"line {_line(node)}: {_difference(node, new, parent)}"
            told[says] += 1
            yield says if told[says] == 1 else f"{says} ({told[says]})", made


def _nodes(node: ast.AST, parent: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Every node that may be changed, with its parent."""
    yield node, parent
    for name, value in ast.iter_fields(node):
        if name in _KEPT:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _stays(child):
                yield from _nodes(child, node)


def _exchanged(tree: Node, old: ast.AST, new: ast.AST) -> Node:
    """A deep copy of `tree` that holds `new` in the place of `old`."""
    return copy.deepcopy(tree, {id(old): new})


def _stays(node: ast.AST) -> bool:
    strict = isinstance(node, ast.keyword) and node.arg == "strict"
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return strict or text or isinstance(node, ast.JoinedStr)


def _compiles(source: str) -> bool:
    try:
        compile(source, "<mutant>", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _line(node: ast.AST) -> int:
    return node.target.lineno if isinstance(node, ast.comprehension) else getattr(node, "lineno", 0)


def _difference(node: ast.AST, new: ast.AST, parent: ast.AST) -> str:
    """The code before and after. What says little alone is shown in what holds it, and what is long, by its difference."""
    if isinstance(node, ast.Constant | ast.Slice | ast.Tuple | ast.Name) and not isinstance(parent, ast.Module):
        node, new = parent, _exchanged(parent, node, new)
    if isinstance(new, Function):
        return f"{new.name}(…) with {ast.unparse(new.body[0])}"
    before, after = _told(node).split(" "), _told(new).split(" ")
    if max(len(" ".join(before)), len(" ".join(after))) > _SHOWN and not isinstance(new, ast.Pass):
        shortest = min(len(before), len(after)) - 1
        first = next((i for i in range(shortest) if before[i] != after[i]), shortest)
        rest = shortest - first
        last = next((i for i in range(rest) if before[-1 - i] != after[-1 - i]), rest)
        before, after = (words[max(0, first - 2) : len(words) - max(0, last - 2)] for words in (before, after))
    return f"{_cut(before)} -> {_cut(after)}"


def _cut(words: Sequence[str]) -> str:
    text = " ".join(words)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _told(node: ast.AST) -> str:
    """The first line of the node's code."""
    text = ast.unparse(node).strip().splitlines()[0]
    return f"{text} … else: …" if isinstance(node, ast.If) and node.orelse else text


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in the node's place."""
    if isinstance(node, ast.stmt):
        yield from _changed_statement(node)
    elif isinstance(node, ast.expr):
        yield from _changed_expression(node)
    elif isinstance(node, ast.comprehension):
        for i, test in enumerate(node.ifs):
            yield _with(node, ifs=[*node.ifs[:i], *node.ifs[i + 1 :]])
            for new in _negated(test):
                yield _with(node, ifs=[*node.ifs[:i], new, *node.ifs[i + 1 :]])


def _changed_statement(node: ast.stmt) -> Iterator[ast.AST]:
    yield ast.Pass()
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from _ignored(node)
        case ast.If() | ast.While():
            for new in _negated(node.test):
                yield _with(node, test=new)
            if node.orelse:
                yield _with(node, orelse=[])
        case ast.AugAssign() if type(node.op) in _OTHER:
            yield _with(node, op=_OTHER[type(node.op)]())
            yield ast.Assign([node.target], node.value, lineno=node.lineno)
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case ast.Return(value=ast.expr() as value):
            if isinstance(value, ast.Tuple):
                yield _with(node, value=_with(value, elts=value.elts[::-1]))
            yield _with(node, value=ast.Constant(None))


def _changed_expression(node: ast.expr) -> Iterator[ast.AST]:
    match node:
        case ast.Compare():
            for i, op in enumerate(node.ops):
                for other in _FLIPS[type(op)]:
                    yield _with(node, ops=[*node.ops[:i], other(), *node.ops[i + 1 :]])
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield from (ast.Constant(new) for new in (value + 1, value - 1, type(value)(0), 2 * value))
        case ast.Constant(value=str()):
            yield ast.Constant("")
        case ast.BinOp():
            if type(node.op) in _OTHER:
                yield _with(node, op=_OTHER[type(node.op)]())
            if isinstance(node.op, _NOT_COMMUTATIVE):
                yield _with(node, left=node.right, right=node.left)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.BoolOp():
            yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
            for i in range(len(node.values)):
                rest = [*node.values[:i], *node.values[i + 1 :]]
                yield rest[0] if len(rest) == 1 else _with(node, values=rest)
        case ast.IfExp():
            yield from (_with(node, test=new) for new in _negated(node.test))
            yield node.body
            yield node.orelse
        case ast.Slice():
            yield from _moved_slice(node)
        case ast.Tuple(ctx=ast.Load()) | ast.List(ctx=ast.Load()):
            for i in range(len(node.elts)):
                yield _with(node, elts=[*node.elts[:i], *node.elts[i + 1 :]])
        case ast.Call():
            yield from _changed_call(node)


def _changed_call(node: ast.Call) -> Iterator[ast.AST]:
    for i, keyword in enumerate(node.keywords):
        if keyword.arg not in (None, "strict"):
            yield _with(node, keywords=[*node.keywords[:i], *node.keywords[i + 1 :]])
    if not isinstance(node.func, ast.Name):
        return
    name = node.func.id
    if name in _TWINS:
        yield _with(node, func=ast.Name(_TWINS[name]))
        if not node.keywords and len(node.args) > 1:
            yield from node.args
    elif name == "range":
        if len(node.args) == 1:
            yield _with(node, args=[ast.Constant(1), *node.args])
        for i, bound in enumerate(node.args):
            for new in _moved(bound):
                yield _with(node, args=[*node.args[:i], new, *node.args[i + 1 :]])
    elif name == "sorted":
        yield ast.Call(ast.Name("list"), node.args[:1], [])
        yield _read_backwards(node)
    elif name == "reversed":
        yield node.args[0]


def _negated(test: ast.expr) -> Iterator[ast.expr]:
    """`not test`; nothing for a comparison, whose flips include its opposite, nor for what is negated already."""
    if not (isinstance(test, ast.Compare) and len(test.ops) == 1) and not isinstance(test, ast.UnaryOp):
        yield ast.UnaryOp(ast.Not(), test)


def _moved(bound: ast.expr) -> Iterator[ast.expr]:
    if not isinstance(bound, ast.Constant):  # a constant is moved for itself
        yield ast.BinOp(bound, ast.Add(), ast.Constant(1))
        yield ast.BinOp(bound, ast.Sub(), ast.Constant(1))


def _moved_slice(node: ast.Slice) -> Iterator[ast.AST]:
    yield from (_with(node, lower=new) for new in (_moved(node.lower) if node.lower else [ast.Constant(1)]))
    yield from (_with(node, upper=new) for new in (_moved(node.upper) if node.upper else [ast.Constant(-1)]))
    if node.lower and node.upper:
        yield _with(node, lower=None)
    if node.lower or node.upper:
        yield ast.Slice()


def _read_backwards(node: ast.expr) -> ast.expr:
    return ast.Subscript(node, ast.Slice(step=ast.Constant(-1)))


def _ignored(node: Function) -> Iterator[ast.AST]:
    """The function with one argument ignored: another of the same type, or a constant, is used in its place."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    used = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    for one in arguments:
        if one.arg == "self" or one.arg not in used:
            continue
        kind = ast.unparse(one.annotation) if one.annotation else ""
        others = [o.arg for o in arguments if o is not one and o.annotation and ast.unparse(o.annotation) == kind]
        for other in [*others, _BLANKS.get(kind, "None")]:
            yield _with(node, body=[*_parsed(f"{one.arg} = {other}"), *node.body])


def _parsed(source: str) -> Sequence[ast.stmt]:
    return ast.parse(source).body


def _with(node: ast.AST, **fields: ast.AST | Iterable[ast.AST] | None) -> ast.AST:
    """A shallow copy of the node with some fields changed."""
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new
