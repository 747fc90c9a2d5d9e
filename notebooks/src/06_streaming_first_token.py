# %% [markdown]
# # 06 · Streaming: the first useful token
#
# **The question.** A customer reads two lines of a long answer, has what was needed, and closes the tab. Who pays for the rest?
# And every answer opens with a polite sentence: what does that cost, in money and in time until there is something to use?
#
# **You will be able to** tell the first token from the first *useful* one and measure both; show lists and JSON while they are
# written; decide where a stop button takes money off a bill, and where it takes none; and write a policy that stops an answer
# which will not end by itself.
#
# **Time.** {{time}} **Needs.** Chapter 02's TTFT and TPOT. {{needs}}

# %% tags=["imports"]
import asyncio
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

import altair as alt
import ipywidgets as w
import pandas as pd
from IPython.display import Markdown
from scipy.stats import binomtest
from transformers import AutoTokenizer

from labkit.cost import host, price_named
from labkit.lab import examples, grade
from labkit.ledger import Booked, Ledger
from labkit.load import ExactLengths
from labkit.portal import PORTAL, Rented, fleet, today
from labkit.request import Chunk, Done, EngineError, Request, StreamIncomplete, clock, complete, stack
from labkit.streaming import (
    WORDS_PER_S,
    AfterProse,
    Decoder,
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
    frame,
    progressive,
    streamed,
    token_arrivals,
    word_arrivals,
)
from labkit.workbook import PALETTE, Figure, below, live_chart, show
from labkit.workbook.chapters.builds.b06 import cut_evenly, on_the_wire
from labkit.workbook.pictures import draw_picture, stream_timeline

# %%
book.warm_up()

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
    f"The small model on this machine streams an answer of {PORTAL.assistant.answer} tokens. Its reader reads 10 words at the usual "
    "pace, presses stop, and the stream is closed at once. What share of the tokens does the engine not generate?",
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
# - the **last token**. For an answer of one sentence this is the first useful piece, too: by this definition, streaming it
#   brings nothing to act on before the end. The reader only sees it grow.

# %%
small = await book.connect("small")
large = await book.connect("large")
tokens_of = None if book.lacks("tokenizer") else AutoTokenizer.from_pretrained(small.tokenizer_path)
make = None if book.lacks("tokenizer") else ExactLengths(str(small.tokenizer_path), seed)


async def counted(work, engine_=small):
    """What `work` gives back, and the tokens the engine itself says it generated meanwhile."""
    before = await engine_.metrics()
    result = await work
    for _ in range(100):  # who was cut off counts until the engine knows it
        if not (after := await engine_.metrics()).requests_running:
            break
        await asyncio.sleep(0.02)
    return result, int((after - before).generation_tokens)


# %% [markdown]
# (`counted` reads the engine's own counter, which we need below. If another notebook uses the engine at the same time, the counter
# holds its tokens, too.)
#
# Our small model was trained to be curt, so two of its answers below are *dictated*: the engine may only choose tokens that
# spell a given text. It still writes them one by one, at its own speed, so the times are real.

# %%
faq = next(e for e in examples("test", "faq", 40, seed=1) if e.answer.startswith("We accept"))
order = next(iter(examples("test", "extract", 1, seed=1)))
total = next(iter(examples("test", "total", 1, seed=1)))
manners = "Good morning. Thank you for your message. I am happy to help. "
as_list = "We accept:\n- cards\n- bank transfer\n- gift cards"


def asking(example, dictated=""):
    extra = {}
    if dictated:  # the bias keeps it to whole words, where a grammar alone would let it spell them letter by letter
        ids = tokens_of(dictated, add_special_tokens=False)["input_ids"]
        extra = {"structured_outputs": {"choice": [dictated]}, "logit_bias": {str(i): 100.0 for i in ids}}
    return Request(example.messages, max_tokens=max(64, example.max_tokens), extra=extra)


def five_streams():
    """Each with its engine, its request, and the kind of answer that decides what is useful."""
    return {
        "prose, to the point": (small, asking(faq), "prose"),
        "prose, polite first": (small, asking(faq, manners + faq.answer), "prose"),
        "a list": (small, asking(faq, as_list), "list"),
        "JSON": (small, asking(order), JsonFields("order")),
        "large, thinks first": (large, asking(total), "prose"),
    }


# %%
async def a_list():
    whole = await complete(small, five_streams()["a list"][1])
    return [(1000 * (chunk.at - whole.done.timing.sent), chunk.text) for chunk in whole.chunks]


listed = await book.measure("a list, as it came", a_list)
came = listed.value

# %%
pieces = [Chunk(text, tokens=1, at=ms / 1000) for ms, text in came]
draw_picture(stream_timeline(token_arrivals(pieces, 0.0), first_useful_at(pieces, "list")))

# %% [markdown]
# That was the list, once. Now all five answers, in turns.


# %%
async def four_moments(number):
    rows = []
    for name, (engine_, request, kind) in five_streams().items():
        if number == 0:
            await complete(engine_, request)  # warm-up; a dictated text is compiled here
        whole = await complete(engine_, request)
        chunks, timing = whole.chunks, whole.done.timing
        visible = next((c.at for c in chunks if c.text), timing.last_token)
        useful = first_useful_at(chunks, kind) or timing.last_token  # an answer of no use is none before its end, either
        rows.append(
            {
                "round": number,
                "answer": name,
                "first token": 1000 * timing.ttft,
                "first visible": 1000 * (visible - timing.sent),
                "first useful": 1000 * (useful - timing.sent),
                "last token": 1000 * (timing.last_token - timing.sent),
                "tokens": whole.done.usage.output_tokens,
                "unseen": sum(c.counted.reasoning_tokens for c in chunks),
            }
        )
    return rows


five = await book.measure("four moments", four_moments, rounds=book.pick(ci=5, learn=9))
moments = pd.DataFrame([row for rows in five.value for row in rows])
medians = moments.drop(columns="round").groupby("answer", sort=False).median()

# %%
useful = moments.pivot(index="round", columns="answer", values="first useful")
first = moments.pivot(index="round", columns="answer", values="first token")
book.reveal("06.think", (useful["large, thinks first"] / first["large, thinks first"]).tolist(), unit="×")

# %%
medians.drop(columns=["tokens", "unseen"]).round(1).rename(columns=lambda c: f"{c} (ms)")

# %%
names = list(medians.index)
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
lowest, highest = medians.min(), medians.max()
show(
    (
        alt.Chart(bars)
        .mark_bar()
        .encode(
            x=alt.X("from:Q", title="time since the request was sent (ms)"),
            x2="to:Q",
            y=alt.Y("answer:N", title=None, sort=names),
            color=alt.Color(
                "phase:N",
                title=None,
                scale=alt.Scale(domain=list(phases), range=[colour for _, _, colour in phases.values()]),
            ),
            tooltip=["answer:N", "phase:N", alt.Tooltip("from:Q", format=".1f"), alt.Tooltip("to:Q", format=".1f")],
        )
        + alt.Chart(moments)
        .mark_point(shape="diamond", filled=True, size=45, color=PALETTE["red"], stroke="white", strokeWidth=0.8, opacity=1)
        .encode(x="first useful:Q", y=alt.Y("answer:N", sort=names))
    ).properties(
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
    source=f"Bars: medians of {len(five.value)} rounds; diamonds: the first useful piece in each. {five.source}",
)

# %%
polite, curt, thinking = (medians.loc[n] for n in ("prose, polite first", "prose, to the point", "large, thinks first"))
manners_tokens = int(polite.tokens - curt.tokens)
useful_moved = (useful["prose, polite first"] - useful["prose, to the point"]).tolist()
first_moved = (first["prose, polite first"] - first["prose, to the point"]).tolist()
manners_cost = (
    f"Good manners: **{manners_tokens} tokens**, and {pd.Series(useful_moved).median():+.0f} ms until the first useful piece "
    f"(median of the rounds). The time to first *token* moved by {pd.Series(first_moved).median():+.1f} ms"
)
thoughts = (
    f"\n\nThe large model writes {thinking.tokens:.0f} tokens for an answer of two words, {thinking.unseen:.0f} of them unseen. "
    "They are paid for like all others (the money: at the end)."
)
book.finding(
    below(first_moved, [ms / 2 for ms in useful_moved]),
    manners_cost + ", so whoever tunes for TTFT will not see them." + thoughts,
    manners_cost
    + ": as much, which manners cannot explain. Did the pieces come in bursts, on a machine busy with other things?"
    + thoughts,
    manners_cost + "; the rounds lie too far apart to tell the two from each other." + thoughts,
)

# %% [markdown]
# ### JSON, field by field
#
# Half a JSON document is not JSON: `json.loads` says nothing until the last bracket. But many a field is *final* long before.
# A progressive parser follows the grammar and reports each value at the character after which nothing can change it. (`12` is
# not final: it may become `128`. `"12"` is.)


# %%
async def fields_as_they_end():
    rows = []
    for example in examples("test", "extract", book.pick(ci=12, learn=30), seed=2):
        whole = await complete(small, asking(example))
        parser, sent = PartialJSON(), whole.done.timing.sent
        for chunk in whole.chunks:
            for found in parser.feed(chunk.text):
                if isinstance(found, Final):
                    field = str(found.path[0]) if found.path else "the whole"
                    rows.append({"field": field, "ms": 1000 * (chunk.at - sent), "request": example.id})
    return rows


field_times = await book.measure("JSON, field by field", fields_as_they_end)
field_at = pd.DataFrame(field_times.value)

# %%
fields = ["order", "name", "product", "quantity", "the whole"]
final_ms = field_at.groupby("field").ms.median().reindex(fields)
by_request = field_at.pivot(index="request", columns="field", values="ms")
early = 100 * (by_request["order"] / by_request["the whole"]).median()
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
    source=f"Points: answers; red: medians. {field_times.source}",
)

# %% [markdown]
# So a lookup of the order can start while the model still writes the rest. And the *order of the fields is yours*: put first
# in the schema what the next step needs first.

# %% [markdown] tags=["further"]
# ### When it breaks in the middle
#
# We turn the temperature as high as it goes, until the small model breaks its own JSON. The parser names the very character
# from which no valid document can follow, so the rest need not be paid for.


# %%
def broken(text):
    """A condition for `StopWhen`: no JSON document begins like this one."""
    return any(isinstance(found, Malformed) for found in AfterProse().feed(text))


async def answer_each(handler, requests):
    return [(await complete(handler, request)).text for request in requests]


async def hot_answers():
    asked = examples("test", "extract", book.pick(ci=30, learn=60), seed=3)
    hot = [replace(asking(example), temperature=2.0, seed=i) for i, example in enumerate(asked)]
    texts, all_tokens = await counted(answer_each(small, hot))
    _, cut_tokens = await counted(answer_each(stack(StopWhen(broken), engine=small), hot))
    return {"texts": texts, "all tokens": all_tokens, "cut tokens": cut_tokens}


hot = (await book.measure("broken JSON", hot_answers)).value
truth = [json.loads(e.answer) for e in examples("test", "extract", len(hot["texts"]), seed=3)]
faults, kept_right, kept_all = [], 0, 0
for text, facts in zip(hot["texts"], truth, strict=True):
    found = list(progressive([text], after_prose=True))
    if found and isinstance(found[-1], Malformed):
        faults.append(found[-1].at / len(text))
        finals = [f for f in found if isinstance(f, Final) and len(f.path) == 1]
        kept_all += len(finals)
        kept_right += sum(facts.get(f.path[0]) == f.value for f in finals)

# %% tags=["reasoned"]
Markdown(
    f"**{len(faults)} of {len(truth)}** documents broke"
    + (f", on average {100 * sum(faults) / len(faults):.0f} % of the way through what was written" if faults else "")
    + f". The engine counted {hot['all tokens']:,} tokens for all of them to their ends, and {hot['cut tokens']:,} when each "
    f"was cut at its fault: {100 * (hot['cut tokens'] / hot['all tokens'] - 1):+.0f} %. (They are short documents, and the "
    f"engine writes on until it hears of the cut.) Of {kept_all} fields that were final before a fault, {kept_right} were right: "
    "*final* means that the grammar can no longer change it, not that it is true."
)

# %% [markdown]
# ### Leave an answer
#
# An answer of the assistant's length, and a reader who leaves it in five ways. First the one of your prediction: read at the
# usual pace, then stop.

# %% tags=["constants"]
LONG = PORTAL.assistant.answer  # tokens of the long answer
LEAVE_AFTER = 10  # words read before the reader presses stop

# %%
price = price_named(PORTAL.desk.large)
books = Ledger(":memory:")
kept = stack(Booked(books, {"*": price}, provider="lab"), engine=small)


async def reads(handler, request, words, rate=None, then_idle=0.0):
    """Read until `words` words are whole, at `rate` words/s (None: as they come), idle, and close the stream.

    Gives back how many whole words were shown: a word is whole when white space follows it, or the end.
    """
    text, shown = "", 0
    async with aclosing(handler(request)) as events:
        async for event in events:
            if isinstance(event, Done):
                shown = len(text.split())  # the end makes the last word whole
                break
            text += event.text
            before, shown = shown, len(text.split()) - (bool(text) and not text[-1].isspace())
            if rate:
                await asyncio.sleep((shown - before) / rate)
            if shown >= words:
                break
        await asyncio.sleep(then_idle)
    return shown


paced = stack(Paced(16, "merge"), engine=kept)  # a queue before the reader
enough = stack(StopWhen(EnoughWords(LEAVE_AFTER)), engine=kept)  # a policy that looks at the text
ways = {
    "reads it all": lambda r: reads(kept, r, LONG),
    f"stops reading at word {LEAVE_AFTER}, line left open": lambda r: reads(kept, r, LEAVE_AFTER, then_idle=1.0),
    f"reads {LEAVE_AFTER} words at reading speed, presses stop": lambda r: reads(kept, r, LEAVE_AFTER, WORDS_PER_S),
    "the same, with a queue before the reader": lambda r: reads(paced, r, LEAVE_AFTER, WORDS_PER_S),
    f"a policy closes it when {LEAVE_AFTER} words are written": lambda r: reads(enough, r, LONG),
}


# %%
async def five_ways(_):
    rows = []
    for way, run in ways.items():
        shown, engine_tokens = await counted(run(replace(make(60, LONG), feature=way)))
        booked = books.frame({"labkit.feature": way}).iloc[-1]["gen_ai.usage.output_tokens"]
        rows.append({"how": way, "words shown": shown, "tokens booked": int(booked), "tokens generated": engine_tokens})
    return rows


leaving = await book.measure("five ways to leave", five_ways, rounds=book.pick(ci=2, learn=5))
left = pd.DataFrame([row for rows in leaving.value for row in rows])
all_of_it, _, button, _, policy = (rows["tokens generated"].tolist() for _, rows in left.groupby("how", sort=False))
book.reveal("06.stop", [100 * (1 - b / a) for a, b in zip(all_of_it, button, strict=True)], unit="%")

# %% [markdown]
# ### A slow line
#
# A reader takes chunks at a quarter of the speed at which the engine makes them. Something has to give. `wait` holds the stream
# back until the reader has taken a chunk; `merge` joins what waits, so that the reader gets fewer and longer ones.

# %% tags=["constants"]
SLOWER = 4  # times as long as the engine needs for a token, the slow reader takes for a chunk
QUEUE = 16  # chunks that may wait
ON_THE_LINE = 200  # tokens of the answer


# %%
async def slow_line(_):
    request = make(60, ON_THE_LINE)
    alone = await complete(small, request)
    pace = alone.done.timing.tpot(alone.done.usage.output_tokens)
    rows = []
    for policy_ in ("wait", "merge"):
        before = await small.metrics()
        taken, text = 0, ""
        async with aclosing(Paced(QUEUE, policy_)(small)(request)) as events:
            async for event in events:
                await asyncio.sleep(SLOWER * pace)
                if isinstance(event, Chunk):
                    taken, text = taken + 1, text + event.text
                else:
                    ended = event.timing
        reader_s = clock.now() - ended.sent
        engine_s = ((await small.metrics()) - before).e2e_latency.mean
        rows.append(
            {
                "policy": policy_,
                "chunks the reader took": taken,
                "% of the text": round(100 * len(text) / len(alone.text)),
                "reader done (s)": reader_s,
                "our own clock says the stream took (s)": ended.e2e,
                "the engine says (s)": engine_s,
            }
        )
    return rows


slow = await book.measure("a slow line", slow_line, rounds=book.pick(ci=3, learn=5))
slow_rows = pd.DataFrame([row for rows in slow.value for row in rows])

# %%
held = slow_rows[slow_rows.policy == "wait"]
went_on = below(held["the engine says (s)"].tolist(), (0.7 * held["reader done (s)"]).tolist())
kept_all_text = held["% of the text"].median() > 90
book.reveal(
    "06.slow",
    None
    if went_on is None
    else "it waits as well"
    if not went_on
    else "it goes on at its own speed, and somebody keeps the rest"
    if kept_all_text
    else "it drops what the reader cannot take",
    unsure="the engine's own time and the reader's do not differ clearly in these rounds. Run the cell again in a quieter moment",
)

# %%
slow_rows.groupby("policy", sort=False).median().round(2)

# %%
book.finding(
    went_on,
    f"Waiting does not reach the engine: by its own clock it had finished after {held['the engine says (s)'].median():.2f} s, "
    f"the reader after {held['reader done (s)'].median():.2f} s, and in between the answer sat in buffers on the way.",
    "In this run the engine took about as long as the reader. vLLM writes into its server's buffers whoever reads; so look for "
    "what slowed it down, before you believe that it waited.",
)

# %% [markdown] tags=["reasoned"]
# Two consequences. A token rate measured behind a slow reader is *the reader's*. And back-pressure saves memory in your process
# only: to stop the engine you must close the stream. Merging hands over the same text in fewer pieces.

# %% [markdown]
# ### Three witnesses
#
# Now all five ways to leave, with three witnesses: what the reader was shown, what our ledger has booked, and what the engine's
# own counter says it generated.

# %%
left.groupby("how", sort=False).median().round().astype(int).rename(
    columns={"tokens booked": "tokens on our books", "tokens generated": "tokens by the engine's count"}
)

# %%
stop_median, policy_median, all_median = (pd.Series(v).median() for v in (button, policy, all_of_it))
book.finding(
    below([0.9 * tokens for tokens in all_of_it], button),
    f"The stop button worked, and it was late: {stop_median:.0f} of {all_median:.0f} tokens were written when it was pressed. "
    f"The policy looks at the *text* as it comes, at no reader's pace: {policy_median:.0f} tokens. Our books hold what the customer saw "
    "where the server read the stream only as fast as its customer; the engine's answer was lying in buffers, generated and "
    "billable.",
    f"Here the engine wrote slowly enough for the button to be of use: {stop_median:.0f} of {all_median:.0f} tokens were "
    f"written. The policy looks at the *text* as it comes, at no reader's pace: {policy_median:.0f} tokens.",
    f"Between {min(button):.0f} and {max(button):.0f} of {all_median:.0f} tokens were written when the button was pressed: it "
    f"depends on how busy this machine is. For the policy that looks at the *text*, it was {policy_median:.0f}.",
)

# %%
after_close = left[left.how.str.startswith("a policy")]
book.claim(
    "06.stops",
    "Closing the stream immediately stops the model",
    by="OpenRouter, documentation, “API Reference: Streaming, Stream Cancellation”, read in 2026: of the providers that support it.",
    claimed=0,
    measured=(after_close["tokens generated"] - after_close["tokens booked"]).tolist(),
    unit="tokens written after the close",
    where="on this engine, by its own counter against the tokens that had arrived",
    unless="It fails where somebody between the reader and the engine keeps the connection open, and at providers that do not cancel.",
    source=leaving.source,
)

# %% [markdown] tags=["reasoned"]
# The engine writes at its own speed, and the reader decides at reading speed. So the faster the engine, the less a button saves.
#
# The ledger books what passes through it. If it stands behind a reader who stops reading, it sees no more than the reader.
# Put a queue (`Paced`) between the two, and it sees what the engine does.

# %% [markdown]
# ### Two speeds
#
# The same kind of answer once more, word by word: when the engine has written each word, and when a reader has read it, streamed
# or shown when whole. The reader is computed: `60 * WORDS_PER_S` words a minute, the mean of many studies of silent reading in English
# (Brysbaert, *How many words do we read per minute?*, Journal of Memory and Language 109, 2019).


# %%
async def a_long_answer(number):
    if number == 0:
        await complete(small, make(60, LONG))  # warm-up
    whole = await complete(small, make(60, LONG))
    return [round(at, 5) for at in word_arrivals(whole.chunks, whole.done.timing.sent)]


long_answers = await book.measure("a long answer", a_long_answer, rounds=book.pick(ci=3, learn=5))
arrived = sorted(long_answers.value, key=lambda words: words[-1])[len(long_answers.value) // 2]  # the round in the middle
live_reading, late_reading = streamed(arrived, WORDS_PER_S), buffered(arrived, WORDS_PER_S)

# %%
read_when = {"read, streamed": live_reading, "read, shown when whole": late_reading}
written = [
    {"what": "written by the engine", "s": at, "words": i + 1, "round": number}
    for number, words in enumerate(long_answers.value)
    for i, at in enumerate(words)
]
read = [
    {"what": what, "s": reading.start_s + (i + 1) / WORDS_PER_S, "words": i + 1, "round": 0}
    for what, reading in read_when.items()
    for i in range(len(arrived))
]
at_word = sum(live_reading.start_s + (i + 1) / WORDS_PER_S <= arrived[-1] for i in range(len(arrived)))
show(
    alt.Chart(pd.DataFrame([*written, *read]))
    .mark_line(opacity=0.8)
    .encode(
        x=alt.X(
            "s:Q",
            title="time since the request was sent (s, logarithmic)",
            scale=alt.Scale(
                type="log", nice=False, domain=[min(row["s"] for row in written), max(row["s"] for row in read)]
            ),
        ),
        y=alt.Y("words:Q", title="words"),
        color=alt.Color("what:N", title=None, sort=["written by the engine", *read_when]),
        detail="round:N",
    )
    .properties(title=f"When the engine is done with {len(arrived)} words, the reader has read {at_word}"),
    alt=f"Words written and read against time, log scale. The engine is done at {arrived[-1]:.2f} s; the reader starts at "
    f"{live_reading.start_s:.2f} s and ends at {live_reading.finish_s:.0f} s streamed, and starts at "
    f"{late_reading.start_s:.2f} s and ends at {late_reading.finish_s:.0f} s when shown whole.",
    source=f"Written: {len(long_answers.value)} rounds. Read: computed at {60 * WORDS_PER_S:.0f} words a minute from the "
    f"arrivals of the round in the middle. {long_answers.source}",
)

# %%
begins, ends = late_reading.start_s - live_reading.start_s, late_reading.finish_s - live_reading.finish_s
Markdown(
    f"Streamed, reading starts {begins:.2f} s earlier and ends {ends:.2f} s earlier, of {late_reading.finish_s:.0f} s"
    + (
        f"; on the way the reader waits {live_reading.stalled_s:.2f} s for words. "
        if live_reading.stalled_s > 0.01
        else ". "
    )
    + f"Word {LEAVE_AFTER} is read after {live_reading.start_s + LEAVE_AFTER / WORDS_PER_S:.1f} s; by then "
    f"{sum(at <= live_reading.start_s + LEAVE_AFTER / WORDS_PER_S for at in arrived)} of {len(arrived)} words are written. That is all "
    "that decides what a stop button saves."
)

# %% [markdown]
# ### Stop when it has been said
#
# What can a policy look for? We plant a known fault, a chat template without the right end mark, so that the model does not know
# when to stop. (Here the engine is told to ignore the end mark.) Then we ask questions with one-line answers and with JSON
# answers, under four policies.

# %% tags=["constants"]
CEILING = 256  # max_tokens of the answers that do not end
LOOPS = "stop a loop (06.3)"
SAID = "stop when it is said"

# %%
one_sentence = Said(r"[.!?](\s|$)")


def up_to(condition, text):
    """What is shown: the last chunk may bring more than what made `condition` hold."""
    return next((text[:i] for i in range(len(text) + 1) if condition(text[:i])), text)


def at_no_time(text):
    return False


policies = {
    "as it should be": (lambda example: at_no_time, False),
    "no policy": (lambda example: at_no_time, True),
    LOOPS: (lambda example: book.reference("06.3"), True),
    SAID: (lambda example: JsonComplete() if example.family == "extract" else one_sentence, True),
}


async def endless_answers():
    tasks = [e for kind in ("faq", "extract") for e in examples("test", kind, book.pick(ci=10, learn=20), seed=4)]
    rows = []
    for name, (condition_for, endless) in policies.items():
        extra = {"ignore_eos": True} if endless else {}
        jobs = [
            complete(stack(StopWhen(condition_for(e)), engine=small), Request(e.messages, max_tokens=CEILING, extra=extra))
            for e in tasks
        ]
        answers, engine_tokens = await counted(asyncio.gather(*jobs))
        texts = [up_to(condition_for(e), a.text) for e, a in zip(tasks, answers, strict=True)]
        stopped = sum("cancelled-early" in a.done.route for a in answers)
        right = sum(grade(e, text) for e, text in zip(tasks, texts, strict=True))
        rows.append(
            {"policy": name, "tokens": engine_tokens, "answers": len(tasks), "stopped": stopped, "right": int(right)}
        )
    return rows


endless = await book.measure("answers that do not end", endless_answers)
outcome = pd.DataFrame(endless.value).set_index("policy")
asked = int(outcome.answers.iloc[0])

# %%
spared = 100 * (1 - outcome.tokens / outcome.tokens["no policy"])
labelled = outcome.reset_index()
labelled["policy"] += [f": {n} of {asked} right" for n in labelled.right]
show(
    alt.Chart(labelled)
    .mark_bar(color=PALETTE["blue"])
    .encode(
        x=alt.X("tokens:Q", title=f"tokens generated for {asked} answers, the engine's count"),
        y=alt.Y("policy:N", title=None, sort=list(labelled.policy), axis=alt.Axis(labelLimit=300)),
        tooltip=["policy:N", "tokens:Q", "stopped:Q"],
    )
    .properties(
        title=f"Of an endless answer, a loop detector spares {spared[LOOPS]:.0f} %, knowing the end {spared[SAID]:.0f} %",
    ),
    alt="By policy: "
    + "; ".join(
        f"{r.Index}: {r.tokens} tokens, {r.stopped} stopped early, {r.right} of {asked} right" for r in outcome.itertuples()
    )
    + ".",
    source=f"Concurrent requests, each at its most likely tokens. {endless.source}",
)

# %%
rambling, looping, said = (outcome.right[name] for name in ("no policy", LOOPS, SAID))
book.finding(
    bool(max(rambling, looping) < said),
    f"Without a policy the answers are not only dear but *wrong* ({rambling} of {asked} right): the text behind the end is "
    f"wanted by no one. A loop detector can bound the bill (here it spares {spared[LOOPS]:.0f} %), where the rambling is an exact "
    f"loop at all, and leaves the rubbish in ({looping} right). A policy that knows the answer's form gives the answer ({said} right).",
    f"In this run, {rambling} of {asked} answers were right without a policy, {looping} with a loop detector and {said} with a "
    "policy that knows the answer's form: here the end mark did not decide whether an answer is right.",
)

# %% [markdown]
# Where a fixed string ends an answer, hand it to the engine as a stop sequence and it will not generate even the token too
# many. A condition in your code is for what no string can say: JSON that is whole, a passage for the fourth time, a reader who
# has gone.

# %% [markdown] tags=["further"]
# ### A line that breaks
#
# A phone changes from Wi-Fi to mobile in the middle of an answer. A client that asks again pays again. If the stream belongs to
# a buffer instead of the connection, the reader comes back with the id of the last event it saw (`Last-Event-ID`, which
# browsers send by themselves) and gets the rest. And if the reader stays away, somebody must notice.

# %% tags=["constants"]
BREAK_AT = 12_000  # bytes after which the line breaks
GRACE_S = 0.3  # how long a stream without a reader may go on; 30 s would be usual, here we do not want to wait


# %%
def decode(pieces):
    """(id, data) of each event of a stream of Server-Sent Events; bytes may be cut anywhere."""
    decoder = Decoder()
    for piece in pieces:
        yield from ((event.id, event.data) for event in decoder.feed(piece))


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
    return (await complete(small, request)).text, ""


async def comes_back(request):
    async with Resumable(small, grace_s=5.0) as buffer:
        stream = buffer.start(request)
        first = list(decode(await receive(buffer.sse(stream), BREAK_AT)))
        rest = list(decode(await receive(buffer.sse(stream, last_event_id=first[-1][0]))))
    return text_of(first) + text_of(rest), ""


async def stays_away(request):
    told = ""
    async with Resumable(small, grace_s=GRACE_S) as buffer:
        stream = buffer.start(request)
        first = list(decode(await receive(buffer.sse(stream), BREAK_AT)))
        await asyncio.sleep(2 * GRACE_S)
        try:
            await receive(buffer.sse(stream, last_event_id=first[-1][0]))
        except StreamGone as error:
            told = str(error)
    return text_of(first), told


# %%
readers = {
    "asks again from the start": asks_again,
    "comes back with the last id": comes_back,
    f"stays away; closed after {GRACE_S} s": stays_away,
}


async def broken_lines():
    very_long = make(60, 3 * LONG)
    expected = (await complete(small, very_long)).text
    rows = []
    for reader, run in readers.items():
        (text, told), engine_tokens = await counted(run(very_long))
        whole = "the whole, once" if text == expected else f"{len(text):,} of {len(expected):,} characters"
        rows.append({"the reader": reader, "tokens by the engine's count": engine_tokens, "text": whole, "is told": told})
    return rows


broke = pd.DataFrame((await book.measure("a line that breaks", broken_lines)).value).set_index("the reader")
print("Who stayed away and comes too late is told:", broke.pop("is told").iloc[-1])
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
    tokens_per_s=w.IntSlider(int(PORTAL.assistant.tokens_per_s), 2, 300, 1, description="tokens a second"),
    answer_words=w.IntSlider(round(LONG / TOKENS_PER_WORD), 10, 800, 10, description="words of the answer"),
    words_per_minute=w.IntSlider(238, 80, 600, 2, description="words read a minute"),
    leave_after=w.IntSlider(LEAVE_AFTER, 1, 200, 1, description="leaves after (words)"),
)

# %% [markdown] tags=["reasoned"]
# Find the decode speed at which the reader begins to stall. Above it a faster engine is worth nothing to this reader once the
# first words are there, and worth *less* to you when readers leave early: it has written more by then.

# %% [markdown]
# ## Do

# %% [markdown]
# {{exercise 06.1}}
# Every team wants a stop button, and each button has to be kept in repair. Decide which features get one: return the names of those features
# whose button takes at least `least` dollars off the month's invoice (`least` is above 0), the most dollars first. A feature
# writes `tokens_per_s` from its first token on, until it hears that the reader has left: `notices_s` after the click.


# %% exercise="06.1"
@dataclass(frozen=True)
class Feature:
    """A feature whose readers sometimes leave. Times are in seconds after the first token."""

    name: str
    answer: int  # tokens of a whole answer
    tokens_per_s: float  # at which it is written
    left: int  # answers a month that their readers leave
    leaves_s: float  # when these readers leave
    paid: str  # by "tokens" written until the close, by "whole answers", or by "GPUs" rented for the month
    usd: float  # dollars per million output tokens


def worth_a_button(features: Sequence[Feature], notices_s: float, least: float) -> list[str]:
    """Names of the features whose stop button takes at least `least` dollars off the invoice, the most first."""
    ...  # your code here


# %%
book.check("06.1", worth_a_button)

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
# Here is the lab's own renderer on the list that was recorded above: what a screen could show, and when.

# %%
shown_at = {}


def as_they_came():
    for shown_at["ms"], text in came:
        yield text


items = [(f"{shown_at['ms']:.0f}", item) for item in book.reference("06.2")(as_they_came())]
pd.DataFrame(items, columns=["shown after (ms)", "item"]).set_index("shown after (ms)")

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

# %% [markdown] tags=["further"]
# {{exercise 06.4}}
# Whoever streams answers owns a piece of code like this one. Most were written in an hour, on a fast line, where each piece of
# bytes happened to hold one whole event. Then a proxy joins two events, a mobile line cuts a character in half, or the engine
# fails after the first words. Customers see `Ã©`, miss a word, or take half an answer for all of it; and since every one of
# these requests has status 200, no dashboard shows it. Write the reader that the rest of a product can rely on.
#
# 1. `lines` gives the lines that a piece of bytes completes. A line ends in LF, CR LF or CR. A CR ends its line at once, even as
#    the last byte of a piece; an LF that comes next belongs to it. A BOM at the beginning of the stream is taken off. A byte
#    that is no UTF-8 becomes `\ufffd`.
# 2. `events` gives (event, data) of the events that a piece completes. Each line `data: …` adds a line to the event's data; take
#    off *one* space behind the colon. `event: …` names the event, for this one time; without it the name is `message`. An empty
#    line sends the event if it has data, and forgets the data and the name. A line without a colon is a field with an empty
#    value. Other fields, and comments (`: keep-alive`), are passed over. What the stream's end cuts was never an event.
# 3. `feed` returns the text that a piece brings, and keeps `text`, `finish_reason`, `usage` and `done` up to date. The data is
#    JSON, `{"choices": [{"delta": {"content": "Hel"}, "finish_reason": null}], "usage": null}`, of which everything may be
#    missing or null. The usage comes late, in an event without choices. Data that is `[DONE]` and nothing else ends the answer:
#    what follows is not read.
# 4. An event named `error`, data with an `error` in it, and data that is no JSON raise `EngineError` with that data in the
#    message. `close` returns the whole text. Where neither `[DONE]` nor a finish reason has come, it raises `StreamIncomplete`
#    that says how many characters there are. Whatever is raised, what had arrived stays in `text`.


# %% exercise="06.4"
class AnswerReader:
    """Reads one answer from the bytes of its stream, which may be cut anywhere."""

    def __init__(self) -> None:
        self.text = ""  # what has arrived
        self.finish_reason: str | None = None
        self.usage: dict[str, int] = {}
        self.done = False  # whether [DONE] has come

    def lines(self, piece: bytes) -> list[str]:
        """Stage 1: the lines that `piece` completes, without their ends."""
        ...  # your code here

    def events(self, piece: bytes) -> list[tuple[str, str]]:
        """Stage 2: (event, data) of each event that `piece` completes."""
        ...  # your code here

    def feed(self, piece: bytes) -> str:
        """Stages 3 and 4: the text that `piece` brings."""
        ...  # your code here

    def close(self) -> str:
        """Stage 4: the whole text; raises `StreamIncomplete` where it is not whole."""
        ...  # your code here


# %%
book.check("06.4", AnswerReader)

# %% [markdown] tags=["further"]
# #### Your reader on this chapter's stream
#
# The list from above again, as the engine sent it: its pieces of text, put on the wire as an engine puts them, and brought by
# eight kinds of network. Your reader (as soon as it passes), the lab's, and the one that everybody writes first.


# %%
class FirstTry:
    """Splits each piece into lines, and believes that each is whole."""

    def __init__(self):
        self.text = ""

    def feed(self, piece):
        for line in piece.decode(errors="replace").split("\n"):
            with suppress(ValueError, LookupError, TypeError):
                self.text += json.loads(line.removeprefix("data: "))["choices"][0]["delta"]["content"]

    def close(self):
        return self.text


sent_texts = [text for _, text in came if text]
sent_text = "".join(sent_texts)
wire = on_the_wire(sent_texts, {"completion_tokens": len(sent_texts)})
each_event = [event + b"\n\n" for event in wire.split(b"\n\n")[:-1]]
half = each_event[: len(each_event) // 2]
networks = {
    "an event a piece": each_event,
    "1,400 bytes a piece": cut_evenly(wire, 1400),
    "100 bytes a piece": cut_evenly(wire, 100),
    "a byte a piece": cut_evenly(wire, 1),
    "CR LF, an event a piece": [event.replace(b"\n", b"\r\n") for event in each_event],
    "CR, 100 bytes a piece": cut_evenly(wire.replace(b"\n", b"\r"), 100),
    "breaks half-way": half,
    "the engine fails half-way": [*half, frame('{"error": {"message": "out of memory"}}')],
}


def read_through(reader, pieces):
    """The share of the text that was read in percent, and what the reader says of the end."""
    said = "that this is all"
    try:
        for piece in pieces:
            reader.feed(piece)
        reader.close()
    except StreamIncomplete:
        said = "that it was cut"
    except EngineError:
        said = "that the engine failed"
    return 100 * len(reader.text) / len(sent_text), said


# %%
mine, whose = book.yours("06.4", AnswerReader)
first_try = "everybody's first"
contestants = {whose: mine, "the lab's": book.reference("06.4"), first_try: FirstTry}
heard = pd.DataFrame(
    [
        {"reader": name, "network": network, "percent": percent, "says": said}
        for name, make_reader in contestants.items()
        for network, pieces in networks.items()
        for percent, said in [read_through(make_reader(), pieces)]
    ]
)
whole_at = heard[heard.percent > 99.9].groupby("reader").size().reindex(list(contestants), fill_value=0)
show(
    alt.Chart(heard)
    .mark_point(filled=True, size=70, opacity=1)
    .encode(
        x=alt.X("percent:Q", title="of the engine's text, in the reader's hands (%)", scale=alt.Scale(domain=[0, 100])),
        y=alt.Y("network:N", title=None, sort=list(networks)),
        yOffset=alt.YOffset("reader:N", sort=list(contestants)),
        color=alt.Color(
            "reader:N",
            legend=alt.Legend(title=None, labelLimit=300),
            sort=list(contestants),
            scale=alt.Scale(domain=list(contestants), range=[PALETTE[c] for c in ("green", "blue", "red")]),
        ),
        shape=alt.Shape(
            "reader:N",
            legend=alt.Legend(title=None, labelLimit=300),
            sort=list(contestants),
            scale=alt.Scale(domain=list(contestants)),
        ),
        tooltip=["reader:N", "network:N", alt.Tooltip("percent:Q", format=".0f"), "says:N"],
    )
    .properties(
        height=alt.Step(12),
        title={
            "text": f"From how many of {len(networks)} networks a reader has the whole text",
            "subtitle": "; ".join(f"{name}: {n}" for name, n in whole_at.items()),
        },
    ),
    alt="Share of the engine's text that each reader has, by network. "
    + " ".join(
        f"{name}: " + ", ".join(f"{r.network} {r.percent:.0f} %" for r in rows.itertuples()) + "."
        for name, rows in heard.groupby("reader", sort=False)
    ),
    source=f"{len(sent_texts)} pieces of text as the engine sent them, put on the wire anew. {listed.source}",
)

# %%
heard.pivot(index="network", columns="reader", values="says").loc[list(networks)[-3:], list(contestants)].rename_axis(
    columns="what it says of the end"
)

# %% [markdown]
# ## So what
#
# Streaming costs nothing: the same tokens, sooner. The bill can only fall by tokens that are *not* written any more, and the
# portal writes in two places that pay in different ways. The **desk** asks a provider and pays by the token. The **assistant**
# runs on GPUs that the portal rents: an answer that ends early gives GPU time back, and money comes back once a whole GPU can
# go.
#
# ### The desk: by the token
#
# How many answers ramble or are left early, your own log knows; here is what each percent of them is worth.

# %% tags=["constants"]
PERCENT = 0.01  # of the answers, as the unit of what follows
LEFT = 0.01  # of the answers are left by their readers at word LEAVE_AFTER

# %%
desk, chat = PORTAL.desk, PORTAL.assistant
now = today(PORTAL)
calls = now.asked("desk")
per_token = float(price.rates.visible_output) / 1e6


def beyond(policy):
    """Tokens of an answer that does not end, beyond those that it should have had."""
    return max(0.0, float(outcome.tokens[policy] - outcome.tokens["as it should be"]) / asked)


def wrong_usd(policy):
    """What the wrong answers among PERCENT of the questions cost a month; with the upper end of the 95 % interval."""
    per_share = float(PORTAL.wrong_answer_usd) * PERCENT * PORTAL.questions
    wrong_ = asked - int(outcome.right[policy])
    most = binomtest(wrong_, asked).proportion_ci(method="wilson").high
    return f"{per_share * wrong_ / asked:,.0f} (up to {per_share * most:,.0f})"


left_over = max(0.0, desk.answer - policy_median)
desk_lines = {  # calls a month, tokens of each that are at stake, and what their wrong answers cost
    "thinking before every answer, as today": (calls, desk.thinking, "-"),
    "a polite opening on every answer, if somebody adds it": (calls, manners_tokens, "-"),
    "1 % ramble: no policy": (PERCENT * calls, beyond("no policy"), wrong_usd("no policy")),
    "1 % ramble: loop detector": (PERCENT * calls, beyond(LOOPS), wrong_usd(LOOPS)),
    "1 % ramble: a policy that knows the end": (PERCENT * calls, beyond(SAID), wrong_usd(SAID)),
    f"1 % leave at word {LEAVE_AFTER}: left to stop": (LEFT * calls, left_over, "-"),
}
desk_usd = {what: calls_ * tokens * per_token for what, (calls_, tokens, _) in desk_lines.items()}

# %%
Markdown(
    "| at the desk | calls a month | tokens a call | USD a month | their wrong answers, USD a month |\n|:--|--:|--:|--:|--:|\n"
    + "\n".join(
        f"| {what} | {calls_:,.0f} | {tokens:,.1f} | {desk_usd[what]:,.0f} | {wrong_} |"
        for what, (calls_, tokens, wrong_) in desk_lines.items()
    )
)

# %% tags=["reasoned"]
thinking_usd, manners_usd, rambling_usd, *_, leaving_usd = desk_usd.values()
rambling_wrong = float(PORTAL.wrong_answer_usd) * PERCENT * PORTAL.questions * (1 - rambling / asked)
written_at = desk.answer * WORDS_PER_S / LEAVE_AFTER
Markdown(
    f"**Leaving.** At the desk there is next to nothing to stop. An answer has {desk.answer} visible tokens, and {LEAVE_AFTER} words "
    f"take {LEAVE_AFTER / WORDS_PER_S:.1f} s to read. A provider that writes {written_at:.1f} tokens a second or more has written all of "
    f"it by then. A policy that stops at word {LEAVE_AFTER} would spare {left_over:.0f} tokens: {leaving_usd:,.2f} USD a month of the "
    f"desk's {now.of('desk'):,.0f}.\n\n"
    f"**Thinking** costs {thinking_usd:,.0f} USD a month. Whether the answers are as good without it is chapter 10's question. "
    f"**Manners** would add {manners_usd:,.0f} USD a month, and the wait that was measured above.\n\n"
    f"**Rambling.** Each percent of the questions costs {rambling_usd:,.0f} USD in tokens, and "
    + (
        f"{rambling_wrong:,.0f} USD in wrong answers at {PORTAL.wrong_answer_usd} USD each. So it is for the answers that you buy a "
        f"policy, and it must be one that knows where an answer ends. All that {asked} answers can tell is that this policy leaves "
        f"{wrong_usd(SAID)} USD of wrong answers. "
        if rambling_wrong > rambling_usd and said > looping
        else f"{rambling_wrong:,.0f} USD in wrong answers at {PORTAL.wrong_answer_usd} USD each. "
    )
    + "(An answer with rubbish behind it counts as wrong here. A person may still find the right sentence in it; a program will not.)"
    f"\n\nPrices: {price.model}, {1e6 * per_token:.2f} USD per million output tokens ({price.source}, {price.as_of})."
)

# %% [markdown] tags=["reasoned"]
# **Does the provider's bill stop with the stream?** Each provider decides that, so what a stop saves at the desk is an upper
# bound. OpenRouter, which resells many providers, lists them (documentation, *API Reference: Streaming, Stream Cancellation*, read
# in 2026). At OpenAI, Azure and Anthropic, among others, closing the connection stops the model and the billing. At AWS Bedrock,
# Groq, Google, Mistral and others it does not, and “you will be billed for the complete response”; so you will for every request
# that is not streamed. For Bedrock, a user of LiteLLM found the same in AWS's cost report (LiteLLM, issue 34147, July 2026).
# And your own servers and proxies stand between the reader's click and the provider: tokens are written, and paid, until the
# last of them has closed its connection.
#
# ### The assistant: by the GPU
#
# The assistant does not run on this machine, so its button is priced at the speed that the portal promises its readers. What
# this run adds is how the engine behaves: whether it goes on while a line is open, and whether it stops when the line is closed.

# %%
needs_now = fleet(PORTAL)
writing = max(needs_now.memory, needs_now.speed)  # GPUs for those whose answer is being written; the rest computes histories
rented = now.machines[0].rented
gpu_month = float(now.of("assistant")) / rented
spared_by = {
    "stop button, at the promised speed": max(0.0, 1 - chat.tokens_per_s * LEAVE_AFTER / WORDS_PER_S / chat.answer),
    f"a policy that closes after {LEAVE_AFTER} words": max(0.0, 1 - TOKENS_PER_WORD * LEAVE_AFTER / chat.answer),
}


def gpus_if(left_share, spared_share):
    """GPUs that the assistant needs in its busiest hour when `left_share` of its answers end early."""
    return writing * (1 - left_share * spared_share) + needs_now.recompute


def first_gpu_back(spared_share):
    """The share of answers that must end early until one GPU can be returned; None if all of them would not do."""
    share = (needs_now.gpus - (rented - 1)) / (writing * spared_share) if spared_share else 2.0
    return share if share <= 1 else None


back_at = {name: first_gpu_back(spared_share) for name, spared_share in spared_by.items()}

# %% tags=["reasoned"]
shares = [i / 100 for i in range(101)]
returned = pd.DataFrame(
    [
        {"what": name, "left": 100 * share, "usd": (rented - math.ceil(gpus_if(share, spared_share))) * gpu_month}
        for name, spared_share in spared_by.items()
        for share in shares
    ]
)
button_back, policy_back = back_at.values()
show(
    alt.Chart(returned)
    .mark_line(interpolate="step-after")
    .encode(
        x=alt.X("left:Q", title="answers that their readers leave (%)"),
        y=alt.Y("usd:Q", title="given back (USD a month)", axis=alt.Axis(format=",.0f")),
        color=alt.Color("what:N", title=None, sort=list(spared_by)),
    )
    .properties(
        title={
            "text": f"A stop button gives the first GPU back when {100 * button_back:.0f} % of the answers are left"
            if button_back
            else "A stop button gives no GPU back, however many leave",
            "subtitle": f"{rented} GPUs are rented, {needs_now.gpus:.2f} are needed",
        }
    ),
    alt="Steps of money given back against the share of answers left. "
    + " ".join(
        f"{name}: nothing before {100 * share:.0f} %." if share else f"{name}: nothing at any share."
        for name, share in back_at.items()
    ),
    source=f"Modelled: the portal's fleet in its busiest hour; {chat.tokens_per_s:.0f} tokens a second promised, "
    f"{60 * WORDS_PER_S:.0f} words a minute read. {host(chat.host).source}.",
)

# %% tags=["reasoned"]
button_spares = spared_by["stop button, at the promised speed"]
times = gpus_if(LEFT, button_spares) / needs_now.gpus
Markdown(
    f"A reader takes {LEAVE_AFTER / WORDS_PER_S:.1f} s for {LEAVE_AFTER} words; at {chat.tokens_per_s:.0f} tokens a second "
    f"{100 * (1 - button_spares):.0f} % of the answer's {chat.answer} tokens are written by then. So here the button stops "
    f"{100 * button_spares:.0f} % of an answer that is left (on this machine, which writes at its own speed, it stopped "
    f"{100 * (1 - stop_median / all_median):.0f} %). When {100 * LEFT:.0f} % leave, that takes {100 * (1 - times):.1f} % off the "
    f"{needs_now.gpus:.2f} GPUs, of which {rented} are paid: "
    + (
        "the invoice stays as it is. "
        if math.ceil(gpus_if(LEFT, button_spares)) == rented
        else f"{rented - math.ceil(gpus_if(LEFT, button_spares))} can be returned. "
    )
    + (f"From {100 * button_back:.0f} % on, one GPU goes back, {gpu_month:,.0f} USD a month. " if button_back else "")
    + "Until then the button gives room to grow, and no money.\n\n"
    f"**Who pays for the rest of an answer that nobody reads?** At the desk the portal does, by the token, and it is {leaving_usd:,.0f} "
    f"USD a month for each percent of readers who leave. At the assistant it has paid already, by the hour.\n\n"
    "**The pressure relieved**: the wait before reading starts. **Where it moved**: into open connections, into buffers that hold "
    "whole answers for readers who may return, and into books that can only see what somebody has read. **In production**, watch the "
    "time to the first *useful* piece per kind of answer, not TTFT; tokens generated by the engine minus tokens delivered; and "
    "streams still running without a reader."
)

# %%
book.bill(
    "close the stream when its reader leaves",
    Rented("assistant", times=times),
    of="assistant",
    source=f"{100 * LEFT:.0f} % leave at word {LEAVE_AFTER}, at the promised {chat.tokens_per_s:.0f} tokens a second (modelled fleet); that "
    f"closing stops the engine: {leaving.source}",
)

# %% [markdown]
# ### On your own data
#
# Which share of the tokens you pay for went into answers that their readers left? A log must hold the status of each call
# (“cancelled” is one) and its usage; with the times of the first chunk and of the end, you also see how much of the wait
# streaming ends. What it cannot tell is how much a reader had read. And where every call is “completed”, ask first whether your
# server notices at all when a reader goes.

# %%
book.on_your_data()

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz("06.q1")

# %%
book.quiz("06.q2")

# %%
book.quiz("06.q3")

# %% [markdown]
# ## Next
#
# **07 · Batching**: so far one reader at a time. An engine that serves many at once writes for all of them in the same step:
# what does the company cost each of them, and save you?

# %%
await book.close()
book.progress()
