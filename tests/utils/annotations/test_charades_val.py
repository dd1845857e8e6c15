"""What Charades-STA holds out as val leaves queries on both sides, or is refused with what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.annotations import charades_sta, convert
from utils.annotations.reading import Reader, with_val
from utils.basic_utils import InputError
from utils.own_corpus.splits import val_videos

LENGTHS = {"AO8RW": 33.67, "Y6R7T": 29.5, "CMYZU": 10.4}


def folder_with(tmp_path: Path, lines: list[str]) -> Path:
    (tmp_path / "charades_sta_train.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    table = "".join(f"{name},{seconds}\n" for name, seconds in LENGTHS.items())
    (tmp_path / "Charades_v1_train.csv").write_text(f"id,length\n{table}", encoding="utf-8")
    return tmp_path


def one_without_queries(tmp_path: Path, lost: str) -> Path:
    """Each video has one query, but that of `lost` is reversed and therefore left out."""
    return folder_with(tmp_path, [f"{name} {'9 3' if name == lost else '3 9'}##person walks." for name in LENGTHS])


@pytest.mark.parametrize(("share", "lonely"), [(0.01, "val"), (0.99, "train")])
def test_a_part_whose_only_video_has_no_queries_is_refused(tmp_path, share, lonely):
    """Of three videos, one is alone in its part whatever the share."""
    alone = val_videos(list(LENGTHS), share)
    (lost,) = alone if lonely == "val" else set(LENGTHS) - alone
    folder = one_without_queries(tmp_path, lost)
    said = f"--val_share {share}: of the 3 training videos, none with queries is left for {lonely}: give another share"
    with pytest.raises(InputError, match=said):
        with_val(charades_sta.read(folder, Reader()), share)
    whole = charades_sta.read(folder, Reader())
    assert {name: len(split.queries) for name, split in whole.items()} == {"train": 2}


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_both_parts_have_queries_when_another_video_has_none(tmp_path, share):
    val = val_videos(list(LENGTHS), share)
    together = val if len(val) == 2 else set(LENGTHS) - val
    for lost in sorted(together):
        splits = with_val(charades_sta.read(one_without_queries(tmp_path, lost), Reader()), share)
        assert {name: len(split.queries) for name, split in splits.items()} == {"train": 1, "val": 1}


def test_lines_of_another_form_are_what_is_said_before_any_share(tmp_path):
    folder = folder_with(tmp_path, ["AO8RW 3 nine##person walks.", "Y6R7T 3 9##person sits."])
    with pytest.raises(InputError, match="line 1: 'AO8RW 3 nine"):
        convert.read("charades_sta", folder, 0.5)
