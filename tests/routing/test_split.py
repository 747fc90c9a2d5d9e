from __future__ import annotations

import pytest

from labkit.engines import ScriptedEngine
from labkit.request import InvalidValue, Request, clock, complete, hops, stack
from labkit.routing import Split, arm


def test_users_are_dealt_evenly_for_good_and_anew_for_another_experiment():
    users = [Request("q", user=f"u{i}", tenant="t") for i in range(4000)]
    one, again, other = ([arm(user, name) for user in users] for name in ("x", "x", "y"))
    assert one == again
    assert one.count("B") == pytest.approx(2000, abs=130)
    assert sum(a == b for a, b in zip(one, other, strict=True)) == pytest.approx(2000, abs=130)
    assert [arm(user, "x", 0.0) for user in users].count("B") == 0
    assert [arm(user, "x", 1.0) for user in users].count("A") == 0


def test_split_asks_the_users_arm_and_the_route_tells():
    a, b = ScriptedEngine(("a",)), ScriptedEngine(("b",))
    requests = [Request("q", user=f"u{i}") for i in range(8)]

    async def main():
        return [await complete(stack(Split("exp"), engine={"A": a, "B": b}), request) for request in requests]

    for request, answer in zip(requests, clock.run_virtual(main()), strict=True):
        chosen = arm(request, "exp")
        assert (answer.text, answer.done.route) == (chosen.lower(), (f"split:exp={chosen}",))
    assert a.asked
    assert b.asked


@pytest.mark.parametrize(
    "make",
    [
        lambda: arm(Request("q"), "x", 2),
        lambda: Split("x", 2),
        lambda: Split(""),
        lambda: stack(Split("x"), engine={"A": ScriptedEngine(), "C": ScriptedEngine()}),
    ],
)
def test_splits_that_cannot_be_meant_are_refused(make):
    with pytest.raises(InvalidValue):
        make()


def test_an_experiment_of_any_name_is_told_from_what_levers_write():
    """An experiment that is called like a cache was taken for one."""
    for name in ("response-cache", "a=B", "x:y", "cascade:small>large"):
        handler = stack(Split(name, 0.0), engine={"A": ScriptedEngine(), "B": ScriptedEngine()})
        (hop,) = clock.run_virtual(complete(handler, Request("q"))).done.route
        assert hops.kinds((hop,)) == (hops.SPLIT,)
        assert hop == f"split:{name}=A"


def test_arms_name_no_model_so_requests_keep_theirs():
    engine = ScriptedEngine()
    handler = stack(Split("x", 0.0), engine={"A": engine, "B": ScriptedEngine()})
    assert clock.run_virtual(complete(handler, Request("q", model="m"))).done.model == "m"
    assert engine.asked[0].model == "m"
