"""A trained signal: logistic regression on a text's embedding and its surface features, then calibrated."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labkit.extras import extra
from labkit.request import InvalidValue, Request
from labkit.routing.calibration import Calibration, Method, calibrate
from labkit.routing.signals import Score, question

if TYPE_CHECKING:
    from labkit.embeddings import Embedder

_FORMAT = 1
_FOLDS = 4  # one fold in four is held out for the calibration
FEATURES = ("log characters", "log words", "digits per character", "numbers", "question marks", "lines", "capitals")


def features(texts: Sequence[str]) -> NDArray[np.float64]:
    """Surface features of texts: one row each, columns as in `FEATURES`. A count n is log(1 + n), to bound its effect."""
    rows = [
        (
            np.log1p(len(text)),
            np.log1p(len(text.split())),
            sum(map(str.isdigit, text)) / max(len(text), 1),
            np.log1p(len(re.findall(r"\d+", text))),
            np.log1p(text.count("?")),
            np.log1p(text.count("\n")),
            sum(map(str.isupper, text)) / max(len(text), 1),
        )
        for text in texts
    ]
    return np.array(rows, float).reshape(len(rows), len(FEATURES))


@dataclass(frozen=True, slots=True)
class Weights:
    """A trained classifier as numbers: kept as JSON, never as a pickle, because loading a pickle runs code.

    The log-odds are `bias` + Σ `weights` · (embedding, (features − `mean`) / `scale`); `calibration` then maps the raw
    probability. `embedder` names the model that the weights were trained with; `held_out` is the number of requests that the
    calibration was fitted on.
    """

    embedder: str
    weights: tuple[float, ...]
    bias: float
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    calibration: Calibration
    held_out: int


@dataclass(frozen=True)
class Classifier:
    """The probability that the small model is right, from the text of a request; a `Signal`.

    Raises `InvalidValue` where `weights` were trained with another embedder, or with vectors of another length.
    """

    weights: Weights
    embedder: Embedder

    def __post_init__(self) -> None:
        weights, embedder = self.weights, self.embedder
        if weights.embedder != embedder.name:
            raise InvalidValue(
                f"this classifier was trained on vectors of {weights.embedder}, not of {embedder.name}; "
                "use that embedder or train again"
            )
        if len(weights.weights) != embedder.dimension + len(FEATURES):
            raise InvalidValue(
                f"this classifier has {len(weights.weights)} weights, needs {embedder.dimension + len(FEATURES)}: one for "
                "each number of a vector and each feature; train again"
            )

    @classmethod
    def train(
        cls, texts: Sequence[str], right: ArrayLike, embedder: Embedder, seed: int = 0, method: Method = "platt"
    ) -> Classifier:
        """Learn from `texts` and whether the small model got each of them right (1 or 0).

        `seed` chooses the quarter that is held out for the calibration. All copies of a text that occurs more than once stay
        on the same side. Raises `InvalidValue` where the number of verdicts is not that of the texts, and where fewer than
        8 different texts were right or fewer than 8 were wrong.
        """
        with extra("analysis"):
            from sklearn.linear_model import LogisticRegression  # not above: scikit-learn takes seconds to import
            from sklearn.model_selection import StratifiedGroupKFold

        rights = np.asarray(right, int)
        if len(texts) != rights.size:
            raise InvalidValue(f"{len(texts)} texts and {rights.size} verdicts; give one verdict per text")
        distinct, groups = np.unique(np.array(texts, dtype=object), return_inverse=True)
        per_class = [len(set(groups[rights == verdict])) for verdict in (0, 1)]
        if min(per_class) < 2 * _FOLDS:
            raise InvalidValue(
                f"{len(distinct)} texts, {per_class[1]} of them right and {per_class[0]} wrong; a classifier wants "
                f"at least {2 * _FOLDS} of both"
            )
        looks = features(texts)
        folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
        train, held_out = next(folds.split(looks, rights, groups))
        mean, scale = looks[train].mean(axis=0), looks[train].std(axis=0)
        scale[scale == 0] = 1.0
        inputs = np.hstack([embedder.encode(list(texts)), (looks - mean) / scale])
        model = LogisticRegression(max_iter=2000).fit(inputs[train], rights[train])
        raw = model.predict_proba(inputs[held_out])[:, 1]
        weights = Weights(
            embedder.name,
            tuple(model.coef_[0].tolist()),
            float(model.intercept_[0]),
            tuple(mean.tolist()),
            tuple(scale.tolist()),
            calibrate(raw, rights[held_out], method),
            len(held_out),
        )
        return cls(weights, embedder)

    def predict(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The calibrated probabilities of many texts, in their order."""
        own = self.weights
        looks = (features(texts) - np.array(own.mean)) / np.array(own.scale)
        inputs = np.hstack([self.embedder.encode(list(texts)), looks])
        odds = np.clip(inputs @ np.array(own.weights) + own.bias, -500, 500)
        return own.calibration.all(1 / (1 + np.exp(-odds)))

    def __call__(self, request: Request) -> Score:
        """The score of one request, from the text that `question` takes from it."""
        started = time.perf_counter()
        value = float(self.predict([question(request)])[0])
        return Score(value, "classifier", seconds=time.perf_counter() - started)

    def to_json(self) -> str:
        """The classifier as JSON text; of the embedder it holds only the name."""
        return json.dumps({"format": _FORMAT, **asdict(self.weights)})

    @classmethod
    def from_json(cls, text: str, embedder: Embedder) -> Classifier:
        """The classifier that `to_json` wrote; raises `InvalidValue` for anything else, and for another embedder."""
        try:
            data = json.loads(text)
            if data.pop("format") != _FORMAT:
                raise ValueError(f"its format is not {_FORMAT}")
            data["calibration"] = Calibration.from_data(data["calibration"])
            for name in ("weights", "mean", "scale"):
                data[name] = tuple(map(float, data[name]))
            weights = Weights(**data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidValue(f"this is no classifier that to_json wrote: {error!r}; train one and save it") from error
        return cls(weights, embedder)
