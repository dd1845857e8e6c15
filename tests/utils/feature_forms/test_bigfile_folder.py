"""BigFiles as MS-SL's: rows are put together to videos by a dict or by their names, and must all be there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.utils.feature_forms.converting import RNG, assert_holds, convert, refused

ROWS = RNG.normal(size=(12, 6)).astype(np.float32)
IDS = [*(f"a_{number}" for number in (10, 9, 2)), *(f"b_x_{number}" for number in range(8)), "ü\u3000c"]


def bigfile(tmp_path: Path, ids: list[str] = IDS, rows: np.ndarray = ROWS, **files: str) -> Path:
    folder = tmp_path / "big"
    folder.mkdir(exist_ok=True)
    (folder / "feature.bin").write_bytes(rows.astype("<f4").tobytes())
    (folder / "id.txt").write_text(" ".join(ids))
    (folder / "shape.txt").write_text("{} {}".format(*rows.shape))
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_rows_of_a_name_follow_their_numbers(tmp_path):
    assert_holds(convert(bigfile(tmp_path)), {"a": ROWS[[2, 1, 0]], "b_x": ROWS[3:11], "ü\u3000c": ROWS[11:]})


def test_rows_of_sentences_stand_for_themselves(tmp_path):
    ids = ["v#enc#0", "v#enc#1", "w_2#enc#0"]
    expected = {name: ROWS[number : number + 1] for number, name in enumerate(ids)}
    assert_holds(convert(bigfile(tmp_path, ids, ROWS[:3]), "--kind", "query"), expected)


def test_frames_are_those_of_the_dict_in_its_order(tmp_path):
    frames = {"v": ["a_9", "a_10", "b_x_0", "b_x_1"], "w": ["ü\u3000c"]}
    assert_holds(convert(bigfile(tmp_path, video2frames=repr(frames))), {"v": ROWS[[1, 0, 3, 4]], "w": ROWS[[11]]})


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"shape": "12"}, "shape.txt: expected the number of rows and their size"),
        ({"shape": "-12 -6"}, "shape.txt: expected the number of rows and their size"),
        ({"shape": "12 0"}, "shape.txt: says 12 rows of 0"),
        ({"shape": "12 7"}, "feature.bin: has 288 bytes, shape.txt says 12 × 7, 336"),
        ({"shape": "99999999999 6"}, "id.txt: has 12 names, shape.txt says 99,999,999,999 rows"),
        ({"id": "a b"}, "id.txt: has 2 names, shape.txt says 12 rows"),
        ({"id": "a " * 12}, "id.txt: has a more than once"),
        ({"video2frames": ""}, "video2frames.txt: cannot be read"),
        ({"video2frames": "{}"}, "video2frames.txt: cannot be read (a dict)"),
        ({"video2frames": "__import__('os').abort()"}, "video2frames.txt: cannot be read"),
        ({"video2frames": "(" * 5000}, "video2frames.txt: cannot be read"),
        ({"video2frames": "-" * 100_000}, "video2frames.txt: cannot be read"),
        ({"video2frames": "{'v': ['nobody']}"}, "that id.txt does not name: v"),
        ({"video2frames": "{'v': []}"}, "videos without rows, or with some that id.txt does not name: v"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path, capsys, files, said):
    assert said in refused(capsys, bigfile(tmp_path, **files))


@pytest.mark.parametrize("name", ["id.txt", "shape.txt"])
def test_a_missing_file_is_named(tmp_path, capsys, name):
    folder = bigfile(tmp_path)
    (folder / name).unlink()
    assert f"{name}: cannot be read" in refused(capsys, folder)


def test_a_row_is_not_repeated_without_end(tmp_path, capsys):
    rows = np.ones((1, 1 << 15), np.float32)
    frames = repr({"v": ["a_1"] * 2000})
    message = refused(capsys, bigfile(tmp_path, ["a_1"], rows, video2frames=frames))
    assert "key v: cannot be read (claims 250 MiB, but 0.1 MiB are stored)" in message


def test_values_that_are_no_numbers_are_refused_by_key(tmp_path, capsys):
    rows = ROWS.copy()
    rows[4, 2] = np.nan
    assert "key b_x: holds NaN or Inf" in refused(capsys, bigfile(tmp_path, rows=rows))
