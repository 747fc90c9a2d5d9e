# %% [markdown]
# # 07 · Batching strategies: sharing a step, and what the waiting buys
#
# **The question.** The machine costs the same per hour whether it answers one customer or thirty. Batching is what makes the
# thirty cheap, and everybody sells some: “hold requests for a blink, pay a fifth per answer”. Which batching really cuts the
# bill, which is already in your engine, and which only makes customers wait?
#
# **You will be able to** tell static, dynamic and continuous batching apart in a picture; test a claim of the form
# throughput ≈ B^α; choose a waiting window for a given latency budget, or none; write a scheduler; and decide which traffic
# gets a pool of its own, which goes to a batch API, and which waits for the night.
#
# **Time.** 65 minutes. **Needs.** Chapter 02; a small engine, twice, and a sentence embedder start on this machine.

# %% tags=["imports"]
import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle, islice

import altair as alt
import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy.optimize import nnls

from labkit.batching import (
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
from labkit.cost import cost_per_mtok, host, price_of
from labkit.embeddings import embedder
from labkit.engines import connect
from labkit.engines.modelled import EngineSettings, ModelledEngine
from labkit.experiments import concurrency, prefill, recordings
from labkit.lab import traffic
from labkit.latency import LatencyModel
from labkit.load import ExactLengths, by_hour, closed_loop, open_loop, poisson
from labkit.request import Request, clock
from labkit.workbook import PALETTE, Figure, live_chart, show

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
# A **static** batch is what you write first: take eight requests, send them together, wait until all are done, take the next
# eight. A **continuous** batch has eight seats instead, and whoever leaves is replaced at once. The work is the same. Both,
# live, with answers as uneven as answers are.

# %% tags=["constants"]
SEATS = 8

# %%
live = await connect(book.engine, model="small", progress=print)
source = live.provenance.caption()
make = ExactLengths(str(live.tokenizer_path), seed)  # fresh words every time: no prefix cache helps
for n in (1, 32):
    await concurrency(live, make, people=n)  # warm-up

draw = book.rng("answers")
wanted = [
    (draw.randrange(40, 160), 4 + min(150, int(draw.expovariate(1 / 35)))) for _ in range(book.pick(ci=32, learn=64, gpu=64))
]


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
rounds = [
    {name: await way([make(*one) for one in wanted]) for name, way in ways.items()}
    for _ in range(book.pick(ci=3, learn=5, gpu=5))
]


def span(samples):
    return max(s.timing.done for s in samples) - min(s.timing.sent for s in samples)


took = pd.DataFrame([{name: span(samples) for name, samples in one.items()} for one in rounds])
gain = float((took.iloc[:, 0] / took.iloc[:, 1]).median())


def seated(samples):
    """Each request with the seat it had: the one that has been free longest."""
    begin, free = min(s.timing.sent for s in samples), [0.0] * SEATS
    rows = []
    for s in sorted(samples, key=lambda s: s.timing.sent):
        seat = min(range(SEATS), key=lambda i: free[i])
        rows.append(
            {"seat": seat + 1, "from": s.timing.sent - begin, "to": s.timing.done - begin, "tokens": s.usage.output_tokens}
        )
        free[seat] = s.timing.done - begin
    return rows


typical = rounds[int((took.iloc[:, 0] / took.iloc[:, 1] - gain).abs().argmin())]
bars = pd.DataFrame([{"how": name, **row} for name, samples in typical.items() for row in seated(samples)])
idle = {name: 100 * (1 - sum(s.timing.e2e for s in samples) / (SEATS * span(samples))) for name, samples in typical.items()}
show(
    alt.Chart(bars)
    .mark_bar(stroke="white", strokeWidth=0.6)
    .encode(
        x=alt.X("from:Q", title="seconds since the first request"),
        x2="to:Q",
        y=alt.Y("seat:O", title="seat"),
        color=alt.Color(
            "how:N", legend=None, scale=alt.Scale(domain=list(ways), range=[PALETTE["orange"], PALETTE["blue"]])
        ),
        row=alt.Row(
            "how:N",
            title=None,
            sort=list(ways),
            header=alt.Header(labelAngle=0, labelAlign="left", labelAnchor="start", labelOrient="top"),
        ),
        tooltip=["seat:O", "tokens:Q"],
    )
    .properties(
        height=120,
        title=f"Static batches leave {idle[next(iter(ways))]:.0f} % of the seats empty; filling them makes it {gain:.2f} times as fast",
    ),
    alt="Gantt charts of eight seats. "
    + " ".join(f"{name}: {span(typical[name]):.2f} s, {share:.0f} % idle." for name, share in idle.items()),
    source=f"{len(wanted)} requests of the same lengths both times; the round of median gain of {len(rounds)}. {source}",
)

# %%
on_paper = 100 * book.reference("07.1")([output for _, output in wanted], SEATS)
steps = {  # each step counted as one, whatever is in it
    policy.__name__: run_schedule(
        [Job(0.0, *one) for one in wanted], policy, Limits(SEATS, 2048), lambda prompt, answers: 1.0
    ).finish
    for policy in (static, continuous)
}
Markdown(
    f"Counting tokens alone, before anything runs, fixed batches of {SEATS} would leave **{on_paper:.0f} %** of the seats empty "
    f"(exercise 07.1), and need {steps['static']:.0f} steps where filled seats need {steps['continuous']:.0f}: a factor of "
    f"{steps['static'] / steps['continuous']:.2f}. Measured were {gain:.2f}. "
    + (
        "The rest goes on the way: a seat is empty, too, while its next request travels to the engine and is let in. "
        if gain < 0.95 * steps["static"] / steps["continuous"]
        else ""
    )
    + "Every serving engine batches continuously today. It is static batching that comes back by the back door: a `gather` around "
    "a list of prompts, a job runner that waits for its slowest worker."
)

# %% [markdown]
# ### What company costs: throughput ≈ B^α?
#
# A step reads the weights once, whoever is in it; that part is shared. The arithmetic is not. A popular rule sums it up as
# throughput ≈ B^α. It is easy to test: so many answers at the same moment, then a straight line through the logarithms.

# %%
people = (1, 2, 4, 8, 16, 32)
repeats = book.pick(ci=4, learn=6, gpu=6)
company = (
    pd.DataFrame(  # 64 tokens in, 48 out; forwards and backwards, so that a busy moment of this machine meets all of them
        [await concurrency(live, make, people=n) for i in range(repeats) for n in people[:: 1 - 2 * (i % 2)]]
    )
)


def by_size(frame, low=1, high=math.inf):
    return {int(n): list(rows.output_tokens_per_s) for n, rows in frame.groupby("people") if low <= n <= high}


law = fit_exponent(by_size(company))
halves = {"1 to 4": fit_exponent(by_size(company, high=4)), "8 to 32": fit_exponent(by_size(company, low=8))}
book.reveal("07.alpha", law.alpha)
grid = np.geomspace(1, 32, 40)
dots = alt.Chart(company).encode(
    x=alt.X("people:Q", title="answers at the same time, B", scale=alt.Scale(type="log", base=2))
)
show(
    (
        alt.Chart(pd.DataFrame({"people": grid, "law": [law.throughput(b) for b in grid]}))
        .mark_line(color=PALETTE["red"], strokeDash=[5, 3])
        .encode(x="people:Q", y="law:Q")
        + dots.mark_circle(size=50, opacity=0.6, color=PALETTE["blue"]).encode(
            y=alt.Y("output_tokens_per_s:Q", title="tokens per second, all together", scale=alt.Scale(type="log"))
        )
    ).properties(
        title=f"α is {law.alpha:.2f} over the whole range, but {halves['1 to 4'].alpha:.2f} at its start and {halves['8 to 32'].alpha:.2f} at its end"
    ),
    alt=f"Throughput against simultaneous answers, both logarithmic, and the fitted law. α = {law.alpha:.2f}, 95 % interval "
    f"{law.low:.2f} to {law.high:.2f}; the worst mean is {100 * law.misfit:.0f} % off the line.",
    source=f"Points: each of {repeats} rounds; dashed: the fitted law. {source}",
)

# %%
gpus = [m for m in recordings("concurrency") if m.variant in ("default", "bf16")]
others = [("this run", company, source)] + [
    (
        f"{m.provenance.model}, {m.provenance.device}, {m.provenance.date[:10]}",
        m.frame().query("prompt_tokens == prompt_tokens.min()"),
        m.caption(),
    )
    for m in gpus
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
Markdown(
    "Recordings: " + "; ".join(dict.fromkeys(caption for _, _, caption in others[1:])) + ".\n\n"
    f"The interval speaks of noise only. The **miss** says whether there is a law at all: here the worst batch size lies "
    f"{100 * law.misfit:.0f} % off the line. "
    + (
        "That is a curve, not a power law: α falls as B grows, so whoever fits it on small batches and extrapolates promises too much."
        if halves["8 to 32"].alpha < halves["1 to 4"].alpha - 0.03
        else "In this range the law holds up; it must fail later, for α cannot stay where it is once arithmetic is the limit."
    )
)

# %% [markdown]
# ### Five numbers instead of one
#
# A curve has a cause, so take the cause. A step costs something in itself, something per prompt token, something per answer in
# it. A request costs its way there and back, and the front end lets requests in one by one. Five numbers, each from a
# measurement that you can picture; the lab's step loop (`labkit.batching.run_schedule`) does the rest. Whatever else runs on this
# machine can only slow a round down, so the numbers come from the fastest round of each kind, and are held against the fastest.

# %%
reading = pd.DataFrame([await prefill(live, make, prompt_tokens=n) for _ in range(repeats) for n in (64, 600, 1200)])
ttft = reading.groupby("prompt_tokens").ttft_s.min()  # the least disturbed
first_of = company.groupby("people").ttft_s.min()
fastest = company.loc[company.groupby("people").output_tokens_per_s.idxmax()].set_index("people")
tpot = fastest.tpot_s[[1, 8, 32]]  # of a whole round: the lowest TPOT of all is often a late first token


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
            "TTFT of 32 people",
        ],
    },
    index=[
        "a step",
        "each answer in it",
        "each prompt token in it",
        "a request's way there and back",
        "letting in one more request",
    ],
)

# %% [markdown]
# Now the test. The model has seen how late the first token comes and how fast the others follow, for 1, 8 and 32 people; it has
# seen no throughput, and nothing of the uneven answers at the beginning.

# %%
engine_limits = Limits(128, 2048)  # vLLM's defaults on a CPU


def together(n):
    """Modelled tokens per second of `n` answers asked for at once."""
    jobs = [Job(way + let_in * (i + 1), 64, 48) for i in range(n)]
    return n * 48 / run_schedule(jobs, chunked_prefill, engine_limits, step_seconds).finish


curve = company.groupby("people").output_tokens_per_s.agg(["median", "min", "max"])
curve["modelled"] = [together(n) for n in curve.index]
curve["law"] = [law.throughput(n) for n in curve.index]
error = 100 * (curve.modelled / curve["max"] - 1)
noise = 100 * (curve["max"] - curve["min"]) / curve["median"]
jobs = [Job(0.0, *one) for one in wanted]
said = {
    "static: in batches": run_schedule(jobs, static, Limits(SEATS, 2048), step_seconds).finish
    + way * -(-len(wanted) // SEATS),
    "continuous: seat by seat": run_schedule(jobs, chunked_prefill, Limits(SEATS, 2048), step_seconds).finish
    + way * len(wanted) / SEATS,
}
x = alt.X("people:Q", title="answers at the same time, B", scale=alt.Scale(type="log", base=2))
flat = curve.reset_index()
show(
    (
        alt.Chart(flat)
        .mark_line(color=PALETTE["green"])
        .encode(x=x, y=alt.Y("modelled:Q", title="tokens per second, all together"))
        + alt.Chart(flat).mark_rule(strokeWidth=3, color=PALETTE["blue"]).encode(x=x, y="min:Q", y2="max:Q")
        + alt.Chart(flat).mark_circle(size=60, color=PALETTE["blue"], opacity=1).encode(x=x, y="max:Q")
    ).properties(
        title=f"The step model is {error.abs().median():.0f} % off in the median; rounds differ by {noise.median():.0f} %"
    ),
    alt="Measured throughput of the fastest round, with the range of the others, and the model's line. "
    + " ".join(f"{n} people: {r['max']:.0f} measured, {r.modelled:.0f} modelled." for n, r in curve.iterrows()),
    source=f"Points and bars: the fastest and the range of {repeats} rounds, {source}. Line: modelled with the five numbers above.",
)

# %%
if noise.median() > 30:
    print(
        "The rounds differ so much that this machine must be busy with something else; run the chapter again in a quieter moment."
    )
pd.DataFrame(
    {
        "measured (s)": [f"{took[name].min():.2f}" for name in ways],
        "modelled (s)": [f"{said[name]:.2f}" for name in ways],
        "error": [f"{100 * (said[name] / took[name].min() - 1):+.0f} %" for name in ways],
    },
    index=list(ways),
)

# %% [markdown]
# The model knows an engine, a way and a queue at the door. It does not know that the clients, the front end and the engine share
# this machine's cores. Where it promises more than was measured, that is where to look.

# %% [markdown] tags=["constants"]
# ### Coalescing, three times
#
# “Coalesce requests for 50 to 100 ms and gain 3 to 5 times.” Three different things go by that name.
#
# **One: a function that takes many items**, such as an embedder. It has no batching inside, so a **dynamic batcher** in front
# of it starts a batch when it is full or when its first item has waited long enough. Callers ask one text at a time; two dozen
# of them are there.

# %% tags=["constants"]
CALLERS, MAX_BATCH = 24, 32
WAITS_MS = (0, 10, 50, 100)

# %%
encoder = embedder()
asks = [q.text for q in traffic("test", 8000, seed, meanings_total=2000)]
asks = iter(dict.fromkeys(asks))  # each question once: nothing is answered twice
encoder.encode(list(islice(asks, MAX_BATCH)))


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


async def one_by_one(n, texts):
    turn = asyncio.Lock()

    async def submit(text):
        async with turn:
            return await asyncio.to_thread(encoder.encode, [text])

    return await callers(submit, n, texts)


async def batched(n, texts, wait_s):
    async with embed_batcher(encoder.encode, max_size=MAX_BATCH, max_wait_s=wait_s) as batcher:
        return await callers(batcher.submit, n, texts)


def against(rows, setting, base):
    """Throughput relative to `base` in the same round: the median of the rounds, and its range as text."""
    speeds = pd.DataFrame(rows).pivot(index="round", columns=setting, values="per_s")
    ratios = speeds.div(speeds[base], axis=0)
    return ratios.median().to_dict(), {k: f"{r.min():.2f} to {r.max():.2f}" for k, r in ratios.items()}


many = CALLERS * book.pick(ci=2, learn=4, gpu=4)
embedded = []
for i in range(book.pick(ci=3, learn=5, gpu=5)):
    for how in ("none", *WAITS_MS)[:: 1 - 2 * (i % 2)]:
        if how == "none":
            found = await one_by_one(CALLERS, list(islice(asks, CALLERS)))
        else:
            found = await batched(CALLERS, list(islice(asks, many)), how / 1000)
        embedded.append({"round": i, "wait": how, **found})
batch_gain, batch_range = against(embedded, "wait", "none")
embedded = pd.DataFrame(embedded)
alone = {
    ms: (await batched(1, list(islice(asks, 8)), ms / 1000))["p95"] for ms in WAITS_MS
}  # the price at night: one caller, nobody to wait for
mean = embedded.groupby("wait")[["per_s", "p95"]].median()
best = max(batch_gain.values())
book.reveal("07.batcher", best, unit="times")
pd.DataFrame(
    {
        "texts per second": [f"{mean.per_s[k]:.0f}" for k in ("none", *WAITS_MS)],
        "times": [f"{batch_gain[k]:.2f} ({batch_range[k]})" for k in ("none", *WAITS_MS)],
        f"p95 of {CALLERS} callers (ms)": [f"{1000 * mean.p95[k]:.0f}" for k in ("none", *WAITS_MS)],
        "p95 of a lone caller (ms)": ["" if k == "none" else f"{1000 * alone[k]:.0f}" for k in ("none", *WAITS_MS)],
    },
    index=["one by one", *(f"batcher, waits up to {ms} ms" for ms in WAITS_MS)],
)

# %% [markdown]
# (“Times” compares within a round; its range over the rounds is in brackets.) Look at the first line of the batcher: it waits for
# *nobody* and still batches. One batch runs at a time, and whoever comes meanwhile is the next batch, so batches grow with the
# load all by themselves. A window can only help those who come while nobody is being served, and a lone caller pays for all
# of it.
#
# **Two: a window in front of an engine** that batches continuously. The same waits, before a live chat engine: 16 clients who
# ask again when they are answered, and then Poisson arrivals at a modest rate.

# %% tags=["constants"]
CLIENTS = 16

# %%
chats = CLIENTS * book.pick(ci=2, learn=8, gpu=8)
held = []
for i in range(book.pick(ci=4, learn=6, gpu=6)):
    for ms in WAITS_MS[:: 1 - 2 * (i % 2)]:
        run = await closed_loop(CoalescingWindow(ms / 1000)(live), [make(64, 48) for _ in range(chats)], CLIENTS)
        p95 = float(np.percentile([s.e2e for s in run.samples], 95))
        held.append({"round": i, "ms": ms, "per_s": len(run.samples) / run.seconds, "p95": p95})
chat_gain, chat_range = against(held, "ms", 0)
full = pd.DataFrame(held).groupby("ms").median()
calm = {}
for ms in WAITS_MS:
    times = list(islice(poisson(0.3 * float(full.per_s[0]), seed), book.pick(ci=20, learn=80, gpu=80)))
    run = await open_loop(CoalescingWindow(ms / 1000)(live), [(at, make(64, 16)) for at in times])
    calm[ms] = float(np.percentile([s.ttft_from_due for s in run.samples], 95))


def on_the_model(window_s):
    """Answers per second of these clients by the five numbers, if all start together and are held each time."""
    start = window_s + way
    jobs = [Job(start + let_in * i, 64, 48) for i in range(CLIENTS)]
    return CLIENTS / run_schedule(jobs, chunked_prefill, engine_limits, step_seconds).finish


book.reveal("07.window", chat_gain[50], unit="times")
lines = pd.DataFrame(
    [{"ms": ms, "what": f"embedder behind a batcher, {CALLERS} callers", "times": batch_gain[ms]} for ms in WAITS_MS]
    + [{"ms": ms, "what": f"live chat engine, {CLIENTS} clients", "times": chat_gain[ms]} for ms in WAITS_MS]
)
show(
    (
        alt.Chart(pd.DataFrame([{"low": 3, "high": 5, "from": 50, "to": 100}]))
        .mark_rect(opacity=0.25, color=PALETTE["grey"])
        .encode(x="from:Q", x2="to:Q", y="low:Q", y2="high:Q")
        + alt.Chart(lines)
        .mark_line(point=True)
        .encode(
            x=alt.X("ms:Q", title="longest wait for company (ms)"),
            y=alt.Y("times:Q", title="throughput, times that without batching", scale=alt.Scale(domain=[0, 5.5])),
            color=alt.Color("what:N", title=None, legend=alt.Legend(orient="bottom", columns=1, labelLimit=400)),
        )
    ).properties(
        title=f"50 ms of waiting: {batch_gain[50]:.1f} times for the embedder, {chat_gain[50]:.2f} times for the chat"
    ),
    alt="Throughput relative to no batching against the waiting window; the claim, 3 to 5 times for 50 to 100 ms, is a grey box. "
    + " ".join(f"{ms} ms: embedder {batch_gain[ms]:.2f}, chat {chat_gain[ms]:.2f}." for ms in WAITS_MS),
    source=f"Grey box: the claim. Medians of rounds in turns. {source}; embedder {encoder.name} on the same cores.",
)

# %%
pd.DataFrame(
    {
        "answers per second": [f"{full.per_s[ms]:.0f}" for ms in WAITS_MS],
        "times": [f"{chat_gain[ms]:.2f} ({chat_range[ms]})" for ms in WAITS_MS],
        f"p95 end to end, {CLIENTS} clients (ms)": [f"{1000 * full.p95[ms]:.0f}" for ms in WAITS_MS],
        "p95 TTFT at a third of that load (ms)": [f"{1000 * calm[ms]:.0f}" for ms in WAITS_MS],
    },
    index=[f"held {ms} ms" for ms in WAITS_MS],
)

# %%
crowd_s, kept = CLIENTS / on_the_model(0), on_the_model(0.05) / on_the_model(0)
Markdown(
    "The engine forms a new batch at every step, some milliseconds apart. Holding requests outside gives it nothing that it does "
    f"not have, and while they are held its seats are empty. By the five numbers, {CLIENTS} answers that start together take "
    f"{1000 * crowd_s:.0f} ms; with a hold in front of each such round, {kept:.2f} times the throughput is left. "
    + (
        f"Measured: {chat_gain[50]:.2f} times (the rounds: {chat_range[50]})."
        if chat_gain[50] < 1.05 or float(chat_range[50].split()[0]) < 1
        else f"And yet {chat_gain[50]:.2f} times were measured. If that is not noise, what a hold saves here is not in the steps: clients, front end and engine "
        "share a few cores, a held crowd comes in one gulp, and while it is held the engine does not take the cores for half-empty steps. "
        f"But look how far the rounds lie apart ({chat_range[50]}), and run it again."
    )
)

# %% [markdown]
# **Three: identical requests.** An outage begins and everybody asks the same thing in the same second. No answer is there yet
# to cache, but one is on its way: `SingleFlight` sends the first and lets all the others listen in.

# %%
crowd = 32
bursts = []
for i in range(book.pick(ci=3, learn=6, gpu=6)):
    for name, handler in (("each on its own", live), ("single flight", SingleFlight()(live))):
        same = replace(make(200, 32), extra={"cache_salt": f"{seed} {name} {i} {clock.unix_now():.6f}"})
        run = await closed_loop(handler, [same] * crowd, crowd)
        wrote = sum(sample.usage.output_tokens for sample in run.samples)
        bursts.append(
            {
                "how": name,
                "per_s": crowd / run.seconds,
                "p95": np.percentile([s.e2e for s in run.samples], 95),
                "tokens": wrote,
            }
        )
burst = pd.DataFrame(bursts).groupby("how").median()
same_gain = float(burst.per_s["single flight"] / burst.per_s["each on its own"])
pd.DataFrame(
    {
        "output tokens on the bill": [f"{v:.0f}" for v in burst.tokens],
        "answers per second": [f"{v:.0f}" for v in burst.per_s],
        "p95 end to end (ms)": [f"{1000 * v:.0f}" for v in burst.p95],
    },
    index=burst.index,
)


# %% [markdown]
# Three things, one name. The claims, judged each by itself:

# %%
embedding_source = f"{encoder.name} on the same cores; {source}"
book.claim(
    "07.exponent",
    "Throughput grows like B^α, so measure α on small batches and know it for large ones.",
    claimed=halves["1 to 4"].alpha,
    measured=halves["8 to 32"].alpha,
    interval=(halves["8 to 32"].low, halves["8 to 32"].high),
    unit="(α)",
    where="8 to 32 answers at once; claimed is the α of 1 to 4",
    unless=f"Over the whole range α = {law.alpha:.2f} misses by up to {100 * law.misfit:.0f} %. It falls as arithmetic becomes the limit.",
    tolerance=0.05,
    source=source,
)
book.claim(
    "07.window_chat",
    "Holding requests for 50 to 100 ms raises throughput 3 to 5 times.",
    claimed=(3, 5),
    measured=max(chat_gain[50], chat_gain[100]),
    unit="times",
    where=f"{CLIENTS} chat clients, a live engine that batches continuously",
    unless="Where the function behind has no batching of its own; see the next claim.",
    source=source,
)
book.claim(
    "07.window_texts",
    "Holding requests for 50 to 100 ms raises throughput 3 to 5 times.",
    claimed=(3, 5),
    measured=max(batch_gain[50], batch_gain[100]),
    unit="times",
    where=f"{CALLERS} callers of an embedder",
    unless=f"It is the batch that gains, not the holding: without any it was {batch_gain[0]:.2f} times.",
    source=embedding_source,
)
book.claim(
    "07.dynamic",
    "Dynamic batching raises throughput 3 to 5 times.",
    claimed=(3, 5),
    measured=best,
    unit="times",
    where=f"{CALLERS} callers of an embedder, the best wait",
    unless="It is as much as a batch of the function behind is cheaper than its items one by one, and no more.",
    source=embedding_source,
)
book.claim(
    "07.same",
    "Coalescing raises throughput 3 to 5 times.",
    claimed=(3, 5),
    measured=same_gain,
    unit="times",
    where=f"{crowd} identical requests at once, single flight, live",
    unless="It grows with the crowd, and is nothing where nobody asks the same.",
    source=source,
)

# %% [markdown]
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
narrow = live
if live.provenance.kind == "live":  # an endpoint has the seats and the policy that it has
    narrow = await connect(book.engine, model="small", progress=print, max_num_seqs=SEATS, scheduling_policy="priority")
calm_day, loose, first, capped = regimes = {
    "chats alone": (Pool("chat"),),
    "bulk, first come, first served": (Pool("chat"), Pool("bulk")),
    "bulk, chats first": (Pool("chat"), Pool("bulk", priority=10)),
    f"bulk, {BULK_LIMIT} at a time": (Pool("chat"), Pool("bulk", at_most=BULK_LIMIT)),
}
stock = [replace(make(600, 64), feature="bulk") for _ in range(60)]
n_chat = book.pick(ci=24, learn=40, gpu=40)


async def beside_bulk(pools, number):
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
    chats = [(at, replace(make(64, 12), feature="chat")) for at in islice(poisson(20.0, seed + number), n_chat)]
    felt = [s.ttft_from_due for s in (await open_loop(handler, chats)).samples]
    over, end = True, clock.now()
    return felt, sum(s.timing.done <= end for s in (await job).samples) / (end - begin)


rounds_of = {name: [] for name in regimes}
for i in range(book.pick(ci=2, learn=3, gpu=3)):
    for name in list(regimes)[:: 1 - 2 * (i % 2)]:
        rounds_of[name].append(await beside_bulk(regimes[name], i))
if narrow is not live:
    await narrow.aclose()
waits = {name: [v for felt, _ in found for v in felt] for name, found in rounds_of.items()}
p95 = {name: 1000 * float(np.percentile(values, 95)) for name, values in waits.items()}
spread_of = {name: [1000 * float(np.percentile(felt, 95)) for felt, _ in found] for name, found in rounds_of.items()}
bulk_rate = {name: float(np.median([rate for _, rate in rounds_of[name]])) for name in (loose, first, capped)}
felt = pd.DataFrame([{"how": name, "ms": 1000 * v} for name, values in waits.items() for v in values])
show(
    (
        alt.Chart(felt)
        .mark_tick(thickness=2, opacity=0.6)
        .encode(
            x=alt.X("ms:Q", title="TTFT of each chat (ms)", scale=alt.Scale(type="log")),
            y=alt.Y("how:N", title=None, sort=list(waits), axis=alt.Axis(labelLimit=200)),
            color=alt.Color("how:N", legend=None, sort=list(waits)),
        )
        + alt.Chart(pd.DataFrame([{"how": k, "ms": v} for k, v in p95.items()]))
        .mark_point(shape="triangle-down", filled=True, size=90, color=PALETTE["red"], opacity=1, yOffset=-16)
        .encode(x="ms:Q", y=alt.Y("how:N", sort=list(waits)))
    ).properties(
        height=200,
        title=f"Beside bulk, chats' p95 is {p95[loose] / p95[calm_day]:.1f} times as long; with priority {p95[first] / p95[calm_day]:.1f}, "
        f"with a limit {p95[capped] / p95[calm_day]:.1f} times",
    ),
    alt="TTFT of chats under four regimes. "
    + " ".join(f"{name}: p95 {v:.0f} ms." for name, v in p95.items())
    + " "
    + " ".join(f"{name}: {v:.1f} of its requests a second." for name, v in bulk_rate.items()),
    source=f"Ticks: chats of {len(rounds_of[calm_day])} rounds; triangle: p95. {narrow.provenance.caption()}",
)

# %%
pd.DataFrame(
    {
        "p95 TTFT of chats (ms)": [f"{v:.0f}" for v in p95.values()],
        "by round": [" / ".join(f"{v:.0f}" for v in values) for values in spread_of.values()],
        "bulk answers a second": ["" if name == calm_day else f"{bulk_rate[name]:.1f}" for name in regimes],
    },
    index=list(regimes),
)

# %%
Markdown(
    f"With chats first, the chats' p95 goes from {p95[loose]:.0f} to {p95[first]:.0f} ms, and bulk gets {100 * bulk_rate[first] / bulk_rate[loose]:.0f} % of "
    f"the answers that it got let loose; held to {BULK_LIMIT}, it gets {100 * bulk_rate[capped] / bulk_rate[loose]:.0f} %, and the p95 is {p95[capped]:.0f} ms. "
    + (
        "Priority changes the order, not the work: no seat stays empty, but a chat waits until one falls vacant. "
        "A limit keeps some free for it, and bulk pays for them. "
        if max(p95[first], p95[capped]) < 0.9 * p95[loose]
        else "In this run they did not both help the chats: look at the ticks and at the rounds, and run it again in a quieter moment. "
    )
    + "The engine's priority knows no patience: as long as chats come, bulk may wait for ever. In `labkit.batching.Gate` a step "
    "of priority is worth so many seconds of waiting, and nobody starves."
)

# %% [markdown]
# When does separation help, and when does it hurt? The same engine with eight seats, now on the step model: all in **one pool**,
# first come, first served; **two pools** of five and three seats; or one pool with **priority** for chats. Two afternoons: one
# has a bulk job in it, the other has none but twice the chats.

# %%
chat_draw = book.rng("pools")
seat_limits = Limits(SEATS, 512)


def afternoon(rate, bulk_jobs, n=400):
    """Chats at this rate, and a bulk job that comes with the 40th of them."""
    lengths = [(chat_draw.randrange(30, 130), 1 + min(120, int(chat_draw.expovariate(1 / 30)))) for _ in range(n)]
    chats = [("chat", Job(at, *one)) for at, one in zip(islice(poisson(rate, seed), n), lengths, strict=True)]
    return chats + [("bulk", Job(chats[40][1].arrival, 600, 120)) for _ in range(bulk_jobs)]


flat_out = [job for _, job in afternoon(1e6, 0)]  # all chats at once: what eight seats can do at most
capacity = len(flat_out) / run_schedule(flat_out, chunked_prefill, seat_limits, step_seconds).finish
calm_rate, rush_rate = 0.4 * capacity, 0.8 * capacity


def one_pool(of):
    return chunked_prefill


def two_pools(of, seats={"chat": 5, "bulk": 3}):  # noqa: B006 - read only
    def plan(view):
        taken, allowed = Counter(of[job] for job in view.running), []
        for job in view.waiting:
            if taken[of[job]] < seats[of[job]]:
                taken[of[job]] += 1
                allowed.append(job)
        return chunked_prefill(replace(view, waiting=allowed))

    return plan


def chats_first(of):
    return lambda view: chunked_prefill(replace(view, waiting=sorted(view.waiting, key=lambda job: of[job] == "bulk")))


pools = {"one pool": one_pool, "two pools, 5 + 3 seats": two_pools, "one pool, chats first": chats_first}
found = []
for day, traffic_ in {
    "a bulk job comes": afternoon(calm_rate, 60),
    "twice the chats, no bulk": afternoon(rush_rate, 0),
}.items():
    of = [kind for kind, _ in traffic_]
    for name, policy in pools.items():
        done = run_schedule([job for _, job in traffic_], policy(of), seat_limits, step_seconds).served
        ttfts = [s.first_token - j.arrival for s, (kind, j) in zip(done, traffic_, strict=True) if kind == "chat"]
        ends = [s.finish for s, kind in zip(done, of, strict=True) if kind == "bulk"]
        started = min((j.arrival for kind, j in traffic_ if kind == "bulk"), default=0.0)
        found.append(
            {
                "day": day,
                "pools": name,
                "p95": 1000 * float(np.percentile(ttfts, 95)),
                "bulk": max(ends) - started if ends else None,
            }
        )
found = pd.DataFrame(found)
p = found.set_index(["day", "pools"]).p95
days, names = list(dict.fromkeys(found.day)), list(pools)
helps, hurts = p[days[0], names[0]] / p[days[0], names[1]], p[days[1], names[1]] / p[days[1], names[0]]
chart = alt.Chart(found).encode(
    x=alt.X("p95:Q", title="p95 TTFT of chats (ms), logarithmic", scale=alt.Scale(type="log")),
    y=alt.Y("pools:N", title=None, sort=names),
    tooltip=["pools:N", alt.Tooltip("p95:Q", format=".0f"), alt.Tooltip("bulk:Q", format=".1f", title="bulk job (s)")],
)
show(
    (
        chart.mark_point(filled=True, size=140, opacity=1).encode(color=alt.Color("pools:N", legend=None, sort=names))
        + chart.mark_text(align="left", dx=10).encode(text=alt.Text("p95:Q", format=",.0f"))
    )
    .properties(height=75)
    .facet(
        row=alt.Row(
            "day:N",
            title=None,
            sort=days,
            header=alt.Header(labelAngle=0, labelAlign="left", labelAnchor="start", labelOrient="top"),
        )
    )
    .properties(
        title=f"Two pools: {helps:.1f} times better beside a bulk job, {hurts:.1f} times worse in a rush"
        if helps > 1 and hurts > 1
        else f"Two pools change the chats' p95 {1 / helps:.1f}-fold beside a bulk job and {hurts:.1f}-fold in a rush"
    ),
    alt="p95 TTFT of chats by arrangement. " + " ".join(f"{r.day}, {r.pools}: {r.p95:.0f} ms." for r in found.itertuples()),
    source=f"Simulated with the five numbers of this engine and eight seats, {400} chats a day. Modelled, from: {source}",
)

# %%
Markdown(
    f"Two pools are a wall, and a wall works both ways: in the rush three of eight seats stay empty while chats queue. "
    f"Priority lets chats use all seats and bulk what is left: {p[days[0], names[2]]:.0f} ms and {p[days[1], names[2]]:.0f} ms. It needs an "
    "engine that knows priorities (vLLM: `scheduling_policy=priority`) and callers who do not all claim to be urgent. "
    "A wall is for what priority cannot give: a limit on damage, a bill per team, other hardware."
)

# %% [markdown]
# ## Move
#
# The four schedulers, drawn: twenty requests, two of them with long prompts, on this engine's five numbers. Grey waits, blue
# reads, orange writes. Chunked prefill cuts prompts to so many tokens a step; the others read them whole.

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
    last = max(plan.finish for plan in plans.values())
    for name, plan in plans.items():
        rows, begun = [], {}
        for step in plan.steps:
            for job in step.tokens:
                begun.setdefault(job, step.at)
        for i, (job, served) in enumerate(zip(work, plan.served, strict=True)):
            parts = (
                ("waits", job.arrival, begun[i]),
                ("reads", begun[i], served.first_token),
                ("writes", served.first_token, served.finish),
            )
            rows += [{"job": i + 1, "part": part, "from": a, "to": b} for part, a, b in parts if b > a]
        scores[name] = float(np.percentile([s.first_token - j.arrival for s, j in zip(plan.served, work, strict=True)], 95))
        pauses[name] = max(step.seconds for step in plan.steps)
        text = f"{name}: p95 TTFT {1000 * scores[name]:.0f} ms, longest step {1000 * pauses[name]:.0f} ms, done at {plan.finish:.2f} s"
        words.append(text)
        panels.append(
            alt.Chart(alt.Data(values=rows))
            .mark_bar(height=5)
            .encode(
                x=alt.X("from:Q", title="seconds", scale=alt.Scale(domain=[0, last or 1])),
                x2="to:Q",
                y=alt.Y("job:O", title=None, axis=None),
                color=alt.Color(
                    "part:N",
                    title=None,
                    scale=alt.Scale(
                        domain=["waits", "reads", "writes"], range=[PALETTE["grey"], PALETTE["blue"], PALETTE["orange"]]
                    ),
                ),
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
        source=f"Simulated: {'; '.join(words)}. Modelled with the five numbers above, from: {source}",
    )


usual_rate = 0.6 * 6 / (way + 20 * step_seconds(0, 6) + step_seconds(150, 6))
live_chart(
    gantt,
    seats=w.IntSlider(6, 2, 12, description="seats"),
    budget=w.IntSlider(256, 64, 2048, 64, description="chunked: tokens a step"),
    rate=w.IntSlider(max(1, round(usual_rate)), 1, max(10, round(4 * usual_rate)), description="requests a second"),
    wait_ms=w.IntSlider(50, 0, 500, 10, description="dynamic: wait (ms)"),
)

# %% [markdown]
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
# Somebody shows you two measurements, each a batch size and its throughput in items per second, and claims throughput ∝ B^α.
# Return α, and how many times as long a batch of `batch` would take as a batch of one, which the claim does not mention.


# %% exercise="07.2"
def batching_law(small: tuple[int, float], large: tuple[int, float], batch: int) -> tuple[float, float]:
    """α, and (seconds of a batch of `batch`) / (seconds of a batch of 1)."""
    ...  # your code here


# %%
book.check("07.2", batching_law)

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

# %% [markdown]
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

# %% [markdown]
# ## So what
#
# The portal has bulk work too: every conversation is summarised for the team leads, in one go, by tomorrow morning. It can be
# sent at once at the list price; through a provider's **batch API**, at a discount and with up to a day to answer; or it can
# run on machines of one's own, beside the chats or in their spare hours.

# %% tags=["constants"]
CHATS_PER_DAY = 100_000 * 4  # four to a conversation
BULK_SHARE = 0.5  # the summaries' tokens, as a share of the chats'
PROMPT, OUTPUT = 1_200, 250
HOURS = [3, 2, 1, 1, 1, 2, 4, 8, 14, 18, 20, 20, 18, 18, 19, 18, 16, 14, 13, 12, 11, 9, 7, 5]  # chats by hour, relative
DEADLINE_H, WINDOW_H = 8, 24  # the summaries are needed at 8; a batch API may take this long
BULK_AT = 18  # the last conversations of a working day are over
LEVEL, BULK_SEATS = 5, 3  # of eight seats: so many taken and no summary starts; so many for summaries at most

# %% [markdown]
# Own machines first. `labkit.batching.OffPeak` holds a request whose deadline is far, and starts it, earliest deadline first, in
# the valley: when fewer than so many seats are taken. Or when its slack is used up, valley or not. Here is a day from 8 h to 8 h,
# squeezed into seconds: that very lever, on a modelled engine of eight seats with the five numbers above. Every fourth chat ends a
# conversation and asks for its summary; those of before midnight are due at 8 h.

# %%
day_draw = book.rng("day")
shape = np.array(HOURS[DEADLINE_H:] + HOURS[:DEADLINE_H]) / max(HOURS)
peak_rate = 0.85 * capacity
hour_s = book.pick(ci=48, learn=72, gpu=72) / peak_rate  # so many chats in the busiest hour
people_come = list(by_hour(peak_rate * shape, hour_s, seed))
asked = [(at, "chat", day_draw.randrange(30, 130), 1 + min(120, int(day_draw.expovariate(1 / 30)))) for at in people_come]
asked += [(at, "summary", 180, 40) for at in people_come[3::4] if at < (24 - DEADLINE_H) * hour_s]
asked.sort()
# The front end is left out of the queue: this day is about seats.
numbers = LatencyModel(per_step, per_answer, per_token, 0.0, 0.0, 0.0, request_s=way)


def seconds_of(request):
    """What a summary takes on a full engine, with half as much again to be safe."""
    return 1.5 * (way + 180 * per_token + request.max_tokens * step_seconds(0, SEATS))


def held_until(level):
    return OffPeak(level, BULK_SEATS, work_s=seconds_of, min_slack_s=hour_s)


async def one_day(plan, machines=1, kinds=("chat", "summary")):
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
        samples = (await open_loop(plan(engine), load)).samples
    chats = [s.ttft_from_due for s, (_, r) in zip(samples, load, strict=True) if r.feature == "chat"]
    ends = [
        None if s.error else (s.timing.done - begin) / hour_s
        for s, (_, r) in zip(samples, load, strict=True)
        if r.feature == "summary"
    ]
    return 1000 * float(np.percentile(chats, 95)), ends, taken[:24]


def done_in_time(found):
    """The ends of the summaries that were done: a deadline is held, so nobody is done after it."""
    return [end for end in found[1] if end is not None]


def machines_for(plan, within_ms):
    """So many engines, each with its share of the day, until the chats' p95 keeps within the limit."""
    n = 1
    while n < 4 and clock.run_virtual(one_day(plan, n))[0] > within_ms:
        n += 1
    return n


no_summaries, *_, taken_by_chats = clock.run_virtual(one_day(lambda engine: engine, kinds=("chat",)))
plans = {
    "each when its chat ends": lambda engine: engine,
    f"earliest deadline first, {BULK_SEATS} at a time": held_until(10**6),
    f"the same, and only below {LEVEL} seats taken": held_until(LEVEL),
}
outcome = {name: clock.run_virtual(one_day(plan)) for name, plan in plans.items()}
engines = {
    name: 1 if outcome[name][0] <= 2 * no_summaries else machines_for(plan, 2 * no_summaries) for name, plan in plans.items()
}
when_ended, edf, valley = plans
day = pd.DataFrame(
    [
        {"hour": DEADLINE_H + h, "seats": value, "plan": name}
        for name, seats in [("chats alone", taken_by_chats), *((name, found[2]) for name, found in outcome.items())]
        for h, value in enumerate([*seats, seats[-1]])
    ]
)
show(
    alt.Chart(day)
    .mark_line(interpolate="step-after")
    .encode(
        x=alt.X("hour:Q", title="hour of the day (24 is midnight)", scale=alt.Scale(domain=[DEADLINE_H, 24 + DEADLINE_H])),
        y=alt.Y("seats:Q", title=f"seats taken, of {SEATS}", scale=alt.Scale(domain=[0, SEATS])),
        color=alt.Color(
            "plan:N",
            title=None,
            sort=["chats alone", *plans],
            legend=alt.Legend(orient="bottom", columns=1, labelLimit=400),
        ),
        strokeDash=alt.StrokeDash("plan:N", sort=["chats alone", *plans], legend=None),
    )
    .properties(
        title=f"p95 TTFT of chats: {outcome[when_ended][0]:.0f} ms with summaries at once, {outcome[valley][0]:.0f} ms if they wait for the valley"
    ),
    alt="Seats taken by hour. "
    + " ".join(f"{name}: p95 TTFT of chats {found[0]:.0f} ms." for name, found in outcome.items()),
    source=f"Simulated: {len(people_come)} chats in a day of {24 * hour_s:.0f} s, an assumed shape. Modelled with the five numbers above, from: {source}",
)

# %%
pd.DataFrame(
    {
        "p95 TTFT of chats (ms)": [f"{no_summaries:.0f}", *(f"{found[0]:.0f}" for found in outcome.values())],
        "summaries in time": ["", *(f"{len(done_in_time(found))} of {len(found[1])}" for found in outcome.values())],
        "last one done at": ["", *(f"{(DEADLINE_H + max(done_in_time(found))) % 24:.1f} h" for found in outcome.values())],
        f"machines for a p95 of {2 * no_summaries:.0f} ms": [
            "1",
            *(f"{n}{' or more' if n == 4 else ''}" for n in engines.values()),
        ],
    },
    index=["no summaries", *plans],
)

# %%
late = len(outcome[valley][1]) - len(done_in_time(outcome[valley]))
Markdown(
    (
        f"Bulk work at the peak is paid for in machines ({engines[when_ended]} instead of {engines[valley]}) that stand idle all night. "
        if engines[when_ended] > engines[valley]
        else "In this run the peak would have held the summaries, too; the chats' p95 says at what price. "
    )
    + f"A limit and an order of deadlines alone leave the chats at {outcome[edf][0]:.0f} ms: {BULK_SEATS} seats for bulk, at noon as at night. Told to wait "
    f"for the valley, the summaries leave them at {outcome[valley][0]:.0f} ms, of {no_summaries:.0f} without any, and "
    + ("all are done in time. " if not late else f"{late} of {len(outcome[valley][1])} are cut off at their deadline. ")
    + "Now the money for doing it elsewhere."
)

# %%
price = price_of("gpt-5-mini")
month = {}
for name, rates in {"list price": price.rates, "batch API": price.batch}.items():
    if rates is not None:
        month[name] = (
            30
            * CHATS_PER_DAY
            * BULK_SHARE
            * (PROMPT * float(rates.fresh_input) + OUTPUT * float(rates.visible_output))
            / 1e6
        )

# %%
rate_alone, rate_full = float(curve["max"][1]), float(curve["max"][32])
own = host("cpu2")
mtok = {n: float(cost_per_mtok(own.usd_per_hour, r)) for n, r in ((1, rate_alone), (32, rate_full))}
go = price.batch is not None and WINDOW_H <= (DEADLINE_H - BULK_AT) % 24
pd.DataFrame({"summaries, USD a month": [f"{usd:,.0f}" for usd in month.values()]}, index=list(month))

# %%
Markdown(
    f"**Batch API: {'go' if go else 'no go, as asked'}.** It takes {100 * (1 - month['batch API'] / month['list price']):.0f} % off, but may take {WINDOW_H} hours, and from "
    f"{BULK_AT} h to {DEADLINE_H} h there are {(DEADLINE_H - BULK_AT) % 24}. "
    + (
        ""
        if go
        else f"Ask who reads summaries at {DEADLINE_H} h: if the answer is “by tomorrow evening”, it is a go, and worth {month['list price'] - month['batch API']:,.0f} USD a month. "
    )
    + f"({price.model}, {price.source}, {price.as_of}.) At peak traffic it has another virtue: providers commonly count it against limits of its own.\n\n"
    f"**On a machine of one's own** company is everything: a million output tokens of this small model cost {mtok[1]:.3f} USD "
    f"written one answer at a time, and {mtok[32]:.3f} USD written for 32 at once ({own.usd_per_hour} USD an hour, {own.source}, {own.as_of}). "
    f"That factor of {mtok[1] / mtok[32]:.0f} is what batching is worth here; the engine does it by itself, as long as nothing in front of it keeps requests apart or holds them back.\n\n"
    f"The pressure relieved: machine hours per token. Where it moved: into each person's TPOT ({1000 * tpot[1]:.1f} ms alone, {1000 * tpot[32]:.1f} ms for 32), and "
    "into the question who may wait. In production, watch the number of running and of waiting requests: waiting above zero while seats are free means that something in front of the engine is batching for you."
)

# %%
written = 30 * CHATS_PER_DAY * OUTPUT / 1e6
book.bill(
    "company: 32 answers at once",
    of="machines of one's own, output tokens",
    before=written * mtok[1],
    after=written * mtok[32],
    source=f"{own.name}, {own.usd_per_hour} USD an hour, {own.source}, {own.as_of}. Rates measured: {source}",
)

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz(
    "07.q1",
    "An engine with a machine to itself batches continuously. A library offers to hold requests for 50 ms “to fill the batch”. "
    "What do you expect?",
    options=(
        "every request waits, and throughput gains nothing",
        "3 to 5 times the throughput",
        "the same waits, fewer tokens",
    ),
    answer="every request waits, and throughput gains nothing",
    why="The engine forms a new batch at every step. A hold in front of it adds waiting and leaves seats empty meanwhile.",
)

# %%
book.quiz(
    "07.q2",
    "Chunked prefill cuts a long prompt into pieces. Who gains?",
    options=("those who are writing while it is read", "the one who sent the long prompt", "nobody: the work is the same"),
    answer="those who are writing while it is read",
    why="Each step is shorter, so their next tokens come sooner. The long prompt itself takes a little longer.",
)

# %%
book.quiz(
    "07.q3",
    "Interactive and bulk traffic share eight seats. When does a fixed split into two pools make chats slower?",
    options=("when chats are many and bulk is idle", "when bulk is heavy and chats are few", "never: chats are protected"),
    answer="when chats are many and bulk is idle",
    why="Seats reserved for bulk stay empty while chats queue. Priority in one pool has no such seats.",
)

# %% [markdown]
# ## Next
#
# **08 · KV cache optimization**: more company needs more memory. What does a seat cost in gigabytes, and what happens when they
# run out?

# %%
await live.aclose()
book.progress()
