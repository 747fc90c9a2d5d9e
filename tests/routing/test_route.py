from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal

import pytest

from labkit.ledger import Ledger, booked, spend
from labkit.request import Chunk, ContextWindowExceeded, EngineError, InvalidRequest, Request, Usage, clock, complete
from labkit.routing import route
from labkit.routing.health import AllDown
from labkit.routing.judges import margin
from labkit.routing.policy import Floor, Policy
from labkit.routing.route import cascade, route_before
from labkit.routing.signals import Score
from tests.routing.engine import Scripted

TWO = Policy("1", ("small", "large"), (0.5,))
Q = Request("q")


def sure(value):
    return lambda *_: Score(value, "fixed")


def by_text(request, *_):
    return Score(float(request.messages[-1].content), "text")


def pair():
    return {"small": Scripted(("s",)), "large": Scripted(("l",))}


def asks(handler, *requests):
    async def main():
        return [await complete(handler, request) for request in requests]

    return clock.run_virtual(main())


LEVERS = [route_before, cascade]


@pytest.mark.parametrize("score", [0.0, 0.49, 0.5, 1.0])
@pytest.mark.parametrize("lever", LEVERS)
def test_a_score_at_the_threshold_stays_small_and_one_below_goes_up(lever, score):
    (answer,) = asks(lever(pair(), TWO, sure(score)), Q)
    assert answer.text == ("s" if score >= 0.5 else "l")
    assert answer.done.model == ("small" if score >= 0.5 else "large")


@pytest.mark.parametrize(
    ("lever", "score", "route"),
    [
        (route_before, 1, ("route", "small", "engine")),
        (route_before, 0, ("route", "large", "engine")),
        (cascade, 1, ("cascade", "small", "engine")),
        (cascade, 0, ("cascade", "small>large", "engine")),
    ],
)
def test_the_route_tells_the_way(lever, score, route):
    assert asks(lever(pair(), TWO, sure(score)), Q)[0].done.route == route


def test_three_models_share_the_scores_out_by_falling_thresholds():
    models = {name: Scripted((name,)) for name in "sml"}
    policy = Policy("1", ("s", "m", "l"), (0.8, 0.3))
    handler = route_before(models, policy, by_text)
    assert "".join(a.text for a in asks(handler, *map(Request, ["0.9", "0.8", "0.79", "0.3", "0.29", "0"]))) == "ssmmll"
    with pytest.raises(InvalidRequest, match="rise"):
        route_before(models, replace(policy, thresholds=(0.3, 0.8)), by_text)


def test_a_cascade_climbs_one_model_at_a_time():
    models = {name: Scripted((name,)) for name in "sml"}
    handler = cascade(models, Policy("1", ("s", "m", "l"), (0.9, 0.5)), sure(0.6))
    (answer,) = asks(handler, Q)
    assert (answer.text, answer.done.route[1]) == ("m", "s>m")
    assert not models["l"].asked


def test_a_rejected_answer_never_reaches_the_caller_and_an_accepted_one_arrives_when_it_was_judged():
    models = {"small": Scripted(("a", "b")), "large": Scripted(("x", "y"))}
    kept, climbed = asks(cascade(models, TWO, by_text), Request("1"), Request("0"))
    assert (kept.text, climbed.text) == ("ab", "xy")
    assert [chunk.at for chunk in kept.chunks] == [2, 2], "held back until whole"
    assert (kept.done.timing.ttft, kept.done.timing.e2e) == (2, 2)
    assert [chunk.at for chunk in climbed.chunks] == [5, 6], "the last model streams"
    assert (climbed.done.timing.ttft, climbed.done.timing.e2e) == (3, 4), "latency counts the small attempt"


def test_the_books_hold_both_attempts_and_the_answer_tells_of_its_own():
    def price(model, usage):
        return usage.output_tokens * {"small": Decimal("0.1"), "large": Decimal("1")}[model]

    with Ledger(":memory:") as ledger:
        models = {name: booked(engine, ledger, provider="lab", price=price) for name, engine in pair().items()}
        (answer,) = asks(cascade(models, TWO, sure(0)), Q)
        assert (answer.done.usage, answer.done.cost) == (Usage(10, 1), 1)
        assert [(row.request_model, row.cost) for row in ledger.rows()] == [("small", Decimal("0.1")), ("large", 1)]
        assert spend(ledger)["labkit.cost"].item() == Decimal("1.1")


def test_log_probabilities_asked_for_the_judge_stay_with_the_judge():
    models = {"small": Scripted(("s",), probability=0.9), "large": Scripted(("l",))}
    handler = cascade(models, TWO, margin(), logprobs=2)
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
    (answer,) = asks(lever(pair(), TWO, broken, observe=lambda _, decision: seen.append(decision)), Q)
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
    handler = lever(models, policy, sure(1), spent=lambda _: Decimal(5))
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
    handler = lever(models, policy, sure(0), spent=purse.__getitem__, observe=lambda _, d: seen.append(d.why))
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
    handler = lever(pair(), policy, by_text)

    def say(score, workflow, tenant=""):
        return Request(score, workflow=workflow, tenant=tenant)

    asked = [say("1", "a"), say("0", "a"), say("1", "a"), say("1", "b"), say("1", "a", "acme"), say("0", ""), say("1", "")]
    assert "".join(answer.text for answer in asks(handler, *asked)) == "sllssls"


def test_an_escalated_session_is_not_asked_small_again():
    models = pair()
    answers = asks(cascade(models, replace(TWO, sticky="user"), sure(0)), replace(Q, user="u"), replace(Q, user="u"))
    assert [answer.done.route[1] for answer in answers] == ["small>large", "large"]
    assert len(models["small"].asked) == 1


def test_sessions_beyond_the_latest_ten_thousand_start_anew(monkeypatch):
    monkeypatch.setattr(route, "_SESSIONS", 2)
    handler = route_before(pair(), replace(TWO, sticky="user"), by_text)
    asked = [
        Request(score, user=user) for score, user in [("0", "a"), ("1", "b"), ("1", "a"), ("1", "c"), ("1", "a"), ("1", "b")]
    ]
    assert "".join(answer.text for answer in asks(handler, *asked)) == "lslsls"
    asked = [Request(score, user=user) for score, user in [("0", "x"), ("1", "y"), ("1", "z"), ("1", "x")]]
    assert "".join(answer.text for answer in asks(handler, *asked)) == "lsss", "x was forgotten"


def test_the_same_levers_run_on_the_wall_clock():
    models = {"small": Scripted(("s",), gap=0.01), "large": Scripted(("l",), gap=0.01)}
    answer = asyncio.run(complete(cascade(models, TWO, sure(0)), Q))
    assert answer.text == "l"
    assert answer.done.timing.e2e >= 0.02


def test_an_empty_purse_does_not_decide_for_the_session():
    purse = {"t": Decimal(1)}
    policy = replace(TWO, sticky="user", budgets={"t": Decimal(1)})
    handler = route_before(pair(), policy, by_text, spent=purse.__getitem__)
    who = {"tenant": "t", "user": "u"}
    assert asks(handler, Request("0", **who))[0].text == "s"
    purse["t"] = Decimal(0)
    assert "".join(a.text for a in asks(handler, Request("1", **who), Request("0", **who), Request("1", **who))) == "sll"
    purse["t"] = Decimal(1)
    assert asks(handler, Request("1", **who))[0].text == "s", "money goes before the session"


@pytest.mark.parametrize("error", [EngineError("down"), ContextWindowExceeded("too long")], ids=lambda e: type(e).__name__)
def test_a_small_model_that_fails_sends_a_cascade_up(error):
    models = pair()
    models["small"] = Scripted(fail_at=1, gap=1, error=error)
    (answer,) = asks(cascade(models, TWO, sure(1)), Q)
    assert (answer.text, answer.done.route[1]) == ("l", "small>large")


def test_other_errors_of_the_request_are_raised():
    models = pair()
    models["small"] = Scripted(fail_at=0, error=InvalidRequest("nonsense"))
    with pytest.raises(InvalidRequest, match="nonsense"):
        asks(cascade(models, TWO, sure(1)), Q)


def test_the_policys_fallback_answers_for_a_dead_model():
    models = pair()
    models["large"].fail_at = 0
    policy = replace(TWO, fallbacks={"large": ("small",), "small": ("large",)})
    (answer,) = asks(route_before(models, policy, sure(0)), Q)
    assert answer.done.route == ("route", "large", "fallback", "large>small", "engine")
    with pytest.raises(EngineError, match="fell over"):
        asks(cascade(models, policy, sure(0)), Q)  # the small answer was refused once; it is no fallback now
    models["small"].fail_at = 0
    with pytest.raises(AllDown, match=r"small: .*; large: "):
        asks(route_before(models, policy, sure(1)), Q)


def test_decisions_are_told_with_policy_scores_and_models():
    seen = []
    asks(cascade(pair(), TWO, sure(0.3), observe=lambda r, d: seen.append((r, d))), Q)
    ((request, decision),) = seen
    assert request is Q
    assert (decision.policy, decision.models, decision.why) == ("1", ("small", "large"), "score")
    assert decision.scores == (Score(0.3, "fixed"),)


@pytest.mark.parametrize("lever", LEVERS)
def test_a_caller_who_leaves_stops_the_engine(lever):
    engine = Scripted(gap=10)

    async def main():
        task = asyncio.create_task(complete(lever({"small": engine, "large": Scripted()}, TWO, sure(1)), Q))
        await asyncio.sleep(5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    clock.run_virtual(main())
    assert (len(engine.asked), engine.finished, engine.closed) == (1, 0, 1)


@pytest.mark.parametrize("lever", LEVERS)
def test_a_policy_without_its_models_or_its_purse_is_refused(lever):
    with pytest.raises(InvalidRequest, match="large, which have no handler"):
        lever({"small": Scripted()}, TWO, sure(1))
    with pytest.raises(InvalidRequest, match="give spent"):
        lever(pair(), replace(TWO, budgets={"t": Decimal(1)}), sure(1))


def test_a_small_answer_without_a_word_has_no_first_token():
    async def silent(request):
        async for event in Scripted(("",))(request):
            yield replace(event, text="") if isinstance(event, Chunk) else event

    (answer,) = asks(cascade({"small": silent, "large": Scripted()}, TWO, sure(1)), Q)
    assert answer.done.timing.ttft is None
    assert answer.done.timing.e2e == 1
