"""The desk's tasks with an instruction on how to answer: how long, and in which form.

The instruction stands at the end of the last message, behind everything that prompts share. Its few wordings are the same in
all splits, as a service's own would be. Six families can be asked for in a style; "extract" cannot, because JSON is what it
asks for already.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from labkit.lab.tasks import FAQ, FREE_FROM, INTENTS, LATE, OPENED, SHIPPING, Example
from labkit.request import InvalidValue, Message

Verbosity = Literal["brief", "normal", "detailed"]
Form = Literal["text", "json", "thought_json", "steps_first", "answer_first"]

STYLED_FAMILIES = ("intent", "faq", "normalise", "total", "policy", "summary")
FORMS_WITH_STEPS: tuple[Form, ...] = ("thought_json", "steps_first", "answer_first")
BRIEF_WORDS = 6  # the longest bare fact: "cards, bank transfer and gift cards"
DETAILED_WORDS = 10

_MANNERS = ("Answer", "Reply")
_BRIEF = ("briefly", "in short")
_DETAILED = ("in detail", "at length")
_AT_MOST = ("in at most {n} words",)
_FORMS: dict[Form, tuple[str, ...]] = {
    "json": ('as JSON: {"answer"}',),
    "thought_json": ('as JSON after thinking: {"answer"}',),
    "steps_first": ('as JSON: {"steps", "answer"}',),
    "answer_first": ('as JSON: {"answer", "steps"}',),
}

# What the desk's standard answers say, without their sentences, in the order of the tasks' own list.
_FACTS = (
    "9 to 18, Monday to Saturday",
    "3 working days",
    "12 euros",
    "30 days",
    "cards, bank transfer and gift cards",
    "5 percent",
    "45 euros",
    "25 euros",
    "4 years",
    "14 countries",
    "20 euros a day",
    "5 working days",
)
_FACT_OF = {sentence: fact for (sentence, _), fact in zip(FAQ, _FACTS, strict=True)}
_OUTCOMES = ("full refund", *OPENED, *LATE)
_VALUES = {
    "intent": rf"\b({'|'.join(INTENTS)})\b",
    "faq": rf"\b({'|'.join(_FACTS)})\b",
    "normalise": r"(\d{4}-\d\d-\d\d|\d+\.\d\d EUR|\+49\d+)(?!\d)",
    "total": r"\b(\d+) EUR\b",
    "policy": rf"\b({'|'.join(_OUTCOMES)})\b",
    "summary": r"\b(\d+) (?:x ([A-Z]\w+ \w+) )?to ([A-Z]\w+), (paid|unpaid)\b",
}
_STANDARD = {
    "date": "year, month and day",
    "price": "euros with two decimals",
    "phone": "all digits behind the country code",
}


@dataclass(frozen=True, slots=True)
class Styled(Example):
    """An example that asks for a style. `answer` is the reference text in that style.

    `plain` is the task without the style. `max_words` is 0 where no number of words is asked for.
    """

    plain: Example | None = None
    verbosity: Verbosity = "normal"
    form: Form = "text"
    max_words: int = 0


def styled(
    example: Example,
    verbosity: Verbosity = "normal",
    form: Form = "text",
    *,
    max_words: int = 0,
) -> Styled:
    """`example` with an instruction on how to answer it, and with the reference text in that style.

    Verbosity "brief" asks for the bare fact, "detailed" for two or three sentences with the fact in the last one, "normal"
    for nothing: the prompt stays as it is. `max_words` asks for that many words at most. Forms are "text"; "json", which is
    `{"answer": …}` at once; "thought_json", the same after the thinking; "steps_first" and "answer_first", where the steps
    stand in the JSON in place of the thinking. Families without steps have only the first two.

    Raises `InvalidValue` for a family that has no styles, an unknown style, and for more than one wish at a time.
    """
    _check(example, verbosity, form, max_words)
    rng = random.Random(f"style/{example.id}/{verbosity}/{form}/{max_words}")
    *before, last = example.messages
    wish = _wish(rng, verbosity, form, max_words)
    messages = (*before, Message(last.role, f"{last.content} {wish}")) if wish else example.messages
    answer, steps = _reference(example, verbosity, form, max_words)
    return Styled(
        id=f"{example.id}-{f'words{max_words}' if max_words else verbosity}-{form}",
        family=example.family,
        difficulty=example.difficulty,
        messages=messages,
        answer=answer,
        steps=steps,
        max_tokens=example.max_tokens + 96,
        plain=example,
        verbosity=verbosity,
        form=form,
        max_words=max_words,
    )


def graded(example: Example, text: str) -> bool:
    """Whether `text` gives the right answer in whatever style: the last value of the family's kind that it names is right.

    Text up to `</think>` does not count. In JSON, only the value of "answer" counts; it may have been cut off behind it.
    `example` is a styled or a plain one of `STYLED_FAMILIES`; raises `InvalidValue` for others.
    """
    plain = example.plain if isinstance(example, Styled) and example.plain else example
    if plain.family not in STYLED_FAMILIES:
        raise InvalidValue(f"family {plain.family!r} has no styles; use `grade`, or one of {', '.join(STYLED_FAMILIES)}")
    said = _spoken(text)
    if said.startswith("{"):
        answer = re.search(r'"answer": ?"((?:[^"\\]|\\.)*)"', said)
        said = answer[1] if answer else ""
    found = re.findall(_VALUES[plain.family], said)
    wanted = re.findall(_VALUES[plain.family], plain.answer)[-1]
    if not found:
        return False
    if plain.family == "summary":  # an answer may leave the product out, but may not name another one
        quantity, product, city, paid = found[-1]
        return bool((quantity, product or wanted[1], city, paid) == wanted)
    return bool(found[-1] == wanted)


def obeys(example: Styled, text: str) -> bool:
    """Whether `text` has the style that `example` asks for, right or wrong.

    "brief" allows `BRIEF_WORDS` words, "detailed" takes `DETAILED_WORDS` or more, "normal" is any text that is no JSON. JSON
    has exactly the keys asked for, in their order, and no thinking before it unless the form is "thought_json".
    """
    said = _spoken(text)
    if example.form != "text":
        thought = "</think>" in text
        keys = {"steps_first": ["steps", "answer"], "answer_first": ["answer", "steps"]}.get(example.form, ["answer"])
        return _keys(said) == keys and thought == (example.form == "thought_json")
    words = len(said.split())
    if said.startswith("{") or not words:
        return False
    if example.max_words:
        return words <= example.max_words
    return {"brief": words <= BRIEF_WORDS, "normal": True, "detailed": words >= DETAILED_WORDS}[example.verbosity]


def sentences(example: Example) -> tuple[str, ...]:
    """What a detailed answer says, sentence by sentence; the last one holds the answer."""
    told = example.messages[-1].content
    match example.family:
        case "intent":
            product = re.search(r"the ([A-Z]\w+ \w+)\.", told)
            about = f"You wrote about the {product[1]}." if product else "You wrote to our desk."
            return about, "I have read the message and what it asks for.", f"The intent of it is {example.answer}."
        case "faq":
            return (
                "Thank you for the question, I have looked it up for you.",
                "This is what we tell all customers.",
                example.answer,
            )
        case "normalise":
            kind = next(k for k in _STANDARD if f"the {k} " in example.messages[0].content)
            return (
                f'You wrote "{told}".',
                f"The standard form of a {kind} is {_STANDARD[kind]}.",
                f"In this form it is {example.answer}.",
            )
        case "total":
            (q1, n1), (q2, n2) = re.findall(r"(\d+) x ([A-Z]\w+ \w+)", told)
            goods = int(re.findall(r"(\d+)(?:<|>=)", example.steps)[-1])
            shipping = f"costs {SHIPPING} euros" if goods < FREE_FROM else "is free"
            return (
                f"You take {q1} x {n1} and {q2} x {n2}.",
                f"The goods are {goods} euros, so shipping {shipping}.",
                f"In total that makes {example.answer}.",
            )
        case "policy":
            window = re.search(r"window (\w+)", example.steps)
            ages = re.search(r"(\d+) to (\d+):", example.steps)
            assert window, "every policy case names its window"
            assert ages, "every policy case compares two numbers"
            late = example.steps.endswith("late")
            return (
                f"You return the {window[1]} after {ages[1]} days.",
                f"The window is {ages[2]} days, so this is {'late' if late else 'in time'}.",
                f"By our policy you get this: {example.answer}.",
            )
        case "summary":
            _, product, city, paid = re.findall(_VALUES["summary"], example.answer)[0]
            return (
                f"You ordered the {product}.",
                f"It goes to {city} and it is {paid}.",
                f"The order now stands at {example.answer}.",
            )
    raise InvalidValue(f"family {example.family!r} has no styles; use one of {', '.join(STYLED_FAMILIES)}")


def fact(example: Example) -> str:
    """The bare fact of a plain example's answer, as a brief answer gives it."""
    if example.family == "faq":
        return _FACT_OF[example.answer]
    if example.family == "summary":
        quantity, _, city, paid = re.findall(_VALUES["summary"], example.answer)[0]
        return f"{quantity} to {city}, {paid}"
    return example.answer


def _check(example: Example, verbosity: Verbosity, form: Form, max_words: int) -> None:
    if example.family not in STYLED_FAMILIES:
        raise InvalidValue(f"family {example.family!r} has no styles; use one of {', '.join(STYLED_FAMILIES)}")
    for name, value, kind in (("verbosity", verbosity, Verbosity), ("form", form, Form)):
        if value not in get_args(kind):
            raise InvalidValue(f"{name} {value!r} is unknown; use one of {', '.join(get_args(kind))}")
    if max_words < 0:
        raise InvalidValue(f"max_words is {max_words}; ask for 1 word or more, or leave it out")
    if (verbosity != "normal") + (form != "text") + (max_words > 0) > 1:
        raise InvalidValue(f"verbosity {verbosity!r}, form {form!r} and {max_words} words: ask for one of them at a time")
    if form in FORMS_WITH_STEPS and not example.steps:
        raise InvalidValue(f"{example.id} of family {example.family!r} has no steps to think of; use form 'text' or 'json'")


def _wish(rng: random.Random, verbosity: Verbosity, form: Form, max_words: int) -> str:
    manners: tuple[str, ...]
    if max_words:
        manners = _AT_MOST
    elif form != "text":
        manners = _FORMS[form]
    elif verbosity != "normal":
        manners = _BRIEF if verbosity == "brief" else _DETAILED
    else:
        return ""
    return f"{rng.choice(_MANNERS)} {rng.choice(manners).replace('{n}', str(max_words))}."


def _reference(example: Example, verbosity: Verbosity, form: Form, max_words: int) -> tuple[str, str]:
    """The reference answer, and the steps that are thought before it."""
    match form:
        case "json":
            return json.dumps({"answer": example.answer}), ""
        case "thought_json":
            return json.dumps({"answer": example.answer}), example.steps
        case "steps_first":
            return json.dumps({"steps": example.steps, "answer": example.answer}), ""
        case "answer_first":
            return json.dumps({"answer": example.answer, "steps": example.steps}), ""
    if max_words:
        told = sentences(example)
        longer = [fact(example), example.answer, *(" ".join(told[i:]) for i in (2, 1, 0))]
        fitting = [text for text in longer if len(text.split()) <= max_words]
        return max(fitting, key=lambda text: len(text.split()), default=longer[0]), example.steps
    answers = {"brief": fact(example), "normal": example.answer, "detailed": " ".join(sentences(example))}
    return answers[verbosity], example.steps


def _spoken(text: str) -> str:
    return text.rpartition("</think>")[2].strip()


def _keys(text: str) -> list[str] | None:
    try:
        found: Any = json.loads(text)
    except json.JSONDecodeError:
        return None
    return list(found) if isinstance(found, dict) else None
