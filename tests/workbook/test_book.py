import re
from dataclasses import replace

import pytest

from labkit.workbook import CheckFailed, ExerciseError, Quiz, open_chapter, spread
from labkit.workbook.prediction import (
    ChoiceQuestion,
    NumberQuestion,
    Standing,
    cannot_tell,
    number_text,
    score_choice,
    score_number,
    standing,
)
from labkit.workbook.store import Journal
from tests.workbook.test_exercise import Pushes, Stack, staged
from tests.workbook.tiny import CHAPTER, NoBench, book_of, cached_share

NUMBER = NumberQuestion("99.share", "?", 0, 100, "%")
TIMES = NumberQuestion("99.times", "?", 0, 100, "times")


def book(journal=None, **fields):
    return book_of(journal=journal or Journal(None), **fields)


def one(number):
    return spread([number])


def test_a_guess_counts_until_its_first_reveal_and_not_after():
    journal = Journal(None)
    for kind, value in [("commit", 1.0), ("commit", 2.0), ("reveal", 0), ("commit", 3.0)]:
        journal.append(kind, "99.share", value=value)
    state = standing(journal, "99.share")
    assert state.guess["value"] == 2.0
    assert state.revealed


def test_without_a_commitment_nothing_is_guessed_for_the_learner(capsys):
    journal = Journal(None)
    b = book(journal)
    b.predict("99.share", "Which?", low=0, high=100, unit="%")
    b.reveal("99.share", 64, unit="%")
    assert "No prediction was made" in capsys.readouterr().out
    assert not list(journal.entries("commit"))
    assert journal.last("reveal", "99.share")["score"] is None


def test_a_learner_is_asked_to_commit_before_the_result_is_shown(capsys):
    journal = Journal(None)
    b = book(journal, profile="learn")
    b.predict("99.share", "Which?", low=0, high=100, unit="%")
    b.reveal("99.share", 64, unit="%")
    b.recap()
    out = capsys.readouterr().out
    assert "64 %" not in out
    assert "waits for your prediction" in out
    assert "lab-veil" in out
    assert not list(journal.entries("reveal"))


@pytest.mark.parametrize("profile", ["ci", "learn"])
def test_a_reset_opens_predictions_again_and_the_journal_keeps_the_old_ones(profile, capsys):
    journal = Journal(None)
    journal.append("commit", "99.share", value=32.0, unit="%")
    b = book(journal, profile=profile)
    b.predict("99.share", "Which?", low=0, high=100, unit="%")
    b.reveal("99.share", 64, unit="%")
    assert standing(journal, "99.share").revealed
    b.reset()
    assert standing(journal, "99.share") == Standing(None, False)
    journal.append("commit", "99.share", value=60.0, unit="%")
    journal.append("reveal", "99.share", actual=64.0)
    journal.append("commit", "99.share", value=64.0, unit="%")  # too late
    state = standing(journal, "99.share")
    assert (state.guess["value"], state.revealed) == (60.0, True)
    assert [e["value"] for e in journal.entries("commit")] == [32.0, 60.0, 64.0]
    assert "open again" in capsys.readouterr().out


def test_a_committed_guess_is_shown_beside_the_result_and_in_the_recap(capsys):
    journal = Journal(None)
    journal.append("commit", "99.share", value=32.0, unit="%")
    b = book(journal, profile="learn")
    b.predict("99.share", "Which?", low=0, high=100, unit="%")
    b.reveal("99.share", 64, unit="%")
    b.recap()
    out = capsys.readouterr().out
    assert "You predicted 32 %; the result is 64 %" in out
    assert out.count("32 percentage points too low") == 4  # HTML and text, of the result and of the recap


@pytest.mark.parametrize(
    ("guess", "actual", "value", "close"), [(10, 10, 1, True), (10, 40, 4, False), (40, 10, 4, False), (12, 10, 1.2, True)]
)
def test_a_number_is_scored_by_its_ratio(guess, actual, value, close):
    score = score_number(TIMES, guess, one(actual))
    assert (score.metric, score.close) == ("ratio", close)
    assert score.value == pytest.approx(value)


@pytest.mark.parametrize(("guess", "actual", "points", "close"), [(2, 1, 1, True), (50, 0, 50, False), (31, 45, 14, False)])
def test_a_share_is_scored_in_percentage_points(guess, actual, points, close):
    score = score_number(NUMBER, guess, one(actual))
    assert (score.metric, score.value, score.close) == ("points", points, close)


def test_a_result_of_zero_is_scored_by_distance():
    score = score_number(TIMES, 50, one(0))
    assert (score.metric, score.value) == ("range", 0.5)


@pytest.mark.parametrize(("guess", "value"), [(3, 1), (2, 1), (4, 1), (8, 2), (1, 2)])
def test_a_guess_within_the_rounds_cannot_be_told_from_the_result(guess, value):
    score = score_number(TIMES, guess, spread([2, 3, 4]))
    assert score.value == pytest.approx(value)
    assert ("spot on: this run says 2 to 4 in 3 rounds" in score.words) == (value == 1)


@pytest.mark.parametrize(
    ("question", "rounds", "tells"),
    [
        (TIMES, [2, 3, 4], True),
        (TIMES, [2, 3, 7], False),
        (TIMES, [-1, 2], False),
        (TIMES, [0, 0], True),
        (NUMBER, [20, 65], True),
        (NUMBER, [20, 75], False),
    ],
)
def test_rounds_too_far_apart_tell_nothing(question, rounds, tells):
    assert (cannot_tell(question, spread(rounds)) == "") is tells


def test_a_result_that_cannot_be_told_is_held_back_and_the_prediction_stays_open(capsys):
    journal = Journal(None)
    journal.append("commit", "99.share", value=32.0, unit="%")
    b = book(journal, bench=NoBench((spread([41.0, 44.0, 42.0]), "a quiet machine's caption")))
    b.predict("99.share", "Which?", low=0, high=100, unit="%")
    b.reveal("99.share", [10, 50, 90], unit="%")
    out = capsys.readouterr().out
    assert "This run cannot tell. Which? 3 rounds lie between 10 % and 90 %. Run the measuring cell again" in out
    assert "On a quiet machine: 42 % (41 to 44 in 3 rounds) (a quiet machine's caption)." in out
    assert not standing(journal, "99.share").revealed
    b.recap()
    assert re.search(r"Which\?\s+32 %\s+-\s+this run cannot tell", capsys.readouterr().out)
    b.reveal("99.share", None, unit="%", unsure="the engine was restarted")
    assert "The engine was restarted." in capsys.readouterr().out
    with pytest.raises(ExerciseError, match="unsure"):
        b.reveal("99.share", None, unit="%")


def test_rounds_are_shown_with_their_interval_and_told_to_the_recording(capsys):
    b = book()
    b.predict("99.share", "Which?", low=0, high=100, unit="%")
    b.reveal("99.share", [60.0, 64.0, 66.0], unit="%")
    assert "Result: 64 % (60 to 66 in 3 rounds)" in capsys.readouterr().out
    assert b._bench.said == {"99.share": spread([60, 64, 66])}


@pytest.mark.parametrize(("ok", "said"), [(True, "so"), (False, "not"), (None, "unknown")])
def test_a_finding_says_what_the_run_found(ok, said, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda made: shown.append(made.data))
    book().finding(ok, "so", "not", "unknown")
    book().finding(ok, "so", "not")
    assert shown[0] == said
    assert ("cannot tell" in shown[1]) is (ok is None)


@pytest.mark.parametrize(
    "wrong",
    [{}, {"yes": "it is the answer"}, {"no": " "}],
    ids=["no other option", "the answer among the wrong ones", "no reason"],
)
def test_a_quiz_without_a_reason_for_each_option_is_refused(wrong):
    with pytest.raises(ExerciseError, match=r"99\.q1"):
        Quiz("99.q1", "Is it?", answer="yes", why="It is.", wrong=wrong)


@pytest.mark.parametrize(("guess", "sure", "brier"), [("a", 1, 0), ("b", 1, 2), ("a", 1 / 3, 2 / 3), ("b", 1 / 3, 2 / 3)])
def test_a_choice_is_scored_by_brier(guess, sure, brier):
    question = ChoiceQuestion("99.x", "?", ("a", "b", "c"))
    score = score_choice(question, guess, sure, "a")
    assert score.value == pytest.approx(brier)
    against = "as good as" if brier == 2 / 3 else "better than" if brier < 2 / 3 else "worse than"
    assert f"{against} an even guess" in score.words


@pytest.mark.parametrize(
    ("value", "text"), [(0.001234, "0.00123"), (12.34, "12.3"), (1234.5, "1,230"), (0, "0"), (-5.0, "-5"), (999.9, "1,000")]
)
def test_numbers_are_shown_to_three_figures(value, text):
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("actual", "unit"), [(1, "ms"), ("x", "%"), (float("nan"), "%"), (None, "%"), ([], "%"), ([1, float("nan")], "%")]
)
def test_a_result_that_does_not_fit_its_question_is_refused(actual, unit):
    b = book()
    b.predict("99.share", "Which?", low=0, high=100, unit="%")
    with pytest.raises(ExerciseError, match=r"99\.share"):
        b.reveal("99.share", actual, unit=unit)


def test_a_wrong_answer_says_not_yet_to_a_learner_and_fails_a_solved_book(capsys):
    book().check("99.1", lambda usage: 0)
    assert "not yet" in capsys.readouterr().out
    with pytest.raises(CheckFailed, match=r"99\.1"):
        book(solutions=True).check("99.1", lambda usage: 0)
    book(solutions=True).check("99.1", cached_share)


def test_hints_come_one_more_at_a_time(capsys):
    b = book()
    shown = []
    for _ in range(3):
        b.hint("99.1")
        shown.append(capsys.readouterr().out.count("<br>"))
    assert shown == [1, 2, 2]


def test_a_long_build_is_shown_by_stages_and_its_hints_are_for_the_stage_that_it_stopped_in(capsys):
    b = book(contents=replace(CHAPTER, exercises=(staged(),)))
    b.hint("99.3")
    assert "stage 1 (push): hint 1 of 1" in capsys.readouterr().out
    b.check("99.3", Pushes)
    shown = capsys.readouterr().out
    assert "Stage 1, push: passed" in shown
    assert "Stage 2, pop: not yet" in shown
    b.hint("99.3")
    said = capsys.readouterr().out
    assert "stage 2 (pop): hint 1 of 1" in said
    assert "Look again." in said
    b.check("99.3", Stack)
    assert "Stage 2, pop: passed" in capsys.readouterr().out


def test_what_is_yours_is_drawn_once_it_passes(capsys):
    journal = Journal(None)
    b = book(journal, contents=replace(CHAPTER, exercises=(staged(),)))
    assert b.yours("99.3", Stack) == (Stack, "yours")
    for unfinished in (Pushes, ..., None):
        made, label = b.yours("99.3", unfinished)
        assert made is Stack
        assert label.startswith("the reference")
    assert not list(journal.entries())
    assert not capsys.readouterr().out


def test_the_solution_is_the_references_own_source(capsys):
    book().solution("99.1")
    assert "return usage.cached_tokens / usage.input_tokens if usage.input_tokens else 0.0" in capsys.readouterr().out


def test_an_undeclared_id_is_named():
    with pytest.raises(ExerciseError, match=r"99\.nothing"):
        book().predict("99.nothing", "?", low=0, high=1, unit="")


@pytest.mark.parametrize("wrong", [{"profile": "fast"}, {"seed": -1}, {"seed": "0"}, {"solutions": "no"}, {"engine": ""}])
def test_a_wrong_parameter_is_named(wrong):
    with pytest.raises(ExerciseError, match=next(iter(wrong))):
        open_chapter("00", **wrong)


@pytest.mark.parametrize("then", [100.0, 100.0 - 3600], ids=["the same time", "a clock set back"])
def test_the_last_entry_is_the_one_written_last_whatever_the_clock_says(then, monkeypatch):
    journal = Journal(None)
    for now, value in [(100.0, 1), (then, 2)]:
        monkeypatch.setattr("labkit.workbook.store.time.time", lambda now=now: now)
        journal.append("quiz", "99.q1", value=value)
    assert journal.last("quiz", "99.q1")["value"] == 2
    assert journal.last("quiz", "99.q2") is None


def test_a_line_torn_by_a_crash_costs_itself_only(tmp_path):
    path = tmp_path / "j.jsonl"
    Journal(path).append("commit", "99.share", value=1)
    with path.open("a") as file:
        file.write('{"kind": "com')
    Journal(path).append("commit", "99.share", value=2)
    assert [e["value"] for e in Journal(path).entries("commit")] == [1, 2]


def test_an_unwritable_journal_names_the_file_and_the_fix(tmp_path):
    with pytest.raises(OSError, match="LABKIT_STATE"):
        Journal(tmp_path / "no" / "j.jsonl").append("commit", "99.share", value=1)
