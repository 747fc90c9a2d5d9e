from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import permutations
from math import factorial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.cost import price_request, self_defined
from labkit.ledger import Ledger, Row, spend
from labkit.request import InvalidValue
from labkit.spending import FACTORS, Slice, explain_change
from labkit.spending.money import apportion, rounded
from labkit.spending.shapley import shapley
from tests.spending.books import PRICES, rows

LIST = self_defined("m", input="2", output="8", cached="0.5")
LINE = Row(provider="lab", request_model="m", input_tokens=1000, cached_tokens=400, output_tokens=100)


def booked(row, price=LIST):
    return replace(row, cost=price_request(row.usage, price).total)


def copies(row, number, price=LIST):
    return [booked(replace(row, attempt_id=f"{id(row)}-{price.rates}-{n}"), price) for n in range(number)]


def explained(before, after, prices=(LIST, LIST), by=("feature", "model")):
    with Ledger(":memory:") as old, Ledger(":memory:") as new:
        old.extend(before)
        new.extend(after)
        return explain_change(Slice(old, prices={"*": prices[0]}), Slice(new, prices={"*": prices[1]}), by)


TEAM = st.integers(0, 3).flatmap(lambda n: st.lists(st.integers(-99, 99), min_size=2**n, max_size=2**n))


@given(TEAM, TEAM)
@settings(deadline=None)
def test_shapley_is_the_mean_over_every_order(outside, inside):
    first, second = len(outside).bit_length() - 1, len(inside).bit_length() - 1
    worth = [a * b for b in inside for a in outside]
    wanted = [0] * (first + second)
    for order in permutations(range(first + second)):
        members = 0
        for player in order:
            wanted[player] += worth[members | 1 << player] - worth[members]
            members |= 1 << player
    assert shapley(outside, inside) == wanted
    assert sum(wanted) == factorial(first + second) * (worth[-1] - worth[0])


@given(TEAM, TEAM, st.randoms())
@settings(deadline=None)
def test_it_makes_no_difference_in_which_order_the_factors_are_listed(outside, inside, random):
    def reordered(worth):
        order = list(range(len(worth).bit_length() - 1))
        random.shuffle(order)
        where = [
            sum((coalition >> bit & 1) << player for bit, player in enumerate(order)) for coalition in range(len(worth))
        ]
        return order, [worth[coalition] for coalition in where]

    (order, shuffled), (more, others) = reordered(outside), reordered(inside)
    found = shapley(outside, inside)
    wanted = [*(found[player] for player in order), *(found[len(order) + player] for player in more)]
    assert shapley(shuffled, others) == wanted
    assert shapley(inside, outside) == [*found[len(order) :], *found[: len(order)]]


@given(st.lists(st.fractions(-1000, 1000), min_size=1, max_size=9), st.integers(0, 4), st.data())
def test_shares_add_up_and_none_moves_by_a_unit(exact, places, data):
    unit = Fraction(1, 10**places)
    near = sum(exact) / unit
    whole = data.draw(st.sampled_from(sorted({n for n in (near.__floor__(), near.__ceil__())})))
    total = Decimal(whole).scaleb(-places)
    shares = apportion(total, exact, places)
    assert sum(shares) == total
    assert all(abs(Fraction(share) - amount) < unit for share, amount in zip(shares, exact, strict=True))
    with pytest.raises(InvalidValue, match="round"):
        apportion(total + 2, exact, places)


@given(st.lists(rows(["USD"]), max_size=12), st.lists(rows(["USD"]), max_size=12), st.sampled_from([0, 2, 6]))
@settings(max_examples=40, deadline=None)
def test_the_parts_of_any_two_bills_add_up_to_the_cent_with_and_without_segments(before, after, places):
    with Ledger(":memory:") as old, Ledger(":memory:") as new:
        old.extend(before)
        new.extend(after)
        found = explain_change(Slice(old, prices=PRICES), Slice(new, prices=PRICES))
        back = explain_change(Slice(new, prices=PRICES), Slice(old, prices=PRICES))
        bills = [sum(spend(ledger)["labkit.cost"], Decimal(0)) for ledger in (old, new)]
    assert (found.before, found.after) == tuple(bills)
    assert sum(part for parts in found.exact.values() for part in parts) == Fraction(bills[1]) - Fraction(bills[0])
    printed = found.parts(places)
    assert sum(printed.values()) == rounded(bills[1], places) - rounded(bills[0], places)
    table = found.by_segment(places)
    assert {name: sum(table[name], Decimal(0)) for name in FACTORS} == printed
    assert {key: tuple(-part for part in parts) for key, parts in back.exact.items()} == found.exact


@pytest.mark.parametrize(
    ("after", "prices", "factor"),
    [
        (copies(LINE, 7), (LIST, LIST), "volume"),
        (copies(replace(LINE, input_tokens=2000, cached_tokens=800), 4), (LIST, LIST), "tokens in"),
        (copies(replace(LINE, output_tokens=300), 4), (LIST, LIST), "tokens out"),
        (copies(replace(LINE, cached_tokens=0), 4), (LIST, LIST), "cache hits"),
        (
            copies(LINE, 4, self_defined("m", input="4", output="16", cached="1")),
            (LIST, self_defined("m", input="4", output="16", cached="1")),
            "price",
        ),
        ([*copies(LINE, 4), *copies(replace(LINE, attempt=2, outcome="failed"), 2)], (LIST, LIST), "retries"),
        ([*copies(LINE, 3), LINE], (LIST, LIST), "unpriced"),
        (copies(LINE, 4, self_defined("m", input="5", output="9")), (LIST, LIST), "unsplit"),
        (
            [*copies(LINE, 2), *(replace(LINE, input_tokens=0, cached_tokens=0, output_tokens=0, cost=Decimal(0),
                route=("response-cache",), attempt_id=f"s{n}") for n in range(2))],
            (LIST, LIST),
            "cache hits",
        ),
    ],
    ids=["volume", "in", "out", "prefix", "price", "retries", "unpriced", "unsplit", "answers"],
)  # fmt: skip
def test_a_planted_change_is_found_whole_and_all_else_is_exactly_nothing(after, prices, factor):
    found = explained(copies(LINE, 4), after, prices)
    ((key, parts),) = found.exact.items()
    assert key == ("", "m")
    assert {name: part for name, part in zip(FACTORS, parts, strict=True) if part} == {
        factor: Fraction(found.after) - Fraction(found.before)
    }
    assert found.after != found.before


def test_requests_that_move_to_another_model_are_mix_and_a_new_feature_is_volume_and_mix():
    small = replace(LINE, request_model="s", output_tokens=10)
    moved = explained([*copies(LINE, 6), *copies(small, 2)], [*copies(LINE, 2), *copies(small, 6)])
    assert {name for name, part in moved.parts(6).items() if part} == {"mix"}
    added = explained(copies(LINE, 4), [*copies(LINE, 4), *copies(replace(LINE, feature="new"), 4)])
    assert {name: part for name, part in added.parts(6).items() if part} == {"volume": added.after - added.before}
    new, old = added.by_segment(6)[["feature", "difference"]].values.tolist()
    assert (new, old) == (["new", added.after - added.before], ["", Decimal(0)])
    none = explained([], copies(LINE, 4))
    assert {name for name, part in none.parts(6).items() if part} == {"volume"}


def test_a_user_in_one_period_only_is_volume_and_mix_and_the_others_are_as_they_would_be_alone():
    stays = [booked(replace(LINE, user="stays", attempt_id=f"s{n}")) for n in range(2)]
    left = [booked(replace(LINE, user="left", output_tokens=900, attempt_id=f"l{n}")) for n in range(2)]
    came = [booked(replace(LINE, user="came", output_tokens=50, attempt_id=f"c{n}")) for n in range(4)]
    found = explained([*stays, *left], [*stays, *came], by=("user",))
    table = found.by_segment(9).set_index("user")
    others = [name for name in FACTORS if name not in ("volume", "mix")]
    assert (table[others] == 0).all(axis=None)
    assert table["difference"].to_dict() == {
        "left": -sum(row.cost for row in left), "came": sum(row.cost for row in came), "stays": 0,
    }  # fmt: skip
    assert list(explained(stays, stays, by=("user",)).by_segment()["difference"]) == [0]


@given(st.lists(rows(["USD"]), max_size=8), st.lists(rows(["USD"]), max_size=8))
@settings(max_examples=20, deadline=None)
def test_neither_the_order_of_the_dimensions_nor_that_of_the_attempts_counts(before, after):
    with Ledger(":memory:") as old, Ledger(":memory:") as new, Ledger(":memory:") as reversed_old:
        old.extend(before)
        new.extend(after)
        reversed_old.extend(before[::-1])
        found = explain_change(Slice(old, prices=PRICES), Slice(new, prices=PRICES), ("feature", "model"))
        other = explain_change(Slice(reversed_old, prices=PRICES), Slice(new, prices=PRICES), ("model", "feature"))
    assert {key[::-1]: parts for key, parts in other.exact.items()} == dict(found.exact)
    assert other.parts() == found.parts()


def test_two_bills_that_end_in_half_a_cent_still_have_parts():
    """To even, 0.005 and 0.015 are 0.00 and 0.02: two cents apart, which no rounding of one part of 0.01 can give."""
    found = explained([replace(LINE, cost=Decimal("0.015"))], [replace(LINE, cost=Decimal("0.005"))])
    assert found.parts() == dict.fromkeys(FACTORS, 0) | {"unsplit": Decimal("-0.01")}
    assert "fell by 0.01 USD, from 0.02 to 0.01" in found.told()


def test_a_model_without_a_price_is_named_and_never_nothing():
    unknown = replace(LINE, request_model="new model")
    found = explained(copies(LINE, 2), [*copies(LINE, 2), unknown], by=("model",))
    assert found.unpriced == (0, 1)
    assert found.after == found.before
    assert found.counts["new model",][1].attempts == 1
    assert found.counts["new model",][1].priced == 0
    assert "Nobody knows the cost of 0 attempts before and 1 after" in found.told()


def test_it_is_the_mean_over_all_orders_of_a_bill_written_out_by_hand():
    """Volume 4 → 6, output 100 → 300, and the price doubled: three changes, six orders."""
    dear = self_defined("m", input="4", output="16", cached="1")
    found = explained(copies(LINE, 4), copies(replace(LINE, output_tokens=300), 6, dear), (LIST, dear))
    sides = {"volume": (4, 6), "tokens out": (100, 300), "price": (1, 2)}
    wanted = dict.fromkeys(sides, Fraction(0))

    def bill(changed):
        n, out, times = (sides[name][name in changed] for name in sides)
        return Fraction(n * times * (600 * 2 * 10 + 400 * 5 + out * 8 * 10), 10_000_000)

    for order in permutations(sides):
        for index, name in enumerate(order):
            wanted[name] += (bill(order[: index + 1]) - bill(order[:index])) / 6
    ((_, parts),) = found.exact.items()
    assert {name: part for name, part in zip(FACTORS, parts, strict=True) if part} == wanted


def test_the_sentence_says_each_part_and_what_nobody_knows():
    # 2 → 4 requests of 2.00, of which 3/4 are of the old segment: (4 + 3) / 2 for volume, -(1 + 2) / 2 for mix.
    big = replace(LINE, input_tokens=1_000_000, cached_tokens=0, output_tokens=0)
    found = explained(copies(big, 2), [*copies(big, 3), replace(big, input_tokens=0, feature="x")])
    assert found.told() == (
        "The bill rose by 2.00 USD, from 4.00 to 6.00: +3.50 because there were more requests, -1.50 because more requests "
        "went to what costs less. Nobody knows the cost of 0 attempts before and 1 after; they are in neither bill."
    )
    assert explained([], []).told() == "The bill stayed at 0.00 USD."


def test_bills_in_two_currencies_are_refused():
    with pytest.raises(InvalidValue, match="EUR, USD"):
        explained([replace(LINE, currency="EUR")], [LINE])
