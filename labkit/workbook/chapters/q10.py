"""Chapter 10's quiz, and the questions that later chapters come back to."""

from __future__ import annotations

from labkit.workbook.quiz import Quiz

QUIZZES = (
    Quiz(
        "10.q1",
        "You set max_tokens to the 95th percentile of your answers' lengths. Every answer ends by itself, and what is cut "
        "is asked again with more room. What happens to the bill?",
        answer="it rises",
        why="Whole answers cost what they cost before. One in twenty is now paid for twice: once cut, once whole.",
        wrong={
            "it falls by about 5 %": (
                "That would need the cut answers to be worth nothing. They are asked again, so the cut part is paid in vain."
            ),
            "it stays": (
                "It would, if nobody asked again, or if the cap lay above the longest answer. Then a cap insures against "
                "answers that never end."
            ),
        },
    ),
    Quiz(
        "10.q2",
        "A schema puts “answer” before “reason”. The question takes several steps of arithmetic, and the model does not "
        "think beforehand. What do the reasons do for the answers?",
        answer="nothing",
        why="Tokens are written from left to right. The answer stands before the first reason exists.",
        wrong={
            "they make them right more often": (
                "That is what the other order can do: reasons before the answer are steps that the answer can be read off."
            ),
            "they make them cheaper": "They are output tokens, and come on top of the answer.",
        },
    ),
    Quiz(
        "10.q3",
        "Two formats: A costs 0.8 cents an answer and is right 60 times in 100; B costs 1.0 cents and is right 90 times in "
        "100. A wrong answer is asked again. Which is cheaper?",
        answer="B",
        why="A correct answer costs 0.8 / 0.6 = 1.33 cents with A, and 1.0 / 0.9 = 1.11 cents with B.",
        wrong={
            "A": "Per answer it is. But nobody wants answers; a correct one takes 1.67 tries with A and 1.11 with B.",
            "both alike": "0.8 / 0.6 is 1.33 and 1.0 / 0.9 is 1.11.",
        },
    ),
)

BANK = (
    Quiz(
        "10.b1",
        "A dashboard shows 100 % valid JSON and every request with status 200. One request in four ran to its token limit. "
        "Where does that show?",
        answer="in finish_reason, as length",
        why="A cut answer is delivered like any other. Only its finish reason says that it has no end.",
        wrong={
            "in the error rate": "Nothing failed by HTTP's rules: the engine did as it was told, up to the limit.",
            "in time to first token": "The first token of a runaway comes as soon as any other's.",
        },
    ),
    Quiz(
        "10.b2",
        "A JSON grammar allows free white space between tokens. Why can an answer then run to its limit, though every "
        "text it writes is valid so far?",
        answer="white space after white space is always allowed, and the model likes none of the other tokens",
        why="The grammar bans what the model wants to say next and lets blanks through, without end. Forbid free white "
        "space, or let the engine stop a repetition.",
        wrong={
            "the grammar is compiled anew for each token": "It is compiled once; then it masks tokens at each step.",
            "the model's temperature is too low": (
                "Low temperature makes the loop repeatable. At a high one it is left by chance, and entered by chance."
            ),
        },
    ),
    Quiz(
        "10.b3",
        "A policy of 700 tokens goes into the weights of a small adapter, and out of the prompt. Under which condition does "
        "that pay soonest?",
        answer="many questions, a policy that seldom changes, and no cache of the prefix",
        why="The adapter spares input tokens with each question and costs a training with each change. A cached prefix is "
        "already cheap, so it spares less.",
        wrong={
            "few questions, but very hard ones": "The training is paid whole, and is spread over few questions.",
            "many questions, and a prefix that is always in the cache": (
                "Volume helps. But cached tokens cost a tenth at many providers, so there is a tenth to spare."
            ),
        },
    ),
    Quiz(
        "10.b4",
        "A short answer first, the detail on request. Which number decides whether that is cheaper than the detail at once?",
        answer="the share of readers who ask for more",
        why="Each of them pays a second call, question included. Below the break-even share the spared tokens of the others "
        "pay for it.",
        wrong={
            "the time to the first token": "That decides how it feels. It is the same call either way.",
            "the length of the question": "It moves the break-even; with a cached prefix only a little.",
        },
    ),
)
