from __future__ import annotations

import pytest

from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger
from labkit.request import EngineError, InvalidValue, Request, clock, complete, stack, within
from labkit.routing import Copies, Shadow
from tests.routing.answers import per_token

Q = Request("q", idempotency_key="k")


def run_shadowed(inner, other, share, requests=(Q,), **options):
    async def main():
        copies = Copies()
        handler = stack(Shadow(share, copies=copies, **options), engine={"live": inner, "tried": other})
        answers, took = [], []
        for request in requests:
            began = clock.now()
            answers.append(await complete(handler, request))
            took.append(clock.now() - began)
        await copies.finished()
        assert not len(copies)
        return answers, took

    return clock.run_virtual(main())


def test_the_copy_is_marked_and_the_caller_neither_sees_it_nor_waits_for_it():
    other, pairs = ScriptedEngine(("y",), gap_s=50), []
    (answer,), took = run_shadowed(
        ScriptedEngine(("x",)), other, 1.0, compare=lambda r, m, c: pairs.append((r, m.text, c.text))
    )
    assert (answer.text, answer.done.route, took) == ("x", (), [1.0])
    (copy,) = other.asked
    assert (copy.shadow, copy.idempotency_key, copy.messages) == (True, "", Q.messages)
    assert pairs == [(Q, "x", "y")]


def test_a_shadow_that_fails_is_logged_and_breaks_nothing(caplog):
    def bad(*_):
        raise ZeroDivisionError("compare")

    for other, options in [(ScriptedEngine(fail_at=0), {}), (ScriptedEngine(), {"compare": bad})]:
        (answer,), _ = run_shadowed(ScriptedEngine(("x",)), other, 1.0, **options)
        assert answer.text == "x"
    assert [("fell over" in r.message, "compare" in r.message) for r in caplog.records] == [(True, False), (False, True)]


def test_a_share_of_the_traffic_is_copied_and_shadows_are_not_shadowed():
    other = ScriptedEngine(gap_s=0)
    run_shadowed(ScriptedEngine(gap_s=0), other, 0.25, [Q] * 2000)
    assert len(other.asked) == pytest.approx(500, abs=80)
    other = ScriptedEngine()
    run_shadowed(ScriptedEngine(), other, 1.0, [Request("q", shadow=True)])
    run_shadowed(ScriptedEngine(), other, 0.0, [Q] * 100)
    assert not other.asked


def test_a_stuck_shadow_holds_so_many_copies_and_no_more():
    other = ScriptedEngine(gap_s=1000)
    run_shadowed(ScriptedEngine(), other, 1.0, [Q] * 20, at_most=3)
    assert len(other.asked) == 3


def test_an_answer_that_fails_has_no_shadow():
    other = ScriptedEngine()
    with pytest.raises(EngineError):
        run_shadowed(ScriptedEngine(fail_at=1), other, 1.0)
    assert not other.asked


def test_the_shadows_cost_is_in_the_books_and_the_callers_deadline_does_not_cut_it():
    async def main(ledger):
        copies = Copies()
        engines = {"live": ScriptedEngine(("x",)), "tried": ScriptedEngine(("y", "z"), gap_s=20)}
        levers = Booked(ledger, {"*": per_token("any", "1")}), Shadow(1.0, copies=copies)
        await complete(stack(*levers, engine=engines), within(Q, 10))
        await copies.finished()
        (copy,) = engines["tried"].asked
        assert copy.deadline is None

    with Ledger(":memory:") as ledger:
        clock.run_virtual(main(ledger))
        rows = [(row.shadow, row.outcome, row.cost) for row in ledger.rows()]
        assert rows == [(False, "completed", 1), (True, "completed", 2)]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"share": 1.5}, "share is 1.5"),
        ({"share": "half"}, "share is 'half'"),
        ({"share": 0.5, "at_most": 0}, "at_most is 0"),
        ({"share": 0.5, "seed": 0.5}, "seed is 0.5"),
        ({"share": 0.5, "compare": 3}, "compare"),
        ({"share": 0.5, "copies": set()}, "give Copies"),
    ],
)
def test_shadows_that_cannot_be_meant_are_refused(wrong, says):
    with pytest.raises(InvalidValue, match=says):
        Shadow(**wrong)


def test_a_shadow_is_placed_over_two():
    with pytest.raises(InvalidValue, match="over two handlers"):
        stack(Shadow(1.0), engine={"a": ScriptedEngine()})
