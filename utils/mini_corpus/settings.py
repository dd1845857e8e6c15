"""What decides a corpus and its features, and the command that makes it: all that is known of one before it is made."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.basic_utils import PROJECT_ROOT, InputError, StrPath
from utils.mini_corpus.word_vectors import LATENT_SIZE

VID_FEAT_TYPES = ("resnet_i3d", "resnet", "i3d")
JOINT = "joint"  # vectors in one space with those of sentences and of subtitles, all of one size
VIDEO_FILES = {
    "resnet_i3d": "{}_resnet152_rgb_max_i3d_rgb600_avg_cat_cl-1.5.h5",
    "resnet": "{}_resnet152_rgb_max_cl-1.5.h5",
    "i3d": "{}_i3d_rgb600_avg_cl-1.5.h5",
    JOINT: "{}_joint_cl-1.5.h5",
}


@dataclass(frozen=True)
class FeatureSettings:
    """What decides the features: all sizes in dimensions."""

    seed: int = 2018
    vid_feat_size: int = 256
    text_feat_size: int = 128
    vid_feat_types: tuple[str, ...] = VID_FEAT_TYPES

    def check(self) -> None:
        """Raise `InputError` when no corpus can be made with these settings."""
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: must not be negative")
        if self.vid_feat_size < 3:
            raise InputError(f"--vid_feat_size {self.vid_feat_size}: needs at least 3 (appearance and motion, 2 : 1)")
        if self.text_feat_size < 1:
            raise InputError(f"--text_feat_size {self.text_feat_size}: needs at least 1")
        unknown = [name for name in self.vid_feat_types if name not in VIDEO_FILES]
        if unknown or not self.vid_feat_types:
            raise InputError(f"--vid_feat_types {unknown or 'is empty'}: choose from {', '.join(VIDEO_FILES)}")
        if JOINT in self.vid_feat_types and not self.joint:
            raise InputError(f"--vid_feat_types {JOINT}: goes alone, with vectors of sentences of its own")
        if self.joint and (self.vid_feat_size, self.text_feat_size) != (LATENT_SIZE, LATENT_SIZE):
            raise InputError(f"--vid_feat_types {JOINT}: its vectors have {LATENT_SIZE} numbers: leave sizes out")

    @property
    def joint(self) -> bool:
        """Whether features are vectors of one space."""
        return self.vid_feat_types == (JOINT,)


@dataclass(frozen=True)
class MiniSettings(FeatureSettings):
    """What decides a corpus: the same settings give the same text, byte for byte, and the same arrays, bit for bit."""

    n_train: int = 800
    n_val: int = 250
    n_test: int = 100
    queries_per_video: int = 5
    prefix: str = "mini"
    subtitles: bool = True

    def check(self) -> None:
        """Raise `InputError` when no corpus can be made with these settings."""
        super().check()
        for name in ("n_train", "n_val", "n_test", "queries_per_video"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)}: needs at least 1")
        if not self.prefix or Path(self.prefix).name != self.prefix:
            raise InputError(f"--prefix {self.prefix!r}: must be the beginning of a file name")


def generating_command(out: StrPath, prefix: str, settings: Mapping[str, Any]) -> str:
    """The command that makes a corpus with these settings, as one would type it in the project's folder."""
    folder = Path(out)
    words = ["python", "utils/mini_tvr.py", "--out"]
    words.append(str(folder.relative_to(PROJECT_ROOT)) if folder.is_relative_to(PROJECT_ROOT) else str(folder))
    words += ["--prefix", prefix]
    for name, default in asdict(MiniSettings()).items():
        value = settings.get(name, default)
        if name == "subtitles":
            words += [] if value else ["--no_subtitles"]
        elif name != "prefix" and value != default and value != list(default if name == "vid_feat_types" else ()):
            words += [f"--{name}", *map(str, value if isinstance(value, list | tuple) else [value])]
    return shlex.join(words)
