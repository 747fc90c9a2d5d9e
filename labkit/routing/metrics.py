"""Numbers that sum a router up: RouteLLM's three metrics, calibration error, and a nearest-neighbour baseline.

RouteLLM (Ong et al., arXiv 2406.18665, section 3.2; `evals/evaluate.py` of lm-sys/RouteLLM) measures cost not as money but
as c, the share of calls to the large model. It measures quality as the recovered share of the gap between the two models.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from labkit.extras import extra
from labkit.request import InvalidValue
from labkit.routing.evaluate import Floats, Outcomes, frontier

if TYPE_CHECKING:
    import pandas as pd

_ROUNDING = 1e-9  # rounding may leave a sum of floats just short of a gap that is recovered


def pgr(quality: float, small: float, large: float) -> float:
    """Performance gap recovered: (quality − small) / (large − small). NaN where the large model is not the better one."""
    return (quality - small) / (large - small) if large > small else math.nan


def apgr(outcomes: Outcomes) -> float:
    """Average PGR: the integral of PGR over the share of large calls c from 0 to 1. A random router has 0.5.

    The integral is by trapezoids over every threshold, as in RouteLLM's code; the paper's text averages the PGR at c = 10 %,
    20 % … 100 %. NaN where the large model is not the better one.
    """
    curve = frontier(outcomes)
    gap = outcomes.right_small.mean(), outcomes.right_large.mean()
    return pgr(float(np.trapezoid(curve["quality"], curve["share_large"])), *gap)


def cpt(outcomes: Outcomes, recovered: float) -> float:
    """Call-performance threshold: the least share of large calls (0 to 1) with a PGR of `recovered` (0 to 1).

    CPT(50 %) is `cpt(outcomes, 0.5)`. Between two thresholds a coin toss can decide, so the curve is a straight line there,
    and the first crossing is taken. (RouteLLM's code interpolates with `np.interp`, which is only right where quality never
    falls.) NaN where the large model is not the better one; raises `InvalidValue` for a `recovered` outside 0 to 1.
    """
    if not 0 <= recovered <= 1:
        raise InvalidValue(f"the part of the gap to recover is {recovered}; use a share from 0 to 1 (50 % is 0.5)")
    small, large = float(outcomes.right_small.mean()), float(outcomes.right_large.mean())
    if not large > small:
        return math.nan
    curve = frontier(outcomes)
    share = curve["share_large"].to_numpy()
    regained = (curve["quality"].to_numpy() - small) / (large - small)
    at = int(np.argmax(regained >= recovered - _ROUNDING))
    if at == 0:
        return 0.0
    before, after = regained[at - 1], max(regained[at], recovered)
    return float(share[at - 1] + (recovered - before) / (after - before) * (share[at] - share[at - 1]))


def reliability(score: ArrayLike, right: ArrayLike, bins: int = 10) -> pd.DataFrame:
    """How often requests of about the same score were right: one row per non-empty bin of equal width.

    Columns: `low` and `high` of the bin (it holds scores in (low, high]; a score of 0 is in the first bin), `count`, `score`
    (mean) and `right` (mean). Raises `InvalidValue` for columns that do not match and for scores outside 0 to 1.
    """
    with extra("analysis"):
        import pandas as pd  # not above: it takes half a second to import

    scores, rights = np.asarray(score, float), np.asarray(right, float)
    if scores.shape != rights.shape or scores.ndim != 1 or not scores.size or bins < 1:
        raise InvalidValue(
            f"{scores.shape} scores, {rights.shape} verdicts, {bins} bins; give one verdict per score, 1+ bins"
        )
    if not ((scores >= 0) & (scores <= 1)).all():
        raise InvalidValue("scores must lie from 0 to 1 to be read as probabilities; calibrate them first")
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.clip(np.searchsorted(edges, scores, side="left") - 1, 0, bins - 1)
    table = (
        pd.DataFrame({"bin": bin_of, "score": scores, "right": rights})
        .groupby("bin")
        .agg(count=("score", "size"), score=("score", "mean"), right=("right", "mean"))
    )
    table.insert(0, "low", edges[table.index])
    table.insert(1, "high", edges[table.index + 1])
    return table.reset_index(drop=True)


def ece(score: ArrayLike, right: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: Σ (n_bin / n) · |mean right − mean score| over bins of equal width (Guo et al. 2017)."""
    table = reliability(score, right, bins)
    return float((table["count"] / table["count"].sum() * (table["right"] - table["score"]).abs()).sum())


def knn_scores(known: ArrayLike, right: ArrayLike, asked: ArrayLike, k: int = 20) -> Floats:
    """The baseline router: how often the small model was right on the `k` known requests nearest by cosine.

    `known` and `asked` hold one vector per row; `right` is 0 or 1 for each row of `known`. The result has one share (0 to 1)
    for each row of `asked`. A trained router that does not beat this baseline has learnt no more than a look-up. Raises
    `InvalidValue` for shapes that do not match and for a `k` outside 1 to the number of known rows.
    """
    with extra("analysis"):
        from sklearn.neighbors import NearestNeighbors  # not above: scikit-learn takes seconds to import

    vectors, rights, queries = np.asarray(known, float), np.asarray(right, float), np.asarray(asked, float)
    if vectors.ndim != 2 or len(vectors) != rights.size or queries.ndim != 2 or queries.shape[1] != vectors.shape[1]:
        raise InvalidValue(f"known {vectors.shape}, right {rights.shape}, asked {queries.shape}; give rows of one width")
    if not 1 <= k <= len(vectors):
        raise InvalidValue(f"k is {k} and {len(vectors)} requests are known; use 1 to {len(vectors)}")
    near = NearestNeighbors(n_neighbors=k, metric="cosine").fit(vectors).kneighbors(queries, return_distance=False)
    return np.asarray(rights[near].mean(axis=1), float)
