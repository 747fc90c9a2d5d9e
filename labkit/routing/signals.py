"""Signals before an answer: from the request alone, how likely is the small model to get it right?

A `Score` is the common coin of the room. A `Signal` makes one before anything is asked, a `Judge` (in `judges`) makes one
from the small model's answer. Only a calibrated score is a probability; a raw one merely ranks. `calibrated` turns the
second into the first.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import combinations

from labkit.request import Completion, InvalidRequest, Request
from labkit.routing.calibration import Calibration


@dataclass(frozen=True, slots=True)
class Score:
    """How likely the small model is right (`value`, 0 to 1), who says so, and what it took to know.

    `cost` is in the currency of the books and holds what was paid for beyond the answer that is judged (more samples,
    say), `seconds` is how long the signal took, `reason` is for people.
    """

    value: float
    name: str
    cost: Decimal = Decimal(0)
    seconds: float = 0.0
    reason: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1:
            raise InvalidRequest(f"{self.name} gives a score of {self.value}; a score is a probability, from 0 to 1")


Signal = Callable[[Request], Score]
Judge = Callable[[Request, Completion], Score | Awaitable[Score]]


def asked(request: Request) -> str:
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
            given = getattr(self, name)
            object.__setattr__(self, name, frozenset({given} if isinstance(given, str) else given))
        if not 0 <= self.value <= 1:
            raise InvalidRequest(f"a rule gives {self.value}; a score is from 0 to 1")
        if any(not word.strip() for word in self.words):
            raise InvalidRequest("a rule has an empty word, which is found nowhere; leave it out")
        if self.min_chars < 0 or (self.max_chars is not None and self.max_chars < self.min_chars):
            raise InvalidRequest(
                f"no text is {self.min_chars} to {self.max_chars} characters long; swap the two or leave one"
            )
        if not self._conditions[0] and not self._conditions[1] and self.min_chars == 0 and self.max_chars is None:
            raise InvalidRequest("a rule without a condition matches everything; give that value as the default instead")

    @property
    def _conditions(self) -> tuple[frozenset[str], frozenset[str], int, int | None]:
        return frozenset(word.casefold() for word in self.words), self.features, self.min_chars, self.max_chars


def rules(*given: Rule, default: float = 1.0, name: str = "rules") -> Signal:
    """The lowest value among the rules that match a request, `default` where none does.

    The lowest, so that the order of rules never matters. Raises `InvalidRequest` for two rules with the same conditions and
    different values: one of them could never have its way.
    """
    for one, other in combinations(given, 2):
        if one._conditions == other._conditions and one.value != other.value:
            raise InvalidRequest(f"two rules contradict each other: the same conditions give {one.value} and {other.value}")
    if not 0 <= default <= 1:
        raise InvalidRequest(f"the default is {default}; a score is from 0 to 1")
    patterns = [(rule, phrases(rule.words) if rule.words else None) for rule in given]

    def signal(request: Request) -> Score:
        started = time.perf_counter()
        text = asked(request)
        lowest, reason = None, ""
        for number, (rule, pattern) in enumerate(patterns, 1):
            fits = (
                (pattern is None or pattern.search(plain(text)))
                and (not rule.features or request.feature in rule.features)
                and rule.min_chars <= len(text)
                and (rule.max_chars is None or len(text) <= rule.max_chars)
            )
            if fits and (lowest is None or rule.value < lowest):
                lowest, reason = rule.value, f"rule {number}"
        value = default if lowest is None else lowest
        return Score(value, name, seconds=time.perf_counter() - started, reason=reason or "no rule matches")

    return signal


_AGENT = ("human agent", "real person", "live agent", "speak to a human", "talk to a human", "agent please", "real human")


def asks_for_agent(words: tuple[str, ...] = _AGENT) -> Signal:
    """0 for a user who asks in words for somebody better, 1 for all others: who asks is never sent to the small model.

    It reads phrases, not intentions: "I need no human agent" goes up too, which costs money and harms nobody.
    """
    return rules(Rule(0.0, frozenset(words)), name="asks-for-agent")


def lowest(*signals: Signal) -> Signal:
    """The most doubtful of several signals; what all of them cost and took is added up."""
    if not signals:
        raise InvalidRequest("lowest needs at least one signal")

    def signal(request: Request) -> Score:
        return most_doubtful([signal(request) for signal in signals])

    return signal


def most_doubtful(scores: list[Score]) -> Score:
    """The lowest of `scores`, with the cost and the seconds of all."""
    worst = min(scores, key=lambda score: score.value)
    cost, seconds = sum((s.cost for s in scores), Decimal(0)), sum(s.seconds for s in scores)
    return replace(worst, cost=cost, seconds=seconds)


def calibrated(signal: Signal, calibration: Calibration) -> Signal:
    """`signal` with its raw score turned into the share of such requests that were right."""

    def better(request: Request) -> Score:
        raw = signal(request)
        return replace(raw, value=calibration(raw.value), reason=raw.reason or f"raw score {raw.value:.3f}")

    return better


def plain(text: str) -> str:
    """`text` as phrases are looked for in it: any case, runs of blanks as one blank."""
    return re.sub(r"\s+", " ", text).casefold()


def phrases(words: frozenset[str]) -> re.Pattern[str]:
    """A pattern that finds any of `words` as whole words in a `plain` text."""
    inside = "|".join(re.escape(plain(word.strip())) for word in sorted(words))
    return re.compile(rf"(?<!\w)(?:{inside})(?!\w)")
