"""Token features for any English sentence, in place of a language model, for the embedded corpus.

A word's latent joins what it means (shared with its synonyms and inflections), its category and itself; tokens are
mixed with their neighbours and sent through a fixed random two-layer map into the text feature space.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np

from utils.mini_corpus.lexicon import FUNCTION_WORDS, known_words

LATENT_SIZE = 64  # dimensions of meaning: some 250 concepts overlap a little, as they do in real embeddings
HIDDEN_SIZE = 128  # hidden layer of the random maps: twice the latent, so that little is lost in the tanh
CONCEPT_SHARE, WORD_SHARE, CATEGORY_SHARE = 0.85, 0.35, 0.4  # synonyms are near each other, yet not the same
NEIGHBOUR_SHARE = 0.35  # how much of each neighbour a token takes in: order matters, the token itself dominates
FUNCTION_WORD_SCALE = 0.4  # function words carry less than content words
TOKEN_PATTERN = re.compile(r"\w+(?:'\w+)?")
VOWEL_PATTERN = re.compile(r"[aeiouy]")


def named_seed(*names: object) -> int:
    """A seed that depends on nothing but `names`, the same on every machine and in every process."""
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")


def named_rng(*names: object) -> np.random.Generator:
    """The random generator called by `names`."""
    return np.random.default_rng(named_seed(*names))


def tokenise(sentence: str) -> list[str]:
    """Lower-case words of a sentence, punctuation dropped; never empty ("" gives one blank token)."""
    return TOKEN_PATTERN.findall(sentence.lower()) or [""]


def stem(word: str) -> str:
    """A crude stem, so that the inflections of one word meet: `carries`, `carrying` and `carry` are all `carri`."""
    word = word.split("'")[0] or word
    for suffix in ("ing", "ed", "es", "s"):
        rest = word[: -len(suffix)]
        if word.endswith(suffix) and len(rest) >= 3 and VOWEL_PATTERN.search(rest) and not word.endswith("ss"):
            word = rest
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") else word


class RandomMap:
    """A fixed random map: tanh of a linear layer, then tanh of another. It has to be learned to be undone.

    The same names give the same map.
    """

    def __init__(self, *names: object, size: int) -> None:
        rng = named_rng(*names, size)
        # Latents have a length of about 1 to 2, so unit-variance weights keep the tanh between linear and saturated.
        self._w1 = rng.standard_normal((LATENT_SIZE, HIDDEN_SIZE), dtype=np.float32)
        self._b1 = 0.3 * rng.standard_normal(HIDDEN_SIZE, dtype=np.float32)
        self._w2 = rng.standard_normal((HIDDEN_SIZE, size), dtype=np.float32) / np.float32(np.sqrt(HIDDEN_SIZE))

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        """(rows, LATENT_SIZE) -> (rows, size), float32."""
        hidden = np.tanh(latents @ self._w1 + self._b1)
        out = hidden @ self._w2
        return np.tanh(out, out=out)


class WordVectors:
    """Encodes sentences as token features of a size; the corpus' queries and subtitles are encoded by it.

    Examples:
        >>> WordVectors(seed=2018, size=16).encode("Nora opens the drawer.").shape
        (4, 16)
    """

    def __init__(self, seed: int, size: int) -> None:
        self.seed, self.size = seed, size
        self._meaning = {stem(word): (f"{category}:{concept}", category) for word, concept, category in known_words()}
        self._latents: dict[str, np.ndarray] = {}
        self._map = RandomMap(seed, "text", size=size)
        rng = named_rng(seed, "neighbours")
        self._from_left, self._from_right = rng.permutation(LATENT_SIZE), rng.permutation(LATENT_SIZE)

    def _unit(self, *names: object) -> np.ndarray:
        vector = named_rng(self.seed, *names).standard_normal(LATENT_SIZE, dtype=np.float32)
        return vector / np.linalg.norm(vector)

    def concept(self, word: str) -> np.ndarray:
        """What a word means, without the word itself: (LATENT_SIZE,) float32 of length 1."""
        stemmed = stem(word.lower())
        key = f"concept {stemmed}"
        if key not in self._latents:
            self._latents[key] = self._unit("concept", self._meaning.get(stemmed, (stemmed, None))[0])
        return self._latents[key]

    def word(self, word: str) -> np.ndarray:
        """Latent of one token, known or not: (LATENT_SIZE,) float32."""
        if word not in self._latents:
            latent = CONCEPT_SHARE * self.concept(word) + WORD_SHARE * self._unit("word", word)
            category = self._meaning.get(stem(word), (None, None))[1]
            if category is not None:
                latent = latent + CATEGORY_SHARE * self._unit("category", category)
            scale = FUNCTION_WORD_SCALE if word in FUNCTION_WORDS else 1.0
            self._latents[word] = scale * latent
        return self._latents[word]

    def encode(self, sentence: str) -> np.ndarray:
        """(n_tokens >= 1, size) float32 of any sentence, a row a word; words never seen get a vector of their own."""
        words = np.stack([self.word(token) for token in tokenise(sentence)])  # (n_tokens, LATENT_SIZE)
        mixed = words.copy()
        mixed[1:] += NEIGHBOUR_SHARE * words[:-1, self._from_left]
        mixed[:-1] += NEIGHBOUR_SHARE * words[1:, self._from_right]
        return self._map(mixed)
