"""Chapter 08's quiz, and the questions that later chapters come back to."""

from __future__ import annotations

from labkit.workbook.quiz import Quiz

QUIZZES = (
    Quiz(
        "08.q1",
        "An engine runs at 98 % KV usage and counts a preemption now and then. Answers are on time. What do you do?",
        answer="nothing: the memory is used, and little work is done twice",
        why=(
            "Preemption is how an engine uses memory that would otherwise stand empty. Count the tokens computed "
            "twice, not the events."
        ),
        wrong={
            "lower max_num_seqs until no preemption is counted any more": (
                "Then part of the memory stands empty and requests wait at the door instead. A rare preemption "
                "costs less than seats that are never used."
            ),
            "buy another GPU: usage this high says that memory is out": (
                "High usage is what you pay for. Only a rising p95, or many tokens computed twice, says that there "
                "are too many sessions."
            ),
        },
    ),
    Quiz(
        "08.q2",
        "Five sessions take turns in a cache that holds four and forgets the least recently used first. What "
        "share of the histories is found?",
        answer="next to nothing",
        why=("The session that comes next is always the one that was used least recently, so it has just been forgotten."),
        wrong={
            "about four fifths": (
                "That would be so if the same four stayed and the fifth always lost. But each session that comes "
                "back pushes out the next one to come."
            ),
            "about one half": (
                "Nothing settles in the middle: by the time a session's turn comes, all four others have been "
                "there, and it is the one forgotten."
            ),
        },
    ),
    Quiz(
        "08.q3",
        "By the planner (Llama 3.1 8B on one H100, 20 tokens/s for each), 8 bits bring 100 % more sessions of "
        "8,000 tokens, but 37 % more of 500 tokens. Why?",
        answer="speed binds then, and short sessions spend their steps on arithmetic",
        why=(
            "Memory would hold twice as many. But with so many in a step, its time goes into the layers' "
            "arithmetic, which 8-bit keys and values do not shorten; reading those is the smaller part."
        ),
        wrong={
            "the weights stay in 16 bits, and they fill the GPU's memory": (
                "They take the same memory whatever the length of a session: the rest of it holds twice the tokens "
                "in both cases."
            ),
            "memory binds there, and short sessions waste their last block": (
                "Half a block of 16 tokens is little beside 500, and the waste is the same share in 8 bits: memory "
                "would still hold twice as many."
            ),
        },
    ),
)

BANK = (
    Quiz(
        "08.b1",
        "A model has 32 layers with 8 KV heads of 128 numbers, kept in 16 bits. How much memory does a token "
        "take in the KV cache?",
        answer="128 KiB",
        why="A key and a value, in 32 layers, of 8 heads, of 128 numbers, of 2 bytes: 2 · 32 · 8 · 128 · 2.",
        wrong={
            "64 KiB": "That is the keys alone. Each has a value beside it.",
            "512 KiB": (
                "So it is if each of 32 attention heads keeps a pair of its own. Here groups of them share one (GQA)."
            ),
        },
    ),
    Quiz(
        "08.b2",
        "Of a GPU's 80 GB an engine may use nine tenths. The weights take 16 GB, and a session of 8,000 tokens "
        "at 128 KiB each about 1.05 GB. How many sessions fit?",
        answer="53",
        why="72 − 16 = 56 GB are left for keys and values, and 56 / 1.05 is about 53.",
        wrong={
            "61": "That forgets that a tenth of the memory is kept aside.",
            "68": "That forgets the weights, which are in the same memory.",
        },
    ),
    Quiz(
        "08.b3",
        "A long history was evicted. It can be fetched over a link, or computed again. Why does fetching win "
        "from some length on, if it wins at all?",
        answer="fetching grows with the length, computing grows faster",
        why=(
            "Bytes are in proportion to tokens. In prefill each token looks back at all before it, so its "
            "attention grows with the square."
        ),
        wrong={
            "the link gets quicker with longer transfers": (
                "A start-up cost is spread, but the bytes per second have a limit, and that limit is what a long "
                "transfer runs at."
            ),
            "long histories hold fewer bytes per token": (
                "A token takes the same product of layers, heads and bytes wherever it stands, but for models with a window."
            ),
        },
    ),
)
