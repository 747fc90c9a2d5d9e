"""The layers together: one look-up from the cheapest to the dearest, and what each of them did."""

from __future__ import annotations

from decimal import Decimal

import pandas as pd

from labkit.caches import streams
from labkit.caches.response import Control, response_cache, savings
from labkit.caches.semantic import SemanticCache, semantic_cache
from labkit.caches.store import Store
from labkit.ledger import Ledger, Price
from labkit.request import Handler


def reuse(
    inner: Handler,
    semantic: SemanticCache,
    *,
    control: Control | None = None,
    price: Price | None = None,
    currency: str = "USD",
    system_version: str = "",
    per_user: bool = False,
) -> Handler:
    """Word for word first (a fraction of a millisecond), by meaning next (an embedding), and the engine last.

    Both layers lie in the semantic cache's store and keep the same rules. Arguments are those of `response_cache`.
    """
    by_meaning = semantic_cache(
        inner, semantic, control=control, price=price, currency=currency, system_version=system_version, per_user=per_user
    )
    return response_cache(
        by_meaning, semantic.store, control=control, price=price, currency=currency, system_version=system_version,
        per_user=per_user,
    )  # fmt: skip


def accounts(store: Store, ledger: Ledger | None = None) -> pd.DataFrame:
    """What every layer of `store` did since it was opened, one row a layer.

    Columns: `looked_up`, `hits`, `hit_rate`, `why_not` (misses by reason, most frequent first), `stored`, `refused`, `gone`
    (replaced, evicted, expired, deleted or dropped). With `ledger`, whose attempts are those of this store's handlers, also
    `answers` given and what they `saved` (exact decimal), with a row "single flight" for shared streams.
    """
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
        layer = next(streams.LAYERS[hop] for hop in row["labkit.route"] if hop in streams.LAYERS)
        money.setdefault(layer, []).append((int(row["answers"]), Decimal(row["saved"])))
    frame = frame.reindex(list(dict.fromkeys([*frame.index, *money])))
    frame["answers"] = [sum(n for n, _ in money.get(layer, [])) for layer in frame.index]
    saved = [sum((amount for _, amount in money.get(layer, [])), Decimal(0)) for layer in frame.index]
    frame["saved"] = pd.Series(saved, index=frame.index, dtype=object)
    return frame.rename_axis("layer")
