"""Chapter 03's quiz, and the questions that later chapters come back to."""

from __future__ import annotations

from labkit.workbook.quiz import Quiz

QUIZZES = (
    Quiz(
        "03.q1",
        "Two requests share everything but one word in the middle. What can a prefix cache serve the second one?",
        answer="the full blocks before that word",
        why=("A block's hash contains the hash of the block before it, so behind the first difference nothing is found."),
        wrong={
            "all but the block with that word": (
                "The blocks behind it hold the same tokens, but their keys and values depend on everything before "
                "them, that word included. Their hashes say so."
            ),
            "nothing, for the prompts differ": (
                "A prompt need not match as a whole: it is served from the front, as far as it matches."
            ),
        },
    ),
    Quiz(
        "03.q2",
        "A prefix is used once an hour, and the provider keeps it for five minutes at a write premium of a "
        "quarter. Caching…",
        answer="costs more than it saves",
        why="Nearly every call writes and nearly none reads. Take the longer lifetime, or do not mark the prefix.",
        wrong={
            "saves nine tenths of the prefix": (
                "That is the discount for reading. With an hour between calls the prefix is gone, so it is written "
                "again, at the premium."
            ),
            "makes no difference to the bill": (
                "It would if writing were free. Here each of these calls pays a quarter more for the prefix."
            ),
        },
    ),
    Quiz(
        "03.q3",
        "Why does the cache of a shared engine need a salt per tenant?",
        answer="the wait for a first token tells what others sent",
        why=(
            "Keys and values are the same for the same tokens, so answers stay right; but timing leaks which "
            "prefixes are warm."
        ),
        wrong={
            "tenants would get each other's answers": (
                "A hit serves keys and values of the very same tokens. The answer is computed from the asker's own "
                "prompt, salt or no salt."
            ),
            "hashes of different tenants would collide": (
                "A hash collides as seldom with a salt as without. Equal prefixes are found because they are "
                "equal, and that is what leaks."
            ),
        },
    ),
)

BANK = (
    Quiz(
        "03.b1",
        "Writing a prefix to a provider's cache costs a quarter more than reading it plainly; a hit costs a "
        "tenth. From how many calls within its lifetime, the first included, is caching the cheaper way?",
        answer="2",
        why="Two calls cost 1.25 + 0.1 instead of 2.",
        wrong={
            "1": "A single call pays the premium, 1.25 instead of 1, and nobody comes back to the prefix.",
            "13": ("1.25 / 0.1 sets the price of writing against that of a hit. What counts is what a hit saves: 0.9 each."),
        },
    ),
    Quiz(
        "03.b2",
        "An engine caches blocks of 16 tokens. Of a prompt of 100 tokens, the first 50 begin an earlier prompt "
        "as well. How many are served from the cache?",
        answer="48",
        why="Three full blocks lie within the first 50 tokens. The fourth differs from its third token on.",
        wrong={
            "50": "Only whole blocks are kept and found; two of these tokens lie in a block that differs.",
            "96": "Those are all full blocks of the prompt. Behind the first difference nothing is found.",
        },
    ),
    Quiz(
        "03.b3",
        "A template puts together: instructions, the customer's name, descriptions of the tools, the question. "
        "Which change lets the prefix cache serve more of it?",
        answer="move the name behind the tools",
        why="The tools are then part of what all customers' prompts begin with.",
        wrong={
            "move the question in front of the name": (
                "The question differs every time, so everything behind it would be read anew each time."
            ),
            "move the name to the very front": (
                "Then the first block differs from customer to customer, and not even the instructions are shared."
            ),
        },
    ),
)
