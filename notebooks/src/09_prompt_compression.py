# %% [markdown]
# # 09 · Prompt compression: which tokens can go, and does the bill fall?
#
# **The question.** The portal sends 1,144 tokens of instructions before each of 12 million questions a month, keeps
# conversations of 8,000 tokens, and pastes what its tools answer as JSON. “Halve your prompts and you halve your bill”, says
# every guide. Which tokens can go, how do you know before a customer does, at 0.25 USD a wrong answer, and does the bill fall
# at all?
#
# **You will be able to** say for each kind of question how far its prompt shrinks before answers break; hold a compressor
# against random deletion at the same length; say when fewer tokens cost more money; and measure a saving, in place of
# estimating it.
#
# **Time.** {{time}} **Needs.** Chapters 03 and 04. {{needs}}

# %% tags=["imports"]
import asyncio
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import altair as alt
import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy.stats import beta

from labkit.caches import provider
from labkit.cost import price_named, price_request
from labkit.embeddings import embedder
from labkit.lab import examples, families, grade, house_example, label_task, reader_path, thread, wilson, with_shots
from labkit.latency import datasheet_model, hardware, shape
from labkit.ledger import Booked, Ledger
from labkit.portal import PORTAL, Compressed, Machines, Rented, Stays, fleet
from labkit.request import Request, clock, complete, stack
from labkit.shrink import (
    NOTHING,
    Budget,
    ByPerplexity,
    Compact,
    Diverse,
    DropRandom,
    First,
    Holdout,
    KeepDrop,
    Nearest,
    Option,
    OverBudget,
    Protect,
    Remembered,
    RollingSummary,
    ShotsInPrompt,
    Stream,
    Tidy,
    TooFew,
    TransformersScorer,
    Truncate,
    Window,
    adherence,
    both_ways,
    break_even,
    check_gain,
    dry_run,
    five_ways,
    gains,
    keepdrop_card,
    lab_tokens,
    pays,
    purpose,
    scorer_seconds,
)
from labkit.shrink import saving as measured_saving
from labkit.tokens import tokenizer
from labkit.workbook import PALETTE, Figure, live_chart, show
from labkit.workbook.chapters.builds.b09 import missed
from labkit.workbook.chapters.c09 import (
    never_opened,
    played,
    policy_case,
    sentences_at,
    state_after,
    support_case,
)
from labkit.workbook.pictures import draw_picture, prefix_blocks

# %%
book.warm_up()

# %% [markdown]
# ## Predict

# %%
book.predict(
    "09.lossless",
    "A support case's prompt: a template of two pages with blank lines and a warning that stands in it twice, three "
    "paragraphs "
    "that a search found, a short conversation, and eight records of a tool as indented JSON. Which share of its tokens "
    "can go "
    "with nothing lost at all?",
    low=0,
    high=100,
    unit="%",
)

# %%
book.predict(
    "09.half",
    "Half of the tokens of a long returns policy go. A small classifier, trained on which words this very desk's answers "
    "need, "
    "picks them word by word; figures, names and denials stay. What share of the answers is right?",
    low=0,
    high=100,
    unit="%",
)

# %%
book.predict_choice(
    "09.cached",
    "The desk's 1,144 tokens of instructions are halved, once and well: no answer gets worse, and all calls send the "
    "same half. "
    "They had been read from the provider's cache. What becomes of the desk's input bill?",
    options=("it falls by about half", "it falls by less", "it rises"),
)

# %% [markdown]
# ## Run
#
# ### One prompt, taken apart
#
# Begin with what costs no answer. Two shrinkers of the lab remove only what can be put back: `Tidy` takes white space that says
# nothing, and lines and paragraphs that stand there twice; `Compact` writes a tool's JSON as columns, with each key once. Both list
# every **cut** with its reason. Tokens are those of a tokenizer in wide use (Mistral's).

# %%
case = Request(support_case(seed))
count = tokenizer("mistral-tekken").count
tidy = await Tidy().shrink(case)
compact = await Compact(count=count).shrink(replace(case, messages=tidy.after))
lossless = tidy.then(compact)
parts = ["template and handbook", "customer", "call of the tool", "tool's answer", "answer", "customer again"]
taken = pd.DataFrame(
    [
        {"part": part, "before": count(before.content), "tidy": count(middle.content), "left": count(after.content)}
        for part, before, middle, after in zip(parts, case.messages, tidy.after, lossless.after, strict=True)
        if before.content
    ]
)
gone = 100 * (1 - taken.left.sum() / taken.before.sum())
template_spare = 1 - taken.left[0] / taken.before[0]  # of the template alone: used for the bill
assert lossless.lossless
book.reveal("09.lossless", gone, unit="%")

# %%
listed = lossless.explain(46).splitlines()
print("\n".join([*listed[:6], "…", listed[-1]]))

# %%
spare = taken.assign(stays=taken.left, json=taken.tidy - taken.left, twice=taken.before - taken.tidy).melt(
    "part", ["stays", "twice", "json"], "what", "tokens"
)
spare["what"] = spare.what.map({"stays": "stays", "twice": "white space, and said twice", "json": "keys said once"})
order = ["stays", "white space, and said twice", "keys said once"]
show(
    alt.Chart(spare[spare.tokens > 0])
    .mark_bar()
    .encode(
        x=alt.X("tokens:Q", title="tokens"),
        y=alt.Y("part:N", title=None, sort=list(taken.part)),
        color=alt.Color(
            "what:N",
            title=None,
            sort=order,
            scale=alt.Scale(domain=order, range=[PALETTE["grey"], PALETTE["sky"], PALETTE["orange"]]),
        ),
    )
    .properties(title=f"{gone:.0f} % of {taken.before.sum():,} tokens go, and nothing is lost"),
    alt="Tokens of the prompt by part. " + " ".join(f"{r.part}: {r.left} of {r.before} stay." for r in taken.itertuples()),
    source="Computed in this run; every cut can be undone.",
)

# %% [markdown]
# That was free. All that follows can cost answers, so it needs the one thing that most tools leave out: somebody who knows the
# right answer.
#
# ### Half of a policy
#
# The lab's large model decides returns by a policy: twelve kinds of goods, each with its window, three rules on members, opened
# and late goods, and thirty sentences that decide nothing. A LoRA adapter, *context*, has taught it to read telegraph style and
# conversations, as models a thousand times its size do. The right answers are known to a program, so a lost one is
# counted, not guessed. Six compressors:
#
# | compressor | drops first | after |
# |---|---|---|
# | *sentences near the question* | sentences unlike the question, by an embedder | Provence and other extractors, without their training |
# | *words the question makes likelier* stay | words that the question does not make more probable | LongLLMLingua |
# | *words that surprise* stay | words that a small language model expects | Selective Context, LLMLingua |
# | *words a classifier keeps* | words that the lab's own answers did not need | LLMLingua-2 |
# | *words at random* | words drawn by lot | control |
# | *the end cut off* | all that is too much, from the end | control |
#
# The first one may drop sentences whole, but not the three rules. The others keep figures, names, dates and denials, whatever they
# score. Each is judged by the share of tokens that it *really* left.

# %% tags=["constants"]
ADAPTER = "context"
RATES = book.pick(ci=(0.5, 0.2), learn=(0.8, 0.5, 0.3, 0.2))  # share of the prompt's tokens that may stay
RULES = Protect((r"(?:Members|Opened goods|Late goods) get [^.]*\.",))

# %%
live = await book.connect("large", adapters=(ADAPTER,))
PRICE, WRONG = price_named(PORTAL.desk.large), float(PORTAL.wrong_answer_usd)
FRESH = float(PRICE.rates.fresh_input) / 1e6  # USD a token
near = Remembered(embedder())  # sentences come back, so their vectors are kept
reader = TransformersScorer(str(reader_path()))


def desk(request):
    """The engine, asked for the adapter."""
    return live(replace(request, model=ADAPTER))


async def answered(tasks, prompts, handler=desk, at_once=16):
    """A row for each task, asked with its prompt: whether the answer was right, and the tokens."""
    gate = asyncio.Semaphore(at_once)

    async def one(task, messages):
        async with gate:
            got = await complete(handler, Request(tuple(messages), max_tokens=task.max_tokens))
        return {"right": float(grade(task, got.text)), "input": got.done.usage.input_tokens}

    return await asyncio.gather(*(one(task, messages) for task, messages in zip(tasks, prompts, strict=True)))


def tokens_of(messages):
    return sum(lab_tokens(m.content) for m in messages)


# %%
def compressors(task, rate):
    return {
        "sentences near the question": sentences_at(near, task, rate, RULES),
        "words the question makes likelier": ByPerplexity(scorer=reader, question=True, rate=rate),
        "words that surprise": ByPerplexity(scorer=reader, rate=rate),
        "words a classifier keeps": KeepDrop(rate=rate),
        "words at random": DropRandom(rate=rate, seed=seed),
        "the end cut off": Truncate(rate=rate),
    }


NAMES = list(compressors(policy_case("test", 0), 0.5))


async def cut_by(tasks, name, rate):
    """The tasks' prompts, shortened."""
    return [(await compressors(task, rate)[name].shrink(Request(task.messages))).after for task in tasks]


async def long_policies():
    tasks = [policy_case("test", i, seed) for i in range(book.pick(ci=2, learn=40))]
    whole = await answered(tasks, [task.messages for task in tasks])
    rows = [{"by": "whole", "rate": 1.0, "left": 1.0, "case": i, **row} for i, row in enumerate(whole)]
    for rate in RATES:
        for name in NAMES:
            prompts = await cut_by(tasks, name, rate)
            for i, row in enumerate(await answered(tasks, prompts)):
                left = tokens_of(prompts[i]) / tokens_of(tasks[i].messages)
                rows.append({"by": name, "rate": rate, "left": left, "case": i, **row})
    return pd.DataFrame(rows)


halves = await book.measure("long policies", long_policies)
long = halves.value
whole_right = 100 * long[long.by == "whole"].right.mean()
at_half = long[long.rate == 0.5].groupby("by")[["right", "left"]].mean() * 100

# %%
book.reveal("09.half", at_half.right["words a classifier keeps"], unit="%")

# %%
drawn = (
    long[long.by != "whole"].groupby(["by", "rate"]).agg(right=("right", "sum"), n=("right", "size"), left=("left", "mean"))
)
drawn = drawn.reset_index()
drawn[["low", "high"]] = [[100 * end for end in wilson(int(r.right), int(r.n))] for r in drawn.itertuples()]
drawn["percent"], drawn["stays"] = 100 * drawn.right / drawn.n, 100 * drawn.left
hue = dict(zip(NAMES, ("green", "sky", "pink", "blue", "grey", "orange"), strict=True))
x = alt.X("stays:Q", title="tokens that stay, really (%)", scale=alt.Scale(domain=[0, 100]))
base = alt.Chart(drawn).encode(
    x=x,
    color=alt.Color(
        "by:N", title=None, sort=NAMES, scale=alt.Scale(domain=NAMES, range=[PALETTE[hue[name]] for name in NAMES])
    ),
)
best = drawn.sort_values(["percent", "stays"], ascending=[False, True]).iloc[0]
show(
    (
        base.mark_line().encode(y=alt.Y("percent:Q", title="right answers (%)", scale=alt.Scale(domain=[0, 100])))
        + base.mark_point(filled=True, size=60).encode(y="percent:Q", tooltip=["by:N", "stays:Q", "percent:Q"])
        + alt.Chart(pd.DataFrame({"whole": [whole_right]}))
        .mark_rule(strokeDash=[4, 3], color=PALETTE["grey"])
        .encode(y="whole:Q")
    ).properties(
        title=f"Of {best.stays:.0f} % of the tokens, “{best.by}” still answers {best.percent:.0f} % right", height=300
    ),
    alt=f"Right answers against the tokens that stay; whole prompts: {whole_right:.0f} %. "
    + " ".join(f"{r.by}, {r.stays:.0f} % left: {r.percent:.0f} % right." for r in drawn.itertuples()),
    source=f"{int(drawn.n.max())} cases each; dashed: the whole prompt. {halves.source}",
)

# %%
floor_left = long[(long.rate == min(RATES)) & long.by.isin(NAMES[2:])].left.mean()
compared = long[long.by != "whole"].pivot_table(index=["rate", "case"], columns="by", values="right")
verdicts = []
for name in NAMES[:4]:
    wins = int(((compared[name] == 1) & (compared["words at random"] == 0)).sum())
    losses = int(((compared[name] == 0) & (compared["words at random"] == 1)).sum())
    low, high = wilson(wins, wins + losses) if wins + losses else (0.0, 1.0)
    beats = "beats it" if low > 0.5 else "is beaten by it" if high < 0.5 else "cannot be told from it"
    verdicts.append(f"*{name}* {beats} ({wins} cases to {losses})")
Markdown(
    "**Against random deletion**, asked for the same length, case by case: "
    + "; ".join(verdicts)
    + ". Who cannot be told from it has learned nothing that shows here, whatever the ratio. No dropper of words got below "
    f"{100 * floor_left:.0f} % of the tokens, whatever it was asked for: the rest is protected."
)

# %% [markdown] tags=["reasoned"]
# Why do whole sentences do so well here, with a plain embedder that never saw the task? A policy's facts are sentences, and each case
# needs one or two of them. Whoever drops *words* takes something from each fact; whoever drops *sentences* takes most of them whole and
# leaves the right ones intact. A fact should leave whole, or stay whole. In text without such units, a contract's clauses say,
# that changes.
#
# ### How far each kind of question shrinks
#
# Now the desk's seven kinds of questions. Their prompts are short already, so there is less to take. For each kind we look for the
# shortest length at which a floor is still proved: with 95 % confidence, no smaller share than so many of the answers stays right.


# %%
async def by_kind():
    rows = []
    for family in families():
        tasks = list(examples("test", family, book.pick(ci=1, learn=30), 90 + seed))
        whole = await answered(tasks, [task.messages for task in tasks])
        rows += [{"kind": family, "by": "whole", "rate": 1.0, "left": 1.0, **row} for row in whole]
        for rate in book.pick(ci=(0.7,), learn=(0.85, 0.7, 0.5)):
            for name in ("words a classifier keeps", "words at random"):
                prompts = await cut_by(tasks, name, rate)
                for task, prompt, row in zip(tasks, prompts, await answered(tasks, prompts), strict=True):
                    left = tokens_of(prompt) / tokens_of(task.messages)
                    rows.append({"kind": family, "by": name, "rate": rate, "left": left, **row})
    return pd.DataFrame(rows)


kinds_measured = await book.measure("the seven kinds", by_kind)
kinds = kinds_measured.value

# %%
each = (
    kinds.groupby(["kind", "by", "rate"])
    .agg(right=("right", "mean"), left=("left", "mean"), n=("right", "size"))
    .reset_index()
)
each = each.assign(percent=100 * each.right, stays=100 * each.left)
wholes = each[each.by == "whole"]
lines = pd.concat(
    [each[each.by != "whole"], *(wholes.assign(by=name) for name in ("words a classifier keeps", "words at random"))]
)
show(
    alt.Chart(lines)
    .mark_line(point=True)
    .encode(
        x=alt.X("stays:Q", title="stay (%)", scale=alt.Scale(domain=[40, 100])),
        y=alt.Y("percent:Q", title="right (%)", scale=alt.Scale(domain=[0, 100])),
        color=alt.Color(
            "by:N",
            title=None,
            scale=alt.Scale(
                domain=["words a classifier keeps", "words at random"], range=[PALETTE["blue"], PALETTE["grey"]]
            ),
        ),
    )
    .properties(width=130, height=90)
    .facet(facet=alt.Facet("kind:N", title=None, sort=list(families())), columns=4),
    alt="Right answers by kind of question, against the tokens that stay. "
    + " ".join(f"{r.kind}, {r.by}, {r.stays:.0f} % left: {r.percent:.0f} %." for r in each.itertuples()),
    source=f"Stay: tokens of the prompt. {int(each.n.max())} questions of each kind. {kinds_measured.source}",
)


# %%
def floors(floor=0.9):
    """By kind: the least share of tokens at which the classifier's prompts prove the floor, and the questions asked."""
    prover, rows = book.reference("09.5")(floor), []
    for kind, own in kinds[kinds.by.isin(["whole", "words a classifier keeps"])].groupby("kind", sort=False):
        seen = {rate: (int(of.right.sum()), len(of)) for rate, of in own.groupby("rate")}
        rate = prover.calibrate({r: n for r, n in seen.items() if r < 1})
        proved = rate < 1 or prover.lower(*seen[1.0]) >= floor
        rows.append(
            {"kind": kind, "tokens that stay": f"{100 * own[own.rate == rate].left.mean():.0f} %" if proved else "–"}
        )
    return pd.DataFrame(rows).set_index("kind")


floors().T

# %% [markdown]
# That is the share of its tokens at which each kind proves 90 % right answers, with the words that the classifier keeps. Where a dash
# stands, even the whole prompts do not prove it: too few questions were asked, or too many were wrong before.

# %% [markdown] tags=["further"]
# ### Asked and got
#
# A tool that is asked for half may leave two thirds. Users of LLMLingua report that below 150 tokens hardly anything goes, and that above
# 5,000 too much does (microsoft/LLMLingua, issue 195). Here is what the lab's classifier was asked for and what it left, in the tokens of
# the model that will answer. Where protected text needs more than was asked for, it says so, and does not drop it.

# %%
lengths = {"a policy": 0, "a long one": 30, "a very long one": 110}
asked_for = {
    name: await adherence(KeepDrop(rate=0.6), [Request(policy_case("test", i, seed, n).messages) for i in range(3)])
    for name, n in lengths.items()
}
pd.DataFrame(
    [
        {
            "prompt": name,
            "tokens": f"{np.mean([a.before for a in rows]):,.0f}",
            "asked for": f"{100 * np.mean([a.asked / a.before for a in rows]):.0f} %",
            "got": f"{100 * np.mean([a.got / a.before for a in rows]):.0f} %",
            "held back by protected text": f"{sum(a.held_back for a in rows)} of {len(rows)}",
        }
        for name, rows in asked_for.items()
    ]
).set_index("prompt")

# %% [markdown] tags=["further"]
# ### It learned the lab, not English
#
# The classifier's card says how it did on words of prompts that it was not trained on, each word taken out alone and the engine asked
# again. “Needed” is a word without which a right answer turned wrong.

# %%
card = keepdrop_card()
judged = pd.DataFrame(card["figures"]).T
(100 * judged[["could_go", "precision", "needed_words_found"]]).round(0).astype(int).astype(str).add(" %").set_axis(
    ["words that could go", "right, where it lets a word go", "needed words that it found"], axis=1
)

# %%
far, blind = card["elsewhere"], [kind for kind, of in card["figures"].items() if of["needed_words_found"] == 0]
Markdown(
    f"Where it lets a word go it is right {100 * judged.precision['all']:.0f} times in 100, but {100 * judged.could_go['all']:.0f} of 100 "
    f"words could go anyway. Of the words that an answer needed it knew {100 * judged.needed_words_found['all']:.0f} %"
    + (f", and none for {' and '.join(f'*{kind}*' for kind in blind)}" if blind else "")
    + f". And on {far['words']:,} words of a software licence it would drop **{100 * far['negations_dropped']:.0f} % of the negations** "
    f"to get down to {100 * far['rate']:.0f} % of the words; a draw by lot drops {100 * (1 - far['rate']):.0f} %. So: only with "
    f"protection, and on prompts like those it was taught. *(Its recorded card: made {card['made']} from "
    f"{card['tried']['train']:,} tries on the train split, judged by {card['tried']['test']:,} on the test split.)*"
)

# %% [markdown] tags=["further"]
# ### To a budget, and its bill before anything is sent
#
# Which shrinkers, in which order? `Budget` takes each with the loss that was measured, here by the chart above, searches all mixes for
# the one that reaches the length and loses least, and says what it did. Lossless ones cost nothing, so they go first. `dry_run` prices the
# prompt as it is and as it would go out. The support case from the beginning, by the lab's tokenizer:

# %%
half_cut = long[(long.by == "words a classifier keeps") & (long.rate == 0.5)].right
lossy = Option(KeepDrop(rate=0.5), loss=max(0.0, whole_right / 100 - half_cut.mean()), name="KeepDrop to a half")
all_tokens, planned = tokens_of(case.messages), []
for share in (0.5, 0.3, 0.25):
    budget = Budget(int(share * all_tokens), (Tidy(), Compact(), lossy))
    row = {"budget": f"{budget.tokens} tokens, {100 * share:.0f} %"}
    try:
        mix = await budget.mix(case)
        dry = await dry_run(case, tuple(option.shrinker for option in mix.used), PRICE, output_tokens=PORTAL.desk.output)
        row |= {"by": ", ".join(option.name for option in mix.used), "tokens": f"{mix.tokens}"}
        row["saves a call (USD)"] = f"{dry.saved:.6f}"
        row["lost, at most"] = f"{100 * mix.loss:.0f} %"
        row["wrong answers cost (USD)"] = f"{mix.loss * WRONG:.6f}"
    except OverBudget as no:
        row["by"] = f"refused: it takes {no.needed} tokens at least"
    planned.append(row)
pd.DataFrame(planned).fillna("–").set_index("budget")

# %% [markdown] tags=["further"]
# The money saved and the money lost stand side by side. The loss is what the long policies lost, and stands in for this case's own,
# which you would measure.

# %% [markdown] tags=["further"]
# ### The model that never read telegraph style
#
# The same prompts for the base model, without the adapter. What a prompt can spare depends on who reads it: a ratio from somebody
# else's model says nothing about yours.


# %%
async def base_reads():
    tasks = [policy_case("test", i, seed) for i in range(book.pick(ci=2, learn=40))]
    rows = []
    for name, rate in (("words a classifier keeps", 0.8), ("sentences near the question", 0.3)):
        prompts = await cut_by(tasks, name, rate)
        for who, handler in (("base model", live), ("with the adapter", desk)):
            shown = f"{name}, {100 * rate:.0f} % asked for"
            rows += [{"prompt": shown, "who": who, **row} for row in await answered(tasks, prompts, handler)]
    return pd.DataFrame(rows)


readers = await book.measure("two readers of the same prompts", base_reads)
both = readers.value.groupby(["prompt", "who"]).agg(sum_=("right", "sum"), n=("right", "size"))
both["right"] = [f"{r.sum_:.0f} of {r.n}" for r in both.itertuples()]
both["right"].unstack()

# %% [markdown]
# ### One word too many
#
# “I bought a kayak 20 days ago and never opened it.” Whoever drops *never* has asked another question, and gets the right answer to
# that one. Below, only that word goes; and then the three rules, which name nothing that the question does and therefore go first when
# sentences are chosen by likeness and nobody protects them.


# %%
async def hurt():
    n = book.pick(ci=3, learn=40)
    kept, rows = never_opened("test", n, seed), []
    denied = [
        [m if m.role != "user" else replace(m, content=m.content.replace("never ", "")) for m in t.messages] for t in kept
    ]
    tasks = [policy_case("test", i, seed + 1) for i in range(n)]
    arms = {"whole": (kept, [t.messages for t in kept]), "without “never”": (kept, denied)}
    for name, protect in (("rules protected", RULES), ("nothing protected", NOTHING)):
        cut = [(await sentences_at(near, t, 0.25, protect).shrink(Request(t.messages))).after for t in tasks]
        arms[name] = (tasks, cut)
    arms["whole, other cases"] = (tasks, [t.messages for t in tasks])
    for name, (some, prompts) in arms.items():
        saved = [tokens_of(t.messages) - tokens_of(p) for t, p in zip(some, prompts, strict=True)]
        rows += [{"prompt": name, "saved": s, **row} for s, row in zip(saved, await answered(some, prompts), strict=True)]
    return pd.DataFrame(rows)


hurting = await book.measure("what must not go", hurt)
pain = hurting.value.groupby("prompt").agg(right=("right", "sum"), asked=("right", "size"), saved=("saved", "mean"))

# %%
rows = []
for name, beside in (
    ("without “never”", "whole"),
    ("rules protected", "whole, other cases"),
    ("nothing protected", "whole, other cases"),
):
    own, ref = pain.loc[name], pain.loc[beside]
    more_wrong = max(0.0, ref.right / ref.asked - own.right / own.asked)
    usd, price = FRESH * own.saved, f"{FRESH * own.saved / more_wrong:.6f}" if more_wrong else "–"
    rows.append(
        {
            "prompt": name,
            "tokens less": f"{own.saved:.0f}",
            "right": f"{own.right:.0f} of {own.asked:.0f}",
            "right with all of it": f"{ref.right:.0f} of {ref.asked:.0f}",
            "saved a call (USD)": f"{usd:.7f}",
            "wrong answers cost a call (USD)": f"{WRONG * more_wrong:.5f}",
            "sold for (USD a wrong answer)": price,
        }
    )
pd.DataFrame(rows).set_index("prompt")

# %% [markdown] tags=["reasoned"]
# The last column is the break-even: what a wrong answer may cost at most for the cut to pay. The portal's cost 0.25 USD. So protect
# by rule, and before any score: denials, figures, names, what obliges or forbids; and mark the rules that bear on every question. The
# lab's shrinkers refuse a cut that would remove such text, or glue two pieces into new.

# %% [markdown]
# ### A conversation that grows
#
# The assistant sends all that was said with each turn. Here are conversations about an order that changes as they go on, a third of it
# small talk, asked three times how the order stands. Four ways: all of it; the last three turns; the last three turns and older ones
# that hold a fact; and a rolling summary, which the same model writes every three turns. The summary's own tokens are booked, as a purpose
# of their own.


# %%
histories = {
    "all of it": None,
    "last 3 turns": Window(3, protect=NOTHING),
    "last 3 and facts": Window(3),
    "summary": RollingSummary(
        desk,
        every=3,
        keep=3,
        question="How does the order stand?",
        stands=("So far: {summary}.", "Noted."),  # in the place of the turns that are summed up
        protect=NOTHING,
        max_tokens=160,
    ),
}


# %%
async def conversations():
    run = f"{book.seed}-{clock.unix_now():.3f}"  # a cache of this run's own
    threads = [thread("test", i, turns=12, chatter=0.35, seed=seed) for i in range(book.pick(ci=2, learn=25))]
    rows = []

    async def talk(way, handler, number, told):
        for turn in (4, 8, 12):
            task = state_after(told, turn)
            own = {"cache_salt": f"{run}-{way}-{number}".replace(" ", "-")}
            got = await complete(handler, Request(task.messages, max_tokens=160, feature="chat", extra=own))
            rows.append({"way": way, "turn": turn, "right": float(grade(task, got.text)), **spent(got.done.usage)})

    for way, shrinker in histories.items():
        ledger = Ledger(":memory:")
        books = Booked(ledger, {ADAPTER: PRICE, live.model: PRICE}, provider="lab")
        handler = stack(*([shrinker] if shrinker else []), books, engine=desk)
        await asyncio.gather(*(talk(way, handler, number, told) for number, told in enumerate(threads)))
        sums = [row.usage for row in ledger.rows() if row.feature == purpose("chat")]
        rows += [{"way": way, "turn": 0, "right": None, **spent(usage)} for usage in sums]
    return pd.DataFrame(rows)


def spent(usage):
    """The usage of a call, and its price."""
    usd = float(price_request(usage, PRICE).total)
    return {"input": usage.input_tokens, "cached": usage.cached_tokens, "output": usage.output_tokens, "usd": usd}


# %%
talks = await book.measure("conversations", conversations)
by_way = talks.value.groupby("way", sort=False)
asked_rows = talks.value[talks.value.turn > 0]
ways = pd.DataFrame(
    {
        "right": asked_rows.groupby("way", sort=False).right.sum(),
        "asked": asked_rows.groupby("way", sort=False).size(),
        "input": asked_rows.groupby("way", sort=False).input.sum(),
        "cached": asked_rows.groupby("way", sort=False).cached.sum(),
        "answers": asked_rows.groupby("way", sort=False).usd.sum(),
        "usd": by_way.usd.sum(),
    }
)
full = ways.loc["all of it"]
pd.DataFrame(
    {
        "right": [f"{r.right:.0f} of {r.asked:.0f}" for r in ways.itertuples()],
        "prompts, % of all tokens": (100 * ways.input / full.input).round(0).astype(int),
        "from the cache, %": (100 * ways.cached / ways.input).round(0).astype(int),
        "the answers' bill, %": (100 * ways.answers / full.answers).round(0).astype(int),
        "with the summaries, %": (100 * ways.usd / full.usd).round(0).astype(int),
    },
    index=ways.index,
)

# %%
summary_way, window_way = ways.loc["summary"], ways.loc["last 3 turns"]
book.finding(
    bool(summary_way.usd < full.usd),
    f"The summary takes {100 * (1 - summary_way.answers / full.answers):.0f} % off the answers' bill, and its own calls put "
    f"{100 * (summary_way.usd - summary_way.answers) / full.answers:.0f} % on it: together it saves here.",
    f"The summary takes {100 * (1 - summary_way.answers / full.answers):.0f} % off the answers' bill, and its own calls put "
    f"{100 * (summary_way.usd - summary_way.answers) / full.answers:.0f} % on it: **together it costs more than it "
    f"saves.** A summary "
    "reads what it sums up and writes at the output's price; it pays where a history is long and is sent many times after.",
)

# %% [markdown]
# ### Fewer examples
#
# Labels by example: the prompt shows 24 messages with invented labels, and the reader is to label one more alike. Which of the 24
# does it need? *Nearest* takes those most like the question, by the embedder; *diverse* takes near ones that are not all alike (maximal
# marginal relevance).
#
# The lab's model is too small to learn from examples: an adapter that was taught nothing else for 3,000 steps did no better than
# chance. So no answer is asked for here. What can be counted without a model is what every reader needs: whether an example
# with the right label is still there. Where none is, no model of any size can know the word.


# %%
async def few_shots():
    tasks = [label_task("test", i, intents=6, per_intent=4, seed=seed) for i in range(book.pick(ci=12, learn=100))]
    wholes = [with_shots(task, task.pool) for task in tasks]
    arms = {
        "all 24": None,
        "first 8": ShotsInPrompt(24, k=8, pick=First()),
        "nearest 8": ShotsInPrompt(24, k=8, pick=Nearest(near)),
        "nearest 3": ShotsInPrompt(24, k=3, pick=Nearest(near)),
        "diverse 8": ShotsInPrompt(24, k=8, pick=Diverse(near, 0.7)),
    }
    rows = []
    for name, arm in arms.items():
        prompts = [(await arm.shrink(Request(t.messages))).after if arm else t.messages for t in wholes]
        for task, prompt in zip(wholes, prompts, strict=True):
            there = any(m.role == "assistant" and m.content == task.answer for m in prompt)
            rows.append({"examples": name, "there": float(there), "tokens": tokens_of(prompt)})
    return pd.DataFrame(rows)


shots = await book.measure("examples", few_shots)
shot = shots.value.groupby("examples", sort=False).agg(
    there=("there", "sum"), n=("there", "size"), tokens=("tokens", "mean")
)
shot[["low", "high"]] = [[100 * end for end in wilson(int(r.there), int(r.n))] for r in shot.itertuples()]
shot = shot.assign(percent=100 * shot.there / shot.n).reset_index()

# %%
point = alt.Chart(shot).encode(x=alt.X("tokens:Q", title="tokens of the prompt"))
few = shot.set_index("examples")
show(
    (
        point.mark_rule(strokeWidth=2, color=PALETTE["grey"]).encode(
            y=alt.Y("low:Q", title="the right label is among them (%)"), y2="high:Q"
        )
        + point.mark_point(filled=True, size=90, color=PALETTE["blue"]).encode(y="percent:Q")
        + point.mark_text(dx=8, align="left").encode(y="percent:Q", text="examples:N")
    ).properties(
        title=f"Eight near examples of 24: {100 * few.tokens['nearest 8'] / few.tokens['all 24']:.0f} % of the tokens, "
        f"and for {few.percent['nearest 8']:.0f} % of the questions the right label is among them; "
        f"of the first eight, {few.percent['first 8']:.0f} %"
    ),
    alt="Questions whose right label is among the examples, against tokens. "
    + " ".join(f"{r.examples}: {r.tokens:.0f} tokens, {r.percent:.0f} %." for r in shot.itertuples()),
    source=f"{int(shot.n.max())} questions each, with intervals of 95 %. {shots.source}",
)

# %% [markdown] tags=["reasoned"]
# Mind the cache, though: the same examples for everybody are a stable prefix, and examples that fit the question are not. Which brings us to
# the second half of the question: does the bill fall?
#
# ### Against the prefix cache
#
# One policy for all, a dozen questions, and the engine with its cache. The classifier shortens to 60 % in three ways: each prompt as a
# whole, which writes another beginning for every question; only what stands *behind* the policy; or the policy *once*, the same
# short text for all. Here is what the first way does to the cache's blocks, with words for tokens: Ann keeps the line on tents, Ben
# the one on boots, and from there on nothing is found, not even the line that both have.

# %%
head, both, end = ["You", "are", "the", "desk"], ["Late", ":", "no", "."], ["is", "it", "OK", "?"]
kept_by = {"Ann": [*head, "Tent", "30", "d", ".", *both, *end], "Ben": [*head, "Boot", "9", "d", ".", *both, *end]}
draw_picture(prefix_blocks(kept_by))

# %% [markdown]
# Now live. The engine counts its own hits; the tokens are priced at the desk's list price.


# %%
async def each_way():
    questions = [
        Request(house_example("test", i, seed=seed).messages, max_tokens=96) for i in range(book.pick(ci=3, learn=14))
    ]
    block = int((await live.metrics()).cache_config["block_size"])
    trips = await both_ways(desk, questions, five_ways(KeepDrop(rate=0.6)), tokenizer("lab"), block)
    return pd.DataFrame(
        [{"way": t.way, "number": t.number, "foretold": t.predicted, "seconds": t.shrink_s, **spent(t.usage)} for t in trips]
    )


trips = await book.measure("against the prefix cache", each_way)
later = trips.value[trips.value.number > 0]  # the first request finds nothing, whichever way
way_means = later.groupby("way", sort=False)[["input", "cached", "usd", "seconds"]].mean()
input_usd = later.assign(usd=(later.input - later.cached) * FRESH + later.cached * float(PRICE.rates.cached_input) / 1e6)
way_means["input usd"] = input_usd.groupby("way").usd.mean()
plain = way_means.loc["untouched"]

# %%
desk_stream = Stream(PORTAL.desk.instructions, PORTAL.desk.question, PRICE, provider.RULES[PORTAL.desk.cache_terms])
half = break_even(desk_stream, "once", 0.5)
ratio = float(half.after / half.before)
book.reveal("09.cached", "it rises" if ratio > 1 else "it falls by about half" if ratio < 0.6 else "it falls by less")

# %%
named = {
    "no cache": "no cache at all", "untouched": "whole prompts", "each": "each prompt its own way",
    "behind": "only behind the policy", "once": "the policy, once",
}  # fmt: skip
told = pd.DataFrame(
    {
        "tokens read": way_means.input.round(0).astype(int),
        "from the cache": way_means.cached.round(0).astype(int),
        "tokens, % of whole": (100 * way_means.input / plain.input).round(0).astype(int),
        "input bill, % of whole": (100 * way_means["input usd"] / plain["input usd"]).round(0).astype(int),
    }
).rename(index=named)
missed_hits = int((later.foretold != later.cached).sum())
told

# %%
each, behind, once = (way_means.loc[name] for name in ("each", "behind", "once"))
times_as_much = each["input usd"] / plain["input usd"]
book.finding(
    bool(times_as_much > 1),
    f"**Fewer tokens, more money.** Each prompt cut its own way: {100 * (1 - each.input / plain.input):.0f} % fewer "
    f"tokens and "
    f"{times_as_much:.1f} times the input bill, for they soon begin to differ, and the cache served {each.cached:.0f} "
    f"tokens in place of "
    f"{plain.cached:.0f}. Cut once, the policy costs {100 * once['input usd'] / plain['input usd']:.0f} % of the bill: "
    f"only full blocks are "
    f"cached, and what is left over costs the full price. The cache's hits were foretold to the token for "
    f"{len(later) - missed_hits} of "
    f"{len(later)} requests.",
    f"Here, cutting each prompt its own way cost {100 * times_as_much:.0f} % of the whole prompts' input bill: the "
    f"engine had served "
    f"{plain.cached:.0f} of {plain.input:.0f} tokens from its cache, too few to lose.",
)

# %% [markdown] tags=["reasoned"]
# A study of 2,908 billed runs found the same at large: an arm with 38 % fewer tokens from tools cost 6.8 % more (*Token Reduction Is Not Cost
# Reduction*, arXiv 2607.12161, 2026). So: compress behind the stable prefix, or once, and send that same text from then on.
#
# But even “once” has a trap at a provider. It caches no prefix below a minimum, 1,024 tokens at the desk's, and counts in steps. Here is the
# desk's input bill for each length to which its 1,144 tokens of instructions could be cut, once and for all:

# %%
calls = PORTAL.questions * (1 + PORTAL.desk.retries)
window = pays(desk_stream, "once")
bills = pd.DataFrame(
    [
        {"left": n, "usd": float(replace(desk_stream, prefix=n).input_usd) * calls}
        for n in range(0, PORTAL.desk.instructions + 1, 8)
    ]
    + [{"left": 1024, "usd": float(replace(desk_stream, prefix=1024).input_usd) * calls}]
).sort_values("left")
now_usd = float(desk_stream.input_usd) * calls
best_left = book.reference("09.3")(
    PORTAL.desk.instructions // 2, PORTAL.desk.instructions, 1024, 128, 1, 1, *(int(1000 * rate) for rate in (
        PRICE.rates.fresh_input, PRICE.rates.cached_input, PRICE.rates.fresh_input)),
)  # fmt: skip
show(
    (
        alt.Chart(bills)
        .mark_line(color=PALETTE["blue"])
        .encode(
            x=alt.X("left:Q", title="tokens of instructions left"),
            y=alt.Y("usd:Q", title="the desk's input, USD a month", axis=alt.Axis(format=",.0f")),
        )
        + alt.Chart(pd.DataFrame({"usd": [now_usd]})).mark_rule(strokeDash=[4, 3], color=PALETTE["grey"]).encode(y="usd:Q")
    ).properties(
        title=f"{PORTAL.desk.instructions // 2} tokens of instructions cost {ratio:.1f} times what "
        f"{PORTAL.desk.instructions:,} cost"
    ),
    alt=f"The input bill against the tokens left. As it is: {now_usd:,.0f} USD. Halved: {ratio * now_usd:,.0f} USD. It "
    f"pays to leave " + " or ".join(f"{a:,} to {b:,} tokens" for a, b in window) + ".",
    source=f"Computed: {PORTAL.desk.cache_terms}, every call finds its prefix; {PRICE.model}, {PRICE.source}, "
    f"{PRICE.as_of}. Dashed: as it is.",
)

# %% tags=["reasoned"]
Markdown(
    f"It saves money to leave {' or '.join(f'{a:,} to {b:,}' for a, b in window)} of the {PORTAL.desk.instructions:,} "
    f"tokens. In "
    "between, each cut costs money: below the minimum nothing is cached, and all of it is bought at the full price again."
)

# %% [markdown]
# ### Measured, not estimated
#
# “We saved 12 %” is often tokens before against tokens after, of the prompts that were shortened. What they would have cost otherwise,
# with its cache hits and its second questions, nobody saw. So leave some conversations, here one in five, as they are, chosen by their key, and compare.
# Below, conversations of 2 to 15 turns are played through a stack with such a **holdout**, their tokens counted and priced, no model
# asked. `Window(3)` shortens them, and since all of them are also played without it, the true saving is known.

# %%
played_once = await played(Holdout(Window(3, protect=NOTHING), share=0.2, name="chapter 09"), 200, seed, PRICE)
seen = measured_saving(played_once.rows, played_once.holdout)
truth = played_once.truth

# %%
Markdown(
    str(seen)
    if isinstance(seen, TooFew)
    else f"From {seen.keys['shrunk']} shortened and {seen.keys['untouched']} untouched conversations: **{100 * seen.usd.saved:.0f} % "
    f"less money** ({100 * seen.usd.low:.0f} to {100 * seen.usd.high:.0f} %, 95 %), {100 * seen.input_tokens.saved:.0f} "
    f"% fewer input "
    f"tokens. Played both ways, all of them together: {100 * truth:.0f} %, "
    + ("within the interval." if seen.usd.low <= truth <= seen.usd.high else "outside of it, as happens one time in twenty.")
)

# %%
judge, draw = book.reference("09.4"), book.rng("headlines")
by_key = played_once.costs  # of every conversation, shortened and whole: the cost of each call
true_call = 1 - np.mean(np.concatenate(list(by_key["shrunk"].values()))) / np.mean(
    np.concatenate(list(by_key["whole"].values()))
)
drawn_from = {"a saving of this size": ("shrunk", "whole"), "no saving at all": ("whole", "whole")}
headlines = []
for kind, arms in drawn_from.items():
    for n in (3, 10, 30, 100):
        for _ in range(120):
            keys = draw.sample(sorted(by_key["whole"]), 2 * n)
            one, other = (
                {key: by_key[arm][key] for key in part} for arm, part in zip(arms, (keys[:n], keys[n:]), strict=True)
            )
            found, low, high = judge(one, other, 3)
            is_true = true_call if kind == "a saving of this size" else 0.0
            headlines.append({"kind": kind, "keys": n, "percent": 100 * found, "holds": low <= is_true <= high})
drawn_lines = pd.DataFrame(headlines)
three, hundred = (drawn_lines[(drawn_lines["keys"] == n) & (drawn_lines.kind == "no saving at all")] for n in (3, 100))

# %%
show(
    alt.Chart(drawn_lines)
    .mark_tick(color=PALETTE["blue"], opacity=0.5)
    .encode(
        x=alt.X("percent:Q", title="“saved” (%)"),
        y=alt.Y("keys:O", title="conversations in each group"),
    )
    .properties(width=260, height=140)
    .facet(column=alt.Column("kind:N", title=None, sort=list(drawn_from))),
    alt="Savings that groups of conversations would report. "
    + " ".join(
        f"{kind}, {n} conversations: {own.percent.min():.0f} to {own.percent.max():.0f} %."
        for (kind, n), own in drawn_lines.groupby(["kind", "keys"], sort=False)
    ),
    source=f"Each tick: two groups drawn from {len(by_key['whole'])} played conversations. Truth: {100 * true_call:.0f} "
    f"% and 0 %.",
)

# %%
Markdown(
    f"Where nothing was saved at all, three conversations against three reported anything from {three.percent.min():.0f} to "
    f"{three.percent.max():+.0f} %, a hundred from {hundred.percent.min():.0f} to {hundred.percent.max():+.0f} %. Of all "
    f"these intervals "
    f"{100 * drawn_lines.groupby('keys').holds.mean()[100]:.0f} % held the truth with a hundred conversations, and "
    f"{100 * drawn_lines.groupby('keys').holds.mean()[3]:.0f} % with three. A product once showed “−1,440 %” from three "
    f"stale "
    "samples (headroom, pull request 3127). So: a least number of conversations, and no headline below it."
)

# %% [markdown] tags=["further"]
# ### Does anybody wait less?
#
# A shorter prompt is read sooner, but somebody has to shorten it first. Take Llama 3.1 8B on one H100, an answer of the desk's length, and a
# compressor that reads the prompt once with a model of the same size, with half of it left. The gain end to end, its own time
# included:

# %%
h100 = hardware(PORTAL.assistant.gpu)
target = datasheet_model(shape(PORTAL.assistant.model), h100)
free, reads_first = (lambda tokens: 0.0), scorer_seconds(target)
waits = pd.DataFrame(
    [
        {
            "compressor": who,
            "left": f"{100 * gain.left:.0f} % left",
            "tokens": gain.prompt_tokens,
            "percent": 100 * gain.share,
        }
        for who, took in (("takes no time", free), ("reads it with a model as large", reads_first))
        for gain in gains(target, took, [int(n) for n in np.geomspace(200, 60_000, 16)], (0.5, 0.2), PORTAL.desk.output)
    ]
)
most = waits[waits.compressor == "takes no time"].percent.max()
show(
    alt.Chart(waits)
    .mark_line()
    .encode(
        x=alt.X("tokens:Q", title="tokens of the prompt", scale=alt.Scale(type="log")),
        y=alt.Y("percent:Q", title="sooner done (%)"),
        color=alt.Color(
            "compressor:N",
            title=None,
            scale=alt.Scale(
                domain=["takes no time", "reads it with a model as large"], range=[PALETTE["green"], PALETTE["orange"]]
            ),
        ),
    )
    .properties(width=240)
    .facet(column=alt.Column("left:N", title=None)),
    alt="Gain end to end against the prompt's length. "
    + " ".join(
        f"{who}, {left}: {own.percent.min():.0f} to {own.percent.max():.0f} %."
        for (who, left), own in waits.groupby(["compressor", "left"], sort=False)
    ),
    source=f"Modelled from the datasheet of one {h100.name}, alone on it, {PORTAL.desk.output} tokens of answer.",
)

# %% [markdown] tags=["further"]
# And here, live: whole and shortened in turns, with no cache, the classifier's own time included.


# %%
async def sooner(_):
    policies = [policy_case("test", i, seed + 2, n) for i, n in enumerate(book.pick(ci=(10, 30), learn=(30, 90)))]
    requests = [Request(t.messages, max_tokens=16, extra={"ignore_eos": True}) for t in policies]
    checked = await check_gain(desk, KeepDrop(rate=0.6), requests, rounds=1)
    return [{"tokens": c.prompt_tokens, "left": c.left, "percent": 100 * c.gain.share, "own": c.gain.own_s} for c in checked]


timed = await book.measure("sooner", sooner, rounds=book.pick(ci=2, learn=7))
live_gains = pd.DataFrame([row for rows in timed.value for row in rows])
gain_rounds = live_gains[live_gains.tokens == live_gains.tokens.max()].percent.tolist()
pd.DataFrame(
    [
        {
            "tokens": f"{n:,}",
            "left": f"{100 * own.left.mean():.0f} %",
            "sooner done": f"{own.percent.median():+.0f} % ({own.percent.min():+.0f} to {own.percent.max():+.0f})",
            "compressor's own time": f"{1000 * own.own.median():.0f} ms",
        }
        for n, own in live_gains.groupby("tokens")
    ]
).set_index("tokens")

# %%
book.claim(
    "09.sooner",
    "Prompt compression makes a request faster end to end, by at most 18 %.",
    claimed=(0, 18),
    measured=gain_rounds,
    unit="% of the time end to end",
    where=f"a policy of {live_gains.tokens.max():,.0f} tokens, 16 tokens of answer, a classifier that needs no model's "
    f"reading, this engine",
    by="“Prompt Compression in the Wild”, arXiv 2604.02985, 2026: 30,000 questions on three classes of GPU.",
    unless="The gain is what reading takes of the whole, less the compressor's own time. Long prompts with short answers "
    "gain more; "
    "a compressor that reads the prompt with a model of its own gains less, or nothing.",
    source=timed.source,
)

# %% [markdown]
# ## Move
#
# Where does compression lose money? Set your own prompt: how long its stable beginning is, how many calls find it, what a cached token
# costs beside a fresh one, and how much a compressor leaves. The chart gives the input bill of a call for every share that is left, each way.


# %%
def where(prefix, tail, hits, cached, left, terms):
    rates = PRICE.rates
    price = replace(PRICE, rates=replace(rates, cached_input=rates.fresh_input * round(cached) / 100), tiers=())
    stream = Stream(prefix, tail, price, provider.RULES[terms], hits / 100)
    whole = float(stream.input_usd)
    rows = [
        {"left": share, "way": name, "usd": 100 * float(break_even(stream, way, share / 100).after) / whole}
        for share in range(5, 101, 5)
        for way, name in (("each", "each its own way"), ("behind", "behind the prefix"), ("once", "the prefix, once"))
    ]
    here = {name: 100 * float(break_even(stream, way, left / 100).after) / whole
            for way, name in (("each", "each its own way"), ("behind", "behind the prefix"), ("once", "the prefix, once"))}  # fmt: skip
    said = ", ".join(f"{name} {usd:.0f} %" for name, usd in here.items())
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line()
        .encode(
            x=alt.X("left:Q", title="tokens left, of what the compressor reads (%)"),
            y=alt.Y("usd:Q", title="input bill (% of the whole prompt's)", scale=alt.Scale(domainMin=0)),
            color=alt.Color(
                "way:N",
                title=None,
                scale=alt.Scale(domain=list(here), range=[PALETTE["red"], PALETTE["green"], PALETTE["blue"]]),
            ),
        )
    )
    lines = alt.Chart(alt.Data(values=[{"usd": 100}])).mark_rule(strokeDash=[4, 3], color=PALETTE["grey"]).encode(y="usd:Q")
    mark = alt.Chart(alt.Data(values=[{"left": left}])).mark_rule(color=PALETTE["grey"]).encode(x="left:Q")
    return Figure(
        (chart + lines + mark).properties(title=f"{left} % left: {said}"),
        alt=f"Input bill against the share of tokens left. {left} % left: {said}. 100 % is the bill of the whole prompt.",
        source=f"Computed: {terms}; {PRICE.model} but for the cached token's price. Above the dashed line compression "
        f"loses money.",
    )


live_chart(
    where,
    prefix=w.IntSlider(PORTAL.desk.instructions, 0, 8000, description="stable prefix"),
    tail=w.IntSlider(PORTAL.desk.question, 1, 4000, description="behind it"),
    hits=w.IntSlider(100, 0, 100, description="found, %"),
    cached=w.IntSlider(10, 5, 100, description="cached, % of fresh"),
    left=w.IntSlider(50, 5, 100, description="left, %"),
    terms=w.Dropdown(options=list(provider.RULES), value=PORTAL.desk.cache_terms, description="terms"),
)

# %% [markdown] tags=["reasoned"]
# Make the tail long and the prefix short: behind the prefix is then where the money is. Let nobody find the prefix: all three ways save, and
# the cache's minimum is no trap any more.

# %% [markdown]
# ## Do
#
# {{exercise 09.1}}
# Somebody shortened a prompt and wants to ship it. The same questions were asked with the whole prompt and with the cut one; `whole` and
# `cut` say which answers were right. An answer is *lost* that was right and is wrong now; one that came right is nobody's comfort.
# `interval(lost, asked)` gives the lowest and the highest share of lost answers that fits what was seen. The cut saves
# `saved_usd` a question, and a wrong answer costs `wrong_usd`. Return "let it stand" where even the highest share costs no more than is
# saved, "take it back" where even the lowest costs more, and else "ask more".


# %% exercise="09.1"
def may_stand(
    whole: Sequence[bool],
    cut: Sequence[bool],
    saved_usd: float,
    wrong_usd: float,
    interval: Callable[[int, int], tuple[float, float]],
) -> str:
    """The verdict: "let it stand", "take it back" or "ask more"."""
    ...  # your code here


# %%
book.check("09.1", may_stand)

# %% [markdown]
# {{exercise 09.2}}
# A search found chunks, each with a value and a number of tokens, and the prompt has room for `budget` tokens. Return the places of the
# chunks to send, in the order of the text: those with the highest sum of values that fits, and of equals those with the fewest tokens.
# There may be sixty of them, so you cannot try every choice.


# %% exercise="09.2"
def best_chunks(values: Sequence[int], tokens: Sequence[int], budget: int) -> list[int]:
    """Places of the chosen chunks, from 0, ascending."""
    ...  # your code here


# %%
book.check("09.2", best_chunks)

# %% [markdown]
# {{exercise 09.3}}
# A prefix of `now` tokens may be cut to any length from `least` on, once and for all calls. The provider caches it in full steps
# of `step` tokens, and not at all below `minimum`. Of `calls` calls, `hits` find the cached part and pay `cached` a token for it; the
# others pay `write`. All that is not cached costs `fresh` a token. Return the length with the lowest bill; of equals the longest,
# which cuts least.


# %% exercise="09.3"
def best_prefix(
    least: int, now: int, minimum: int, step: int, calls: int, hits: int, fresh: int, cached: int, write: int
) -> int:
    """The length of the prefix, in tokens."""
    ...  # your code here


# %%
book.check("09.3", best_prefix)

# %% [markdown] tags=["further"]
# {{exercise 09.4}}
# A holdout has run. `cut` and `whole` hold what the calls cost, by conversation. Return the saving of a call, 1 − mean cost of a cut call
# / mean cost of a whole one, and the ends of its interval: the saving ± z standard errors. Calls of one conversation are alike, so find the error by
# leaving out one *conversation* at a time (the jackknife): for each of the n conversations of an arm compute the saving without it; (n − 1)/n ×
# the sum of the squared distances of these n from their mean is that arm's part of the variance, and the two parts add up. Where either
# arm has fewer than `least` conversations, return None: there is no headline yet.


# %% exercise="09.4"
def saving(
    cut: Mapping[str, Sequence[float]], whole: Mapping[str, Sequence[float]], least: int, z: float = 1.96
) -> tuple[float, float, float] | None:
    """(saving, lower end, upper end), as shares; None where there are too few conversations."""
    ...  # your code here


# %%
book.check("09.4", saving)

# %% [markdown] tags=["further"]
# {{exercise 09.5}}
# Now the real thing: a compressor that answers for its floor. It cuts whole sentences, since a fact should leave whole or stay whole.
#
# - **Sentences.** One ends behind `.`, `!` or `?` and closing quotes or brackets, where white space follows and then no small letter or
#   digit; behind 。, ！ or ？; and at a line break. White space belongs to the sentence before it, and at the very start to the first. What
#   stands between `<keep>` and `</keep>` is not taken apart. Joined, the sentences are the text.
# - **What must stay**: sentences with such a mark ("marked"), with not, no, never, without, nothing, nobody, none, cannot or …n't
#   ("denial"), or with must, always, only, unless or except ("rule").
# - **What is missed.** A trial is: these sentences were dropped, that was the question, the answer was right or not. A word that the
#   question has, too, counts apart from the same word where it has not. A word's risk is (wrong + m) / (dropped + 1): over the trials
#   in which it was dropped, with one more of the average outcome, m, the share of all trials that went wrong (1 before any). A
#   sentence has the risk of its riskiest word, and 0 without words. Words are those of `re.findall(r"\w+", …)`, in small letters.
# - **To a target**: what must stay is in; then the others come in, the riskiest first, each where it has room.
# - **A floor**: the lowest rate that proves it, with an exact bound.


# %% exercise="09.5"
class Compressor:
    """Cuts whole sentences out of prompts, first those that are missed least, and no further than a floor of right answers.

    `rate`: the share of a prompt's tokens that `cut` leaves; 1, so all of them, before it is calibrated.
    """

    def __init__(self, floor: float, confidence: float = 0.95) -> None: ...  # your code here

    def sentences(self, text: str) -> list[str]:
        """The text in sentences, each with the white space behind it; joined they are the text."""
        ...  # your code here

    def stays(self, sentence: str) -> str:
        """Why a sentence must stay: "marked", "denial" or "rule", the first that fits; "" for one that may go."""
        ...  # your code here

    def keys(self, sentence: str, question: str) -> set[tuple[str, bool]]:
        """Its words, in small letters, each with whether the question has it, too."""
        ...  # your code here

    def learn(self, trials: Sequence[tuple[Sequence[str], str, bool]]) -> None:
        """Count further trials: (the sentences that were dropped, the question, whether the answer was right)."""
        ...  # your code here

    def risk(self, sentence: str, question: str) -> float:
        """How likely the answer is wrong without the sentence: as without that one of its words that was missed most."""
        ...  # your code here

    def shrink(
        self, text: str, question: str, target: int, count: Callable[[str], int]
    ) -> tuple[str, list[tuple[str, float]]]:
        """The text in `target` tokens or fewer, and what was dropped, in the order of the text, each with its risk.

        Of equals, the first come in first. Raises `ValueError`, which says how many tokens are needed, where what must stay
        has more than `target`.
        """
        ...  # your code here

    def lower(self, right: int, asked: int) -> float:
        """The Clopper–Pearson bound: with `confidence`, no smaller share is right where `right` of `asked` were."""
        ...  # your code here

    def calibrate(self, graded: Mapping[float, tuple[int, int]]) -> float:
        """Set the rate, and return it, from (right answers, questions asked) by rate.

        The lowest that proves the floor as all higher ones do; 1 where none does.
        """
        ...  # your code here

    def cut(self, text: str, question: str, count: Callable[[str], int]) -> tuple[str, list[tuple[str, float]]]:
        """The text at the calibrated rate, rounded to whole tokens, or as near to it as what must stay allows."""
        ...  # your code here


# %%
book.check("09.5", Compressor)

# %% [markdown]
# Once it passes, it is yours that learns here: from policies with a quarter of their sentences dropped by lot, and what became of the answers. Then it
# cuts other policies to ever fewer tokens, and the engine answers.


# %%
async def dropped_by_lot():
    lot, tasks, rows = book.rng("trials"), [policy_case("dev", i, seed) for i in range(book.pick(ci=6, learn=150))], []
    splitter = book.reference("09.5")(0.9)
    prompts = []
    for task in tasks:
        system, asked = task.messages
        parts = splitter.sentences(system.content)
        dropped = [part for part in parts[1:] if lot.random() < 0.25]
        prompts.append((replace(system, content="".join(p for p in parts if p not in dropped)), asked))
        rows.append({"dropped": dropped, "question": asked.content})
    return [{**row, "right": got["right"]} for row, got in zip(rows, await answered(tasks, prompts), strict=True)]


trials = (await book.measure("policies with sentences dropped by lot", dropped_by_lot)).value

# %%
made, whose = book.yours("09.5", Compressor)
FLOOR, TRIED = 0.85, (0.8, 0.6, 0.4, 0.3, 0.2, 0.12)
compressor = made(FLOOR)
compressor.learn([(row["dropped"], row["question"], bool(row["right"])) for row in trials])


# %%
def cut_to(task, rate):
    """A case's prompt in that share of its tokens, or as few as the compressor allows, and what was dropped."""
    system, asked = task.messages
    compressor.rate = rate
    kept, gone = compressor.cut(system.content, asked.content, lab_tokens)
    return (replace(system, content=kept), asked), gone


async def cut_and_answered():
    tasks, rows = [policy_case("test", i, seed + 3) for i in range(book.pick(ci=2, learn=40))], []
    for rate in TRIED:
        prompts = [cut_to(task, rate)[0] for task in tasks]
        for task, prompt, row in zip(tasks, prompts, await answered(tasks, prompts), strict=True):
            left = tokens_of(prompt) / tokens_of(task.messages)
            rows.append({"rate": rate, "left": left, "kept": not missed(task, prompt[0].content), **row})
    return pd.DataFrame(rows)


cuts = await book.measure("the compressor's answers", cut_and_answered)
graded = {rate: (int(own.right.sum()), len(own)) for rate, own in cuts.value.groupby("rate")}
rate = compressor.calibrate(graded)
fresh_cases = [policy_case("test", i, seed + 4) for i in range(16)]
kept_facts = pd.DataFrame(
    [
        {"left": tokens_of(prompt) / tokens_of(task.messages), "rate": r, "kept": not missed(task, prompt[0].content)}
        for task in fresh_cases
        for r in (0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
        for prompt, _ in [cut_to(task, float(r))]
    ]
)
compressor.rate = rate

# %%
line = kept_facts.groupby("rate").mean().reset_index().assign(percent=lambda d: 100 * d.kept, stays=lambda d: 100 * d.left)
dots = (
    cuts.value.groupby("rate")[["left", "right"]]
    .mean()
    .assign(percent=lambda d: 100 * d.right, stays=lambda d: 100 * d.left)
)
lab_line = drawn[drawn.by == "sentences near the question"]
x, y = (
    alt.X("stays:Q", title="tokens that stay (%)", scale=alt.Scale(domain=[0, 100])),
    alt.Y("percent:Q", title="right, or kept (%)"),
)
proved = (
    f"{100 * rate:.0f} % of the tokens prove {100 * FLOOR:.0f} % right"
    if rate < 1
    else f"no rate proves {100 * FLOOR:.0f} % right yet"
)
show(
    (
        alt.Chart(line).mark_line(color=PALETTE["blue"]).encode(x=x, y=y)
        + alt.Chart(dots.reset_index()).mark_circle(size=70, color=PALETTE["orange"]).encode(x=x, y=y)
        + alt.Chart(lab_line).mark_line(color=PALETTE["green"], strokeDash=[6, 3]).encode(x=x, y=y)
        + alt.Chart(pd.DataFrame({"f": [100 * FLOOR]})).mark_rule(color=PALETTE["grey"], strokeDash=[4, 3]).encode(y="f:Q")
    ).properties(title=f"Cut by {whose}: {proved}"),
    alt=f"Cut by {whose}; {proved}. "
    + " ".join(f"{r.stays:.0f} % left: {r.percent:.0f} % right." for r in dots.itertuples())
    + " The needed sentences are kept: "
    + " ".join(f"{r.stays:.0f} % left {r.percent:.0f} %." for r in line.itertuples()),
    source=f"Line: {whose}, new cases that keep every sentence their answer needs, computed now. Circles: right answers. "
    f"Green, dashed: the "
    f"lab's sentences near the question. Grey: the floor. {cuts.source}",
)

# %%
(kept_prompt, _), went = cut_to(fresh_cases[0], rate if rate < 1 else 0.3)
print(kept_prompt.content)
print(
    "\nthe riskiest that went: "
    + "; ".join(f"{s.strip()} ({risk:.2f})" for s, risk in sorted(went, key=lambda one: -one[1])[:3])
)

# %% [markdown]
# ## So what
#
# ### The desk
#
# The instructions may be cut to 1,024 tokens and not below. What goes must cost no answer, for what is saved is little: hold it against the
# price of a wrong one.

# %%
spare_tokens = int(PORTAL.desk.instructions * template_spare)
desk_left = book.reference("09.3")(
    PORTAL.desk.instructions - spare_tokens, PORTAL.desk.instructions, 1024, 128, 1, 1,
    *(int(1000 * r) for r in (PRICE.rates.fresh_input, PRICE.rates.cached_input, PRICE.rates.fresh_input)),
)  # fmt: skip
saved_call = float(desk_stream.input_usd - replace(desk_stream, prefix=desk_left).input_usd)
may_lose = saved_call / WRONG
needed_questions = math.ceil(math.log(0.05) / math.log1p(-may_lose)) if 0 < may_lose < 1 else 0
Markdown(
    f"From {PORTAL.desk.instructions:,} to {desk_left:,} tokens saves {saved_call:.6f} USD a call: "
    f"{100 * (1 - desk_left / PORTAL.desk.instructions):.0f} % of the instructions, and "
    f"{100 * saved_call / float(desk_stream.input_usd):.0f} % of the input bill, for what stands behind the last full "
    f"step is what "
    f"costs the full price. One answer lost in {1 / may_lose:,.0f} eats that up, and to prove that a cut of words loses "
    f"fewer takes "
    f"{needed_questions:,} questions without a single loss. So the desk takes only what is lossless: the template of the "
    f"case above had "
    f"{100 * template_spare:.0f} % of that, and the portal's is taken to be as loose."
    if saved_call > 0
    else "At these terms and with so little to spare, no cut of the instructions saves money; they stay."
)

# %%
book.bill(
    "instructions without what they say twice" if desk_left < PORTAL.desk.instructions else "instructions as they are",
    Compressed("desk", prefix=PORTAL.desk.instructions, left=desk_left, terms=PORTAL.desk.cache_terms)
    if desk_left < PORTAL.desk.instructions
    else Stays("desk"),
    of="desk",
    source=f"Lossless cuts; {PORTAL.desk.cache_terms}; {PRICE.model}, {PRICE.source}, {PRICE.as_of}. How loose the "
    f"template is: the "
    "chapter's own support case.",
)

# %% [markdown]
# ### The assistant
#
# There no token has a price, but memory has: shorter histories take fewer GPUs. May the rolling summary stand?

# %%
share = float(summary_way.input / full.input)  # of the prompts' tokens, the summaries' own left out
chat = PORTAL.assistant
shorter = replace(PORTAL, assistant=replace(chat, history=max(1, round(share * chat.history))))
between = "fetch"  # chapter 08's plan
times = fleet(shorter, between).gpus / fleet(PORTAL, between).gpus
before, after = (asked_rows[asked_rows.way == name].right.tolist() for name in ("all of it", "summary"))
answers_a_month = PORTAL.sessions * chat.turns
rent_now, rent_then = (Machines("assistant", chat.host, fleet(one, between).gpus).usd for one in (PORTAL, shorter))
saved_answer = float(rent_now - rent_then) / answers_a_month
said = book.reference("09.1")([one == 1 for one in before], [one == 1 for one in after], saved_answer, WRONG, wilson)
lost = sum(one > other for one, other in zip(before, after, strict=True))
won = sum(one < other for one, other in zip(before, after, strict=True))
Markdown(
    f"In {100 * share:.0f} % of the tokens a conversation of {chat.history:,} tokens has {shorter.assistant.history:,}, "
    f"and the fleet {100 * times:.0f} % "
    f"of its GPUs: {saved_answer:.6f} USD saved for each of {answers_a_month:,} answers a month, before the summaries' "
    f"own work. "
    f"{lost} of {len(before)} answers were lost. By exercise 09.1: **{said}**."
    + (
        f" That is a strict judge: {won} answers came right that had been wrong, for this small model loses its way in long "
        "histories. A model that does not gains nothing there, and what the summary leaves out is lost for it, too."
        if won > lost
        else ""
    )
)

# %%
stands = said == "let it stand" and summary_way.usd < full.usd
book.bill(
    "histories summed up" if stands else f"histories summed up: {said}, so they stay whole",
    Rented("assistant", times=times) if stands else Stays("assistant"),
    of="assistant",
    wrong=max(0, lost) / len(before) if stands else 0.0,
    source=f"Modelled from the datasheet of one {hardware(chat.gpu).name}; answers: {talks.source}",
)

# %%
SAID = "Heard often; no source found. (AlgoMaster, “Prompt Optimization”, 2026, has 40 to 60 % for leaner prompts in all.)"
book.claim(
    "09.system",
    "A leaner system prompt saves 10 to 30 %.",
    claimed=(10, 30),
    measured=100 * (1 - float(replace(desk_stream, prefix=desk_left).input_usd / desk_stream.input_usd)),
    unit="% of the input bill",
    where=f"the portal's desk: {PORTAL.desk.instructions:,} tokens of instructions, cached, cut to {desk_left:,} with "
    f"nothing lost",
    by=SAID,
    unless="Where nothing is cached, the saving is the share that goes. Where a prefix is cached, only what is behind "
    "its last full step has "
    "the full price, and a cut below the provider's minimum costs money.",
    source=f"{PORTAL.desk.cache_terms}; {PRICE.model}, {PRICE.source}, {PRICE.as_of}.",
)

# %%
book.claim(
    "09.history",
    "Summing up the conversation's history saves 20 to 50 %.",
    claimed=(20, 50),
    measured=100 * (1 - summary_way.usd / full.usd),
    unit="% of the conversations' bill",
    where="conversations of up to 12 short turns, the summaries' own tokens and the engine's cache hits counted, at list "
    "price",
    by=SAID,
    unless="A summary costs about as much whatever it replaces, so it pays the sooner the longer the history and the "
    "more often it is sent. "
    f"Here {summary_way.right:.0f} of {summary_way.asked:.0f} answers were right, with all of it {full.right:.0f}.",
    source=talks.source,
)

# %%
book.claim(
    "09.examples",
    "Choosing the examples of a prompt saves 15 to 40 %.",
    claimed=(15, 40),
    measured=100 * (1 - few.tokens["nearest 8"] / few.tokens["all 24"]),
    unit="% of the prompt's tokens",
    where=f"8 of 24 examples, those nearest to the question; for {few.percent['nearest 8']:.0f} % of the questions the right "
    "label is among them",
    by=SAID,
    unless="It is the share of the examples that goes, times their share of the prompt. In money it is less where the "
    "same examples for "
    "all would have been cached.",
    source=shots.source,
)

# %%
surprising = drawn[(drawn.by == "words that surprise") & (drawn.percent >= whole_right - 2)]
book.claim(
    "09.perplexity",
    "Dropping the tokens that a small model expects shortens prompts up to 20-fold with little loss.",
    claimed=20,
    measured=float((1 / surprising.left).max()) if len(surprising) else 1.0,
    unit="times shorter, at most two points of right answers lost",
    where="the lab's own compressor of that kind, on long returns policies",
    by="Jiang et al., “LLMLingua: Compressing Prompts for Accelerated Inference of Large Language Models”, EMNLP 2023 "
    "(arXiv 2310.05736).",
    unless="It was measured on worked examples of arithmetic, of which a large model needs few or none. Where each fact "
    "may be asked "
    "for, as in a policy, hardly anything is spare word by word. LLMLingua itself: see the benchmarks' table.",
    source=halves.source,
)

# %% [markdown] tags=["reasoned"]
# **What moved.** Tokens went, and with them either money, or right answers, or neither. What is lossless is free, and most of it sits where nobody
# looks: in JSON. A fact leaves whole or stays whole. A cached token costs a tenth, so cutting it saves a tenth, and cutting
# it differently each time costs ten times that. And a wrong answer costs as much as two hundred thousand fresh tokens: on short,
# cheap prompts, no compressor that changes answers can prove in reasonable time that it pays.
#
# **Who pays.** The customer whose “never” was dropped; and you, for the summaries, the embedder's processor, and the second
# question of whoever got half an answer.
#
# **In production**, watch three numbers together, for the shortened and the untouched: tokens, the cached share, and money a task. Add the
# share of right answers where you can grade them, else of second questions. A release that lowers tokens *and* the cached share has
# probably raised the bill.
#
# ### On your own data
#
# Name a log of your calls: which share of their input could go with nothing lost, because it is white space, stands there twice,
# or is JSON that says each key again and again? For this the log needs the prompts. The portal's own log is written by a program, so
# nothing in it is said twice; the bill's line above assumes a template as loose as the support case's, as templates get that many hands
# edit. It is the first number to look up in yours.

# %%
book.on_your_data()

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz("09.q1")

# %%
book.quiz("09.q2")

# %%
book.quiz("09.q3")

# %% [markdown]
# ## Next
#
# **10 · Output length control**: an output token costs eight times an input token, and nobody knows beforehand how many there will
# be. Where may an answer be cut, and what does a cut answer cost?

# %%
await book.close()
book.progress()
