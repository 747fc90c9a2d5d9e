"""How noisy this machine is now: how far two runs of one probe lie apart, and how busy everybody else keeps the cores."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

# Above either, a timing says more about the machine's other work than about its own. On two cores (2026-11-29), where all
# else rests, a notebook's own threads spread the probe by up to 1.36; beside a busy process for each core the spread is 1.05
# to 7.7, and the others' share 0.86 to 0.96.
STEADY, ALONE = 1.4, 0.25
_PROBES, _WORK = 25, 60_000
_SETTLE_S = 0.25


@dataclass(frozen=True, slots=True)
class Noise:
    """The state of this machine while it was gauged.

    `spread` is how many times as long the slow runs of the probe took as the fast ones (the ninth decile over the first; 1
    is perfectly steady). `others` is the share of all cores that other processes kept busy, 0 to 1.
    """

    spread: float
    others: float

    @property
    def quiet(self) -> bool:
        """Whether timings made now can be trusted."""
        return self.spread <= STEADY and self.others <= ALONE

    def __str__(self) -> str:
        return (
            f"two runs of the same work lie {self.spread:.2f} times apart, and other processes keep "
            f"{100 * self.others:.0f} % of the cores busy"
        )


def gauge(tries: int = 3) -> Noise:
    """The quietest of up to `tries` gaugings, each of about a tenth of a second; the first quiet one ends it.

    A notebook that is being saved or drawn keeps a core busy for a moment; that is not the machine's state. Call it while
    nothing of your own runs beside it.
    """
    found = [_gauge()]
    while not found[-1].quiet and len(found) < tries:
        time.sleep(_SETTLE_S)
        found.append(_gauge())
    return min(found, key=lambda noise: (not noise.quiet, noise.others, noise.spread))


def _gauge() -> Noise:
    me, cores = psutil.Process(), psutil.cpu_count() or 1
    before, mine = psutil.cpu_times(), me.cpu_times()
    begin = time.perf_counter()
    took = sorted(_probe() for _ in range(_PROBES))
    time.sleep(0.05)  # others may have been waiting for the core that the probe took
    wall = time.perf_counter() - begin
    after, mine_after = psutil.cpu_times(), me.cpu_times()
    own = mine_after.user + mine_after.system - mine.user - mine.system
    others = (_busy(after) - _busy(before) - own) / (cores * wall)
    return Noise(took[int(0.9 * _PROBES)] / took[int(0.1 * _PROBES)], min(1.0, max(0.0, others)))


def _probe() -> float:
    """Seconds of a fixed piece of arithmetic."""
    begin = time.perf_counter()
    sum(range(_WORK))
    return time.perf_counter() - begin


def _busy(times: object) -> float:
    """Seconds that the cores were busy: all but idle and waiting for a disk. What a hypervisor stole counts as busy."""
    fields = getattr(times, "_asdict")()  # noqa: B009 - psutil's named tuple differs between systems
    return float(sum(value for name, value in fields.items() if name not in ("idle", "iowait", "guest", "guest_nice")))
