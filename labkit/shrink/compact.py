"""What tools answer, written shorter: their JSON without white space, as columns, or with short keys, whichever is least."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from labkit.request import InvalidValue, Message, Request
from labkit.shrink import records
from labkit.shrink.count import lab_tokens
from labkit.shrink.cut import Cut
from labkit.shrink.harm import harmless
from labkit.shrink.protect import MARKED, Protect
from labkit.shrink.shrinker import Shrinker
from labkit.shrink.shrunk import Shrunk

Form = Literal["minified", "columns", "keys"]
_WRITERS: Mapping[Form, Callable[[records.Value], str | None]] = {
    "minified": records.minified,
    "columns": records.columns,
    "keys": records.short_keys,
}
_FENCED = re.compile(r"(?<=```)json[ \t]*\r?\n((?:(?!\r?\n[ \t]*```|```).)*+)(?=\r?\n[ \t]*```)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Compact(Shrinker):
    """Rewrites JSON objects and lists in the answers of tools, and between "```json" fences in any message.

    The form with the fewest tokens by `count` is taken, of `forms`; `labkit.shrink.records.restore` turns it back. What is
    not JSON, or could not be restored exactly, stays as it is. `drop_nulls` leaves keys out whose value is null, and
    `defaults` those that have the value given there; this loses them, so its cuts are not lossless. The names and figures of
    JSON all move or stay together: `protect` matters for `drop_nulls` and `defaults` only, and keeps what is marked unless
    you say more. That nothing is lost does not say that your model reads a form as well as the JSON it knows: measure it
    (`python -m benchmarks.formats --live` has models that do not), and name the `forms` that it reads.

    Raises `InvalidValue` for a form that does not exist, and for none.
    """

    forms: tuple[Form, ...] = ("minified", "columns", "keys")
    drop_nulls: bool = False
    defaults: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    count: Callable[[str], int] = lab_tokens
    protect: Protect = MARKED

    def __post_init__(self) -> None:
        if not self.forms or not set(self.forms) <= set(get_args(Form)):
            raise InvalidValue(f"Compact.forms is {self.forms!r:.80}; use some of {', '.join(get_args(Form))}")
        if not callable(self.count):
            raise InvalidValue(f"count is {self.count!r:.80}; give a function from a text to its number of tokens")

    async def shrink(self, request: Request) -> Shrunk:
        """The messages of `request` with their JSON written shorter: what is lost first, and then how the rest is written.

        Raises `InstructionMissing` as `Protect.check` does.
        """
        self.protect.check(request.messages)
        done = Shrunk.of(request.messages)
        for cuts in (self._dropped, self._rewritten):
            planned = harmless(done.after, cuts(done.after), self.protect)
            done = done.then(Shrunk.of(done.after, planned, self.protect))
        return done

    def _dropped(self, messages: Sequence[Message]) -> Iterator[Cut]:
        if not self.drop_nulls and not self.defaults:
            return
        for at, _, start, end, value in _found(messages):
            left = records.without(value, self.drop_nulls, self.defaults)
            if left != value:
                gone = " and ".join(["nulls"] * self.drop_nulls + ["defaults"] * bool(self.defaults))
                why = f"{gone} are left out, which loses them"
                yield Cut(at, start, end, records.minified(left), by="left-out", why=why)

    def _rewritten(self, messages: Sequence[Message]) -> Iterator[Cut]:
        for at, label, start, end, value in _found(messages):
            before = self.count(messages[at].content[start:end])
            written = [(form, text) for form in self.forms if (text := _WRITERS[form](value)) is not None]
            form, best = min(written, key=lambda each: self.count(each[1]), default=("minified", ""))
            tokens = self.count(best)
            if best and tokens < before:
                why = f"JSON as {form}: {tokens} tokens, not {before}"
                if form != "minified" and label < start:  # what stands between the fences is no JSON any more
                    start, best = label, f"\n{best}"
                yield Cut(at, start, end, best, by="compact", why=why, lossless=True)


def _found(messages: Sequence[Message]) -> Iterator[tuple[int, int, int, int, records.Value]]:
    """JSON objects and lists that can be restored: message, start of their label, start, end, and value."""
    for at, message in enumerate(messages):
        text = message.content
        if message.role == "tool":
            start = len(text) - len(text.lstrip())
            places = [(start, start, len(text.rstrip()))]
        else:
            places = [] if message.tool_calls else [(m.start(), *m.span(1)) for m in _FENCED.finditer(text)]
        for label, start, end in places:
            if text.startswith(("{", "["), start):
                try:
                    value = records.read(text[start:end])
                except InvalidValue:
                    continue
                yield at, label, start, end, value
