"""What a semantic cache asks and finds: a question, the entries near it, which may be given, and what the audit shows."""

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
    """A question as the cache sees it: who may see its answer, everything around it, its words, and the answer's key."""

    scope: Scope
    context: str
    text: str
    key: str

    @property
    def partition(self) -> tuple[Scope, str]:
        """Where it is searched, and nowhere else."""
        return self.scope, self.context


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer near a question: the words it answered, its own, the score, what sets the questions apart, the decision."""

    found: Lookup = field(repr=False)
    text: str
    answer: str
    score: float
    differences: tuple[Difference, ...]
    decision: Decision

    @property
    def accepted(self) -> bool:
        """Whether its answer may be given."""
        return self.decision.accept and not self.differences


@dataclass(frozen=True, slots=True)
class Match:
    """What a look-up came to: the candidates that were live, nearest first, and the one accepted, if any."""

    asked: Asked
    candidates: tuple[Candidate, ...] = ()
    hit: Candidate | None = None

    @property
    def nearest(self) -> Candidate | None:
        """The candidate to learn from where nothing was given: the hit, else the nearest that nothing sets apart."""
        return self.hit or next((c for c in self.candidates if not c.differences), None)

    def explain(self) -> str:
        """Why there was a hit or none, candidate by candidate, in words."""
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
    """What the verified hits say about the others, since the cache was made.

    `given` hits were served unchecked; `checked` would have been, and were asked anew: `wrong` of those answers differed.
    """

    given: int
    checked: int
    wrong: int
    confidence: float = 0.95

    @property
    def at_most(self) -> float:
        """With `confidence`, the share of wrong hits is at most this, at every moment at once."""
        return upper_bound(self.wrong, self.checked, self.confidence)

    @property
    def at_least(self) -> float:
        """With `confidence`, the share of wrong hits is at least this."""
        return lower_bound(self.wrong, self.checked, self.confidence)

    def __str__(self) -> str:
        return (
            f"{self.given} hits given, {self.checked} more asked anew, {self.wrong} of those wrong: "
            f"at most {self.at_most:.1%} of hits are wrong ({self.confidence:.0%} confidence, however often one looks)"
        )


def asked_of(request: Request, policy: CachePolicy | None = None) -> Asked | None:
    """What `request` asks and in which context; None where its last message is not a user's, with words in it."""
    policy = policy or CachePolicy()
    last = request.messages[-1]
    if last.role != "user" or not last.content.strip():
        return None
    around = replace(request, messages=(*request.messages[:-1], replace(last, content="")))
    return Asked(policy.scope(request), policy.fingerprint(around), last.content, policy.fingerprint(request))
