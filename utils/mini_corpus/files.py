"""The files of a generated corpus: where features lie, writing them video by video, telling whether all is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.basic_utils import InputError, StrPath, first_few, read_json
from utils.dataset_files import manifest_path
from utils.feature_files.feature_file import FeatureFile, FeatureWriter, new_feature_file
from utils.mini_corpus.features import CLIP_LENGTH, half_sizes, n_clips
from utils.mini_corpus.settings import JOINT, VIDEO_FILES, FeatureSettings

MADE_BY = "utils/mini_tvr.py"
GENERATOR_VERSION = 1  # raised when the same settings give another corpus, so that old ones are told apart


def video_feature_path(out: Path, prefix: str, vid_feat_type: str) -> Path:
    """The video features of one kind: resnet_i3d, resnet (appearance half) or i3d (motion half)."""
    return out / f"{prefix}_feature_release" / "video_feature" / VIDEO_FILES[vid_feat_type].format(prefix)


def query_feature_path(out: Path, prefix: str) -> Path:
    """Query token features."""
    return _text_features(out, prefix) / f"{prefix}_query_pretrained_w_sub_query.h5"


def sub_feature_path(out: Path, prefix: str) -> Path:
    """Subtitle clip features."""
    return _text_features(out, prefix) / f"{prefix}_sub_pretrained_w_sub_query_max_cl-1.5.h5"


def _text_features(out: Path, prefix: str) -> Path:
    return out / f"{prefix}_feature_release" / "bert_feature" / "sub_query"


@dataclass(frozen=True)
class CorpusFeatures:
    """Takes features one video and one query at a time, so that memory does not grow with the corpus."""

    videos: dict[str, FeatureWriter]
    sub: FeatureWriter | None
    query: FeatureWriter
    appearance_size: int

    def put_video(self, vid_name: str, video_feat: np.ndarray) -> None:
        """Store the (L, D) features of a video."""
        n = self.appearance_size
        parts = {"resnet_i3d": video_feat, "resnet": video_feat[:, :n], "i3d": video_feat[:, n:], JOINT: video_feat}
        for vid_feat_type, writer in self.videos.items():
            writer.put(vid_name, parts[vid_feat_type])

    def put_subtitles(self, vid_name: str, sub_feat: np.ndarray, sub_mask: np.ndarray) -> None:
        """Store the (L, D) features of a video's subtitles, and their (L,) mask."""
        assert self.sub is not None
        self.sub.put(vid_name, sub_feat)
        self.sub.put(f"{vid_name}-mask", sub_mask)

    def put_query(self, desc_id: int, query_feat: np.ndarray) -> None:
        """Store the (Lq, D) token features of a query."""
        self.query.put(str(desc_id), query_feat)


def features_size(settings: FeatureSettings, clips: int, subtitles: bool) -> int:
    """Bytes of the features of so many clips, without those of queries and what h5 adds to them."""
    first, second = half_sizes(settings.vid_feat_size)
    widths = {"resnet_i3d": first + second, "resnet": first, "i3d": second, JOINT: first + second}
    width = sum(widths[name] for name in settings.vid_feat_types) + subtitles * settings.text_feat_size
    return 4 * clips * width


@contextmanager
def new_corpus_features(
    out: Path, prefix: str, settings: FeatureSettings, subtitles: bool = True
) -> Iterator[CorpusFeatures]:
    """Open all feature files of a corpus for writing; each appears whole when the block ends well, or not at all.

    An `InputError` if a file cannot be written.
    """
    about: dict[str, Any] = {"made_by": MADE_BY, "seed": settings.seed, "generator_version": GENERATOR_VERSION}
    clips: dict[str, Any] = {**about, "clip_length": CLIP_LENGTH}
    try:
        with ExitStack() as stack:
            videos = {}
            for name in settings.vid_feat_types:
                path = video_feature_path(out, prefix, name)
                videos[name] = stack.enter_context(new_feature_file(path, **clips, normalised="L2 per half"))
            sub = None
            if subtitles:
                sub = stack.enter_context(new_feature_file(sub_feature_path(out, prefix), **clips, pooling="max"))
            of_query = {**about, **({"vectors": JOINT} if settings.joint else {})}
            query = stack.enter_context(new_feature_file(query_feature_path(out, prefix), **of_query))
            yield CorpusFeatures(videos, sub, query, half_sizes(settings.vid_feat_size)[0])
    except OSError as err:
        raise InputError(f"{out}: features cannot be written ({err}): is the disk full?") from err


def feature_paths(out: Path, prefix: str, settings: FeatureSettings, subtitles: bool = True) -> list[Path]:
    """All feature files that `new_corpus_features` writes."""
    videos = [video_feature_path(out, prefix, name) for name in settings.vid_feat_types]
    subs = [sub_feature_path(out, prefix)] if subtitles else []
    return [*videos, *subs, query_feature_path(out, prefix)]


def count_split(seconds: Sequence[float], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a split holds, from the durations of its videos in seconds and its queries."""
    return {
        "videos": len(seconds),
        "hours": round(sum(seconds) / 3600, 2),
        "clips": sum(map(n_clips, seconds)),
        "queries": len(rows),
        "types": dict(Counter(row["type"] for row in rows if row.get("type"))),
    }


def settings_record(settings: FeatureSettings) -> dict[str, Any]:
    """What the manifest says of the generator and its settings."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}
    return {"made_by": MADE_BY, "generator_version": GENERATOR_VERSION, "settings": plain}


@dataclass(frozen=True)
class Standing:
    """How the files of a corpus are, compared with what was made; names as the manifest has them."""

    missing: list[str]
    changed: list[str]  # of another size
    outdated: bool  # made by another version of the generator
    settings: dict[str, Any]  # what it was made with; empty where nothing says

    @property
    def as_made(self) -> bool:
        return not (self.missing or self.changed or self.outdated)


def refuse_others_files(out: Path, prefix: str, paths: Sequence[Path]) -> None:
    """An `InputError` if files would be replaced that no generator wrote; what one has not finished is its own."""
    if manifest_path(out, prefix).exists():
        return
    there = [path for path in paths if path.exists()]
    features = [path for path in there if path.suffix == ".h5"]
    others = [path for path in features if _maker(path) != MADE_BY]
    if not features:  # they are written first
        others = there
    if others:
        names = first_few([path.name for path in others])
        raise InputError(f"{out}: {names}: is not generated, and would be replaced: give another --out or --prefix")


def _maker(path: Path) -> Any:
    """What a feature file says made it; None where it cannot be read."""
    try:
        with FeatureFile(path) as file:
            return file.made_by().get("made_by")
    except InputError:
        return None


def standing(out: StrPath, prefix: str) -> Standing:
    """Compare the corpus in a folder with its manifest, which counts as missing itself when it is.

    `InputError` when the manifest cannot be read.
    """
    folder = Path(out)
    path = manifest_path(folder, prefix)
    if not path.exists():
        return Standing([path.name], [], False, {})
    remedy = f"mend it, or remove the folder, to have the corpus made again: {folder}"
    manifest = read_json(path, remedy)
    sizes, settings = (manifest.get(name) if isinstance(manifest, dict) else None for name in ("files", "settings"))
    if not isinstance(sizes, dict) or not isinstance(settings, dict):
        raise InputError(f"{path}: does not say which files were made, and with what settings: {remedy}")
    missing = [name for name in sizes if not (folder / name).is_file()]
    changed = [name for name in sizes if name not in missing and (folder / name).stat().st_size != sizes[name]]
    return Standing(missing, changed, manifest.get("generator_version") != GENERATOR_VERSION, settings)
