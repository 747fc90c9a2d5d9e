"""How long an answer takes for someone who reads it: streamed, or shown when it is whole.

The reader reads `rate` units (tokens or words) a second and cannot read what is not there. Unit i of n arrives at a_i and is
read from max(a_i, the end of the one before) on, for 1/rate seconds. Unfolded, the end is the slowest path through the text:

    finish = max over i of a_i + (n − i) / rate      (i = 0 … n−1)

Shown at once, every a_i is the last one, so finish = a_{n−1} + n / rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from labkit.request import Chunk, InvalidValue

WORDS_PER_S = 238 / 60
"""Silent reading of English non-fiction, words/s (Brysbaert, Journal of Memory and Language 109, 2019: 238 a minute)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading an answer was like, in seconds: `start_s` and `finish_s` since the send, `stalled_s` in between.

    `start_s`: until there was something to read. `stalled_s`: reading had begun and there was nothing new.
    """

    start_s: float
    stalled_s: float
    finish_s: float


def streamed(arrivals: Sequence[float], rate: float) -> Reading:
    """Reading an answer whose units arrive at `arrivals` (s since the send, in order), at `rate` units per second.

    Raises `InvalidValue` for no units, a rate that is not above 0 or arrivals that go back in time.
    """
    if not arrivals:
        raise InvalidValue("there is nothing to read: arrivals is empty")
    if not (rate > 0 and math.isfinite(rate)):
        raise InvalidValue(f"rate is {rate}; a reader reads more than 0 units a second, as in WORDS_PER_S")
    if any(later < earlier for earlier, later in pairwise(arrivals)):
        raise InvalidValue("arrivals go back in time; give seconds since the send, in order")
    count = len(arrivals)
    finish = max(at + (count - i) / rate for i, at in enumerate(arrivals))
    return Reading(arrivals[0], max(0.0, finish - arrivals[0] - count / rate), finish)


def buffered(arrivals: Sequence[float], rate: float) -> Reading:
    """Reading the same answer when it is shown once it is whole, at the last of `arrivals`."""
    return streamed([arrivals[-1]] * len(arrivals) if arrivals else arrivals, rate)


def token_arrivals(chunks: Iterable[Chunk], sent: float) -> list[float]:
    """When each token that can be read arrived, in seconds since `sent`; reasoning is not shown to anyone."""
    return [chunk.at - sent for chunk in chunks if chunk.text for _ in range(chunk.tokens)]


def word_arrivals(chunks: Iterable[Chunk], sent: float) -> list[float]:
    """When each word was whole, in seconds since `sent`: with the white space after it, the last one with its own end."""
    arrivals: list[float] = []
    inside = False
    at = 0.0
    for chunk in chunks:
        for character in chunk.text:
            if inside and character.isspace():
                # with the chunk that brings the white space: until then the word may go on
                arrivals.append(chunk.at - sent)
            inside, at = not character.isspace(), chunk.at - sent
    return [*arrivals, at] if inside else arrivals
