"""`mini_ranking`: ranked moments in the small world of the mini corpus, as TVR-Ranking's files: to run that chain.

The rule, written down before anything was trained on it: a sentence names four things of a scene, who, what is done,
with what, and where. The relevance of any scene is how many of the four it shares, 0 to 4. A query has the `MOST_LIKE`
scenes that share most, equal ones in an order of chance, and `OTHERS` that chance draws; no other scene is judged, as
in TVR-Ranking, and counts as irrelevant. The similarity of a training pair is the share of the four, 0 to 1.

Videos are those of the mini corpus, and their features its. Queries of val and test are about scenes of its val and
test_public; their moments are of all videos, those of training of the videos of train.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.basic_utils import progress, write_json
from utils.dataset_files import write_manifest
from utils.feature_files.feature_file import new_feature_file
from utils.mini_corpus.files import GENERATOR_VERSION, MADE_BY, FeatureSettings, settings_record
from utils.mini_corpus.lexicon import OPEN_PLACES
from utils.mini_corpus.word_vectors import WordVectors, named_seed
from utils.mini_corpus.world import Sight, Video

RANKING = "mini_ranking"
MOST_LIKE, OTHERS = 15, 5  # scenes of a query
FILES = {"train": "train_top20.json", "val": "val.json", "test": "test.json"}
QUERIES = {"train": 1000, "val": 250, "test": 250}
SPLIT_OF = {"train": "train", "val": "val", "test": "test_public"}  # of the mini corpus, whose scenes are asked about


class Seen(NamedTuple):
    """A scene of a video as it is seen; seconds."""

    video: Video
    start: float
    end: float
    sight: Sight

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """Who, what is done, with what, and where."""
        return self.sight.actor, self.sight.action.verbs[0][0], self.sight.item[0], self.sight.place[0]


def write_ranking(folder: Path, settings: FeatureSettings, videos: Sequence[Video]) -> None:
    """Write the files of `mini_ranking` into a folder, about the videos of a mini corpus with these settings."""
    write_json({video.vid_name: video.duration for video in videos}, folder / "video_corpus.json")
    scenes = [Seen(video, scene.start, scene.end, scene.sight) for video in videos for scene in video.scenes]
    words, features = WordVectors(settings.seed, settings.text_feat_size), folder / "query_bert.h5"
    about: dict[str, Any] = {"made_by": MADE_BY, "seed": settings.seed, "generator_version": GENERATOR_VERSION}
    query_id = 0
    with new_feature_file(features, **about) as writer:
        for split, count in QUERIES.items():
            asked = [scene for scene in scenes if scene.video.split == SPLIT_OF[split]]
            searched = _Scenes(asked if split == "train" else scenes)
            rng = random.Random(named_seed(settings.seed, RANKING, split))
            entries = []
            for scene in progress(rng.sample(asked, count), f"{RANKING} queries of {split}"):
                desc = _sentence(rng, scene.sight)
                moments = [_pair(seen, shared, split) for seen, shared in searched.most_like(scene, rng)]
                entries.append({"query_id": query_id, "query": desc, "relevant_moment": moments})
                writer.put(str(query_id), words.encode(desc))
                query_id += 1
            write_json(entries, folder / FILES[split])
    made = [*(folder / name for name in FILES.values()), folder / "video_corpus.json", features]
    write_manifest(folder, RANKING, made, **settings_record(settings), counts=QUERIES)


class _Scenes:
    """Scenes that queries are compared with."""

    def __init__(self, scenes: Sequence[Seen]) -> None:
        self._scenes = scenes
        self._numbers: dict[str, int] = {}
        self._parts = np.array([self._numbered(scene) for scene in scenes])  # (S, 4)

    def _numbered(self, scene: Seen) -> list[int]:
        return [self._numbers.setdefault(part, len(self._numbers)) for part in scene.parts]

    def most_like(self, scene: Seen, rng: random.Random) -> list[tuple[Seen, int]]:
        """The scenes that share most parts, and how many, the first of which shares most; and some others."""
        shared = (self._parts == self._numbered(scene)).sum(axis=1)
        order = np.lexsort([[rng.random() for _ in self._scenes], -shared]).tolist()
        chosen = order[:MOST_LIKE] + rng.sample(order[MOST_LIKE:], OTHERS)
        return [(self._scenes[number], int(shared[number])) for number in chosen]


def _pair(seen: Seen, shared: int, split: str) -> dict[str, Any]:
    graded = {"similarity": shared / 4} if split == "train" else {"relevance": shared}
    times = {"timestamp": [seen.start, seen.end], "duration": seen.video.duration}
    return {"video_name": seen.video.vid_name, **times, **graded}


def _sentence(rng: random.Random, sight: Sight) -> str:
    """A sentence that names who, what is done, with what and where, in any of the words for it."""
    item, place = rng.choice(sight.item), rng.choice(sight.place)
    does, doing = rng.choice(sight.action.verbs)
    at = f"{'on' if sight.place[0] in OPEN_PLACES else 'in'} the {place}"
    said = rng.choice([f"{sight.actor} {does} the {item} {at}.", f"{at}, {sight.actor} is {doing} the {item}."])
    return said[0].upper() + said[1:]
