"""Questions to the shop that mean the same in other words, and questions that look alike and mean something else.

A semantic cache is only as good as its worst near-miss, so here the truth about both kinds is known by construction. A
question is made *from* its meaning: a topic, whether it is asked or negated, a scope, and names, numbers and days. So two
questions deserve the same answer exactly when their meanings and their tenants are equal. Nobody labels anything afterwards.

The desk answers what is literally asked: "Can I return boots?" gets a yes, "Is it not possible to return boots?" a no. So
the two are different questions, however close their words are.

Topics are dealt to calibration or test in the order of a hash. Names, products, cities and order numbers are dealt by a
hash, too: calibration uses those of `Deck`'s dev split, test those of its test split. So nothing is calibrated on the data
that it is tested on. Frames ("Can I …?"), days, small numbers and the catalogue's nouns are few and shared, as they are
between any two weeks of real traffic.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from labkit.lab.tasks import NOUNS, Deck, split_of
from labkit.request import InvalidValue

Part = Literal["calibration", "test"]
Kind = Literal[
    "paraphrase", "negation", "opposite", "scope", "identifier", "number", "name", "product", "place", "day", "unit"
]
KINDS: tuple[Kind, ...] = (
    "paraphrase", "negation", "opposite", "scope", "identifier", "number", "name", "product", "place", "day", "unit",
)  # fmt: skip
_DECKS: Mapping[Part, Literal["dev", "test"]] = {"calibration": "dev", "test": "test"}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a question asks, whatever its words. `side` is the topic as it stands, negated, or its opposite."""

    topic: str
    side: Literal["asked", "negated", "opposite"] = "asked"
    scope: str = ""
    slots: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """The meaning as a text, which is equal only for equal meanings."""
        return "|".join([self.topic, self.side, self.scope, *(f"{name}={value}" for name, value in self.slots)])


@dataclass(frozen=True, slots=True)
class Question:
    """One question as somebody typed it to one tenant's desk, with its meaning and its one right answer."""

    text: str
    meaning: Meaning
    tenant: str = ""

    @property
    def answer(self) -> str:
        """The desk's right answer. It differs whenever the meaning or the tenant differs."""
        rule = int.from_bytes(hashlib.sha256(f"{self.tenant}|{self.meaning.key}".encode()).digest()[:6], "big")
        word = {"asked": "Yes", "negated": "No", "opposite": "Only then"}[self.meaning.side]
        about = ", ".join([self.meaning.topic, *(value for _, value in self.meaning.slots)])
        return f"{word}: see rule {rule} of the {self.tenant or 'main'} desk about {about}."


@dataclass(frozen=True, slots=True)
class Pair:
    """A question in the cache, a new one, and whether the first one's answer is right for the second."""

    cached: Question
    new: Question
    kind: Kind

    @property
    def same(self) -> bool:
        """Whether the cached question's answer is right for the new one, as their meanings and tenants say."""
        return self.cached.answer == self.new.answer


@dataclass(frozen=True, slots=True)
class _Topic:
    mood: Literal["act", "ask"]
    cores: tuple[str, ...]
    opposite: tuple[str, ...] = ()

    @property
    def slots(self) -> tuple[str, ...]:
        return tuple(re.findall(r"{(\w+)}", self.cores[0]))


_FRAMES = {
    ("act", "asked"): (
        "Can I {core}?", "Is it possible to {core}?", "Am I allowed to {core}?", "May I {core}?", "Could I {core}?",
        "I would like to know if I can {core}.", "Do you let customers {core}?", "Is it OK to {core}?",
    ),
    ("act", "negated"): (
        "Can't I {core}?", "Is it not possible to {core}?", "Am I not allowed to {core}?", "Is it impossible to {core}?",
        "I would like to know if I cannot {core}.", "Do you never let customers {core}?",
    ),
    ("ask", "asked"): (
        "Can you tell me {core}?", "Do you know {core}?", "I wonder about {core}.", "Please explain {core}.",
        "Quick question: {core}?", "I could not find {core}.", "Tell me {core}.", "I need to know {core}.",
    ),
}  # fmt: skip
_GREETINGS = ("", "", "", "Hi. ", "Hello, ", "Good morning. ", "Hey there, ")
_CLOSERS = ("", "", "", " Thanks.", " Thank you!", " Please hurry.")
_SCOPES: Mapping[str, tuple[str, ...]] = {
    "online": ("online", "on your website"),
    "store": ("in the store", "in person at the shop"),
    "sale": ("if it is only sale items", "for sale items only"),
    "all": ("for all items", "for every item"),
    "before": ("before delivery", "before the parcel arrives"),
    "after": ("after delivery", "after the parcel arrives"),
}
_SCOPE_PAIRS = {"online": "store", "store": "online", "sale": "all", "all": "sale", "before": "after", "after": "before"}

_TOPICS: Mapping[str, _Topic] = {
    # -- acts: yes or no -----------------------------------------------------------------------------------------------
    "return": _Topic("act", ("return what I bought", "send my purchase back", "bring back something I bought")),
    "exchange": _Topic(
        "act", ("exchange my purchase for another size", "swap it for a different size", "change the size of what I got")
    ),
    "cancel": _Topic("act", ("cancel my purchase", "call off what I ordered", "undo my order")),
    "gift-wrap": _Topic("act", ("have a present wrapped", "get gift wrapping", "have it packed as a gift")),
    "invoice": _Topic("act", ("get an invoice with VAT", "have a VAT bill", "receive a tax invoice")),
    "instalments": _Topic("act", ("pay in instalments", "spread the payment over months", "pay month by month")),
    "cash": _Topic("act", ("pay in cash", "use cash to pay", "settle the bill with banknotes")),
    "points": _Topic(
        "act", ("pay with my loyalty points", "use my bonus points as payment", "spend the points I collected")
    ),
    "reserve": _Topic("act", ("reserve an item", "have an item put aside", "get something kept for me")),
    "dog": _Topic("act", ("bring my dog", "come with a dog", "take my dog along")),
    "test-tent": _Topic("act", ("try a tent before buying it", "set up a tent to test it", "test a tent first")),
    "engrave": _Topic("act", ("have my name engraved on a bottle", "get a bottle engraved", "put an engraving on a bottle")),
    "waterproof": _Topic(
        "act", ("have a jacket waterproofed", "get my jacket made waterproof", "have you proof my jacket against rain")
    ),
    "resole": _Topic("act", ("have my boots resoled", "get new soles on my boots", "have the soles of my boots replaced")),
    "trade-in": _Topic("act", ("trade in old gear", "give old equipment in part payment", "hand in used gear for credit")),
    "newsletter": _Topic(
        "act",
        ("subscribe to the newsletter", "sign up for your newsletter", "get your news by mail"),
        ("unsubscribe from the newsletter", "sign off from your newsletter", "stop getting your news by mail"),
    ),
    "membership": _Topic(
        "act",
        ("join the membership", "become a member", "sign up as a member"),
        ("leave the membership", "stop being a member", "quit as a member"),
    ),
    "opened": _Topic(
        "act",
        ("give back an opened package", "return a box that was opened", "send back an opened box"),
        ("give back an unopened package", "return a box that is still sealed", "send back an unopened box"),
    ),
    "receipt": _Topic(
        "act",
        ("get a refund with a receipt", "be refunded when I have the receipt", "have my money back with the receipt"),
        ("get a refund without a receipt", "be refunded when I have no receipt", "have my money back without the receipt"),
    ),
    "rent-skis": _Topic(
        "act",
        ("rent skis", "hire a pair of skis", "borrow skis for a fee"),
        ("buy skis", "purchase a pair of skis", "get skis to keep"),
    ),
    "new-gear": _Topic(
        "act",
        ("buy new climbing gear", "purchase climbing equipment that is new", "get brand-new climbing gear"),
        ("buy used climbing gear", "purchase climbing equipment that is second-hand", "get pre-owned climbing gear"),
    ),
    "sell": _Topic(
        "act",
        ("buy a kayak from you", "purchase a kayak from your shop", "get a kayak from you for money"),
        ("sell a kayak to you", "have your shop buy my kayak", "give you a kayak for money"),
    ),
    "add-item": _Topic(
        "act",
        (
            "add an item to my basket order",
            "put one more item into my running order",
            "have another item included in my order",
        ),
        (
            "remove an item from my basket order",
            "take one item out of my running order",
            "have one item excluded from my order",
        ),
    ),
    "cheaper": _Topic(
        "act",
        ("switch to the cheaper shipping", "take the less expensive delivery", "choose lower shipping costs"),
        ("switch to the dearer shipping", "take the more expensive delivery", "choose higher shipping costs"),
    ),
    "earlier": _Topic(
        "act",
        ("have the parcel come earlier", "get my delivery sooner", "move the delivery to an earlier time"),
        ("have the parcel come later", "get my delivery at a later time", "move the delivery to a later time"),
    ),
    "child": _Topic(
        "act",
        ("book a course for an adult", "enrol an adult in a course", "sign an adult up for a course"),
        ("book a course for a child", "enrol a child in a course", "sign a child up for a course"),
    ),
    "send-card": _Topic(
        "act",
        ("activate my gift card", "turn my gift card on", "enable my gift card"),
        ("deactivate my gift card", "turn my gift card off", "disable my gift card"),
    ),
    "share": _Topic(
        "act",
        ("show my reviews to everyone", "make my reviews public", "publish my reviews"),
        ("hide my reviews from everyone", "make my reviews private", "take my reviews down"),
    ),
    "account": _Topic(
        "act",
        ("open a customer account", "create an account with you", "set up a customer account"),
        ("close my customer account", "delete my account with you", "shut down my customer account"),
    ),
    "phone-order": _Topic("act", ("order by phone", "place an order over the telephone", "call you to order")),
    "student": _Topic("act", ("get the student discount", "have the reduction for students", "benefit from student prices")),
    "price-match": _Topic("act", ("get a price match", "have you match a lower price", "pay what another shop asks")),
    "workshop-watch": _Topic(
        "act", ("watch the repair in the workshop", "look on while my gear is repaired", "be there during the repair")
    ),
    "parking": _Topic("act", ("park at the shop", "leave my car at your shop", "use the customer car park")),
    "donate": _Topic(
        "act", ("donate gear through you", "give equipment to charity with you", "hand over gear as a donation")
    ),
    "warranty": _Topic(
        "act",
        (
            "use the guarantee on a broken zip",
            "claim the warranty for a zip that broke",
            "get a broken zip fixed under warranty",
        ),
    ),
    # -- acts about something in particular ----------------------------------------------------------------------------
    "order-cancel": _Topic("act", ("cancel order {order}", "call off the order {order}", "stop {order} from being shipped")),
    "order-address": _Topic(
        "act",
        ("change the address of order {order}", "have {order} sent to another address", "correct where {order} is going"),
    ),
    "pick-up": _Topic(
        "act",
        (
            "pick up the {product} in {city}",
            "collect the {product} at your {city} store",
            "get the {product} from the {city} shop",
        ),
    ),
    "visit-day": _Topic(
        "act",
        ("visit the {city} store on {day}", "come to your shop in {city} on {day}", "go to the {city} store this {day}"),
    ),
    "bulk": _Topic(
        "act", ("get a discount for {n} tents", "pay less when I take {n} tents", "have a reduction on {n} tents")
    ),
    "late-return": _Topic(
        "act",
        ("return things after {n} days", "send an item back once {n} days are over", "give something back {n} days later"),
    ),
    "carry": _Topic(
        "act", ("load {weight} into the backpack", "put {weight} in the backpack", "carry {weight} with the backpack")
    ),
    "short-rope": _Topic("act", ("buy {length} of rope", "have a rope cut to {length}", "get a rope of {length}")),
    "meet": _Topic(
        "act",
        (
            "speak to {person} about the {product}",
            "talk with {person} concerning the {product}",
            "ask {person} about the {product}",
        ),
    ),
    "course": _Topic(
        "act",
        (
            "book the course with {person} on {day}",
            "join the {day} course that {person} gives",
            "take part in the course of {person} on {day}",
        ),
    ),
    # -- asks: what, how, when -----------------------------------------------------------------------------------------
    "hours": _Topic("ask", ("your opening hours", "the hours of the shop", "the times when you are open")),
    "delivery-time": _Topic("ask", ("how long delivery takes", "the normal delivery time", "the usual shipping time")),
    "pay-ways": _Topic("ask", ("the ways to pay", "which payments you take", "how one can pay")),
    "countries": _Topic("ask", ("the countries you ship to", "where you deliver abroad", "your shipping area")),
    "first-bus": _Topic(
        "ask",
        ("when the first shuttle leaves", "the time of the first shuttle bus", "at what time the first shuttle goes"),
        ("when the last shuttle leaves", "the time of the last shuttle bus", "at what time the last shuttle goes"),
    ),
    "minimum": _Topic(
        "ask",
        ("the minimum order value", "the least I have to spend", "how small an order may be at the minimum"),
        ("the maximum order value", "the most I can spend", "how large an order may be at the maximum"),
    ),
    "open-time": _Topic(
        "ask",
        ("when the shop opens in the morning", "the opening time in the morning", "at what hour you open"),
        ("when the shop closes in the evening", "the closing time in the evening", "at what hour you close"),
    ),
    "lightest": _Topic(
        "ask",
        ("the lightest tent you have", "which of your tents weighs least", "your most lightweight tent"),
        ("the heaviest tent you have", "which of your tents weighs most", "your tent with the highest weight"),
    ),
    "status": _Topic(
        "ask", ("where order {order} is", "the status of order {order}", "what has become of my order {order}")
    ),
    "order-total": _Topic(
        "ask", ("the total of order {order}", "how much {order} comes to", "what I have to pay for {order}")
    ),
    "price": _Topic(
        "ask", ("the price of the {product}", "what the {product} costs", "how much you want for the {product}")
    ),
    "stock": _Topic(
        "ask",
        (
            "how many of the {product} are left in {city}",
            "the stock of the {product} in {city}",
            "if {city} still has the {product}",
        ),
    ),
    "day-hours": _Topic(
        "ask",
        (
            "the hours of the {city} store on {day}",
            "when {city} is open on {day}",
            "how long the {city} shop is open this {day}",
        ),
    ),
    "shift": _Topic(
        "ask", ("when {person} works on {day}", "the {day} shift of {person}", "at what time {person} is in on {day}")
    ),
    "rent-price": _Topic(
        "ask",
        (
            "the price of renting a stove for {n} days",
            "what {n} days of stove rental cost",
            "how much a rented stove is for {n} days",
        ),
    ),
    "parcel-price": _Topic(
        "ask", ("what a parcel of {weight} costs", "the shipping price for {weight}", "how much postage {weight} needs")
    ),
    "care": _Topic(
        "ask", ("how to wash the {product}", "the right way to clean the {product}", "how I should wash my {product}")
    ),
    "manager": _Topic(
        "ask",
        (
            "the phone number of {person} in {city}",
            "how to reach {person} at the {city} store by phone",
            "the number to call {person} in {city}",
        ),
    ),
}
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SLOT_KINDS: Mapping[str, Kind] = {
    "order": "identifier", "n": "number", "person": "name", "product": "product", "city": "place", "day": "day",
}  # fmt: skip
_UNITS = {"weight": ("kg", "pounds"), "length": ("metres", "feet")}


def topics(part: Part | None = None) -> tuple[str, ...]:
    """Names of the topics of a part, or of both; a hash deals each to one part. Raises `InvalidValue` for no such part."""
    if part is not None:
        _check_part(part)
    return tuple(name for name in _TOPICS if part in (None, _dealt()[name]))


def questions(meaning: Meaning, rng: random.Random, n: int, *, tenant: str = "") -> list[Question]:
    """`n` questions of one meaning in different words, drawn with `rng`; fewer when the meaning has fewer ways to ask it."""
    topic = _TOPICS[meaning.topic]
    frames = _FRAMES[topic.mood, "negated" if meaning.side == "negated" else "asked"]
    cores = topic.opposite if meaning.side == "opposite" else topic.cores
    tails = [f" {tail}" for tail in _SCOPES[meaning.scope]] if meaning.scope else [""]
    ways = [(frame, core, tail) for frame in frames for core in cores for tail in tails]
    slots = dict(meaning.slots)
    made = []
    for frame, core, tail in rng.sample(ways, min(n, len(ways))):
        asked = frame.format(core=core.format(**slots) + tail)
        made.append(Question(f"{rng.choice(_GREETINGS)}{asked}{rng.choice(_CLOSERS)}", meaning, tenant))
    return made


def meanings(part: Part, n: int, seed: int) -> list[Meaning]:
    """`n` different meanings of a part, in an order given by `seed`: the part's topics in turn, each time with new entities.

    Raises `InvalidValue` for no such part, and when the part has fewer than `n` meanings.
    """
    _check_part(part)
    deck = Deck(_DECKS[part], random.Random(f"meanings {seed}"))
    names = list(topics(part))
    deck.rng.shuffle(names)
    found: dict[str, Meaning] = {}
    turn = 0
    while len(found) < n:
        topic = names[turn % len(names)]
        if turn < len(names) or _TOPICS[topic].slots:
            meaning = _fresh(topic, deck)
        else:
            meaning = deck.rng.choice(_variants(Meaning(topic)) or [(Meaning(topic), "scope")])[0]
        found.setdefault(meaning.key, meaning)
        turn += 1
        if turn > 100 * (n + len(names)):
            raise InvalidValue(f"{part} has no {n} different meanings; ask for at most {len(found)}")
    return list(found.values())


def near_misses(meaning: Meaning, deck: Deck) -> list[tuple[Meaning, Kind]]:
    """Meanings one small change away from `meaning`, each with the kind of the change. New entities come from `deck`."""
    found = _variants(meaning)
    for position, (name, value) in enumerate(meaning.slots):
        changes: list[tuple[str, Kind]] = []
        if name in _UNITS:
            number, unit = value.split(" ")
            other = next(u for u in _UNITS[name] if u != unit)
            changes = [(f"{number} {other}", "unit"), (f"{_other_number(number, deck)} {unit}", "number")]
        elif name == "order":
            changes = [(_other_order(value, deck), "identifier")]
        elif name == "n":
            changes = [(_other_number(value, deck), "number")]
        else:
            changes = [(_other(name, value, deck), _SLOT_KINDS[name])]
        for new, kind in changes:
            slots = (*meaning.slots[:position], (name, new), *meaning.slots[position + 1 :])
            found.append((replace(meaning, slots=slots), kind))
    return found


def pairs(part: Part, n: int, seed: int, *, near_miss_share: float = 0.5) -> Iterator[Pair]:
    """`n` labelled pairs of a part: a cached question, and a paraphrase of it or (in `near_miss_share`) a near-miss.

    The same arguments give the same pairs. Each kind of near-miss comes as often as the topics allow it. Raises
    `InvalidValue` for no such part and for a share outside 0 to 1.
    """
    _check_part(part)
    if not 0 <= near_miss_share <= 1:
        raise InvalidValue(f"near_miss_share is {near_miss_share}; use a share from 0 to 1")
    return _pairs(part, n, seed, near_miss_share)


def _pairs(part: Part, n: int, seed: int, near_miss_share: float) -> Iterator[Pair]:
    deck = Deck(_DECKS[part], random.Random(f"pairs {seed}"))
    names = topics(part)
    for _ in range(n):
        meaning = _fresh(deck.rng.choice(names), deck)
        if not meaning.slots and deck.rng.random() < 0.5:  # the cached question may itself be negated or scoped
            meaning = deck.rng.choice([meaning, *(other for other, _ in _variants(meaning))])
        if deck.rng.random() < near_miss_share and (misses := near_misses(meaning, deck)):
            other, kind = deck.rng.choice(misses)
            (cached,), (new,) = questions(meaning, deck.rng, 1), questions(other, deck.rng, 1)
            if deck.rng.random() < 0.5:  # half of them are word for word the same, except for the change
                cached, new = _alike(meaning, other, deck.rng)
            yield Pair(cached, new, kind)
        else:
            cached, new = questions(meaning, deck.rng, 2)
            yield Pair(cached, new, "paraphrase")


def traffic(
    part: Part, n: int, seed: int, *, meanings_total: int = 200, exponent: float = 1.0, tenants: Sequence[str] = ("",)
) -> Iterator[Question]:
    """`n` questions as a desk gets them: the k-th most popular meaning is asked in proportion to k^-`exponent` (Zipf).

    The words are drawn anew for each question, and the tenant uniformly. Each tenant's desk has its own answers. Raises
    `InvalidValue` for no such part, `n` below 0, no tenants, or more `meanings_total` than the part has.
    """
    if n < 0 or not tenants:
        raise InvalidValue(f"n is {n} and tenants {tuple(tenants)!r}; use n from 0 and at least one tenant")
    pool = meanings(part, meanings_total, seed)
    return _traffic(pool, n, random.Random(f"traffic {seed}"), exponent, tuple(tenants))


def _traffic(
    pool: Sequence[Meaning], n: int, rng: random.Random, exponent: float, tenants: Sequence[str]
) -> Iterator[Question]:
    weights = [rank**-exponent for rank in range(1, len(pool) + 1)]
    for meaning in rng.choices(pool, weights, k=n):
        yield from questions(meaning, rng, 1, tenant=rng.choice(tenants))


def _check_part(part: Part) -> None:
    if part not in _DECKS:
        raise InvalidValue(f"the part {part!r} is unknown; use calibration or test")


@cache
def _dealt() -> Mapping[str, Part]:
    """The part of every topic. Topics of one sort are ordered by a hash and dealt to calibration and test in turn."""
    sorts: dict[Hashable, list[str]] = {}
    for name, topic in _TOPICS.items():
        rare = next((slot for slot in ("person", *_UNITS, "order", "n") if slot in topic.slots), None)
        sort = ("unit" if rare in _UNITS else rare) or (topic.mood, bool(topic.opposite), bool(topic.slots))
        sorts.setdefault(sort, []).append(name)
    dealt: dict[str, Part] = {}
    for names in sorts.values():
        names.sort(key=lambda name: hashlib.sha256(f"topic {name}".encode()).digest())
        dealt |= {name: "test" if turn % 2 else "calibration" for turn, name in enumerate(names)}
    return dealt


def _variants(meaning: Meaning) -> list[tuple[Meaning, Kind]]:
    """Near-misses that change the side or the scope, each with its kind. They need no new entity."""
    topic = _TOPICS[meaning.topic]
    found: list[tuple[Meaning, Kind]] = []
    if topic.mood == "act" and meaning.side != "opposite":
        side: Literal["asked", "negated"] = "asked" if meaning.side == "negated" else "negated"
        found.append((replace(meaning, side=side), "negation"))
    if topic.opposite and meaning.side != "negated":
        turned: Literal["asked", "opposite"] = "asked" if meaning.side == "opposite" else "opposite"
        found.append((replace(meaning, side=turned), "opposite"))
    if topic.mood == "act" and not topic.slots:
        others = ("", _SCOPE_PAIRS[meaning.scope]) if meaning.scope else ("online", "sale", "after")
        found += [(replace(meaning, scope=scope), "scope") for scope in others]
    return found


def _alike(meaning: Meaning, other: Meaning, rng: random.Random) -> tuple[Question, Question]:
    """The two meanings in the same words as far as possible: the same random draws of frame, core, greeting and closer."""
    state = rng.getstate()
    (first,) = questions(meaning, rng, 1)
    rng.setstate(state)
    (second,) = questions(other, rng, 1)
    return first, second


def _fresh(topic: str, deck: Deck) -> Meaning:
    return Meaning(topic, slots=tuple((name, _value(name, deck)) for name in _TOPICS[topic].slots))


def _value(slot: str, deck: Deck) -> str:
    rng = deck.rng
    if slot in _UNITS:
        return f"{rng.randrange(2, 40)} {rng.choice(_UNITS[slot])}"
    if slot == "n":
        return str(rng.randrange(2, 60))
    if slot == "day":
        return rng.choice(_DAYS)
    return {"order": deck.order, "person": deck.person, "city": deck.city, "product": deck.product}[slot]()


def _other(slot: str, value: str, deck: Deck) -> str:
    if slot == "product":
        brand, noun = value.split(" ")
        if deck.rng.random() < 0.5:  # another product of the same brand, or the same product of another brand
            return f"{brand} {deck.rng.choice([n for n in NOUNS if n != noun])}"
        return f"{_other('brand', brand, deck)} {noun}"
    while True:
        other = deck.brand() if slot == "brand" else _value(slot, deck)
        if other != value:
            return other


def _other_number(number: str, deck: Deck) -> str:
    swapped = number[::-1]
    if swapped != number and not swapped.startswith("0") and deck.rng.random() < 0.5:
        return swapped
    return str(int(number) + deck.rng.choice((1, 2, 10)))


def _other_order(order: str, deck: Deck) -> str:
    """Another order number of the same split: with two neighbouring digits swapped, else one digit changed, else any."""
    head, digits = order[:3], order[3:]
    swapped = [digits[:i] + digits[i + 1] + digits[i] + digits[i + 2 :] for i in range(4) if digits[i] != digits[i + 1]]
    changed = [digits[:i] + new + digits[i + 1 :] for i in range(5) for new in "0123456789" if new != digits[i]]
    for candidates in (swapped, changed):
        own = [c for c in candidates if c[0] != "0" and split_of(head + c) == deck.split]
        if own:
            return head + deck.rng.choice(own)
    return _other("order", order, deck)
