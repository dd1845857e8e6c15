"""From what is seen and said in a video to its clip features, for the embedded corpus.

Each feature is a fixed random non-linear map of a latent with noise; the noise levels below were chosen before any
model was trained, for the reasons given beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from utils.mini_corpus.word_vectors import LATENT_SIZE, RandomMap, WordVectors, named_rng
from utils.mini_corpus.world import Line, Scene

CLIP_LENGTH = 1.5  # seconds, as in TVR

# How strongly each half sees each role: a still image shows who, where and what, motion shows the action.
ROLES = ("actor", "others", "place", "action", "item", "words")
APPEARANCE_WEIGHTS = (1.0, 0.5, 1.0, 0.3, 0.8, 1.0)
MOTION_WEIGHTS = (0.4, 0.2, 0.3, 1.0, 0.4, 1.0)

# Lengths are in units of one concept (a character, an action …), whose latent has length 1.
VIDEO_BACKGROUND = 1.0  # each video looks as different from the others as one more concept would make it
CLIP_NOISE = 1.0  # each clip is blurred by as much as one concept, so single clips mislead and scenes average out
VISIBLE_SHARE = 0.8  # a role is out of the picture in one clip of five, as cameras cut to something else
FEATURE_NOISE = 0.2  # noise on each feature dimension (which lies in -1 … 1): a fifth of the range, as extractors have
SUBTITLE_NOISE = 0.1  # text is cleaner than pictures


def n_clips(duration: float) -> int:
    """Number of clips of a video: the last one may be shorter than `CLIP_LENGTH`."""
    return max(1, math.ceil(duration / CLIP_LENGTH))


def half_sizes(vid_feat_size: int) -> tuple[int, int]:
    """Sizes of the appearance and the motion half, 2 : 1 as TVR's 2048 + 1024."""
    appearance = round(vid_feat_size * 2 / 3)
    return appearance, vid_feat_size - appearance


def overlap(spans: np.ndarray, duration: float) -> np.ndarray:
    """Which part of each clip each span covers.

    Args:
        spans: (S, 2) [start, end] in seconds.
        duration: of the video, in seconds.

    Returns:
        (L, S) float32 in 0..1; a last clip shorter than the others counts by the part that exists.
    """
    starts = np.arange(n_clips(duration))[:, None] * CLIP_LENGTH  # (L, 1)
    ends = np.minimum(starts + CLIP_LENGTH, max(duration, CLIP_LENGTH))
    shared = np.minimum(ends, spans[None, :, 1]) - np.maximum(starts, spans[None, :, 0])  # (L, S)
    return (np.clip(shared, 0, None) / np.maximum(ends - starts, 1e-6)).astype(np.float32)


def scene_latents(scenes: Sequence[Scene], words: WordVectors) -> np.ndarray:
    """What each scene shows, by role: (S, roles, LATENT_SIZE) float32."""
    latents = np.zeros((len(scenes), len(ROLES), LATENT_SIZE), np.float32)
    for i, scene in enumerate(scenes):
        sight = scene.sight
        latents[i, 0] = words.concept(sight.actor)
        for name in sight.others:
            latents[i, 1] += words.concept(name)
        latents[i, 2] = words.concept(sight.place[0])
        latents[i, 3] = words.concept(sight.action.verbs[0][0].split()[0])
        latents[i, 4] = words.concept(sight.item[0])
    return latents


class VideoSpace:
    """The video feature space, both halves: it has to be learned, nothing in it resembles the text space."""

    def __init__(self, seed: int, size: int) -> None:
        self.seed = seed
        self._halves = []
        for half, half_size, weights in zip(
            ("appearance", "motion"), half_sizes(size), (APPEARANCE_WEIGHTS, MOTION_WEIGHTS), strict=True
        ):
            rng = named_rng(seed, half, "roles")
            rotations = np.linalg.qr(rng.standard_normal((len(ROLES), LATENT_SIZE, LATENT_SIZE)))[0]
            bind = (np.array(weights)[:, None, None] * rotations).reshape(-1, LATENT_SIZE).astype(np.float32)
            self._halves.append((bind, RandomMap(seed, half, size=half_size)))

    def clip_features(self, vid_name: str, shown: np.ndarray) -> np.ndarray:
        """Features of a video's clips.

        Args:
            vid_name: names the video's own noise.
            shown: (L, roles, LATENT_SIZE) float32, what each clip shows by role.

        Returns:
            (L, size) float32, each half L2-normalised.
        """
        rng = named_rng(self.seed, vid_name, "video noise")
        clips = len(shown)
        visible = rng.random((clips, len(ROLES), 1), dtype=np.float32) < VISIBLE_SHARE
        seen = (shown * visible).reshape(clips, -1)
        unit = np.float32(1 / np.sqrt(LATENT_SIZE))  # a noise vector of this deviation has length 1
        halves = []
        for bind, to_features in self._halves:
            background = VIDEO_BACKGROUND * unit * rng.standard_normal(LATENT_SIZE, dtype=np.float32)
            blur = CLIP_NOISE * unit * rng.standard_normal((clips, LATENT_SIZE), dtype=np.float32)
            features = to_features(seen @ bind + background + blur)
            features += FEATURE_NOISE * rng.standard_normal(features.shape, dtype=np.float32)
            features /= np.linalg.norm(features, axis=1, keepdims=True) + 1e-5
            halves.append(features)
        return np.concatenate(halves, axis=1)


def subtitle_features(
    vid_name: str, lines: Sequence[Line], clips: int, words: WordVectors
) -> tuple[np.ndarray, np.ndarray]:
    """Subtitle tokens max-pooled per clip, as in TVRetrieval: a line covers floor(start/1.5) .. ceil(end/1.5)-1.

    They are (clips, size) float32, zero where nobody speaks; the mask (clips,) float32 is 1 where somebody does.
    """
    pooled = np.full((clips, words.size), -np.inf, np.float32)
    for line in lines:
        first, last = math.floor(line.start / CLIP_LENGTH), math.ceil(line.end / CLIP_LENGTH)
        np.maximum(pooled[first:last], words.encode(line.text).max(axis=0), out=pooled[first:last])
    mask = np.isfinite(pooled[:, 0])
    noise = named_rng(words.seed, vid_name, "subtitle noise").standard_normal(pooled.shape, dtype=np.float32)
    return np.where(mask[:, None], pooled + SUBTITLE_NOISE * noise, np.float32(0)), mask.astype(np.float32)
