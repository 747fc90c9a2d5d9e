"""Chapter 03's question: how much of the input was sent before, and what a provider's cache would serve of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b

from labkit.caches import block_hits, provider
from labkit.logs.call import Call, Log
from labkit.logs.numbers import TEXTS, TIME, USAGE, Need, OwnNumber, cannot, in_percent, of, percent, ratio, seconds

BLOCK_BYTES = 64  # about 16 tokens of English, vLLM's block; without a tokenizer, bytes are what can be counted
BLOCK_TOKENS = 16
_WHAT = "the share of input tokens that a provider's cache would serve"
Count = Callable[[str], list[int]]
"""A tokenizer's `encode`."""


def prefixes(log: Log, rules: provider.CacheRules | None = None, encode: Count | None = None) -> OwnNumber:
    """The share of the input that repeats the beginning of an earlier call, and what a cache with `rules` would serve of it.

    Prompts are cut into blocks (of 16 tokens with `encode`, else of 64 bytes), each hashed with all before it, so equal
    hashes mean equal beginnings. A block counts as served while its last use is within the rules' lifetime. Shares of a
    prompt are taken as shares of its `input_tokens`. A log without prompts or block hashes gives the cached tokens that its
    usage tells. `rules` are OpenAI's cache in memory by default.
    """
    chosen = rules or provider.RULES["openai, in memory"]
    told = ratio((u.cached_tokens, u.input_tokens) for u in log.usages)
    rows = [] if told is None else [("served already, as usage tells", percent(told))]
    calls = [call for call in log.calls if (call.turns or call.block_hashes) and call.usage is not None]
    if not calls or not any(call.at is not None for call in calls):
        needs = tuple(
            need for need, lacks in ((TEXTS, not calls), (TIME, not log.has["at"]), (USAGE, not log.usages)) if lacks
        )
        if told is None or not any(u.cached_tokens for u in log.usages):
            return cannot("03", _WHAT, "%", log, *needs, rows=tuple(rows))
        number, interval = in_percent(told)
        sentence = (
            f"{of(log)}: {percent(told)} of the input tokens came from a prompt cache, as the usage of the calls tells."
        )
        return OwnNumber(
            "03", "the share of input tokens that came from a cache", number, "%", sentence, interval, needs, tuple(rows)
        )
    calls = [call for call in calls if call.at is not None]
    chains = [_chain(call, encode) for call in calls]
    repeated = block_hits(chains)
    served = serve(calls, chains, chosen)
    found = ratio((got, call.usage.input_tokens) for got, call in zip(served, calls, strict=True) if call.usage is not None)
    if found is None:
        return cannot("03", _WHAT, "%", log, USAGE, rows=tuple(rows))
    number, interval = in_percent(found)
    rows += [
        ("blocks sent before, whenever", f"{100 * repeated.ratio:.1f} % of {repeated.blocks:,}"),
        (f"served by {chosen.name} ({seconds(chosen.lifetime_s)})", percent(found)),
        (
            "blocks are",
            f"{BLOCK_TOKENS} tokens" if encode else f"{BLOCK_BYTES} bytes" if calls[0].turns else "the trace's own",
        ),
    ]
    sentence = (
        f"{of(log)}: {100 * repeated.ratio:.1f} % of the prompts' blocks begin as an earlier prompt did, and a cache with "
        f"the rules of {chosen.name} would serve {percent(found)} of the input tokens."
    )
    needs = (
        () if len(calls) == len(log) else (Need(f"prompt, usage and time in {len(log) - len(calls):,} calls", TEXTS.log),)
    )
    return OwnNumber("03", _WHAT, number, "%", sentence, interval, needs, tuple(rows))


def serve(calls: Sequence[Call], chains: Sequence[Sequence[bytes]], rules: provider.CacheRules) -> list[int]:
    """The input tokens of each call that a cache with `rules` serves, all prompts being of one account.

    Every block is kept from the call that wrote it, for `lifetime_s` after its last use and `longest_s` after its writing.
    Calls must be in the order of their times.
    """
    kept: dict[bytes, tuple[float, float]] = {}  # block: (written, last used)
    found = []
    for call, chain in zip(calls, chains, strict=True):
        now, tokens = call.at or 0.0, call.usage.input_tokens if call.usage else 0
        run = 0
        for block in chain:
            written, used = kept.get(block, (0.0, float("-inf")))
            if now - used >= rules.lifetime_s or (rules.longest_s is not None and now - written >= rules.longest_s):
                break
            run += 1
        got = rules.cached(tokens * run // len(chain)) if chain else 0
        found.append(got)
        for place, block in enumerate(chain):
            kept[block] = (kept[block][0], now) if place < run else (now, now)
    return found


def _chain(call: Call, encode: Count | None) -> list[bytes]:
    """The prompt's blocks, each as a hash of itself and all before it."""
    if not call.turns:
        return [str(block).encode() for block in call.block_hashes]
    text = "".join(f"<{role}>\n{content}\n" for role, content in call.turns)
    if encode is None:
        raw = text.encode("utf-8", "surrogatepass")
        parts = [raw[i : i + BLOCK_BYTES] for i in range(0, len(raw), BLOCK_BYTES)]
    else:
        data = encode(text)
        parts = [repr(data[i : i + BLOCK_TOKENS]).encode() for i in range(0, len(data), BLOCK_TOKENS)]
    found, before = [], b""
    for part in parts:
        before = blake2b(before + part, digest_size=12).digest()
        found.append(before)
    return found
