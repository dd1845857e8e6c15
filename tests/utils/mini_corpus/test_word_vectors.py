"""Any sentence has token features, and words that mean the same have features that are near each other."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.mini_corpus import word_vectors
from utils.mini_corpus.lexicon import FUNCTION_WORDS, known_words
from utils.mini_corpus.word_vectors import WordVectors, stem, tokenise

WORDS = WordVectors(seed=1, size=32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_examples_in_the_documentation_hold() -> None:
    assert doctest.testmod(word_vectors).failed == 0


@given(st.text(max_size=60))
def test_every_sentence_has_one_finite_row_a_token_and_at_least_one(sentence: str) -> None:
    tokens = WORDS.encode(sentence)
    assert tokens.shape == (max(1, len(tokenise(sentence))), 32)
    assert tokens.dtype == np.float32
    assert np.isfinite(tokens).all()


def test_a_sentence_is_encoded_alike_by_two_objects_and_whatever_came_before() -> None:
    other = WordVectors(seed=1, size=32)
    other.encode("something else altogether")
    np.testing.assert_array_equal(WORDS.encode("A zebra juggles."), other.encode("A zebra juggles."))


def test_seed_and_order_of_words_matter() -> None:
    assert not np.allclose(WORDS.encode("Nora sees Felix"), WordVectors(seed=2, size=32).encode("Nora sees Felix"))
    assert not np.allclose(WORDS.encode("Nora sees Felix")[0], WORDS.encode("Felix sees Nora")[2])


@pytest.mark.parametrize(
    ("word", "same", "other"),
    [
        ("opens", "unlocks", "kicks"),  # synonyms of the lexicon
        ("grabs", "grabbing", "spilling"),  # inflections
        ("juggles", "juggling", "zebras"),  # words nobody listed
        ("corridor", "hallway", "kitchen"),
    ],
)
def test_synonyms_and_inflections_are_nearer_than_other_words(word: str, same: str, other: str) -> None:
    assert cosine(WORDS.word(word), WORDS.word(same)) > 0.6
    assert cosine(WORDS.word(word), WORDS.word(other)) < 0.5
    assert not np.array_equal(WORDS.word(word), WORDS.word(same))


@pytest.mark.parametrize(
    "forms",
    [
        ("carry", "carries", "carrying"),
        ("close", "closes", "closed", "closing"),
        ("drop", "dropping"),
        ("kiss", "kisses"),
    ],
)
def test_inflections_share_a_stem(forms: tuple[str, ...]) -> None:
    assert len({stem(form) for form in forms}) == 1


@pytest.mark.parametrize("word", ["thing", "string", "bring", "red", "bus"])
def test_short_words_keep_their_ending(word: str) -> None:
    assert stem(word) == word


def test_no_word_of_the_lexicon_has_two_meanings() -> None:
    meanings: dict[str, set[str]] = {}
    for word, concept, category in known_words():
        assert word not in FUNCTION_WORDS
        meanings.setdefault(stem(word), set()).add(f"{category}:{concept}")
    assert {word: found for word, found in meanings.items() if len(found) > 1} == {}
