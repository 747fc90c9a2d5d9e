"""What summaries cost against what they saved, from the ledger: two ways of one feature, each booked under its own name."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from labkit.ledger import Ledger
from labkit.request import InvalidValue
from labkit.shrink.summary import purpose


@dataclass(frozen=True, slots=True)
class Way:
    """What the answers of one feature took: `answers` that were whole, and tokens and `cost` of all attempts."""

    feature: str
    answers: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost: Decimal

    @property
    def cached_share(self) -> float:
        """The share of its input tokens that a cache served, 0 to 1."""
        return self.cached_tokens / self.input_tokens if self.input_tokens else 0.0


@dataclass(frozen=True, slots=True)
class Balance:
    """Answers over shortened prompts (`shortened`), over whole ones (`whole`), and the `summaries` that shortened them.

    All three are totals, so what is compared is `whole` scaled to as many answers as `shortened` gave.
    """

    shortened: Way
    whole: Way
    summaries: Way
    currency: str

    @property
    def saved(self) -> Decimal:
        """What the shorter prompts took off the answers, before the summaries are paid; below 0 where they cost more."""
        return self.whole.cost * self.shortened.answers / self.whole.answers - self.shortened.cost

    @property
    def spent(self) -> Decimal:
        """What the summaries cost."""
        return self.summaries.cost

    @property
    def gain(self) -> Decimal:
        """`saved` − `spent`: below 0, the summaries are a loss."""
        return self.saved - self.spent

    def __str__(self) -> str:
        lines = [
            f"{way.feature}: {way.answers} answers, {way.input_tokens:,} tokens read ({way.cached_share:.0%} from a cache), "
            f"{way.output_tokens:,} written, {way.cost:.6f} {self.currency}"
            for way in (self.whole, self.shortened, self.summaries)
        ]
        end = "a gain" if self.gain > 0 else "a loss" if self.gain < 0 else "neither gain nor loss"
        told = f"saved {self.saved:.6f}, spent {self.spent:.6f} {self.currency}: {end} of {abs(self.gain):.6f}"
        return "\n".join([*lines, told])


def balance(ledger: Ledger, shortened: str, whole: str) -> Balance:
    """Whether the summaries of feature `shortened` paid, against feature `whole`: the same conversations, never shortened.

    The summaries are the attempts of `purpose(shortened)`, which `RollingSummary` books. Failed and cancelled attempts count
    with what they cost. The two features must have answered the same questions, or a fair draw of them; with few
    conversations the difference may be chance. Raises `InvalidValue` where a feature has no whole answer, an attempt has no
    price, or prices are in several currencies.
    """
    ways = [_way(ledger, feature) for feature in (shortened, whole, purpose(shortened))]
    for way, _ in ways[:2]:
        if not way.answers:
            raise InvalidValue(f"the ledger has no whole answer of feature {way.feature!r}; give requests this feature")
    currencies = sorted(set[str]().union(*(each for _, each in ways)))
    if len(currencies) != 1:
        raise InvalidValue(f"the prices are in {', '.join(currencies)}; book all in one currency")
    (short, _), (long, _), (summaries, _) = ways
    return Balance(short, long, summaries, currencies[0])


def _way(ledger: Ledger, feature: str) -> tuple[Way, set[str]]:
    rows = [row for row in ledger.rows() if row.feature == feature]
    for row in rows:
        if row.cost is None:
            raise InvalidValue(
                f"an attempt of feature {feature!r} at {row.request_model or 'a model'} has no price; give Booked the "
                'prices of all models, the summary model too, as in {"small": price, "large": price}'
            )
    whole = [row for row in rows if row.outcome == "completed" and not row.shadow]
    read, cached, written = (
        sum(getattr(row, name) or 0 for row in rows) for name in ("input_tokens", "cached_tokens", "output_tokens")
    )
    cost = sum((row.cost or Decimal(0) for row in rows), Decimal(0))
    return Way(feature, len(whole), read, cached, written, cost), {row.currency for row in rows}
