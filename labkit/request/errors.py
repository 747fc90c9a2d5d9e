"""What can go wrong on the way to an answer. Every message names the value and the fix."""

from __future__ import annotations


class LabError(Exception):
    """Base of the errors labkit raises on purpose, so that a caller can tell them from bugs."""


class InvalidRequest(LabError, ValueError):
    """The request could never be served as written: its caller has to change it."""


class InvalidValue(LabError, ValueError):
    """A setting, an argument or data of the lab's own cannot work: whoever set it has to change it, not a caller."""


class ContextWindowExceeded(InvalidRequest):
    """Prompt plus requested output is longer than the model's context window."""


class EngineError(LabError):
    """The engine answered with an error.

    `status` is its HTTP status, None where there is none. `retry_after_s` is the number of seconds after which the engine
    wants to be asked again, None where it did not say.
    """

    def __init__(self, message: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class EngineUnreachable(EngineError):
    """Nothing accepts connections at the engine's address.

    Also raised where something answers that does not speak HTTP, where the connection breaks before any part of an answer
    came, and where this machine's proxy or certificate settings cannot be used.
    """


class EngineStalled(EngineError):
    """The engine accepted the request and then sent nothing for longer than allowed."""


class StreamIncomplete(EngineError):
    """The stream ended without a `Done`: what arrived is not a whole answer.

    Also raised for a stream that is damaged, or longer than its bound.
    """


class DeadlineExceeded(LabError, TimeoutError):
    """The request's deadline passed; `partial` is the text that had arrived by then."""

    def __init__(self, message: str, partial: str = "") -> None:
        super().__init__(message)
        self.partial = partial
