"""The references of the long builds of chapters 04 to 06 agree with independent sources: scipy, and the lab's own rooms."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from zlib import crc32

import numpy as np
import pytest
from scipy.stats import binomtest

from labkit.caches import rehearse
from labkit.engines.answer import Answer, Failed
from labkit.engines.wire import Wire
from labkit.lab import traffic
from labkit.request import EngineError, Request, StreamIncomplete
from labkit.routing import Outcomes, at_threshold
from labkit.workbook.chapters.builds import b06
from labkit.workbook.chapters.builds.b04 import SameAnswer, play, rates_at
from labkit.workbook.chapters.builds.b05 import Router
from labkit.workbook.chapters.c04 import safe_threshold

# --- 04 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "hits"), [(0, 1), (0, 300), (1, 40), (7, 90), (89, 90), (90, 90)])
def test_the_bound_is_scipys_one_sided_clopper_pearson(wrong, hits):
    exact = binomtest(wrong, hits, alternative="less").proportion_ci(0.95, "exact").high
    assert SameAnswer(0.02).upper(wrong, hits) == pytest.approx(exact)


def test_the_threshold_is_that_of_exercise_04_3():
    rng = random.Random(4)
    for _ in range(20):
        scores = [round(rng.random(), 2) for _ in range(200)]
        right = [rng.random() < 0.6 + 0.4 * score for score in scores]
        judge = SameAnswer(0.1, 0.9)
        judge.calibrate([("Is it?", "Is it?", score, good) for score, good in zip(scores, right, strict=True)])
        assert judge.threshold == safe_threshold(scores, right, 0.1, 0.9)


class Spun:
    """Texts as random vectors; the same text gives the same one."""

    name, dimension = "spun", 8

    def encode(self, texts):
        drawn = np.stack([np.random.default_rng(crc32(text.encode())).normal(size=8) for text in texts])
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def test_playing_traffic_to_a_judge_is_a_rehearsal_with_its_second_look():
    asked = list(traffic("test", 150, 3, meanings_total=40, tenants=("a", "b")))
    judge = SameAnswer(0.02)
    contrast = lambda cached, new: ("apart",) if judge.apart(cached, new) else ()  # noqa: E731
    lab = rehearse([(q.tenant, q.text, q.answer) for q in asked], Spun(), contrast)
    found = play(judge, asked, Spun().encode([q.text for q in asked]))
    assert len(found) > 20
    for threshold in (-1.0, 0.5, 0.7, 0.9, 0.99):
        assert rates_at(found, len(asked), threshold) == pytest.approx(lab.at(threshold))


# --- 05 ----------------------------------------------------------------------------------------------------------------


def test_the_score_is_bayes_rule_in_fractions():
    router = Router(1, 9)
    router.train(["return a tent", "return 3 boots", "sum of 3 and 4", "sum of it"], [1, 1, 0, 1])
    odds = Fraction(3 + 1, 1 + 1)
    for feature in ("sum", "of", "#", "sum of", "of #"):
        holding = {
            verdict: sum(feature in router.features(text) for text in texts)
            for verdict, texts in {1: ("return a tent", "return 3 boots", "sum of it"), 0: ("sum of 3 and 4",)}.items()
        }
        odds *= Fraction(holding[1] + 1, 3 + 2) / Fraction(holding[0] + 1, 1 + 2)
    assert router.score("Sum of 77") == pytest.approx(float(odds / (1 + odds)))


@pytest.mark.parametrize(("right", "n"), [(0, 9), (9, 9), (285, 300), (1, 2)])
def test_surely_is_scipys_wilson_bound(right, n):
    wilson = binomtest(right, n, alternative="greater").proportion_ci(0.95, "wilson").low
    assert Router(1, 9).surely(right, n) == pytest.approx(wilson, abs=1e-4)


def test_without_a_question_skipped_the_bill_is_that_of_the_labs_cascade():
    rng = np.random.default_rng(5)
    chance = rng.random(200).round(2)
    small, large = rng.random(200) < chance, rng.random(200) < 0.95
    known = Outcomes(chance, small, large, rng.random(200), 9 * rng.random(200))
    router = Router(1, 9)
    router.calibrate(list(chance), list(known.right_small), list(known.right_large), 0.7)
    assert 0 < router.threshold < 1
    for threshold in (router.threshold, 0.5, math.inf):
        router.threshold = threshold
        routes = [router.route("Is it?", "Yes.", one, wants_json=False) for one in chance]
        cost, quality = router.bill(routes, known.right_small, known.right_large, known.cost_small, known.cost_large)
        assert cost == pytest.approx(at_threshold(threshold, "cost", "cascade")(known))
        assert quality == pytest.approx(at_threshold(threshold, "quality", "cascade")(known))


# --- 06 ----------------------------------------------------------------------------------------------------------------


def the_labs(pieces):
    """What the lab's own endpoint client makes of the bytes: the text, and "whole", "cut" or "failed"."""
    wire = Wire("", 10_000)
    answer = Answer(Request("Hello"), "m", 0.0, 0.0, 10_000, lambda _: None)
    text = ""
    try:
        for piece in pieces:
            for event in wire.events(piece):
                if not answer.finished and (chunk := answer.feed(event, 1.0)):
                    text += chunk.text
    except Failed:
        return text, "failed"
    return text, "whole" if answer.whole else "cut"


def the_references(pieces):
    reader = b06.AnswerReader()
    try:
        for piece in pieces:
            reader.feed(piece)
        reader.close()
    except StreamIncomplete:
        return reader.text, "cut"
    except EngineError:
        return reader.text, "failed"
    return reader.text, "whole"


@pytest.mark.parametrize("seed", range(40))
def test_the_reader_reads_what_the_labs_endpoint_client_reads(seed):
    rng = random.Random(seed)
    texts = rng.choices(("Hello", " 12 €", "\n- 帐篷", " 👍🏽", ' "quoted"', " data: x", " [DONE]"), k=rng.randrange(1, 9))
    wire = b06.on_the_wire(texts, {"prompt_tokens": 9, "completion_tokens": len(texts)})
    end = rng.choice(("whole", "cut", "failed"))
    if end != "whole":
        events = wire.split(b"\n\n")
        wire = b"\n\n".join(events[: rng.randrange(2, len(texts) + 2)]) + b"\n\n"
    if end == "failed":
        wire += b'data: {"error": {"message": "out of memory"}}\n\n'
    wire = wire.replace(b"\n", rng.choice((b"\n", b"\r\n", b"\r")))
    pieces = b06.cut_evenly(wire, rng.choice((1, 7, 100, 1400)))
    assert the_references(pieces) == the_labs(pieces)
    assert the_references(pieces)[1] == end
