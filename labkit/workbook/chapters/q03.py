"""Chapter 03's quiz: what its reader should be able to say at its end."""

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
