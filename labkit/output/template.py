"""Templates: the program writes the text that is always the same, and the model fills the slots.

Each slot is a request of its own that goes on from all that stands before it, as if the model had written that. So the fixed
text is read, not written: it costs input, nearly all of it from the engine's prefix cache, and no decode step.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from labkit.output.asking import both_parts, frozen, going_on, keyed, with_extra
from labkit.request import (
    CUT_SHORT,
    Chunk,
    Done,
    Event,
    Handler,
    InvalidValue,
    Lever,
    Request,
    StreamIncomplete,
    clock,
    hops,
    is_whole,
)

_SLOT = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True, slots=True)
class Slot:
    """What may stand in a slot: one text of `choice`, or what fits `regex`, or anything up to the template's next character.

    `tokens` is the most it may have. The engine holds the model to `choice` and `regex` by its grammar, and ends a slot
    where the model writes the character that follows in the template, so no slot can hold that character. Raises
    `InvalidValue` for both forms at once.
    """

    choice: tuple[str, ...] = ()
    regex: str = ""
    tokens: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "choice", tuple(self.choice))
        if self.choice and self.regex:
            raise InvalidValue("a slot has a choice or a regex, not both")
        if not is_whole(self.tokens, 1):
            raise InvalidValue(f"a slot of {self.tokens!r:.40} tokens; allow at least 1")


@dataclass(frozen=True)
class Template(Lever):
    """Every answer is `text`, with each `{{name}}` in it filled by the model, as `slots` allows (default: `Slot()`).

    The fixed text is streamed as soon as it is known. The `Done` has the tokens and the cost of all requests together: input
    is paid once a slot, most of it at the price of cached tokens. So a template is cheap on an engine with a prefix cache of
    its own, and on a provider's list where cached × slots is less than the decode that it spares.

    A slot that is cut (its `tokens` ran out) ends the answer there, with "length". Where a request fails after the first,
    the answer ends with what is filled, "length", and the error on `Done.faults`. It needs `continue_final_message` (vLLM).
    Raises `InvalidValue` for a text without slots, for slots that it does not have, and for two slots with nothing between.
    """

    text: str
    slots: Mapping[str, Slot] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", frozen(self.slots))
        names = _SLOT.findall(self.text)
        if not names:
            raise InvalidValue(f"{self.text!r:.80} has no slot; write one as {{{{name}}}}, or send the text without a model")
        unknown = [name for name in self.slots if name not in names]
        if unknown or not all(isinstance(slot, Slot) for slot in self.slots.values()):
            raise InvalidValue(
                f"slots has {', '.join(unknown) or 'values that are no Slot'}; the text has {', '.join(names)}"
            )
        if "}}{{" in self.text:
            raise InvalidValue("two slots stand side by side; put something between, or make one slot of them")

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """(fixed text, name of the slot behind it) in order; the last has no slot ("")."""
        pieces = _SLOT.split(self.text)
        return tuple((pieces[i], pieces[i + 1] if i + 1 < len(pieces) else "") for i in range(0, len(pieces), 2))

    def over(self, inner: Handler) -> Handler:
        """`inner`, asked for the slots alone."""
        hop = hops.hop(hops.OUTPUT, "template")

        async def handle(request: Request) -> AsyncGenerator[Event, None]:
            said, done, begun = "", None, clock.now()
            for number, (fixed, name) in enumerate(self.parts):
                said += fixed
                if fixed:
                    yield Chunk(fixed, clock.now(), 0)
                if not name:
                    break
                slot = self.slots.get(name, Slot())
                asked = self._asking(request, said, slot, number)
                ended: Done | None = None
                try:
                    async with aclosing(inner(asked)) as events:
                        async for event in events:
                            if isinstance(event, Chunk):
                                said += event.text
                                yield replace(event, usage=None)
                            else:
                                ended = event
                    if ended is None:
                        raise StreamIncomplete(f"the slot {name!r} ended without a Done; the answer is not whole")
                except Exception as error:
                    if done is None:
                        raise
                    yield replace(done, finish_reason="length").beside(hop, error).via(hop)
                    return
                done = ended if done is None else both_parts(done, ended)
                if ended.finish_reason in CUT_SHORT:
                    break
            if done is not None:
                now = clock.now()
                first = begun if self.parts[0][0] else done.timing.first_token
                yield replace(done, timing=replace(done.timing, first_token=first, last_token=now, done=now)).via(hop)

        return handle

    def _asking(self, request: Request, said: str, slot: Slot, number: int) -> Request:
        asked = going_on(request, said) if said else request
        behind = self.parts[number + 1][0][:1] if number + 1 < len(self.parts) else ""
        stop = (*request.stop, behind) if behind else request.stop
        asked = replace(asked, max_tokens=min(slot.tokens, request.max_tokens), stop=stop)
        form = slot.regex or "|".join(map(re.escape, slot.choice))
        if form:
            # The grammar lets the model write what follows the slot, which ends it. Were the end of the answer the only way
            # out, a model that would go on with the template would fill the slot up instead: 41 for 4.
            asked = with_extra(asked, structured_outputs={"regex": f"(?:{form}){re.escape(behind)}"})
        return keyed(asked, f"slot-{number}")
