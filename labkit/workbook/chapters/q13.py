"""Chapter 13's quiz, and the questions that later chapters come back to."""

from __future__ import annotations

from labkit.workbook.quiz import Quiz

QUIZZES = (
    Quiz(
        "13.q1",
        "Requests rose from 100 to 150 a day and the cost of a request from 2 to 3 cents, so the bill rose by 250 cents. "
        "How much of that do the requests explain?",
        answer="125 cents, if no order is preferred",
        why="Requests first: 100 cents. Price first, then requests: 150. The mean over both orders is 125, and so is the "
        "price's part. They add up.",
        wrong={
            "100 cents": "That is their part if they change first. In the other order it is the price's.",
            "150 cents": "That is their part if they change last, at the new price.",
        },
    ),
    Quiz(
        "13.q2",
        "Sixty requests arrive at once. The budget looks at what is spent, lets them through, and charges each when it "
        "ends. Each may cost a tenth of the limit. What can the bill be?",
        answer="six times the limit",
        why="All sixty are checked before any is charged: 60 · 0.1. Only what is set aside before a request is sent can "
        "hold a limit.",
        wrong={
            "the limit": "It would be, if requests came one after the other and each was cheap beside the limit.",
            "the limit and a tenth": (
                "That is the overshoot of one request at the end. Here all of them see an empty meter."
            ),
        },
    ),
    Quiz(
        "13.q3",
        "A new prompt makes each request 15 % dearer. The alert is a burn rate of 14.4 times the monthly budget over one "
        "hour. When does it ring?",
        answer="not because of this",
        why="A burn rate of 1.15 is not 14.4. Such rules catch runaways within minutes; a small lasting change needs a test "
        "of the cost of a request, such as a CUSUM.",
        wrong={
            "within an hour": "The window fills in an hour, but with a rate of 1.15.",
            "after 26 days": (
                "Then the money is gone (30 / 1.15). This rule does not look at what is left, but at how fast it goes."
            ),
        },
    ),
)

BANK = (
    Quiz(
        "13.b1",
        "A dashboard shows 0.00 USD for a model that was added last week, and 40,000 calls to it. What is the likeliest "
        "reason?",
        answer="no price list has it",
        why="Attempts without a price were taken for free ones. Unpriced must be a class that one sees, and never 0.",
        wrong={
            "all of its answers came from a cache": "Then the same was asked 40,000 times, and the first time is paid.",
            "the model is free": "It may be. But then a price of 0 stands in a price list, with a source.",
        },
    ),
    Quiz(
        "13.b2",
        "A log says 18,000 input tokens, of them 17,000 from the cache. A dashboard shows 35,000. What did it do?",
        answer="it added the cached tokens to a total that has them already",
        why="In OpenTelemetry's GenAI conventions and OpenAI's usage, input tokens include the cached ones. The parts come "
        "from subtraction.",
        wrong={
            "it counted retries": "A retry is an attempt of its own, with a usage of its own.",
            "it counted the output as well": "The output is a number of its own; here the sum is exactly input and cached.",
        },
    ),
    Quiz(
        "13.b3",
        "An engine's token counter falls from 9,000 to 400 between two scrapes. How many tokens were at least counted "
        "between them?",
        answer="400",
        why="A counter only falls when it begins again at 0. What was counted between the last scrape and the restart is "
        "lost, so 400 is a lower bound.",
        wrong={
            "-8,600": "A difference across a restart is no number of tokens. It would give negative dollars.",
            "8,600": "Nothing says so. The counter began again; 400 is what it has counted since.",
        },
    ),
    Quiz(
        "13.b4",
        "Two alerts ring falsely on 2 of 100 days: a plain threshold on a quarter of an hour's mean cost, and a sum of "
        "small excesses (CUSUM). By chance alone, a quarter is often 50 % dearer than usual. Which one finds a lasting "
        "rise of 30 %?",
        answer="the CUSUM",
        why="A threshold must stand above what chance does, so a rise of 30 % seldom reaches it. A sum of excesses grows "
        "with each quarter that the rise lasts.",
        wrong={
            "the threshold": (
                "It is the quicker one where a quarter's mean hardly changes by chance: then one look is enough."
            ),
            "neither: the false alarms are the same": (
                "An equal rate of false alarms is what makes them comparable. What differs is what they need to see."
            ),
        },
    ),
)
