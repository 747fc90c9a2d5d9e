"""Chapter 02's quiz, and the questions that later chapters come back to."""

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

BANK = (
    Quiz(
        "02.b1",
        "Ten requests a second are answered. Six of them meet the objective for TTFT, seven the one for TPOT. "
        "What is the goodput?",
        answer="between 3 and 6 a second",
        why=(
            "It counts those that meet both. At most all six do; and only three missed TPOT, so at least three of "
            "the six do."
        ),
        wrong={
            "6 a second": (
                "Only if all six that came on time went on in time as well. Those three that were slow to write "
                "may be among them."
            ),
            "4.2 a second": (
                "0.6 · 0.7 holds if the two have nothing to do with one another. They share an engine and its load."
            ),
        },
    ),
    Quiz(
        "02.b2",
        "A GPU does 900 TFLOP/s and reads 3 TB/s. From about how many tokens in a step are its linear layers, "
        "in BF16, limited by arithmetic?",
        answer="300",
        why=(
            "Each weight is two bytes and takes a multiply and an add for each token: one FLOP per byte and token. "
            "900 / 3 = 300 FLOP per byte."
        ),
        wrong={
            "1": (
                "With one token in the step, each byte that is read serves one FLOP, and the machine could do 300 "
                "in that time."
            ),
            "600": "That counts one operation per weight. A multiply and an add are two.",
        },
    ),
    Quiz(
        "02.b3",
        "What can an open-loop load test show that a closed loop hides?",
        answer="what waits when the engine stalls",
        why=(
            "It sends on time, whatever became of the others, so each request that comes during the stall counts its wait."
        ),
        wrong={
            "how many requests fit at most": (
                "That is what a closed loop is good at: it keeps so many under way, and the rate shows the capacity."
            ),
            "how long a prompt takes to read": (
                "Any single request shows that. What differs is who arrives while others wait."
            ),
        },
    ),
)
