"""Chapter 14's question of a log, against sums by hand and a brute force over days."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction

import pytest

from labkit.cost import Price, self_defined
from labkit.logs import Call, Log, nearby
from labkit.logs.per_user import DAY_S, WRITE_OFF_DAYS
from labkit.request import Usage

PRICES: dict[str, Price] = {"m": self_defined("m", input=1, output=10)}


def log_of(*calls: Call) -> Log:
    return Log("x.jsonl", "JSON lines", tuple(replace(call, line=i) for i, call in enumerate(calls, 1)))


def call(user: str, day: float, into: int = 1_000_000, out: int = 0, **fields: object) -> Call:
    return Call(0, day * DAY_S, "m", Usage(into, out), user=user, **fields)  # type: ignore[arg-type]


def test_a_day_without_a_call_is_a_day_of_the_device_too() -> None:
    # Ann: 1 USD on day 0 and 1 on day 3, days 0 to 3. Bob: 10 USD on day 2, days 2 and 3.
    found = nearby(log_of(call("ann", 0.1), call("bob", 2.5, 0, 1_000_000), call("ann", 3.9)), PRICES)
    assert found.number == pytest.approx(12 / 6)
    rows = dict(found.rows)
    assert rows["users and their days"] == "2 users, 6 days"
    assert rows["days with a call"] == "50.0 %"
    assert rows[f"a device written off over {WRITE_OFF_DAYS:,} days may cost, all in"] == "2190 USD"
    assert rows["the dearest tenth of users, of all dollars"] == "83.3 %"
    assert found.interval is None  # two users are no sample
    assert not found.needs


def test_users_of_two_tenants_are_two_and_shadows_are_nobodys() -> None:
    calls = [call("ann", 0, tenant="x"), call("ann", 0, tenant="y"), call("ann", 0, tenant="y", shadow=True)]
    assert nearby(log_of(*calls), PRICES).number == pytest.approx(1)
    assert nearby(log_of(*(replace(each, tenant="") for each in calls)), PRICES).number == pytest.approx(2)


def test_days_are_those_of_utc() -> None:
    late = datetime(2026, 3, 1, 23, 59, tzinfo=UTC).timestamp() / DAY_S
    assert nearby(log_of(call("ann", late), call("ann", late + 2 / 1440)), PRICES).number == pytest.approx(1)
    assert nearby(log_of(call("ann", late - 0.5), call("ann", late)), PRICES).number == pytest.approx(2)


def test_calls_without_a_price_or_a_user_are_counted_and_in_no_sum() -> None:
    found = nearby(log_of(call("ann", 0), replace(call("ann", 0), model="what"), call("", 0)), PRICES)
    assert found.number == pytest.approx(1)
    rows = dict(found.rows)
    assert rows["calls without a price, in no sum"] == "1"
    assert rows["calls without a user or a time"] == "1"
    assert [need.lacks for need in found.needs] == ["price for 'what'"]


@pytest.mark.parametrize("lacking", [{"user": ""}, {"at": None}, {"usage": None}])
def test_a_log_that_cannot_tell_says_what_to_log(lacking: dict[str, object]) -> None:
    found = nearby(log_of(replace(call("ann", 0), **lacking), replace(call("bob", 1), **lacking)), PRICES)  # type: ignore[arg-type]
    assert found.number is None
    assert len(found.needs) == 1


def test_a_user_without_a_priced_call_is_no_free_user() -> None:
    assert nearby(log_of(call("ann", 0), replace(call("bob", 0), model="what")), PRICES).number == pytest.approx(1)


def test_a_log_without_any_price_says_so() -> None:
    found = nearby(log_of(replace(call("ann", 0), model="what")), PRICES)
    assert found.number is None
    assert "'what'" in found.sentence


def test_the_number_and_its_interval_against_a_jackknife_over_users() -> None:
    draw = random.Random(5)
    calls = [call(f"u{draw.randrange(60)}", 20 * draw.random(), draw.randrange(2_000_000)) for _ in range(900)]
    found = nearby(log_of(*calls), PRICES)
    spent: dict[str, Fraction] = {}
    first: dict[str, int] = {}
    for each in calls:
        assert each.at is not None
        assert each.usage is not None
        spent[each.user] = spent.get(each.user, Fraction(0)) + Fraction(each.usage.input_tokens, 1_000_000)
        first[each.user] = min(first.get(each.user, 99), int(each.at // DAY_S))
    last = max(int(each.at // DAY_S) for each in calls if each.at is not None)

    def without(left_out: str | None) -> float:
        users = [user for user in spent if user != left_out]
        return float(sum(spent[user] for user in users) / sum(last - first[user] + 1 for user in users))

    assert found.number == pytest.approx(without(None))
    n = len(spent)
    left = [without(user) for user in spent]
    mean = sum(left) / n
    error = ((n - 1) / n * sum((each - mean) ** 2 for each in left)) ** 0.5
    assert found.interval is not None
    assert found.interval[0] < found.number < found.interval[1]
    assert (found.interval[1] - found.interval[0]) / (2 * 1.96) == pytest.approx(error, rel=0.05)
