"""Chapter 01's question: what the money goes to, and how much of it nobody ever saw the answer of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from decimal import Decimal

from labkit.cost import MTOK, Price, Rates, UnknownPrice, price_of
from labkit.logs.call import Call, Log
from labkit.logs.numbers import STATUS, USAGE, Need, OwnNumber, cannot, of
from labkit.request import TOKEN_KINDS, Usage

_WHAT = "the share of money that nobody saw the answer of"
_WORDS = {
    "fresh_input": "fresh input", "cached_input": "input from a cache", "cache_write": "cache writes",
    "visible_output": "visible output", "reasoning": "reasoning",
}  # fmt: skip


def money(log: Log, prices: Mapping[str, Price] | None = None) -> OwnNumber:
    """The money by kind of token at list prices, and the share of it that is unseen.

    Unseen are reasoning tokens, and all tokens of calls that failed, were cancelled, were shadows, or whose request
    completed again in a later attempt. `prices` maps models to price lists and wins over the catalogue's. Models without a
    price are named in `needs`, and their tokens are in no share.
    """
    lists, unknown = _lists(log, prices or {})
    unseen = _unseen(log)
    tokens: defaultdict[tuple[Rates, bool], Usage] = defaultdict(Usage)
    for call in log.calls:
        if call.usage is not None and (price := lists.get(call.model)) is not None:
            tokens[price.rates_for(call.usage.input_tokens), call.line in unseen] += call.usage
    spent: Counter[str] = Counter()
    hidden = Decimal(0)
    for (rates, wasted), usage in tokens.items():
        for kind, count in usage.by_kind().items():
            amount = count * rates.of(kind) / MTOK
            spent[kind] += amount  # type: ignore[assignment]
            hidden += amount if wasted or kind == "reasoning" else 0
    total = sum(spent.values(), Decimal(0))
    needs = [
        Need(
            f"price for {', '.join(f'{model!r}' for model in sorted(unknown)[:5]) or 'calls without a model'}",
            "the model's name as its price list has it, or give money(log, prices={model: self_defined(…)})",
        )
    ] if unknown else []  # fmt: skip
    if not total:
        return cannot("01", _WHAT, "%", log, *(needs if log.usages else [USAGE]))
    if not log.has["status"]:
        needs.append(STATUS)
    if not log.has["attempt"]:
        needs.append(Need("attempt numbers", "the number of each attempt, and one idempotency key for all of a request"))
    retries = sum((call.attempt or 1) > 1 for call in log.calls)
    rows = [(f"share of {_WORDS[kind]}", f"{100 * spent[kind] / total:.1f} %") for kind in TOKEN_KINDS if spent[kind]]
    rows += [("all together", f"{total:.4g} USD"), ("retries", f"{retries:,} of {len(log):,} calls")]
    number = float(100 * hidden / total)
    most = max(TOKEN_KINDS, key=lambda kind: spent[kind])
    sources = ", ".join(sorted({price.source for price in lists.values()}))
    sentence = (
        f"{of(log)}: at list prices ({sources}) the tokens cost {total:.4g} USD, {100 * spent[most] / total:.0f} % of it "
        f"for {_WORDS[most]}; {number:.1f} % went to reasoning and to answers that nobody got."
    )
    return OwnNumber("01", _WHAT, number, "%", sentence, None, tuple(needs), tuple(rows))


def prices_of(log: Log) -> dict[str, Price]:
    """The catalogue's price lists of the log's models, by the names that the log has for them; it lacks unknown models."""
    return _lists(log, {})[0]


def _lists(log: Log, prices: Mapping[str, Price]) -> tuple[dict[str, Price], set[str]]:
    """The price list of each model, and the models that have none."""
    found: dict[str, Price] = {}
    unknown: set[str] = set()
    for model in {call.model for call in log.calls if call.usage is not None}:
        try:
            found[model] = prices[model] if model in prices else listed(model)
        except UnknownPrice:
            unknown.add(model)
    return found, unknown


def listed(model: str) -> Price:
    """The catalogue's price; a proxy writes the provider in front of the model ("openai/gpt-4o").

    Raises `UnknownPrice` for a model that is not in it.
    """
    if not model:
        raise UnknownPrice("the call names no model")
    provider, slash, name = model.partition("/")
    if slash:
        try:
            return price_of(name, provider).over_the_day()
        except UnknownPrice:
            pass
    return price_of(model).over_the_day()


def at_list_price(call: Call, prices: Mapping[str, Price]) -> Decimal | None:
    """What the tokens of a call with usage cost, in USD, by `prices` or the catalogue; None where its model has no price."""
    assert call.usage is not None, "ask it of calls with usage"
    try:
        price = prices[call.model] if call.model in prices else listed(call.model)
    except UnknownPrice:
        return None
    rates = price.rates_for(call.usage.input_tokens)
    return sum((count * rates.of(kind) / MTOK for kind, count in call.usage.by_kind().items()), Decimal(0))


def _unseen(log: Log) -> set[int]:
    """The lines of calls whose whole answer was for nobody."""
    last: dict[tuple[str, str], Call] = {}
    for call in log.calls:
        if call.request and call.attempt is not None and call.status == "completed" and not call.shadow:
            key = (call.tenant, call.request)
            if key not in last or (last[key].attempt or 0) <= call.attempt:
                last[key] = call
    found = {call.line for call in log.calls if call.shadow or call.status in ("failed", "cancelled")}
    for call in log.calls:
        winner = last.get((call.tenant, call.request))
        if winner is not None and call.attempt is not None and call.attempt < (winner.attempt or 0):
            found.add(call.line)
    return found
