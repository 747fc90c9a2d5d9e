from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json

import numpy as np
import pytest
from scipy.optimize import minimize

from benchmarks.routing import asked
from labkit.request import InvalidValue, Request
from labkit.routing.calibration import Calibration, calibrate
from labkit.routing.classifier import FEATURES, Classifier, features
from labkit.routing.metrics import ece


class Hashed:
    """An embedder without a model: words hashed into a few buckets."""

    name, dimension = "hashed@1", 16

    def encode(self, texts):
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row[hashlib.sha256(word.encode()).digest()[0] % self.dimension] += 1
            row /= max(np.linalg.norm(row), 1e-9)
        return rows


def traffic(n, seed):
    """Questions with a number in them are right one time in five, the others nine times in ten."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n) < 0.5
    texts = [
        f"what is {rng.integers(99)} times {rng.integers(99)} plus {i}"
        if h
        else f"where is my parcel {'x' * (i % 40)} please"
        for i, h in enumerate(hard)
    ]
    truth = np.where(hard, 0.2, 0.9)
    return texts, (rng.random(n) < truth).astype(int), truth


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_classifier_finds_the_probabilities_that_made_its_data(method):
    texts, right, _ = traffic(3000, 1)
    trained = Classifier.train(texts, right, Hashed(), seed=3, method=method)
    fresh, outcome, truth = traffic(2000, 2)
    found = trained.predict(fresh)
    assert np.abs(found - truth).mean() < 0.06
    assert ece(found, outcome) < 0.05


def test_json_brings_back_the_same_classifier_and_no_other_embedder_may_use_it():
    texts, right, _ = traffic(200, 1)
    trained = Classifier.train(texts, right, Hashed())
    again = Classifier.from_json(trained.to_json(), Hashed())
    assert again.weights == trained.weights
    assert again(Request(texts[0])).value == trained(Request(texts[0])).value == pytest.approx(trained.predict(texts)[0])
    other = Hashed()
    other.name = "other@1"
    with pytest.raises(InvalidValue, match=r"hashed@1, not of other@1"):
        Classifier.from_json(trained.to_json(), other)
    for broken in ("[]", "{}", "x", trained.to_json().replace('"format": 1', '"format": 2')):
        with pytest.raises(InvalidValue, match="no classifier"):
            Classifier.from_json(broken, Hashed())
    short = json.loads(trained.to_json())
    short["weights"].pop()
    with pytest.raises(InvalidValue, match=r"22 weights, needs 23"):
        Classifier.from_json(json.dumps(short), Hashed())


def test_training_is_a_function_of_its_seed():
    texts, right, _ = traffic(200, 1)
    weights = [Classifier.train(texts, right, Hashed(), seed).weights for seed in (1, 1, 2)]
    assert weights[0] == weights[1] != weights[2]


def test_a_text_that_occurs_often_never_stands_on_both_sides_of_the_calibration():
    # 41 texts, each 7 times: a quarter of 287 rows is no multiple of 7, a quarter of the texts is.
    texts = [f"question {i} {'word ' * i}" for i in range(41)] * 7
    right = np.tile(np.random.default_rng(0).integers(0, 2, 41), 7)
    assert Classifier.train(texts, right, Hashed()).weights.held_out % 7 == 0


@pytest.mark.parametrize(("right", "says"), [([1] * 40, "0 wrong"), ([1] * 33 + [0] * 7, "7 wrong"), ([1], "1 verdicts")])
def test_too_little_to_learn_from_is_said(right, says):
    with pytest.raises(InvalidValue, match=says):
        Classifier.train([f"text {i}" for i in range(40)], right, Hashed())


def test_features_are_finite_for_any_text_and_one_row_each():
    rows = features(["", "A1?\nb", "x" * 100_000])
    assert rows.shape == (3, len(FEATURES))
    assert np.isfinite(rows).all()
    assert rows[1] == pytest.approx([np.log(6), np.log(3), 1 / 5, np.log(2), np.log(2), np.log(2), 1 / 5])


def test_platt_is_the_maximum_of_its_likelihood():
    rng = np.random.default_rng(0)
    raw = rng.random(400)
    right = (rng.random(400) < raw**2).astype(float)
    found = calibrate(raw, right)
    odds = np.log(raw / (1 - raw))

    def loss(x):
        return np.logaddexp(0, -(2 * right - 1) * (x[0] * odds + x[1])).sum()

    best = minimize(loss, [1.0, 0.0]).x
    assert (found.xs[0], found.ys[0]) == pytest.approx(tuple(best), abs=1e-3)


def test_isotonic_pools_violators_as_worked_by_hand():
    found = calibrate([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], "isotonic")
    assert found.all([0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 1.0]) == pytest.approx([0, 0, 0.5, 0.5, 0.5, 1, 1])


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_calibration_survives_json_and_takes_the_edges(method):
    found = calibrate([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0, 0, 1, 0, 1, 1], method)
    assert Calibration.from_data(json.loads(json.dumps(dataclasses.asdict(found)))) == found
    assert 0 <= found(0.0) <= found(1.0) <= 1


@pytest.mark.parametrize(
    ("raw", "right", "says"),
    [
        ([0.1, 0.2], [1, 1], "right and wrong"),
        ([0.1, 1.2], [0, 1], "from 0 to 1"),
        ([0.1], [0, 1], "one verdict per score"),
        ([0.9, 0.8, 0.7, 0.1, 0.2, 0.3], [0, 1, 0, 1, 1, 0], "backwards"),
    ],
)
def test_calibration_refuses_what_it_cannot_fit(raw, right, says):
    with pytest.raises(InvalidValue, match=says):
        calibrate(raw, right)


def test_a_calibration_that_cannot_be_is_refused():
    for make in (lambda: calibrate([0.1, 0.9], [0, 1], "Isotonic"), lambda: Calibration("Isotonic", (0.0,), (0.0,))):
        with pytest.raises(InvalidValue, match="method 'Isotonic' is unknown"):
            make()
    with pytest.raises(InvalidValue, match="finite"):
        Calibration("platt", (float("nan"),), (0.0,))


def test_the_benchmark_fits_on_no_question_twice_and_on_none_of_its_test():
    train = asked("dev", 40, 1)
    texts = [{e.messages[-1].content for e in part} for part in (train, asked("dev", 40, 2, apart_from=train))]
    texts.append({e.messages[-1].content for e in asked("test", 40, 3)})
    assert texts[0] & {e.messages[-1].content for e in asked("dev", 40, 2)}, "drawn alone, the parts overlap"
    assert not any(one & other for one, other in itertools.combinations(texts, 2))
