"""Chapter 01's quiz, and the questions that later chapters come back to."""

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

BANK = (
    Quiz(
        "01.b1",
        "Input costs 1 dollar and output 5 dollars per million tokens. A request reads 2,000 tokens and writes "
        "200. Which part costs more?",
        answer="the input",
        why="2,000 · 1 against 200 · 5: the input costs twice as much. A price means nothing without its count.",
        wrong={
            "the output": "Its price is five times as high, but there are ten times as many input tokens.",
            "neither": "They would cost the same at 400 output tokens.",
        },
    ),
    Quiz(
        "01.b2",
        "A receipt says 500 output tokens, of which 300 are reasoning. How many are billed at the output price?",
        answer="500",
        why="Reasoning is billed as output, and the output count has it in it already.",
        wrong={
            "200": "Nobody reads the thinking, but the model wrote it, token by token, and it is billed.",
            "800": "That adds the reasoning to a count that includes it: 300 tokens would be billed twice.",
        },
    ),
    Quiz(
        "01.b3",
        "A machine costs 1.80 dollars an hour and writes 500 tokens a second while it is busy. It is busy half "
        "of the time. What do a million tokens cost?",
        answer="2 dollars",
        why="Half an hour of work makes 900,000 tokens, and the whole hour is paid for: 1.80 / 0.9.",
        wrong={
            "1 dollar": (
                "So it would be at full load, 1.8 million tokens an hour. The idle half of the hour is paid for as well."
            ),
            "50 cents": "Idle time cannot make tokens cheaper: the same hour is spread over fewer of them.",
        },
    ),
)
