"""Chapter 00's quiz: what its reader should be able to say at its end."""

from __future__ import annotations

from labkit.workbook.quiz import Quiz

QUIZZES = (
    Quiz(
        "00.q1",
        "A receipt says input_tokens=900 and cached_tokens=640. How many tokens did the engine have to compute in prefill?",
        answer="260",
        why="Cached tokens are part of the input tokens: 900 − 640 had to be computed.",
        wrong={
            "900": "That is everything the prompt holds. 640 of it came from the cache and were not computed again.",
            "1,540": (
                "That adds the cached tokens to a number that has them in it already: each would be counted, and "
                "billed, twice."
            ),
        },
    ),
    Quiz(
        "00.q2",
        "An answer gets twice as long. Which of these changes least?",
        answer="TTFT",
        why="TTFT is over before the second token is written.",
        wrong={
            "E2E": "It ends with the last token, so each further token adds one TPOT to it.",
            "the output cost": "Output is paid by the token: an answer of twice the length costs twice as much.",
        },
    ),
    Quiz(
        "00.q3",
        "A user closes the browser tab in the middle of an answer. What is in the ledger?",
        answer="one row, with what was generated until then",
        why="The ledger books attempts. What the engine wrote has to be paid for, whether or not somebody reads it.",
        wrong={
            "nothing, there was no answer": (
                "The engine read the prompt and wrote a part. A book without that row is short of money that was spent."
            ),
        },
    ),
)
