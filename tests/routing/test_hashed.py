"""Words hashed to vectors: an embedder in all that a router asks of one."""

import numpy as np
import pytest

from labkit.request import InvalidValue, Request
from labkit.routing import Classifier
from labkit.routing.hashed import HashedWords


def test_vectors_have_length_one_and_the_same_text_the_same_vector():
    words = HashedWords(64)
    vectors = words.encode(["Where is my order?", "Where is my order?", "Add 2 x 39 euros."])
    assert vectors.shape == (3, 64)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert (vectors[0] == vectors[1]).all()
    assert (vectors[0] != vectors[2]).any()


def test_the_order_of_words_counts_and_their_case_does_not():
    words = HashedWords(512)
    one, other, upper = words.encode(["refund the tent", "tent the refund", "REFUND the tent"])
    assert not np.array_equal(one, other)
    assert np.array_equal(one, upper)


def test_texts_without_a_word_and_no_texts_at_all_are_rows_of_zeros_and_no_rows():
    words = HashedWords(32)
    assert not words.encode(["", "  "]).any()
    assert words.encode([]).shape == (0, 32)


def test_another_size_has_another_name():
    assert HashedWords(32).name != HashedWords(64).name


@pytest.mark.parametrize("wrong", [lambda: HashedWords(0), lambda: HashedWords().encode("one text")])
def test_what_cannot_be_hashed_is_refused(wrong):
    with pytest.raises(InvalidValue):
        wrong()


def test_a_classifier_trains_on_them_and_comes_back_from_json():
    texts = [f"Can I return the boots {i}?" for i in range(40)] + [
        f"Add {i} x 39 euros and {i + 2} x 17." for i in range(40)
    ]
    trained = Classifier.train(texts, [1] * 40 + [0] * 40, HashedWords())
    again = Classifier.from_json(trained.to_json(), HashedWords())
    easy, hard = Request("Can I return the tent?"), Request("Add 3 x 20 euros and 5 x 11.")
    assert again(easy).value > 0.5 > again(hard).value
    assert again(easy).value == trained(easy).value
