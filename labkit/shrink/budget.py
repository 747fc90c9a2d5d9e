"""The cheapest mix of shrinkers that brings a prompt to a length: what costs no quality first, then what costs least.

Every option has a loss: the share of answers that turned wrong when it was measured alone (0 for a lossless one). Losses of
several options are added. That is the most that they can cost together: an answer that is wrong after all of them was turned
by one of them, and P(A or B) ≤ P(A) + P(B) (Boole's inequality), as far as an option does to a shortened prompt what it does
to a whole one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, field, replace
from typing import Any

from labkit.request import InvalidRequest, InvalidValue, Message, Request
from labkit.shrink.count import lab_tokens
from labkit.shrink.protect import FACTS, InstructionMissing, Protect
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import Shrunk

MOST = 5_000
"""Orders that a search may try: six shrinkers of one strength each have 1,957, three of four strengths 865."""


class OverBudget(InvalidRequest):
    """No mix of the shrinkers brings the prompt to the budget: it takes `needed` tokens, `protected` of them protected."""

    def __init__(self, message: str, needed: int, protected: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.protected = protected


@dataclass(frozen=True, slots=True)
class Option:
    """A shrinker, and the share of answers that it was measured to turn wrong (`loss`, 0 to 1).

    `name` stands in explanations; by default it is the shrinker with those settings that are not its defaults. Options of
    one `kind` are one shrinker at several strengths, of which at most one is used; by default the kind is its class.
    """

    shrinker: Shrinker
    loss: float
    name: str = ""
    kind: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.shrinker, Shrinker):
            raise InvalidValue(f"an option is a shrinker with its loss; {self.shrinker!r:.80} is no shrinker")
        if not (math.isfinite(self.loss) and 0 <= self.loss <= 1):
            raise InvalidValue(f"loss is {self.loss}; give the share of answers that turn wrong, from 0 to 1")
        object.__setattr__(self, "name", self.name or _told(self.shrinker))
        object.__setattr__(self, "kind", self.kind or type(self.shrinker).__name__)


@dataclass(frozen=True, slots=True)
class Mix:
    """A prompt brought to `tokens` by the options `used`, in that order; `loss` is the most that they cost together.

    `unused` are the other options, each with the reason.
    """

    shrunk: Shrunk
    tokens: int
    loss: float
    used: tuple[Option, ...]
    unused: tuple[tuple[Option, str], ...]

    def explain(self, limit: int = 60) -> str:
        """What was removed, from where and why, what it may cost, and what was not used; `limit` as in `Shrunk.explain`."""
        chosen = ", then ".join(f"{option.name} (loss {option.loss:g})" for option in self.used) or "nothing"
        lines = [f"{self.tokens} tokens by {chosen}: at most {self.loss:g} of the answers lost", self.shrunk.explain(limit)]
        lines += [f"not used: {option.name} (loss {option.loss:g}): {why}" for option, why in self.unused]
        return "\n".join(lines)


@dataclass(frozen=True)
class Budget(Shrinker):
    """Brings the messages' texts to at most `tokens` tokens (by `count`) with the least loss; leaves shorter prompts alone.

    `shrinkers` are `Option`s with their measured losses, or bare shrinkers, which are taken for lossless. The search is
    exact over all orders of all mixes. Of mixes with the same loss it takes the one that leaves the fewest tokens, so that
    lossless options are used wherever a lossy one is; of those the one with fewer steps, then the one that begins with what
    loses least. `protect` is only what an error counts as protected: each shrinker keeps what its own `protect` says.

    A prompt that no mix brings there raises `OverBudget`, an `InvalidRequest` that says how many tokens are needed. Raises
    `InvalidValue` for a budget below 1, no shrinkers, more than 5,000 orders, and (when it is used) for a bare shrinker
    whose cuts cannot be undone.
    """

    tokens: int
    shrinkers: tuple[Shrinker | Option, ...]
    count: Callable[[str], int] = lab_tokens
    protect: Protect = FACTS
    _options: tuple[Option, ...] = field(init=False, repr=False, compare=False)
    _bare: frozenset[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise InvalidValue(f"a budget of {self.tokens} tokens leaves no question; give 1 or more")
        object.__setattr__(self, "shrinkers", tuple(self.shrinkers))
        given = [(one, False) if isinstance(one, Option) else (Option(one, 0.0), True) for one in self.shrinkers]
        given.sort(key=lambda pair: pair[0].loss)
        options = tuple(option for option, _ in given)
        if not options:
            raise InvalidValue("a budget without shrinkers cannot be met; give one or more")
        if (orders := _orders(options)) > MOST:
            raise InvalidValue(f"{len(options)} options can be used in {orders} orders; give fewer, with at most {MOST}")
        object.__setattr__(self, "_options", options)
        object.__setattr__(self, "_bare", frozenset(number for number, (_, bare) in enumerate(given) if bare))

    async def shrink(self, request: Request) -> Shrunk:
        """The prompt at its budget."""
        return (await self.mix(request)).shrunk

    async def mix(self, request: Request) -> Mix:
        """The mix for this prompt, and what it may cost. Nothing is sent to the model that will answer."""
        search = _Search(self, request)
        best = await search.best()
        if best is None:
            protected = sum(self.count(m.content[a:b]) for m in request.messages for a, b in self.protect.spans(m.content))
            raise OverBudget(
                f"the budget is {self.tokens} tokens, and these shrinkers bring the prompt to {search.least} at least, of "
                f"which {protected} are protected; give it {search.least} or more, or shrinkers that remove more",
                search.least,
                protected,
            )
        used = tuple(self._options[number] for number in best.used)
        unused = tuple(
            (option, search.why_not(number, used)) for number, option in enumerate(self._options) if number not in best.used
        )
        return Mix(best.shrunk, best.tokens, best.loss, used, unused)


@dataclass(frozen=True, slots=True)
class _State:
    shrunk: Shrunk
    tokens: int
    loss: float
    used: tuple[int, ...]

    @property
    def rank(self) -> tuple[float, int, int, tuple[int, ...]]:
        return self.loss, self.tokens, len(self.used), self.used


class _Search:
    """The states of one prompt, visited in the order of their loss, so that the first ones that fit cost least."""

    def __init__(self, budget: Budget, request: Request) -> None:
        self.budget = budget
        self.request = request
        self.least = self._size(request.messages)
        self._shrunk: dict[tuple[int, tuple[Message, ...]], Shrunk | str] = {}

    async def best(self) -> _State | None:
        start = _State(Shrunk.of(self.request.messages), self.least, 0.0, ())
        if start.tokens <= self.budget.tokens:
            return start
        found: _State | None = None
        waiting = [(start.rank, start)]
        seen: set[tuple[frozenset[int], tuple[Message, ...]]] = set()
        while waiting:
            _, state = heapq.heappop(waiting)
            if found is not None and state.loss > found.loss:
                break
            if (key := (frozenset(state.used), state.shrunk.after)) in seen:
                continue
            seen.add(key)
            self.least = min(self.least, state.tokens)
            if state.tokens <= self.budget.tokens and (found is None or state.rank < found.rank):
                found = state
            for after in await self._after(state):
                heapq.heappush(waiting, (after.rank, after))
        return found

    def why_not(self, number: int, used: Sequence[Option]) -> str:
        """Why an option is in no part of the answer."""
        option = self.budget._options[number]
        twin = next((one for one in used if one.kind == option.kind), None)
        result = self._shrunk.get((number, self.request.messages))
        if twin is not None:
            return f"{twin.name} is used in its place"
        if isinstance(result, str):
            return f"it refused this prompt: {result}"
        return "it removes nothing here" if result is not None and not result.steps else "the budget is met without it"

    async def _after(self, state: _State) -> list[_State]:
        options = self.budget._options
        taken = {options[number].kind for number in state.used}
        found = []
        for number, option in enumerate(options):
            if option.kind in taken:
                continue
            shrunk = await self._by(number, state.shrunk.after)
            if isinstance(shrunk, str) or shrunk.after == shrunk.before:
                continue
            used = (*state.used, number)
            loss = math.fsum(options[one].loss for one in used)
            found.append(_State(state.shrunk.then(shrunk), self._size(shrunk.after), loss, used))
        return found

    async def _by(self, number: int, messages: tuple[Message, ...]) -> Shrunk | str:
        """What an option makes of `messages`; the reason as text where it refuses them."""
        if (number, messages) not in self._shrunk:
            option = self.budget._options[number]
            try:
                made: Shrunk | str = await option.shrinker.shrink(replace(self.request, messages=messages))
            except InstructionMissing:
                raise
            except InvalidRequest as error:
                made = str(error)
            if isinstance(made, Shrunk) and number in self.budget._bare and not made.lossless:
                raise InvalidValue(
                    f"{option.name:.80} removes text that cannot be restored; say what that was measured to cost, as in "
                    "Option(shrinker, loss=0.02)"
                )
            self._shrunk[number, messages] = made
        return self._shrunk[number, messages]

    def _size(self, messages: Sequence[Message]) -> int:
        return sum(self.budget.count(message.content) for message in messages)


def _told(shrinker: Shrinker) -> str:
    """A shrinker as it is written, without settings that have their default."""
    settings = []
    declared: dict[str, Field[Any]] = getattr(shrinker, "__dataclass_fields__", {})
    for each in declared.values():
        value = getattr(shrinker, each.name)
        if each.init and each.repr and value != _default(each):
            settings.append(f"{each.name}={value!r}")
    return f"{type(shrinker).__name__}({', '.join(settings)})"


def _default(setting: Field[Any]) -> Any:
    return setting.default if setting.default_factory is MISSING else setting.default_factory()


def _orders(options: Sequence[Option]) -> int:
    """In how many orders some of the options can be used, at most one of each kind: Σ k! · eₖ of the kinds' sizes."""
    kinds: dict[str, int] = {}
    for option in options:
        kinds[option.kind] = kinds.get(option.kind, 0) + 1
    polynomial = [1]
    for size in kinds.values():
        polynomial = [
            (polynomial[k] if k < len(polynomial) else 0) + (size * polynomial[k - 1] if k else 0)
            for k in range(len(polynomial) + 1)
        ]
    return sum(math.factorial(k) * ways for k, ways in enumerate(polynomial))
