"""How long an answer takes a reader, when it is streamed, and when it is shown as a whole.

The reader reads `rate` units (tokens or words) a second and cannot read a unit before it arrives. Unit i of n arrives at
a_i. Reading it takes 1/rate seconds and begins at a_i or when the unit before is read, whichever is later. So the end is

    finish = max over i of a_i + (n − i) / rate      (i = 0 … n−1)

If the answer is shown as a whole, every a_i is a_{n−1}, so finish = a_{n−1} + n / rate.
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
    """Times of reading an answer, in seconds.

    `start_s`: from the send until there was something to read. `finish_s`: from the send until all was read. `stalled_s`:
    how long the reader, having begun, waited with nothing new to read.
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
    """Reading the same answer when it is shown as a whole, at the last of `arrivals`; raises as `streamed` does."""
    return streamed([arrivals[-1]] * len(arrivals) if arrivals else arrivals, rate)


def token_arrivals(chunks: Iterable[Chunk], sent: float) -> list[float]:
    """When each token of text arrived, in seconds since `sent`; tokens of reasoning are left out, as no reader sees them."""
    return [chunk.at - sent for chunk in chunks if chunk.text for _ in range(chunk.tokens)]


def word_arrivals(chunks: Iterable[Chunk], sent: float) -> list[float]:
    """When each word was whole, in seconds since `sent`: with the white space after it, or at the end of the text."""
    arrivals: list[float] = []
    inside = False
    at = 0.0
    for chunk in chunks:
        for character in chunk.text:
            if inside and character.isspace():
                # timed by the chunk that brings the white space, because until then the word may go on
                arrivals.append(chunk.at - sent)
            inside, at = not character.isspace(), chunk.at - sent
    return [*arrivals, at] if inside else arrivals
