"""Shards extract at once and apart; together they make the corpus that one run alone makes, whatever is killed."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.support.joint_corpus import SECONDS, extract, make_videos
from tests.support.joint_models import tiny_joint_model
from utils.basic_utils import InputError
from utils.own_corpus.shards import Shard, shard_of
from utils.video_feature import pipeline
from utils.video_feature.frames import open_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, str]:
    clip = tiny_joint_model(folder / "clip", "clip")
    return {"image_model": f"hf/{clip}", "text_model": f"hf/{clip}"}


@pytest.fixture(scope="module")
def whole(folder: Path, models: dict[str, str]) -> Path:
    """What one run makes."""
    made = extract(folder, folder / "whole" / "tiny", **models)
    assert made.code == 0, made.err
    return folder / "whole" / "tiny"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which videos are decoded, as they are."""
    names: list[str] = []

    def spy(path: Path, *args: object) -> object:
        names.append(Path(path).stem)
        return open_video(path, *args)

    monkeypatch.setattr(pipeline, "open_video", spy)
    return names


def content(out: Path) -> dict[str, dict[str, np.ndarray]]:
    """All arrays of all feature files of a corpus, by file and key."""
    found = {}
    for path in out.rglob("*.h5"):
        if ".shard-" not in path.name:
            with h5py.File(path) as h5:
                found[str(path.relative_to(out))] = {key: np.asarray(array) for key, array in h5.items()}
    return found


def assert_same(one: Path, other: Path) -> None:
    ours, theirs = content(one), content(other)
    assert ours.keys() == theirs.keys()
    for name, arrays in ours.items():
        assert arrays.keys() == theirs[name].keys()
        for key, array in arrays.items():
            np.testing.assert_array_equal(array, theirs[name][key])


def test_shards_merge_to_what_one_run_makes(folder, models, whole: Path, tmp_path: Path, opened: list[str]) -> None:
    for number in (2, 1):
        made = extract(folder, tmp_path / "tiny", **models, shard=f"{number}/2")
        assert made.code == 0, made.err
        assert f"shard {number} of 2: 2 of 2 videos are done" in made.out
    assert opened == ["b", "d", "a", "c"]
    assert not list((tmp_path / "tiny").glob("*release*"))
    made = extract(folder, tmp_path / "tiny", **models)
    assert made.code == 0, made.err
    assert len(opened) == 4
    assert_same(tmp_path / "tiny", whole)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "tiny").rglob("*.h5")}
    assert extract(folder, tmp_path / "tiny", **models).code == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "tiny").rglob("*.h5")} == files


class _Killed(BaseException):
    """Stands for a kill: nothing handles it."""


def test_a_killed_shard_goes_on_and_a_killed_merge_too(
    folder, models, whole: Path, tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = pipeline.open_video

    def killed_at(name: str) -> None:
        def killing(path: Path, *args: object) -> object:
            if Path(path).stem == name:
                raise _Killed
            return spy(path, *args)

        monkeypatch.setattr(pipeline, "open_video", killing)

    killed_at("c")
    with pytest.raises(_Killed):
        extract(folder, tmp_path / "tiny", **models, shard="1/2")
    killed_at("b")
    with pytest.raises(_Killed):  # which does a shard's work where that is not finished
        extract(folder, tmp_path / "tiny", **models)
    monkeypatch.setattr(pipeline, "open_video", spy)
    opened.clear()
    assert extract(folder, tmp_path / "tiny", **models, shard="1/2").code == 0
    assert opened == ["c"]
    opened.clear()
    made = extract(folder, tmp_path / "tiny", **models)
    assert made.code == 0, made.err
    assert sorted(opened) == ["b", "d"]
    assert_same(tmp_path / "tiny", whole)


def test_parts_that_cannot_be_used_are_said_and_done_anew(
    folder, models, whole: Path, tmp_path: Path, opened: list[str]
) -> None:
    out = tmp_path / "tiny"
    assert extract(folder, out, **models, shard="1/2").code == 0
    assert extract(folder, out, **models, shard="2/2", bf16=True).code == 0
    (part,) = (out / "tiny_intermediate").glob("*.shard-1-of-2.h5")
    part.write_bytes(part.read_bytes()[:1000])
    (out / "tiny_intermediate" / "frames_clip.shard-3-of-4.h5.partial").mkdir()
    opened.clear()
    made = extract(folder, out, **models)
    assert made.code == 0, made.err
    assert sorted(opened) == sorted(SECONDS)
    assert "shard-1-of-2.h5: cannot be opened as h5" in made.err
    assert "shard-2-of-2.h5: was made in another way, and is not used" in made.err
    assert "shard-3-of-4.h5.partial: this shard is not finished" in made.err
    assert_same(out, whole)


def test_every_video_is_in_one_shard() -> None:
    videos = {name: Path(name) for name in "hgfedcba"}
    shares = [list(Shard(number, 3).share(videos)) for number in (1, 2, 3)]
    assert shares == [["a", "d", "g"], ["b", "e", "h"], ["c", "f"]]
    assert Shard(9, 9).share(videos) == {}


def test_more_shards_than_videos_are_no_error(folder, models, tmp_path: Path) -> None:
    made = extract(folder, tmp_path / "tiny", **models, shard="9/9")
    assert (made.code, "0 of 0 videos are done" in made.out) == (0, True)


@pytest.mark.parametrize("asked", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_shards_that_make_no_sense_are_refused(asked: str) -> None:
    with pytest.raises(InputError, match=r"--shard .*: give I/N"):
        shard_of(asked)


def test_auto_is_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match=r"--shard auto: RANK and WORLD_SIZE are not set"):
        shard_of("auto")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert shard_of("auto") == shard_of("1/4") == Shard(1, 4)


def test_a_shard_removes_nothing(folder, models, tmp_path: Path) -> None:
    made = extract(folder, tmp_path / "tiny", **models, shard="1/2", remove_intermediate=True)
    assert (made.code, "give it to the run without --shard" in made.err) == (2, True)
