"""Signals before an answer: from the request alone, how likely is the small model to get it right?

Everything in this room that estimates this returns a `Score`. A `Signal` makes one before any model is asked; a `Judge` (in
`judges`) makes one from the small model's answer. Only a calibrated score is a probability; a raw score merely ranks
requests. `CalibratedSignal` turns a raw score into a probability.

The signals that the lab offers are values: they check their settings when they are made, print them, and compare by them.
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

    `name` is that of the signal or judge. `cost` is in the currency of the books: what was paid beyond the judged answer
    (for more samples, say). `seconds` is how long the signal or judge took. `reason` is for people to read. `error` is set
    where there is no verdict because the signal or judge failed; the value is 0 then. Raises `InvalidValue` for a value
    outside 0 to 1 and for a cost that is no Decimal.
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
    """The text that signals read: the last message with the role "user", or the last message where there is none."""
    of_user = [message.content for message in request.messages if message.role == "user"]
    return of_user[-1] if of_user else request.messages[-1].content


@dataclass(frozen=True, slots=True)
class Rule:
    """Give `value` (0 to 1) to requests that meet every condition given here.

    `words` match whole words or phrases in any case, and one match is enough. `min_chars` and `max_chars` bound the length
    in characters of the text that `question` reads, inclusive. `features` are values of `Request.feature`, one of which the
    request must have. Raises `InvalidValue` for a rule without a condition, which would be a default, and for conditions
    that no request can meet.
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
        """All conditions, with `words` in lower case; equal for two rules with the same conditions."""
        return frozenset(word.casefold() for word in self.words), self.features, self.min_chars, self.max_chars


@dataclass(frozen=True)
class Rules:
    """The lowest value among the `rules` that match a request, `default` where none does; a `Signal`.

    It is the lowest, so that the order of the rules does not matter. Raises `InvalidValue` for two rules with the same
    conditions and different values, because the higher value could never be given.
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
    """0 for a user whose text asks for a human agent, 1 for all others; a `Signal`.

    With any threshold above 0, such a request is never sent to the small model. The signal finds phrases and does not
    understand them: "I do not want a human agent" scores 0 too, which costs money and does no harm.
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
    """The lowest score of several `signals`, with the cost and the seconds of all of them added up."""

    signals: tuple[Signal, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "signals", several(self.signals, None, "Lowest"))

    def __call__(self, request: Request) -> Score:
        """The score of one request."""
        return most_doubtful([signal(request) for signal in self.signals])


@dataclass(frozen=True)
class CalibratedSignal:
    """`signal` with its raw score turned into a probability: the share of requests with such a score that were right.

    A 0 stays 0, as in `CalibratedJudge`, because it may mean "never the small model" (`AsksForAgent`) or no verdict.
    """

    signal: Signal
    calibration: Calibration

    def __post_init__(self) -> None:
        check_function(self.signal, "CalibratedSignal needs a signal")
        check_calibration(self.calibration)

    def __call__(self, request: Request) -> Score:
        """The score of one request."""
        raw = self.signal(request)
        if raw.value == 0:
            return raw
        return replace(raw, value=self.calibration(raw.value), reason=raw.reason or f"raw score {raw.value:.3f}")


def most_doubtful(scores: list[Score]) -> Score:
    """The lowest of `scores`, with the cost and the seconds of all."""
    worst = min(scores, key=lambda score: score.value)
    cost, seconds = sum((s.cost for s in scores), Decimal(0)), sum(s.seconds for s in scores)
    return replace(worst, cost=cost, seconds=seconds)


def scored(found: object, name: str) -> Score:
    """`found`, the result of the signal or judge called `name`, if it is a `Score`; else raises `InvalidValue`."""
    if not isinstance(found, Score):
        raise InvalidValue(f"{name} returned {found!r:.80}; it must return a Score, such as Score(0.9, {name!r})")
    return found


def name_of(function: object) -> str:
    """The name of a signal or judge: that of its function or its class."""
    return str(getattr(function, "__qualname__", type(function).__name__)).split(".")[0]


def plain(text: str) -> str:
    """`text` in lower case, with each run of blanks as one blank, ready to be searched with `phrases`."""
    return re.sub(r"\s+", " ", text).casefold()


def phrases(words: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds any of `words` as whole words in a `plain` text."""
    inside = "|".join(re.escape(plain(word.strip())) for word in sorted(words))
    return re.compile(rf"(?<!\w)(?:{inside})(?!\w)")


def check_calibration(given: object) -> None:
    """Raise `InvalidValue` unless `given` is a `Calibration`."""
    if not isinstance(given, Calibration):
        raise InvalidValue(f"{given!r:.80} is no Calibration; fit one with calibrate(raw, right)")
