"""Signals before an answer: from the request alone, how likely is the small model to get it right?

A `Score` is the common coin of the room. A `Signal` makes one before anything is asked, a `Judge` (in `judges`) makes one
from the small model's answer. Only a calibrated score is a probability; a raw one merely ranks. `CalibratedSignal` turns the
second into the first.

The signals that the lab offers are values: they are checked when they are made, print themselves and compare.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import combinations

from labkit.request import Completion, InvalidValue, Request
from labkit.routing.calibration import Calibration
from labkit.routing.checks import check_function, is_share, several, texts


@dataclass(frozen=True, slots=True)
class Score:
    """How likely the small model is right (`value`, 0 to 1), who says so, and what it took to know.

    `cost` is in the currency of the books and holds what was paid for beyond the answer that is judged (more samples,
    say), `seconds` is how long the signal took, `reason` is for people. `error` is set where there is no verdict because
    the signal or the judge failed; the value is 0 then.
    """

    value: float
    name: str
    cost: Decimal = Decimal(0)
    seconds: float = 0.0
    reason: str = ""
    error: Exception | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not is_share(self.value):
            raise InvalidValue(f"{self.name} gives a score of {self.value!r:.80}; a score is a probability, from 0 to 1")
        if not isinstance(self.cost, Decimal):
            raise InvalidValue(f"{self.name} gives a cost of {self.cost!r:.80}; money is a Decimal")
        object.__setattr__(self, "value", float(self.value))


Signal = Callable[[Request], Score]
Judge = Callable[[Request, Completion], Score | Awaitable[Score]]


def question(request: Request) -> str:
    """What signals read of a request: the last message of the user, or the last message where no user speaks."""
    of_user = [message.content for message in request.messages if message.role == "user"]
    return of_user[-1] if of_user else request.messages[-1].content


@dataclass(frozen=True, slots=True)
class Rule:
    """Give `value` to requests that meet every condition given here; a rule without a condition would be a default.

    `words` match whole words or phrases in any case, one of them is enough; `min_chars` and `max_chars` bound the length
    of what is asked, inclusive; `features` are values of `Request.feature`.
    """

    value: float
    words: frozenset[str] = frozenset()
    min_chars: int = 0
    max_chars: int | None = None
    features: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in ("words", "features"):
            object.__setattr__(self, name, frozenset(texts(getattr(self, name), f"a rule's {name}")))
        if not is_share(self.value):
            raise InvalidValue(f"a rule gives {self.value!r:.80}; a score is from 0 to 1")
        if any(not word.strip() for word in self.words):
            raise InvalidValue("a rule has an empty word, which is found nowhere; leave it out")
        if self.min_chars < 0 or (self.max_chars is not None and self.max_chars < self.min_chars):
            raise InvalidValue(f"no text is {self.min_chars} to {self.max_chars} characters long; swap the two or leave one")
        if not self.words and not self.features and self.min_chars == 0 and self.max_chars is None:
            raise InvalidValue("a rule without a condition matches everything; give that value as the default instead")

    @property
    def conditions(self) -> tuple[frozenset[str], frozenset[str], int, int | None]:
        """What a request must meet; equal for rules that hold for the same requests."""
        return frozenset(word.casefold() for word in self.words), self.features, self.min_chars, self.max_chars


@dataclass(frozen=True)
class Rules:
    """The lowest value among the `rules` that match a request, `default` where none does; a `Signal`.

    The lowest, so that the order of rules never matters. Raises `InvalidValue` for two rules with the same conditions and
    different values: one of them could never have its way.
    """

    rules: tuple[Rule, ...]
    default: float = 1.0
    name: str = "rules"
    _patterns: tuple[re.Pattern[str] | None, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", several(self.rules, Rule, "Rules"))
        for one, other in combinations(self.rules, 2):
            if one.conditions == other.conditions and one.value != other.value:
                raise InvalidValue(
                    f"two rules contradict each other: the same conditions give {one.value} and {other.value}"
                )
        if not is_share(self.default):
            raise InvalidValue(f"the default is {self.default!r:.80}; a score is from 0 to 1")
        object.__setattr__(self, "_patterns", tuple(phrases(rule.words) if rule.words else None for rule in self.rules))

    def __call__(self, request: Request) -> Score:
        """The score of one request."""
        started = time.perf_counter()
        text = question(request)
        lowest, reason = None, ""
        for number, (rule, pattern) in enumerate(zip(self.rules, self._patterns, strict=True), 1):
            fits = (
                (pattern is None or pattern.search(plain(text)))
                and (not rule.features or request.feature in rule.features)
                and rule.min_chars <= len(text)
                and (rule.max_chars is None or len(text) <= rule.max_chars)
            )
            if fits and (lowest is None or rule.value < lowest):
                lowest, reason = rule.value, f"rule {number}"
        value = self.default if lowest is None else lowest
        return Score(value, self.name, seconds=time.perf_counter() - started, reason=reason or "no rule matches")


_AGENT = ("human agent", "real person", "live agent", "speak to a human", "talk to a human", "agent please", "real human")


@dataclass(frozen=True)
class AsksForAgent:
    """0 for a user who asks in words for somebody better, 1 for all others; a `Signal`.

    So who asks is never sent to the small model. It reads phrases, not intentions: "I need no human agent" goes up too,
    which costs money and harms nobody.
    """

    words: tuple[str, ...] = _AGENT
    _rules: Rules = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", texts(self.words, "the words of AsksForAgent"))
        object.__setattr__(self, "_rules", Rules((Rule(0.0, frozenset(self.words)),), name="asks-for-agent"))

    def __call__(self, request: Request) -> Score:
        """The score of one request."""
        return self._rules(request)


@dataclass(frozen=True)
class Lowest:
    """The most doubtful of several `signals`; what all of them cost and took is added up."""

    signals: tuple[Signal, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "signals", several(self.signals, None, "Lowest"))

    def __call__(self, request: Request) -> Score:
        """The score of one request."""
        return most_doubtful([signal(request) for signal in self.signals])


@dataclass(frozen=True)
class CalibratedSignal:
    """`signal` with its raw score turned into the share of such requests that were right."""

    signal: Signal
    calibration: Calibration

    def __post_init__(self) -> None:
        check_function(self.signal, "CalibratedSignal needs a signal")
        check_calibration(self.calibration)

    def __call__(self, request: Request) -> Score:
        """The score of one request."""
        raw = self.signal(request)
        return replace(raw, value=self.calibration(raw.value), reason=raw.reason or f"raw score {raw.value:.3f}")


def most_doubtful(scores: list[Score]) -> Score:
    """The lowest of `scores`, with the cost and the seconds of all."""
    worst = min(scores, key=lambda score: score.value)
    cost, seconds = sum((s.cost for s in scores), Decimal(0)), sum(s.seconds for s in scores)
    return replace(worst, cost=cost, seconds=seconds)


def scored(found: object, name: str) -> Score:
    """`found`, what a signal or judge returned, where it is a `Score`; raises `InvalidValue` where it is not."""
    if not isinstance(found, Score):
        raise InvalidValue(f"{name} returned {found!r:.80}; it must return a Score, such as Score(0.9, {name!r})")
    return found


def name_of(function: object) -> str:
    """What a signal or a judge is called."""
    return str(getattr(function, "__qualname__", type(function).__name__)).split(".")[0]


def plain(text: str) -> str:
    """`text` as phrases are looked for in it: any case, runs of blanks as one blank."""
    return re.sub(r"\s+", " ", text).casefold()


def phrases(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds any of `words` as whole words in a `plain` text."""
    inside = "|".join(re.escape(plain(word.strip())) for word in sorted(words))
    return re.compile(rf"(?<!\w)(?:{inside})(?!\w)")


def check_calibration(given: object) -> None:
    """Raise `InvalidValue` for what is no `Calibration`."""
    if not isinstance(given, Calibration):
        raise InvalidValue(f"{given!r:.80} is no Calibration; fit one with calibrate(raw, right)")
