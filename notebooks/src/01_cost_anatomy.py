# %% [markdown]
# # 01 · Cost anatomy: where the money goes
#
# **The question.** The portal's bill says one number per month, in dollars. Which part of it should you attack first: the
# instructions in front of every question, the answers, the thinking nobody reads, or the calls that fail?
#
# **You will be able to** split a bill by kind of token, price a whole workflow from its ledger, read a price list with
# tiers and batch discounts, turn a machine's hour into a price per token, and say which decision takes most off a month.
#
# **Time.** {{time}} **Needs.** Chapter 00 before. {{needs}}

# %% tags=["imports"]
import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import altair as alt
import ipywidgets as w
import pandas as pd
from IPython.display import Markdown

from labkit.cost import (
    TOKEN_KINDS,
    Cost,
    Price,
    cost_per_mtok,
    host,
    listed,
    month,
    price_named,
    price_of,
    price_request,
)
from labkit.lab import examples, grade
from labkit.ledger import Booked, Ledger, Row, waste
from labkit.portal import PORTAL, Answered, Batched, Prefix, Rented, Routed, Sent, Shortened, Stays, today
from labkit.request import Done, Event, Handler, Request, Usage, clock, complete, stack
from labkit.tokens import available, tokenizer
from labkit.workbook import PALETTE, Figure, below, dashboard, live_chart, show, state_dir
from labkit.workbook.pictures import CaseCall, case_calls, draw_picture

# %%
book.warm_up()

# %% [markdown]
# ## Predict

# %%
book.predict(
    "01.json",
    "A customer's order, once as a sentence and once as JSON with the same facts. How many tokens does the JSON take, for "
    "every 100 tokens of the sentence?",
    low=30,
    high=300,
    unit="tokens",
)

# %%
book.predict(
    "01.hidden",
    "A customer asks whether an order may be returned. Behind the answer, the portal asks a model to name the intent, to "
    f"extract the order (this fails once and is repeated), and to decide. Each call reads {PORTAL.desk.instructions:,} "
    "tokens of instructions first. Which share of the money buys anything but the decision on the customer's screen?",
    low=0,
    high=100,
    unit="%",
    help="It buys what all the calls read, their thinking, and what the other calls wrote. Among these is a shadow call: "
    "a copy of a request that goes to a second model to try it out, and whose answer nobody sees.",
)

# %%
book.predict_choice(
    "01.ratio",
    "“Output tokens cost three to ten times as much as input tokens.” In today's price lists this holds for…",
    options=("nearly all models", "more than half of them", "less than half of them"),
)

# %% [markdown]
# ## Run
#
# ### A token is not a word
#
# Providers bill tokens, and every family of models cuts text in its own way. The program that cuts is the **tokenizer**.
# Here are five texts through every tokenizer that this machine has.

# %%
texts = {
    "a sentence": "Hi, I am Mira Solberg and I ordered 2 Ridgeline tents under order number TS-48213.",
    "the same as JSON": '{"order": "TS-48213", "name": "Mira Solberg", "product": "Ridgeline tent", "quantity": 2}',
    "in German": "Guten Tag, ich heiße Mira Solberg und habe 2 Ridgeline-Zelte unter der Nummer TS-48213 bestellt.",
    "a line of code": "total = sum(line.quantity * line.price for line in order.lines) * (1 - discount)",
    "digits": "48213 90417 33805 71264 58029 16473 20958 64301 77512 39846",
}
names = available()  # those whose files are on this machine
tokenizers = {name: tokenizer(name) for name in names}
counts = pd.DataFrame(
    [
        {"text": label, "tokenizer": name, "tokens": tokenizers[name].count(text)}
        for name in names
        for label, text in texts.items()
    ]
)
wide = counts.pivot(index="text", columns="tokenizer", values="tokens")
production = "mistral-tekken" if "mistral-tekken" in names else names[-1]
ratios = 100 * wide.loc["the same as JSON"] / wide.loc["a sentence"]
book.reveal("01.json", float(ratios[production]), unit="tokens")

# %%
spread = counts.groupby("text").tokens.agg(lambda s: s.max() / s.min())
show(
    alt.Chart(counts)
    .mark_bar(color=PALETTE["blue"])
    .encode(
        x=alt.X("tokens:Q", title="tokens"),
        y=alt.Y("tokenizer:N", title=None),
        row=alt.Row("text:N", title=None, sort=list(texts), header=alt.Header(labelAngle=0, labelAlign="left")),
        tooltip=["text:N", "tokenizer:N", "tokens:Q"],
    )
    .properties(height=alt.Step(16), title=f"The same text can cost up to {spread.max():.1f} times as many tokens"),
    alt="Bars of tokens per text and tokenizer. "
    + " ".join(
        f"{label}: " + ", ".join(f"{r.tokenizer} {r.tokens}" for r in counts[counts.text == label].itertuples()) + "."
        for label in texts
    ),
    source=f"Counted in this run with {', '.join(names)}.",
)

# %%
Markdown(
    f"With **{production}**, made for production models, the JSON takes {ratios[production]:.0f} tokens for every 100 of "
    "the sentence. With the others here: "
    f"{', '.join(f'{name} {ratios[name]:.0f}' for name in names if name != production)}. (`lab` is the lab's own, trained "
    "on this shop's traffic; `minilm` was made for search.)\n\nSo **count with the tokenizer of the model that you pay "
    "for**. A rule of thumb, such as “a token is three quarters of a word”, knows neither your texts nor your model."
)

# %% [markdown]
# ### One support case is more than one call
#
# A customer asks whether an order may be returned, and sees one answer. The portal makes several calls for it: name the
# **intent**, **extract** the order, **decide** by the returns policy. All of them together are one *case*.
#
# We run that workflow on the lab's two models. The small one answers at once. The large one writes its steps first: these
# are **reasoning** tokens, billed as output. Two things are staged that happen in production, too:
#
# - The extraction is first tried with too few output tokens. Its answer comes back cut off, fails its check, and is
#   **retried**.
# - The decision is also sent to the small model as **shadow** traffic: a copy, to see whether that model could take over.
#   Nobody reads its answer.
#
# Each call is an **attempt**, a row of the ledger, and is paid for: the one that failed, the one that repeated it, and the
# shadow.

# %%
small = await book.connect("small")
large = await book.connect("large")
ledger = Ledger(state_dir() / "ledger.sqlite")
booked = Booked(ledger, provider="lab")
desk = {"small": stack(booked, engine=small), "large": stack(booked, engine=large)}


# %%
async def support_case(number):
    """One workflow: intent, extraction with a retry, decision with a shadow. Every attempt is a row of the ledger."""
    workflow = f"case-{book.seed}-{number}-{clock.unix_now():.3f}"

    async def ask(model, family, **changes):
        task = next(examples("test", family, 1, seed=1000 * book.seed + number))
        request = Request(task.messages, max_tokens=task.max_tokens, tenant="trailhead", feature=family, workflow=workflow)
        answer = await complete(desk[model], replace(request, **{"idempotency_key": f"{workflow}/{family}", **changes}))
        return grade(task, answer.text)

    await ask("small", "intent")
    if not await ask("small", "extract", max_tokens=16):
        await ask("small", "extract", attempt=2)
    await asyncio.gather(ask("large", "policy"), ask("small", "policy", shadow=True, idempotency_key=f"{workflow}/shadow"))
    rows = ledger.frame({"labkit.workflow": workflow})
    return [{"case": number, **attempt} for attempt in map(attempt_of, rows.to_dict("records"))]


def attempt_of(row):
    """What the bill needs of a ledger row."""
    kinds = (
        "input_tokens",
        "output_tokens",
        "cache_read.input_tokens",
        "cache_creation.input_tokens",
        "reasoning.output_tokens",
    )
    counted = [row[f"gen_ai.usage.{kind}"] for kind in kinds]
    return {
        "feature": row["labkit.feature"],
        "attempt": int(row["labkit.attempt"]),
        "shadow": bool(row["labkit.shadow"]),
        "model": str(row["gen_ai.response.model"]),
        "usage": Usage(*(0 if pd.isna(n) else int(n) for n in counted)),
    }


# %%
measured = await book.measure("support cases", support_case, rounds=book.pick(ci=3, learn=10, gpu=30))
calls = pd.DataFrame([attempt for case in measured.value for attempt in case]).sort_values(["case", "shadow"], kind="stable")
cases = len(measured.value)
calls["retried"] = calls.attempt < calls.groupby(["case", "feature", "shadow"]).attempt.transform("max")

# The same calls as the portal would pay for them: with its instructions in front, to its model for everything.
price = price_named(PORTAL.desk.large)
calls["billed"] = [replace(u, input_tokens=u.input_tokens + PORTAL.desk.instructions) for u in calls.usage]
rows = []
for call in calls.itertuples():
    cost = price_request(call.billed, price)
    step = call.feature + (" (shadow)" if call.shadow else " (failed)" if call.retried else "")
    rows += [
        {"step": step, "kind": kind.replace("_", " "), "usd": float(getattr(cost, kind)) / cases} for kind in TOKEN_KINDS
    ]
money = pd.DataFrame(rows).groupby(["step", "kind"], as_index=False).usd.sum()
total = money.usd.sum()
seen = money[(money.kind == "visible output") & (money.step == "policy")].usd.sum()  # the answer that is shown
unseen = 1 - seen / total
book.reveal("01.hidden", 100 * unseen, unit="%")

# %%
draw_picture(
    case_calls(
        [
            CaseCall(
                call.feature, call.model, call.billed, "shadow" if call.shadow else "retried" if call.retried else "used"
            )
            for call in calls[calls.case == calls.case.iloc[0]].itertuples()
        ]
    )
)

# %%
Markdown(
    f"Those are the attempts of the first of {cases} cases; all together made **{len(calls) / cases:.1f} attempts a "
    "case**. The lab's models, which wrote the answers, were trained for this desk and read no instructions. A model that "
    f"you buy needs them, so each call has the portal's {PORTAL.desk.instructions:,} tokens of instructions added (chapter "
    f"03 shows them, and what to do about them). So counted, here is a case at the list price of **{PORTAL.desk.large}**, "
    "the portal's model for everything."
)

# %% tags=["reasoned"]
show(
    alt.Chart(money[money.usd > 0])
    .mark_bar()
    .encode(
        x=alt.X("usd:Q", title="US dollars per case", axis=alt.Axis(format="~g")),
        y=alt.Y("step:N", title=None, sort=["intent", "extract (failed)", "extract", "policy", "policy (shadow)"]),
        color=alt.Color(
            "kind:N",
            title=None,
            scale=alt.Scale(
                domain=["fresh input", "cached input", "visible output", "reasoning"],
                range=[PALETTE["blue"], PALETTE["sky"], PALETTE["orange"], PALETTE["red"]],
            ),
        ),
        tooltip=["step:N", "kind:N", alt.Tooltip("usd:Q", format=".3g")],
    )
    .properties(title=f"{100 * unseen:.0f} % of a case's money buys something else than the answer on the screen"),
    alt="Stacked bars of dollars per support case by step. "
    + " ".join(f"{step}: {100 * part.usd.sum() / total:.0f} % of the case." for step, part in money.groupby("step")),
    source=f"Tokens measured over {cases} cases: {measured.source}. With {PORTAL.desk.instructions:,} tokens of "
    f"instructions a call, priced as {price.model}, {price.source}.",
)

# %% tags=["reasoned"]
parts = {
    "reading: all prompts": money[money.kind.str.contains("input|write")].usd.sum(),
    "thinking": money[money.kind == "reasoning"].usd.sum(),
    "what the steps in between wrote": money[
        (money.kind == "visible output") & money.step.isin(["intent", "extract"])
    ].usd.sum(),
    "what failed tries and shadows wrote": money[
        (money.kind == "visible output") & money.step.str.contains(r"\(")
    ].usd.sum(),
    "the answer on the customer's screen": seen,
}
wasted_usd = money[money.step.str.contains(r"\(")].usd.sum()
Markdown(
    "What the money of a case buys:\n\n"
    + "\n".join(f"- {what}: **{100 * usd / total:.0f} %**" for what, usd in sorted(parts.items(), key=lambda part: -part[1]))
    + "\n\nRead a bill so: by what was bought, not by the call. Each of these lines has a chapter that shrinks it.\n\n"
    "What the customer does not see is not wasted: no answer without reading. Wasted is what served nobody, the failed "
    f"try and the shadow, with all that they read and wrote: **{100 * wasted_usd / total:.0f} %** of this case."
)

# %% [markdown]
# ### Reading a price list
#
# What a portal pays has three parts, **C = C_in + C_out + C_infra**: tokens that its models read, tokens that they wrote,
# and machines that it rents. A price list has the first two, in dollars per million tokens.
#
# You will often hear that output costs three to ten times as much as input. The price lists are on this machine; ask them.

# %%
NO_TEXT = ("image", "tts", "embed", "audio", "realtime")  # models whose output, or part of it, is priced as something else
ratios = pd.DataFrame(
    [
        {"provider": p.provider, "model": p.model, "ratio": float(p.rates.visible_output / p.rates.fresh_input)}
        for provider in ("openai", "anthropic", "google", "mistral", "deepseek")
        for p in listed(provider)
        if p.rates.fresh_input > 0 and p.rates.visible_output > 0 and not any(kind in p.model for kind in NO_TEXT)
    ]
)
holds_for = ((ratios.ratio >= 3) & (ratios.ratio <= 10)).mean()
book.reveal(
    "01.ratio",
    "nearly all models" if holds_for >= 0.9 else "more than half of them" if holds_for > 0.5 else "less than half of them",
)
show(
    alt.Chart(ratios)
    .mark_bar(color=PALETTE["blue"])
    .encode(
        x=alt.X("ratio:Q", bin=alt.Bin(step=1), title="output price / input price"),
        y=alt.Y("count()", title="models listed"),
        tooltip=["count()"],
    )
    .properties(title=f"“3 to 10 times” holds for {100 * holds_for:.0f} % of {len(ratios)} models that write text"),
    alt=f"Histogram of output price over input price for {len(ratios)} models. Median {ratios.ratio.median():.1f}; "
    f"{100 * holds_for:.0f} % lie between 3 and 10.",
    source=f"{price.source}: all models of {ratios.provider.nunique()} providers that write text and are not deprecated, "
    "today's price.",
)
outside = ratios[~ratios.ratio.between(3, 10)].sort_values("ratio")
book.claim(
    "01.output_price",
    "Output tokens cost 3 to 10 times as much as input tokens.",
    by="Georgy Malanichev, “LLM API Pricing & Economics”, ModelMath guide, 2026 (modelmath.app): “output tokens cost "
    "3-10x more than input”. Others say 3 to 5 times (gitintel.com, LLM API cost calculator, 2026) or 2 to 6 "
    "(modelpicker.net, “LLM API pricing explained”).",
    claimed=(3, 10),
    measured=ratios.ratio.median(),
    unit="times",
    where=f"the median of {len(ratios)} models (all that are listed, so there is no interval); {100 * holds_for:.0f} % of "
    "them lie in that range",
    unless=f"Outside of it are {len(outside)} models, from {outside.model.iloc[0]} ({outside.ratio.iloc[0]:.1f} times) to "
    f"{outside.model.iloc[-1]} ({outside.ratio.iloc[-1]:.1f} times): read the list of your own."
    if len(outside)
    else "No model of these lies outside of it.",
    source=f"{price.source}, {price.as_of}.",
)

# %% [markdown] tags=["reasoned"]
# Two lines of a price list are easily overlooked:
#
# - **Context tiers.** Above some number of input tokens the *whole* request moves to a higher rate, not only the part above.
# - **Batch.** The same tokens have a discount where the answer may take hours.


# %%
def cost_at(model: str, tokens: int) -> float:
    """US dollars of a request with that many input tokens and 500 output tokens."""
    return float(price_request(Usage(tokens, 500), price_of(model)).total)


tiered = ["gemini-2.5-pro", "claude-haiku-5-5"]
steps = pd.DataFrame(
    [{"model": model, "tokens": 1000 * k, "usd": cost_at(model, 1000 * k)} for model in tiered for k in range(10, 300, 2)]
)
jump = {m: cost_at(m, price_of(m).tiers[0][0] + 1) / cost_at(m, price_of(m).tiers[0][0]) for m in tiered}
worst = max(jump, key=jump.get)

# %%
show(
    alt.Chart(steps)
    .mark_line(interpolate="step-after")
    .encode(
        x=alt.X("tokens:Q", title="input tokens of the request", axis=alt.Axis(format="~s")),
        y=alt.Y("usd:Q", title="US dollars, with 500 output tokens"),
        color=alt.Color("model:N", title=None),
        tooltip=["model:N", "tokens:Q", alt.Tooltip("usd:Q", format=".4f")],
    )
    .properties(title=f"One token too many, and {worst}'s request costs {jump[worst]:.1f} times as much"),
    alt=f"Cost of a request against its input tokens. Both lines jump at a tier: {worst} by {jump[worst]:.1f} times at "
    f"{price_of(worst).tiers[0][0]:,} tokens.",
    source=f"{price.source}, today's price.",
)

# %%
by_model = {name: price_named(name) for name in PORTAL.scenario().models}
offered = {name: p for name, p in by_model.items() if p.batch is not None}
thousand = {
    batch: [
        1000 * sum((price_request(u, p, batch=batch) for u in calls.billed), Cost()).total / cases for p in offered.values()
    ]
    for batch in (False, True)
}
pd.DataFrame(
    {
        "at once (USD)": [f"{usd:.3f}" for usd in thousand[False]],
        "as a batch (USD)": [f"{usd:.3f}" for usd in thousand[True]],
        "discount": [f"{100 * (1 - b / a):.0f} %" for a, b in zip(thousand[False], thousand[True], strict=True)],
    },
    index=pd.Index(list(offered), name="1,000 of the cases above, with"),
)

# %% [markdown] tags=["reasoned"]
# A customer who waits for an answer cannot be put in a batch. Shadow calls can, since nobody waits for them.

# %% [markdown]
# ### A machine of your own
#
# The third part, C_infra, has no price per token. A machine has a price per hour, and how many tokens it writes in that hour
# makes it a price per token.
#
# We measure what an engine of our own does with one request at a time, and with sixteen, in turns. Suppose that this machine
# costs ten cents an hour; put in what yours costs.

# %% tags=["constants"]
USD_PER_HOUR = Decimal("0.10")


# %%
async def output_rates(_):
    """Output tokens a second of the large model, with one request at a time and with sixteen."""
    task = next(examples("test", "policy", 1))
    request = Request(task.messages, max_tokens=64, extra={"ignore_eos": True}, feature="rate", tenant="trailhead")
    rates = {}
    for n in (1, 16):
        started = clock.now()
        answers = await asyncio.gather(*(complete(large, replace(request, user=str(i))) for i in range(n)))
        rates[n] = sum(a.done.usage.output_tokens for a in answers) / (clock.now() - started)
    return rates


rated = await book.measure("one and sixteen at a time", output_rates, rounds=book.pick(ci=6, learn=10), needs=("vllm",))
rates = pd.DataFrame(rated.value[1:])  # the first round warms up
together = rates[16] / rates[1]
middle = rates.median()
pd.DataFrame(
    {
        "output tokens/s": [f"{r:,.0f}" for r in middle],
        "USD per million tokens, always busy": [f"{cost_per_mtok(USD_PER_HOUR, r):.3f}" for r in middle],
        "… busy a tenth of the time": [f"{cost_per_mtok(USD_PER_HOUR, r, 0.1):.3f}" for r in middle],
    },
    index=pd.Index([f"{n} at a time" for n in middle.index], name="requests"),
)

# %%
book.finding(
    below(rates[1].tolist(), rates[16].tolist()),
    f"Same machine, same model, same hour: with sixteen requests at a time it wrote **{together.median():.1f} times** as "
    f"many tokens as with one ({together.min():.1f} to {together.max():.1f} in {len(together)} rounds), so each cost that "
    "much less. Chapter 07 is about why.",
    f"In this run sixteen requests at a time wrote {together.median():.1f} times the tokens of one: nothing was gained by "
    "company. Look for what else keeps this machine busy.",
)

# %% tags=["reasoned"]
Markdown(
    "And whatever was measured: a machine that is busy a tenth of the time makes each token ten times as dear, since its "
    f"hour costs the same. The lab's model is tiny, so read the *ratios*, not the dollars. ({rated.source})"
)

# %% [markdown]
# ### The month
#
# Finance asks for a month, not for a case. The portal's *desk* answers questions of the kinds above (name an intent, extract
# an order, decide by the policy), so a case is three questions. Suppose that all of a month's questions came in such cases,
# each with its failed try and its shadow.
#
# There are two ways to price that. The **calculator** multiplies averages: tokens per call, calls per question, questions
# per month. The other way prices *every row* of the ledger and scales the sum.

# %%
useful = calls[~calls.shadow & (calls.attempt == 1)]
mean = pd.DataFrame(
    [{"input": u.input_tokens, "output": u.output_tokens, "reasoning": u.reasoning_tokens} for u in calls.billed]
)
mean = mean.mean()
portal = PORTAL.scenario()
staged = replace(
    portal,
    input_tokens=round(mean["input"]),
    output_tokens=max(1, round(mean["output"])),
    reasoning_share=round(float(mean["reasoning"] / mean["output"]), 2),
    retry_rate=float((calls.attempt > 1).sum() / len(useful)),
    shadow_share=float(calls.shadow.sum() / len(useful)),
)
scale = Decimal(PORTAL.questions) / len(useful)
exact = {name: sum((price_request(u, p) for u in calls.billed), Cost()).total * scale for name, p in by_model.items()}
averaged = {one.name: one.total for one in month(staged) if one.name in exact}
pd.DataFrame(
    {
        "calculator, USD a month": [f"{averaged[name]:,.2f}" for name in exact],
        "every row of the ledger, USD a month": [f"{exact[name]:,.2f}" for name in exact],
        "difference": [f"{100 * (averaged[name] / exact[name] - 1):+.1f} %" for name in exact],
    },
    index=pd.Index(list(exact), name="the desk, as staged, with"),
)

# %% [markdown] tags=["reasoned"]
# The two differ by the rounding of averages (whole tokens, shares in percent), and by nothing else. Where yours differ by
# more, look for a kind of token that is counted twice.
#
# ### The portal
#
# That desk was staged: in life, few calls fail and few are shadows. **The running case of this book** is the portal as its
# own log has it, with its numbers in `labkit.portal`. It is more than its desk. An *assistant* holds long conversations, on
# GPUs that the portal rents. In the evening, each user's day is *summarised* for the team leads. Every chapter takes its
# workload from these three, and adds its line to their bill.

# %%
now = today()
said = {one.name: one.total for one in month(portal)}
features = {
    "desk": (PORTAL.questions, "questions", portal.input_tokens, portal.output_tokens, PORTAL.desk.large),
    "summaries": (PORTAL.bulk, "summaries", PORTAL.summaries.prompt, PORTAL.summaries.answer, PORTAL.desk.large),
    "assistant": (PORTAL.sessions, "conversations", PORTAL.assistant.history, None, f"{now.machines[0].rented} GPUs"),
}
bill_now = pd.DataFrame(
    [
        (name, f"{n:,} {what}", f"{read:,}", wrote or "", by, f"{now.of(name):,.0f}")
        for name, (n, what, read, wrote, by) in features.items()
    ]
    + [("the portal", "", "", "", "", f"{now.usd:,.0f}")],
    columns=["feature", "a month", "tokens in, each", "tokens out, each", "served by", "USD a month"],
).set_index("feature")
bill_now

# %%
extra_usd = exact[PORTAL.desk.large] - now.of("desk")
Markdown(
    f"The assistant's GPUs are {host(PORTAL.assistant.host).name}, rented day and night; a conversation is "
    f"{PORTAL.assistant.history:,} tokens long at its end, input and output together. The desk pays {now.of('desk'):,.0f} "
    f"USD: by its log it repeats {PORTAL.desk.retries:.0%} of its calls and has no shadows. As staged above it would pay "
    f"{exact[PORTAL.desk.large]:,.0f}: {extra_usd:+,.0f} for the tries that fail, the shadows, and another mix of "
    f"questions. The calculator, which knows the desk only, says {said[PORTAL.desk.large]:,.0f}."
)

# %% [markdown]
# ## Move
#
# This is the calculator, opened on the portal's desk. Try three things:
#
# - Let a cache serve one half of the input (*Cached share*).
# - Set *Output tokens* to twice what it is. That is an answer, with its thinking, of twice the length.
# - Drag *Reasoning share* from one end to the other. The colours change and the total stays: thinking is billed as output,
#   and the output tokens include it already.
#
# The green bar, *self-hosted*, is a machine of your own. How many tokens a second it writes is yours to say (*Its output
# tok/s*); the number that stands there was not measured, and which model would write them is another question.
#
# The tornado at the bottom moves one setting at a time, each by a quarter of the way that it has. Some of them nobody
# decides, such as how many users there are. *So what* asks about decisions only, and about the whole portal. (In
# `notebooks/apps`, `voila calculator.ipynb` serves the calculator as an app.)

# %%
dashboard(portal)

# %% [markdown] tags=["further"]
# ### Two settings at once
#
# A tornado moves one setting at a time, and some settings matter together: here is what a cache is worth, depending on how
# long the prompt is.


# %%
def cache_worth(input_tokens):
    shares = [i / 20 for i in range(21)]
    base = replace(portal, input_tokens=input_tokens)
    data = pd.DataFrame(
        [
            {"share": 100 * s, "model": m.name, "usd": float(m.total)}
            for s in shares
            for m in month(replace(base, cached_share=s))[:3]
        ]
    )
    saved = data.groupby("model").usd.agg(lambda u: 100 * (1 - u.iloc[-1] / u.iloc[0]))
    title = f"At {input_tokens:,} input tokens, a perfect cache saves {saved.min():.0f}–{saved.max():.0f} %"
    chart = (
        alt.Chart(data)
        .mark_line()
        .encode(
            x=alt.X("share:Q", title="share of the input that the cache serves (%)"),
            y=alt.Y("usd:Q", title="US dollars per month", axis=alt.Axis(format="~s")),
            color=alt.Color("model:N", title=None, legend=alt.Legend(labelLimit=240)),
        )
        .properties(title=title)
    )
    return Figure(chart, alt=title + ".", source=f"{price.source}; the portal's traffic with longer prompts.")


live_chart(cache_worth, input_tokens=w.IntSlider(2000, 100, 20_000, 100, description="input tokens"))

# %% [markdown]
# ## Do
#
# {{exercise 01.1}}
# Price one receipt. `rates` holds dollars per million tokens under the keys `input`, `cached`, `cache_write` and `output`.


# %% exercise="01.1"
def bill(usage: Usage, rates: Mapping[str, Decimal]) -> Decimal:
    """Cost of one request in dollars."""
    ...  # your code here


# %%
book.check("01.1", bill)

# %% [markdown]
# {{exercise 01.2}}
# Several models were on trial. `trials` has the attempts of each, as `(case, usd, worked)`: a case is solved when one of its
# attempts worked, and every attempt was paid for. A case that no attempt solved is a wrong answer, and costs `wrong_usd` on
# top. The models had different numbers of cases. Return the name of the model that is cheapest *for a case*.


# %% exercise="01.2"
def cheapest(trials: Mapping[str, Sequence[tuple[str, Decimal, bool]]], wrong_usd: Decimal) -> str:
    """The model with the smallest cost per case, wrong answers included."""
    ...  # your code here


# %%
book.check("01.2", cheapest)

# %% [markdown]
# {{exercise 01.3}}
# Build the order of a tornado: move each setting down and up by the share `by` while the others stay, and return the
# settings' names, the one with the widest swing first. `cost(**settings)` is any function of the settings.


# %% exercise="01.3"
def tornado_order(cost: Callable[..., float], base: Mapping[str, float], by: float) -> list[str]:
    """Names of the settings, widest swing first."""

    ...  # your code here


# %%
book.check("01.3", tornado_order)

# %% [markdown] tags=["further"]
# {{exercise 01.4}}
# The piece that gateways are sold for: a handler around another one that lets requests through while there is money, and
# refuses them, *before* the engine hears of them, once `dollars` have been spent: it raises an error. `price(usage)` is the
# cost of an answer. (The last request may overshoot: its cost is known only when it is done.) What goes through, goes
# through as it comes, and a caller who leaves ends the engine's stream too.


# %% exercise="01.4"
def within_budget(inner: Handler, dollars: Decimal, price: Callable[[Usage], Decimal]) -> Handler:
    """Refuse requests once `dollars` have been spent."""
    ...  # your code here


# %%
book.check("01.4", within_budget)

# %% [markdown] tags=["further"]
# {{exercise 01.5}}
# Finance asks what the policy bot cost in March, and the answer has to agree with the invoice. A script over the ledger does
# it in an afternoon, and a year later nobody believes it: floats have drifted, a model that joined in February had no price
# and counted as free, the long prompts went over a tier, and every dashboard has its own idea of what a retry is.
#
# Write the engine that finance can sign. It gets `prices` (a `Price` for each model's name, all in one currency) and
# `batched`, the features whose requests go through the provider's batch API. `cost(row)` prices one attempt; `bill(rows,
# by)` makes a line for each value of any attribute of the rows, such as `"feature"` or `"workflow"`:
#
# - `attempts`: all of them. `unpriced`: those whose cost nobody can know; they add nothing, and they are seen.
# - a `Decimal` for each of `TOKEN_KINDS`, exact: cut by feature or by workflow, the same rows come to the same sum.
# - `wasted`: what was paid for attempts that served nobody. These are shadows, what did not complete, and attempts that were
#   replaced: a later attempt at the same request (same `tenant` and `idempotency_key`) completed, and was no shadow.
#
# The stages go from one row to the whole bill. `rates.of(kind)`, `price.tiers`, `price.batch`, `price.day` and
# `price.at(moment)` are described in `help(Price)`.


# %% exercise="01.5"
@dataclass(frozen=True)
class BillEngine:
    """Prices ledger rows, one attempt each, and adds them up, exactly."""

    prices: Mapping[str, Price]
    batched: Collection[str] = frozenset()

    def cost(self, row: Row) -> dict[str, Decimal] | None:
        """Dollars of one attempt by kind of token; None where nobody can know them."""
        ...  # your code here

    def bill(self, rows: Sequence[Row], by: str) -> dict[str, dict[str, Any]]:
        """A line for each value of the rows' attribute `by`: attempts, unpriced, wasted, and dollars by kind of token."""
        ...  # your code here


# %%
book.check("01.5", BillEngine)

# %% [markdown] tags=["further"]
# Now your engine on the cases that were measured above, with the portal's instructions and at the list price used there. One
# thing is changed: the shadow calls go through the batch API, since nobody waits for them.

# %%
made, whose = book.yours("01.5", BillEngine)
paid = [
    Row(
        provider="lab",
        response_model=call.model,
        feature="shadow" if call.shadow else call.feature,
        workflow=f"case {call.case + 1}",
        idempotency_key=f"{call.case}/{call.feature}/{call.shadow}",
        attempt=call.attempt,
        shadow=call.shadow,
        input_tokens=call.billed.input_tokens,
        output_tokens=call.billed.output_tokens,
        cached_tokens=call.billed.cached_tokens,
        cache_write_tokens=call.billed.cache_write_tokens,
        reasoning_tokens=call.billed.reasoning_tokens,
        usage_source="reported",
    )
    for call in calls.itertuples()
]
engine_of_bills = made({model: price for model in calls.model.unique()}, {"shadow"})
by_feature, by_case = engine_of_bills.bill(paid, "feature"), engine_of_bills.bill(paid, "workflow")

lab_cost = [price_request(row.usage, price, batch=row.shadow) for row in paid]
lab_book = Ledger(":memory:")
lab_book.extend([replace(row, cost=cost.total) for row, cost in zip(paid, lab_cost, strict=True)])
lab_total, lab_waste = sum(lab_cost, Cost()).total, sum(waste(lab_book)["labkit.cost"], Decimal(0))
sums = {
    cut: sum((line[kind] for line in lines.values() for kind in TOKEN_KINDS), Decimal(0))
    for cut, lines in (("by feature", by_feature), ("by case", by_case))
}
wasted = sum((line["wasted"] for line in by_feature.values()), Decimal(0))
pd.DataFrame(
    {
        "US dollars": [f"{usd:f}" for usd in (*sums.values(), lab_total, wasted, lab_waste)],
        "off by": [*(f"{one - lab_total:f}" for one in sums.values()), "", f"{wasted - lab_waste:f}", ""],
    },
    index=pd.Index(
        [*(f"bill engine, {cut}" for cut in sums), "labkit.cost", "bill engine, wasted", "labkit.ledger.waste"],
        name=f"the bill engine is {whose}",
    ),
)

# %% tags=["reasoned"]
bars_of = pd.DataFrame(
    [
        {"feature": name, "kind": kind.replace("_", " "), "usd": float(line[kind])}
        for name, line in by_feature.items()
        for kind in TOKEN_KINDS
        if line[kind]
    ]
)
marks = pd.DataFrame(
    [
        {"feature": name, "what": "labkit.cost, in total", "usd": float(total)}
        for name in by_feature
        for total in [sum(c.total for c, row in zip(lab_cost, paid, strict=True) if row.feature == name)]
    ]
    + [
        {"feature": name, "what": "wasted, by the engine", "usd": float(line["wasted"])}
        for name, line in by_feature.items()
        if line["wasted"]
    ]
)
y = alt.Y("feature:N", title=None, sort=list(by_feature))
show(
    (
        alt.Chart(bars_of)
        .mark_bar()
        .encode(
            x=alt.X("usd:Q", title=f"US dollars of {cases} cases", axis=alt.Axis(format="~g")),
            y=y,
            color=alt.Color("kind:N", title=None),
            tooltip=["feature:N", "kind:N", alt.Tooltip("usd:Q", format=".4g")],
        )
        + alt.Chart(marks)
        .mark_point(size=110, strokeWidth=2.5, color=PALETTE["red"], opacity=1)
        .encode(x="usd:Q", y=y, shape=alt.Shape("what:N", title=None), tooltip=["feature:N", "what:N", "usd:Q"])
    ).properties(height=150, title=f"Of the bill by {whose}, {100 * wasted / sums['by feature']:.0f} % served nobody"),
    alt=f"Stacked bars of dollars by feature and kind of token, from {whose}, with marks for labkit.cost and for waste. "
    + " ".join(
        f"{name}: {sum(line[kind] for kind in TOKEN_KINDS):.6f} USD, {line['wasted']:.6f} wasted."
        for name, line in by_feature.items()
    ),
    source=f"Tokens measured over {cases} cases: {measured.source}. Priced as {price.model}, shadows in batches, "
    f"{price.source}.",
)

# %% [markdown]
# ## So what
#
# Which part should the portal attack first? Ask the same of every part: what would one half of it less take off the portal's
# month? The chart below asks it of decisions that later chapters (03 to 10) make.

# %%
desk = PORTAL.desk
half = {
    "desk: find half of the input in a provider's cache": Prefix("desk", 0.5),
    "desk: answer half of the questions from a cache of answers": Answered("desk", 0.5),
    f"desk: send half of the questions to {desk.small}": Routed("desk", {desk.small: Sent(0.5), desk.large: Sent(0.5)}),
    "desk: write half as much": Shortened("desk", visible=0.5),
    "desk: think half as much": Shortened("desk", reasoning=0.5),
    "summaries: half of them through the batch API": Batched("summaries", 0.5),
    "assistant: half as many GPUs": Rented("assistant", 0.5),
}
saved = pd.Series({what: 100 * float(1 - change.made(now).usd / now.usd) for what, change in half.items()})
saved = saved.sort_values(ascending=False)

# %% tags=["reasoned"]
show(
    alt.Chart(saved.rename("share").rename_axis("what").reset_index())
    .mark_bar(color=PALETTE["green"])
    .encode(
        x=alt.X("share:Q", title="taken off the portal's month (%)"),
        y=alt.Y("what:N", title=None, sort="-x", axis=alt.Axis(labelLimit=400)),
        tooltip=["what:N", alt.Tooltip("share:Q", format=".1f")],
    )
    .properties(title=f"Attack first: {saved.index[0]} ({saved.iloc[0]:.0f} % of the month)"),
    alt="Bars of what each decision takes off the month. "
    + " ".join(f"{what}: {share:.1f} %." for what, share in saved.items()),
    source=f"The portal's month at {price.model}'s list price ({price.source}) and {host(PORTAL.assistant.host).source}. "
    "They overlap: do not add them up.",
)

# %% tags=["reasoned"]
dear, cheap = max(exact, key=exact.get), min(exact, key=exact.get)
Markdown(
    f"**Before:** a number, {now.usd:,.0f} USD. **Now:** of it {100 * now.of('desk') / now.usd:.0f} % is the desk, "
    f"{100 * now.of('assistant') / now.usd:.0f} % the assistant's GPUs and {100 * now.of('summaries') / now.usd:.0f} % the "
    f"summaries. Of {len(saved)} decisions, *{saved.index[0]}* takes off most and *{saved.index[1]}* comes next; "
    f"*{saved.index[-1]}* takes off {saved.iloc[-1]:.1f} %. And for the very same tokens {dear} asks "
    f"{exact[dear] / exact[cheap]:.1f} times what {cheap} asks. No price list says whether the answers stay as good. Later "
    f"chapters measure that beside the money, and here a wrong answer has a price: {PORTAL.wrong_answer_usd} USD on "
    "average, since one in twenty of the customers who get one calls a person, which costs 5 USD.\n\nIn production, watch "
    "*dollars per case*, not per call: a cheaper model that needs one more retry shows up only there."
)

# %% [markdown]
# Here the book's bill begins. Its first line has no lever yet: the month stays as it is. Each later chapter adds a line,
# which starts where the one before it ended, so that the savings add up. Beside it stands what its lever would save alone.

# %%
book.bill(
    "none yet",
    Stays("desk"),
    of="desk",
    source=f"The portal's month: {price.model}, {price.source}, {price.as_of}; {host(PORTAL.assistant.host).source}.",
)

# %% [markdown]
# ### On your own data
# Write the path of your log into the field: it needs the model and the token counts of each call, and says more with attempt
# numbers and outcomes. The answer says what your money goes to, and which share of it went to thinking and to answers that
# nobody got. Without a log of yours, it reads one of the portal's.

# %%
book.on_your_data()

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz("01.q1")

# %%
book.quiz("01.q2")

# %%
book.quiz("01.q3")

# %% [markdown]
# ## Next
#
# **02 · Latency anatomy**: the other half of the bill, which customers pay with their time.

# %%
await book.close()
book.progress()
