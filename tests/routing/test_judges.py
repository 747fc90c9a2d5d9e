from __future__ import annotations

import asyncio
import math
from decimal import Decimal

import pytest

from labkit.request import InvalidRequest, Request, TokenLogprob, clock
from labkit.routing.calibration import Calibration
from labkit.routing.judges import all_of, calibrated_judge, margin, self_consistency, sequence_logprob, verdict
from labkit.routing.signals import Score
from labkit.routing.validators import finished, json_schema, rule, unsafe_phrases, valid
from tests.routing.engine import Scripted, answered

Q = Request("q")


def judged(judge, completion):
    return clock.run_virtual(verdict(judge, Q, completion))


def token(p, second=None):
    top = () if second is None else (("x", math.log(second)), ("t", math.log(p)))
    return TokenLogprob("t", math.log(p), top)


def test_sequence_logprob_is_the_geometric_mean_or_the_product_of_the_tokens_probabilities():
    answer = answered("tt", token(0.5), token(0.125))
    assert judged(sequence_logprob(), answer).value == pytest.approx(0.25)
    assert judged(sequence_logprob("total"), answer).value == pytest.approx(0.0625)


def test_margin_is_the_lead_of_the_likeliest_token_at_the_weakest_place_or_on_average():
    answer = answered("tt", token(0.8, 0.1), token(0.5, 0.3))
    assert judged(margin(), answer).value == pytest.approx(0.2)
    assert judged(margin("mean"), answer).value == pytest.approx(0.45)


def test_what_cannot_be_judged_gets_0_with_the_remedy():
    assert "logprobs=0" in judged(sequence_logprob(), answered("t")).reason
    assert "logprobs=2" in judged(margin(), answered("t", token(0.9))).reason
    assert judged(margin(), answered("t", token(0.9))).value == 0


def test_self_consistency_is_the_share_that_agrees_asked_at_once_and_priced():
    class Sampler(Scripted):
        def __call__(self, request):
            says = {1: "42", 2: " 42\n", 3: "41", 4: "42"}[request.seed]
            self.asked.append(request)
            return Scripted((says,), cost=Decimal("0.01"))(request)

    sampler = Sampler()
    score = judged(self_consistency(sampler, 4), answered("42"))
    assert (score.value, score.cost, score.seconds) == (0.75, Decimal("0.04"), 1.0)
    assert all(request.temperature == 0.7 for request in sampler.asked)


def test_samples_that_fail_agree_with_nothing():
    score = judged(self_consistency(Scripted(("42",), fail_at=0), 2), answered("42"))
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

    found = judged(all_of(judge(0.9), judge(0.4)), answered(""))
    assert (found.value, found.cost) == (0.4, 2)
    assert judged(all_of(judge(0.0), judge(0.5)), answered("")).value == 0
    assert seen == [0.9, 0.4, 0.0]


def test_calibration_leaves_0_alone_for_it_may_mean_not_judged():
    half = Calibration("isotonic", (0.0, 1.0), (0.4, 0.6))
    assert judged(calibrated_judge(sequence_logprob(), half), answered("")).value == 0
    assert judged(calibrated_judge(lambda *_: Score(0.5, "raw"), half), answered("")).value == pytest.approx(0.5)


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
    score = judged(valid(json_schema(SCHEMA)), answered(text))
    assert score.value == (not says)
    assert says in score.reason


def test_a_schema_elsewhere_is_never_fetched(monkeypatch):
    fetched = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: fetched.append(a))
    score = judged(valid(json_schema({"$ref": "http://127.0.0.1:9/schema"})), answered("{}"))
    assert score.value == 0
    assert "Unresolvable" in score.reason
    assert not fetched


def test_a_wrong_schema_is_refused_before_any_request():
    with pytest.raises(InvalidRequest, match="no JSON schema"):
        json_schema({"type": "thing"})


def test_a_rule_that_raises_is_not_kept_and_all_complaints_are_told():
    positive = rule("total above 0", lambda text: float(text) > 0)
    assert judged(valid(positive), answered("3")).value == 1
    assert judged(valid(positive), answered("-3")).reason == "breaks the rule 'total above 0'"
    score = judged(valid(positive, finished()), answered("three", finish_reason="length"))
    assert score.value == 0
    assert "total above 0 raised ValueError" in score.reason
    assert "ended with 'length'" in score.reason


@pytest.mark.parametrize("text", ["Guaranteed  Refund!", "a ｇuaranteed refund", "guar\u00adanteed\nrefund"])
def test_unsafe_phrases_are_found_in_any_dress(text):
    check = valid(unsafe_phrases("guaranteed refund"))
    assert judged(check, answered(text)).value == 0
    assert judged(check, answered("unguaranteed refund")).value == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: valid(),
        lambda: all_of(),
        lambda: unsafe_phrases(" "),
        lambda: margin("max"),
        lambda: sequence_logprob("min"),
        lambda: self_consistency(Scripted(), 0),
        lambda: self_consistency(Scripted(), temperature=0),
    ],
)
def test_judges_that_cannot_judge_are_refused(make):
    with pytest.raises(InvalidRequest):
        make()


def test_a_cancelled_judge_takes_its_samples_with_it():
    sampler = Scripted(gap=100)

    async def main():
        task = asyncio.create_task(verdict(self_consistency(sampler, 3), Q, answered("")))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    clock.run_virtual(main())
    assert len(sampler.asked) == sampler.closed == 3
