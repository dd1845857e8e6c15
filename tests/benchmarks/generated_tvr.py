"""A corpus of TVR's size in TVR's forms: annotations and features are drawn, so that nothing can be learned from it.

    python tests/benchmarks/generated_tvr.py --out FOLDER [--share 0.15]

At full size features take 7 GB, and twice as much again once training has packed them. `--share` is of the training
split; val is always whole: 2,179 videos, 10,895 queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tests.benchmarks.common import generator_options, generator_parser
from utils.basic_utils import command_line, progress, write_json
from utils.dataset_files import durations_path, release_path
from utils.feature_files.feature_file import new_feature_file
from utils.mini_corpus.files import query_feature_path, sub_feature_path, video_feature_path

PREFIX = "tvr"
N_VIDEOS = {"train": 17_435, "val": 2_179}
QUERIES_PER_VIDEO = 5
CLIP_LENGTH = 1.5
VIDEO_SIZE, TEXT_SIZE = 3072, 768  # ResNet-152 and I3D side by side, RoBERTa-base
# Durations of TVR's training videos in seconds, at these percentiles.
PERCENTILES = (0, 1, 5, 10, 25, 40, 50, 60, 75, 90, 95, 98, 99, 99.5, 99.9, 100)
DURATIONS = (2, 43, 56, 58, 60.3, 62.6, 77, 88.4, 90.5, 93, 97, 114, 131, 151, 176, 272)
TOKENS = (8, 22)  # of a query, from and to
DRAWN_ROWS = 4096  # rows that features are stretches of: drawing each anew would take longer than all else
FILE_TYPE = np.float16  # which readers make float32
SCRIPT = "tests/benchmarks/generated_tvr.py"


def paths_in(folder: Path) -> dict[str, Path]:
    """{option: file} of a generated corpus, for a run that evaluates on val."""
    return {
        "train_path": release_path(folder, PREFIX, "train"),
        "eval_path": release_path(folder, PREFIX, "val"),
        "video_duration_idx_path": durations_path(folder, PREFIX),
        "vid_feat_path": video_feature_path(folder, PREFIX, "resnet_i3d"),
        "sub_bert_path": sub_feature_path(folder, PREFIX),
        "desc_bert_path": query_feature_path(folder, PREFIX),
    }


def write_annotations(folder: Path, share: float, rng: np.random.Generator) -> None:
    """Durations of videos, and queries with a moment each."""
    listed: dict[str, dict[str, list[Any]]] = {}
    number = desc_id = 0
    for split, n_whole in N_VIDEOS.items():
        n = round(n_whole * share) if split == "train" else n_whole
        durations = np.interp(rng.uniform(0, 100, n), PERCENTILES, DURATIONS).round(2).tolist()
        names = [f"{split}_{i:05d}" for i in range(n)]
        listed[split] = {
            name: [duration, number + i] for i, (name, duration) in enumerate(zip(names, durations, strict=True))
        }
        number += n
        lines = []
        for name, duration in zip(names, durations, strict=True):
            for _ in range(QUERIES_PER_VIDEO):
                length = min(duration, 1.5 + rng.exponential(7.5))
                start = rng.uniform(0, duration - length)
                row = {"desc_id": desc_id, "desc": "A drawn query.", "vid_name": name, "duration": duration}
                lines.append(orjson.dumps({**row, "ts": [round(start, 2), round(start + length, 2)], "type": "v"}))
                desc_id += 1
        path = release_path(folder, PREFIX, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\n".join(lines) + b"\n")
    write_json(listed, durations_path(folder, PREFIX))
    write_features(folder, listed, desc_id, rng)


def write_features(
    folder: Path, listed: dict[str, dict[str, list[Any]]], n_queries: int, rng: np.random.Generator
) -> None:
    """Features of all videos and queries."""
    n_clips = {
        name: int(np.ceil(duration / CLIP_LENGTH))
        for videos in listed.values()
        for name, (duration, _) in videos.items()
    }
    n_tokens = {str(i): int(n) for i, n in enumerate(rng.integers(*TOKENS, n_queries))}
    for path, counts, size in (
        (video_feature_path(folder, PREFIX, "resnet_i3d"), n_clips, VIDEO_SIZE),
        (sub_feature_path(folder, PREFIX), n_clips, TEXT_SIZE),
        (query_feature_path(folder, PREFIX), n_tokens, TEXT_SIZE),
    ):
        write_drawn(path, counts, size, rng)


def write_drawn(path: Path, counts: Mapping[str, int], size: int, rng: np.random.Generator) -> None:
    """A feature file with so many drawn rows of a size by each key."""
    about: dict[str, Any] = {"made_by": SCRIPT, "clip_length": CLIP_LENGTH}
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_feature_file(path, **about) as file:
        for (key, n), rows in zip(
            progress(counts.items(), path.name, total=len(counts)), _drawn(size, rng), strict=False
        ):
            file.put(key, rows[:n])


def _drawn(size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Stretches of rows of about unit length, without end."""
    rows = rng.standard_normal((2 * DRAWN_ROWS, size), dtype=np.float32) / np.float32(size**0.5)
    rows = rows.astype(FILE_TYPE)
    while True:
        yield rows[rng.integers(DRAWN_ROWS) :]


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the generator."""
    args = generator_options(generator_parser(__doc__, "training videos"), argv)
    write_annotations(args.out, args.share, np.random.default_rng(args.seed))


if __name__ == "__main__":
    main()
