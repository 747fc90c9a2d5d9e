"""Chapter 10's question: what is paid for answers that were cut, how long answers are, and which cap would cost least."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal

from labkit.cost import MTOK, Price, UnknownPrice
from labkit.latency import percentile
from labkit.logs.bills import listed
from labkit.logs.call import Call, Log
from labkit.logs.numbers import USAGE, Need, OwnNumber, cannot, in_percent, of, percent, ratio

CUT = frozenset(["length", "max_tokens", "max_output_tokens", "max-tokens", "model_context_window_exceeded", "repetition"])
"""Endpoints' own words, in small letters, for an answer that did not end by itself."""
FINISH = Need("finish reasons", "each response's finish_reason (stop_reason), as the endpoint names it")
ENOUGH = 30
_WHAT = "the share of output tokens in answers that were cut"
_FEATURES = 5


def cut_short(log: Log, prices: Mapping[str, Price] | None = None) -> OwnNumber:
    """The share of output tokens in answers cut at a limit, their money, and for each feature the length of whole answers.

    Only calls with a finish reason and with usage count: cancelled and failed ones have none. The cap that costs least for a
    feature is `cheapest_cap` of its sample, where a cut answer is asked again whole; it needs 30 whole answers and a price.
    `prices` maps models to price lists and wins over the catalogue's.
    """
    known = [(call, call.usage) for call in log.calls if call.usage is not None and call.finish]
    needs = [need for need, name in ((USAGE, "usage"), (FINISH, "finish")) if not log.has[name]]
    found = ratio((usage.output_tokens * is_cut(call), usage.output_tokens) for call, usage in known)
    if needs or found is None:
        return cannot("10", _WHAT, "%", log, *(needs or [FINISH]))
    cut = [call for call, _ in known if is_cut(call)]
    rows = [("cut answers", f"{len(cut):,} of {len(known):,}")]
    paid, lost, unpriced = Decimal(0), Decimal(0), set()
    by_feature: defaultdict[str, list[Call]] = defaultdict(list)
    for call, _ in known:
        by_feature[call.feature].append(call)
        usd = _usd(call, prices or {})
        if usd is None:
            unpriced.add(call.model)
            continue
        paid, lost = paid + sum(usd), lost + sum(usd) * is_cut(call)
    if paid:
        rows.append(("paid for them at list prices", f"{float(lost):.4g} of {float(paid):.4g} USD"))
    if unpriced:
        named = ", ".join(repr(model) for model in sorted(unpriced)[:5])
        needs.append(Need(f"price for {named}", "the model's name as its price list has it"))
    wordy = sorted(by_feature, key=lambda name: -sum(_out(call) for call in by_feature[name]))
    rows += [row for name in wordy[:_FEATURES] for row in _about(name, by_feature[name], prices or {})]
    number, interval = in_percent(found)
    sentence = f"{of(log)}: {len(cut):,} of {len(known):,} answers were cut, with {percent(found)} of the output tokens"
    if lost:
        sentence += f" and {float(lost):.4g} USD at list prices, for texts without an end"
    return OwnNumber("10", _WHAT, number, "%", sentence + ".", interval, tuple(needs), tuple(rows))


def is_cut(call: Call) -> bool:
    """Whether a call's answer was cut at a limit, or ended by the engine as a loop."""
    return call.finish.lower() in CUT


def cheapest_cap(whole: Sequence[int], cut: int, question: float, token: float) -> int:
    """Of the lengths in `whole`, the cap that wastes least, of equals the longest.

    What is paid without a cap is paid with one, too, once the answer is whole. A cut adds its own tokens and its question,
    read again: cuts(cap) · (question + cap · token), where the `cut` answers of the sample are cut at any cap.
    """
    return min(
        sorted(set(whole), reverse=True),
        key=lambda cap: (sum(tokens > cap for tokens in whole) + cut) * (question + cap * token),
    )


def _about(name: str, calls: Sequence[Call], prices: Mapping[str, Price]) -> list[tuple[str, str]]:
    """The rows of one feature: the 95th percentile of its whole answers' lengths, and its cheapest cap."""
    label = f"{name}: " if name else ""
    whole = [_out(call) for call in calls if not is_cut(call)]
    if not whole:
        return []
    rows = [(f"{label}19 of 20 whole answers have at most", f"{percentile(whole, 95):,.0f} tokens")]
    priced = [usd for call in calls if (usd := _usd(call, prices)) is not None]
    written = sum(_out(call) for call in calls)
    if len(whole) >= ENOUGH and len(priced) == len(calls) and written:
        question = float(sum(into for into, _ in priced)) / len(calls)
        token = float(sum(out for _, out in priced)) / written
        cap = cheapest_cap(whole, len(calls) - len(whole), question, token)
        over = sum(tokens > cap for tokens in whole)
        rows.append((f"{label}the cap that costs least", f"{cap:,} tokens; it cuts {over} of {len(whole):,} whole answers"))
    return rows


def _out(call: Call) -> int:
    return 0 if call.usage is None else call.usage.output_tokens


def _usd(call: Call, prices: Mapping[str, Price]) -> tuple[Decimal, Decimal] | None:
    """What a call's input and output cost at list prices, in USD; None where the model has no price."""
    assert call.usage is not None, "calls without usage were left out"
    try:
        price = prices[call.model] if call.model in prices else listed(call.model)
    except UnknownPrice:
        return None
    rates = price.rates_for(call.usage.input_tokens)
    amounts = {kind: count * rates.of(kind) / MTOK for kind, count in call.usage.by_kind().items()}
    out = amounts["visible_output"] + amounts["reasoning"]
    return sum(amounts.values(), Decimal(0)) - out, out
