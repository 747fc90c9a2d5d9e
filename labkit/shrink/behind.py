"""Two levers that keep a prefix cache: shrink only what stands behind the stable prefix, or shrink the prefix once for all.

A prefix is found again only where every token of it is the same. A shrinker that looks at the whole prompt writes another
beginning for every question, so nothing is found again, and what a provider sold at a tenth of the price is bought in full.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from labkit.request import InvalidValue, Message, Request
from labkit.shrink.harm import harmless
from labkit.shrink.protect import NOTHING, Protect
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import Shrunk


@dataclass(frozen=True)
class BehindPrefix(Shrinker):
    """Lets `shrinker` see and shorten only what stands behind the stable prefix.

    The prefix is the first `messages` messages (the system message, by default), and the first `characters` characters of
    the next one; it ends behind the answers of a tool that it calls. Raises `InvalidValue` for counts below 0.
    """

    shrinker: Shrinker
    messages: int = 1
    characters: int = 0

    def __post_init__(self) -> None:
        _check(self, self.shrinker, self.messages, self.characters)

    async def shrink(self, request: Request) -> Shrunk:
        """The prompt with everything behind its prefix shortened; unchanged where nothing stands there."""
        first, skip = _seam(request.messages, self.messages, self.characters)
        tail = _behind(request.messages, first, skip)
        if not tail:
            return Shrunk.of(request.messages)
        inner = await self.shrinker.shrink(replace(request, messages=tail))
        return _lifted(request.messages, inner, first, skip, _protect(self.shrinker))


@dataclass(frozen=True)
class Once(Shrinker):
    """Lets `shrinker` shorten the stable prefix once, and sends the same short prefix with every request from then on.

    The prefix is the first `messages` messages, and the first `characters` characters of the next one; `shrinker` sees
    nothing else, so what it leaves cannot depend on a question. The last `kept` prefixes are remembered, by a hash of their
    text. Of requests that come while a prefix is shortened for the first time, each may shorten it; the first result is the
    one that all of them send. Raises `InvalidValue` for counts below 0, and for a `kept` below 1.
    """

    shrinker: Shrinker
    messages: int = 1
    characters: int = 0
    kept: int = 64
    _short: OrderedDict[bytes, Shrunk] = field(init=False, repr=False, compare=False, default_factory=OrderedDict)

    def __post_init__(self) -> None:
        _check(self, self.shrinker, self.messages, self.characters)
        if self.kept < 1:
            raise InvalidValue(f"Once keeps {self.kept} prefixes; keep at least 1, or nothing is shortened once")

    async def shrink(self, request: Request) -> Shrunk:
        """The prompt with its prefix shortened as it was the first time."""
        first, skip = _seam(request.messages, self.messages, self.characters)
        head = _before(request.messages, first, skip)
        if not head:
            return Shrunk.of(request.messages)
        key = hashlib.sha256(repr(head).encode(errors="surrogatepass")).digest()
        if key not in self._short:
            found = await self.shrinker.shrink(replace(request, messages=head))
            self._short.setdefault(key, found)
        inner = self._short.pop(key)
        self._short[key] = inner
        while len(self._short) > self.kept:
            self._short.popitem(last=False)
        return _lifted(request.messages, inner, 0, 0, _protect(self.shrinker))


def _seam(messages: Sequence[Message], stable: int, characters: int) -> tuple[int, int]:
    """Where the prefix ends: behind so many whole messages, and so many characters of the next one.

    Calls of tools stay with their answers: a prefix that would end between them ends behind the last answer.
    """
    first, skip = min(stable, len(messages)), characters
    if first == len(messages):
        return first, 0
    at = messages[first]
    if skip and (skip >= len(at.content) or at.role == "tool" or at.tool_calls):
        first, skip = first + 1, 0
    while not skip and first < len(messages) and messages[first].role == "tool":
        first += 1
    return first, skip


def _before(messages: Sequence[Message], first: int, skip: int) -> tuple[Message, ...]:
    begun = (replace(messages[first], content=messages[first].content[:skip]),) if skip else ()
    return (*messages[:first], *begun)


def _behind(messages: Sequence[Message], first: int, skip: int) -> tuple[Message, ...]:
    begun = (replace(messages[first], content=messages[first].content[skip:]),) if skip else ()
    return (*begun, *messages[first + len(begun) :])


def _lifted(messages: Sequence[Message], inner: Shrunk, first: int, skip: int, protect: Protect) -> Shrunk:
    """`inner`, made of a part of `messages`, as made of all of them; the part begins `skip` characters into number `first`.

    What `protect` keeps, or a visible character, may reach over the seam, where `inner` could not see it. A cut that would
    harm it is left out, and so are the steps after it.
    """
    whole = Shrunk.of(messages)
    for step in inner.steps:
        moved, emptied = [], False
        for cut in step.cuts:
            number, shift = first + cut.message, 0 if cut.message else skip
            in_part = len(step.before[cut.message].content) < len(whole.after[number].content)
            emptied = emptied or (cut.whole and shift > 0)
            moved.append(
                replace(cut, message=number, start=cut.start + shift, end=cut.end + shift, whole=cut.whole and not in_part)
            )
        fine = harmless(whole.after, moved, protect)
        whole = whole.then(Shrunk.of(whole.after, fine, protect))
        if len(fine) < len(moved):
            break
        if emptied:  # the part's first message is gone; of the whole prompt's, the beginning is still there
            first, skip = first + 1, 0
    return whole


def _protect(shrinker: Shrinker) -> Protect:
    found = getattr(shrinker, "protect", NOTHING)
    return found if isinstance(found, Protect) else NOTHING


def _check(lever: Shrinker, shrinker: object, messages: int, characters: int) -> None:
    name = type(lever).__name__
    if not isinstance(shrinker, Shrinker):
        raise InvalidValue(f"{name} takes a shrinker, such as {name}(Budget(…)); {shrinker!r:.80} is none")
    if messages < 0 or characters < 0 or not messages + characters:
        raise InvalidValue(
            f"{name}: a prefix of {messages} messages and {characters} characters; give counts from 0, not both of them 0"
        )
