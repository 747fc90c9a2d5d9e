from __future__ import annotations

import asyncio
import math
from decimal import Decimal

import pytest

from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.request import InvalidValue, Request, TokenLogprob, clock, stack
from labkit.routing.calibration import Calibration
from labkit.routing.judges import AllOf, CalibratedJudge, Margin, SelfConsistency, SequenceLogprob, verdict
from labkit.routing.signals import Score
from labkit.routing.validators import Finished, JsonSchema, KeepsRule, UnsafePhrases, Valid
from tests.routing.answers import answered, per_token

Q = Request("q")


def judged(judge, completion):
    return clock.run_virtual(verdict(judge, Q, completion))


def token(p, second=None):
    top = () if second is None else (("x", math.log(second)), ("t", math.log(p)))
    return TokenLogprob("t", math.log(p), top)


def test_sequence_logprob_is_the_geometric_mean_or_the_product_of_the_tokens_probabilities():
    answer = answered("tt", token(0.5), token(0.125))
    assert judged(SequenceLogprob(), answer).value == pytest.approx(0.25)
    assert judged(SequenceLogprob("total"), answer).value == pytest.approx(0.0625)


def test_margin_is_the_lead_of_the_likeliest_token_at_the_weakest_place_or_on_average():
    answer = answered("tt", token(0.8, 0.1), token(0.5, 0.3))
    assert judged(Margin(), answer).value == pytest.approx(0.2)
    assert judged(Margin("mean"), answer).value == pytest.approx(0.45)


def test_what_cannot_be_judged_gets_0_with_the_remedy():
    assert "logprobs=0" in judged(SequenceLogprob(), answered("t")).reason
    assert "logprobs=2" in judged(Margin(), answered("t", token(0.9))).reason
    assert judged(Margin(), answered("t", token(0.9))).value == 0


def test_self_consistency_is_the_share_that_agrees_asked_at_once_and_priced():
    sampler = ScriptedEngine(lambda request: [{1: "42", 2: " 42\n", 3: "41", 4: "42"}[request.seed]])
    with Ledger(":memory:") as ledger:
        booked = stack(Booked(ledger, {"*": per_token("s", "0.01")}), engine=sampler)
        score = judged(SelfConsistency(booked, 4), answered("42"))
        assert sum(row.cost for row in ledger.rows()) == score.cost
    assert (score.value, score.cost, score.seconds) == (0.75, Decimal("0.04"), 1.0)
    assert all(request.temperature == 0.7 for request in sampler.asked)


def test_samples_that_fail_agree_with_nothing():
    score = judged(SelfConsistency(ScriptedEngine(("42",), fail_at=0), 2), answered("42"))
    assert (score.value, score.reason) == (0, "0 of 2 agree, 2 failed")


def test_a_judge_that_raises_gives_0_and_keeps_the_error():
    def broken(_, __):
        raise ZeroDivisionError("oh")

    async def broken_later(_, __):
        raise KeyError("oh")

    for judge in (broken, broken_later):
        score = judged(judge, answered(""))
        assert score.value == 0
        assert "oh" in score.reason


def test_all_of_takes_the_most_doubtful_and_stops_at_0_before_the_dear_ones():
    seen = []

    def judge(value):
        def inner(_, __):
            seen.append(value)
            return Score(value, str(value), Decimal(1))

        return inner

    found = judged(AllOf((judge(0.9), judge(0.4))), answered(""))
    assert (found.value, found.cost) == (0.4, 2)
    assert judged(AllOf((judge(0.0), judge(0.5))), answered("")).value == 0
    assert seen == [0.9, 0.4, 0.0]


def test_calibration_leaves_0_alone_for_it_may_mean_not_judged():
    half = Calibration("isotonic", (0.0, 1.0), (0.4, 0.6))
    assert judged(CalibratedJudge(SequenceLogprob(), half), answered("")).value == 0
    assert judged(CalibratedJudge(lambda *_: Score(0.5, "raw"), half), answered("")).value == pytest.approx(0.5)


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"n": 3}', ""),
        ('{"n": -1}', "less than the minimum"),
        ('{"n": "3"}', "not of type 'integer'"),
        ("{}", "'n' is a required property"),
        ('{"n": 3', "not JSON"),
        ('{"n": NaN}', "NaN is not JSON"),
        ("", "not JSON"),
        ("[" * 100_000, "raised RecursionError"),
    ],
)
def test_answers_that_do_not_fit_the_schema_are_not_right(text, says):
    score = judged(Valid(JsonSchema(SCHEMA)), answered(text))
    assert score.value == (not says)
    assert says in score.reason


def test_a_schema_elsewhere_is_never_fetched(monkeypatch):
    fetched = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: fetched.append(a))
    score = judged(Valid(JsonSchema({"$ref": "http://127.0.0.1:9/schema"})), answered("{}"))
    assert score.value == 0
    assert "Unresolvable" in score.reason
    assert not fetched


def test_a_wrong_schema_is_refused_before_any_request():
    with pytest.raises(InvalidValue, match="no JSON schema"):
        JsonSchema({"type": "thing"})


def test_a_rule_that_raises_is_not_kept_and_all_complaints_are_told():
    positive = KeepsRule("total above 0", lambda text: float(text) > 0)
    assert judged(Valid(positive), answered("3")).value == 1
    assert judged(Valid(positive), answered("-3")).reason == "breaks the rule 'total above 0'"
    score = judged(Valid((positive, Finished())), answered("three", finish_reason="length"))
    assert score.value == 0
    assert "total above 0 raised ValueError" in score.reason
    assert "ended with 'length'" in score.reason


@pytest.mark.parametrize("text", ["Guaranteed  Refund!", "a ｇuaranteed refund", "guar\u00adanteed\nrefund"])
def test_unsafe_phrases_are_found_in_any_dress(text):
    check = Valid(UnsafePhrases("guaranteed refund"))
    assert judged(check, answered(text)).value == 0
    assert judged(check, answered("unguaranteed refund")).value == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Valid(()),
        lambda: AllOf(()),
        lambda: UnsafePhrases(" "),
        lambda: Margin("max"),
        lambda: SequenceLogprob("min"),
        lambda: SelfConsistency(ScriptedEngine(), 0),
        lambda: SelfConsistency(ScriptedEngine(), temperature=0),
    ],
)
def test_judges_that_cannot_judge_are_refused(make):
    with pytest.raises(InvalidValue):
        make()


def test_a_cancelled_judge_takes_its_samples_with_it():
    sampler = ScriptedEngine(gap_s=100)

    async def main():
        task = asyncio.create_task(verdict(SelfConsistency(sampler, 3), Q, answered("")))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    clock.run_virtual(main())
    assert len(sampler.asked) == sampler.closed == 3
