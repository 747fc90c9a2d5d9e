import ipywidgets as w
import pytest

from labkit.workbook.book import Book
from labkit.workbook.store import Journal
from tests.workbook.tiny import CHAPTER


def widgets_of(monkeypatch, use):
    """The forms that `use(book)` shows, and the journal behind them."""
    shown: list[w.Widget] = []
    monkeypatch.setattr("labkit.workbook.book.show_widget", shown.append)
    journal = Journal(None)
    use(Book(CHAPTER, profile="learn", engine="auto", seed=0, solutions=False, journal=journal))
    return shown, journal


def all_of(root, kind):
    found = [root] if isinstance(root, kind) else []
    return found + [x for child in getattr(root, "children", ()) for x in all_of(child, kind)]


def test_commit_wakes_when_the_slider_moves_and_is_locked_once_the_result_was_shown(monkeypatch):
    def use(book):
        book.predict("99.share", "Which?", low=0, high=100, unit="%")
        book.reveal("99.share", 64, unit="%")

    (form, waiting), journal = widgets_of(monkeypatch, use)
    (slider,), (commit,) = all_of(form, w.FloatSlider), all_of(form, w.Button)
    assert commit.disabled
    slider.value = 40
    assert not commit.disabled
    commit.click()
    assert journal.last("commit", "99.share")["value"] == 40
    assert commit.disabled
    all_of(waiting, w.Button)[0].click()
    assert "You predicted 40 %; the result is 64 %" in all_of(waiting, w.HTML)[0].value
    slider.value = 64
    commit.click()
    assert [e["value"] for e in journal.entries("commit")] == [40]


def test_looking_without_a_prediction_is_not_scored(monkeypatch):
    def use(book):
        book.predict("99.share", "Which?", low=0, high=100, unit="%")
        book.reveal("99.share", 64, unit="%")

    (_, waiting), journal = widgets_of(monkeypatch, use)
    all_of(waiting, w.Button)[0].click()
    assert "nothing is scored" in all_of(waiting, w.HTML)[0].value
    assert journal.last("reveal", "99.share")["score"] is None


def test_a_choice_starts_unchosen_and_records_the_confidence(monkeypatch):
    (form,), journal = widgets_of(monkeypatch, lambda b: b.predict_choice("99.cheaper", "?", options=("yes", "no")))
    (radio,), (sure,), (commit,) = all_of(form, w.RadioButtons), all_of(form, w.FloatSlider), all_of(form, w.Button)
    assert radio.value is None
    assert commit.disabled
    sure.value = 0.8
    assert commit.disabled
    radio.value, sure.value = "no", 0.9
    commit.click()
    entry = journal.last("commit", "99.cheaper")
    assert (entry["value"], entry["confidence"]) == ("no", 0.9)


def test_a_committed_choice_may_change_in_its_confidence_alone(monkeypatch):
    (form,), journal = widgets_of(monkeypatch, lambda b: b.predict_choice("99.cheaper", "?", options=("yes", "no")))
    (radio,), (sure,), (commit,) = all_of(form, w.RadioButtons), all_of(form, w.FloatSlider), all_of(form, w.Button)
    radio.value = "no"
    commit.click()
    assert commit.disabled
    sure.value = 0.6
    assert not commit.disabled
    commit.click()
    assert [(e["value"], e["confidence"]) for e in journal.entries("commit")] == [("no", 0.7), ("no", 0.6)]


def test_a_quiz_says_why_only_when_right(monkeypatch):
    def use(book):
        book.quiz("99.q1", "?", options=("yes", "no"), answer="yes", why="Because.")

    (form,), journal = widgets_of(monkeypatch, use)
    (radio,), (check,), (feedback,) = all_of(form, w.RadioButtons), all_of(form, w.Button), all_of(form, w.HTML)
    radio.value = "no"
    check.click()
    assert "Because" not in feedback.value
    radio.value = "yes"
    check.click()
    assert "Because" in feedback.value
    assert [e["ok"] for e in journal.entries("quiz")] == [False, True]


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0, 1, False), (1, 16, False), (0.5, 3, False), (0, 1e6, False), (1, 1e4, True)]
)
def test_a_slider_can_be_made_for_any_range(low, high, log, monkeypatch):
    def use(book):
        book.predict("99.share", "Which?", low=low, high=high, unit="times", log=log)

    (form,), _ = widgets_of(monkeypatch, use)
    (slider,) = all_of(form, w.FloatLogSlider if log else w.FloatSlider)
    assert low <= slider.value <= high
