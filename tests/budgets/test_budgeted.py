"""The lever: every way out of a stream leaves no hold, and charges what the ledger books."""

from __future__ import annotations

import asyncio
import gc
import random
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.budgets import Budgeted, BudgetExhausted, Monthly, Overspent, Purses, Spender, SpendingLimit
from labkit.caches import ResponseCache, SingleFlight, Store
from labkit.cost import (
    Price,
    Rates,
    UnknownPrice,
    most_input_tokens,
    most_output_tokens,
    price_request,
    self_defined,
    worst_case,
)
from labkit.engines import ScriptedEngine
from labkit.errors import status_of
from labkit.ledger import Booked, Ledger
from labkit.request import (
    Chunk,
    DeadlineExceeded,
    Done,
    EngineError,
    InvalidRequest,
    InvalidValue,
    LabError,
    Lever,
    Message,
    Request,
    Timing,
    Usage,
    clock,
    complete,
    stack,
    within,
)
from labkit.routing import AllDown, Breaker, Cascade, Copies, Fallback, Hedge, RoutingPolicy, Score, Shadow

DOLLAR = self_defined("any", "1000000", "1000000")  # a dollar a token
DEAR = self_defined("dear", "1000000", "9000000")
ASK = Request("q", tenant="acme", max_tokens=5)
READ = 10  # what ScriptedEngine says it read


def ten(request):
    return READ


def purses(usd=100):
    made = Purses()
    made.allow(SpendingLimit(Decimal(usd), Monthly(), tenant="*"))
    return made


def budgeted(of, price=DOLLAR, count=ten):
    return Budgeted(of, price if isinstance(price, dict) else {"*": price}, count)


def spent(of):
    """What the tenant has spent; nothing may be held."""
    assert of.open_holds() == ()
    (standing,) = of.standings(Spender("acme"), 0.0)
    return standing.settled


def run(handler, request=ASK):
    return clock.run_virtual(complete(handler, request))


@dataclass(frozen=True)
class Again(Lever):
    """Asks again after an engine's error, up to `times` in all."""

    times: int = 3

    def over(self, inner):
        async def handle(request):
            for attempt in range(1, self.times + 1):
                try:
                    answer = await complete(inner, replace(request, attempt=attempt))
                except EngineError as error:
                    if attempt == self.times or error.status == 402:
                        raise
                else:
                    for event in (*answer.chunks, answer.done):
                        yield event
                    return

        return handle


def test_the_worst_case_is_held_and_the_real_cost_charged():
    ours, seen = purses(), []

    def pieces(request):
        seen.extend(usd for _, usd in ours.open_holds())
        return ("a", "b", "c")

    answer = run(stack(budgeted(ours), engine=ScriptedEngine(pieces)))
    assert (answer.text, answer.done.faults, seen) == ("abc", (), [Decimal(READ + 5)])
    assert spent(ours) == READ + 3


def test_exactly_as_much_as_fits_is_let_through():
    engine = ScriptedEngine(("a", "b", "c", "d", "e"))
    handler = stack(budgeted(purses(READ + 5)), engine=engine)
    assert run(handler).text == "abcde"
    with pytest.raises(BudgetExhausted, match="0 are left") as refused:
        run(handler)
    assert (len(engine.asked), status_of(refused.value)) == (1, 402)
    with pytest.raises(BudgetExhausted):
        run(stack(budgeted(purses(READ + 4)), engine=engine))
    assert len(engine.asked) == 1, "not sent"


def test_a_model_without_a_price_is_refused():
    engine = ScriptedEngine(model="odd")
    with pytest.raises(UnknownPrice, match=r"no price for odd.*it has small"):
        run(stack(budgeted(purses(), {"small": DOLLAR}), engine=engine))
    assert not engine.asked


@pytest.mark.parametrize(
    ("engine", "request_", "error", "usd"),
    [
        (ScriptedEngine(fail_at=0), ASK, EngineError, 0),
        (ScriptedEngine(fail_at=2), ASK, EngineError, READ + 2),
        (ScriptedEngine(fail_at=2, running_usage=False), ASK, EngineError, READ + 2),
        (ScriptedEngine(fail_at=0, error=KeyError("x")), ASK, KeyError, READ),
        (ScriptedEngine(without_done=True), ASK, LabError, READ + 3),
    ],
    ids=["at once", "after two", "after two, uncounted", "before any, unknown", "no Done"],
)
def test_a_failed_attempt_is_charged_what_it_may_have_cost(engine, request_, error, usd):
    ours = purses()
    with pytest.raises(error):
        run(stack(budgeted(ours), engine=engine), request_)
    assert spent(ours) == usd


@pytest.mark.parametrize(("after_s", "usd"), [(0.5, READ), (1.5, READ + 1), (2.5, READ + 2)])
@pytest.mark.parametrize("how", ["cancelled", "deadline", "closed"])
def test_whoever_leaves_before_at_or_after_the_first_token_leaves_no_hold(how, after_s, usd):
    ours = purses()
    handler = stack(budgeted(ours), engine=ScriptedEngine())

    async def main():
        if how == "deadline":
            with pytest.raises(DeadlineExceeded):
                await complete(handler, within(ASK, after_s))
        elif how == "cancelled":
            task = asyncio.create_task(complete(handler, ASK))
            await asyncio.sleep(after_s)
            task.cancel()
            assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)
        else:
            async with aclosing(handler(ASK)) as events:
                with suppress(TimeoutError):
                    async with asyncio.timeout(after_s):
                        async for _ in events:
                            pass
        return spent(ours)

    assert clock.run_virtual(main()) == usd


def test_closed_between_two_chunks():
    ours = purses()

    async def main():
        async with aclosing(stack(budgeted(ours), engine=ScriptedEngine())(ASK)) as events:
            await anext(events)
            assert len(ours.open_holds()) == 1

    clock.run_virtual(main())
    assert spent(ours) == READ + 1


def test_an_answer_without_a_count_is_charged_what_was_held():
    async def uncounted(request):
        yield Chunk("x", clock.now())
        yield Done(Usage(), Timing(clock.now()), usage_note="the endpoint did not count")

    ours = purses()
    run(stack(budgeted(ours), engine=uncounted))
    assert spent(ours) == READ + 5


async def endless(request):
    """An engine that knows no max_tokens."""
    for i in range(1000):
        await asyncio.sleep(1)
        yield Chunk("x", clock.now(), usage=Usage(READ, i + 1))


def test_a_stream_that_goes_past_what_is_held_is_cut_there():
    ours = purses()
    answer = run(stack(budgeted(ours), engine=endless))
    assert (answer.text, answer.done.finish_reason, answer.done.route) == ("x" * 6, "length", ("budget",))
    (fault,) = answer.done.faults
    assert isinstance(fault.error, Overspent)
    assert "10 tokens read and 6 written cost 16 USD, and 15 were held" in str(fault)
    assert spent(ours) == READ + 6


@pytest.mark.parametrize("how", ["retried", "in a cascade", "hedged", "shared"])
def test_it_is_cut_below_levers_that_wait_for_a_whole_answer(how):
    """Each attempt is cut by itself, where it is computed: not by what has reached the caller."""
    ours, engine = purses(), endless
    if how == "in a cascade":
        policy = RoutingPolicy("v", ("a", "b"), (0.5,))
        lever, engine = Cascade(policy, lambda asked, answer: Score(1.0, "j")), {"a": endless, "b": endless}
    elif how == "hedged":
        lever, engine = Hedge(0.5), {"a": endless, "b": ScriptedEngine(delay_s=50)}
    else:
        lever = Again() if how == "retried" else SingleFlight()
    answer = run(stack(budgeted(ours), lever, engine=engine))
    assert (answer.text, answer.done.finish_reason) == ("x" * 6, "length")
    assert [type(fault.error) for fault in answer.done.faults] == [Overspent]
    assert spent(ours) == READ + 6 + (READ if how == "hedged" else 0)


def test_a_shared_stream_is_cut_after_the_one_who_began_it_has_left():
    ours = purses()
    handler = stack(budgeted(ours), SingleFlight(), engine=endless)

    async def main():
        first = asyncio.create_task(complete(handler, ASK))
        await asyncio.sleep(0.5)
        second = asyncio.create_task(complete(handler, ASK))
        await asyncio.sleep(1)
        first.cancel()
        return await second

    assert clock.run_virtual(main()).text == "x" * 6
    assert spent(ours) == READ + 6


def test_what_a_budget_cut_is_booked_and_no_cache_keeps_it():
    with Ledger(":memory:") as ledger:
        levers = Booked(ledger, {"*": DOLLAR}), ResponseCache(Store()), budgeted(purses())
        first, second = clock.run_virtual(twice(stack(*levers, engine=endless)))
        assert [(row.outcome, row.cost, row.usage.output_tokens) for row in ledger.rows()] == [
            ("cancelled", READ + 6, 6)
        ] * 2
    assert first.done.route == second.done.route == ("budget",)


def test_a_reader_who_walks_away_without_a_word_leaves_no_hold():
    ours = purses()

    async def main():
        async for _ in stack(budgeted(ours), Again(), engine=ScriptedEngine())(ASK):
            break
        events = stack(budgeted(ours), engine=ScriptedEngine())(ASK)
        await anext(events)
        del events
        gc.collect()
        await asyncio.sleep(1)
        return spent(ours)

    assert clock.run_virtual(main()) == READ + 3 + READ + 1


def test_a_loop_that_ends_in_the_middle_leaves_no_hold():
    ours = purses()

    async def main():
        asyncio.get_running_loop().reader = asyncio.create_task(complete(stack(budgeted(ours), engine=endless), ASK))
        await asyncio.sleep(1.5)
        assert len(ours.open_holds()) == 1

    clock.run_virtual(main())
    assert spent(ours) == READ + 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), ValueError("x")])
def test_an_interrupt_while_the_ledger_writes_leaves_no_hold(error):
    """As from a notebook's stop button; and books of another make may raise, though they should not."""

    class Page:
        def completed(self, arrived, done):
            raise error

        def cut(self, arrived, error, *, served):
            pass

    class Odd:
        names = frozenset({"odd"})

        def open(self, request, model):
            return Page()

    ours = purses()
    with pytest.raises(type(error)):
        run(stack(budgeted(ours), engine=ScriptedEngine()), replace(ASK, books=(Odd(),)))
    assert spent(ours) == READ + 3


def test_more_input_than_was_counted_is_charged_and_told():
    ours = purses()
    answer = run(stack(budgeted(ours, count=lambda request: 1), engine=ScriptedEngine(("a", "b"), running_usage=False)))
    assert (answer.text, spent(ours)) == ("ab", READ + 2)
    assert [type(fault.error) for fault in answer.done.faults] == [Overspent]


def test_a_charge_that_cannot_be_written_does_not_cost_the_answer(tmp_path):
    import sqlite3

    ours = Purses(tmp_path / "p.db", busy_timeout=0.01)
    ours.allow(SpendingLimit(Decimal(100), Monthly(), tenant="*"))
    other = sqlite3.connect(tmp_path / "p.db", isolation_level=None)

    def pieces(request):
        other.execute("BEGIN IMMEDIATE")
        return ("a", "b")

    answer = run(stack(budgeted(ours), engine=ScriptedEngine(pieces)))
    assert answer.text == "ab"
    assert ["cannot use the file of purses" in str(fault) for fault in answer.done.faults] == [True]
    other.execute("ROLLBACK")
    other.close()
    assert spent(ours) == READ + 2, "made later"


async def twice(handler):
    return [await complete(handler, ASK), await complete(handler, ASK)]


def test_a_cached_answer_costs_nothing_and_is_given_even_when_nothing_is_left():
    for below in (True, False):
        ours, cache = purses(READ + 5), ResponseCache(Store())
        levers = (budgeted(ours), cache) if below else (cache, budgeted(ours))
        answers = clock.run_virtual(twice(stack(*levers, engine=ScriptedEngine(("a", "b", "c", "d", "e")))))
        assert [answer.text for answer in answers] == ["abcde"] * 2
        assert answers[1].done.route == ("response-cache",)
        assert spent(ours) == READ + 5


def test_those_who_join_a_request_under_way_hold_nothing():
    ours = purses(READ + 5)
    handler = stack(budgeted(ours), SingleFlight(), engine=ScriptedEngine())

    async def main():
        return await asyncio.gather(*(complete(handler, ASK) for _ in range(5)))

    assert [answer.text for answer in clock.run_virtual(main())] == ["a b c "] * 5
    assert spent(ours) == READ + 3


def test_each_attempt_of_a_retry_has_its_hold_on_both_sides():
    for levers in ([Again()], []), ([], [Again()]):
        ours = purses()
        engine = ScriptedEngine(fail_at=1)
        with pytest.raises(EngineError, match="fell over"):
            run(stack(*levers[0], budgeted(ours), *levers[1], engine=engine))
        assert (len(engine.asked), spent(ours)) == (3, 3 * (READ + 1))


def test_a_retry_stops_where_the_budget_does():
    for levers in ([Again()], []), ([], [Again()]):
        ours, engine = purses(2 * READ + 7), ScriptedEngine(fail_at=1)
        with pytest.raises(BudgetExhausted if levers[0] else EngineError):
            run(stack(*levers[0], budgeted(ours), *levers[1], engine=engine))
        assert (len(engine.asked), spent(ours)) == (2, 2 * (READ + 1))


def test_a_fallback_goes_on_to_a_model_that_fits_and_its_breaker_stays_closed():
    ours, breaker = purses(READ + 5), Breaker(failures=1)
    dear, cheap = ScriptedEngine(), ScriptedEngine(("x", "y"))
    lever = budgeted(ours, {"dear": DEAR, "cheap": DOLLAR})
    answer = run(stack(lever, Fallback(("dear", "cheap"), breaker), engine={"dear": dear, "cheap": cheap}))
    assert (answer.text, spent(ours), dear.asked) == ("xy", READ + 2, [])
    assert breaker.state("dear") == "closed"


def test_where_nothing_fits_the_refusal_is_told_and_not_that_all_are_down():
    models = {"a": ScriptedEngine(), "b": ScriptedEngine()}
    for chooser in (Fallback(("a", "b")), Hedge(0.0)):
        with pytest.raises(BudgetExhausted):
            run(stack(budgeted(purses(3)), chooser, engine=models))
    down = dict.fromkeys("ab", ScriptedEngine(fail_at=0))
    with pytest.raises(AllDown, match=r"fell over.*fell over"):  # they were let through, and failed
        run(stack(budgeted(purses()), Fallback(("a", "b")), engine=down))


def test_a_hedge_that_does_not_fit_leaves_the_first_attempt_alone():
    ours, second = purses(READ + 5), ScriptedEngine(("y",))
    answer = run(stack(budgeted(ours), Hedge(0.5), engine={"a": ScriptedEngine(("x",), gap_s=3), "b": second}))
    assert (answer.text, second.asked, spent(ours)) == ("x", [], READ + 1)


def test_the_loser_of_a_hedge_is_charged_too():
    ours = purses()
    answer = run(stack(budgeted(ours), Hedge(0.5), engine={"a": ScriptedEngine(gap_s=9), "b": ScriptedEngine(("y",))}))
    assert (answer.text, spent(ours)) == ("y", READ + READ + 1)


def test_a_cascade_pays_for_both_and_shadows_pay_for_their_copies():
    ours, copies = purses(), Copies()

    def judge(request, answer):
        return Score(0.0, "judge")

    policy = RoutingPolicy("v", ("a", "b"), (0.5,))
    engine = {"a": ScriptedEngine(("x",)), "b": ScriptedEngine(("y", "z"))}
    assert run(stack(budgeted(ours), Cascade(policy, judge), engine=engine)).text == "yz"
    assert spent(ours) == 2 * READ + 3

    async def main():
        shadowed = stack(
            budgeted(ours), Shadow(share=1.0, copies=copies), engine={"live": engine["a"], "tried": engine["b"]}
        )
        answer = await complete(shadowed, ASK)
        await copies.finished()
        return answer

    assert clock.run_virtual(main()).text == "x"
    assert spent(ours) == 4 * READ + 6


def test_a_handler_of_unknown_make_that_asks_a_stack_counts_once():
    ours = purses(READ + 5)
    inside = stack(Again(), engine=ScriptedEngine())

    async def forwards(request):
        async with aclosing(inside(request)) as events:
            async for event in events:
                yield event

    assert run(stack(budgeted(ours), engine=forwards)).text == "a b c "
    assert spent(ours) == READ + 3


def test_two_levers_with_the_same_purses_count_once():
    ours = purses(READ + 5)
    assert run(stack(budgeted(ours), Again(), budgeted(ours), engine=ScriptedEngine())).text == "a b c "
    assert spent(ours) == READ + 3


def test_a_request_that_the_ledger_refuses_leaves_no_hold():
    ours = purses()
    with Ledger(":memory:") as ledger, pytest.raises(LabError, match="temperature"):
        run(stack(budgeted(ours), Booked(ledger), engine=ScriptedEngine()), replace(ASK, temperature=True))
    assert spent(ours) == 0


def test_a_request_without_a_limit_of_tokens_is_refused():
    with pytest.raises(InvalidRequest, match="takes the limit of output tokens away"):
        run(stack(budgeted(purses()), engine=ScriptedEngine()), replace(ASK, extra={"max_tokens": None}))
    ours = purses(READ + 49)
    with pytest.raises(BudgetExhausted, match="up to 60 USD"):
        run(stack(budgeted(ours), engine=ScriptedEngine()), replace(ASK, extra={"max_completion_tokens": 50}))


def test_the_limit_that_is_sent_counts():
    price = replace(DOLLAR, context_window=90)
    for extra, most in (
        ({"max_completion_tokens": 50}, 50),
        ({"max_completion_tokens": 3}, 3),
        ({"max_completion_tokens": None}, 5),
        ({"max_completion_tokens": 50.0}, 90),
        ({"max_tokens": None, "max_completion_tokens": 7}, 7),
        ({"max_tokens": None}, 90),
        ({"max_tokens": "60"}, 90),
    ):
        assert most_output_tokens(replace(ASK, extra=extra), price) == most, extra
    for bad in (replace(ASK, max_tokens=2.5), replace(ASK, extra=[1]), replace(ASK, extra={"x": {1: float, (): 2}})):
        ours = purses()
        with pytest.raises(InvalidRequest):
            run(stack(Budgeted(ours, {"*": DOLLAR}), engine=ScriptedEngine()), bad)
        assert spent(ours) == 0


def test_the_model_that_extra_names_is_priced():
    lever = budgeted(purses(READ + 5), {"cheap": DOLLAR, "dear": DEAR})
    with pytest.raises(BudgetExhausted, match="up to 55 USD"):
        run(stack(lever, engine=ScriptedEngine()), replace(ASK, model="cheap", extra={"model": "dear"}))
    with pytest.raises(UnknownPrice, match="odd"):
        run(stack(lever, engine=ScriptedEngine()), replace(ASK, model="cheap", extra={"model": "odd"}))
    assert run(stack(lever, engine=ScriptedEngine()), replace(ASK, model="cheap")).text == "a b c "


def test_a_budget_of_0_lets_through_what_is_free():
    engine = ScriptedEngine()
    with pytest.raises(BudgetExhausted, match="the limit is 0") as refused:
        run(stack(budgeted(purses(0)), engine=engine))
    assert (engine.asked, refused.value.retry_after_s) == ([], None)
    assert run(stack(budgeted(purses(0), self_defined("own", "0", "0")), engine=engine)).text == "a b c "


@pytest.mark.parametrize("cost", [Decimal(-1), Decimal("NaN"), 0.5, "much"])
def test_an_answer_with_an_odd_cost_is_charged_what_was_held(cost):
    async def odd(request):
        yield Chunk("x", clock.now())
        yield Done(Usage(READ, 1), Timing(clock.now()), cost=cost)

    ours = purses()
    answer = run(stack(budgeted(ours), engine=odd))
    assert (answer.text, len(answer.done.faults), spent(ours)) == ("x", 1, READ + 5)


def test_in_a_row_nothing_is_refused_while_the_worst_case_fits():
    """The margin of a false refusal, stated: less than one request's worst case, and none of it in the middle."""
    ours, engine = purses(1000), ScriptedEngine()
    handler = stack(budgeted(ours), engine=engine)

    async def main():
        while True:
            try:
                await complete(handler, ASK)
            except BudgetExhausted as error:
                return error

    refused = clock.run_virtual(main())
    assert refused.left == 1000 - spent(ours) < refused.needed == READ + 5
    assert len(engine.asked) == (1000 - (READ + 5)) // (READ + 3) + 1


def test_five_at_once_of_a_dear_tier_and_a_budget_for_three():
    """0.15 dollars each, as more than 1,000 tokens are read; at the lower tier's rates, 0.10, four would be let through."""
    low, high = (Rates(*(Decimal(rate) for rate in rates)) for rates in (("50", "0", "5", "50"), ("75", "0", "7.5", "75")))
    price = Price("m", "p", low, "test", "now", tiers=((1000, high),))
    ours, engine = purses("0.45"), ScriptedEngine(input_tokens=2000, gap_s=1)
    handler = stack(budgeted(ours, price, lambda request: 2000), engine=engine)

    async def main():
        return await asyncio.gather(*(complete(handler, ASK) for _ in range(5)), return_exceptions=True)

    ended = clock.run_virtual(main())
    assert [type(each).__name__ for each in ended] == ["Completion"] * 3 + ["BudgetExhausted"] * 2
    assert (len(engine.asked), spent(ours)) == (3, Decimal("0.45"))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (lambda: Budgeted("p.db", {"*": DOLLAR}), "needs Purses"),
        (lambda: Budgeted(Purses(), {}), "price lists"),
        (lambda: Budgeted(Purses(), {"*": 3}), r"labkit\.cost\.Price"),
        (lambda: Budgeted(Purses(), {"*": replace(DOLLAR, currency="EUR")}), "in USD"),
        (lambda: run(stack(budgeted(purses(), count=lambda r: 1.5), engine=ScriptedEngine())), "whole number"),
    ],
)
def test_settings_that_cannot_work_are_refused(bad, told):
    with pytest.raises(InvalidValue, match=told):
        bad()


MONEY = st.decimals(0, 50, places=2) | st.integers(0, 50).map(lambda whole: Decimal(whole) / 7)
RATES = st.builds(Rates, *(MONEY for _ in range(4)), st.none() | MONEY)


@given(
    rates=RATES,
    tiers=st.dictionaries(st.integers(0, 300), RATES, max_size=3),
    parts=st.tuples(*[st.integers(0, 100)] * 5),
    more=st.tuples(st.integers(0, 50), st.integers(0, 50)),
)
def test_no_usage_within_the_bounds_costs_more_than_the_worst_case(rates, tiers, parts, more):
    price = Price("m", "p", rates, "test", "now", tiers=tuple(sorted(tiers.items())))
    fresh, cached, written, visible, reasoning = parts
    usage = Usage(fresh + cached + written, visible + reasoning, cached, written, reasoning)
    worst = worst_case(price, usage.input_tokens + more[0], usage.output_tokens + more[1])
    assert price_request(usage, price).total <= worst


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_the_bytes_are_a_bound_on_the_tokens_of_a_tokenizer_of_single_bytes(texts):
    request = Request(tuple(Message("user", text) for text in texts))
    assert most_input_tokens(request) >= sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) + 16 * len(texts)


# -- random stacks -----------------------------------------------------------------------------------------------------

PRICE = self_defined("any", "3000000", "5000000", cached="1000000")


def random_stack(rng, ours, ledger):
    """A stack of choosers and levers, with the budget at a random height of the trunk and the ledger at the top."""

    def engine():
        return ScriptedEngine(
            ("a", "b", "c"),
            gap_s=rng.choice((0.0, 0.5)),
            delay_s=rng.choice((0.0, 0.0, 5.0)),
            fail_at=rng.choice((None, None, 0, 1)),
            cached_tokens=rng.choice((0, 4)),
        )

    trunk = [rng.choice((Again(2), SingleFlight(), ResponseCache(Store()))) for _ in range(rng.randrange(3))]
    trunk.insert(rng.randrange(len(trunk) + 1), budgeted(ours, PRICE))
    engines = {name: stack(*([Again(2)] * rng.randrange(2)), engine=engine()) for name in "ab"}
    policy = RoutingPolicy("v", ("a", "b"), (0.5,))
    cascade = Cascade(policy, lambda asked, answer: Score(rng.random(), "j"))
    chooser = rng.choice((Fallback(("a", "b")), Hedge(rng.choice((0.0, 1.0))), cascade))
    return stack(Booked(ledger, {"*": PRICE}), *trunk, chooser, engine=engines)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_in_random_stacks_the_budget_is_kept_and_equals_the_books(seed):
    rng = random.Random(seed)
    limit = rng.choice((60, 200, 5000))
    ours = purses(limit)

    async def caller(handler):
        await asyncio.sleep(rng.choice((0, 1, 3)))
        request = replace(ASK, messages=(Message("user", rng.choice("xyz")),), max_tokens=rng.choice((2, 5)))
        request = within(request, rng.choice((0.7, 100)))
        if rng.random() < 0.3:
            task = asyncio.create_task(complete(handler, request))
            await asyncio.sleep(rng.choice((0, 0.7, 1.2)))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            with suppress(LabError):
                await complete(handler, request)

    with Ledger(":memory:") as ledger:

        async def main():
            handler = random_stack(rng, ours, ledger)
            await asyncio.gather(*(caller(handler) for _ in range(12)))
            await asyncio.sleep(100)

        clock.run_virtual(main())
        rows = ledger.rows()
    known = sum((row.cost for row in rows if row.cost is not None), Decimal(0))
    unknown = sum(row.cost is None for row in rows)
    total = spent(ours)
    assert total <= limit
    assert known <= total <= known + unknown * READ * 3, "of an unknown cost, what was read counts"
