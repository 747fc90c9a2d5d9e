"""Chapter 05's quiz, and the questions that later chapters come back to."""

from __future__ import annotations

from labkit.workbook.quiz import Quiz

QUIZZES = (
    Quiz(
        "05.q1",
        "A cascade avoids 70 % of the calls to the large model; the questions that remain are the hard ones. "
        "Its bill falls by…",
        answer="less than 70 %",
        why="The small model is paid for every request, and the calls that remain are the ones with long answers.",
        wrong={
            "exactly 70 %": (
                "That would take a small model that is free, and calls that all cost the same. The hard ones "
                "remain, and they are the dear ones."
            ),
            "more than 70 %": (
                "Each avoided call saves at most an average large answer, and hard questions, which remain, cost "
                "more than the average."
            ),
        },
    ),
    Quiz(
        "05.q2",
        "The small model returns broken JSON with a probability of 99.8 %. What would have stopped it?",
        answer="a validator",
        why="It reads the answer itself. How sure the model is does not matter to it.",
        wrong={
            "a higher threshold": (
                "The model is all but sure of it: a threshold above 99.8 % sends nearly everything up, and still "
                "lets pass what the model is surer of."
            ),
            "a better calibration": (
                "Calibration makes scores true on average, over the traffic it was fitted on. It cannot see a "
                "single odd input."
            ),
        },
    ),
    Quiz(
        "05.q3",
        "On 200 known questions you take the threshold that is just good enough for the promise. On new "
        "traffic it keeps the promise…",
        answer="about every other time",
        why=(
            "The known questions were as often kind to it as not. To keep a promise, ask for more than the promise "
            "on the sample."
        ),
        wrong={
            "nearly always": (
                "That would take a margin. 200 questions may flatter a threshold by points, and the one that just "
                "passes is likely to have been flattered."
            ),
            "nearly never": (
                "The sample errs to both sides: the threshold that just passes may as well be better than it looks."
            ),
        },
    ),
)

BANK = (
    Quiz(
        "05.b1",
        "An answer of the small model costs 1 cent, one of the large model 10 cents, whatever the question. A "
        "cascade sends 30 % of the questions up. What does a request cost on average, in cents?",
        answer="4",
        why="All of them are asked of the small model, and 30 % of the large one as well: 1 + 0.3 · 10.",
        wrong={
            "3.7": (
                "So it is with a router that chooses beforehand. A cascade has paid for the small answer before it goes up."
            ),
            "3": "Those are the large model's calls alone.",
        },
    ),
    Quiz(
        "05.b2",
        "A judge gives a score of about 0.9 to a thousand answers, of which 700 are right. What does this show?",
        answer="its scores are too high and need calibrating",
        why=(
            "Scored 0.9 should mean right nine times in ten. A fit on known answers, such as Platt scaling, bends "
            "the scores to that."
        ),
        wrong={
            "it cannot tell right answers from wrong ones": (
                "Telling apart is a matter of order. A judge may rank perfectly and still call everything too sure."
            ),
            "nothing: a score is no probability": (
                "Then “go up below 0.9” promises nothing, and each new model needs its threshold found by trial."
            ),
        },
    ),
    Quiz(
        "05.b3",
        "A test at the level of 5 % is looked at after every pair, and stopped as soon as it is significant. "
        "How often does it name a winner between two models that are equally good?",
        answer="more often than one time in twenty",
        why=(
            "Each look is another chance to be misled. Looking at will takes a test that is made for it, such as "
            "one that bets."
        ),
        wrong={
            "one time in twenty": "That is so if one looks once, at a moment that was fixed before.",
            "less often than one time in twenty": (
                "It stops at the first chance excursion, so what later data would have put right is never seen."
            ),
        },
    ),
)
