"""Chapter 01's quiz: what its reader should be able to say at its end."""

from __future__ import annotations

from labkit.workbook.quiz import Quiz

QUIZZES = (
    Quiz(
        "01.q1",
        "A request moves from just under to just over a context tier. Which of its input tokens get dearer?",
        answer="all of them",
        why="The tier sets the rate of the whole request, which is why a prompt should not sit just above one.",
        wrong={
            "those above the tier": (
                "So it is with income tax. A context tier sets the rate of the whole request, from its first token."
            ),
            "those that no cache served": "Tiers have a rate for cached tokens too, and it rises with the others.",
        },
    ),
    Quiz(
        "01.q2",
        "Every request is also sent to a second model, as shadow traffic. Where does that show?",
        answer="in the bill",
        why="Nobody waits for it, and nobody reads it. It is paid for like any other call.",
        wrong={
            "in the customers' wait": (
                "They get the first model's answer as soon as it is there; nobody waits for the shadow's."
            ),
            "in no place that counts": (
                "Its answers are thrown away, but its tokens were read and written, and a provider bills both."
            ),
        },
    ),
    Quiz(
        "01.q3",
        "Your own machine is busy a fifth of the time. What happens to its cost per token when traffic doubles and fits?",
        answer="it halves",
        why="The hour costs the same and serves twice as many tokens.",
        wrong={
            "it stays": (
                "So it is at a provider, who charges by the token. Your own machine charges by the hour, busy or not."
            ),
            "it doubles": (
                "That would need a second machine. This one had four fifths of its time left, and they were paid for."
            ),
        },
    ),
)
