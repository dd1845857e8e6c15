"""A corpus of ActivityNet Captions' full size: its annotations drawn in their public form and converted, and features.

    python tests/benchmarks/generated_anet.py --out FOLDER [--share 0.02]

FOLDER/captions holds the public files, FOLDER/anet_cap what training and inference read. At full size features take
about 5 GB, and as much again twice over once training has packed them. Contents are drawn: nothing can be learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from method_tvr.dset_configs import DATASETS, DatasetConfig
from tests.benchmarks.common import AnswersDiffer, generator_options, generator_parser
from tests.benchmarks.drawn_captions import write_captions
from utils.annotations import anet_cap, convert
from utils.basic_utils import command_line, progress, read_json, read_jsonl
from utils.dataset_files import manifest_path
from utils.feature_files.feature_file import new_feature_file

NAME = "anet_cap"
VIDEO_SIZE, QUERY_SIZE = 1024, 768  # I3D, RoBERTa-base
ROWS_PER_SECOND = 30 / 16  # I3D on windows of 16 of 30 frames a second
MAX_ROWS = 128  # more would be averaged down to as many
MAX_TOKENS = 30
TOKENS_PER_WORD = 1.08  # RoBERTa's, the full stop aside
WITH_FEATURES = ("train", "val")
FILE_TYPE = np.float16  # which readers make float32
SCRIPT = "tests/benchmarks/generated_anet.py"


def dataset_in(folder: Path) -> DatasetConfig:
    """The dataset `anet_cap` with its default paths under a folder."""
    return replace(DATASETS[NAME], root=str((folder / NAME).resolve()))


def paths_in(folder: Path) -> dict[str, str]:
    """{option: file} of a generated corpus, for a run that evaluates on val."""
    return dataset_in(folder).default_paths("val", "i3d", with_sub=False)


def write_annotations(folder: Path, share: float, seed: int) -> None:
    """Draw the public files, and convert them as a user does.

    Raises:
        AnswersDiffer: the converter has not written all that was drawn.
    """
    drawn = write_captions(folder / "captions", share, seed)
    convert.main([NAME, "--in", str(folder / "captions"), "--out", str(folder / NAME)])
    written = read_json(manifest_path(folder / NAME, NAME))["written"]
    for file, counts in drawn.items():
        found = written[anet_cap.FILES[file]]
        if found != {"videos": counts.videos, "queries": counts.queries}:
            raise AnswersDiffer(f"{file}: {counts} were drawn, {found} were written")


def write_features(folder: Path, splits: Sequence[str], seed: int) -> None:
    """Draw features of all videos, and of the queries of some splits, where the dataset has them by default."""
    dataset, rng = dataset_in(folder), np.random.default_rng(seed)
    about: dict[str, Any] = {"made_by": SCRIPT, "seed": seed}
    durations = {
        name: duration
        for videos in read_json(dataset.video_duration_idx_path).values()
        for name, (duration, _) in videos.items()
    }
    n_rows = np.ceil(np.array(list(durations.values())) * ROWS_PER_SECOND).astype(np.int64).clip(1, MAX_ROWS)
    with new_feature_file(dataset.video_feature_path("i3d"), **about) as video_file:
        for name, n in zip(progress(durations, "video features"), n_rows.tolist(), strict=True):
            video_file.put(name, _drawn(n, VIDEO_SIZE, rng))
    queries = [row for split in splits for row in read_jsonl(dataset.annotation_path(split))]
    with new_feature_file(dataset.query_feature_path(with_sub=False), **about) as query_file:
        for row in progress(queries, "query features"):
            n_tokens = round(len(row["desc"].split()) * TOKENS_PER_WORD) + 1
            query_file.put(str(row["desc_id"]), _drawn(min(n_tokens, MAX_TOKENS), QUERY_SIZE, rng))


def _drawn(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((n, size), dtype=np.float32).astype(FILE_TYPE)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    """Command line of the generator."""
    parser = generator_parser(__doc__, "videos and queries")
    parser.add_argument(
        "--splits",
        nargs="+",
        default=list(WITH_FEATURES),
        choices=list(anet_cap.FILES.values()),
        help="splits whose queries get features (train val)",
    )
    args = generator_options(parser, argv)
    write_annotations(args.out, args.share, args.seed)
    write_features(args.out, args.splits, args.seed)


if __name__ == "__main__":
    main()
