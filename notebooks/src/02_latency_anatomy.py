# %% [markdown]
# # 02 · Latency anatomy: where the waiting comes from
#
# **The question.** A support portal rents GPUs for its assistant. How many does it need, if its users are promised that nobody
# waits too long, and what does this promise add to the bill? Whoever cannot say it *before* the run rents twice what is
# needed, or finds out on the day of the launch.
#
# **You will be able to** take a request's waiting apart into queue, prefill and decode; say from a prompt's length and the
# number of users what TTFT (the time to the first token) and TPOT (the time of each further one) will be; fit that model to an
# engine in half a minute and state its error; measure load without fooling yourself; and read a GPU's datasheet for the two
# numbers that matter.
#
# **Time.** {{time}} **Needs.** Chapter 00. {{needs}}

# %% tags=["imports"]
import asyncio
import math
from collections.abc import Sequence
from itertools import accumulate, islice, pairwise, repeat

import altair as alt
import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy.optimize import nnls

from labkit.cost import host
from labkit.engines.modelled import EngineSettings, Trace, simulate
from labkit.experiments import concurrency, prefill, recordings, silicon, silicon_errors, silicon_points
from labkit.latency import (
    HOPPER,
    IDEAL,
    SLO,
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
from labkit.portal import DAYS, PORTAL, Rented, fleet, today
from labkit.request import Chunk, Done, Handler, Request, Timing, Usage, clock, complete
from labkit.workbook import PALETTE, Figure, below, live_chart, show
from labkit.workbook.pictures import draw_picture, roofline

# %%
book.warm_up()

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
live = await book.connect("small")
make = None if book.lacks("tokenizer") else ExactLengths(str(live.tokenizer_path), seed)  # prompts of exactly so many tokens


async def warm():
    for _ in range(3):
        await complete(live, make(256, 8))  # the first requests of an engine's life are slow
    return await settings_of(live)


async def taken_apart(_):
    before = await live.metrics()
    run = await closed_loop(live, [make(600, 48) for _ in range(book.pick(ci=2, learn=3))], 1)
    inside = (await live.metrics()) - before
    times = (inside.queue_time.mean, inside.prefill_time.mean, inside.decode_time.mean)
    return two_views(run.samples, inside), times


settings = (await book.measure("the engine's settings", warm)).value
alone = await book.measure("one request, taken apart", taken_apart, rounds=book.pick(ci=5, learn=9))

# %%
names = ("way to the engine and back", "queue", "prefill", "decode")
parts = pd.DataFrame(
    [
        {"part": part, "ms": max(0.0, 1000 * seconds)}
        for views, inside in alone.value
        for part, seconds in zip(names, (views[-1].outside, *inside), strict=True)
    ]
)
typical_ms = parts.groupby("part", sort=False).ms.median().reset_index()
biggest = typical_ms.loc[typical_ms.ms.idxmax()]
y = alt.Y("part:N", title=None, sort=list(names))
show(
    (
        alt.Chart(typical_ms)
        .mark_bar()
        .encode(
            x=alt.X("ms:Q", title="milliseconds of one request"),
            y=y,
            color=alt.Color(
                "part:N", legend=None, scale=alt.Scale(range=[PALETTE[c] for c in ("grey", "pink", "blue", "orange")])
            ),
            tooltip=["part:N", alt.Tooltip("ms:Q", format=".2f")],
        )
        + alt.Chart(parts).mark_tick(opacity=0.5, size=16).encode(x="ms:Q", y=y)
    ).properties(
        height=130, title=f"{biggest.part.capitalize()} is {100 * biggest.ms / typical_ms.ms.sum():.0f} % of the wait"
    ),
    alt="Bars of where one request's time goes. " + " ".join(f"{p.part}: {p.ms:.1f} ms." for p in typical_ms.itertuples()),
    source="600 tokens in, 48 out, one at a time. Bars: medians of the rounds, which are the ticks. "
    f"Engine's histograms and the client's clock: {alone.source}",
)

# %%
seen = pd.DataFrame(
    [
        {"metric": v.metric, "client": v.client, "engine": v.engine, "between": v.outside}
        for views, _ in alone.value
        for v in views
    ]
)
between = (1000 * seen.groupby("metric", sort=False).median()).round(2)
between.columns = ["the client's clock (ms)", "the engine's histogram (ms)", "in between (ms)"]
between

# %%
Markdown(
    f"Of the first token, {between.iloc[0, 2]:.1f} ms lie between the two clocks; of each further token, "
    f"{between.iloc[1, 2]:.2f} ms."
)

# %% [markdown] tags=["reasoned"]
# Where the two differ, both are right. The engine's TTFT starts when its own front end has the request, and ends when
# the token leaves; the client's begins at the send and ends when it has read the token. In between lie HTTP, JSON and the
# client's own loop, paid once for the request and not for each token. When somebody quotes a TTFT at you, ask *whose*.
# (Definitions differ, too: some tools spread TTFT over the output tokens and call that TPOT. Here, TPOT is
# (E2E − TTFT) / (output tokens − 1), where E2E is the time from the send to the last token.)
#
# ### Reading and writing cost differently
#
# Prefill takes the whole prompt at once. Decode takes one token after another, but it can take one token of *many people*
# at once. So two questions, two sweeps: the first token against the length of the prompt, one request at a time; then each
# later token against the number of people.


# %%
async def read_lengths(_):  # the lengths in turns, so that a busy moment of this machine meets all of them
    return [await prefill(live, make, prompt_tokens=n) for n in (150, 300, 600, 900, 1200)]


async def read_people(_):
    return [await concurrency(live, make, people=n) for n in (1, 2, 4, 8, 16, 32)]  # 64 tokens in, 48 out each


reading = await book.measure("first token by length", read_lengths, rounds=book.pick(ci=7, learn=11))
writing = await book.measure("tokens by people", read_people, rounds=book.pick(ci=5, learn=7))

# %%
read = pd.DataFrame([{"prompt": row["prompt_tokens"], "ms": 1000 * row["ttft_s"]} for rows in reading.value for row in rows])
first = read.groupby("prompt").ms.median()
factors = [rows[-1]["ttft_s"] / rows[0]["ttft_s"] for rows in reading.value]
slopes = [
    100 * float(np.polyfit([row["prompt_tokens"] for row in rows], [1000 * row["ttft_s"] for row in rows], 1)[0])
    for rows in reading.value
]
factor, slope = float(np.median(factors)), float(np.median(slopes))
book.reveal("02.prefill", factors, unit="times")
show(
    (
        alt.Chart(read)
        .mark_circle(size=50, opacity=0.35, color=PALETTE["blue"])
        .encode(x=alt.X("prompt:Q", title="prompt tokens"), y=alt.Y("ms:Q", title="TTFT (ms)", scale=alt.Scale(domainMin=0)))
        + alt.Chart(first.reset_index()).mark_line(color=PALETTE["red"]).encode(x="prompt:Q", y="ms:Q")
    ).properties(title=f"Eight times the prompt, {factor:.1f} times the wait"),
    alt="TTFT against prompt tokens. Medians: " + ", ".join(f"{n} tokens {ms:.1f} ms" for n, ms in first.items()) + ".",
    source=f"Points: each request; line: medians. {reading.source}",
)

# %%
book.finding(
    below(factors, [8.0] * len(factors)),
    f"Eight times the prompt, **{factor:.1f} times** the wait: a part of TTFT does not depend on the prompt at all.",
    f"Eight times the prompt, **{factor:.1f} times** the wait: on this engine nearly all of TTFT is the reading of the "
    "prompt.",
)
book.finding(
    below([0.0] * len(slopes), slopes),
    f"Every further hundred tokens of prompt cost {slope:.2f} ms.",
    "Longer prompts did not take longer in this run, so it says nothing about what reading costs.",
    "What a hundred tokens of prompt cost is lost in the noise of this machine right now.",
)

# %%
company = pd.DataFrame([row for rows in writing.value for row in rows])
decode = pd.DataFrame(
    {
        "people": company.people,
        "TPOT (ms)": 1000 * company.tpot_s,
        "tokens per second, all together": company.output_tokens_per_s,
    }
)
middle = decode.groupby("people").median()
slower = [rows[-1]["tpot_s"] / rows[0]["tpot_s"] for rows in writing.value]
gained = [rows[-1]["output_tokens_per_s"] / rows[0]["output_tokens_per_s"] for rows in writing.value]
panels = []
for column, colour in zip(middle.columns, (PALETTE["orange"], PALETTE["green"]), strict=True):
    x = alt.X("people:Q", title="answers at the same time", scale=alt.Scale(type="log", base=2))
    y = alt.Y(f"{column}:Q", title=column, scale=alt.Scale(domainMin=0))
    points = alt.Chart(decode[["people", column]]).mark_circle(opacity=0.35, color=colour).encode(x=x, y=y)
    line = alt.Chart(middle[[column]].reset_index()).mark_line(color=colour).encode(x=x, y=y)
    panels.append((points + line).properties(width=230, height=190))
book.reveal("02.batch", slower, unit="times")
show(
    alt.hconcat(*panels).properties(
        title=f"{int(middle.index[-1])} people: {np.median(slower):.1f} times the TPOT, "
        f"{np.median(gained):.1f} times the tokens"
    ),
    alt="Two lines against the number of simultaneous answers. "
    + " ".join(f"{n} at once: TPOT {r.iloc[0]:.1f} ms, {r.iloc[1]:.0f} tokens per second." for n, r in middle.iterrows()),
    source=f"64 tokens in, 48 out; points: rounds, lines: medians. {writing.source}",
)

# %%
book.finding(
    below(slower, gained),
    f"The machine sells tokens by the second; the customer feels TPOT. A batch of {int(middle.index[-1])} makes both grow, "
    "but "
    f"not alike: **{np.median(gained):.1f} times** the tokens for **{np.median(slower):.1f} times** the TPOT. Somebody "
    "alone on "
    "the machine pays for all of it.",
    f"Here a batch of {int(middle.index[-1])} is no bargain: {np.median(gained):.1f} times the tokens for "
    f"{np.median(slower):.1f} "
    "times the TPOT.",
)

# %% [markdown] tags=["further"]
# ### The same trade on other engines
#
# Is that this small model's peculiarity? Here is the same measurement, made by the same function (`labkit record
# concurrency`), on other models and machines. Where a line goes straight up, more people cost nobody anything; where it goes
# right, everybody's tokens come more slowly.

# %%
elsewhere = [m for m in recordings("concurrency") if m.variant in ("default", "bf16", "fp8")]
others = pd.concat(
    [
        m.frame()
        .query("prompt_tokens == prompt_tokens.min()")
        .assign(engine=f"{m.provenance.model}, {m.provenance.device}, {m.provenance.date[:10]}")
        for m in elsewhere
    ]
    + [company.assign(engine="the chapter's recording" if writing.recorded else "this run")]
)
frontier = others.groupby(["engine", "people"], as_index=False).median(numeric_only=True)
frontier["TPOT (ms)"] = 1000 * frontier.tpot_s
traded = [
    name
    for name, r in frontier.groupby("engine")
    if r.output_tokens_per_s.iloc[-1] > r.output_tokens_per_s.iloc[0] and r.tpot_s.iloc[-1] > r.tpot_s.iloc[0]
]
show(
    alt.Chart(frontier)
    .mark_line(point=True)
    .encode(
        x=alt.X(
            "TPOT (ms):Q", title="TPOT (ms): what each person feels", scale=alt.Scale(type="log", nice=False, padding=20)
        ),
        y=alt.Y("output_tokens_per_s:Q", title="tokens per second, all together", scale=alt.Scale(type="log")),
        color=alt.Color("engine:N", title=None, legend=alt.Legend(orient="bottom", columns=1, labelLimit=500)),
        order="people:Q",
        tooltip=["engine:N", "people:Q", "TPOT (ms):Q", "output_tokens_per_s:Q"],
    )
    .properties(
        title=f"{len(traded)} of {frontier.engine.nunique()} engines trade each person's pace for everybody's tokens"
    ),
    alt="Throughput against TPOT, a line per engine, from one person to many. "
    + " ".join(
        f"{name}: from {r.output_tokens_per_s.iloc[0]:.0f} tokens/s at {r['TPOT (ms)'].iloc[0]:.1f} ms "
        f"to {r.output_tokens_per_s.iloc[-1]:.0f} at {r['TPOT (ms)'].iloc[-1]:.1f} ms."
        for name, r in frontier.groupby("engine")
    ),
    source="; ".join(dict.fromkeys([writing.source, *(m.caption() for m in elsewhere)])),
)

# %% [markdown] tags=["reasoned"]
# ### Two roofs
#
# A step multiplies every token in it with every weight, and to do so it reads the weights **once**. With one token in the
# step, the machine reads gigabytes to do very little arithmetic: it is **memory-bound**, and more tokens ride along almost
# for free. With hundreds of tokens (a long prompt, or a large batch) arithmetic becomes the limit: **compute-bound**, and
# every token costs. Where one turns into the other is on the datasheet: FLOP/s divided by bytes/s. Here is the portal's
# own pair, Llama 3.1 8B on an H100:

# %%
eight = shape(PORTAL.assistant.model)
ideal_h100 = datasheet_model(eight, hardware(PORTAL.assistant.gpu), reached=IDEAL)
draw_picture(roofline(ideal_h100, decode=(1, 16), prefill=2048, name="Llama 3.1 8B on an H100"))

# %% [markdown]
# And the same roofs of five accelerators:

# %%
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
        x=alt.X("tokens:Q", title="tokens in a step", scale=alt.Scale(type="log", nice=False)),
        y=alt.Y("per second:Q", title="tokens per second, at the datasheet's peak", scale=alt.Scale(type="log")),
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

# %% [markdown] tags=["reasoned"]
# Decode with a handful of users lies far left, prefill far right. That is why large fleets give them different hardware, and
# why a GPU with more FLOP/s does nothing for a chat with few users.
#
# ### The model beside public silicon
#
# A datasheet says what is possible. What does vLLM reach? NVIDIA publishes measurements of it, in its package
# *aiconfigurator-core* (version 0.12.0): those of SemiAnalysis (InferenceX, October 2025) with Llama 3.1 70B, and its own
# with Qwen3 32B and Llama 3.1 8B, on one to eight GPUs that share the model (**tensor parallel**: every GPU holds a slice of
# each layer). A point says how many people had one request under way each, and the TTFT and TPOT that they got.
#
# The next cell asks the model for the same points, in two versions, both with vLLM's scheduler:
#
# - *the peaks*: a step takes what the two roofs say;
# - *as served*: less than the peaks, and time that no datasheet knows. Seven constants say how much. They were fitted to the
#   TTFT and TPOT of the Llama 70B points, and to nothing else. The fit was stopped after fifteen rounds, and some constants
#   can trade places (time a layer, time an all-reduce, time a request). So believe them together, and none of them alone.
#
# What the others' files do not say had to be chosen: whether their times are means or medians (means: they fit better), and
# how long each prompt was. InferenceX draws lengths from 80 to 100 % of the nominal ones; NVIDIA does not say. The model
# takes InferenceX's way for all, *after* the other was seen: if all lengths are equal, people stay in step with one another
# and queue for the same prefill, and TTFT comes out quite different. So the cell runs Qwen's points both ways. Its TTFT is no
# blind test.

# %%
ROLE = {
    "llama-3.1-70b": "Llama 3.1 70B (fitted here)",
    "qwen3-32b": "Qwen3 32B (unseen)",
    "llama-3.1-8b": "Llama 3.1 8B (doubtful)",
}
QWEN, DOUBTFUL = ROLE["qwen3-32b"], ROLE["llama-3.1-8b"]
VERSIONS = {"the peaks": (IDEAL, 0.8), "as served": (HOPPER, 0.8), "as served, equal lengths": (HOPPER, 1.0)}
every = book.pick(ci=5, learn=2, gpu=1)
public = [p for p in silicon_points() if p.model in ROLE and p.model != "llama-3.1-8b"][::every]
public += [p for p in silicon_points() if p.model == "llama-3.1-8b"]
said = {name: [] for name in VERSIONS}
for point in book.track(public, "the model serves the public points"):
    for name, (reached, shortest) in VERSIONS.items():
        said[name].append(
            point.predicted(reached, shortest=shortest) if shortest < 1 or point.model == "qwen3-32b" else None
        )

# %%
ratios = pd.DataFrame(
    [
        {
            "points": ROLE[point.model],
            "version": name,
            "people": point.people,
            "GPUs": point.gpus,
            "prompt": point.prompt_tokens,
            "metric": metric,
            "ratio": getattr(one, field) / getattr(point.measured, field),
        }
        for name, ones in said.items()
        for point, one in zip(public, ones, strict=True)
        if one is not None
        for metric, field in (("TTFT", "ttft_s"), ("TPOT", "tpot_s"))
    ]
)
off = ratios.assign(size=100 * (ratios.ratio - 1).abs()).groupby(["points", "version", "metric"])["size"].median()
lean = 100 * (ratios.groupby(["points", "version", "metric"]).ratio.median() - 1)
show(
    alt.Chart(ratios)
    .mark_point(filled=True, opacity=0.6, size=30)
    .encode(
        x=alt.X("people:Q", title="people at a time", scale=alt.Scale(type="log", base=2)),
        y=alt.Y(
            "ratio:Q",
            title="model / measured",
            scale=alt.Scale(type="log", domain=[0.1, 10], clamp=True),
            axis=alt.Axis(values=[0.1, 0.3, 1, 3, 10]),
        ),
        color=alt.Color(
            "version:N",
            title=None,
            scale=alt.Scale(domain=list(VERSIONS), range=[PALETTE["grey"], PALETTE["blue"], PALETTE["orange"]]),
            legend=alt.Legend(orient="bottom"),
        ),
        column=alt.Column("metric:N", title=None, sort=["TTFT", "TPOT"]),
        row=alt.Row("points:N", title=None, sort=list(ROLE.values())),
        tooltip=["points:N", "version:N", "GPUs:Q", "people:Q", "prompt:Q", alt.Tooltip("ratio:Q", format=".2f")],
    )
    .properties(
        height=120,
        title=f"TPOT of the unseen Qwen3: {off[QWEN, 'the peaks', 'TPOT']:.0f} % off at the peaks, "
        f"{off[QWEN, 'as served', 'TPOT']:.0f} % as served",
    ),
    alt="Model divided by measurement against the number of people, for TTFT and TPOT; 1 would be right. Median errors: "
    + ", ".join(f"{where}, {version}, {metric} {value:.0f} %" for (where, version, metric), value in off.items())
    + ".",
    source="Model: computed in this run, ten requests a person. Measured: "
    + "; ".join(one.caption() for one in silicon() if one.provenance.model in ROLE),
)

# %%
mixed_off, equal_off = ({m: lean[QWEN, version, m] for m in ("TTFT", "TPOT")} for version in list(VERSIONS)[1:])
moved = {m: abs(equal_off[m] - mixed_off[m]) for m in mixed_off}
Markdown(
    f"The unseen Qwen, as served, in the median: **TPOT** {mixed_off['TPOT']:+.0f} % with mixed lengths and "
    f"{equal_off['TPOT']:+.0f} % "
    f"with equal ones; **TTFT** {mixed_off['TTFT']:+.0f} % and {equal_off['TTFT']:+.0f} %. "
    + (
        "So the error of TPOT says something about the model. That of TTFT says more about the load, which NVIDIA does not "
        "publish: "
        "when somebody quotes a TTFT at you, also ask how their load was made."
        if moved["TTFT"] > 2 * moved["TPOT"]
        else "In this run the lengths move both about as much."
    )
)

# %%
left_out = [(p, said["as served"][i]) for i, p in enumerate(public) if p.model == "llama-3.1-8b"]
too_fast = sum(
    p.measured.tokens_per_s > said["the peaks"][i].tokens_per_s for i, p in enumerate(public) if p.model == "llama-3.1-8b"
)
alone_ratio = np.median(
    [
        p.latency(HOPPER).step_seconds(StepWork.of([(1, p.prompt_tokens + p.output_tokens // 2)] * p.people))
        / p.measured.tpot_s
        for p, _ in left_out
    ]
)
book.finding(
    too_fast > 0,
    f"On Llama 3.1 8B the model as served is far off: TTFT {lean[DOUBTFUL, 'as served', 'TTFT']:+.0f} %, TPOT "
    f"{lean[DOUBTFUL, 'as served', 'TPOT']:+.0f} %. Part of that is the numbers' fault: in {too_fast} of these "
    f"{len(left_out)} points the engine writes more tokens per second than the GPU could at its peaks, so they were not "
    "measured as they are described. Perhaps parts of the prompts came from a cache. "
    + (
        "Part is probably the model's: if no prompt had to be read at all, its TPOT would still be "
        f"{alone_ratio:.1f} times the measured one. Its constants come from a model of 80 layers on another version of "
        "vLLM, and in "
        "a small model's step they weigh more. Nobody here can tell the two apart."
        if alone_ratio > 1
        else "That could be all: if no prompt had to be read, the model's TPOT would be "
        f"{alone_ratio:.1f} times the measured one."
    ),
    f"On Llama 3.1 8B the model as served is off by {lean[DOUBTFUL, 'as served', 'TTFT']:+.0f} % in TTFT and "
    f"{lean[DOUBTFUL, 'as served', 'TPOT']:+.0f} % in TPOT, and none of the points is beyond the peaks.",
)

# %% [markdown] tags=["further"]
# ### The errors in full, beside others'
#
# Errors per metric, since they cancel in the whole. Others publish means of theirs (called MAPE), each on their own points.

# %%
PEERS = [  # mean absolute relative errors: TTFT, TPOT (%)
    ("BLIS-Evolved, 38 runs (inference-sim/inference-sim, pull request 944, 2026)", 22.8, None),
    ("AIConfigurator on A100, a user's report (ai-dynamo/aiconfigurator, issue 1205, 2026)", 45.0, None),
    ("AISimulate on SGLang, 84 points (ai-dynamo/aisimulate, pull request 262, 2026)", 33.9, 10.3),
    ("SGLang Simulator, Qwen3 32B on H20, its worst case (sgl-project/sglang, pull request 33010, 2026)", 3.05, 1.11),
]
ours = []
for model, where in ROLE.items():
    for name, ones in said.items():
        at = [i for i, p in enumerate(public) if p.model == model and ones[i] is not None]
        if at:
            errors = silicon_errors([public[i] for i in at], [ones[i] for i in at])
            ours.append(
                {"who": f"this lab, {name}: {where}, {len(at)} points"}
                | {f"{e.metric}, median": f"{100 * e.median:.0f} %" for e in errors[:2]}
                | {f"{e.metric}, mean": f"{100 * e.mean:.0f} %" for e in errors[:2]}
            )
theirs = [
    {"who": who} | {f"{m}, mean": f"{v:.0f} %" for m, v in (("TTFT", ttft), ("TPOT", tpot)) if v is not None}
    for who, ttft, tpot in PEERS
]
pd.DataFrame(ours + theirs).set_index("who").fillna("").style  # pandas would cut long names

# %% [markdown]
# ### A model of this engine, in half a minute
#
# The same idea with eleven constants: what a step costs in itself, per sequence, per token, per pair of tokens in attention,
# and what a request costs outside the steps. Nobody has to guess them. The next cell measures lone prompts, answers side by
# side, and prompts that cut into a running answer, and fits the constants.


# %%
async def calibrate():
    return await probe(live, make, ProbePlan(repeats=book.pick(ci=3, learn=6), rounds=book.pick(ci=2, learn=3)))


probed = await book.measure("a model of the engine", calibrate)
calibration, fitted = probed.value, probed.value.model
print(f"Fitted to {len(calibration.errors)} points, median error {100 * calibration.median_error:.1f} % on these.")

# %%
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
pd.DataFrame({"microseconds": [1e6 * getattr(fitted, n) for n in names]}, index=list(names.values())).round(4)

# %%
reading_ms = 1000 * (fitted.linear_s + fitted.prompt_token_s) * 600
outside_ms = 1000 * (fitted.request_s + fitted.frontend_s)
Markdown(
    f"Look at what the constants say about a first token: of a prompt of 600 tokens, {reading_ms:.1f} ms are the tokens, and "
    f"{outside_ms:.1f} ms the request's way outside the steps, for any prompt. "
    + (
        "On this engine “TTFT is the reading of the prompt” is not the whole story, and not even its larger part."
        if outside_ms > reading_ms
        else "On this engine most of that first token is reading."
    )
)

# %% [markdown]
# The fit has seen these points, so their error proves little. The test is what it has **not** seen: other lengths, other
# numbers of people, and requests that come when they like. The same requests run through the live engine and through a
# **modelled engine**, which has vLLM's scheduler and KV cache rules and takes its time from the constants above.

# %%
load = book.rng("loads")


def mixed(n):
    return [make(load.randrange(40, 500), load.randrange(8, 64)) for _ in range(n)]


async def unseen(number):
    n = book.pick(ci=10, learn=40)
    busy = await closed_loop(live, mixed(n), 12)
    half = len(busy.samples) / busy.seconds / 2  # of capacity, in requests a second
    at_random, in_bursts = poisson(half, seed + number), gamma(half, 2.5, seed + number)
    runs = {
        "12 at a time": busy,
        "450 tokens, alone": await closed_loop(live, [make(450, 30) for _ in range(4)], 1),
        "Poisson, half of capacity": await open_loop(live, list(zip(islice(at_random, n), mixed(n), strict=True))),
        "bursts, half of capacity": await open_loop(live, list(zip(islice(in_bursts, n), mixed(n), strict=True))),
    }
    return [row for name, run in runs.items() for row in compare(name, run, fitted, settings)]


tested = await book.measure("loads the model has not seen", unseen, rounds=book.pick(ci=3, learn=5))

# %%
errors = error_table([row for rows in tested.value for row in rows])
typical = [100 * float(np.median([abs(row.error) for row in rows])) for rows in tested.value]
book.reveal("02.error", typical, unit="%")
pd.DataFrame(
    [
        {"metric": e.metric, "median error": f"{100 * e.median:.1f} %", "p95": f"{100 * e.p95:.1f} %", "worst": e.worst.load}
        for e in errors
    ]
).set_index("metric")

# %% tags=["reasoned"]
points = pd.DataFrame(
    [
        {
            "load": c.load,
            "metric": c.metric,
            "measured": 1000 * c.measured,
            "forecast": 1000 * c.forecast,
            "error": 100 * c.error,
        }
        for rows in tested.value
        for c in rows
        if c.metric != "output tokens/s"
    ]
)
centre = points.groupby(["load", "metric"], as_index=False).median()
low, high = points[["measured", "forecast"]].min().min() * 0.8, points[["measured", "forecast"]].max().max() * 1.25
encoding = {
    "x": alt.X("forecast:Q", title="forecast (ms)", scale=alt.Scale(type="log", domain=[low, high], nice=False)),
    "y": alt.Y("measured:Q", title="measured (ms)", scale=alt.Scale(type="log", domain=[low, high], nice=False)),
    "color": alt.Color("load:N", title=None),
    "shape": alt.Shape("metric:N", title=None),
    "tooltip": ["load:N", "metric:N", alt.Tooltip("forecast:Q", format=".1f"), alt.Tooltip("measured:Q", format=".1f")],
}
show(
    (
        alt.Chart(pd.DataFrame({"x": [low, high], "y": [low, high]}))
        .mark_line(color=PALETTE["grey"], strokeDash=[4, 3])
        .encode(x="x:Q", y="y:Q")
        + alt.Chart(points).mark_point(size=40, opacity=0.3).encode(**encoding)
        + alt.Chart(centre).mark_point(size=80, filled=True).encode(**encoding)
    ).properties(title=f"The median forecast misses what was measured by {np.median(typical):.0f} %"),
    alt="Measured against forecast latencies; on the dashed diagonal they would agree. "
    + " ".join(f"{p.load}, {p.metric}: {p.error:+.0f} %." for p in centre.itertuples()),
    source=f"Filled: medians of the rounds. Measured: {tested.source}. Forecast: modelled, from constants fitted above.",
)

# %% tags=["reasoned"]
nearest, farthest = min(errors, key=lambda e: e.median), max(errors, key=lambda e: e.median)
off = float(np.median([c.error for rows in tested.value for c in rows if c.metric == farthest.metric]))
Markdown(
    f"Half of all these numbers are forecast within **{np.median(typical):.1f} %**. Nearest to the truth comes "
    f"{nearest.metric} ({100 * nearest.median:.0f} %), farthest from it {farthest.metric} ({100 * farthest.median:.0f} %), "
    "which "
    f"the model {'under' if off < 0 else 'over'}estimates. "
    + (
        "A first token under load depends on more than the engine's steps: the front end, and this notebook, which plays the "
        "users, share the machine's cores with it. The model has two constants for that (a queue, and a crowd), and they are "
        "a rough picture of three processes on shared cores. "
        if farthest.metric.startswith("TTFT")
        else ""
    )
    + "A tail (p95) depends on who met whom. So read the p95 column before you promise anything."
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
both = {
    "closed loop": clock.run_virtual(closed_loop(stalls, [ask] * 600, 1)),
    "open loop": clock.run_virtual(open_loop(stalls, zip(islice(constant(10), 600), repeat(ask)))),
}

# %%
tails = {name: percentile([s.ttft_from_due for s in run.samples], 95) for name, run in both.items()}
felt = pd.DataFrame(
    [{"how": name, "due": s.due - run.begin, "TTFT (s)": s.ttft_from_due} for name, run in both.items() for s in run.samples]
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

# %% [markdown] tags=["reasoned"]
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


# %%
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
        source=f"Modelled with the constants fitted above, Poisson arrivals. Constants from: {probed.source}",
    )


live_chart(
    promise,
    prompt=w.IntSlider(300, 20, 1000, 20, description="prompt tokens"),
    output=w.IntSlider(40, 5, 200, 5, description="output tokens"),
    ttft_ms=w.IntSlider(round(3000 * lone_ttft), 5, 1000, 5, description="TTFT ≤ ms"),
    tpot_ms=w.IntSlider(max(2, round(2000 * lone_tpot)), 1, 100, 1, description="TPOT ≤ ms"),
)

# %% [markdown] tags=["reasoned"]
# Try this: halve the TTFT you promise. Does the rate go down a slope, or off a cliff? Then take 80 output tokens instead of
# 40, and 600 prompt tokens instead of 300. Which of the two is dearer?

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
    """Requests per second within both limits. Answers are (TTFT, TPOT): TTFT None failed, TPOT None had one token."""
    ...  # your code here


# %%
book.check("02.2", goodput)

# %% [markdown]
# {{exercise 02.3}}
# You are offered another GPU, and its vendor promises a pace. From the datasheet (bytes per second, dense
# FLOP per second) and the model's shape, return the least time that one decode step of a batch can take: no software can beat
# it. A machine can read and compute at the same time, also the keys and values of each sequence; attention's own arithmetic
# is small and left out.


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
    """Seconds that a decode step takes at the least: each weight is read once, each sequence's keys and values too."""
    ...  # your code here


# %%
book.check("02.3", decode_step)

# %% [markdown]
# Your bound, for the portal's assistant: a batch of conversations as long as its history, on machines that you do not have.
# Machines whose memory does not hold the batch beside the weights are left out: they cannot run it, at any pace.

# %% tags=["constants"]
BATCH = 32  # conversations that write at the same time

# %%
HISTORY = PORTAL.assistant.history
bounds = pd.DataFrame(
    [
        {
            "machine": m.name,
            "TPOT, at the least (ms)": 1000
            * book.reference("02.3")(
                eight.weight_bytes(), 2 * eight.active, eight.kv_bytes(), BATCH, HISTORY, m.bandwidth, m.flops()
            ),
            "its limit": "memory"
            if (eight.weight_bytes() + BATCH * HISTORY * eight.kv_bytes()) / m.bandwidth
            > BATCH * 2 * eight.active / m.flops()
            else "arithmetic",
            "such conversations in its memory": f"{kv_tokens(eight, m) // HISTORY:,}",
        }
        for m in catalogue().values()
        if m.kind == "gpu" and m.memory_gb > 20 and kv_tokens(eight, m) >= BATCH * HISTORY
    ]
)
bounds = bounds.set_index("machine").sort_values("TPOT, at the least (ms)")
bounds.style.format({"TPOT, at the least (ms)": "{:.1f}"})

# %% [markdown]
# How far above the bound does serving end? Here are the public points in which prefill hardly cuts into the answers.

# %%
on_silicon = [p for p in public if p.model != "llama-3.1-8b" and p.prompt_tokens * p.people <= 32 * 2_048]
checked = [
    book.reference("02.3")(
        shape(p.model).weight_bytes(p.weights) / p.gpus,
        2 * shape(p.model).active / p.gpus,
        shape(p.model).kv_bytes(p.kv) / p.gpus,
        p.people,
        p.prompt_tokens + p.output_tokens // 2,
        p.gpu.bandwidth,
        p.gpu.flops(p.weights),
    )
    / p.measured.tpot_s
    for p in on_silicon
]
by_gpus = {
    g: 100 * float(np.median(shares))
    for g in (1, 2, 4, 8)
    if (shares := [r for r, p in zip(checked, on_silicon, strict=True) if p.gpus == g])
}
Markdown(
    f"In {len(on_silicon)} of the public points, your bound is this share of the TPOT that was measured (median): "
    + ", ".join(f"{share:.0f} % on {g} GPU{'s' * (g > 1)}" for g, share in by_gpus.items())
    + ". "
    + (
        "The more GPUs share the model, the more of a step is on no datasheet: dividing the bytes does not divide the "
        "rest. So ask a "
        "vendor for a measurement with *your* number of GPUs."
        if list(by_gpus.values()) == sorted(by_gpus.values(), reverse=True)
        else "What is missing to 100 % is not on the datasheet."
    )
)

# %% [markdown] tags=["further"]
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

# %% [markdown] tags=["further"]
# {{exercise 02.5}}
# Before a machine is rented, somebody has to say what it will do under next year's traffic. A benchmark
# says what was measured; a forecaster says what was not, and how sure it is. The lab's has a simulated scheduler behind it.
# Yours has two straight lines and a law that holds for every queue, and you can keep it in your head:
#
# - a first token takes *a way + so much a prompt token + so much for each answer under way*; every further token takes *a
#   step + so much a person + so much a token of context*. You fit these six constants to measured points, by relative errors;
# - under load, the number of answers under way settles where **Little's law** holds: it is the rate times the seconds that
#   each answer is under way, and these seconds depend on the number. While somebody's prompt is read, nobody writes;
# - and a percentile of a sample is itself uncertain. `tail` says within which bounds, without assuming any distribution.
#
# Teams that skip the last point promise a p95 from forty requests. You will see how many it takes.


# %% exercise="02.5"
class Forecaster:
    """Says when first tokens come and how fast the others follow, also under load that nobody has measured."""

    def __init__(self, reading: Sequence[tuple[float, float, float]], writing: Sequence[tuple[float, float, float]]) -> None:
        """Fit the constants to measured points, by least squares of the *relative* errors; none may be below zero.

        `reading`: (prompt tokens, other answers under way, TTFT in s). `writing`: (people, context of each, TPOT in s).
        """
        ...  # your code here

    def first(self, prompt: float, others: float) -> float:
        """TTFT (s) of a prompt of so many tokens that finds `others` answers under way."""
        ...  # your code here

    def each(self, people: float, context: float) -> float:
        """TPOT (s) of `people` answers side by side, each with a context of so many tokens."""
        ...  # your code here

    def crowd(self, rate: float, prompt: float, output: float) -> float:
        """Answers under way on average, at `rate` requests a second; infinite where the engine cannot keep up.

        An answer writes in the company of the others under way. Its context is on average the prompt and half of the output.
        """
        ...  # your code here

    def under(self, rate: float, prompt: float, output: float) -> tuple[float, float]:
        """TTFT and TPOT (s) at `rate` requests a second, each of so many prompt and output tokens."""
        ...  # your code here

    @staticmethod
    def tail(values: Sequence[float], q: float, level: float) -> tuple[float, float | None, float | None]:
        """The percentile `q` (0 to 1) of a sample, and two of its values that enclose the true one with confidence `level`.

        The percentile is the smallest value with a share of q at or below it. A bound that the sample is too small to give is
        None.
        """
        ...  # your code here


# %%
book.check("02.5", Forecaster)

# %% [markdown] tags=["further"]
# The test of a forecaster is what it has not seen. Yours is fitted to the points to which the lab's model was fitted above:
# lone prompts, prompts in a crowd, and steps of answers side by side. Then both are asked for what the chapter measured
# besides.

# %%
made, whose = book.yours("02.5", Forecaster)
foreteller = made(
    [(point.prompt_tokens, point.crowd, point.seconds) for point in calibration.first_tokens],
    [
        (step.work.sequences, step.work.kv_tokens / step.work.sequences, step.seconds)
        for step in calibration.steps
        if step.work.tokens == step.work.sequences  # nobody reads a prompt in it
    ],
)
judged = []  # (what, measured, its forecast, the lab's), seconds; medians of the rounds
for n, ms in first.items():
    lab_says = simulate(Trace(np.zeros(1), np.array([n]), np.array([2])), fitted, settings).ttft[0]
    judged.append((f"TTFT, {n} tokens, alone", ms / 1000, foreteller.first(n, 0), float(lab_says)))
for n, ms in middle["TPOT (ms)"].items():
    lab_says = fitted.step_seconds(StepWork.of([(1, 64 + 24)] * n))
    judged.append((f"TPOT, {n} side by side", ms / 1000, foreteller.each(n, 64 + 24), lab_says))
rows = pd.DataFrame(
    [{"load": c.load, "metric": c.metric, "s": c.measured, "lab": c.forecast} for r in tested.value for c in r]
)
seen_under = rows.groupby(["load", "metric"]).median()
prompt_mean, output_mean = (40 + 499) / 2, (8 + 63) / 2  # of the mixed requests above
come = {load: float(seen_under.s[load, "output tokens/s"]) / output_mean for load in seen_under.index.levels[0]}  # a second
crowded, random = "12 at a time", "Poisson, half of capacity"
a_token = foreteller.first(1, 0) - foreteller.first(0, 0)
writes = 1 - come[crowded] * prompt_mean * a_token  # what reading leaves of each second
foretold = {
    crowded: (foreteller.first(prompt_mean, 11), foreteller.each(12, prompt_mean + output_mean / 2) / writes),
    random: foreteller.under(come[random], prompt_mean, output_mean),
}
for load, says in foretold.items():
    for metric, mine in zip(("TTFT p50", "TPOT p50"), says, strict=True):
        true, lab_says = (float(v) for v in seen_under.loc[(load, metric)])
        judged.append((f"{metric[:4]}, {load}", true, mine, lab_says))

# %%
misses = pd.DataFrame(
    [
        {"point": what, "who": who, "error": 100 * (says / true - 1)}
        for what, true, mine, lab in judged
        for who, says in ((whose, mine), ("labkit.latency", lab))
    ]
)
half = {who: foreteller.tail(list(part.error.abs()), 0.5, 0.9) for who, part in misses.groupby("who")}
show(
    (
        alt.Chart(pd.DataFrame({"x": [0]})).mark_rule(color=PALETTE["grey"]).encode(x="x:Q")
        + alt.Chart(misses)
        .mark_point(size=80, filled=True, opacity=0.85)
        .encode(
            x=alt.X("error:Q", title="forecast against measured (%)"),
            y=alt.Y("point:N", title=None, sort=[what for what, *_ in judged], axis=alt.Axis(labelLimit=260)),
            color=alt.Color(
                "who:N",
                title=None,
                scale=alt.Scale(domain=[whose, "labkit.latency"], range=[PALETTE["blue"], PALETTE["orange"]]),
            ),
            shape=alt.Shape("who:N", title=None),
            tooltip=["point:N", "who:N", alt.Tooltip("error:Q", format="+.1f")],
        )
    ).properties(
        title={
            "text": f"The median forecast misses by {half[whose][0]:.0f} %: {whose}",
            "subtitle": f"labkit.latency: {half['labkit.latency'][0]:.0f} %",
        }
    ),
    alt="Relative errors of two forecasters on points that neither has seen. "
    + " ".join(f"{m.point}, {m.who}: {m.error:+.0f} %." for m in misses.itertuples()),
    source=f"Measured: {reading.source}. Fitted to: {probed.source}",
)
Markdown(
    "\n".join(
        f"- {who}: half of {len(judged)} forecasts are within **{at:.0f} %**; with 90 % confidence, between "
        f"{'—' if low is None else format(low, '.0f')} and {'—' if high is None else format(high, '.0f')} %."
        for who, (at, low, high) in half.items()
    )
)

# %% [markdown]
# ## So what
#
# Back to the machine rented by the hour. The portal promises 95 of 100 users a first token within three times what somebody
# alone on the machine would wait, and a pace. How many requests per second can it sell with this promise, and how many
# without it? First on the machine at hand, where the model's word can be tried. Its small model takes short questions; the
# promised pace is half of what somebody alone gets.

# %% tags=["constants"]
PROMISED_TTFT, PROMISED_TPOT, PROMISED_SHARE = 3, 2, 0.95  # times what one gets alone, to so many of all users
PROMPT, OUTPUT = 300, 40  # means; this machine's, since its model holds none of the assistant's conversations

# %%
draw = np.random.default_rng(seed + 2)
asked = np.clip(draw.gamma(4, PROMPT / 4, 600), 40, 1500).astype(int)
written = np.clip(draw.gamma(4, OUTPUT / 4, 600), 2, 400).astype(int)
gaps = draw.exponential(size=600)
objective = SLO(ttft=PROMISED_TTFT * lone_ttft, tpot=PROMISED_TPOT * lone_tpot)


def kept_at(rate, work, model, settings, slo):
    """Share of the work, (gaps, prompts, answers), that is served within the objectives when so much comes in a second."""
    gaps, prompts, answers = work
    said = simulate(Trace(np.cumsum(gaps) / rate, prompts, answers), model, settings)
    return float(((said.ttft <= slo.ttft) & (said.tpot <= slo.tpot)).mean())


def largest_rates(work, model, settings, slo):
    """Requests per second: flat out (all of them wait at the door), and the most of which enough are served in time."""
    everybody = Trace(np.zeros(len(work[0])), *work[1:])
    flat_out = len(everybody) / float(simulate(everybody, model, settings).done.max())
    low, high = 0.01 * flat_out, flat_out
    for _ in range(18):  # bisection
        between = (low * high) ** 0.5
        low, high = (between, high) if kept_at(between, work, model, settings, slo) >= PROMISED_SHARE else (low, between)
    return flat_out, low


mine = (gaps, asked, written)
capacity, low = largest_rates(mine, fitted, settings, objective)
print(f"By the model, {low:.2f} requests a second keep the promise for {PROMISED_SHARE:.0%}; flat out it is {capacity:.2f}.")

# %% [markdown]
# You have seen what the model is bad at, and this promise depends on it. So nobody signs on its word: send requests at that
# rate, and at two lower ones, to the engine itself, and count those within both objectives.


# %%
async def keep_promise(number):
    n, rows = book.pick(ci=15, learn=50), []
    for share in (1.0, 0.7, 0.4):
        at = slice(number * n, (number + 1) * n)
        requests = [make(int(p), int(o)) for p, o in zip(asked[at], written[at], strict=True)]
        run = await open_loop(live, list(zip(np.cumsum(gaps[at]) / (share * low), requests, strict=True)))
        rows.append({"share": share, "rate": share * low, "kept": sum(map(objective.met, run.samples)), "sent": n})
    return rows


tried = await book.measure("the promise, tried", keep_promise, rounds=book.pick(ci=3, learn=5))

# %%
trial = pd.DataFrame([row for rows in tried.value for row in rows])
found = trial.groupby("share", sort=False).agg(rate=("rate", "median"), kept=("kept", "sum"), sent=("sent", "sum"))
found["kept"] /= found.sent
good = found[found.kept >= PROMISED_SHARE]
margin = float(good.index.max()) if len(good) else float(found.index.min())
rows = [(f"tried: {share:.0%} of the model's rate", r.rate, 100 * r.kept) for share, r in found.iterrows()]
rows.append(("modelled: flat out, everybody queues", capacity, 100 * kept_at(capacity, mine, fitted, settings, objective)))
tries = pd.DataFrame(rows, columns=["rate", "requests per second", "within the promise (%)"]).set_index("rate")
tries.style.format({"requests per second": "{:.2f}", "within the promise (%)": "{:.0f}"})

# %%
book.finding(
    found.kept.iloc[0] >= PROMISED_SHARE,
    f"The engine keeps the promise at the model's own rate: {found.kept.iloc[0]:.0%} of {found.sent.iloc[0]} requests were "
    "within.",
    f"At the model's own rate only {found.kept.iloc[0]:.0%} of {found.sent.iloc[0]} requests were within the promise. "
    + (
        f"At {margin:.0%} of that rate it is kept. That is this model's safety margin, and it was found by trying."
        if len(good)
        else f"It is not kept at {margin:.0%} of that rate either, the lowest that was tried, so the bill below is an "
        "underestimate. On a busy machine, try again in a quieter moment."
    ),
)

# %% [markdown]
# ### The portal's GPUs
#
# The portal's *assistant* holds long conversations on rented GPUs. Between two turns its engine drops what it knows of a
# conversation, as vLLM does by itself when others need the memory. So a turn is one long prefill, all of the history again,
# and then an answer. People plan for averages: as many GPUs as are busy for every second of the busiest hour. That is the
# portal of today, and it is *flat out*.
#
# Now promise something: to 95 of 100 turns a first token within three times what somebody alone would wait, and then the
# pace that `PORTAL.assistant` names. No H100 is at hand here to try it on. The model *as served* has to say it, with two
# corrections:
#
# - **By public silicon.** The promised pace is absolute, so the model's error counts: its TPOT is divided by what it said of
#   the unseen Qwen points, relative to the measured ones. The promise on the first token needs none: it is a multiple of the
#   model's own lone first token, so an error that both share drops out. (Beside them stand two extremes: the peaks, and the
#   correction by the doubtful points of Llama 3.1 8B, which is the assistant's own model.)
# - **By trying.** On *this* machine the model's rate had to be lowered by a margin, which was found by trying. Nothing says that
#   a GPU has the same, so it is not on the bill. It stands beside it as the risk, until somebody tries on the GPU itself.

# %%
chat = PORTAL.assistant
card, talker = hardware(chat.gpu), shape(chat.model)
gpu_settings = EngineSettings(
    num_blocks=kv_tokens(talker, card) // 16 + 1, max_num_batched_tokens=8192, enable_prefix_caching=False
)
turns = 2_000
draw = np.random.default_rng(seed + 3)
talk = (draw.exponential(size=turns), np.full(turns, chat.history - chat.answer), np.full(turns, chat.answer))
versions = {  # what is reached of the datasheet, and how many times too long the model's TPOT is
    "at the peaks": (IDEAL, 1.0),
    "as served": (HOPPER, 1.0),
    "as served, pace corrected by Qwen3": (HOPPER, 1 + lean[QWEN, "as served", "TPOT"] / 100),
    "the same, by the doubtful Llama 3.1 8B": (HOPPER, 1 + lean[DOUBTFUL, "as served", "TPOT"] / 100),
}
arrive = PORTAL.sessions / DAYS * chat.turns * PORTAL.peak_share / 3600  # turns a second in the busiest hour
sold = []
for reached, slow in versions.values():
    gpu_model = datasheet_model(talker, card, reached=reached)
    first_s = float(simulate(Trace(np.zeros(1), talk[1][:1], talk[2][:1]), gpu_model, gpu_settings).ttft[0])
    promise_made = SLO(ttft=PROMISED_TTFT * first_s, tpot=slow / chat.tokens_per_s)
    sold.append((first_s, *largest_rates(talk, gpu_model, gpu_settings, promise_made)))
promised = pd.DataFrame(sold, columns=["alone", "flat out", "model"], index=list(versions))
promised["times"] = promised["flat out"] / promised.model
promised["at risk"] = promised.times / margin

# %%
signed = promised.loc["as served, pace corrected by Qwen3"]
columns = {
    "alone": "lone first token (s)",
    "flat out": "turns/s, flat out",
    "model": "turns/s, promised",
    "times": "times the GPUs",
    "at risk": f"times, at {margin:.0%} of that rate",
}
promised[list(columns)].rename(columns=columns).style.format("{:.2f}")

# %% tags=["reasoned"]
at_least = "" if len(good) else "at least "
now, change = today(), Rented("assistant", times=float(signed.times))
then, feared = change.made(now), Rented("assistant", times=float(signed["at risk"])).made(now)
Markdown(
    f"**Flat out,** an H100 serves {signed['flat out']:.2f} turns a second. The busiest hour brings {arrive:.1f}, so "
    "averages ask for "
    f"{arrive / signed['flat out']:.1f} GPUs. (The portal's own plan, from the datasheet and memory, comes to "
    f"{now.machines[0].gpus:.1f}, and it rents {now.machines[0].rented}; there, {fleet(PORTAL).found:.0%} of the turns find their "
    "history still in memory, which this forecast leaves out.) **With the promise** a GPU sells "
    f"{signed.model:.2f} turns a second, so it takes **{signed.times:.2f} times** the GPUs. That is queueing: people come when "
    "they like, and whoever comes while a long history is read has to wait.\n\n"
    f"How much hangs on the speed that we assume? Qwen corrects the pace by {lean[QWEN, 'as served', 'TPOT']:+.0f} %, the "
    "doubtful "
    f"points by {lean[DOUBTFUL, 'as served', 'TPOT']:+.0f} %. From the slowest to the quickest of these versions, a GPU's "
    "turns change "
    "by a factor of "
    f"{promised['flat out'].max() / promised['flat out'].min():.1f}; the factor stays between "
    f"{promised.times.min():.2f} and "
    f"{promised.times.max():.2f}. So the bill takes the factor, and leaves the portal's own count of GPUs as it is."
)

# %% tags=["reasoned"]
dearer = float(then.of("assistant") - now.of("assistant"))
Markdown(
    f"**What moved, and who pays?** Waiting became idle machines. The portal pays {dearer:,.0f} USD a month more for the "
    f"assistant ({then.machines[0].rented} GPUs in place of {now.machines[0].rented}), {100 * dearer / PORTAL.sessions:.2f} cents a "
    f"conversation. **The risk:** with the margin that this machine needed it would be {at_least}{feared.machines[0].rented} GPUs, "
    f"{at_least}{float(feared.of('assistant') - then.of('assistant')):,.0f} USD a month more. Half an hour of measuring on the GPU decides "
    f"it, for {float(host(chat.host).usd_per_hour) / 2:.2f} USD of rent.\n\n"
    "It is the price of one sentence in a contract, so discuss the sentence: why 95 of 100, and why three times? The GPUs "
    "are rented "
    "for the busiest hour and idle for much of the day; chapter 07 finds them work for the night. Most of a turn is a "
    "history that is "
    "read again; chapter 08 keeps it, and whoever reads less queues less: that is not counted back here. In production, watch the share "
    "of requests within both objectives, not averages."
)

# %%
book.bill(
    "a promise of latency",
    change,
    of="assistant",
    source=f"GPU: modelled ({card.source}), as served, with its pace corrected by public points of Qwen3 32B. "
    f"Rent: {host(chat.host).source}, {host(chat.host).as_of}.",
)

# %% [markdown]
# ### On your own data
# Write the path of your log into the field: how many of your calls kept a promise of one second to the first token and
# twenty tokens a second, and how long the slowest twentieth waited. For that, a log must hold when each call was sent, its
# first token and its end.

# %%
book.on_your_data()

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz("02.q1")

# %%
book.quiz("02.q2")

# %%
book.quiz("02.q3")

# %% [markdown]
# ## Next
#
# **03 · Prompt caching**: most of prefill is the same prefix, over and over. What is it worth not to read it again?

# %%
await book.close()
book.progress()
