"""Claims and the bill: verdicts follow from numbers, and what chapters found is there for the last one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.portal import PORTAL, Answered, Batched, Line, Stays, today
from labkit.workbook import ExerciseError
from labkit.workbook.bill import from_entry, item, merged
from labkit.workbook.book import Book
from labkit.workbook.claims import HOLDS, LESS, MORE, OPEN, Claim
from labkit.workbook.store import Journal
from tests.workbook import tiny

CHAPTER = replace(tiny.CHAPTER, claims=("99.half", "99.formula"))

numbers = st.floats(-1e6, 1e6)


def claim(low: float, high: float, measured: float, **more) -> Claim:
    return Claim(
        "99.half", "It halves.", low, high, measured, "times", "here", "elsewhere", "this run", "A Blog, 2025", **more
    )


def book(journal: Journal) -> Book:
    return tiny.book_of(CHAPTER, journal=journal)


@pytest.mark.parametrize(
    ("measured", "interval", "verdict"),
    [
        (4.0, None, HOLDS),
        (3.0, None, HOLDS),
        (1.1, None, LESS),
        (5.2, None, MORE),
        (4.0, (3.2, 4.9), HOLDS),
        (4.0, (2.9, 4.9), OPEN),
        (1.1, (0.9, 2.9), LESS),
        (1.1, (0.9, 3.1), OPEN),
        (7.0, (5.1, 9.0), MORE),
        (4.0, (1.0, 9.0), OPEN),
    ],
)
def test_a_verdict_is_where_the_measurement_lies(measured, interval, verdict):
    assert claim(3, 5, measured, interval=interval).verdict == verdict


def test_a_formula_may_be_off_by_its_tolerance():
    assert claim(10, 10, 10.9, tolerance=0.1).verdict == HOLDS
    assert claim(10, 10, 11.1, tolerance=0.1).verdict == MORE
    assert claim(-10, -10, -11.1, tolerance=0.1).verdict == LESS


@given(numbers, numbers, numbers, numbers, numbers)
def test_a_wider_interval_never_makes_a_verdict_surer(a, b, c, d, e):
    low, high = sorted((a, b))
    least, measured, most = sorted((c, d, e))
    sure = claim(low, high, measured).verdict
    wide = claim(low, high, measured, interval=(least, most)).verdict
    assert wide in (sure, OPEN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": 6.0}, "smaller number first"),
        ({"measured": float("nan")}, "not measured"),
        ({"interval": (5.0, 6.0)}, "outside its own interval"),
        ({"source": " "}, "needs source="),
        ({"unless": ""}, "needs unless="),
        ({"by": " "}, "needs by="),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused(change, message):
    with pytest.raises(ExerciseError, match=message):
        replace(claim(3, 5, 4.0), **change)


def judge(b: Book, measured: float) -> None:
    b.claim(
        "99.half", "It halves.", claimed=(3, 5), measured=measured, unit="times", where="here", unless="elsewhere",
        source="this run", by="A Blog, 2025", interval=(measured - 0.5, measured + 0.5),
    )  # fmt: skip


def test_the_newest_verdict_of_each_claim_is_kept_for_later_chapters(tmp_path, capsys):
    path = tmp_path / "j.jsonl"
    judge(book(Journal(path)), 4.0)
    said = capsys.readouterr().out
    assert "“It halves.” Holds here." in said
    assert "Claimed by: A Blog, 2025" in said
    judge(book(Journal(path)), 1.25)
    book(Journal(path)).claim(
        "99.formula", "It is ten.", claimed=10, measured=10.2, unit="", where="here", unless="never", source="this run",
        by="no source found", tolerance=0.05,
    )  # fmt: skip
    with path.open("a") as file:
        file.write('{"kind": "claim", "item": "99.old", "at": 0, "text": "of a version long ago"}\n')
    capsys.readouterr()
    book(Journal(path)).claims()
    text = capsys.readouterr().out
    assert "1.25 times (0.75 to 1.75)" in text
    assert "less than claimed" in text
    assert "10.2" in text
    assert "A Blog, 2025" in text
    assert "no source found" in text
    assert "(3.5 to 4.5)" not in text
    assert "long ago" not in text


def test_an_undeclared_claim_is_named():
    with pytest.raises(ExerciseError, match=r"99\.other"):
        book(Journal(None)).claim(
            "99.other", "?", claimed=1, measured=1, unit="", where="here", unless="never", source="this run",
            by="A Blog, 2025",
        )  # fmt: skip


@pytest.fixture
def no_recordings(monkeypatch, tmp_path):
    """A lab whose chapters recorded nothing, so that a bill holds the test's own lines only."""
    monkeypatch.setattr("labkit.workbook.book.chapter_recording", lambda notebook: tmp_path / f"{notebook}.jsonl")


@pytest.mark.usefixtures("no_recordings")
def test_the_bill_is_a_chain_of_the_newest_lines(tmp_path, capsys):
    path = tmp_path / "j"
    for hits in (0.1, 0.25):
        book(Journal(path)).bill("caching", Answered("desk", hits), of="desk", source="prices of a day")
    book(Journal(path)).bill("a night shift", Batched("summaries"), of="summaries", source="prices of a day")
    text = capsys.readouterr().out.rsplit("The portal's month", 1)[1]
    begin = today()
    kept = begin.usd - begin.of("desk") / 4
    night = begin.of("summaries") - Batched("summaries").made(begin).of("summaries")
    for usd in (begin.usd, kept, kept - night, begin.of("desk") / 4, night):
        assert f"{usd:,.0f}" in text
    assert f"{begin.of('desk') / 10:,.0f}" not in text


@pytest.mark.usefixtures("no_recordings")
def test_a_wrong_answer_is_paid_for_in_words(capsys):
    book(Journal(None)).bill("caching", Answered("desk", 0.01), of="desk", source="prices of a day", wrong=0.001)
    net = today().of("desk") / 100 - 12_000 * PORTAL.wrong_answer_usd  # 12,000,000 questions a month
    assert net < 0
    assert f"the line would cost {-net:,.0f} USD a month" in capsys.readouterr().out


def test_lines_of_earlier_chapters_come_from_the_journal_or_else_from_their_recordings():
    mine, theirs = Line("01", "mine", "desk", Stays("desk"), "me"), Line("01", "theirs", "desk", Stays("desk"), "they")
    other = Line("02", "other", "assistant", Stays("assistant"), "they")
    assert merged({item(mine): mine}, [theirs, other]) == ((mine, True), (other, False))


def test_an_entry_of_another_version_is_passed_over():
    assert from_entry({"item": "03 caching", "chapter": "03", "before": 100.0, "after": 60.0}) is None
    assert (
        from_entry({"item": "03 caching", "line": {"$lab": "labkit.portal.bill:Line", "fields": {"chapter": "03"}}}) is None
    )
