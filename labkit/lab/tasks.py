"""The support desk of a fictional outdoor-gear shop: seven families of tasks whose right answers a program knows.

Easy tasks can be answered in one step. Hard ones need several steps, which a model may write between `<think>` and
`</think>` before it answers. Training and test examples share no entity: a hash deals each brand, person, city, order
number, date, price × quantity pair and pairing of phrases to one split, so chance plays no part.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from labkit.request import InvalidValue, Message

Split = Literal["train", "dev", "test"]
_SPLITS = ("train", "dev", "test")
Difficulty = Literal["easy", "hard"]

SHOP = "Trailhead Supply"
DESK = f"You work at the support desk of {SHOP}."


@dataclass(frozen=True, slots=True)
class Example:
    """One task: what the desk is asked, the one right answer, and the steps that lead to it (empty for easy families)."""

    id: str
    family: str
    difficulty: Difficulty
    messages: tuple[Message, ...]
    answer: str
    steps: str = ""
    max_tokens: int = 64


def split_of(entity: str) -> Split:
    """The split that owns `entity`: one in ten is dealt to dev, one in ten to test, the rest to train."""
    bucket = int.from_bytes(hashlib.sha256(entity.encode()).digest()[:4], "big") % 10
    return "test" if bucket == 0 else "dev" if bucket == 1 else "train"


class Deck:
    """Seeded draws of entities that belong to one split."""

    def __init__(self, split: Split, rng: random.Random) -> None:
        self.split = split
        self.rng = rng

    def draw(self, make: Callable[[], str]) -> str:
        """Call `make` until it gives a text that belongs to this deck's split, and return that text."""
        while True:
            candidate = make()
            if split_of(candidate) == self.split:
                return candidate

    def pair(self, left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, str]:
        """A pairing of phrases that this split owns. Single phrases occur in all splits, pairings do not.

        Pairings are few, so dev or test may own none of a list. That split then draws from all that training does not own.
        """
        owners = {split_of(f"{a}|{b}") for a in left for b in right}
        mine = {self.split} if self.split in owners else {"dev", "test"}
        while True:
            first, second = self.rng.choice(left), self.rng.choice(right)
            if split_of(f"{first}|{second}") in mine:
                return first, second

    def brand(self) -> str:
        """An invented brand."""
        return self.draw(lambda: "".join(self.rng.choice(_SYLLABLES) for _ in range(2)).capitalize())

    def person(self) -> str:
        """An invented first name."""
        return self.draw(lambda: (self.rng.choice(_SYLLABLES) + self.rng.choice(_NAME_ENDS)).capitalize())

    def city(self) -> str:
        """An invented city."""
        return self.draw(lambda: (self.rng.choice(_SYLLABLES) + self.rng.choice(_CITY_ENDS)).capitalize())

    def order(self) -> str:
        """An order number."""
        return self.draw(lambda: f"TS-{self.rng.randrange(10_000, 100_000)}")

    def product(self) -> str:
        """A brand and what it makes."""
        return f"{self.brand()} {self.rng.choice(NOUNS)}"


_SYLLABLES = tuple(
    a + b
    for a in [
        "b",
        "c",
        "d",
        "f",
        "g",
        "h",
        "k",
        "l",
        "m",
        "n",
        "p",
        "r",
        "s",
        "t",
        "v",
        "z",
        "br",
        "cr",
        "dr",
        "fl",
        "gr",
        "pl",
        "st",
        "tr",
    ]
    for b in ["a", "e", "i", "o", "u", "ar", "en", "il", "on"]
)
_NAME_ENDS = tuple(["la", "na", "ra", "mi", "ko", "to", "dan", "lin", "rik", "ssa", "vin", "mon"])
_CITY_ENDS = tuple(["ford", "ton", "burg", "ville", "mouth", "stad", "field", "haven"])
NOUNS = tuple(
    ["tent", "jacket", "backpack", "stove", "lantern", "rope", "helmet", "boots", "kayak", "compass", "hammock", "blanket"]
)

# --- intent -----------------------------------------------------------------------------------------------------------

INTENTS: dict[str, tuple[str, ...]] = {
    "refund": ("get my money back for", "be refunded for", "return and be repaid for", "have the payment back for"),
    "delivery": (
        "know when you ship",
        "track the parcel with",
        "find out where the courier has",
        "learn the arrival day of",
    ),
    "warranty": (
        "use the guarantee on",
        "claim the warranty for",
        "have the broken zip covered on",
        "get the defect fixed on",
    ),
    "sizing": (
        "know which size to take of",
        "find out how large I need",
        "see the size chart of",
        "know if it runs small, I mean",
    ),
    "cancel": ("cancel the purchase of", "stop the order of", "call off the order of", "undo the purchase of"),
    "invoice": (
        "have the invoice for",
        "get a receipt with VAT for",
        "have a copy of the bill for",
        "correct the address on the bill for",
    ),
    "stock": (
        "know if you still have",
        "see if the store has any",
        "know when it is back in stock, I mean",
        "reserve one more of",
    ),
    "complaint": (
        "complain about",
        "speak to a manager about",
        "say how angry I am about",
        "report the rude service around",
    ),
}
_WISHES = ("I want to", "I would like to", "Can I", "Please let me", "How do I", "Help me", "I need to", "Is it possible to")
_GREETINGS = ("", "", "Hi. ", "Hello, ", "Good morning. ", "Hey there, ", "Dear team, ")
_CLOSERS = ("", "", " Thanks.", " Thank you!", " Please hurry.", " I am waiting.")


def _intent(deck: Deck) -> tuple[str, str, str, str]:
    rng = deck.rng
    label = rng.choice(tuple(INTENTS))
    wish, core = deck.pair(_WISHES, INTENTS[label])
    told = f"{rng.choice(_GREETINGS)}{wish} {core} the {deck.product()}.{rng.choice(_CLOSERS)}"
    system = f"{DESK} Name the intent of the message in one word: {', '.join(INTENTS)}."
    return system, told, label, ""


# --- faq --------------------------------------------------------------------------------------------------------------

FAQ: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "We are open from 9 to 18, Monday to Saturday.",
        ("your opening hours", "the hours of the shop", "the times when you are open"),
    ),
    (
        "Standard delivery takes 3 working days.",
        ("the normal delivery time", "how long delivery takes", "the usual shipping time"),
    ),
    (
        "Express delivery costs 12 euros.",
        ("the price of express delivery", "what express shipping costs", "the fee for express"),
    ),
    ("Returns are free within 30 days.", ("the return window", "how long I can return things", "your return period")),
    ("We accept cards, bank transfer and gift cards.", ("the ways to pay", "which payments you take", "how one can pay")),
    ("Members get 5 percent off every order.", ("the member discount", "what members save", "the benefit of membership")),
    ("Boots can be resoled for 45 euros.", ("the price of a new sole", "what resoling boots costs", "the fee for resoling")),
    (
        "Tents are waterproofed for 25 euros.",
        ("the price of waterproofing", "what waterproofing a tent costs", "the fee for waterproofing"),
    ),
    (
        "Gift cards are valid for 4 years.",
        ("how long gift cards last", "the validity of a gift card", "when a gift card ends"),
    ),
    ("We ship to 14 countries in Europe.", ("the countries you ship to", "where you deliver abroad", "your shipping area")),
    (
        "Skis can be rented from 20 euros a day.",
        ("the price of renting skis", "what ski rental costs", "the daily ski rate"),
    ),
    ("Our workshop needs 5 working days.", ("how long a repair takes", "the time in the workshop", "the repair time")),
)
_ASKS = (
    "Can you tell me",
    "What can you say about",
    "I wonder about",
    "Please explain",
    "Quick question:",
    "Do you know",
    "I could not find",
    "Tell me",
)


def _faq(deck: Deck) -> tuple[str, str, str, str]:
    rng = deck.rng
    answer, topics = rng.choice(FAQ)
    ask, topic = deck.pair(_ASKS, topics)
    return f"{DESK} Answer the question.", f"{rng.choice(_GREETINGS)}{ask} {topic}?{rng.choice(_CLOSERS)}", answer, ""


# --- extract ----------------------------------------------------------------------------------------------------------

# Names stand in quotes, as in a form. The tokenizer then cuts them as it does in JSON, so a model can copy their tokens.
_EXTRACT = (
    'My order "{order}" has {quantity} of "{product}" in it, and I am "{person}".',
    'From "{person}", order "{order}": I bought {quantity} of "{product}".',
    'I am "{person}". I ordered {quantity} of "{product}", the number is "{order}".',
    'About "{order}", it says {quantity} of "{product}". Regards, "{person}".',
    'This is "{person}", I paid for {quantity} of "{product}" under "{order}".',
)


def _extract(deck: Deck) -> tuple[str, str, str, str]:
    rng = deck.rng
    facts = {"order": deck.order(), "name": deck.person(), "product": deck.product(), "quantity": rng.randrange(1, 10)}
    told = rng.choice(_EXTRACT).format(
        order=facts["order"], person=facts["name"], product=facts["product"], quantity=facts["quantity"]
    )
    system = f"{DESK} Extract order, name, product and quantity as JSON."
    return system, f"{rng.choice(_GREETINGS)}{told}{rng.choice(_CLOSERS)}", json.dumps(facts), ""


# --- normalise --------------------------------------------------------------------------------------------------------

_MONTHS = tuple(
    [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ]
)


def _normalise(deck: Deck) -> tuple[str, str, str, str]:
    rng = deck.rng
    kind = rng.choice(("date", "price", "phone"))
    if kind == "date":
        iso = deck.draw(lambda: f"{rng.randrange(2018, 2031)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}")
        year, month, day = (int(part) for part in iso.split("-"))
        name = _MONTHS[month - 1]
        told = rng.choice(
            (f"{day} {name} {year}", f"{name} {day}, {year}", f"{day:02}.{month:02}.{year}", f"{day} {name[:3]} {year}")
        )
        answer = iso
    elif kind == "price":
        answer = deck.draw(lambda: f"{rng.randrange(1, 2_000)}.{rng.randrange(100):02} EUR")
        whole, cents = answer.removesuffix(" EUR").split(".")
        told = rng.choice(
            (f"{whole},{cents} euros", f"EUR {whole},{cents}", f"{whole} euros and {cents} cents", f"€{whole}.{cents}")
        )
    else:
        answer = deck.draw(lambda: f"+49{rng.randrange(10**8, 10**9)}")
        d = answer.removeprefix("+49")
        told = rng.choice(
            (
                f"0{d[:3]} {d[3:6]} {d[6:]}",
                f"0049 {d[:3]} {d[3:]}",
                f"(0{d[:3]}) {d[3:6]}-{d[6:]}",
                f"+49 {d[:2]} {d[2:5]} {d[5:]}",
            )
        )
    return f"{DESK} Write the {kind} in the standard form.", told, answer, ""


# --- total (hard) -----------------------------------------------------------------------------------------------------


def _times(quantity: int, price: int) -> str:
    tens, ones = price // 10 * 10, price % 10
    if not ones or not tens:
        return f"{quantity}*{price}={quantity * price}"
    return (
        f"{quantity}*{tens}={quantity * tens} {quantity}*{ones}={quantity * ones} {_plus(quantity * tens, quantity * ones)}"
    )


def _plus(a: int, b: int) -> str:
    """Schoolbook addition, ones first: each column's digits, its sum and the carry, then the result."""
    columns, carry, x, y = [], 0, a, b
    while x or y or carry:
        column = x % 10 + y % 10 + carry
        columns.append(f"{x % 10}+{y % 10}{'+1' if carry else ''}={column}")
        x, y, carry = x // 10, y // 10, column // 10
    return f"{a}+{b}: {' '.join(columns)} = {a + b}"


_ORDERS = (
    "I take {q1} x {n1} at {p1} euros and {q2} x {n2} at {p2} euros.",
    "My basket: {q1} x {n1} at {p1} euros, {q2} x {n2} at {p2} euros.",
    "Please add {q1} x {n1} at {p1} euros each and {q2} x {n2} at {p2} euros each.",
)
SHIPPING = 6
FREE_FROM = 150


def _total(deck: Deck) -> tuple[str, str, str, str]:
    rng = deck.rng

    def line() -> tuple[int, int]:
        quantity, _, price = deck.draw(lambda: f"{rng.randrange(2, 6)} x {rng.randrange(11, 100)}").partition(" x ")
        return int(quantity), int(price)

    (q1, p1), (q2, p2) = line(), line()
    a, b = q1 * p1, q2 * p2
    goods = a + b
    steps = [_times(q1, p1), _times(q2, p2), _plus(a, b)]
    if goods < FREE_FROM:
        steps.append(f"{goods}<{FREE_FROM} shipping {_plus(goods, SHIPPING)}")
        total = goods + SHIPPING
    else:
        steps.append(f"{goods}>={FREE_FROM} free")
        total = goods
    system = f"{DESK} Give the total of the order. Shipping is {SHIPPING} euros, free from {FREE_FROM} euros."
    told = rng.choice(_ORDERS).format(q1=q1, n1=deck.product(), p1=p1, q2=q2, n2=deck.product(), p2=p2)
    return system, f"{rng.choice(_GREETINGS)}{told}{rng.choice(_CLOSERS)}", f"{total} EUR", "; ".join(steps)


# --- policy (hard) ----------------------------------------------------------------------------------------------------

LATE = ("refusal", "manager review")
OPENED = ("store credit", "exchange", "half refund")
FILLER = (
    "Parcels leave the warehouse at {n} o'clock.",
    "The {city} store has {n} parking places.",
    "Call line {n} for the workshop.",
    "Gift wrapping costs {n} euros.",
    "The {city} store opens at {n} on Sundays.",
    "Staff in {city} wear badge {n}.",
    "Rental gear is cleaned every {n} days.",
    "Boxes for {city} carry the code {n}.",
)


def _compare(a: int, b: int) -> str:
    """Compare two numbers digit by digit from the left, up to the first digits that differ."""
    width = max(len(str(a)), len(str(b)))
    columns = []
    for x, y in zip(str(a).zfill(width), str(b).zfill(width), strict=True):
        columns.append(f"{x}{'>' if x > y else '<' if x < y else '='}{y}")
        if x != y:
            break
    return f"{a} to {b}: {' '.join(columns)};"


@dataclass(frozen=True, slots=True)
class Policy:
    """A returns policy: days per kind of product, `bonus` days for members, and what opened and late goods get."""

    days: Mapping[str, int]
    bonus: int
    opened: str
    late: str
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """The policy as the prompt holds it."""
        return (
            f"Members get {self.bonus} more days. Opened goods get {self.opened}. Late goods get {self.late}. "
            + " ".join(self.sentences)
        )


def draw_policy(deck: Deck, kinds: int, filler: int) -> Policy:
    """A policy for `kinds` kinds of products, with `filler` sentences that do not matter mixed in."""
    rng = deck.rng
    days = {noun: rng.randrange(10, 100) for noun in rng.sample(NOUNS, kinds)}
    # The number stands right behind the product's name: a small model can learn to look that up.
    sentences = [f"Return window {noun} {n} days." for noun, n in days.items()]
    sentences += [rng.choice(FILLER).format(n=rng.randrange(1, 100), city=deck.city()) for _ in range(filler)]
    rng.shuffle(sentences)
    return Policy(days, rng.choice((5, 10, 20)), rng.choice(OPENED), rng.choice(LATE), tuple(sentences))


@dataclass(frozen=True, slots=True)
class Case:
    """A return to decide: what was bought, by whom, how many days ago, and whether it was opened."""

    noun: str
    member: bool
    opened: bool
    age: int


def draw_case(rng: random.Random, policy: Policy) -> Case:
    """A case under `policy`, up to 25 days before or after its last day."""
    noun = rng.choice(tuple(policy.days))
    member, opened = rng.random() < 0.4, rng.random() < 0.5
    limit = policy.days[noun] + (policy.bonus if member else 0)
    age = max(1, limit + rng.choice((-1, 1)) * rng.randrange(1, 25) + (rng.random() < 0.5))
    return Case(noun, member, opened, age)


def decide(policy: Policy, case: Case) -> tuple[str, str]:
    """What `policy` gives in `case`, and the steps that lead to it."""
    days = policy.days[case.noun]
    limit = days + policy.bonus if case.member else days
    compared = _compare(case.age, limit)
    if case.age > limit:
        answer, verdict = policy.late, f"{compared} late"
    elif case.opened:
        answer, verdict = policy.opened, f"{compared} in time; opened"
    else:
        answer, verdict = "full refund", f"{compared} in time; sealed"
    who = f"member {days}+{policy.bonus}={limit}" if case.member else f"guest {days}"
    return answer, f"window {case.noun} {days} days; {who}; {verdict}"


def case_message(deck: Deck, case: Case) -> str:
    """`case` as a customer tells it, about a brand that `deck` draws."""
    return (
        f"{'I am a member. ' if case.member else ''}I bought a {deck.brand()} {case.noun} {case.age} days ago "
        f"and {'opened it' if case.opened else 'never opened it'}. What do I get?"
    )


def policy_example(deck: Deck, kinds: int, filler: int) -> tuple[str, str, str, str]:
    """A case to decide under a policy, as (system prompt, customer's message, right answer, steps).

    The policy covers `kinds` kinds of products and has `filler` sentences that do not matter mixed in.
    """
    policy = draw_policy(deck, kinds, filler)
    case = draw_case(deck.rng, policy)
    answer, steps = decide(policy, case)
    return f"{DESK} Decide the return by this policy. {policy.text}", case_message(deck, case), answer, steps


def _policy(deck: Deck) -> tuple[str, str, str, str]:
    return policy_example(deck, deck.rng.randrange(2, 6), deck.rng.choice((0, 0, 0, 2, 5)))


# --- summary (hard) ---------------------------------------------------------------------------------------------------


def _summary(deck: Deck) -> tuple[str, str, str, str]:
    rng = deck.rng
    product, quantity, city = deck.product(), rng.randrange(2, 10), deck.city()
    turns = [
        rng.choice(("I order {q} x {p} to {c}.", "Please send {q} x {p} to {c}.")).format(q=quantity, p=product, c=city)
    ]
    trace = [f"{quantity}"]
    for _ in range(rng.randrange(2, 5)):
        kind = rng.choice(("more", "fewer", "city", "set"))
        if kind == "more" or (kind == "fewer" and quantity < 3):
            n = rng.randrange(1, 5)
            turns.append(rng.choice((f"Add {n} more.", f"I need {n} extra.")))
            trace.append(f"{quantity}+{n}={quantity + n}")
            quantity += n
        elif kind == "fewer":
            n = rng.randrange(1, quantity)
            turns.append(rng.choice((f"Take {n} off.", f"Make it {n} fewer.")))
            trace.append(f"{quantity}-{n}={quantity - n}")
            quantity -= n
        elif kind == "city":
            city = deck.city()
            turns.append(rng.choice((f"Send it to {city} instead.", f"My new address is in {city}.")))
            trace.append(city)
        else:
            quantity = rng.randrange(2, 10)
            turns.append(rng.choice((f"No, make it {quantity} in all.", f"Change that to {quantity} in all.")))
            trace.append(f"={quantity}")
    paid = rng.random() < 0.5
    turns.append("I have paid." if paid else "I will pay later.")
    dialogue = "\n".join(f"Customer: {turn}\nAgent: {rng.choice(('Done.', 'Noted.', 'Sure.'))}" for turn in turns)
    answer = f"{quantity} x {product} to {city}, {'paid' if paid else 'unpaid'}"
    return f"{DESK} Summarise how the order stands at the end.", dialogue, answer, "; ".join(trace)


_FAMILIES: dict[str, tuple[Difficulty, Callable[[Deck], tuple[str, str, str, str]], int]] = {
    "intent": ("easy", _intent, 8),
    "faq": ("easy", _faq, 24),
    "extract": ("easy", _extract, 64),
    "normalise": ("easy", _normalise, 24),
    "total": ("hard", _total, 240),
    "policy": ("hard", _policy, 96),
    "summary": ("hard", _summary, 96),
}


def families(difficulty: Difficulty | None = None) -> tuple[str, ...]:
    """Names of the task families, all or those of one difficulty."""
    return tuple(name for name, (level, _, _) in _FAMILIES.items() if difficulty in (None, level))


def examples(split: Split, family: str, n: int, seed: int = 0) -> Iterator[Example]:
    """`n` examples of `family`, the same for the same arguments.

    Raises `InvalidValue` for an unknown split or family and for `n` below 0.
    """
    if split not in _SPLITS:
        raise InvalidValue(f"split {split!r} is unknown; use one of {', '.join(_SPLITS)}")
    if family not in _FAMILIES:
        raise InvalidValue(f"family {family!r} is unknown; use one of {', '.join(_FAMILIES)}")
    if n < 0:
        raise InvalidValue(f"n is {n}; ask for 0 examples or more")
    return _examples(split, family, n, seed)


def _examples(split: Split, family: str, n: int, seed: int) -> Iterator[Example]:
    difficulty, make, max_tokens = _FAMILIES[family]
    for i in range(n):
        deck = Deck(split, random.Random(f"{split}/{family}/{seed}/{i}"))
        system, told, answer, steps = make(deck)
        yield Example(
            f"{family}-{split}-{seed}-{i}",
            family,
            difficulty,
            (Message("system", system), Message("user", told)),
            answer,
            steps,
            max_tokens,
        )


def grade(example: Example, text: str) -> bool:
    """Whether `text` is the right answer. Text up to `</think>` does not count, nor do blanks at the ends.

    Family "extract" answers in JSON, which is compared by its values.
    """
    answer = text.rpartition("</think>")[2].strip()
    if example.family != "extract":
        return answer == example.answer
    try:
        return bool(json.loads(answer) == json.loads(example.answer))
    except json.JSONDecodeError:
        return False
