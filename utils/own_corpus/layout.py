"""Where the files of a new dataset lie: TVR's folders, and names that say which models made them (data/README.md)."""

from __future__ import annotations

import re
from glob import escape
from pathlib import Path

from utils.dataset_files import FOLDER_SUFFIX, durations_path, manifest_path, release_path, subtitles_path

SCRIPT = "utils/extract_features.py"  # what its files say that made them
TRAIN, VAL, TEST, ALL = "train", "val", "test_public", "all"
LEARNT = (TRAIN, VAL)
ALIASES = {"test": TEST}  # as in the commands of training and inference


def split_name(split: str) -> str:
    """The split's name in file names: `test` means test_public, as everywhere in the project."""
    return ALIASES.get(split, split)


def intermediate_folder(out: Path, prefix: str) -> Path:
    return out / f"{prefix}_intermediate"


def earlier_subtitles(out: Path, prefix: str) -> Path:
    """Where subtitles as text lay, in corpora of earlier versions."""
    return intermediate_folder(out, prefix) / "subtitles.jsonl"


def settings_path(out: Path, prefix: str) -> Path:
    """`P_training.json`, for `train.sh … --settings`."""
    return out / f"{prefix}_training.json"


def zero_shot_path(out: Path, prefix: str) -> Path:
    """`P_zero_shot.json`, the same for a model without training."""
    return out / f"{prefix}_zero_shot.json"


class Layout:
    """Paths of the dataset in the folder `out`, whose name begins those of all files, by what made its features.

    Args:
        image, text: what to call the models.
        i3d: what to call the I3D features beside the image model's, "" where there are none.
        pool: how frames and tokens become clips.
        clip_length: seconds.
    """

    def __init__(self, out: Path, image: str, text: str, i3d: str, pool: str, clip_length: float) -> None:
        self.out, self.prefix, self.i3d, self.clip_length = out, out.name, i3d, clip_length
        self.durations, self.manifest = durations_path(out, out.name), manifest_path(out, out.name)
        features, clips = out / f"{out.name}_feature_release", f"cl-{clip_length:g}.h5"
        beside = f"_{i3d}_avg_cat" if i3d else ""
        # features, a row a clip; those of videos are called as TVR's with the default models
        self.video = features / "video_feature" / f"{out.name}_{image}_rgb_{pool}{beside}_{clips}"
        self.sub = features / "bert_feature" / f"{out.name}_sub_{text}_{pool}_{clips}"
        self.query = features / "bert_feature" / f"{out.name}_query_{text}.h5"  # a row a token
        # vectors of whole sentences, of models that compare them with images
        self.query_sentences = features / "bert_feature" / f"{out.name}_query_{text}_sentences.h5"
        self.sub_sentences = features / "bert_feature" / f"{out.name}_sub_{text}_sentences_{clips}"  # a row a clip
        self.settings, self.zero_shot = settings_path(out, out.name), zero_shot_path(out, out.name)
        self.subtitles = subtitles_path(out, out.name)
        self.intermediate = intermediate_folder(out, out.name)  # what only a continued or repeated run needs
        self.frames = self.intermediate / f"frames_{image}.h5"
        self.i3d_windows = self.intermediate / f"windows_{i3d}.h5"
        self.sub_tokens = self.intermediate / f"sub_tokens_{text}.h5"
        self.steps = self.intermediate / "steps.json"  # what the conversions were made of
        self.unfinished = self.intermediate / "unfinished"  # there while annotations are written

    def part(self, features: Path, shard: str) -> Path:
        """Where a shard, "2-of-8", keeps what goes into a file of features."""
        return features.with_name(f"{features.stem}.shard-{shard}.h5")

    def parts(self, features: Path) -> list[Path]:
        """What shards have finished of a file of features."""
        return sorted(self.intermediate.glob(f"{escape(features.stem)}.shard-*-of-*.h5"))

    def unfinished_parts(self, features: Path) -> list[Path]:
        """What shards are at, or were stopped at."""
        return sorted(self.intermediate.glob(f"{escape(features.stem)}.shard-*-of-*.h5{FOLDER_SUFFIX}"))

    def release(self, split: str) -> Path:
        """The queries of a split."""
        return release_path(self.out, self.prefix, split)


def name_in_files(model: str) -> str:
    """What a model is called in file names: 'timm/efficientnet_lite0' is 'efficientnet_lite0'."""
    return re.sub(r"[^\w.-]+", "-", Path(model).name)
