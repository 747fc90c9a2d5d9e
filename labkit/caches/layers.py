"""What each layer of a store did, and how much it saved."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from labkit.caches import streams
from labkit.caches.saved import savings
from labkit.caches.store import Store
from labkit.extras import extra

if TYPE_CHECKING:
    import pandas as pd

    from labkit.ledger import Ledger


def accounts(store: Store, ledger: Ledger | None = None) -> pd.DataFrame:
    """What each layer of `store` did since this `Store` was opened, one row a layer.

    Columns: `looked_up`, `hits`, `hit_rate`, `why_not` (misses by reason, most frequent first), `stored`, `refused`, `gone`
    (replaced, evicted, expired, deleted or dropped). With `ledger`, which must hold the attempts of this store's stack, also
    `answers` (how many answers the layer gave) and `saved` (what these would have cost, exact decimal), and a row "single
    flight" for shared streams.
    """
    with extra("analysis"):
        import pandas as pd

    rows = {}
    for layer in store.layers():
        stats = store.stats(layer)
        reasons = sorted(stats.misses.items(), key=lambda item: -item[1])
        rows[layer] = {
            "looked_up": stats.looked_up,
            "hits": stats.hits,
            "hit_rate": stats.hit_rate,
            "why_not": ", ".join(f"{reason} {number}" for reason, number in reasons),
            "stored": stats.stores,
            "refused": sum(stats.refused.values()),
            "gone": stats.replaced + stats.evicted + stats.expired + stats.deleted + stats.dropped,
        }
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")
    if ledger is None:
        return frame
    money: dict[str, list[tuple[int, Decimal]]] = {}
    for row in savings(ledger, ("labkit.route",)).to_dict("records"):
        layer = streams.layer_of(row["labkit.route"]) or "engine"
        money.setdefault(layer, []).append((int(row["answers"]), Decimal(row["saved"])))
    frame = frame.reindex(list(dict.fromkeys([*frame.index, *money])))
    frame["answers"] = [sum(n for n, _ in money.get(layer, [])) for layer in frame.index]
    saved = [sum((amount for _, amount in money.get(layer, [])), Decimal(0)) for layer in frame.index]
    frame["saved"] = pd.Series(saved, index=frame.index, dtype=object)
    return frame.rename_axis("layer")
