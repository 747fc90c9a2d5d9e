# %% [markdown]
# # 01 · Cost anatomy: where the money goes
#
# **The question.** The portal's bill says one number per month, in dollars. Which part of it should you attack first: the
# instructions in front of every question, the answers, the thinking nobody reads, or the calls that fail?
#
# **You will be able to** split any bill by kind of token, price a whole workflow from its ledger, read a price list with
# tiers and batch discounts, compare an API with a machine of your own, and say which assumption moves a forecast most.
#
# **Time.** 45 minutes. **Needs.** Nothing beyond chapter 00; two small engines start on this machine.

# %% tags=["imports"]
import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal

import altair as alt
import ipywidgets as w
import pandas as pd
from IPython.display import Markdown

from labkit.cost import (
    TOKEN_KINDS,
    Cost,
    Scenario,
    cost_per_mtok,
    host,
    listed,
    month,
    price_named,
    price_of,
    price_request,
    tornado,
)
from labkit.engines import connect
from labkit.lab import examples, grade
from labkit.ledger import Booked, Ledger
from labkit.request import Done, Event, Handler, Request, Usage, clock, complete, stack
from labkit.tokens import available, tokenizer
from labkit.workbook import PALETTE, Figure, dashboard, live_chart, show, state_dir

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
    "In the support workflow below, which share of the money buys tokens that the customer never sees: prompts, thinking, a "
    "first try that failed, a shadow call?",
    low=0,
    high=100,
    unit="%",
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
# Providers bill tokens, and every model family cuts text its own way. Here are the same five texts through every tokenizer
# that works on this machine without a network.

# %%
texts = {
    "a sentence": "Hi, I am Mira Solberg and I ordered 2 Ridgeline tents under order number TS-48213.",
    "the same as JSON": '{"order": "TS-48213", "name": "Mira Solberg", "product": "Ridgeline tent", "quantity": 2}',
    "in German": "Guten Tag, ich heiße Mira Solberg und habe 2 Ridgeline-Zelte unter der Nummer TS-48213 bestellt.",
    "a line of code": "total = sum(line.quantity * line.price for line in order.lines) * (1 - discount)",
    "digits": "48213 90417 33805 71264 58029 16473 20958 64301 77512 39846",
}
names = available()
counts = pd.DataFrame(
    [
        {"text": label, "tokenizer": name, "tokens": tokenizer(name).count(text)}
        for name in names
        for label, text in texts.items()
    ]
)
spread = counts.groupby("text").tokens.agg(lambda s: s.max() / s.min())
show(
    alt.Chart(counts)
    .mark_bar()
    .encode(
        x=alt.X("tokens:Q", title="tokens"),
        y=alt.Y("tokenizer:N", title=None),
        color=alt.Color("tokenizer:N", legend=None),
        row=alt.Row("text:N", title=None, sort=list(texts), header=alt.Header(labelAngle=0, labelAlign="left")),
        tooltip=["text:N", "tokenizer:N", "tokens:Q"],
    )
    .properties(
        height=alt.Step(16), width=380, title=f"The same text can cost up to {spread.max():.1f} times as many tokens"
    ),
    alt="Bars of tokens per text and tokenizer. "
    + " ".join(
        f"{label}: " + ", ".join(f"{r.tokenizer} {r.tokens}" for r in counts[counts.text == label].itertuples()) + "."
        for label in texts
    ),
    source=f"Counted in this run with {', '.join(names)}.",
)

# %%
wide = counts.pivot(index="text", columns="tokenizer", values="tokens")
production = "mistral-tekken" if "mistral-tekken" in names else names[-1]
ratio = 100 * wide.loc["the same as JSON", production] / wide.loc["a sentence", production]
book.reveal("01.json", float(ratio), unit="tokens")
Markdown(
    f"With **{production}**, made for production models, the JSON takes {ratio:.0f} tokens for every 100 of the sentence. The "
    "lab's own tokenizer, trained on this shop's traffic, and MiniLM's, made for search, disagree. So: **count with the "
    "tokenizer of the model that you pay for**, and distrust every rule of thumb of the kind “a token is three quarters of a word”."
)

# %% [markdown]
# ### One support case is more than one call
#
# A customer sees one answer. The portal makes several calls for it: name the **intent**, **extract** the order, **decide** by
# the returns policy. We run that workflow live, on the lab's two models: the small one answers at once, the large one writes
# its steps first (**reasoning** tokens, billed as output). Two things happen that happen in every production system:
#
# - the extraction is first tried with too few output tokens, comes back cut off, fails its check and is **retried**;
# - the decision is also sent to the small model as **shadow** traffic, to see whether it could take over. Nobody reads that
#   answer. It is paid for all the same.

# %%
small = await connect(book.engine, model="small", progress=print)
large = await connect(book.engine, model="large", progress=print)
source = f"{small.provenance.caption()}; {large.provenance.caption()}"
ledger = Ledger(state_dir() / "ledger.sqlite")
books = Booked(ledger, provider="lab")
desk = {"small": stack(books, engine=small), "large": stack(books, engine=large)}


# %%
async def support_case(number: int) -> None:
    """One workflow: intent, extraction with a retry, decision with a shadow. Every attempt lands in the ledger."""
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


cases = book.pick(ci=3, learn=10, gpu=30)
for number in range(cases):
    await support_case(number)
calls = ledger.frame().tail(5 * cases)
calls = calls[calls["labkit.workflow"] != ""]
calls[
    [
        "labkit.feature",
        "labkit.attempt",
        "labkit.shadow",
        "gen_ai.response.model",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.response.finish_reasons",
    ]
].head(5)

# %% [markdown]
# Five attempts for one customer's question. Now price those rows. The lab's models have no list price, so we ask: *what would
# these very tokens cost at a provider's price?*


# %%
def usage_of(row) -> Usage:
    tokens = [
        "input_tokens",
        "output_tokens",
        "cache_read.input_tokens",
        "cache_creation.input_tokens",
        "reasoning.output_tokens",
    ]
    counted = [row[f"gen_ai.usage.{name}"] for name in tokens]
    return Usage(*(0 if pd.isna(n) else int(n) for n in counted))


price = price_of("gpt-5-mini")
rows = []
for _, row in calls.iterrows():
    cost = price_request(usage_of(row), price)
    step = row["labkit.feature"]
    if row["labkit.shadow"]:
        step += " (shadow)"
    elif "length" in str(row["gen_ai.response.finish_reasons"]) and step == "extract":
        step += " (failed)"
    rows += [
        {"step": step, "kind": kind.replace("_", " "), "usd": float(getattr(cost, kind)) / cases} for kind in TOKEN_KINDS
    ]
money = pd.DataFrame(rows).groupby(["step", "kind"], as_index=False).usd.sum()
total = money.usd.sum()
unseen = 1 - money[(money.kind == "visible output") & ~money.step.str.contains(r"\(")].usd.sum() / total
show(
    alt.Chart(money[money.usd > 0])
    .mark_bar()
    .encode(
        x=alt.X("usd:Q", title="US dollars per support case", axis=alt.Axis(format="~g")),
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
    .properties(height=150, title=f"{100 * unseen:.0f} % of the money buys tokens that no customer ever sees"),
    alt="Stacked bars of dollars per support case by step. "
    + " ".join(f"{step}: {100 * part.usd.sum() / total:.0f} % of the case." for step, part in money.groupby("step")),
    source=f"Tokens measured over {cases} cases: {source}. Priced as {price.model}, {price.source}.",
)
book.reveal("01.hidden", 100 * unseen, unit="%")

# %% [markdown]
# That is the first lesson of cost anatomy: the answer on the customer's screen is a small part of the bill. Prompts, thinking,
# failed attempts and shadow traffic are the rest, and each has a chapter that shrinks it.
#
# ### Reading a price list
#
# Prices come per million tokens and kind. The claim you will hear most is that output costs three to ten times as much as
# input. The price lists are on this machine; ask them.

# %%
ratios = pd.DataFrame(
    [
        {"provider": p.provider, "model": p.model, "ratio": float(p.rates.visible_output / p.rates.fresh_input)}
        for provider in ("openai", "anthropic", "google", "mistral", "deepseek")
        for p in listed(provider)
        if p.rates.fresh_input > 0 and p.rates.visible_output > 0
    ]
)
holds_for = ((ratios.ratio >= 3) & (ratios.ratio <= 10)).mean()
show(
    alt.Chart(ratios)
    .mark_bar(color=PALETTE["blue"])
    .encode(
        x=alt.X("ratio:Q", bin=alt.Bin(step=1), title="output price / input price"),
        y=alt.Y("count()", title="models listed"),
        tooltip=["count()"],
    )
    .properties(title=f"“3 to 10 times” holds for {100 * holds_for:.0f} % of {len(ratios)} listed models"),
    alt=f"Histogram of output price over input price for {len(ratios)} models. Median {ratios.ratio.median():.1f}; "
    f"{100 * holds_for:.0f} % lie between 3 and 10.",
    source=f"{price.source}: all token-priced, non-deprecated models of five providers, today's price.",
)
outside = ratios[~ratios.ratio.between(3, 10)].sort_values("ratio")
book.claim(
    "01.output_price",
    "Output tokens cost 3 to 10 times as much as input tokens.",
    claimed=(3, 10),
    measured=ratios.ratio.median(),
    unit="times",
    where=f"the median of {len(ratios)} listed models; {100 * holds_for:.0f} % of them lie in that range",
    unless=f"Outside of it are {len(outside)} models, from {outside.model.iloc[0]} ({outside.ratio.iloc[0]:.1f} times) to "
    f"{outside.model.iloc[-1]} ({outside.ratio.iloc[-1]:.1f} times): read the list of your own."
    if len(outside)
    else "No model of these lies outside of it.",
    source=f"{price.source}, {price.as_of}.",
)
book.reveal(
    "01.ratio",
    "nearly all models" if holds_for >= 0.9 else "more than half of them" if holds_for > 0.5 else "less than half of them",
)

# %% [markdown]
# Two lines of a price list surprise people in their first month:
#
# - **Context tiers.** Above a number of input tokens the *whole* request moves to a higher rate, not only the part above.
# - **Batch.** The same tokens at a discount, if the answer may take hours.


# %%
def cost_at(model: str, tokens: int, batch: bool = False) -> float:
    return float(price_request(Usage(tokens, 500), price_of(model), batch=batch).total)


tiered = ["gemini-2.5-pro", "claude-haiku-5-5"]
steps = pd.DataFrame(
    [{"model": model, "tokens": 1000 * k, "usd": cost_at(model, 1000 * k)} for model in tiered for k in range(10, 300, 2)]
)
jump = {m: cost_at(m, price_of(m).tiers[0][0] + 1) / cost_at(m, price_of(m).tiers[0][0]) for m in tiered}
worst = max(jump, key=jump.get)
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

# %% [markdown]
# ### A machine of your own
#
# The third term of **C = C_in + C_out + C_infra** has no price per token; it has a price per hour. Tokens per second make it
# one. We measure what the large model on *this* machine does with one request at a time, and with sixteen.


# %%
async def output_rate(concurrency: int) -> float:
    task = next(examples("test", "policy", 1))
    started = clock.now()
    request = Request(task.messages, max_tokens=64, extra={"ignore_eos": True}, feature="rate", tenant="trailhead")
    answers = await asyncio.gather(*(complete(large, replace(request, user=str(i))) for i in range(concurrency)))
    return sum(a.done.usage.output_tokens for a in answers) / (clock.now() - started)


await output_rate(16)  # warm up
machine = host("cpu2")
rates = {n: max([await output_rate(n) for _ in range(3)]) for n in (1, 16)}
own = pd.DataFrame(
    {
        "output tokens/s": [f"{r:,.0f}" for r in rates.values()],
        "USD per million, always busy": [f"{cost_per_mtok(machine.usd_per_hour, r):.3f}" for r in rates.values()],
        "… busy a tenth of the time": [f"{cost_per_mtok(machine.usd_per_hour, r, 0.1):.3f}" for r in rates.values()],
    },
    index=pd.Index([f"{n} at a time" for n in rates], name="requests"),
)
own

# %%
Markdown(
    f"Same machine, same model, same hour: sixteen requests together make a token **{rates[16] / rates[1]:.1f} times** cheaper "
    "than one by one (chapter 07 is about why), and an idle machine makes it ten times dearer. Price assumed: "
    f"{machine.usd_per_hour} USD an hour, for two rented cores ({machine.source}, {machine.as_of}). The lab's model "
    "is tiny; read the *ratios*, not the dollars."
)

# %% [markdown]
# ### The month
#
# From one measured case to the portal's month: 100,000 users, and the tokens and overheads just measured.

# %% tags=["constants"]
USERS, CASES_PER_USER, DAYS = 100_000, 1.0, 30

# %%
useful = calls[~calls["labkit.shadow"] & (calls["labkit.attempt"] == 1)]
tokens = calls[["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"]].astype(float).mean()
thinking = calls["gen_ai.usage.reasoning.output_tokens"].fillna(0).astype(float).sum()
portal = Scenario(
    users=USERS,
    requests_per_user=CASES_PER_USER * len(useful) / cases,
    input_tokens=round(tokens.iloc[0]),
    output_tokens=max(1, round(tokens.iloc[1])),
    reasoning_share=round(thinking / max(1.0, calls["gen_ai.usage.output_tokens"].astype(float).sum()), 2),
    retry_rate=round(float((calls["labkit.attempt"] > 1).sum() / len(useful)), 2),
    shadow_share=round(float(calls["labkit.shadow"].sum() / len(useful)), 2),
    days=DAYS,
)
exact = {
    name: sum((price_request(usage_of(r), price_named(name)) for _, r in calls.iterrows()), Cost()).total
    * int(USERS * CASES_PER_USER * DAYS)
    / cases
    for name in portal.models
}
forecast = pd.DataFrame(
    {
        "from the calculator (USD/month)": [f"{m.total:,.2f}" for m in month(portal)[:3]],
        "from every ledger row (USD/month)": [f"{exact[m.name]:,.2f}" for m in month(portal)[:3]],
    },
    index=[m.name for m in month(portal)[:3]],
)
forecast

# %% [markdown]
# Two ways to the same month: the calculator multiplies *averages*, the right column prices *every row* and scales the sum. They
# differ by the rounding of averages (whole tokens, shares in percent), and that is all. When yours differ by more, a kind of token is being
# counted twice.

# %% [markdown]
# ## Move
#
# The calculator, opened on the portal's own numbers. Try three things: let the cache serve half of the input; let the model
# think twice as much; put everything on a machine of your own. Which one would you take to your boss? The tornado below answers
# the question in the title of this chapter. (In `notebooks/apps`, `voila calculator.ipynb` serves it as an app.)

# %%
dashboard(portal)

# %% [markdown]
# One setting at a time is honest about one setting. Some come in pairs: here is what the cache is worth, depending on how long
# the prompt is.


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
# Your finance team asks for a month. `retry_rate` is the number of extra attempts per request; a retry costs as much as the
# first try.


# %% exercise="01.2"
def monthly(users: int, requests_a_day: float, cost_per_attempt: Decimal, retry_rate: float, days: int) -> Decimal:
    """Dollars a month, retries included."""
    ...  # your code here


# %%
book.check("01.2", monthly)

# %% [markdown]
# {{exercise 01.3}}
# Build the order of the tornado: move each setting down and up by the share `by` while the others stay, and return the
# settings' names, the one with the widest swing first. `cost(**settings)` is any function of the settings.


# %% exercise="01.3"
def tornado_order(cost: Callable[..., float], base: Mapping[str, float], by: float) -> list[str]:
    """Names of the settings, widest swing first."""

    ...  # your code here


# %%
book.check("01.3", tornado_order)

# %% [markdown]
# {{exercise 01.4}}
# The piece that gateways are sold for: a handler around another one that lets requests through while there is money, and refuses them, *before*
# the engine hears of them, once `dollars` have been spent. `price(usage)` is the cost of an answer. (The last request may
# overshoot: its cost is known only when it is done.)


# %% exercise="01.4"
def within_budget(inner: Handler, dollars: Decimal, price: Callable[[Usage], Decimal]) -> Handler:
    """Refuse requests once `dollars` have been spent."""
    ...  # your code here


# %%
book.check("01.4", within_budget)

# %% [markdown]
# ## So what

# %%
first = portal.models[0]
swings = tornado(portal, lambda s: month(s)[0].total)
dear, cheap = max(exact.values()), min(exact.values())
Markdown(
    f"**Before:** a number. **Now:** {100 * unseen:.0f} % of it is tokens that customers never see; the dearest of three models "
    f"costs {dear / cheap:.1f} times the cheapest for the very same tokens; and what moves {first}'s bill most is "
    f"**{swings[0].name.replace('_', ' ')}**, then **{swings[1].name.replace('_', ' ')}**.\n\n"
    "No pressure is relieved yet; you know where it is. In production, watch *dollars per workflow*, not per call: a cheaper "
    "model that needs one more retry shows up only there."
)

# %% [markdown]
# The bill has its first line. It has no lever yet: every chapter from here on adds one, with what it took off, measured.

# %%
book.bill(
    "none yet",
    of=f"all of it, with {first}",
    before=exact[first],
    after=exact[first],
    source=f"{cases} cases from the ledger, scaled to {USERS:,} users. {source}. {price_named(first).source}, {price_named(first).as_of}.",
)

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz(
    "01.q1",
    "A request moves from just under to just over a context tier. Which of its tokens get dearer?",
    options=("only those above the tier", "all of them"),
    answer="all of them",
    why="The tier sets the rate of the whole request, which is why a prompt should not sit just above one.",
)

# %%
book.quiz(
    "01.q2",
    "Shadow traffic to a second model doubles your calls. Where does it show?",
    options=("in the latency customers see", "in the bill", "nowhere: its answers are thrown away"),
    answer="in the bill",
    why="Nobody waits for it, and nobody reads it. It is paid for like any other call.",
)

# %%
book.quiz(
    "01.q3",
    "Your own machine is busy a fifth of the time. What happens to its cost per token when traffic doubles and fits?",
    options=("it stays", "it halves", "it doubles"),
    answer="it halves",
    why="The hour costs the same and serves twice as many tokens.",
)

# %% [markdown]
# ## Next
#
# **02 · Latency anatomy**: the other half of the bill, which customers pay with their time.

# %%
await small.aclose()
await large.aclose()
book.progress()
