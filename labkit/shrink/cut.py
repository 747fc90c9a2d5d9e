"""One cut of a prompt: which characters go, what stands there instead, and why."""

from __future__ import annotations

from dataclasses import dataclass

from labkit.request import InvalidValue


@dataclass(frozen=True, slots=True)
class Cut:
    """Characters `start` to `end` of message number `message` (from 0), and `left`, the text that stands there instead.

    `by` names the rule that cut and `why` says its reason to a reader. A `lossless` cut takes nothing from the model: it can
    be undone from what is left, or what it removes stands elsewhere in the prompt with the same authority, or is white space
    that says nothing. So it may cover protected text. `whole` takes the message itself away, with its role and its tool
    calls. Raises `InvalidValue` for a range that goes backwards.
    """

    message: int
    start: int
    end: int
    left: str = ""
    by: str = ""
    why: str = ""
    lossless: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if self.message < 0 or not 0 <= self.start <= self.end:
            raise InvalidValue(
                f"a cut of message {self.message} from {self.start} to {self.end}; ranges run forwards from 0"
            )
