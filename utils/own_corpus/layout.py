"""Where the files of a new dataset lie: TVR's folders, and names that say which models made them (data/README.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from utils.dataset_files import durations_path, manifest_path, release_path

TRAIN, VAL, TEST, ALL = "train", "val", "test_public", "all"
LEARNT = (TRAIN, VAL)
ALIASES = {"test": TEST}  # as in the commands of training and inference


def split_name(split: str) -> str:
    """The split's name in file names: `test` means test_public, as everywhere in the project."""
    return ALIASES.get(split, split)


@dataclass(frozen=True)
class Layout:
    """Paths of the dataset in a folder, by what made its features.

    Args:
        out: the folder; its name begins the names of all files.
        image, text: what to call the models.
        i3d: what to call the I3D features beside the image model's, "" where there are none.
        pool: how frames and tokens become clips.
        clip_length: seconds.
    """

    out: Path
    image: str
    text: str
    i3d: str
    pool: str
    clip_length: float

    @property
    def prefix(self) -> str:
        return self.out.name

    @property
    def _clips(self) -> str:
        return f"cl-{self.clip_length:g}.h5"

    @property
    def video(self) -> Path:
        """Video features, a row a clip; with the default models, called as TVR's."""
        i3d = f"_{self.i3d}_avg_cat" if self.i3d else ""
        return self._features / "video_feature" / f"{self.prefix}_{self.image}_rgb_{self.pool}{i3d}_{self._clips}"

    @property
    def sub(self) -> Path:
        """Subtitle features, a row a clip."""
        return self._features / "bert_feature" / f"{self.prefix}_sub_{self.text}_{self.pool}_{self._clips}"

    @property
    def query(self) -> Path:
        """Query features, a row a token."""
        return self._features / "bert_feature" / f"{self.prefix}_query_{self.text}.h5"

    @property
    def durations(self) -> Path:
        return durations_path(self.out, self.prefix)

    @property
    def manifest(self) -> Path:
        return manifest_path(self.out, self.prefix)

    def release(self, split: str) -> Path:
        """The queries of a split."""
        return release_path(self.out, self.prefix, split)

    @property
    def _features(self) -> Path:
        return self.out / f"{self.prefix}_feature_release"

    @property
    def intermediate(self) -> Path:
        """Folder of what only a continued or repeated run needs."""
        return self.out / f"{self.prefix}_intermediate"

    @property
    def frames(self) -> Path:
        """Features of frames."""
        return self.intermediate / f"frames_{self.image}.h5"

    @property
    def i3d_windows(self) -> Path:
        return self.intermediate / f"windows_{self.i3d}.h5"

    @property
    def subtitles(self) -> Path:
        """Subtitle lines as text."""
        return self.intermediate / "subtitles.jsonl"

    @property
    def sub_tokens(self) -> Path:
        return self.intermediate / f"sub_tokens_{self.text}.h5"

    @property
    def steps(self) -> Path:
        """What the conversions were made of."""
        return self.intermediate / "steps.json"


def name_in_files(model: str) -> str:
    """What a model is called in file names: 'timm/efficientnet_lite0' is 'efficientnet_lite0'."""
    return re.sub(r"[^\w.-]+", "-", Path(model).name)
