"""A rehearsal: labelled traffic is played to a semantic cache that stores every question but answers none.

Each label says which answer was right at the time. So you learn, before the cache serves anybody, how often the nearest
earlier answer would have been right too, and at which scores. Calibrate on one part of the traffic and judge on another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labkit.caches.acceptance import Acceptance, Observation
from labkit.caches.contrast import Difference, differences
from labkit.caches.index import Index
from labkit.embeddings import Embedder, unit
from labkit.request import InvalidValue


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The comparisons of a rehearsal: one for each question that found an earlier one.

    `scores` (n,): how alike the two questions are. `right` (n,): whether the old answer was right. `entries` (n,): the place
    of the earlier question in the traffic. `questions`: how many were asked in all. `apart`: how many found only questions
    that the contrast check refuses.
    """

    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    entries: tuple[int, ...]
    questions: int
    apart: int

    def at(self, threshold: float) -> tuple[float, float]:
        """Hit rate and false-hit rate (wrong per hit; 0 without hits) of a fixed threshold on this traffic."""
        hit = self.scores >= threshold
        wrong = float((hit & ~self.right).sum() / hit.sum()) if hit.any() else 0.0
        return float(hit.sum() / self.questions), wrong

    def learned(self, acceptance: Acceptance) -> tuple[float, float]:
        """Hit rate and false-hit rate of an `acceptance` that learns.

        As in the cache, it learns from each answer that it does not give.
        """
        seen: dict[int, list[Observation]] = defaultdict(list)
        hits = wrong = 0
        for score, right, entry in zip(self.scores, self.right, self.entries, strict=True):
            if acceptance.decide(float(score), seen[entry]).accept:
                hits, wrong = hits + 1, wrong + (not right)
            else:
                seen[entry].append(Observation(float(score), bool(right)))
        return hits / self.questions, wrong / max(hits, 1)


def rehearse(
    questions: Iterable[tuple[Hashable, str, str]],
    embedder: Embedder,
    contrast: Callable[[str, str], Sequence[Difference]] | None = differences,
    *,
    candidates: int = 4,
) -> Rehearsal:
    """Play `questions`, each (partition, text, right answer), in their order. `contrast=None` looks at scores only.

    `candidates` earlier questions are looked at, nearest first. Raises `InvalidValue` if there are no questions, and
    `BadVector` if the embedder gives vectors that cannot be compared.
    """
    asked = list(questions)
    if not asked:
        raise InvalidValue("there are no questions to rehearse; give at least one (partition, text, answer)")
    vectors = unit(embedder.encode([text for _, text, _ in asked]), embedder.dimension, embedder.name)
    index = Index(embedder.dimension)
    scores, right, entries, apart = [], [], [], 0
    for place, ((partition, text, answer), vector) in enumerate(zip(asked, vectors, strict=True)):
        near = [(int(key), score) for key, score in index.nearest(partition, vector, candidates)]
        fit = [(i, s) for i, s in near if contrast is None or asked[i][1] == text or not contrast(asked[i][1], text)]
        if fit:
            earlier, score = fit[0]
            scores.append(score)
            right.append(asked[earlier][2] == answer)
            entries.append(earlier)
        elif near:
            apart += 1
        index.add(partition, str(place), vector)
    return Rehearsal(np.array(scores), np.array(right, bool), tuple(entries), len(asked), apart)
