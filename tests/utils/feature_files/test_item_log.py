"""What damage to the log of an extraction costs: the item that it is in, and no other."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.utils.feature_files.extractions import (
    NAMES,
    RECIPE,
    assert_equal_files,
    extract,
    features_of,
    folder_of,
    interrupted,
)
from utils.basic_utils import InputError
from utils.feature_files import item_log
from utils.feature_files.feature_file import FeatureFile
from utils.feature_files.resumable_features import Extraction


@pytest.mark.parametrize("file", ["items", "items.index"])
@pytest.mark.parametrize("cut", [1, 20, 48])
def test_whatever_length_a_file_has_after_a_kill_only_the_last_item_is_lost(
    tmp_path: Path, file: str, cut: int
) -> None:
    out = tmp_path / "video.h5"
    interrupted(out)
    items = folder_of(out) / file
    os.truncate(items, items.stat().st_size - cut)
    assert extract(out) == NAMES[3:]
    extract(tmp_path / "whole.h5")
    assert_equal_files(out, tmp_path / "whole.h5")


def test_zeros_that_a_power_cut_left_are_not_taken_for_features(tmp_path: Path, capsys) -> None:
    out = tmp_path / "video.h5"
    interrupted(out)
    items = folder_of(out) / "items"
    content = items.read_bytes()
    items.write_bytes(content[:-20] + bytes(20))
    assert extract(out) == NAMES[3:]
    assert "damaged, extracted anew: video_3" in capsys.readouterr().err
    np.testing.assert_array_equal(FeatureFile(out).read("video_3"), features_of("video_3"))


def test_a_bit_that_flips_in_the_middle_costs_that_item_only(tmp_path: Path) -> None:
    out = tmp_path / "video.h5"
    interrupted(out)
    items = folder_of(out) / "items"
    content = bytearray(items.read_bytes())
    place = content.index(features_of(NAMES[1]).tobytes())
    content[place] ^= 1
    items.write_bytes(content)
    assert extract(out) == [NAMES[1], *NAMES[4:]]


def flip_line(out: Path, name: str) -> None:
    """Flip a bit in what the index says of an item."""
    index = folder_of(out) / "items.index"
    content = bytearray(index.read_bytes())
    content[content.index(f'["{name}"'.encode()) + 2] ^= 1
    index.write_bytes(content)


@pytest.mark.parametrize("number", [0, 2, 3])
def test_a_bit_that_flips_in_the_index_costs_that_item_only(tmp_path: Path, capsys, number: int) -> None:
    out = tmp_path / "video.h5"
    interrupted(out)
    flip_line(out, NAMES[number])
    assert extract(out) == [NAMES[number], *NAMES[4:]]
    assert f"damaged, extracted anew: line {number + 1} of the index" in capsys.readouterr().err
    extract(tmp_path / "whole.h5")
    assert_equal_files(out, tmp_path / "whole.h5")


def test_damage_in_the_middle_stays_passed_over_and_a_tail_behind_it_is_cut_off(tmp_path: Path) -> None:
    out = tmp_path / "video.h5"
    interrupted(out)
    flip_line(out, NAMES[1])
    items = folder_of(out) / "items"
    index = folder_of(out) / "items.index"
    os.truncate(index, index.stat().st_size - 1)
    for was_cut in (True, False):
        log = item_log.ItemLog(items)
        assert list(log.items) == [NAMES[0], NAMES[2]]
        assert len(log.damaged) == 1
        assert log.was_cut == was_cut
        log.close()
    assert extract(out) == [NAMES[1], *NAMES[3:]]


@pytest.mark.parametrize("file", ["items", "items.index"])
@pytest.mark.parametrize("what", ["link", "folder", "pipe"])
def test_what_is_no_plain_file_is_named(tmp_path: Path, what: str, file: str) -> None:
    out = tmp_path / "video.h5"
    interrupted(out)
    items = folder_of(out) / file
    items.rename(tmp_path / "moved")
    {
        "link": lambda: items.symlink_to(tmp_path / "moved"),
        "folder": items.mkdir,
        "pipe": lambda: os.mkfifo(items),
    }[what]()
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    with pytest.raises(InputError, match=r"items: cannot be read and written \("):
        extract(out)
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == before


def test_an_item_that_is_damaged_during_the_run_stops_it_and_is_mended_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "video.h5"

    def run() -> None:
        with Extraction(out, RECIPE) as features:
            for name in NAMES:
                features.put(name, {name: features_of(name)}, "source")
            items = folder_of(out) / "items"
            one, other = (features_of(name).tobytes() for name in ("video_1", "video_2"))
            items.write_bytes(items.read_bytes().replace(one, other))

    with pytest.raises(InputError, match=r"video_1 is damaged: run the same command again"):
        run()
    assert not out.exists()
    assert extract(out) == ["video_1"]
