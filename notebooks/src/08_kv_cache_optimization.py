# %% [markdown]
# # 08 · KV cache: what a session's memory costs, and what happens when it runs out
#
# **The question.** The portal's GPUs are half idle and still full: they ran out of memory, not of arithmetic. Every open
# conversation keeps its keys and values there, and the next GPU costs thousands a month. How many sessions fit, what happens
# to the one too many, and which of the ways to make room costs the least?
#
# **You will be able to** say what a token takes in memory, for any model and to the byte; predict how many sessions an engine
# holds before it throws one out, and what that costs; decide between fewer bits, fewer seats, eviction and offload; and change
# what the cache forgets first.
#
# **Time.** 75 minutes. **Needs.** Chapters 02 and 03; some small engines start on this machine, each with less memory than it
# would like.

# %% tags=["imports"]
import asyncio
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import altair as alt
import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy.stats import binomtest
from transformers import AutoTokenizer

from labkit.caches import PrefixCache
from labkit.cost import host
from labkit.engines import EngineArgumentError, connect
from labkit.engines.host import STEP_LOG, read_step_log
from labkit.engines.modelled import Block, EngineSettings
from labkit.experiments import keep, recordings
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
from labkit.lab import examples, families, grade, long_examples, wilson
from labkit.latency import datasheet_model, hardware, shape, shape_of
from labkit.load import ExactLengths
from labkit.request import Message, Request, clock, complete
from labkit.workbook import PALETTE, Figure, live_chart, show, state_dir, watch_blocks
from labkit.workbook.chapters.c08 import chat_traffic, hit_share

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
# They are kept, because computing them again for each new token would cost more than all the rest. What is kept is a plain
# product, and architects have fought over every factor of it:
#
# - **MHA**: each attention head keeps its own pair. **GQA**: groups of heads share one. **MQA**: all of them share one.
# - **MLA**: one compressed vector for all heads instead of pairs.
# - **Sliding window**: a layer drops what is further back than its window.

# %% tags=["constants"]
LLAMA = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
LLAMA |= {"intermediate_size": 11008, "vocab_size": 32000}
MISTRAL = {"model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
MISTRAL |= {"intermediate_size": 14336, "vocab_size": 32000, "num_key_value_heads": 8, "sliding_window": 4096}
GEMMA = {"model_type": "gemma", "hidden_size": 2048, "num_hidden_layers": 18, "num_attention_heads": 8, "head_dim": 256}
GEMMA |= {"intermediate_size": 16384, "vocab_size": 256000, "num_key_value_heads": 1}
DEEPSEEK = {"model_type": "deepseek_v2", "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16}
DEEPSEEK |= {"num_key_value_heads": 16, "kv_lora_rank": 512, "q_lora_rank": None, "qk_rope_head_dim": 64}
DEEPSEEK |= {"qk_nope_head_dim": 128, "v_head_dim": 128, "intermediate_size": 10944, "moe_intermediate_size": 1408}
DEEPSEEK |= {"n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1}
DEEPSEEK |= {"vocab_size": 102400, "topk_method": "greedy", "n_group": 1, "topk_group": 1}
CONFIGS = {  # the fields that matter, from each model's own config.json
    "Llama 2 7B": LLAMA,
    "Llama 3.1 8B": "llama-3.1-8b",
    "Mistral 7B v0.1": MISTRAL,
    "Gemma 2B": GEMMA,
    "DeepSeek V2 Lite": DEEPSEEK,
    "Llama 3.1 70B": "llama-3.1-70b",
}
SESSION = 8_000  # tokens of one long conversation

# %%
sizes = {name: kv_size(config) for name, config in CONFIGS.items()}
Markdown(
    f"| model | a token, in 16 bits | {SESSION:,} tokens | in fp8 |\n|---|---|--:|--:|\n"
    + "\n".join(
        f"| {name} | {size.arithmetic} | {size.sequence_bytes(SESSION) / 1e6:,.0f}&nbsp;MB "
        f"| {kv_size(CONFIGS[name], 'fp8').sequence_bytes(SESSION) / 1e6:,.0f}&nbsp;MB |"
        for name, size in sizes.items()
    )
)

# %%
book.reveal("08.session", sizes["Llama 3.1 8B"].sequence_bytes(SESSION) / 1e6, unit="MB")
LOG_TOKENS = alt.Scale(type="log", domain=[500, 128_000], nice=False)
TOKEN_AXIS = alt.Axis(values=[500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000], labelAngle=-45)
lengths = np.geomspace(500, 128_000, 40).astype(int)
grown = pd.DataFrame(
    [
        {"model": f"{name} ({size.kind})", "tokens": int(n), "GB": size.sequence_bytes(int(n)) / 1e9}
        for name, size in sizes.items()
        for n in lengths
    ]
)
at_32k = {name: size.sequence_bytes(32_000) / 1e9 for name, size in sizes.items()}
small, big = min(at_32k, key=at_32k.get), max(at_32k, key=at_32k.get)
labels = list(dict.fromkeys(grown.model))
show(
    alt.Chart(grown)
    .mark_line()
    .encode(
        x=alt.X("tokens:Q", title="tokens in the session", scale=LOG_TOKENS, axis=TOKEN_AXIS),
        y=alt.Y("GB:Q", title="keys and values, GB (bf16)", scale=alt.Scale(type="log")),
        color=alt.Color("model:N", title=None, sort=labels),
        strokeDash=alt.StrokeDash("model:N", sort=labels, legend=None),
    )
    .properties(title=f"A session of 32,000 tokens: {at_32k[small]:.1f} GB ({small}) to {at_32k[big]:.1f} GB ({big})"),
    alt="Memory of one session against its length, both logarithmic. At 32,000 tokens: "
    + ", ".join(f"{name} {gb:.2f} GB" for name, gb in at_32k.items())
    + ". Mistral's line is flat beyond its window.",
    source="Computed from the models' configurations (labkit/data/shapes, and the fields above).",
)

# %% [markdown]
# Mistral's line goes flat: all its layers have a window. The 7B model from before GQA needs more for a session than the 70B
# model that came after it. Bigger weights do not mean bigger sessions.
#
# ### The engine's own count
#
# Arithmetic is cheap, so hold it against an engine. vLLM cuts its KV memory into **blocks** of a fixed number of tokens and
# says how many it made. Here are some engines with very little of it: a real model, so that a few dozen clients can do to it
# what thousands do to a GPU.

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
logs = {name: Path(folder.name) / f"{number}.jsonl" for number, name in enumerate(ENGINES)}
live, blocks, block_size, precision = {}, {}, {}, {}


async def start(name):
    """Start an engine of that kind, with a log of every step of its scheduler, and ask it what it made of its memory."""
    arguments = {"block_size": BLOCK, "max_num_seqs": SEATS, "max_num_batched_tokens": 2048, **ENGINES[name]}
    live[name] = await connect(
        book.engine,
        model="large",
        progress=print if not live else lambda step: None,
        async_scheduling=False,
        **arguments,
        **watchable(10, **{STEP_LOG: str(logs[name])}),
    )
    says = (await live[name].metrics()).cache_config
    blocks[name], block_size[name] = int(says["num_gpu_blocks"]), int(says["block_size"])
    precision[name] = {"auto": "bf16"}.get(says["cache_dtype"], says["cache_dtype"])
    print(f"{name}: {blocks[name]} blocks of {block_size[name]} tokens")


for name in ("roomy", "tight", "tight, fp8", "roomy, large blocks"):
    try:
        await start(name)
    except EngineArgumentError as error:  # not every processor can do 8 bits
        print(f"{name}: no such engine here. {error}")
model = live["roomy"].tokenizer_path  # the model's folder
source = live["roomy"].provenance.caption()
make = ExactLengths(str(model), seed)  # fresh words every time: no prefix cache helps
counted = {
    name: blocks_for(ENGINES[name]["kv_cache_memory_bytes"], model, block_size[name], precision[name]) for name in live
}
print(kv_size(model).arithmetic)
pd.DataFrame(
    {
        "bytes given": [f"{ENGINES[name]['kv_cache_memory_bytes']:,}" for name in live],
        "bytes a block": [f"{kv_size(model, precision[name]).block_bytes(block_size[name]):,}" for name in live],
        "blocks, counted": counted.values(),
        "blocks, the engine says": blocks.values(),
    },
    index=list(live),
)

# %%
Markdown(
    (
        "**Equal for every engine.** "
        if counted == blocks
        else "**They differ, and one of the two must be explained before going on.** "
    )
    + "One of the blocks is kept back as a placeholder, so requests get one less. And at 8 bits, "
    + ("by the engine's own count" if "tight, fp8" in live else "counted only, as this machine has no such engine")
    + f", the same bytes make {blocks.setdefault('tight, fp8', blocks_for(TIGHT, model, BLOCK, 'fp8'))} blocks instead of {blocks['tight']}."
)

# %% [markdown]
# A claim on the way, which everybody who has rented a GPU has heard:

# %%
seven = shape_of(LLAMA)
weights_gb = seven.parameters * 2 / 1e9
each_gb = sizes["Llama 2 7B"].sequence_bytes(4096) / 1e9
book.claim(
    "08.seven",
    "A 7B model in FP16 needs about 14 GB.",
    claimed=14,
    measured=weights_gb,
    unit="GB",
    where=f"the weights of Llama 2 7B: {seven.parameters:,} parameters of 2 B each",
    unless=f"A model that talks needs more: one session of its full 4,096 tokens takes {each_gb:.2f} GB of KV cache, and "
    f"{math.ceil(weights_gb / each_gb)} of them take more than the weights. 14 GB buys a model that can talk to nobody.",
    source="Computed from the model's configuration; nothing was measured on a GPU.",
    tolerance=0.05,
)

# %% [markdown]
# ### One piece, or blocks?
#
# Before blocks, an engine gave each request one contiguous chunk, as long as it might ever become: nobody knows how long an
# answer will be. What does that cost on real traffic? Here is some: the lab's support tasks, answered live. Their lengths are
# then laid into the memory of the roomy engine, in both ways.


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


async def warm(name):
    """Let an engine take its first, slower steps before anything is measured."""
    await clients(live[name], [make(64, 16) for _ in range(8)], 8)


for name in live:
    await warm(name)
tokenizer = AutoTokenizer.from_pretrained(model, model_max_length=1 << 20)  # long tasks are cut to size later
tasks = [task for family in families() for task in examples("test", family, book.pick(ci=15, learn=40, gpu=40), seed)]
policies = long_examples("test", book.pick(ci=8, learn=20, gpu=20), tokenizer, seed)  # of up to 1,900 tokens, for later
tasks, long = tasks + policies, len(policies)
asked = [Request(task.messages, max_tokens=task.max_tokens, logprobs=0) for task in tasks]
answered = {"roomy": (await clients(live["roomy"], asked, 12))[0]}
short = answered["roomy"][:-long]
real = [
    Lengths(answer.done.usage.input_tokens, answer.done.usage.output_tokens, 2048)
    for answer in book.rng("order").sample(short, len(short))
]
room = (blocks["roomy"] - 1) * BLOCK
laid = {
    "chunk of the longest": contiguous(real, room, departed=range(0, len(real), 3)),
    "chunk of the next power of two": contiguous(real, room, chunk="pow2", departed=range(0, len(real), 3)),
    "chunk of the true length": contiguous(real, room, chunk="oracle", departed=range(0, len(real), 3)),
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
worst, paged_one = laid["chunk of the longest"], laid[f"blocks of {BLOCK}"]
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
        title=f"Requests at once: {worst.sequences} in chunks of the longest, {paged_one.sequences} in blocks of {BLOCK}",
    ),
    alt="What the KV memory holds: "
    + " ".join(
        f"{name}: {100 * waste.utilization:.0f} % tokens, {waste.sequences} requests." for name, waste in laid.items()
    ),
    source=f"Lengths of {len(real)} requests answered in this run, each half written; for chunks, every third has left again. Layouts computed. {source}",
)

# %% [markdown]
# With blocks nothing is reserved and no hole is too small. What is left is the rest of each request's *last* block. How much
# that is can be counted live: the engines log every step of their scheduler, request by request. The same uneven load on two of
# them, with blocks of different sizes; and the blocks that we count from the tokens, beside those that the engine says it holds.

# %% tags=["constants"]
CLIENTS, REQUESTS = 10, 32

# %%
draw = book.rng("load")
load = [(draw.randrange(24, 200), 8 + min(230, int(draw.expovariate(1 / 80)))) for _ in range(REQUESTS)]  # (prompt, answer)


async def under_load(name):
    """The uneven load on an engine: its answers, its steps, how long it took and how often it preempted."""
    engine, mark = live[name], len(read_step_log(logs[name]))
    requests, before = [make(*lengths) for lengths in load], await engine.metrics()
    answers, seconds = await clients(engine, requests, CLIENTS)
    counted = await engine.metrics() - before
    steps = read_step_log(logs[name])[mark:]
    return {"requests": requests, "answers": answers, "steps": steps, "seconds": seconds, "preemptions": counted.preemptions}


empty = []
for name in ("roomy", "roomy, large blocks"):
    seen = step_memory((await under_load(name))["steps"], blocks[name], block_size[name])
    held = sum(step.blocks for step in seen)
    empty.append(
        {
            "block size": block_size[name],
            "steps": len(seen),
            "steps where our count of blocks is the engine's": sum(step.blocks == step.engine_blocks for step in seen),
            "empty slots a request": sum(step.empty_slots for step in seen) / sum(step.running for step in seen),
            "by the rule (block − 1) / 2": mean_block_waste(block_size[name]),
            "share of held memory (%)": 100 * sum(step.empty_slots for step in seen) / (held * block_size[name]),
        }
    )
await live.pop("roomy, large blocks").aclose()
empty = pd.DataFrame(empty).set_index("block size")
empty.round(1)

# %%
low, high = empty["share of held memory (%)"][BLOCK], empty["share of held memory (%)"][128]
Markdown(
    f"Blocks of {BLOCK} waste {low:.0f} % of what they hold on this load, blocks of 128 waste {high:.0f} %. "
    "So why not blocks of one token? Each block costs a lookup in every step and a hash in the prefix cache; vLLM's default is 16 "
    "on a GPU, and 128 on a CPU, where long runs of memory are fast."
)

# %% [markdown]
# ### One session too many
#
# Blocks are handed out as tokens are written, so an engine lets in more requests than it could ever finish side by side. That is
# a bet that they will not all grow long at the same time. When it is lost, one of them is **preempted**: its blocks are taken,
# it goes back into the queue, and what it had computed is computed again.
#
# Before anything runs: the lab's model of vLLM's scheduler needs no engine to say what will happen, only the lengths.

# %%
await start("tight, few seats")
await warm("tight, few seats")
settings = {
    name: EngineSettings(
        blocks[name],
        BLOCK,
        max_num_seqs=ENGINES[name].get("max_num_seqs", SEATS),
        max_model_len=ENGINES[name]["max_model_len"],
    )
    for name in ("roomy", "tight", "tight, few seats", "tight, fp8")
}
said = {name: foretold(load, CLIENTS, setting) for name, setting in settings.items()}
most = max(step.blocks for step in step_memory(said["roomy"], blocks["roomy"], BLOCK))
print(
    f"{CLIENTS} clients, {REQUESTS} requests of {min(map(sum, load))} to {max(map(sum, load))} tokens: at most {most} blocks at once. "
    f"The tight engine has {blocks['tight'] - 1}."
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
async def watched(name, every_s=0.05):
    """`under_load`, and the engine's gauges meanwhile."""
    gauges, begin = [], clock.now()
    before = (await live[name].metrics()).preemptions
    task = asyncio.create_task(under_load(name))
    while not task.done():
        now = await live[name].metrics()
        gauges.append(
            {
                "s": clock.now() - begin,
                "KV memory in use (%)": 100 * now.kv_cache_usage,
                "running": now.requests_running,
                "waiting": now.requests_waiting,
                "preemptions until now": now.preemptions - before,
            }
        )
        await asyncio.wait({task}, timeout=every_s)
    return await task, pd.DataFrame(gauges)


seen, gauges = await watched("tight")
full = alt.Chart(gauges).encode(x=alt.X("s:Q", title=None))
lines = gauges.melt(id_vars="s", value_vars=["running", "waiting", "preemptions until now"], var_name="what")
show(
    alt.vconcat(
        full.mark_area(color=PALETTE["blue"], line=True, interpolate="step-after")
        .encode(y=alt.Y("KV memory in use (%):Q", scale=alt.Scale(domain=[0, 100]), title="KV in use (%)"))
        .properties(height=90, width=560),
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
            strokeDash=alt.StrokeDash("what:N", legend=None),
        )
        .properties(height=130, width=560),
    ).properties(
        title=f"Full at {gauges['KV memory in use (%)'].max():.0f} %: {seen['preemptions']:.0f} times somebody had to go"
    ),
    alt=f"The tight engine under {CLIENTS} clients: KV memory in use, up to {gauges['KV memory in use (%)'].max():.0f} %; requests "
    f"running, at most {gauges.running.max():.0f}, and waiting, at most {gauges.waiting.max():.0f}; {seen['preemptions']:.0f} preemptions.",
    source=f"The engine's own gauges and counters, read some twenty times a second. {source}",
)

# %% [markdown]
# ### The blocks, live
#
# Gauges say how much; here is who. Each square is one block of the tight engine, drawn ten times a second from the scheduler's
# own state, with the number of the request that holds it. Watch for a ▼: there somebody just lost a block. When the load is
# over, the slider, or the arrow keys, step through the same frames.

# %%
async with watch_blocks(live["tight"]) as watching:
    loaded = await under_load("tight")

# %%
full_frames = sum(frame.usage > 0.95 for frame in watching.frames) / max(1, len(watching.frames))
taken = reused = 0
for frame, later_frame in pairwise(watching.frames):
    victims = {request for what, request in later_frame.events if what == "preempted"}
    lost = {block for holder in frame.holders if holder.id in victims for block in holder.blocks}
    taken += len(lost)
    reused += len(lost & {block for holder in later_frame.holders if holder.id not in victims for block in holder.blocks})
Markdown(
    f"{len(watching.frames)} frames, {watching.fps or 0:.1f} a second. In **{100 * full_frames:.0f} %** of them more than 95 % of the "
    f"blocks were held. {watching.preemptions} preemptions were seen, "
    + (
        "and the engine counted as many. "
        if watching.preemptions == loaded["preemptions"]
        else f"but the engine counted {loaded['preemptions']:.0f}. "
    )
    + (
        f"They took {taken} blocks, and {100 * reused / taken:.0f} % of those were another request's by the next frame: "
        + (
            "what one loses, the others grow into at once."
            if reused > taken / 2
            else "the others lie free a moment, or are its own again."
        )
        if taken
        else "In no frame had somebody just lost a block."
    )
)

# %% [markdown]
# ### Step by step
#
# Is that what the model foretold? And is it the same *engine*: the same requests in the same steps, the same victims, the same
# blocks left over? The log says who ran in which step. Tell the model only when each request came in, and compare everything
# else.

# %%
ids = {answer.done.response_id: number for number, answer in enumerate(seen["answers"])}
requests = {}
for step in seen["steps"]:
    for id, _, _ in step.tokens:
        number = ids[id.rpartition("-")[0]]  # vLLM adds a suffix to the id it reports
        chat = [{"role": m.role, "content": m.content} for m in seen["requests"][number].messages]
        prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        requests[id] = (list(prompt), load[number][1])
again = replayed(seen["steps"], requests, settings["tight"])
same = sum(ours == theirs for ours, theirs in zip(again, seen["steps"], strict=False))
victims = sum(len(step.preempted) for step in again)
Markdown(
    f"**{len(seen['steps'])} live steps; {same} of them are equal in every number**: requests, new tokens, tokens held, victims, free blocks. "
    f"Preemptions: {sum(len(s.preempted) for s in said['tight'])} foretold from the lengths alone, {victims} with the real arrivals, "
    f"{seen['preemptions']:.0f} counted by the engine. (On paper nobody takes time to come back; live clients do.) "
    + (
        "So what the model says of a cache that you do not have is worth listening to; the widget below is this model."
        if same == len(seen["steps"]) == len(again)
        else "Where they part, the model's next steps are of another history; look at the first difference before trusting it."
    )
)

# %% [markdown]
# ### What it costs
#
# The same load on each, in turns: enough memory; too little; too little, but never more than a few at once; and, where the
# processor can do it, too little at 8 bits a number, for the section after the next.

# %%
rounds, turns = [], [name for name in settings if name in live]
for i in range(book.pick(ci=3, learn=5, gpu=5)):
    for name in turns[:: 1 - 2 * (i % 2)]:  # forwards and backwards: a busy moment meets all of them
        found = await under_load(name)
        tokens = sum(new for step in found["steps"] for _, new, _ in step.tokens)
        e2e = [answer.done.timing.e2e for answer in found["answers"]]
        rounds.append(
            {
                "engine": name,
                "preemptions": found["preemptions"],
                "steps": len(found["steps"]),
                "tokens": tokens,
                "twice": computed_twice(found["steps"]),
                "per_s": sum(output for _, output in load) / found["seconds"],
                "ttft": np.percentile([answer.done.timing.ttft for answer in found["answers"]], 95),
                "tpot": np.percentile([answer.tpot for answer in found["answers"]], 95),
                "e2e": np.percentile(e2e, 95),
                "running": statistics.mean(len(step.tokens) for step in found["steps"]),
                "in_use": statistics.mean(1 - step.free_blocks / (blocks[name] - 1) for step in found["steps"]),
            }
        )
rounds = pd.DataFrame(rounds)
await live.pop("tight, few seats").aclose()
cost = rounds.groupby("engine", sort=False).median().reindex(turns)
cost["again"] = 100 * cost.twice / cost.tokens
book.reveal("08.twice", float(cost.again["tight"]), unit="%")
work = pd.DataFrame(
    [
        {"engine": name, "kind": kind, "order": i, "tokens": tokens}
        for name, row in cost.iterrows()
        for i, (kind, tokens) in enumerate({"computed once": row.tokens - row.twice, "computed again": row.twice}.items())
    ]
)
show(
    alt.Chart(work)
    .mark_bar()
    .encode(
        x=alt.X("tokens:Q", title=f"tokens computed for the same {REQUESTS} answers"),
        y=alt.Y("engine:N", title=None, sort=list(settings)),
        color=alt.Color(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=["computed once", "computed again"], range=[PALETTE["blue"], PALETTE["red"]]),
        ),
        order="order:Q",
    )
    .properties(
        height=130,
        title=f"{cost.preemptions['tight']:.0f} preemptions: {cost.again['tight']:.0f} % of the work is done twice",
    ),
    alt="Tokens computed once and again: "
    + " ".join(f"{name}: {row.twice:.0f} of {row.tokens:.0f} again." for name, row in cost.iterrows()),
    source=f"From each engine's step log, medians of {len(rounds) // len(settings)} rounds. {source}",
)

# %%
pd.DataFrame(
    {
        "preemptions": cost.preemptions.map("{:.0f}".format),
        "steps": cost.steps.map("{:.0f}".format),
        "answers in a step": cost.running.map("{:.1f}".format),
        "computed again": cost.again.map("{:.0f} %".format),
        "memory in use": (100 * cost.in_use).map("{:.0f} %".format),
        "output tokens/s": cost.per_s.map("{:.0f}".format),
        "(its range)": [f"{r.per_s.min():.0f} to {r.per_s.max():.0f}" for _, r in rounds.groupby("engine", sort=False)],
        "p95 TTFT (ms)": (1000 * cost.ttft).map("{:.0f}".format),
        "p95 TPOT (ms)": (1000 * cost.tpot).map("{:.1f}".format),
        "p95 end to end (ms)": (1000 * cost.e2e).map("{:.0f}".format),
    }
).rename_axis(None)

# %%
less = 100 * (1 - cost.per_s["tight"] / cost.per_s["roomy"])
later = cost.ttft["tight"] / cost.ttft["roomy"]
more_steps = cost.steps["tight"] / cost.steps["roomy"]
speeds = {name: list(found.per_s) for name, found in rounds.groupby("engine", sort=False)}  # a round met the same noise
gains = [100 * (few / many - 1) for few, many in zip(speeds["tight, few seats"], speeds["tight"], strict=True)]
Markdown(
    (
        f"Too little memory costs {less:.0f} % of the throughput here, and "
        if less > 0
        else "Too little memory cost no throughput in this run, but that is noise: it takes more steps. And "
    )
    + f"the slowest first tokens (p95) come after {later:.1f} times as long: who finds no room waits at the door, or is thrown out. "
    f"{cost.again['tight']:.0f} % of the tokens are work done twice; the rest of the loss is company: {cost.running['tight']:.1f} answers share "
    f"a step instead of {cost.running['roomy']:.1f}, so there are {more_steps:.1f} times the steps.\n\n"
    + f"Is it better not to bet? With {FEW_SEATS} seats there were {cost.preemptions['tight, few seats']:.0f} preemptions, "
    f"{100 * cost.in_use['tight, few seats']:.0f} % of the memory in use instead of {100 * cost.in_use['tight']:.0f} %, and "
    f"{statistics.median(gains):+.0f} % tokens per second (the rounds: {min(gains):+.0f} to {max(gains):+.0f} %). "
    + (
        "**The bet is worth it here**: a few preemptions are no illness, they are the price of memory that does not stand empty. "
        if max(gains) < 0
        else "**The bet is not worth it here**: fewer seats, less work done twice, more answers. "
        if min(gains) > 0
        else "**The rounds do not agree, so this run cannot tell**: one loses to work done twice, the other to memory that stands empty. "
    )
    + "So look at what preemptions cost, not at whether there are any. With fewer seats the queue only moves from inside the engine to its door."
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


def ids_of(messages):
    chat = [{"role": m.role, "content": m.content} for m in messages]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


together = book.pick(ci=(1, 4, 5, 6, 7, 8), learn=(1, 2, 3, 4, 5, 6, 7, 8, 10), gpu=(1, 2, 3, 4, 5, 6, 7, 8, 10))
beforehand = PrefixCache(blocks["roomy"], BLOCK)
turns = []
for n in together:
    histories = [[Message("system", text(OPENING))] for _ in range(n)]
    for turn in range(1, TURNS + 1):
        for history in histories:  # one after another: session 1, 2, … n, and 1 again
            history.append(Message("user", text(QUESTION)))
            expected = beforehand.serve(ids_of(history), output=[0])
            request = Request(tuple(history), max_tokens=1, extra={"ignore_eos": True, "skip_special_tokens": False})
            done = (await complete(live["roomy"], request)).done
            turns.append(
                {
                    "sessions": n,
                    "turn": turn,
                    "tokens": done.usage.input_tokens,
                    "found": done.usage.cached_tokens,
                    "foretold": expected,
                    "ms": 1000 * done.timing.e2e,
                }
            )
            history.append(Message("assistant", text(ANSWER)))
turns = pd.DataFrame(turns)
wrong = int((turns.found != turns.foretold).sum())
last = turns[turns.turn == TURNS]
share = 100 * last.groupby("sessions").found.sum() / last.groupby("sessions").tokens.sum()
each = -(-int(last.tokens.max()) // BLOCK)
fit = (blocks["roomy"] - 1) / each
show(
    (
        alt.Chart(pd.DataFrame({"sessions": share.index, "share": share.values}))
        .mark_line(point=alt.OverlayMarkDef(size=70, filled=True), color=PALETTE["blue"])
        .encode(
            x=alt.X("sessions:Q", title="sessions that take turns"),
            y=alt.Y("share:Q", title=f"history found at turn {TURNS} (%)", scale=alt.Scale(domain=[0, 100])),
        )
        + alt.Chart(pd.DataFrame({"fit": [fit]}))
        .mark_rule(strokeDash=[4, 3], color=PALETTE["red"], strokeWidth=2)
        .encode(x="fit:Q")
    ).properties(
        title=f"{together[0]} session: {share.iloc[0]:.0f} % found. {together[-1]} sessions: {share.iloc[-1]:.0f} %"
    ),
    alt="Share of the history that the cache still held at the last turn, by sessions taking turns. "
    + " ".join(f"{n}: {value:.0f} %." for n, value in share.items())
    + f" The dashed line is at {fit:.1f} sessions, which fill the cache.",
    source=f"Cached tokens as the engine reports them; {wrong} of {len(turns)} requests foretold wrongly. Dashed: {blocks['roomy'] - 1} blocks over {each} a session. {source}",
)

# %%
fall = -share.diff().dropna()
after, before = int(fall.idxmax()), int(share.index[share.index.get_loc(fall.idxmax()) - 1])
Markdown(
    f"From {before} to {after} sessions, what is found falls from {share[before]:.0f} % to {share[after]:.0f} %. "
    + ("**That is no slope, it is a cliff.**" if fall.max() > 30 else "In this run it is a slope.")
)

# %% [markdown]
# The cache forgets what was used least recently, and with sessions that take turns the one used least recently is exactly the
# one that comes back next. So the first session beyond the room does not lose its own history only: it starts a chain in which
# everybody pushes out the next one to come.

# %%
turns["kind"] = np.where(turns.found > turns.tokens / 2, "history still there", "history evicted")
later = turns[turns.turn > 1]
kinds = ["history still there", "history evicted"]
middle = later[later.turn == TURNS].groupby("kind").ms.median().reindex(kinds)
points = alt.Chart(later).encode(
    x=alt.X("tokens:Q", title="tokens in the history", scale=alt.Scale(zero=False)),
    y=alt.Y("ms:Q", title="until one token is there (ms)", scale=alt.Scale(domainMin=0)),
    color=alt.Color("kind:N", title=None, scale=alt.Scale(domain=kinds, range=[PALETTE["blue"], PALETTE["red"]])),
    shape=alt.Shape("kind:N", title=None, scale=alt.Scale(domain=kinds)),
)
show(
    points.mark_point(size=45, filled=True).properties(
        title=f"Turn {TURNS}: {middle.iloc[0]:.0f} ms with its history, {middle.iloc[1]:.0f} ms without"
        if middle.notna().all()
        else "No history was evicted"
        if middle.isna().iloc[1]
        else "Every history was evicted"
    ),
    alt="Time to a one-token answer of every turn after the first against the length of its history, where the cache still held it and where not. "
    + " ".join(f"Median at turn {TURNS}, {kind}: {value:.0f} ms." for kind, value in middle.dropna().items()),
    source=f"Each point is a request for one token, so its end is its TTFT; one request at a time. {source}",
)

# %% [markdown]
# ### What is forgotten first
#
# Which block goes first is a policy, and the lab's allocator is built to be watched. Two requests come and go:

# %%
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
mixed = chat_traffic(book.rng("mixed"), book.pick(ci=600, learn=1200, gpu=1200), 16)
policies = {"least recently used": None, "spare what came back (08.4)": book.reference("08.4")}
curve = pd.DataFrame(
    [
        {"blocks": n, "policy": name, "share": 100 * hit_share(mixed, n, 16, policy)}
        for n in (30, 45, 60, 80, 100, 130, 160, 200, 250)
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
            color=alt.Color("policy:N", title=None, sort=list(policies), legend=alt.Legend(orient="bottom", labelLimit=300)),
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
# `kv_cache_dtype="fp8"` keeps each number in 8 bits. The blocks doubled, as counted above. The other two questions are harder:
# is it faster, and is it still right?


# %%
def for_others(experiment, name, rows):
    """Keep rows of the engine `name`, for machines whose processor cannot do it."""
    origin = live[name].provenance
    settings = {key: value for key, value in origin.arguments.items() if key != "additional_config"}  # our own viewers
    origin = replace(origin, command="python -m labkit.workbook.run 08_kv_cache_optimization", arguments=settings)
    return keep(experiment, "default", origin, rows, state_dir() / "recordings")


if "tight, fp8" in live:
    spoken = ["preemptions", "steps", "per_s", "e2e"]
    rows = [{"roomy": name == "roomy", "bits": 8 if "fp8" in name else 16, "blocks": blocks[name], **cost.loc[name, spoken]}
            for name in ("roomy", "tight", "tight, fp8")]  # fmt: skip
    speeds = for_others("kv_bits_speed", "tight, fp8", rows)
else:
    speeds = recordings("kv_bits_speed", model="large")[0]
roomy, bf16, fp8 = speeds.frame().itertuples()
print(speeds.caption())
pd.DataFrame(
    {
        "blocks": [f"{bf16.blocks:.0f}", f"{fp8.blocks:.0f}", f"{fp8.blocks / bf16.blocks:.2f}"],
        "preemptions": [f"{bf16.preemptions:.0f}", f"{fp8.preemptions:.0f}", ""],
        "steps": [f"{bf16.steps:.0f}", f"{fp8.steps:.0f}", f"{fp8.steps / bf16.steps:.2f}"],
        "output tokens/s": [f"{bf16.per_s:.0f}", f"{fp8.per_s:.0f}", f"{fp8.per_s / bf16.per_s:.2f}"],
        "p95 end to end (ms)": [f"{1000 * bf16.e2e:.0f}", f"{1000 * fp8.e2e:.0f}", f"{fp8.e2e / bf16.e2e:.2f}"],
    },
    index=["tight, bf16", "tight, fp8", "ratio"],
)

# %%
plain, made = fp8.per_s / roomy.per_s, fp8.per_s / bf16.per_s
Markdown(
    f"In the same bytes, 8 bits took {fp8.preemptions:.0f} preemptions instead of {bf16.preemptions:.0f}, and {made:.2f} times the tokens per second"
    + (": room is speed here. " if made > 1.03 else "; on a machine that busy, the room it makes does not show as speed. ")
    + f"Against the roomy engine, where neither runs out, its speed is {plain:.2f} times as high: that is what the format itself does on that machine"
    + (
        ", which has no arithmetic for it and converts back and forth. "
        if plain < 0.95
        else ", as good as nothing. "
        if plain < 1.05
        else "; more than one would expect, so look at the range of the rounds above. "
    )
    + "On a GPU, attention that is bound by memory reads half the bytes; do not carry a processor's ratio there."
)

# %% [markdown]
# Now the answers. The same tasks as above on three engines: 16 bits, 16 bits *again* with another number of clients (so that
# other requests share its steps), and 8 bits. The second run is the control: without it, every difference would look like the
# format's fault.


# %%
def words(answer):
    return answer.reasoning, answer.text


def against_first(answers):
    """How the answers differ from the first run's: other words, lost, won, and the mean change of a token's log-probability."""
    first = answered["roomy"]
    shifts = [
        abs(a.logprob - b.logprob)
        for one, two in zip(first, answers, strict=True)
        if words(one) == words(two)
        for a, b in zip(one.logprobs, two.logprobs, strict=True)
    ]
    was, now = ([grade(task, each.text) for task, each in zip(tasks, found, strict=True)] for found in (first, answers))
    return {
        "answers": len(tasks),
        "right": sum(now),
        "other": sum(words(a) != words(b) for a, b in zip(first, answers, strict=True)),
        "lost": sum(a and not b for a, b in zip(was, now, strict=True)),
        "won": sum(b and not a for a, b in zip(was, now, strict=True)),
        "shift": statistics.mean(shifts),
    }


if "tight, fp8" in live:
    answered["roomy, again"] = (await clients(live["roomy"], asked, 8))[0]
    await start("roomy, fp8")
    await warm("roomy, fp8")
    answered["roomy, fp8"] = (await clients(live["roomy, fp8"], asked, 12))[0]
    rows = [{"bits": 8 if "fp8" in name else 16, **against_first(found)} for name, found in answered.items()]
    quality = for_others("kv_bits_answers", "roomy, fp8", rows)
    await live.pop("roomy, fp8").aclose()
else:
    quality = recordings("kv_bits_answers", model="large")[0]
sixteen, control, eight = quality.frame().itertuples()
changed = 100 * eight.other / eight.answers
book.reveal("08.fp8", "none" if not changed else "up to one in ten" if changed <= 10 else "more than one in ten")
print(quality.caption())
pd.DataFrame(
    [
        {
            "right": f"{row.right} of {row.answers}",
            "share (95 % interval)": "{:.1f} % ({:.1f} to {:.1f})".format(
                *(100 * share for share in (row.right / row.answers, *wilson(row.right, row.answers)))
            ),
            "in other words": "" if row is sixteen else row.other,
            "right before, wrong now": "" if row is sixteen else row.lost,
            "wrong before, right now": "" if row is sixteen else row.won,
            "mean change of log-probability": "" if row is sixteen else f"{row.shift:.5f}",
        }
        for row in (sixteen, control, eight)
    ],
    index=["16 bits", "16 bits, again", "8 bits"],
)

# %%
flips = eight.lost + eight.won
p = binomtest(eight.lost, flips).pvalue if flips else 1.0
most_lost = 100 * wilson(eight.lost, eight.answers)[1]
Markdown(
    f"8 bits said {eight.other} of {eight.answers} answers in other words (the control: {control.other}), lost {eight.lost} right ones "
    f"and won {eight.won}. "
    + ("No answer changed sides: " if not flips else f"By a sign test on those that changed sides, p = {p:.2f}: ")
    + (
        "that 8 bits *change* answers is plain, but so few questions cannot say that it is right less often. "
        if p > 0.05
        else "it is right less often, and that is more than chance. "
    )
    + f"With 95 % confidence, no more than {most_lost:.1f} % of such answers are lost. Whether that is little enough "
    "depends on what a wrong one costs you. Ask with your own questions, the long ones among them: the errors of many old tokens add up there."
)

# %% [markdown]
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
eight_b, h100 = kv_size("llama-3.1-8b"), hardware("h100")
latency = datasheet_model(shape("llama-3.1-8b"), h100)
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
        strokeDash=alt.condition("datum.way == 'compute again'", alt.value([6, 3]), alt.value([1, 0])),
    )
    .properties(title=f"{SESSION:,} tokens: {len(fetched)} of {len(LINKS)} links bring them sooner than computing them"),
    alt=f"Time until a history is there against its length. Computing {SESSION:,} tokens again takes "
    f"{1000 * next(iter(found.values())).recompute_s:.0f} ms; fetching them: "
    + ", ".join(f"{name} {1000 * one.fetch_s:.0f} ms" for name, one in found.items())
    + ".",
    source=f"Modelled: Llama 3.1 8B in bf16 on one {h100.name} by its datasheet ({h100.source}); links as in the constants.",
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

# %% [markdown]
# ### Plan, then try to break the plan
#
# Now the other direction: not what an engine does under a load, but which load it can take. `plan` takes a model, a machine, the
# length of a session and a wish for speed, and says how many fit and which limit binds. A plan is worth what it forbids, so it
# is tried at its edge: **as many sessions as it says, and one more**. (One more is tried again, a few times, if nobody had to go:
# on a busy machine sessions that begin together may still be long one after another.)

# %% tags=["constants"]
ASKED, WRITTEN = 64, 513  # tokens: 576 are held at the end, since the last one written is never looked back at
TRIES = 4

# %%
parameters = shape(model).parameters


async def at_once(name, n):
    """Preemptions of an engine while it serves `n` sessions that begin together."""
    before = (await live[name].metrics()).preemptions
    await clients(live[name], [make(ASKED, WRITTEN) for _ in range(n)], n)
    return int((await live[name].metrics()).preemptions - before)


edge = []
tried = book.pick(ci=("tight", "tight, fp8"), learn=("tight", "tight, fp8", "roomy"), gpu=("tight", "tight, fp8", "roomy"))
for name in [name for name in tried if name in live]:
    given = ENGINES[name]["kv_cache_memory_bytes"]
    # A machine with this engine's memory: its weights, and what it was given beside them.
    machine = replace(hardware("epyc-9654"), name=name, memory_gb=(2 * parameters + given) / 1e9)
    planned = plan(model, machine, ASKED + WRITTEN - 1, kv=precision[name], share=1.0, block_size=BLOCK, max_num_seqs=SEATS)
    size = kv_size(model, precision[name])
    by_hand = book.reference("08.3")(
        given + 2 * parameters, 2 * parameters, size.token_bytes, ASKED + WRITTEN - 1, BLOCK, lambda n: 0.0, 1.0
    )
    thrown = [await at_once(name, planned.sessions)]
    for _ in range(TRIES):  # on a busy machine they may come so far apart that they never are long at the same time
        thrown.append(await at_once(name, planned.sessions + 1))
        if thrown[-1]:
            break
    edge.append(
        {
            "engine": name,
            "blocks": blocks[name],
            "blocks a session": planned.blocks_per_session,
            "planned": planned.sessions,
            "by exercise 08.3": by_hand[0],
            "limit": planned.limit,
            "preemptions at the plan": thrown[0],
            "with one more": thrown[-1],
            "(tries)": len(thrown) - 1,
        }
    )
edge = pd.DataFrame(edge).set_index("engine").rename_axis(None)
edge

# %%
held = bool((edge["preemptions at the plan"] == 0).all() and (edge["with one more"] > 0).all())
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
        f"**The edge is where the plan says** ({', '.join(edge.index)}): nobody is thrown out at the planned number, and somebody is with one more."
        if held
        else "**The plan promised too much**: somebody was thrown out at the planned number, and that should never be."
        if (edge["preemptions at the plan"] > 0).any()
        else "**The plan held, but its edge was not met everywhere**: one more was not one too many, because on this busy machine the first session "
        "had ended before the last was long. Run it again in a quieter moment."
    )
    + "\n\nThe same arithmetic on what was recorded elsewhere: "
    + "; ".join(recorded)
    + ".\n\nA plan by the *longest* session is a promise. Most sessions are shorter, so engines let in more: the bet from above."
)

# %% [markdown]
# ## Move
#
# **The planner.** A model, a machine, a length, a wish for speed. The lines are the two limits; the lower one binds. Drag the
# context and watch which one it is.

# %%
MACHINES = {
    hardware(key).name: hardware(key) for key in ("h200", "h100", "a100-80", "l40s", "l4", "rtx4090", "b200", "mi300x")
}
MODELS = {
    "Llama 3.1 8B": "llama-3.1-8b",
    "Llama 2 7B": LLAMA,
    "Llama 3.1 70B": "llama-3.1-70b",
    "Mixtral 8x7B": "mixtral-8x7b",
}
for config in MODELS.values():
    kv_size(config)  # counted once, remembered


def planner(model_name, machine, machines, context, kv, tokens_per_s):
    config, chosen = MODELS[model_name], MACHINES[machine]

    def at(tokens):
        return plan(config, chosen, int(tokens), kv=kv, tokens_per_s=tokens_per_s, machines=machines)

    here = at(context)
    rows = []
    for tokens in np.geomspace(500, 128_000, 18):
        one = at(tokens)
        rows += [
            {"context": tokens, "limit": "memory", "sessions": max(one.by_memory, 0.5)},
            {"context": tokens, "limit": f"speed ({tokens_per_s} tokens/s)", "sessions": max(one.by_speed, 0.5)},
        ]
    names = list(dict.fromkeys(row["limit"] for row in rows))
    told = f"{here.sessions:,} sessions of {context:,} tokens; {here.limit} binds"
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
        alt=f"Sessions that memory and speed allow, against their length. {model_name}, {kv} KV, {machines} × {machine}: {told}; memory "
        f"holds {here.by_memory:,}, speed allows {here.by_speed:,}.",
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

# %% [markdown]
# Try this: Llama 2 7B and Llama 3.1 8B at 8,000 tokens. Then 8 bits: both lines rise, because a step also reads half the bytes.
# Now the shortest sessions: why does 8 bits bring less there? Then find a machine on which the 70B model talks to anybody at all.
#
# **The pressure.** The load from above, by the model that met the live log step for step: how many blocks, seats and clients?


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

# %% [markdown]
# Find the fewest blocks without a preemption. Then lower the seats instead, until there is none: which of the two needs more
# steps for the same answers?
#
# **The link.** When is a history worth fetching?


# %%
def offload(model_name, machine, tokens, gbs, kv):
    config, chosen = MODELS[model_name], MACHINES[machine]
    size, speed = (
        kv_size(config, kv),
        datasheet_model(shape_of(config) if isinstance(config, dict) else shape(config), chosen, kv=kv),
    )
    here = offload_break_even(size, speed, tokens, gbs)
    rows = []
    for n in np.geomspace(500, 128_000, 30):
        one = offload_break_even(size, speed, int(n), gbs)
        rows += [
            {"tokens": int(n), "way": "fetch", "ms": 1000 * one.fetch_s},
            {"tokens": int(n), "way": "compute again", "ms": 1000 * one.recompute_s},
        ]
    wins = "never" if here.tokens is None else f"from {here.tokens:,} tokens on"
    title = f"{tokens:,} tokens: {here.faster} ({1000 * here.fetch_s:.0f} ms against {1000 * here.recompute_s:.0f}). Fetching wins {wins}"
    title = title if here.faster == "fetch" else title.replace("recompute", "compute again")
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
# A model's `config.json` as a mapping, and the bytes of one number. Return the bytes that one token takes in the KV cache, over
# all layers. Fields may be missing, as they are in real files, and some models are MLA.


# %% exercise="08.1"
def token_bytes(config: Mapping[str, Any], value_bytes: int) -> int:
    """Bytes of KV cache per token."""
    ...  # your code here


# %%
book.check("08.1", token_bytes)

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
# Its solution stood beside `plan` when the live engines were tried above; here it meets hidden machines.


# %% exercise="08.3"
def sessions_that_fit(
    memory: int, weights: int, token: int, context: int, block: int, step_s: Callable[[int], float], tokens_per_s: float
) -> tuple[int, str]:
    """(sessions, "memory" or "speed")."""
    ...  # your code here


# %%
book.check("08.3", sessions_that_fit)

# %% [markdown]
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

# %% [markdown]
# ## So what
#
# The portal's conversations, on GPUs of its own. Somebody who chats writes, reads and thinks; the engine works for them only a
# small part of the time. What is done with their memory in the rest of it decides how many GPUs there are.

# %% tags=["constants"]
SESSIONS_A_DAY, PEAK_HOUR = 100_000, 0.083  # and the share of them that begins in the busiest hour
OPEN_MINUTES, TURNS_EACH, SECONDS_A_TURN = 12, 6, 12  # open so long, with so many answers of so many seconds
TOKENS_PER_S, HOURS_A_MONTH = 20, 730

# %%
opened = SESSIONS_A_DAY * PEAK_HOUR * OPEN_MINUTES / 60  # Little's law
writing = SESSIONS_A_DAY * PEAK_HOUR * TURNS_EACH * SECONDS_A_TURN / 3600
turns_per_s = SESSIONS_A_DAY * PEAK_HOUR * TURNS_EACH / 3600
holds = {kv: plan("llama-3.1-8b", h100, SESSION, kv=kv, tokens_per_s=TOKENS_PER_S) for kv in ("bf16", "fp8")}
rent = host("h100")
again_s = {
    kv: offload_break_even(kv_size("llama-3.1-8b", kv), datasheet_model(shape("llama-3.1-8b"), h100, kv=kv), SESSION, 64.0)
    for kv in holds
}
plans = {  # who holds memory, in which precision, and what happens at the next turn
    "every open session keeps its memory": (opened, "bf16", ""),
    "every open session, in 8 bits": (opened, "fp8", ""),
    "evict between turns, compute again": (writing, "bf16", "recompute"),
    "evict between turns, fetch (PCIe 5.0)": (writing, "bf16", "fetch"),
    "evict, fetch, in 8 bits": (writing, "fp8", "fetch"),
}
rows = []
for what, (holding, kv, then) in plans.items():
    memory, speed = holding / holds[kv].by_memory, writing / holds[kv].by_speed
    later = {"": 0.0, "recompute": again_s[kv].recompute_s, "fetch": again_s[kv].fetch_s}[then]
    extra = turns_per_s * later if then == "recompute" else 0.0
    rows.append(
        {
            "what": what,
            "GPUs": math.ceil(max(memory, speed) + extra),
            "by memory": memory,
            "by speed": speed,
            "for computing again": extra,
            "later": later,
        }
    )
bill = pd.DataFrame(rows).set_index("what")
bill["usd"] = bill.GPUs * float(rent.usd_per_hour) * HOURS_A_MONTH
pd.DataFrame(
    {
        "GPUs for memory": bill["by memory"].map("{:.1f}".format),
        "for speed": bill["by speed"].map("{:.1f}".format),
        "for computing again": bill["for computing again"].map("{:.1f}".format),
        "GPUs": bill.GPUs,
        "USD a month": bill.usd.map("{:,.0f}".format),
        "first token later by (ms)": (1000 * bill.later).map("{:.0f}".format),
    }
).rename_axis(None)

# %%
first, last_one = bill.iloc[0], bill.iloc[-1]
book.bill(
    "KV memory only while somebody is answered",
    of="GPUs of one's own, for all conversations",
    before=first.usd,
    after=last_one.usd,
    source=f"Modelled: Llama 3.1 8B in bf16, histories of {SESSION:,} tokens; before: held in bf16, after: fetched in fp8. {rent.name}, "
    f"{rent.usd_per_hour} USD an hour, {rent.source}, {rent.as_of}.",
)

# %%
Markdown(
    f"At the peak {opened:,.0f} conversations of {SESSION:,} tokens are open, and {writing:,.0f} of them are being answered. Keeping "
    f"everybody's memory takes {first.GPUs:.0f} GPUs and **{first.usd:,.0f} USD a month**; the last line takes {last_one.GPUs:.0f} and "
    f"**{last_one.usd:,.0f} USD**. 8 bits alone bring it to {bill.usd.iloc[1]:,.0f}: the largest step is not the format, it is to stop "
    f"holding memory for people who are thinking. "
    f"(Modelled: memory by the arithmetic that the live engines confirmed, speed by a datasheet; no headroom, and all of a session's context at once.)\n\n"
    "**The pressure relieved**: memory. **Where it moved**: into the first token of every turn after a pause (the last column), into "
    "prefill if histories are computed again, and into a quality question if bits are dropped. **In production**, watch three numbers "
    "together: KV usage, preemptions per finished request, and the cached share of prompt tokens. Usage near the top is what you pay for; "
    "preemptions with a rising p95, or a cached share that falls off the cliff, say that it is one session too many."
)

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz(
    "08.q1",
    "An engine runs at 98 % KV usage and counts a preemption now and then. Answers are on time. What do you do?",
    options=(
        "nothing: the memory is used, and little work is done twice",
        "halve max_num_seqs until there is none",
        "buy a GPU: it is out of memory",
    ),
    answer="nothing: the memory is used, and little work is done twice",
    why="Preemption is how an engine uses memory that would otherwise stand empty. Count the tokens computed twice, not the events.",
)

# %%
book.quiz(
    "08.q2",
    "Five sessions take turns in a cache that holds four and forgets the least recently used first. What share of the histories "
    "is found?",
    options=("next to nothing", "four fifths", "half"),
    answer="next to nothing",
    why="The session that comes next is always the one that was used least recently, so it has just been forgotten.",
)

# %%
book.quiz(
    "08.q3",
    "By the planner, 8 bits double the sessions of 8,000 tokens on an H100, but bring only half as many more of 500 tokens. Why?",
    options=(
        "speed binds there, and short sessions spend their steps on arithmetic",
        "the weights are still in 16 bits",
        "short sessions waste their last block",
    ),
    answer="speed binds there, and short sessions spend their steps on arithmetic",
    why="Memory would hold twice as many. But with so many in a step, its time goes into the layers' arithmetic, which 8-bit keys and "
    "values do not shorten; reading those is the smaller part.",
)

# %% [markdown]
# ## Next
#
# **09 · Prompt compression**: the cheapest token in memory is the one that never came in. How short can a prompt get before the
# answer is wrong?

# %%
for engine in live.values():
    await engine.aclose()
folder.cleanup()
book.progress()
