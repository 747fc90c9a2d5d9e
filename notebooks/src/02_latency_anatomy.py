# %% [markdown]
# # 02 · Latency anatomy: where the waiting comes from
#
# **The question.** You rent a machine by the hour. How many requests can it answer in that hour before somebody waits too
# long, and what does one answer cost then? Whoever cannot say it *before* the run rents twice as many machines as needed, or
# finds out on the day of the launch.
#
# **You will be able to** take a request's waiting apart into queue, prefill and decode; say from a prompt's length and the
# number of users what TTFT and TPOT will be; fit that model to an engine in half a minute and state its error; measure load
# without fooling yourself; and read a GPU's datasheet for the two numbers that matter.
#
# **Time.** 60 minutes. **Needs.** Nothing beyond chapter 00; one small engine starts on this machine.

# %% tags=["imports"]
import asyncio
from collections.abc import Sequence
from itertools import islice, pairwise, repeat

import altair as alt
import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import Markdown

from labkit.cost import host
from labkit.engines import connect
from labkit.engines.modelled import Trace, simulate
from labkit.experiments import concurrency, prefill, recordings
from labkit.latency import (
    IDEAL,
    StepWork,
    break_even_tokens,
    catalogue,
    datasheet_model,
    hardware,
    kv_tokens,
    percentile,
    shape,
)
from labkit.load import (
    ExactLengths,
    ProbePlan,
    closed_loop,
    compare,
    constant,
    error_table,
    gamma,
    open_loop,
    poisson,
    probe,
    settings_of,
    two_views,
)
from labkit.request import Chunk, Done, Handler, Request, Timing, Usage, clock, complete
from labkit.workbook import PALETTE, Figure, live_chart, show

# %% [markdown]
# ## Predict
#
# Three guesses before anything runs. They stay beside the results until the end of the chapter.

# %%
book.predict(
    "02.prefill",
    "A prompt gets eight times as long, from 150 tokens to 1,200. How many times as long does the first token take?",
    low=1,
    high=16,
    unit="times",
)

# %%
book.predict(
    "02.batch",
    "32 people get their answers at the same time instead of one. How many times as long does each of their tokens take?",
    low=1,
    high=40,
    unit="times",
)

# %%
book.predict(
    "02.error",
    "A model with eleven constants, fitted for half a minute, predicts the waiting under loads it has never seen. By how much "
    "will it be wrong, in the median?",
    low=0,
    high=60,
    unit="%",
)

# %% [markdown]
# ## Run
#
# ### One request, taken apart
#
# A request waits four times: on its way to the engine, in its **queue**, while the engine reads the prompt (**prefill**), and
# while it writes (**decode**). The client sees two of these moments only, the first token and the last. The engine keeps its
# own books about all of them, in histograms at `/metrics`. Put the two side by side.

# %%
live = await connect(book.engine, model="small", progress=print)
source = live.provenance.caption()
make = ExactLengths(str(live.tokenizer_path), seed)  # requests of exactly so many prompt and output tokens
settings = await settings_of(live)
for _ in range(3):
    await complete(live, make(256, 8))  # the first requests of an engine's life warm it up

before = await live.metrics()
alone = await closed_loop(live, [make(600, 48) for _ in range(book.pick(ci=5, learn=10, gpu=10))], 1)
inside = (await live.metrics()) - before
views = {view.metric: view for view in two_views(alone.samples, inside)}

parts = pd.DataFrame(
    [
        ("way to the engine and back", views["E2E"].outside),
        ("queue", inside.queue_time.mean),
        ("prefill", inside.prefill_time.mean),
        ("decode", inside.decode_time.mean),
    ],
    columns=["part", "seconds"],
)
parts["ms"] = 1000 * parts.seconds.clip(lower=0)
biggest = parts.loc[parts.ms.idxmax()]
show(
    alt.Chart(parts)
    .mark_bar()
    .encode(
        x=alt.X("ms:Q", title="milliseconds of one request, on average"),
        y=alt.Y("part:N", title=None, sort=list(parts.part)),
        color=alt.Color(
            "part:N", legend=None, scale=alt.Scale(range=[PALETTE[c] for c in ("grey", "pink", "blue", "orange")])
        ),
        tooltip=["part:N", alt.Tooltip("ms:Q", format=".2f")],
    )
    .properties(height=130, title=f"{biggest.part.capitalize()} is {100 * biggest.ms / parts.ms.sum():.0f} % of the wait"),
    alt="Bars of where one request's time goes. " + " ".join(f"{p.part}: {p.ms:.1f} ms." for p in parts.itertuples()),
    source=f"600 tokens in, 48 out, {len(alone.samples)} requests, one at a time. Engine's histograms and the client's clock: {source}",
)

# %%
pd.DataFrame(
    {
        "the client's clock, mean (ms)": [1000 * view.client for view in views.values()],
        "the engine's histogram, mean (ms)": [1000 * view.engine for view in views.values()],
        "in between (ms)": [1000 * view.outside for view in views.values()],
    },
    index=list(views),
).round(2)

# %% [markdown]
# The engine's numbers are smaller, and both are right. Its TTFT starts when its own front end has the request, and ends when
# the token leaves; the client's begins at the send and ends when it has read the token. In between lie HTTP, JSON and the
# client's own loop, paid once: TPOT hardly sees them. When somebody quotes a TTFT at you, ask *whose*. (There is more to ask:
# some tools spread TTFT over the output tokens and call that TPOT. This lab's TPOT is (E2E − TTFT) / (output tokens − 1).)
#
# ### Reading and writing cost differently
#
# Prefill takes the whole prompt at once. Decode takes one token after another, but it can take one token of *many people*
# at once. So two questions, two sweeps: the first token against the length of the prompt, one request at a time; then each
# later token against the number of people.

# %%
repeats = book.pick(ci=5, learn=9, gpu=9)
lengths = (150, 300, 600, 900, 1200)
measured = pd.DataFrame(  # the lengths in turns, so that a busy moment of this machine meets all of them
    [await prefill(live, make, prompt_tokens=n) for _ in range(repeats) for n in lengths]
)
read = pd.DataFrame({"prompt": measured.prompt_tokens, "ms": 1000 * measured.ttft_s})
first = read.groupby("prompt").ms.median()
factor = float(first.loc[1200] / first.loc[150])
slope = 100 * np.polyfit(first.index, first, 1)[0]
book.reveal("02.prefill", factor, unit="times")
show(
    (
        alt.Chart(read)
        .mark_circle(size=50, opacity=0.5, color=PALETTE["blue"])
        .encode(x=alt.X("prompt:Q", title="prompt tokens"), y=alt.Y("ms:Q", title="TTFT (ms)", scale=alt.Scale(domainMin=0)))
        + alt.Chart(first.reset_index()).mark_line(color=PALETTE["red"]).encode(x="prompt:Q", y="ms:Q")
    ).properties(title=f"Eight times the prompt, {factor:.1f} times the wait"),
    alt="TTFT against prompt tokens. Medians: " + ", ".join(f"{n} tokens {ms:.1f} ms" for n, ms in first.items()) + ".",
    source=f"Points: each request; line: medians. {source}",
)
Markdown(
    f"Eight times the prompt, **{factor:.1f} times** the wait: part of TTFT does not depend on the prompt at all. "
    + (
        f"Beyond that start, every further hundred tokens of prompt cost {slope:.2f} ms."
        if slope > 0
        else "The prompt's own share is lost in the noise of this machine right now; run the cell again in a quieter moment."
    )
)

# %%
people = (1, 2, 4, 8, 16, 32)
company = pd.DataFrame(
    [await concurrency(live, make, people=n) for n in people * book.pick(ci=3, learn=5, gpu=5)]  # 64 tokens in, 48 out
)
decode = pd.DataFrame(
    {
        "people": company.people,
        "TPOT (ms)": 1000 * company.tpot_s,
        "tokens per second, all together": company.output_tokens_per_s,
    }
)
decode = decode.groupby("people").median()
slower = float(decode.iloc[-1]["TPOT (ms)"] / decode.iloc[0]["TPOT (ms)"])
faster = float(decode.iloc[-1].iloc[1] / decode.iloc[0].iloc[1])
book.reveal("02.batch", slower, unit="times")
panels = [
    alt.Chart(decode.reset_index())
    .mark_line(point=True, color=colour)
    .encode(
        x=alt.X("people:Q", title="answers at the same time", scale=alt.Scale(type="log", base=2)),
        y=alt.Y(f"{column}:Q", title=column, scale=alt.Scale(domainMin=0)),
    )
    .properties(width=230, height=190)
    for column, colour in zip(decode.columns, (PALETTE["orange"], PALETTE["green"]), strict=True)
]
show(
    alt.hconcat(*panels).properties(
        title=f"32 people: each token takes {slower:.1f} times as long, and the machine writes {faster:.1f} times as many"
    ),
    alt="Two lines against the number of simultaneous answers. "
    + " ".join(f"{n} at once: TPOT {r.iloc[0]:.1f} ms, {r.iloc[1]:.0f} tokens per second." for n, r in decode.iterrows()),
    source=f"64 tokens in, 48 out, medians of several rounds. {source}",
)

# %% [markdown]
# That is the most important chart in LLM serving. The machine sells tokens by the second; the customer feels TPOT. A batch
# makes both numbers grow, throughput much faster than TPOT, until it does not. Is that this small model's peculiarity? Here
# is the same measurement, made by the same function (`labkit record concurrency`), on other models and machines.

# %%
elsewhere = [m for m in recordings("concurrency") if m.variant in ("default", "bf16", "fp8")]
others = pd.concat(
    [
        m.frame()
        .query("prompt_tokens == prompt_tokens.min()")
        .assign(engine=f"{m.provenance.model}, {m.provenance.device}, {m.provenance.date[:10]}")
        for m in elsewhere
    ]
    + [company.assign(engine="this run")]
)
frontier = others.groupby(["engine", "people"], as_index=False).median(numeric_only=True)
frontier["TPOT (ms)"] = 1000 * frontier.tpot_s
show(
    alt.Chart(frontier)
    .mark_line(point=True)
    .encode(
        x=alt.X("TPOT (ms):Q", title="TPOT (ms): what each person feels", scale=alt.Scale(type="log")),
        y=alt.Y("output_tokens_per_s:Q", title="tokens per second, all together", scale=alt.Scale(type="log")),
        color=alt.Color("engine:N", title=None, legend=alt.Legend(orient="bottom", columns=1, labelLimit=500)),
        order="people:Q",
        tooltip=["engine:N", "people:Q", "TPOT (ms):Q", "output_tokens_per_s:Q"],
    )
    .properties(title="Every engine trades one person's speed for everybody's tokens"),
    alt="Throughput against TPOT, a line per engine, from one person to many. "
    + " ".join(
        f"{name}: from {r.output_tokens_per_s.iloc[0]:.0f} tokens/s at {r['TPOT (ms)'].iloc[0]:.1f} ms "
        f"to {r.output_tokens_per_s.iloc[-1]:.0f} at {r['TPOT (ms)'].iloc[-1]:.1f} ms."
        for name, r in frontier.groupby("engine")
    ),
    source="; ".join(dict.fromkeys([f"This run: {source}", *(m.caption() for m in elsewhere)])),
)

# %% [markdown]
# A line that goes straight up gives company for nothing; a line that goes right takes from each what it gives to others.
# Where does it bend, and why?
#
# ### Two roofs
#
# A step multiplies every token in it with every weight, and to do so it reads the weights **once**. With one token in the
# step, the machine reads gigabytes to do very little arithmetic: it is **memory-bound**, and more tokens ride along almost
# for free. With hundreds of tokens (a long prompt, or a large batch) arithmetic becomes the limit: **compute-bound**, and
# every token costs. Where one turns into the other is on the datasheet: FLOP/s divided by bytes/s.

# %%
eight = shape("llama-3.1-8b")
machines = [hardware(key) for key in ("l4", "a100-80", "h100", "h200", "mi300x")]
tokens = np.unique(np.geomspace(1, 4096, 60).round().astype(int))
roofs = pd.DataFrame(
    [
        {
            "machine": machine.name,
            "tokens": int(n),
            "per second": n / max(model.linear_s * n, model.weights_s),
        }
        for machine in machines
        for model in [datasheet_model(eight, machine, reached=IDEAL)]
        for n in tokens
    ]
)
corner = {machine.name: break_even_tokens(datasheet_model(eight, machine, reached=IDEAL)) for machine in machines}
show(
    alt.Chart(roofs)
    .mark_line()
    .encode(
        x=alt.X("tokens:Q", title="tokens in a step", scale=alt.Scale(type="log")),
        y=alt.Y("per second:Q", title="tokens per second, at best", scale=alt.Scale(type="log")),
        color=alt.Color("machine:N", title=None, sort=[m.name for m in machines]),
        tooltip=["machine:N", "tokens:Q", alt.Tooltip("per second:Q", format=",.0f")],
    )
    .properties(
        title=f"Below {min(corner.values()):.0f} to {max(corner.values()):.0f} tokens in a step, tokens are nearly free"
    ),
    alt="Rooflines of Llama 3.1 8B on five accelerators: rising with the tokens in a step, then flat. Corners: "
    + ", ".join(f"{name} {at:.0f} tokens" for name, at in corner.items())
    + ".",
    source="Computed from datasheets (dense BF16, no losses), not measured: " + "; ".join(m.source for m in machines),
)

# %% [markdown]
# Decode with a handful of users lives far left, prefill far right. That is why they get different hardware in large fleets,
# and why “buy the GPU with more FLOPs” does nothing for a chat with few users.
#
# ### A model of this engine, in half a minute
#
# The same idea with eleven constants: what a step costs in itself, per sequence, per token, per pair of tokens in attention,
# and what a request costs outside the steps. Nobody has to guess them. The next cell measures lone prompts, answers side by
# side, and prompts that cut into a running answer, and fits the constants.

# %%
plan = ProbePlan(repeats=book.pick(ci=4, learn=6, gpu=6))
calibration = await probe(live, make, plan)
fitted = calibration.model
names = {
    "step_s": "a step, in itself",
    "sequence_s": "each sequence in it",
    "linear_s": "each new token: arithmetic",
    "weights_s": "reading the weights, once a step",
    "pair_s": "attention: each pair of tokens",
    "kv_s": "reading the KV cache: each token",
    "request_s": "a request, outside the steps",
    "prompt_token_s": "each prompt token, outside the steps",
    "frontend_s": "the front end, for one request after another",
    "admit_s": "each sequence that enters the batch",
    "crowd_s": "a request's way, for each answer under way",
}
print(f"Fitted to {len(calibration.errors)} points, median error {100 * calibration.median_error:.1f} % on these.")
pd.DataFrame({"microseconds": [1e6 * getattr(fitted, n) for n in names]}, index=list(names.values())).round(4)

# %% [markdown]
# A model is worth what it says about what it has **not** seen. So: other lengths, other numbers of people, and requests that
# come when they like. The same requests run through the live engine and through a **modelled engine**, which has vLLM's
# scheduler and KV cache rules and takes its time from the constants above.

# %%
load = book.rng("loads")


def mixed(n):
    return [make(load.randrange(40, 500), load.randrange(8, 64)) for _ in range(n)]


n = book.pick(ci=24, learn=60, gpu=60)
busy = await closed_loop(live, mixed(n), 12)
capacity = len(busy.samples) / busy.seconds
runs = {"12 at a time": busy}
runs["450 tokens, alone"] = await closed_loop(live, [make(450, 30) for _ in range(6)], 1)
runs["5 at a time"] = await closed_loop(live, mixed(n), 5)
runs["Poisson, half of capacity"] = await open_loop(live, zip(islice(poisson(capacity / 2, seed), n), mixed(n), strict=True))
runs["bursts, half of capacity"] = await open_loop(
    live, zip(islice(gamma(capacity / 2, 2.5, seed), n), mixed(n), strict=True)
)
compared = [row for name, run in runs.items() for row in compare(name, run, fitted, settings)]
points = pd.DataFrame(
    [
        {"load": c.load, "metric": c.metric, "measured": c.measured, "forecast": c.forecast, "error": 100 * c.error}
        for c in compared
    ]
)
table = pd.DataFrame(
    [
        {"metric": e.metric, "median error": f"{100 * e.median:.1f} %", "p95": f"{100 * e.p95:.1f} %", "worst": e.worst.load}
        for e in error_table(compared)
    ]
).set_index("metric")
typical = float(points.error.abs().median())
book.reveal("02.error", typical, unit="%")
table

# %%
seconds = points[points.metric != "output tokens/s"].copy()
seconds[["measured", "forecast"]] *= 1000
low, high = seconds[["measured", "forecast"]].min().min() * 0.8, seconds[["measured", "forecast"]].max().max() * 1.25
show(
    (
        alt.Chart(pd.DataFrame({"x": [low, high], "y": [low, high]}))
        .mark_line(color=PALETTE["grey"], strokeDash=[4, 3])
        .encode(x="x:Q", y="y:Q")
        + alt.Chart(seconds)
        .mark_point(size=70, filled=True)
        .encode(
            x=alt.X("forecast:Q", title="forecast (ms)", scale=alt.Scale(type="log", domain=[low, high])),
            y=alt.Y("measured:Q", title="measured (ms)", scale=alt.Scale(type="log", domain=[low, high])),
            color=alt.Color("load:N", title=None),
            shape=alt.Shape("metric:N", title=None),
            tooltip=["load:N", "metric:N", alt.Tooltip("forecast:Q", format=".1f"), alt.Tooltip("measured:Q", format=".1f")],
        )
    ).properties(title=f"Half of the forecasts are within {typical:.0f} % of what was measured"),
    alt="Measured against forecast latencies; on the dashed diagonal they would agree. "
    + " ".join(f"{p.load}, {p.metric}: {p.error:+.0f} %." for p in seconds.itertuples()),
    source=f"Measured: {source}. Forecast: modelled, from constants fitted above.",
)
Markdown(
    f"Half of all these numbers are forecast within **{typical:.1f} %**. Look where it misses. What the engine does by itself, "
    "TPOT and throughput, is forecast best. TTFT under load tends to be *under*estimated: the front end, and this notebook, which "
    "plays the users, share the machine's cores with the engine. The model has two constants for that (a queue, and a "
    "crowd), and they are a caricature of three processes that fight for cores. Tails depend on who met whom. So read the p95 column before you "
    "promise anything."
)

# %% [markdown]
# ### How to measure load without fooling yourself
#
# There are two ways to generate load. A **closed loop** keeps so many requests under way and sends the next when one ends. An
# **open loop** sends when a user would, whatever became of the others. Now let an engine stall for ten seconds, as engines do
# (a garbage collection, a neighbour, a restart). On the virtual clock this takes no time at all.


# %%
async def stalls(request):
    """An engine that answers in a tenth of a second, but serves nobody from second 20 to second 30."""
    asked = clock.now()
    await asyncio.sleep((30 - asked if 20 <= asked < 30 else 0) + 0.1)
    yield Chunk("yes", clock.now())
    yield Done(Usage(1, 1), Timing(asked, clock.now(), clock.now(), clock.now()))


ask = Request("hello")
shut = clock.run_virtual(closed_loop(stalls, [ask] * 600, 1))
opened = clock.run_virtual(open_loop(stalls, zip(islice(constant(10), 600), repeat(ask))))
views = {"closed loop": shut, "open loop": opened}
tails = {name: percentile([s.ttft_from_due for s in run.samples], 95) for name, run in views.items()}
felt = pd.DataFrame(
    [
        {"how": name, "due": s.due - run.begin, "TTFT (s)": s.ttft_from_due}
        for name, run in views.items()
        for s in run.samples
    ]
)
show(
    alt.Chart(felt)
    .mark_circle(size=18, opacity=0.7)
    .encode(
        x=alt.X("due:Q", title="when the request was due (s)"),
        y=alt.Y("TTFT (s):Q"),
        color=alt.Color("how:N", legend=None),
        row=alt.Row("how:N", title=None, sort=["open loop", "closed loop"]),
    )
    .properties(
        height=90,
        title=f"The same stall: p95 is {tails['closed loop']:.1f} s to one, {tails['open loop']:.1f} s to the other",
    ),
    alt=f"TTFT against time for two load generators. The open loop shows a triangle of waiting requests, p95 "
    f"{tails['open loop']:.1f} s; the closed loop a single late one, p95 {tails['closed loop']:.1f} s.",
    source="Simulated on the virtual clock with the lab's own load generators.",
)

# %% [markdown]
# Six hundred requests each, one and the same engine. The closed loop sent nothing while it waited, so it has *one* bad sample
# and an excellent p95. This is called **coordinated omission**, and it is in many benchmarks you will be shown. Use closed
# loops to find capacity, open loops to learn what users feel.

# %% [markdown]
# ## Move
#
# Everything above in one picture, on the model of *this* engine. Set what your users ask and what you promise them, and read
# off how many requests per second the machine can take. The dots are simulations of 250 requests each, with vLLM's scheduler.
# The sliders start at three times the TTFT and twice the TPOT that somebody alone on the machine gets.


# %%
lone = simulate(Trace(np.zeros(1), np.array([300]), np.array([40])), fitted, settings)
lone_ttft, lone_tpot = float(lone.ttft[0]), float(lone.tpot[0])


def promise(prompt, output, ttft_ms, tpot_ms):
    draw = np.random.default_rng(1)
    gaps = draw.exponential(size=250)
    lengths_in = np.clip(draw.gamma(4, prompt / 4, size=250), 1, 1500).astype(int)
    lengths_out = np.clip(draw.gamma(4, output / 4, size=250), 2, 400).astype(int)
    alone = fitted.step_seconds(StepWork.of([(1, prompt)] * 32)) * output / 32 + fitted.linear_s * prompt
    rates = np.geomspace(0.05, 1.5, 14) / alone
    rows = []
    for rate in rates:
        said = simulate(Trace(np.cumsum(gaps) / rate, lengths_in, lengths_out), fitted, settings)
        met = (said.ttft <= ttft_ms / 1000) & (said.tpot <= tpot_ms / 1000)
        rows.append({"rate": rate, "met": 100 * met.mean(), "good": rate * met.mean()})
    data = pd.DataFrame(rows)
    kept = data[data.met >= 95]
    most = kept.rate.max() if len(kept) else 0.0
    line = alt.Chart(data).encode(x=alt.X("rate:Q", title="requests per second", scale=alt.Scale(type="log")))
    chart = line.mark_line(point=True, color=PALETTE["blue"]).encode(
        y=alt.Y("met:Q", title="requests that keep the promise (%)", scale=alt.Scale(domain=[0, 100]))
    ) + alt.Chart(pd.DataFrame({"y": [95]})).mark_rule(color=PALETTE["red"], strokeDash=[4, 3]).encode(y="y:Q")
    title = (
        f"{most:.1f} requests per second keep the promise for 95 %" if most else "This promise cannot be kept at any rate"
    )
    return Figure(
        chart.properties(title=title),
        alt=f"Share of requests within the promise against the request rate. {title}.",
        source=f"Modelled with the constants fitted above, Poisson arrivals. Constants from: {source}",
    )


live_chart(
    promise,
    prompt=w.IntSlider(300, 20, 1000, 20, description="prompt tokens"),
    output=w.IntSlider(40, 5, 200, 5, description="output tokens"),
    ttft_ms=w.IntSlider(round(3000 * lone_ttft), 5, 1000, 5, description="TTFT ≤ ms"),
    tpot_ms=w.IntSlider(max(2, round(2000 * lone_tpot)), 1, 100, 1, description="TPOT ≤ ms"),
)

# %% [markdown]
# Try this: halve the TTFT you promise and see the rate fall off a cliff, not a slope. Then double the output instead of the
# prompt. Which of the two is dearer?

# %% [markdown]
# ## Do
#
# {{exercise 02.1}}
# A stream left you the time it was sent, the arrival of each chunk, and the number of output tokens (chunks may hold several).
# Return TTFT, TPOT and the longest pause between two chunks, in seconds; the stream ends with its last chunk.


# %% exercise="02.1"
def three_clocks(sent: float, arrivals: Sequence[float], tokens: int) -> tuple[float, float | None, float]:
    """TTFT, TPOT (None for one token) and the longest pause between chunks (0 for a single chunk)."""
    ...  # your code here


# %%
book.check("02.1", three_clocks)

# %% [markdown]
# {{exercise 02.2}}
# Throughput counts every answer. **Goodput** counts those that anybody would call good: within both objectives. Exactly at an
# objective is within it.


# %% exercise="02.2"
def goodput(answers: Sequence[tuple[float | None, float | None]], seconds: float, ttft: float, tpot: float) -> float:
    """Requests per second within both limits. Answers are (TTFT, TPOT); a TTFT of None failed, a TPOT of None had one token."""
    ...  # your code here


# %%
book.check("02.2", goodput)

# %% [markdown]
# {{exercise 02.3}}
# You are offered another GPU. From its datasheet (bytes per second, dense FLOP per second) and the model's shape, return the
# least time of one decode step for a batch.


# %% exercise="02.3"
def decode_step(
    weight_bytes: float,
    flops_per_token: float,
    kv_bytes_per_token: float,
    batch: int,
    context: int,
    bandwidth: float,
    flops: float,
) -> float:
    """Seconds of one decode step: the slower of weights and arithmetic, then the reading of every sequence's KV cache."""
    ...  # your code here


# %%
book.check("02.3", decode_step)

# %% [markdown]
# With it, the next cell says what Llama 3.1 8B would do on machines you do not have: TPOT for a chat with 32 users and a
# context of 2,000 tokens. It is the *least* possible time. Real engines reach perhaps two thirds of it; where the lab has a
# recording of such a machine, later chapters put it beside this.

# %%
promised = pd.DataFrame(
    [
        {
            "machine": m.name,
            "least TPOT (ms)": 1000
            * book.reference("02.3")(
                eight.weight_bytes(), 2 * eight.active, eight.kv_bytes(), 32, 2000, m.bandwidth, m.flops()
            ),
            "KV cache (tokens)": f"{kv_tokens(eight, m):,}",
        }
        for m in catalogue().values()
        if m.kind == "gpu" and m.memory_gb > 20
    ]
).set_index("machine")
promised.round(1)

# %% [markdown]
# {{exercise 02.4}}
# Write the load generator that does not fool you: it sends each request when it is due, and counts TTFT from then. Your
# function runs on the same clocks and against the same engines as the lab's.


# %% exercise="02.4"
async def send_on_time(handler: Handler, requests: Sequence[Request], times: Sequence[float]) -> list[float]:
    """Send each request at its time (seconds from now); return TTFTs, from when they were due, in order."""
    begin = clock.now()
    found = []
    for request, due in zip(requests, times, strict=True):
        await asyncio.sleep(max(0.0, begin + due - clock.now()))
        sent = clock.now()
        found.append((await complete(handler, request)).chunks[0].at - sent)
    return found


# %%
book.check("02.4", send_on_time)

# %% [markdown]
# ## So what
#
# Back to the machine rented by the hour. The portal promises 95 of 100 users a first token within three times, and every
# further token within twice, what somebody alone on the machine would wait. What does an answer cost at the rate that keeps
# this promise, and what would the same machine cost per answer if nobody had promised anything?

# %% tags=["constants"]
PROMISED_TTFT, PROMISED_TPOT = 3, 2  # times what one gets alone
PROMPT, OUTPUT = 300, 40

# %%
draw = np.random.default_rng(seed + 2)
asked = np.clip(draw.gamma(4, PROMPT / 4, 600), 1, 1500).astype(int)
written = np.clip(draw.gamma(4, OUTPUT / 4, 600), 2, 400).astype(int)
gaps = draw.exponential(size=600)


def kept(rate):
    said = simulate(Trace(np.cumsum(gaps) / rate, asked, written), fitted, settings)
    good = (said.ttft <= PROMISED_TTFT * lone_ttft) & (said.tpot <= PROMISED_TPOT * lone_tpot)
    return float(good.mean())


flat_out = simulate(Trace(np.zeros(600), asked, written), fitted, settings)
capacity = 600 / float(flat_out.done.max())
low, high = 0.01 * capacity, capacity
for _ in range(18):  # bisection: the largest rate that keeps the promise for 95 %
    middle = (low * high) ** 0.5
    low, high = (middle, high) if kept(middle) >= 0.95 else (low, middle)
machine = host("cpu2")
per_answer = {name: float(machine.usd_per_hour) / 3600 / rate for name, rate in (("promised", low), ("flat out", capacity))}
pd.DataFrame(
    {
        "requests per second": [f"{low:.2f}", f"{capacity:.2f}"],
        "USD per 1,000 answers": [f"{1000 * per_answer['promised']:.5f}", f"{1000 * per_answer['flat out']:.5f}"],
    },
    index=["keeping the promise for 95 %", "flat out, everybody queues"],
)

# %%
Markdown(
    f"The promise costs **{100 * (per_answer['promised'] / per_answer['flat out'] - 1):.0f} %** more per answer than a machine "
    f"run flat out ({machine.usd_per_hour} USD an hour, {machine.source}, {machine.as_of}; rates modelled with the constants "
    f"fitted above). That is the price of latency, and from here on every lever is judged by both numbers. The pressure "
    f"relieved: guesswork. Where it moved: into the promise itself, so argue about that one. In production, watch the share "
    f"of requests within both objectives, not the averages."
)

# %%
answers = 100_000 * 4 * 30  # the portal's users, their questions a day, and a month
book.bill(
    "a promise of latency",
    of="machines of one's own, answering all of it",
    before=answers * per_answer["flat out"],
    after=answers * per_answer["promised"],
    source=f"{machine.name}, {machine.usd_per_hour} USD an hour, {machine.source}, {machine.as_of}. Rates modelled; constants from: {source}",
)

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz(
    "02.q1",
    "A chat has few users, each waiting long for every token. Which figure of a new GPU's datasheet tells whether it helps?",
    options=("memory bandwidth", "dense FLOP/s", "FLOP/s with sparsity"),
    answer="memory bandwidth",
    why="A small decode step reads all the weights for a few tokens: it is memory-bound, and arithmetic waits.",
)

# %%
book.quiz(
    "02.q2",
    "Your load test keeps 8 requests under way and reports a splendid p99. In production p99 is terrible. What is likely?",
    options=(
        "the test waited for the engine, and users do not",
        "the test used too few requests for a p99",
        "production uses longer prompts",
    ),
    answer="the test waited for the engine, and users do not",
    why="A closed loop stops sending while the engine stalls. The other two may be true as well, but this one hides any stall.",
)

# %%
book.quiz(
    "02.q3",
    "Two tools report TPOT for the same run, one clearly higher. Which explanation fits?",
    options=(
        "one divides E2E by all tokens, TTFT included",
        "one counts tokens, the other words",
        "the engine was faster for one of them",
    ),
    answer="one divides E2E by all tokens, TTFT included",
    why="Definitions differ between tools; TTFT spread over the tokens raises TPOT, most for short answers.",
)

# %% [markdown]
# ## Next
#
# **03 · Prompt caching**: most of prefill is the same prefix, over and over. What is it worth not to read it again?

# %%
await live.aclose()
book.progress()
