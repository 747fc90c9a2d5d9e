"""Validators: an answer that breaks a rule known beforehand is not right, however sure the model was of it.

A `Check` reads an answer and returns what is wrong with it, "" for nothing. `valid` makes a judge of several: 1 where all
are content, else 0 with every complaint. 1 says no more than "nothing against it": join it with a signal by `all_of`.
"""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from jsonschema import Draft202012Validator, SchemaError
from referencing import Registry

from labkit.request import Completion, InvalidRequest, Request
from labkit.routing.signals import Judge, Score, phrases, plain

Check = Callable[[Completion], str]


def valid(*checks: Check) -> Judge:
    """1 where every check is content, else 0; a check that raises is not content, and its error is its complaint."""
    if not checks:
        raise InvalidRequest("valid needs at least one check")

    def judge(_: Request, completion: Completion) -> Score:
        started = time.perf_counter()
        complaints = [complaint for check in checks if (complaint := _complaint(check, completion))]
        return Score(float(not complaints), "valid", seconds=time.perf_counter() - started, reason="; ".join(complaints))

    return judge


def finished() -> Check:
    """The answer ended by itself and was not cut off, by `max_tokens` or by a filter."""

    def check(completion: Completion) -> str:
        reason = completion.done.finish_reason
        return "" if reason in ("stop", "tool_calls") else f"the answer ended with {reason!r}"

    return check


def json_schema(schema: Mapping[str, Any]) -> Check:
    """The answer is JSON and fits `schema` (draft 2020-12). NaN and Infinity are not JSON.

    A `$ref` to another address is never fetched; it counts as not valid. Raises `InvalidRequest` for a wrong schema.
    """
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise InvalidRequest(f"this is no JSON schema: {error.message}; see {error.json_path}") from error
    # An empty registry: the default one would fetch remote references over the network, in the middle of a request.
    validator = Draft202012Validator(schema, registry=Registry())

    def check(completion: Completion) -> str:
        try:
            value = json.loads(completion.text, parse_constant=_no_constant)
        except ValueError as error:
            return f"not JSON: {error}"
        found = sorted(validator.iter_errors(value), key=lambda error: error.json_path)
        return "; ".join(f"{error.json_path}: {error.message}" for error in found[:3])

    return check


def rule(name: str, holds: Callable[[str], bool]) -> Check:
    """A business rule: `holds(text)` is true of every answer that keeps it."""

    def check(completion: Completion) -> str:
        return "" if holds(completion.text) else f"breaks the rule {name!r}"

    check.__name__ = name
    return check


def unsafe_phrases(*words: str) -> Check:
    """The answer holds none of `words`: as whole words, in any case, width and spacing, in its text or its reasoning."""
    if not words or not all(word.strip() for word in words):
        raise InvalidRequest(f"unsafe_phrases needs phrases with at least one letter each; it got {words!r:.80}")
    pattern = phrases(frozenset(_folded(word) for word in words))

    def check(completion: Completion) -> str:
        found = pattern.search(plain(_folded(f"{completion.text}\n{completion.reasoning}")))
        return f"says {found.group()!r}" if found else ""

    return check


def _complaint(check: Check, completion: Completion) -> str:
    try:
        return check(completion)
    except Exception as error:  # noqa: BLE001 - a broken check must not break a request, nor let an answer through
        return f"{check.__name__} raised {error!r}" if hasattr(check, "__name__") else f"a check raised {error!r}"


def _folded(text: str) -> str:
    # Full-width letters become plain ones; soft hyphens and zero-width characters, which would split a phrase, go.
    return re.sub("[\u00ad\u200b-\u200d\u2060\ufeff]", "", unicodedata.normalize("NFKC", text))


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
