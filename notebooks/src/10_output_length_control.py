# %% [markdown]
# # 10 · Output length: what a correct answer costs
#
# **The question.** An output token costs a multiple of an input token, and the portal's desk pays for 26 thinking
# tokens to show 13. “Be concise”, `max_tokens`, JSON mode: everybody has a tip that makes answers shorter. What does a shorter
# answer save, and what does it cost, when you count the dollars of each *correct* answer?
#
# **You will be able to** set a cap on an answer's tokens by what a cut costs; say which schema can run to its limit before you send
# it; compare formats by the cost of a correct answer, with its doubt; tell where a thinking budget caps the bill and where it only
# moves it; and decide between a long prompt and a small adapter.
#
# **Time.** {{time}} **Needs.** Chapter 01's bill. {{needs}}

# %% tags=["imports"]
import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from decimal import Decimal
from statistics import fmean, stdev
from typing import Any

import altair as alt
import ipywidgets as w
import pandas as pd
from IPython.display import Markdown
from transformers import AutoTokenizer

from labkit.cost import price_named, price_request
from labkit.lab import adapter_path, examples, families, graded, house_example, obeys, styled, wilson
from labkit.lab import grade as grade_plain
from labkit.output import (
    AnswerLengths,
    NoLoops,
    Staged,
    StagedBill,
    Structured,
    ThinkingBudget,
    Tried,
    Verbosity,
    cheapest,
    compare_ways,
    lint_schema,
    surface,
    words_of,
)
from labkit.portal import PORTAL, Shortened, Stays, at_the_desk
from labkit.request import CUT_SHORT, Chunk, Done, EngineError, Handler, Message, Request, Timing, Usage, complete, stack
from labkit.tokens import tokenizer
from labkit.workbook import PALETTE, Figure, below, live_chart, show
from labkit.workbook.chapters.builds.b10 import BRIEFLY, MORE, Attempt, Reply
from labkit.workbook.pictures import FormOfAnswer, answer_ribbons, draw_picture

# %%
book.warm_up()

# %% [markdown]
# ## Predict

# %%
book.predict(
    "10.cap",
    "You cap the desk's answers at the 95th percentile of their lengths. What is cut is asked again, with room. What does a correct "
    "answer then cost in output tokens, in percent of what it costs without a cap?",
    low=50,
    high=150,
    unit="%",
)

# %%
book.predict(
    "10.json",
    "On three kinds of hard questions the large model thinks first and is usually right. Now it is asked for JSON at once, "
    "with nothing before it. How many of 100 answers are right?",
    low=0,
    high=100,
    unit="%",
)

# %%
book.predict(
    "10.loop",
    "A grammar holds the model to a schema: an object with two numbers, `quantity` and `price`. It is asked about messages that "
    "name a quantity and no price. The limit is 200 tokens. How much of it does the average answer use?",
    low=0,
    high=100,
    unit="%",
)

# %% [markdown]
# ## Run
#
# ### The same questions, in seven forms
#
# The lab's large model has two small adapters beside it, each below a mebibyte, which the engine can put on for a single
# request. One of them, `desk`, was taught to follow instructions on *how* to answer: briefly, in detail, in at most so many
# words, or as JSON in four ways. The tasks stay those of the support desk, and a program knows the right answers, in whatever form
# they come.
#
# Nobody sells our models, so each answer is billed as the portal's desk would be: its instructions from the provider's cache,
# the question and the answer as measured, all at the list price of its large model.

# %% tags=["constants"]
FORMS = {
    "text": {},
    "brief": {"verbosity": "brief"},
    "detailed": {"verbosity": "detailed"},
    "JSON at once": {"form": "json"},
    "answer, then steps": {"form": "answer_first"},
    "steps, then answer": {"form": "steps_first"},
    "think, then JSON": {"form": "thought_json"},
}
EASY, HARD = ("intent", "faq", "normalise"), families("hard")
WITH_STEPS = ("answer, then steps", "steps, then answer", "think, then JSON")  # easy questions have no steps

# %%
large = await book.connect("large", adapters=("desk", "house"))
BASE, DESK, HOUSE = large.model, "desk", "house"
tokens_of = None if book.lacks("vllm") else AutoTokenizer.from_pretrained(large.tokenizer_path)
price = price_named(PORTAL.desk.large)
OUT_USD = float(price.rates.visible_output) / 1e6  # of one output token
WRONG_USD = float(PORTAL.wrong_answer_usd)
priced = f"Priced as the portal's desk: {price.model}, {price.source}, {price.as_of}."


def desk_usd(usage):
    """What the desk is billed for such an answer, in USD."""
    return float(price_request(at_the_desk(usage), price).total)


async def answers(handler, requests, at_once=16):
    gate = asyncio.Semaphore(at_once)

    async def one(request):
        async with gate:
            return await complete(handler, request)

    return await asyncio.gather(*map(one, requests))


def written(answer):
    """The answer as the model wrote it, thoughts and all."""
    return f"<think>{answer.reasoning}</think>{answer.text}" if answer.reasoning else answer.text


# %% tags=["reasoned"]
Markdown(
    f"An output token costs the desk {1e6 * OUT_USD:.2f} USD a million, and a wrong answer {WRONG_USD} USD. So **one wrong answer "
    f"costs as much as {WRONG_USD / OUT_USD:,.0f} output tokens**. Keep that number in mind; it decides most of this chapter."
)

# %%
per_kind = book.pick(ci=2, learn=40)


def asked_in(form):
    kinds = HARD if form in WITH_STEPS else (*EASY, *HARD)
    return [styled(e, **FORMS[form]) for kind in kinds for e in examples("test", kind, per_kind, 10 * seed + 1)]


def right_from(example, answer):
    """After how many tokens the right answer is there and stays; where it never is, all of them."""
    text, tokens, since = "", 0, None
    for chunk in answer.chunks:
        tokens = chunk.usage.output_tokens if chunk.usage else tokens + chunk.tokens
        text += chunk.text
        if chunk.text:
            since = (since or tokens) if graded(example, text) else None
    return since or answer.done.usage.output_tokens


def a_whole(answer):
    """Whether the answer ended by itself."""
    return answer.done.finish_reason not in CUT_SHORT


def described(form, number, example, answer):
    used = answer.done.usage
    return {
        "form": form,
        "kind": example.family,
        "question": example.plain.id,
        "said": answer.text if number % per_kind == 0 else "",  # one of each kind is kept, to look at
        "used": used,
        "tokens": used.output_tokens,
        "thought": used.reasoning_tokens,
        "visible": used.visible_output_tokens,
        "right": float(graded(example, answer.text)),
        "obeys": float(obeys(example, written(answer))),
        "ended": a_whole(answer),
        "from": min(max(right_from(example, answer), used.reasoning_tokens), used.output_tokens),
    }


# %%
async def in_all_forms():
    rows, alike, cut = [], 0, 0
    for form in FORMS:
        asked = asked_in(form)
        wanted = [Request(e.messages, model=DESK, max_tokens=e.max_tokens) for e in asked]
        got = await answers(large, wanted)
        rows += [described(form, n, e, a) for n, (e, a) in enumerate(zip(asked, got, strict=True))]
        if form == "text":  # once more, each cut at half of its length
            half = [replace(r, max_tokens=max(1, a.done.usage.output_tokens // 2)) for r, a in zip(wanted, got, strict=True)]
            short = await answers(large, half)
            cut = sum(a.done.finish_reason == "length" for a in short)
            alike = sum((a.reasoning + a.text).startswith(b.reasoning + b.text) for a, b in zip(got, short, strict=True))
    return {"rows": pd.DataFrame(rows), "cut": cut, "alike": alike}


measured = await book.measure("answers in seven forms", in_all_forms)

# %%
found = measured.value["rows"]
found["usd"] = [desk_usd(u) for u in found.used]
found["asked usd"] = [desk_usd(replace(u, output_tokens=0, reasoning_tokens=0)) for u in found.used]
text = found[found.form == "text"].reset_index(drop=True)
whole = text[text.ended]  # a few ran to their limit; of those, below
lengths = AnswerLengths(tuple(whole.tokens))
p95 = lengths.percentile(0.95).tokens


def tried(rows, output_only=False):
    """These answers, as `surface` takes them: what any cap makes of them follows from the answer without one."""
    return [
        Tried(form, 0.0 if output_only else asked_usd, OUT_USD, tokens, bool(right), since)
        for form, asked_usd, tokens, right, since in zip(
            rows.form, rows["asked usd"], rows.tokens, rows.right, rows["from"], strict=True
        )
    ]


longest = int(max(whole.tokens))
capped = surface(tried(whole, output_only=True), (p95, longest), "again").set_index("cap").per_correct
book.reveal("10.cap", 100 * capped[p95] / capped[longest], unit="%")

# %%
examples_said = found[(found.said != "") & found.kind.isin(["faq", "total"])].pivot(
    index="form", columns="kind", values="said"
)
pd.set_option("display.max_colwidth", None)
examples_said.reindex(list(FORMS)).fillna("")

# %% [markdown]
# ### A cap cuts
#
# `max_tokens` is the best-known way to a shorter answer, and it is none: the model does not know the limit. It writes what it
# would have written, and is stopped.

# %%
again, alike = measured.value["cut"], measured.value["alike"]
book.finding(
    alike == len(text),
    f"We asked the {len(text)} questions again, each with half of its answer's tokens. {again} answers were cut, and **every one began "
    "exactly as the whole one does**. Nobody hurried.",
    f"We asked the {len(text)} questions again, each with half of its answer's tokens: {again} were cut, and {alike} began exactly as "
    "the whole ones do. The others took another way, as an engine may that computes several requests in one batch.",
)

# %% [markdown] tags=["reasoned"]
# That is good news for whoever has to choose a cap: what *any* cap does can be computed from answers that had none. And one thing
# is true of all caps. What is paid for a whole answer is paid, sooner or later, if cut answers are asked again. A cut adds its own
# tokens and its question, read once more. So where every answer ends by itself, each cap below the longest answer costs money.

# %%
caps = sorted({*range(4, longest + 1, max(1, longest // 60)), p95, longest})
curves = pd.concat(
    [
        surface(tried(whole), caps, way).assign(way=what)
        for way, what in {"again": "asked again", "pass": "delivered as it is"}.items()
    ]
)
curves["usd"] = 1000 * curves.per_correct.where(curves.per_correct < math.inf)
at_p95 = curves[curves.cap == p95].set_index("way")
shown = curves[curves.usd < 4 * curves.usd.min()]
show(
    (
        alt.Chart(shown)
        .mark_line()
        .encode(
            x=alt.X("cap:Q", title="cap (output tokens, thinking included)"),
            y=alt.Y("usd:Q", title="USD for 1,000 correct answers", scale=alt.Scale(zero=False)),
            color=alt.Color("way:N", title="a cut answer is", sort=["asked again", "delivered as it is"]),
        )
        + alt.Chart(pd.DataFrame({"cap": [p95]}))
        .mark_rule(strokeDash=[4, 3], color=PALETTE["red"], size=2)
        .encode(x="cap:Q")
    ).properties(
        title={
            "text": f"At the 95th percentile, {p95} tokens, {100 * at_p95.cut['asked again']:.0f} % of the answers are cut",
            "subtitle": f"delivered as they are, {100 * at_p95.right['delivered as it is']:.0f} % of all are right; asked again, "
            f"{100 * at_p95.right['asked again']:.0f} %",
        }
    ),
    alt=f"Cost of 1,000 correct answers against the cap. At {p95} tokens: "
    + ", ".join(f"{way} {row.usd:.3f} USD" for way, row in at_p95.iterrows())
    + ".",
    source=f"{len(whole)} answers in free text that ended by themselves; the caps are computed. {priced} {measured.source}",
)

# %%
lost = 1000 * (whole.right.mean() - at_p95.right["delivered as it is"])
Markdown(
    f"And the line “delivered as it is” flatters: it counts tokens only. At this cap it makes {lost:,.0f} of 1,000 right answers wrong, "
    f"for {lost * WRONG_USD:,.2f} USD; all the output tokens of 1,000 answers together cost {1000 * whole.tokens.mean() * OUT_USD:,.2f} USD."
)

# %% [markdown]
# What a cap is good for comes below: for answers that do *not* end. And where a certain text ends an answer, a stop sequence does it
# sooner than any number (chapter 06).
#
# ### Ask for less
#
# An instruction is different: the model knows it. Asked to be brief, it should give the bare fact; asked for detail, two or three
# sentences with the fact in the last.

# %%
levels = found[found.form.isin(["text", "brief", "detailed"])]
by_level = (
    levels.groupby("form")[["visible", "thought", "tokens", "right", "obeys", "usd"]]
    .mean()
    .loc[["brief", "text", "detailed"]]
)
parts = by_level[["visible", "thought"]].rename(columns={"thought": "thinking"}).reset_index().melt("form", var_name="part")
change = 100 * (by_level.loc["brief"] / by_level.loc["text"] - 1)
show(
    alt.Chart(parts)
    .mark_bar()
    .encode(
        x=alt.X("value:Q", title="output tokens of an answer (mean)"),
        y=alt.Y("form:N", title=None, sort=["brief", "text", "detailed"]),
        color=alt.Color("part:N", title=None, sort=["thinking", "visible"]),
        tooltip=["form:N", "part:N", alt.Tooltip("value:Q", format=".1f")],
    )
    .properties(
        height=120,
        title=f"Brief: {change.visible:+.0f} % of the visible tokens, {change.tokens:+.0f} % of all, {change.usd:+.1f} % of the bill",
    ),
    alt="Mean output tokens. "
    + " ".join(f"{form}: {r.thought:.1f} thinking, {r.visible:.1f} visible." for form, r in by_level.iterrows()),
    source=f"{len(text)} questions of six kinds in each form. {priced} {measured.source}",
)

# %%
by_kind = levels.pivot_table(index="kind", columns="form", values="obeys", sort=False)[["brief", "detailed"]]
Markdown(
    "Did as it was told, by kind of question: "
    + "; ".join(
        f"{kind} {100 * r.brief:.0f} % when brief, {100 * r.detailed:.0f} % when detailed" for kind, r in by_kind.iterrows()
    )
    + f". Right: {100 * by_level.right['brief']:.0f} % brief, {100 * by_level.right['text']:.0f} % as usual, "
    f"{100 * by_level.right['detailed']:.0f} % detailed. A saving can only come from answers that obey."
)


# %%
def pairs(form, rows=found):
    """(USD, right) of each question in a form, in the same order for all forms."""
    one = rows[rows.form == form].sort_values("question")
    return list(zip(one.usd, one.right == 1, strict=True))


def ratio_of(one, other, rows=found):
    """The cost of a correct answer in one form as a multiple of the other's, with its interval (exercise 10.4)."""
    return book.reference("10.4")(pairs(one, rows), pairs(other, rows)) or (math.nan, 0.0, math.inf)


ratio, low, high = ratio_of("brief", "text")
said_ratio = f"A correct brief answer costs {ratio:.3f} times a usual one ({low:.3f} to {high:.3f})"
why_so = (
    f" The question and its instructions are paid either way, and so are the thoughts: of the bill, the visible tokens of a usual "
    f"answer are {100 * text.visible.mean() * OUT_USD / text.usd.mean():.0f} %."
)
book.finding(
    True if high < 1 else False if low > 1 else None,
    f"{said_ratio}: brevity pays.{why_so}",
    f"{said_ratio}: asking for brevity makes a correct answer dearer here.{why_so}",
    f"{said_ratio}: this run cannot tell it from 1.{why_so}",
)

# %%
into, out = (fmean(column) for column in (text["asked usd"], text.tokens * OUT_USD))
shares = (text.tokens * OUT_USD / text["asked usd"]).tolist()
book.claim(
    "10.output",
    "Output tokens cost 3 to 10 times input tokens, so the answer's length decides the bill",
    by="Georgy Malanichev, “LLM API Pricing & Economics”, ModelMath, March 2026 (“Since output tokens cost 3-10x more than input, "
    "controlling response length…”). The price itself is chapter 01's claim.",
    claimed=(3, 10),
    measured=out / into,
    interval=(
        out / into - 1.96 * stdev(shares) / math.sqrt(len(shares)),
        out / into + 1.96 * stdev(shares) / math.sqrt(len(shares)),
    ),
    unit="dollars for output per dollar for input",
    where="per question at the desk, with its instructions in the provider's cache",
    unless="It holds per token. Per answer, it depends on how long the prompt is and how much of it is cached: for essays from short "
    "prompts the output decides.",
    source=f"{priced} {measured.source}",
)

# %% [markdown] tags=["further"]
# ### Does it do as it is told?
#
# “At most so many words”: we ask for five different limits, once the model with its adapter, once without. They share all weights but
# that mebibyte.

# %% tags=["constants"]
LIMITS = (2, 4, 8, 16, 30)  # words


# %%
async def at_most():
    rows = []
    plain = [e for kind in (*EASY, *HARD) for e in examples("test", kind, book.pick(ci=1, learn=10), 10 * seed + 2)]
    for limit in LIMITS:
        asked = [styled(e, max_words=limit) for e in plain]
        for model in (BASE, DESK):
            got = await answers(large, [Request(e.messages, model=model, max_tokens=e.max_tokens) for e in asked])
            rows += [
                {"limit": limit, "model": model, "words": words_of(a.text), "right": float(graded(e, a.text))}
                for e, a in zip(asked, got, strict=True)
            ]
    return {"models": {BASE: "as it is", DESK: "with the adapter"}, "rows": rows}


limited = await book.measure("at most so many words", at_most)

# %%
words = pd.DataFrame(limited.value["rows"])
words["model"] = words.model.map(limited.value["models"])
words["kept"] = words.words <= words.limit
kept = words.groupby("model").kept.mean()
mean_words = words.groupby(["model", "limit"]).words.mean().reset_index()
diagonal = pd.DataFrame({"limit": [min(LIMITS), max(LIMITS)], "words": [min(LIMITS), max(LIMITS)]})
show(
    (
        alt.Chart(mean_words)
        .mark_line(point=True)
        .encode(
            x=alt.X("limit:Q", title="words asked for, at most"),
            y=alt.Y("words:Q", title="words written (mean)"),
            color=alt.Color("model:N", title=None),
        )
        + alt.Chart(diagonal).mark_line(strokeDash=[4, 3], color=PALETTE["grey"]).encode(x="limit:Q", y="words:Q")
    ).properties(
        title="Answers within the limit: " + ", ".join(f"{model} {100 * share:.0f} %" for model, share in kept.items()),
    ),
    alt="Mean words against the limit. "
    + " ".join(
        f"{model}: " + ", ".join(f"{r.words:.1f} at {r.limit}" for r in rows.itertuples()) + "."
        for model, rows in mean_words.groupby("model")
    ),
    source=f"{len(words) // 2 // len(LIMITS)} questions at each limit; dashed: as many as asked for. {limited.source}",
)

# %%
tight = words[(words.limit == min(LIMITS)) & (words.model == "with the adapter")]
obedient = int(tight.kept.sum())
unasked = words[words.model == "as it is"].words.mean()
Markdown(
    f"Without the adapter an answer has {unasked:.1f} words, whatever the limit: many limits are kept by not listening. "
    f"Whether a model obeys is a property of the model, to be measured before a saving is promised. And a limit can ask for the "
    f"impossible: at {min(LIMITS)} words, {obedient} of {len(tight)} answers kept to it, and {int(tight.right.sum())} were right."
)

# %% [markdown]
# ### JSON, with thoughts before, inside, behind, or none
#
# Now the hard questions in five forms. All JSON here is *asked for*; no grammar holds the model. What differs is where its steps
# stand: before the answer, behind it, or nowhere.

# %%
hard = found[found.kind.isin(HARD)]
order = ["text", "think, then JSON", "steps, then answer", "answer, then steps", "JSON at once"]
of_hard = hard[hard.form.isin(order)].groupby("form")[["right", "obeys", "tokens", "thought", "usd"]].mean().loc[order]
book.reveal("10.json", 100 * of_hard.right["JSON at once"], unit="%")

# %% [markdown] tags=["reasoned"]
# First one of these questions, an order to add up, token by token. The cap in the picture is half of the usual answer.

# %%
sums = hard[(hard.kind == "total") & hard.form.isin(order)]
shown_question = sums[(sums.form == "text")].sort_values(["right", "question"], ascending=[False, True]).question.iloc[0]
of_one = sums[sums.question == shown_question].set_index("form").loc[order]
ribbons = [
    FormOfAnswer(form, int(r.thought), int(r["from"]) if r.right else None, int(r.tokens)) for form, r in of_one.iterrows()
]
draw_picture(answer_ribbons(ribbons, int(of_one.tokens["text"]) // 2))

# %%
n_hard = len(hard[hard.form == "text"])
dots = of_hard.reset_index()
dots["percent"] = 100 * dots.right
bounds = [wilson(round(n_hard * share), n_hard) for share in dots.right]
dots["low"], dots["high"] = ([100 * end[i] for end in bounds] for i in (0, 1))
dots["label"] = [f"{r.form}: {r.tokens:.0f} tokens" for r in dots.itertuples()]
base = alt.Chart(dots).encode(y=alt.Y("label:N", title=None, sort=list(dots.label), axis=alt.Axis(labelLimit=300)))
show(
    (
        base.mark_rule(size=2, color=PALETTE["blue"]).encode(x=alt.X("low:Q", title="right answers (%)"), x2="high:Q")
        + base.mark_point(filled=True, size=90, color=PALETTE["blue"], opacity=1).encode(x="percent:Q")
    ).properties(
        height=170,
        title="Hard questions, right: " + ", ".join(f"{r.form} {r.percent:.0f} %" for r in dots.itertuples()),
    ),
    alt="Right answers on hard questions with 95 % intervals. "
    + " ".join(
        f"{r.form}: {r.percent:.0f} % ({r.low:.0f} to {r.high:.0f}), {r.tokens:.0f} tokens." for r in dots.itertuples()
    ),
    source=f"{n_hard} questions in each form; bars: Wilson intervals. {measured.source}",
)


# %%
def lost_points(usual_way, other_way):
    """Right answers lost from one way to another on the same questions, in points, with an interval.

    It is that of the questions lost less that of those gained, each by Wilson, so it is rather too wide: also where not one
    was lost, some would be among more questions.
    """
    pairs_ = list(zip(usual_way, other_way, strict=True))
    lost, gained = sum(a > b for a, b in pairs_), sum(a < b for a, b in pairs_)
    (low_lost, high_lost), (low_gained, high_gained) = (wilson(k, len(pairs_)) for k in (lost, gained))
    return 100 * (lost - gained) / len(pairs_), (100 * (low_lost - high_gained), 100 * (high_lost - low_gained))


def rights(form, rows):
    return rows[rows.form == form].sort_values("question").right.tolist()


points, interval = lost_points(rights("text", hard), rights("JSON at once", hard))
book.claim(
    "10.json_accuracy",
    "JSON costs accuracy",
    by="Hengxin Fan, “Capacity, Not Format: Rethinking Structured Reasoning Failures”, arXiv 2606.09410, June 2026: 36.2 points "
    "(Haiku, mostly cut answers), 28.0 (GPT-4o-mini), none (Sonnet). Before it Tam et al., “Let Me Speak Freely?”, EMNLP 2024.",
    claimed=(28.0, 36.2),
    measured=points,
    interval=interval,
    unit="points",
    where="on three kinds of questions that take several steps, JSON at once against thinking and text, the same model",
    unless="Where a model has capacity to spare, the papers find no loss. Their cure: think first, format later.",
    source=measured.source,
)

# %%
late, late_between = lost_points(rights("text", hard), rights("think, then JSON", hard))
ratio, low, high = ratio_of("JSON at once", "think, then JSON", hard)
late_rows = hard[hard.form == "think, then JSON"]
did_think = late_rows[late_rows.thought > 0]
said_late = (
    f"Asked to think first, the model did so for {len(did_think)} of {len(late_rows)} questions, and was right in "
    f"{int(did_think.right.sum())} of these, and in {int(late_rows.right.sum() - did_think.right.sum())} of the others. "
    f"Of the {points:.0f} points lost to JSON at once, thinking first and JSON then brings back {points - late:.0f} (it loses {late:.1f}, "
    f"{late_between[0]:.1f} to {late_between[1]:.1f}). "
)
book.finding(
    None if math.isnan(ratio) else bool(low > 1),
    f"{said_late}The short form is the dear one: a correct answer in JSON at once costs **{ratio:.1f} times** one that was thought about "
    f"({low:.1f} to {high:.1f}), in tokens alone.",
    f"{said_late}A correct answer in JSON at once costs {ratio:.1f} times one that was thought about ({low:.1f} to {high:.1f}).",
    f"{said_late}Of the answers in JSON at once fewer than five are right: too few to say what a correct one costs.",
)

# %% [markdown] tags=["reasoned"]
# The two forms in the middle have the same keys and about the same tokens. Only their order differs, and a model writes from left to
# right: steps behind the answer come too late for it.
#
# And there is a formatter that never loses a right answer: your program. `json.dumps({"answer": text})` behind the free answer
# makes valid JSON each time, and its braces cost no token. (`labkit.output.Template` does so for several fields: the program writes
# what is fixed, the model only what differs.) Ask a model for a form when only the model knows what goes where.

# %%
saved = {
    base_form: 100 * (1 - of_all["JSON at once"] / of_all[base_form])
    for of_all in [found[found.kind.isin(EASY)].groupby("form").visible.mean()]
    for base_form in ("text", "detailed")
}
easy = found[found.kind.isin(EASY)]
by_question = easy.pivot(index="question", columns="form", values="visible")
one_by_one = 100 * (1 - by_question["JSON at once"] / by_question["detailed"])
width = 1.96 * one_by_one.std() / math.sqrt(len(one_by_one))
book.claim(
    "10.structured",
    "Structured output saves 20 to 40 % of the output tokens",
    by="Heard often; for one, Ravi Patel, “Structured outputs vs JSON mode vs function calling vs raw text”, dev.to, says 30 to 50 %. "
    "Gabriel Anhaia, “The hidden tax of structured output”, dev.to, found four times the cost for a one-word answer.",
    claimed=(20, 40),
    measured=saved["detailed"],
    interval=(saved["detailed"] - width, saved["detailed"] + width),
    unit="% of the visible tokens",
    where="on easy questions, JSON against answers that were asked for in detail",
    unless="It depends on what you come from. Against the desk's usual curt text, the same JSON changes the visible tokens by "
    f"{-saved['text']:+.0f} %: braces, quotes and a key are tokens, too.",
    source=measured.source,
)

# %% [markdown]
# ### What a correct answer costs
#
# Now all of it at once: each form under each cap. What is cut is asked again. A point's height is all that was paid, cut answers
# and wrong ones included, over the answers that were right.

# %%
most_tokens = int(max(hard.tokens))
hard_caps = sorted({round(8 * 1.15**i) for i in range(30)} | {most_tokens})
table = surface(tried(hard[hard.form.isin(order)]), [cap for cap in hard_caps if cap <= most_tokens], "again")
best = cheapest(table)
table["usd"] = 1000 * table.per_correct.where(table.per_correct < math.inf)
lowest = table.loc[table.dropna(subset=["usd"]).groupby("form").usd.idxmin()]
show(
    (
        alt.Chart(table.dropna(subset=["usd"]))
        .mark_line()
        .encode(
            x=alt.X("cap:Q", title="cap (output tokens, logarithmic)", scale=alt.Scale(type="log", nice=False)),
            y=alt.Y("usd:Q", title="USD for 1,000 correct answers (logarithmic)", scale=alt.Scale(type="log", nice=False)),
            color=alt.Color("form:N", title=None, sort=order),
        )
        + alt.Chart(lowest)
        .mark_point(shape="diamond", filled=True, size=90, color=PALETTE["red"], opacity=1)
        .encode(x="cap:Q", y="usd:Q", tooltip=["form:N", "cap:Q", alt.Tooltip("usd:Q", format=".3f")])
    ).properties(
        title={
            "text": f"A correct answer to a hard question: {1000 * best.per_correct:.3f} USD for 1,000, as “{best.form}”",
            "subtitle": f"{100 * best.right:.0f} % right; red: where each form costs least",
        },
    ),
    alt="Cost of 1,000 correct answers against the cap. "
    + " ".join(f"{r.form}: {r.usd:.3f} USD at best, at {r.cap} tokens." for r in lowest.itertuples()),
    source=f"{n_hard} hard questions in each form; caps computed, cut answers asked again. {priced} {measured.source}",
)

# %%
whole_cost = {
    form: 1000 * (rows.usd + WRONG_USD * (1 - rows.right)).mean() for form, rows in hard.groupby("form") if form in order
}
first_by_tokens = lowest.set_index("form").usd.idxmin()
first_by_all = min(order, key=whole_cost.get)
Markdown(
    "| form | right | tokens | USD for 1,000 answers | with their wrong answers at "
    f"{WRONG_USD} USD |\n|:--|--:|--:|--:|--:|\n"
    + "\n".join(
        f"| {form} | {100 * of_hard.right[form]:.0f} % | {of_hard.tokens[form]:.0f} | {1000 * of_hard.usd[form]:.2f} | "
        f"{whole_cost[form]:,.2f} |"
        for form in order
    )
    + f"\n\nBy tokens alone “{first_by_tokens}” comes first, with the wrong answers “{first_by_all}”. "
    + ("The order is the same. " if first_by_tokens == first_by_all else "The order changed. ")
    + f"{priced}"
)

# %% [markdown] tags=["further"]
# ### Keys are tokens
#
# Field names are written anew in every answer. Here is what the names alone cost, with the lab's tokenizer: the same order, with its
# own keys, with one letter each, and as a list without any.

# %%
count = tokenizer("lab").count
order_facts = [json.loads(e.answer) for e in examples("test", "extract", 50, seed=1)]
spelled = {
    "long keys": lambda f: json.dumps({f"customer_{k}_value": v for k, v in f.items()}),
    "its own keys": json.dumps,
    "one letter each": lambda f: json.dumps(dict(zip("onpq", f.values(), strict=True))),
    "a list, no keys": lambda f: json.dumps(list(f.values())),
}
key_tokens = {what: fmean(count(write(facts)) for facts in order_facts) for what, write in spelled.items()}
pd.DataFrame(
    {
        "tokens": pd.Series(key_tokens).round(1),
        "USD a million answers": (1e6 * OUT_USD * pd.Series(key_tokens)).round(0).astype(int),
    }
)

# %% [markdown]
# `Structured(schema, short_keys=True)` does this with a table that the model is told and that restores the names on arrival. Whether the
# model still finds the right fields is again a matter of measuring: a name is also an instruction.
#
# ### A grammar
#
# Asking is one thing. A *grammar* lets the model write nothing else: at each step the engine bans all tokens that would break the
# schema. Every answer that ends is then valid. We hold the model (without adapter) to three schemas, on messages from which it can extract
# an order, a name, a product and a quantity.


# %% tags=["constants"]
def record(**fields):
    """A schema: an object with exactly these fields."""
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


ORDER = record(order={"type": "string"}, name={"type": "string"}, product={"type": "string"}, quantity={"type": "integer"})
QUANTITY = record(quantity={"type": "integer"})
TWO_NUMBERS = record(quantity={"type": "number"}, price={"type": "number"})
BOUNDED = record(quantity={"type": "integer", "minimum": 1, "maximum": 99}, price={"enum": [None]})
LIMIT = 200  # tokens

# %%
held_to = {
    "no grammar": stack(engine=large),
    "any white space": stack(Structured(ORDER, at_once=True), engine=large),
    "JSON's usual spacing": stack(Structured(ORDER, at_once=True, spacing="spaced"), engine=large),
    "usual spacing, one field": stack(Structured(QUANTITY, at_once=True, spacing="spaced"), engine=large),
}


def parsed(answer):
    try:
        return json.loads(answer.text)
    except json.JSONDecodeError:
        return None


async def with_grammars():
    asked = list(examples("test", "extract", book.pick(ci=8, learn=60), 10 * seed + 3))
    rows = []
    for name, handler in held_to.items():
        got = await answers(handler, [Request(e.messages, model=BASE, max_tokens=LIMIT) for e in asked])
        for e, a in zip(asked, got, strict=True):
            facts, said = json.loads(e.answer), parsed(a)
            valid = isinstance(said, dict) and set(said) <= set(facts)
            rows.append(
                {
                    "grammar": name,
                    "valid": float(valid),
                    "right": float(valid and all(said[k] == facts[k] for k in said)),
                    "tokens": a.done.usage.output_tokens,
                    "cut": float(a.done.finish_reason == "length"),
                    "said": a.text[:90],
                }
            )
    return rows


grammars = await book.measure("held to a grammar", with_grammars)

# %%
held = pd.DataFrame(grammars.value)
by_grammar = held.groupby("grammar", sort=False)[["valid", "right", "cut", "tokens"]].mean()
by_grammar[["valid", "right", "cut"]] *= 100
by_grammar["an answer"] = held.groupby("grammar", sort=False).said.first()
by_grammar.round(1).rename(columns={"valid": "valid (%)", "right": "right (%)", "cut": "cut (%)"})

# %%
free, spaced = by_grammar.right["any white space"], by_grammar.right["JSON's usual spacing"]
one_field = by_grammar.tokens["usual spacing, one field"]
book.finding(
    bool(free + 20 < spaced),
    f"**Valid is not right.** With the same schema, {free:.0f} % are right where white space is free, and {spaced:.0f} % where the grammar "
    "writes one space behind each colon, as the model has always seen it. What the model wants to say next (a token with a quote and a "
    "space in it) does not fit, so it takes another one and is lost. The form must be one that the model knows. And a schema that asks "
    f"for less is a shorter answer: one field takes {one_field:.0f} tokens instead of {by_grammar.tokens['no grammar']:.0f}.",
    f"Here {free:.0f} % are right where white space is free, and {spaced:.0f} % with JSON's usual spacing. A schema that asks for less "
    f"is a shorter answer: one field takes {one_field:.0f} tokens instead of {by_grammar.tokens['no grammar']:.0f}.",
)

# %% [markdown]
# ### The dearest bug
#
# A grammar bans what is wrong. It does not say what is enough. Where the model finds no token that it likes, and the grammar allows
# one more of the same kind for ever, the answer runs to its limit. Users know it as the *white-space loop*, since JSON allows blanks
# between any two tokens (vLLM, issue 38696). In one report, 60 of 262 calls of a night ran to their ceiling of 16,000 tokens; the
# one that is shown holds 104 characters of content (oMLX, issue 2990). Digits do the same (vLLM, issue 52011).
#
# We ask for two numbers, of which the messages hold one: as the schema stands; with the engine told to end loops; and with bounds, a
# quantity from 1 to 99 and no price but null. Then we plant the white-space loop, by a bias towards line breaks, such as a model has
# that was trained on indented JSON.


# %%
def biased(request):
    (token,) = tokens_of("\n", add_special_tokens=False)["input_ids"]
    return replace(request, extra={"logit_bias": {str(token): 20.0}})


numbers = {
    "two numbers": stack(Structured(TWO_NUMBERS, at_once=True), engine=large),
    "two numbers, loops ended": stack(NoLoops(), Structured(TWO_NUMBERS, at_once=True), engine=large),
    "two numbers, bounded": stack(Structured(BOUNDED, at_once=True, spacing="spaced"), engine=large),
}
blanks = {
    "free white space": stack(Structured(ORDER, at_once=True), engine=large),
    "free white space, loops ended": stack(NoLoops(), Structured(ORDER, at_once=True), engine=large),
    "no free white space": stack(Structured(ORDER, at_once=True, spacing="spaced"), engine=large),
}


async def loops():
    asked = [
        Request(e.messages, model=BASE, max_tokens=LIMIT)
        for e in examples("test", "extract", book.pick(ci=6, learn=40), 10 * seed + 4)
    ]
    found_ = [*await compare_ways(numbers, asked), *await compare_ways(blanks, [biased(r) for r in asked])]
    return [
        {
            "way": way.name,
            "answers": len(way.answers),
            "tokens": way.tokens / len(way.answers),
            "length": way.reasons.get("length", 0),
            "repetition": way.reasons.get("repetition", 0),
            "blank": way.blank,
            "seconds": way.seconds,
            "said": way.answers[0].text[:60],
        }
        for way in found_
    ]


looping = await book.measure("answers that do not end", loops)

# %%
ways = pd.DataFrame(looping.value).set_index("way")
book.reveal("10.loop", 100 * ways.tokens["two numbers"] / LIMIT, unit="%")

# %%
bars = ways.reset_index()
bars["ended"] = [
    f"{r.way}: {r.length} cut at the limit, {r.repetition} ended as loops"
    if r.length + r.repetition
    else f"{r.way}: all whole"
    for r in bars.itertuples()
]
show(
    alt.Chart(bars)
    .mark_bar(color=PALETTE["blue"])
    .encode(
        x=alt.X("tokens:Q", title=f"output tokens of an answer (mean), limit {LIMIT}", scale=alt.Scale(domain=[0, LIMIT])),
        y=alt.Y("ended:N", title=None, sort=list(bars.ended), axis=alt.Axis(labelLimit=420)),
    )
    .properties(
        height=200,
        title=f"Two numbers: {ways.tokens['two numbers']:.0f} tokens an answer; with bounds "
        f"{ways.tokens['two numbers, bounded']:.0f}",
    ),
    alt="Mean tokens of an answer. " + " ".join(f"{r.ended}: {r.tokens:.0f} tokens." for r in bars.itertuples()),
    source=f"{bars.answers.iloc[0]} messages each way. The white-space loop is planted by a bias of 20 towards line breaks. {looping.source}",
)

# %% tags=["reasoned"]
print(f"{ways.said['two numbers']}…\n{ways.said['free white space']!r}…")
loop_tokens = ways.tokens["two numbers"]
issues = [issue for issue in lint_schema(TWO_NUMBERS) if issue.rule == "endless"]
Markdown(
    f"An answer of nothing costs as much as the longest one: {loop_tokens:.0f} tokens here, and {1e6 * loop_tokens * OUT_USD:,.0f} USD "
    f"a million. With a limit of 16,000 it would be {1e6 * 16_000 * OUT_USD:,.0f} USD. No request failed, each has status 200, and what "
    "they share is `finish_reason`: “length”. Three cures, from the outside in:\n\n"
    "- **The schema.** "
    + f"`lint_schema` said so beforehand, of {' and '.join(f'`{issue.path}`' for issue in issues)}: {issues[0].why}; {issues[0].fix}.\n"
    f"- **The grammar.** One spacing instead of any: {ways.tokens['no free white space']:.0f} tokens with the same bias.\n"
    f"- **The engine.** `NoLoops` asks vLLM to end a passage that repeats: {ways.tokens['two numbers, loops ended']:.0f} tokens, "
    f"{ways.repetition['two numbers, loops ended']} of {ways.answers['two numbers, loops ended']} ended as “repetition”. That is a "
    "bound on the bill, and no answer."
)

# %% [markdown]
# ### Now a cap
#
# *This* is what caps are for. A runaway pays up to the cap, wherever it lies; a whole answer that is longer is cut. Too low costs
# cuts, too high costs runaways: the newsvendor's problem, who must order papers before knowing how many will sell.

# %% tags=["constants"]
RUNAWAYS = (0.0, 0.01, 0.1, 0.3)  # shares of the answers

# %%
ask_usd = float(text["asked usd"].mean())


def waste(cap, share):
    """USD an answer that a cap wastes: the cut answers' tokens and questions, runaways among them."""
    cut = (1 - share) * lengths.longer(cap) + share
    return cut * (ask_usd + cap * OUT_USD)


ran_away = len(text) - len(whole)
grid = sorted({*lengths.ended, *range(1, 4 * longest, 4)})
wasted = pd.DataFrame(
    [{"cap": cap, "share": f"{100 * share:g} %", "usd": 1000 * waste(cap, share)} for share in RUNAWAYS for cap in grid]
)
optimum = {share: min(sorted(set(lengths.ended), reverse=True), key=lambda cap: waste(cap, share)) for share in RUNAWAYS}
marks = pd.DataFrame([{"cap": cap, "usd": 1000 * waste(cap, share)} for share, cap in optimum.items()])
show(
    (
        alt.Chart(wasted[wasted.usd < 4 * 1000 * waste(longest, max(RUNAWAYS))])
        .mark_line()
        .encode(
            x=alt.X("cap:Q", title="cap (output tokens)"),
            y=alt.Y("usd:Q", title="wasted, USD for 1,000 questions"),
            color=alt.Color("share:N", title="run away", sort=[f"{100 * s:g} %" for s in RUNAWAYS]),
        )
        + alt.Chart(marks)
        .mark_point(shape="diamond", filled=True, size=90, color=PALETTE["red"], opacity=1)
        .encode(x="cap:Q", y="usd:Q")
    ).properties(
        title={
            "text": f"Least is wasted at {optimum[0.0]} tokens where nothing runs away, at {optimum[0.3]} where three in ten do",
            "subtitle": f"the 95th percentile is {p95}",
        }
    ),
    alt="Money wasted against the cap. "
    + " ".join(f"{100 * share:g} % runaways: cheapest at {cap} tokens." for share, cap in optimum.items()),
    source=f"Lengths of {len(whole)} measured answers; runaways as given. {priced} {measured.source}",
)

# %%
Markdown(
    f"Of our own answers in free text, {ran_away} of {len(text)} ran to their limit. There is no percentile in the optimum: what counts is "
    "what a cut wastes, how many run away, and where the lengths leave a gap. (`labkit.output.best_cap` does the same for other prices of a "
    "cut: a useless answer, a continued one, tokens that a rate limit reserves.) A log of your answers has all that is needed, as exercise "
    "10.1 and the last section show."
)

# %% [markdown]
# ### A budget for thoughts
#
# Two thirds of what the desk pays for output are thoughts that nobody sees. vLLM can end them at a budget: it writes the end mark
# in the model's place, and the model has to answer with what it has. The model never met that in its training; its adapter `desk`
# did, and has learned to answer at once. We try both, on the hard questions.

# %% tags=["constants"]
BUDGETS = book.pick(ci=(0, 32, 64, 128), learn=(0, 16, 32, 48, 64, 96, 128))
WITHOUT = 256  # stands for no budget on the axis: more than any of these answers thinks
ANSWER_ROOM = 40  # tokens behind the thoughts


# %%
async def budgets():
    asked = [e for k in HARD for e in examples("test", k, book.pick(ci=3, learn=30), 10 * seed + 5)]
    rows = []
    for model, told in ((BASE, "as it is"), (DESK, "with the adapter")):
        for budget in (*BUDGETS, WITHOUT):
            handler = large if budget == WITHOUT else stack(ThinkingBudget(budget, answer=ANSWER_ROOM), engine=large)
            got = await answers(handler, [Request(e.messages, model=model, max_tokens=e.max_tokens) for e in asked])
            rows += [
                {
                    "model": told,
                    "budget": budget,
                    "kind": e.family,
                    "question": e.id,
                    "right": float(grade_plain(e, a.text)),
                    "thought": a.done.usage.reasoning_tokens,
                    "used": a.done.usage,
                }
                for e, a in zip(asked, got, strict=True)
            ]
    return pd.DataFrame(rows)


budgeted = await book.measure("thinking budgets", budgets)

# %%
both_models = budgeted.value
both_models["tokens"] = [u.output_tokens for u in both_models.used]
both_models["usd"] = [desk_usd(u) for u in both_models.used]
thoughts = both_models[both_models.model == "with the adapter"]
curve = thoughts.groupby(["kind", "budget"])[["right", "tokens"]].mean().reset_index()
curve["percent"] = 100 * curve.right
needs_of = {kind: min(rows.budget[rows.right >= rows.right.iloc[-1]]) for kind, rows in curve.groupby("kind")}
show(
    alt.Chart(curve)
    .mark_line(point=True)
    .encode(
        x=alt.X("budget:Q", title=f"budget for thoughts (tokens); {WITHOUT}: none"),
        y=alt.Y("percent:Q", title="right answers (%)", scale=alt.Scale(domain=[0, 100])),
        color=alt.Color("kind:N", title=None),
        tooltip=["kind:N", "budget:Q", alt.Tooltip("percent:Q", format=".0f"), alt.Tooltip("tokens:Q", format=".0f")],
    )
    .properties(
        title="Budget from which answers are as right as without one: "
        + ", ".join(f"{kind} {'none' if budget == WITHOUT else budget}" for kind, budget in needs_of.items())
    ),
    alt="Right answers against the thinking budget. "
    + " ".join(
        f"{kind}: " + ", ".join(f"{r.percent:.0f} % at {r.budget}" for r in rows.itertuples()) + "."
        for kind, rows in curve.groupby("kind")
    ),
    source=f"{len(thoughts) // len(curve)} questions of each kind at each budget, with the adapter. {budgeted.source}",
)

# %%
all_kinds = thoughts.groupby("budget")[["right", "tokens", "thought", "usd"]].mean()
all_kinds["with wrong answers"] = 1000 * (all_kinds.usd + WRONG_USD * (1 - all_kinds.right))
mean_thought = all_kinds.thought[WITHOUT]
half = min(BUDGETS, key=lambda budget: abs(budget - mean_thought / 2))
as_right = min(all_kinds.index[all_kinds.right >= all_kinds.right[WITHOUT]])
all_kinds.assign(usd=1000 * all_kinds.usd).round(2).rename(
    columns={"usd": "USD for 1,000", "with wrong answers": "with wrong answers, USD for 1,000"}
)

# %%
at_half = both_models[both_models.budget == half].groupby("model")[["right", "tokens", "thought"]].mean()
told_half = (
    f"At {half} tokens, about half of what the model usually thinks, {100 * at_half.right['with the adapter']:.0f} % are right with the "
    f"adapter, and {100 * at_half.right['as it is']:.0f} % without. Behind its cut thoughts the model without adapter writes "
    f"{at_half.tokens['as it is'] - at_half.thought['as it is']:.0f} tokens, the one with it "
    f"{at_half.tokens['with the adapter'] - at_half.thought['with the adapter']:.0f}"
)
book.finding(
    bool(at_half.tokens["as it is"] > at_half.tokens["with the adapter"] + 3),
    f"{told_half}: **a model that is stopped thinks on aloud**, and the budget's tokens come back as answer.",
    f"{told_half}.",
)


# %%
def total_change(budget):
    """Per question, what the budget changes in USD, wrong answers included, in % of the mean without one; with its interval."""
    whole_usd = thoughts.assign(all=thoughts.usd + WRONG_USD * (1 - thoughts.right)).pivot(
        index="question", columns="budget", values="all"
    )
    gone = 100 * (whole_usd[budget] - whole_usd[WITHOUT]) / whole_usd[WITHOUT].mean()
    spread = 1.96 * gone.std() / math.sqrt(len(gone))
    return gone.mean(), (gone.mean() - spread, gone.mean() + spread)


moved, moved_between = total_change(half)
book.claim(
    "10.capped",
    "A thinking budget caps the spending",
    by="Multigrid, “Gemini's Thinking Budget Parameter”, dev.to (“thinkingBudget caps that spend”). Google's documentation is more "
    "careful: the model may write more than the budget, or less.",
    claimed=(-100, 0),
    measured=moved,
    interval=moved_between,
    unit="% change of the bill, wrong answers included",
    where=f"hard questions with a budget of {half} tokens, half of what they usually think; a wrong answer costs {WRONG_USD} USD",
    unless="The tokens it does cap, where the engine writes the end mark itself, as here, and where the answer has a limit of its own: a "
    "model that is stopped thinks on aloud. The bill it caps where thoughts are not needed, or wrong answers cost nothing.",
    source=f"{priced} {budgeted.source}",
)

# %%
per_question = thoughts.pivot(index="question", columns="budget", values="tokens")
spared = 100 * (1 - per_question[as_right] / per_question[WITHOUT])
spared_half = 1.96 * spared.std() / math.sqrt(len(spared))
book.claim(
    "10.budget",
    "A token budget takes 67 % off the output tokens, and hardly any right answers",
    by="Han et al., “Token-Budget-Aware LLM Reasoning” (TALE), ACL 2025 Findings, arXiv 2412.18547: 67 % on average.",
    claimed=67,
    measured=spared.mean(),
    interval=(spared.mean() - spared_half, spared.mean() + spared_half),
    unit="% of the output tokens",
    where=f"hard questions, at the smallest budget with as many right answers as without one, {as_right} tokens"
    if as_right != WITHOUT
    else "hard questions: at no budget were as many answers right as without one",
    unless="TALE's models think far longer than they need. Ours was taught steps that are all needed: there is nothing to spare.",
    source=budgeted.source,
)

# %% [markdown] tags=["further"]
# ### Short first, the detail on request
#
# Most readers want the fact, some want the reasons. A *staged* answer gives the first to all, and the second to those who ask. The
# detail is a second turn of the same conversation, so most of its prompt is in the cache. We measure three things: the short
# answer, the detail that follows it, and the detailed answer at once.
#
# What the answers say is *dictated* here, as in chapter 06: the engine may only choose tokens that spell the text which a brief or a
# detailed answer should have. So all three ways have the lengths that they should, and tokens and times are the engine's own.

# %%
staged = Staged(tokens=200, short=Verbosity("brief", where="last"), long=Verbosity("detailed", where="last"))


async def saying(text_, request):
    """The request's answer, dictated."""
    ids = tokens_of(text_, add_special_tokens=False)["input_ids"]
    asked = replace(request, max_tokens=200, extra={"logit_bias": {str(i): 100.0 for i in ids}})
    return await complete(stack(Structured(choice=(text_,), at_once=True), engine=large), asked)


async def three_ways(number):
    plain = [e for kind in EASY for e in examples("test", kind, book.pick(ci=1, learn=6), 10 * seed + 6)]
    rows = []
    for e in plain[:1] * (number == 0) + plain:  # the first of all is a warm-up
        first = Request(e.messages, model=BASE)
        brief, detail = (styled(e, level).answer for level in ("brief", "detailed"))
        short = await saying(brief, staged.asking(first))
        more = await saying(detail, staged.asking(staged.detail(first, brief)))
        at_once = await saying(detail, Verbosity("detailed", where="last").asking(first))
        rows += [
            {
                "way": way,
                "question": e.id,
                "used": a.done.usage,
                "first words": a.done.timing.ttft,
                "all words": a.done.timing.last_token - a.done.timing.sent,
                "as told": a.text == said,
            }
            for way, a, said in (("short", short, brief), ("more", more, detail), ("detailed", at_once, detail))
        ]
    return rows[3 * (number == 0) :]


three = await book.measure("a staged answer", three_ways, rounds=book.pick(ci=2, learn=7))

# %%
by_round = [pd.DataFrame(rows) for rows in three.value]
staging = by_round[0].assign(usd=[desk_usd(row["used"]) for row in three.value[0]])
staging["tokens"] = [u.output_tokens for u in staging.used]
stages = staging.groupby("way")[["usd", "tokens"]].mean().loc[["short", "more", "detailed"]]
waits = {way: [rows[rows.way == way]["all words"].mean() for rows in by_round] for way in stages.index}
bill_of = StagedBill(*(Decimal(repr(usd)) for usd in stages.usd))
even = float(bill_of.break_even)
line = pd.DataFrame(
    [
        {"share": 100 * share, "way": way, "usd": 1000 * float(usd)}
        for share in (0.0, 1.0)
        for way, usd in {
            "always detailed": bill_of.detailed,
            "staged": bill_of.staged(share),
            "always short": bill_of.brief,
        }.items()
    ]
)
show(
    alt.Chart(line)
    .mark_line()
    .encode(
        x=alt.X("share:Q", title="readers who ask for more (%)"),
        y=alt.Y("usd:Q", title="USD for 1,000 questions", scale=alt.Scale(zero=False)),
        color=alt.Color("way:N", title=None, sort=["always detailed", "staged", "always short"]),
    )
    .properties(
        title=f"Staged answers break even when {100 * even:.0f} % of the readers ask for more"
        if 0 < even < 1
        else f"Staged answers break even at {100 * even:.0f} %, which no share of readers reaches"
    ),
    alt=f"Cost against the share who ask for more. Always detailed {1000 * stages.usd['detailed']:.3f} USD for 1,000, always short "
    f"{1000 * stages.usd['short']:.3f}, staged from {1000 * stages.usd['short']:.3f} to {1000 * float(bill_of.staged(1)):.3f}.",
    source=f"{len(staging) // 3} questions each way, dictated: {stages.tokens['short']:.0f} and {stages.tokens['detailed']:.0f} tokens. "
    f"{priced} {three.source}",
)

# %%
said_wait = (
    f"The short answer is whole after {1000 * pd.Series(waits['short']).median():.0f} ms, the detailed one after "
    f"{1000 * pd.Series(waits['detailed']).median():.0f} ms (medians of the rounds' means). Who wants both waits "
    f"{1000 * (pd.Series(waits['short']) + pd.Series(waits['more'])).median():.0f} ms, and decides in between"
)
book.finding(
    below(waits["short"], waits["detailed"]),
    f"{said_wait}. For everybody else, a staged answer is the sooner one, too.",
    f"{said_wait}. Here the short answer is not the sooner one.",
    f"{said_wait}. These rounds cannot tell the two apart.",
)

# %% [markdown] tags=["reasoned"]
# A model that *thinks* spares less: its thoughts come before the short answer as before the long one.
#
# The break-even has the question in it: whoever asks for more sends it again. With a long prompt that no cache holds, staging pays
# only where few ask. That is exercise 10.3, and the long build makes the handler.

# %% [markdown]
# ### In the prompt, or in the weights
#
# The desk decides returns by a policy of the house. It can stand in each prompt, where it is read again with every question. Or a
# small adapter learns it once, and the prompt only names it. The second adapter, `house`, has learned one such policy.


# %%
async def house_policy():
    asked = range(book.pick(ci=16, learn=150))
    rows = []
    for way, model, in_prompt in (
        ("in the prompt", BASE, True),
        ("in the weights", HOUSE, False),
        ("nowhere", BASE, False),
    ):
        cases = [house_example("test", i, policy_in_prompt=in_prompt) for i in asked]
        got = await answers(large, [Request(e.messages, model=model, max_tokens=e.max_tokens) for e in cases])
        rows += [
            {"policy": way, "right": float(grade_plain(e, a.text)), "used": a.done.usage}
            for e, a in zip(cases, got, strict=True)
        ]
    return pd.DataFrame(rows)


policies = await book.measure("the policy of the house", house_policy)

# %%
house = policies.value
house["read"] = [u.input_tokens for u in house.used]
house["wrote"] = [u.output_tokens for u in house.used]
ways_of = house.groupby("policy", sort=False)[["read", "wrote", "right"]].mean()
n_house = len(house) // len(ways_of)
FRESH, CACHED = (float(rate) / 1e6 for rate in (price.rates.fresh_input, price.rates.cached_input))
spared_tokens = ways_of.read["in the prompt"] - ways_of.read["in the weights"]
log = [json.loads(line) for line in (adapter_path("house") / "train.jsonl").read_text().splitlines()]
trained_on = max(entry.get("tokens", 0) for entry in log)
train_usd = 3 * trained_on * FRESH
per_question_usd = {"no cache": spared_tokens * FRESH, "all of it cached": spared_tokens * CACHED}
ranges = {way: wilson(round(n_house * row.right), n_house) for way, row in ways_of.iterrows()}
Markdown(
    "| the policy stands | prompt, tokens | answer, tokens | right (95 %) | reading it costs, USD for 1,000: fresh | cached |\n"
    "|:--|--:|--:|--:|--:|--:|\n"
    + "\n".join(
        f"| {way} | {r.read:.0f} | {r.wrote:.0f} | {100 * r.right:.0f} % ({100 * ranges[way][0]:.0f} to {100 * ranges[way][1]:.0f}) | "
        f"{1000 * r.read * FRESH:.2f} | {1000 * r.read * CACHED:.2f} |"
        for way, r in ways_of.iterrows()
    )
    + f"\n\nThe adapter was trained on {trained_on:,} tokens. Forward and backward cost about three times a reading, so at the price of fresh "
    f"input this is {train_usd:.2f} USD, {train_usd / per_question_usd['no cache']:,.0f} questions' worth of the policy where no cache "
    f"holds it, and {train_usd / per_question_usd['all of it cached']:,.0f} where one does. {policies.source}"
)

# %%
gap, gap_between = lost_points(*(house[house.policy == way].right for way in ("in the prompt", "in the weights")))
even_points = 100 * per_question_usd["no cache"] / WRONG_USD
said_gap = (
    f"Right answers from the weights, beside those from the prompt: {-gap:+.1f} points ({-gap_between[1]:.1f} to {-gap_between[0]:.1f}). "
    f"Reading the policy costs as much as {even_points:.3f} points of wrong answers, without any cache"
)
book.finding(
    True if gap_between[1] < even_points else False if gap_between[0] > even_points else None,
    f"{said_gap}: **fine-tuning pays here**, from the volume in the table on, for as long as the policy stays.",
    f"{said_gap}: **the long prompt is the cheap one here**, at any volume. Fewer tokens, more wrong answers.",
    f"{said_gap}: {n_house} questions cannot tell such a difference. It would take {300 / even_points:,.0f} without a single loss (three "
    "divided by the share), and so many graded cases are part of what a training costs.",
)

# %% [markdown] tags=["reasoned"]
# Three things decide between the two, and volume is only the first. **The cache**: a policy that is the same in all prompts is
# cached, at this provider for a tenth, and then there is a tenth to spare. **Change**: a policy in the prompt is changed by
# editing a file; one in the weights is trained and tested again, and until then the model decides by the old one. **Proof**:
# with the prompt you can read which policy was applied; with the weights you can only ask and count.

# %% [markdown] tags=["further"]
# ### What a grammar costs in time
#
# A grammar has to be compiled when the engine sees it first, and then it masks tokens at each step. Below: the first token of a
# request with a schema that is new, and with one that is known; and the time per token with and without a grammar, alone and
# sixteen at a time. All answers here have exactly as many tokens.

# %% tags=["constants"]
TOKENS_EACH = 64


# %%
async def grammar_times(number):
    stamp = f"{book.rng('schemas').randrange(10**6)}_{number}"
    fresh = record(**{f"f{i}_{stamp}": {"type": "string", "maxLength": 20} for i in range(12)})
    question = next(iter(examples("test", "extract", 1, seed=9)))
    ask = Request(question.messages, model=BASE, max_tokens=TOKENS_EACH, extra={"ignore_eos": True})
    letters = Structured(regex="[a-z ]{400}", at_once=True)
    rows = []
    if number == 0:
        await answers(stack(letters, engine=large), [ask])  # compiles it
    for what in ("new schema", "known schema"):
        (one,) = await answers(stack(Structured(fresh, at_once=True), engine=large), [replace(ask, extra={})])
        rows.append({"what": what, "ms": 1000 * one.done.timing.ttft})
    for streams in (1, 16):
        for what, handler in (("free", large), ("grammar", stack(letters, engine=large))):
            got = await answers(handler, [ask] * streams)
            rows.append({"what": f"{what}, {streams}", "ms": 1000 * fmean(a.tpot for a in got if a.tpot)})
    return rows


timed = await book.measure("what a grammar costs", grammar_times, rounds=book.pick(ci=2, learn=9))

# %%
times = pd.DataFrame([{"round": i, **row} for i, rows in enumerate(timed.value) for row in rows])
per_what = times.pivot(index="round", columns="what", values="ms")
per_what.median()[["new schema", "known schema", "free, 1", "grammar, 1", "free, 16", "grammar, 16"]].rename(
    {
        "new schema": "first token, new schema (ms)",
        "known schema": "first token, known schema (ms)",
        "free, 1": "per token, free, alone (ms)",
        "grammar, 1": "per token, grammar, alone (ms)",
        "free, 16": "per token, free, 16 streams (ms)",
        "grammar, 16": "per token, grammar, 16 streams (ms)",
    }
).round(2).to_frame("median")

# %%
alone, many = ((per_what[f"grammar, {n}"] / per_what[f"free, {n}"]).median() for n in (1, 16))
book.finding(
    below(per_what["free, 16"].tolist(), per_what["grammar, 16"].tolist()),
    f"A token under a grammar takes {alone:.2f} times as long alone, and {many:.2f} times in a batch of 16: the masks are made on the "
    "processor, one for each stream.",
    f"A token under a grammar takes {alone:.2f} times as long alone, and {many:.2f} times in a batch of 16.",
    f"A token under a grammar takes {alone:.2f} times as long alone, and {many:.2f} times in a batch of 16: these rounds cannot tell that from 1.",
)

# %% [markdown]
# ## Move
#
# Your own cap: how many answers run away, what reading a question costs, and where the cap lies. The lengths are those measured
# above. Watch where the waste comes from.


# %%
def cap_chart(cap, runaway_percent, question_tokens, cached_percent):
    share = runaway_percent / 100
    question_usd = question_tokens * (CACHED * cached_percent + FRESH * (100 - cached_percent)) / 100

    def parts_at(at):
        cut = (1 - share) * lengths.longer(at)
        return cut * (question_usd + at * OUT_USD), share * (question_usd + at * OUT_USD)

    at_caps = sorted({*lengths.ended, *range(4, 2 * longest, 4), cap})
    rows = [
        {"cap": at, "usd": 1000 * usd, "waste": what}
        for at in at_caps
        for what, usd in zip(("whole answers, cut", "runaways"), parts_at(at), strict=True)
    ]
    best_at = min(sorted(set(lengths.ended), reverse=True), key=lambda at: sum(parts_at(at)))
    here = 1000 * sum(parts_at(cap))
    areas = (
        alt.Chart(pd.DataFrame(rows))
        .mark_area()
        .encode(
            x=alt.X("cap:Q", title="cap (output tokens)"),
            y=alt.Y("usd:Q", title="wasted, USD for 1,000 questions"),
            color=alt.Color("waste:N", title=None, sort=["whole answers, cut", "runaways"]),
        )
    )
    rule = (
        alt.Chart(pd.DataFrame({"cap": [cap]})).mark_rule(strokeDash=[4, 3], color=PALETTE["red"], size=2).encode(x="cap:Q")
    )
    title = f"Cap {cap}: {here:.3f} USD wasted for 1,000 questions; the cheapest cap is {best_at}, {1000 * sum(parts_at(best_at)):.3f} USD"
    subtitle = f"{100 * lengths.longer(cap):.0f} % of the whole answers are cut"
    return Figure(
        (areas + rule).properties(title={"text": title, "subtitle": subtitle}),
        alt=f"{title}. {subtitle}.",
        source=f"Lengths: {len(whole)} measured answers; a cut answer is asked again. {priced}",
    )


live_chart(
    cap_chart,
    cap=w.IntSlider(p95, 4, 2 * longest, 1, description="cap (tokens)"),
    runaway_percent=w.FloatSlider(1, min=0, max=40, step=0.5, description="run away (%)"),
    question_tokens=w.IntSlider(PORTAL.desk.input, 0, 8_000, 50, description="question (tokens)"),
    cached_percent=w.IntSlider(90, 0, 100, 5, description="of it cached (%)"),
)

# %% [markdown] tags=["reasoned"]
# Take the runaways to zero, and the cheapest cap is the longest answer. Raise them, and it falls, in jumps, to the next gap between
# lengths. A dear question pushes it up again: then a cut is what must be avoided.

# %% [markdown]
# ## Do

# %% [markdown]
# {{exercise 10.1}}
# Choose the cap for a feature from a sample of its answers. `whole` are the lengths of those that ended by themselves, and
# `runaways` of the sample never ended. An answer that is longer than the cap is cut, paid, thrown away, and asked again with room
# enough; a runaway is cut at any cap, and behaves when it is asked again. Reading a question costs `question_usd`, each output token
# `token_usd`. Return the cheapest cap: one of the lengths in `whole` (never empty), of equally cheap ones the longest.


# %% exercise="10.1"
def cheapest_cap(whole: Sequence[int], runaways: int, question_usd: float, token_usd: float) -> int:
    """The cap, in tokens, that costs least over the sample."""
    ...  # your code here


# %%
book.check("10.1", cheapest_cap)

# %% [markdown]
# {{exercise 10.2}}
# Before a schema is sent, say where an answer to it could go on to its limit. Return the paths of such places, from the top down:
# `$` is the whole, `$.name` a property, `$.lines[]` the items of an array. Bounded are: whatever has an `enum` or a `const`; true or
# false, and null; a string with `maxLength`; an integer with `minimum` and `maximum`; an array with `maxItems`; an object with
# `additionalProperties` false. Nothing else is, not even a number with bounds: the digits behind its point have no end. Look into
# `properties` and `items` in any case, but not into what has an `enum` or a `const`.


# %% exercise="10.2"
def can_run_away(schema: Mapping[str, Any], path: str = "$") -> list[str]:
    """Paths of the places in the schema where a valid text may be as long as it likes."""
    ...  # your code here


# %%
book.check("10.2", can_run_away)

# %% [markdown]
# {{exercise 10.3}}
# A feature gives a `brief` answer to all and the `detailed` one to those who ask (both in tokens). Asking for more is a second call:
# it reads the `question` again, of which the cache finds `cached` tokens, then the brief answer and the reader's `wish`, and writes
# the detailed answer. Prices are in USD a token. Which share of readers may ask for more before staging costs more than the detailed
# answer for all? Where the brief answer spares nothing, none may.


# %% exercise="10.3"
def most_who_may_ask(
    question: int, cached: int, brief: int, detailed: int, wish: int, fresh_usd: float, cached_usd: float, output_usd: float
) -> float:
    """The share of readers, from 0 to 1, at which staging costs as much as the detailed answer for all."""
    ...  # your code here


# %%
book.check("10.3", most_who_may_ask)

# %% [markdown]
# Here are the portal's own lengths in that formula: a desk's short answer, and one as long as the assistant's. The prefix is cached as
# the provider does it, or it changes with each question.

# %%
for what, in_cache in {"prefix cached": at_the_desk(Usage()).cached_tokens, "nothing cached": 0}.items():
    may = book.reference("10.3")(
        PORTAL.desk.input, in_cache, PORTAL.desk.answer, PORTAL.assistant.answer, 8, FRESH, CACHED, OUT_USD
    )
    print(f"{what}: {100 * may:.0f} % of the readers may ask for more")

# %% [markdown] tags=["further"]
# {{exercise 10.4}}
# Two ways to answer were tried on the same questions, in the same order; each question gives (USD paid, right or not). What does a
# correct answer cost the first way, as a multiple of the other? Return (ratio, low, high) with an interval of 95 %, or None where
# there are fewer than 30 questions or a way has fewer than 5 right answers.
#
# A correct answer costs mean USD / share right. For the interval, ask how far each question pulls the ratio: for each way,
# USD / mean USD − right / share right (right is 1 or 0), and the difference of the two. With s, the standard deviation of these
# differences (by n − 1), the interval is the ratio × exp(± 1.96 · s / √n). It is called the delta method.


# %% exercise="10.4"
def cost_ratio(one: Sequence[tuple[float, bool]], other: Sequence[tuple[float, bool]]) -> tuple[float, float, float] | None:
    """What a correct answer costs one way, as a multiple of the other: (ratio, low, high); None for too little to tell."""
    ...  # your code here


# %%
book.check("10.4", cost_ratio)

# %% [markdown]
# All forms of this chapter, against the usual text, on all questions that have them:

# %%
rated = []
for form in [name for name in FORMS if name != "text"]:
    rows = hard if form in WITH_STEPS else found
    where = "hard" if form in WITH_STEPS else "all"
    rated.append((form, where, *ratio_of(form, "text", rows)))
pd.DataFrame(rated, columns=["form", "questions", "cost of a correct answer, × text", "low", "high"]).set_index(
    "form"
).round(3)

# %% [markdown] tags=["further"]
# {{exercise 10.5}}
# A staged answer is two calls, and between them lies everything that goes wrong in production: a reader clicks twice, a line breaks,
# the detail fails when the short answer was fine, an answer is cut. Each of these calls is paid. Write the handler that books them
# all, and loses nothing.
#
# 1. `ask` makes at most `tries` calls until the answer is whole. Each is booked as an `Attempt` with the usage that is known: of a
#    whole or a cut answer that of its `Done`; of one that failed, the last `usage` of its chunks, where they carry one, else the sum
#    of `chunk.counted`. A call has failed when the engine raises `EngineError`, when its stream ends without a `Done`, and when its
#    reader leaves (it is cancelled). It is cut when its finish reason is “length”: then `max_tokens` is doubled for the next try.
#    When the tries are over, the reply is the longest text that came, and a `problem` that says what happened last: the engine's
#    message, or after how many tokens it was cut.
# 2. `short` asks for the short answer: the request with a blank and `BRIEFLY` behind its last message. For each `key` it asks once:
#    whoever comes later, or at the same time, gets the same reply. Who leaves stops it for nobody else. A reply with a problem is
#    not kept, so the next one asks again.
# 3. `more` asks for the detail, once for each key: all messages of the short answer's request, that answer as the assistant's turn,
#    and `MORE` as the user's, with the room that the request had at first. It waits for a short answer that is still being written.
#    `more` is only called for a key that `short` was called for.
# 4. Where the detail has a problem, the reply is the *short* answer with that problem. Where there is no whole short answer, `more`
#    asks for that first; where this has a problem again, it is the reply.
# 5. `usd` adds up what came whole for “short” and for “detail”, and everything else as “lost”.


# %% exercise="10.5"
class StagedAnswers:
    """A short answer first, the detail on request."""

    def __init__(self, engine: Handler, tries: int) -> None:
        self.booked: list[Attempt] = []  # Attempt(part, outcome, usage); outcome: "whole", "cut" or "failed"
        ...  # your code here

    async def ask(self, request: Request, part: str) -> Reply:
        """Stage 1: Reply(text, problem) to a request, in at most `tries` calls, each booked under `part`."""
        ...  # your code here

    async def short(self, key: str, request: Request) -> Reply:
        """Stage 2: the short answer, asked for once for each key."""
        ...  # your code here

    async def more(self, key: str) -> Reply:
        """Stages 3 and 4: the detail, asked for once for each key; in its place the short answer, where it fails."""
        ...  # your code here

    def usd(self, price: Any) -> dict[str, float]:
        """Stage 5: the dollars of "short" and "detail" answers that came whole, and of what was "lost" in all others."""
        ...  # your code here


# %%
book.check("10.5", StagedAnswers)

# %% [markdown] tags=["further"]
# #### Your handler on this chapter's traffic
#
# Now the measured answers, short and detailed, are played to your handler (as soon as it passes), to the lab's, and to the one that
# everybody writes first. Three readers in ten ask for more, one in five clicks twice, and one call in ten fails half-way.

# %% tags=["constants"]
ASK, TWICE, FAILS = 0.3, 0.2, 0.1
READERS = 200


# %%
class FirstTry:
    """Two calls, and what they bring."""

    def __init__(self, engine, tries):
        self.engine, self.booked, self.asked = engine, [], {}

    async def short(self, key, request):
        self.asked[key] = request
        answer = await complete(self.engine, request)
        self.booked.append(Attempt("short", "whole", answer.done.usage))
        return Reply(answer.text)

    async def more(self, key):
        asked = self.asked[key]
        answer = await complete(self.engine, replace(asked, messages=(*asked.messages, Message("user", MORE))))
        self.booked.append(Attempt("detail", "whole", answer.done.usage))
        return Reply(answer.text)

    def usd(self, price_):
        found_ = {"short": 0.0, "detail": 0.0, "lost": 0.0}
        for one in self.booked:
            found_[one.part] += float(price_request(one.usage, price_).total)
        return found_


@dataclass
class Played:
    """An engine that gives the measured usage of a question's answers, and fails as often as it is told."""

    usages: Mapping[str, Mapping[str, Usage]]
    paid: float = 0.0
    calls: int = 0

    async def __call__(self, request):
        self.calls += 1
        broken = book.rng(f"{request.messages[0].content} {self.calls}").random() < FAILS
        used = self.usages[request.messages[0].content]["more" if request.messages[-1].content == MORE else "short"]
        if broken:
            used = replace(used, output_tokens=used.output_tokens // 2, reasoning_tokens=0)
        self.paid += float(price_request(used, price).total)
        await asyncio.sleep(0)
        if broken:
            yield Chunk("half", 0.0, usage=used)
            raise EngineError("no room")
        yield Chunk("the whole answer", 0.0, usage=used)
        yield Done(used, Timing(0.0))


# %%
usages = {q: {r.way: at_the_desk(r.used) for r in rows.itertuples()} for q, rows in staging.groupby("question")}


async def played(make):
    """What a handler makes of the readers: the engine's own bill, what the handler booked, and answers that never came."""
    played_engine = Played(usages)
    handler, rng, lost_ = make(played_engine, 2), book.rng("readers"), 0
    for n in range(READERS):
        question, asks, twice = rng.choice(sorted(usages)), rng.random() < ASK, rng.random() < TWICE
        request = Request((Message("system", question), Message("user", "?")))
        calls = [lambda r=request, k=n: handler.short(str(k), r)] * (2 if twice else 1)
        calls += [lambda k=n: handler.more(str(k))] * (asks * (2 if twice else 1))
        for one in calls:
            try:
                lost_ += not (await one()).text
            except Exception:  # noqa: BLE001 - the reader sees an error page
                lost_ += 1
    booked = sum(handler.usd(price).values())
    return {"paid": played_engine.paid, "booked": booked, "answers lost": lost_}


mine, whose = book.yours("10.5", StagedAnswers)
contestants = {whose: mine, "the lab's": book.reference("10.5"), "everybody's first": FirstTry}
results = pd.DataFrame({name: await played(make) for name, make in contestants.items()}).T

# %%
bars = results.reset_index(names="handler").melt(["handler", "answers lost"], ["paid", "booked"], "what", "usd")
bars["usd"] = 1000 * bars.usd / READERS
show(
    alt.Chart(bars)
    .mark_bar()
    .encode(
        x=alt.X("usd:Q", title="USD for 1,000 readers"),
        y=alt.Y("handler:N", title=None, sort=list(contestants)),
        yOffset=alt.YOffset("what:N", sort=["paid", "booked"]),
        color=alt.Color("what:N", title=None, sort=["paid", "booked"]),
    )
    .properties(
        title={
            "text": "Of what the engine is paid, on the books: "
            + "; ".join(f"{name} {100 * r.booked / r.paid:.0f} %" for name, r in results.iterrows()),
            "subtitle": f"requests without an answer, of {READERS} readers': "
            + "; ".join(f"{name} {r['answers lost']:.0f}" for name, r in results.iterrows()),
        }
    ),
    alt="Paid and booked for 1,000 readers. "
    + " ".join(
        f"{name}: {1000 * r.paid / READERS:.3f} USD paid, {1000 * r.booked / READERS:.3f} booked, {r['answers lost']:.0f} lost."
        for name, r in results.iterrows()
    ),
    source=f"Usages as measured above, clicks and failures drawn from a seed. {priced} {three.source}",
)

# %% [markdown]
# ## So what
#
# Wishes, forms, budgets: what each would do to the desk's month is arithmetic. Tokens are spared, and some answers are wrong because of
# it.

# %%
questions = PORTAL.questions
usual = text.usd.mean()
offers = {}
for form in ("brief", "JSON at once", "detailed"):
    gone, (_, most_gone) = lost_points(rights("text", found), rights(form, found))
    offers[form] = (usual - found[found.form == form].usd.mean(), gone / 100, most_gone / 100)
of_budget = {b: thoughts[thoughts.budget == b].sort_values("question") for b in (half, WITHOUT)}
gone, (_, most_gone) = lost_points(of_budget[WITHOUT].right, of_budget[half].right)
offers[f"thoughts cut at {half} (hard questions)"] = (
    of_budget[WITHOUT].usd.mean() - of_budget[half].usd.mean(),
    gone / 100,
    most_gone / 100,
)
Markdown(
    "| lever | spares, USD a month | further wrong answers, USD a month (up to) | they may be, of 10,000 answers |\n|:--|--:|--:|--:|\n"
    + "\n".join(
        f"| {name} | {questions * spared_usd:,.0f} | {questions * WRONG_USD * worse:,.0f} ({questions * WRONG_USD * most:,.0f}) | "
        f"{f'{1e4 * spared_usd / WRONG_USD:.1f}' if spared_usd > 0 else 'none'} |"
        for name, (spared_usd, worse, most) in offers.items()
    )
    + f"\n\n{questions:,} questions a month; a wrong answer costs {WRONG_USD} USD. The last column is the break-even. {priced}"
)

# %%
spared_usd, worse, most = offers["brief"]
allowed = spared_usd / WRONG_USD
least = lost_points(rights("text", found), rights("brief", found))[1][0] / 100
pays = True if most < allowed else False if least > allowed or spared_usd <= 0 else None
enough = math.ceil(3 / allowed) if allowed > 0 else 0
book.finding(
    pays,
    f"**Brevity pays at the desk**: it spares {questions * spared_usd:,.0f} USD a month in tokens, and even at the interval's upper end its wrong "
    "answers cost less.",
    f"**Asking for brevity loses money at the desk**: its tokens come to {-questions * spared_usd:+,.0f} USD a month beside the usual ones, "
    f"and its wrong answers to {questions * WRONG_USD * worse:+,.0f} USD.",
    f"**Whether brevity pays at the desk, {len(text)} questions cannot tell.** It spares {questions * spared_usd:,.0f} USD a month and may "
    f"make {1e4 * allowed:.1f} of 10,000 answers wrong for that. To see so few, {enough:,} graded answers without a single new wrong one "
    "would do (three divided by the share). Until somebody has graded them, the desk stays as it is.",
)

# %%
desk_text, desk_brief = text, found[found.form == "brief"]
told = desk_brief["used"].map(lambda u: u.input_tokens).mean() - desk_text["used"].map(lambda u: u.input_tokens).mean()
brief_change = Shortened(
    "desk",
    visible=desk_brief.visible.mean() / desk_text.visible.mean(),
    reasoning=desk_brief.thought.mean() / desk_text.thought.mean(),
    told=max(0.0, told),
)
book.bill(
    "brief answers" if pays else "answers stay as long as they are",
    brief_change if pays else Stays("desk"),
    of="desk",
    wrong=worse if pays else 0.0,
    source=f"Brief against usual answers to {len(text)} questions of six kinds. {priced} {measured.source}",
)

# %% tags=["reasoned"]
run_usd = 12 * questions * 0.001 * (16_000 * OUT_USD)
Markdown(
    "**In words.** A cap does not make answers shorter; it insures against those that never end, and its premium are the answers that it "
    "cuts. An instruction makes them shorter where the model was taught to follow it. A form costs right answers where it takes the "
    "thoughts away, and none of that shows in the price of an answer, only in that of a *correct* one. And where a wrong answer costs "
    f"{WRONG_USD / OUT_USD:,.0f} output tokens, few savings on tokens are worth a single one of them.\n\n"
    f"**When it is different.** Long answers to short questions: the output is then most of the bill. Answers that nobody acts on: a "
    "wrong one costs little. Many runaways: one answer in a thousand that runs to 16,000 tokens costs this desk "
    f"{run_usd:,.0f} USD a year.\n\n"
    "**The pressure relieved**: output tokens, and the GPU time behind them. **Where it moved**: into second calls, into wrong answers, "
    "into an evaluation set that must be kept. **Who pays**: whoever saves sees it on the invoice; whoever answers the phone does not. "
    "**In production**, watch the share of answers with finish reason “length” or “repetition” and their money, by feature; the share "
    "that obey the length they were asked for; and the cost of a correct answer on a graded sample, per version of each prompt."
)

# %% [markdown]
# ### On your own data
#
# Which share of the output tokens that you pay for is in answers that were cut? A log must hold the usage and the finish reason of each
# call; with the model's name you also see the money, and with the feature, how long whole answers are and which cap would waste
# least (exercise 10.1, on your lengths).

# %%
book.on_your_data()

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz("10.q1")

# %%
book.quiz("10.q2")

# %%
book.quiz("10.q3")

# %% [markdown]
# ## Next
#
# **11 · Quantization and speculation**: fewer tokens are one way to less work. The other is less work a token: smaller numbers for the
# weights, and a small model that guesses what the large one will say.

# %%
await book.close()
book.progress()
