"""A tiny corpus in TVR's forms, and command lines of runs on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py

from utils.mini_corpus.files import query_feature_path, sub_feature_path, video_feature_path

SMALL_MODEL = {"hidden_size": "8", "n_heads": "2", "max_ctx_l": "40", "device": "-1", "num_workers": "0"}


@dataclass(frozen=True)
class Corpus:
    """A tiny corpus in TVR's forms, and the options that name its files."""

    root: Path

    @property
    def paths(self) -> dict[str, Path]:
        return {
            "train_path": self.annotations("train"),
            "eval_path": self.annotations("val"),
            "video_duration_idx_path": self.root / "mini_video2dur_idx.json",
            "vid_feat_path": video_feature_path(self.root, "mini", "resnet_i3d"),
            "sub_bert_path": sub_feature_path(self.root, "mini"),
            "desc_bert_path": query_feature_path(self.root, "mini"),
        }

    def annotations(self, split: str) -> Path:
        return self.root / f"mini_{split}_release.jsonl"

    def options(self, **options: object) -> list[str]:
        """Options of a small training run on it; None leaves an option out, True makes it a flag."""
        merged = {"dset_name": "tvr", **SMALL_MODEL, **self.paths, **options}
        return as_argv(merged)

    @contextmanager
    def features(self, option: str) -> Iterator[h5py.File]:
        """One of its feature files, to be changed."""
        with h5py.File(self.paths[option], "r+") as h5_file:
            yield h5_file


def as_argv(options: dict[str, object]) -> list[str]:
    argv = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        values = [] if value is True else value if isinstance(value, list | tuple) else [value]
        argv += [f"--{name}", *map(str, values)]
    return argv
