"""Chapter 06's quiz, and the questions that later chapters come back to."""

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

BANK = (
    Quiz(
        "06.b1",
        "From the first token on, an engine writes 50 tokens a second and a reader reads 5. The answer would "
        "have 600 tokens; the reader presses stop 6 seconds after the first. How many does that save?",
        answer="300",
        why="By then the engine has written 6 · 50. What is left of the 600 is saved.",
        wrong={
            "570": "That takes off the 30 tokens that were read by then. Tokens are paid at the speed of writing.",
            "0": "The whole answer takes 12 seconds. Half of it is not written yet.",
        },
    ),
    Quiz(
        "06.b2",
        "A lookup needs one field of a long JSON answer. How can it start soonest?",
        answer="with that field first in the schema, read from the stream",
        why="A value is final as soon as its last character is there, long before the document is whole.",
        wrong={
            "with json.loads after each token": ("Half a document is not JSON: that says nothing until the last bracket."),
            "with that field last, so that all is known": (
                "Then the lookup waits for everything before it, streamed or not."
            ),
        },
    ),
    Quiz(
        "06.b3",
        "A phone loses its line in the middle of an answer and is back five seconds later. What costs least?",
        answer="take up the kept stream after the last event seen",
        why="The server's buffer has listened on. The engine is asked once, and the reader gets the rest.",
        wrong={
            "send the question again": (
                "That pays for a second answer, which may read differently, while the first one is perhaps still "
                "being written."
            ),
            "send the text so far, and ask for the rest": (
                "Prompt and text are read as a new request, and unless somebody ends the first one, it goes on "
                "writing as well."
            ),
        },
    ),
)
