import re
from collections import Counter

import ipywidgets as w
import pytest

from labkit.workbook import Chapter, ExerciseError, Quiz
from labkit.workbook.chapters import chapters
from labkit.workbook.store import Journal
from tests.workbook.tiny import CHAPTER, book_of


def widgets_of(monkeypatch, use, contents=CHAPTER, replaced=None):
    """The forms that `use(book)` shows, and the journal behind them; what is put in another's place goes to `replaced`."""
    shown: list[w.Widget] = []
    monkeypatch.setattr("labkit.workbook.book.show_widget", shown.append)
    if replaced is not None:
        monkeypatch.setattr(
            "labkit.workbook.book.show_replaceable",
            lambda html, _: replaced.append(html) or (lambda h, _: replaced.append(h)),
        )
    journal = Journal(None)
    use(book_of(contents, profile="learn", journal=journal))
    return shown, journal


def all_of(root, kind):
    found = [root] if isinstance(root, kind) else []
    return found + [x for child in getattr(root, "children", ()) for x in all_of(child, kind)]


def test_commit_wakes_when_the_slider_moves_and_is_locked_once_the_result_was_shown(monkeypatch):
    def use(book):
        book.predict("99.share", "Which?", low=0, high=100, unit="%")
        book.reveal("99.share", 64, unit="%")

    replaced = []
    (form, waiting), journal = widgets_of(monkeypatch, use, replaced=replaced)
    (slider,), (commit,) = all_of(form, w.FloatSlider), all_of(form, w.Button)
    assert commit.disabled
    assert "Move the slider" in all_of(form, w.HTML)[-1].value
    assert ["lab-veil" in html for html in replaced] == [True]
    slider.value += 1e-14  # as a browser sends 20.5 back
    assert commit.disabled
    slider.value = 40
    assert not commit.disabled
    commit.click()
    assert journal.last("commit", "99.share")["value"] == 40
    assert commit.disabled
    # Committed above: the result takes the place of the form that waited for it, and nothing is folded any more.
    assert "You predicted 40 %; the result is 64 %" in replaced[-1]
    assert "lab-veil" not in replaced[-1]
    assert waiting.comm is None
    slider.value = 64
    commit.click()
    assert [e["value"] for e in journal.entries("commit")] == [40]


def test_looking_without_a_prediction_is_not_scored(monkeypatch):
    def use(book):
        book.predict("99.share", "Which?", low=0, high=100, unit="%")
        book.reveal("99.share", 64, unit="%")

    replaced = []
    (_, waiting), journal = widgets_of(monkeypatch, use, replaced=replaced)
    all_of(waiting, w.Button)[-1].click()
    assert "nothing is scored" in replaced[-1]
    assert journal.last("reveal", "99.share")["score"] is None


def test_a_prediction_can_be_committed_where_its_result_waits(monkeypatch):
    def use(book):
        book.predict_choice("99.cheaper", "?", options=("yes", "no"))
        book.reveal("99.cheaper", "no")

    replaced = []
    (_, waiting), journal = widgets_of(monkeypatch, use, replaced=replaced)
    (radio,), (commit, _) = all_of(waiting, w.RadioButtons), all_of(waiting, w.Button)
    radio.value = "no"
    commit.click()
    assert [e["kind"] for e in journal.entries(item="99.cheaper")] == ["commit", "reveal"]
    assert journal.last("reveal", "99.cheaper")["score"] is not None
    assert "You predicted no; the result is no" in replaced[-1]


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


def test_a_quiz_says_of_each_option_why_it_is_right_or_wrong(monkeypatch):
    (form,), journal = widgets_of(monkeypatch, lambda book: book.quiz("99.q1"))
    (radio,), (check,), (feedback,) = all_of(form, w.RadioButtons), all_of(form, w.Button), all_of(form, w.HTML)
    radio.value = "no"
    check.click()
    assert "Because" not in feedback.value
    assert "For &lt;that&gt; reason." in feedback.value
    assert "Try again" in feedback.value
    radio.value = "yes"
    check.click()
    assert "Because" in feedback.value
    assert [e["ok"] for e in journal.entries("quiz")] == [False, True]


def orders(monkeypatch, seed):
    """How each quiz question's options are shown: (by the radio buttons, in the printed text)."""
    forms, texts, found = [], [], {}
    monkeypatch.setattr("labkit.workbook.book.show_widget", forms.append)
    monkeypatch.setattr("labkit.workbook.book.show_html", lambda html, text: texts.append(text))
    for contents in chapters():
        for quiz in contents.quizzes:
            book_of(contents, profile="learn", seed=seed).quiz(quiz.id)
            (radio,) = all_of(forms[-1], w.RadioButtons)
            found[quiz.id] = tuple(radio.options), tuple(re.findall(r"\( \) (.*)", texts[-1]))
    return found


def test_the_place_of_a_right_answer_gives_nothing_away_in_any_chapter(monkeypatch):
    shown, asked = orders(monkeypatch, 0), {quiz.id: quiz for contents in chapters() for quiz in contents.quizzes}
    for id, (radio, printed) in shown.items():
        assert radio == printed
        assert sorted(radio) == sorted([asked[id].answer, *asked[id].wrong])
    places = Counter(radio.index(asked[id].answer) for id, (radio, _) in shown.items())
    assert max(places.values()) <= 0.5 * len(shown)
    assert min(places[place] for place in range(3)) >= 0.15 * len(shown)
    assert orders(monkeypatch, 0) == shown != orders(monkeypatch, 1)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (("900", "1,540", "260"), ("260", "900", "1,540")),
        (("no", "yes"), ("yes", "no")),
        (("a", "b", "c", "d", "e"), ("e", "d", "c", "a", "b")),  # in every run, on any machine
    ],
)
def test_a_quiz_shows_numbers_by_size_yes_before_no_and_others_shuffled(options, shown, monkeypatch):
    asked = Quiz("99.q1", "?", answer=options[0], why="Because.", wrong=dict.fromkeys(options[1:], "Not so."))
    (form,), journal = widgets_of(monkeypatch, lambda book: book.quiz("99.q1"), Chapter("99", "x", "X", quizzes=(asked,)))
    (radio,), (check,) = all_of(form, w.RadioButtons), all_of(form, w.Button)
    assert radio.options == shown
    radio.value = options[0]
    check.click()
    assert [(e["choice"], e["ok"]) for e in journal.entries("quiz")] == [(options[0], True)]


def test_a_question_that_comes_back_shows_no_earlier_answer_and_its_first_try_counts_for_no_quiz(monkeypatch, capsys):
    earlier = Chapter("98", "x", "X", quizzes=(Quiz("98.q1", "?", "a", "So.", {"b": "No."}),))
    monkeypatch.setattr("labkit.workbook.book.chapters", lambda: (earlier, CHAPTER))
    monkeypatch.setattr("labkit.workbook.progress.chapters", lambda: (earlier, CHAPTER))
    shown, journal = widgets_of(monkeypatch, lambda book: book.warm_up())
    printed = capsys.readouterr().out
    assert "( ) a" in printed
    assert "So." not in printed
    (radio,), (check,) = all_of(shown[0], w.RadioButtons), all_of(shown[0], w.Button)
    assert (len(shown), radio.value) == (1, None)
    for choice in ("b", "a"):
        radio.value = choice
        check.click()
    assert [(e["kind"], e["item"], e["ok"]) for e in journal.entries()] == [("review", "98.q1", False)]
    book_of(journal=journal).progress()
    assert re.findall(r"\d/\d", capsys.readouterr().out)[-7:] == ["0/0", "0/0", "0/1", "0/1", "0/1", "0/2", "0/1"]
    (again,), _ = widgets_of(monkeypatch, lambda book: book.warm_up())
    assert all_of(again, w.RadioButtons)[0].value is None


def test_the_first_chapter_has_nothing_to_come_back_to(monkeypatch):
    monkeypatch.setattr("labkit.workbook.book.chapters", lambda: (CHAPTER,))
    with pytest.raises(ExerciseError, match="no chapter before it"):
        book_of().warm_up()


@pytest.mark.parametrize(("tries", "score"), [((), "0/1"), ((True,), "1/1"), ((False, True), "0/1"), ((True, False), "1/1")])
def test_only_the_first_try_of_a_quiz_counts(tries, score, monkeypatch, capsys):
    monkeypatch.setattr("labkit.workbook.progress.chapters", lambda: (CHAPTER,))
    journal = Journal(None)
    for ok in tries:
        journal.append("quiz", "99.q1", choice="an option", ok=ok)
    book_of(journal=journal).progress()
    assert re.findall(r"\d/\d", capsys.readouterr().out)[-1] == score  # no question came back, so that column has none


def test_an_answer_given_before_options_were_shuffled_is_still_chosen(monkeypatch):
    journal = Journal(None)
    journal.append("quiz", "99.q1", choice="b", ok=False)
    forms = []
    monkeypatch.setattr("labkit.workbook.book.show_widget", forms.append)
    asked = Quiz("99.q1", "?", answer="a", why="So.", wrong={"b": "No.", "c": "No."})
    book_of(Chapter("99", "x", "X", quizzes=(asked,)), profile="learn", journal=journal).quiz("99.q1")
    assert all_of(forms[0], w.RadioButtons)[0].value == "b"


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0, 1, False), (1, 16, False), (0.5, 3, False), (0, 1e6, False), (1, 1e4, True)]
)
def test_a_slider_can_be_made_for_any_range(low, high, log, monkeypatch):
    def use(book):
        book.predict("99.share", "Which?", low=low, high=high, unit="times", log=log)

    (form,), _ = widgets_of(monkeypatch, use)
    (slider,) = all_of(form, w.FloatLogSlider if log else w.FloatSlider)
    assert low <= slider.value <= high
