"""The rolling summary: older turns are replaced by what a model sums them up to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from labkit.request import Handler, InvalidValue, LabError, Message, Request, books_in, complete, is_whole, joined, metered
from labkit.shrink.conversation import Turn, turns, without
from labkit.shrink.cut import Cut
from labkit.shrink.lost import missing
from labkit.shrink.protect import FACTS, Protect
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import Shrunk
from labkit.shrink.summaries import Summary, SummaryStore

PURPOSE = "summary"
_QUESTION = (
    "Sum up our conversation so far for a colleague who will go on with it. Keep every number, name, date and promise, and "
    "what is wanted. Leave out greetings and whatever was taken back. Write the summary only."
)
_PLACE = "{summary}"


class SummaryFailed(LabError, RuntimeError):
    """The model's summary cannot stand for the turns: it is empty, cut off, too long, or has lost protected text."""


def purpose(feature: str) -> str:
    """The feature under which the summaries for requests of `feature` are booked, such as "chat/summary"."""
    return f"{feature}/{PURPOSE}" if feature else PURPOSE


@dataclass(frozen=True)
class RollingSummary(Shrinker):
    """Replace the older turns of a conversation by a summary that `model` writes; at least the last `keep` turns stay.

    The boundary between summed-up and kept turns moves by `every` turns at a time. Between two moves the start of the
    prompt stays the same, and a prefix cache serves it; each move loses the cache behind the system's messages once.
    `every=1` rewrites the prompt's start at every turn, so a cache serves nothing behind the system's messages: there fewer
    tokens easily cost more money. A new summary is made from the last one and the turns since, not from all turns.

    The model is asked as the conversation went on: the same prompt up to the boundary, with the last summary in it, and then
    `question`. Where `model` is the model that answers, a prefix cache serves nearly all of that. The answer waits for a new
    summary. `stands` is what stands in the place of the summed-up turns: a user's message and the assistant's, one of them
    with "{summary}" in it. It is not in the system's message, because what users said must not gain the system's authority.
    System messages stay.

    Its tokens are booked in the books of the stack under a feature of their own: `purpose(request.feature)`, with the
    tenant, user and workflow of the request. `labkit.shrink.balance` tells from the ledger whether they pay.

    A summary must hold all protected texts of the turns that it replaces, word for word. A summary that adds up ("2, and 3
    more" is 5) cannot repeat each number, so name what must survive, as in `Protect(("TS-[0-9]+",))`; which facts are not in
    the summary is in the cuts' reasons whatever is protected. If a summary fails, or loses protected text, the request goes
    on with its turns, and the error is on `Done.faults`; it is not tried again before the boundary moves. A dry run with
    `shrink` asks the summary model too, and pays it.

    `summaries` keeps the summaries, so that places of a stack can share them; None makes a new store in each place, and for
    each call of `shrink`. Raises `InvalidValue` for settings that cannot work.
    """

    model: Handler
    every: int = 4
    keep: int = 2
    question: str = _QUESTION
    stands: tuple[str, str] = ("What was said so far?", "{summary}")
    max_tokens: int = 256
    protect: Protect = FACTS
    summaries: SummaryStore | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        metered(self.model)  # raises InvalidValue unless it is a handler
        for name in ("every", "keep", "max_tokens"):
            value = getattr(self, name)
            if not is_whole(value, 1):
                raise InvalidValue(f"{name} is {value!r:.80}; use a whole number, at least 1")
        if len(self.stands) != 2 or sum(each.count(_PLACE) for each in self.stands) != 1:
            raise InvalidValue(
                f"stands is {self.stands!r:.80}; give a user's and an assistant's message, with {_PLACE} once in one of them"
            )

    def over(self, inner: Handler) -> Handler:
        """`inner`, asked with older turns summed up."""
        store, beneath = self._store(), books_in(inner)
        placed = Shrinker.over(replace(self, summaries=store), inner)
        return lambda request: placed(replace(request, books=joined(request.books, beneath)))

    async def shrink(self, request: Request) -> Shrunk:
        """The conversation with its older turns summed up.

        Raises what the model raises, and `SummaryFailed` for a summary that cannot be used, with the texts that it lost.
        """
        messages, found = request.messages, turns(request.messages)
        self.protect.check(messages)
        covered = max(0, len(found) - self.keep) // self.every * self.every
        if not covered:
            return Shrunk.of(messages)
        old = _numbers(found[:covered])
        places = _places(messages, old)
        summary = await self._summary(request, found, covered)
        if summary.failed:
            raise SummaryFailed(summary.text)
        return Shrunk.of(messages, self._cuts(messages, old, places, summary.text))

    def _store(self) -> SummaryStore:
        return SummaryStore() if self.summaries is None else self.summaries

    async def _summary(self, request: Request, found: Sequence[Turn], covered: int) -> Summary:
        """What the first `covered` turns sum up to: as it is kept, or made from the last summary and the turns since."""
        store = self._store()
        keys = self._keys(request, found, covered)
        async with store.making(keys[covered]):
            kept = store.get(keys[covered])
            if kept is None:
                done = max((n for n, key in keys.items() if (made := store.get(key)) and not made.failed), default=0)
                last = store.get(keys[done]) if done else None
                try:
                    kept = Summary(await self._ask(request, found, covered, done, last.text if last else ""))
                except SummaryFailed as error:
                    kept = Summary(str(error), failed=True)
                store.put(keys[covered], kept)
        return kept

    async def _ask(self, request: Request, found: Sequence[Turn], covered: int, done: int, last: str) -> str:
        """A summary of the first `covered` turns, of which `last` sums up the first `done`."""
        messages, old, before = request.messages, _numbers(found[:covered]), _numbers(found[:done])
        sent = messages[: max(old) + 1]
        if done:
            sent = Shrunk.of(sent, self._cuts(sent, before, _places(sent, before), last)).after
        tools = {name: request.extra[name] for name in ("tools",) if name in request.extra}
        asked = replace(
            request, messages=(*sent, Message("user", self.question)), model="", max_tokens=self.max_tokens,
            temperature=0.0, top_p=1.0, seed=None, stop=(), logprobs=None, response_format=None,
            feature=purpose(request.feature), idempotency_key="", attempt=1,
            extra=tools | ({"tool_choice": "none"} if tools else {}),
        )  # fmt: skip
        answer = await complete(metered(self.model), asked)
        summary = answer.text.rpartition("</think>")[2].strip()
        told = [messages[number].content for number in old]
        if not summary or answer.done.finish_reason != "stop":
            raise SummaryFailed(
                f"the summary is {summary!r:.80} and ended with {answer.done.finish_reason!r}; allow more than "
                f"{self.max_tokens} tokens, or ask another model"
            )
        if len(summary) >= sum(map(len, told)):
            raise SummaryFailed(f"the summary has {len(summary)} characters, the turns {sum(map(len, told))}; raise `every`")
        lost = missing(self.protect, told, summary)
        if lost:
            raise SummaryFailed(
                f"the summary lost {', '.join(map(repr, lost[:5]))}{f' and {len(lost) - 5} more' if lost[5:] else ''}; the "
                "turns are sent as they were. Ask for these in `question`, or take them out of `protect`"
            )
        return summary

    def _keys(self, request: Request, found: Sequence[Turn], covered: int) -> dict[int, str]:
        """The digest of the first n turns, for each n up to `covered` at which the boundary may have stood."""
        system = [message for message in request.messages if message.role == "system"]
        settings = (request.tenant, self.question, self.stands, self.protect, system)
        digest = hashlib.sha256(repr(settings).encode("utf-8", "surrogatepass"))
        keys: dict[int, str] = {}
        for n, turn in enumerate(found[:covered], 1):
            told = [request.messages[number] for number in turn.messages]
            digest.update(repr(told).encode("utf-8", "surrogatepass"))
            if n % self.every == 0:
                keys[n] = digest.hexdigest()
        return keys

    def _cuts(self, messages: Sequence[Message], old: Sequence[int], places: Sequence[int], summary: str) -> list[Cut]:
        """What `stands`, in the `places`; all else of `old` goes."""
        lost = missing(FACTS, [messages[n].content for n in old], summary)
        why = f"{len(old)} messages in one summary" + (f"; not in it: {', '.join(lost[:10])}" if lost else "")
        cuts = without(messages, [n for n in old if n not in places], "rolling-summary", why)
        texts = [each.replace(_PLACE, summary) for each in self.stands]
        if len(places) == 1:
            texts = [" ".join(texts)]
        for n, text in zip(places, texts, strict=True):
            cuts.append(Cut(n, 0, len(messages[n].content), text, "rolling-summary", why))
        return cuts


def _numbers(found: Sequence[Turn]) -> list[int]:
    return [number for turn in found for number in turn.messages]


def _places(messages: Sequence[Message], old: Sequence[int]) -> list[int]:
    """Where a summary can stand: at a question and at a later answer without calls, or at one of these."""
    asks = [n for n in old if messages[n].role == "user"][:1]
    after = max(asks, default=-1)
    says = [n for n in old if messages[n].role == "assistant" and not messages[n].tool_calls and n > after][:1]
    if not asks + says:
        raise SummaryFailed("the turns have no message that could hold their summary, only calls of tools and results")
    return asks + says
