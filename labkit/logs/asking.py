"""The question of each chapter, asked of one's own file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from labkit.logs.basics import overview
from labkit.logs.bills import money
from labkit.logs.call import Log
from labkit.logs.concurrency import together
from labkit.logs.cuts import cut_short
from labkit.logs.labelled import Graded, Pairs, read_labels, routing, threshold, ungraded
from labkit.logs.latencies import waiting
from labkit.logs.named import attributed
from labkit.logs.numbers import OwnNumber
from labkit.logs.readers import leaving
from labkit.logs.reading import read_log
from labkit.logs.redundant import spare
from labkit.logs.repeats import repeated
from labkit.logs.retried import wasted
from labkit.logs.sessions import memory
from labkit.logs.shared import prefixes
from labkit.request import InvalidValue

QUESTIONS: Mapping[str, Callable[[Log], OwnNumber]] = {
    "00": overview,
    "01": money,
    "02": waiting,
    "03": prefixes,
    "04": repeated,
    "05": ungraded,
    "06": leaving,
    "07": together,
    "08": memory,
    "09": spare,
    "10": cut_short,
    "12": wasted,
    "13": attributed,
}
"""By chapter, what is asked of a log; each function takes settings of its own, too."""


def ask(chapter: str, path: str | os.PathLike[str]) -> tuple[OwnNumber, str]:
    """The number of `chapter` in the file at `path`, and what the file was read as, in a sentence.

    A file of labels answers chapters 04 (pairs) and 05 (graded requests); every other file is read by `read_log`. Raises
    `InvalidValue` for a chapter without a question, and as `read_log` and `read_labels` do.
    """
    if chapter not in QUESTIONS:
        raise InvalidValue(f"chapter {chapter!r} asks nothing of a log; these do: {', '.join(QUESTIONS)}")
    if chapter in ("04", "05"):
        labels = read_labels(path)
        if isinstance(labels, Pairs) and chapter == "04":
            return threshold(labels), f"{labels.name}, read as {len(labels.scores):,} labelled pairs."
        if isinstance(labels, Graded) and chapter == "05":
            return routing(labels), f"{labels.name}, read as {len(labels.outcomes):,} graded requests."
    log = read_log(path)
    return QUESTIONS[chapter](log), log.told
