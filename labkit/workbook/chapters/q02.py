"""Chapter 02's quiz: what its reader should be able to say at its end."""

from __future__ import annotations

from labkit.workbook.quiz import Quiz

QUIZZES = (
    Quiz(
        "02.q1",
        "A chat has few users, each waiting long for every token. Which figure of a new GPU's datasheet tells "
        "whether it helps?",
        answer="memory bandwidth",
        why="A small decode step reads all the weights for a few tokens: it is memory-bound, and arithmetic waits.",
        wrong={
            "dense FLOP/s": (
                "Arithmetic is the limit when a step holds hundreds of tokens. With a handful, the units wait for "
                "the weights to arrive, and more of them wait as well."
            ),
            "memory size": (
                "It decides whether the weights and the KV cache fit. Once they do, more of it does not make a step shorter."
            ),
        },
    ),
    Quiz(
        "02.q2",
        "Your load test keeps 8 requests under way and reports a splendid p99. In production p99 is terrible. "
        "What is likely?",
        answer="the test waits for the engine, and users do not",
        why="A closed loop stops sending while the engine stalls, so a stall is one bad sample instead of a hundred.",
        wrong={
            "the test has too few requests for a p99": (
                "Too few requests make a p99 jump in both directions from run to run. They do not make it splendid "
                "every time."
            ),
            "the test's prompts sit in the prefix cache": (
                "That would shorten prefill by the same amount for every request, not take away the tail, which "
                "comes from queues."
            ),
        },
    ),
    Quiz(
        "02.q3",
        "Two tools report TPOT for the same run, one clearly higher. Which explanation fits?",
        answer="one divides all of E2E by the tokens",
        why="Definitions differ between tools; TTFT spread over the tokens raises TPOT, most for short answers.",
        wrong={
            "one counts the engine's queue twice": (
                "A queue comes before the first token. By this lab's definition it is in TTFT, and TPOT does not "
                "see it at all."
            ),
            "one ran on a machine with a slower clock": (
                "Both measure the same run, and a clock that is off by so much would show in TTFT and E2E, too."
            ),
        },
    ),
)
