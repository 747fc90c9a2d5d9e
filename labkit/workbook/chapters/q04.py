"""Chapter 04's quiz, and the questions that later chapters come back to."""

from __future__ import annotations

from labkit.workbook.quiz import Quiz

QUIZZES = (
    Quiz(
        "04.q1",
        "A response cache stands around a semantic cache. May it keep an answer that the semantic one has given?",
        answer="no, it would live a second life",
        why=("Its lifetime and facts are those of the first answer; stored again under a new date, it would outlive them."),
        wrong={
            "yes, an answer is an answer": (
                "An answer is also its date and the facts that it was made from. The copy would have a fresh date, "
                "and nobody would take it out when those facts change."
            ),
            "yes, but only for the same tenant": (
                "The tenant is in the key of both caches anyway. What goes wrong is the answer's age, and that "
                "goes wrong for the same tenant, too."
            ),
        },
    ),
    Quiz(
        "04.q2",
        "300 verified hits were all right. With 95 % confidence at most about one hit in how many is wrong?",
        answer="100",
        why="Without a fault in n, about 3/n is the bound (the rule of three). Zero faults do not prove zero.",
        wrong={
            "300": (
                "With one wrong hit in 300, you would see 300 right ones in a row about 37 times in 100. That is "
                "no rare luck, so it is not excluded."
            ),
            "1,000": (
                "This asks for about 3,000 checks. With fewer, a cache that is wrong once in 1,000 looks like one "
                "that is wrong once in 200."
            ),
        },
    ),
    Quiz(
        "04.q3",
        "Rules change while an answer that is made from them is under way. What must the cache do with that answer?",
        answer="give it, and not keep it",
        why="It was asked before the change and may be delivered; kept, it would be wrong for everybody after.",
        wrong={
            "keep it until its lifetime ends": (
                "Its lifetime says how long old facts may be used. These facts are known to be gone, and everybody "
                "who asks later would get them."
            ),
            "throw it away and ask again": (
                "Whoever asked before the change gets an answer of that moment, as from a person. Asking again "
                "costs a second answer and may meet the next change."
            ),
        },
    ),
)

BANK = (
    Quiz(
        "04.b1",
        "A semantic cache has a hit rate of 30 %. A look-up costs 5 % of an average answer; hits are answers "
        "of average cost, and none is wrong. How much of the bill is saved?",
        answer="25 %",
        why="Every request pays the look-up, whether it hits or not: 30 − 5.",
        wrong={
            "30 %": "That would take a look-up that is free.",
            "28.5 %": "That charges the look-up to the hits only. The misses are looked up, too, and then answered.",
        },
    ),
    Quiz(
        "04.b2",
        "Suppose “where is order 1234?” and “where is order 1243?” are 0.98 alike to an embedder. What should "
        "keep one from getting the other's answer?",
        answer="a comparison of the numbers in them",
        why=(
            "An embedding says what a text is about, and blurs the word or number that decides. Those can be "
            "compared directly."
        ),
        wrong={
            "a threshold above 0.98": (
                "Another pair of orders may be more alike than that, and questions that do mean the same are often "
                "less alike: hits are lost and faults stay."
            ),
            "an embedder with more dimensions": ("The two are about the same thing, and an embedder is made to say so."),
        },
    ),
    Quiz(
        "04.b3",
        "Tenant A's answer is in the response cache. Tenant B sends the same messages to the same model with "
        "the same settings, at temperature 0. May B get it?",
        answer="no: who may see it is part of the key",
        why=("The answer may have been made from what only A may know. Without the tenant in its key, a cache is a leak."),
        wrong={
            "yes: the request is the same": (
                "Its text is. But what the answer was made from, such as A's orders and rules, is not in that text."
            ),
            "yes: at temperature 0 it would come out the same": (
                "Even if it did, a cache cannot know from the text alone that it may be shown."
            ),
        },
    ),
)
