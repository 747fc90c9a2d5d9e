# %% [markdown]
# # 03 · Prompt caching: what a stable prefix is worth
#
# **The question.** The portal's desk puts the same thousand tokens of instructions in front of every question, 400,000 times a
# day, and pays its provider in full for reading them each time. Its provider would sell it the second reading for a tenth of the
# price. What would that take off the month's bill, and which line of a template prevents it without anybody noticing?
#
# **You will be able to** say to the token what an engine's prefix cache will serve, before it does; find what breaks a prefix
# and what that costs a month; and read a provider's caching terms (premium, discount, minimum, lifetime) as a break-even.
#
# **Time.** {{time}} **Needs.** Chapters 00 to 02 before. {{needs}}

# %% tags=["imports"]
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

import altair as alt
import ipywidgets as w
import numpy as np
import pandas as pd
from IPython.display import Markdown
from transformers import AutoTokenizer

from labkit.caches import PrefixCache, lint, provider
from labkit.cost import price_named, price_of, price_workflow
from labkit.experiments import prefix_cache, recordings
from labkit.lab import Deck, draw_policy
from labkit.load import ExactLengths
from labkit.portal import DAYS, PORTAL, Prefix, fleet, today
from labkit.request import Message, Request, Usage, clock, complete
from labkit.tokens import tokenizer
from labkit.workbook import PALETTE, Figure, below, live_chart, show, spread
from labkit.workbook.pictures import draw_picture, prefix_blocks

# %%
book.warm_up()

# %% [markdown]
# ## Predict

# %%
book.predict(
    "03.warm",
    "A prompt of 1,800 tokens is sent twice. How long does the second first token take, in percent of the first one's time?",
    low=0,
    high=120,
    unit="%",
)

# %%
book.predict(
    "03.clock",
    "A template begins with “It is 14:02:11.”, and a thousand tokens of instructions follow that are the same in every "
    "request. What share of all its input can the cache serve?",
    low=0,
    high=100,
    unit="%",
)

# %%
book.predict_choice(
    "03.once",
    "A provider charges a premium of a quarter for writing to its cache and nine tenths less for reading. From how many uses "
    "of a prefix within its lifetime, the first included, does caching pay?",
    options=("2", "5", "10"),
)

# %% [markdown]
# ## Run
#
# ### The same prompt, twice
#
# While an engine reads a prompt it computes, for each token and in every layer, two vectors that later tokens look back at: the
# token's *key* and its *value*. They depend on that token and on those before it, and on nothing behind. So if a prompt begins
# like one that was read before, the engine can take the keys and values of that beginning from memory and need not read it again.
# This is **prefix caching**; vLLM does it by itself. Below, each prompt is sent twice, and we take the time to its first token
# (TTFT) both times.

# %%
live = await book.connect("small")
if not book.lacks("tokenizer"):  # without one, what follows is replayed
    make = ExactLengths(str(live.tokenizer_path), seed)
    tok = AutoTokenizer.from_pretrained(live.tokenizer_path)


async def look():
    for n in (64, 600, 1800):
        await complete(live, make(n, 2))  # warm-up
    config = (await live.metrics()).cache_config
    return {"block": int(config["block_size"]), "blocks": int(config["num_gpu_blocks"])}


async def twice_each(_):
    """One new prompt of each length, sent twice: seconds to the first token each time, and the tokens served from the cache."""
    return [await prefix_cache(live, make, prompt_tokens=n) for n in (150, 300, 600, 1200, 1800)]


cache = (await book.measure("the engine's cache", look)).value
pairs = await book.measure("the same prompt twice", twice_each, rounds=book.pick(ci=6, learn=10, gpu=10))
twice = pd.DataFrame([row for rows in pairs.value for row in rows])
block, lengths = cache["block"], sorted(twice.prompt_tokens.unique())
cold, warm = (
    {n: rows[f"{time}_ttft_s"].tolist() for n, rows in twice.groupby("prompt_tokens")} for time in ("cold", "warm")
)
middle = twice.groupby("prompt_tokens").median()
longest = lengths[-1]
left = [100 * w / c for w, c in zip(warm[longest], cold[longest], strict=True)]

# %%
book.reveal("03.warm", left, unit="%")

# %%
shown = twice.melt(
    id_vars=["prompt_tokens"], value_vars=["cold_ttft_s", "warm_ttft_s"], var_name="time", value_name="seconds"
).assign(ms=lambda d: 1000 * d.seconds, time=lambda d: d.time.map({"cold_ttft_s": "first time", "warm_ttft_s": "again"}))
base = alt.Chart(shown).encode(
    x=alt.X("prompt_tokens:Q", title="prompt tokens"),
    y=alt.Y("ms:Q", title="TTFT (ms)", scale=alt.Scale(domainMin=0)),
    color=alt.Color("time:N", title=None, sort=["first time", "again"]),
)
points = base.mark_point(size=40, opacity=0.35)
lines = base.mark_line().encode(y="median(ms):Q")
share = spread(left)
show(
    (points + lines).properties(
        title=f"Read before, {longest:,.0f} tokens take {share.median:.0f} % of the time ({share.words('{:.0f}')})"
    ),
    alt="TTFT of a prompt sent for the first time and again, medians: "
    + " ".join(f"{n} tokens {1000 * r.cold_ttft_s:.1f} and {1000 * r.warm_ttft_s:.1f} ms." for n, r in middle.iterrows()),
    source=f"Points: each pair; lines: medians. {pairs.source}",
)

# %%
sooner = {n: below(warm[n], cold[n]) for n in lengths}
said = {
    "the second first token came sooner": [n for n in lengths if sooner[n]],
    "it came no sooner": [n for n in lengths if sooner[n] is False],
    "the rounds lie too far apart to tell": [n for n in lengths if sooner[n] is None],
}
Markdown(
    "By these rounds: "
    + "; ".join(f"at {', '.join(f'{n:,.0f}' for n in ns)} tokens {what}" for what, ns in said.items() if ns)
    + ". What a cache cannot take away is everything that is not reading: the way there and back, and one step of the model. And "
    "even of the prompt that it has just read, the engine reads a part again:"
    if middle.cached_tokens.max() > 0
    else "This engine served nothing from a cache, or does not report it (vLLM needs `--enable-prompt-tokens-details`)."
)

# %%
in_tokens = middle.reset_index()[["prompt_tokens", "cached_tokens"]].astype(int)
pd.DataFrame(
    {
        "prompt (tokens)": in_tokens.prompt_tokens,
        "from the cache": in_tokens.cached_tokens,
        "read again": in_tokens.prompt_tokens - in_tokens.cached_tokens,
    }
).set_index("prompt (tokens)")

# %% [markdown]
# ### Blocks
#
# The engine keeps its cache in **blocks** of a fixed number of tokens. It finds a block by a hash of the block's tokens *and of the
# hash of the block before it*, so a block is found only behind the same beginning. Only full blocks are kept. And the prompt's last
# token is always computed, because the model needs it to say what comes next.

# %%
clerk = ["You", "work", "at", "the", "desk", "of", "Nordkapp", "."]  # words stand for tokens here
ann, ben = ["Where", "is", "my", "order", "?"], ["Can", "I", "return", "boots", "?"]
draw_picture(prefix_blocks({"Ann": [*clerk, *ann], "Ben": [*clerk, *ben]}))

# %% [markdown]
# If the engine does so, it serves prompts that share ever more of their beginning by the block, not by the token: we should see
# stairs.

# %%
words = book.rng("words").choices(["tent", "stove", "rope", "kayak", "boots", "lamp", "map", "mug"], k=1500)
run = f"{book.seed}-{clock.unix_now():.3f}"  # a salt of this run's own: nobody else's blocks are found, nor ours by them


def ids_of(request):
    """A request's tokens, as the engine reads them."""
    chat = [{"role": m.role, "content": m.content} for m in request.messages]
    return tok.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)


def in_common(a, b):
    """How many tokens two requests share at their beginning."""
    a, b = ids_of(a), ids_of(b)
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def sharing(n, i):
    """A request whose first `n` words are everybody's and whose others are its own."""
    own = book.rng(f"tail {n} {i}").choices(["red", "blue", "old", "new", "wet", "dry"], k=600 - n)
    return Request((Message("user", " ".join([*words[:n], *own])),), max_tokens=1, extra={"cache_salt": run})


async def climb():
    await complete(live, sharing(600, 0))  # all of the shared words are in the cache now
    rows = []
    for n in range(20, 600, book.pick(ci=40, learn=20, gpu=20)):
        usage = (await complete(live, sharing(n, 1))).done.usage
        shared = in_common(sharing(600, 0), sharing(n, 1))
        rows.append({"shared": shared, "prompt": usage.input_tokens, "served": usage.cached_tokens})
    return rows


climbed = await book.measure("shared beginnings", climb)
stairs = pd.DataFrame(climbed.value)
stairs["predicted"] = [book.reference("03.1")(row.shared, row.prompt, block) for row in stairs.itertuples()]
wrong = int((stairs.served != stairs.predicted).sum())

# %%
x = alt.X("shared:Q", title="tokens shared with an earlier prompt")
show(
    (
        alt.Chart(stairs).mark_line(interpolate="step-after", color=PALETTE["grey"]).encode(x=x, y=alt.Y("predicted:Q"))
        + alt.Chart(stairs)
        .mark_circle(size=60, color=PALETTE["blue"])
        .encode(x=x, y=alt.Y("served:Q", title="tokens served from the cache"), tooltip=["shared", "served"])
    ).properties(
        title=f"Shared tokens count in blocks of {block}, rounded down"
        if not wrong
        else f"{wrong} of {len(stairs)} prompts were not served by full blocks of {block}"
    ),
    alt=f"Stairs of {block} tokens: cached tokens against shared tokens. {len(stairs) - wrong} of {len(stairs)} measured points lie "
    "on the predicted line.",
    source=f"Points: reported by the engine, request by request; line: full blocks of the shared part. {climbed.source}",
)

# %% [markdown] tags=["reasoned"]
# So a shared prefix shorter than one block saves nothing. (vLLM's blocks have 16 tokens on most GPUs. Providers do not cache
# prefixes below a length of their own, often 1,024 tokens.)
#
# ### Say it before the engine does
#
# Now three of the portal's shops, each with instructions of its own, whose customers ask and ask again. `PrefixCache` runs the rule
# ahead of the engine: it gets the same token ids and says for each request how many the engine will report as cached.
#
# Shops are kept apart by a *salt*, a text that goes into the first block's hash. Without it one shop could send guesses at another
# one's prompts, and would see from the speed of the first token which guess is in the cache.

# %%
deck = Deck("test", book.rng("policies"))
shops = {
    name: f"You work at the support desk of {name}. {draw_policy(deck, 5, n).text}"
    for name, n in (("Trailhead", 12), ("Nordkapp", 20), ("Alpine", 6))
}
questions = [
    "Where is my order?",
    "Can I return opened boots?",
    "What does express shipping cost?",
    "Is the tent waterproof?",
]


async def foretold():
    traffic = book.rng("traffic")
    ahead = PrefixCache(cache["blocks"], block)
    rows = []
    for _ in range(book.pick(ci=30, learn=60, gpu=60)):
        shop = traffic.choice(list(shops))
        messages = [Message("system", shops[shop]), Message("user", traffic.choice(questions))]
        if traffic.random() < 0.4:  # a second turn: the first answer is part of the prompt
            messages += [Message("assistant", "Yes, within the return window."), Message("user", traffic.choice(questions))]
        salt = f"{run}-{shop}"
        request = Request(tuple(messages), max_tokens=1, tenant=shop, extra={"cache_salt": salt})
        tokens = ids_of(request)
        expected = ahead.serve(tokens, output=[0], salt=salt)
        usage = (await complete(live, request)).done.usage
        counted = {"prompt": usage.input_tokens, "predicted": expected, "reported": usage.cached_tokens}
        rows.append({"shop": shop, **counted})
        as_read.append(list(tokens))
    return rows


async def read():
    return as_read


as_read = []  # the tokens of each prompt
told = await book.measure("three shops' traffic", foretold)
served_to = pd.DataFrame(told.value).assign(tokens=(await book.measure("three shops' tokens", read)).value)

# %%
missed = int((served_to.predicted != served_to.reported).sum())
Markdown(
    f"**{len(served_to)} requests, {len(served_to) - missed if missed else 'all'} foretold to the token.** "
    f"The cache served {100 * served_to.reported.sum() / served_to.prompt.sum():.0f} % of {int(served_to.prompt.sum()):,} input tokens."
)

# %%
served_to.groupby("shop").sum(numeric_only=True).assign(
    share=lambda d: (100 * d.reported / d.prompt).round(0).astype(int).astype(str) + " %"
).rename(
    columns={
        "prompt": "prompts (tokens)",
        "predicted": "foretold",
        "reported": "served by the engine",
        "share": "served, of the prompts",
    }
)

# %% [markdown]
# ### The line that throws it away
#
# Some templates tell the model the time in their first line. The agents [goose](https://github.com/aaif-goose/goose/pull/2434) (mended in 2025) and
# [nanobot](https://github.com/HKUDS/nanobot/issues/226) (2026) did, and OpenAI's cookbook (*Prompt Caching 201*, read in
# 2026) has seen customers do it. So does the portal, until now.
#
# Here is one shop with the same questions in two templates. In the first, the time and who is asking stand *before* the
# instructions, in the second behind them. Nothing else differs.

# %%
names = ["Mira Solberg", "Tom Berg", "Ada Lund", "Yngve Dahl", "Liv Moe", "Jan Vik"]
instructions = shops["Nordkapp"] + " " + draw_policy(deck, 5, 75).text
manners = "Be friendly, be brief, and never promise what the policy does not say."


def clock_first(i):
    head = f"It is 2026-11-2{i % 9} 14:0{i % 10}:{10 + i}. {manners} Customer: {names[i % 6]}, id C-{48213 + 977 * i}. {instructions}"
    return Request((Message("system", head), Message("user", questions[i % 4])), max_tokens=1)


def clock_last(i):
    tail = (
        f"It is 2026-11-2{i % 9} 14:0{i % 10}:{10 + i}. Customer: {names[i % 6]}, id C-{48213 + 977 * i}. {questions[i % 4]}"
    )
    return Request((Message("system", f"{manners} {instructions}"), Message("user", tail)), max_tokens=1)


templates = {"clock first": clock_first, "instructions first": clock_last}


async def both_templates(number):
    """Twelve requests of each template in turns: input and cached tokens of each, and the median TTFT behind the first."""
    asked = []
    for i in range(12):
        for name, template in templates.items():
            salt = f"{run}-{name.replace(' ', '-')}-{number}"
            done = (await complete(live, replace(template(i), extra={"cache_salt": salt}))).done
            asked.append((name, i, done.usage, done.timing.ttft))
    return [
        {
            "template": name,
            "prompts": [u.input_tokens for n, _, u, _ in asked if n == name],
            "cached": sum(u.cached_tokens for n, _, u, _ in asked if n == name),
            "ttft_ms": 1000 * float(np.median([ttft for n, i, _, ttft in asked if n == name and i and ttft is not None])),
            "prefix": in_common(template(0), template(1)),
        }
        for name, template in templates.items()
    ]


ordered = await book.measure("two templates", both_templates, rounds=5)
asked = pd.DataFrame([row for rows in ordered.value for row in rows]).assign(input=lambda d: [sum(p) for p in d.prompts])
by_template = {name: rows.reset_index(drop=True) for name, rows in asked.groupby("template")}
served = {name: 100 * t.cached.sum() / t.input.sum() for name, t in by_template.items()}
book.reveal("03.clock", served["clock first"], unit="%")

# %%
show(
    alt.Chart(
        pd.DataFrame(
            [
                {"template": name, "tokens": int(tokens), "kind": kind}
                for name, t in by_template.items()
                for kind, tokens in (("read again", t.input[0] - t.cached[0]), ("from the cache", t.cached[0]))
            ]
        )
    )
    .mark_bar()
    .encode(
        x=alt.X("tokens:Q", title="input tokens of twelve requests"),
        y=alt.Y("template:N", title=None, sort=list(templates)),
        color=alt.Color("kind:N", title=None, sort=["from the cache", "read again"]),
        tooltip=["template:N", "kind:N", "tokens:Q"],
    )
    .properties(
        height=90,
        title=f"The same words in another order: {served['clock first']:.0f} % or {served['instructions first']:.0f} % cached",
    ),
    alt=" ".join(
        f"{name}: {t.cached[0]} of {t.input[0]} input tokens from the cache, median TTFT {t.ttft_ms.median():.1f} ms."
        for name, t in by_template.items()
    ),
    source=ordered.source,
)

# %%
ms = {name: t.ttft_ms.tolist() for name, t in by_template.items()}
span = {
    name: f"{np.median(ms[name]):.1f} ms ({min(ms[name]):.1f} to {max(ms[name]):.1f} in {len(ms[name])} rounds)"
    for name in ms
}
book.finding(
    below(ms["instructions first"], ms["clock first"]),
    f"The order moves the wait, too: the median first token came after {span['instructions first']} with the instructions first, after "
    f"{span['clock first']} with the clock first.",
    f"The wait did not follow: {span['instructions first']} with the instructions first, {span['clock first']} with the clock first.",
)

# %%
draw_picture(prefix_blocks({"Ann": ["14:02", *clerk, *ann], "Ben": ["14:03", *clerk, *ben]}))

# %% [markdown] tags=["reasoned"]
# Behind the time each block follows another block, so it has another hash although its words are the same.
#
# When a prefix breaks, nothing fails: the engine answers as before and reads more, which no test of answers notices. So look for it.
# `lint` takes some requests that one template made, finds the first place where they differ, says what stands there, takes it out,
# and goes on from there.

# %%
price = price_named(PORTAL.desk.large)
counted = tokenizer("lab").count
found = lint([clock_first(i) for i in range(12)], counted, price=price, requests_per_month=PORTAL.questions)
pd.DataFrame(
    [
        {
            "what differs": f.kind,
            "for example": f.found[0],
            "tokens shared before it": f.shared_tokens,
            "tokens lost behind it": f.lost_tokens,
            "USD a month": f"{f.usd_per_month:,.0f}",
        }
        for f in found
    ]
).set_index("what differs")

# %%
still = lint([clock_last(i) for i in range(12)], counted)
Markdown(
    "".join(f"- The {'text that varies' if f.kind == 'varying' else f.kind}: {f.fix}.\n" for f in found)
    + f"\nIn the second template it finds {len(still) or 'no'} such places.\n\nThe money is what the lost tokens of {PORTAL.questions:,} "
    f"requests a month cost more when they are read than when they come from the cache, at {price.model}'s list price ({price.source}). It "
    "is the most that can be had: a provider's minimum and steps come off it below. Tokens are counted with the lab's tokenizer."
)

# %% [markdown]
# ### What providers charge for it
#
# Providers sell what their engines' caches save. Their terms differ in four things: a **premium** for writing a prefix into the
# cache, a **discount** for reading it from there, the **shortest** prefix that they keep, and a **lifetime** after its last use.

# %%
at_list = {"openai": price, "anthropic": price_of("claude-sonnet-4-5")}
sold = []
for name, rules in provider.RULES.items():
    listed = at_list[name.split(",")[0]]
    rates = rules.price(listed).rates
    sold.append(
        {
            "terms": rules.name,
            "model": listed.model,
            "writing": f"{rates.cache_write / rates.fresh_input:.2f} ×" if rules.charged else "1.00 ×",
            "reading": f"{rates.cached_input / rates.fresh_input:.2f} ×",
            "shortest (tokens)": rules.minimum,
            "lifetime (s)": int(rules.lifetime_s),
            "reads that pay for a write": f"{provider.reads_to_pay_for_a_write(listed, rules):.2f}",
        }
    )
uses = 1 + int(
    np.ceil(float(provider.reads_to_pay_for_a_write(at_list["anthropic"], provider.RULES["anthropic, 5 minutes"])))
)
book.reveal("03.once", next(option for option in ("2", "5", "10") if int(option) >= uses))
pd.DataFrame(sold).set_index("terms")

# %%
Markdown(
    "*Writing* and *reading* are multiples of the price of plain input. Terms from: "
    + "; ".join(dict.fromkeys(f"{rules.source}, {rules.as_of}" for rules in provider.RULES.values()))
    + ". OpenAI's cookbook (*Prompt Caching 201*) says that they hold for models before GPT-5.6: read those of the model that you pay for."
)

# %% tags=["reasoned"]
Markdown(
    "The portal's desk buys from OpenAI, which asks no premium: there a prefix that nobody comes back to costs what it would have cost "
    "without a cache. Anthropic asks one, so there it costs more; two calls within five minutes pay for it, for 1.25 + 0.1 is less than 2."
)

# %% [markdown]
# ## Move
#
# A prefix is found if the next call comes before its lifetime ends. How many calls an hour does *your* prefix get? The chart says
# what the input then costs, beside what it would cost without a cache: above 1, you pay premiums for prefixes that nobody
# comes back to.


# %%
def relative(terms, prefix_tokens, rest_tokens, calls_per_hour):
    """The input bill under these terms as a multiple of that without a cache, for calls that come at random (Poisson)."""
    rules = provider.RULES[terms]
    rates = rules.price(at_list[terms.split(",")[0]]).rates
    fresh, read = float(rates.fresh_input), float(rates.cached_input)
    write = float(rates.cache_write) if rules.charged else fresh
    kept = rules.cached(prefix_tokens)
    hit = provider.hit_probability(calls_per_hour / 3600, rules)
    whole = prefix_tokens + rest_tokens
    return (kept * (hit * read + (1 - hit) * write) + fresh * (whole - kept)) / (fresh * whole)


def worth(prefix_tokens, rest_tokens, calls_per_hour):
    sellers = ("no cache", PORTAL.desk.cache_terms, "anthropic, 5 minutes", "anthropic, 1 hour")
    grid = np.geomspace(0.1, 1000, 120)
    rows = [{"terms": sellers[0], "calls": c, "times": 1.0} for c in (grid[0], grid[-1])]
    rows += [
        {"terms": t, "calls": c, "times": relative(t, prefix_tokens, rest_tokens, c)} for t in sellers[1:] for c in grid
    ]
    here = {t: 100 * (relative(t, prefix_tokens, rest_tokens, calls_per_hour) - 1) for t in sellers[1:]}
    title = f"At {calls_per_hour:.3g} calls an hour, input costs: " + "; ".join(f"{t} {v:+.0f} %" for t, v in here.items())
    x = alt.X("calls:Q", title="calls an hour with this prefix", scale=alt.Scale(type="log", domain=[0.1, 1000], nice=False))
    y = alt.Y("times:Q", title="input bill, times that without a cache", scale=alt.Scale(domain=[0, 2]))
    lines = alt.Chart(pd.DataFrame(rows)).mark_line().encode(x=x, y=y, color=alt.Color("terms:N", title=None, sort=sellers))
    rule = alt.Chart(pd.DataFrame({"calls": [calls_per_hour]})).mark_rule(strokeDash=[4, 3], color=PALETTE["grey"])
    return Figure(
        (lines + rule.encode(x="calls:Q")).properties(title=title),
        alt=f"Input bill beside that without a cache, against calls an hour, for three sellers' terms. {title}.",
        source="Computed: of calls that come at random, the share 1 − exp(−calls · lifetime) finds the prefix. "
        + "; ".join(f"{p.model}, {p.source}" for p in at_list.values())
        + "; terms as above.",
    )


# %%
live_chart(
    worth,
    prefix_tokens=w.IntSlider(PORTAL.desk.instructions, 200, 20_000, 8, description="prefix tokens"),
    rest_tokens=w.IntSlider(PORTAL.desk.question, 16, 5008, 16, description="other tokens"),
    calls_per_hour=w.FloatLogSlider(20, min=-1, max=3, step=0.02, readout_format=".3g", description="calls an hour"),
)

# %% [markdown] tags=["reasoned"]
# Find three numbers of calls an hour: where each of Anthropic's lifetimes begins to pay, and where the two cost the same (their
# lines cross below one call an hour; would you buy either there?). Then take a prefix shorter than the shortest that is kept.

# %% tags=["reasoned"]
Markdown(
    f"All questions to the portal's desk share one template: {PORTAL.questions / DAYS / 24:,.0f} calls an hour on average, far beyond the "
    "right end. But split it by shop, by customer or by version, and each prefix gets its own, smaller number of calls. The slider "
    "says down to which number that costs nothing."
)

# %% [markdown]
# ## Do
#
# {{exercise 03.1}}
# A prompt's first `shared` tokens have been read before. How many tokens does a cache of full blocks serve?


# %% exercise="03.1"
def cached_tokens(shared: int, prompt: int, block: int) -> int:
    """Tokens of a prompt that a prefix cache with blocks of this size serves."""
    ...  # your code here


# %%
book.check("03.1", cached_tokens)

# %% [markdown]
# {{exercise 03.2}}
# “Prefix caching saves the cached share of the input.” It does not, quite. Return the share of the input bill it did save,
# from what was billed.


# %% exercise="03.2"
def input_saving(usages: Sequence[Usage], plain: float, cached: float, write: float) -> float:
    """Share of the input bill saved, against `plain` for every input token; below 0 where caching cost more than it saved."""
    ...  # your code here


# %%
book.check("03.2", input_saving)

# %% [markdown]
# {{exercise 03.3}}
# Here are the parts of a template, with the text each had in a number of requests. Return the names of the parts in the order
# that lets requests share as long a beginning as possible.


# %% exercise="03.3"
def stable_first(parts: Mapping[str, Sequence[str]]) -> list[str]:
    """Names of the parts in the order in which they should stand."""
    ...  # your code here


# %%
book.check("03.3", stable_first)

# %% [markdown] tags=["further"]
# {{exercise 03.4}}
# Write the cache itself. Requests come as lists of block ids. Count the blocks served, in a cache of `capacity` blocks that
# drops the least recently used first and, of one request, the tail before the beginning. Yours is checked against the lab's,
# which predicted the engine above.


# %% exercise="03.4"
def count_hits(requests: Sequence[Sequence[int]], capacity: int) -> int:
    """Blocks served from the cache over all requests."""
    ...  # your code here


# %%
book.check("03.4", count_hits)

# %% [markdown] tags=["further"]
# {{exercise 03.5}}
# Now the real thing: the cache that foretold the engine, with prompts that run at the same time, share blocks, and run out of
# them. The rules are vLLM's, all of them:
#
# - A prompt of n tokens takes ⌈n / block⌉ blocks. Those of its beginning that are there already are shared, the others are new.
# - Only full blocks can be found, by a key. Equal keys must mean: the same tokens from the prompt's start, under the same salt.
# - The last token is computed in any case, so a block that holds it is not served.
# - The blocks of a running prompt stay. Of the free ones, the next to be reused is one that cannot be found; then the one that
#   was given back first. A prompt gives its blocks back from the last to the first.
# - Two blocks may come to hold the same (how?). Both can be found; the one that was filled first is shared.
#
# Give the class whatever fields and helpers you like; the check uses the methods below.


# %% exercise="03.5"
class PromptCache:
    """A prefix cache of `num_blocks` blocks of `block_size` tokens, all free and empty at first."""

    def __init__(self, num_blocks: int, block_size: int) -> None: ...  # your code here

    @property
    def num_free(self) -> int:
        """Blocks that no running prompt holds."""
        ...  # your code here

    def keys(self, tokens: Sequence[int], salt: str = "") -> list[Hashable]:
        """A key for each full block of `tokens`, in order. A key is anything that can be compared and hashed."""
        ...  # your code here

    def lookup(self, tokens: Sequence[int], salt: str = "") -> int:
        """How many tokens of a prompt the cache would serve now. Changes nothing."""
        ...  # your code here

    def start(self, name: str, tokens: Sequence[int], salt: str = "") -> int | None:
        """Give a prompt its blocks, which it holds until it finishes. From now on its full blocks can be found.

        Returns how many tokens were found. None, and no change at all, where there are too few free blocks.
        """
        ...  # your code here

    def finish(self, name: str) -> None:
        """Give a prompt's blocks back. What they hold can be found until they are reused."""
        ...  # your code here


# %%
book.check("03.5", PromptCache)

# %% [markdown]
# Once it passes, it is yours that serves the shops' traffic here: the same tokens that the engine got above, one prompt after the
# other, as it got them. First with as many blocks as the engine had, then with ever fewer.

# %%
made, whose = book.yours("03.5", PromptCache)


def served_by(num_blocks):
    """What a cache of so many blocks serves of the shops' traffic, in tokens for each request."""
    own, tokens = made(num_blocks, block), []
    for request in served_to.itertuples():
        tokens.append(own.start("now", request.tokens, request.shop))
        own.finish("now")
    return tokens


as_counted = served_to.assign(own=served_by(cache["blocks"] - 1))  # vLLM keeps one block back
differs = int((as_counted.own != as_counted.reported).sum())
total = as_counted.prompt.sum()
largest = int(-(-served_to.prompt.max() // block))
sizes = range(largest, 4 * largest + 1)
smaller = pd.DataFrame({"blocks": sizes, "own": [100 * sum(served_by(n)) / total for n in sizes]})
lab_caches = [PrefixCache(n + 1, block) for n in sizes]
smaller["lab"] = [100 * sum(lab.serve(r.tokens, salt=r.shop) for r in served_to.itertuples()) / total for lab in lab_caches]

# %%
x = alt.X("blocks:Q", title="blocks in the cache", scale=alt.Scale(zero=False), axis=alt.Axis(tickMinStep=1, format="d"))
counter = pd.DataFrame({"reported": [100 * as_counted.reported.sum() / total]})
apart = int((smaller.own - smaller.lab).abs().gt(1e-9).sum())
agreed = (
    f"all {len(as_counted)} requests as the engine counted them" if not differs else f"{differs} requests not as counted"
)
show(
    (
        alt.Chart(smaller).mark_line(color=PALETTE["blue"]).encode(x=x, y=alt.Y("own:Q", title="prompt tokens served (%)"))
        + alt.Chart(smaller).mark_circle(size=60, color=PALETTE["orange"]).encode(x=x, y="lab:Q")
        + alt.Chart(counter).mark_rule(strokeDash=[4, 3], strokeWidth=2, color=PALETTE["green"]).encode(y="reported:Q")
    ).properties(title=f"Served by {whose}: {agreed}"),
    alt=f"Share of the prompt tokens served, against the cache's blocks. {agreed}. "
    + " ".join(f"{r.blocks} blocks: {r.own:.0f} %, the lab's {r.lab:.0f} %." for r in smaller.itertuples()),
    source=f"Line: {whose}. Circles: the lab's PrefixCache; {len(smaller) - apart} of {len(smaller)} lie on the line. Dashed: vLLM's own "
    f"count with {cache['blocks']:,} blocks. {told.source}",
)

# %% [markdown]
# ## So what
#
# The portal's desk sends all its questions with one template. What would its input cost a month, with the time first and with the
# instructions first, at the terms of both providers? A request has the length of the desk's; the prefix is what two of the measured
# requests share, token by token. At Anthropic you mark where the prefix ends; here, in both templates, behind the instructions.

# %%
desk = PORTAL.desk
calls = PORTAL.questions * (1 + desk.retries)  # a month
apart = DAYS * 24 * 3600 / calls  # seconds from one call to the next, on average
shared = {name: min(int(t.prefix[0]), desk.instructions) for name, t in by_template.items()}


def billed(terms, template):
    """The usage of a thousand of the desk's calls with this template, at these terms."""
    rules, alike = provider.RULES[terms], template == "instructions first"
    marked = rules.at_ends and not alike  # the marked prefix holds the time: each call writes one of its own
    prefix = desk.instructions if marked else shared[template]
    each = [provider.Call(apart * i, desk.input, prefix, i if marked else "") for i in range(1000)]
    return provider.serve(each, rules)


def a_month(terms, usages):
    """USD a month for the input of all the desk's calls, if they are billed like these."""
    listed = provider.RULES[terms].price(at_list[terms.split(",")[0]])
    return float(price_workflow(usages, listed).total) / len(usages) * calls


plain = [Usage(desk.input, 0)]
bills = {terms: {name: billed(terms, name) for name in templates} for terms in (desk.cache_terms, "anthropic, 5 minutes")}
months = {t: {"no cache": a_month(t, plain)} | {name: a_month(t, u) for name, u in own.items()} for t, own in bills.items()}
usages, month = bills[desk.cache_terms]["instructions first"], months[desk.cache_terms]
share = sum(u.cached_tokens for u in usages) / sum(u.input_tokens for u in usages)
saved = 100 * (1 - month["instructions first"] / month["clock first"])

# %%
pd.DataFrame(
    {
        f"{terms}: {at_list[terms.split(',')[0]].model}": {k: f"{v:,.0f}" for k, v in own.items()}
        for terms, own in months.items()
    }
).rename_axis("the desk's input, USD a month")

# %% tags=["reasoned"]
other = months["anthropic, 5 minutes"]
Markdown(
    f"With the time first, the portal pays {100 * month['clock first'] / month['no cache']:.0f} % of what it would pay without a cache; at "
    f"Anthropic it would pay {100 * other['clock first'] / other['no cache']:.0f} %, for each call is charged the premium for a prefix that "
    "no other call begins with."
)

# %%
book.claim(
    "03.input",
    "Prompt caching can reduce input token costs by up to 90 %.",
    claimed=90,
    measured=saved,
    unit="% of the input bill",
    where=f"the portal's desk, {desk.instructions:,} of {desk.input:,} tokens a call the same",
    by="OpenAI, “Prompt caching”, guide (developers.openai.com/docs/guides/prompt-caching), read in 2026.",
    unless="The discount on what is read from the cache is 90 %, and what is saved is the discount times the share that is read: it "
    "comes near 90 % where the prefix is nearly all of the prompt and each call finds it.",
    source=f"{desk.cache_terms}; {price.model}, {price.source}, {price.as_of}. Prefix: {ordered.source}",
    tolerance=0.02,
)

# %%
book.claim(
    "03.wait",
    "Prompt caching can reduce latency by up to 80 %.",
    claimed=80,
    measured=[100 - v for v in left],
    unit="% of the wait for the first token",
    where=f"a prompt of {longest:,.0f} tokens, sent twice in a row, on this engine",
    by="OpenAI, “Prompt caching”, guide (developers.openai.com/docs/guides/prompt-caching), read in 2026.",
    unless="What stays is all that is not reading, so the share grows with the prompt: OpenAI's own cookbook (“Prompt Caching 201”, "
    "read in 2026) has 7 % at 1,024 tokens and 67 % beyond 150,000.",
    source=pairs.source,
    tolerance=0.05,
)

# %%
book.bill(
    "a stable prefix",
    Prefix("desk", cached=share, written=sum(u.cache_write_tokens for u in usages) / sum(u.input_tokens for u in usages)),
    of="desk",
    source=f"{desk.cache_terms}; {price.model}, {price.source}, {price.as_of}. Prefix: {ordered.source}",
)

# %%
now = today()
gone = {hits: float(now.usd - Prefix("desk", cached=share * hits).made(now).usd) for hits in (1, 0.87, 0.6)}
of_desk, of_all = (100 * gone[1] / float(whole) for whole in (now.of("desk"), now.usd))
Markdown(
    f"**For whoever pays:** the desk's input falls by {saved:.0f} %, the desk's bill by {of_desk:.0f} %, the portal's by {of_all:.0f} %. "
    "What the desk writes costs what it cost, and so do the summaries and the assistant's GPUs. At these terms nobody pays for "
    "it: there is no premium, and a cached prefix is the same prefix to the model. The reordered template is *not* the same "
    "prompt, though: run your evaluation on it once before you ship it.\n\n"
    "**What could take it back:** the line counts on every call finding the prefix. OpenAI sends about 15 calls a minute with one "
    "prefix to a machine and further ones to other machines, which read it anew; one customer's hit rate was 60 %, and 87 % once "
    "the calls named a `prompt_cache_key` (*Prompt Caching 201*, read in 2026). If the desk's calls found their prefix that often, "
    f"they would save {gone[0.6]:,.0f} or {gone[0.87]:,.0f} USD a month, not {gone[1]:,.0f}."
    if gone[1] > 0
    else "**For whoever pays:** at this run's prefix and these terms the cache takes nothing off the bill; the prefix is too short."
)

# %% [markdown]
# ### The assistant, on GPUs of the portal's own
#
# The assistant's engine has the same cache, and there no token has a price. Each turn of a conversation sends all that came before:
# if its blocks are still in memory, only the new message is read.

# %% tags=["reasoned"]
drops, keeps = fleet(PORTAL, "recompute"), fleet(PORTAL, "keep")
Markdown(
    "But the memory must hold those blocks while a customer reads and types. By the datasheet's model, to keep all conversations "
    f"that are open in the busiest hour would take {keeps.gpus:.0f} GPUs; the portal rents {np.ceil(drops.gpus):.0f}. So the engine drops most of "
    f"what it read, least recently used first, and reads it again at the next turn: the work of {drops.recompute:.1f} GPUs is "
    f"nothing else, and the first token comes {1000 * drops.later_s:.0f} ms later. The bill above counts on that. A cache hit saves money there "
    "only where it saves a whole GPU. Chapter 08 measures what can be kept, and prices it."
)

# %%
gain = {n: [c - v for c, v in zip(cold[n], warm[n], strict=True)] for n in lengths}  # seconds, a round each
grows = below(gain[lengths[0]], gain[longest])
elsewhere = [m for m in recordings("prefix_cache") if m.provenance.model != "small"]
others = "; ".join(
    f"{100 * r.warm_ttft_s / r.cold_ttft_s:.0f} % of the first one's time on {m.provenance.model} ({m.caption()})"
    for m in elsewhere[:2]
    for r in [m.frame().groupby("prompt_tokens").median().iloc[-1]]
)
Markdown(
    "**Pressure relieved:** reading, so compute and the wait for the first token. "
    f"Here a hit took {1000 * np.median(gain[longest]):.1f} ms off a prompt of {longest:,.0f} tokens, "
    f"{1000 * np.median(gain[lengths[0]]):.1f} ms off one of {lengths[0]:,.0f}"
    + (": what it is worth grows with the prompt" if grows else "" if grows is None else ": more than off the long one")
    + "."
    + (f" Elsewhere, the second first token took {others}." if others else "")
    + "\n\n**Where it moved:** into memory, which now holds other people's prefixes, and into your templates: their order is now part of "
    "the bill, so a change to it needs a review.\n\n**In production,** watch cached tokens over input tokens for each feature, "
    "and raise an alarm when a release makes that share drop."
)

# %% [markdown]
# ### On your own data
#
# Name a log of your calls: how much of their input repeats the beginning of an earlier prompt, and how much of it would a cache at
# OpenAI's terms serve? For this the log needs each call's prompt, time and usage. With usage alone it says what came from a cache
# already.

# %%
book.on_your_data()

# %%
book.recap()

# %% [markdown]
# ## Quiz

# %%
book.quiz("03.q1")

# %%
book.quiz("03.q2")

# %%
book.quiz("03.q3")

# %% [markdown]
# ## Next
#
# **04 · Response and semantic caching**: the cheapest prompt is the one that is not sent. When may an old answer be given
# again, and how many wrong ones does that buy?

# %%
await book.close()
book.progress()
