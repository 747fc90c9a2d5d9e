# %% [markdown]
# # 06 · Streaming: the first useful token
#
# **The question.** A customer reads two lines of a long answer, has what was needed, and closes the tab. Who pays for the rest?
# And every answer opens with a polite sentence: what does that cost, in money and in time until there is something to use?
#
# **You will be able to** tell the first token from the first *useful* one and measure both; show lists and JSON while they are
# written; say what a stop button saves (less than you think) and write the policy that saves more; and bring a reader back to a
# stream that broke without asking the engine twice.
#
# **Time.** 60 minutes. **Needs.** Chapter 02's TTFT and TPOT. Two small engines start on this machine.

# %% tags=["imports"]
import asyncio
import json
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from dataclasses import replace

import altair as alt
import ipywidgets as w
import pandas as pd
from IPython.display import Markdown
from transformers import AutoTokenizer

from labkit.cost import price_of
from labkit.engines import connect
from labkit.lab import examples, grade
from labkit.ledger import Booked, Ledger
from labkit.load import ExactLengths
from labkit.request import Chunk, Done, Request, complete, stack
from labkit.streaming import (
    WORDS_PER_S,
    AfterProse,
    EnoughWords,
    Final,
    JsonComplete,
    JsonFields,
    Malformed,
    Paced,
    PartialJSON,
    Resumable,
    Said,
    StopWhen,
    StreamGone,
    buffered,
    first_useful_at,
    progressive,
    streamed,
    word_arrivals,
)
from labkit.workbook import PALETTE, Figure, live_chart, show

# %% [markdown]
# ## Predict

# %%
book.predict(
    "06.think",
    "The large model adds up an order. It thinks first, in tokens nobody is shown, then says the total. How many times its "
    "time to first token passes until the total is there?",
    low=1,
    high=100,
    unit="×",
    log=True,
)

# %%
book.predict(
    "06.stop",
    "An answer of 400 tokens streams. Its reader reads 10 words at the usual pace, presses stop, and the stream is closed at "
    "once. What share of the 400 tokens does the engine not generate?",
    low=0,
    high=100,
    unit="%",
)

# %%
book.predict_choice(
    "06.slow",
    "A reader on a slow line takes each chunk several times as slowly as the engine makes it, and your server waits for the "
    "reader. What does the engine do?",
    options=(
        "it waits as well",
        "it goes on at its own speed, and somebody keeps the rest",
        "it drops what the reader cannot take",
    ),
)

# %% [markdown]
# ## Run
#
# ### Four moments of one stream
#
# Time to first token is what dashboards show. It is not what a reader waits for. A stream has four moments:
#
# - the **first token**: the engine has begun; it may be a thought that nobody is shown, or “Good”;
# - the **first visible** one: something appears;
# - the **first useful piece**: something can be *acted on*. Of prose the first sentence that says something, of a list the
#   first whole item, of JSON the first whole field that somebody wants;
# - the **last token**.

# %%
small = await connect(book.engine, model="small", progress=print)
large = await connect(book.engine, model="large", progress=print)
source = small.provenance.caption()
sources = f"{source}; {large.provenance.caption()}"

# %% [markdown]
# Our small model was trained to be curt, so two of its answers below are *dictated*: the engine may only choose tokens that
# spell a given text. It still writes them one by one, at its own speed, so the times are real.

# %%
faq = next(e for e in examples("test", "faq", 40, seed=1) if e.answer.startswith("We accept"))
order = next(iter(examples("test", "extract", 1, seed=1)))
total = next(iter(examples("test", "total", 1, seed=1)))
manners = "Good morning. Thank you for your message. I am happy to help. "
as_list = "We accept:\n- cards\n- bank transfer\n- gift cards"
lab_tokens = AutoTokenizer.from_pretrained(small.tokenizer_path)


def asking(example, dictated=""):
    extra = {}
    if dictated:  # the bias keeps it to whole words, where a grammar alone would let it spell them letter by letter
        ids = lab_tokens(dictated, add_special_tokens=False)["input_ids"]
        extra = {"structured_outputs": {"choice": [dictated]}, "logit_bias": {str(i): 100.0 for i in ids}}
    return Request(example.messages, max_tokens=max(64, example.max_tokens), extra=extra)


streams = {
    "prose, to the point": (small, asking(faq), "prose"),
    "prose, polite first": (small, asking(faq, manners + faq.answer), "prose"),
    "a list": (small, asking(faq, as_list), "list"),
    "JSON": (small, asking(order), JsonFields("order")),
    "large, thinks first": (large, asking(total), "prose"),
}
moments = []
for engine_, request, _ in streams.values():
    await complete(engine_, request)  # warm-up; a dictated text is compiled here
for _ in range(book.pick(ci=5, learn=9, gpu=9)):
    for name, (engine_, request, kind) in streams.items():
        whole = await complete(engine_, request)
        timing = whole.done.timing
        moments.append(
            {
                "answer": name,
                "first token": 1000 * timing.ttft,
                "first visible": 1000 * (next(c.at for c in whole.chunks if c.text) - timing.sent),
                "first useful": 1000 * (first_useful_at(whole.chunks, kind) - timing.sent),
                "last token": 1000 * (timing.last_token - timing.sent),
                "tokens": whole.done.usage.output_tokens,
            }
        )
moments = pd.DataFrame(moments)
medians = moments.groupby("answer", sort=False).median()
medians.drop(columns="tokens").round(1).rename(columns=lambda c: f"{c} (ms)")

# %%
thinking = medians.loc["large, thinks first"]
times = float(thinking["first useful"] / thinking["first token"])
book.reveal("06.think", times, unit="×")
lowest, highest = medians.min(), medians.max()
phases = {
    "waiting": (None, "first token", PALETTE["grey"]),
    "thinking, unseen": ("first token", "first visible", PALETTE["pink"]),
    "seen, not useful yet": ("first visible", "first useful", PALETTE["orange"]),
    "useful": ("first useful", "last token", PALETTE["blue"]),
}
bars = pd.DataFrame(
    [
        {"answer": name, "phase": phase, "from": row[begin] if begin else 0.0, "to": row[end]}
        for name, row in medians.iterrows()
        for phase, (begin, end, _) in phases.items()
    ]
)
show(
    alt.Chart(bars)
    .mark_bar()
    .encode(
        x=alt.X("from:Q", title="time since the request was sent (ms)"),
        x2="to:Q",
        y=alt.Y("answer:N", title=None, sort=list(streams)),
        color=alt.Color(
            "phase:N",
            title=None,
            scale=alt.Scale(domain=list(phases), range=[colour for _, _, colour in phases.values()]),
        ),
        tooltip=["answer:N", "phase:N", alt.Tooltip("from:Q", format=".1f"), alt.Tooltip("to:Q", format=".1f")],
    )
    .properties(
        height=170,
        title=f"First token after {lowest['first token']:.0f} to {highest['first token']:.0f} ms, first use after "
        f"{lowest['first useful']:.0f} to {highest['first useful']:.0f} ms",
    ),
    alt="Median times in ms. "
    + " ".join(
        f"{name}: first token {r['first token']:.0f}, visible {r['first visible']:.0f}, useful {r['first useful']:.0f}, "
        f"last {r['last token']:.0f}."
        for name, r in medians.iterrows()
    ),
    source=f"Medians of {len(moments) // len(streams)} each. {sources}",
)

# %%
polite, curt = medians.loc["prose, polite first"], medians.loc["prose, to the point"]
manners_tokens = int(polite.tokens - curt.tokens)
manners_ms = float(polite["first useful"] - curt["first useful"])
Markdown(
    f"Good manners: **{manners_tokens} tokens** and **{manners_ms:.0f} ms** until the first useful piece. The time to first "
    f"*token* moved by {polite['first token'] - curt['first token']:+.1f} ms, so whoever tunes for TTFT will not see them. The "
    f"large model writes {thinking.tokens:.0f} tokens for an answer of two words. (The money: at the end.)"
)

# %% [markdown]
# ### JSON, field by field
#
# Half a JSON document is not JSON: `json.loads` says nothing until the last bracket. But many a field is *final* long before.
# A progressive parser follows the grammar and reports each value at the character after which nothing can change it. (`12` is
# not final: it may become `128`. `"12"` is.)

# %%
field_at = []
for example in examples("test", "extract", book.pick(ci=12, learn=30, gpu=30), seed=2):
    whole = await complete(small, asking(example))
    parser = PartialJSON()
    sent = whole.done.timing.sent
    for chunk in whole.chunks:
        for found in parser.feed(chunk.text):
            if isinstance(found, Final):
                field = found.path[0] if found.path else "the whole"
                field_at.append({"field": field, "ms": 1000 * (chunk.at - sent), "request": example.id})
field_at = pd.DataFrame(field_at)
fields = ["order", "name", "product", "quantity", "the whole"]
final_ms = field_at.groupby("field").ms.median().reindex(fields)
early = 100 * final_ms["order"] / final_ms["the whole"]
dots = alt.Chart(field_at).encode(y=alt.Y("field:N", title=None, sort=fields))
show(
    (
        dots.mark_circle(size=45, opacity=0.4).encode(
            x=alt.X("ms:Q", title="final, time since the request was sent (ms)", scale=alt.Scale(domainMin=0)),
            tooltip=["field:N", alt.Tooltip("ms:Q", format=".1f")],
        )
        + dots.mark_tick(thickness=3, size=22, color=PALETTE["red"]).encode(x="median(ms):Q")
    ).properties(height=170, title=f"The order number is final after {early:.0f} % of the wait for the whole"),
    alt="When each field was final, median ms: " + ", ".join(f"{name} {ms:.0f}" for name, ms in final_ms.items()) + ".",
    source=f"Points: answers; red: medians. {source}",
)

# %% [markdown]
# So a lookup of the order can start while the model still writes the rest. And the *order of the fields is yours*: put first
# in the schema what the next step needs first.
#
# ### When it breaks in the middle
#
# We turn the temperature as high as it goes, until the small model breaks its own JSON. The parser names the very character
# from which no valid document can follow, so the rest need not be paid for. (Counters are the engine's: if another notebook
# uses it this very moment, they hold its tokens, too.)

# %%
hot = [
    replace(asking(e), temperature=2.0, seed=i)
    for i, e in enumerate(examples("test", "extract", book.pick(ci=30, learn=60, gpu=60), seed=3))
]
truth = [json.loads(e.answer) for e in examples("test", "extract", len(hot), seed=3)]


def broken(text):
    """A condition for `StopWhen`: no JSON document begins like this one."""
    return any(isinstance(found, Malformed) for found in AfterProse().feed(text))


async def counted(work, engine_=small):
    """What `work` gives back, and the tokens the engine itself says it generated meanwhile."""
    before = await engine_.metrics()
    result = await work
    for _ in range(100):  # who was cut off counts until the engine knows it
        if not (after := await engine_.metrics()).requests_running:
            break
        await asyncio.sleep(0.02)
    return result, int((after - before).generation_tokens)


async def one_by_one(handler, requests):
    return [await complete(handler, request) for request in requests]


whole_ones, all_tokens = await counted(one_by_one(small, hot))
cut_ones, cut_tokens = await counted(one_by_one(stack(StopWhen(broken), engine=small), hot))
faults, kept_right, kept_all = [], 0, 0
for answer, facts in zip(whole_ones, truth, strict=True):
    found = list(progressive([answer.text], after_prose=True))
    if isinstance(found[-1], Malformed):
        faults.append(found[-1].at / len(answer.text))
        finals = [f for f in found if isinstance(f, Final) and len(f.path) == 1]
        kept_all += len(finals)
        kept_right += sum(facts.get(f.path[0]) == f.value for f in finals)
Markdown(
    f"**{len(faults)} of {len(hot)}** documents broke"
    + (f", on average {100 * sum(faults) / len(faults):.0f} % of the way through what was written" if faults else "")
    + f". Cut at the fault, the same {len(hot)} requests took {cut_tokens:,} tokens instead of {all_tokens:,} (the engine's own "
    f"count): {100 * (1 - cut_tokens / all_tokens):.0f} % less; they are short, and the engine writes on until it hears. Of {kept_all} fields that were final before a fault, {kept_right} were right: *final* means that the grammar can "
    f"no longer change it, not that it is true."
)

# %% [markdown]
# ### The reader is slower than the engine
#
# Now a long answer. The engine writes at its speed; the reader reads at a human one. (Silent reading of English: the mean over
# many studies, in `WORDS_PER_S`.) Shown at once when it is whole, or word by word?

# %% tags=["constants"]
LONG = 400  # tokens of the long answer
LEAVE_AFTER = 10  # words read before the reader presses stop

# %%
make = ExactLengths(str(small.tokenizer_path), seed)
await complete(small, make(60, LONG))
long_answer = await complete(small, make(60, LONG))
arrived = word_arrivals(long_answer.chunks, long_answer.done.timing.sent)
live_reading, late_reading = streamed(arrived, WORDS_PER_S), buffered(arrived, WORDS_PER_S)
read_when = {"read, streamed": live_reading, "read, shown when whole": late_reading}
curve = [{"what": "written by the engine", "s": at, "words": i + 1} for i, at in enumerate(arrived)]
for what, reading in read_when.items():
    curve += [{"what": what, "s": reading.start_s + (i + 1) / WORDS_PER_S, "words": i + 1} for i in range(len(arrived))]
at_word = sum(live_reading.start_s + (i + 1) / WORDS_PER_S <= arrived[-1] for i in range(len(arrived)))
show(
    alt.Chart(pd.DataFrame(curve))
    .mark_line()
    .encode(
        x=alt.X("s:Q", title="time since the request was sent (s, logarithmic)", scale=alt.Scale(type="log")),
        y=alt.Y("words:Q", title="words"),
        color=alt.Color("what:N", title=None, sort=["written by the engine", *read_when]),
    )
    .properties(title=f"When the engine is done with {len(arrived)} words, the reader has read {at_word}"),
    alt=f"Words written and read against time, log scale. The engine is done at {arrived[-1]:.2f} s; the reader starts at "
    f"{live_reading.start_s:.2f} s and ends at {live_reading.finish_s:.0f} s streamed, and starts at "
    f"{late_reading.start_s:.2f} s and ends at {late_reading.finish_s:.0f} s when shown whole.",
    source=f"Written: measured. Read: computed at {60 * WORDS_PER_S:.0f} words a minute from the measured arrivals. {source}",
)

# %%
pd.DataFrame(
    {
        "starts reading (s)": [f"{r.start_s:.2f}" for r in (live_reading, late_reading)],
        "stalls (s)": [f"{r.stalled_s:.2f}" for r in (live_reading, late_reading)],
        "finished (s)": [f"{r.finish_s:.1f}" for r in (live_reading, late_reading)],
    },
    index=["streamed", "shown when whole"],
)

# %% [markdown]
# Streaming takes the whole generation time off the wait *before* reading, and hardly changes when reading ends. On a slower
# engine that first wait is long (move it below). But look at the picture again, and think of the stop button.
#
# ### Five ways to leave, three witnesses
#
# One answer of the same length, left in five ways. Three witnesses: what the reader was shown, what our ledger has booked, and
# what the engine's own counter says it generated.

# %%
price = price_of("gpt-5-mini")
books = Ledger(":memory:")
kept = stack(Booked(books, {"*": price}, provider="lab"), engine=small)


async def reads(handler, request, words, rate=None, then_idle=0.0):
    """Read until `words` words are whole, at `rate` words/s (None: as they come), idle, and close the stream."""
    text = ""
    async with aclosing(handler(request)) as events:
        async for event in events:
            if isinstance(event, Done):
                break
            before, text = len(text.split()), text + event.text
            if rate:
                await asyncio.sleep((len(text.split()) - before) / rate)
            if len(text.split()) > words:  # the last one is whole when the next one begins
                break
        await asyncio.sleep(then_idle)
    return text


ways = {
    "reads it all": lambda r: reads(kept, r, 10_000),
    f"stops reading at word {LEAVE_AFTER}, line left open": lambda r: reads(kept, r, LEAVE_AFTER, then_idle=1.0),
    f"reads {LEAVE_AFTER} words at reading speed, presses stop": lambda r: reads(kept, r, LEAVE_AFTER, WORDS_PER_S),
    "the same, with a queue before the reader": lambda r: reads(
        stack(Paced(16, "merge"), engine=kept), r, LEAVE_AFTER, WORDS_PER_S
    ),
    f"a policy closes it when {LEAVE_AFTER} words are written": lambda r: reads(
        stack(StopWhen(EnoughWords(LEAVE_AFTER)), engine=kept), r, 10_000
    ),
}
left = []
for way, run in ways.items():
    text, engine_tokens = await counted(run(replace(make(60, LONG), feature=way)))
    row = books.frame({"labkit.feature": way}).iloc[-1]
    left.append(
        {
            "how": way,
            "words shown": len(text.split()),
            "tokens on our books": int(row["gen_ai.usage.output_tokens"]),
            "tokens by the engine's count": engine_tokens,
        }
    )
left = pd.DataFrame(left).set_index("how")
all_of_it, _, button, _, policy = left["tokens by the engine's count"]
book.reveal("06.stop", 100 * (1 - button / all_of_it), unit="%")
left

# %% [markdown]
# The stop button worked, and it was late: tokens are paid at the speed of writing and wanted at the speed of reading. A policy
# that looks at the *text* acts at the engine's speed.
#
# Look at the books, too. A server that reads the stream only as fast as its customer does has booked only what the customer
# saw. The engine's answer was lying in buffers, generated and billable. An attempt is booked at the engine, wherever the ledger
# stands in the stack; so put a queue above it, before the slow reader (`Paced`), and the books see what the engine does.
#
# ### Stop when it has been said
#
# So what can a policy look for? We plant a fault that has shipped more than once: a chat template without the right end mark,
# so that the model does not know when to stop. (Here: the engine is told to ignore the end mark.) Questions with one-line
# answers and with JSON answers, all at once, under four policies.

# %% tags=["constants"]
CEILING = 256  # max_tokens of the answers that do not end
LOOPS = "stop a loop (06.3)"
SAID = "stop when it is said"

# %%
tasks = [
    *examples("test", "faq", book.pick(ci=10, learn=20, gpu=20), seed=4),
    *examples("test", "extract", book.pick(ci=10, learn=20, gpu=20), seed=4),
]
one_sentence = Said(r"[.!?](\s|$)")


def by_task(example):
    return JsonComplete() if example.family == "extract" else one_sentence


def up_to(condition, text):
    """What is shown: the last chunk may bring more than what made `condition` hold."""
    return next((text[:i] for i in range(len(text) + 1) if condition(text[:i])), text)


def never(text):
    return False


policies = {
    "as it should be": (lambda example: never, False),
    "no policy": (lambda example: never, True),
    LOOPS: (lambda example: book.reference("06.3"), True),
    SAID: (by_task, True),
}
outcome = []
for name, (condition_for, endless) in policies.items():
    extra = {"ignore_eos": True} if endless else {}
    asked = [Request(e.messages, max_tokens=CEILING, extra=extra) for e in tasks]
    jobs = [
        complete(stack(StopWhen(condition_for(e)), engine=small), request) for e, request in zip(tasks, asked, strict=True)
    ]
    answers, engine_tokens = await counted(asyncio.gather(*jobs))
    shown_texts = [up_to(condition_for(e), a.text) for e, a in zip(tasks, answers, strict=True)]
    outcome.append(
        {
            "policy": name,
            "tokens": engine_tokens,
            "stopped early": sum("cancelled-early" in a.done.route for a in answers),
            "right": sum(grade(e, text) for e, text in zip(tasks, shown_texts, strict=True)),
            "output, USD per million answers": float(price.rates.visible_output) * engine_tokens / len(tasks),
        }
    )
outcome = pd.DataFrame(outcome).set_index("policy")
spared = 100 * (1 - outcome.tokens / outcome.tokens["no policy"])
show(
    alt.Chart(outcome.reset_index())
    .mark_bar(color=PALETTE["blue"])
    .encode(
        x=alt.X("tokens:Q", title=f"tokens generated for {len(tasks)} answers, the engine's count"),
        y=alt.Y("policy:N", title=None, sort=list(policies)),
        tooltip=["policy:N", "tokens:Q", "right:Q"],
    )
    .properties(
        height=130,
        title=f"Of an endless answer, a loop detector spares {spared[LOOPS]:.0f} %, knowing the end {spared[SAID]:.0f} %",
    ),
    alt="Tokens by policy: " + ", ".join(f"{name} {int(n)}" for name, n in outcome.tokens.items()) + ".",
    source=f"Concurrent requests, greedy. {source}",
)

# %%
outcome.assign(right=[f"{n} of {len(tasks)}" for n in outcome.right]).round(0)

# %% [markdown]
# Without a policy the answers are not only dear but *wrong*: nobody wants the text behind the end. A loop detector bounds the
# bill, where the rambling is an exact loop at all, and leaves the rubbish in; a policy that knows the answer's form gives the
# answer. Where a fixed string ends it, hand it
# to the engine as a stop sequence and it will not generate even the token too many. A condition in your code is for what no
# string can say: JSON that is whole, a passage for the fourth time, a reader who has gone.
#
# ### A slow line
#
# A reader takes a chunk every few milliseconds, the engine makes them faster. Something has to give. `wait` holds the stream
# back until the reader has taken a chunk; `merge` joins what waits, so that the reader gets fewer, larger ones.

# %% tags=["constants"]
SLOW_S = 0.006  # the slow reader's time for a chunk
QUEUE = 16  # chunks that may wait

# %%
slow = []
request = make(60, LONG)
for policy_ in ("wait", "merge"):
    before = await small.metrics()
    taken, text = 0, ""
    async with aclosing(Paced(QUEUE, policy_)(small)(request)) as events:
        async for event in events:
            await asyncio.sleep(SLOW_S)
            if isinstance(event, Chunk):
                taken, text = taken + 1, text + event.text
            else:
                ended = event.timing
    reader_s = asyncio.get_running_loop().time()
    engine_s = ((await small.metrics()) - before).e2e_latency.mean
    slow.append(
        {
            "policy": policy_,
            "chunks the reader took": taken,
            "words": len(text.split()),
            "reader done (s)": round(reader_s - ended.sent, 2),
            "our own clock says the stream took (s)": round(ended.e2e, 2),
            "the engine says (s)": round(engine_s, 2),
        }
    )
slow = pd.DataFrame(slow).set_index("policy")
held = slow.loc["wait"]
book.reveal(
    "06.slow",
    "it waits as well"
    if held["the engine says (s)"] > 0.7 * held["reader done (s)"]
    else "it goes on at its own speed, and somebody keeps the rest"
    if held.words > 0.5 * LONG
    else "it drops what the reader cannot take",
)
slow

# %% [markdown]
# Waiting does not reach the engine: it had finished long before, and the answer sat in buffers on the way. Two consequences. A
# token rate measured behind a slow reader is *the reader's*. And back-pressure saves memory in your process only: to stop the
# engine you must close the stream. Merging gives the same text in fewer pieces, and the reader is current sooner.
#
# ### A line that breaks
#
# A phone changes from Wi-Fi to mobile in the middle of an answer. A client that asks again pays again. If the stream belongs to
# a buffer instead of the connection, the reader comes back with the id of the last event it saw (`Last-Event-ID`, which
# browsers send by themselves) and gets the rest. And if it never comes back, somebody must notice.

# %% tags=["constants"]
BREAK_AT = 12_000  # bytes after which the line breaks
GRACE_S = 0.3  # how long a stream without a reader may go on; 30 s would be usual, here we do not want to wait

# %%
decode = book.reference("06.4")


async def receive(byte_stream, at_most=None):
    """The pieces of a connection until it ends, or breaks after `at_most` bytes in the middle of whatever comes."""
    pieces, size = [], 0
    async with aclosing(byte_stream) as frames:
        async for piece in frames:
            pieces.append(piece if at_most is None else piece[: at_most - size])
            size += len(pieces[-1])
            if at_most is not None and size >= at_most:
                break
    return pieces


def text_of(messages):
    return "".join(json.loads(data).get("text", "") for _, data in messages)


async def asks_again(request):
    await reads(small, request, LONG // 4)
    return (await complete(small, request)).text


async def comes_back(request):
    async with Resumable(small, grace_s=5.0) as buffer:
        stream = buffer.start(request)
        first = list(decode(await receive(buffer.sse(stream), BREAK_AT)))
        rest = list(decode(await receive(buffer.sse(stream, last_event_id=first[-1][0]))))
    return text_of(first) + text_of(rest)


async def never_comes_back(request):
    async with Resumable(small, grace_s=GRACE_S) as buffer:
        stream = buffer.start(request)
        first = list(decode(await receive(buffer.sse(stream), BREAK_AT)))
        await asyncio.sleep(2 * GRACE_S)
        try:
            await receive(buffer.sse(stream, last_event_id=first[-1][0]))
        except StreamGone as error:
            print(f"Too late, it is told: {error}")
    return text_of(first)


very_long = make(60, 2 * LONG)
expected_text = (await complete(small, very_long)).text
broke = []
for what, run in {
    "asks again from the start": asks_again,
    "comes back with the last id": comes_back,
    f"never comes back; closed after {GRACE_S} s": never_comes_back,
}.items():
    text, engine_tokens = await counted(run(very_long))
    broke.append(
        {
            "the reader": what,
            "tokens by the engine's count": engine_tokens,
            "text": "the whole, once" if text == expected_text else f"{len(text):,} of {len(expected_text):,} characters",
        }
    )
broke = pd.DataFrame(broke).set_index("the reader")
broke

# %% [markdown]
# ## Move
#
# How much streaming is worth depends on three speeds: how soon the engine begins, how fast it writes, how fast the reader
# reads. Drag them. The dashed line is a reader who leaves; everything the engine has written *left* of it is paid for.

# %% tags=["constants"]
TOKENS_PER_WORD = 4 / 3  # English, roughly


# %%
def reader_and_engine(first_s, tokens_per_s, answer_words, words_per_minute, leave_after):
    gap, rate = TOKENS_PER_WORD / tokens_per_s, words_per_minute / 60
    arrivals = [first_s + i * gap for i in range(answer_words)]
    now, later = streamed(arrivals, rate), buffered(arrivals, rate)
    read, at = [], 0.0
    for here in arrivals:
        at = max(here, at) + 1 / rate
        read.append(at)
    leaves = read[min(leave_after, answer_words) - 1]
    written = sum(a <= leaves for a in arrivals)
    spared_ = 100 * (1 - written / answer_words)
    step = max(1, answer_words // 150)
    rows = [
        {"what": what, "s": at, "words": i + 1}
        for what, series in (
            ("written", arrivals),
            ("read, streamed", read),
            ("read, shown when whole", [later.start_s + (i + 1) / rate for i in range(answer_words)]),
        )
        for i, at in enumerate(series)
        if i % step == 0 or i == answer_words - 1
    ]
    title = (
        f"Streamed, reading starts {later.start_s - now.start_s:.1f} s and ends {later.finish_s - now.finish_s:.1f} s sooner"
    )
    stalls = f"; it stalls for {now.stalled_s:.1f} s" if now.stalled_s > 0.05 else ""
    leaving = f"Leaving after word {min(leave_after, answer_words)} spares {spared_:.0f} % of the tokens"
    lines = (
        alt.Chart(pd.DataFrame(rows))
        .mark_line()
        .encode(
            x=alt.X("s:Q", title="time since the request was sent (s)"),
            y=alt.Y("words:Q", title="words"),
            color=alt.Color("what:N", title=None, sort=["written", "read, streamed", "read, shown when whole"]),
        )
    )
    rule = (
        alt.Chart(pd.DataFrame({"s": [leaves]})).mark_rule(strokeDash=[4, 3], color=PALETTE["red"], size=2).encode(x="s:Q")
    )
    return Figure(
        (lines + rule).properties(title={"text": title + stalls, "subtitle": leaving}),
        alt=f"{title}{stalls}. {leaving}.",
        source=f"A model: even speeds, {TOKENS_PER_WORD:.2f} tokens a word, no buffering between engine and reader.",
    )


live_chart(
    reader_and_engine,
    first_s=w.FloatSlider(0.4, min=0.05, max=5, step=0.05, description="TTFT (s)"),
    tokens_per_s=w.IntSlider(40, 2, 300, 1, description="tokens a second"),
    answer_words=w.IntSlider(300, 10, 800, 10, description="words of the answer"),
    words_per_minute=w.IntSlider(238, 80, 600, 2, description="words read a minute"),
    leave_after=w.IntSlider(12, 1, 200, 1, description="leaves after (words)"),
)

# %% [markdown]
# Find the decode speed at which the reader begins to stall. Above it a faster engine is worth nothing to this reader once the
# first words are there, and worth *less* to you when readers leave early: it has written more by then.

# %% [markdown]
# ## Do
#
# {{exercise 06.1}}
# The first word arrives after `first` seconds, each next one `gap` seconds later, `words` in all; the reader reads `rate` words
# a second and none before it is there. Return (start, finish) of reading it streamed and of reading it shown when whole.


# %% exercise="06.1"
def two_readings(first: float, gap: float, words: int, rate: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """((start, finish) streamed, (start, finish) shown when whole), in seconds since the send."""
    ...  # your code here


# %%
book.check("06.1", two_readings)

# %% [markdown]
# {{exercise 06.2}}
# Write the renderer for lists: a generator that takes the pieces of a stream and yields each item (without its `- `) as soon as
# its line is whole. Lines that do not begin with `- ` are not shown. Pieces are cut anywhere, and the check counts how many you
# have taken when you show an item.


# %% exercise="06.2"
def whole_items(pieces: Iterable[str]) -> Iterator[str]:
    """The items of a streamed list, each at the piece that completes it."""
    ...  # your code here


# %%
book.check("06.2", whole_items)

# %% [markdown]
# Here is the lab's own renderer on the live list from above: the same bytes, and what a screen could show when.

# %%
whole = await complete(small, streams["a list"][1])
clock_now = {}


def as_they_came(chunks):
    for chunk in chunks:
        clock_now["ms"] = 1000 * (chunk.at - whole.done.timing.sent)
        yield chunk.text


pd.DataFrame([(f"{clock_now['ms']:.0f}", item) for item in book.reference("06.2")(as_they_came(whole.chunks))]).rename(
    columns={0: "shown after (ms)", 1: "item"}
).set_index("shown after (ms)")

# %% [markdown]
# {{exercise 06.3}}
# Write a cancel policy for answers that go in circles. It is asked after every piece, with the text so far. A good answer may
# say a passage three times running, and may hold a rule of up to 50 dashes; you must never cut one. An answer that says the
# same passage a *fourth* time running, 60 characters or more of it, will not end by itself; what is shorter will, and so will
# blanks alone. You are scored on what you save.


# %% exercise="06.3"
def going_in_circles(text: str) -> bool:
    """Whether to stop, from the text so far."""
    ...  # your code here


# %%
book.check("06.3", going_in_circles)

# %% [markdown]
# {{exercise 06.4}}
# Write the reader's end of the line: Server-Sent Events from bytes that are cut anywhere, in the middle of a character too.
# Lines end in LF or CR LF. `id: …` sets the id, which stays until the next one; each `data: …` adds a line to the event's data
# (take off *one* space behind the colon); an empty line sends the event if it has data; other fields, and comments
# (`: keep-alive`), are passed over. An event that the end of the stream cuts was never there. The lab uses this piece to come
# back to a broken stream, above.


# %% exercise="06.4"
def messages(pieces: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """(id, data) of each event, as soon as it is whole."""
    ...  # your code here


# %%
book.check("06.4", messages)

# %% [markdown]
# ## So what
#
# Streaming itself is free: the same tokens, sooner. What it adds to the portal's bill is what it lets you *not* generate. Nobody
# knows your shares of rambling answers (up to the ceiling above) and of readers who leave a long answer early, so here is what
# each percent of them is worth.

# %% tags=["constants"]
REQUESTS_PER_MONTH = 100_000 * 4 * 30
HOSTED_TOKENS_PER_S = 50  # a large hosted model, for comparison with the engine here

# %%
per_token = float(price.rates.visible_output) / 1e6
percent = REQUESTS_PER_MONTH / 100
here_s = LEAVE_AFTER / WORDS_PER_S
hosted = min(LONG, here_s * HOSTED_TOKENS_PER_S)
without, with_loops, with_form = (
    outcome.tokens[name] / len(tasks) - outcome.tokens["as it should be"] / len(tasks) for name in ("no policy", LOOPS, SAID)
)
with_form = max(0.0, with_form)
bill = pd.DataFrame(
    [
        ("a polite opening on every answer: left out", manners_tokens * REQUESTS_PER_MONTH, 0.0),
        ("1 % ramble on: loop detector", without * percent, with_loops * percent),
        ("1 % ramble on: a policy that knows the end", without * percent, with_form * percent),
        ("1 % leave: stop button, this engine", LONG * percent, button * percent),
        (f"1 % leave: stop button, {HOSTED_TOKENS_PER_S} tokens/s (computed)", LONG * percent, hosted * percent),
        (f"1 % leave: a policy that {LEAVE_AFTER} words will do", LONG * percent, policy * percent),
    ],
    columns=["what", "before", "after"],
).set_index("what")
(bill * per_token).map(lambda usd: f"{usd:,.0f}").rename(columns=lambda c: f"{c} (USD a month)")

# %%
Markdown(
    f"At {price.model}'s {1e6 * per_token:.2f} USD per million output tokens ({price.source}), {REQUESTS_PER_MONTH:,} requests a "
    f"month. **The pressure relieved**: the wait before reading starts. **Where it moved**: into open connections, into "
    f"buffers that hold whole answers for readers who may return, and into books that can only see what somebody has read. "
    f"**In production**, watch time to first *useful* piece per kind of answer, not TTFT; tokens generated by the engine minus "
    f"tokens delivered; and streams still running without a reader. The first leads you to the long openings and the thinking, "
    f"the other two to answers that nobody reads."
)

# %%
line = bill.loc[f"1 % leave: a policy that {LEAVE_AFTER} words will do"]
book.bill(
    "stop where readers stop",
    of="output tokens of the 1 % who leave",
    before=line.before * per_token,
    after=line.after * per_token,
    source=f"{REQUESTS_PER_MONTH:,} requests a month; {price.model}, {price.source}, {price.as_of}. {source}",
)

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz(
    "06.q1",
    "A release makes the model open every answer with two friendly sentences. Which signal moves?",
    options=("time to first useful piece", "TTFT", "TPOT"),
    answer="time to first useful piece",
    why="The first token comes as early as before, and each token as fast. Only what can be used comes later.",
)

# %%
book.quiz(
    "06.q2",
    "You double the decode speed. What happens to the tokens that the stop button saves?",
    options=("they become fewer", "they become more", "nothing"),
    answer="they become fewer",
    why="Readers leave at the same second; by then the engine has written twice as much.",
)

# %%
book.quiz(
    "06.q3",
    "Your server stops reading the engine's stream, because the customer's line is dead, and keeps the connection open. The "
    "engine…",
    options=("generates to the end", "pauses until you read on", "notices, and cancels"),
    answer="generates to the end",
    why="It writes into buffers. Only a closed stream tells it that nobody listens.",
)

# %% [markdown]
# ## Next
#
# **07 · Batching**: so far one reader at a time. An engine that serves many at once writes for all of them in the same step:
# what does the company cost each of them, and save you?

# %%
await small.aclose()
await large.aclose()
book.progress()
