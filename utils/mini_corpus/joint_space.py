"""Vectors of the mini corpus in one space, in place of an encoder of images and text such as CLIP.

The mini corpus' features send the meanings of words through random maps that have to be learned to be undone. Here they
are left as they are: a sentence's vector is the sum of its words' meanings, a clip's that of what it shows, with the
same noise as in the features. So a model without training has something to compare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from utils.mini_corpus.features import (
    APPEARANCE_WEIGHTS,
    CLIP_LENGTH,
    CLIP_NOISE,
    MOTION_WEIGHTS,
    ROLES,
    VIDEO_BACKGROUND,
    VISIBLE_SHARE,
)
from utils.mini_corpus.word_vectors import LATENT_SIZE, WordVectors, named_rng, tokenise
from utils.mini_corpus.world import Line

# an encoder of pictures that is trained with sentences sees each role as well as either half of the features does
WEIGHTS = np.maximum(APPEARANCE_WEIGHTS, MOTION_WEIGHTS).astype(np.float32)
UNIT = np.float32(1 / np.sqrt(LATENT_SIZE))  # a noise vector of this deviation has length 1


class JointSpace:
    """Vectors of length 1 and `LATENT_SIZE` numbers, float32."""

    def __init__(self, seed: int) -> None:
        self._seed, self._words = seed, WordVectors(seed, LATENT_SIZE)

    def sentence(self, text: str) -> np.ndarray:
        """(1, D) of a sentence, to be compared with clips and with what is said in them."""
        return _unit(np.stack([self._words.word(token) for token in tokenise(text)]).sum(axis=0, keepdims=True))

    def clips(self, vid_name: str, shown: np.ndarray) -> np.ndarray:
        """(L, D) of a video's clips, from what each shows by role, (L, roles, D)."""
        rng = named_rng(self._seed, vid_name, "joint video noise")
        visible = rng.random((len(shown), len(ROLES), 1), dtype=np.float32) < VISIBLE_SHARE
        seen = np.einsum("lrd,r->ld", shown * visible, WEIGHTS)
        background = VIDEO_BACKGROUND * UNIT * rng.standard_normal(LATENT_SIZE, dtype=np.float32)
        blur = CLIP_NOISE * UNIT * rng.standard_normal(seen.shape, dtype=np.float32)
        return _unit(seen + background + blur)

    def subtitles(self, lines: Sequence[Line], clips: int) -> tuple[np.ndarray, np.ndarray]:
        """(clips, D) of what is said during each clip, zeros where nobody speaks, and a mask (clips,), 0 there."""
        said = np.zeros((clips, LATENT_SIZE), np.float32)
        for line in lines:
            first, last = math.floor(line.start / CLIP_LENGTH), math.ceil(line.end / CLIP_LENGTH)
            said[first:last] += self.sentence(line.text)
        return _unit(said), np.any(said != 0, axis=1).astype(np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    longest = np.maximum(np.linalg.norm(vectors, axis=1), np.float32(1e-12))
    return vectors / longest[:, None]
