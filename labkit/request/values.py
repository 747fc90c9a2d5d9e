"""The values that flow through a stack of handlers. All are frozen: a handler that changes one makes a new one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from labkit.request.errors import InvalidRequest, InvalidValue

if TYPE_CHECKING:
    from labkit.request.books import Books

TOKEN_KINDS = ("fresh_input", "cached_input", "cache_write", "visible_output", "reasoning")
"""The disjoint kinds of token, by the names that prices, costs and the ledger's accounts share. Their sum is every token."""
CUT_SHORT = ("length", "repetition")
"""The finish reasons of an answer that was ended before the model had: by a limit, or by the engine for a loop."""
Role = Literal["system", "user", "assistant", "tool"]
_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants called: `arguments` is JSON as the model wrote it, which may be broken JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the answer's tool call number `index` (from 0); a call's pieces add up in their order, field by field."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation, in the Chat Completions shape.

    `tool_calls` are the calls that an assistant's turn made, `tool_call_id` names the call that a tool's turn answers,
    `name` tells speakers of one role apart. Messages hold text only. Raises `InvalidRequest` for fields that do not fit
    together, and for content in parts (images, audio, files), whose kinds the error names.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise InvalidRequest(f"message role {self.role!r:.40} is unknown; use one of {', '.join(_ROLES)}")
        if not isinstance(self.content, str):
            raise InvalidRequest(_no_text(self.content))
        for name in ("tool_call_id", "name"):
            if not isinstance(getattr(self, name), str):
                raise InvalidRequest(f"message {name} is {getattr(self, name)!r:.40}; use text, empty for none")
        calls = self.tool_calls
        if not isinstance(calls, tuple | list) or not all(isinstance(call, ToolCall) for call in calls):
            raise InvalidRequest(f"message tool_calls is {calls!r:.80}; give a tuple of ToolCall values")
        object.__setattr__(self, "tool_calls", tuple(calls))
        if calls and self.role != "assistant":
            raise InvalidRequest(f"a message of role {self.role!r} has tool_calls; only the assistant calls tools")
        if self.tool_call_id and self.role != "tool":
            raise InvalidRequest(f"a message of role {self.role!r} has a tool_call_id; only a tool's answer has one")


def _no_text(content: Any) -> str:
    """The error message for content that is not a string; for content in parts it names their kinds."""
    if not isinstance(content, list | tuple):
        return f"message content must be a string, not {type(content).__name__}; use '' for none"
    kinds = sorted({str(part.get("type")) if isinstance(part, Mapping) else type(part).__name__ for part in content})
    return (
        f"message content is a list of parts ({', '.join(kinds) or 'empty'}); this lab carries text only: join the texts "
        "into one string, and leave images, audio and files out"
    )


def _tuple_of(given: Any, lone: Callable[[str], Any]) -> tuple[Any, ...]:
    """`given` as a tuple; a lone string stands for one element, never for its letters."""
    return (lone(given),) if isinstance(given, str) else tuple(given)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, and who asks it and why.

    `messages` may be given as a plain string (one user message) or as a sequence of `Message`.
    `deadline` is absolute, in seconds of `clock.now()`; `within(request, seconds)` sets it from here.
    `logprobs` is the number of alternatives wanted per token (0: the chosen token only; None: none at all).
    `priority` follows vLLM: a lower number is served earlier.
    `prompt_version` names the version of the instructions that `messages` were made with; like the tenant and the feature,
    it is for the books and never reaches an engine.
    `attempt` counts from 1; a retry is the same request with the next number. `shadow` marks traffic whose answer nobody
    sees but somebody pays for. `extra` is passed to the engine's request body as it is.

    `books` and `held` are the stack's own notes: where to record attempts, and the deadline that a lever further out
    enforces.

    Raises `InvalidRequest` for a value out of range, naming it.
    """

    messages: tuple[Message, ...]
    model: str = ""
    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    response_format: Mapping[str, Any] | None = None
    tenant: str = ""
    user: str = ""
    feature: str = ""
    permissions: frozenset[str] = frozenset()
    workflow: str = ""
    prompt_version: str = ""
    idempotency_key: str = ""
    deadline: float | None = None
    priority: int = 0
    attempt: int = 1
    shadow: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    books: tuple[Books, ...] = field(default=(), repr=False, compare=False)
    held: float | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        messages = _tuple_of(self.messages, lone=lambda text: Message("user", text))
        object.__setattr__(self, "messages", messages)
        object.__setattr__(self, "stop", _tuple_of(self.stop, lone=str))
        object.__setattr__(self, "permissions", frozenset(self.permissions))
        if not messages:
            raise InvalidRequest("a request needs at least one message; messages is empty")
        for message in messages:
            if not isinstance(message, Message):
                raise InvalidRequest(f"messages must hold Message values, not {type(message).__name__}: {message!r:.80}")
        if self.max_tokens < 1:
            raise InvalidRequest(f"max_tokens is {self.max_tokens}; ask for at least 1 output token")
        if not 0 <= self.temperature <= 2:
            raise InvalidRequest(f"temperature is {self.temperature}; use a value from 0 (greedy) to 2")
        if not 0 < self.top_p <= 1:
            raise InvalidRequest(f"top_p is {self.top_p}; use a value above 0 and up to 1")
        if self.logprobs is not None and self.logprobs < 0:
            raise InvalidRequest(f"logprobs is {self.logprobs}; use None for none or a count from 0")
        if self.attempt < 1:
            raise InvalidRequest(f"attempt is {self.attempt}; attempts count from 1")
        if self.deadline is not None and not math.isfinite(self.deadline):
            raise InvalidRequest(f"deadline is {self.deadline}; use None for no deadline")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one attempt.

    As in OpenTelemetry's GenAI conventions, `input_tokens` *includes* the cached and the cache-write tokens and
    `output_tokens` *includes* the reasoning tokens. Take the disjoint parts from this class only, which subtracts: adding
    `cached_tokens` to `input_tokens` would count them twice. Raises `InvalidValue` for counts that are not whole numbers
    from 0, and for parts that exceed their total.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def __post_init__(self) -> None:
        values = (self.input_tokens, self.output_tokens, self.cached_tokens, self.cache_write_tokens, self.reasoning_tokens)
        for value in values:  # kept short: an engine may report its usage with every chunk
            if type(value) is not int or value < 0:
                name = next(f.name for f, given in zip(fields(self), values, strict=True) if given is value)
                raise InvalidValue(f"usage {name} is {value!r:.60}; token counts are whole numbers from 0")
        if self.cached_tokens + self.cache_write_tokens > self.input_tokens:
            raise InvalidValue(
                f"usage says {self.cached_tokens} cached and {self.cache_write_tokens} cache-write tokens within only "
                f"{self.input_tokens} input tokens; input_tokens must include both"
            )
        if self.reasoning_tokens > self.output_tokens:
            raise InvalidValue(
                f"usage says {self.reasoning_tokens} reasoning tokens within only {self.output_tokens} output tokens; "
                "output_tokens must include them"
            )

    @property
    def fresh_input_tokens(self) -> int:
        """Input tokens neither read from nor written to a cache."""
        return self.input_tokens - self.cached_tokens - self.cache_write_tokens

    @property
    def visible_output_tokens(self) -> int:
        """Output tokens the user sees: those that are not reasoning."""
        return self.output_tokens - self.reasoning_tokens

    def by_kind(self) -> dict[str, int]:
        """The tokens of each of `TOKEN_KINDS`."""
        split = (self.fresh_input_tokens, self.cached_tokens, self.cache_write_tokens, self.visible_output_tokens)
        return dict(zip(TOKEN_KINDS, (*split, self.reasoning_tokens), strict=True))

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Timing:
    """Raw timestamps of one attempt, in seconds of `clock.now()`; every latency is derived from them.

    `started_unix` is the wall-clock time of `sent`, in seconds since 1970, for records that outlive the process.
    """

    sent: float
    first_token: float | None = None
    last_token: float | None = None
    done: float | None = None
    started_unix: float | None = None

    @property
    def ttft(self) -> float | None:
        """Time to first token, s: from the client's send to its first non-empty content."""
        return None if self.first_token is None else self.first_token - self.sent

    @property
    def e2e(self) -> float | None:
        """End to end, s: from the client's send to the end of the stream."""
        return None if self.done is None else self.done - self.sent

    def tpot(self, output_tokens: int) -> float | None:
        """Time per output token after the first, s: (E2E − TTFT) / (output tokens − 1). None for fewer than two tokens."""
        if self.e2e is None or self.ttft is None or output_tokens < 2:
            return None
        return (self.e2e - self.ttft) / (output_tokens - 1)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token with its natural-log probability and the best alternatives, most likely first."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of the answer as it arrived at `at` (seconds of `clock.now()`); it may carry several tokens.

    `reasoning` holds text that the model produced before its answer, `tool_calls` the pieces of its tool calls. `usage` is
    the running total where the engine reports one, so that a stream cut short can still be paid for.
    """

    text: str
    at: float
    tokens: int = 1
    reasoning: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    usage: Usage | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()

    @property
    def has_content(self) -> bool:
        """Whether the chunk carries a part of the answer: text, reasoning or a piece of a tool call."""
        return bool(self.text or self.reasoning or self.tool_calls)

    @property
    def counted(self) -> Usage:
        """The chunk's own tokens as output tokens; where it holds reasoning and no text, they are reasoning tokens too.

        A `tokens` that is no whole number above 0 (an engine may send anything) counts as 0: it must not lose the answer.
        """
        tokens = self.tokens if type(self.tokens) is int and self.tokens > 0 else 0
        return Usage(output_tokens=tokens, reasoning_tokens=tokens if self.reasoning and not self.text else 0)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that went wrong beside a whole answer: which lever met it, and the error, with all that it holds."""

    where: str
    error: Exception

    def __str__(self) -> str:
        return f"{self.where}: {self.error!s:.300}" if str(self.error) else f"{self.where}: {type(self.error).__name__}"


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a stream: what it used, how long it took, and which way it went (`route`, outermost hop first).

    `cost` is the price of this answer in `currency`, or None while nothing in the stack has priced it. `faults` are the
    errors of the levers' own work (a price, a ledger's disk, a cache's file): the answer is whole all the same. `booked` are
    the ledgers that hold the attempt. `usage_note` is empty where the engine's count is whole and consistent. Otherwise it
    says in words what is wrong; then `usage` holds what is known, and a price computed from it would be invented.

    `finish_reason`: "stop" (the model ended it), "length" (max_tokens or the window did), "repetition" (the engine did,
    because the model went round in a loop), "tool_calls" (it waits for tools), "refusal" (the text is the model's refusal),
    "content_filter" (the endpoint held the rest back), "partial" (the stream failed, and a lever handed out what had come),
    or the endpoint's own word where it has another.
    """

    usage: Usage
    timing: Timing
    finish_reason: str = "stop"
    model: str = ""
    route: tuple[str, ...] = ()
    cost: Decimal | None = None
    currency: str = "USD"
    response_id: str = ""
    faults: tuple[Fault, ...] = ()
    booked: tuple[str, ...] = field(default=(), repr=False, compare=False)
    usage_note: str = ""

    def via(self, hop: str) -> Done:
        """This `Done` with `hop` put in front of its route."""
        return replace(self, route=(hop, *self.route))

    def since(self, sent: float, started_unix: float) -> Done:
        """This `Done` with its latencies counted from `sent` (`clock.now()`): the caller waited from there."""
        return replace(self, timing=replace(self.timing, sent=sent, started_unix=started_unix))

    def beside(self, where: str, error: Exception) -> Done:
        """This `Done` with one more fault: `where` is the lever that met `error`."""
        return replace(self, faults=(*self.faults, Fault(where, error)))


Event = Chunk | Done
