# %% [markdown]
# # 03 · Prompt caching: what a stable prefix is worth
#
# **The question.** The portal puts the same thousand tokens of instructions in front of every question, 400,000 times a day, and
# pays for reading them 400,000 times. It need not. What is it worth to have them read *once*, and which line of your template
# quietly throws that away?
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
from labkit.portal import PORTAL, Prefix
from labkit.request import Message, Request, Usage, clock, complete
from labkit.tokens import tokenizer
from labkit.workbook import PALETTE, Figure, below, live_chart, show, spread

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
# like one that was read before, its beginning need not be read again: that is **prefix caching**, and vLLM does it by itself.

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
which = {"title": None, "sort": ["first time", "again"]}
base = alt.Chart(shown).encode(
    x=alt.X("prompt_tokens:Q", title="prompt tokens"),
    y=alt.Y("ms:Q", title="TTFT (ms)", scale=alt.Scale(domainMin=0)),
    color=alt.Color("time:N", **which),
)
points = base.mark_point(size=40, opacity=0.35).encode(shape=alt.Shape("time:N", legend=None, **which))
lines = base.mark_line().encode(y="median(ms):Q", strokeDash=alt.StrokeDash("time:N", legend=None, **which))
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
    + ". What no cache takes away is everything that is not reading: the way there and back, and one step of the model. And it is "
    "not quite all of the reading:"
    if middle.cached_tokens.max() > 0
    else "This engine served nothing from a cache, or does not report it (vLLM needs `--enable-prompt-tokens-details`)."
)

# %%
middle.reset_index()[["prompt_tokens", "cached_tokens"]].astype(int).assign(
    read_again=lambda d: d.prompt_tokens - d.cached_tokens
).set_index("prompt_tokens")

# %% [markdown]
# ### Blocks
#
# The engine keeps its cache in **blocks** of a fixed number of tokens. A block is found by a hash of its tokens *and of the
# hash of the block before it*, so a block is only found behind the same beginning. Only full blocks are kept, and the very
# last token is always computed, because from it comes the next one. Here are prompts of one length that share
# ever more of their beginning: if this is so, we should see stairs.

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
# So a shared prefix shorter than one block is worth exactly nothing. (Engines differ in the size of a block, and providers in
# the shortest prefix they cache at all.)
#
# ### Say it before the engine does
#
# Now the portal's traffic: three shops, each with instructions of its own, customers who ask and ask again. A cache of blocks
# can be run ahead of the engine, on paper so to speak: `PrefixCache` gets the same token ids and says for each request how
# many the engine will report as cached. Shops are kept apart by a *salt*, which goes into the first block's hash; without it,
# one tenant could learn from the speed of an answer what another one's prompts look like.

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
    served=lambda d: (100 * d.reported / d.prompt).round(0).astype(int).astype(str) + " %"
)

# %% [markdown]
# ### The line that throws it away
#
# The same shop, the same questions, two templates. The first was written by somebody who thought that the model should know
# what time it is, and who is asking, *before* it reads its instructions. The second says the same things in another order.

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
        color=alt.Color(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=["read again", "from the cache"], range=[PALETTE["blue"], PALETTE["sky"]]),
        ),
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
    f"Customers wait by it, too: the median first token came after {span['instructions first']} with the instructions first, after "
    f"{span['clock first']} with the clock first.",
    f"The wait did not follow: {span['instructions first']} with the instructions first, {span['clock first']} with the clock first.",
)

# %% [markdown] tags=["reasoned"]
# Nothing fails when a prefix breaks. The engine answers as ever; it only reads more, and no test notices that. So it pays to
# look. `lint` takes some requests that a template made, finds the first place where they part, says what stands there, takes it
# out, and looks on.

# %%
price = price_named(PORTAL.desk.large)
counted = tokenizer("lab").count
found = lint([clock_first(i) for i in range(12)], counted, price=price, requests_per_month=PORTAL.questions)
pd.DataFrame(
    [
        {
            "what": f.kind,
            "for example": f"“{f.found[0]}”, “{f.found[1]}”",
            "prefix before it (tokens)": f.shared_tokens,
            "lost behind it (tokens)": f.lost_tokens,
            "USD a month": f"{f.usd_per_month:,.0f}",
        }
        for f in found
    ]
)

# %%
still = lint([clock_last(i) for i in range(12)], counted)
Markdown(
    "".join(f"- The {'text that varies' if f.kind == 'varying' else f.kind}: {f.fix}.\n" for f in found)
    + f"\nIn the second template it finds {len(still) or 'no'} such places. (Tokens counted with the lab's tokenizer. Money: the lost tokens of {PORTAL.questions:,} requests a "
    f"month, at {price.model}'s difference between fresh and cached input, {price.source}.)"
)

# %% [markdown]
# ### What providers charge for it
#
# An API has the same cache behind it and sells it. The terms differ in three things: a **premium** for writing, a **discount**
# for reading, and a **lifetime** after which the prefix is gone.

# %%
sold = []
for rules, model in (
    (rules, "gpt-5-mini" if "openai" in name else "claude-sonnet-4-5") for name, rules in provider.RULES.items()
):
    listed = price_of(model)
    rates = rules.price(listed).rates
    reads = provider.reads_to_pay_for_a_write(listed, rules)
    sold.append(
        {
            "terms": rules.name,
            "model": model,
            "writing": f"{rates.cache_write / rates.fresh_input:.2f} ×" if rules.charged else "1.00 ×",
            "reading": f"{rates.cached_input / rates.fresh_input:.2f} ×",
            "shortest prefix": rules.minimum,
            "lifetime (s)": int(rules.lifetime_s),
            "reads that pay for a write": f"{reads:.2f}",
        }
    )
uses = 1 + int(np.ceil(float(provider.reads_to_pay_for_a_write(price, provider.RULES["anthropic, 5 minutes"]))))
book.reveal("03.once", next(option for option in ("2", "5", "10") if int(option) >= uses))
pd.DataFrame(sold).set_index("terms")

# %%
Markdown(
    "Terms from: " + "; ".join(dict.fromkeys(f"{rules.source}, {rules.as_of}" for rules in provider.RULES.values())) + "."
)

# %% [markdown]
# ## Move
#
# A cache pays if the next call comes before the lifetime ends. How many calls an hour does *your* prefix get? Where a line lies
# above *no caching*, you pay premiums for prefixes that nobody comes back to.


# %%
def worth(prefix_tokens, rest_tokens, calls_per_hour):
    grid = np.geomspace(0.1, 1000, 120)
    at_anthropic = ("anthropic, 5 minutes", "anthropic, 1 hour")
    rows = [{"terms": "no caching", "calls": c, "usd": 1.0} for c in grid]
    here = {}
    for name in at_anthropic:
        rules, rates = provider.RULES[name], provider.RULES[name].price(price).rates
        plain = float(rates.fresh_input) * (prefix_tokens + rest_tokens)
        cacheable = rules.cached(prefix_tokens)

        def relative(calls, rules=rules, rates=rates, plain=plain, cacheable=cacheable):
            hit = provider.hit_probability(calls / 3600, rules)
            prefix = cacheable * (hit * float(rates.cached_input) + (1 - hit) * float(rates.cache_write))
            return (prefix + float(rates.fresh_input) * (prefix_tokens + rest_tokens - cacheable)) / plain

        rows += [{"terms": name, "calls": c, "usd": relative(c)} for c in grid]
        here[name] = relative(calls_per_hour)
    best = min(here, key=here.get)
    if here[best] < 1:
        title = f"{calls_per_hour:.3g} calls an hour: {best} saves {100 * (1 - here[best]):.0f} % of the input bill"
    else:
        title = f"{calls_per_hour:.3g} calls an hour: caching saves nothing"
    data = pd.DataFrame(rows)
    lines = (
        alt.Chart(data)
        .mark_line()
        .encode(
            x=alt.X("calls:Q", title="calls an hour with this prefix", scale=alt.Scale(type="log")),
            y=alt.Y("usd:Q", title="input bill, times that without caching", scale=alt.Scale(domainMin=0)),
            color=alt.Color("terms:N", title=None, sort=["no caching", *at_anthropic]),
        )
    )
    rule = (
        alt.Chart(pd.DataFrame({"calls": [calls_per_hour]}))
        .mark_rule(strokeDash=[4, 3], color=PALETTE["red"])
        .encode(x="calls:Q")
    )
    return Figure(
        (lines + rule).properties(title=title),
        alt=f"Input bill relative to no caching, against calls an hour, for two lifetimes. {title}.",
        source=f"Computed for Poisson calls: 1 − exp(−λ·lifetime) find the prefix. {price.model}, {price.source}; "
        + provider.RULES["anthropic, 1 hour"].source,
    )


live_chart(
    worth,
    prefix_tokens=w.IntSlider(2000, 200, 20_000, 100, description="prefix tokens"),
    rest_tokens=w.IntSlider(300, 50, 5000, 50, description="other tokens"),
    calls_per_hour=w.FloatLogSlider(20, min=-1, max=3, step=0.05, readout_format=".3g", description="calls an hour"),
)

# %% [markdown] tags=["reasoned"]
# Find three numbers of calls an hour: where each lifetime begins to pay, and where the two cost the same (the lines cross below
# one call an hour). Then take a prefix shorter than the shortest that is cached.

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
x = alt.X("blocks:Q", title="blocks in the cache", scale=alt.Scale(zero=False))
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
    ).properties(width=600, title=f"Served by {whose}: {agreed}"),
    alt=f"Share of the prompt tokens served, against the cache's blocks. {agreed}. "
    + " ".join(f"{r.blocks} blocks: {r.own:.0f} %, the lab's {r.lab:.0f} %." for r in smaller.itertuples()),
    source=f"Line: {whose}. Circles: the lab's PrefixCache; {len(smaller) - apart} of {len(smaller)} lie on the line. Dashed: vLLM's own "
    f"count with {cache['blocks']:,} blocks. {told.source}",
)

# %% [markdown]
# ## So what
#
# The portal's desk at its provider's terms (no premium, a prefix is found from 1,024 tokens on, in steps of 128): the template as
# it was and as it is now. A thousand requests, a second apart, as long as those measured; their prefix is what two of them share,
# token by token.

# %%
terms = provider.RULES[PORTAL.desk.cache_terms]


def billed(name):
    """The usage of a thousand requests of a template under these terms."""
    prompts, prefix = by_template[name].prompts[0], int(by_template[name].prefix[0])
    return provider.serve([provider.Call(float(i), prompts[i % len(prompts)], prefix) for i in range(1000)], terms)


bills = {name: billed(name) for name in templates}
month = {name: float(price_workflow(b, price).total) * PORTAL.questions / len(b) for name, b in bills.items()}
reordered = bills["instructions first"]
share = 100 * sum(u.cached_tokens for u in reordered) / sum(u.input_tokens for u in reordered)
saved = 100 * (1 - month["instructions first"] / month["clock first"])
pd.DataFrame(
    {
        "shared prefix (tokens)": [int(by_template[name].prefix[0]) for name in templates],
        "from the cache, here": [f"{served[name]:.0f} %" for name in templates],
        "input bill (USD a month)": [f"{month[name]:,.0f}" for name in templates],
    },
    index=list(templates),
)

# %%
elsewhere = [m for m in recordings("prefix_cache") if m.provenance.model != "small"]
others = "; ".join(
    f"{100 * r.warm_ttft_s / r.cold_ttft_s:.0f} % of the first one's time on {m.provenance.model} ({m.caption()})"
    for m in elsewhere[:2]
    for r in [m.frame().groupby("prompt_tokens").median().iloc[-1]]
)
book.claim(
    "03.share",
    "Prefix caching saves the cached share of the input.",
    by="Heard often, as the hit rate of cost calculators; no source found that states it as a rule.",
    claimed=share,
    measured=saved,
    unit="% of the input bill",
    where=f"the reordered template, {len(bills['instructions first']):,} requests",
    unless="Reading the cache is not free, and filling it costs a premium: the saving comes close to the share where prefixes are "
    "long, reads cheap, and the next request comes before the prefix is forgotten.",
    source=f"Provider's terms: {terms.name}; {price.model}, {price.source}, {price.as_of}. Tokens: {ordered.source}",
    tolerance=0.05,
)
book.bill(
    "a stable prefix",
    Prefix(
        "desk",
        cached=share / 100,
        written=sum(u.cache_write_tokens for u in reordered) / sum(u.input_tokens for u in reordered),
    ),
    of="desk",
    source=f"{terms.name}; {price.model}, {price.source}, {price.as_of}. Tokens: {ordered.source}",
)

# %%
gain = {n: [c - v for c, v in zip(cold[n], warm[n], strict=True)] for n in lengths}  # seconds, a round each
grows = below(gain[lengths[0]], gain[longest])
Markdown(
    "The pressure relieved: reading, so compute and the wait for the first token. "
    f"Here a hit took {1000 * np.median(gain[longest]):.1f} ms off a prompt of {longest:,.0f} tokens, "
    f"{1000 * np.median(gain[lengths[0]]):.1f} ms off one of {lengths[0]:,.0f}"
    + (": what it is worth grows with the prompt" if grows else "" if grows is None else ": more than off the long one")
    + (f" (elsewhere, the second first token took {others})" if others else "")
    + ". Where it moved: into memory that now holds other people's prefixes, and into your templates, which became an interface. "
    "In production, watch cached tokens over input tokens per feature, and alarm when a release makes it drop."
)

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
