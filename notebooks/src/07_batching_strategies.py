# %% [markdown]
# # 07 · Batching strategies: sharing a step, and what the waiting buys
#
# **The question.** A GPU costs the same per hour whether it answers one customer or thirty, and at night it costs as much as at
# noon. The portal pays for such GPUs, and beside them a large model's list price for the nightly summaries. Many kinds of batching
# promise to cut that bill. Which of them does, which is in your engine already, and which only makes customers wait?
#
# **You will be able to** tell static, dynamic and continuous batching apart in a picture; test a claim of the form
# throughput ≈ B^α; choose a waiting window for a given latency budget, or none; and decide which work goes to a batch API and which
# waits for the night. In the parts marked ◇ you model an engine with five numbers, put chats and bulk work on one engine, and write a
# scheduler.
#
# **Time.** {{time}} **Needs.** Chapter 02. {{needs}}

# %% tags=["imports"]
import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import altair as alt
import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy.optimize import nnls

from labkit.batching import (
    Batcher,
    CoalescingWindow,
    Gate,
    Job,
    Limits,
    OffPeak,
    Pool,
    Pooled,
    StepPlan,
    View,
    chunked_prefill,
    continuous,
    dynamic,
    embed_batcher,
    fit_exponent,
    run_schedule,
    static,
)
from labkit.caches import SingleFlight
from labkit.embeddings import embedder
from labkit.engines.modelled import EngineSettings, ModelledEngine
from labkit.experiments import concurrency, prefill, recordings, silicon_errors, silicon_points
from labkit.kvcache import plan
from labkit.lab import traffic
from labkit.latency import HOPPER, LatencyModel, StepWork, datasheet_model, hardware
from labkit.latency import shape as model_shape
from labkit.load import ExactLengths, by_hour, closed_loop, open_loop, poisson
from labkit.portal import PORTAL, Batched, Machines, Stays, TakenIn, fleet, today
from labkit.request import Request, clock
from labkit.workbook import PALETTE, Figure, below, live_chart, show, spread
from labkit.workbook.pictures import batch_fill, draw_picture

# %%
book.warm_up()

# %% [markdown]
# ## Predict

# %%
book.predict(
    "07.alpha",
    "Throughput is said to grow like B^α with the number B of answers at the same time: α = 1 is free, α = 0 is no gain. "
    "What is α on this engine, between 1 and 32?",
    low=0,
    high=1,
    unit="",
)

# %%
book.predict(
    "07.batcher",
    "24 callers each want one text embedded, again and again. By what factor does a dynamic batcher raise the throughput, "
    "against one call after the other?",
    low=0.5,
    high=24,
    unit="times",
    log=True,
)

# %%
book.predict(
    "07.window",
    "16 chat clients in front of a live engine. You hold their requests for 50 ms, so that they start together. What becomes "
    "of the throughput?",
    low=0.2,
    high=5,
    unit="times",
    log=True,
)

# %% [markdown]
# ## Run
#
# ### The same answers, in batches and seat by seat
#
# A **static** batch is what you write first: take so many requests, send them together, wait until all are done, take the next. A
# **continuous** batch has **seats** instead: places for answers that are written at the same time. Whoever leaves is replaced at
# once. The same eight requests, both ways, on four seats:

# %%
draw_picture(batch_fill([9, 2, 3, 2, 7, 3, 4, 2], seats=4))

# %% [markdown]
# That is counted in steps that all take the same time. Now live, on eight seats, with answers as uneven as answers are.

# %% tags=["constants"]
SEATS = 8

# %%
live = await book.connect("small")
# Fresh words every time, so that no prefix cache helps.
make = None if book.lacks("tokenizer") else ExactLengths(str(live.tokenizer_path), seed)


# %%
async def in_batches(requests):
    """Static: the next batch is sent when the last answer of this one has ended."""
    found = []
    for i in range(0, len(requests), SEATS):
        found += (await closed_loop(live, requests[i : i + SEATS], SEATS)).samples
    return found


async def seat_by_seat(requests):
    """Continuous: a request is sent when any answer has ended."""
    return list((await closed_loop(live, requests, SEATS)).samples)


ways = {"static: in batches": in_batches, "continuous: seat by seat": seat_by_seat}


async def both_ways(number):
    if number == 0:
        for n in (1, 32):
            await concurrency(live, make, people=n)  # warm-up
    draw = book.rng("answers")  # the same lengths in each round
    lengths = [
        (draw.randrange(40, 160), 4 + min(150, int(draw.expovariate(1 / 35)))) for _ in range(book.pick(ci=32, learn=64))
    ]
    found = {"lengths": lengths}
    for name, way in ways.items():
        samples = await way([make(*one) for one in lengths])
        begin = min(s.timing.sent for s in samples)
        found[name] = [(s.timing.sent - begin, s.timing.done - begin, s.usage.output_tokens) for s in samples]
    return found


rounds = await book.measure("in batches and seat by seat", both_ways, rounds=5)
wanted = rounds.value[0]["lengths"]
took = pd.DataFrame([{name: max(end for _, end, _ in one[name]) for name in ways} for one in rounds.value])
gains = (took.iloc[:, 0] / took.iloc[:, 1]).tolist()
gain = spread(gains).median
took.round(2).rename(columns=lambda name: f"{name} (s)").rename_axis("round")


# %%
empty = {
    name: [
        1 - sum(done - sent for sent, done, _ in one[name]) / (SEATS * max(done for _, done, _ in one[name]))
        for one in rounds.value
    ]
    for name in ways
}
in_static, in_filled = (100 * float(np.median(shares)) for shares in empty.values())

# %%
on_paper = 100 * book.reference("07.1")([output for _, output in wanted], SEATS)
paper_steps = {}
for policy in (static, continuous):  # each step counted as one, whatever is in it
    paper = run_schedule([Job(0.0, *one) for one in wanted], policy, Limits(SEATS, 2048), lambda prompt, answers: 1.0)
    paper_steps[policy.__name__] = paper.finish
paper_gain = paper_steps["static"] / paper_steps["continuous"]

# %%
counting = (
    f"Counting tokens alone, before anything runs, fixed batches of {SEATS} would leave **{on_paper:.0f} %** of the seats empty "
    f"(exercise 07.1), and need {paper_steps['static']:.0f} steps where filled seats need {paper_steps['continuous']:.0f}: a "
    f"factor of {paper_gain:.2f}. Measured was a factor of {gain:.2f} ({spread(gains).words('{:.2f}')}), with {in_static:.0f} % of the "
    f"seats empty in batches and {in_filled:.0f} % seat by seat. "
)
everywhere = (
    "Serving engines batch continuously today. Static batches still come from the code around them: a `gather` over a list "
    "of prompts, a job runner that waits for all its workers."
)
on_the_way = (
    "What is missing of the factor goes on the way: a seat is empty, too, while its next request travels to the engine and is let "
    "in. And on paper all steps are equal, while a step with eight answers in it takes longer than one with two. "
)
book.finding(
    below([1.0] * len(gains), gains),
    counting + (on_the_way if gain < 0.95 * paper_gain else "") + everywhere,
    counting + "In this run the filled seats did not pay. " + everywhere,
    counting + "The rounds lie on both sides of 1, so this run cannot tell; the paper can. " + everywhere,
)

# %%
book.claim(
    "07.seats",
    "Continuous batching gives 8 times the throughput of static batches.",
    by="Daniel, Shen, Liang, Liaw: How continuous batching enables 23x throughput in LLM inference, Anyscale, 2023 (OPT-13B on an A100)",
    claimed=8,
    measured=gains,
    unit="times",
    where=f"{len(wanted)} answers on {SEATS} seats, a small model on a CPU",
    unless=f"It depends on how uneven the answers are, and on how many share a batch: these answers on {SEATS} seats allow {paper_gain:.2f} times, "
    "counted in steps. Anyscale's lengths varied up to 1,536 tokens, in larger batches.",
    source=rounds.source,
)

# %% [markdown]
# ### What company costs: throughput ≈ B^α?
#
# A step reads the weights once, whoever is in it; that part is shared. The arithmetic is not. A popular rule sums it up as
# throughput ≈ B^α. It is easy to test: so many answers at the same moment, then a straight line through the logarithms.

# %%
people = (1, 2, 4, 8, 16, 32)


async def in_company(number):
    order = people[:: 1 - 2 * (number % 2)]  # forwards and backwards, so that a busy moment meets all of them
    return [await concurrency(live, make, people=n) for n in order]  # 64 tokens in, 48 out


companies = await book.measure("in company", in_company, rounds=book.pick(ci=4, learn=7))
company = pd.DataFrame([{"round": i, **row} for i, rows in enumerate(companies.value) for row in rows])


def by_size(frame, low=1, high=math.inf):
    return {int(n): list(rows.output_tokens_per_s) for n, rows in frame.groupby("people") if low <= n <= high}


def slopes(low=1, high=math.inf):
    """α of each round, from batch sizes of `low` to `high`."""
    chosen = company[company.people.between(low, high)]
    return [
        float(np.polyfit(np.log(one.people), np.log(one.output_tokens_per_s), 1)[0]) for _, one in chosen.groupby("round")
    ]


law = fit_exponent(by_size(company))
halves = {"1 to 4": fit_exponent(by_size(company, high=4)), "8 to 32": fit_exponent(by_size(company, low=8))}

# %%
book.reveal("07.alpha", slopes(), unit="")

# %%
grid = np.geomspace(1, 32, 40)
dots = alt.Chart(company).encode(
    x=alt.X("people:Q", title="answers at the same time, B", scale=alt.Scale(type="log", base=2))
)
show(
    (
        alt.Chart(pd.DataFrame({"people": grid, "law": [law.throughput(b) for b in grid]}))
        .mark_line(color=PALETTE["red"], strokeDash=[5, 3])
        .encode(x="people:Q", y="law:Q")
        + dots.mark_circle(size=40, opacity=0.4, color=PALETTE["blue"]).encode(
            y=alt.Y("output_tokens_per_s:Q", title="tokens per second, all together", scale=alt.Scale(type="log"))
        )
        + dots.mark_tick(thickness=3, size=22, color=PALETTE["blue"]).encode(y="median(output_tokens_per_s):Q")
    ).properties(
        title=f"α is {law.alpha:.2f} over the whole range, {halves['1 to 4'].alpha:.2f} at its start and {halves['8 to 32'].alpha:.2f} at its end"
    ),
    alt=f"Throughput against simultaneous answers, both logarithmic, and the fitted law. α = {law.alpha:.2f}, 95 % interval "
    f"{law.low:.2f} to {law.high:.2f}; the worst mean is {100 * law.misfit:.0f} % off the line.",
    source=f"Points: each of {len(companies.value)} rounds, and their medians; dashed: the fitted law. {companies.source}",
)

# %%
others = [("this run", company, companies.source)] + [
    (
        f"{m.provenance.model}, {m.provenance.device}, {m.provenance.date[:10]}",
        m.frame().query("prompt_tokens == prompt_tokens.min()"),
        m.caption(),
    )
    for m in recordings("concurrency")
    if m.variant in ("default", "bf16")
]
rows = []
for name, frame, _ in others:
    sizes = by_size(frame)
    if min(len(values) for values in sizes.values()) < 2:
        continue
    fitted = fit_exponent(sizes)
    rows.append(
        {
            "engine": name,
            "B": f"{min(sizes)} to {max(sizes)}",
            "α": f"{fitted.alpha:.2f}",
            "95 % interval": f"{fitted.low:.2f} to {fitted.high:.2f}",
            "worst miss of the law": f"{100 * fitted.misfit:.0f} %",
            "gain at the largest B": f"{np.mean(sizes[max(sizes)]) / np.mean(sizes[min(sizes)]):.1f} ×",
        }
    )
pd.DataFrame(rows).set_index("engine")

# %%
miss = (
    "Recordings: " + "; ".join(dict.fromkeys(caption for _, _, caption in others[1:])) + ".\n\n"
    "The interval speaks of noise only. The **miss** says whether there is a law at all: here the batch size that fits it least "
    f"lies {100 * law.misfit:.0f} % off the line. "
)
book.finding(
    below(slopes(low=8), slopes(high=4)),
    miss
    + "That is a curve, not a power law: α falls as B grows, so whoever fits it on small batches and extrapolates promises "
    "too much.",
    miss + "In this range α does not fall; it must later, for it cannot stay where it is once arithmetic is the limit.",
    miss + "Whether α falls as B grows, these rounds cannot tell: they lie too far apart.",
)

# %% [markdown]
# ### Five numbers instead of one
#
# What bends the curve? Five times explain most of it. A step of the engine takes some time in itself, some for each prompt token
# that it reads, and some for each answer in it. A request takes its way there and back, and the front end lets requests in one by
# one. Each of the five comes from a measurement below; the lab's step loop (`labkit.batching.run_schedule`) computes the rest.
#
# Whatever else runs on this machine can only slow a round down. So the numbers come from the fastest round of each kind, and are
# held against the fastest.


# %%
async def readings(_):
    return [await prefill(live, make, prompt_tokens=n) for n in (64, 600, 1200)]


reading = pd.DataFrame([row for rows in (await book.measure("reading", readings, rounds=5)).value for row in rows])
ttft = reading.groupby("prompt_tokens").ttft_s.min()  # the least disturbed
curve = company.groupby("people").output_tokens_per_s.agg(["median", "min", "max"])
first_of = company.groupby("people").ttft_s.min()
fastest = company.loc[company.groupby("people").output_tokens_per_s.idxmax()].set_index("people")
SEEN, UNSEEN = [1, 8, 32], [2, 4, 16]  # batch sizes that the five numbers come from, and those kept for the test
tpot = fastest.tpot_s[SEEN]  # of a whole round: the lowest TPOT of all is often a late first token

per_token = max(0.0, float(np.polyfit(ttft.index, ttft, 1)[0]))
# Neither may come out below zero, however disturbed the rounds were, and no step is free.
weighted = np.column_stack([np.ones(len(tpot)), tpot.index]) / tpot.to_numpy()[:, None]
per_step, per_answer = (float(v) for v in nnls(weighted, np.ones(len(tpot)))[0])
per_step = max(per_step, 0.01 * float(tpot.min()))
way = max(0.0, float(ttft[64]) - per_step - per_token * 64)
let_in = max(0.0, float(first_of[32] - first_of[1]) / 15.5 - per_token * 64)  # the one in the middle waits for 15 or 16


def step_seconds(prompt_tokens, answers):
    """Seconds of one step of this engine."""
    return per_step + per_token * prompt_tokens + per_answer * answers


pd.DataFrame(
    {
        "milliseconds": [f"{1000 * v:.4f}" for v in (per_step, per_answer, per_token, way, let_in)],
        "from": [
            "TPOT of 1, 8 and 32 people",
            "the same",
            "TTFT of 64 to 1,200 tokens",
            "TTFT alone, less its step",
            "TTFT of 32",
        ],
    },
    index=[
        "a step",
        "each answer in it",
        "each prompt token in it",
        "a request's way there and back",
        "letting in one more",
    ],
)

# %% [markdown] tags=["further"]
# #### Are five enough?
#
# The test. The model has seen how late the first token comes and how fast the others follow, for 1, 8 and 32 people. It is
# judged by what it has not seen: the throughput of 2, 4 and 16 people, and the uneven answers at the beginning.

# %%
engine_limits = Limits(128, 2048)  # vLLM's defaults on a CPU
seat_limits = Limits(SEATS, 512)  # the engine of eight seats, further down


def together(n):
    """Modelled tokens per second of `n` answers asked for at once."""
    jobs = [Job(way + let_in * (i + 1), 64, 48) for i in range(n)]
    return n * 48 / run_schedule(jobs, chunked_prefill, engine_limits, step_seconds).finish


def answers_per_s(lengths):
    """What eight seats can do at most, by the model: answers of these lengths, all asked for at once."""
    jobs = [Job(0.0, *one) for one in lengths]
    return len(jobs) / run_schedule(jobs, chunked_prefill, seat_limits, step_seconds).finish


curve["modelled"] = [together(n) for n in curve.index]
curve["part"] = ["not seen before" if n in UNSEEN else "the numbers come from here" for n in curve.index]
jobs = [Job(0.0, *one) for one in wanted]
said = {
    "static: in batches": run_schedule(jobs, static, Limits(SEATS, 2048), step_seconds).finish
    + way * -(-len(wanted) // SEATS),
    "continuous: seat by seat": run_schedule(jobs, chunked_prefill, Limits(SEATS, 2048), step_seconds).finish
    + way * len(wanted) / SEATS,
}
error = (100 * (curve.modelled / curve["max"] - 1))[UNSEEN]

# %%
noise = 100 * (curve["max"] - curve["min"]) / curve["median"]
x = alt.X("people:Q", title="answers at the same time, B", scale=alt.Scale(type="log", base=2))
flat = curve.reset_index()
show(
    (
        alt.Chart(flat)
        .mark_line(color=PALETTE["green"])
        .encode(x=x, y=alt.Y("modelled:Q", title="tokens per second, all together"))
        + alt.Chart(flat).mark_rule(strokeWidth=3, color=PALETTE["blue"], opacity=0.5).encode(x=x, y="min:Q", y2="max:Q")
        + alt.Chart(flat)
        .mark_point(size=70, filled=True, color=PALETTE["blue"], opacity=1)
        .encode(x=x, y="max:Q", shape=alt.Shape("part:N", title=None))
    ).properties(
        title=f"The step model errs by {error.abs().median():.0f} % (median) where it has seen nothing; rounds differ by {noise.median():.0f} %"
    ),
    alt="Measured throughput of the fastest round, with the range of the others, and the model's line. "
    + " ".join(f"{n} people: {r['max']:.0f} measured, {r.modelled:.0f} modelled." for n, r in curve.iterrows()),
    source=f"Points and bars: the fastest and the range of {len(companies.value)} rounds, {companies.source}. Line: modelled with the five numbers above.",
)

# %%
pd.DataFrame(
    {
        "measured": [*(f"{curve['max'][n]:.0f} tokens/s" for n in UNSEEN), *(f"{took[name].min():.2f} s" for name in ways)],
        "modelled": [*(f"{curve.modelled[n]:.0f} tokens/s" for n in UNSEEN), *(f"{said[name]:.2f} s" for name in ways)],
        "error": [
            *(f"{error[n]:+.0f} %" for n in UNSEEN),
            *(f"{100 * (said[name] / took[name].min() - 1):+.0f} %" for name in ways),
        ],
    },
    index=[*(f"{n} at once" for n in UNSEEN), *ways],
)

# %% [markdown] tags=["reasoned"]
# The model knows an engine, a way and a queue at the door. It does not know that the clients, the front end and the engine share
# this machine's cores. Where it promises more than was measured, that is where to look.

# %% [markdown] tags=["constants"]
# ### Coalescing, three times
#
# “Coalesce requests for 50 to 100 ms and gain 3 to 5 times.” Three different things go by that name: the first two are in this
# part, the third comes further down.
#
# **One: a function that takes many items**, such as an embedder. It has no batching inside, so a **dynamic batcher** in front
# of it starts a batch when it is full or when its first item has waited long enough. Callers ask one text at a time; two dozen
# of them are there.

# %% tags=["constants"]
CALLERS, MAX_BATCH = 24, 32
WAITS_MS = (0, 10, 50, 100)


# %%
async def callers(submit, n, texts):
    """`n` callers who ask again as soon as they are answered: texts per second, and everybody's waits."""
    waits, left = [], iter(texts)

    async def one():
        for text in left:
            begin = clock.now()
            await submit(text)
            waits.append(clock.now() - begin)

    begin = clock.now()
    await asyncio.gather(*(one() for _ in range(n)))
    return {"per_s": len(waits) / (clock.now() - begin), "p95": float(np.percentile(waits, 95))}


async def one_by_one(encoder, n, texts):
    turn = asyncio.Lock()

    async def submit(text):
        async with turn:
            return await asyncio.to_thread(encoder.encode, [text])

    return await callers(submit, n, texts)


async def batched(encoder, n, texts, wait_s):
    async with embed_batcher(encoder.encode, max_size=MAX_BATCH, max_wait_s=wait_s) as batcher:
        return await callers(batcher.submit, n, texts)


def against(rows, setting, base):
    """Throughput relative to `base` in the same round: for each setting, a number for each round."""
    speeds = pd.DataFrame(rows).pivot(index="round", columns=setting, values="per_s")
    return speeds.div(speeds[base], axis=0).to_dict("list")


def span(ratios):
    """The median of ratios and their range, as text."""
    return f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


# %%
questions = list(dict.fromkeys(q.text for q in traffic("test", 8000, seed, meanings_total=2000)))


async def texts_in_batches(number):
    encoder = embedder()
    asks = islice(questions, 600 * number, None)  # no text is asked twice
    if number == 0:
        encoder.encode(list(islice(asks, MAX_BATCH)))  # warm-up
    many, rows = CALLERS * book.pick(ci=2, learn=4), []
    for wait in ("none", *WAITS_MS)[:: 1 - 2 * (number % 2)]:
        if wait == "none":
            found = await one_by_one(encoder, CALLERS, list(islice(asks, CALLERS)))
        else:
            found = await batched(encoder, CALLERS, list(islice(asks, many)), wait / 1000)
            # The price at night: one caller, nobody to wait for.
            found["alone"] = (await batched(encoder, 1, list(islice(asks, 2)), wait / 1000))["p95"]
        rows.append({"round": number, "wait": wait, "encoder": encoder.name, **found})
    return rows


embedding = await book.measure("texts in batches", texts_in_batches, rounds=book.pick(ci=2, learn=5))
embedded = pd.DataFrame([row for rows in embedding.value for row in rows])
batch_gains = against(embedded, "wait", "none")
middle = embedded.groupby("wait")[["per_s", "p95", "alone"]].median()
settings = ("none", *WAITS_MS)
pd.DataFrame(
    {
        "texts per second": [f"{middle.per_s[k]:.0f}" for k in settings],
        "times": [span(batch_gains[k]) for k in settings],
        f"p95 of {CALLERS} callers (ms)": [f"{1000 * middle.p95[k]:.0f}" for k in settings],
        "p95 of a lone caller (ms)": ["" if k == "none" else f"{1000 * middle.alone[k]:.0f}" for k in settings],
    },
    index=["one by one", *(f"batcher, waits up to {ms} ms" for ms in WAITS_MS)],
)

# %%
best_wait = max(WAITS_MS, key=lambda ms: np.median(batch_gains[ms]))
book.reveal("07.batcher", batch_gains[best_wait], unit="times")

# %%
no_window = (
    "(“Times” compares within a round; the range over the rounds is in brackets.) Look at the batcher that waits up to 0 ms: it "
    f"waits for no one, and still its throughput is {span(batch_gains[0])} times that of one by one. "
)
book.finding(
    below([1.0] * len(batch_gains[0]), batch_gains[0]),
    no_window
    + "One batch runs at a time, and whoever comes meanwhile is the next batch, so batches grow with the load all by themselves. "
    "A window can only help those who come while no batch is running, and a lone caller pays for all of it.",
    no_window + "In this run its batches gain nothing over single calls.",
)

# %% [markdown]
# **Two: a window in front of an engine** that batches continuously. The same waits, before a live chat engine: 16 clients who
# ask again when they are answered, and then Poisson arrivals at a modest rate.

# %% tags=["constants"]
CLIENTS = 16


# %%
async def held_chats(number):
    rows = []
    for ms in WAITS_MS[:: 1 - 2 * (number % 2)]:
        chats = [make(64, 48) for _ in range(CLIENTS * book.pick(ci=2, learn=6))]
        run = await closed_loop(CoalescingWindow(ms / 1000)(live), chats, CLIENTS)
        p95 = float(np.percentile([s.e2e for s in run.samples], 95))
        rows.append({"round": number, "ms": ms, "per_s": len(run.samples) / run.seconds, "p95": p95})
    return rows


chats_held = await book.measure("chats, held", held_chats, rounds=book.pick(ci=2, learn=7))
held = pd.DataFrame([row for rows in chats_held.value for row in rows])
chat_gains = against(held, "ms", 0)
full = held.groupby("ms").median()


async def calm_chats(number):
    found = {}
    for ms in WAITS_MS[:: 1 - 2 * (number % 2)]:
        times = list(islice(poisson(0.3 * float(full.per_s[0]), seed + number), book.pick(ci=12, learn=24)))
        run = await open_loop(CoalescingWindow(ms / 1000)(live), [(at, make(64, 16)) for at in times])
        found[ms] = [s.ttft_from_due for s in run.samples]
    return found


calm = await book.measure("chats, held, at a modest rate", calm_chats, rounds=book.pick(ci=2, learn=5))


# %%
pd.DataFrame(
    {
        "answers per second": [f"{full.per_s[ms]:.0f}" for ms in WAITS_MS],
        "times": [span(chat_gains[ms]) for ms in WAITS_MS],
        f"p95 end to end, {CLIENTS} clients (ms)": [f"{1000 * full.p95[ms]:.0f}" for ms in WAITS_MS],
        "p95 TTFT at a third of that load (ms)": [
            f"{1000 * np.percentile([t for one in calm.value for t in one[ms]], 95):.0f}" for ms in WAITS_MS
        ],
    },
    index=[f"held {ms} ms" for ms in WAITS_MS],
)

# %%
book.reveal("07.window", chat_gains[50], unit="times")

# %%
lines = pd.DataFrame(
    [
        {"ms": ms, "what": what, "times": ratio}
        for what, gains_of in (
            (f"embedder behind a batcher, {CALLERS} callers", batch_gains),
            (f"live chat engine, {CLIENTS} clients", chat_gains),
        )
        for ms in WAITS_MS
        for ratio in gains_of[ms]
    ]
)
legend = alt.Color("what:N", title=None, legend=alt.Legend(orient="bottom", columns=1, labelLimit=400))
show(
    (
        alt.Chart(pd.DataFrame([{"low": 3, "high": 5, "from": 50, "to": 100}]))
        .mark_rect(opacity=0.25, color=PALETTE["grey"])
        .encode(x="from:Q", x2="to:Q", y="low:Q", y2="high:Q")
        + alt.Chart(pd.DataFrame([{"ms": 75, "times": 4, "said": "the claim"}]))
        .mark_text()
        .encode(x="ms:Q", y="times:Q", text="said:N")
        + alt.Chart(lines).mark_circle(opacity=0.35).encode(x="ms:Q", y="times:Q", color=legend)
        + alt.Chart(lines)
        .mark_line(point=True)
        .encode(
            x=alt.X("ms:Q", title="longest wait for company (ms)"),
            y=alt.Y("median(times):Q", title="throughput, times that without batching", scale=alt.Scale(domainMin=0)),
            color=legend,
        )
    ).properties(
        title=f"50 ms of waiting: {np.median(batch_gains[50]):.1f} times for the embedder, {np.median(chat_gains[50]):.2f} times for the chat"
    ),
    alt="Throughput relative to no batching against the waiting window; the claim, 3 to 5 times for 50 to 100 ms, is a grey box. "
    + " ".join(f"{ms} ms: embedder {span(batch_gains[ms])}, chat {span(chat_gains[ms])}." for ms in WAITS_MS),
    source=f"Grey box: the claim. Points: rounds, in turns; lines: their medians. {chats_held.source}; embedder "
    f"{embedded.encoder.iloc[0]} on the same cores.",
)

# %%
window_story = (
    "The engine forms a new batch at every step, some milliseconds apart. Holding requests outside gives it nothing that it does "
    "not have, and while they are held its seats are empty. Measured: "
    f"{span(chat_gains[50])} times the throughput with a hold of 50 ms. "
)
book.finding(
    below(chat_gains[50], [1.0] * len(chat_gains[50])),
    window_story + "So the hold costs, and buys nothing.",
    window_story
    + "And yet the throughput rose. If that is not this machine's other work, what a hold saves is not in the steps: "
    "clients, front end and engine share a few cores, a held crowd comes in one gulp, and meanwhile the engine does not take the "
    "cores for half-empty steps.",
    window_story
    + "These rounds lie on both sides of 1, so this run cannot tell whether the hold costs throughput. What it adds to "
    "the waiting is in the table.",
)

# %% [markdown] tags=["further"]
# ### The same hold, by the step model
#
# The five numbers foretell it: clients that all start together, with and without a hold in front of each round.


# %%
def on_the_model(window_s):
    """Answers per second of these clients by the five numbers, if all start together and are held each time."""
    start = window_s + way
    jobs = [Job(start + let_in * i, 64, 48) for i in range(CLIENTS)]
    return CLIENTS / run_schedule(jobs, chunked_prefill, engine_limits, step_seconds).finish


crowd_s, kept = CLIENTS / on_the_model(0), on_the_model(0.05) / on_the_model(0)
Markdown(
    f"{CLIENTS} answers that start together take {1000 * crowd_s:.0f} ms by the model; with a hold of 50 ms in front of each such round, "
    f"{kept:.2f} times the throughput is left. Measured above: {span(chat_gains[50])} times."
)

# %% [markdown]
# ### The claims, judged
#
# Two things so far, one name. (The third, identical requests, is below.)

# %%
embedding_source = f"{embedded.encoder.iloc[0]} on the same cores; {embedding.source}"
SAID = "Heard often; no source found for this window. Nearest: “Batching & Throughput”, AI Engineer Path, khaderz.com: 3 to 5 times, 5 to 50 ms."
book.claim(
    "07.exponent",
    "Throughput grows like B^α, so measure α on small batches and know it for large ones.",
    by="Heard often; no source found.",
    claimed=halves["1 to 4"].alpha,
    measured=halves["8 to 32"].alpha,
    interval=(halves["8 to 32"].low, halves["8 to 32"].high),
    unit="(α)",
    where="8 to 32 answers at once; claimed is the α of 1 to 4",
    unless=f"Over the whole range α = {law.alpha:.2f} misses by up to {100 * law.misfit:.0f} %. It falls where arithmetic becomes the limit.",
    tolerance=0.05,
    source=companies.source,
)
book.claim(
    "07.window_chat",
    "Holding requests for 50 to 100 ms raises throughput 3 to 5 times.",
    by=SAID,
    claimed=(3, 5),
    measured=max(chat_gains[50], chat_gains[100], key=np.median),
    unit="times",
    where=f"{CLIENTS} chat clients, a live engine that batches continuously",
    unless="Where the function behind has no batching of its own; see the next claim.",
    source=chats_held.source,
)
book.claim(
    "07.window_texts",
    "Holding requests for 50 to 100 ms raises throughput 3 to 5 times.",
    by=SAID,
    claimed=(3, 5),
    measured=max(batch_gains[50], batch_gains[100], key=np.median),
    unit="times",
    where=f"{CALLERS} callers of an embedder",
    unless=f"What the batch gains and what the holding gains are two things: without any holding it was {np.median(batch_gains[0]):.2f} times.",
    source=embedding_source,
)
book.claim(
    "07.dynamic",
    "Dynamic batching raises throughput 3 to 5 times.",
    by="“Batching & Throughput”, AI Engineer Path, khaderz.com. NVIDIA's guide to Triton (“Optimization”) measures 73 → 272 inferences a second "
    "for an image model with 8 callers, and holds nobody: 3.7 times.",
    claimed=(3, 5),
    measured=batch_gains[best_wait],
    unit="times",
    where=f"{CALLERS} callers of an embedder, the best wait",
    unless="It is as much as a batch of the function behind is cheaper than its items one by one, and no more.",
    source=embedding_source,
)

# %% [markdown] tags=["further"]
# ### Three: identical requests
#
# An outage begins and everybody asks the same thing in the same second. No answer is there yet to cache, but one is on its way:
# `SingleFlight` sends the first and lets all the others listen in.

# %% tags=["constants"]
CROWD = 32


# %%
async def same_question(number):
    rows = []
    for name, handler in (("each on its own", live), ("single flight", SingleFlight()(live))):
        same = replace(make(200, 32), extra={"cache_salt": f"{seed} {name} {number} {clock.unix_now():.6f}"})
        run = await closed_loop(handler, [same] * CROWD, CROWD)
        p95 = float(np.percentile([s.e2e for s in run.samples], 95))
        tokens = sum(sample.usage.output_tokens for sample in run.samples)
        rows.append({"round": number, "how": name, "per_s": CROWD / run.seconds, "p95": p95, "tokens": tokens})
    return rows


same_asked = await book.measure("identical requests", same_question, rounds=5)
bursts = pd.DataFrame([row for rows in same_asked.value for row in rows])
burst = bursts.drop(columns="round").groupby("how").median()
pd.DataFrame(
    {
        "output tokens on the bill": [f"{v:.0f}" for v in burst.tokens],
        "answers per second": [f"{v:.0f}" for v in burst.per_s],
        "p95 end to end (ms)": [f"{1000 * v:.0f}" for v in burst.p95],
    },
    index=burst.index,
)

# %%
billed = bursts.pivot(index="round", columns="how", values="tokens")
book.claim(
    "07.same",
    f"Of {CROWD} identical requests at once, one call is paid for.",
    by="Mukunda Rao Katta: Single-Flight LLM Calls: Coalesce 50 Concurrent Identical Requests Into One API Call, dev.to",
    claimed=CROWD,
    measured=(billed["each on its own"] / billed["single flight"]).tolist(),
    unit="times fewer output tokens",
    where=f"{CROWD} identical requests at once, single flight, live",
    tolerance=0.3,  # sampled answers differ in length
    unless="It grows with the crowd, and is nothing where all ask different things. Who gets the shared answer must be allowed to see it.",
    source=same_asked.source,
)

# %% [markdown] tags=["further"]
# ### Interactive and bulk: one pool or two?
#
# Somebody starts the nightly summaries at noon: long prompts, long answers, two dozen at a time, on an engine of eight seats.
# `labkit.batching.Pooled` puts every request through a **pool** before it may go to the engine: a pool has a limit, perhaps
# seats of its own, and the priority that the engine is told. Live, on the same chats: no bulk at all; bulk let loose, both
# pools of one priority, which is first come, first served; bulk let loose, but chats first (`scheduling_policy=priority`);
# and bulk held to three requests at a time.

# %% tags=["constants"]
BULK_LIMIT, LOOSE = 3, 24

# %%
narrow = None  # an endpoint has the seats and the policy that it has; this takes an engine started for it
if not book.lacks("vllm"):
    narrow = await book.connect("small", max_num_seqs=SEATS, scheduling_policy="priority")
calm_day, loose, first, capped = regimes = {
    "chats alone": (Pool("chat"),),
    "bulk, first come, first served": (Pool("chat"), Pool("bulk")),
    "bulk, chats first": (Pool("chat"), Pool("bulk", priority=10)),
    f"bulk, {BULK_LIMIT} at a time": (Pool("chat"), Pool("bulk", at_most=BULK_LIMIT)),
}


async def beside_bulk(pools, stock, number):
    """TTFT of chats while a bulk job, if it has a pool, keeps `LOOSE` requests going; and its answers per second."""
    handler, over, begin = Pooled(Gate(4 * LOOSE, *pools))(narrow), False, clock.now()

    def summaries():
        for n, old in enumerate(cycle(stock)):
            if over:
                return
            # the words of an old prompt again, but salted: the prefix cache does not find them
            yield replace(old, extra={**old.extra, "cache_salt": f"{seed} bulk {begin:.6f} {n}"})

    job = asyncio.create_task(closed_loop(handler, summaries() if len(pools) > 1 else (), LOOSE))
    await asyncio.sleep(0.3)
    arrivals = islice(poisson(20.0, seed + number), book.pick(ci=20, learn=40))
    chats = [(at, replace(make(64, 12), feature="chat")) for at in arrivals]
    felt = [s.ttft_from_due for s in (await open_loop(handler, chats)).samples]
    over, end = True, clock.now()
    return felt, sum(s.timing.done <= end for s in (await job).samples) / (end - begin)


async def four_regimes(number):
    stock = [replace(make(600, 64), feature="bulk") for _ in range(60)]
    order = list(regimes)[:: 1 - 2 * (number % 2)]
    return {name: await beside_bulk(regimes[name], stock, number) for name in order}


# %%
beside = await book.measure("beside bulk", four_regimes, rounds=book.pick(ci=2, learn=5), needs=("vllm", "tokenizer"))
p95s = {name: [1000 * float(np.percentile(one[name][0], 95)) for one in beside.value] for name in regimes}
p95 = {name: float(np.median(values)) for name, values in p95s.items()}
bulk_rate = {name: float(np.median([one[name][1] for one in beside.value])) for name in (loose, first, capped)}
pd.DataFrame(
    {
        "p95 TTFT of chats (ms)": [f"{v:.0f}" for v in p95.values()],
        "by round": [" / ".join(f"{v:.0f}" for v in values) for values in p95s.values()],
        "bulk answers a second": ["" if name == calm_day else f"{bulk_rate[name]:.1f}" for name in regimes],
    },
    index=list(regimes),
)

# %%
felt = pd.DataFrame([{"how": name, "ms": 1000 * v} for name in regimes for one in beside.value for v in one[name][0]])
marks = pd.DataFrame([{"how": name, "ms": v} for name, values in p95s.items() for v in values])
show(
    (
        alt.Chart(felt)
        .mark_tick(thickness=2, opacity=0.5, color=PALETTE["blue"])
        .encode(
            x=alt.X("ms:Q", title="TTFT of each chat (ms)", scale=alt.Scale(type="log", nice=False)),
            y=alt.Y("how:N", title=None, sort=list(regimes), axis=alt.Axis(labelLimit=200)),
        )
        + alt.Chart(marks)
        .mark_point(shape="triangle-down", filled=True, size=90, color=PALETTE["red"], opacity=0.8, yOffset=-16)
        .encode(x="ms:Q", y=alt.Y("how:N", sort=list(regimes)))
    ).properties(
        height=200,
        title=f"Chats' p95, times that without bulk: {p95[loose] / p95[calm_day]:.1f} beside bulk, {p95[first] / p95[calm_day]:.1f} with "
        f"priority, {p95[capped] / p95[calm_day]:.1f} with a limit",
    ),
    alt="TTFT of chats under four regimes. "
    + " ".join(f"{name}: p95 {v:.0f} ms." for name, v in p95.items())
    + " "
    + " ".join(f"{name}: {v:.1f} of its requests a second." for name, v in bulk_rate.items()),
    source=f"Ticks: chats of {len(beside.value)} rounds; triangles: each round's p95. {beside.source}",
)

# %%
regime_story = (
    f"With chats first, the chats' p95 goes from {p95[loose]:.0f} to {p95[first]:.0f} ms, and bulk gets "
    f"{100 * bulk_rate[first] / bulk_rate[loose]:.0f} % of the answers that it got let loose; held to {BULK_LIMIT}, it gets "
    f"{100 * bulk_rate[capped] / bulk_rate[loose]:.0f} %, and the p95 is {p95[capped]:.0f} ms. "
)
both_help = [below(p95s[one], [0.9 * v for v in p95s[loose]]) for one in (first, capped)]
book.finding(
    None if None in both_help else all(both_help),
    regime_story + "Priority changes the order, not the work: no seat stays empty, but a chat waits until one falls vacant. "
    "A limit keeps some free for it, and bulk pays for them.",
    regime_story + "In this run they did not both help the chats: look at the ticks and at the rounds.",
    regime_story
    + "The rounds differ too much to say whether both help; look at the ticks, and run it again in a quieter moment.",
)

# %% [markdown] tags=["reasoned"]
# The engine's priority knows no patience: as long as chats come, bulk may wait for ever. In `labkit.batching.Gate` a step of
# priority is worth so many seconds of waiting, and nobody starves. Priority needs an engine that knows it, and callers who do
# not all claim to be urgent. A pool with seats of its own is a wall: for what priority cannot give, such as a limit on damage, a
# bill per team, other hardware.

# %% [markdown] tags=["further"]
# ### When a wall helps, and when it hurts
#
# The same engine with eight seats, now on the step model: all in **one pool**, first come, first served; **two pools** of five
# and three seats; or one pool with **priority** for chats. Two afternoons: one has a bulk job in it, the other has none but twice
# the chats.

# %%
chat_draw = book.rng("pools")
bulk_day, rush_day = "a bulk job comes", "twice the chats, no bulk"


def chat_lengths(n):
    return [(chat_draw.randrange(30, 130), 1 + min(120, int(chat_draw.expovariate(1 / 30)))) for _ in range(n)]


def afternoon(rate, bulk_jobs, n=400):
    """Chats at this rate, and a bulk job that comes with the 40th of them."""
    arrivals = islice(poisson(rate, seed), n)
    chats = [("chat", Job(at, *one)) for at, one in zip(arrivals, chat_lengths(n), strict=True)]
    return chats + [("bulk", Job(chats[40][1].arrival, 600, 120)) for _ in range(bulk_jobs)]


def one_pool(of):
    return chunked_prefill


def two_pools(of, chat=5, bulk=3):
    def plan(view):
        free, allowed = Counter(chat=chat, bulk=bulk), []
        free.subtract(of[job] for job in view.running)
        for job in view.waiting:
            if free[of[job]] > 0:
                free[of[job]] -= 1
                allowed.append(job)
        return chunked_prefill(replace(view, waiting=allowed))

    return plan


def chats_first(of):
    return lambda view: chunked_prefill(replace(view, waiting=sorted(view.waiting, key=lambda job: of[job] == "bulk")))


# %%
pools = {"one pool": one_pool, "two pools, 5 + 3 seats": two_pools, "one pool, chats first": chats_first}
most = answers_per_s(chat_lengths(400))
found = []
for day, traffic_ in {bulk_day: afternoon(0.4 * most, 60), rush_day: afternoon(0.8 * most, 0)}.items():
    of = [kind for kind, _ in traffic_]
    for name, policy in pools.items():
        done = run_schedule([job for _, job in traffic_], policy(of), seat_limits, step_seconds).served
        ttfts = [s.first_token - j.arrival for s, (kind, j) in zip(done, traffic_, strict=True) if kind == "chat"]
        ends = [s.finish - j.arrival for s, (kind, j) in zip(done, traffic_, strict=True) if kind == "bulk"]
        found.append(
            {"day": day, "pools": name, "p95": 1000 * float(np.percentile(ttfts, 95)), "bulk": max(ends, default=None)}
        )
found = pd.DataFrame(found)
p = found.set_index(["day", "pools"]).p95
one, two, priority = pools

# %%
helps, hurts = p[bulk_day, one] / p[bulk_day, two], p[rush_day, two] / p[rush_day, one]
chart = alt.Chart(found).encode(
    x=alt.X("p95:Q", title="p95 TTFT of chats (ms), logarithmic", scale=alt.Scale(type="log")),
    y=alt.Y("pools:N", title=None, sort=list(pools)),
    tooltip=["pools:N", alt.Tooltip("p95:Q", format=".0f"), alt.Tooltip("bulk:Q", format=".1f", title="bulk job (s)")],
)
show(
    (
        chart.mark_point(filled=True, size=140, opacity=1, color=PALETTE["blue"])
        + chart.mark_text(align="left", dx=10).encode(text=alt.Text("p95:Q", format=",.0f"))
    )
    .properties(height=75)
    .facet(
        row=alt.Row(
            "day:N",
            title=None,
            sort=[bulk_day, rush_day],
            header=alt.Header(labelAngle=0, labelAlign="left", labelAnchor="start", labelOrient="top"),
        )
    )
    .properties(
        title=f"Two pools: {helps:.1f} times better beside a bulk job, {hurts:.1f} times worse in a rush"
        if helps > 1 and hurts > 1
        else f"Two pools change the chats' p95 {1 / helps:.1f}-fold beside a bulk job and {hurts:.1f}-fold in a rush"
    ),
    alt="p95 TTFT of chats by arrangement. " + " ".join(f"{r.day}, {r.pools}: {r.p95:.0f} ms." for r in found.itertuples()),
    source=f"Simulated with the five numbers of this engine and eight seats, 400 chats a day. Modelled, from: {companies.source}",
)

# %%
book.finding(
    bool(helps > 1 and hurts > 1),
    "A wall works both ways: in the rush three of eight seats stay empty while chats queue. Priority lets chats use all seats and "
    f"bulk what is left: {p[bulk_day, priority]:.0f} ms and {p[rush_day, priority]:.0f} ms.",
    f"With this run's five numbers, two pools are not better on the one day and worse on the other. With priority, the chats' p95 "
    f"is {p[bulk_day, priority]:.0f} ms and {p[rush_day, priority]:.0f} ms.",
)

# %% [markdown]
# ## Move
#
# Four schedulers, drawn: twenty requests, two of them with long prompts. How long a step takes is modelled with five numbers of this
# engine, measured above: what a step costs in itself, per prompt token and per answer in it, a request's way, and letting it in.
#
# A thin grey line is a request that waits, the blue bar is one whose prompt is read, and the thickest, orange one is an answer being
# written. **Chunked prefill** cuts prompts to so many tokens a step; the other three read them whole.

# %%
widget_draw = book.rng("gantt")
GANTT = [
    (
        widget_draw.expovariate(1),
        1200 if i in (4, 11) else widget_draw.randrange(30, 150),
        2 + min(60, int(widget_draw.expovariate(1 / 18))),
    )
    for i in range(20)
]

THICK = {"waits": 1.5, "reads": 3.5, "writes": 6}  # px


def gantt(seats, budget, rate, wait_ms):
    times = np.cumsum([gap for gap, _, _ in GANTT]) / rate
    work = [Job(float(at), prompt, output) for at, (_, prompt, output) in zip(times, GANTT, strict=True)]
    policies = {
        "static": static,
        f"dynamic, waits {wait_ms} ms": dynamic(wait_ms / 1000),
        "continuous": continuous,
        "chunked prefill": chunked_prefill,
    }
    panels, words, scores, pauses = [], [], {}, {}
    plans = {
        name: run_schedule(work, policy, Limits(seats, budget if policy is chunked_prefill else 2048), step_seconds)
        for name, policy in policies.items()
    }
    last = max(run.finish for run in plans.values())
    for name, run in plans.items():
        rows, begun = [], {}
        for step in run.steps:
            for job in step.tokens:
                begun.setdefault(job, step.at)
        for i, (job, served) in enumerate(zip(work, run.served, strict=True)):
            parts = (
                ("waits", job.arrival, begun[i]),
                ("reads", begun[i], served.first_token),
                ("writes", served.first_token, served.finish),
            )
            rows += [{"job": i + 1, "part": p, "from": a, "to": b, "thick": THICK[p]} for p, a, b in parts if b > a]
        scores[name] = float(np.percentile([s.first_token - j.arrival for s, j in zip(run.served, work, strict=True)], 95))
        pauses[name] = max(step.seconds for step in run.steps)
        text = f"{name}: p95 TTFT {1000 * scores[name]:.0f} ms, longest step {1000 * pauses[name]:.0f} ms, done at {run.finish:.2f} s"
        words.append(text)
        panels.append(
            alt.Chart(alt.Data(values=rows))
            .mark_bar()
            .encode(
                x=alt.X("from:Q", title="seconds", scale=alt.Scale(domain=[0, last or 1])),
                x2="to:Q",
                y=alt.Y("job:O", title=None, axis=None),
                color=alt.Color(
                    "part:N",
                    title=None,
                    legend=alt.Legend(orient="bottom"),
                    scale=alt.Scale(
                        domain=["waits", "reads", "writes"], range=[PALETTE["grey"], PALETTE["blue"], PALETTE["orange"]]
                    ),
                ),
                size=alt.Size("thick:Q", scale=None, legend=None),
            )
            .properties(width=250, height=130, title=alt.Title(text.split(", done")[0], fontSize=11))
        )
    title = (
        f"p95 TTFT: static {1000 * scores['static']:.0f} ms, continuous {1000 * scores['continuous']:.0f} ms; cutting prompts takes the "
        f"longest step from {1000 * pauses['continuous']:.0f} to {1000 * pauses['chunked prefill']:.0f} ms"
    )
    return Figure(
        alt.vconcat(alt.hconcat(*panels[:2]), alt.hconcat(*panels[2:])).properties(title=title),
        alt=f"Gantt charts of twenty requests under four schedulers. {'. '.join(words)}.",
        source=f"Simulated: {'; '.join(words)}. Modelled with the five numbers above, from: {companies.source}",
    )


usual_rate = 0.6 * 6 / (way + 20 * step_seconds(0, 6) + step_seconds(150, 6))
live_chart(
    gantt,
    seats=w.IntSlider(6, 2, 12, description="seats"),
    budget=w.IntSlider(256, 64, 2048, 64, description="chunked: tokens a step"),
    rate=w.IntSlider(max(1, round(usual_rate)), 1, max(10, round(4 * usual_rate)), description="requests a second"),
    wait_ms=w.IntSlider(50, 0, 500, 10, description="dynamic: wait (ms)"),
)

# %% [markdown] tags=["reasoned"]
# Try this. Lower the rate until static batching is absurd: the first of a batch waits for people who are not there yet. Then
# raise it until all four are late: no scheduler makes capacity. Then change the tokens a step and watch the longest step: that is
# the longest pause for everybody who is writing. What do the long prompts themselves pay for it?

# %% [markdown]
# ## Do
#
# {{exercise 07.1}}
# Static batches of `seats` run until their longest answer is written. From the lengths of the answers, in the order in which
# they are batched, return the share of seat-steps that stays empty. (Reading counts as the step that writes the first token.)


# %% exercise="07.1"
def idle_share(outputs: Sequence[int], seats: int) -> float:
    """Share of the seats, over all steps, in which nobody sits; 0 when all are taken all the time."""
    ...  # your code here


# %%
book.check("07.1", idle_share)

# %% [markdown]
# {{exercise 07.2}}
# Bulk work costs `list_usd` a month when each request is sent at once. A batch API takes the share `discount` off and promises the
# answers within `window_h` hours. Your own GPUs need `gpu_hours` for a night's work, and `idle` is how many GPU-hours stand idle in
# each hour from when the work is ready until it is due (so `len(idle)` hours are left). What does not fit into the idle hours takes
# further GPUs through all of these hours; they are rented whole, day and night, at `gpu_usd` a month each.
#
# Your GPUs run another model, whose answers may be worse; nobody has measured that. Return the cheapest way that is done in time
# (`"list price"`, `"batch API"` or `"own GPUs"`; of equals, the first in this order), worse answers not counted. And return what
# worse answers may cost a month before your own GPUs are not the cheapest any more: 0 where they are not.


# %% exercise="07.2"
def bulk_way(
    list_usd: float, discount: float, window_h: float, gpu_hours: float, idle: Sequence[float], gpu_usd: float
) -> tuple[str, float]:
    """The cheapest way in time, and the USD a month that worse answers may cost before it is another one (0: not own GPUs)."""
    ...  # your code here


# %%
book.check("07.2", bulk_way)

# %% [markdown]
# {{exercise 07.3}}
# A window of fixed length ignores what the budget leaves. `oldest` is when the first of the `waiting` items came; a run of `n`
# takes `run_s(n)` seconds; nobody may wait longer than `budget_s` from arrival to answer. Say until when to wait for company.
# You are asked again whenever somebody joins. As few runs as possible, and nobody late: both are checked on hidden arrivals.


# %% exercise="07.3"
def start_by(oldest: float, waiting: int, run_s: Callable[[int], float], max_size: int, budget_s: float) -> float:
    """The time at which to start the batch if nobody else has joined by then; a time in the past means at once."""
    ...  # your code here


# %%
book.check("07.3", start_by)

# %% [markdown] tags=["further"]
# {{exercise 07.4}}
# Write a scheduler for the step loop that ran above. Your policy sees a `View` between two steps (`jobs` with their `prompt`
# and `arrival`, `running`, `waiting`, `fed` tokens of each, `now`, `limits`) and returns a `StepPlan` of {job: tokens}.
# Whoever writes gets a token in every step; then prompts are read, the fewest tokens left first, cut to what is left of the
# budget; but who came `patience_s` ago or longer goes before everybody who did not, the oldest first. Yours must beat the
# lab's `chunked_prefill` for short prompts, by a tenth or more, keep the limits, and starve nobody.


# %% exercise="07.4"
def short_first(view: View, patience_s: float) -> StepPlan:
    """What the next step feeds, at most `view.limits.token_budget` tokens of `view.limits.max_sequences` jobs."""
    budget = view.limits.token_budget
    seats = view.limits.max_sequences - len(view.running)
    tokens: dict[int, int] = {}
    ...  # your code here


# %%
book.check("07.4", short_first)

# %% [markdown] tags=["further"]
# {{exercise 07.5}}
# Embedders, rerankers, moderation, fraud scores: most models in production have no batching of their own, and somebody puts
# thirty lines in front of them. Those lines decide whether one malformed text fails thirty customers, whether a cancelled request
# is computed all the same, and whether one tenant's import starves the chat. Write them once, properly.
#
# `MicroBatcher(run, max_size, max_wait_s)` gathers the items of its callers, and awaits `run(items)` for many at a time:
#
# - one run at a time. It starts when `max_size` items wait, or when the first of them has waited `max_wait_s`;
# - `run` gives one result for each item, in order. A result that is an `Exception` is raised for that item's callers, and for
#   nobody else. If `run` raises, or gives a wrong number of results, all callers of that run get an error, and life goes on;
# - a caller who leaves takes the item along, if it still waits and nobody else wants it. At `deadline` a caller gets a
#   `TimeoutError`, and has left;
# - an item that waits or runs already is not run twice: its callers share the result. When it is done, it is forgotten;
# - where more wait than one run takes, tenants take turns: the first item of each, in the order in which they came, then the
#   second of each.
#
# The check runs your code on the lab's virtual clock, so waiting takes no time, and every run starts at an exact second.


# %% exercise="07.5"
class MicroBatcher:
    """Collects items that come one at a time, and answers each from a `run` of many. One run at a time."""

    def __init__(self, run: Callable[[Sequence[Any]], Awaitable[Sequence[Any]]], max_size: int, max_wait_s: float) -> None:
        """`run` gets 1 to `max_size` items and gives a result for each, in order; a result may be an Exception.

        A run starts when `max_size` items wait, or when the first of them has waited `max_wait_s` seconds.
        """
        ...  # your code here

    async def submit(self, item: Hashable, tenant: str = "", deadline: float | None = None) -> Any:
        """The result of `item`. Raises the item's own error, or `TimeoutError` at `deadline` (seconds of `clock.now()`).

        An item that waits or runs already is not run again: all its callers get the one result. An item that waits and
        whose last caller has left is not run at all.
        """
        ...  # your code here


# %%
book.check("07.5", MicroBatcher)

# %% [markdown] tags=["further", "constants"]
# Your batcher on this chapter's traffic, beside the lab's. How long a run takes comes from two of the measurements above: one
# text at a time, and all callers in one run after a wait of 50 ms (so that row agrees by construction; the others need not).
# With that, both batchers serve two crowds on the virtual clock: the same callers as above, who ask again when they are
# answered, and customers who come when they like, and often ask what somebody else has just asked.

# %%
made, whose = book.yours("07.5", MicroBatcher)
alone_s = 1 / float(middle.per_s["none"])
full_s = max(alone_s, CALLERS / float(middle.per_s[50]) - 0.05)  # a run of all callers, without the wait before it
item_s = (full_s - alone_s) / (CALLERS - 1)


def batcher_of(kind, wait_s, runs):
    """A batcher over a modelled embedder, which notes each run as (begin, items)."""

    async def run(texts):
        runs.append((clock.now(), len(texts)))
        await asyncio.sleep(alone_s + item_s * (len(texts) - 1))
        return texts

    if kind == whose:
        return made(run, MAX_BATCH, wait_s)
    return Batcher(run, max_size=MAX_BATCH, max_wait_s=wait_s, identity=lambda text: text)


async def at_random(batcher, times, texts):
    """Each caller's wait (s), when they come at these times."""

    async def one(at, text):
        await clock.sleep_until(at)
        await batcher.submit(text)
        return clock.now() - at

    return await asyncio.gather(*map(one, times, texts))


kinds = (whose, "labkit.batching")
crowds = {
    (kind, ms): clock.run_virtual(callers(batcher_of(kind, ms / 1000, []).submit, CALLERS, questions[: 4 * CALLERS]))
    for kind in kinds
    for ms in WAITS_MS
}
pd.DataFrame(
    {
        "measured (texts a second)": [f"{middle.per_s[ms]:.0f}" for ms in WAITS_MS],
        **{
            f"modelled, {'yours' if kind == 'yours' else 'reference' if kind == whose else 'the lab'}": [
                f"{crowds[kind, ms]['per_s']:.0f}" for ms in WAITS_MS
            ]
            for kind in kinds
        },
    },
    index=[f"waits up to {ms} ms" for ms in WAITS_MS],
)

# %%
twin_draw = book.rng("twins")
asked_at = list(islice(poisson(1.5 / alone_s, seed), 300))  # one and a half times what one by one can do
asks = twin_draw.choices(questions[:100], weights=[1 / n for n in range(1, 101)], k=len(asked_at))  # a few are in fashion
runs_of, waits_of = {}, {}
for kind in kinds:
    runs_of[kind] = []
    waits_of[kind] = clock.run_virtual(at_random(batcher_of(kind, 0.01, runs_of[kind]), asked_at, asks))
dots = pd.DataFrame([{"who": kind, "s": at, "items": n} for kind in kinds for at, n in runs_of[kind]])
sent = {kind: sum(n for _, n in runs_of[kind]) for kind in kinds}
p95_ms = {kind: 1000 * float(np.percentile(waits_of[kind], 95)) for kind in kinds}

# %%
base = alt.Chart(dots).encode(
    x=alt.X("s:Q", title="seconds (virtual)"),
    y=alt.Y("items:Q", title="texts in the run"),
    tooltip=["who:N", alt.Tooltip("s:Q", format=".3f"), "items:Q"],
)
show(
    (
        base.transform_filter(alt.datum.who == "labkit.batching").mark_point(size=130, color=PALETTE["grey"])
        + base.transform_filter(alt.datum.who == whose).mark_point(size=35, filled=True, opacity=1, color=PALETTE["blue"])
    ).properties(
        title={
            "text": f"Filled: {whose}, {len(runs_of[whose])} runs, p95 {p95_ms[whose]:.0f} ms",
            "subtitle": f"open: labkit.batching, {len(runs_of['labkit.batching'])} runs, p95 {p95_ms['labkit.batching']:.0f} ms; "
            f"of {len(asks)} texts asked for, {sent[whose]} were computed by the first, {sent['labkit.batching']} by the second",
        }
    ),
    alt="The runs of two batchers on the same arrivals, by start and size. "
    + " ".join(
        f"{kind}: {len(runs_of[kind])} runs, {sent[kind]} texts computed, p95 {p95_ms[kind]:.0f} ms." for kind in kinds
    ),
    source=f"Modelled on a virtual clock: a run takes {1000 * alone_s:.1f} ms and {1000 * item_s:.2f} ms for each further text, "
    f"as measured: {embedded.encoder.iloc[0]} on the same cores; {embedding.source}",
)

# %% [markdown]
# ## So what
#
# The portal's bulk work is its summaries: each user's day is summarised for the team leads. They can be written from the evening
# on, and are read in the morning. There are three ways to buy them:
#
# - **as today**: each is sent to the desk's large model as it falls due, at the list price;
# - the provider's **batch API**: at a discount, and the answer comes within a day instead of within seconds;
# - **taken in**: the assistant's GPUs write them at night. They are rented day and night for the busiest hour, so at night most of
#   them have nothing to do. But then it is the assistant's model that writes, a small one of open weights, not the desk's.
#
# For the batch API the clock decides. For the GPUs, first count: what do the summaries need, and what stands idle?

# %% tags=["constants"]
WINDOW_H = 24  # within so many hours a batch API answers (OpenAI's guide to its Batch API)
NIGHT_SEATS = 128  # seats of a GPU at night: as many as the largest of the public measurements below

# %%
bulk, chat, gpu = PORTAL.summaries, PORTAL.assistant, hardware(PORTAL.assistant.gpu)
night = [(bulk.ready + h) % 24 for h in range((bulk.due - bulk.ready) % 24)]
rented = next(one for one in today().machines if one.feature == "assistant").rented
busy = {h: fleet(PORTAL).gpus * PORTAL.hours[h] / max(PORTAL.hours) for h in night}  # GPUs that the conversations take
idle_gpus = {h: rented - busy[h] for h in night}

on_gpu = datasheet_model(model_shape(chat.model), gpu, reached=HOPPER)
seats = plan(chat.model, gpu, bulk.prompt + bulk.answer, max_num_seqs=NIGHT_SEATS).sessions
# With all seats filled, a step writes a token in each of them and reads the prompts of those who begin.
begin, context = seats / bulk.answer, bulk.prompt + bulk.answer / 2
step_s = on_gpu.step_seconds(
    StepWork(
        tokens=round(seats + begin * bulk.prompt),
        sequences=round(seats + begin),
        pairs=round(seats * context + begin * bulk.prompt * (bulk.prompt + 1) / 2),
        kv_tokens=round(seats * context + begin * bulk.prompt),
    )
)
a_night = PORTAL.users * bulk.a_day
filled_hours = a_night / begin * step_s / 3600  # GPU-hours

public = [p for p in silicon_points() if p.model == "qwen3-32b" and p.people == 64 and p.prompt_tokens == 1024]
off = silicon_errors(public, [p.predicted(HOPPER) for p in book.track(public, "the model beside public silicon")])[2]
careful = 1 + off.p90  # if the model promises too much, by as much as nine public points in ten allow
hours_needed = {
    "taken in, seats filled": filled_hours * careful,
    "taken in, static batches": filled_hours * careful * gain,
}


# %%
def written_by(needed):
    """The hour of the day at which `needed` GPU-hours are done; None where the night is too short."""
    for h in night:
        if needed <= idle_gpus[h]:
            return f"by {h}:{int(60 * needed / idle_gpus[h]):02d}"
        needed -= idle_gpus[h]
    return None


list_usd = float(today().of("summaries"))
batch_usd = float(Batched("summaries").made(today()).of("summaries"))
gpu_usd = float(Machines("summaries", chat.host, 1).usd)
all_idle = sum(idle_gpus.values())
extra = {name: max(0.0, needed - all_idle) / len(night) for name, needed in hours_needed.items()}
bought = [
    ("list price (today)", list_usd, "", "at once", "yes", "desk's"),
    ("batch API", batch_usd, "", f"within {WINDOW_H} h", "yes" if len(night) >= WINDOW_H else "no", "desk's"),
]
for name, needed in hours_needed.items():
    when = written_by(needed) or f"by {bulk.due} h, on further GPUs"
    bought.append((name, math.ceil(extra[name]) * gpu_usd, f"{needed:.1f} of {all_idle:.0f}", when, "yes", "assistant's"))
columns = ["way", "USD a month", "idle GPU-hours", "written", f"by {bulk.due} h", "model"]
pd.DataFrame(bought, columns=columns).set_index("way").style.format("{:,.0f}", subset="USD a month")

# %%
show(
    alt.Chart(
        pd.DataFrame(
            [
                {"hour": n, "GPUs": value, "who": who}
                for n, h in enumerate(night)
                for who, value in (("conversations", busy[h]), ("idle", idle_gpus[h]))
            ]
        )
    )
    .mark_bar()
    .encode(
        x=alt.X(
            "hour:O",
            title="hour of the day",
            axis=alt.Axis(labelAngle=0, labelExpr=f"(datum.value + {bulk.ready}) % 24"),
        ),
        y=alt.Y("sum(GPUs):Q", title="GPUs rented"),
        color=alt.Color(
            "who:N",
            title=None,
            sort=["idle", "conversations"],
            scale=alt.Scale(domain=["idle", "conversations"], range=[PALETTE["grey"], PALETTE["blue"]]),
        ),
    )
    .properties(
        title=f"Idle from {bulk.ready} to {bulk.due} h: {all_idle:.0f} GPU-hours; the summaries need "
        f"{hours_needed['taken in, seats filled']:.1f}"
    ),
    alt=f"The assistant's {rented} GPUs by hour of the night. "
    + " ".join(f"{h} h: {busy[h]:.1f} busy, {idle_gpus[h]:.1f} idle." for h in night),
    source=f"Modelled: {chat.model} on {gpu.name}, {seats} seats of {bulk.prompt} + {bulk.answer} tokens. The model errs by "
    f"{100 * off.median:.0f} % (median) on {off.points} public points that it was not fitted to, and by {100 * off.p90:.0f} % in the worst tenth, "
    "which is added to the need. Static batches: times the factor that this run measured.",
)

# %% tags=["reasoned"]
needs, static_needs = hours_needed.values()
chosen, worth = book.reference("07.2")(
    list_usd, 1 - batch_usd / list_usd, WINDOW_H, needs, [idle_gpus[h] for h in night], gpu_usd
)
room = {name: all_idle / needed for name, needed in (("filled", needs), ("static", static_needs))}
in_time = len(night) >= WINDOW_H
worse_share = worth / (PORTAL.bulk * float(PORTAL.wrong_answer_usd))
to_grade = math.ceil(math.log(0.05) / math.log(1 - min(worse_share, 0.99))) if worth else 0
Markdown(
    f"**Batch API: {'go' if in_time else 'no go, as asked'}.** It takes {100 * (1 - batch_usd / list_usd):.0f} % off, but promises "
    f"an answer within {WINDOW_H} hours, and between {bulk.ready} and {bulk.due} h there are {len(night)}. "
    + (
        ""
        if in_time
        else f"So ask the team leads: if they can read a day's summaries one day later, it saves {list_usd - batch_usd:,.0f} USD a month, by the "
        "same model."
    )
    + f"\n\n**The night has room.** By the model, with its error added, {a_night:,} summaries take {needs:.1f} GPU-hours, of {all_idle:.0f} that are paid for and idle. "
    f"A job that sends them in static batches takes {static_needs:.1f}: what carries over from this run is the factor of {gain:.2f} ({spread(gains).words('{:.2f}')}), not the "
    "speed, and only where the answers are as uneven as here. "
    + (
        f"Neither needs a further GPU, so today the factor moves no money. It moves the day on which it will: the night holds {room['filled']:.0f} "
        f"times these summaries with filled seats, and {room['static']:.0f} times with static batches."
        if max(extra.values()) == 0
        else f"GPUs to rent besides: {math.ceil(extra['taken in, seats filled'])} with filled seats, "
        f"{math.ceil(extra['taken in, static batches'])} with static batches."
    )
)

# %% tags=["reasoned"]
Markdown(
    f"**Who pays?** The team leads, if the small model writes worse. *That is not measured here*, so the bill counts no wrong answer and asks a question "
    f"instead. The saving is {worth:,.0f} USD a month over the cheapest other way in time. At {PORTAL.wrong_answer_usd} USD for a wrong one it is gone once "
    f"**{100 * worse_share:.1f} %** of the summaries are wrong where the large model's were right ({worse_share * a_night:,.0f} a night). To know, grade them: if none of "
    f"{to_grade:,} drawn at random is worse, the share is below that with 95 % confidence. Chapter 05 has a judge for it, and how far to trust it.\n\n"
    f"**The line taken** is the cheapest that is done by {bulk.due} h: *{chosen}*. It leans on GPUs that the day pays for. Where chapter 08 finds that the day needs "
    "fewer, the night has fewer, too.\n\n"
    if worth
    else f"**The line taken** is the cheapest that is done by {bulk.due} h: *{chosen}*. The idle hours do not pay for this portal.\n\n"
)

# %%
taken_in = "taken in, seats filled"
book.bill(
    {
        "own GPUs": "summaries written by the assistant's GPUs at night (quality not measured)",
        "batch API": "summaries through the batch API",
        "list price": "summaries stay at the list price",
    }[chosen],
    {
        "own GPUs": TakenIn("summaries", "assistant", extra_gpus=extra[taken_in]),
        "batch API": Batched("summaries"),
        "list price": Stays("summaries"),
    }[chosen],
    of="summaries",
    source=f"GPU-hours modelled ({gpu.name}, with {100 * off.p90:.0f} % added for the model's error on public silicon); idle hours by the portal's "
    f"traffic; list and batch prices of {PORTAL.desk.large}; wrong answers: not measured. Factor of static batches: {rounds.source}",
)

# %% [markdown]
# Inside an engine, batching is on the bill already: it is the reason why one GPU serves so many. What is yours to watch is
# everything in front of it that keeps requests apart or holds them back.

# %%
Markdown(
    f"Here {int(curve.index[-1])} answers at once came at {curve['median'].iloc[-1] / curve['median'].iloc[0]:.1f} times the throughput of one at a time. The pressure relieved: machine "
    f"hours per token. Where it moved: into each reader's TPOT ({1000 * tpot[1]:.1f} ms alone, {1000 * tpot[32]:.1f} ms for 32), and into the "
    "question who may wait.\n\n"
    "**In production** watch the numbers of running and of waiting requests (vLLM: `vllm:num_requests_running`, `vllm:num_requests_waiting`). "
    "If requests wait while seats are free, something in front of the engine is batching for you."
)

# %% [markdown] tags=["further"]
# ### A day and a night on machines of one's own
#
# Room in the night is of no use to a job that starts at noon. `labkit.batching.OffPeak` holds a request whose deadline is far, and
# starts it, earliest deadline first, in the **valley**: when fewer than so many seats are taken. When its slack is used up, it
# starts in any case. Here is the portal's day, squeezed into seconds and its tokens into an eighth: that very lever, on a modelled
# engine of eight seats with the five numbers above. A conversation ends with every sixth chat, and its summary could be written at
# once; those of before midnight are due in the morning.

# %% tags=["constants"]
SQUEEZED = 8  # this small engine writes an eighth of the portal's tokens
LEVEL, BULK_SEATS = 3, 3  # of eight seats: so many taken and no summary starts; so many for summaries at most

# %%
day_draw = book.rng("day")


def chat_of_the_day():
    return day_draw.randrange(30, 130), 1 + min(120, int(day_draw.expovariate(SQUEEZED / chat.answer)))


by_the_hour = np.roll(PORTAL.hours, -bulk.due) / max(PORTAL.hours)  # from the hour at which summaries are read
to_read, to_write = bulk.prompt // SQUEEZED, bulk.answer // SQUEEZED
peak_rate = 0.85 * answers_per_s([chat_of_the_day() for _ in range(400)])
hour_s = book.pick(ci=48, learn=72) / peak_rate  # so many chats in the busiest hour
people_come = list(by_hour(peak_rate * by_the_hour, hour_s, seed))
asked = [(at, "chat", *chat_of_the_day()) for at in people_come]
ends_of_talks = people_come[chat.turns - 1 :: chat.turns]
asked += [(at, "summary", to_read, to_write) for at in ends_of_talks if at < (24 - bulk.due) * hour_s]
asked.sort()
# The front end is left out of the queue: this day is about seats.
numbers = LatencyModel(per_step, per_answer, per_token, 0.0, 0.0, 0.0, request_s=way)


def seconds_of(request):
    """What a summary takes on a full engine, with half as much again to be safe."""
    return 1.5 * (way + to_read * per_token + request.max_tokens * step_seconds(0, SEATS))


def held_until(level):
    return OffPeak(level, BULK_SEATS, work_s=seconds_of, min_slack_s=hour_s)


# %%
async def one_day(lever, machines=1, kinds=("chat", "summary")):
    """What one of `machines` engines sees of this day: p95 TTFT of chats, ends of summaries (None: cut off), seats by hour."""
    taken = np.zeros(24 * 4)

    def count(step):
        at = int(clock.now() / hour_s)
        taken[min(at, len(taken) - 1)] += len(step.scheduled) * numbers.step_seconds(step.work) / hour_s

    begin = clock.now()  # 0: the virtual clock is new
    load = []
    for i, (at, kind, prompt, output) in enumerate(asked):
        if i % machines == 0 and kind in kinds:
            extra = {"prompt_token_ids": [i] * prompt, "cache_salt": str(i)}
            due = begin + 24 * hour_s if kind == "summary" else None
            load.append((at, Request("?", max_tokens=output, feature=kind, deadline=due, extra=extra)))
    async with ModelledEngine(numbers, EngineSettings(4096, max_num_seqs=SEATS), on_step=count) as engine:
        samples = (await open_loop(lever(engine), load)).samples
    pairs = [(s, r.feature) for s, (_, r) in zip(samples, load, strict=True)]
    chats = [s.ttft_from_due for s, kind in pairs if kind == "chat"]
    ends = [None if s.error else (s.timing.done - begin) / hour_s for s, kind in pairs if kind == "summary"]
    return 1000 * float(np.percentile(chats, 95)), ends, taken[:24]


def done_in_time(day):
    """The ends of the summaries that were done: a deadline is held, so nobody is done after it."""
    return [end for end in day[1] if end is not None]


def machines_for(lever, within_ms):
    """So many engines, each with its share of the day, until the chats' p95 keeps within the limit."""
    n = 1
    while n < 4 and clock.run_virtual(one_day(lever, n))[0] > within_ms:
        n += 1
    return n


# %%
no_summaries, *_, taken_by_chats = clock.run_virtual(one_day(lambda engine: engine, kinds=("chat",)))
levers = {
    "each when its talk ends": lambda engine: engine,
    f"earliest deadline first, {BULK_SEATS} at a time": held_until(10**6),
    f"the same, and only below {LEVEL} seats taken": held_until(LEVEL),
}
days = {name: clock.run_virtual(one_day(lever)) for name, lever in book.track(levers.items(), "a day with each lever")}
engines = {
    name: 1 if days[name][0] <= 2 * no_summaries else machines_for(lever, 2 * no_summaries) for name, lever in levers.items()
}
evening = bulk.ready - bulk.due
pd.DataFrame(
    {
        "p95 TTFT of chats (ms)": [f"{no_summaries:.0f}", *(f"{day[0]:.0f}" for day in days.values())],
        "summaries in time": ["", *(f"{len(done_in_time(day))} of {len(day[1])}" for day in days.values())],
        f"of them after {bulk.ready} h": [
            "",
            *(f"{sum(end > evening for end in done_in_time(day))}" for day in days.values()),
        ],
        f"machines for a p95 of {2 * no_summaries:.0f} ms": [
            "1",
            *(f"{n}{' or more' if n == 4 else ''}" for n in engines.values()),
        ],
    },
    index=["no summaries", *levers],
)

# %%
when_ended, edf, valley = levers
by_hour_taken = pd.DataFrame(
    [
        {"hour": bulk.due + h, "seats": value, "lever": name}
        for name, seats_taken in [("chats alone", taken_by_chats), *((name, day[2]) for name, day in days.items())]
        for h, value in enumerate([*seats_taken, seats_taken[-1]])
    ]
)
show(
    alt.Chart(by_hour_taken)
    .mark_line(interpolate="step-after")
    .encode(
        x=alt.X("hour:Q", title="hour of the day (24 is midnight)", scale=alt.Scale(domain=[bulk.due, 24 + bulk.due])),
        y=alt.Y("seats:Q", title=f"seats taken, of {SEATS}", scale=alt.Scale(domain=[0, SEATS])),
        color=alt.Color(
            "lever:N",
            title=None,
            sort=["chats alone", *levers],
            legend=alt.Legend(orient="bottom", columns=1, labelLimit=400),
        ),
    )
    .properties(
        title=f"p95 TTFT of chats: {days[when_ended][0]:.0f} ms with summaries at once, {days[valley][0]:.0f} ms if they wait for the valley"
    ),
    alt="Seats taken by hour. " + " ".join(f"{name}: p95 TTFT of chats {day[0]:.0f} ms." for name, day in days.items()),
    source=f"Simulated: {len(people_come)} chats in a day of {24 * hour_s:.0f} s, the portal's shape. Modelled with the five numbers above, from: {companies.source}",
)

# %%
late = len(days[valley][1]) - len(done_in_time(days[valley]))
in_the_evening = sum(end > evening for end in done_in_time(days[valley]))
day_story = (
    f"A limit and an order of deadlines alone leave the chats at {days[edf][0]:.0f} ms: {BULK_SEATS} seats for bulk, at noon as at "
    f"night. Told to wait for the valley, the summaries leave them at {days[valley][0]:.0f} ms, of {no_summaries:.0f} without any; "
    f"{in_the_evening} of them run after {bulk.ready} h, and "
    + ("all are done in time. " if not late else f"{late} of {len(days[valley][1])} are cut off at their deadline. ")
)
book.finding(
    engines[when_ended] > engines[valley],
    f"Bulk work at the peak is paid for in machines ({engines[when_ended]} instead of {engines[valley]}) that stand idle all night. "
    + day_story,
    "In this run the peak would have held the summaries, too; the chats' p95 says at what price. " + day_story,
)

# %% [markdown] tags=["constants"]
# ### On your own data
#
# How many of your calls run at once, and how many would a window of 50 ms hold? Where that is about one, nobody is there to wait
# for. Write the path of your log into the field; each call needs a time and a duration.

# %%
book.on_your_data()

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz("07.q1")

# %%
book.quiz("07.q2")

# %%
book.quiz("07.q3")

# %% [markdown]
# ## Next
#
# **08 · KV cache optimization**: more company needs more memory. What does a seat cost in gigabytes, and what happens when they
# run out?

# %%
await book.close()
book.progress()
