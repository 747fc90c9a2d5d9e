"""Chapter 00's quiz, and the questions that later chapters come back to."""

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

BANK = (
    Quiz(
        "00.b1",
        "The first token takes 300 ms, each one after it 20 ms. How long does an answer of 101 tokens take, "
        "from send to last token?",
        answer="2.3 s",
        why="E2E = TTFT + (n − 1) · TPOT: 0.3 s + 100 · 0.02 s.",
        wrong={
            "2.0 s": "Those are the hundred gaps after the first token. The wait for that token comes before them.",
            "30.3 s": (
                "That pays the first token's wait for every token. The prompt is read once; after that a token takes 20 ms."
            ),
        },
    ),
    Quiz(
        "00.b2",
        "An answer is cut off by its token limit, fails its check, and is asked for once more. What stands in the ledger?",
        answer="two rows, both with their tokens",
        why=("The ledger books attempts. The prompt was read and an answer written twice, and both times are paid for."),
        wrong={
            "one row, for the answer that was used": (
                "Then the books would be short of the first attempt's tokens, and nobody would see what retries cost."
            ),
            "two rows, of which the first costs nothing": (
                "Its answer was of no use, but its tokens were read and written. Use is not what is billed."
            ),
        },
    ),
    Quiz(
        "00.b3",
        "Which of these bounds what one answer can cost, whatever the model does?",
        answer="a ceiling on its output tokens",
        why="The engine itself stops there, so no answer can be longer.",
        wrong={
            "an instruction to be brief": (
                "It often helps, and a model may ignore it: the answers that run away are those that do."
            ),
            "a timeout in the client": (
                "It bounds the client's wait. How much is written in that time depends on the engine's speed, and "
                "an engine that is not told goes on writing."
            ),
        },
    ),
)
