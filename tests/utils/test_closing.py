"""An error closes what was opened: its traceback, which may be kept, keeps no file open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.open_files import open_h5_files
from utils.annotations import convert_features
from utils.basic_utils import InputError, write_jsonl
from utils.feature_files.compare_features import compare
from utils.feature_files.feature_file import new_feature_file
from utils.feature_files.resumable_features import Extraction
from utils.own_corpus.clips import badly_timed, write_clips
from utils.text_feature.convert_sub_feature_word_to_clip import convert as convert_sub
from utils.video_feature import convert_feature_frm_to_clip
from utils.video_feature.merge_align_i3d import merge_align
from utils.video_feature.normalize_and_concat import normalize_and_concat


def put_too_little(folder: Path) -> None:
    """Extraction goes on from a file whose item is not asked for again, and fails."""
    out = folder / "extracted.h5"
    with Extraction(out, {"model": "x"}) as features:
        features.put("a", {"a": np.ones((2, 3), np.float32)})
    with Extraction(out, {"model": "x"}) as features:
        features.put("a/b", {"a/b": np.ones((2, 3), np.float32)})


REFUSED: dict[str, Callable[[Path], object]] = {
    "reading": lambda folder: convert_sub(
        folder / "b.h5", folder / "sub.jsonl", folder / "damaged.h5", folder / "out.h5"
    ),
    "comparing": lambda folder: compare(folder / "a.h5", folder / "b.h5"),
    "pooling": lambda folder: convert_feature_frm_to_clip.convert([folder / "nan.h5"], folder / "out.h5"),
    "merging": lambda folder: merge_align([folder / "a.h5", folder / "nan.h5"], folder / "b.h5", folder / "out.h5"),
    "joining": lambda folder: normalize_and_concat(folder / "a.h5", folder / "b.h5", folder / "out.h5"),
    "timing": lambda folder: badly_timed(folder / "a.h5", {"nobody": 1.0}, 3.0, 1.5),
    "clips": lambda folder: write_clips("x", ["a"], folder / "nan.h5", folder / "b.h5", folder / "out.h5", 1.5, "max"),
    "subtitles": lambda folder: convert_sub(folder / "b.h5", folder / "sub.jsonl", folder / "a.h5", folder / "out.h5"),
    "extracting": put_too_little,
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_feature_file_stays_open_after_an_error(tmp_path: Path, name: str) -> None:
    features = np.ones((4, 3), np.float32)
    for stem, key, array in (("a", "a", features), ("b", "b", features), ("nan", "a", features * np.nan)):
        with new_feature_file(tmp_path / f"{stem}.h5", frame_rate=3.0) as out:
            out.put(key, array)
    write_jsonl([{"vid_name": "a", "sub": [{"text": "x", "start": 0, "end": 1}]}], tmp_path / "sub.jsonl")
    with new_feature_file(tmp_path / "damaged.h5") as out:
        out.put("a", features[0])
    before = open_h5_files()
    with pytest.raises(InputError) as raised:
        REFUSED[name](tmp_path)
    assert open_h5_files() == before
    assert raised.traceback  # the error lives, and with it all frames that it came through


def test_converting_closes_its_source(tmp_path: Path) -> None:
    with new_feature_file(tmp_path / "a.h5") as out:
        out.put("a", np.full((2, 3), np.nan, np.float32))
    before = open_h5_files()
    with pytest.raises(SystemExit) as raised:
        convert_features.main(["--src", str(tmp_path / "a.h5"), "--out", str(tmp_path / "out.h5")])
    assert open_h5_files() == before
    assert raised.value.code == 2
