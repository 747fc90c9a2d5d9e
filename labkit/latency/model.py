"""How long one step of an engine takes, from the work in the step.

An engine works in steps. In each it feeds some new tokens of some sequences through the model: whole prompts or chunks of
them (prefill), and one token for each sequence that is already writing (decode). The duration of a step depends only on its
composition, by two roofs. In each, the slower of two times counts:

- the *linear* layers: arithmetic, which grows with the new tokens, or reading the weights, which does not;
- *attention*: arithmetic, which grows with the (new token, earlier token) pairs, or reading the KV cache of these tokens.

The scheduler and the kernel launches add a time per step and per sequence. This is the roofline model (Williams, Waterman,
Patterson, "Roofline", CACM 52(4), 2009) applied twice, as in Vidur (Agrawal et al., MLSys 2024).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

from labkit.request import InvalidValue


@dataclass(frozen=True, slots=True)
class StepWork:
    """Composition of one step: all that its duration depends on.

    `tokens`: new tokens fed through the model. `sequences`: the sequences that these belong to. `pairs`: (new token, token
    that it attends to). `kv_tokens`: tokens whose keys and values attention reads, the new ones included. `entering`:
    sequences that this step adds to the batch.
    """

    tokens: int
    sequences: int
    pairs: int
    kv_tokens: int
    entering: int = 0

    @classmethod
    def of(cls, parts: Iterable[tuple[int, int]], entering: int = 0) -> StepWork:
        """The work of a step from its `parts`: for each sequence, (new tokens, tokens already in its KV cache)."""
        tokens = sequences = pairs = kv_tokens = 0
        for new, context in parts:
            if new < 1 or context < 0:
                raise InvalidValue(f"a step cannot feed {new} tokens after {context}; feed 1 or more after 0 or more")
            tokens += new
            sequences += 1
            pairs += new * context + new * (new + 1) // 2
            kv_tokens += context + new
        return cls(tokens, sequences, pairs, kv_tokens, entering)


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Seconds of a step, from constants that come from datasheets (`datasheet_model`) or a live run (`labkit.load.probe`).

    All constants but `expert_share` are in seconds. Those of a step:

    - `step_s`: scheduling and kernel launches, per step. `sequence_s`: per sequence in a step (sampling, detokenizing).
      `admit_s`: per sequence that enters the batch (hashing its blocks, finding it a place).
    - `linear_s`: arithmetic of the linear layers, per new token. `weights_s`: reading their weights, per step.
    - `experts_s`: reading all routed experts of a mixture, of which one token goes through a share `expert_share` (0 to 1).
      Each token chooses independently, so n tokens read 1 − (1 − share)ⁿ of the experts: one token reads far less than all.
    - `pair_s`: arithmetic of attention, per pair. `kv_s`: reading the KV cache, per token in it.

    Those outside the steps:

    - `frontend_s`: time that the front end (HTTP, tokenizing) spends on a request before the engine has it; requests take
      this one after another.
    - `request_s` and `prompt_token_s` (per prompt token): the rest of the way there and back, for requests in parallel.
    - `crowd_s`: how much longer that way is for each answer under way when the request is sent, because sending tokens also
      keeps the front end busy.

    Raises `InvalidValue` for constants below 0 or not finite, and for a model in which a step takes no time.
    """

    step_s: float
    sequence_s: float
    linear_s: float
    weights_s: float
    pair_s: float
    kv_s: float
    request_s: float = 0.0
    prompt_token_s: float = 0.0
    frontend_s: float = 0.0
    admit_s: float = 0.0
    crowd_s: float = 0.0
    experts_s: float = 0.0
    expert_share: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise InvalidValue(f"{field.name} is {value}; a latency model's constants are seconds from 0")
        if not 0 < self.expert_share <= 1:
            raise InvalidValue(f"expert_share is {self.expert_share}; it is a share of the experts, above 0 and up to 1")
        if not (self.step_s or self.weights_s or self.linear_s):
            raise InvalidValue("a step that takes no time is no model; give step_s, weights_s or linear_s")

    def weights_seconds(self, tokens: float) -> float:
        """Seconds for reading the weights that a step of `tokens` new tokens needs."""
        return float(self.weights_s + self.experts_s * (1 - (1 - self.expert_share) ** tokens))

    def step_seconds(self, work: StepWork) -> float:
        """Duration of one step, in seconds."""
        return (
            self.step_s
            + self.sequence_s * work.sequences
            + self.admit_s * work.entering
            + max(self.linear_s * work.tokens, self.weights_seconds(work.tokens))
            + max(self.pair_s * work.pairs, self.kv_s * work.kv_tokens)
        )
