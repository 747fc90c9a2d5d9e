"""The values of a semantic look-up: the question, the entries near it, the accepted one, and the audit of given hits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from labkit.caches.acceptance import Decision, lower_bound, upper_bound
from labkit.caches.contrast import Difference
from labkit.caches.entry import Lookup
from labkit.caches.policy import CachePolicy
from labkit.caches.rules import Scope
from labkit.request import Request


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as a semantic cache sees it.

    `scope`: who may see its answer. `context`: a fingerprint of the rest of the request. `text`: the words of the question.
    `key`: the key of its answer.
    """

    scope: Scope
    context: str
    text: str
    key: str

    @property
    def partition(self) -> tuple[Scope, str]:
        """The one partition in which the question is searched."""
        return self.scope, self.context


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored answer whose question is near the one that is asked.

    `text`: the stored question. `answer`: its answer. `score`: how alike the two questions are. `differences`: reasons why
    they deserve different answers. `decision`: what the acceptance says to the score.
    """

    found: Lookup = field(repr=False)
    text: str
    answer: str
    score: float
    differences: tuple[Difference, ...]
    decision: Decision

    @property
    def accepted(self) -> bool:
        """Whether this answer may be given."""
        return self.decision.accept and not self.differences


@dataclass(frozen=True, slots=True)
class Match:
    """The result of a semantic look-up: the valid candidates, nearest first, and the accepted one, if any."""

    asked: Asked
    candidates: tuple[Candidate, ...] = ()
    hit: Candidate | None = None

    @property
    def nearest(self) -> Candidate | None:
        """The candidate to learn from when the engine answered: the hit, else the nearest without a difference."""
        return self.hit or next((c for c in self.candidates if not c.differences), None)

    def explain(self) -> str:
        """Why there was a hit or none, in words, one line per candidate."""
        lines = [f"asked: “{self.asked.text}”"]
        for c in self.candidates:
            verdict = "given" if c is self.hit else "not given"
            against = "; ".join(map(str, c.differences)) or c.decision.why
            lines.append(f"{verdict}: “{c.text}” ({c.score:.3f}) → “{c.answer}” because {against}")
        if not self.candidates:
            lines.append("nothing stored in this scope and context is still good")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Audit:
    """What the verified hits say about all hits, since the cache was made.

    `given` hits were served unchecked. `checked` more hits were sent to the engine instead of being served, and in `wrong`
    of these the two answers differed.
    """

    given: int
    checked: int
    wrong: int
    confidence: float = 0.95

    @property
    def at_most(self) -> float:
        """With `confidence`, the share of wrong hits is at most this; valid at all times together."""
        return upper_bound(self.wrong, self.checked, self.confidence)

    @property
    def at_least(self) -> float:
        """With `confidence`, the share of wrong hits is at least this; valid at all times together."""
        return lower_bound(self.wrong, self.checked, self.confidence)

    def __str__(self) -> str:
        return (
            f"{self.given} hits given, {self.checked} more asked anew, {self.wrong} of those wrong: "
            f"at most {self.at_most:.1%} of hits are wrong ({self.confidence:.0%} confidence, however often one looks)"
        )


def asked_of(request: Request, policy: CachePolicy | None = None) -> Asked | None:
    """What `request` asks, and in which context; None if its last message is not a user's or holds no words."""
    policy = policy or CachePolicy()
    last = request.messages[-1]
    if last.role != "user" or not last.content.strip():
        return None
    around = replace(request, messages=(*request.messages[:-1], replace(last, content="")))
    return Asked(policy.scope(request), policy.fingerprint(around), last.content, policy.fingerprint(request))
