"""Chapter 04's question: how often the same is asked again, the most that a response cache could answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace

from labkit.logs.call import Call, Log
from labkit.logs.numbers import TEXTS, TIME, Need, OwnNumber, cannot, in_percent, of, percent, seconds, share

TTL_S = 3600.0
_WHAT = "the share of calls that a response cache could answer"
_TENANT = Need("tenant of the calls", "whose data each answer may hold; without it, one user's answer may reach another")


def repeated(log: Log, ttl_s: float = TTL_S) -> OwnNumber:
    """The share of calls that repeat an earlier one of their tenant word for word, within `ttl_s` of its answer's making.

    It is the hit rate of an exact cache of any size, so the most that one can reach. Alike are also prompts that differ only
    in case, punctuation and spaces. Paraphrases are not counted: what they are worth hangs on a threshold, and a threshold
    on labelled pairs (`threshold`). Without times the lifetime is left out, which raises the share.
    """
    asked = [call for call in log.calls if call.asked is not None]
    if not asked:
        return cannot("04", _WHAT, "%", log, TEXTS)
    needs = [need for need, name in ((TIME, "at"), (_TENANT, "tenant")) if not log.has[name]]
    if len(asked) < len(log):
        needs.append(Need(f"prompt in {len(log) - len(asked):,} calls", TEXTS.log))
    exact, alike = hits(asked, ttl_s), hits(asked, ttl_s, normalised)
    found = share(exact, len(asked))
    if found is None:
        return cannot("04", _WHAT, "%", log, TEXTS)
    number, interval = in_percent(found)
    looser = share(alike, len(asked))
    rows = [("word for word", percent(found))]
    rows += [("up to case, punctuation and spaces", percent(looser))] if looser is not None else []
    rows += [("without a lifetime", f"{100 * hits(asked, float('inf')) / len(asked):.1f} %")]
    where = "of their tenant " if log.has["tenant"] else ""
    sentence = (
        f"{of(log)}: {percent(found)} of the calls repeat an earlier one {where}word for word within {seconds(ttl_s)}, the "
        f"most that an exact cache could answer; {100 * alike / len(asked):.1f} % do up to case, punctuation and spaces."
    )
    return OwnNumber("04", _WHAT, number, "%", sentence, interval, tuple(needs), tuple(rows))


def hits(calls: Iterable[Call], ttl_s: float, alike: Callable[[Call], Hashable] = lambda call: call.asked) -> int:
    """How many of the calls, in their order, an endless cache answers, whose entries live `ttl_s` from their writing."""
    written: dict[Hashable, float] = {}
    found = 0
    for call in calls:
        key, now = alike(call), call.at or 0.0
        if key in written and now - written[key] < ttl_s:
            found += 1
        elif call.status not in ("failed", "cancelled"):  # no answer to keep
            written[key] = now
    return found


def normalised(call: Call) -> Hashable:
    """What was asked, without case, punctuation and runs of spaces."""
    plain = tuple((role, " ".join(re.sub(r"[^\w\s]+", " ", text.casefold()).split())) for role, text in call.turns)
    return replace(call, turns=plain).asked
