"""The spending dashboard's widget, driven as its controls drive it, beside the ledger that it shows."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import date
from decimal import Decimal
from html import unescape
from typing import Any

import pytest

from labkit.cost import self_defined
from labkit.ledger import Ledger, Row
from labkit.spending import SPLITS, Slice, Sums, attribute
from labkit.workbook import spent_html
from labkit.workbook.spent import SpendingBoard, spending_app, watch_spending
from tests.spending.books import PRICES, two_busy_days

DAY = 86_400
NOON = 20_000 * DAY + 12 * 3_600.0


@pytest.fixture
def books():
    with Ledger(":memory:") as ledger:
        yield ledger


def shown(ledger: Ledger, **settings: Any) -> SpendingBoard:
    board = SpendingBoard(ledger, at=NOON, **settings)
    board.follow()
    return board


def text(widget: Any) -> str:
    """The words of an HTML widget, without its tags."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", widget.value)))


def visible(pairs: list[tuple[Any, Any]]) -> list[tuple[str, str]]:
    return [(button.description, text(line)) for button, line in pairs if button.layout.display != "none"]


def book(at: float, **fields: Any) -> Row:
    return replace(Row(provider="lab", input_tokens=100, output_tokens=10, cost=Decimal(1), started_unix=at), **fields)


def test_the_page_says_what_the_ledger_says(books: Ledger) -> None:
    books.extend(two_busy_days(NOON, 800))
    board = shown(books)
    table = attribute(Slice(books, NOON - 12 * 3_600, NOON), ["organisation"]).sort_values("cost", ascending=False)
    rows = visible(board._spenders)
    assert [name for name, _ in rows] == table["organisation"].tolist()[:8]
    for (_, line), (_, known) in zip(rows, table.iterrows(), strict=False):
        assert spent_html.money(known["cost"], "USD") in line
        assert f" {known['attempts']:,} " in line
        assert ("≥" in line) == bool(known["unpriced"])
    total = sum(table["cost"], Decimal(0))
    assert f"Spent {'≥ ' if table['unpriced'].sum() else ''}{spent_html.money(total, 'USD')} " in text(board._tiles)
    assert f"Unpriced {table['unpriced'].sum()} of {table['attempts'].sum()} attempts" in text(board._tiles)
    for kind in ("fresh_input", "cached_input", "visible_output"):
        assert f" {table[kind].sum():,} " in text(board._kinds)
    for reason, words in (("failed", "failed"), ("cancelled", "cancelled by whoever asked"), ("shadow", "shadow traffic")):
        cost = spent_html.money(sum(table[f"wasted_{reason}"], Decimal(0)), "USD")
        assert re.search(rf"{words} \d+ \d+ (≥ )?{re.escape(cost)} ", text(board._nothing)), reason


def test_it_follows_the_ledger_while_attempts_are_booked(books: Ledger) -> None:
    async def watch() -> tuple[Any, Any]:
        board = SpendingBoard(books, at=NOON, every_s=0.01)
        board.follow()
        first = board.shown
        books.append(book(NOON - 1, tenant="northwind"))
        async with asyncio.timeout(30):
            while board.shown is first:  # noqa: ASYNC110 - what is waited for is the timer of the board itself
                await asyncio.sleep(0.01)
        last = board.shown
        board.close()
        return first, last

    first, last = asyncio.run(watch())
    assert (first.attempts, last.attempts) == (0, 1)
    assert last.now.all.cost == 1


def test_what_has_not_changed_is_not_drawn_again(books: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    books.append(book(NOON - 1))
    board = shown(books)
    drawn = board.shown
    board.tick()
    assert board.shown is drawn
    books.append(book(NOON - 1))
    board.tick()
    assert board.shown is not drawn


def test_a_click_leads_from_a_spender_to_its_requests_and_to_a_receipt(books: Ledger) -> None:
    books.extend(two_busy_days(NOON, 600))
    board = shown(books, prices=PRICES)
    name = board._spenders[0][0].description
    board._spenders[0][0].click()
    assert board.shown is not None
    assert board.shown.view.only == {"organisation": name}
    assert board._by.value == "feature"
    ours = [row for row in books.rows() if row.tenant == name and NOON - 12 * 3_600 <= (row.started_unix or 0) < NOON]
    assert board.shown.now.all.attempts == len(ours)
    board._costly[0][0].click()
    costliest = max(ours, key=lambda row: sum(o.cost or 0 for o in ours if o.idempotency_key == row.idempotency_key))
    assert f"key {costliest.idempotency_key} " in text(board._receipt) + " "
    assert f"organisation {name}" in text(board._receipt)
    board._shut.click()
    assert board._receipt.value == ""
    board._chosen.children[0].click()
    assert board.shown.view.only == {}
    assert board._by.value == "organisation"


def test_every_dimension_can_be_chosen_one_after_the_other(books: Ledger) -> None:
    books.extend(two_busy_days(NOON, 100))
    board = shown(books)
    for _ in SPLITS:
        board._spenders[0][0].click()
    assert board.shown is not None
    assert set(board.shown.view.only) == set(SPLITS)
    assert board.shown.now.all.attempts >= 1
    assert board._message.value == ""


def test_a_receipt_says_what_each_kind_of_token_cost(books: Ledger) -> None:
    price = self_defined("m", input="2", output="10")
    row = book(NOON - 1, request_model="m", input_tokens=1_000, output_tokens=500, cost=Decimal("0.007"), tenant="a<b")
    books.append(row)
    board = shown(books, prices={"m": price})
    board._costly[0][0].click()
    assert "1,000 $0.002000" in text(board._receipt)
    assert "500 $0.005000" in text(board._receipt)
    assert "organisation a<b" in text(board._receipt)
    assert "a&lt;b" in board._receipt.value


def test_nobody_priced_is_never_shown_as_nothing(books: Ledger) -> None:
    books.extend([book(NOON - 2, tenant="north", cost=None), book(NOON - 1, tenant="south", cost=Decimal(0))])
    board = shown(books)
    rows = dict(visible(board._spenders))
    assert " unpriced " in rows["north"]
    assert "$0 " in rows["south"]
    assert "Spent ≥ $0 " in text(board._tiles)
    assert "Unpriced 1 of 2 attempts have no price" in text(board._tiles)
    only = SpendingBoard(books, at=NOON)
    only.follow()
    only.choose("organisation", "north")
    assert "Spent unpriced " in text(only._tiles)
    assert "Cost per solved request unpriced " in text(only._tiles) or "none solved" in text(only._tiles)


def test_an_empty_ledger_says_so_and_takes_its_first_attempt(books: Ledger) -> None:
    board = shown(books)
    assert "This ledger is empty." in text(board._remark)
    books.append(book(NOON - 1))
    board.tick()
    assert board._remark.value == ""
    assert "Spent $1.00 " in text(board._tiles)


@pytest.mark.parametrize("days", [3, 365])
def test_after_days_without_traffic_one_click_shows_the_last_day_there_was(books: Ledger, days: int) -> None:
    books.append(book(NOON - days * DAY))
    board = shown(books)
    assert "Nothing was booked on 2024-10-04 or the day before" in text(board._remark)
    assert board._jump.layout.display == ""
    board._jump.click()
    assert board.shown is not None
    assert (board.shown.now.all.attempts, board._jump.layout.display) == (1, "none")
    board._today.click()
    assert board.shown.now.all.attempts == 0


def test_a_past_day_is_shown_whole_and_the_present_one_up_to_now(books: Ledger) -> None:
    books.extend([book(NOON - 60), book(NOON - DAY - 60), book(NOON - DAY + 60), book(NOON + 60)])
    board = shown(books)
    board._day.value = date(2024, 10, 3)
    assert board.shown is not None
    assert (board.shown.view.until, board.shown.now.all.attempts) == (NOON - 12 * 3_600, 2)
    board._day.value = date(2024, 10, 4)
    assert (board.shown.view.until, board.shown.now.all.attempts) == (NOON, 1)
    board._day.value = date(2031, 1, 1)  # nothing is known of it, and nothing breaks
    assert board.shown.now.all.attempts == 0


def test_currencies_are_told_apart_and_offered(books: Ledger) -> None:
    books.extend([book(NOON - 1), book(NOON - 2), book(NOON - 3, currency="EUR", cost=Decimal("2.5"))])
    board = shown(books)
    assert "attempts not shown: 1 in EUR" in text(board._remark)
    assert "Spent $2.00 " in text(board._tiles)
    board._currency.value = "EUR"
    assert "Spent 2.50 EUR " in text(board._tiles)


def test_times_that_are_missing_or_to_come_are_named(books: Ledger) -> None:
    books.extend([book(NOON - 1), replace(book(0.0), started_unix=None), book(NOON + 5)])
    assert "1 attempts have no time of start and are in no day. 1 attempts start after this." in text(shown(books)._remark)


def test_a_ledger_that_fails_leaves_the_last_numbers_and_says_why(books: Ledger) -> None:
    books.append(book(NOON - 1))
    board = shown(books)
    books.close()
    board.tick()
    assert "Not up to date:" in text(board._message)
    assert "Spent $1.00 " in text(board._tiles)


def test_before_the_ledger_is_read_nothing_is_shown_that_is_not_so(books: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.workbook.spent._READ_AT_ONCE", 40)
    books.extend(two_busy_days(NOON, 100))
    board = SpendingBoard(books, at=NOON)
    assert board.tick() is True
    assert "read 40 of 100" in text(board._state)
    assert (board.shown, visible(board._spenders), text(board._tiles)) == (None, [], "")
    while board.tick():
        pass
    assert "100 attempts read" in text(board._state)
    assert visible(board._spenders)


def test_watching_a_closed_ledger_is_refused(books: Ledger) -> None:
    books.close()
    with pytest.raises(Exception, match="is closed"):
        watch_spending(books, at=NOON)


def test_the_app_says_what_is_wrong_with_what_it_was_given(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_LEDGER", raising=False)
    assert "labkit dashboard LEDGER" in text(spending_app())
    monkeypatch.setenv("LABKIT_LEDGER", str(tmp_path / "none.db"))
    assert "there is no ledger at" in text(spending_app())
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "x.db").write_text("no ledger at all, but a text")
    monkeypatch.setenv("LABKIT_LEDGER", str(tmp_path / "x.db"))
    assert "it is not an SQLite file" in text(spending_app())


@pytest.mark.parametrize(
    ("amount", "currency", "says"),
    [
        (None, "USD", "unpriced"), (Decimal(0), "USD", "$0"), (Decimal("1234.567"), "USD", "$1,234.57"),
        (Decimal("0.5"), "USD", "$0.5000"), (Decimal("0.00012345"), "USD", "$0.0001234"),
        (Decimal("-2"), "EUR", "−2.00 EUR"), (Decimal("1E-18"), "USD", "$0.000000000000000001"),
        (Decimal("1E+20"), "USD", "$100,000,000,000,000,000,000.00"),
    ],
)  # fmt: skip
def test_money_is_written_with_the_digits_it_needs(amount: Decimal | None, currency: str, says: str) -> None:
    assert spent_html.money(amount, currency) == says


@pytest.mark.parametrize(
    ("now", "before", "says"),
    [
        (3, 2, "+50 %"),
        (2.1, 2, "+5.0 %"),
        (1, 2, "−50 %"),
        (0, 2, "−100 %"),
        (2, 0, "new"),
        (0, 0, "–"),
        (None, 1, "–"),
        (9_999.9, 10_000, "0.0 %"),
    ],
)
def test_a_change_is_in_percent_of_what_was_before(now: float | None, before: float | None, says: str) -> None:
    assert spent_html.change(now, before) == says


def test_the_curve_ends_at_what_was_spent(books: Ledger) -> None:
    books.extend([book(NOON - 11 * 3_600), book(NOON - 60, cost=Decimal(3)), book(NOON - DAY + 60, cost=Decimal(6))])
    board = shown(books)
    assert board.shown is not None
    before, now = (
        [tuple(map(float, point.split(","))) for point in points.split()]
        for points in re.findall(r'points="([^"]+)"', board._curve.value)
    )
    zero, top = now[0][1], now[-1][1]
    assert (zero - before[-1][1]) / (zero - top) == pytest.approx(6 / 4, rel=0.01)  # the day before, and this day by noon
    assert now[-1][0] == pytest.approx(before[12][0])
    assert len(before) == 25
    assert board.shown.whole_before.cost == 6
    assert board.shown.before.all == Sums()
    assert "Spent by 12:00 UTC: $4.00; the day before, by then $0 and $6.00 in the whole day." in text(board._curve)
