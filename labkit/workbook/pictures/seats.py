"""A batch as it fills and drains, step by step, under the batching policies of `labkit.batching`."""

from __future__ import annotations

import string
from collections.abc import Sequence

from labkit.batching import Job, Limits, Schedule, StepPolicy, continuous, run_schedule, static
from labkit.request import InvalidValue
from labkit.workbook.pictures.picture import Picture
from labkit.workbook.pictures.sheet import PLAIN, ROTATION, SMALL, WIDTH, Sheet, width_of

_POLICIES: dict[str, tuple[StepPolicy, str]] = {
    "static": (static, "In whole batches: who ends early leaves an empty seat"),
    "continuous": (continuous, "Seat by seat: a free seat is taken in the next step"),
}
_NAMES = string.ascii_uppercase
_LEFT, _ROW, _MOST = 58, 28, 45
_STEP_S = 0.45


def batch_fill(lengths: Sequence[int], seats: int, policies: Sequence[str] = ("static", "continuous")) -> Picture:
    """Requests that are all there at the start and take `lengths` steps each, on `seats` seats, under each policy.

    Each policy ("static", "continuous") is run by `run_schedule` with one token a request and step. Raises `InvalidValue`
    for another policy, for more than 26 requests, and for more than 45 steps, which would be too narrow to see.
    """
    if not 1 <= len(lengths) <= len(_NAMES) or seats < 1:
        raise InvalidValue(f"{len(lengths)} requests on {seats} seats; use 1 to {len(_NAMES)} requests and 1 seat or more")
    if not policies or (unknown := [name for name in policies if name not in _POLICIES]):
        raise InvalidValue(
            f"policies are {list(policies)}; use some of {', '.join(_POLICIES)}" + (f", not {unknown}" if policies else "")
        )
    jobs = [Job(0.0, 1, length) for length in lengths]
    runs = {name: run_schedule(jobs, _POLICIES[name][0], Limits(seats, seats), lambda *_: 1.0) for name in policies}
    steps = round(max(run.finish for run in runs.values()))
    if steps > _MOST:
        raise InvalidValue(
            f"the longest schedule takes {steps} steps; a picture shows up to {_MOST}, so use shorter requests"
        )
    sheet, scale = Sheet(), (WIDTH - _LEFT - 12) / steps
    top = 0.0
    told = []
    for name, run in runs.items():
        done, empty = round(run.finish), seats * round(run.finish) - sum(lengths)
        told.append(f"{done} steps {name}, with {empty} of {seats * done} places empty")
        sheet.words(0, top + 15, _POLICIES[name][1], anchor="start", bold=True)
        sheet.words(WIDTH - 4, top + 15, f"{done} steps", anchor="end", bold=True)
        _panel(sheet, top + 26, run, seats, scale, steps)
        top += 26 + _ROW * seats + 16
    _axis(sheet, top - 10, scale, steps)
    names = ", ".join(f"{_NAMES[i]} {length}" for i, length in enumerate(lengths))
    return sheet.picture(
        top + 26,
        title="A batch as it fills and drains",
        alt=f"{len(lengths)} requests on {seats} seats, with the steps that each takes: {names}. " + "; ".join(told) + ".",
        caption=f"The same {len(lengths)} requests on {seats} seats: "
        + "; ".join(told)
        + ". Hatched: a seat that nobody uses.",
    )


def seated(run: Schedule) -> list[tuple[int, int, int, int]]:
    """(job, seat, first step, step after the last) of each job, in order of entry; a job takes the lowest free seat."""
    free_at: list[int] = []
    placed = []
    spans: dict[int, tuple[int, int]] = {}
    for number, step in enumerate(run.steps):
        for job in step.tokens:
            spans[job] = (spans.get(job, (number, 0))[0], number + 1)
    for job, (start, end) in sorted(spans.items(), key=lambda item: (item[1][0], item[0])):
        seat = next((i for i, at in enumerate(free_at) if at <= start), len(free_at))
        free_at[seat : seat + 1] = [end]
        placed.append((job, seat, start, end))
    return placed


def _panel(sheet: Sheet, top: float, run: Schedule, seats: int, scale: float, steps: int) -> None:
    last = round(run.finish)
    placed = seated(run)
    for seat in range(seats):
        sheet.words(0, top + _ROW * seat + 17, f"seat {seat + 1}", anchor="start", size=SMALL)
    with sheet.sweep(_LEFT, top, scale * steps, _ROW * seats, _STEP_S * steps, steps):
        for seat in range(seats):
            y, at = top + _ROW * seat, 0
            for job, _, start, end in sorted((one for one in placed if one[1] == seat), key=lambda one: one[2]):
                if start > at:
                    sheet.hatch(_LEFT + scale * at, y, scale * (start - at), _ROW - 4)
                sheet.box(
                    _LEFT + scale * start + 0.6, y, scale * (end - start) - 1.2, _ROW - 4, ROTATION[job % len(ROTATION)]
                )
                name = _NAMES[job]
                size = PLAIN if scale * (end - start) >= width_of(name, PLAIN, True) else SMALL
                sheet.words(_LEFT + scale * (start + end) / 2, y + 17, name, size=size, bold=True)
                at = end
            if last > at:
                sheet.hatch(_LEFT + scale * at, y, scale * (last - at), _ROW - 4)
        sheet.line([(_LEFT + scale * last, top - 5), (_LEFT + scale * last, top + _ROW * seats)], thick=True)


def _axis(sheet: Sheet, y: float, scale: float, steps: int) -> None:
    sheet.line([(_LEFT, y), (_LEFT + scale * steps, y)])
    every = 1 if steps <= 12 else 2 if steps <= 24 else 5
    for step in range(0, steps + 1, every):
        sheet.line([(_LEFT + scale * step, y), (_LEFT + scale * step, y + 4)])
        sheet.words(_LEFT + scale * step, y + 18, str(step), size=SMALL)
    sheet.words(0, y + 18, "step", anchor="start", size=SMALL)
