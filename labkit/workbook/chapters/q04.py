"""Chapter 04's quiz: what its reader should be able to say at its end."""

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
