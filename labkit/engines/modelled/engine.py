"""The modelled engine: a handler that streams marks instead of text, at the times the latency model gives."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import AsyncGenerator, Callable
from collections.abc import Sequence as Tokens
from itertools import count

import labkit
from labkit.engines.metrics import MetricsSnapshot
from labkit.engines.modelled.counters import Counters
from labkit.engines.modelled.scheduler import ContinuousBatching, Scheduler, Step
from labkit.engines.modelled.sequence import Sequence
from labkit.engines.modelled.settings import EngineSettings
from labkit.engines.provenance import Provenance, machine, today
from labkit.latency import LatencyModel
from labkit.request import Chunk, Done, EngineError, Event, InvalidRequest, InvalidValue, Request, Timing, Usage, clock, held

MARK = "modelled "  # the text of every token: no model wrote a text that holds it
_TIMER_S = 1e-6  # event loops may wake a timer this much early


def token_ids_given(request: Request) -> Tokens[int]:
    """The prompt's token ids from `extra["prompt_token_ids"]`, for workloads that come as token ids.

    Raises `InvalidRequest` where they are missing.
    """
    ids = request.extra.get("prompt_token_ids")
    if not isinstance(ids, (list, tuple, range)):
        raise InvalidRequest(
            'a modelled engine needs the prompt\'s token ids: put them into extra["prompt_token_ids"], or give the engine '
            "tokenize=lambda request: tokenizer.encode(tokenizer.render(request.messages))"
        )
    return ids


def all_it_may(request: Request) -> int:
    """Output length of a request that writes until `max_tokens`, as with vLLM's `ignore_eos`."""
    return request.max_tokens


class ModelledEngine:
    """A handler with vLLM's scheduling and KV cache, whose steps last as long as `model` says. It runs on both clocks.

    `tokenize` returns a request's prompt token ids: equal beginnings hit the prefix cache, within one `extra["cache_salt"]`.
    `output_tokens` returns how many tokens a request writes, from 1 to its `max_tokens`. `device` names the device that the
    model's constants describe, for the provenance. `policy` replaces vLLM's scheduler by another over the same step loop; it
    must be new. `on_step` is called with every step as it starts (`steps.append` keeps a log).

    A request first passes the front end, which takes `frontend_s` for each request, one after another. It reaches the
    scheduler `request_s` + `prompt_token_s` × its prompt tokens + `crowd_s` × the streams then open after that, all in
    seconds. Its tokens reach the client when their step ends. Closing a stream frees its blocks after the running step.

    A stream raises `ContextWindowExceeded` for a request that the engine can never hold, `InvalidRequest` where
    log-probabilities are asked for, `InvalidValue` where `output_tokens` is out of range, and `EngineError` when the engine
    is closed or fails.
    """

    def __init__(
        self,
        model: LatencyModel,
        settings: EngineSettings,
        *,
        tokenize: Callable[[Request], Tokens[int]] = token_ids_given,
        output_tokens: Callable[[Request], int] = all_it_may,
        name: str = "modelled",
        device: str = "a latency model's constants",
        policy: Scheduler | None = None,
        on_step: Callable[[Step], object] | None = None,
    ) -> None:
        self.latency = model
        self.settings = settings
        self.model = name
        self.context_window = settings.context_window
        self.provenance = Provenance(
            kind="modelled",
            machine=machine(),
            device=device,
            engine="labkit's modelled engine",
            engine_version=labkit.__version__,
            model=name,
            date=today(),
            command=f"ModelledEngine({model!r}, {settings!r})",
        )
        self._tokenize = tokenize
        self._output_tokens = output_tokens
        self._scheduler = policy or ContinuousBatching(settings)
        self._on_step = on_step
        self._counters = Counters()
        self._front_end_free = -math.inf
        self._serial = count()
        self._arriving: list[tuple[float, str, Sequence]] = []
        self._streams: dict[str, asyncio.Queue[int | BaseException]] = {}
        self._cancelled: list[Sequence] = []
        self._changed = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def __call__(self, request: Request) -> AsyncGenerator[Event, None]:
        """Stream marks at the times when the answer's tokens would come."""
        return held(self._stream, request)

    async def _stream(self, request: Request) -> AsyncGenerator[Event, None]:
        sent, started_unix = clock.now(), clock.unix_now()
        sequence = self._sequence(request, sent)
        tokens: asyncio.Queue[int | BaseException] = asyncio.Queue()
        self._enter(sequence, tokens)
        first = last = None
        written = 0
        try:
            while written < sequence.output_tokens:
                arrived = await tokens.get()
                if isinstance(arrived, BaseException):
                    why = "it was closed" if isinstance(arrived, asyncio.CancelledError) else repr(arrived)
                    raise EngineError(f"the modelled engine stopped after {written} tokens: {why}") from arrived
                written, last = arrived, clock.now()
                first = last if first is None else first
                yield Chunk(MARK, last, usage=_usage(sequence, written))
        finally:
            del self._streams[sequence.id]
            if written < sequence.output_tokens:
                self._cancelled.append(sequence)
            self._changed.set()
        yield Done(
            _usage(sequence, written),
            Timing(sent, first, last, clock.now(), started_unix),
            finish_reason="length" if written == request.max_tokens else "stop",
            model=request.model or self.model,
            response_id=sequence.id,
        )

    async def metrics(self) -> MetricsSnapshot:
        """The engine's counters now, under vLLM's names; metrics that it does not model (histograms, drafts) are None."""
        return self._counters.snapshot(self._scheduler, self.settings)

    async def aclose(self) -> None:
        """Stop; streams that are still open end with `EngineError`."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def __aenter__(self) -> ModelledEngine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<ModelledEngine {self.provenance.caption()}>"

    def _sequence(self, request: Request, sent: float) -> Sequence:
        if request.logprobs is not None:
            raise InvalidRequest("a modelled engine has no probabilities; ask without logprobs")
        prompt = self._tokenize(request)
        self.settings.check_fits(len(prompt), request.max_tokens)
        output = self._output_tokens(request)
        if not 1 <= output <= request.max_tokens:
            raise InvalidValue(f"output_tokens gave {output} for a request with max_tokens={request.max_tokens}")
        self._front_end_free = max(self._front_end_free, sent) + self.latency.frontend_s
        way = self.latency.request_s + self.latency.prompt_token_s * len(prompt)
        ready = self._front_end_free + (way + self.latency.crowd_s * len(self._streams))
        salt = str(request.extra.get("cache_salt", ""))
        return Sequence(f"modelled-{next(self._serial):08}", prompt, output, ready, request.priority, salt)

    def _enter(self, sequence: Sequence, tokens: asyncio.Queue[int | BaseException]) -> None:
        self._streams[sequence.id] = tokens
        heapq.heappush(self._arriving, (sequence.arrival, sequence.id, sequence))
        if self._running is None or self._running.done():
            self._changed = asyncio.Event()
            self._running = asyncio.get_running_loop().create_task(self._run(), name="modelled-engine")
        self._changed.set()

    async def _run(self) -> None:
        """Run step after step while there are requests; it ends with the last one, so that no task is left behind."""
        try:
            # The engine's own time: a step starts when the step before has ended, not when the event loop runs this line.
            now = -math.inf
            while self._streams or self._cancelled:
                self._settle(now)
                step = self._scheduler.schedule(now)
                if step is None:
                    now = max(now, await self._next_arrival())
                    continue
                if self._on_step is not None:
                    self._on_step(step)
                self._counters.preemptions += len(step.preempted)
                if step.scheduled:
                    now += self.latency.step_seconds(step.work)
                    await clock.sleep_until(now)
                for sequence in self._scheduler.complete(step):
                    self._counters.count_token(sequence)
                    if sequence.id in self._streams:
                        self._streams[sequence.id].put_nowait(sequence.generated)
        except BaseException as error:
            for tokens in self._streams.values():
                tokens.put_nowait(error)
            # Every open stream has been told. An error ends here; a cancellation is raised on.
            if not isinstance(error, Exception):
                raise

    def _settle(self, now: float) -> None:
        """Between two steps: remove the sequences whose stream was closed, and add those that have arrived."""
        for sequence in self._cancelled:
            self._scheduler.remove(sequence)
        self._cancelled.clear()
        while self._arriving and self._arriving[0][0] <= now:
            _, id, sequence = heapq.heappop(self._arriving)
            if id in self._streams:
                self._scheduler.add(sequence)

    async def _next_arrival(self) -> float:
        """Wait until the next request arrives, and return when it did; -inf if a stream was closed meanwhile."""
        while not self._cancelled and self._streams:
            when = self._arriving[0][0] if self._arriving else None
            if when is not None and clock.now() >= when - _TIMER_S:
                return when
            self._changed.clear()
            try:
                async with asyncio.timeout_at(when):
                    await self._changed.wait()
            except TimeoutError:
                pass
        return -math.inf


def _usage(sequence: Sequence, written: int) -> Usage:
    return Usage(len(sequence.prompt), written, sequence.cached_tokens)
