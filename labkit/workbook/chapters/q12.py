"""Chapter 12's quiz, and the questions that later chapters come back to."""

from __future__ import annotations

from labkit.workbook.quiz import Quiz

QUIZZES = (
    Quiz(
        "12.q1",
        "A client gives an answer up after 30 seconds and asks again, up to three times in all. The model is greedy, the "
        "engine is healthy, and the answer would take 40 seconds. What is paid?",
        answer="three parts of an answer, for none",
        why="The same request takes the same 40 seconds each time. Each attempt is paid as far as it came, and all end the "
        "same way. A longer time-out, a shorter answer, or going on with what came would help.",
        wrong={
            "nearly two answers, for one": "That is the price of a failure by chance. This one has a cause that stays.",
            "one answer: attempts that fail are free": "A provider bills the tokens that it wrote, whoever waited for them.",
        },
    ),
    Quiz(
        "12.q2",
        "An outage of ten seconds is over, and the engine is as fast as before. Still hardly anybody gets an answer, an "
        "hour later. What keeps it so?",
        answer="the retries: with them, more is asked than the engine can carry",
        why="The queue is longer than the callers' patience, so the engine works for callers who have left, and each of "
        "them asks again. The load that keeps the failure up is made by the failure.",
        wrong={
            "the engine's caches are cold": "They warm within minutes. This state holds as long as the load does.",
            "the callers' backoff is too short": (
                "A longer wait delays retries. Unless callers give up, as many of them come each second."
            ),
        },
    ),
    Quiz(
        "12.q3",
        "Half of an answer has reached the reader, then the connection breaks. Which of these shows no word twice and "
        "writes none twice?",
        answer="sending the prompt with the half as the beginning of the model's turn",
        why="The model goes on from what it has written. The price is reading the prompt and the half, which a prefix cache "
        "makes cheaper.",
        wrong={
            "a retry": "It writes the half again, and the reader sees it again, or waits for a whole answer.",
            "a hedge": "It helps before the first word. Here two models would have written the half.",
        },
    ),
)

BANK = (
    Quiz(
        "12.b1",
        "The official client makes two retries by itself. Your gateway above it makes two as well, and the job that calls "
        "the gateway, too. The provider is down. How many attempts does one job make?",
        answer="27",
        why="Each layer makes three attempts at the one below: 3 · 3 · 3. Retry in one place, and set the others to none.",
        wrong={
            "7": "Retries at several levels are not added: each repeats all that happens below it.",
            "9": "That would be two layers; there are three.",
        },
    ),
    Quiz(
        "12.b2",
        "A limit of three attempts for each request, or a budget of 10 % of all requests for retries. The engine is down "
        "for a minute. How much traffic does it get?",
        answer="three times the usual with the limit, 1.1 times with the budget",
        why="A limit counts one request's attempts, and all requests use theirs up. A budget counts them together.",
        wrong={
            "three times the usual with both": "The budget refuses retries beyond a tenth of the requests.",
            "1.1 times with both": "The limit knows nothing of other requests: each makes all of its three attempts.",
        },
    ),
    Quiz(
        "12.b3",
        "Two ways to deal with a late first token: stop waiting and ask again (retry), or ask a second engine and take "
        "whichever speaks first (hedge), after the same time. Which statement is right?",
        answer="both read the prompt twice; the hedge is never later",
        why="The hedge keeps the first attempt, so it has the earlier of two answers. The retry has thrown one away. Both "
        "load the engines more, which is a bad idea where they are late because they are full.",
        wrong={
            "the retry costs less": "It, too, has the prompt read a second time; the first reading is paid.",
            "both are equally fast": "An answer that was about to come is lost by the retry, and kept by the hedge.",
        },
    ),
    Quiz(
        "12.b4",
        "A request is refused with status 402: the account is out of money. What should a retry do?",
        answer="nothing: raise the error",
        why="Waiting fills no account. The same holds for a 429 whose message says that the quota is spent, and for 400, "
        "401, 403, 404: the next attempt will end the same way.",
        wrong={
            "wait as Retry-After says": "It says so for a rate limit. Money does not come back with time.",
            "ask another model of the same account": "It is billed to the same account.",
        },
    ),
)
