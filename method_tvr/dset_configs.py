"""What differs between datasets, one entry each. Nothing elsewhere asks for a dataset by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from utils import mini_tvr
from utils.basic_utils import PROJECT_ROOT

MINI_REMEDY = "make the corpus again: python utils/mini_tvr.py"
CLIP_SUFFIX = "cl-1.5"
VIDEO_FILES = {  # VID_FEAT_TYPE of train.sh: what the file is called after the prefix
    "resnet_i3d": f"resnet152_rgb_max_i3d_rgb600_avg_cat_{CLIP_SUFFIX}.h5",
    "resnet": f"resnet152_rgb_max_{CLIP_SUFFIX}.h5",
    "i3d": f"i3d_rgb600_avg_{CLIP_SUFFIX}.h5",
}


@dataclass(frozen=True)
class DatasetConfig:
    """A dataset's properties.

    Attributes:
        name: what `--dset_name` says.
        root: folder of its files, relative to the project root.
        prefix: what its file names begin with.
        clip_length: seconds of one clip.
        min_pred_l, max_pred_l: clips from a predicted moment's first to its last boundary: min <= n < max.
        query_types: whether queries are of types (v, t, vt) that metrics are broken down by.
        iou_thds, recall_ks: what recalls are reported at.
        final_nms_thd: temporal NMS threshold of the evaluation that ends training.
        query_only_features: whether runs without subtitles read query features of their own, made by a language model
            that has seen no subtitles.
        generate: writes the dataset into a folder when it is not there yet; None for data that must be downloaded.
        annotation_remedy, feature_remedy: what to do about missing or defective files, said to users.
    """

    name: str
    root: str
    prefix: str
    clip_length: float = 1.5
    min_pred_l: int = 2
    max_pred_l: int = 16
    query_types: bool = True
    iou_thds: tuple[float, ...] = (0.5, 0.7)
    recall_ks: tuple[int, ...] = (1, 5, 10, 100)
    final_nms_thd: float = 0.5
    query_only_features: bool = True
    generate: Callable[[Path], None] | None = None
    annotation_remedy: str = "write it in the form that data/README.md shows"
    feature_remedy: str = "extract it in the form that data/README.md shows"

    def annotation_path(self, split: str) -> str:
        return f"{self.root}/{self.prefix}_{split}_release.jsonl"

    @property
    def video_duration_idx_path(self) -> str:
        return f"{self.root}/{self.prefix}_video2dur_idx.json"

    def video_feature_path(self, vid_feat_type: str) -> str:
        return f"{self._features}/video_feature/{self.prefix}_{VIDEO_FILES[vid_feat_type]}"

    @property
    def sub_feature_path(self) -> str:
        return f"{self._features}/bert_feature/sub_query/{self.prefix}_sub_pretrained_w_sub_query_max_{CLIP_SUFFIX}.h5"

    def query_feature_path(self, with_sub: bool) -> str:
        """The query features of runs with subtitles, or of those without."""
        if with_sub or not self.query_only_features:
            return f"{self._features}/bert_feature/sub_query/{self.prefix}_query_pretrained_w_sub_query.h5"
        return f"{self._features}/bert_feature/query_only/{self.prefix}_query_pretrained_w_query.h5"

    @property
    def _features(self) -> str:
        return f"{self.root}/{self.prefix}_feature_release"

    def ensure(self) -> None:
        """Generate the dataset on first use, if it is one that can be generated."""
        if self.generate is not None:
            self.generate(PROJECT_ROOT / self.root)


def _ensure_mini(root: Path) -> None:
    if not mini_tvr.is_complete(root):
        print(f"generating the mini corpus in {root}")
        mini_tvr.generate(root)


DATASETS = {
    dataset.name: dataset
    for dataset in (
        DatasetConfig(
            name="tvr",
            root="data",
            prefix="tvr",
            annotation_remedy="copy it from the data folder of TVR's repository (data/README.md, Annotations)",
            feature_remedy="download and unpack TVR's feature release (data/README.md, Features)",
        ),
        DatasetConfig(
            name="mini",
            root="data/mini",
            prefix="mini",
            query_only_features=False,  # its word table is the same with and without subtitles
            generate=_ensure_mini,
            annotation_remedy=MINI_REMEDY,
            feature_remedy=MINI_REMEDY,
        ),
    )
}

SPLIT_ALIASES = {"test": "test_public"}


def split_name(split: str) -> str:
    """The split's name in file names and in video2dur: `test` means test_public."""
    return SPLIT_ALIASES.get(split, split)
