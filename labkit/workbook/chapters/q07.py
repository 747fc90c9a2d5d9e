"""Chapter 07's quiz: what its reader should be able to say at its end."""

from __future__ import annotations

from labkit.workbook.quiz import Quiz

QUIZZES = (
    Quiz(
        "07.q1",
        "An engine with a machine to itself batches continuously. A library offers to hold requests for 50 ms "
        "“to fill the batch”. What do you expect?",
        answer="every request waits, and throughput gains nothing",
        why=(
            "The engine forms a new batch at every step. A hold in front of it adds waiting and leaves seats empty "
            "meanwhile."
        ),
        wrong={
            "every request waits, and throughput gains three-fold": (
                "That is what a batcher may do for a function without batching of its own. This engine lets "
                "newcomers in at its next step anyhow."
            ),
            "no request waits, since the engine takes them in one step": (
                "The hold comes first, whatever the engine does afterwards: the first to come waits for all of it."
            ),
        },
    ),
    Quiz(
        "07.q2",
        "Chunked prefill cuts a long prompt into pieces. Who gains?",
        answer="those who are writing while it is read",
        why="Each step is shorter, so their next tokens come sooner. The long prompt itself takes a little longer.",
        wrong={
            "the one who sent the long prompt": (
                "Its pieces share their steps with others and are read one after the other, so its first token "
                "comes a little later."
            ),
            "the engine, which has less to read": (
                "The same tokens are read, in more steps, and each step costs something in itself. What changes is "
                "who waits."
            ),
        },
    ),
    Quiz(
        "07.q3",
        "Interactive and bulk traffic share eight seats. When does a fixed split into two pools make chats slower?",
        answer="when chats are many and bulk is idle",
        why="Seats reserved for bulk stay empty while chats queue. Priority in one pool has no such seats.",
        wrong={
            "when bulk is heavy and chats are few": (
                "Then the wall is at its best: bulk cannot take the seats that are kept for the few chats."
            ),
            "at no time, since chats are protected": (
                "A wall protects chats from bulk, and bulk's seats from chats. In a rush, chats queue before seats "
                "that stand empty."
            ),
        },
    ),
)
