# %% [markdown]
# # 00 · Start here: one answer and its receipt
#
# **The question.** A support portal serves 100,000 people a day, and a language model answers every one of them. One answer
# costs a fraction of a cent. *Which* fraction, what exactly was paid for, and who would notice if it doubled?
#
# **You will be able to** read the receipt of an answer (tokens in, tokens out, waiting time, money), derive its latencies
# from the moments that were noted, and write a *lever*: a few lines around any engine that change what it costs.
#
# **Time.** {{time}} **Needs.** No account, no GPU, no download: a real engine starts on this machine. {{needs}}

# %% tags=["imports"]
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import altair as alt
import ipywidgets as w
import pandas as pd
from IPython.display import Markdown

from labkit.cost import price_named, price_request, self_defined
from labkit.ledger import Booked, Ledger
from labkit.portal import PORTAL
from labkit.request import (
    Chunk,
    Done,
    Event,
    Handler,
    Lever,
    Message,
    Request,
    Timing,
    Usage,
    clock,
    complete,
    stack,
)
from labkit.tokens import tokenizer
from labkit.workbook import PALETTE, Figure, live_chart, show, state_dir
from labkit.workbook.pictures import Station, draw_picture, request_path

# %% [markdown]
# Every chapter has the same bones. You **predict** before you see, **run** it, **move** a chart, **do** a few exercises that
# check themselves, and read what it means for a bill. A wrong answer never breaks a later cell.
#
# Run a cell with Shift+Enter. Code that only asks or draws is folded: a click on its bar opens it.

# %% [markdown]
# ## Predict
#
# This is all that we are about to send. A customer of a shop for outdoor gear asks a question, and the shop puts its own
# instructions in front of it.

# %%
conversation = (
    Message("system", "You work at the support desk of Trailhead Supply. Answer the question."),
    Message("user", "Hi. Can you tell me what express shipping costs? Thanks."),
)
for message in conversation:
    print(f"{message.role:>6}: {message.content}")

# %% [markdown]
# The program that runs a model is called an **engine**. It reads and writes **tokens**: pieces of words, each a number to
# the model. Commit to three guesses before you scroll; the chapter ends with your guesses beside the results.

# %%
book.predict(
    "00.input_tokens",
    "How many input tokens will the engine count for this conversation?",
    low=1,
    high=200,
    unit="tokens",
    help="Input tokens are everything that the engine has to read for this answer.",
)

# %%
book.predict(
    "00.ttft_share",
    "Of the time from sending the request to the end of the answer, which share passes before its first piece appears?",
    low=0,
    high=100,
    unit="%",
)

# %%
book.predict_choice(
    "00.counters",
    "With its answer the engine sends a receipt: so many tokens read, so many written. It also keeps counters for its "
    "operator. Compared with the receipt, they will say…",
    options=("exactly the same", "higher: it also counts work we are not told of", "lower: it merges what it can"),
)

# %% [markdown]
# ## Run
#
# ### A real engine starts
#
# The next cell starts **vLLM**, an engine that many companies serve their models with, on this machine and for this machine
# only. The model is one that the lab trained itself, small enough to ship with these pages. All notebooks that you open
# share the engine; it stops after the last of them.
#
# On a machine with a GPU, or with `LABKIT_BASE_URL` naming an OpenAI-compatible service, the same cells run on that instead.
# Where no engine can run, they show what was recorded, and say so.

# %%
live = await book.connect("small")
print(live.provenance.caption())

# %% [markdown]
# ### One answer, as it arrives
#
# You call an engine with a request, and it gives back a stream of events: chunks of text, and at the end one `Done` that
# carries the receipt. Anything in this lab that can be called so is a *handler*.

# %%
request = Request(messages=conversation, max_tokens=64, tenant="trailhead", user="you", feature="support-chat")


async def one_answer(_):
    return [event async for event in live(request)]


answers = await book.measure("one answer", one_answer, rounds=book.pick(ci=6, learn=12), needs=("answers",))


def share_before(answer):
    """The share of the answer's time that passed before its first piece of text, in percent."""
    return 100 * answer[-1].timing.ttft / answer[-1].timing.e2e


asked = sorted(answers.value[1:], key=share_before)  # without the first request of the engine's life, which warms it up
book.reveal("00.ttft_share", [share_before(answer) for answer in asked], unit="%")

# %% [markdown]
# Here is the answer in the middle of those, piece by piece. Time zero is the moment at which the request left this notebook.

# %%
middle = asked[len(asked) // 2]
chunks, done = [event for event in middle if isinstance(event, Chunk)], middle[-1]
print("".join(chunk.text for chunk in chunks))
for chunk in chunks:
    print(f"{1000 * (chunk.at - done.timing.sent):6.1f} ms  {chunk.text!r}")

# %%
arrivals = pd.DataFrame(
    {
        "ms": [1000 * (c.at - done.timing.sent) for c in chunks],
        "tokens": pd.Series([c.tokens for c in chunks]).cumsum(),
        "text": [c.text for c in chunks],
    }
)
ttft_ms, e2e_ms = 1000 * done.timing.ttft, 1000 * done.timing.e2e
line = (
    alt.Chart(arrivals)
    .mark_line(interpolate="step-after", point=True, color=PALETTE["blue"])
    .encode(
        x=alt.X("ms:Q", title="time since the request was sent (ms)", scale=alt.Scale(domainMin=0)),
        y=alt.Y("tokens:Q", title="tokens received"),
        tooltip=["text:N", alt.Tooltip("ms:Q", format=".1f"), "tokens:Q"],
    )
)
rule = (
    alt.Chart(pd.DataFrame({"ms": [ttft_ms], "label": [f"first token: {ttft_ms:.0f} ms"]}))
    .mark_rule(strokeDash=[4, 3], color=PALETTE["red"], size=2)
    .encode(x="ms:Q", tooltip="label:N")
)
show(
    (line + rule).properties(title=f"{100 * ttft_ms / e2e_ms:.0f} % of the time had passed when the first piece came"),
    alt=f"Step line of tokens received against time. A dashed rule marks the first token at {ttft_ms:.0f} ms; the last of "
    f"{arrivals.tokens.iloc[-1]} tokens arrives after {arrivals.ms.iloc[-1]:.0f} ms.",
    source=answers.source,
)

# %% [markdown]
# Two kinds of work make that picture. Before the dashed rule the engine *reads*: it works through the whole prompt in one go
# (**prefill**). After it, the engine *writes*, one token at a time, each waiting for the one before (**decode**).
#
# Three names for times are used throughout the book. **TTFT**: from sending to the first token. **E2E**, end to end: from
# sending to the end of the answer. **TPOT**: the time per output token after the first.
#
# ### The receipt

# %%
usage, timing = done.usage, done.timing
book.reveal("00.input_tokens", usage.input_tokens, unit="tokens")
pd.DataFrame(
    [
        ("input tokens", usage.input_tokens, "everything the engine had to read"),
        ("… of them cached", usage.cached_tokens, "kept from an earlier request"),
        ("output tokens", usage.output_tokens, "written by the engine, one by one"),
        ("… of them reasoning", usage.reasoning_tokens, "thinking nobody sees"),
        ("TTFT", f"{1000 * timing.ttft:.1f} ms", "sent → first text"),
        ("TPOT", f"{1000 * timing.tpot(usage.output_tokens):.2f} ms", "(E2E − TTFT) / (output tokens − 1)"),
        ("E2E", f"{1000 * timing.e2e:.1f} ms", "sent → end of stream"),
        ("finish reason", done.finish_reason, "stop: it was done · length: cut off"),
    ],
    columns=["line", "value", "what it is"],
).set_index("line")

# %%
question = conversation[-1].content
own = tokenizer("lab").count(question)
Markdown(
    f"The customer typed **{len(question.split())} words**, which are {own} tokens to the lab's model. The engine read "
    f"**{usage.input_tokens} tokens**: also the shop's instructions, and the marks that separate the speakers. They are "
    "paid for with *every* request."
)

# %% [markdown]
# ### Do not take our word for it
#
# The engine publishes its counters at `/metrics`, for whoever operates it. Read them before and after one request: where the
# receipt is honest, the difference is the receipt.


# %%
async def both_counts():
    before = await live.metrics()
    answer = await complete(live, request)
    counted = await live.metrics() - before
    return answer.done.usage, int(counted.prompt_tokens), int(counted.generation_tokens)


receipt, prompt_tokens, generation_tokens = (await book.measure("two witnesses", both_counts)).value
witnesses = pd.DataFrame(
    {
        "our receipt": [receipt.input_tokens, receipt.output_tokens],
        "the engine's counters": [prompt_tokens, generation_tokens],
    },
    index=["input tokens", "output tokens"],
)
same = (witnesses["our receipt"] == witnesses["the engine's counters"]).all()
more = (witnesses["our receipt"] < witnesses["the engine's counters"]).any()
book.reveal(
    "00.counters",
    "exactly the same"
    if same
    else "higher: it also counts work we are not told of"
    if more
    else "lower: it merges what it can",
)
witnesses

# %% [markdown]
# ### The first ledger row
#
# Receipts have to be kept. The **ledger** is the lab's account book. It holds one row for every *attempt*, that is, for
# every call to an engine: a retry is a second row, and an answer that was cut short is a row. Each is on disk before the
# answer is handed on.
#
# The ledger is a **lever**: a handler around another handler. All that this book does to a bill (caches, routers, retries)
# is put around an engine in the same way, with `stack`, the outermost first. This is where a stack with three levers will
# lead a request:

# %%
draw_picture(
    request_path(
        [
            Station("cache", "knows old answers (chapter 04)", answers=True),
            Station("router", "chooses a model (chapter 05)"),
            Station("ledger", "books every attempt (this chapter)"),
        ]
    )
)

# %% [markdown]
# Today's stack has one lever, the ledger. It knows the price list of the portal's model, so each row has its cost.

# %%
ledger = Ledger(state_dir() / "ledger.sqlite")
price = price_named(PORTAL.desk.large)
kept = stack(Booked(ledger, {"*": price}, provider="lab"), engine=live)


async def one_row():
    answer = await complete(kept, request)
    row = ledger.frame({"gen_ai.response.id": answer.done.response_id}).iloc[-1]
    return row[row.notna() & (row.astype(str) != "")].astype(str).to_dict()


row = (await book.measure("one row", one_row, needs=("answers",))).value
answered = ("model", "finish_reasons")
used = ("input_tokens", "output_tokens", "cache_read.input_tokens")
kept_as = ("user", "feature", "attempt", "outcome")
names = [f"gen_ai.response.{n}" for n in answered] + [f"gen_ai.usage.{n}" for n in used] + [f"labkit.{n}" for n in kept_as]
pd.Series(
    {name: row.get(name, "") for name in names}
    | {f"labkit.{name} (s)": f"{float(row[f'labkit.{name}']):.4f}" for name in ("ttft", "e2e", "tpot")}
    | {"labkit.cost (USD)": f"{float(row['labkit.cost']):.7f}"},
    name="value",
).to_frame()

# %% [markdown] tags=["reasoned"]
# Names that start with `gen_ai` are OpenTelemetry's conventions for generative AI: any dashboard that speaks them can read
# these rows. One of them costs real money where it is misread. `gen_ai.usage.input_tokens` **includes** the cached tokens:
# whoever adds the two bills a token twice.
#
# ### Longer answers
#
# That was one length of answer. Now ask for several, in rounds. The engine is told to go on to exactly that many tokens,
# whether the text makes sense or not: this is about time.


# %%
async def five_lengths(_):
    rows = []
    for n in (4, 8, 16, 32, 64):
        run = (await complete(kept, replace(request, max_tokens=n, extra={"ignore_eos": True}, feature="length-sweep"))).done
        rows.append({"tokens": run.usage.output_tokens, "ms": 1000 * run.timing.e2e, "TTFT": 1000 * run.timing.ttft})
    return rows


sweep = await book.measure("five lengths", five_lengths, rounds=book.pick(ci=3, learn=8), needs=("answers",))
runs = pd.DataFrame([row for rows in sweep.value for row in rows])
longest = runs[runs.tokens == runs.tokens.max()]
ttft = runs.TTFT.median()
tpot = ((longest.ms - longest.TTFT) / (longest.tokens - 1)).median()
print(f"Median TTFT {ttft:.1f} ms, TPOT {tpot:.2f} ms over {len(runs)} answers.")

# %% [markdown]
# ## Move
#
# Two numbers now stand for this engine, in one formula: **E2E ≈ TTFT + (n − 1) · TPOT** for n output tokens. The points
# below are measured; the line is that formula with the two medians.
#
# Drag the length of the answer and watch what grows: the customer's wait, and the portal's money.


# %%
def what_if(output_tokens, dollars_per_mtok_out):
    grid = pd.DataFrame({"tokens": range(1, 129)})
    grid["ms"] = ttft + (grid.tokens - 1) * tpot
    here = pd.DataFrame({"tokens": [output_tokens], "ms": [ttft + (output_tokens - 1) * tpot]})
    money = price_request(
        Usage(usage.input_tokens, output_tokens),
        self_defined("what-if", input=price.rates.fresh_input, output=str(dollars_per_mtok_out)),
    )
    x = alt.X("tokens:Q", title="output tokens", scale=alt.Scale(domain=[0, 128]))
    chart = (
        alt.Chart(grid).mark_line(color=PALETTE["grey"]).encode(x=x, y=alt.Y("ms:Q", title="end-to-end latency (ms)"))
        + alt.Chart(runs).mark_circle(size=50, opacity=0.6, color=PALETTE["blue"]).encode(x=x, y="ms:Q")
        + alt.Chart(here).mark_point(size=200, filled=True, color=PALETTE["red"]).encode(x=x, y="ms:Q")
    )
    title = f"{output_tokens} tokens: {here.ms[0]:.0f} ms of waiting, ${1000 * money.total:.3f} per 1,000 answers"
    share = 100 * money.output / money.total if money.total else 0
    return Figure(
        chart.properties(title={"text": title, "subtitle": f"{share:.0f} % of the money is output"}),
        alt=f"{title}; {share:.0f} % of it for output. Measured points lie around a straight line from {ttft:.0f} ms.",
        source=f"Points measured: {sweep.source}. Line: TTFT + (n − 1)·TPOT. Input at {price.model}'s list price "
        f"({price.source}).",
    )


live_chart(
    what_if,
    output_tokens=w.IntSlider(24, 1, 128, description="output tokens"),
    dollars_per_mtok_out=w.FloatSlider(
        float(price.rates.visible_output), min=0.0, max=30.0, step=0.5, description="$ per M output"
    ),
)

# %% [markdown] tags=["reasoned"]
# By this formula, each further token adds to both. The length of answers has a chapter of its own (10).

# %% [markdown]
# ## Do
#
# {{exercise 00.1}}
# A provider charges cached tokens a fraction and cache writes a premium. Return the number of input tokens billed at the
# plain input price.


# %% exercise="00.1"
def full_price_tokens(usage: Usage) -> int:
    """Input tokens that were neither read from a cache nor written to one."""
    ...  # your code here


# %%
book.check("00.1", full_price_tokens)

# %% [markdown]
# {{exercise 00.2}}
# Three moments (sent, first token, done) and one count of tokens give every latency above. Return the time per output token
# *after the first*, in seconds, and `None` where that means nothing.


# %% exercise="00.2"
def time_per_output_token(sent: float, first_token: float, done: float, output_tokens: int) -> float | None:
    """TPOT in seconds; None where it is undefined."""
    ...  # your code here


# %%
book.check("00.2", time_per_output_token)

# %% [markdown]
# {{exercise 00.3}}
# A lever is a value: its settings, and how it is put over a handler. Here is one that shouts:
#
# ```python
# @dataclass(frozen=True)
# class Shout(Lever):
#     mark: str = "!"
#
#     def over(self, inner):
#         async def handle(request):
#             async with aclosing(inner(request)) as events:   # closing us closes what we wrap, down to the engine
#                 async for event in events:
#                     yield replace(event, text=event.text.upper() + self.mark) if isinstance(event, Chunk) else event
#         return handle
#
# loud = stack(Shout("?"), engine=engine)
# ```
#
# Write `Capped`: whatever a caller asks for, no request may ask the engine for more than `ceiling` output tokens. So no
# answer can run away with the bill.


# %% exercise="00.3"
@dataclass(frozen=True)
class Capped(Lever):
    """Lets no request ask for more than `ceiling` output tokens."""

    ceiling: int

    def over(self, inner: Handler) -> Handler:
        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            async with aclosing(inner(request)) as events:
                async for event in events:
                    yield event

        return handle


# %%
book.check("00.3", Capped)

# %% [markdown]
# Does it work on the real engine? The next cell uses the book's own solution, so that it runs whatever you wrote.

# %%
guarded = stack(book.reference("00.3")(5), engine=kept)


async def one_cut():
    cut = await complete(guarded, request)
    return cut.text, cut.done.usage.output_tokens, cut.done.finish_reason


text, tokens, why = (await book.measure("one answer, capped", one_cut, needs=("answers",))).value
print(f"{text!r}: {tokens} output tokens, finish reason {why!r}")

# %% [markdown] tags=["further"]
# {{exercise 00.4}}
# Everything in this book rests on a meter, and so does every bill that you will defend. It looks easy: note the time, read
# the stream, write a line. Then a reader closes the tab in the middle of an answer, an engine dies after a hundred tokens, a
# provider forgets to report its usage, and two answers run at the same moment. Meters that were written for the easy case
# lose just these rows. They are the ones that were paid for and served nobody.
#
# Write `Meter`, a lever that lets every stream pass unchanged and appends one row to `self.rows` for each, however it ended:
#
# | entry | what it holds |
# |---|---|
# | `feature` | the request's |
# | `status` | the finish reason of a whole answer, `"left"` when the reader went, `"broke"` when the engine failed or sent no `Done` |
# | `ttft`, `e2e`, `tpot` | seconds, None where undefined; `Timing` derives them as you did in 00.2 |
# | `itl` | the pauses between chunks with content, in seconds (inter-token latencies) |
# | `tokens` | tokens by kind, as `usage.by_kind()` has them; a count that nobody knows is None, not 0 |
# | `source` | who counted: the engine's `Done` (`"reported"`), its last running total (`"running"`), you (`"chunks"`) |
#
# Work through the stages in their order and run the check after each: it says how far you are.


# %% exercise="00.4"
@dataclass(frozen=True)
class Meter(Lever):
    """Lets every stream pass unchanged, and adds one row to `rows` for each, however it ends."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def over(self, inner: Handler) -> Handler:
        """`inner`, metered."""

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            ...  # your code here
            async with aclosing(inner(request)) as events:
                async for event in events:
                    yield event

        return handle


# %%
book.check("00.4", Meter)

# %% [markdown] tags=["further"]
# Now your meter on real traffic, beside the lab's ledger. The streams are those of the answers above, sent through both
# meters once more at the pace at which they came (on a virtual clock, so it takes no time). In the last one the reader
# leaves half-way.


# %%
made, whose = book.yours("00.4", Meter)


def as_it_came(events):
    """An engine that sends the events of one answer again, each when it came."""
    *parts, end = events

    async def engine(request):
        late = clock.now() - end.timing.sent
        for part in parts:
            await clock.sleep_until(part.at + late)
            yield replace(part, at=clock.now())
        await clock.sleep_until(end.timing.done + late)
        shifted = {name: getattr(end.timing, name) + late for name in ("sent", "first_token", "last_token", "done")}
        yield replace(end, timing=Timing(**shifted), booked=(), cost=None)

    return engine


async def through(lever, events, stop=None):
    """Read one answer through the lever; leave after `stop` events."""
    async with aclosing(stack(lever, engine=as_it_came(events))(request)) as stream:
        n = 0
        async for _ in stream:
            n += 1
            if n == stop:
                break


# %%
streams = [(answer, None) for answer in answers.value[1:]] + [(answers.value[-1], len(answers.value[-1]) // 2)]
meter, lab_book = made(), Ledger(":memory:")
for answer, stop in streams:
    for lever in (meter, Booked(lab_book)):
        clock.run_virtual(through(lever, answer, stop))
lab_rows = lab_book.frame()
labels = [f"{n} (left)" if row["status"] == "left" else f"{n}" for n, row in enumerate(meter.rows, 1)]
both = pd.DataFrame(
    [
        {"stream": n, "what": name, "meter": which, "ms": 1000 * value, "status": mine["status"]}
        for n, mine, lab in zip(labels, meter.rows, lab_rows.to_dict("records"), strict=True)
        for name, own, theirs in (
            ("TTFT", mine["ttft"], lab["labkit.ttft"]),
            ("end", mine["e2e"], lab["labkit.e2e"]),
        )
        for which, value in ((whose, own), ("the lab's ledger", theirs))
    ]
)
ticks = pd.DataFrame(
    [
        {"stream": n, "ms": 1000 * (row["ttft"] + sum(row["itl"][:k]))}
        for n, row in zip(labels, meter.rows, strict=True)
        for k in range(len(row["itl"]) + 1)
    ]
)
off = both.pivot_table(index=["stream", "what"], columns="meter", values="ms").diff(axis=1).iloc[:, -1].abs().max()

# %%
rows_y = alt.Y("stream:N", title="stream", sort=labels)
ends = alt.Chart(both).encode(x=alt.X("ms:Q", title="time since the request was sent (ms)"), y=rows_y)
show(
    (
        alt.Chart(ticks).mark_tick(thickness=2, color=PALETTE["sky"]).encode(x="ms:Q", y=rows_y)
        + ends.transform_filter(alt.datum.meter == "the lab's ledger")
        .mark_point(size=140, color=PALETTE["grey"])
        .encode(shape=alt.Shape("what:N", title=None))
        + ends.transform_filter(alt.datum.meter == whose)
        .mark_point(size=45, filled=True, opacity=1, color=PALETTE["red"])
        .encode(
            shape=alt.Shape("what:N", title=None),
            tooltip=["stream:N", "what:N", "status:N", alt.Tooltip("ms:Q", format=".2f")],
        )
    ).properties(title=f"Filled: {whose}. Open: the lab's ledger. They differ by {off:.3f} ms at most"),
    alt=f"First token and end of {len(streams)} streams by two meters, which differ by {off:.3f} ms at most; ticks are the "
    "chunks by the pauses that the built meter kept. The last stream was left half-way.",
    source=f"The chapter's own answers, sent again at their pace on a virtual clock. {answers.source}",
)
mine, theirs = meter.rows[-1], lab_rows.iloc[-1]
pd.DataFrame(
    {
        whose: [mine["status"], mine["tokens"]["fresh_input"], mine["tokens"]["visible_output"], mine["source"]],
        "the lab's ledger": [
            theirs["labkit.outcome"],
            theirs["gen_ai.usage.input_tokens"],
            theirs["gen_ai.usage.output_tokens"],
            theirs["labkit.usage.source"],
        ],
    },
    index=["the stream that was left", "input tokens", "output tokens", "who counted"],
).astype(str)

# %% [markdown]
# ## So what
#
# The running case of this book is a support portal. Suppose that its desk answered every question with just such an answer.
# Each line prices the tokens of the receipt above at another model's list price.

# %%
costs = {name: price_request(usage, price_named(name)) for name in PORTAL.scenario().models}
pd.DataFrame(
    {
        "one answer (USD)": [f"{c.total:.6f}" for c in costs.values()],
        f"{PORTAL.questions:,} answers, a month (USD)": [f"{c.total * PORTAL.questions:,.0f}" for c in costs.values()],
        "of it for output": [f"{100 * c.output / c.total:.0f} %" for c in costs.values()],
        "price list": [price_named(name).source for name in costs],
    },
    index=pd.Index(list(costs), name="model"),
)

# %% tags=["reasoned"]
one = costs[PORTAL.desk.large]
dearest, cheapest = max(costs.values(), key=lambda c: c.total), min(costs.values(), key=lambda c: c.total)
booked = f" {len(ledger)} rows are in your ledger by now." if len(ledger) else ""
Markdown(
    f"**Which fraction?** One answer costs {100 * one.total:.3f} cents with {PORTAL.desk.large}, the model that the portal "
    "uses. If that doubled, nobody who looks at one answer would notice. The month would be "
    f"{one.total * PORTAL.questions:,.0f} USD dearer, and the same tokens cost {dearest.total / cheapest.total:.1f} times "
    "as much with the dearest of these models as with the cheapest.\n\n**What was paid for?** Tokens read and tokens "
    f"written, and nothing else. This prompt is short: the portal's own has {PORTAL.desk.instructions:,} tokens of "
    "instructions before each question. Chapter 01 builds that bill.\n\nNo lever has taken anything off it yet. What you "
    f"have is the meter.{booked} In production, watch the tokens per answer, in and out, for each feature: they move when "
    "somebody changes a prompt, and the invoice comes later."
)

# %% [markdown]
# ### On your own data
# Do you have a log of calls to a model? Write its path into the field: JSON lines or a table will do, with token counts, and
# with the moments of sending, first token and end where you have them. The answer says how many calls there are, and what
# the middle one of them is like. Without a log of yours, it reads one of the portal's.

# %%
book.on_your_data()

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz("00.q1")

# %%
book.quiz("00.q2")

# %%
book.quiz("00.q3")

# %% [markdown]
# ## Next
#
# **01 · Cost anatomy**: the portal's whole month, from tokens to a forecast, and which of its parts to attack first.

# %%
await book.close()
book.progress()
