# %% [markdown]
# # 12 · Failures: paid for nothing
#
# **The question.** A benchmark's own books said 3 dollars, the provider's bill 40. Not one response was an error: the
# client gave up too soon, and asked again, so that [each saved answer was paid for 5.7 times](https://github.com/RISE-UNIBAS/humanities_data_benchmark/issues/110).
# What does a failure cost, when does asking again pay, and how does a bad second become a bad hour?
#
# **You will be able to** price a failure by where it happens; say which failures a retry cures, and which it multiplies; choose
# between a retry, a hedge and going on with half an answer; and bound retries so that they cannot keep an outage alive.
#
# **Time.** {{time}} **Needs.** Chapter 01's bill. {{needs}}

# %% tags=["imports"]
import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import altair as alt
import ipywidgets as w
import pandas as pd
from IPython.display import Markdown

from labkit.cost import price_named, price_request
from labkit.engines import ScriptedEngine
from labkit.lab import Deck, draw_policy, examples
from labkit.ledger import Booked, Ledger
from labkit.load import ExactLengths, poisson
from labkit.portal import DAYS, PORTAL, Retried, Stays, at_the_desk
from labkit.request import (
    Chunk,
    Done,
    EngineError,
    EngineStalled,
    Event,
    Handler,
    Message,
    Request,
    StreamIncomplete,
    Timing,
    Usage,
    clock,
    complete,
    hops,
    stack,
)
from labkit.resilience import (
    Backoff,
    Idempotent,
    Mishap,
    Mishaps,
    Partials,
    Ratio,
    Resume,
    Retry,
    Weather,
    multiplier_of,
    phase_diagram,
    resume_cost,
    sketch,
    storm,
    with_failures,
    with_timeouts,
)
from labkit.routing import Breaker, Hedge
from labkit.workbook import PALETTE, Figure, below, live_chart, show
from labkit.workbook.chapters.builds.b12 import PRICE, Attempt, BreaksOff
from labkit.workbook.chapters.c12 import Plugged
from labkit.workbook.pictures import Station, draw_picture, request_path

# %%
book.warm_up()

# %% [markdown]
# ## Predict

# %%
book.predict(
    "12.again",
    "Answers break off, each once, at a random place. Each is asked for again, and the second attempt is whole. What has the desk "
    "paid in the end, in percent of the same answers without a failure?",
    low=100,
    high=300,
    unit="%",
)

# %%
book.predict(
    "12.timeout",
    "A client has a time-out. Five of eight answers fit in, three are longer. Those are asked for again, up to four attempts in "
    "all, from a greedy model on a healthy engine. Of all tokens paid, how many served nobody?",
    low=0,
    high=100,
    unit="%",
)

# %%
book.predict_choice(
    "12.storm",
    "An engine at 70 % of what it can carry is down for ten seconds. Its callers wait two seconds for an attempt, and make up to "
    "three. Then the engine is back, as fast as before. From when on are requests answered again?",
    options=("within ten seconds", "after about a minute", "not at all, as long as the load stays"),
)

# %% [markdown]
# ## Run
#
# ### One failure of each kind
#
# We have failures made on purpose: `Mishaps` stands next to the engine, and lets an answer be refused, broken, stalled or lost.
# The engine is real, and so is what it writes. Beside the ledger we read the engine's own counter.

# %% tags=["constants"]
PROMPT, ANSWER = 300, 40  # tokens
HALF = ANSWER // 2
KINDS = {
    "no failure": (),
    "refused with status 429": (Mishap("rate-limit"),),
    "broken before its first word": (Mishap("cut", after=0),),
    "broken half-way": (Mishap("cut", after=HALF),),
    "silent from half-way on, given up": (Mishap("stall", after=HALF, wait_s=0.5),),
    "whole, but lost on the way": (Mishap("lost", wait_s=0.1),),
}

# %%
live = await book.connect("small")
make = None if book.lacks("tokenizer") else ExactLengths(str(live.tokenizer_path), seed)
price = price_named(PORTAL.desk.large)
priced = f"Priced as the portal's desk: {price.model}, {price.source}, {price.as_of}."


def used(row):
    """The tokens of an attempt; None where the engine was never asked."""
    known = row.input_tokens is not None
    return Usage(row.input_tokens, row.output_tokens or 0, row.cached_tokens or 0) if known else None


def desk_usd(usage):
    """What the desk is billed for an attempt, its instructions before the question, in USD."""
    return 0.0 if usage is None else float(price_request(at_the_desk(usage), price).total)


async def tried(handler, request):
    """What a reader gets: the text of a whole answer, or None."""
    try:
        return (await complete(handler, request)).text
    except EngineError:
        return None


async def together(handler, requests, at_once=8):
    """What the readers of all requests get."""
    gate = asyncio.Semaphore(at_once)

    async def one_(request):
        async with gate:
            return await tried(handler, request)

    return await asyncio.gather(*map(one_, requests))


async def written_by(engine):
    """The engine's own count of generated tokens, once it is idle."""
    for _ in range(100):
        now = await engine.metrics()
        if not now.requests_running:
            break
        await asyncio.sleep(0.02)
    return int(now.generation_tokens)


# %%
async def one_of_each():
    rows = []
    for kind, mishaps in KINDS.items():
        with Ledger(":memory:") as ledger:
            before = await written_by(live)
            got = await tried(stack(Booked(ledger), Mishaps(mishaps), engine=live), make(PROMPT, ANSWER))
            wrote = await written_by(live) - before
            (row,) = ledger.rows()
        rows.append({"kind": kind, "whole": got is not None, "wrote": wrote, "used": used(row)})
    return rows


kinds = await book.measure("one failure of each kind", one_of_each)

# %%
each = pd.DataFrame(kinds.value).set_index("kind")
each["usd"] = [desk_usd(usage) for usage in each.used]
each["booked"] = [0 if usage is None else usage.output_tokens for usage in each.used]
Markdown(
    "| failure | the reader has an answer | tokens the engine wrote | tokens booked | billed, of a whole answer |\n|:--|:--|--:|--:|--:|\n"
    + "\n".join(
        f"| {kind} | {'yes' if row.whole else 'no'} | {row.wrote} | {row.booked} | {100 * row.usd / each.usd['no failure']:.0f} % |"
        for kind, row in each.iterrows()
    )
    + f"\n\n{priced}"
)

# %%
stalled, cut_off = each.loc["silent from half-way on, given up"], each.loc["broken half-way"]
ahead_of = (
    f"Of the answer that fell silent, {stalled.booked} tokens had come when its caller gave up; the engine wrote {stalled.wrote}. "
    f"Of the one whose connection broke, {cut_off.booked} had come, and it wrote {cut_off.wrote}"
)
book.finding(
    bool(stalled.wrote > stalled.booked),
    f"A refusal costs nothing. All others are paid as far as the engine came, and that is **further than the reader saw**. {ahead_of}, until it "
    "noticed. Your books hold what came, a provider may bill what was written: the rest is a surprise on the invoice.",
    f"A refusal costs nothing. All others are paid as far as the engine came. {ahead_of}.",
)

# %% [markdown]
# So a time-out that does not *close the connection* saves waiting, and no money; and one that does must be noticed in time (chapter 06).
#
# ### Asked again
#
# Now each answer breaks off once, at a random place, and `Retry` makes a second attempt. That one reads the prompt again, as far as
# it can from the prefix cache, and writes everything again.


# %%
def once(mishap, engine):
    """A handler that meets the mishap on its first attempt, and none later."""
    first, attempts = stack(Mishaps((mishap,)), engine=engine), iter(range(1_000))
    return lambda request: (engine if next(attempts) else first)(request)


async def broken_once(number):
    rng, rows = book.rng(f"broken {number}"), []
    for _ in range(book.pick(ci=6, learn=8)):
        at = rng.randrange(ANSWER)
        with Ledger(":memory:") as ledger:
            again = Retry(2, Backoff(0.0, 0.0), whole=True)
            await complete(stack(Booked(ledger), again, engine=once(Mishap("cut", after=at), live)), make(PROMPT, ANSWER))
            first, second = map(used, ledger.rows())
        rows.append({"first": first, "second": second})
    return rows


broken = await book.measure("broken off, asked again", broken_once, rounds=book.pick(ci=5, learn=9))

# %%
twice = pd.DataFrame([row | {"round": n} for n, rows in enumerate(broken.value) for row in rows])
twice["written"] = [a.output_tokens / b.output_tokens for a, b in zip(twice["first"], twice.second, strict=True)]
twice["times"] = [
    (desk_usd(a) + desk_usd(b)) / desk_usd(replace(b, cached_tokens=a.cached_tokens))
    for a, b in zip(twice["first"], twice.second, strict=True)
]
by_round = twice.groupby("round").times.mean().tolist()
book.reveal("12.again", [100 * each_round for each_round in by_round], unit="%")

# %%
a_first, a_second = twice.iloc[0]["first"], twice.iloc[0].second
read_usd = desk_usd(replace(a_second, output_tokens=0))
line = pd.DataFrame({"written": [0.0, 1.0]})
line["times"] = 1 + (read_usd + line.written * (desk_usd(a_second) - read_usd)) / desk_usd(
    replace(a_second, cached_tokens=a_first.cached_tokens)
)
show(
    (
        alt.Chart(line)
        .mark_line(color=PALETTE["grey"])
        .encode(
            x=alt.X("written:Q", title="share of the answer that was written when it broke off"),
            y=alt.Y("times:Q", title="paid, × an answer without failure", scale=alt.Scale(zero=False)),
        )
        + alt.Chart(twice[["written", "times"]])
        .mark_point(filled=True, size=60, color=PALETTE["blue"], opacity=0.8)
        .encode(
            x="written:Q",
            y="times:Q",
            tooltip=[alt.Tooltip("written:Q", format=".2f"), alt.Tooltip("times:Q", format=".2f")],
        )
    ).properties(
        title=f"Broken off once and asked again: {twice.times.min():.2f} to {twice.times.max():.2f} times the price, "
        f"{fmean(by_round):.2f} on average"
    ),
    alt=f"Cost of {len(twice)} answers that broke off once, against the share that was written: from {twice.times.min():.2f} times at "
    f"{twice.written.min():.2f} to {twice.times.max():.2f} times at {twice.written.max():.2f}. A line, computed, runs through them.",
    source=f"Points: from the ledger; line: the prompt read twice, and the share written once more. {priced} {broken.source}",
)

# %%
book.claim(
    "12.double",
    "A timed-out request that is asked again nearly doubles its cost",
    by="AI Router, “LLM API Retries: How Not to Double Your Bill When Failures Happen”, airouter.kz, April 2025 (“you get two paid "
    "calls instead of one”).",
    claimed=(1.8, 2.05),
    measured=by_round,
    unit="times the cost of an answer without failure",
    where="answers at the desk's prices that broke off at a random place, and were asked again once",
    unless="It is about 2 where the failure comes late or the engine is not told; 1 where it is refused; and without end where the cause "
    "stays, as below.",
    source=f"{priced} {broken.source}",
)

# %% [markdown]
# ### A time-out that no retry cures
#
# That was bad luck, which passes. A time-out is often no bad luck: the answer is long. Here is a client as many are, with a
# real time-out, between the lengths of our answers. It closes the connection, and makes four attempts. Or it *goes on*: `Resume` sends what has come as the
# beginning of the model's turn, and the next attempt writes the rest.

# %% tags=["constants"]
LENGTHS = (8, 16, 24, 32, 40, 72, 96, 120)  # tokens
FITS = 56
TRIES = 4


# %%
def impatient(engine, seconds):
    """A handler whose attempts are given up, and closed, after so many seconds."""

    async def handle(request):
        sent = clock.now()
        async with aclosing(engine(request)) as events:
            async for event in events:
                if clock.now() - sent > seconds and not isinstance(event, Done):
                    raise EngineStalled(f"no whole answer within {seconds:.3g} s")
                yield event

    return handle


async def too_long(_):
    warm = [await complete(live, make(PROMPT, FITS)) for _ in range(4)]
    seconds = sorted(answer.done.timing.e2e for answer in warm)[1]
    ways = {
        "one attempt": lambda: (Retry(1, silence_s=seconds, whole=True), live),
        "up to four attempts": lambda: (Retry(TRIES, Backoff(0.0, 0.0), silence_s=seconds, whole=True), live),
        "gone on with": lambda: (Resume(TRIES - 1), impatient(live, seconds)),
    }
    rows = []
    for way, made in ways.items():
        for length in LENGTHS:
            lever, engine_ = made()
            with Ledger(":memory:") as ledger:
                got = await tried(stack(Booked(ledger), lever, engine=engine_), make(PROMPT, length))
                calls = [used(row) for row in ledger.rows()]
            rows.append({"way": way, "length": length, "answered": got is not None, "calls": calls})
    return rows


timed = await book.measure("answers longer than the time-out", too_long, rounds=book.pick(ci=2, learn=3))

# %%
waits = pd.DataFrame([row | {"round": n} for n, rows in enumerate(timed.value) for row in rows])


def tokens_in(calls):
    return sum(usage.input_tokens + usage.output_tokens for usage in calls if usage)


waits["paid"] = waits.calls.map(tokens_in)
waits["useful"] = waits.answered * (PROMPT + waits.length)
served = waits.groupby(["round", "way"])[["paid", "useful"]].sum()
served["lost"] = 100 * (1 - served.useful / served.paid)
lost = served.lost.unstack()
book.reveal("12.timeout", lost["up to four attempts"].tolist(), unit="%")

# %%
order = ["one attempt", "up to four attempts", "gone on with"]
ways = waits.groupby("way")[["answered", "paid", "useful"]].sum().loc[order]
ways["n"] = waits.groupby("way").size()
bars = ways.assign(nobody=ways.paid - ways.useful)[["useful", "nobody"]].div(ways.n, axis=0).reset_index()
bars = bars.rename(columns={"useful": "in answers that came", "nobody": "lost, or read again"}).melt(
    "way", var_name="tokens", value_name="mean"
)
show(
    alt.Chart(bars)
    .mark_bar()
    .encode(
        x=alt.X("mean:Q", title="tokens paid for a request (mean, input and output)"),
        y=alt.Y("way:N", title=None, sort=order),
        color=alt.Color("tokens:N", title=None, sort=["in answers that came", "lost, or read again"]),
    )
    .properties(
        height=130,
        title="Answered: " + ", ".join(f"{way} {r.answered:.0f} of {r.n:.0f}" for way, r in ways.iterrows()),
    ),
    alt="Tokens paid for a request. "
    + " ".join(f"{way}: {r.paid / r.n:.0f}, of them {r.useful / r.n:.0f} useful." for way, r in ways.iterrows()),
    source=f"{len(LENGTHS)} answers of {min(LENGTHS)} to {max(LENGTHS)} tokens, a time-out near {FITS}. {timed.source}",
)

# %%
one, four, on = (ways.loc[way] for way in order)
cut_at = [
    usage.output_tokens
    for row in waits[waits.way == "one attempt"].itertuples()
    if not row.answered
    for usage in row.calls
    if usage
]
fits = round(fmean(cut_at)) if cut_at else max(LENGTHS)
told = with_timeouts(PROMPT, LENGTHS, fits, TRIES, "same")
more = (
    f"Four attempts paid {four.paid / one.paid:.1f} times the tokens of one, and answered {four.answered:.0f} requests where one attempt "
    f"answered {one.answered:.0f}. `with_timeouts` has it in closed form: with {fits} tokens that fit in, {told.multiplier:.2f} tokens paid "
    f"for a useful one; the ledger has {four.paid / four.useful:.2f}. "
)
book.finding(
    bool(four.answered == one.answered and on.answered > four.answered),
    more
    + f"**The retries cured nothing**: a greedy model needs the same time again. Going on answered {on.answered:.0f} of {on.n:.0f}.",
    more + f"Going on answered {on.answered:.0f} of {on.n:.0f}.",
)

# %% [markdown] tags=["reasoned"]
# A temperature makes a retry a new draw, which may be shorter. Then the answers that arrive are the short ones. Before you retry a
# time-out, ask what it was: a silent engine, or a long answer. Time to first *and* next token tell; total time does not.
#
# ### How often it fails
#
# One failure costs what the chart above says. On average a share q of attempts fails, then q / (1 − q) fail before one succeeds, so
#
# $$\frac{\text{paid}}{\text{useful}} = 1 + \frac{q}{1-q} \cdot \frac{\text{input} + \text{written} \cdot \text{output}}{\text{input} + \text{output}}$$
#
# This is the **cost multiplier**. No availability chart shows it: with enough attempts, all requests are answered.

# %% [markdown] tags=["further"]
# #### The formula against the ledger
#
# Answers break half-way at three rates, and a retry makes up to nine attempts.

# %% tags=["constants"]
RATES = (0.1, 0.3, 0.5)


# %%
async def at_rates():
    rows = []
    for rate in RATES:
        with Ledger(":memory:") as ledger:
            mishaps = Mishaps((Mishap("cut", share=rate, after=HALF),), seed)
            handler = stack(Booked(ledger), Retry(9, Backoff(0.0, 0.0), whole=True), mishaps, engine=live)
            got = await together(handler, [make(PROMPT, ANSWER) for _ in range(book.pick(ci=30, learn=100))])
            failed = [row for row in ledger.rows() if row.outcome == "failed"]
            rows.append(
                {
                    "rate": rate,
                    "failed": len(failed) / len(ledger),
                    "written": fmean(row.output_tokens for row in failed) / ANSWER if failed else 0.0,
                    "ledger": multiplier_of(ledger),
                    "answered": sum(text is not None for text in got) / len(got),
                }
            )
    return rows


rated = await book.measure("broken half-way, at three rates", at_rates)

# %%
rates = pd.DataFrame(rated.value)
share_written = rates.written[rates.written > 0].mean()
curve = pd.DataFrame({"q": [i / 100 for i in range(71)]})
curve["times"] = [with_failures(PROMPT, ANSWER, q, share_written, 9).multiplier for q in curve.q]
rates["formula"] = [with_failures(PROMPT, ANSWER, row.failed, row.written, 9).multiplier for row in rates.itertuples()]
furthest = 100 * (rates.ledger / rates.formula - 1).abs().max()
show(
    (
        alt.Chart(curve)
        .mark_line(color=PALETTE["grey"])
        .encode(x=alt.X("q:Q", title="share of attempts that fail"), y=alt.Y("times:Q", title="tokens paid / tokens useful"))
        + alt.Chart(rates[["failed", "ledger"]])
        .mark_point(filled=True, size=110, color=PALETTE["blue"], opacity=1)
        .encode(
            x="failed:Q",
            y="ledger:Q",
            tooltip=[alt.Tooltip("failed:Q", format=".2f"), alt.Tooltip("ledger:Q", format=".2f")],
        )
    ).properties(
        title=f"Ledger and closed form lie within {furthest:.1f} % of one another; answered: "
        f"{', '.join(f'{100 * share:.0f} %' for share in rates.answered)}"
    ),
    alt="Cost multiplier against the share that fails. "
    + " ".join(
        f"At {row.failed:.2f}: {row.ledger:.2f} by the ledger, {row.formula:.2f} by the formula."
        for row in rates.itertuples()
    ),
    source=f"Points: the ledger, at the shares that did fail; line: the formula with {100 * share_written:.0f} % written. {rated.source}",
)

# %% [markdown]
# ### A bad day, with and without each control
#
# Now failures of four kinds at once, and the controls of `labkit.resilience`. Once a word has reached the reader, a plain `Retry` stops:
# the reader would see the beginning twice. So either the answer is *held back* until it is whole, or it is gone on with, or
# the reader keeps the part (`Partials`). Between attempts `Retry` waits a little by chance, or as long as the engine asks for
# (`Retry-After`), and never past the request's deadline.

# %%
draw_picture(
    request_path(
        [
            Station("Idempotent", "knows a request that came before", answers=True),
            Station("Resume", "goes on with half an answer"),
            Station("Retry", "asks again before the first word"),
            Station("Mishaps", "the bad day, made on purpose"),
        ]
    )
)

# %% tags=["constants"]
BAD_DAY = (
    Mishap("rate-limit", share=0.08, retry_after_s=0.03),
    Mishap("unavailable", share=0.05),
    Mishap("cut", share=0.12, after=HALF),
    Mishap("lost", share=0.04, wait_s=0.03),
)
PAUSE = Backoff(0.01, 0.04)
CONTROLS = {
    "nothing": (),
    "retry": (Retry(4, PAUSE),),
    "retry, answers held back": (Retry(4, PAUSE, whole=True),),
    "retry, parts shown": (Partials(), Retry(4, PAUSE)),
    "retry, and go on": (Resume(3), Retry(4, PAUSE)),
}


# %%
async def controlled():
    rows = []
    for control, levers in CONTROLS.items():
        asked = [make(PROMPT, ANSWER) for _ in range(book.pick(ci=50, learn=120))]
        with Ledger(":memory:") as ledger:
            handler = stack(Booked(ledger), *levers, Mishaps(BAD_DAY, seed), engine=live)
            endings: list[str] = []

            async def noted(request, handler=handler, endings=endings):
                async with aclosing(handler(request)) as events:
                    async for event in events:
                        if isinstance(event, Done):
                            endings.append(event.finish_reason)
                        yield event

            await together(noted, asked)
            calls = [used(row) for row in ledger.rows()]
        parts = endings.count(hops.PARTIAL)
        rows.append({"control": control, "asked": len(asked), "whole": len(endings) - parts, "parts": parts, "calls": calls})
    return rows


day = await book.measure("a bad day", controlled)

# %%
days = pd.DataFrame(day.value).set_index("control")
clean = desk_usd(Usage(PROMPT, ANSWER))  # of one without failure
days["attempts"] = days.calls.map(len)
days["usd"] = [sum(map(desk_usd, calls)) for calls in days.calls]
days["times"] = days.usd / (days.whole * clean)
Markdown(
    "| control | answered whole | in part | attempts for a request | USD for 1,000 whole answers | × one without failure |\n|:--|--:|--:|--:|--:|--:|\n"
    + "\n".join(
        f"| {control} | {100 * row.whole / row.asked:.0f} % | {100 * row.parts / row.asked:.0f} % | {row.attempts / row.asked:.2f} | "
        f"{1000 * row.usd / row.whole:.3f} | {row.times:.3f} |"
        for control, row in days.iterrows()
    )
    + f"\n\n{days.asked.iloc[0]} questions for each control. {priced}"
)

# %%
held, going = days.loc["retry, answers held back"], days.loc["retry, and go on"]
spared = 100 * (held.times - going.times) / (held.times - 1) if held.times > 1 else math.nan
book.finding(
    bool(going.times < held.times),
    f"Held back, a whole answer costs {held.times:.3f} times one without failures; gone on with, {going.times:.3f}. Of what failures cost "
    f"beyond the answers, going on spares **{spared:.0f} %**, and its reader sees words at once.",
    f"Held back, a whole answer costs {held.times:.3f} times one without failures; gone on with, {going.times:.3f}. This run shows no saving "
    "in dollars. The reader sees words at once all the same.",
)

# %% [markdown]
# ### Going on, byte by byte
#
# Is the resumed answer the *same* answer? We take questions behind the portal's long instructions, let each answer break off at three places,
# and have it gone on with: once where the prefix cache still holds the prompt, and once as on an engine that has never seen it
# (another `cache_salt`). Each is compared with the uninterrupted greedy answer, byte by byte.

# %% tags=["constants"]
PLACES = ("the same engine", "an engine that never saw it")


# %%
def salted_rest(handler, salt):
    """Requests that go on with an answer get another `cache_salt`, so that they find nothing in the prefix cache."""

    def handle(request):
        rest_ = request.extra.get("continue_final_message")
        return handler(replace(request, extra={**request.extra, "cache_salt": salt}) if rest_ else request)

    return handle


async def resumed():
    policy = draw_policy(Deck("test", book.rng("policy")), 6, 105).text
    run, rows = f"{seed}-{clock.unix_now():.3f}", []
    for n, example in enumerate(examples("test", "faq", book.pick(ci=4, learn=12), seed=10 * seed + 1)):
        system, user = example.messages[0], example.messages[-1]
        turns = (replace(system, content=f"{system.content} {policy}"), user)
        request = Request(turns, max_tokens=64, extra={"cache_salt": f"{run}-{n}"})
        whole = await complete(live, request)
        for share in (0.25, 0.5, 0.75):
            at = max(1, min(len(whole.chunks) - 1, round(share * len(whole.chunks))))
            for place in PLACES:
                engine_ = once(Mishap("cut", after=at), live)
                engine_ = engine_ if place == PLACES[0] else salted_rest(engine_, f"{run}-{n}-{share}")
                with Ledger(":memory:") as ledger:
                    got = await tried(stack(Booked(ledger), Resume(1), engine=engine_), request)
                    *_, last = ledger.rows()
                begun = 1000 * (last.first_token - last.sent) if last.first_token else math.nan
                rows.append({"place": place, "same": got == whole.text, "used": used(last), "ms": begun, "received": at})
    return rows


going_on = await book.measure("gone on with, byte by byte", resumed)

# %%
rest = pd.DataFrame(going_on.value)
exact = int(rest.same.sum())
rest["cached"] = [0 if usage is None else usage.cached_tokens for usage in rest.used]
rest["read"] = [0 if usage is None else usage.input_tokens for usage in rest.used]
book.finding(
    exact == len(rest),
    f"**{exact} of {len(rest)} resumed answers are the uninterrupted ones, byte by byte.**",
    f"{exact} of {len(rest)} resumed answers are the uninterrupted ones, byte by byte. The others went another way: the engine that goes on reads "
    "text, and may split it into other tokens than the model wrote; and numbers computed in other batches may tip a close choice.",
)

# %%
by_place = rest.groupby("place")[["read", "cached", "ms", "received"]].mean()
cold, warm = by_place.loc[PLACES[1]], by_place.loc[PLACES[0]]
shares = {"nothing is cached": 0.0, "as measured on the same engine": warm.cached / warm.read if warm.read else 0.0}
long_answer, desk_in = PORTAL.assistant.answer, PORTAL.desk.input
costs = pd.DataFrame(
    [
        {
            "way": way,
            "cache": cache,
            "usd": 1000 * float(getattr(resume_cost(desk_in, long_answer // 2, price, share), field_)),
        }
        for cache, share in shares.items()
        for way, field_ in (("start over", "again"), ("go on", "resumed"))
    ]
)
usd = costs.set_index(["cache", "way"]).usd
show(
    alt.Chart(costs)
    .mark_bar()
    .encode(
        x=alt.X("usd:Q", title="USD for what had come, 1,000 times: read again, or written again"),
        y=alt.Y("cache:N", title=None, axis=alt.Axis(labelLimit=260)),
        yOffset=alt.YOffset("way:N", sort=["start over", "go on"]),
        color=alt.Color("way:N", title=None, sort=["start over", "go on"]),
    )
    .properties(
        height=150,
        title=f"{long_answer // 2} tokens of an answer are there: go on for {usd['nothing is cached', 'go on']:.2f} USD, or start over for "
        f"{usd['nothing is cached', 'start over']:.2f}",
    ),
    alt="Cost of 1,000 interrupted answers. " + " ".join(f"{c}, {way}: {value:.2f} USD." for (c, way), value in usd.items()),
    source=f"A prompt of {desk_in:,} tokens and {long_answer // 2} of {long_answer} answer tokens, at the desk's prices; shares cached from: {going_on.source}",
)

# %%
same_ms, other_ms = (rest[rest.place == place].ms.dropna().tolist() for place in PLACES)
book.finding(
    below(same_ms, other_ms),
    f"The rest began after {warm.ms:.0f} ms where the cache held {warm.cached:.0f} of {warm.read:.0f} tokens, and after {cold.ms:.0f} ms where it held "
    f"{cold.cached:.0f}. A prefix cache keeps what the engine *wrote*, too, so going on reads little.",
    f"The rest began after {warm.ms:.0f} ms with {warm.cached:.0f} of {warm.read:.0f} tokens cached, and after {cold.ms:.0f} ms with {cold.cached:.0f}.",
    f"The rest began after {warm.ms:.0f} ms with {warm.cached:.0f} of {warm.read:.0f} tokens cached, and after {cold.ms:.0f} ms with {cold.cached:.0f}; "
    "the attempts lie too far apart to compare them.",
)

# %% [markdown] tags=["further"]
# ### Hedge or retry, for the same money
#
# A first token is late. A *retry* stops waiting and asks again. A *hedge* asks a second engine and keeps the first. Both have the prompt read
# once more. If both act after the same time, which reader waits longer? On the virtual clock, we have two reasons for being
# late: bad luck of one attempt, and a question that takes long wherever it is asked.

# %% tags=["constants"]
LATE = 0.1  # share of first tokens that are late
AFTER_S = (0.5, 1.0, 2.0, 3.0)
GIVEN_UP_S = 30.0


# %%
@dataclass
class Moody:
    """An engine whose first token is late at times; `reads` counts the prompts that it had to read."""

    luck: bool  # late by the attempt, else by the question
    reads: int = 0

    async def __call__(self, request):
        self.reads += 1
        dice = book.rng(f"{request.messages[0].content} {self.reads if self.luck else ''}")
        sent = clock.now()
        await asyncio.sleep(0.3 + (dice.expovariate(1 / 3.0) if dice.random() < LATE else 0.1 * dice.random()))
        yield Chunk("An answer.", clock.now(), usage=Usage(PROMPT, ANSWER))
        yield Done(Usage(PROMPT, ANSWER), Timing(sent, clock.now(), clock.now(), clock.now()))


async def first_tokens(luck, way, after, n=300):
    """How long each reader waits, and how many prompts were read for each request."""
    moody = Moody(luck)
    if way == "hedge":
        handler = stack(Hedge(after), engine={"one": moody, "other": moody})
    else:
        handler = stack(Retry(4, Backoff(0.0, 0.0), silence_s=after), engine=moody)
    found = []
    for number, at in zip(range(n), poisson(1.0, seed), strict=False):
        await clock.sleep_until(at)
        begin = clock.now()
        got = await tried(handler, Request(f"Question {number}"))
        found.append(clock.now() - begin if got else GIVEN_UP_S)
    return found, moody.reads / n


# %%
rows = []
settings = [(luck, way, after) for luck in (True, False) for way in ("retry", "hedge") for after in AFTER_S]
for luck, way, after in book.track(settings, "hedges and retries on the virtual clock"):
    waited, reads = clock.run_virtual(first_tokens(luck, way, after))
    reason = "late by bad luck" if luck else "late by the question"
    p99 = sorted(waited)[math.ceil(0.99 * len(waited)) - 1]
    rows.append(
        {
            "reason": reason,
            "way": way,
            "after": after,
            "more": 100 * (reads - 1),
            "p99": p99,
            "failed": waited.count(GIVEN_UP_S),
        }
    )
races = pd.DataFrame(rows)
ahead = races.pivot(index=["reason", "after"], columns="way", values=["p99", "more"]).reset_index()

# %%
show(
    alt.Chart(races)
    .mark_line(point=True)
    .encode(
        x=alt.X("more:Q", title="prompts read again (% of the requests)"),
        y=alt.Y("p99:Q", title="wait for the first token, p99 (s)", scale=alt.Scale(type="log")),
        color=alt.Color("way:N", title=None, sort=["retry", "hedge"]),
        column=alt.Column("reason:N", title=None),
        tooltip=["way:N", "after:Q", alt.Tooltip("p99:Q", format=".2f"), alt.Tooltip("more:Q", format=".0f"), "failed:Q"],
    )
    .properties(width=270, height=200),
    alt="Wait for the first token against prompts read again. "
    + " ".join(
        f"{r.reason}, {r.way} after {r.after:g} s: p99 {r.p99:.1f} s for {r.more:.0f} %, {r.failed} unanswered."
        for r in races.itertuples()
    ),
    source=f"Modelled on the virtual clock: 300 requests a point, {LATE:.0%} of first tokens late by 3 s on average. Points: acting after "
    f"{', '.join(f'{s:g}' for s in AFTER_S)} s. {GIVEN_UP_S:g} s: no answer after four attempts.",
)

# %%
lucky = ahead[ahead.reason == "late by bad luck"]
apart = float((lucky["p99"]["retry"] - lucky["p99"]["hedge"]).max())
slow_ones = races[races.reason == "late by the question"].set_index("way")
unhelped = (
    f" Where the question itself is slow, asking again helps nobody. Up to {slow_ones.failed['retry'].max()} of 300 questions got no answer "
    f"from the retries, because each attempt began anew; with the hedge, {slow_ones.failed['hedge'].max()}."
)
book.finding(
    apart > 0.1,
    f"Where lateness is luck, both cut the tail for the same prompts. The hedge, which keeps the answer that was about to come, is up to "
    f"{apart:.1f} s ahead at the 99th percentile.{unhelped}",
    "Where lateness is luck, both cut the tail for the same prompts, and at the 99th percentile the hedge is ahead by no more than "
    f"{max(0.0, apart):.2f} s: what is late enough for a second attempt seldom comes just then.{unhelped}",
)

# %% [markdown] tags=["reasoned"]
# There is a third reason for being late, and it is the usual one: the engine is *full*. Then both make it fuller.

# %% [markdown]
# ### The storm
#
# So far each request failed by itself. Now they fail together.
#
# An engine with ten slots gives 20 answers a second and is asked for 14. For ten seconds it does no work. Its callers, with the lab's own `Retry`, give an
# attempt up after two seconds and make up to three. The engine does not learn that they left, as behind many a proxy or queue.

# %%
weather = Weather(load=0.7, attempts=3, outage_s=10.0, timeout_s=2.0, slots=10, service_s=0.5)
tenth = replace(weather, budget=Ratio(0.1, 0.0))
both = {"three attempts": weather, "with a budget": tenth}
storms = {name: storm(each_weather) for name, each_weather in book.track(both.items(), "two storms on the virtual clock")}
wild, tame = storms.values()
back = wild.recovered_after_s
book.reveal(
    "12.storm",
    "not at all, as long as the load stays"
    if back is None
    else "within ten seconds"
    if back <= 10
    else "after about a minute",
)

# %%
STEP = 3  # seconds a point


def lines_of(run, **more):
    """Requests, attempts and answers a second, as lines."""
    counts = {"requests": run.offered, "attempts": run.attempts, "answers": run.answered}
    rows = [
        {"what": what, "second": at, "a second": sum(each[at : at + STEP]) / STEP}
        for what, each in counts.items()
        for at in range(0, len(each), STEP)
    ]
    x, y = alt.X("second:Q", **more), alt.Y("a second:Q", scale=alt.Scale(domain=[0, 3.6 * run.weather.arrivals_per_s]))
    return (
        alt.Chart(pd.DataFrame(rows)).mark_line().encode(x=x, y=y, color=alt.Color("what:N", title=None, sort=list(counts)))
    )


# %%
over = weather.outage_at + weather.outage_s
late = {name: sum(run.answered[-20:]) / 20 for name, run in storms.items()}
asked_late = sum(wild.offered[-20:]) / 20
views = [
    lines_of(run, title=f"second (outage: {weather.outage_at:.0f} to {over:.0f})").properties(
        width=270, height=200, title=name
    )
    for name, run in storms.items()
]
show(
    alt.hconcat(*views).properties(
        title=f"Answered in the last 20 s, of {asked_late:.1f} a second: "
        + ", ".join(f"{value:.1f} ({name})" for name, value in late.items())
    ),
    alt=f"Requests, attempts and answers a second. In the last 20 seconds, of {asked_late:.1f} requests a second, answered: "
    + ", ".join(f"{value:.1f} ({name})" for name, value in late.items())
    + ".",
    source=f"The lab's levers on the virtual clock, {sum(wild.offered):,} requests each. Means of {STEP} s.",
)

# %%
unanswered = {name: 100 * (1 - sum(run.answered) / sum(run.offered)) for name, run in storms.items()}
after_s = f"after {tame.recovered_after_s} s" if tame.recovered else "in neither run"
book.finding(
    bool(tame.recovered and not wild.recovered),
    f"**The outage lasted {weather.outage_s:.0f} s. Without a budget, it did not end**: {unanswered['three attempts']:.0f} % of all requests went unanswered. "
    f"With a budget of one retry to ten requests it was over {after_s}, and {unanswered['with a budget']:.0f} % went unanswered. Nothing "
    f"else differs. Tokens paid for a useful one: {wild.multiplier:.1f} without, {tame.multiplier:.1f} with it.",
    f"Requests that went unanswered: {', '.join(f'{name} {share:.0f} %' for name, share in unanswered.items())}. Tokens paid for a useful "
    f"one: {wild.multiplier:.1f} and {tame.multiplier:.1f}.",
)

# %% [markdown] tags=["reasoned"]
# This is a **metastable failure**. When the engine is back, its queue is longer than the callers' patience. So it works for callers who
# have left, and each of those asks again. The load that keeps the state up is made by the state. It ends when attempts no longer exceed
# what the engine can carry:
#
# $$\text{load} \cdot \min(\text{attempts},\ 1 + \text{budget}) < 1$$
#
# Here 0.7 · 3 = 2.1 without the budget, and 0.7 · 1.1 = 0.77 with it. A longer backoff only spreads the same retries. What ends it, too:
# fewer attempts, a breaker, or less load for a while.

# %%
windows = [slice(i, i + 10) for i in range(int(weather.outage_at), weather.lasts_s - 9)]
most = {name: max(sum(run.attempts[s]) / sum(run.offered[s]) for s in windows) for name, run in storms.items()}
book.claim(
    "12.budget",
    "Three attempts a request multiply the load in an outage by nearly 3; a retry budget of 10 % holds it at 1.1",
    by="Alejandro Forero Cuervo, “Handling Overload”, chapter 21 of Beyer et al., Site Reliability Engineering, O'Reilly 2016.",
    claimed=1.1,
    measured=most["with a budget"],
    unit="attempts for a request, in the worst ten seconds",
    where=f"a modelled engine behind the lab's own Retry (without the budget: {most['three attempts']:.2f})",
    unless="A floor beside the share (Finagle allows ten retries a second) lifts it for services with little traffic.",
    tolerance=0.05,
    source="Computed in this run, on the virtual clock.",
)

# %% [markdown] tags=["further"]
# ### What else ends it
#
# The same storm, each time with one thing changed. *Jitter* is chance in the waits, so that those who failed together do not come back
# together. A *breaker* stops asking an engine that keeps failing (chapter 05).

# %%
changed = {
    "as above": weather,
    "waits without jitter": replace(weather, backoff=Backoff(jitter="none")),
    "waits four times as long": replace(weather, backoff=Backoff(2.0, 32.0)),
    "one attempt": replace(weather, attempts=1),
    "an engine that drops who has left": replace(weather, hears=True),
    "a budget of 10 %": tenth,
}
ends = {name: sketch(each_weather) for name, each_weather in book.track(changed.items(), "six storms")}
ends["a breaker"] = storm(weather, breaker=Breaker(failures=5, cool_down_s=5.0))
pd.DataFrame(
    {
        "over after (s)": [str(run.recovered_after_s) if run.recovered else "not over" for run in ends.values()],
        "answered (%)": [round(100 * sum(run.answered) / sum(run.offered)) for run in ends.values()],
        "attempts, worst second": [max(run.attempts) for run in ends.values()],
        "tokens paid / useful": [round(run.multiplier, 1) for run in ends.values()],
    },
    index=list(ends),
)

# %%
drops = ends["an engine that drops who has left"]
book.finding(
    not drops.recovered and drops.multiplier > wild.multiplier,
    "The surprise is the engine that *hears* its callers leave, and drops them: it does not come back, and pays "
    f"**{drops.multiplier:.1f} tokens for a useful one**. Who reaches a slot has waited for nearly the whole of their patience, and leaves when "
    "the answer is half written. Closing the connection saves money where callers are few. In a storm only fewer attempts help.",
    f"The engine that hears its callers leave pays {drops.multiplier:.1f} tokens for a useful one.",
)

# %% [markdown] tags=["further"]
# ### The same click, twice
#
# A reader who waits clicks again, and a job that lost its answer sends its request again. With an *idempotency key* both are known to be
# the same request: `Idempotent` has it answered once, and gives that answer to both.


# %%
async def clicks(levers):
    engine_ = ScriptedEngine(gap_s=0.1)
    handler = stack(*levers, engine=engine_)
    order_ = Request("Please send order 7.", idempotency_key="order-7")
    await asyncio.gather(complete(handler, order_), complete(handler, order_))
    await complete(handler, order_)
    return len(engine_.asked)


pd.DataFrame(
    {"paid answers to three clicks": [clock.run_virtual(clicks(levers)) for levers in ((), (Idempotent(),))]},
    index=["plain", "with Idempotent"],
)

# %% [markdown] tags=["further"]
# ### Retries multiply
#
# A client library retries by itself: the official `openai` client makes two retries unless told otherwise. Put a gateway with three
# attempts above it, and a job with three above that.


# %%
async def layers(depth):
    dead = ScriptedEngine(fail_at=0, gap_s=0.01)
    handler = dead
    for _ in range(depth):
        handler = stack(Retry(3, Backoff(0.01, 0.01)), engine=handler)
    await tried(handler, Request("Is anybody there?"))
    return len(dead.asked)


pd.DataFrame(
    {"attempts at a dead engine": [clock.run_virtual(layers(depth)) for depth in (1, 2, 3)]},
    index=["client", "client, gateway", "client, gateway, job"],
)

# %% [markdown]
# So retry in one place. The lab sets the clients' own retries to 0 everywhere, and a test asserts it.

# %% [markdown]
# ## Move
#
# Each point of the map is a run with its own storm: load to the right, attempts upwards. Choose the budget, and pick a point.

# %%
LOADS = tuple(round(0.4 + 0.05 * i, 2) for i in range(12))
BUDGETS = {"no budget": None, "50 %": 0.5, "20 %": 0.2, "10 %": 0.1}
small_weather = Weather(slots=4, lasts_s=80, outage_at=10.0)
phases = {
    name: phase_diagram(small_weather, LOADS, (1, 2, 3, 4), (share,))
    for name, share in book.track(BUDGETS.items(), "a map of storms")
}


# %%
def map_of(budget, load, attempts):
    """The map of a budget, with one point framed."""
    squares = pd.DataFrame([{"load": p.load, "attempts": p.attempts, "back": p.recovered} for p in phases[budget]])
    squares["it"] = squares.back.map({True: "comes back", False: "stays down"})
    squares["here"] = (squares.load == load) & (squares.attempts == attempts)
    at = {"x": alt.X("load:O", title="load"), "y": alt.Y("attempts:O", sort="descending")}
    colours = alt.Scale(domain=["comes back", "stays down"], range=[PALETTE["blue"], PALETTE["red"]])
    runs = alt.Chart(squares).mark_point(filled=True, size=170, opacity=1)
    frame = alt.Chart(squares[squares.here]).mark_point(shape="square", size=600, color=PALETTE["grey"], strokeWidth=3)
    both_ = runs.encode(color=alt.Color("it:N", title=None, scale=colours), **at) + frame.encode(**at)
    return both_.properties(width=330, height=150), int((~squares.back).sum())


def storm_at(budget, load, attempts):
    share = BUDGETS[budget]
    run = sketch(replace(small_weather, load=load, attempts=attempts, budget=None if share is None else Ratio(share, 0.0)))
    area, down = map_of(budget, load, attempts)
    course = lines_of(run).properties(width=230, height=150)
    end = f"back after {run.recovered_after_s} s" if run.recovered else "not back within the run"
    title = f"Load with all retries {run.weather.worst_load:.2f}: {end}, {run.multiplier:.1f} tokens paid for a useful one"
    return Figure(
        (area | course)
        .resolve_scale(color="independent", shape="independent", strokeDash="independent")
        .properties(title=title),
        alt=f"Load {load}, {attempts} attempts, {budget}: {end}. In the map, {down} of {len(phases[budget])} runs stay down.",
        source="Sketched: an outage of 10 s, time-outs after 2 s. Stays down: not back within a minute; near a load of 1 it takes longer.",
    )


live_chart(
    storm_at,
    budget=w.Dropdown(options=list(BUDGETS), value="no budget", description="retry budget"),
    load=w.SelectionSlider(options=LOADS, value=0.7, description="load", continuous_update=False),
    attempts=w.IntSlider(3, 1, 4, description="attempts", continuous_update=False),
)

# %% [markdown]
# ## Do
#
# {{exercise 12.1}}
# A share `failing` of all attempts fails, each when the share `written` of its output is written. An attempt is made again until
# one succeeds. Reading the prompt costs `prompt_usd` the first time and `again_usd` in each further attempt (a cache may hold it); writing
# the whole answer costs `answer_usd`. How many dollars are paid, for a dollar of the same answers without failures? If all fail: infinitely many.


# %% exercise="12.1"
def cost_multiplier(failing: float, written: float, prompt_usd: float, again_usd: float, answer_usd: float) -> float:
    """Dollars paid, over the dollars of the same answers without any failure."""
    ...  # your code here


# %%
book.check("12.1", cost_multiplier)

# %% [markdown]
# {{exercise 12.2}}
# Write the budget that ends the storm. Of the requests of the last `seconds` seconds, at most `percent` of 100 may be made again: a
# retry at second `now` is allowed where the retries of the last `seconds` seconds, this one included, are no more than that. What is
# `seconds` old does not count any more. A refused retry costs nothing. The same event may come several times in one second.
# The check plays it on hidden days, and then in a storm.


# %% exercise="12.2"
class Budget:
    """Of the requests of the last `seconds`, `percent` of 100 may be made again."""

    def __init__(self, percent: int, seconds: float) -> None:
        self.percent, self.seconds = percent, seconds
        ...  # your code here

    def request(self, now: float) -> None:
        """A request is made for the first time, at second `now`."""
        ...  # your code here

    def may_retry(self, now: float) -> bool:
        """Whether one more retry may be made at second `now`; if so, it counts from now on."""
        ...  # your code here


# %%
book.check("12.2", Budget)

# %% [markdown]
# Your budget (as soon as it passes), in the storm above, at three sizes:

# %%
mine, whose = book.yours("12.2", Budget)
sizes = {percent: storm(weather, (Plugged(mine(percent, 10.0)),)) for percent in book.track((10, 25, 100), "three storms")}
pd.DataFrame(
    {
        "load with all retries": [round(weather.load * min(weather.attempts, 1 + percent / 100), 2) for percent in sizes],
        "over after (s)": [
            "not over" if run.recovered_after_s is None else str(run.recovered_after_s) for run in sizes.values()
        ],
        "answered (%)": [round(100 * sum(run.answered) / sum(run.offered)) for run in sizes.values()],
    },
    index=pd.Index([f"{percent} %" for percent in sizes], name=f"budget ({whose})"),
)

# %% [markdown] tags=["further"]
# {{exercise 12.3}}
# An attempt has failed. What now: ask "again", "resume" what has come, or "stop"?
# - It may pass after a broken connection or a time-out (`status` is None), after 408, 409 and 429, and after 500 to 599 but for 501
#   and 505. All others: stop.
# - The next attempt begins after `wait_s` seconds and takes `takes_s`. It must end *before* the `left_s` seconds are over that the
#   caller still has. If it cannot: stop.
# - `begun`: the reader has a part of the answer already. No word may come twice.


# %% exercise="12.3"
def next_step(status: int | None, begun: bool, wait_s: float, takes_s: float, left_s: float) -> str:
    """What to do after a failure: "again", "resume" or "stop"."""
    ...  # your code here


# %%
book.check("12.3", next_step)

# %% [markdown] tags=["further"]
# {{exercise 12.4}}
# Of an answer, `received` tokens had come. Starting over reads the `prompt` again and writes `received` tokens again. Going on reads
# both. Of what going on reads, the first `found` tokens come from a prefix cache; of what starting over reads, as many as lie in
# the prompt. (What is still to be written costs the same both ways.) How many dollars does going on save?


# %% exercise="12.4"
def resume_saves(prompt: int, received: int, found: int, fresh_usd: float, cached_usd: float, output_usd: float) -> float:
    """Dollars that going on saves against starting over; below 0 where it costs more."""
    ...  # your code here


# %%
book.check("12.4", resume_saves)

# %% [markdown] tags=["further"]
# {{exercise 12.5}}
# Write the handler that goes on with an answer that broke off.
#
# 1. `rest` makes the request for what is missing. What was `said` becomes an assistant's turn behind the messages; `max_tokens` is what is
#    left; `attempt` counts on; `extra` gets `continue_final_message=True` and `add_generation_prompt=False`, and keeps the rest.
#    Where the request goes on already (it has `continue_final_message`), its last message grows instead.
# 2. The handler hands each event on as it comes. When the engine raises an `EngineError`, or its stream ends without a `Done`, it asks for
#    the rest, from what that attempt said and wrote, and hands on what follows.
# 3. It goes on at most `times` times, only after text has come in some attempt, and only after a failure that may pass: with
#    no status, with 429, or from 500 on. Else it raises that attempt's error. And where all of `max_tokens` is written, whatever the
#    error: it ends with a `Done` of its own, with finish reason “length” and the times of its beginning and end.
# 4. Each attempt is booked, also when its reader leaves: `Attempt(whole, usage)`, with the usage of its `Done`, else the last running `usage` of its
#    chunks, else the sum of `chunk.counted`. The one `Done` has the tokens of all attempts, and `timing.sent` of the first.
# 5. `usd` splits the bill: the "answer" is all output and the first attempt's input; "again" is the input of further attempts.


# %% exercise="12.5"
class GoesOn:
    """A handler over `engine` that goes on with an answer that broke off, at most `times` times."""

    def __init__(self, engine: Handler, times: int) -> None:
        self.booked: list[Attempt] = []
        ...  # your code here

    def rest(self, request: Request, said: str, written: int) -> Request:
        """Stage 1: the request for the rest of an answer of which `said` is there, in `written` tokens."""
        ...  # your code here

    async def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """Stages 2 to 4: the events of the whole answer."""
        ...  # your code here

    def usd(self, price: Any) -> dict[str, float]:
        """Stage 5: the dollars of the "answer", its prompt read once, and of what was read "again" by later attempts."""
        ...  # your code here


# %%
book.check("12.5", GoesOn)

# %% [markdown] tags=["further"]
# #### Your handler on this chapter's failures
#
# An engine that breaks off as often as it is told, in front of it your handler (as soon as it passes), the lab's, and a plain retry that
# holds answers back. What is paid for 100 whole answers, when each attempt breaks with the chance on the axis?

# %% tags=["constants"]
CHANCES = (0.1, 0.2, 0.3, 0.4, 0.5)
TEXT = " ".join(f"w{n}" for n in range(60))


# %%
async def bill_of(make_handler, chance):
    """USD for 100 requests with a prompt of 60 words and an answer of 60, and how many were answered whole."""
    usd_, whole_ = 0.0, 0
    for n in range(100):
        dice, ends = book.rng(f"{n} {chance}"), []
        while dice.random() < chance:
            ends.append(dice.randrange(1, 30))
        engine_ = BreaksOff(TEXT, ends)
        with Ledger(":memory:") as ledger:
            handler = stack(Booked(ledger, {"*": PRICE}), engine=make_handler(stack(engine=engine_)))
            question = Request(" ".join(f"q{n}" for _ in range(60)), max_tokens=60)
            whole_ += await tried(handler, question) == TEXT
            usd_ += sum(float(price_request(used(row), PRICE).total) for row in ledger.rows() if used(row))
    return usd_, whole_


mine_on, label_on = book.yours("12.5", GoesOn)
handlers = {
    label_on: lambda engine_: mine_on(engine_, 9),
    "the lab's Resume": lambda engine_: stack(Resume(9), engine=engine_),
    "a retry": lambda engine_: stack(Retry(10, Backoff(0.0, 0.0), whole=True), engine=engine_),
}
paid = pd.DataFrame(
    [
        {
            "handler": name,
            "chance": chance,
            **dict(zip(("usd", "whole"), clock.run_virtual(bill_of(made, chance)), strict=True)),
        }
        for name, made in handlers.items()
        for chance in CHANCES
    ]
)

# %%
at_most = paid[paid.chance == max(CHANCES)].set_index("handler")
show(
    alt.Chart(paid)
    .mark_line(point=True)
    .encode(
        x=alt.X("chance:Q", title="chance that an attempt breaks off"),
        y=alt.Y("usd:Q", title="USD for 100 requests", scale=alt.Scale(zero=False)),
        color=alt.Color("handler:N", title=None, sort=list(handlers)),
    )
    .properties(
        title=f"At {max(CHANCES):.0%}: "
        + ", ".join(f"{name} {1000 * row.usd:.1f} thousandths" for name, row in at_most.iterrows())
    ),
    alt="Dollars for 100 requests against the chance that an attempt breaks off. "
    + " ".join(
        f"{r.handler} at {r.chance:.0%}: {1000 * r.usd:.1f} thousandths, {r.whole} whole." for r in paid.itertuples()
    ),
    source="Played on the virtual clock: 60 words in, 60 out, broken off behind 1 to 29 words; 1, 10 and 0.1 USD a million tokens read, written, cached.",
)

# %% [markdown]
# ## So what
#
# The desk makes two further attempts for 100 questions, by its log. What would they cost if answers were gone on with?

# %%
retries = PORTAL.desk.retries
share_left = (going.times - 1) / (held.times - 1) if held.times > 1 else 1.0
now = retries * max(0.0, share_left)
pays = bool(going.times < held.times and going.whole / going.asked >= held.whole / held.asked - 0.02)
book.bill(
    "broken answers are gone on with" if pays else "retries stay as they are",
    Retried("desk", retries, now) if pays else Stays("desk"),
    of="desk",
    source=f"A bad day at the desk's prices: held back {held.times:.3f} times the price of answers without failure, gone on with {going.times:.3f}. "
    f"{priced} {day.source}",
)

# %%
hour = PORTAL.questions / DAYS * PORTAL.peak_share  # questions in the busiest one
down = 1 - sum(wild.answered[-20:]) / sum(wild.offered[-20:])
lost_in = {
    "without a budget": down * hour,
    "with it": (sum(tame.offered) - sum(tame.answered)) / weather.arrivals_per_s * hour / 3600,
}
calls_usd = {name: n * float(PORTAL.wrong_answer_usd) for name, n in lost_in.items()}
Markdown(
    f"A usual month has little to gain here: {retries:.0%} of the calls. The money is in the bad hour. In the portal's busiest one, "
    f"{hour:,.0f} questions come. A storm as above, which lasts as long as that load, leaves {lost_in['without a budget']:,.0f} of them without an "
    f"answer; with a budget it is {lost_in['with it']:,.0f}. If one in twenty of those people calls somebody, for 5 USD, that is "
    f"**{calls_usd['without a budget']:,.0f} USD in an hour, or {calls_usd['with it']:,.0f}**. A retry budget is a few lines."
)

# %% [markdown] tags=["reasoned"]
# **In words.** A failure costs what the engine had done by then. Bad luck passes, and a retry cures it for at most one more
# answer. A cause that stays is paid for once more with each attempt. Once a word has reached the reader, go on; do not start over.
# And what protects an engine is no limit for each request, but a budget for all of them.
#
# **When it is different.** Short prompts and long answers: going on saves most. Long prompts on an engine without a prefix cache: it saves
# little. Answers held to a grammar, or with tool calls: they cannot be gone on with.
#
# **The pressure relieved**: tokens for nobody, and an outage's tail. **Where it moved**: into refused retries, which some readers see
# as errors, and into prompts read again. **Who pays**: the one who sends the retries does not; all others in the queue do.
# **In production**, watch attempts for each request by the minute (1.0 on a quiet day), tokens of failed attempts in money, retries that
# the budget refused, and the difference between the provider's token count and yours.

# %% [markdown]
# ### On your own data
#
# Which share of your tokens is in attempts that served nobody? A log must hold *failed* attempts too, with the tokens that had come, and
# each attempt's number and request; many logs keep successes only. With times you also see the worst minute.

# %%
book.on_your_data()

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz("12.q1")

# %%
book.quiz("12.q2")

# %%
book.quiz("12.q3")

# %% [markdown]
# ## Next
#
# **13 · Cost dashboards**: a failure is one line of the bill. Which feature, which version and which customer made the rest?

# %%
await book.close()
book.progress()
