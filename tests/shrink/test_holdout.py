"""The holdout: arms by key, and a saving whose interval holds the true one as often as it says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from labkit.cost import self_defined
from labkit.engines import ScriptedEngine
from labkit.ledger import Booked, Ledger, Row
from labkit.request import InvalidValue, Message, Request, complete, run_virtual, stack
from labkit.shrink import Cut, Holdout, Saving, Shrinker, Shrunk, TooFew, saving


class Half(Shrinker):
    """Drops the first half of every message."""

    async def shrink(self, request: Request) -> Shrunk:
        return Shrunk.of(request.messages, [Cut(i, 0, len(m.content) // 2) for i, m in enumerate(request.messages)])


HELD = Holdout(Half(), 0.25, "exp")


def row(key: str, usd: float, read: int = 100, cached: int = 0, **more) -> Row:
    return Row(
        provider="lab", workflow=key, cost=Decimal(repr(round(usd, 9))), input_tokens=read, cached_tokens=cached,
        output_tokens=10, **more,
    )  # fmt: skip


def test_a_key_is_in_one_arm_for_good_and_a_row_tells_its_arm():
    arms = Counter(HELD.arm(Request("q", workflow=f"w{i}")) for i in range(4000))
    assert arms["untouched"] == pytest.approx(1000, abs=110)
    for i in range(50):
        request = Request("q", workflow=f"w{i}", tenant="t", user=f"u{i}")
        assert HELD.arm(request) == HELD.arm(replace(row(f"w{i}", 1), tenant="t"))
        assert replace(HELD, by="user").arm(request) == replace(HELD, by="user").arm(
            Row(provider="l", tenant="t", user=f"u{i}")
        )
    other = [replace(HELD, name="other").arm(Request("q", workflow=f"w{i}")) for i in range(4000)]
    both = sum(a == "untouched" == HELD.arm(Request("q", workflow=f"w{i}")) for i, a in enumerate(other))
    assert both == pytest.approx(250, abs=65)  # dealt anew: a quarter of a quarter


def test_in_a_stack_one_arm_is_sent_whole_and_the_ledger_tells_which():
    engine = ScriptedEngine("yes", input_tokens=50)
    ledger = Ledger(":memory:")
    handler = stack(Booked(ledger, {"*": self_defined("m", "1", "1")}), HELD, engine=engine)

    async def all_of_them():
        return [await complete(handler, Request("abcdefgh", workflow=f"w{i}")) for i in range(40)]

    answers = run_virtual(all_of_them())
    for request, answer, kept in zip(engine.asked, answers, ledger.rows(), strict=True):
        arm = HELD.arm(kept)
        assert answer.done.route[0] == f"split:exp={arm}"
        assert (request.messages[0].content == "abcdefgh") == (arm == "untouched")
        assert ("shrink:Half" in answer.done.route) == (arm == "shrunk")
    assert {HELD.arm(kept) for kept in ledger.rows()} == {"shrunk", "untouched"}


def test_a_request_without_a_key_is_sent_whole_and_says_so():
    engine = ScriptedEngine("yes")
    answer = run_virtual(complete(stack(HELD, engine=engine), Request((Message("user", "abcdefgh"),))))
    assert engine.asked[0].messages[0].content == "abcdefgh"
    assert "without a workflow" in str(answer.done.faults[0])


def traffic(rng, keys: int, true: float, extra_calls: float = 0.0) -> list[Row]:
    """Workflows of several calls that are alike within a workflow; in the shrunk arm they cost `true` less."""
    rows = []
    for i in range(keys):
        key = f"{rng.integers(1 << 40)}-{i}"
        shrunk = HELD.arm(Request("q", workflow=key)) == "shrunk"
        size = rng.lognormal(0, 0.5) * (1 - true if shrunk else 1)
        calls = 1 + rng.poisson(1) + (rng.random() < extra_calls if shrunk else 0)
        rows += [
            row(key, size * rng.lognormal(0, 0.3), read=100 if shrunk else 200, cached=0 if shrunk else 90)
            for _ in range(calls)
        ]
    return rows


def test_the_interval_holds_the_true_saving_as_often_as_it_says():
    rng = np.random.default_rng(20)
    true = 0.2
    found = [saving(traffic(rng, 240, true), HELD) for _ in range(200)]
    held = sum(one.usd.low <= true <= one.usd.high for one in found)
    assert 181 <= held <= 200  # 95 % of 200, with four standard deviations of room
    assert np.mean([one.usd.saved for one in found]) == pytest.approx(true, abs=0.02)


def test_two_arms_that_are_the_same_show_no_saving():
    rng = np.random.default_rng(21)
    verdicts = Counter(saving(traffic(rng, 240, 0.0), HELD).usd.sure for _ in range(200))
    assert verdicts[None] >= 181
    assert abs(verdicts[True] - verdicts[False]) <= 12  # an error falls on either side


def test_fewer_tokens_are_not_less_money():
    """Half the tokens, but those of the untouched arm came from a cache at a tenth of the price."""
    rng = np.random.default_rng(22)
    rows = [
        replace(r, cost=Decimal(r.input_tokens - r.cached_tokens) + Decimal(r.cached_tokens) / 10)
        for r in traffic(rng, 400, 0.0)
    ]
    rows = [replace(r, cached_tokens=180, cost=Decimal(38)) if r.cached_tokens else r for r in rows]
    found = saving(rows, HELD)
    assert found.input_tokens.saved > 0.4
    assert found.usd.sure is False
    assert found.hits == (0.0, pytest.approx(0.9))


def test_second_calls_that_needed_what_was_dropped_are_charged():
    once, twice = (saving(traffic(np.random.default_rng(23), 2000, 0.3, extra), HELD) for extra in (0.0, 0.8))
    assert once.usd.sure
    assert twice.usd.saved < once.usd.saved - 0.1
    assert twice.bounced == pytest.approx(0.8 * twice.usd.shrunk / twice.calls.shrunk, rel=0.2)
    assert twice.calls.sure is False


def test_three_keys_are_no_headline():
    rows = [row(f"w{i}", 1.0) for i in range(60)]
    found = saving(rows, HELD)
    assert isinstance(found, TooFew)
    assert sum(found.keys.values()) == 60
    assert found.more["untouched"] == 30 - found.keys["untouched"]
    assert "more untouched" in str(found)


def test_the_saving_by_hand():
    keys = {"shrunk": [], "untouched": []}
    i = 0
    while min(map(len, keys.values())) < 2:
        keys[HELD.arm(Request("q", workflow=f"k{i}"))].append(f"k{i}")
        i += 1
    (a, b), (c, d) = keys["shrunk"][:2], keys["untouched"][:2]
    rows = [row(a, 1), row(a, 1), row(b, 2), row(c, 4), row(d, 4), row("", 99)]
    found = saving(rows, HELD, least=2)
    assert isinstance(found, Saving)
    assert (found.usd.shrunk, found.usd.untouched, found.usd.saved) == (2, 4, 0.5)
    assert (found.calls.shrunk, found.calls.untouched, found.unkeyed) == (1.5, 1.0, 1)
    assert found.bounced == pytest.approx(0.5 * 2 / 1.5)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Holdout(Half(), 2), "share is 2"),
        (lambda: Holdout(Half(), name=""), "without a name"),
        (lambda: Holdout(Half(), by="tenant"), "by is 'tenant'"),
        (lambda: Holdout(Half), "takes a shrinker"),
        (lambda: saving([], HELD, least=1), "least is 1"),
        (lambda: saving([Row(provider="l", workflow="w")], HELD), "1 rows have no cost"),
        (lambda: saving([row("a", 1), row("b", 1, currency="EUR")], HELD), "EUR"),
    ],
)
def test_what_cannot_be_meant_is_named(make, says):
    with pytest.raises(InvalidValue, match=says):
        make()
