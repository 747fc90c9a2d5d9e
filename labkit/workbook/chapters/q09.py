"""Chapter 09's quiz, and the questions that later chapters come back to."""

from __future__ import annotations

from labkit.workbook.quiz import Quiz

QUIZZES = (
    Quiz(
        "09.q1",
        "A tool picks, for each question, the half of your long instructions that matters for it, and sends only that half. "
        "Nine calls in ten had found the instructions in the provider's cache, at a tenth of the price. What happens to the "
        "bill for the instructions?",
        answer="it more than doubles",
        why=(
            "Before: 0.9 × 0.1 + 0.1 × 1 = 0.19 of their full price. After: half of the tokens at the full price, 0.50, "
            "because "
            "no two calls begin alike any more."
        ),
        wrong={
            "it falls by half": (
                "That would be so if each token cost what it cost before. The half that is sent is another one each "
                "time, so "
                "the cache finds nothing of it."
            ),
            "it stays as it is": (
                "Half of the tokens at ten times the price is not a draw, and one call in ten had paid in full already."
            ),
        },
    ),
    Quiz(
        "09.q2",
        "A compressor removes 40 % of a prompt's tokens, and 96 % of the answers stay right. What do you need to see before "
        "you say that it has learned what matters?",
        answer="the same prompts with 40 % of their tokens deleted at random",
        why=(
            "If as many answers stay right then, the prompts had that much to spare, and the compressor's own work bought "
            "nothing. Take what was really removed, not what was asked for: the two differ."
        ),
        wrong={
            "the answers to the whole prompts, and nothing more": (
                "They say what the cut costs. That it was this compressor's skill that kept it so low, they cannot say."
            ),
            "its score on a public benchmark": (
                "That was measured with other prompts and another model. What goes missing without harm depends on both."
            ),
        },
    ),
    Quiz(
        "09.q3",
        "For a week, nine conversations in ten got shorter prompts, and one in ten did not. The shortened ones cost 12 % "
        "less a "
        "call. There were 31 conversations, one of them with 400 calls. What do you report?",
        answer="no saving yet, and how many more conversations it takes",
        why=(
            "Calls of one conversation are alike, so conversations are what is counted: about three of them were left "
            "alone. A "
            "headline from so few is an accident of who was in which group."
        ),
        wrong={
            "12 %, for there were hundreds of calls": (
                "Hundreds of calls of one conversation tell about that conversation. An interval that counts them one by "
                "one is "
                "far too narrow."
            ),
            "12 %, less the compressor's own cost": (
                "That has to be paid, too. But first the 12 % must be told from chance, and three conversations cannot "
                "do that."
            ),
        },
    ),
)

BANK = (
    Quiz(
        "09.b1",
        "A provider caches no prefix below 1,024 tokens. Your instructions have 1,300, nearly every call finds them "
        "there, and "
        "you can cut them to any length without losing an answer. To which length, if a cached token costs a tenth?",
        answer="1,024",
        why=(
            "1,024 tokens cost as much as 102 at the full price. A prompt below the minimum pays the full price for each "
            "token: "
            "only one of 102 tokens or fewer would be cheaper."
        ),
        wrong={
            "as short as they get": (
                "At 650 tokens, say, they cost more than six times what 1,024 cost, for the cache does not keep them."
            ),
            "1,300, as they are": "The tokens that go cost money, too; down to the minimum each of them is a saving.",
        },
    ),
    Quiz(
        "09.b2",
        "A rolling summary replaces the older part of a conversation in every turn. Why may the bill rise though each "
        "prompt "
        "is shorter?",
        answer="each summary is a call of its own, and a new beginning for the cache",
        why=(
            "It is written by a model that reads what it sums up, and behind it nothing is found in the prefix cache. "
            "Summarise "
            "every few turns, and book what the summaries cost."
        ),
        wrong={
            "a summary has more tokens than what it replaces": (
                "Then it would be no summary. The tokens fall; what rises is the price of those that are left, and the "
                "calls."
            ),
            "the answers get longer": (
                "Nothing says so. The cost lies on the way in: summaries read and write, and the cache starts again."
            ),
        },
    ),
    Quiz(
        "09.b3",
        "A compressor drops words that a small model finds easy to foresee. Which of these losses is the one to fear?",
        answer="a “not” that the rest of the sentence made likely",
        why=(
            "What is easy to foresee for a model of language may decide the case. So denials, numbers and names are "
            "protected by "
            "rule, whatever their score."
        ),
        wrong={
            "articles and courtesies": "They go first, and hardly a model misses them.",
            "half of a rare word": (
                "Rare tokens are hard to foresee, so they stay. And a compressor should only drop whole words anyway."
            ),
        },
    ),
    Quiz(
        "09.b4",
        "Which way of shortening a long prompt leaves a prefix cache its hits?",
        answer="shortening it once, and sending that same text from then on",
        why="All calls then begin alike, only shorter. Behind the part that is the same, each call may be cut as it likes.",
        wrong={
            "dropping from each prompt what its question does not need": (
                "The prompts then differ from their first cut on, and the cache serves nothing behind it."
            ),
            "dropping the oldest message of a conversation at each turn": (
                "The beginning moves with every turn, so each turn is read anew. Drop many at once, and seldom."
            ),
        },
    ),
)
