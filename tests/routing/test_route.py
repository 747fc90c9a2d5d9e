from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger, spend
from labkit.request import (
    Chunk,
    ContextWindowExceeded,
    EngineError,
    InvalidRequest,
    InvalidValue,
    Request,
    Usage,
    clock,
    complete,
    stack,
)
from labkit.routing import AllDown, Cascade, Floor, Margin, Route, RoutingContext, RoutingPolicy, Score, desk
from tests.routing.answers import per_token

TWO = RoutingPolicy("1", ("small", "large"), (0.5,))
Q = Request("q")


def sure(value):
    return lambda *_: Score(value, "fixed")


def by_text(request, *_):
    return Score(float(request.messages[-1].content), "text")


def pair():
    return {"small": ScriptedEngine(("s",)), "large": ScriptedEngine(("l",))}


def asks(handler, *requests):
    async def main():
        return [await complete(handler, request) for request in requests]

    return clock.run_virtual(main())


LEVERS = [Route, Cascade]


def placed(lever, models, policy, judge, logprobs=None, **context):
    more = {} if logprobs is None else {"logprobs": logprobs}
    return stack(lever(policy, judge, context=RoutingContext(**context), **more), engine=models)


@pytest.mark.parametrize("score", [0.0, 0.49, 0.5, 1.0])
@pytest.mark.parametrize("lever", LEVERS)
def test_a_score_at_the_threshold_stays_small_and_one_below_goes_up(lever, score):
    (answer,) = asks(placed(lever, pair(), TWO, sure(score)), Q)
    assert answer.text == ("s" if score >= 0.5 else "l")
    assert answer.done.model == ("small" if score >= 0.5 else "large")


@pytest.mark.parametrize(
    ("lever", "score", "route"),
    [
        (Route, 1, ("route:small",)),
        (Route, 0, ("route:large",)),
        (Cascade, 1, ("cascade:small",)),
        (Cascade, 0, ("cascade:small>large",)),
    ],
)
def test_the_route_tells_the_way(lever, score, route):
    assert asks(placed(lever, pair(), TWO, sure(score)), Q)[0].done.route == route


def test_three_models_share_the_scores_out_by_falling_thresholds():
    models = {name: ScriptedEngine((name,)) for name in "sml"}
    policy = RoutingPolicy("1", ("s", "m", "l"), (0.8, 0.3))
    handler = placed(Route, models, policy, by_text)
    assert "".join(a.text for a in asks(handler, *map(Request, ["0.9", "0.8", "0.79", "0.3", "0.29", "0"]))) == "ssmmll"
    with pytest.raises(InvalidValue, match="rise"):
        placed(Route, models, replace(policy, thresholds=(0.3, 0.8)), by_text)


def test_a_cascade_climbs_one_model_at_a_time():
    models = {name: ScriptedEngine((name,)) for name in "sml"}
    handler = placed(Cascade, models, RoutingPolicy("1", ("s", "m", "l"), (0.9, 0.5)), sure(0.6))
    (answer,) = asks(handler, Q)
    assert (answer.text, answer.done.route) == ("m", ("cascade:s>m",))
    assert not models["l"].asked


def test_a_rejected_answer_never_reaches_the_caller_and_an_accepted_one_arrives_when_it_was_judged():
    models = {"small": ScriptedEngine(("a", "b")), "large": ScriptedEngine(("x", "y"))}
    kept, climbed = asks(placed(Cascade, models, TWO, by_text), Request("1"), Request("0"))
    assert (kept.text, climbed.text) == ("ab", "xy")
    assert [chunk.at for chunk in kept.chunks] == [2, 2], "held back until whole"
    assert (kept.done.timing.ttft, kept.done.timing.e2e) == (2, 2)
    assert [chunk.at for chunk in climbed.chunks] == [5, 6], "the last model streams"
    assert (climbed.done.timing.ttft, climbed.done.timing.e2e) == (3, 4), "latency counts the small attempt"


def test_the_books_hold_both_attempts_and_the_answer_tells_of_its_own():
    prices = {"small": per_token("small", "0.1"), "large": per_token("large", "1")}
    with Ledger(":memory:") as ledger:
        (answer,) = asks(Booked(ledger, prices)(placed(Cascade, pair(), TWO, sure(0))), Q)
        assert (answer.done.usage, answer.done.cost) == (Usage(10, 1), 1)
        assert [(row.request_model, row.cost) for row in ledger.rows()] == [("small", Decimal("0.1")), ("large", 1)]
        assert spend(ledger)["labkit.cost"].item() == Decimal("1.1")


def test_log_probabilities_asked_for_the_judge_stay_with_the_judge():
    models = {"small": ScriptedEngine(("s",), probability=0.9), "large": ScriptedEngine(("l",))}
    handler = placed(Cascade, models, TWO, Margin(), logprobs=2)
    mine, theirs, _ = asks(handler, Q, replace(Q, logprobs=0), replace(Q, logprobs=5))
    assert mine.text == theirs.text == "s"
    assert mine.logprobs == ()
    assert theirs.logprobs
    assert [request.logprobs for request in models["small"].asked] == [2, 2, 5]


@pytest.mark.parametrize("lever", LEVERS)
def test_a_broken_signal_or_judge_goes_to_the_large_model_and_says_why(lever):
    def broken(*_):
        raise ZeroDivisionError("oh")

    seen = []
    (answer,) = asks(placed(lever, pair(), TWO, broken, observe=lambda _, decision: seen.append(decision)), Q)
    assert answer.text == "l"
    assert "oh" in seen[0].scores[0].reason


@pytest.mark.parametrize("lever", LEVERS)
@pytest.mark.parametrize("who", [{"feature": "refund"}, {"permissions": {"legal"}}], ids=str)
def test_no_saving_crosses_a_floor(lever, who):
    policy = replace(
        TWO,
        floors=(Floor("large", feature="refund"), Floor("large", permission="legal")),
        budgets={"acme": Decimal(1)},
        fallbacks={"large": ("small",)},
    )
    models = pair()
    handler = placed(lever, models, policy, sure(1), spent=lambda _: Decimal(5))
    assert asks(handler, replace(Q, **who), replace(Q, tenant="acme", **who))[1].text == "l"
    models["large"].fail_at = 0
    with pytest.raises(EngineError, match="fell over"):
        asks(handler, replace(Q, **who))
    assert not models["small"].asked


@pytest.mark.parametrize("lever", LEVERS)
def test_who_has_spent_the_budget_gets_the_cheapest_model_and_nobody_else_does(lever):
    models, seen = pair(), []
    policy = replace(TWO, budgets={"acme": Decimal(10)}, fallbacks={"small": ("large",)})
    purse = {"acme": Decimal("9.99"), "other": Decimal(99)}
    handler = placed(lever, models, policy, sure(0), spent=purse.__getitem__, observe=lambda _, d: seen.append(d.why))
    acme = replace(Q, tenant="acme")
    assert asks(handler, acme)[0].text == "l"
    purse["acme"] = Decimal(10)
    assert asks(handler, acme, replace(Q, tenant="other"))[0].text == "s"
    assert asks(handler, replace(Q, tenant="other"))[0].text == "l"
    assert seen == ["score", "budget", "score", "score"]
    models["small"].fail_at = 0
    with pytest.raises(EngineError):
        asks(handler, acme)


@pytest.mark.parametrize("lever", LEVERS)
def test_a_session_goes_up_and_never_down(lever):
    policy = replace(TWO, sticky="workflow")
    handler = placed(lever, pair(), policy, by_text)

    def say(score, workflow, tenant=""):
        return Request(score, workflow=workflow, tenant=tenant)

    asked = [say("1", "a"), say("0", "a"), say("1", "a"), say("1", "b"), say("1", "a", "acme"), say("0", ""), say("1", "")]
    assert "".join(answer.text for answer in asks(handler, *asked)) == "sllssls"


def test_an_escalated_session_is_not_asked_small_again():
    models = pair()
    answers = asks(placed(Cascade, models, replace(TWO, sticky="user"), sure(0)), replace(Q, user="u"), replace(Q, user="u"))
    assert [answer.done.route[0] for answer in answers] == ["cascade:small>large", "cascade:large"]
    assert len(models["small"].asked) == 1


def test_sessions_beyond_the_latest_ten_thousand_start_anew(monkeypatch):
    monkeypatch.setattr(desk, "_SESSIONS", 2)
    handler = placed(Route, pair(), replace(TWO, sticky="user"), by_text)
    asked = [
        Request(score, user=user) for score, user in [("0", "a"), ("1", "b"), ("1", "a"), ("1", "c"), ("1", "a"), ("1", "b")]
    ]
    assert "".join(answer.text for answer in asks(handler, *asked)) == "lslsls"
    asked = [Request(score, user=user) for score, user in [("0", "x"), ("1", "y"), ("1", "z"), ("1", "x")]]
    assert "".join(answer.text for answer in asks(handler, *asked)) == "lsss", "x was forgotten"


def test_the_same_levers_run_on_the_wall_clock():
    models = {"small": ScriptedEngine(("s",), gap_s=0.01), "large": ScriptedEngine(("l",), gap_s=0.01)}
    answer = asyncio.run(complete(placed(Cascade, models, TWO, sure(0)), Q))
    assert answer.text == "l"
    assert answer.done.timing.e2e >= 0.02


def test_an_empty_purse_does_not_decide_for_the_session():
    purse = {"t": Decimal(1)}
    policy = replace(TWO, sticky="user", budgets={"t": Decimal(1)})
    handler = placed(Route, pair(), policy, by_text, spent=purse.__getitem__)
    who = {"tenant": "t", "user": "u"}
    assert asks(handler, Request("0", **who))[0].text == "s"
    purse["t"] = Decimal(0)
    assert "".join(a.text for a in asks(handler, Request("1", **who), Request("0", **who), Request("1", **who))) == "sll"
    purse["t"] = Decimal(1)
    assert asks(handler, Request("1", **who))[0].text == "s", "money goes before the session"


@pytest.mark.parametrize("error", [EngineError("down"), ContextWindowExceeded("too long")], ids=lambda e: type(e).__name__)
def test_a_small_model_that_fails_sends_a_cascade_up(error):
    models = pair()
    models["small"] = ScriptedEngine(fail_at=1, gap_s=1, error=error)
    (answer,) = asks(placed(Cascade, models, TWO, sure(1)), Q)
    assert (answer.text, answer.done.route) == ("l", ("cascade:small>large",))


def test_other_errors_of_the_request_are_raised():
    models = pair()
    models["small"] = ScriptedEngine(fail_at=0, error=InvalidRequest("nonsense"))
    with pytest.raises(InvalidRequest, match="nonsense"):
        asks(placed(Cascade, models, TWO, sure(1)), Q)


def test_the_policys_fallback_answers_for_a_dead_model():
    models = pair()
    models["large"].fail_at = 0
    policy = replace(TWO, fallbacks={"large": ("small",), "small": ("large",)})
    (answer,) = asks(placed(Route, models, policy, sure(0)), Q)
    assert answer.done.route == ("route:large", "fallback:large>small")
    with pytest.raises(EngineError, match="fell over"):
        asks(placed(Cascade, models, policy, sure(0)), Q)  # the small answer was refused once; it is no fallback now
    models["small"].fail_at = 0
    with pytest.raises(AllDown, match=r"small: .*; large: "):
        asks(placed(Route, models, policy, sure(1)), Q)


def test_decisions_are_told_with_policy_scores_and_models():
    seen = []
    asks(placed(Cascade, pair(), TWO, sure(0.3), observe=lambda r, d: seen.append((r, d))), Q)
    ((request, decision),) = seen
    assert request is Q
    assert (decision.policy, decision.models, decision.why) == ("1", ("small", "large"), "score")
    assert decision.scores == (Score(0.3, "fixed"),)


@pytest.mark.parametrize("lever", LEVERS)
def test_a_caller_who_leaves_stops_the_engine(lever):
    engine = ScriptedEngine(gap_s=10)

    async def main():
        task = asyncio.create_task(complete(placed(lever, {"small": engine, "large": ScriptedEngine()}, TWO, sure(1)), Q))
        await asyncio.sleep(5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    clock.run_virtual(main())
    assert (len(engine.asked), engine.finished, engine.closed) == (1, 0, 1)


@pytest.mark.parametrize("lever", LEVERS)
def test_a_policy_without_its_models_or_its_purse_is_refused(lever):
    with pytest.raises(InvalidValue, match="large, which have no handler"):
        placed(lever, {"small": ScriptedEngine()}, TWO, sure(1))
    with pytest.raises(InvalidValue, match=r"budgets; give RoutingContext\(spent"):
        placed(lever, pair(), replace(TWO, budgets={"t": Decimal(1)}), sure(1))


def test_a_small_answer_without_a_word_has_no_first_token():
    async def silent(request):
        async for event in ScriptedEngine(("",))(request):
            yield replace(event, text="") if isinstance(event, Chunk) else event

    (answer,) = asks(placed(Cascade, {"small": silent, "large": ScriptedEngine()}, TWO, sure(1)), Q)
    assert answer.done.timing.ttft is None
    assert answer.done.timing.e2e == 1
