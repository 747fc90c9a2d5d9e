"""Chapter 06's quiz: what its reader should be able to say at its end."""

from __future__ import annotations

from labkit.workbook.quiz import Quiz

QUIZZES = (
    Quiz(
        "06.q1",
        "A release makes the model open every answer with two friendly sentences. Which signal moves?",
        answer="time to first useful piece",
        why="The first token comes as early as before, and each token as fast. Only what can be used comes later.",
        wrong={
            "time to first token (TTFT)": (
                "The first token of a greeting comes as soon as the first token of an answer. That is why "
                "dashboards of TTFT stay green."
            ),
            "time per output token (TPOT)": (
                "Each token takes as long as before; there are more of them. The sum shows in the end-to-end time "
                "and on the bill."
            ),
        },
    ),
    Quiz(
        "06.q2",
        "You double the decode speed. What happens to the tokens that the stop button saves?",
        answer="they become fewer",
        why="Readers leave at the same second; by then the engine has written twice as much.",
        wrong={
            "they become more": (
                "That would need readers who leave earlier. The moment of leaving is set by reading, and by that "
                "moment a quicker engine has written more of the answer."
            ),
            "they stay as they are": (
                "The reader's moment stays as it is, but what is left to save at that moment is the part not "
                "written yet, and that has shrunk."
            ),
        },
    ),
    Quiz(
        "06.q3",
        "Your server stops reading the engine's stream, because the customer's line is dead, and keeps the "
        "connection open. The engine…",
        answer="generates to the end",
        why="It writes into buffers. Only a closed stream tells it that nobody listens.",
        wrong={
            "pauses until you read on": (
                "Back-pressure ends at the server's buffers, and a text answer is small enough to fit there. The "
                "step loop does not look at who reads."
            ),
            "notices, and cancels": (
                "It cancels when the connection closes. An open one with a silent reader looks like a patient customer."
            ),
        },
    ),
)
