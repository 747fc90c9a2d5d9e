"""Chapter 07's quiz, and the questions that later chapters come back to."""

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
        "Bulk work is ready in the evening and due in the morning. A batch API takes half off and answers within 24 hours. "
        "GPUs that are rented for the day stand idle at night, with room for all of it, and run a smaller model. Which is "
        "the cheapest that is done in time, and what do you measure first?",
        answer="the idle GPUs; how many answers get worse",
        why=(
            "They are paid for anyhow, so the saving is the whole list price. It is gone when too many answers are worse, "
            "and how many that may be is a division."
        ),
        wrong={
            "the idle GPUs; how long static batches take": (
                "While the night has room for both, the speed of the batches moves no money. Worse answers do."
            ),
            "the batch API; how often it is late": (
                "It promises 24 hours, and fewer are left. That it is often faster is nothing to build a deadline on."
            ),
        },
    ),
)

BANK = (
    Quiz(
        "07.b1",
        "Throughput grows as the square root of the batch size, B^0.5. How many times as long does a batch of "
        "16 take as a batch of one?",
        answer="4",
        why=("16 items at 4 times the rate. That is B^(1 − α): the wait, which a claim about throughput does not mention."),
        wrong={
            "1": "It would take as long only with α = 1, when company costs nothing.",
            "16": "That is α = 0, one after the other: then the throughput would not grow at all.",
        },
    ),
    Quiz(
        "07.b2",
        "A static batch of four writes answers of 10, 20, 30 and 100 tokens. What share of its seat-steps stays empty?",
        answer="60 %",
        why="Four seats for 100 steps are 400, of which 160 write a token.",
        wrong={
            "40 %": "That is the share which is used.",
            "75 %": "So it would be if only the longest answer were written.",
        },
    ),
    Quiz(
        "07.b3",
        "A hundred customers ask the very same thing in the same second, and no answer is kept yet. What keeps "
        "the engine from computing it a hundred times?",
        answer="one request that all others listen to",
        why="Single flight: the first is sent, and whoever asks the same while it is under way shares its stream.",
        wrong={
            "a response cache": ("It keeps answers that are finished. In that second there is none, so all hundred miss."),
            "continuous batching": (
                "It makes a hundred computations cheaper, by doing them in the same steps. They are still computed."
            ),
        },
    ),
    Quiz(
        "07.b4",
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
