"""Chapter 13's question: which share of what is paid can be put down to a feature, and who the dearest are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from decimal import Decimal

from labkit.cost import Price
from labkit.logs.bills import at_list_price
from labkit.logs.call import Call, Log
from labkit.logs.numbers import USAGE, Need, OwnNumber, cannot, of

FEATURE = Need("feature of each call", "which feature of your product asked, as a label of each call")
_WHAT = "the share of the dollars whose feature is known"
_MOST = 3


def attributed(log: Log, prices: Mapping[str, Price] | None = None) -> OwnNumber:
    """The share of the log's dollars at list prices that are of calls with a feature, and the dearest of each dimension.

    All calls that have usage and a model with a price count, so nothing is sampled. `prices` maps models to price lists and
    wins over the catalogue's. A log in which no call names a feature has a share of 0, and is told what to log.
    """
    priced: list[tuple[Call, Decimal]] = []
    unpriced: Counter[str] = Counter()
    for call in log.calls:
        if call.usage is None:
            continue
        usd = at_list_price(call, prices or {})
        if usd is None:
            unpriced[call.model] += 1
        else:
            priced.append((call, usd))
    paid = sum((usd for _, usd in priced), Decimal(0))
    named = ", ".join(repr(model) for model, _ in unpriced.most_common(5))
    needs = [] if not unpriced else [Need(f"price for {named}", "the model's name as its price list has it")]
    if not log.has["usage"] or not paid:
        return cannot("13", _WHAT, "%", log, *(needs if log.has["usage"] and needs else [USAGE]))
    share = sum((usd for call, usd in priced if call.feature), Decimal(0)) / paid
    rows = [("priced calls", f"{len(priced):,} of {len(log):,}, {float(paid):.4g} USD at list prices")]
    rows += [("unpriced calls, in no sum", f"{sum(unpriced.values()):,}")] if unpriced else []
    for name in ("feature", "tenant", "user", "model"):
        sums: defaultdict[str, Decimal] = defaultdict(Decimal)
        for call, usd in priced:
            sums[getattr(call, name)] += usd
        dearest = sorted(((value, usd) for value, usd in sums.items() if value), key=lambda one: (-one[1], one[0]))[:_MOST]
        if dearest:
            told = ", ".join(f"{value} {100 * float(usd / paid):.1f} %" for value, usd in dearest)
            rows.append((f"dearest by {name}, of {len(sums)}", told))
    needs += [] if log.has["feature"] else [FEATURE]
    sentence = f"{of(log)}: of {float(paid):.4g} USD at list prices, {100 * float(share):.1f} % name their feature"
    sentence += f"; {sum(unpriced.values()):,} calls have no price and are in no sum." if unpriced else "."
    return OwnNumber("13", _WHAT, 100 * float(share), "%", sentence, None, tuple(needs), tuple(rows))
