"""A stack as plain data (what YAML and JSON can hold), and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from labkit.request import Chooser, Handler, InvalidValue, Lever, Placed, stack
from labkit.stacks.kinds import FUNCTIONS, SHARED, VALUES

VERSION = 1
IS, USE, NAME, FUNCTION = "is", "use", "name", "function"
_MARKS = frozenset({IS, USE, NAME, FUNCTION})
_SET, _DECIMAL, _MAPPING = "set", "decimal", "mapping"


def to_data(handler: Handler, names: Mapping[str, object] | None = None) -> dict[str, Any]:
    """`handler` as plain data. `names` gives a name to each engine in it, and to each function or object of your own.

    Raises `InvalidValue`, with the place in the stack, for something that no file can hold and that `names` does not name.
    """
    writer = _Writer(dict(names or {}))
    levers, engine = writer.placed(handler, "stack")
    data: dict[str, Any] = {"labkit_stack": VERSION}
    if writer.shared:
        data["shared"] = {name: data for name, (_, data) in writer.shared.items()}
    return data | {"stack": levers, "engine": engine}


def from_data(data: object, names: Mapping[str, object] | None = None) -> Handler:
    """The stack for which `to_data` gave `data`; `names` maps the names in it to your engines, functions and objects.

    Raises `InvalidValue`, with the place in the data, for an unknown lever, setting or name, so that a misspelt limit is an
    error and not a missing limit.
    """
    if not isinstance(data, Mapping) or data.get("labkit_stack") != VERSION:
        raise InvalidValue(f"this is no stack: it should begin with labkit_stack: {VERSION}")
    unknown = set(data) - {"labkit_stack", "shared", "stack", "engine"}
    if unknown:
        raise InvalidValue(f"a stack has no {', '.join(sorted(map(str, unknown)))}; it has shared, stack and engine")
    reader = _Reader(dict(names or {}))
    shared = data.get("shared") or {}
    if not isinstance(shared, Mapping):
        raise InvalidValue(f"shared is {shared!r:.80}; it maps names to what several levers use")
    for name, what in shared.items():
        reader.shared[str(name)] = reader.shared_object(what, f"shared.{name}")
    return reader.placed(data, "stack")


@dataclass(slots=True)
class _Writer:
    names: dict[str, object]
    shared: dict[str, tuple[object, dict[str, Any]]] = field(default_factory=dict)

    def placed(self, handler: object, place: str) -> tuple[list[Any], Any]:
        """The levers of a stack, outermost first, and the engine or engines that they stand around."""
        levers: list[Any] = []
        while isinstance(handler, Placed) and self._name(handler) is None:
            levers.append(self.value(handler.lever, f"{place}[{len(levers)}]"))
            if isinstance(handler.inner, Mapping):
                return levers, {name: self._engine(model, f"engine.{name}") for name, model in handler.inner.items()}
            handler = handler.inner
        return levers, self._engine(handler, "engine")

    def _engine(self, handler: object, place: str) -> Any:
        name = self._name(handler)
        if name is not None:
            return name
        if isinstance(handler, Placed):
            levers, engine = self.placed(handler, f"{place}.stack")
            return {"stack": levers, "engine": engine}
        raise InvalidValue(f'{place} is {handler!r:.80}; give it a name, as in names={{"small": …}}')

    def _name(self, what: object) -> str | None:
        return next((name for name, named in self.names.items() if named is what), None)

    def value(self, what: Any, place: str) -> Any:
        """Any setting of a lever, as plain data."""
        if what is None or isinstance(what, bool | int | str):
            return what
        if isinstance(what, float):
            if not math.isfinite(what):
                raise InvalidValue(f"{place} is {what}; a file holds finite numbers")
            return what
        if isinstance(what, Decimal):
            return {IS: _DECIMAL, "of": format(what, "f")}
        name = self._name(what)
        if name is not None:
            return {NAME: name}
        if isinstance(what, Mapping):
            return self._mapping(what, place)
        if isinstance(what, frozenset | set):
            return {IS: _SET, "of": sorted((self.value(each, place) for each in what), key=repr)}
        if isinstance(what, list | tuple):
            return [self.value(each, f"{place}[{i}]") for i, each in enumerate(what)]
        return self._object(what, place)

    def _mapping(self, what: Mapping[Any, Any], place: str) -> Any:
        if all(isinstance(key, str) for key in what) and not _MARKS & set(what):
            return {key: self.value(each, f"{place}.{key}") for key, each in what.items()}
        pairs = [[self.value(key, place), self.value(each, f"{place}.{key}")] for key, each in what.items()]
        return {IS: _MAPPING, "of": pairs}

    def _object(self, what: Any, place: str) -> Any:
        kind = type(what).__name__
        for function, known in FUNCTIONS.items():
            if known is what:
                return {FUNCTION: function}
        if kind in SHARED and type(what) is SHARED[kind].kind:
            return {USE: self._shared(what, kind, place)}
        if is_dataclass(what) and VALUES.get(kind) is type(what):
            found = {IS: kind}
            for each in fields(what):
                value = getattr(what, each.name)
                if each.init and not _is_default(each, value):
                    found[each.name] = self.value(value, f"{place}.{each.name}")
            return found
        raise InvalidValue(
            f"{place} is {what!r:.80}, which no file can hold; use what the lab offers for it, or give it a name, as in "
            'names={"mine": …}'
        )

    def _shared(self, what: Any, kind: str, place: str) -> str:
        for name, (known, _) in self.shared.items():
            if known is what:
                return name
        name = f"{kind.lower()}-{1 + sum(type(known) is type(what) for known, _ in self.shared.values())}"
        settings = {key: self.value(each, f"{place}.{key}") for key, each in SHARED[kind].write(what).items()}
        self.shared[name] = (what, {IS: kind, **settings})
        return name


@dataclass(slots=True)
class _Reader:
    names: dict[str, object]
    shared: dict[str, object] = field(default_factory=dict)

    def placed(self, data: Mapping[str, Any], place: str) -> Handler:
        levers = data.get("stack", [])
        if not isinstance(levers, list):
            raise InvalidValue(f"{place} is {levers!r:.80}; it is a list of levers, the outermost first")
        made = [self.value(each, f"{place}[{i}]") for i, each in enumerate(levers)]
        for i, lever in enumerate(made):
            if not isinstance(lever, Lever | Chooser):
                raise InvalidValue(f"{place}[{i}] is {lever!r:.80}, which is no lever")
        if "engine" not in data:
            raise InvalidValue(f"{place} has no engine below it; name one, as in engine: small")
        engine = data["engine"]
        if made and isinstance(made[-1], Chooser):
            if not isinstance(engine, Mapping) or set(engine) <= {"stack", "engine"}:
                raise InvalidValue(f"engine is {engine!r:.80}; {type(made[-1]).__name__} chooses among models by name")
            return stack(*made, engine={str(name): self._engine(each, f"engine.{name}") for name, each in engine.items()})
        return stack(*made, engine=self._engine(engine, "engine"))

    def _engine(self, data: object, place: str) -> Handler:
        if isinstance(data, str):
            return self._named(data, place)  # type: ignore[return-value]
        if isinstance(data, Mapping) and set(data) <= {"stack", "engine"}:
            return self.placed(data, f"{place}.stack")
        raise InvalidValue(f"{place} is {data!r:.80}; give the name of an engine, or a stack and an engine of its own")

    def _named(self, name: object, place: str) -> object:
        if not isinstance(name, str) or name not in self.names:
            raise InvalidValue(
                f"{place} names {name!r}, and names has {', '.join(self.names) or 'nothing'}; say what it is, as in "
                f"names={{{name!r}: …}}"
            )
        return self.names[name]

    def value(self, data: Any, place: str) -> Any:
        if isinstance(data, Mapping):
            return self._object(data, place)
        if isinstance(data, Sequence) and not isinstance(data, str):
            return tuple(self.value(each, f"{place}[{i}]") for i, each in enumerate(data))
        return data

    def _object(self, data: Mapping[str, Any], place: str) -> Any:
        if set(data) == {NAME}:
            return self._named(data[NAME], place)
        if set(data) == {USE}:
            if data[USE] not in self.shared:
                raise InvalidValue(f"{place} uses {data[USE]!r}; shared has {', '.join(self.shared) or 'nothing'}")
            return self.shared[data[USE]]
        if set(data) == {FUNCTION}:
            if data[FUNCTION] not in FUNCTIONS:
                raise InvalidValue(f"{place} is the function {data[FUNCTION]!r}; there are {', '.join(FUNCTIONS)}")
            return FUNCTIONS[data[FUNCTION]]
        if IS not in data:
            return {key: self.value(each, f"{place}.{key}") for key, each in data.items()}
        return self._made(data, place)

    def _made(self, data: Mapping[str, Any], place: str) -> Any:
        kind = data[IS]
        if kind in (_SET, _DECIMAL, _MAPPING):
            return self._built_in(kind, data.get("of"), place)
        if kind not in VALUES:
            raise InvalidValue(f"{place} is a {kind!r}, which is unknown here; there are {', '.join(sorted(VALUES))}")
        settings = {key: self.value(each, f"{place}.{key}") for key, each in data.items() if key != IS}
        known = [each.name for each in fields(VALUES[kind]) if each.init]
        for key in settings:
            if key not in known:
                raise InvalidValue(f"{place}: {kind} has no setting {key!r}; it has {', '.join(known)}")
        return _call(VALUES[kind], settings, place, kind)

    def _built_in(self, kind: str, of: Any, place: str) -> Any:
        try:
            if kind == _DECIMAL:
                return Decimal(of)
            if kind == _SET:
                return frozenset(self.value(each, place) for each in of)
            return {self.value(key, place): self.value(each, place) for key, each in of}
        except (TypeError, ValueError, InvalidOperation) as error:
            raise InvalidValue(f"{place} is no {kind}: {of!r:.80}") from error

    def shared_object(self, data: Any, place: str) -> object:
        if not isinstance(data, Mapping) or data.get(IS) not in SHARED:
            raise InvalidValue(f"{place} is {data!r:.80}; it is one of {', '.join(SHARED)}, as in {{{IS}: Store}}")
        settings = {key: self.value(each, f"{place}.{key}") for key, each in data.items() if key != IS}
        return _call(SHARED[data[IS]].read, settings, place, data[IS])


def _call(make: Any, settings: dict[str, Any], place: str, kind: str) -> Any:
    try:
        return make(**settings)
    except TypeError as error:
        raise InvalidValue(f"{place}: {kind} cannot be made of {', '.join(settings) or 'nothing'}: {error}") from error
    except InvalidValue as error:
        raise InvalidValue(f"{place}: {error}") from error


def _is_default(of: Any, value: object) -> bool:
    if of.default is not MISSING:
        return type(value) is type(of.default) and bool(value == of.default)
    return of.default_factory is not MISSING and bool(value == of.default_factory())
