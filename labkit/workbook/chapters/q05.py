"""Chapter 05's quiz: what its reader should be able to say at its end."""

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
