"""Which questions come back: the rule against its statement, and against a simulated year of learners."""

import random

import pytest

from labkit.workbook.quiz import Quiz
from labkit.workbook.recall import Asked, answers_of, choose, due_at, interval_s, visited
from labkit.workbook.store import Journal

DAY = 24 * 3600.0
NONE: frozenset[str] = frozenset()


def bank(chapters, each):
    return [
        Asked(f"{c:02}", Quiz(f"{c:02}.q{i}", "?", "a", "So.", {"b": "No."})) for c in range(chapters) for i in range(each)
    ]


def ids(chosen):
    return [asked.quiz.id for asked in chosen]


def test_intervals_are_those_of_sm_2():
    assert [interval_s(box) / DAY for box in range(5)] == [0, 1, 6, 15, 37.5]


@pytest.mark.parametrize(
    ("answers", "due"),
    [
        ([], 0),
        ([(0, True)], 1),
        ([(0, True), (1, True)], 7),
        ([(0, True), (0.5, True)], 1.5),  # too early to prove anything: it stays in its box
        ([(0, True), (1, True), (8, True)], 23),
        ([(0, True), (1, True), (8, False)], 8),
        ([(0, True), (1, True), (8, False), (9, True)], 10),
        ([(0, False), (0, True)], 1),
    ],
)
def test_a_question_is_due_by_its_last_answers(answers, due):
    assert due_at([(at * DAY, right) for at, right in answers]) == pytest.approx(due * DAY)


@pytest.mark.parametrize("seed", range(20))
def test_a_wrong_answer_brings_a_question_back_before_a_right_one(seed):
    rng = random.Random(seed)
    questions = bank(2, 1)
    past = [(float(at), rng.random() < 0.5) for at in sorted(rng.sample(range(10**6), rng.randrange(5)))]
    now = 10.0**6 + 1
    assert due_at([*past, (now, False)]) < due_at([*past, (now, True)])
    answers = {"00.q0": [*past, (now, True)], "01.q0": [*past, (now, False)]}
    assert ids(choose(questions, answers, NONE, now + 60, rng, count=1)) == ["01.q0"]


@pytest.mark.parametrize("seed", range(60))
def test_what_is_chosen_follows_the_rule_on_any_history(seed):
    """The rule, read from the history by brute force over all pairs."""
    rng = random.Random(seed)
    questions = bank(rng.randrange(1, 6), rng.randrange(1, 5))
    now = 100 * DAY
    answers = {
        q.quiz.id: [(at * DAY, rng.random() < 0.6) for at in sorted(rng.sample(range(100), rng.randrange(1, 5)))]
        for q in questions
        if rng.random() < 0.6
    }
    seen = frozenset(q.chapter for q in questions if rng.random() < 0.5)
    chosen = choose(questions, answers, seen, now, rng)
    assert len(chosen) == min(2, len(questions)) == len(set(ids(chosen)))
    if len({q.chapter for q in questions}) > 1:
        assert len({q.chapter for q in chosen}) == 2

    def rank(q, first):
        due = due_at(answers[q.quiz.id]) if q.quiz.id in answers else None
        if due is None:
            return (1 if first else 0, q.chapter not in seen)
        return (2, due) if due > now else (0 if first else 1, due)

    assert rank(chosen[0], True) == min(rank(q, True) for q in questions)
    others = [q for q in questions if q.chapter != chosen[0].chapter] or [q for q in questions if q != chosen[0]]
    if others:
        assert rank(chosen[1], False) == min(rank(q, False) for q in others)


@pytest.mark.parametrize("right", [0.0, 0.5, 1.0])
def test_in_a_year_every_question_comes_round_and_the_hard_ones_most_often(right):
    """A learner who opens two chapters a day, with a share of right answers; two questions are always answered wrong."""
    rng = random.Random(1)
    questions, hard = bank(4, 3), {"01.q0", "03.q2"}
    answers, asked = {}, dict.fromkeys((q.quiz.id for q in questions), 0)
    for half_day in range(2 * 365):
        now = half_day * DAY / 2
        for one in choose(questions, answers, NONE, now, rng):
            ok = one.quiz.id not in hard and rng.random() < right
            answers.setdefault(one.quiz.id, []).append((now, ok))
            asked[one.quiz.id] += 1
        if half_day == 2 * len(questions):
            assert all(asked.values())
    easy = [times for id, times in asked.items() if id not in hard]
    assert min(easy) >= 3
    if right == 1.0:
        assert min(asked[id] for id in hard) > 3 * max(easy)


def test_with_an_empty_journal_the_seed_decides():
    questions = bank(6, 4)
    chosen = {tuple(ids(choose(questions, {}, NONE, now, random.Random(7)))) for now in (0, 1e9)}
    assert len(chosen) == 1
    assert len({tuple(ids(choose(questions, {}, NONE, 0, random.Random(seed)))) for seed in range(30)}) > 15


def test_new_questions_of_chapters_that_were_worked_in_come_first():
    questions = bank(6, 4)
    for seed in range(20):
        chosen = choose(questions, {}, frozenset({"02", "04"}), 0, random.Random(seed))
        assert {asked.chapter for asked in chosen} == {"02", "04"}


def test_the_journal_gives_first_tries_of_the_quiz_and_all_reviews(monkeypatch):
    journal, clock = Journal(None), iter(range(100))
    monkeypatch.setattr("labkit.workbook.store.time.time", lambda: float(next(clock)))
    for kind, item, ok in [
        ("quiz", "00.q1", False),
        ("quiz", "00.q1", True),
        ("review", "00.q1", True),
        ("review", "00.b1", False),
        ("check", "03.1", False),
    ]:
        journal.append(kind, item, ok=ok)
    assert answers_of(journal) == {"00.q1": [(0.0, False), (2.0, True)], "00.b1": [(3.0, False)]}
    journal.append("check", "05.1", ok=False, blank=True)
    assert visited(journal) == {"00", "03"}
