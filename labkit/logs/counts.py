"""The token counts of a record, in whichever words it has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from labkit.engines import usage_elsewhere, usage_of
from labkit.logs.lines import without_secrets
from labkit.logs.names import IN, MORE, OUT
from labkit.logs.places import Places, opened, snake
from labkit.request import Usage

_MOST = 10**12
_INTO, _WROTE = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")
_BESIDE = ("cache_read_input_tokens", "cache_creation_input_tokens")
_PLAIN = frozenset([*_INTO, *_WROTE, *_BESIDE, "total_tokens"])
_IN_DETAILS = frozenset(["cached_tokens", "cache_write_tokens", "audio_tokens"])
_OUT_DETAILS = frozenset(["reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"])
_DETAILS = {
    "prompt_tokens_details": _IN_DETAILS, "input_tokens_details": _IN_DETAILS,
    "completion_tokens_details": _OUT_DETAILS, "output_tokens_details": _OUT_DETAILS,
}  # fmt: skip


def usage_in(places: Places) -> tuple[Usage | None, str]:
    """The usage, None where the record has none; and what contradicts itself in it."""
    report: Any = None
    spots = places.spots["usage"]
    for number, place in enumerate(places.at):
        report = next((given for at, name in spots if at == number and (given := opened(place[name]))), None)
        report = report or usage_elsewhere(place)
        if report:
            break
    if isinstance(report, Mapping) and ("input" in report or "output" in report):
        report = _langfuse(report)
    report = report or next(filter(None, map(_flat, places.with_any("counts"))), None)
    if not report:
        return None, ""
    quick = quick_usage(report) or quick_usage(report := _numbers(report))
    if quick is not None:
        return quick, ""
    usage, note = usage_of(report)
    if "contradicts itself" in note:
        return None, note[note.index("the endpoint's usage contradicts itself") :].replace("the endpoint's", "the")
    return (None, "") if "no input tokens" in note else (usage, "")


def quick_usage(report: Any) -> Usage | None:
    """What `usage_of` gives for a consistent report in OpenAI's or Anthropic's words; None for any other report.

    Most lines of most logs are such ones, and `usage_of`, which reads all providers' words, takes six times as long.
    """
    if type(report) is not dict:
        return None
    counts: dict[str, int] = {}
    for name, value in report.items():
        if name in _PLAIN:
            if type(value) is not int or not 0 <= value <= _MOST:
                return None
            counts[name] = value
            continue
        known = _DETAILS.get(name)
        if known is None or type(value) is not dict or not value.keys() <= known:
            return None
        for leaf, count in value.items():
            if type(count) is not int or not 0 <= count <= _MOST or leaf in counts:
                return None
            if leaf != "audio_tokens":
                counts[leaf] = count
    get = counts.get
    given, out = [counts[name] for name in _INTO if name in counts], [counts[name] for name in _WROTE if name in counts]
    if len(given) != 1 or len(out) != 1 or not given[0]:
        return None
    into, cached, written = given[0], get("cached_tokens", 0), get("cache_write_tokens", 0)
    if "cache_read_input_tokens" in counts or "cache_creation_input_tokens" in counts:  # beside the input: Anthropic
        if "input_tokens" not in counts or cached or written or "total_tokens" in counts:
            return None
        cached, written = get("cache_read_input_tokens", 0), get("cache_creation_input_tokens", 0)
        into += cached + written
    reasoning, total = get("reasoning_tokens", 0), get("total_tokens")
    if cached + written > into or reasoning > out[0] or (total is not None and total != into + out[0]):
        return None
    return Usage(into, out[0], cached, written, reasoning)


def _numbers(report: Any) -> Any:
    """The report with whole floats and number texts as ints; a table writes 374 as 374.0, and a bad one as NaN."""
    if isinstance(report, Mapping):
        return {key: _numbers(value) for key, value in report.items()}
    if isinstance(report, str):
        try:
            number = float(report)
        except ValueError:
            return without_secrets(report)[:20]
        return int(number) if math.isfinite(number) and number.is_integer() else number
    return report


def _flat(place: Mapping[str, Any]) -> dict[str, Any] | None:
    """Token counts that stand in the record itself, in the words of Chat Completions."""
    into, out = _first(place, IN), _first(place, OUT)
    if into is None and out is None:
        return None
    # Anthropic counts the cache's tokens beside the input, and so do Helicone's columns, whoever the provider is.
    excludes = "prompt_cache_read_tokens" in place or ("cache_read_input_tokens" in place and "prompt_tokens" not in place)
    flat: dict[str, Any] = {"input_tokens" if excludes else "prompt_tokens": into, "completion_tokens": out}
    for name, there in MORE.items():
        value = place.get(name)
        if value is not None and value != "":
            folder, _, leaf = there.rpartition(".")
            (flat.setdefault(folder, {}) if folder else flat)[leaf] = value
    return {name: value for name, value in flat.items() if value is not None}


def _first(place: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((value for name in names if (value := place.get(name)) is not None and value != ""), None)


def _langfuse(report: Mapping[str, Any]) -> dict[str, Any]:
    """Langfuse's `usageDetails`: disjoint kinds whose names begin with input or output, and add up to the total."""
    counts = {snake(str(name)): number for name, value in report.items() if (number := whole(value)) is not None}
    cached = sum(n for name, n in counts.items() if "cache" in name and "creat" not in name and "write" not in name)
    written = sum(n for name, n in counts.items() if "cache" in name and ("creat" in name or "write" in name))
    reasoning = sum(n for name, n in counts.items() if name.startswith("output_") and ("reason" in name or "think" in name))
    into = counts.get("input", 0) + cached + written
    return {
        "prompt_tokens": into + sum(n for name, n in counts.items() if name.startswith("input_") and "cache" not in name),
        "completion_tokens": sum(n for name, n in counts.items() if name.split("_")[0] == "output"),
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def whole(value: Any) -> int | None:
    """`value` as a whole number from 0; None for anything else."""
    if type(value) is int:
        return value if value >= 0 else None
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) and number.is_integer() and number >= 0 else None
