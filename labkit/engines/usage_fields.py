"""Reads the token counts in a usage object, whatever shape it is written in.

Providers and proxies write the same few numbers under some seventy names. The meaning of each name follows genai-prices' own
extraction (`genai_prices.extract_usage`); the tests compare the two for every provider that genai-prices knows. Where
providers' documents and bug reports go further, so does this file. The shapes:

- Chat Completions (`prompt_tokens`, `completion_tokens`): input includes the cached tokens. Reasoning is within the output,
  unless `total_tokens` shows that it stands beside it (xAI) or is hidden in the total alone (Gemini).
- Anthropic and Bedrock (`input_tokens` with `cache_read_input_tokens` beside it): input *excludes* the cache's tokens.
- Responses (`input_tokens` with `input_tokens_details`): as Chat Completions.
- Gemini (`promptTokenCount`): thoughts stand beside the candidates.
- Perplexity (`citation_tokens`): reasoning and citations stand beside the completion.
- Cohere (`billed_units`).

Nothing is guessed: the report says in words which counts contradict each other or are priced apart (audio, images,
searches).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

Warn = Callable[[str], None]
"""Called with the name of each field that looks like a token count but is unknown."""

MOST = 10**12
"""The most tokens one answer is believed to have used."""

_IN = ("prompt_tokens_details", "prompt_token_details", "input_tokens_details", "input_token_details")
_OUT = ("completion_tokens_details", "completion_token_details", "output_tokens_details", "output_token_details")


def _names(folders: tuple[str, ...], leaves: str) -> set[str]:
    return {f"{folder}.{leaf}" for folder in folders for leaf in leaves.split()}


_INPUT_WITH_CACHE = {"prompt_tokens", "prompt_token_count", "tokens.input_tokens", "billed_units.input_tokens"}
_INPUT = {"input_tokens", "input_token_count"}
_OUTPUT = {"completion_tokens", "output_tokens", "output_token_count", "tokens.output_tokens", "billed_units.output_tokens"}
_TOTAL = {"total_tokens", "total_token_count"}
_CACHED_WITHIN = _names(_IN, "cached_tokens cache_read_tokens cache_read_input_tokens cache_read") | {
    "prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens", "cached_prompt_text_tokens", "cached_prompt_tokens",
    "cached_input_tokens", "cached_content_token_count",
}  # fmt: skip
_CACHED = {"cache_read_input_tokens", "cache_read_input_token_count", "cache_read_tokens"}
_WRITTEN_WITHIN = _names(
    _IN, "cache_write_tokens cache_write_input_tokens cache_creation_tokens cache_creation_input_tokens cache_creation"
    " cached_creation_tokens",
) | {"prompt_cache_write_tokens"}  # fmt: skip
_WRITTEN = {
    "cache_creation_input_tokens", "cache_creation_tokens", "cache_write_input_tokens", "cache_write_input_token_count",
    "cache_write_tokens",
}  # fmt: skip
_REASONING = _names(_OUT, "reasoning_tokens thinking_tokens reasoning") | {"reasoning_tokens", "thinking_tokens"}
# Parts of the cache writes, by how long they live; a write for an hour costs more than one for the usual five minutes.
_FOR_5_MINUTES = re.compile(
    r"^(?:.*\.)?(?:ephemeral_5m_input_tokens|claude_cache_creation_5_?m_tokens)$|^cache_details\.5m\."
)
_FOR_AN_HOUR = re.compile(r"^(?:.*\.)?(?:ephemeral_1h_input_tokens|claude_cache_creation_1_?h_tokens)$|^cache_details\.1h\.")
# Repeats another field, or is part of a count that is read: text tokens, predictions, tokens that missed the cache, and
# those that vLLM put into its own cache, which nobody charges for.
_SAID_ELSEWHERE = re.compile(
    r"(?:^|\.)(?:text_tokens|(?:accepted|rejected)_prediction_tokens|tokens\.(?:input|output)_tokens|max_\w*)$"
    r"|text\.token_count$|cached_tokens_details\.|^cache_tokens_details\.|^iterations\.|^prompt_cache_miss_tokens$"
    r"|^prompt_tokens_details\.created_cache_tokens$"
)
_APART = re.compile(
    r"(audio|image|video|document|citation)\w*(?:tokens|token_count|seconds)$|\.(audio|image|video|document)\."
)
_FEES = re.compile(
    r"(?:web_search|web_fetch|search_web)\w*(?:requests|calls|invocation)$|num_search_queries$|num_sources_used$"
    r"|search_units$|classifications$|search_web\.invocation$"
)
_BESIDE = {"cached_prompt_text_tokens", "num_sources_used"}  # only xAI writes these
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PLAIN = {"prompt_tokens", "completion_tokens", "total_tokens"}


@dataclass(slots=True)
class Report:
    """The counts of one usage object; None where it does not give one."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    written: int | None = None
    reasoning: int | None = None
    total: int | None = None
    apart: dict[str, str] = field(default_factory=dict)
    """Counts that are not priced with the rest: name and number, by name."""
    wrong: list[str] = field(default_factory=list)
    """The contradictions, each in words."""
    plain: bool = False
    """Whether the object held input, output and their sum, and nothing else."""


def read(usage: Any, warn: Warn, beside: bool = False) -> Report:
    """The counts in `usage`, a usage object as the endpoint sent it; it may hold anything.

    `beside`: the provider is known to count reasoning beside the output. That decides only where no total does.
    """
    if type(usage) is dict and usage.keys() <= _PLAIN and len(usage) == 3:
        into, out, total = usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]
        if (
            type(into) is int
            and type(out) is int
            and type(total) is int
            and 0 < into <= MOST
            and 0 < out <= MOST
            and into + out == total
        ):
            return Report(into, out, total=total, plain=True)
    report = Report()
    if not isinstance(usage, Mapping):
        report.wrong.append(f"the usage is a {type(usage).__name__}, not an object")
        return report
    numbers: dict[str, int] = {}
    for name, value in _leaves(usage):
        count = _count(value)
        if count is not None:
            numbers[name] = count
        elif "token" in name and value != "":
            report.wrong.append(f"{name[:60]} is {_shown(value)}, which is no count of tokens")
    _say_apart(numbers, report)
    _warn_of_unknown(numbers, warn)
    _read_numbers(numbers, report, beside or bool(_BESIDE & numbers.keys()))
    return report


def _read_numbers(numbers: Mapping[str, int], report: Report, beside: bool) -> None:
    def first(names: set[str], what: str) -> int | None:
        """The number under `names`. Where several of them are not 0, they must agree."""
        found = {numbers[name]: name for name in sorted(names) if name in numbers}
        several = {number: name for number, name in found.items() if number}
        if len(several) > 1:
            report.wrong.append(f"{what} are " + " and ".join(f"{number} ({name})" for number, name in several.items()))
        return max(found) if found else None

    cohere = "billed_units.input_tokens" in numbers  # its "tokens" are those read, its "billed_units" those billed
    with_cache = first(_INPUT_WITH_CACHE - ({"tokens.input_tokens"} if cohere else set()), "input tokens")
    bare = first(_INPUT, "input tokens")
    report.output = first(_OUTPUT - ({"tokens.output_tokens"} if cohere else set()), "output tokens")
    report.total = first(_TOTAL, "total tokens") or None
    report.reasoning = first(_REASONING, "reasoning tokens")
    cached_within, cached_beside = first(_CACHED_WITHIN, "cached tokens"), first(_CACHED, "cached tokens")
    written_within, written_beside = first(_WRITTEN_WITHIN, "cache writes"), first(_WRITTEN, "cache writes")
    parts = [value for name, value in numbers.items() if _FOR_5_MINUTES.search(name) or _FOR_AN_HOUR.search(name)]
    if parts and not written_within and not written_beside:
        written_beside = sum(parts)
    for one, other, what in (
        (cached_within, cached_beside, "cached tokens"),
        (written_within, written_beside, "cache writes"),
    ):
        if one and other and one != other:
            report.wrong.append(f"{what} are {one} and {other}")
    report.cached, report.written = _either(cached_within, cached_beside), _either(written_within, written_beside)
    from_cache = (report.cached or 0) + (report.written or 0)

    if with_cache:
        report.input = with_cache
        _check_other_input(bare, from_cache, report)
    elif bare is not None and not cached_within and not written_within:
        report.input = bare + from_cache  # Anthropic and Bedrock: the cache's tokens stand beside the input's
        if report.output is not None and report.total is not None:
            # Endpoints use either sum as the total, so the fields' definition decides; any other total is a contradiction.
            if report.total not in (bare + report.output, report.input + report.output):
                report.wrong.append(f"{bare} input and {report.output} output tokens are not the total of {report.total}")
            report.total = None
    else:
        report.input = _either(bare, with_cache)
    if not report.input and "prompt_cache_hit_tokens" in numbers:
        report.input = numbers["prompt_cache_hit_tokens"] + numbers.get("prompt_cache_miss_tokens", 0)
    missed = numbers.get("prompt_cache_miss_tokens")
    if missed is not None and report.input and report.cached is not None and report.cached + missed != report.input:
        report.wrong.append(f"{report.cached} cached and {missed} not cached input tokens are not {report.input}")

    _read_gemini(numbers, report)
    citations = numbers.get("citation_tokens")
    if citations is not None or "num_search_queries" in numbers:  # Perplexity: beside the completion, and not in its total
        report.output = (report.output or 0) + (citations or 0) + (report.reasoning or 0)
    elif beside and with_cache and report.total is None and report.output is not None:
        report.output += report.reasoning or 0
    else:
        _use_total(report)


def _check_other_input(bare: int | None, from_cache: int, report: Report) -> None:
    """A proxy may give the input twice: with the cache's tokens, and without them as Anthropic does. Others contradict."""
    if bare and report.input not in (bare, bare + from_cache):
        report.wrong.append(f"input tokens are {report.input} and {bare}")


def _read_gemini(numbers: Mapping[str, int], report: Report) -> None:
    candidates, thoughts = numbers.get("candidates_token_count"), numbers.get("thoughts_token_count")
    if candidates is not None or thoughts is not None:
        report.output = (candidates or 0) + (thoughts or 0)
        report.reasoning = thoughts
        if candidates is None and report.total is not None and report.input:
            report.output = None  # the total gives it below
    tools = numbers.get("tool_use_prompt_token_count")
    if tools:
        report.input = (report.input or 0) + tools


def _use_total(report: Report) -> None:
    """Take from the total what the parts leave open, or report that the parts do not add up to it."""
    total, into, out, reasoning = report.total, report.input, report.output, report.reasoning or 0
    if total is None:
        return
    from_cache = (report.cached or 0) + (report.written or 0)
    if into and out is None:
        if total >= into:
            report.output = total - into
        else:
            report.wrong.append(f"{into} input tokens are more than the total of {total}")
    elif not into and out:
        if into == 0 and total == out:
            return  # a later part of a report whose earlier part had the input
        if total > out and reasoning <= out:
            report.input = total - out
        else:
            report.wrong.append(f"{out} output tokens are not within the total of {total}")
    elif into and out is not None and total != into + out:
        if reasoning and total == into + out + reasoning:
            report.output = out + reasoning
        elif from_cache and total == into + from_cache + out:
            report.input = into + from_cache
        elif from_cache and reasoning and total == into + from_cache + out + reasoning:
            report.input, report.output = into + from_cache, out + reasoning
        elif total > into + out and not reasoning:
            report.output, report.reasoning = total - into, total - into - out  # thoughts that only the total knows of
        else:
            report.wrong.append(f"{into} input and {out} output tokens do not add up to the total of {total}")


def _either(first: int | None, second: int | None) -> int | None:
    """The one that is not 0 or None, if there is one."""
    return first or second or (0 if first == 0 or second == 0 else None)


def _say_apart(numbers: Mapping[str, int], report: Report) -> None:
    for name, value in numbers.items():
        if value and _kind(name) == "apart" and len(report.apart) < 20:
            report.apart[name] = f"{name} {value}"


def _warn_of_unknown(numbers: Mapping[str, int], warn: Warn) -> None:
    for name, value in numbers.items():
        if value and _kind(name) == "unknown":
            warn(name[:80])


@lru_cache(2048)
def _kind(name: str) -> str:
    """The kind of a number: "read" with the rest, priced "apart", "unknown" though a token count, or "other"."""
    again = "cached_tokens_details" in name or "cache_tokens_details" in name
    if not again and (_FEES.search(name) or _APART.search(name) or _FOR_AN_HOUR.search(name)):
        return "apart"
    if name in _KNOWN or _FOR_5_MINUTES.search(name) or _SAID_ELSEWHERE.search(name):
        return "read"
    return "unknown" if "token" in name else "other"


@lru_cache(2048)
def _snake(key: str) -> str:
    return _CAMEL.sub("_", key).lower()


_KNOWN = (
    _INPUT_WITH_CACHE | _INPUT | _OUTPUT | _TOTAL | _CACHED_WITHIN | _CACHED | _WRITTEN_WITHIN | _WRITTEN | _REASONING
    | {"candidates_token_count", "thoughts_token_count", "tool_use_prompt_token_count", "citation_tokens"}
)  # fmt: skip


def _leaves(usage: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """(dotted name in snake case, value) of each plain value; 4 deep and 64 wide is more than any endpoint writes."""
    for key, value in list(usage.items())[:64]:
        name = prefix + _snake(str(key)[:80])
        if isinstance(value, Mapping):
            if depth < 4:
                yield from _leaves(value, f"{name}.", depth + 1)
        elif isinstance(value, list):
            for part in value[:16] if depth < 4 else ():
                if isinstance(part, Mapping):
                    kind = part.get("modality", part.get("ttl"))
                    if isinstance(kind, str):
                        rest = {k: v for k, v in part.items() if k not in ("modality", "ttl")}
                        yield from _leaves(rest, f"{name}.{kind[:20].lower()}.", depth + 1)
        elif value is not None:
            yield name, value


def _count(value: Any) -> int | None:
    """`value` as a whole number from 0 to `MOST`, None where it is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 13:
        value = int(value)
    if isinstance(value, float) and value.is_integer() and 0 <= value <= MOST:
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST else None


def _shown(value: Any) -> str:
    """`value` for a message; a number of 5000 digits has no short text, and Python refuses to write it."""
    return "a huge number" if isinstance(value, int) and abs(value) > 10**30 else f"{value!r:.40}"
