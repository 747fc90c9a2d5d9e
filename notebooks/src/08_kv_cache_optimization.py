# %% [markdown]
# # 08 · KV cache: what a session's memory costs, and what happens when it runs out
#
# **The question.** The portal's GPUs are half idle and still full: they ran out of memory, not of arithmetic. Every open
# conversation keeps its keys and values there, and the next GPU costs thousands a month. How many conversations fit, what
# happens to the one too many, and which way to make room costs least, once wrong answers have a price?
#
# **You will be able to** say to the byte what a token takes in memory, for any model; predict how many conversations an engine
# holds before it throws one out, and what that costs; and choose a plan for the rest: fewer bits, fewer seats, forgetting, or
# fetching from main memory.
#
# **Time.** {{time}} **Needs.** Chapters 02 and 03. Some small engines start on this machine, each with less memory than it
# would like. {{needs}}

# %% tags=["imports"]
import asyncio
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import altair as alt
import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy.stats import binomtest
from transformers import AutoTokenizer

from labkit.caches import PrefixCache
from labkit.cost import host
from labkit.engines.host import STEP_LOG, read_step_log
from labkit.engines.modelled import Block, EngineSettings
from labkit.experiments import recordings, silicon_says
from labkit.kvcache import (
    Allocator,
    Lengths,
    blocks_for,
    computed_twice,
    contiguous,
    foretold,
    kv_size,
    mean_block_waste,
    offload_break_even,
    paged,
    plan,
    replayed,
    step_memory,
    watchable,
)
from labkit.lab import examples, families, long_examples, wilson
from labkit.latency import Reached, datasheet_model, hardware, read_config, shape_of
from labkit.load import ExactLengths
from labkit.portal import PORTAL, Machines, Rented, Stays, fleet
from labkit.request import Message, Request, clock, complete
from labkit.workbook import PALETTE, Figure, below, live_chart, show, watch_blocks
from labkit.workbook.chapters.builds.b08 import LabMemory, served
from labkit.workbook.chapters.c08 import CONFIGS, chat_traffic, cost_of, differences, gauges_during, hit_share
from labkit.workbook.pictures import draw_picture, kv_heads

# %%
book.warm_up()

# %% [markdown]
# ## Predict

# %%
book.predict(
    "08.session",
    "One conversation of 8,000 tokens on Llama 3.1 8B, whose weights take 16 GB. How much GPU memory do its keys and values "
    "take, at 16 bits each?",
    low=1,
    high=20_000,
    unit="MB",
    log=True,
)

# %%
book.predict(
    "08.twice",
    "Ten clients share an engine whose memory holds about half of what they need at once. Whoever finds no room throws "
    "somebody else out, who starts again later. What share of all the tokens it computes does it compute again?",
    low=0,
    high=100,
    unit="%",
)

# %%
book.predict_choice(
    "08.fp8",
    "Keys and values in 8 bits instead of 16: twice the sessions in the same memory. How many of the lab model's answers "
    "come out in other words?",
    options=("none", "up to one in ten", "more than one in ten"),
)

# %% [markdown]
# ## Run
#
# ### What a token takes
#
# To write the next token, a model looks back at every token before it: at a *key* and a *value* that each left in every layer.
# They are kept, because to compute them again for each new token would cost more than all the rest. How much is kept is a plain
# product, and model designs differ in its factors:
#
# - **MHA** (multi-head attention): each attention head keeps its own pair of key and value.
# - **GQA** (grouped-query): groups of heads share one pair. **MQA** (multi-query): all heads share one.
# - **MLA** (multi-head latent): one compressed vector for all heads instead of pairs.
# - **Sliding window**: a layer drops what is further back than its window.

# %%
draw_picture(kv_heads(query_heads=8, kv_heads=2))

# %% tags=["constants"]
SESSION = PORTAL.assistant.history  # tokens of one long conversation of the portal's assistant

# %%
sizes = {name: kv_size(config) for name, config in CONFIGS.items()}
book.reveal("08.session", sizes["Llama 3.1 8B"].sequence_bytes(SESSION) / 1e6, unit="MB")

# %%
reads = {name: read_config(config)["max_position_embeddings"] for name, config in CONFIGS.items()}
takes = {
    (name, kv): f"{kv_size(config, kv).sequence_bytes(SESSION) / 1e6:,.0f}&nbsp;MB" if reads[name] >= SESSION else "–"
    for name, config in CONFIGS.items()
    for kv in ("bf16", "fp8")
}
Markdown(
    f"| model | reads at most | a token, in 16 bits | {SESSION:,} tokens | in fp8 |\n|---|--:|---|--:|--:|\n"
    + "\n".join(
        f"| {name} | {reads[name]:,} tokens | {size.arithmetic} | {takes[name, 'bf16']} | {takes[name, 'fp8']} |"
        for name, size in sizes.items()
    )
)

# %%
LOG_TOKENS = alt.Scale(type="log", domain=[500, 128_000], nice=False)
TOKEN_AXIS = alt.Axis(values=[500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000], labelAngle=-45)
grown = pd.DataFrame(
    [
        {"model": f"{name} ({size.kind})", "tokens": int(n), "GB": size.sequence_bytes(int(n)) / 1e9}
        for name, size in sizes.items()
        for n in np.geomspace(500, min(128_000, reads[name]), 40)
    ]
)
at_4k = {name: size.sequence_bytes(4_000) / 1e9 for name, size in sizes.items()}
small, big = min(at_4k, key=at_4k.get), max(at_4k, key=at_4k.get)
labels = list(dict.fromkeys(grown.model))
show(
    alt.Chart(grown)
    .mark_line()
    .encode(
        x=alt.X("tokens:Q", title="tokens in the session", scale=LOG_TOKENS, axis=TOKEN_AXIS),
        y=alt.Y("GB:Q", title="keys and values, GB (bf16)", scale=alt.Scale(type="log", domain=[0.005, 50], nice=False)),
        color=alt.Color("model:N", title=None, sort=labels),
    )
    .properties(title=f"A session of 4,000 tokens: {at_4k[small]:.2f} GB ({small}) to {at_4k[big]:.1f} GB ({big})"),
    alt="Memory of one session against its length, both logarithmic, each line up to the model's context. At 4,000 tokens: "
    + ", ".join(f"{name} {gb:.2f} GB" for name, gb in at_4k.items())
    + ". Mistral's line is flat beyond its window.",
    source="Computed from the models' configurations, by the fields of their config.json. A line ends where the model's "
    "context does.",
)

# %% [markdown] tags=["reasoned"]
# Mistral's line goes flat: all its layers have a window. The 7B model from before GQA keeps more of each token than the 70B
# model that came after it: the size of the weights does not tell the size of a session.
#
# ### The engine's own count
#
# Does an engine count as we do? vLLM cuts its KV memory into **blocks** of a fixed number of tokens, and says how many it made.
# The engines below have very little of it, so that a few dozen clients can do to them what thousands do to a GPU.

# %% tags=["constants"]
BLOCK = 32
ROOMY, TIGHT = 33_400_000, 5_400_000  # bytes of KV memory
SEATS, FEW_SEATS = 64, 4  # max_num_seqs
CONTEXT = 640  # the longest request of the tight engines
ENGINES = {
    "roomy": {"kv_cache_memory_bytes": ROOMY, "max_model_len": 2048},
    "roomy, large blocks": {"kv_cache_memory_bytes": ROOMY, "max_model_len": 2048, "block_size": 128},
    "roomy, fp8": {"kv_cache_memory_bytes": ROOMY, "max_model_len": 2048, "kv_cache_dtype": "fp8"},
    "tight": {"kv_cache_memory_bytes": TIGHT, "max_model_len": CONTEXT},
    "tight, few seats": {"kv_cache_memory_bytes": TIGHT, "max_model_len": CONTEXT, "max_num_seqs": FEW_SEATS},
    "tight, fp8": {"kv_cache_memory_bytes": TIGHT, "max_model_len": CONTEXT, "kv_cache_dtype": "fp8"},
}

# %%
folder = tempfile.TemporaryDirectory()
live, logs = {}, {}


async def start(name):
    """Start an engine of that kind, which logs every step of its scheduler."""
    logs[name] = Path(folder.name) / f"{len(logs)}.jsonl"
    arguments = {"block_size": BLOCK, "max_num_seqs": SEATS, "max_num_batched_tokens": 2048, **ENGINES[name]}
    seen = watchable(10, **{STEP_LOG: str(logs[name])})
    live[name] = await book.connect("large", async_scheduling=False, **arguments, **seen)


for name in ("roomy", "tight"):
    await start(name)
if not book.lacks("8-bit KV"):  # not every processor can do 8 bits
    await start("tight, fp8")
if not book.lacks("vllm"):
    folder_of_model = live["roomy"].tokenizer_path
    tokenizer = AutoTokenizer.from_pretrained(folder_of_model, model_max_length=1 << 20)  # long tasks are cut to size later
    make = ExactLengths(folder_of_model, seed)  # fresh words every time: no prefix cache helps


# %%
async def clients(engine, requests, n):
    """`n` clients who ask again as soon as they are answered: the answers in the requests' order, and the seconds it took."""
    left, answers = iter(enumerate(requests)), {}

    async def one():
        for number, request in left:
            answers[number] = await complete(engine, request)

    begin = clock.now()
    await asyncio.gather(*(one() for _ in range(n)))
    return [answers[number] for number in sorted(answers)], clock.now() - begin


async def what_it_says(name):
    """An engine's own count of its blocks, after a warm-up: the first steps of its life are slow."""
    await clients(live[name], [make(64, 16) for _ in range(8)], 8)
    says = (await live[name].metrics()).cache_config
    return {
        "bytes": ENGINES[name]["kv_cache_memory_bytes"],
        "block": int(says["block_size"]),
        "kv": {"auto": "bf16"}.get(says["cache_dtype"], says["cache_dtype"]),
        "blocks": int(says["num_gpu_blocks"]),
    }


async def all_of_them():
    return {"config": dict(read_config(folder_of_model)), "engines": {name: await what_it_says(name) for name in live}}


made = await book.measure("the engines' blocks", all_of_them)
config, says = made.value["config"], made.value["engines"]
counted = {name: blocks_for(one["bytes"], config, one["block"], one["kv"]) for name, one in says.items()}
print(kv_size(config).arithmetic)
pd.DataFrame(
    {
        "bytes given": [f"{one['bytes']:,}" for one in says.values()],
        "bytes a block": [f"{kv_size(config, one['kv']).block_bytes(one['block']):,}" for one in says.values()],
        "blocks, counted": counted.values(),
        "blocks, the engine says": [one["blocks"] for one in says.values()],
    },
    index=list(says),
)

# %%
blocks = {name: one["blocks"] for name, one in says.items()}
blocks.setdefault("tight, fp8", blocks_for(TIGHT, config, BLOCK, "fp8"))
Markdown(
    (
        "**Equal for every engine.** "
        if all(counted[name] == blocks[name] for name in counted)
        else "**They differ, and one of the two must be explained before going on.** "
    )
    + "One of the blocks is kept back as a placeholder, so requests get one less. And at 8 bits, "
    + ("by the engine's own count" if "tight, fp8" in says else "counted only, as this machine has no such engine")
    + f", the same bytes make {blocks['tight, fp8']} blocks instead of {blocks['tight']}."
)

# %% [markdown]
# A rule of thumb that most people who rent GPUs have heard leaves that memory out:

# %%
seven = shape_of(CONFIGS["Llama 2 7B"])
weights_gb = seven.parameters * 2 / 1e9
each_gb = sizes["Llama 2 7B"].sequence_bytes(4096) / 1e9
book.claim(
    "08.seven",
    "A 7B model in FP16 needs about 14 GB.",
    by="Hugging Face forum, “LLaMA 7B GPU memory requirement”, 2023: 2 bytes for each of 7 billion parameters.",
    claimed=14,
    measured=weights_gb,
    unit="GB",
    where=f"the weights of Llama 2 7B: {seven.parameters:,} parameters of 2 B each",
    unless=f"A model that talks needs more: one session of its full 4,096 tokens takes {each_gb:.2f} GB of KV cache, and "
    f"{math.ceil(weights_gb / each_gb)} of them take more than the weights. 14 GB has room for no session at all.",
    source="Computed from the model's configuration; nothing was measured on a GPU.",
    tolerance=0.05,
)

# %% [markdown]
# ### One piece, or blocks?
#
# Before vLLM, an engine gave each request one contiguous chunk, as long as the answer might ever become, since nobody knows how
# long it will be. What did that cost? The lab's support tasks are answered live here, and their lengths are then laid into
# the memory of the roomy engine in both ways.

# %%
answered = {}  # the answers themselves stay here: another section asks the same again
if not book.lacks("vllm"):
    short = [task for family in families() for task in examples("test", family, book.pick(ci=10, learn=40), seed)]
    long = long_examples("test", book.pick(ci=6, learn=20), tokenizer, seed)  # policies of up to 1,900 tokens to read
    asked = [Request(task.messages, max_tokens=task.max_tokens, logprobs=0) for task in short + long]


async def support_answers():
    answered["16 bits"], _ = await clients(live["roomy"], asked, 12)
    usages = [answer.done.usage for answer in answered["16 bits"][: len(short)]]
    return [(usage.input_tokens, usage.output_tokens) for usage in usages]


lengths = await book.measure("support tasks", support_answers)

# %%
real = [Lengths(*each, 2048) for each in book.rng("order").sample(lengths.value, len(lengths.value))]
room, third = (blocks["roomy"] - 1) * BLOCK, range(0, len(real), 3)
laid = {
    "chunk for the longest": contiguous(real, room, departed=third),
    "chunk of a power of two": contiguous(real, room, chunk="pow2", departed=third),
    "chunk of its true length": contiguous(real, room, chunk="oracle", departed=third),
    **{f"blocks of {size}": paged(real, room, size) for size in (128, 32, 16)},
}
parts = {
    "holds a token": ("used", "blue"),
    "will be written": ("reserved", "sky"),
    "never filled": ("internal", "orange"),
    "too small a hole": ("external", "red"),
    "free": ("free", "grey"),
}
rows = [
    {
        "way": f"{name}: {waste.sequences} at once",
        "part": part,
        "order": i,
        "share": 100 * getattr(waste, field) / waste.capacity,
    }
    for name, waste in laid.items()
    for i, (part, (field, _)) in enumerate(parts.items())
]
worst, paged_one = laid["chunk for the longest"], laid[f"blocks of {BLOCK}"]
show(
    alt.Chart(pd.DataFrame(rows))
    .mark_bar()
    .encode(
        x=alt.X("share:Q", title="share of the KV memory (%)", scale=alt.Scale(domain=[0, 100])),
        y=alt.Y("way:N", title=None, sort=None, axis=alt.Axis(labelLimit=300)),
        color=alt.Color(
            "part:N",
            title=None,
            scale=alt.Scale(domain=list(parts), range=[PALETTE[colour] for _, colour in parts.values()]),
            legend=alt.Legend(orient="bottom", columns=3),
        ),
        order="order:Q",
        tooltip=["way:N", "part:N", alt.Tooltip("share:Q", format=".1f")],
    )
    .properties(
        height=190,
        title=f"Requests at once: {worst.sequences} in chunks for whatever may come, {paged_one.sequences} in blocks of {BLOCK}",
    ),
    alt="What the KV memory holds: "
    + " ".join(
        f"{name}: {100 * waste.utilization:.0f} % tokens, {waste.sequences} requests." for name, waste in laid.items()
    ),
    source=f"Lengths of {len(real)} answered requests, each half written; for chunks, every third has left again. Layouts "
    f"computed. {lengths.source}",
)

# %% [markdown]
# With blocks nothing is reserved and no hole is too small. What is left is the rest of each request's *last* block.

# %%
book.claim(
    "08.waste",
    "Engines that reserve chunks store tokens in 20 to 38 % of their KV memory.",
    by="Kwon et al., “Efficient Memory Management for Large Language Model Serving with PagedAttention”, SOSP 2023, section 1.",
    claimed=(20.4, 38.2),
    measured=100 * worst.utilization,
    unit="% of the KV memory",
    where=f"chunks for the longest request, with the {len(real)} lengths of the support tasks",
    unless=f"It depends on how far requests stay below the longest that is allowed: these have {statistics.median(sum(one) for one in lengths.value):.0f} "
    f"tokens in the median, where the engine allows {real[0].maximum:,}.",
    source=f"Layout computed from measured lengths. {lengths.source}",
)

# %% [markdown]
# ### One session too many
#
# Blocks are handed out as tokens are written, so an engine lets in more requests than it could finish side by side. It bets that
# they will not all grow long at the same time. When the bet is lost, it **preempts** one: the request loses its blocks, goes back
# into the queue, and what was computed for it is computed again.
#
# The lab's model of vLLM's scheduler needs only the lengths to say beforehand how often that will happen.

# %% tags=["constants"]
CLIENTS, REQUESTS = 10, 24
draw = Random(2)  # the same load for every seed of the chapter: one that needs twice the tight engine's blocks at once
load = [(draw.randrange(24, 200), 8 + min(230, int(draw.expovariate(1 / 80)))) for _ in range(REQUESTS)]  # (prompt, answer)

# %%
KINDS = ("roomy", "tight", "tight, few seats", "tight, fp8")
settings = {
    name: EngineSettings(
        blocks[name.removesuffix(", few seats")],  # the same bytes: seats take no memory
        BLOCK,
        max_num_seqs=ENGINES[name].get("max_num_seqs", SEATS),
        max_model_len=ENGINES[name]["max_model_len"],
    )
    for name in KINDS
}
said = {name: foretold(load, CLIENTS, setting) for name, setting in settings.items()}
most = max(step.blocks for step in step_memory(said["roomy"], blocks["roomy"], BLOCK))
print(
    f"{CLIENTS} clients, {REQUESTS} requests of {min(map(sum, load))} to {max(map(sum, load))} tokens: at most {most} blocks at "
    f"once. The tight engine has {blocks['tight'] - 1}."
)
pd.DataFrame(
    {
        "preemptions, foretold": [sum(len(step.preempted) for step in steps) for steps in said.values()],
        "steps, foretold": [len(steps) for steps in said.values()],
    },
    index=list(said),
)

# %% [markdown]
# Now live, with the tight engine's own gauges read while the load is on.


# %%
async def under_load(name):
    """The uneven load on an engine: its answers, its steps, how long it took and how often it preempted."""
    engine, mark = live[name], len(read_step_log(logs[name]))
    requests, before = [make(*lengths) for lengths in load], await engine.metrics()
    answers, seconds = await clients(engine, requests, CLIENTS)
    counted = await engine.metrics() - before
    steps = read_step_log(logs[name])[mark:]
    return {"requests": requests, "answers": answers, "steps": steps, "seconds": seconds, "preemptions": counted.preemptions}


def ids_of(messages):
    """The token ids of a prompt."""
    chat = [{"role": message.role, "content": message.content} for message in messages]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


async def gauges_of_tight():
    task = asyncio.create_task(under_load("tight"))
    rows = await gauges_during(live["tight"], task)
    return pd.DataFrame(rows), int((await task)["preemptions"])


gauged = await book.measure("the tight engine's gauges", gauges_of_tight)
gauges, thrown = gauged.value

# %%
most_used = gauges["KV memory in use (%)"].max()
full = alt.Chart(gauges).encode(x=alt.X("s:Q", title=None))
lines = gauges.melt(id_vars="s", value_vars=["running", "waiting", "preemptions until now"], var_name="what")
show(
    alt.vconcat(
        full.mark_area(color=PALETTE["blue"], line=True, interpolate="step-after")
        .encode(y=alt.Y("KV memory in use (%):Q", scale=alt.Scale(domain=[0, 100]), title="KV in use (%)"))
        .properties(height=90),
        alt.Chart(lines)
        .mark_line(interpolate="step-after")
        .encode(
            x=alt.X("s:Q", title="seconds since the load began"),
            y=alt.Y("value:Q", title="requests"),
            color=alt.Color(
                "what:N",
                title=None,
                scale=alt.Scale(
                    domain=["running", "waiting", "preemptions until now"],
                    range=[PALETTE["blue"], PALETTE["green"], PALETTE["red"]],
                ),
                legend=alt.Legend(orient="bottom"),
            ),
        )
        .properties(height=130),
    ).properties(title=f"Up to {most_used:.0f} % of the memory in use: {thrown} times somebody had to go"),
    alt=f"The tight engine under {CLIENTS} clients: KV memory in use, up to {most_used:.0f} %; requests running, at most "
    f"{gauges.running.max():.0f}, and waiting, at most {gauges.waiting.max():.0f}; {thrown} preemptions.",
    source=f"The engine's own gauges and counters, read some twenty times a second. {gauged.source}",
)

# %% [markdown] tags=["further"]
# ### The blocks, live, and step by step
#
# Gauges say how much; here is who. Each square is one block of the tight engine, drawn ten times a second from the scheduler's
# own state, with the number of the request that holds it. Watch for a ▼: there somebody just lost a block. When the load is
# over, the slider, or the arrow keys, step through the same frames.
#
# The engine's log says who ran in which step. So the lab's model can be told when each request came in, and everything else can
# be compared: is it the same *engine*, with the same requests in the same steps, the same victims, the same blocks left over?


# %%
def watched_frames(frames):
    """How full the frames were, how many blocks preempted requests lost, and how many of those others held one frame later."""
    taken = reused = 0
    for frame, later in pairwise(frames):
        victims = {request for what, request in later.events if what == "preempted"}
        lost = {block for holder in frame.holders if holder.id in victims for block in holder.blocks}
        taken += len(lost)
        reused += len(lost & {block for holder in later.holders if holder.id not in victims for block in holder.blocks})
    return {"frames": len(frames), "full": sum(frame.usage > 0.95 for frame in frames), "taken": taken, "reused": reused}


def step_by_step(loaded):
    """The model's steps beside the log's, with the log's arrivals."""
    numbers = {answer.done.response_id: number for number, answer in enumerate(loaded["answers"])}
    told = {}
    for id in {id for step in loaded["steps"] for id, _, _ in step.tokens}:
        number = numbers[id.rpartition("-")[0]]  # vLLM adds a suffix to the id it reports
        told[id] = (list(ids_of(loaded["requests"][number].messages)), load[number][1])
    again = replayed(loaded["steps"], told, settings["tight"])
    same = sum(ours == theirs for ours, theirs in zip(again, loaded["steps"], strict=False))
    return {
        "steps": len(loaded["steps"]),
        "modelled": len(again),
        "same": same,
        "victims": sum(len(s.preempted) for s in again),
    }


async def watched_load():
    async with watch_blocks(live["tight"]) as watching:
        loaded = await under_load("tight")
    counts = {"fps": watching.fps or 0, "seen": watching.preemptions, "counted": int(loaded["preemptions"])}
    return {**counts, **watched_frames(watching.frames), **step_by_step(loaded)}


watched = (await book.measure("the blocks, live", watched_load)).value

# %%
said_so = (
    "and the engine counted as many" if watched["seen"] == watched["counted"] else f"the engine counted {watched['counted']}"
)
where_to = (
    "what one loses, the others grow into at once."
    if watched["reused"] > watched["taken"] / 2
    else "the others lay free a moment, or were its own again."
)
agree = watched["same"] == watched["steps"] == watched["modelled"]
Markdown(
    f"{watched['frames']} frames, {watched['fps']:.1f} a second; {watched['full']} of them show over 95 % of the blocks held. "
    f"{watched['seen']} preemptions were seen, {said_so}. "
    + (
        f"They took {watched['taken']} blocks, and {watched['reused']} of those were another request's by the next frame: {where_to}"
        if watched["taken"]
        else "In no frame had somebody just lost a block."
    )
    + f"\n\n**{watched['steps']} live steps; {watched['same']} of them are equal in every number**: requests, new tokens, tokens "
    f"held, victims, free blocks. Preemptions: {sum(len(s.preempted) for s in said['tight'])} foretold from the lengths alone, "
    f"{watched['victims']} with the real arrivals, {watched['counted']} counted by the engine. (On paper no client takes time to "
    "come back; live ones do.) "
    + (
        "So what the model says of a cache that you do not have is worth listening to; a chart under Move is this model."
        if agree
        else "Where they part, the model's next steps are of another history; look at the first difference before trusting it."
    )
)

# %% [markdown]
# ### What it costs
#
# The same load on each, in turns: enough memory; too little; too little, but never more than a few at once; and, where the
# processor can do it, too little at 8 bits a number, for a later section.

# %%
await start("tight, few seats")


async def same_load(number):
    if number == 0:
        await what_it_says("tight, few seats")  # warms it up as the others were
    turns = [name for name in KINDS if name in live]
    outputs = sum(output for _, output in load)
    turns = turns[:: 1 - 2 * (number % 2)]  # forwards and backwards
    return [cost_of(name, await under_load(name), outputs, settings[name].num_blocks) for name in turns]


loads = await book.measure("the same load on each", same_load, rounds=book.pick(ci=2, learn=7))
rounds = pd.DataFrame([{**row, "round": number} for number, rows in enumerate(loads.value) for row in rows])
await live.pop("tight, few seats").aclose()


def of(name, what, table=rounds):
    """One number of an engine for each round."""
    return list(table[table.engine == name].sort_values("round")[what])


cost = rounds.groupby("engine").median().reindex([name for name in KINDS if name in set(rounds.engine)])
book.reveal("08.twice", of("tight", "again"), unit="%")

# %%
rounds["once"] = rounds.tokens * (1 - rounds.again / 100)
work = pd.DataFrame(
    [
        {"engine": name, "kind": kind, "order": i, "tokens": tokens}
        for name, row in rounds.groupby("engine").median().reindex(cost.index).iterrows()
        for i, (kind, tokens) in enumerate({"computed once": row.once, "computed again": row.tokens - row.once}.items())
    ]
)
bars = (
    alt.Chart(work)
    .mark_bar()
    .encode(
        x=alt.X("tokens:Q", title=f"tokens computed for the same {REQUESTS} answers"),
        y=alt.Y("engine:N", title=None, sort=list(cost.index)),
        color=alt.Color(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=["computed once", "computed again"], range=[PALETTE["blue"], PALETTE["red"]]),
        ),
        order="order:Q",
    )
)
dots = alt.Chart(rounds[["engine", "tokens"]]).mark_point(color=PALETTE["grey"], opacity=0.6).encode(
    x="tokens:Q", y=alt.Y("engine:N", sort=list(cost.index))
)  # fmt: skip
show(
    (bars + dots).properties(
        height=130,
        title=f"Too little memory: {cost.preemptions['tight']:.0f} preemptions, {cost.again['tight']:.0f} % of the tokens computed again",
    ),
    alt="Tokens computed once and again, medians of rounds: "
    + " ".join(f"{name}: {row.again:.0f} % of {row.tokens:.0f} again." for name, row in cost.iterrows()),
    source=f"From each engine's step log. Bars: medians of {rounds['round'].nunique()} rounds; circles: each round. {loads.source}",
)

# %%
Markdown(
    "| | preemptions | steps | answers in a step | memory in use | tokens/s | p95 TTFT | p95 TPOT | p95 end to end |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    + "\n".join(
        f"| {name} | {row.preemptions:.0f} | {row.steps:.0f} | {row.running:.1f} | {100 * row.in_use:.0f} % "
        f"| {row.per_s:,.0f} | {1000 * row.ttft:.0f} ms | {1000 * row.tpot:.1f} ms | {1000 * row.e2e:.0f} ms |"
        for name, row in cost.iterrows()
    )
    + f"\n\nMedians of {rounds['round'].nunique()} rounds. p95: of the {REQUESTS} requests. {loads.source}."
)

# %%
ratios = [tight / roomy for tight, roomy in zip(of("tight", "per_s"), of("roomy", "per_s"), strict=True)]
facts = (
    f"Of the tight engine's tokens, {cost.again['tight']:.0f} % are computed again. {cost.running['tight']:.1f} answers share one of its "
    f"steps, and {cost.running['roomy']:.1f} one of the roomy engine's; it took {cost.steps['tight'] / cost.steps['roomy']:.1f} times as "
    f"many steps. The p95 of its first token is {cost.ttft['tight'] / cost.ttft['roomy']:.1f} times the roomy engine's: who finds no room "
    "waits in the queue, or goes back into it."
)
book.finding(
    below(of("tight", "per_s"), of("roomy", "per_s")),
    f"**Too little memory costs throughput here: {100 * (1 - statistics.median(ratios)):.0f} % in the median round.** {facts}",
    f"**Too little memory cost no throughput in these rounds.** That is a surprise. {facts}",
    f"**Whether too little memory costs throughput, these rounds cannot tell**: they lie too far apart. {facts}",
)

# %%
gains = [100 * (few / many - 1) for few, many in zip(of("tight, few seats", "per_s"), of("tight", "per_s"), strict=True)]
seats = (
    f"Instead of betting, an engine can let in only a few. With {FEW_SEATS} seats there were {cost.preemptions['tight, few seats']:.0f} "
    f"preemptions, {100 * cost.in_use['tight, few seats']:.0f} % of the memory in use instead of {100 * cost.in_use['tight']:.0f} %, and "
    f"{statistics.median(gains):+.0f} % tokens per second (the rounds: {min(gains):+.0f} to {max(gains):+.0f} %). "
)
then = " Look at what preemptions cost, not at whether there are any: with few seats, requests wait before they begin instead of halfway."
book.finding(
    below(of("tight, few seats", "per_s"), of("tight", "per_s")),
    f"{seats}**The bet is worth it here**: a few preemptions are the price of memory that does not stand empty.{then}",
    f"{seats}**The bet is not worth it here**: fewer seats, less work done twice, more answers.{then}",
    f"{seats}**These rounds cannot tell which is better**: one loses to work done twice, the other to memory that stands empty.{then}",
)

# %% [markdown] tags=["further"]
# ### The last block
#
# Blocks leave only the rest of each request's last block empty. How much that is can be counted live: the engines log every step
# of their scheduler, request by request. The same uneven load on two of them, with blocks of different sizes; and the blocks that
# we count from the tokens, beside those that the engine says it holds.

# %%
await start("roomy, large blocks")


async def empty_slots():
    rows = []
    for name in ("roomy", "roomy, large blocks"):
        says = await what_it_says(name)
        seen = step_memory((await under_load(name))["steps"], says["blocks"], says["block"])
        slots, held = sum(step.empty_slots for step in seen), sum(step.blocks for step in seen)
        rows.append(
            {
                "block size": says["block"],
                "steps": len(seen),
                "steps where our count of blocks is the engine's": sum(step.blocks == step.engine_blocks for step in seen),
                "empty slots a request": slots / sum(step.running for step in seen),
                "by the rule (block − 1) / 2": mean_block_waste(says["block"]),
                "share of held memory (%)": 100 * slots / (held * says["block"]),
            }
        )
    return rows


empty = pd.DataFrame((await book.measure("the last block", empty_slots)).value).set_index("block size")
await live.pop("roomy, large blocks").aclose()
empty.round(1)

# %%
Markdown(
    "Of what they hold on this load, "
    + " and ".join(f"blocks of {size} waste {share:.0f} %" for size, share in empty["share of held memory (%)"].items())
    + ". So why not blocks of one token? Each block costs a lookup in every step and a hash in the prefix cache; vLLM's default "
    "is 16 on a GPU, and 128 on a CPU, which reads long runs of memory well."
)

# %% [markdown]
# ### A long session, and who else is there
#
# A conversation is not one request. It comes back with its whole history, a little longer each time. Between its turns nobody
# holds its blocks, but they keep their content until somebody needs the room: that is the prefix cache of chapter 03. So a
# session is fast as long as *the others* leave it alone.
#
# Live, on the roomy engine: some sessions take turns, and each turn adds a question and an answer to the history. The lab's
# `PrefixCache` says beforehand how many tokens the engine will find.

# %% tags=["constants"]
TURNS = 6
OPENING, QUESTION, ANSWER = 900, 40, 60  # tokens


# %%
def text(tokens):
    """Words that nobody has sent before."""
    return make(tokens, 1).messages[0].content


def said_by(role, tokens):
    return Message(role, text(tokens))


async def taking_turns():
    """One row for each turn of each session: the history's tokens, those that were found, and how long it took."""
    rows, beforehand = [], PrefixCache(blocks["roomy"], BLOCK)
    for n in book.pick(ci=(1, 4, 5, 6, 7, 8), learn=(1, 2, 3, 4, 5, 6, 7, 8, 10)):
        histories = [[said_by("system", OPENING)] for _ in range(n)]
        for turn in range(1, TURNS + 1):
            for history in histories:  # one after another: session 1, 2, … n, and 1 again
                history.append(said_by("user", QUESTION))
                expected = beforehand.serve(ids_of(history), output=[0])
                request = Request(tuple(history), max_tokens=1, extra={"ignore_eos": True, "skip_special_tokens": False})
                done = (await complete(live["roomy"], request)).done
                rows.append((n, turn, done.usage.input_tokens, done.usage.cached_tokens, expected, 1000 * done.timing.e2e))
                history.append(said_by("assistant", ANSWER))
    return pd.DataFrame(rows, columns=["sessions", "turn", "tokens", "found", "foretold", "ms"])


taken_turns = await book.measure("sessions that take turns", taking_turns)

# %%
turns = taken_turns.value
last_turn = int(turns.turn.max())
wrong = int((turns.found != turns.foretold).sum())
last = turns[turns.turn == last_turn].groupby("sessions")[["found", "tokens"]].sum()
share = 100 * last.found / last.tokens
each = -(-int(turns[turns.turn == last_turn - 1].tokens.max()) // BLOCK)  # blocks of a history before its last turn
fit = (blocks["roomy"] - 1) / each
show(
    (
        alt.Chart(pd.DataFrame({"sessions": share.index, "share": share.values}))
        .mark_line(point=alt.OverlayMarkDef(size=70, filled=True), color=PALETTE["blue"])
        .encode(
            x=alt.X("sessions:Q", title="sessions that take turns", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("share:Q", title=f"history found at turn {last_turn} (%)", scale=alt.Scale(domain=[0, 100])),
        )
        + alt.Chart(pd.DataFrame({"fit": [fit]}))
        .mark_rule(strokeDash=[4, 3], color=PALETTE["red"], strokeWidth=2)
        .encode(x="fit:Q")
    ).properties(
        title=f"{share.index[0]} session: {share.iloc[0]:.0f} % found. {share.index[-1]} sessions: {share.iloc[-1]:.0f} %"
    ),
    alt="Share of the history that the cache still held at the last turn, by sessions taking turns. "
    + " ".join(f"{n}: {value:.0f} %." for n, value in share.items())
    + f" The dashed line is at {fit:.1f} sessions, which fill the cache.",
    source=f"Cached tokens as the engine reports them; {wrong} of {len(turns)} requests foretold wrongly. Dashed: {blocks['roomy'] - 1} "
    f"blocks over the {each} that a session has left behind before turn {last_turn}. {taken_turns.source}",
)

# %%
fall = -share.diff().dropna()
after, before = int(fall.idxmax()), int(share.index[share.index.get_loc(fall.idxmax()) - 1])
Markdown(
    f"From {before} to {after} sessions, what is found falls from {share[before]:.0f} % to {share[after]:.0f} %. "
    + ("**That is no slope, it is a cliff" if fall.max() > 30 else "**In this run it is a slope")
    + (
        f", and it stands where the memory ends: {fit:.1f} sessions fit.**"
        if before <= fit <= after
        else f", though {fit:.1f} sessions fit.**"
    )
)

# %% [markdown] tags=["reasoned"]
# The cache forgets what was used least recently, and with sessions that take turns the one used least recently is exactly the
# one that comes back next. So the first session beyond the room does not lose its own history only: it starts a chain in which
# everybody pushes out the next one to come.

# %%
turns["kind"] = np.where(turns.found > turns.tokens / 2, "history still there", "history evicted")
later = turns[turns.turn > 1]
kinds = ["history still there", "history evicted"]
at_last = later[later.turn == last_turn]
middle = at_last.groupby("kind").ms.median().reindex(kinds)
points = alt.Chart(later[["tokens", "ms", "kind"]]).encode(
    x=alt.X("tokens:Q", title="tokens in the history", scale=alt.Scale(zero=False)),
    y=alt.Y("ms:Q", title="until one token is there (ms)", scale=alt.Scale(domainMin=0)),
    color=alt.Color("kind:N", title=None, scale=alt.Scale(domain=kinds, range=[PALETTE["blue"], PALETTE["red"]])),
    shape=alt.Shape("kind:N", title=None, scale=alt.Scale(domain=kinds)),
)
show(
    points.mark_point(size=45, filled=True).properties(
        title=f"Turn {last_turn}: {middle.iloc[0]:.0f} ms with its history, {middle.iloc[1]:.0f} ms without"
        if middle.notna().all()
        else "No history was evicted"
        if middle.isna().iloc[1]
        else "Every history was evicted"
    ),
    alt="Time to a one-token answer of every turn after the first against the length of its history, where the cache still held it "
    "and where not. "
    + " ".join(f"Median at turn {last_turn}, {kind}: {value:.0f} ms." for kind, value in middle.dropna().items()),
    source=f"Each point is a request for one token, so its end is its TTFT; one request at a time. {taken_turns.source}",
)

# %% [markdown] tags=["further"]
# ### What is forgotten first
#
# Which block goes first is a policy, and the lab's allocator is built to be watched. Two requests come and go:

# %% tags=["reasoned"]
shown = Allocator(9, 4)
shown.allocate("A", range(12))
shown.allocate("B", range(100, 108))
owner = {id: f"{name}{i}" for name, table in shown.snapshot().tables for i, id in enumerate(table, 1)}
shown.free("A")
shown.free("B")
queue = [owner.get(id, "unused") for id in shown.snapshot().free]
Markdown(
    "A held blocks A1, A2, A3, then B held B1 and B2; A ended first. Blocks are now given away in this order: **"
    + " → ".join(queue)
    + "**. First what was never used, then the least recently used request, each from its tail: a beginning may be shared by others, "
    "and a tail is worth nothing without its beginning."
)

# %% [markdown]
# Least recently used is a good guess where everything might come back. It is a poor one where half of the traffic never does:
# documents to summarise, batch jobs, a crawler. They push out the conversations between their turns. What would a cache that
# can tell them apart be worth? Same blocks, same rules, another choice of victim: exercise 08.4 is yours to write.

# %%
mixed = chat_traffic(book.rng("mixed"), book.pick(ci=600, learn=1200), 16)
policies = {"least recently used": None, "spare what came back (08.4)": book.reference("08.4")}
curve = pd.DataFrame(
    [
        {"blocks": n, "policy": name, "share": 100 * hit_share(mixed, n, 16, policy)}
        for n in book.track((30, 45, 60, 80, 100, 130, 160, 200, 250), "caches of nine sizes")
        for name, policy in policies.items()
    ]
)
best = 100 * hit_share(mixed, 100_000, 16)
table = curve.pivot(index="blocks", columns="policy", values="share")
gain = table.iloc[:, 0].sub(table.iloc[:, 1]).abs().idxmax()
lru, other = (float(table.loc[gain, name]) for name in policies)
show(
    (
        alt.Chart(curve)
        .mark_line(point=True)
        .encode(
            x=alt.X("blocks:Q", title="blocks in the cache"),
            y=alt.Y("share:Q", title="prompt tokens found (%)", scale=alt.Scale(domainMin=0)),
            color=alt.Color("policy:N", title=None, sort=list(policies)),
        )
        + alt.Chart(pd.DataFrame({"best": [best]}))
        .mark_rule(strokeDash=[4, 3], strokeWidth=2, color=PALETTE["grey"])
        .encode(y="best:Q")
    ).properties(title=f"With {gain} blocks, the choice of victim finds {other:.0f} % instead of {lru:.0f} %"),
    alt="Share of prompt tokens found against the size of the cache, for two eviction policies. "
    + " ".join(f"{n} blocks: {row.iloc[0]:.0f} and {row.iloc[1]:.0f} %." for n, row in table[list(policies)].iterrows())
    + f" Dashed: {best:.0f} %, with endless memory.",
    source=f"Simulated: {len(mixed)} prompts of ten chats among one-off documents, through the cache model that foretold the live engine above.",
)

# %% [markdown]
# ### Half the bits
#
# `kv_cache_dtype="fp8"` keeps each number in 8 bits, so the same bytes make twice the blocks, as counted above. Are the answers
# still right?
#
# Three engines get the same tasks: 16 bits, 16 bits *again* with another number of clients (so that other requests share its
# steps), and 8 bits. The second run is the control: without it, every difference would look like the format's fault.
#
# fp8 has 256 values for everything, so a *scale* per layer fits them to the numbers at hand. A checkpoint may bring scales;
# without them, as here, vLLM multiplies by 1, and numbers beyond the format's range are cut.

# %%
if not book.lacks("8-bit KV"):
    await start("roomy, fp8")


async def in_other_words():
    await what_it_says("roomy, fp8")
    answered["16 bits, again"], _ = await clients(live["roomy"], asked, 8)
    answered["8 bits"], _ = await clients(live["roomy, fp8"], asked, 12)
    tasks, found = short + long, []
    for run in ("16 bits", "16 bits, again", "8 bits"):
        for which, part in (("short", slice(len(short))), ("long", slice(len(short), None))):
            three = (one[part] for one in (tasks, answered["16 bits"], answered[run]))
            found.append({"run": run, "tasks": which, **differences(*three)})
    return found


same_tasks = await book.measure("the same tasks in 8 bits", in_other_words, needs=("vllm", "8-bit KV"))
if "roomy, fp8" in live:
    await live.pop("roomy, fp8").aclose()

# %%
graded = pd.DataFrame(same_tasks.value).set_index(["run", "tasks"])
whole = graded.groupby("run").sum()
eight, control = whole.loc["8 bits"], whole.loc["16 bits, again"]
changed = 100 * eight.other / eight.answers
book.reveal("08.fp8", "none" if not changed else "up to one in ten" if changed <= 10 else "more than one in ten")
Markdown(
    "| | tasks | right | (95 % interval) | in other words | right before, wrong now | wrong before, right now | mean change of a "
    "token's log-probability |\n|---|---|--:|--:|--:|--:|--:|--:|\n"
    + "\n".join(
        f"| {run} | {tasks} | {row.right:.0f} of {row.answers:.0f} | "
        + "{:.1f} to {:.1f} % | ".format(*(100 * share for share in wilson(int(row.right), int(row.answers))))
        + (
            " | | | |"
            if run == "16 bits"
            else f"{row.other:.0f} | {row.lost:.0f} | {row.won:.0f} | {row.moved / max(1, row.tokens):.5f} |"
        )
        for (run, tasks), row in graded.iterrows()
    )
    + f"\n\n{same_tasks.source}."
)

# %%
flips = int(eight.lost + eight.won)
p = binomtest(int(eight.lost), flips).pvalue if flips else 1.0
most_lost = 100 * wilson(int(eight.lost), int(eight.answers))[1]
drift = {
    tasks: graded.loc[("8 bits", tasks)].moved / max(1, graded.loc[("8 bits", tasks)].tokens) for tasks in ("short", "long")
}
Markdown(
    f"8 bits said {eight.other:.0f} of {eight.answers:.0f} answers in other words (the control: {control.other:.0f}), lost "
    f"{eight.lost:.0f} right ones and won {eight.won:.0f}. "
    + ("No answer changed sides: " if not flips else f"By a sign test on those that changed sides, p = {p:.2f}: ")
    + (
        ("that 8 bits change words is plain, but " if eight.other > control.other else "")
        + "so few questions cannot say that it is right less often. "
        if p > 0.05
        else "it is right less often, and that is more than chance. "
        if eight.lost > eight.won
        else "it is right more often, and nobody should count on that. "
    )
    + f"With 95 % confidence, at most {most_lost:.1f} % of such answers are lost. Whether that is little enough "
    "depends on what a wrong one costs you.\n\n"
    f"Do the errors of many old tokens add up? A token's log-probability moved by {drift['short']:.5f} on average in the short tasks "
    f"and by {drift['long']:.5f} in the long ones: "
    + (
        "here it moves further where there is more to look back at (these are other tasks, too), so ask with your own long prompts. "
        if drift["long"] > 1.25 * drift["short"]
        else "on these lengths that does not show, but a production prompt may be many times as long: ask with your own. "
    )
)

# %% [markdown] tags=["further"]
# ### Are 8 bits faster?
#
# That was measured in the turns of *What it costs*, where the machine can do 8 bits.


# %%
async def turns_in_eight_bits():
    return [[row for row in rows if row["engine"] in ("roomy", "tight", "tight, fp8")] for rows in loads.value]


eight_bits = await book.measure("the same load in 8 bits", turns_in_eight_bits, needs=("vllm", "8-bit KV"))
eights = pd.DataFrame([{**row, "round": number} for number, rows in enumerate(eight_bits.value) for row in rows])
typical = eights.groupby("engine").median()

# %%
columns = {"preemptions": "{:.0f}", "steps": "{:.0f}", "per_s": "{:.0f} tokens/s"}
room_made = [a / b for a, b in zip(of("tight, fp8", "per_s", eights), of("tight", "per_s", eights), strict=True)]
format_itself = [a / b for a, b in zip(of("tight, fp8", "per_s", eights), of("roomy", "per_s", eights), strict=True)]
Markdown(
    "| | preemptions | steps | output |\n|---|--:|--:|--:|\n"
    + "\n".join(
        f"| {name} | " + " | ".join(form.format(typical[what][name]) for what, form in columns.items()) + " |"
        for name in ("roomy", "tight", "tight, fp8")
    )
    + f"\n\nMedians of {eights['round'].nunique()} rounds. {eight_bits.source}."
)

# %%
book.finding(
    below(of("tight", "per_s", eights), of("tight, fp8", "per_s", eights)),
    f"**In the same bytes, 8 bits write {statistics.median(room_made):.2f} times the tokens a second**: room is speed here.",
    f"**In the same bytes, 8 bits write only {statistics.median(room_made):.2f} times the tokens a second**: what the room gains, the "
    "format loses on this machine.",
    f"**In the same bytes, 8 bits write {min(room_made):.2f} to {max(room_made):.2f} times the tokens a second**: these rounds cannot tell "
    "whether the room that it makes is speed.",
)
book.finding(
    below(of("tight, fp8", "per_s", eights), of("roomy", "per_s", eights)),
    f"Beside the roomy engine, where 16 bits do not run out either, it is {statistics.median(format_itself):.2f} times as fast: that is "
    "what the format itself costs here, where numbers are converted back and forth.",
    f"Beside the roomy engine, where 16 bits do not run out either, it is {statistics.median(format_itself):.2f} times as fast: the format "
    "itself gains here.",
    f"Beside the roomy engine, where 16 bits do not run out either, it is {min(format_itself):.2f} to {max(format_itself):.2f} times as fast: "
    "what the format itself does, these rounds cannot tell.",
)

# %% [markdown] tags=["reasoned"]
# Do not carry a processor's ratio to a GPU: there, attention that is bound by memory reads half the bytes.

# %% [markdown] tags=["further"]
# ### Fetch it, or compute it again?
#
# An evicted history need not be computed again, if its keys and values were kept somewhere slower: the machine's main memory, a
# disk, another machine. Fetching takes time in proportion to its length; computing again grows faster than that, because every
# token looks back at all before it. So there is a length from which fetching wins, or there is none. No GPU here, so this part
# is a model: one machine's datasheet, one model's shape, an idle link.

# %% tags=["constants"]
LINKS = {  # GB/s, and seconds until the first byte; by specification, less is reached
    "main memory, PCIe 5.0 ×16": (64.0, 20e-6),
    "main memory, PCIe 4.0 ×16": (32.0, 20e-6),
    "network, 100 Gbit/s": (12.5, 50e-6),
    "disk, NVMe on PCIe 4.0 ×4": (7.0, 100e-6),
    "network, 10 Gbit/s": (1.25, 50e-6),
}

# %%
eight_b, card = kv_size("llama-3.1-8b"), hardware("h100")
latency = datasheet_model(shape_of("llama-3.1-8b"), card)
prefixes = np.geomspace(500, 128_000, 40).astype(int)
ways = [
    {
        "tokens": int(n),
        "way": name,
        "ms": 1000 * offload_break_even(eight_b, latency, int(n), gbs, link_latency_s=wait).fetch_s,
    }
    for name, (gbs, wait) in LINKS.items()
    for n in prefixes
] + [
    {"tokens": int(n), "way": "compute again", "ms": 1000 * offload_break_even(eight_b, latency, int(n), 1.0).recompute_s}
    for n in prefixes
]
found = {
    name: offload_break_even(eight_b, latency, SESSION, gbs, link_latency_s=wait) for name, (gbs, wait) in LINKS.items()
}
fetched = [name for name, one in found.items() if one.faster == "fetch"]
order = ["compute again", *LINKS]
show(
    alt.Chart(pd.DataFrame(ways))
    .mark_line()
    .encode(
        x=alt.X("tokens:Q", title="tokens of history", scale=LOG_TOKENS, axis=TOKEN_AXIS),
        y=alt.Y("ms:Q", title="until the history is there (ms)", scale=alt.Scale(type="log")),
        color=alt.Color(
            "way:N",
            title=None,
            sort=order,
            scale=alt.Scale(domain=order, range=[PALETTE[c] for c in ("red", "blue", "sky", "green", "orange", "grey")]),
            legend=alt.Legend(labelLimit=260),
        ),
    )
    .properties(title=f"{SESSION:,} tokens: {len(fetched)} of {len(LINKS)} links bring them sooner than computing them"),
    alt=f"Time until a history is there against its length. Computing {SESSION:,} tokens again takes "
    f"{1000 * next(iter(found.values())).recompute_s:.0f} ms; fetching them: "
    + ", ".join(f"{name} {1000 * one.fetch_s:.0f} ms" for name, one in found.items())
    + ".",
    source=f"Modelled: Llama 3.1 8B in bf16 on one {card.name} by its datasheet ({card.source}); links as in the constants.",
)

# %%
pd.DataFrame(
    {
        f"{SESSION:,} tokens (ms)": [f"{1000 * one.fetch_s:.1f}" for one in found.values()],
        "computed again (ms)": [f"{1000 * one.recompute_s:.1f}" for one in found.values()],
        "fetching wins from": ["never" if one.tokens is None else f"{one.tokens:,} tokens" for one in found.values()],
        f"GB/s needed for {SESSION:,} tokens": [f"{one.link_gbs:.1f}" for one in found.values()],
    },
    index=list(found),
)

# %% [markdown] tags=["further"]
# ### Plan, then try to break the plan
#
# Now the other direction: not what an engine does under a load, but which load it can take. `plan` takes a model, a machine, the
# length of a session and a wish for speed, and says how many fit and which limit binds. To test a plan, try it at its edge: **as
# many sessions as it says, and one more**. (One more is tried again, a few times, if nobody had to go: on a busy machine sessions
# that begin together may still be long one after another.)

# %% tags=["constants"]
ASKED, WRITTEN = 64, 513  # tokens: 576 are held at the end, since the last one written is never looked back at
TRIES = 4

# %%
weights = 2 * shape_of(config).parameters  # bytes
planned = {}
for name, one in says.items():
    # A machine with this engine's memory: its weights, and what it was given beside them.
    machine = replace(hardware("epyc-9654"), name=name, memory_gb=(weights + one["bytes"]) / 1e9)
    planned[name] = plan(config, machine, ASKED + WRITTEN - 1, kv=one["kv"], share=1.0, block_size=BLOCK, max_num_seqs=SEATS)


async def at_once(name, n):
    """Preemptions of an engine while it serves `n` sessions that begin together."""
    before = (await live[name].metrics()).preemptions
    await clients(live[name], [make(ASKED, WRITTEN) for _ in range(n)], n)
    return int((await live[name].metrics()).preemptions - before)


async def at_the_edge():
    """Of each engine, the preemptions at the planned number, and in each try with one session more."""
    found = {}
    for name in [
        name for name in book.pick(ci=("tight", "tight, fp8"), learn=("tight", "tight, fp8", "roomy")) if name in live
    ]:
        found[name] = [await at_once(name, planned[name].sessions)]
        while len(found[name]) <= TRIES and not any(found[name][1:]):
            found[name].append(await at_once(name, planned[name].sessions + 1))
    return found


tried = (await book.measure("the edge of the plan", at_the_edge)).value

# %%
sizes_of = {name: kv_size(config, says[name]["kv"]).token_bytes for name in tried}
by_hand = {
    name: book.reference("08.3")(
        says[name]["bytes"] + weights, weights, sizes_of[name], ASKED + WRITTEN - 1, BLOCK, lambda n: 0.0, 1.0
    )[0]
    for name in tried
}
Markdown(
    "| | blocks | blocks a session | planned | by exercise 08.3 | limit | preemptions at the plan | with one more | (tries) |\n"
    "|---|--:|--:|--:|--:|---|--:|--:|--:|\n"
    + "\n".join(
        f"| {name} | {blocks[name]} | {planned[name].blocks_per_session} | {planned[name].sessions} | {by_hand[name]} "
        f"| {planned[name].limit} | {at} | {more[-1]} | {len(more)} |"
        for name, (at, *more) in tried.items()
    )
)

# %% tags=["reasoned"]
held = all(at == 0 for at, *_ in tried.values())
recorded = []
for one in recordings("preemption"):
    arguments, frame = one.provenance.arguments, one.frame()
    number, size = int(arguments["num_gpu_blocks_override"]), int(arguments["block_size"])
    worst_case = int((frame.prompt_tokens + frame.output_tokens).max()) - 1
    fits = (number - 1) // -(-worst_case // size)
    inside, beyond = frame[frame.people <= fits].preemptions, frame[frame.people > fits].preemptions
    recorded.append(
        f"{one.caption()}: {fits} planned; {inside.max():.0f} preemptions in {len(inside)} rounds with that many or fewer, "
        f"at least {beyond.min():.0f} in each of {len(beyond)} with more"
    )
Markdown(
    (
        "**The plan promised too much**: somebody was thrown out at the planned number, and that should never be."
        if not held
        else f"**The edge is where the plan says** ({', '.join(tried)}): nobody is thrown out at the planned number, and somebody is with "
        "one more."
        if all(more[-1] > 0 for _, *more in tried.values())
        else "**The plan held, but its edge was not met everywhere**: one more was not one too many, because on this busy machine the first "
        "session had ended before the last was long. Run it again in a quieter moment."
    )
    + "\n\nThe same arithmetic on what was recorded elsewhere: "
    + "; ".join(recorded)
    + ".\n\nA plan by the *longest* session is a promise. Sessions that end sooner leave room, so engines let in more: the bet from above."
)

# %% [markdown]
# ## Move
#
# **The planner.** A model, a machine, a length, a wish for speed. The lines are the two limits, drawn up to the model's context;
# the lower one binds. Drag the tokens a session and watch which one it is.

# %%
MACHINES = {
    hardware(key).name: hardware(key) for key in ("h200", "h100", "a100-80", "l40s", "l4", "rtx4090", "b200", "mi300x")
}
MODELS = {
    "Llama 3.1 8B": "llama-3.1-8b",
    "Llama 2 7B": CONFIGS["Llama 2 7B"],
    "Llama 3.1 70B": "llama-3.1-70b",
    "Mixtral 8x7B": "mixtral-8x7b",
}
READS = {name: read_config(one)["max_position_embeddings"] for name, one in MODELS.items()}
for one in MODELS.values():
    kv_size(one)  # counted once, remembered


def planner(model_name, machine, machines, context, kv, tokens_per_s):
    chosen, longest = MACHINES[machine], min(128_000, READS[model_name])

    def at(tokens):
        return plan(MODELS[model_name], chosen, int(tokens), kv=kv, tokens_per_s=tokens_per_s, machines=machines)

    here = at(context)
    rows = []
    for tokens in np.geomspace(500, longest, 18):
        one = at(tokens)
        rows += [
            {"context": tokens, "limit": "memory", "sessions": max(one.by_memory, 0.5)},
            {"context": tokens, "limit": f"speed ({tokens_per_s} tokens/s)", "sessions": max(one.by_speed, 0.5)},
        ]
    names = list(dict.fromkeys(row["limit"] for row in rows))
    told = f"{here.sessions:,} sessions of {context:,} tokens; {here.limit} binds"
    if context > longest:
        told = f"{model_name} reads {longest:,} tokens at most"
    lines = (
        alt.Chart(alt.Data(values=rows))
        .mark_line()
        .encode(
            x=alt.X("context:Q", title="tokens a session", scale=LOG_TOKENS, axis=TOKEN_AXIS),
            y=alt.Y("sessions:Q", title="sessions at once", scale=alt.Scale(type="log", domainMin=1, clamp=True)),
            color=alt.Color(
                "limit:N", title=None, sort=names, scale=alt.Scale(domain=names, range=[PALETTE["blue"], PALETTE["orange"]])
            ),
        )
    )
    rule = (
        alt.Chart(alt.Data(values=[{"context": context}]))
        .mark_rule(strokeDash=[4, 3], color=PALETTE["red"], strokeWidth=2)
        .encode(x="context:Q")
    )
    return Figure(
        (lines + rule).properties(title=f"{machines} × {machine}: {told}"),
        alt=f"Sessions that memory and speed allow, against their length. {model_name}, {kv} KV, {machines} × {machine}: {told}; of "
        f"{context:,} tokens, memory would hold {here.by_memory:,}, and speed allow {here.by_speed:,}.",
        source=f"Memory: {here.weight_bytes / 1e9:.1f} GB of weights and {here.kv_bytes / 1e9:.1f} GB of KV on each. Speed: modelled from the "
        f"datasheet ({chosen.source}). At 1 it ends: below, not one session fits.",
    )


live_chart(
    planner,
    model_name=w.Dropdown(options=list(MODELS), description="model"),
    machine=w.Dropdown(options=list(MACHINES), value=hardware("h100").name, description="machine"),
    machines=w.SelectionSlider(options=[1, 2, 4, 8], value=1, description="how many"),
    context=w.SelectionSlider(
        options=[500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000], value=8000, description="tokens a session"
    ),
    kv=w.ToggleButtons(options=["bf16", "fp8"], description="KV precision"),
    tokens_per_s=w.IntSlider(20, 5, 100, 5, description="tokens/s for each"),
)

# %% [markdown] tags=["reasoned"]
# Try this: Llama 2 7B and Llama 3.1 8B at 4,000 tokens. Then 8 bits: both lines rise, because a step also reads half the bytes.
# Now the shortest sessions: why does 8 bits bring less there? Then find a machine on which the 70B model talks to anybody at all.

# %% [markdown] tags=["further"]
# ### The pressure
#
# The load from above, by the model that was held against the live log step for step: how many blocks, seats and clients?


# %%
def pressure(given_blocks, seats, people):
    engine = EngineSettings(given_blocks, BLOCK, max_num_seqs=seats, max_model_len=CONTEXT)
    steps = foretold(load, people, engine)
    seen = step_memory(steps, given_blocks, BLOCK)
    thrown, twice = sum(step.preempted for step in seen), computed_twice(steps)
    tokens = sum(new for step in steps for _, new, _ in step.tokens)
    every = max(1, len(seen) // 150)
    rows = [
        {"step": i, "in use": 100 * seen[i].engine_blocks / (given_blocks - 1), "requests": seen[i].running}
        for i in range(0, len(seen), every)
    ]
    marks = [{"step": i} for i, step in enumerate(seen) if step.preempted]
    told = f"{thrown} preemptions, {100 * twice / tokens:.0f} % computed again, {len(steps):,} steps"
    x = alt.X("step:Q", title="step", scale=alt.Scale(domain=[0, max(600, len(steps))]))
    use = (
        alt.Chart(alt.Data(values=rows))
        .mark_area(color=PALETTE["blue"], interpolate="step-after")
        .encode(x=x, y=alt.Y("in use:Q", title="KV in use (%)", scale=alt.Scale(domain=[0, 100])))
    )
    ticks = (
        alt.Chart(alt.Data(values=marks)).mark_tick(color=PALETTE["red"], thickness=2, size=14).encode(x=x, y=alt.value(4))
    )
    running = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(color=PALETTE["green"], interpolate="step-after")
        .encode(x=x, y=alt.Y("requests:Q", title="running", scale=alt.Scale(domain=[0, 20])))
    )
    return Figure(
        alt.vconcat((use + ticks).properties(height=120), running.properties(height=80)).properties(title=told),
        alt=f"KV memory in use and requests running by step, with {given_blocks} blocks, {seats} seats and {people} clients: {told}.",
        source=f"Modelled, steps and not seconds; red ticks are preemptions. The {REQUESTS} requests of the live load.",
    )


live_chart(
    pressure,
    given_blocks=w.IntSlider(blocks["tight"], 22, 130, description="blocks"),
    seats=w.IntSlider(16, 1, 16, description="seats (max_num_seqs)"),
    people=w.IntSlider(CLIENTS, 1, 20, description="clients"),
)

# %% [markdown] tags=["reasoned"]
# Find the fewest blocks without a preemption. Then lower the seats instead, until there is none: which of the two needs more
# steps for the same answers?

# %% [markdown] tags=["further"]
# ### The link
#
# When is a history worth fetching? Each line ends at the model's context.


# %%
def offload(model_name, machine, tokens, gbs, kv):
    asked, chosen, longest = MODELS[model_name], MACHINES[machine], min(128_000, READS[model_name])
    size, speed = kv_size(asked, kv), datasheet_model(shape_of(asked), chosen, kv=kv)
    here = offload_break_even(size, speed, tokens, gbs)
    rows = []
    for n in np.geomspace(500, longest, 30):
        one = offload_break_even(size, speed, int(n), gbs)
        rows += [
            {"tokens": int(n), "way": "fetch", "ms": 1000 * one.fetch_s},
            {"tokens": int(n), "way": "compute again", "ms": 1000 * one.recompute_s},
        ]
    wins = "never" if here.tokens is None else f"from {here.tokens:,} tokens on"
    title = f"{tokens:,} tokens: {here.faster} ({1000 * here.fetch_s:.0f} ms against {1000 * here.recompute_s:.0f}). Fetching wins {wins}"
    title = title if here.faster == "fetch" else title.replace("recompute", "compute again")
    title = title if tokens <= longest else f"{model_name} reads {longest:,} tokens at most"
    lines = (
        alt.Chart(alt.Data(values=rows))
        .mark_line()
        .encode(
            x=alt.X("tokens:Q", title="tokens of history", scale=LOG_TOKENS, axis=TOKEN_AXIS),
            y=alt.Y("ms:Q", title="until it is there (ms)", scale=alt.Scale(type="log", domain=[0.1, 100_000], clamp=True)),
            color=alt.Color(
                "way:N",
                title=None,
                scale=alt.Scale(domain=["fetch", "compute again"], range=[PALETTE["blue"], PALETTE["red"]]),
            ),
        )
    )
    rule = (
        alt.Chart(alt.Data(values=[{"tokens": tokens}]))
        .mark_rule(strokeDash=[4, 3], strokeWidth=2, color=PALETTE["grey"])
        .encode(x="tokens:Q")
    )
    return Figure(
        (lines + rule).properties(title=title),
        alt=f"Fetching a history over {gbs:g} GB/s against computing it again. {title}.",
        source=f"Modelled from the datasheet ({chosen.source}), {here.fetched_bytes / 1e9:.2f} GB to fetch; idle machine, idle link.",
    )


live_chart(
    offload,
    model_name=w.Dropdown(options=["Llama 3.1 8B", "Llama 2 7B"], description="model"),
    machine=w.Dropdown(options=list(MACHINES), value=hardware("h100").name, description="machine"),
    tokens=w.SelectionSlider(
        options=[500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000], value=8000, description="tokens of history"
    ),
    gbs=w.SelectionSlider(options=[1.25, 3, 7, 12.5, 25, 32, 64, 128, 450], value=12.5, description="link (GB/s)"),
    kv=w.ToggleButtons(options=["bf16", "fp8"], description="KV precision"),
)

# %% [markdown]
# ## Do
#
# {{exercise 08.1}}
# Somebody must sign for next year's GPUs. `plans` has for each plan (GPUs, answers lost, answers asked): so many of a sample of
# answers were right and are wrong under the plan. A plan that cannot change an answer was asked none. GPUs are rented whole, at
# `gpu_usd` a month each. The portal gives `answers` a month, and a wrong one costs `wrong_usd`. `at_most(lost, asked)` is the
# upper end of the share that such a sample leaves possible. Return the plan that costs least even in that case; of equals, the
# first.


# %% exercise="08.1"
def plan_to_sign(
    plans: Mapping[str, tuple[float, int, int]],
    gpu_usd: float,
    answers: int,
    wrong_usd: float,
    at_most: Callable[[int, int], float],
) -> str:
    """The name of the plan that costs least even if it loses as many answers as its sample leaves possible."""
    ...  # your code here


# %%
book.check("08.1", plan_to_sign)

# %% [markdown]
# {{exercise 08.2}}
# Some sessions are under way; the i-th holds `tokens[i]` tokens, and all begin with the same `shared` tokens (each goes on with
# words of its own). Return how many blocks of `block` tokens they hold together, and how many slots in those are empty. It is
# checked against the lab's allocator, with the prefix cache on.


# %% exercise="08.2"
def blocks_and_slots(tokens: Sequence[int], shared: int, block: int) -> tuple[int, int]:
    """(blocks held, empty slots in them)."""
    ...  # your code here


# %%
book.check("08.2", blocks_and_slots)

# %% [markdown]
# {{exercise 08.3}}
# Size a machine: `memory` and `weights` in bytes, `token` bytes of KV per token, sessions of `context` tokens in blocks of
# `block`; `step_s(n)` seconds for a step in which n sessions write. Return how many sessions it holds *and* serves at
# `tokens_per_s` each (0 where not even one), and which limit binds, "memory" or "speed" ("memory" where both give the same).
# Its solution stands beside `plan` where the live engines are tried at their edge (◇); here it meets hidden machines.


# %% exercise="08.3"
def sessions_that_fit(
    memory: int, weights: int, token: int, context: int, block: int, step_s: Callable[[int], float], tokens_per_s: float
) -> tuple[int, str]:
    """(sessions, "memory" or "speed")."""
    ...  # your code here


# %%
book.check("08.3", sessions_that_fit)

# %% [markdown] tags=["further"]
# {{exercise 08.4}}
# Write the cache's choice of victim. When a block is needed and every free one still holds something findable, the lab's
# `BlockManager` asks you: `free` are its free blocks, the least recently used first, and `now` counts prompts. A `Block` knows
# its `hits` (prompts that found it), its `depth` in its sequence, and when it was `freed`. Return the one to give away. Yours
# runs in the real prefix cache on hidden traffic, chats among one-off documents, and has to serve a twentieth more than LRU;
# and when everybody has gone home, it must not hoard what they left.


# %% exercise="08.4"
def evict(free: Sequence[Block], now: int) -> Block:
    """The free block whose content is forgotten next."""
    ...  # your code here


# %%
book.check("08.4", evict)

# %% [markdown] tags=["further"]
# {{exercise 08.5}}
# Now the memory itself. Sequences have names and numbers of tokens; which tokens they are does not matter here. These are the
# rules, as in the PagedAttention paper, with vLLM's choice of who gives way:
#
# - A sequence of n tokens holds ⌈n / block⌉ blocks, listed in its table. A block is taken when a token needs it, not before.
# - A fork (a second sample of the same prompt, say) holds the same blocks. Full ones stay shared. Who writes into a block that
#   others hold as well takes a block of its own first, and has the content copied: `copy(source, target)`, which you are given.
# - When a token needs a block and none is free, the sequence that was admitted last is preempted, and again, until there is
#   room. It loses its blocks and waits with its tokens. If that is the writer itself, its new token counts, and waits too.
# - The one preempted last resumes first, in blocks that are all its own, and is then the one admitted last.
#
# The check writes numbers through your tables and reads them back. Give the class whatever fields and helpers you like.


# %% exercise="08.5"
class PagedMemory:
    """`num_blocks` blocks of `block_size` tokens for named sequences; `copy(source, target)` copies a block's content."""

    def __init__(self, num_blocks: int, block_size: int, copy: Callable[[int, int], None]) -> None: ...  # your code here

    @property
    def num_free(self) -> int:
        """Blocks that no sequence holds."""
        ...  # your code here

    @property
    def empty_slots(self) -> int:
        """Room for tokens in held blocks that is empty."""
        ...  # your code here

    def table(self, name: str) -> list[int]:
        """The blocks of a running sequence, numbers from 0, in the order of its tokens."""
        ...  # your code here

    def allocate(self, name: str, tokens: int) -> bool:
        """Start a sequence of so many tokens; False, and no change, where there are too few free blocks."""
        ...  # your code here

    def append(self, name: str) -> list[str]:
        """Make room for one more token of a running sequence; returns who was preempted for it, in order."""
        ...  # your code here

    def fork(self, name: str, twin: str) -> None:
        """Start a second sequence, `twin`, with all the tokens of a running one."""
        ...  # your code here

    def free(self, name: str) -> None:
        """End a sequence, running or waiting."""
        ...  # your code here

    def resume(self) -> str | None:
        """Give the sequence that was preempted last its blocks again; its name, or None where none waits or fits."""
        ...  # your code here


# %%
book.check("08.5", PagedMemory)

# %% [markdown]
# Once it passes, it is yours that serves the uneven load from above here, in as many blocks as the tight engine has, a token a step
# for everybody. The lab's allocator serves the same beside it.

# %%
memory_of, whose = book.yours("08.5", PagedMemory)
have = blocks["tight"] - 1
own, lab = (pd.DataFrame(served(each, have, BLOCK, load, CLIENTS)) for each in (memory_of, LabMemory))
same_rows = int((own == lab).all(axis=1).sum()) if len(own) == len(lab) else 0
in_one_piece = have * BLOCK // CONTEXT  # requests, each in a piece as long as the longest may become

# %%
x = alt.X("step:Q", title="step")
panel = {"height": 170}
used = (
    alt.Chart(own).mark_line(color=PALETTE["blue"]).encode(x=x, y=alt.Y("held:Q", title="blocks held"))
    + alt.Chart(lab[::8]).mark_circle(size=45, color=PALETTE["orange"]).encode(x=x, y="held:Q")
    + alt.Chart(pd.DataFrame({"have": [have]})).mark_rule(strokeDash=[4, 3], color=PALETTE["grey"]).encode(y="have:Q")
)
wasted = own.assign(share=100 * own.slots / (BLOCK * own.held))
waste = alt.Chart(wasted).mark_line(color=PALETTE["blue"]).encode(x=x, y=alt.Y("share:Q", title="empty slots (%)"))
gone = own[own.preempted.diff() > 0]
lost_now = (
    alt.Chart(gone).mark_point(shape="triangle-down", size=60, filled=True, color=PALETTE["red"]).encode(x=x, y="held:Q")
)
ran = f"{same_rows} of {len(own)} steps as with the lab's allocator"
show(
    alt.vconcat((used + lost_now).properties(**panel), waste.properties(**panel)).properties(
        title=f"Served by {whose}: {ran}"
    ),
    alt=f"Blocks held and the share of their slots that is empty, step by step. {ran}. At most {own.held.max()} of {have} blocks, "
    f"{own.running.max()} requests at once; {wasted.share.mean():.0f} % of the slots empty on average; {len(gone)} steps in which "
    "somebody lost blocks.",
    source=f"Line: {whose}. Circles: the lab's allocator, every eighth step. Triangles: somebody is preempted. Dashed: the tight "
    f"engine's blocks. Load: the {REQUESTS} requests of the section on preemption.",
)

# %% tags=["reasoned"]
Markdown(
    f"At most {own.running.max()} requests ran at once, and {own.preempted.max()} preemptions were needed. In one piece each, as long "
    f"as a request may become ({CONTEXT} tokens), {in_one_piece} would fit at a time, whatever they need. The live engine counted "
    f"{thrown} preemptions under this load"
    + ("." if thrown == own.preempted.max() else ": there, clients come back by the clock, and here by the step.")
)

# %% [markdown]
# ## So what
#
# The portal's assistant holds long conversations on GPUs that the portal rents. Whoever chats writes, reads and thinks; the engine
# writes for them only a small part of that time. How many GPUs there are depends on what happens to a conversation's memory
# in the rest of it. Five plans:

# %% tags=["constants"]
PLANS = {  # what becomes of a reader's keys and values between two turns, and their precision
    "all keep their memory": ("keep", "bf16"),
    "all keep their memory, in 8 bits": ("keep", "fp8"),
    "forget who left first, compute again": ("recompute", "bf16"),  # what an engine does by itself
    "main memory keeps what it holds": ("fetch", "bf16"),
    "main memory keeps what it holds, in 8 bits": ("fetch", "fp8"),
}
TODAY = "forget who left first, compute again"

# %%
chat = PORTAL.assistant
fleets = {what: fleet(PORTAL, *how) for what, how in PLANS.items()}
rents = {what: Machines("assistant", chat.host, one.gpus) for what, one in fleets.items()}
Markdown(
    "| plan | GPUs by memory | by speed | histories found | GPUs that compute again | **GPUs rented** | USD a month | first token "
    "later by, on average |\n|---|--:|--:|--:|--:|--:|--:|--:|\n"
    + "\n".join(
        f"| {what} | {one.memory:.1f} | {one.speed:.1f} | {100 * one.found:.0f} % | {one.recompute:.1f} | **{rents[what].rented}** "
        f"| {rents[what].usd:,.0f} | {1000 * one.later_s:.0f}&nbsp;ms |"
        for what, one in fleets.items()
    )
    + f"\n\nThe busiest hour of {PORTAL.users:,} users: {fleets['all keep their memory'].memory / fleets[TODAY].memory:.0f} conversations "
    f"are open for each that is being answered, each of {chat.history:,} tokens. {host(chat.host).name}, "
    f"{host(chat.host).usd_per_hour} USD an hour, {host(chat.host).source}, {host(chat.host).as_of}."
)

# %% [markdown] tags=["reasoned"]
# Memory and speed are needed at once, so the larger of the two counts; computing again takes further GPUs. *Found* is the
# cache of the section on long sessions: memory that nobody writes in keeps the readers who left last. If pauses vary at random,
# whoever comes back is any of those who are away, and the share found is the share of them that fits. If everybody came back after
# the same time, it would be the cliff: nothing is found. The next line says how many GPUs that takes.

# %% tags=["reasoned"]
worst = {what: math.ceil(one.most) for what, one in fleets.items() if one.again}
Markdown(
    "GPUs if nothing is found: "
    + "; ".join(f"*{what}* {gpus} in place of {rents[what].rented}" for what, gpus in worst.items())
    + ".\n\nHow far to trust the model's times: "
    + silicon_says(Reached(), chat.gpu)
    + " Memory is the arithmetic that was held against the engines' own count."
)

# %% [markdown]
# ### What 8 bits really cost
#
# Fewer GPUs in 8 bits is not yet a saving: an answer that was right in 16 bits and is wrong in 8 has a price, too. The portal
# gives answers by the million, so that even a small share of them is a large number.

# %%
sixteen, eight_plans = ([what for what, (_, kv) in PLANS.items() if kv == one] for one in ("bf16", "fp8"))
best_16, best_8 = (min(names, key=lambda what: (rents[what].usd, fleets[what].gpus)) for names in (sixteen, eight_plans))
answers = PORTAL.sessions * chat.turns  # a month
usd_of_all = answers * float(PORTAL.wrong_answer_usd)  # if every answer were wrong
spared = float(rents[best_16].usd - rents[best_8].usd)
even = spared / usd_of_all  # the share of wrong answers at which 8 bits neither earn nor lose
lost, (least, most_of) = eight.lost / eight.answers, wilson(int(eight.lost), int(eight.answers))
pays = True if most_of < even else False if least > even else None
enough = math.ceil(math.log(0.05) / math.log1p(-even)) if 0 < even < 1 else 0  # answers without a loss that would show it
Markdown(
    "| | GPUs | rent, USD a month | further wrong answers a month | they cost, USD | together, USD | (95 % interval) |\n"
    "|---|--:|--:|--:|--:|--:|--:|\n"
    f"| {best_16} | {rents[best_16].rented} | {rents[best_16].usd:,.0f} | 0 | 0 | {rents[best_16].usd:,.0f} | |\n"
    f"| {best_8} | {rents[best_8].rented} | {rents[best_8].usd:,.0f} | {answers * lost:,.0f} | {usd_of_all * lost:,.0f} "
    f"| {float(rents[best_8].usd) + usd_of_all * lost:,.0f} | {float(rents[best_8].usd) + usd_of_all * least:,.0f} to "
    f"{float(rents[best_8].usd) + usd_of_all * most_of:,.0f} |\n\n"
    f"{answers:,} answers a month; a wrong one costs {PORTAL.wrong_answer_usd} USD. Lost in this run: {eight.lost:.0f} of "
    f"{eight.answers:.0f} answers. {same_tasks.source}."
)

# %%
book.finding(
    pays,
    f"**8 bits pay here**: they spare {spared:,.0f} USD of rent, and even at the interval's upper end the lost answers cost less.",
    f"**8 bits lose money here**: they spare {spared:,.0f} USD of rent, and even at the interval's lower end the lost answers cost more.",
    f"**Whether 8 bits pay, this run cannot tell**: they spare {spared:,.0f} USD of rent, and what the lost answers cost lies somewhere "
    f"between {usd_of_all * least:,.0f} and {usd_of_all * most_of:,.0f} USD.",
)

# %%
plan_taken = best_8 if pays else best_16
book.bill(
    f"KV memory: {plan_taken}",
    Stays("assistant") if plan_taken == TODAY else Rented("assistant", times=fleets[plan_taken].gpus / fleets[TODAY].gpus),
    of="assistant",
    wrong=lost if plan_taken == best_8 else 0.0,
    source=f"Modelled from the datasheet of one {hardware(chat.gpu).name}: {chat.model}, histories of {chat.history:,} tokens; before: "
    f"{TODAY}. {host(chat.host).source}, {host(chat.host).as_of}.",
)

# %%
reading = 1 - fleets[TODAY].memory / fleets["all keep their memory"].memory  # share of the open conversations
kept, now, fetch_16 = (rents[what] for what in ("all keep their memory", TODAY, "main memory keeps what it holds"))
Markdown(
    f"**What moved.** An engine that forgets and computes again needs {now.rented} GPUs, {now.usd:,.0f} USD a month. To keep every "
    f"open conversation's memory on the GPU would take {kept.rented} ({kept.usd:,.0f} USD), {100 * reading:.0f} % of it for people who are "
    f"reading. Main memory comes with the rented machines: as a second store it needs {fetch_16.rented} GPUs ({fetch_16.usd:,.0f} "
    f"USD). That rests on pauses that vary: if all were equal it would take {worst['main memory keeps what it holds']}, so watch the share "
    "that is found. In the chain of the bill the GPUs have the room that chapter 02's promise asks for already, so the line scales those.\n\n"
    "**Who pays.** The reader who comes back: computing and fetching put the first token off by "
    f"{1000 * fleets[TODAY].later_s:.0f} ms today, and by {1000 * fleets['main memory keeps what it holds'].later_s:.0f} ms with main "
    "memory, on average. "
    + (
        f"8 bits would have their price in answers: they break even at {100 * even:.2f} % lost, and to show that so few are lost takes "
        f"{enough:,} of your own questions without a single loss. This run asked {eight.answers:.0f} of a small model: ask yours."
        if not pays and enough
        else f"The customers pay for 8 bits with {answers * lost:,.0f} wrong answers a month, at {PORTAL.wrong_answer_usd} USD each."
        if pays
        else "8 bits spare no GPU here, so nobody need ask what they do to the answers."
    )
)

# %% [markdown]
# **In production**, watch three numbers together: KV usage, preemptions per finished request, and the cached share of prompt
# tokens. High usage is what you pay for. Preemptions *with* a rising p95, or a cached share that falls off the cliff, say that
# there is one session too many.
#
# ### On your own data
#
# Write the path of your log into the field. The question: how much memory do the conversations hold that are open at once, and
# how many machines is that? The log needs each call's time, its tokens, and an id of its conversation.

# %%
book.on_your_data()

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz("08.q1")

# %%
book.quiz("08.q2")

# %%
book.quiz("08.q3")

# %% [markdown]
# ## Next
#
# **09 · Prompt compression**: the cheapest token in memory is the one that never came in. How short can a prompt get before the
# answer is wrong?

# %%
await book.close()
folder.cleanup()
book.progress()
