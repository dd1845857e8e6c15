"""An extraction can be stopped at any moment and continued, and what it leaves is whole and says what is in it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
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
from utils.feature_files.feature_file import FeatureError, FeatureFile, new_feature_file
from utils.feature_files.resumable_features import Extraction, file_stamp

CHILD = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from tests.utils.feature_files import extractions as t
write, n_written = os.write, 0
def write_half_and_die(handle, data):
    global n_written
    n_written += 1
    if n_written == {die_at}:
        write(handle, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(handle, data)
os.write = write_half_and_die
t.extract(Path({out!r}))
"""


def killed_child(out: Path, die_at: int) -> None:
    """A process that is killed in its write of that number: an item's array and its line are two."""
    script = CHILD.format(path=sys.path, die_at=die_at, out=str(out))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("die_at", [3, 4])  # in the second item's array and line
def test_a_killed_extraction_goes_on_and_equals_an_uninterrupted_one(tmp_path: Path, capsys, die_at: int) -> None:
    extract(tmp_path / "whole.h5")
    out = tmp_path / "video.h5"
    for _ in range(2):  # killed again, further on
        killed_child(out, die_at)
        assert not out.exists()
    capsys.readouterr()
    worked = extract(out)
    assert worked == NAMES[2:]
    said = capsys.readouterr().err
    assert "in progress when the last run stopped" in said
    assert f"{len(NAMES) - len(worked)} are done" in said
    assert_equal_files(out, tmp_path / "whole.h5")
    assert not folder_of(out).exists()


def test_failures_are_recorded_and_tried_again(tmp_path: Path) -> None:
    out = tmp_path / "video.h5"
    assert extract(out, broken=("video_2",)) == NAMES
    file = FeatureFile(out)
    assert file.missing(NAMES) == ["video_2"]
    assert '"failed":{"video_2":"is damaged"}' in file.made_by()["extraction"]
    assert extract(out) == ["video_2"]
    extract(tmp_path / "whole.h5")
    assert_equal_files(out, tmp_path / "whole.h5")


def test_nothing_is_written_when_all_is_there(tmp_path: Path) -> None:
    out = tmp_path / "video.h5"
    extract(out)
    before = out.stat().st_ino
    assert extract(out) == []
    assert out.stat().st_ino == before
    assert not folder_of(out).exists()


def test_new_items_join_and_those_nobody_asks_for_go(tmp_path: Path) -> None:
    out = tmp_path / "video.h5"
    extract(out, NAMES[:3])
    assert extract(out, NAMES[1:]) == NAMES[3:]
    assert FeatureFile(out).keys() == NAMES[1:]


@pytest.mark.parametrize("finish", [True, False])
def test_another_recipe_starts_anew_and_says_so(tmp_path: Path, capsys, finish: bool) -> None:
    out = tmp_path / "video.h5"
    if finish:
        extract(out)
    else:
        interrupted(out)
    capsys.readouterr()
    assert extract(out, recipe={**RECIPE, "frame_rate": 5.0}) == NAMES
    said = capsys.readouterr().err
    assert ("made in another way" if finish else "frame_rate 3.0 (now 5.0)") in said
    assert FeatureFile(out).made_by()["frame_rate"] == 5.0


@pytest.mark.parametrize("finish", [True, False])
def test_an_item_whose_source_changed_is_extracted_anew(tmp_path: Path, capsys, finish: bool) -> None:
    out, video = tmp_path / "out.h5", tmp_path / "a.mp4"

    def run(value: float, stop: bool = False) -> bool:
        with Extraction(out, RECIPE) as features:
            done = features.done("a", file_stamp(video))
            if not done:
                features.put("a", {"a": np.full((1, 1), value, np.float32)}, file_stamp(video))
            if stop:
                raise KeyboardInterrupt
        return done

    video.write_bytes(b"one")
    if finish:
        run(1)
    else:
        with pytest.raises(KeyboardInterrupt):
            run(1, stop=True)
    assert run(1)
    video.write_bytes(b"other")
    assert not run(2)
    assert "a: has changed" in capsys.readouterr().err
    assert FeatureFile(out).read("a") == 2


def test_a_changed_source_that_fails_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    out = tmp_path / "video.h5"
    extract(out)
    with Extraction(out, RECIPE) as features:
        for name in NAMES:
            if not features.done(name, "other" if name == "video_0" else "source"):
                features.failed(name, "is damaged now")
    assert FeatureFile(out).keys() == NAMES[1:]


def test_plain_values_are_kept_with_an_item(tmp_path: Path) -> None:
    out = tmp_path / "video.h5"
    interrupted(out)
    for _ in range(2):
        with Extraction(out, RECIPE) as features:
            for name in NAMES[:4]:
                assert features.done(name, "source")
                assert features.about(name) == {"duration": 1.5}


def test_arrays_of_any_number_and_shape_come_back(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(24, dtype=np.float16).reshape(2, 3, 4)[:, ::2],
        "a-lengths": np.array([1, 2], np.int16),
        "a-mask": np.zeros((0,), bool),
    }
    for _ in range(2):  # from the folder, then from the finished file
        with Extraction(tmp_path / "text.h5", RECIPE) as features:
            if not features.done("a"):
                features.put("a", arrays)
            features.put("b", {"b": np.zeros(1, np.float32)})
        with h5py.File(tmp_path / "text.h5") as file:
            for key, array in arrays.items():
                np.testing.assert_array_equal(file[key][()], array)
                assert file[key].dtype == array.dtype


SECOND = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from tests.utils.feature_files import extractions as t
from utils.basic_utils import command_line
command_line(t.extract)(Path({out!r}))
"""


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "video.h5"
    script = SECOND.format(path=sys.path, out=str(out))
    with Extraction(out, RECIPE) as features:
        features.put("a", {"a": np.zeros(1)})
        second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert second.returncode == 2
        assert "another process is extracting into it" in second.stderr
        features.put("b", {"b": np.zeros(1)})
    assert FeatureFile(out).keys() == ["a", "b"]


def test_a_full_disk_is_named_and_costs_only_the_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "video.h5"
    write = os.write
    room = 500

    def write_while_there_is_room(handle: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(handle, data[:room])
        room -= written
        return written

    monkeypatch.setattr(item_log.os, "write", write_while_there_is_room)
    with pytest.raises(InputError, match="make room there"):
        extract(out)
    monkeypatch.undo()
    worked = extract(out)
    assert 0 < len(worked) < len(NAMES)


@pytest.mark.parametrize("name", ["a/b", "", "."])
def test_names_that_no_key_can_have_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be a name"), Extraction(tmp_path / "video.h5", RECIPE) as features:
        features.put(name, {name: np.zeros(1)})


def test_keys_of_two_items_may_not_meet(tmp_path: Path) -> None:
    def run() -> None:
        with Extraction(tmp_path / "a.h5", RECIPE) as features:
            features.put("a", {"a": np.zeros(1), "a-mask": np.zeros(1)})
            features.put("a-mask", {"a-mask": np.zeros(1)})

    with pytest.raises(InputError, match="two items have a key a-mask"):
        run()


def test_folders_of_other_things_are_not_touched(tmp_path: Path) -> None:
    folder_of(tmp_path / "video.h5").mkdir()
    (folder_of(tmp_path / "video.h5") / "thesis.tex").write_text("all of it")
    with pytest.raises(InputError, match="is not what an extraction left"):
        extract(tmp_path / "video.h5")
    assert (folder_of(tmp_path / "video.h5") / "thesis.tex").exists()


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\nand no more", None])
def test_a_damaged_output_is_replaced(tmp_path: Path, content: bytes | None) -> None:
    out = tmp_path / "video.h5"
    if content is None:
        with h5py.File(out, "w") as file:
            file.attrs["extraction"] = '{"recipe": 3'
    else:
        out.write_bytes(content)
    assert extract(out) == NAMES
    assert FeatureFile(out).keys() == NAMES


@pytest.mark.parametrize("content", [b"an hour of video", None])
def test_an_output_that_no_extraction_wrote_is_not_lost(tmp_path: Path, content: bytes | None) -> None:
    out = tmp_path / "video.h5"
    if content is None:
        with new_feature_file(out) as file:
            file.put("a", np.ones((3, 2), np.float32))
    else:
        out.write_bytes(content)
    before = out.read_bytes()
    with pytest.raises(InputError, match="is there, and is not what an extraction wrote"):
        extract(out)
    assert out.read_bytes() == before


def test_what_a_run_is_not_asked_for_is_said_to_be_left_out(tmp_path: Path, capsys) -> None:
    out = tmp_path / "video.h5"
    extract(out)
    capsys.readouterr()
    assert extract(out, names=NAMES[1:]) == []
    assert f"leaves out what this run was not asked for: {NAMES[0]}" in capsys.readouterr().err
    assert FeatureFile(out).keys() == NAMES[1:]


def damage_header(out: Path, key: str) -> None:
    """Flip a bit in what a finished file says of one array."""
    with h5py.File(out) as file:
        at = h5py.h5o.get_info(file[key].id).addr
    content = bytearray(out.read_bytes())
    assert content[at : at + 4] == b"OHDR"
    content[at + 8] ^= 1
    out.write_bytes(content)


def test_a_damaged_item_of_a_finished_file_is_extracted_anew(tmp_path: Path, capsys) -> None:
    out = tmp_path / "video.h5"
    extract(out, NAMES[:5])
    damage_header(out, "video_2")
    assert extract(out) == ["video_2", "video_5"]
    assert "video_2 is extracted anew" in capsys.readouterr().err
    extract(tmp_path / "whole.h5")
    assert_equal_files(out, tmp_path / "whole.h5")


def test_a_damaged_item_of_a_finished_file_goes_when_it_cannot_be_extracted(tmp_path: Path) -> None:
    out = tmp_path / "video.h5"
    extract(out)
    damage_header(out, "video_2")
    assert extract(out, broken=("video_2",)) == ["video_2"]
    assert FeatureFile(out).keys() == [name for name in NAMES if name != "video_2"]


def test_items_whose_values_cannot_be_read_are_extracted_anew_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "video.h5"
    extract(out, NAMES[:5])
    numbers = FeatureFile.numbers

    def failing(file: FeatureFile, key: str) -> np.ndarray:
        if key in {"video_1", "video_3"}:
            raise FeatureError(file.path, key, "cannot be read")
        return numbers(file, key)

    monkeypatch.setattr(FeatureFile, "numbers", failing)
    with pytest.raises(InputError, match="run the same command again, video_1 is then extracted anew"):
        extract(out)
    assert extract(out) == ["video_1", "video_3"]
    extract(tmp_path / "whole.h5")
    assert_equal_files(out, tmp_path / "whole.h5")


def test_many_items_are_listed_in_the_file(tmp_path: Path) -> None:
    names = [f"{number:06d}" for number in range(3000)]
    for _ in range(2):
        with Extraction(tmp_path / "query.h5", RECIPE, {"kind": "query"}) as features:
            for name in names:
                if not features.done(name, "s" * 20):
                    features.put(name, {name: np.zeros((1, 2), np.float32)}, "s" * 20)
    made_by: dict = FeatureFile(tmp_path / "query.h5").made_by()
    assert made_by["kind"] == "query"
    assert "model" not in made_by
    assert len(made_by["extraction"]) > 1 << 16


def test_when_all_fails_there_is_no_file(tmp_path: Path) -> None:
    out = tmp_path / "video.h5"
    extract(out, broken=tuple(NAMES))
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_what_is_extracted(tmp_path: Path) -> None:
    def peak(n_items: int) -> int:
        tracemalloc.start()
        with Extraction(tmp_path / f"{n_items}.h5", RECIPE) as features:
            for number in range(n_items):
                features.put(str(number), {str(number): np.full((64, 1024), number, np.float32)})
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(64) < peak(8) + (1 << 20)  # 16 and 2 MiB of features


def test_a_stamp_of_a_folder_sees_its_files(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.jpg").write_bytes(b"1")
    before = file_stamp(tmp_path / "frames")
    assert file_stamp(tmp_path / "frames") == before
    (tmp_path / "frames" / "2.jpg").write_bytes(b"")
    assert file_stamp(tmp_path / "frames") != before


def test_a_missing_source_has_no_stamp(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.mp4: cannot be read"):
        file_stamp(tmp_path / "nothing.mp4")


def test_callers_errors_leave_what_was_done(tmp_path: Path, capsys) -> None:
    interrupted(tmp_path / "video.h5")
    assert "keeps the 4 done; the same command goes on from there" in capsys.readouterr().err


def test_parts_count_as_done_and_the_one_of_the_right_source_is_taken(tmp_path: Path, capsys) -> None:
    out, parts = tmp_path / "video.h5", [tmp_path / "part_1.h5", tmp_path / "part_2.h5"]
    extract(out, NAMES[:2])
    extract(parts[0], NAMES[1:4])
    with Extraction(parts[1], RECIPE) as features:  # of a video that has changed since
        features.put(NAMES[0], {NAMES[0]: np.ones((1, 4), np.float32)}, "newer", {"duration": 2.0})
    before = [part.read_bytes() for part in parts]
    with Extraction(out, RECIPE, parts=parts) as features:
        assert features.done(NAMES[0], "newer")
        assert [name for name in NAMES[1:] if not features.done(name, "source")] == NAMES[4:]
        assert features.about(NAMES[0]) == {"duration": 2.0}
    with FeatureFile(out) as file:
        assert file.keys() == NAMES[:4]
        np.testing.assert_array_equal(file.read(NAMES[0]), np.ones((1, 4)))
        np.testing.assert_array_equal(file.read(NAMES[3]), features_of(NAMES[3]))
    assert [part.read_bytes() for part in parts] == before


def test_what_is_damaged_in_a_part_is_extracted_anew(tmp_path: Path, capsys) -> None:
    out, part = tmp_path / "video.h5", tmp_path / "part.h5"
    extract(part)
    with h5py.File(part, "a") as file:
        del file[NAMES[2]]
    with Extraction(out, RECIPE, parts=[part]) as features:
        assert [name for name in NAMES if not features.done(name, "source")] == [NAMES[2]]
        features.put(NAMES[2], {NAMES[2]: features_of(NAMES[2])}, "source", {"duration": 1.5})
    extract(tmp_path / "whole.h5")
    assert_equal_files(out, tmp_path / "whole.h5")
