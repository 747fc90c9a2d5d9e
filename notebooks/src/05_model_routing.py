# %% [markdown]
# # 05 · Model routing: which question needs the large model
#
# **The question.** Two models answer at the portal's desk. The small one costs a fifth a token and is right about the easy
# questions; the large one thinks first and is right about nearly all. A wrong answer costs money as well: one in twenty customers
# who get one calls a person. Which question should go to which model, and what does that save when the wrong answers are paid, too?
#
# **You will be able to** measure which signal tells a right answer from a wrong one; draw the
# frontier of cost and quality; set a router's threshold by the price of a wrong answer, and another one that keeps a promise;
# and say what the common formula for a cascade's bill leaves out.
#
# **Time.** {{time}} **Needs.** Chapter 01's bill. {{needs}}

# %% tags=["imports"]
import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from statistics import median

import altair as alt
import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import Markdown
from sklearn.metrics import roc_auc_score

from labkit.cost import price_named, price_request
from labkit.lab import examples, families, grade
from labkit.ledger import Booked, Ledger, spend, waste
from labkit.portal import PORTAL, Calls, Month, Routed, Stays, at_the_desk, sent
from labkit.request import Completion, Done, EngineError, Message, Request, complete, stack
from labkit.routing import (
    AllOf,
    AsksForAgent,
    Breaker,
    CalibratedJudge,
    Cascade,
    Classifier,
    Copies,
    Fallback,
    Finished,
    Floor,
    HashedWords,
    Hedge,
    JsonSchema,
    Margin,
    Outcomes,
    PairedTest,
    Route,
    RoutingContext,
    RoutingPolicy,
    Rule,
    Rules,
    Score,
    SelfConsistency,
    SequenceLogprob,
    Shadow,
    Thompson,
    UnsafePhrases,
    Valid,
    apgr,
    at_threshold,
    baselines,
    bootstrap,
    calibrate,
    cascade_cost,
    coin_cost,
    cpt,
    drift,
    ece,
    frontier,
    knn_scores,
    least_cost,
    oracle_cost,
    reliability,
    utility,
    verdict,
)
from labkit.workbook import PALETTE, Figure, below, live_chart, show, spread
from labkit.workbook.pictures import cascade, draw_picture

# %%
book.warm_up()

# %% [markdown]
# ## Predict

# %%
book.predict(
    "05.saving",
    f"A wrong answer costs {PORTAL.wrong_answer_usd} USD. A router is set beforehand so that its calls and its wrong answers together "
    "cost least. Which share of the bill for calls does it save, beside sending everything to the large model?",
    low=0,
    high=100,
    unit="%",
)

# %%
book.predict(
    "05.calls",
    "A cascade sends the 30 % of the questions that the small model is least sure of up to the large one. What does that cost, "
    "in percent of the always-large bill?",
    low=0,
    high=150,
    unit="%",
)

# %%
book.predict_choice(
    "05.sure",
    "What tells the small model's right answers from its wrong ones best?",
    options=(
        "the probability of its whole answer",
        "its mean probability per token",
        "a classifier that reads the question",
    ),
)

# %% [markdown]
# ## Run
#
# ### The same questions to both
#
# The lab's own two models answer seven kinds of questions of the support desk, whose right answers a program knows. So
# “quality” here is no opinion: it is the share of answers that are right.
#
# Nobody sells the lab's models, so each answer is billed as the portal would be: the desk's instructions, read from the
# provider's cache (chapter 03), the measured question and the measured answer, at the list prices of its small and large model.

# %% tags=["constants"]
PROMISE = 0.95  # the share of the large model's quality that routers are usually sold with
WRONG_USD = float(PORTAL.wrong_answer_usd)

# %%
small = await book.connect("small")
large = await book.connect("large")
SMALL_PRICE, LARGE_PRICE = price_named(PORTAL.desk.small), price_named(PORTAL.desk.large)
prices = {small.model: SMALL_PRICE, large.model: LARGE_PRICE}
priced_as = f"priced as {SMALL_PRICE.model} and {LARGE_PRICE.model}, {LARGE_PRICE.source}, {LARGE_PRICE.as_of}"
pd.set_option("display.max_colwidth", None)


def billed(usages, price):
    """What the portal's desk is billed for each of these answers."""
    return np.array([float(price_request(at_the_desk(usage), price).total) for usage in usages])


def at_desk(engine):
    """The engine, with the desk's instructions added to the usage that it reports."""

    async def answer(request):
        async for event in engine(request):
            yield replace(event, usage=at_the_desk(event.usage)) if isinstance(event, Done) else event

    return answer


def priced(ledger):
    """Both models by name; each answer is priced, and booked in the ledger."""
    books = Booked(ledger, prices, provider="lab")
    return {small.model: stack(books, engine=at_desk(small)), large.model: stack(books, engine=at_desk(large))}


def questions(split, per_family, which):
    found = [e for family in families() for e in examples(split, family, per_family, 10 * seed + which)]
    book.rng(f"order {split} {which}").shuffle(found)
    return found


def ask(example, **more):
    return Request(example.messages, max_tokens=example.max_tokens, **more)


async def answers(handler, asked, at_once=16, **more):
    gate = asyncio.Semaphore(at_once)

    async def one(example):
        async with gate:
            return await complete(handler, ask(example, **more))

    return await asyncio.gather(*(one(example) for example in asked))


# %% [markdown]
# First one question of each kind, to see what they are.


# %%
async def first_try():
    asked = [e for family in families() for e in examples("dev", family, 2, 10 * seed + 9)]
    said = [await answers(engine, asked, model=engine.model) for engine in (small, large)]
    rows = [
        {
            "kind": e.family,
            "the customer": e.messages[-1].content.replace("\n", " / "),
            "small": a.text,
            "large": b.text,
            "right": e.answer,
            "small right": grade(e, a.text),
            "large right": grade(e, b.text),
        }
        for e, a, b in zip(asked, *said, strict=True)
    ]
    return {"models": [small.model, large.model], "rows": rows}


tried = await book.measure("a first try", first_try)
sample = pd.DataFrame(tried.value["rows"])
sample.groupby("kind", sort=False).first()[["the customer", "small", "large", "right"]]

# %%
# Two models, of which both can answer here, and the large one more: else there is nothing to route, and the recording is shown.
routable = len(set(tried.value["models"])) == 2 and 0 < sample["small right"].sum() < sample["large right"].sum()
ready = None if routable else ("vllm",)
SMALL, LARGE = tried.value["models"] if routable else ("small", "large")
Markdown(
    "Two models that can play these two parts."
    if routable
    else "The models of this endpoint cannot play these two parts: it takes two, that know answers to such questions, the large one "
    "more of them. What follows is shown from the recording."
)

# %% [markdown]
# Now many, to both. Beside each answer of the small model stands what three **judges** make of it: they look at how probable
# the model itself found its words.

# %%
per_family = book.pick(ci=24, learn=80)
judges = {
    "whole answer": SequenceLogprob("total"),  # the probability of all its tokens together
    "mean per token": SequenceLogprob("mean"),  # their geometric mean
    "margin": Margin("min"),  # how far the likeliest token was ahead of the next, where that is least
}


async def both(asked):
    """What both models make of the questions: a row each."""
    of_small = await answers(small, asked, model=SMALL, logprobs=2)
    of_large = await answers(large, asked, model=LARGE)
    rows = [
        {
            "family": e.family,
            "hard": e.difficulty == "hard",
            "question": e.messages[-1].content,
            "small said": a.text,
            "small right": float(grade(e, a.text)),
            "large right": float(grade(e, b.text)),
            "small used": a.done.usage,
            "large used": b.done.usage,
            **{name: judge(ask(e), a).value for name, judge in judges.items()},
        }
        for e, a, b in zip(asked, of_small, of_large, strict=True)
    ]
    return pd.DataFrame(rows)


def with_usd(rows):
    """The rows, with what each answer costs at the desk."""
    return rows.assign(
        **{"small USD": billed(rows["small used"], SMALL_PRICE), "large USD": billed(rows["large used"], LARGE_PRICE)}
    )


test = questions("test", per_family, 0)
measured = await book.measure("both models", lambda: both(test), needs=ready)
found, source = with_usd(measured.value), measured.source

# %%
kinds = found.groupby("family", sort=False).mean(numeric_only=True).loc[list(families())]
kinds["share of the large bill"] = found.groupby("family")["large USD"].sum() / found["large USD"].sum()
kinds["share of the questions"] = found.groupby("family").size() / len(found)
needy = kinds[kinds["large right"] - kinds["small right"] > 0.1]
right = kinds.reset_index().melt("family", ["small right", "large right"], "model", "right")
right["model"] = right.model.str.removesuffix(" right")
right["percent"] = 100 * right.right
bill = kinds.reset_index().assign(percent=lambda d: 100 * d["share of the large bill"])
order = list(families())
show(
    alt.hconcat(
        alt.Chart(right)
        .mark_point(filled=True, size=90)
        .encode(
            x=alt.X("percent:Q", title="right answers (%)"),
            y=alt.Y("family:N", title=None, sort=order),
            color=alt.Color(
                "model:N",
                title=None,
                scale=alt.Scale(domain=["small", "large"], range=[PALETTE["orange"], PALETTE["blue"]]),
            ),
            shape=alt.Shape("model:N", title=None, scale=alt.Scale(domain=["small", "large"])),
            tooltip=["family:N", "model:N", alt.Tooltip("percent:Q", format=".1f")],
        )
        .properties(width=260, height=200),
        alt.Chart(bill)
        .mark_bar(color=PALETTE["blue"])
        .encode(
            x=alt.X("percent:Q", title="share of the always-large bill (%)"), y=alt.Y("family:N", title=None, sort=order)
        )
        .properties(width=200, height=200),
    ).properties(
        title=f"{len(needy)} of {len(kinds)} kinds need the large model, and they are "
        f"{100 * needy['share of the large bill'].sum():.0f} % of its bill"
    ),
    alt="Right answers by family and model, and each family's share of the always-large bill. "
    + " ".join(
        f"{f}: small {100 * r['small right']:.0f} %, large {100 * r['large right']:.0f} %, "
        f"{100 * r['share of the large bill']:.0f} % of the bill."
        for f, r in kinds.iterrows()
    ),
    source=f"{len(found)} questions to both, {priced_as}. {source}",
)

# %%
others = kinds.drop(needy.index)[["share of the questions", "share of the large bill"]].sum()
so_many = (
    f"The kinds that the small model answers about as well are {100 * others.iloc[0]:.0f} % of the questions and "
    f"**{100 * others.iloc[1]:.0f} %** of the large model's bill"
)
book.finding(
    bool(others.iloc[1] < others.iloc[0]),
    f"{so_many}: the large model thinks where there is something to think about, and answers easy questions cheaply as well. "
    "That second number is all that could be saved by sending whole kinds to the small model.",
    f"{so_many}. That second number is what sending whole kinds to the small model could save.",
)

# %% [markdown]
# ### Who can tell?
#
# A **signal** scores a question before anybody answers it. A **judge** scores the small model's answer. The learnt ones are
# trained on questions that neither the models nor this test have seen: answered by the small model, graded, split in two.
# One half trains the classifier, the other sets calibrations and thresholds. (Not on the model's own training questions: a
# model knows those, and a router that learnt from them would trust it too much.)


# %%
async def learning():
    train = questions("dev", per_family, 1)
    texts = {example.messages[-1].content for example in train}
    other = [e for e in questions("dev", per_family, 2) if e.messages[-1].content not in texts]  # none in both
    said = await answers(small, train, model=SMALL)
    graded = [(e.messages[-1].content, float(grade(e, a.text))) for e, a in zip(train, said, strict=True)]
    known = (await both(other)).drop(columns=["small said"])
    return {"train": pd.DataFrame(graded, columns=["question", "right"]), "known": known}


learnt = await book.measure("questions to learn from", learning, needs=ready)
train, known = learnt.value["train"], with_usd(learnt.value["known"])

# %%
words = HashedWords()  # words and pairs of words as a vector
vectors = words.encode(list(train.question))
classifier = Classifier.train(list(train.question), train.right, words, seed=seed)
by_rules = Rules(
    (
        Rule(0.1, words={"euros each", "at", "basket", "days ago"}),  # sums and returns
        Rule(0.2, words={"customer"}),  # whole conversations
        Rule(0.3, min_chars=400),
    )
)
before = {  # each from the text of one question
    "rules": lambda text: by_rules(Request((Message("user", text),))).value,
    "nearest questions": lambda text: knn_scores(vectors, train.right, words.encode([text]))[0],
    "classifier": lambda text: classifier.predict([text])[0],
}


scores = {name: np.array([signal(text) for text in found.question]) for name, signal in before.items()}
scores |= {name: found[name].to_numpy() for name in judges}

# %%
small_right = found["small right"].to_numpy()
ranked = {name: roc_auc_score(small_right, s) for name, s in scores.items()}
pd.DataFrame(
    {
        "asked": ["before the answer"] * len(before) + ["after it"] * len(judges),
        "ranks right above wrong": [f"{100 * rank:.1f} %" for rank in ranked.values()],
        "calibration error": [f"{100 * ece(s, small_right):.1f} %" for s in scores.values()],
    },
    index=list(scores),
)


# %%
def lead(one, other, resamples=300):
    """By how many points `one` ranks better than `other`: an interval of 95 %, paired."""
    picks = np.random.default_rng(seed).integers(len(small_right), size=(resamples, len(small_right)))
    picks = [i for i in picks if 0 < small_right[i].mean() < 1]  # ranking takes right and wrong ones
    gaps = [roc_auc_score(small_right[i], scores[one][i]) - roc_auc_score(small_right[i], scores[other][i]) for i in picks]
    return 100 * np.quantile(gaps, [0.025, 0.975])


# %%
contenders = {
    "whole answer": "the probability of its whole answer",
    "mean per token": "its mean probability per token",
    "classifier": "a classifier that reads the question",
}
first, second, _ = sorted(contenders, key=ranked.get, reverse=True)
low, high = lead(first, second)
book.reveal(
    "05.sure",
    contenders[first] if low > 0 else None,
    unsure=f"On these {len(found)} questions {contenders[first]} ranks {low:+.1f} to {high:+.1f} points above "
    f"{contenders[second]} (95 %, paired), which may be chance. It takes more questions to tell",
)

# %% [markdown] tags=["reasoned"]
# *Ranks* is the chance that a right answer scores higher than a wrong one; 50 % is a coin. The *calibration error* is how far
# scores lie from the share that is right, on average.
#
# The mean per token is what most APIs make easy. An answer of ten words with one guess in it still has a fine mean; the
# product shows the guess.

# %%
low, high = lead("classifier", "nearest questions")
span = f"{low:+.1f} to {high:+.1f} points (95 %, paired)"
book.finding(
    True if low > 0 else False if high < 0 else None,
    f"The trained classifier **beats** a look-up of the twenty nearest questions: {span}.",
    f"The trained classifier **loses to** a look-up of the twenty nearest questions: {span}.",
    f"The trained classifier **cannot be told from** a look-up of the twenty nearest questions: {span}. Whatever you train has "
    "to be worth more than that look-up, and than a rule written in a minute.",
)

# %% [markdown] tags=["reasoned"]
# A score that ranks well is no probability yet: among answers scored 0.9 as few as half may be right. **Platt scaling** bends it into
# one: two numbers, a slope and an offset on the log-odds, fitted so that the scores of the known questions fit their verdicts. The order
# stays the same. From here on the probability of the whole answer is bent so.

# %%
calibration = calibrate(known["whole answer"], known["small right"])
scores["whole answer, calibrated"] = calibration.all(scores["whole answer"])

# %% [markdown] tags=["further", "reasoned"]
# #### Ask three more times
#
# A judge that needs no log-probabilities: ask the small model three more times, with some chance in its words (a temperature of
# 0.7), and count how many of the three agree with its answer. It costs money, and an error that the model is sure of is
# repeated three times.


# %%
async def three_samples():
    ledger = Ledger(":memory:")
    models = priced(ledger)
    sampled, gate = SelfConsistency(models[SMALL], n=3), asyncio.Semaphore(5)

    async def one(example, answer):
        async with gate:
            return await sampled(ask(example, model=SMALL, feature="samples"), answer)

    said = await answers(small, test, model=SMALL)
    judged = await asyncio.gather(*(one(e, a) for e, a in zip(test, said, strict=True)))
    return [{"agree": s.value, "USD": float(s.cost), "ms": 1000 * s.seconds} for s in judged]


sampling = await book.measure("three samples", three_samples, needs=ready)

# %%
samples = pd.DataFrame(sampling.value)
scores["three samples agree"] = samples.agree.to_numpy()
low, high = lead("three samples agree", "whole answer")
pd.Series(
    {
        "ranks right above wrong": f"{100 * roc_auc_score(small_right, samples.agree):.1f} %",
        "points above the probability of the whole answer (95 %, paired)": f"{low:+.1f} to {high:+.1f}",
        "calibration error": f"{100 * ece(samples.agree, small_right):.1f} %",
        "ms a decision, five at a time": f"{samples.ms.median():.0f}",
        "extra USD per 1,000 questions": f"{1000 * samples.USD.mean():.4f}",
        "the small model's answers, USD per 1,000": f"{1000 * found['small USD'].mean():.4f}",
    },
    name="three samples agree",
).to_frame()

# %% [markdown] tags=["further"]
# #### A score is not a probability
#
# “Go up below 0.9” makes sense only if answers scored 0.9 are right nine times in ten. Sort the answers into bins by score and
# count.

# %%
named = ("mean per token", "whole answer, calibrated")
errors = {name: 100 * ece(scores[name], small_right) for name in named}
bins = pd.concat([reliability(scores[name], small_right).assign(signal=name) for name in named])
bins[["score %", "right %"]] = 100 * bins[["score", "right"]]
show(
    (
        alt.Chart(pd.DataFrame({"x": [0, 100]})).mark_line(color=PALETTE["grey"], strokeDash=[4, 3]).encode(x="x:Q", y="x:Q")
        + alt.Chart(bins)
        .mark_line(strokeWidth=1)
        .encode(x="score %:Q", y="right %:Q", color=alt.Color("signal:N", title=None, sort=list(named)))
        + alt.Chart(bins)
        .mark_point(filled=True, opacity=1)
        .encode(
            x=alt.X("score %:Q", title="what the score says (%)"),
            y=alt.Y("right %:Q", title="answers that were right (%)"),
            size=alt.Size("count:Q", title="answers", legend=alt.Legend(symbolFillColor=PALETTE["grey"])),
            color=alt.Color("signal:N", title=None, sort=list(named)),
            shape=alt.Shape("signal:N", title=None, sort=list(named)),
            tooltip=["signal:N", "count:Q", alt.Tooltip("score %:Q", format=".0f"), alt.Tooltip("right %:Q", format=".0f")],
        )
    ).properties(
        title=f"The mean is off by {errors[named[0]]:.0f} points on average, the calibrated whole by {errors[named[1]]:.0f}"
    ),
    alt="Reliability: share of right answers against score; on the dashed diagonal a score means what it says. "
    + " ".join(
        f"{r.signal}, {r['count']} answers scored {r['score %']:.0f} %: {r['right %']:.0f} % right."
        for _, r in bins.iterrows()
    ),
    source=f"Calibrated on {len(known)} other questions (Platt 1999). {source}",
)

# %%
hard = found.hard.to_numpy()
said, was = 100 * scores["mean per token"][hard].mean(), 100 * small_right[hard].mean()
book.finding(
    bool(said > was + 10),
    f"Below the diagonal a model boasts; above it, it is too modest. On the hard questions the mean says **{said:.0f} %**, and "
    f"**{was:.0f} %** of those answers are right: it boasts where that hurts, and no threshold on it means what it seems to.",
    "Below the diagonal a model boasts; above it, it is too modest. On the hard questions the mean says "
    f"{said:.0f} %, and {was:.0f} % of those answers are right.",
)

# %% [markdown]
# ### A price for a wrong answer
#
# A threshold turns a score into a router: questions scored below it go up to the large model. Two of ours decide *before* anybody
# answers. The third is a **cascade**: it asks the small model first and the large one where the answer is doubtful, and then pays
# for both.
#
# Which threshold? The one at which calls and wrong answers *together* cost least. It is chosen on the other half of the known
# questions and judged on the test: a threshold that has seen the test would flatter itself.

# %%
names = {"right_small": "small right", "right_large": "large right", "cost_small": "small USD", "cost_large": "large USD"}
columns, known_columns = ({to: rows[name].to_numpy() for to, name in names.items()} for rows in (found, known))
routers = {
    "cascade by doubt": ("cascade", "whole answer, calibrated"),
    "classifier before": ("before", "classifier"),
    "look-up before": ("before", "nearest questions"),
}
known_scores = {
    "whole answer, calibrated": calibration.all(known["whole answer"]),
    "classifier": classifier.predict(list(known.question)),
    "nearest questions": knn_scores(vectors, train.right, words.encode(list(known.question))),
}
outcomes = {name: Outcomes(scores[signal], **columns) for name, (_, signal) in routers.items()}
known_outcomes = {name: Outcomes(known_scores[signal], **known_columns) for name, (_, signal) in routers.items()}
doubt = outcomes["cascade by doubt"]
fixed = baselines(doubt)
full = fixed.cost["always large"]


def paid(cost, quality):
    """USD a question: its calls, and its wrong answers."""
    return cost + WRONG_USD * (1 - quality)


def at(name, threshold, column, o=None):
    """The mean quality or cost of a router at a threshold; None sends everything to the large model alone."""
    o = outcomes[name] if o is None else o
    if threshold is None:
        return float((o.right_large if column == "quality" else o.cost_large).mean())
    return at_threshold(threshold, column, routers[name][0])(o)


def in_all(name, threshold, o=None):
    return paid(at(name, threshold, "cost", o), at(name, threshold, "quality", o))


# %%
cheapest = book.reference("05.1")  # the threshold of the least sum, or None where always large costs no more
chosen = {name: cheapest(o, routers[name][0], WRONG_USD) for name, o in known_outcomes.items()}
home = min(chosen, key=lambda name: in_all(name, chosen[name], known_outcomes[name]))


def judge(statistic):
    """A number of the router that is taken home, on the test, with its interval of 95 %."""
    return bootstrap(outcomes[home], statistic, seed=seed, resamples=book.pick(ci=300, learn=1000))


home_saves = judge(lambda o: 1 - at(home, chosen[home], "cost", o) / o.cost_large.mean())  # of the calls
more_wrong = judge(lambda o: o.right_large.mean() - at(home, chosen[home], "quality", o))  # as a share of the questions
net = judge(lambda o: in_all(home, None, o) - in_all(home, chosen[home], o))  # USD a question, wrong answers paid
pays = net.estimate > 1e-9
book.reveal("05.saving", 100 * home_saves.estimate, unit="%")

# %%
sums = frontier(doubt, "cascade").assign(up=lambda d: 100 * d.share_large)
parts = pd.concat(
    [
        sums[["up"]].assign(part="calls", usd=1000 * sums.cost),
        sums[["up"]].assign(part="wrong answers", usd=1000 * WRONG_USD * (1 - sums.quality)),
        sums[["up"]].assign(part="both together", usd=1000 * paid(sums.cost, sums.quality)),
    ]
)
here = 100 * float((doubt.score < (chosen["cascade by doubt"] or math.inf)).mean())
all_large = 1000 * paid(full, fixed.quality["always large"])
together = parts[parts.part == "both together"]
show(
    (
        alt.Chart(parts)
        .mark_line()
        .encode(
            x=alt.X("up:Q", title="questions sent up (%)", scale=alt.Scale(domain=[0, 100])),
            y=alt.Y(
                "usd:Q",
                title="USD per 1,000 questions",
                scale=alt.Scale(type="log", domainMin=0.05, nice=False),
                axis=alt.Axis(tickCount=5),
            ),
            color=alt.Color("part:N", title=None, sort=["both together", "wrong answers", "calls"]),
        )
        + alt.Chart(pd.DataFrame({"up": [here], "text": ["set beforehand"]})).mark_rule(strokeDash=[4, 3]).encode(x="up:Q")
        + alt.Chart(pd.DataFrame({"up": [here], "usd": [float(together.usd.max())], "text": ["set beforehand"]}))
        .mark_text(align="left", dx=6)
        .encode(x="up:Q", y="usd:Q", text="text:N")
    ).properties(
        title=f"In all the cascade costs {1000 * in_all('cascade by doubt', chosen['cascade by doubt']):.2f} USD, "
        f"always large {all_large:.2f} USD ({1000 * full:.2f} of it calls)"
    ),
    alt="What the cascade's calls and its wrong answers cost against the share of questions sent up, on a logarithmic scale. "
    f"Set beforehand: {here:.0f} % up. Least on the test: {together.usd.min():.2f} USD per 1,000 at {together.up[together.usd.idxmin()]:.0f} %; "
    f"always large {all_large:.2f} USD.",
    source=f"{len(found)} questions, every threshold; a wrong answer at {PORTAL.wrong_answer_usd} USD; {priced_as}. {source}",
)

# %% [markdown] tags=["further", "reasoned"]
# #### The threshold, by arithmetic
#
# The small answer of a question is wrong with a probability of 1 − q, the large one with 1 − Q; q is the calibrated score, and Q the
# large model's share of right answers. The large answer is worth its price c where (Q − q) · v > c, v being the price of a wrong
# answer. So send a question up where q < Q − c / v.

# %% tags=["reasoned"]
by_sums = float(known_columns["right_large"].mean()) - float(known_columns["cost_large"].mean()) / WRONG_USD
on_the_known = 1.0 if chosen["cascade by doubt"] is None else chosen["cascade by doubt"]
between = np.sum((doubt.score - by_sums) * (doubt.score - on_the_known) < 0)
Markdown(
    f"For the average question that is a threshold of {by_sums:.3f}; the known questions chose {on_the_known:.3f}. Of the "
    f"{len(found)} questions of the test {between} are scored between the two."
)

# %% [markdown]
# ### The frontier, and a promise
#
# Routers are sold by a promise instead: **95 % of the large model's quality** at the least cost. Each threshold is a point here. The
# straight line is a coin that picks the model. The *oracle* knows which model will be right.

# %%
promised = PROMISE * fixed.quality["always large"]
sla = PROMISE * known_columns["right_large"].mean()
kept_at = book.reference("05.2")(known_outcomes["cascade by doubt"], sla)  # surely kept, as far as the known questions tell
curves = pd.concat(
    [frontier(outcomes[name], way).assign(router=name) for name, (way, _) in routers.items()]
    + [fixed.loc[["always small", "always large"]].assign(router="a coin")]
)
curves["usd"], curves["percent"] = 1000 * curves.cost, 100 * curves.quality
marks = fixed.loc[["always small", "always large", "oracle"]].reset_index(names="what")
marks["usd"], marks["percent"] = 1000 * marks.cost, 100 * marks.quality
needed = {name: least_cost(outcomes[name], promised, way) for name, (way, _) in routers.items()}
base = alt.Chart(marks).encode(x="usd:Q", y="percent:Q")
show(
    (
        alt.Chart(curves)
        .mark_line()
        .encode(
            x=alt.X("usd:Q", title="calls, USD per 1,000 questions", scale=alt.Scale(domainMin=0)),
            y=alt.Y("percent:Q", title="right answers (%)", scale=alt.Scale(zero=False, domainMax=100)),
            color=alt.Color("router:N", title=None, sort=[*routers, "a coin"]),
            order="usd:Q",
        )
        + alt.Chart(pd.DataFrame({"y": [100 * promised]})).mark_rule(strokeDash=[4, 3]).encode(y="y:Q")
        + base.mark_point(filled=True, size=90, color=PALETTE["red"])
        + base.transform_filter("datum.what == 'oracle'").mark_text(align="right", dx=-8, dy=-8).encode(text="what:N")
        + base.transform_filter("datum.what == 'always large'").mark_text(align="left", dx=8, dy=-8).encode(text="what:N")
        + base.transform_filter("datum.what == 'always small'").mark_text(align="left", dx=10, dy=-2).encode(text="what:N")
    ).properties(
        title=[
            "Calls at 95 % of the quality, in percent of the always-large bill:",
            f"a coin {100 * coin_cost(doubt, promised) / full:.0f} %, "
            + ", ".join(f"{name} {100 * cost / full:.0f} %" for name, cost in needed.items())
            + f", an oracle {100 * oracle_cost(doubt, promised) / full:.0f} %",
        ]
    ),
    alt="Quality against cost for all thresholds; the dashed line is 95 % of the large model's quality. "
    + " ".join(f"{m.what}: {m.percent:.1f} % right at {m.usd:.3f} USD per 1,000." for m in marks.itertuples())
    + " To the dashed line: "
    + " ".join(f"{name} {1000 * cost:.3f} USD." for name, cost in needed.items()),
    source=f"{len(found)} questions, every threshold, {priced_as}. {source}",
)

# %% [markdown]
# Now both ways of choosing, side by side, on questions that had no part in the choice.

# %%
ways_to_choose = {
    "always small": (fixed.cost["always small"], fixed.quality["always small"]),
    **{f"{name}, least sum": (at(name, t, "cost"), at(name, t, "quality")) for name, t in chosen.items()},
    "cascade by doubt, 95 % promised": tuple(at("cascade by doubt", kept_at, what) for what in ("cost", "quality")),
    "always large": (full, fixed.quality["always large"]),
    "oracle": (fixed.cost["oracle"], fixed.quality["oracle"]),
}
pd.DataFrame(
    {
        "right answers": [f"{100 * quality:.1f} %" for _, quality in ways_to_choose.values()],
        "calls": [f"{1000 * cost:.3f}" for cost, _ in ways_to_choose.values()],
        "of always large": [f"{100 * cost / full:.0f} %" for cost, _ in ways_to_choose.values()],
        "wrong answers": [f"{1000 * WRONG_USD * (1 - quality):.2f}" for _, quality in ways_to_choose.values()],
        "both": [f"{1000 * paid(*one):.2f}" for one in ways_to_choose.values()],
    },
    index=pd.Index(list(ways_to_choose), name="USD per 1,000 questions"),
)

# %%
promise_cost, promise_right = ways_to_choose["cascade by doubt, 95 % promised"]
promise_sold = 1000 * (full - promise_cost), 1000 * WRONG_USD * (fixed.quality["always large"] - promise_right)
book.finding(
    bool(promise_sold[1] > promise_sold[0]),
    f"Beside always large, the promise of 95 % takes {promise_sold[0]:.2f} USD off the calls of 1,000 questions, and adds "
    f"**{promise_sold[1]:.2f} USD** of wrong answers: it costs the portal more than it saves.",
    f"Beside always large, the promise of 95 % takes {promise_sold[0]:.2f} USD off the calls of 1,000 questions, for "
    f"{promise_sold[1]:.2f} USD of further wrong answers.",
)

# %%
best_possible = 100 * (1 - oracle_cost(doubt, promised) / full)


def of_the_large(o):
    """The promise's quality, in percent of the large model's."""
    return 100 * at("cascade by doubt", kept_at, "quality", o) / o.right_large.mean()


promise_keeps = bootstrap(doubt, of_the_large, seed=seed, resamples=300)
of_large = f"{promise_keeps.estimate:.1f} % ({promise_keeps.low:.1f} to {promise_keeps.high:.1f})"
book.finding(
    True if promise_keeps.low >= 100 * PROMISE else False if promise_keeps.high < 100 * PROMISE else None,
    f"The promise is **kept** on the test: {of_large} of the large model's quality.",
    f"The promise is **broken** on the test, though its threshold was set with a margin: {of_large} of the large model's quality.",
    f"Whether the promise is kept, this test cannot tell: {of_large} of the large model's quality. A promise takes more graded "
    "questions than a demonstration does.",
)

# %%
Markdown(
    f"A router that knows everything would save **{best_possible:.0f} %** of the calls at 95 % of the quality. On this traffic, at these "
    "prices, that is the most that any router can save at that quality."
)

# %% [markdown] tags=["further", "reasoned"]
# #### By calls, as routers are often sold
#
# The same with 95 % intervals (a bootstrap over questions, paired, so that a hard question is hard for all). **APGR**, the
# average performance gap recovered, is RouteLLM's area under the curve *by calls*: 50 % is a coin, 100 % would be perfect.
# **Calls at 95 %** is the share sent up to recover 95 % of the gap between the models. The saving is what the invoice says at
# 95 % of the large model's quality, with the threshold that looks best on these very questions.


# %%
def saving(way):
    return lambda o: 1 - least_cost(o, PROMISE * o.right_large.mean(), way) / o.cost_large.mean()


resamples = book.pick(ci=200, learn=500)


def within(statistic, name, scale=100):
    """A statistic of a router in words, with its interval."""
    seen = bootstrap(outcomes[name], statistic, seed=seed, resamples=resamples)
    return f"{scale * seen.estimate:.1f} ({scale * seen.low:.1f} to {scale * seen.high:.1f})"


pd.DataFrame(
    [
        {
            "router": name,
            "APGR (%)": within(apgr, name),
            "calls at 95 % of the gap (%)": within(lambda o: cpt(o, 0.95), name),
            "saved at 95 % of the quality (%)": within(saving(way), name),
        }
        for name, (way, _) in routers.items()
    ]
).set_index("router")

# %% [markdown]
# ### The bill, and the formula
#
# A cascade's cost is commonly given as **c_small + (1 − p) · c_large**, p being the share that stays small, and both costs averages.
# Beside it here: what each question really cost, added up.

# %%
policies = {
    name: RoutingPolicy("v1", (SMALL, LARGE), (1.0 if threshold is None else min(1.0, threshold),))
    for name, threshold in chosen.items()
}
policy = policies["cascade by doubt"]
sure_enough = CalibratedJudge(SequenceLogprob("total"), calibration)

# %%
up = doubt.score < policy.thresholds[0]
bars = {
    "formula, average large answer": cascade_cost(doubt, policy.thresholds[0]).expected,
    "question by question": cascade_cost(doubt, policy.thresholds[0]).measured,
}
formula = pd.DataFrame({"how": list(bars), "usd": [1000 * usd for usd in bars.values()]})
at_thirty = np.sort(doubt.score)[round(0.3 * len(doubt))]
book.reveal("05.calls", 100 * cascade_cost(doubt, at_thirty).measured / full, unit="%")
show(
    alt.Chart(formula)
    .mark_bar(color=PALETTE["blue"])
    .encode(
        x=alt.X("usd:Q", title="calls of the cascade, USD per 1,000 questions"),
        y=alt.Y("how:N", title=None, sort=list(bars), axis=alt.Axis(labelLimit=300)),
        tooltip=["how:N", alt.Tooltip("usd:Q", format=".4f")],
    )
    .properties(
        height=90,
        title=f"The common formula comes to {100 * formula.usd[0] / formula.usd[1]:.0f} % of what the questions cost",
    ),
    alt="Cost of the cascade per 1,000 questions. "
    + " ".join(f"{name}: {1000 * usd:.3f} USD." for name, usd in bars.items()),
    source=f"{len(doubt)} questions, {100 * up.mean():.0f} % sent up; {priced_as}. {source}",
)


# %%
def beside_formula(o):
    """What a cascade costs, as a share of what the formula says."""
    cost = cascade_cost(o, policy.thresholds[0])
    return cost.measured / cost.expected


def of_average(o):
    """The large answers of those sent up, in average large answers."""
    return o.cost_large[o.score < policy.thresholds[0]].mean() / o.cost_large.mean()


off = bootstrap(doubt, beside_formula, seed=seed, resamples=300)
dearer = bootstrap(doubt, of_average, seed=seed, resamples=300)

# %%
times = f"{dearer.estimate:.2f} ({dearer.low:.2f} to {dearer.high:.2f}) times the average large answer"
book.finding(
    True if dearer.low > 1 else False if dearer.high < 1 else None,
    f"The formula multiplies two averages, as if they had nothing to do with one another. But what went up cost {times}: what is "
    "hard goes up, and hard answers are long. Put in the price of *those that went up*, and the formula holds.",
    f"The formula multiplies two averages. What went up cost {times} here, so the formula says too much. With the price of "
    "*those that went up* it holds.",
    f"The formula multiplies two averages. What went up cost {times}: on these questions the two cannot be told apart.",
)

# %% [markdown] tags=["reasoned"]
# So when somebody sells you a cascade by the share of calls it avoids, ask for the tokens of the calls that remain.

# %% [markdown] tags=["further"]
# #### Through the real handlers
#
# So far the cascade was arithmetic. Now half of the test goes through the real handlers, and the ledger books every attempt,
# thrown-away answers included.

# %%
ROUNDS = 6


async def four_ways(round):
    """A part of half the test, through the handlers of four ways, one after the other."""
    ledger = Ledger(":memory:")
    models = priced(ledger)
    ways = {
        "always small": Fallback((SMALL,))(models),
        "always large": Fallback((LARGE,))(models),
        "classifier before": Route(policies["classifier before"], classifier)(models),
        "cascade by doubt": Cascade(policy, sure_enough, logprobs=0)(models),
    }
    rows, part = [], range(round, len(test), 2 * ROUNDS)
    for name, way in ways.items():
        for i, a in zip(part, await answers(way, [test[i] for i in part], at_once=4, feature=name), strict=True):
            row = {"way": name, "question": i, "right": grade(test[i], a.text), "large": a.done.model == LARGE}
            rows.append({**row, "ms": 1000 * a.done.timing.e2e})
    booked = spend(ledger, ("labkit.feature",)).set_index("labkit.feature")["labkit.cost"]
    return {"rows": rows, "booked": {name: float(booked[name]) for name in ways}}


went = await book.measure("four ways", four_ways, rounds=ROUNDS, needs=ready)

# %%
live = pd.DataFrame([{**row, "round": i} for i, one in enumerate(went.value) for row in one["rows"]])
ways = list(went.value[0]["booked"])
asked_rows = live[live.way == ways[0]].question.to_numpy()
booked_usd = {way: sum(one["booked"][way] for one in went.value) / len(asked_rows) for way in ways}
waits = {way: list(live[live.way == way].groupby("round").ms.median()) for way in ways}


def span(rounds):
    seen = spread(rounds)
    return f"{seen.median:.0f} ({seen.low:.0f} to {seen.high:.0f})"


pd.DataFrame(
    [
        {
            "way": way,
            "right answers": f"{100 * one.right.mean():.1f} %",
            "answered by large": f"{100 * one.large.mean():.0f} %",
            "USD per 1,000 (ledger)": f"{1000 * booked_usd[way]:.4f}",
            "median wait (ms), with the interval of its rounds": span(waits[way]),
            "one in twenty waits longer than (ms)": f"{one.ms.quantile(0.95):.0f}",
        }
        for way, one in live.groupby("way", sort=False)
    ]
).set_index("way")

# %%
half = doubt.take(asked_rows)
computed = cascade_cost(half, policy.thresholds[0]).measured
apart = 100 * (booked_usd["cascade by doubt"] / computed - 1)
book.finding(
    bool(abs(apart) < 2),
    f"The ledger booked {1000 * booked_usd['cascade by doubt']:.3f} USD per 1,000 questions for the cascade, within 2 % of the sum from "
    f"the answers measured above ({1000 * computed:.3f}).",
    f"The ledger booked {1000 * booked_usd['cascade by doubt']:.3f} USD per 1,000 questions for the cascade, the answers measured above "
    f"add up to {1000 * computed:.3f}: {apart:+.0f} %. The engines did not answer all questions the same way twice.",
)

# %% [markdown]
# The wait is the other price. A cascade holds the small answer back until it has judged it, and whoever goes up waits for both. (A
# part of the waits above is this machine's: two engines share its cores.)

# %%
waited, plain = spread(waits["cascade by doubt"]).median, spread(waits["always large"]).median
book.finding(
    below(waits["always large"], waits["cascade by doubt"]),
    f"Here the cascade's median wait is **longer** than that of always large: {waited:.0f} against {plain:.0f} ms.",
    f"Here the cascade's median wait is **shorter** than that of always large, {waited:.0f} against {plain:.0f} ms: those who "
    "stay with the small model wait less, and they outnumber those who wait for both.",
    f"Between the cascade's median wait ({waited:.0f} ms) and that of always large ({plain:.0f} ms) these rounds cannot tell.",
)

# %% [markdown] tags=["reasoned"]
# ### When to go up
#
# Doubt is one reason of five. A customer who *asks* for a person's care goes straight up. After the small model's answer come the
# validators: is it valid (JSON, say), does it break a business rule, does it say something that nobody may promise unchecked? Then
# the score.

# %%
draw_picture(
    cascade(
        float((doubt.score < policy.thresholds[0]).mean()), ["valid JSON", "business rules", "safe to say", "sure enough"]
    )
)

# %% [markdown] tags=["reasoned"]
# Confidence does not replace a validator: a model can be all but sure of broken JSON. And a validator does not replace confidence. Nor
# is the large model's answer right because it is the large model's: **nobody checks the last rung of a cascade**. Put the same
# validators behind the last model, and decide what is sent when they refuse: an error, or a person.

# %% [markdown] tags=["further"]
# #### One request for each reason
#
# All go through one stack. Watch the first row of the table closely. The questions are the first of the test that fit, but for
# the order with a quotation mark inside a product's name, which is planted.

# %%
order_schema = {"type": "object", "required": ["order", "name", "product", "quantity"]}
is_an_order = Valid((Finished(), JsonSchema(order_schema)))


def dearest_line(question):
    """Euros of the dearest line of an order; 0 where there is none."""
    lines = re.findall(r"(\d+) x .*? at (\d+) euros", question)
    return max((int(n) * int(each) for n, each in lines), default=0)


def covers(question, answer):
    """Whether an answer is a total that is not below the dearest line of the order."""
    total = re.fullmatch(r"(\d+) EUR", answer.strip())
    return total is not None and int(total[1]) >= dearest_line(question)


def covers_its_lines(request, answer):
    """A judge of our own, for a rule of our own."""
    question = request.messages[-1].content
    fits = covers(question, answer.text)
    return Score(float(fits), "covers-its-lines", reason="" if fits else f"a line alone is {dearest_line(question)} EUR")


checks = {
    "extract": (is_an_order,),
    "total": (covers_its_lines,),
    "returns": (Valid((UnsafePhrases(("manager review",)),)),),  # promises somebody's time: not unchecked
}


def of_the_test(family, fits=lambda row: True):
    """The first of the test's questions of that family whose row fits; else the first of the family."""
    rows = found[found.family == family]
    return test[rows.index[[*np.flatnonzero([fits(row) for _, row in rows.iterrows()]), 0][0]]]


# %%
def one_request_each():
    form, faq = of_the_test("extract"), of_the_test("faq")
    total = of_the_test("total", lambda row: not covers(row.question, row["small said"]))
    refund = of_the_test("policy", lambda row: row["small said"] == "manager review")
    doubtful = test[found[found.family == "summary"]["whole answer"].idxmin()]
    odd = Message("user", 'My order "TS-46906" has 4 of "Brenflen "Pro" boots" in it, and I am "Hera".')
    person = Message("user", "I want to talk to a human. " + faq.messages[-1].content)
    return {
        "not valid JSON": replace(ask(form, feature="extract"), messages=(form.messages[0], odd)),
        "breaks a business rule": ask(total, feature="total"),
        "not sure enough": ask(doubtful),
        "unsafe unchecked": ask(refund, feature="returns"),
        "the user asks": replace(ask(faq), messages=(faq.messages[0], person)),
        "no reason": ask(faq),
    }


async def reasons_to_go_up():
    heard = {}

    async def careful(request, answer):
        score = await verdict(AllOf((*checks.get(request.feature, ()), sure_enough)), request, answer)
        heard[request.workflow] = answer, score
        return score

    models = priced(Ledger(":memory:"))
    by_judge = Cascade(policy, careful, logprobs=0)(models)
    first_look = Route(RoutingPolicy("v1", ("cascade", LARGE), (0.5,)), AsksForAgent())
    desk = stack(first_look, engine={"cascade": by_judge, LARGE: models[LARGE]})
    rows = []
    for why, request in one_request_each().items():
        got = await complete(desk, replace(request, workflow=why, logprobs=0))
        row = {"reason": why, "the small model said": "(not asked)", "sure of it": "", "the judge": ""}
        if why in heard:
            answer, score = heard[why]
            sure = SequenceLogprob("total")(request, answer).value
            row |= {"the small model said": answer.text, "sure of it": f"{100 * sure:.1f} %"}
            row["the judge"] = f"{score.value:.2f} {score.reason}"[:70]
        fits = [(await verdict(check, request, got)).value > 0 for check in checks.get(request.feature, ())]
        row |= {"answered by": got.done.model, "delivered": got.text}
        rows.append({**row, "the same check on it": "" if not fits else "passes" if all(fits) else "FAILS"})
    return rows


# %%
went_up = pd.DataFrame((await book.measure("reasons to go up", reasons_to_go_up, needs=ready)).value).set_index("reason")
went_up

# %%
odd = went_up.loc["not valid JSON"]
book.finding(
    odd["the judge"].startswith("0.00") and odd["the same check on it"] == "FAILS",
    f"The first answer is broken JSON, and the model finds it {odd['sure of it']} probable: it has never seen a quotation mark "
    "inside a name. The validator sends it up, and **what the large model delivers is broken as well**. It is delivered because there is "
    "no one left to ask.",
    f"The first answer came with a probability of {odd['sure of it']}, and the validator had its own opinion of it. Mind that "
    "the last rung of a cascade is checked by no one, unless you put the same validator behind it.",
)

# %% [markdown] tags=["further"]
# ### What no score may overrule
#
# Some things are not for a score to decide. A **floor**: refunds get the large model, always. A **budget**: who has spent it gets
# the small one. A **session**: who was sent up stays up, or the second answer contradicts the first. They stand in the policy, as data.

# %%
strict = replace(
    policy,
    version="v2",
    floors=(Floor(LARGE, feature="refund"),),
    budgets={"spendthrift": Decimal("0.01")},
    sticky="user",
    fallbacks={LARGE: (SMALL,)},
)


async def policy_first():
    decided, spent = {}, {"spendthrift": Decimal("0.02")}

    def note(request, decision):
        decided[request.workflow] = decision

    watched = RoutingContext(observe=note, spent=lambda tenant: spent.get(tenant, Decimal(0)))
    guarded = Cascade(strict, sure_enough, logprobs=0, context=watched)(priced(Ledger(":memory:")))
    faq, unsure = of_the_test("faq"), test[found[found.family == "summary"]["whole answer"].idxmin()]
    cases = {
        "an easy question": ask(faq),
        "an easy question, but about a refund": ask(faq, feature="refund"),
        "an unsure answer of a tenant who has spent the budget": ask(unsure, tenant="spendthrift"),
        "an unsure answer, user 7": ask(unsure, user="7"),
        "then an easy question, user 7": ask(faq, user="7"),
    }
    by = {"score": "the score", "only": "floor or session", "budget": "the budget"}
    rows = []
    for what, request in cases.items():
        got = await complete(guarded, replace(request, workflow=what))
        how = {"decided by": by[decided[what].why], "asked": " > ".join(decided[what].models)}
        rows.append({"request": what, **how, "answered by": got.done.model})
    return rows


pd.DataFrame((await book.measure("what no score may overrule", policy_first, needs=ready)).value).set_index("request")

# %% [markdown] tags=["further"]
# ### When the large engine is down
#
# Now the large engine hangs: it takes requests and says nothing. **Fallback** waits, gives up and asks the small one; the
# **breaker** remembers after three failures. A **hedge** (speculative parallel) asks the other one as soon as it gets impatient, and
# listens to the first to speak. Six requests each; the small engine is real, the hang is planted.

# %% tags=["constants"]
GIVE_UP_S, IMPATIENT_S = 0.3, 0.1


# %%
async def hangs(request):
    """An engine that takes the request and never answers."""
    await asyncio.sleep(3600)
    yield


async def six_requests(_):
    ledger = Ledger(":memory:")
    models = {**priced(ledger), LARGE: stack(Booked(ledger, prices, provider="lab"), engine=hangs)}
    faq = of_the_test("faq")
    plans = {
        "fallback + breaker": Fallback((LARGE, SMALL), Breaker(failures=3, cool_down_s=60), first_token_s=GIVE_UP_S)(models),
        "hedge": Hedge(IMPATIENT_S)({LARGE: models[LARGE], SMALL: models[SMALL]}),
    }
    rows = []
    for plan, handler in plans.items():
        for i in range(1, 7):
            done = (await complete(handler, ask(faq, feature=plan))).done
            rows.append({"plan": plan, "request": i, "ms": 1000 * done.timing.e2e})
    attempts = spend(ledger, ("labkit.feature",)).set_index("labkit.feature").attempts
    return {"rows": rows, "attempts": {plan: int(attempts[plan]) for plan in plans}}


async def a_refund():
    """What a request under a floor gets while the only model that it may go to hangs."""
    models = {**priced(Ledger(":memory:")), LARGE: hangs}
    patient = RoutingContext(first_token_s=GIVE_UP_S)
    try:
        got = await complete(Route(replace(strict, budgets={}), classifier, patient)(models), ask(test[0], feature="refund"))
    except EngineError as error:
        return {"error": str(error)}
    return {"answered by": got.done.model}


outage = await book.measure("the large engine hangs", six_requests, rounds=book.pick(ci=3, learn=5, gpu=5), needs=ready)
refund = (await book.measure("a refund meanwhile", a_refund, needs=ready)).value

# %%
down = pd.DataFrame([{**row, "round": i} for i, one in enumerate(outage.value) for row in one["rows"]])
plans = list(down.plan.unique())
middle = down.groupby(["plan", "request"], sort=False).ms.median().reset_index()
last = {plan: list(down[(down.plan == plan) & (down.request == down.request.max())].ms) for plan in plans}
attempts = outage.value[-1]["attempts"]
coloured = alt.Color("plan:N", title=None, sort=plans)
show(
    (
        alt.Chart(middle)
        .mark_line(point=True)
        .encode(
            x=alt.X("request:O", title="request, one after the other", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("ms:Q", title="wait for the whole answer (ms)", scale=alt.Scale(domainMin=0)),
            color=coloured,
            strokeDash=alt.StrokeDash("plan:N", title=None, sort=plans),
        )
        + alt.Chart(down).mark_circle(opacity=0.3).encode(x="request:O", y="ms:Q", color=coloured)
    ).properties(
        width=480,
        height=200,
        title=f"The sixth request waits {median(last[plans[0]]):.0f} ms with {plans[0]}, {median(last[plans[1]]):.0f} ms with a hedge",
    ),
    alt="Wait for each of six requests while the large engine hangs, medians of the rounds. "
    + " ".join(f"{p}: {', '.join(f'{ms:.0f}' for ms in g.ms)} ms." for p, g in middle.groupby("plan", sort=False)),
    source=f"{attempts[plans[0]]} attempts booked for six requests with the breaker, {attempts[plans[1]]} with the hedge; "
    f"{len(outage.value)} rounds. The hang is planted. {outage.source}",
)

# %%
book.finding(
    below(last["fallback + breaker"], last["hedge"]),
    "The breaker has learnt: by the sixth request it no longer asks the engine that hangs, while the hedge is impatient anew each "
    "time, and pays for an attempt that comes to nothing.",
    "By the sixth request the hedge still answers sooner than the breaker.",
)

# %%
Markdown(
    (
        f"And a refund while it is down? The floor leaves no one to fall back to: “{refund['error']}”. An error is the right answer "
        "here. "
        if "error" in refund
        else f"A refund while it is down was answered by {refund['answered by']}, against the floor. "
    )
    + "What everybody else got are answers of the small model: see the first chart for what they are worth."
)

# %% [markdown] tags=["further"]
# ### An A/B test that you may look at
#
# The cascade goes into production as a **shadow** first: the large model answers, as today; the cascade answers the same question in
# its shadow, and nobody sees it but the books. Each pair of verdicts is evidence. May one stop when it looks clear? With an
# ordinary test, no. Here is what becomes of 5 % when one looks after every pair from the twentieth on, in tests of A *against itself*:

# %% tags=["constants"]
ALPHA = 0.05

# %%
coins = np.random.default_rng(seed)
tests, length = 1000, 400
same = coins.choice([1, 0, -1], p=[0.1, 0.8, 0.1], size=(tests, length))
looked = np.arange(1, length + 1) >= 20
z = same.cumsum(axis=1) / np.sqrt(np.maximum((same**2).cumsum(axis=1), 1))
peeked = 100 * ((z > 1.645) & looked).any(axis=1).mean()
once = 100 * (z[:, -1] > 1.645).mean()
stakes = np.cumprod(1 + 0.3 * same, axis=1)  # 30 % of the stake is put on B, pair after pair
betting = 100 * (stakes >= 1 / ALPHA).any(axis=1).mean()

# %%
Markdown(
    f"Looked at once, at the end, a z-test finds a winner in {once:.1f} % of {tests:,} tests. Looked at after every pair from the "
    f"twentieth on, in **{peeked:.0f} %**. A test that bets, looked at after every pair: **{betting:.1f} %**."
)

# %% [markdown] tags=["reasoned"]
# How it bets: a stake of 1 is put on “B is better”, again and again; under the null hypothesis it stays 1 on average, and it
# reaches 1/α with a probability of α at most, *whenever* one looks. Turned around, it is an interval that holds all the time.
#
# Two questions to the same new traffic. Is the cascade better than always small? And does it keep the promise, so that it is
# worse than always large by less than the five hundredths that were allowed? Each is closed when its interval says so; the
# shadow ends with the last one, or with the questions.

# %%
allowed = (1 - PROMISE) * fixed.quality["always large"]  # the promise as a difference of shares, set before the first pair


async def in_its_shadow():
    ledger, fresh = Ledger(":memory:"), questions("test", book.pick(ci=14, learn=80), 5)
    models, by_id = priced(ledger), {e.id: e for e in fresh}
    trials = {"always small": PairedTest(ALPHA), "always large": PairedTest(ALPHA, allowed)}
    closed, track, first_said, under_way = {}, [], {}, Copies()

    def listening(request, answer):
        """The cascade's judge, which keeps what the small model said: the third arm costs nothing."""
        first_said[request.workflow] = answer.text
        return sure_enough(request, answer)

    def compare(request, main, copy):
        example = by_id[request.workflow]
        rivals = {"always small": first_said[example.id], "always large": main.text}
        for rival in rivals.keys() - closed.keys():  # what comes after the verdict is not looked at
            trials[rival] = trial = trials[rival].seen(grade(example, rivals[rival]), grade(example, copy.text))
            pairs, (low, high) = trial.wins + trial.ties + trial.losses, trial.interval
            track.append({"rival": rival, "pairs": pairs, "low": low, "high": high, "difference": trial.difference})
            if trial.verdict != "go on":
                closed[rival] = trial.verdict

    shadow = Shadow(1.0, at_most=16, compare=compare, copies=under_way)
    cascade = Cascade(policy, listening, logprobs=0)(models)
    desk, sent = stack(shadow, engine={"large": Fallback((LARGE,))(models), "cascade": cascade}), 0
    while sent < len(fresh) and len(closed) < len(trials):
        batch = fresh[sent : sent + 16]
        await asyncio.gather(*(complete(desk, ask(e, workflow=e.id, feature="a/b")) for e in batch))
        await under_way.finished()
        sent += len(batch)
    extra = float(waste(ledger).query("reason == 'shadow'")["labkit.cost"].sum())
    all_usd = float(spend(ledger)["labkit.cost"].sum())
    return {"track": pd.DataFrame(track).round(4), "closed": closed, "sent": sent, "extra": extra / (all_usd - extra)}


shadowed = await book.measure("the cascade in shadow", in_its_shadow, needs=ready)

# %%
ab = shadowed.value
track = ab["track"].copy()
track[["low", "high", "difference"]] *= 100
ends = track.groupby("rival").last()
told = [
    f"{rival}: “{ab['closed'][rival]}” after {pairs} pairs"
    if rival in ab["closed"]
    else f"{rival}: open after {pairs} pairs"
    for rival, pairs in ends.pairs.items()
]
base = alt.Chart(track).encode(
    x=alt.X("pairs:Q", title="pairs seen"),
    color=alt.Color(
        "rival:N",
        title="cascade less",
        scale=alt.Scale(domain=["always small", "always large"], range=[PALETTE["orange"], PALETTE["blue"]]),
    ),
)
show(
    (
        base.mark_area(opacity=0.25).encode(
            y=alt.Y("low:Q", title="difference in right answers (points)", scale=alt.Scale(domain=[-50, 60], clamp=True)),
            y2="high:Q",
        )
        + base.mark_line().encode(
            y="difference:Q",
            strokeDash=alt.StrokeDash(
                "rival:N", title="cascade less", scale=alt.Scale(domain=["always small", "always large"])
            ),
        )
        + alt.Chart(pd.DataFrame({"y": [-100 * allowed, 0]})).mark_rule(strokeDash=[4, 3]).encode(y="y:Q")
    ).properties(title=["Cascade (B) against…", *told]),
    alt="Difference in right answers with its interval against pairs seen. "
    + " ".join(
        f"Cascade less {rival}: {e.difference:+.1f} points, {e.low:.1f} to {e.high:.1f}, after {int(e.pairs)} pairs."
        for rival, e in ends.iterrows()
    ),
    source=f"New questions, in shadow. Dashed: no difference, and the loss that was allowed ({100 * allowed:.1f} points). "
    f"{shadowed.source}",
)


# %%
def pairs_until(wins, losses, margin):
    """After how many pairs with these shares the test says "not worse"; None where it does not within 20,000."""
    for n in np.unique(np.geomspace(20, 20_000, 80).astype(int)):
        counts = round(wins * n), n - round(wins * n) - round(losses * n), round(losses * n)
        if PairedTest(ALPHA, margin, *counts).verdict == "B is not worse":
            return int(n)
    return None


a_loss_of = 0.5 * allowed  # a cascade that loses half of what it may
take = {margin: pairs_until(0.02, 0.02 + a_loss_of, margin) for margin in (allowed, 2 * allowed)}

# %% tags=["reasoned"]
Markdown(
    f"The shadow cost **{100 * ab['extra']:.0f} %** on top of the bill while it ran ({ab['sent']} questions). A test is a "
    "purchase, and it stands in the ledger as one. A large difference is cheap to prove, a small one is not. By arithmetic: a "
    f"cascade that loses half of what it may would need about **{take[allowed] or 'more than 20,000'} pairs** to be shown as good "
    f"enough, and about {take[2 * allowed] or 'more than 20,000'} if twice the loss were allowed."
)

# %% [markdown] tags=["further"]
# ### Letting the traffic choose, and noticing that it changed
#
# **Thompson sampling** needs no calibration set: it tries thresholds on live traffic, each as often as it may still be the best.
# It, too, wants to know what a right answer is *worth*: here, what a wrong one costs. (Replayed from the measured answers.)

# %%
arms = (0.0, 0.3, 0.6, 0.9, 0.97, 1.0)
most = float((doubt.cost_small + doubt.cost_large).max())


def gains(threshold):
    up = doubt.score < threshold
    cost = doubt.cost_small + np.where(up, doubt.cost_large, 0.0)
    return [
        utility(r, c, worth=WRONG_USD, cost_max=most)
        for r, c in zip(np.where(up, doubt.right_large, doubt.right_small), cost, strict=True)
    ]


table = {threshold: gains(threshold) for threshold in arms}
bandit = Thompson(arms, seed)
draws = np.random.default_rng(seed).integers(len(doubt), size=book.pick(ci=3000, learn=10_000))
for i in draws:
    arm = bandit.choose()
    bandit.learn(arm, table[arm][i])
pd.DataFrame(
    {
        "tried": [f"{100 * bandit.tries[t] / len(draws):.0f} %" for t in arms],
        "utility, as far as it knows": [f"{bandit.means[t]:.3f}" for t in arms],
        "utility, all questions": [f"{np.mean(table[t]):.3f}" for t in arms],
    },
    index=pd.Index(arms, name="threshold"),
)

# %% [markdown]
# A threshold is right for a mix of questions. When the mix moves, nobody sends a notice; the families of the requests do. The
# **PSI**, the population stability index, sums (q − p) · ln(q / p) over the families, p and q being their shares before and
# after: by custom, below 0.1 the mix is stable, above 0.25 it has moved. A quiet week, and a sale in which baskets are asked
# about two times as often:

# %%
dice = book.rng("weeks")
mix = list(families())
weeks = {
    "a quiet week": dice.choices(mix, k=600),
    "the sale": dice.choices(mix, [2 if f in ("total", "summary") else 1 for f in mix], k=600),
}
then = dice.choices(mix, k=600)
rows = []
family = found.family.to_numpy()
for week, kinds_asked in weeks.items():
    moved = drift(then, kinds_asked, seed=seed)
    picked = np.array([dice.choice(np.flatnonzero(family == kind)) for kind in kinds_asked])
    now = doubt.take(picked)
    rows.append(
        {
            "week": week,
            "PSI": f"{moved.psi:.3f}",
            "p": f"{moved.p_value:.2g}",
            "drifted": "yes" if moved.moved else "no",
            "most": f"{moved.kind} {100 * moved.change:+.0f} points",
            "sent up": f"{100 * (now.score < policy.thresholds[0]).mean():.0f} %",
            "USD per 1,000": f"{1000 * cascade_cost(now, policy.thresholds[0]).measured:.4f}",
            "right answers": f"{100 * at_threshold(policy.thresholds[0], 'quality', 'cascade')(now):.1f} %",
        }
    )
pd.DataFrame(rows).set_index("week")

# %% [markdown]
# ## Move
#
# Your traffic is not ours. Set what a wrong answer costs you, how many times the small model's price the large one has, and how
# many of your questions are hard. All of it is recomputed from the tokens and verdicts measured above; the threshold is the best one
# for the setting.

# %%
ratio_now = round(float(LARGE_PRICE.rates.visible_output / SMALL_PRICE.rates.visible_output))
easy_rows, hard_rows = (np.flatnonzero(found.hard == is_hard) for is_hard in (False, True))


def mixed(hard_percent, ratio):
    """The measured outcomes as 1,000 questions, of which this many percent are hard; the large model's prices as a multiple."""
    n = round(10 * hard_percent)
    rows = np.concatenate([np.resize(hard_rows, n), np.resize(easy_rows, 1000 - n)])
    anew = {**columns, "cost_large": columns["cost_large"] * ratio / ratio_now}
    return Outcomes(scores["whole answer, calibrated"], **anew).take(rows)


# %%
def trade(wrong_usd, ratio, hard_percent):
    o = mixed(hard_percent, ratio)
    line = frontier(o, "cascade").assign(up=lambda d: 100 * d.share_large)
    line["both"] = 1000 * (line.cost + wrong_usd * (1 - line.quality))
    all_large = 1000 * (o.cost_large.mean() + wrong_usd * (1 - o.right_large.mean()))
    best = line.loc[line.both.idxmin()]
    title = (
        f"The cascade pays: {best.both:.2f} USD at {best.up:.0f} % up, always large {all_large:.2f} USD"
        if best.both < all_large
        else f"Always large is cheaper: {all_large:.2f} USD, the cascade {best.both:.2f} USD at best"
    )
    x = alt.X("up:Q", title="questions sent up (%)", scale=alt.Scale(domain=[0, 100]))
    y = alt.Y("both:Q", title="calls + wrong answers, USD per 1,000 questions", scale=alt.Scale(type="log"))
    level = pd.DataFrame({"up": [0], "both": [all_large], "text": ["always large"]})
    chart = (
        alt.Chart(line[["up", "both"]]).mark_line(color=PALETTE["blue"]).encode(x=x, y=y)
        + alt.Chart(level).mark_rule(strokeDash=[4, 3]).encode(y=y)
        + alt.Chart(level).mark_text(align="left", dx=6, dy=10).encode(x=x, y=y, text="text:N")
        + alt.Chart(pd.DataFrame([{"up": best.up, "both": best.both}]))
        .mark_point(filled=True, size=160, color=PALETTE["red"])
        .encode(x=x, y=y)
    )
    return Figure(
        chart.properties(title=title),
        alt=f"What a cascade costs in all, by the share sent up. {title}.",
        source=f"Computed from the outcomes measured above, mixed and priced anew. {source}",
    )


live_chart(
    trade,
    wrong_usd=w.FloatLogSlider(WRONG_USD, base=10, min=-4, max=1, step=0.05, description="a wrong answer (USD)"),
    ratio=w.IntSlider(ratio_now, 1, 50, 1, description="large / small price"),
    hard_percent=w.IntSlider(round(100 * float(found.hard.mean())), 0, 100, 1, description="hard questions (%)"),
)

# %% [markdown] tags=["reasoned"]
# Try a wrong answer that costs next to nothing; then only hard questions, where the small model is paid in vain; then one price for
# both models.

# %% [markdown]
# ## Do
#
# {{exercise 05.1}}
# The desk's owner asks: *which threshold do we ship, if any?* Each router is a way of deciding (`"before"` or `"cascade"`) and
# known outcomes; a wrong answer costs `wrong_usd`. Return the threshold at which calls and wrong answers together cost least, or
# `None` where sending everything to the large model, with no router at all, costs no more. What is free in a cascade, and what is not?


# %% exercise="05.1"
def threshold_to_ship(known: Outcomes, way: str, wrong_usd: float) -> float | None:
    """The threshold of the least cost in all; scores below it go up. None: no router, always large."""
    ...  # your code here


# %%
book.check("05.1", threshold_to_ship)

# %% [markdown]
# {{exercise 05.2}}
# Set the threshold under an SLA: the cheapest one whose quality is *surely* at least `sla` (a share of right answers), judged by
# known outcomes; `math.inf`, which sends all up, where none is. It is checked on traffic that you do not see.


# %% exercise="05.2"
def choose_threshold(known: Outcomes, sla: float) -> float:
    """The cheapest threshold of a cascade that keeps the quality at `sla` or above with 95 % confidence."""
    ...  # your code here


# %%
book.check("05.2", choose_threshold)

# %% [markdown] tags=["further"]
# #### Your rule on this chapter's engines
#
# It sees the known questions and is scored on the test, beside the lab's rule, the one
# that trusts its small sample, and the oracle. (While yours is blank, its row is missing.)


# %%
def just_enough(known, sla):
    table = frontier(known, "cascade")
    return float(table[table.quality >= sla].sort_values("cost").threshold.iloc[0])


def scored(rule):
    t = rule(known_outcomes["cascade by doubt"], sla)
    quality, cost = at_threshold(t, "quality", "cascade")(doubt), at_threshold(t, "cost", "cascade")(doubt)
    return {
        "threshold": f"{t:.3f}",
        "right answers": f"{100 * quality:.1f} %",
        "promise kept on these questions": "yes" if quality >= promised else "NO",
        "of the always-large bill": f"{100 * cost / full:.0f} %",
        "oracle, same quality": f"{100 * oracle_cost(doubt, quality) / full:.0f} %",
    }


board = {"the lab's": scored(book.reference("05.2")), "just enough on the known": scored(just_enough)}
with suppress(Exception):  # a blank or broken answer has no row
    board = {"yours": scored(choose_threshold), **board}
pd.DataFrame(board).T

# %% [markdown]
# {{exercise 05.3}}
# Write the judge: 0 for an answer that was cut off (its `finish_reason` is not `stop`), that says something unsafe (in any
# spelling), or that is no JSON where JSON is wanted; else the probability of the whole answer.


# %% exercise="05.3"
def confidence(answer: Completion, unsafe: Sequence[str], wants_json: bool) -> float:
    """How likely this answer may be delivered, 0 to 1."""
    ...  # your code here


# %%
book.check("05.3", confidence)

# %% [markdown] tags=["further"]
# {{exercise 05.4}}
# A router that somebody sells you is five decisions in a box: what it looks at in a question, how sure that makes it, how low
# it may go, when it does not deliver an answer, and what it counts as cost. Each of them can be off without anything failing:
# the bill is a little higher, or a promise a little broken. Make each yourself, and then see your router on this
# chapter's questions, beside the ones you have met.
#
# 1. `features` gives the set of a question's words, in small letters, and of its pairs of neighbours (`"order ts"`). A word
#    is a run of letters, or a run of digits, and every run of digits is the word `#`: an order number will not come again.
# 2. `train` learns from questions and from whether the small model's answers were right; to train again is to begin
#    anew. `score` is the probability that it answers rightly, by naive Bayes. With R questions answered rightly and W wrongly,
#    of which r and w hold a feature, the odds are (R + 1) / (W + 1), times (r + 1) / (R + 2) divided by (w + 1) / (W + 2) for
#    each feature of the question, seen before or not. Questions may be long.
# 3. `surely` is Wilson's lower bound of a share with 95 % confidence on one side (z = 1.645). `calibrate` sets and returns
#    the threshold on the probability of the small model's answers: of those that occur, tried from the highest down, equal ones
#    together, the last one before the first at which the share of right answers is not surely `sla`. Infinity, so that all go
#    up, where even the highest fails.
# 4. `route` says "large" at once where the score is below the ratio of the two average prices: there the small model, asked
#    first, costs more than it saves. Else it looks at the small model's answer: "both" where that is blank, not probable enough,
#    or no JSON where JSON is wanted; otherwise "small".
# 5. `bill` gives the mean cost of a request and the share of right answers for a list of routes.


# %% exercise="05.4"
class Router:
    """Decides which models see a question: the small one, the large one, or first the small and then the large."""

    def __init__(self, small_usd: float, large_usd: float) -> None:
        self.small_usd = small_usd  # what an answer costs on average
        self.large_usd = large_usd
        self.threshold = math.inf  # no answer is sure enough, until it is calibrated
        self.train((), ())  # begins with nothing learnt

    def features(self, question: str) -> set[str]:
        """Stage 1: the words, and the pairs of neighbours."""
        ...  # your code here

    def train(self, questions: Sequence[str], right: Sequence[float]) -> None:
        """Stage 2: learn from questions and from whether the small model was right (1) or wrong (0)."""
        ...  # your code here

    def score(self, question: str) -> float:
        """Stage 2: the probability that the small model answers rightly."""
        ...  # your code here

    def surely(self, right: float, n: int) -> float:
        """Stage 3: the share that is surely right, where `right` of `n` were."""
        ...  # your code here

    def calibrate(self, chances: Sequence[float], small: Sequence[float], large: Sequence[float], sla: float) -> float:
        """Stage 3: set the threshold, and return it. `small` and `large` are 1 where that model was right."""
        ...  # your code here

    def route(self, question: str, answer: str, chance: float, wants_json: bool) -> str:
        """Stage 4: "large", "small" or "both"; `answer` is the small model's, and `chance` its probability."""
        ...  # your code here

    def bill(
        self,
        routes: Sequence[str],
        small: Sequence[float],
        large: Sequence[float],
        small_usd: Sequence[float],
        large_usd: Sequence[float],
    ) -> tuple[float, float]:
        """Stage 5: mean cost of a request, and the share of right answers. The last four are the models' verdicts and costs."""
        ...  # your code here


# %%
book.check("05.4", Router)

# %% [markdown] tags=["further"]
# #### Your router on this chapter's answers
#
# It learns from the same questions as the chapter's classifier, sets its threshold on the known ones under the same promise,
# and is judged on the test.

# %%
mine, whose = book.yours("05.4", Router)
contestants = {whose: mine} | ({} if mine is book.reference("05.4") else {"the reference": book.reference("05.4")})


def trained(make_router):
    router = make_router(float(known_columns["cost_small"].mean()), float(known_columns["cost_large"].mean()))
    router.train(list(train.question), list(train.right))
    router.calibrate(
        list(known["whole answer"]), list(known_columns["right_small"]), list(known_columns["right_large"]), float(sla)
    )
    return router


def routed(router):
    """How each question of the test goes, and what that costs and gets right."""
    asked = zip(found.question, found["small said"], found["whole answer"], found.family == "extract", strict=True)
    ways = [router.route(question, said, float(chance), bool(json_)) for question, said, chance, json_ in asked]
    order = ("right_small", "right_large", "cost_small", "cost_large")
    return Counter(ways), *router.bill(ways, *(list(columns[name]) for name in order))


tried, line_of = [], []
for name, make_router in contestants.items():
    router = trained(make_router)
    ways, cost, quality = routed(router)
    tried.append({"router": name, "cost": cost, "quality": quality, "ways": ways, "threshold": router.threshold})
    for router.threshold in [0.0, *np.quantile(found["whole answer"], np.arange(0.02, 1, 0.02)), math.inf]:
        _, cost, quality = routed(router)
        line_of.append({"router": name, "cost": cost, "quality": quality})
lab_point = {
    "router": "the lab's cascade",
    "cost": at("cascade by doubt", kept_at, "cost"),
    "quality": at("cascade by doubt", kept_at, "quality"),
}
points = pd.DataFrame([*tried, lab_point])
points["bill"], points["percent"] = 100 * points.cost / full, 100 * points.quality

# %%
names = [*points.router, "oracle"]
of_lab = frontier(doubt, "cascade")[["cost", "quality"]].assign(router=points.router.iloc[-1])
drawn = pd.concat([pd.DataFrame(line_of), of_lab])
drawn["bill"], drawn["percent"] = 100 * drawn.cost / full, 100 * drawn.quality
all_knowing = pd.DataFrame(
    [{"router": "oracle", "bill": 100 * fixed.cost["oracle"] / full, "percent": 100 * fixed.quality["oracle"]}]
)
x = alt.X("bill:Q", title="bill, percent of always large", scale=alt.Scale(zero=True))
y = alt.Y("percent:Q", title="right answers (%)", scale=alt.Scale(zero=False))
paint = alt.Color(
    "router:N",
    legend=alt.Legend(title=None, labelLimit=300),
    sort=names,
    scale=alt.Scale(domain=names, range=[PALETTE[c] for c in ("green", "blue", "orange", "red")[-len(names) :]]),
)
mark = alt.Shape("router:N", legend=alt.Legend(title=None, labelLimit=300), sort=names)
show(
    (
        alt.Chart(drawn[["router", "bill", "percent"]]).mark_line(opacity=0.6).encode(x=x, y=y, color=paint, order="bill:Q")
        + alt.Chart(pd.concat([points[["router", "bill", "percent"]], all_knowing]))
        .mark_point(filled=True, size=150, opacity=1)
        .encode(x=x, y=y, color=paint, shape=mark, tooltip=["router:N", "bill:Q", "percent:Q"])
        + alt.Chart(pd.DataFrame({"y": [100 * promised]})).mark_rule(strokeDash=[4, 3]).encode(y="y:Q")
    ).properties(
        title={
            "text": "Each router at all thresholds, and at the one it set beforehand",
            "subtitle": "; ".join(f"{r.router}: {r.percent:.1f} % right for {r.bill:.0f} %" for r in points.itertuples()),
        }
    ),
    alt="Right answers against the bill. "
    + "; ".join(
        f"{r.router}: {r.percent:.1f} % right for {r.bill:.0f} % of the always-large bill" for r in points.itertuples()
    )
    + f". Dashed: the promise, {100 * promised:.1f} %.",
    source=f"{len(found)} questions, thresholds from {len(known)} others; {priced_as}. {source}",
)

# %%
pd.DataFrame(
    {
        one["router"]: {
            "threshold on the answer's probability": f"{one['threshold']:.3f}",
            **{
                f"questions that go to {way}": f"{100 * one['ways'][way] / len(found):.0f} %"
                for way in ("small", "both", "large")
            },
            "right answers": f"{100 * one['quality']:.1f} % (promised {100 * promised:.1f} %)",
            "of the always-large bill": f"{100 * one['cost'] / full:.0f} %",
            "an oracle, as many right": f"{100 * oracle_cost(doubt, one['quality']) / full:.0f} %",
        }
        for one in tried
    }
)

# %%
both_ways = [one["router"] for one in tried if one["ways"]["both"] == 0]
Markdown(
    (
        f"No question of the test goes both ways with {' and '.join(both_ways)}. Its stage 4 asks the large model at once where the small "
        "one is likely to fail, and the answers that are left are all probable enough: here it is a router and no cascade. Raise the "
        "threshold (stage 3), or lower the score below which it does not ask the small model (stage 4), and it becomes one."
    )
    if both_ways
    else "Some questions go both ways: the small model's answer was looked at, and not delivered."
)

# %% [markdown]
# ## So what
#
# The desk's month with the answers measured here, before any cache answers for it. The **break-even** is the price of a wrong answer at which a way costs as much as always large: above it, always large is cheaper.

# %%
desk = PORTAL.desk
calls_a_month = PORTAL.questions * (1 + desk.retries)
best_right = fixed.quality["always large"]


def break_even(cost, quality):
    """USD for a wrong answer at which this costs as much as always large; None where no more answers are wrong."""
    lost = best_right - quality
    return (full - cost) * (1 + desk.retries) / lost if lost > 1e-9 else None


in_words = {name: break_even(*one) for name, one in ways_to_choose.items()}
pd.DataFrame(
    {
        "calls": [f"{cost * calls_a_month:,.0f}" for cost, _ in ways_to_choose.values()],
        "saved": [f"{(full - cost) * calls_a_month:,.0f}" for cost, _ in ways_to_choose.values()],
        "more wrong answers": [
            f"{(best_right - quality) * PORTAL.questions:+,.0f}" for _, quality in ways_to_choose.values()
        ],
        "they cost": [
            f"{(best_right - quality) * PORTAL.questions * WRONG_USD:+,.0f}" for _, quality in ways_to_choose.values()
        ],
        "break-even": ["none is sold" if sold is None else f"{sold:.4f}" for sold in in_words.values()],
    },
    index=pd.Index(list(ways_to_choose), name="USD a month"),
)

# %%
small_used, large_used = ([at_the_desk(one) for one in found[f"{model} used"]] for model in ("small", "large"))
goes_up = outcomes[home].score < (math.inf if chosen[home] is None else chosen[home])
asked_small = np.ones(len(found), bool) if routers[home][0] == "cascade" else ~goes_up
to = {
    desk.small: sent([one for one, asked in zip(small_used, asked_small, strict=True) if asked], large_used),
    desk.large: sent([one for one, up in zip(large_used, goes_up, strict=True) if up], large_used),
}
change = Routed("desk", to) if pays else Stays("desk")

# The change, made on a month of these questions, costs what the chapter's own sum of their bills says.
mean_tokens = pd.DataFrame([one.by_kind() for one in large_used]).mean().to_dict()
these = Month((Calls("desk", desk.large, len(found), mean_tokens),), ())
own_sum = len(found) * (at(home, chosen[home], "cost") if pays else full)
assert math.isclose(float(change.made(these).usd), own_sum, rel_tol=1e-6)

# %%
saves_usd = home_saves.estimate * full * calls_a_month
worst = more_wrong.high * PORTAL.questions * WRONG_USD  # as many wrong answers as the interval allows
enough = math.ceil(len(found) * ((net.high - net.low) / 2 / max(net.estimate, 1e-12)) ** 2)
span_wrong = f"{100 * more_wrong.estimate:+.2f} points ({100 * more_wrong.low:+.2f} to {100 * more_wrong.high:+.2f})"
ceiling = saves_usd / PORTAL.questions / more_wrong.high if more_wrong.high > 0 else math.inf
book.finding(
    bool(pays),
    f"**{home}** takes {saves_usd:,.0f} USD a month off the calls of the desk, and on the test {span_wrong} more answers were "
    "wrong. "
    + (
        f"Even if as many more are wrong as that interval allows, it pays: they would cost {max(worst, 0):,.0f} USD."
        if worst < saves_usd
        else f"At the upper end of that interval the wrong answers would cost **{worst:,.0f} USD** a month, and the line would "
        f"not pay. It surely pays only where a wrong answer costs less than {ceiling:.3f} USD. To know more takes graded "
        f"answers: about {enough:,} of them, where this test had {len(found)}."
    ),
    f"No router pays at {PORTAL.wrong_answer_usd} USD a wrong answer: the best of them, {home}, saves {saves_usd:,.0f} USD of calls a "
    f"month, and on the test {span_wrong} more answers were wrong. The line of the bill stays as it is. "
    + (
        f"It would pay below {saves_usd / PORTAL.questions / more_wrong.estimate:.4f} USD a wrong answer; the first two sliders above "
        "show at which prices of the models."
        if more_wrong.estimate > 0
        else "With the first two sliders above, find the prices at which one does."
    ),
)

# %%
times = f"{dearer.estimate:.2f} ({dearer.low:.2f} to {dearer.high:.2f}) times the average large answer"
book.claim(
    "05.formula",
    "A cascade costs c_small + (1 − p)·c_large.",
    by="Nadir's “FrugalGPT cascade routing” tutorial (getnadir.com/blog) blends average prices by shares of questions, as many do. "
    "FrugalGPT itself (Chen, Zaharia, Zou 2023, arXiv 2305.05176) adds up what each question costs",
    claimed=100,
    measured=100 * off.estimate,
    interval=(100 * off.low, 100 * off.high),
    unit="% of what the formula says",
    where=f"{len(found)} questions, {100 * (doubt.score < policy.thresholds[0]).mean():.0f} % sent up, the formula with the average "
    "large answer; resampled",
    unless=f"It holds where what goes up is no harder than the rest. Here those large answers cost {times}. With their own price "
    "the formula holds by arithmetic.",
    source=f"{priced_as}. {source}",
    tolerance=0.05,
)
promise_saves = bootstrap(
    doubt, lambda o: 100 * (1 - at("cascade by doubt", kept_at, "cost", o) / o.cost_large.mean()), seed=seed, resamples=300
)
book.claim(
    "05.cascade",
    "Routers save 35 to 85 % at 95 % of the large model's quality.",
    by="RouteLLM: An Open-Source Framework for Cost-Effective LLM Routing (LMSYS, July 2024, lmsys.org/blog): 85 % on MT Bench, 45 % "
    "on MMLU, 35 % on GSM8K",
    claimed=(35, 85),
    measured=promise_saves.estimate,
    interval=(promise_saves.low, promise_saves.high),
    unit="% of the large model's bill",
    where=f"{len(found)} questions, cascade by doubt, its threshold set beforehand on {len(known)} others; it has {of_large} of the quality",
    unless=f"An oracle saves {best_possible:.0f} % here: it depends on how many questions are hard, and on the prices.",
    source=f"{priced_as}. {source}",
)

# %% [markdown]
# The portal's line starts from what the caches of chapters 03 and 04 left to be asked.

# %%
book.bill(
    "a router",
    change,
    of="desk",
    wrong=more_wrong.estimate if pays else 0.0,
    source=f"{home}, its threshold set beforehand. Right answers: {100 * best_right:.1f} % with always large, "
    f"{100 * at(home, chosen[home], 'quality'):.1f} % with it. {priced_as}. {source}",
)

# %%
Markdown(
    "The pressure relieved: tokens of the large model. Where it moved: into waiting (whoever goes up waits for both), into an "
    "evaluation set that must be kept fresh, and into wrong answers that look like all the others. In production, watch the share "
    "sent up by kind of question, the calibration error on graded samples, and the large model's tokens per request that reaches it."
)

# %% [markdown]
# ### On your own data
#
# A plain log says which models answer now. A threshold takes graded answers: a CSV with the columns `confidence`, `small_right`,
# `large_right`, `cost_small` and `cost_large`, a line for each question. Write the path of either into the field.

# %%
book.on_your_data()

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz("05.q1")

# %%
book.quiz("05.q2")

# %%
book.quiz("05.q3")

# %% [markdown]
# ## Next
#
# **06 · Streaming and the first token**: a cascade holds its answer back. What does waiting feel like, and which piece of an
# answer is the first that is of use?

# %%
await book.close()
book.progress()
