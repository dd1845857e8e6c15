"""Logs in a results folder: whole lines, cut back to what a saved state knew."""

import os
import threading
from pathlib import Path

import pytest

from method_tvr.training.run_files import RunFiles, hand_on
from tests.support.runs.disk import largest_file
from utils.basic_utils import InputError


def lines(files: RunFiles) -> list[str]:
    return [line.split(" ", 1)[1] for line in (files.dir / "train.log.txt").read_text().splitlines()]


def test_a_log_line_that_does_not_fit_is_not_begun(tmp_path, monkeypatch):
    files = RunFiles(tmp_path / "run")
    monkeypatch.setattr(files._writer, "add_scalar", lambda *args: None)  # would be written at any time
    files.log_losses(0, {"loss_overall": 1.0}, "Train")
    log = tmp_path / "run" / "train.log.txt"
    before = log.read_bytes()
    with largest_file(len(before) + 10), pytest.raises(InputError, match=r"train\.log\.txt: cannot be written"):
        files.log_losses(1, {"loss_overall": 1.0}, "Train")
    assert log.read_bytes() == before
    files.close()


def test_what_was_logged_after_a_state_was_saved_is_cut_off(tmp_path):
    files = RunFiles(tmp_path / "run")
    files.log_losses(0, {"loss_overall": 1.0}, "Train")
    known = files.lengths()
    files.log_losses(1, {"loss_overall": 2.0}, "Train")
    files.log_metrics(1, {"VR": {"r1": 1.0}})
    files.close()
    again = RunFiles(tmp_path / "run", known)
    assert lines(again) == ["[Epoch] 000 [Loss] loss_overall 1.0000"]
    assert not (tmp_path / "run" / "eval.log.txt").exists()
    again.log_losses(1, {"loss_overall": 3.0}, "Train")
    assert lines(again)[1:] == ["[Epoch] 001 [Loss] loss_overall 3.0000"]
    again.close()


def test_lines_that_a_power_cut_has_taken_are_said_to_be_lost(tmp_path, capsys):
    files = RunFiles(tmp_path / "run")
    files.log_losses(0, {"loss_overall": 1.0}, "Train")
    known = files.lengths()
    files.close()
    (tmp_path / "run" / "train.log.txt").write_text("")
    RunFiles(tmp_path / "run", known).close()
    assert "train.log.txt: its last" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train.log.txt", "eval.log.txt", "tensorboard_log", "tensorboard_log/x"])
@pytest.mark.parametrize("make", ["link", "pipe"])
def test_logs_that_lead_elsewhere_or_never_end_are_refused(tmp_path, name, make):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    (folder / "tensorboard_log").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "events.x").write_text("0123456789")
    path = folder / name
    if name == "tensorboard_log":
        path.rmdir()
    if make == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(elsewhere / "events.x" if name.endswith("txt") else elsewhere)
    with pytest.raises(InputError, match=f"{name}: is a link or no ordinary file"):
        RunFiles(folder, {name: 2})
    assert [path.read_text() for path in elsewhere.iterdir()] == ["0123456789"]


def test_a_folder_that_is_named_like_a_part_is_left_alone(tmp_path):
    (tmp_path / "run" / ".x.part").mkdir(parents=True)
    RunFiles(tmp_path / "run", {}).close()
    assert (tmp_path / "run" / ".x.part").is_dir()


def test_a_script_that_asks_for_it_reads_which_folder_its_run_has_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELOCLNET_MADE", str(tmp_path / "made"))
    hand_on(Path("results/run"))
    assert (tmp_path / "made").read_text() == f"{tmp_path}/results/run\n"
    monkeypatch.delenv("RELOCLNET_MADE")
    hand_on(Path("results/other"))  # nobody asks
    assert (tmp_path / "made").read_text() == f"{tmp_path}/results/run\n"


def test_curves_that_do_not_fit_are_an_error_without_a_traceback(tmp_path, capfd):
    def fill():
        with RunFiles(tmp_path / "run") as files, largest_file(300):
            for step in range(500):
                files.log_scalar("Train/LR", 0.5, step)
            files.lengths()

    before = threading.excepthook
    with pytest.raises(OSError, match="File too large"):
        fill()
    assert "Traceback" not in capfd.readouterr().err
    assert threading.excepthook is before
