"""Validators: an answer that breaks a rule known beforehand is not right, however sure the model was of it.

A `Validator` reads an answer and returns what is wrong with it, "" for nothing. `Valid` makes one judge of several
validators: 1 where none of them complains, else 0 with every complaint. A 1 only means that no validator objects, so combine
`Valid` with another judge by `AllOf`.
"""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from labkit.request import Completion, InvalidValue, Request
from labkit.routing.checks import check_function, several, texts
from labkit.routing.signals import Score, phrases, plain

Validator = Callable[[Completion], str]


@dataclass(frozen=True)
class Valid:
    """1 where none of `validators` complains, else 0 with all complaints as the reason; a `Judge`.

    A validator that raises, or returns something other than a text, counts as a complaint about that.
    """

    validators: tuple[Validator, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "validators", several(self.validators, None, "Valid"))

    def __call__(self, _: Request, completion: Completion) -> Score:
        """The score of one answer."""
        started = time.perf_counter()
        complaints = [said for validator in self.validators if (said := _complaint(validator, completion))]
        return Score(float(not complaints), "valid", seconds=time.perf_counter() - started, reason="; ".join(complaints))


@dataclass(frozen=True)
class Finished:
    """The answer ended by itself and was not cut off by `max_tokens` or a filter."""

    def __call__(self, completion: Completion) -> str:
        """What is wrong with an answer, "" for nothing."""
        reason = completion.done.finish_reason
        return "" if reason in ("stop", "tool_calls") else f"the answer ended with {reason!r}"


@dataclass(frozen=True)
class JsonSchema:
    """The answer is JSON and fits `schema` (draft 2020-12). NaN and Infinity are not JSON.

    A `$ref` to another address is never fetched: the check raises, and `Valid` counts that as a complaint. Raises
    `InvalidValue` where `schema` is no valid schema.
    """

    schema: Mapping[str, Any]
    _validator: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from jsonschema import Draft202012Validator, SchemaError  # not above: they take a fifth of a second to import
        from referencing import Registry

        if not isinstance(self.schema, Mapping):
            raise InvalidValue(f"a JSON schema is an object; {self.schema!r:.80} is none")
        object.__setattr__(self, "schema", deepcopy(dict(self.schema)))
        try:
            Draft202012Validator.check_schema(self.schema)
        except SchemaError as error:
            raise InvalidValue(f"this is no JSON schema: {error.message}; see {error.json_path}") from error
        # The registry is empty, because the default one would fetch remote references over the network during a request.
        object.__setattr__(self, "_validator", Draft202012Validator(self.schema, registry=Registry()))

    def __call__(self, completion: Completion) -> str:
        """What is wrong with an answer, "" for nothing."""
        try:
            value = json.loads(completion.text, parse_constant=_no_constant)
        except ValueError as error:
            return f"not JSON: {error}"
        found = sorted(self._validator.iter_errors(value), key=lambda error: error.json_path)
        return "; ".join(f"{error.json_path}: {error.message}" for error in found[:3])


@dataclass(frozen=True)
class KeepsRule:
    """A business rule: `holds(text)` is true for every answer that keeps it. `name` is the rule's name in the complaint."""

    name: str
    holds: Callable[[str], bool]

    def __post_init__(self) -> None:
        check_function(self.holds, f"the rule {self.name!r} needs a function from a text to whether it keeps the rule")

    def __call__(self, completion: Completion) -> str:
        """What is wrong with an answer, "" for nothing."""
        return "" if self.holds(completion.text) else f"breaks the rule {self.name!r}"


@dataclass(frozen=True)
class UnsafePhrases:
    """The answer holds none of the phrases in `words`, neither in its text nor in its reasoning.

    Phrases are found as whole words, in any case, width and spacing. Raises `InvalidValue` without phrases and for an empty
    phrase.
    """

    words: tuple[str, ...]
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", texts(self.words, "unsafe phrases"))
        folded = [_folded(word).strip() for word in self.words]
        if not folded or not all(folded):
            raise InvalidValue(f"UnsafePhrases needs phrases with at least one letter each; it got {self.words!r:.80}")
        object.__setattr__(self, "_pattern", phrases(folded))

    def __call__(self, completion: Completion) -> str:
        """What is wrong with an answer, "" for nothing."""
        found = self._pattern.search(plain(_folded(f"{completion.text}\n{completion.reasoning}")))
        return f"says {found.group()!r}" if found else ""


def _complaint(validator: Validator, completion: Completion) -> str:
    name = getattr(validator, "name", "") or getattr(validator, "__name__", "") or type(validator).__name__
    try:
        said = validator(completion)
    except Exception as error:  # noqa: BLE001 - a broken validator must not fail the request, nor pass the answer
        return f"{name} raised {error!r:.300}"
    return said if isinstance(said, str) else f"{name} returned {said!r:.80}, which is no text"


def _folded(text: str) -> str:
    # Full-width letters become plain ones. Soft hyphens and zero-width characters would split a phrase, so they are removed.
    return re.sub("[\u00ad\u200b-\u200d\u2060\ufeff]", "", unicodedata.normalize("NFKC", text))


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
