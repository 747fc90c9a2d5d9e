"""The classifier's sums are those of its layers, and its training finds which words matter."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path

import numpy as np
import pytest

from labkit.request import InvalidValue, Message, Request
from labkit.shrink import NOTHING, KeepDrop
from labkit.shrink.keepdrop import BUCKETS, NUMBERS, KeepDropModel, features, keepdrop_model
from labkit.shrink.train import Trial, drawn, fitted, judged, taken_out
from labkit.shrink.wording import words

PROMPT = (
    Message("system", "Decide by this policy. Return window rope days. Parcels leave soon."),
    Message("user", "My rope broke. What do I get?"),
)


def known(messages=PROMPT):  # type: ignore[no-untyped-def]
    return {n: words(m.content, NOTHING) for n, m in enumerate(messages)}


def random_model(seed: int, size: int = 3, hidden: int = 4) -> KeepDropModel:
    rng = np.random.default_rng(seed)
    wide = size * 7 + NUMBERS
    return KeepDropModel(
        *(rng.normal(size=shape).astype(np.float32) for shape in ((BUCKETS, size), (wide, hidden), (hidden,), (hidden,))),
        -0.5,
    )


def test_needed_is_what_the_layers_give_word_by_word() -> None:
    model, seen = random_model(1), features(PROMPT, known())
    found = model.needed(seen)
    assert len(found) == len(seen.hashes) > 0
    mean = [sum(float(model.table[h[0]][k]) for h in seen.hashes) / len(seen.hashes) for k in range(3)]
    for i in range(len(found)):
        inputs = [float(x) for h in seen.hashes[i] for x in model.table[h]] + mean + [float(x) for x in seen.numbers[i]]
        hidden = [
            max(
                0.0, sum(x * float(w) for x, w in zip(inputs, model.hidden[:, j], strict=True)) + float(model.hidden_bias[j])
            )
            for j in range(4)
        ]
        logit = sum(h * float(w) for h, w in zip(hidden, model.out, strict=True)) + model.out_bias
        assert found[i] == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-4)


def test_features_say_what_a_word_is_and_where_it_stands() -> None:
    seen = features(PROMPT, known())
    assert seen.hashes.shape == (len(seen.numbers), 6)
    texts = [m.content[w.start : w.end] for m, found in zip(PROMPT, known().values(), strict=True) for w in found]
    rope = texts.index("rope")
    assert seen.numbers[rope][9] == 1  # the question says it, too
    assert seen.numbers[texts.index("leave")][10] == 0
    assert seen.numbers[texts.index("window")][10] == 1  # so its sentence has to do with the question
    assert seen.hashes[0][2] == 0  # nothing stands before the first word
    assert seen.hashes[rope][0] == seen.hashes[len(texts) - 1 - texts[::-1].index("rope")][0]
    assert features((Message("user", ""),), known((Message("user", ""),))).hashes.shape == (0, 6)
    assert ((seen.numbers >= 0) & (seen.numbers <= 1)).all()


def test_weights_survive_the_file_and_others_are_refused(tmp_path: Path) -> None:
    model = random_model(2)
    model.save(tmp_path)
    seen = features(PROMPT, known())
    assert keepdrop_model(str(tmp_path)).needed(seen) == pytest.approx(model.needed(seen), abs=0.02)
    with pytest.raises(FileNotFoundError, match=r"labkit\.shrink\.train"):
        keepdrop_model(str(tmp_path / "none"))
    KeepDropModel(model.table[:9], model.hidden, model.hidden_bias, model.out, 0.0).save(tmp_path / "other")
    with pytest.raises(InvalidValue, match="another version"):
        keepdrop_model(str(tmp_path / "other"))


def test_the_surest_words_go_first_and_each_cut_gives_the_probability(tmp_path: Path) -> None:
    model = random_model(3)
    model.save(tmp_path)
    lever = KeepDrop(rate=0.6, model=str(tmp_path), protect=NOTHING, count=lambda t: len(t.split()))
    shrunk = asyncio.run(lever.shrink(Request(PROMPT)))
    needed = keepdrop_model(str(tmp_path)).needed(features(PROMPT, known()))
    least = int(needed.argmin())
    texts = [(n, w) for n, found in known().items() for w in found]
    number, word = texts[least]
    held = [cut for cut in shrunk.steps[0].cuts if cut.message == number and cut.start <= word.start and word.end <= cut.end]
    assert held
    assert "probability" in held[0].why


def test_training_finds_the_words_that_matter() -> None:
    rng = random.Random(5)
    trials = []
    for number in range(60):
        example = drawn("train", "intent", number % 20)
        texts = [m.content for m in example.messages]
        every = [(n, i) for n, text in enumerate(texts) for i in range(len(words(text, NOTHING)))]
        gone = tuple(sorted(rng.sample(every, 5)))
        lost = {texts[n][w.start : w.end] for n, i in gone for w in [words(texts[n], NOTHING)[i]]}
        trials.append(Trial("train", "intent", number % 20, gone, not lost & {"word", "intent", "Name", "I", "the"}))
    notes: list[dict[str, float]] = []
    model = fitted(trials, trials[:20], 150, 0, lambda **facts: notes.append(facts))
    assert notes[-1]["loss"] < 0.5 * math.log(2)
    single = [
        Trial("train", "intent", 3, ((n, i),), text[w.start : w.end] not in {"word", "intent", "Name", "I", "the"})
        for n, text in enumerate(m.content for m in drawn("train", "intent", 3).messages)
        for i, w in enumerate(words(text, NOTHING))
    ]
    figures = judged(model, single)["all"]
    assert figures["precision"] > 0.9
    assert figures["words"] == len(single)


def test_taken_out_is_the_example_without_those_words() -> None:
    example = drawn("dev", "long", 0)
    first = words(example.messages[0].content, NOTHING)
    assert len(first) > 60
    made = taken_out(example, [(0, 0), (0, 1)])
    assert made.messages[0].content == example.messages[0].content[first[2].start :]
    assert made.messages[1] == example.messages[1]
    assert drawn("dev", "long", 0) == example != drawn("dev", "long", 1)
