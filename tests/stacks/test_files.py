"""A stack that was written to a file is the same stack when it is read."""

import json
from dataclasses import dataclass
from decimal import Decimal

import pytest

from labkit.batching import CoalescingWindow, Gate, OffPeak, Pool, Pooled
from labkit.caches import CacheControl, CachePolicy, ResponseCache, SingleFlight, StaticThreshold, Store
from labkit.cost import price_of, self_defined
from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.request import Chooser, InvalidValue, Lever, Placed, Request, clock, complete, placed, stack
from labkit.resilience import Backoff, Dollars, Idempotent, Mishap, Mishaps, Partials, Quota, Ratio, Resume, Retry
from labkit.routing import (
    Breaker,
    Cascade,
    Fallback,
    Floor,
    Hedge,
    Route,
    RoutingContext,
    RoutingPolicy,
    Rules,
    SequenceLogprob,
    Split,
)
from labkit.stacks import from_data, kinds, load, save, to_data
from labkit.streaming import AnyOf, EnoughWords, Paced, Repeating, Said, StopWhen

SMALL, LARGE = ScriptedEngine(model="small"), ScriptedEngine(model="large")
NAMES = {"small": SMALL, "large": LARGE}
POLICY = RoutingPolicy("v1", ("small", "large"), (0.9,), floors=(Floor("large", feature="refund"),), sticky="user")


def whole_stack(tmp_path):
    ledger, store, breaker = Ledger(tmp_path / "books.db"), Store(tmp_path / "cache.db"), Breaker(2, 5.0)
    prices = {"small": price_of("gpt-5-nano"), "large": self_defined("large", "1.10", "4.40", cached="0.55")}
    policy = CachePolicy(control=CacheControl(ttl_s=60.0, tags=frozenset({"faq", "v2"})), per_user=True)
    below = stack(ResponseCache(store), Fallback(("large", "small"), breaker), engine=NAMES)
    return stack(
        Booked(ledger, prices, "lab"),
        ResponseCache(store, policy),
        SingleFlight(),
        Pooled(Gate(4, Pool("chat", reserved=1), Pool("bulk", at_most=2), priority_s=2.0)),
        CoalescingWindow(0.01),
        Paced(16, "merge"),
        StopWhen(AnyOf(EnoughWords(50), Said("END$"), Repeating())),
        Cascade(POLICY, SequenceLogprob("total"), logprobs=0, context=RoutingContext(breaker=breaker, first_token_s=3.0)),
        engine={"small": SMALL, "large": below},
    )


def printed(handler):
    return str(handler)


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_stack_comes_back_from_its_file_as_it_was(tmp_path, suffix):
    handler = whole_stack(tmp_path)
    save(handler, tmp_path / f"stack.{suffix}", NAMES)
    again = load(tmp_path / f"stack.{suffix}", NAMES)
    assert printed(again) == printed(handler)
    assert to_data(again, NAMES) == to_data(handler, NAMES)


def test_retries_come_back_with_their_budgets(tmp_path):
    shared, own = Ratio(0.1, by=("tenant",)), Dollars("0.50", "0.001", {"*": price_of("gpt-5-nano")}, lab_count)
    handler = stack(
        Idempotent(60.0),
        Partials(),
        Retry(4, Backoff(0.1), (shared, Quota(100, back=2), own)),
        Retry(2, budgets=shared),
        engine=SMALL,
    )
    names = {**NAMES, "count": lab_count}
    save(handler, tmp_path / "stack.yaml", names)
    again = load(tmp_path / "stack.yaml", names)
    assert printed(again) == printed(handler)
    outer, inner = (each.lever for each in placed(again) if isinstance(each.lever, Retry))
    assert outer.budgets[0] is inner.budgets[0]
    assert outer.budgets == (shared, Quota(100, back=2), own)


def test_mishaps_and_resume_come_back(tmp_path):
    mishaps = Mishaps((Mishap("unavailable", end_s=5.0), Mishap("cut", share=0.1, after=3)), seed=7)
    handler = stack(Resume(3), mishaps, engine=SMALL)
    save(handler, tmp_path / "stack.yaml", NAMES)
    assert load(tmp_path / "stack.yaml", NAMES) == handler


def lab_count(request):
    return 7


def test_what_levers_share_is_one_object_again(tmp_path):
    data = to_data(whole_stack(tmp_path), NAMES)
    assert sorted(data["shared"]) == ["breaker-1", "gate-1", "ledger-1", "store-1"]
    levers = [each.lever for each in placed(from_data(data, NAMES))]
    stores = {id(lever.store) for lever in levers if isinstance(lever, ResponseCache)}
    assert len(stores) == 1
    cascade = next(lever for lever in levers if isinstance(lever, Cascade))
    fallback = next(lever for lever in levers if isinstance(lever, Fallback))
    assert cascade.context.breaker is fallback.breaker


@pytest.mark.parametrize(
    ("store", "ledger"),
    [
        ({}, {}),
        ({"clock_slack_s": 0.0, "busy_timeout": 0.5, "set_aside": False, "limit_bytes": 10**6}, {"busy_timeout": 60.0}),
        ({"clock_slack_s": 30}, {}),
    ],
)
def test_stores_and_ledgers_come_back_with_their_settings(tmp_path, store, ledger):
    books = Ledger(tmp_path / "books.db", **ledger)
    handler = stack(Booked(books, {}), ResponseCache(Store(tmp_path / "cache.db", **store)), engine=SMALL)
    save(handler, tmp_path / "stack.yaml", NAMES)
    booked, cached = (each.lever for each in placed(load(tmp_path / "stack.yaml", NAMES)))
    settings = {"limit_bytes": 256 * 2**20, "clock_slack_s": 1.0, "busy_timeout": 5.0, "set_aside": True} | store
    assert {name: getattr(cached.store, name) for name in settings} == settings
    assert booked.ledger.busy_timeout == ledger.get("busy_timeout", 10.0)
    written = to_data(handler, NAMES)["shared"]
    assert set(written["store-1"]) == {"is", "path", "limit_bytes", *store}
    assert set(written["ledger-1"]) == {"is", "path", *ledger}


def test_a_stack_from_a_file_answers_and_books_as_the_one_it_was_made_from(tmp_path):
    prices = {"*": self_defined("any", "1", "1")}
    data = to_data(stack(Booked(Ledger(tmp_path / "a.db"), prices), ResponseCache(Store()), engine=SMALL), NAMES)
    handler = from_data(data, NAMES)

    async def twice():
        return [(await complete(handler, Request("hi"))).done.cost for _ in range(2)]

    assert clock.run_virtual(twice()) == [Decimal("0.000013"), 0]
    assert len(Ledger(tmp_path / "a.db")) == 2


def test_every_lever_of_the_lab_can_be_in_a_file():
    """All that the rooms export is known, so that a new lever is not forgotten."""
    import labkit.batching
    import labkit.caches
    import labkit.engines
    import labkit.ledger
    import labkit.output
    import labkit.routing
    import labkit.streaming

    rooms = (labkit.batching, labkit.caches, labkit.engines, labkit.ledger, labkit.output, labkit.routing, labkit.streaming)
    levers = [
        thing
        for room in rooms
        for thing in (getattr(room, name) for name in room.__all__)
        if isinstance(thing, type) and issubclass(thing, Lever | Chooser)
    ]
    assert len(levers) >= 15
    assert not [lever for lever in levers if kinds.VALUES.get(lever.__name__) is not lever]


def test_functions_of_ones_own_go_by_the_name_that_they_are_given(tmp_path):
    def work(request):
        return 1.0

    handler = stack(OffPeak(2, 2, work_s=work), engine=SMALL)
    with pytest.raises(InvalidValue, match=r"stack\[0\].work_s is .*names="):
        to_data(handler, NAMES)
    data = to_data(handler, NAMES | {"work": work})
    assert data["stack"][0]["work_s"] == {"name": "work"}
    assert from_data(data, NAMES | {"work": work}) == handler


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("labkit_stack"), "this is no stack"),
        (lambda d: d.update(labkit_stack=2), "this is no stack"),
        (lambda d: d.update(engin="small"), "a stack has no engin"),
        (lambda d: d.pop("engine"), "has no engine below it"),
        (lambda d: d.update(engine="tiny"), "names 'tiny'"),
        (lambda d: d.update(engine=3), "give the name of an engine"),
        (lambda d: d.update(stack={}), "it is a list of levers"),
        (lambda d: d["stack"].append({"is": "Cash"}), "a 'Cash', which is unknown here"),
        (lambda d: d["stack"].append({"is": "Price"}), "Price cannot be made of nothing"),
        (lambda d: d["stack"].append("ResponseCache"), "which is no lever"),
        (lambda d: d["stack"][0].update(limt=3), "Paced has no setting 'limt'; it has limit, when_full"),
        (lambda d: d["stack"][0].update(limit=0), r"stack\[0\]: limit is 0"),
        (lambda d: d["stack"].append({"is": "ResponseCache", "store": {"use": "store-9"}}), "shared has nothing"),
        (lambda d: d.update(shared={"x": {"is": "Shop"}}), "one of Breaker, Dollars, Gate, Ledger"),
    ],
)
def test_what_a_file_gets_wrong_is_named_with_its_place(change, message):
    data = json.loads(json.dumps(to_data(stack(Paced(4), engine=SMALL), NAMES)))
    change(data)
    with pytest.raises(InvalidValue, match=message):
        from_data(data, NAMES)


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    path = tmp_path / "stack.yaml"
    path.write_text("labkit_stack: [1")
    with pytest.raises(InvalidValue, match=r"stack.yaml cannot be read"):
        load(path, NAMES)


@pytest.mark.parametrize(
    "lever",
    [
        Hedge(0.2),
        Split("greeting", 0.25),
        Route(POLICY, Rules((), 0.4)),
        Fallback(("small", "large")),
    ],
)
def test_choosers_come_back(lever):
    models = {"A": SMALL, "B": LARGE} if isinstance(lever, Split) else NAMES
    handler = stack(lever, engine=models)
    assert from_data(to_data(handler, NAMES), NAMES) == handler
    assert isinstance(handler, Placed)


@dataclass(frozen=True)
class Mine(Lever):
    def over(self, inner):
        return inner


def test_a_lever_of_ones_own_is_refused_with_what_to_do():
    with pytest.raises(InvalidValue, match="no file can hold"):
        to_data(stack(Mine(), engine=SMALL), NAMES)
    mine = Mine()
    handler = stack(mine, engine=SMALL)
    assert from_data(to_data(handler, NAMES | {"mine": mine}), NAMES | {"mine": mine}) == handler


def test_thresholds_keep_their_digits():
    from labkit.caches import SemanticCache
    from labkit.embeddings import embedder

    handler = stack(SemanticCache(Store(), embedder(), StaticThreshold(0.1 + 0.2)), engine=SMALL)
    data = json.loads(json.dumps(to_data(handler, NAMES)))
    assert data["stack"][0]["acceptance"] == {"is": "StaticThreshold", "threshold": 0.1 + 0.2}
    (again,) = placed(from_data(data, NAMES))
    assert again.lever.acceptance.threshold == 0.1 + 0.2
    assert again.lever.embedder is embedder()
