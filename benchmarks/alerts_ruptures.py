"""The change detector beside `ruptures`, as a referee that sees the whole day and may look back.

`ruptures` 1.1.10 finds where a day is best cut in two (binary segmentation, squared error of the standardised log cost of a
request, which is the best single change for that cost). Its threshold on the gain of that cut is set on null days to the
same false-alarm rate. So it says how many of the planted days can be found at all, and where the change lies; the CUSUM has
to say so while the day goes on.

    pip install --no-deps --target FOLDER ruptures==1.1.10
    python -m benchmarks.alerts_ruptures --peer FOLDER [--trace TRACE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit.alerts import Cusum, SpendingDay, score_alert, spending_days
from labkit.load import read_trace

RATE = 0.05
STEP_S = 900.0


def _best_cut(rpt: Any, detector: Cusum, day: SpendingDay) -> tuple[float, float]:
    """Where the day is best cut in two, in seconds from midnight, and the gain of that cut; no gain where costs fall."""
    scores = np.nan_to_num((np.log(day.cost_per_request()) - detector.usual) / detector.spread).clip(-4, 4)
    search = rpt.Binseg(model="l2", min_size=2, jump=1).fit(scores)
    place = search.predict(n_bkps=1)[0]
    rises = scores[place:].mean() > scores[:place].mean()
    gain = float(search.cost.sum_of_costs([len(scores)]) - search.cost.sum_of_costs([place, len(scores)]))
    return place * STEP_S, gain if rises else 0.0


def _compare(rpt: Any, costs: Sequence[float] | None) -> None:
    usual = spending_days(28, 1, planted=0, costs=costs)
    detector = Cusum.fitted(usual, false_alarms=RATE)
    null = spending_days(400, 2, planted=0, costs=costs)
    least = float(np.quantile([_best_cut(rpt, detector, day)[1] for day in null], 1 - RATE, method="higher"))
    print(f"false alarms of the CUSUM on 400 null days: {score_alert(detector.fires, null).false_alarm_rate:.1%}")
    for kind in ("step", "share", "creep"):
        days = spending_days(150, 3, planted=1, costs=costs, kinds=(kind,))  # type: ignore[arg-type]
        cuts = [_best_cut(rpt, detector, day) for day in days]
        alarms = [detector.watch((day,)) for day in days]
        began = [day.began or 0.0 for day in days]
        found = [abs(at - start) for (at, gain), start in zip(cuts, began, strict=True) if gain > least]
        ours = [(a.at - b, abs(a.since - b)) for a, b in zip(alarms, began, strict=True) if a is not None and a.at >= b]
        delay, since = np.median(np.array(ours), axis=0) / 3600
        print(
            f"{kind:6} ruptures, afterwards: {len(found) / len(days):4.0%} found, {np.median(found) / 3600:.1f} h off | "
            f"CUSUM: {len(ours) / len(days):4.0%} found after {delay:.1f} h, beginning {since:.1f} h off"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--peer", required=True, help="the folder in which ruptures is installed")
    parser.add_argument("--trace", help="a trace whose requests, at 1 and 4 dollars a million tokens, are drawn from")
    given = parser.parse_args()
    sys.path.append(given.peer)
    import ruptures

    rows = read_trace(given.trace) if given.trace else None
    _compare(ruptures, None if rows is None else [(row.input_tokens + 4 * row.output_tokens) / 1e6 for row in rows])
