from __future__ import annotations

import pytest

from labkit.request import InvalidValue, Message, Request
from labkit.routing.calibration import Calibration
from labkit.routing.signals import AsksForAgent, CalibratedSignal, Lowest, Rule, Rules, Score, question


def test_the_most_cautious_of_the_matching_rules_wins_in_any_order():
    hard = Rule(0.1, words=frozenset({"refund policy"}))
    long = Rule(0.4, min_chars=20)
    for signal in (Rules((hard, long)), Rules((long, hard))):
        assert signal(Request("What is the REFUND\n policy here?")).value == 0.1
        assert signal(Request("What about the refunded policy?")).value == 0.4
        assert signal(Request("Hello")).value == 1.0


def test_words_are_whole_words_and_the_conditions_of_a_rule_hold_together():
    signal = Rules(Rule(0.2, words=frozenset({"art"}), features=frozenset({"shop"}), max_chars=30))
    assert signal(Request("state of the art", feature="shop")).value == 0.2
    assert signal(Request("start", feature="shop")).value == 1
    assert signal(Request("state of the art", feature="faq")).value == 1
    assert signal(Request("state of the art " * 3, feature="shop")).value == 1


def test_length_bounds_are_inclusive():
    signal = Rules(Rule(0.5, min_chars=3, max_chars=5))
    assert [signal(Request("x" * n)).value for n in range(2, 7)] == [1, 0.5, 0.5, 0.5, 1]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Rules((Rule(0.1, words=frozenset({"A"})), Rule(0.9, words=frozenset({"a"})))), "contradict"),
        (lambda: Rule(0.1), "default"),
        (lambda: Rule(1.1, min_chars=1), "0 to 1"),
        (lambda: Rule(0.1, min_chars=9, max_chars=3), "9 to 3"),
        (lambda: Rule(0.1, words=frozenset({" "})), "empty word"),
        (lambda: Rules((), default=2.0), "default is 2"),
        (lambda: Score(float("nan"), "x"), "nan"),
        (lambda: Lowest(()), "at least one"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(make, says):
    with pytest.raises(InvalidValue, match=says):
        make()


def test_the_same_rule_twice_contradicts_nobody():
    rule = Rule(0.1, words=frozenset({"a"}))
    assert Rules((rule, rule))(Request("a")).value == 0.1


def test_signals_read_the_users_last_word():
    system, user = Message("system", "You help."), Message("user", "first")
    assert question(Request((system, user, Message("assistant", "yes?"), Message("user", "last")))) == "last"
    assert question(Request((system,))) == "You help."


def test_whoever_asks_for_an_agent_gets_the_larger_model():
    signal = AsksForAgent()
    assert signal(Request("Agent, please: agent please!")).value == 0
    assert signal(Request("Let me talk to a  Human.")).value == 0
    assert signal(Request("Is the travel agent pleased?")).value == 1


def test_lowest_takes_the_most_doubtful_and_adds_up_what_it_took():
    one, two = (lambda _: Score(0.7, "one", seconds=1.0)), (lambda _: Score(0.3, "two", seconds=2.0))
    found = Lowest((one, two))(Request("q"))
    assert (found.value, found.name, found.seconds) == (0.3, "two", 3.0)


CALIBRATION = Calibration("isotonic", (0.0, 1.0), (0.2, 0.4))


def test_a_calibrated_signal_is_the_raw_one_through_its_map():
    signal = CalibratedSignal(lambda _: Score(0.5, "raw"), CALIBRATION)
    assert signal(Request("q")).value == pytest.approx(0.3)


def test_calibration_leaves_0_alone_for_it_may_mean_never_or_no_verdict():
    failed = Score(0.0, "raw", error=RuntimeError("down"))
    assert CalibratedSignal(lambda _: failed, CALIBRATION)(Request("q")) == failed
    signal = CalibratedSignal(AsksForAgent(), CALIBRATION)
    assert [signal(Request(text)).value for text in ("A real person!", "q")] == pytest.approx([0.0, 0.4])
