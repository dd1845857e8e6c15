"""Runs that are stopped, killed or run out of disk go on as if nothing had happened, bit for bit."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from method_tvr import train
from method_tvr.optimization import BertAdam
from method_tvr.report.plots import read_curves
from method_tvr.train import Trainer
from method_tvr.training import saved_run as training_state
from method_tvr.training.checkpoint import load_checkpoint
from method_tvr.training.run_files import RunFiles
from method_tvr.training.saved_run import BEST, LAST, PREVIOUS, Phase, load_saved_run
from tests.support.runs.commands import Finished
from tests.support.runs.disk import largest_file
from tests.support.runs.moments import Moment, looking_at
from tests.support.runs.results import logged, losses_of, metrics_of
from utils.basic_utils import PROJECT_ROOT
from utils.content_digest import content_digest

RUN = {  # two epochs of four steps
    "exp_id": "r", "n_epoch": 2, "bsz": 32, "lr": 0.01, "save_every": 3, "eval_untrained": True,
    "eval_tasks_at_training": ["VCMR"],
}  # fmt: skip


FIVE_STEPS, SEVEN_STEPS = Moment(BertAdam, "step", 5), Moment(BertAdam, "step", 7)
IN_STEPS = [Moment(BertAdam, "step", 0), Moment(BertAdam, "step", 3, done=True), Moment(BertAdam, "step", 6)]
SEVERAL = Moment(BertAdam, "step", 4)
SAVES = [Moment(Path, "replace", save, to=LAST) for save in (0, 1, 7)]  # untrained; in an epoch; all done
OUTSIDE_STEPS = [
    Moment(train, "evaluate_split", 0, done=True),  # before training
    Moment(train, "evaluate_split", 2),
    Moment(train, "save_checkpoint", 0, done=True),  # of the best epoch
    Moment(RunFiles, "log_losses", 2, done=True),
    Moment(RunFiles, "log_metrics", 1, done=True),
    Moment(RunFiles, "save_code", 0),
    Moment(train, "run_inference", 0),
    Moment(train, "mark_finished", 0),
]
MOMENTS = [FIVE_STEPS, SEVEN_STEPS, SEVERAL, *IN_STEPS, *SAVES, *OUTSIDE_STEPS]


class Killed(BaseException):
    """In place of a kill, for a process that has to live on: nothing that comes after it in the run is done."""


@pytest.fixture
def start(run_main, tiny_corpus, tmp_path) -> Callable[..., tuple[Finished, Path]]:
    """Start a run; returns how it ended and its folder."""

    def start(corpus=tiny_corpus, **typed: object) -> tuple[Finished, Path]:
        root = tmp_path / "results"
        before = set(root.glob("*"))
        finished = run_main(train.main, corpus.options(**{**RUN, "results_root": root, **typed}))
        (folder,) = set(root.glob("*")) - before
        return finished, folder

    return start


@pytest.fixture
def resume(run_main) -> Callable[..., Finished]:
    return lambda folder, *typed: run_main(train.main, ["--resume", str(folder), *typed])


def train_to_the_end(argv: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py", *argv])
        train.main()


@pytest.fixture(scope="module")
def seen(tiny_corpus, tmp_path_factory) -> tuple[Path, dict[Moment, Path]]:
    """The folder of a run that nothing happened to, and what a kill would have left of it at each moment."""
    root, left = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("left")
    copies: dict[Moment, Path] = {}

    def copy(moment: Moment) -> None:
        (folder,) = root.iterdir()
        copies[moment] = Path(shutil.copytree(folder, left / str(len(copies))))

    with looking_at(MOMENTS, copy):
        train_to_the_end(tiny_corpus.options(**RUN, results_root=root))
    (folder,) = root.iterdir()
    assert copies.keys() == set(MOMENTS)
    return folder, copies


@pytest.fixture(scope="module")
def whole(seen) -> Path:
    """The folder of a run that nothing happened to."""
    return seen[0]


@pytest.fixture
def killed_at(seen, tmp_path) -> Callable[[Moment], Path]:
    """A copy of what a kill leaves at a moment, to go on with."""
    return lambda moment: Path(shutil.copytree(seen[1][moment], tmp_path / "killed"))


@pytest.fixture
def killed(killed_at) -> Path:
    """A folder with two saved states."""
    return killed_at(FIVE_STEPS)


def until(calls: int, function: Callable[..., object]) -> Callable[..., object]:
    """`function`, but that its call number `calls` (from 0) is a kill."""
    made = []

    def called(*args: object) -> object:
        made.append(1)
        if len(made) > calls:
            raise Killed
        return function(*args)

    return called


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's curves, sorted: files made within one second, as only here, are read in any order."""
    found = read_curves(folder / "tensorboard_log")
    return {tag: sorted(zip(curve.epochs, curve.values, strict=True)) for tag, curve in found.items()}


def left_by(folder: Path) -> dict[str, object]:
    """All that a run leaves, but for times and what the options say about places."""
    last = load_checkpoint(folder / LAST)
    return {
        "best": (folder / BEST).read_bytes(),
        "weights": content_digest(last.state),
        **{name: content_digest(value) for name, value in last.training.items() if name != "log_lengths"},
        **{name: logged(folder, name) for name in ("train.log.txt", "eval.log.txt")},
        "curves": curves(folder),
        "predictions": {path.name: path.read_bytes() for path in folder.glob("*_predictions_*")},
        "files": {path.name for path in folder.iterdir()},
    }


left_by_whole = cache(left_by)


def assert_same_run(folder: Path, whole: Path) -> None:
    found, expected = left_by(folder), left_by_whole(whole)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == value, name


@pytest.mark.parametrize("moment", IN_STEPS, ids=str)
def test_a_run_killed_in_a_step_goes_on_as_if_it_had_not_been(killed_at, resume, whole, moment):
    folder = killed_at(moment)
    finished = resume(folder)
    assert finished.code == 0, finished.err
    assert "going on with" in finished.out
    assert_same_run(folder, whole)


@pytest.mark.parametrize("moment", SAVES, ids=str)
def test_a_run_killed_between_the_renamings_of_a_save_goes_on(killed_at, resume, whole, moment):
    folder = killed_at(moment)
    assert not (folder / LAST).exists()
    assert (folder / PREVIOUS).exists() == (moment.call > 0)
    assert resume(folder).code == 0
    assert_same_run(folder, whole)


@pytest.mark.parametrize("moment", OUTSIDE_STEPS, ids=str)
def test_a_run_killed_outside_its_steps_goes_on(killed_at, resume, whole, moment):
    folder = killed_at(moment)
    assert resume(folder).code == 0
    if moment.name == "save_code":
        shutil.copy(whole / "code.zip", folder / "code.zip")
    assert_same_run(folder, whole)


def test_a_run_that_ran_out_of_memory_goes_on_and_may_evaluate_less_at_a_time(start, resume, whole, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_save_best", full)
        ended, folder = start()
    assert ended.code == 2
    assert "a resumed run takes --eval_context_bsz, --retrieval_bsz, --feature_cache anew\n" in ended.err
    assert f"train.sh --resume {folder}" in ended.err
    assert "Traceback" not in ended.err
    assert resume(folder, "--eval_context_bsz", "3", "--retrieval_bsz", "7", "--eval_query_bsz", "9").code == 0
    assert metrics_of(folder)[:1] == metrics_of(whole)[:1]
    assert len(metrics_of(folder)) == len(metrics_of(whole))


def test_half_written_files_are_removed_and_other_ways_of_running_change_nothing(killed, resume, whole):
    (killed / f".{LAST}.x1y2z3.part").write_bytes(b"half")
    typed = ["--feature_cache", "disk", "--num_workers", "1", "--save_every", "1", "--device_ids", "0"]
    assert resume(killed, *typed).code == 0
    assert_same_run(killed, whole)


def test_the_last_of_several_stops_is_gone_on_from(killed_at, resume, whole, monkeypatch):
    folder = killed_at(SEVERAL)
    for steps in (0, 2):
        with monkeypatch.context() as patch:
            patch.setattr(BertAdam, "step", until(steps, BertAdam.step))
            with pytest.raises(Killed):
                resume(folder)
        folder = Path(shutil.copytree(folder, folder.with_name(f"{folder.name}_")))
    assert resume(folder).code == 0
    assert_same_run(folder, whole)


def test_a_finished_run_is_left_alone(resume, whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    finished = resume(folder)
    assert finished.code == 0
    assert "finished" in finished.out
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--lr", "0.5"], r"--lr 0.5: the run in .* was started with 0.01"),
        (["--seed", "1"], "--seed 1"),
        (["--n_epoch", "9"], "--n_epoch 9"),
        (["--trim_padding"], "--trim_padding True"),
        (["--tf32"], "--tf32 True"),
        (["--cache_dtype", "float16"], "--cache_dtype float16"),
        (["--save_every", "-1"], "--save_every -1"),
    ],
)
def test_options_that_would_make_it_another_run_are_refused(resume, whole, tmp_path, typed, message):
    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    finished = resume(folder, *typed)
    assert finished.code == 2
    assert re.search(message, finished.err)


def test_a_pattern_below_the_results_root_will_do_and_options_typed_as_they_were_are_no_change(killed, resume, whole):
    assert resume("kill*", "--results_root", str(killed.parent), "--lr", "0.01", "--bsz", "32").code == 0
    assert_same_run(killed, whole)


def test_other_queries_are_refused(killed, resume, tiny_corpus, tmp_path):
    lines = tiny_corpus.annotations("train").read_text().splitlines(keepends=True)
    (tmp_path / "other.jsonl").write_text("".join([*lines[1:], lines[0]]))
    finished = resume(killed, "--train_path", str(tmp_path / "other.jsonl"))
    assert finished.code == 2
    assert "other.jsonl" in finished.err


@pytest.mark.parametrize("missing", ["folder", "opt.json", LAST, "state"])
def test_what_cannot_be_gone_on_with_is_said(resume, whole, tmp_path, missing):
    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    if missing == "folder":
        shutil.rmtree(folder)
    elif missing == "state":
        shutil.copy(folder / BEST, folder / LAST)
    else:
        (folder / missing).unlink()
    finished = resume(folder)
    assert finished.code == 2
    assert str(folder) in finished.err


# ---------------------------------------------------------------- damage


def damage(path: Path) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(2000) + content[middle + 2000 :])


def test_a_damaged_state_falls_back_to_the_one_before(killed_at, resume, whole):
    folder = killed_at(SEVEN_STEPS)
    damage(folder / LAST)
    finished = resume(folder)
    assert finished.code == 0
    assert f"warning: {folder / LAST}" in finished.err
    assert f"going on with {folder / PREVIOUS}" in finished.err
    assert_same_run(folder, whole)


def test_without_a_whole_state_nothing_is_touched(killed, resume):
    for name in (LAST, PREVIOUS):
        damage(killed / name)
    before = {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()}
    finished = resume(killed)
    assert finished.code == 2
    assert "no saved state is whole" in finished.err
    assert {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()} == before


def test_a_state_of_another_model_is_refused(killed, resume):
    opt = json.loads((killed / "opt.json").read_text())
    (killed / "opt.json").write_text(json.dumps({**opt, "hidden_size": 16}))
    finished = resume(killed)
    assert finished.code == 2
    assert f"{killed / LAST}: does not fit this run" in finished.err


def test_logs_outside_the_folder_are_out_of_a_states_reach(killed, resume, tmp_path):
    (tmp_path / "precious.txt").write_text("0123456789")
    content = torch.load(killed / LAST, weights_only=True)
    del content["digest"]
    content["training"]["log_lengths"] |= {"../precious.txt": 2, str(tmp_path / "precious.txt"): 3}
    training_state.write_content(killed / LAST, content)
    assert resume(killed).code == 0
    assert (tmp_path / "precious.txt").read_text() == "0123456789"


# ---------------------------------------------------------------- signals


def signalled(calls: int, function: Callable[..., object], *numbers: int) -> Callable[..., object]:
    """`function`, but that its call number `calls` (from 0) is hit by signals first."""
    made = []

    def called(*args: object, **kwargs: object) -> object:
        made.append(1)
        if len(made) == calls + 1:
            for number in numbers:
                os.kill(os.getpid(), number)
        return function(*args, **kwargs)

    return called


@pytest.mark.parametrize(("number", "code", "step"), [(signal.SIGTERM, 143, 0), (signal.SIGINT, 130, 5)])
def test_a_signal_in_a_step_saves_after_it_and_says_how_to_go_on(start, resume, whole, monkeypatch, number, code, step):
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patch:
        patch.setattr(BertAdam, "step", signalled(step, BertAdam.step, number))
        stopped, folder = start()
    assert stopped.code == code
    assert f"train.sh --resume {folder}" in stopped.err
    assert load_saved_run(folder).state.optimizer["steps_done"] == step + 1
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert resume(folder).code == 0
    assert_same_run(folder, whole)


@pytest.mark.parametrize(
    ("name", "number", "code"), [("evaluate_split", signal.SIGTERM, 143), ("run_inference", signal.SIGINT, 130)]
)
def test_a_signal_outside_steps_stops_at_once(start, resume, whole, monkeypatch, name, number, code):
    function = getattr(train, name)
    calls = 2 if name == "evaluate_split" else 0
    with monkeypatch.context() as patch:
        patch.setattr(train, name, signalled(calls, function, number))
        stopped, folder = start()
    assert stopped.code == code
    assert f"train.sh --resume {folder}" in stopped.err
    assert resume(folder).code == 0
    assert_same_run(folder, whole)


def test_a_second_signal_stops_within_the_step(start, resume, whole, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(BertAdam, "step", signalled(4, BertAdam.step, signal.SIGINT, signal.SIGINT))
        stopped, folder = start()
    assert stopped.code == 130
    assert load_saved_run(folder).state.optimizer["steps_done"] == 4  # saved at the end of the epoch before
    assert resume(folder).code == 0
    assert_same_run(folder, whole)


# ---------------------------------------------------------------- full disks


def test_a_state_that_does_not_fit_on_the_disk_leaves_the_one_before(start, resume, whole, monkeypatch):
    write, made = training_state.write_content, []

    def write_content(path: Path, content: dict, previous: Path) -> None:
        made.append(1)
        if len(made) < 5:
            write(path, content, previous)
            return
        with largest_file(path.stat().st_size // 2):
            write(path, content, previous)

    with monkeypatch.context() as patch:
        patch.setattr(training_state, "write_content", write_content)
        stopped, folder = start()
    assert stopped.code == 2
    assert f"error: {folder / LAST}: cannot be written" in stopped.err
    assert "make room" in stopped.err
    assert f"train.sh --resume {folder}" in stopped.err
    assert not list(folder.glob(".*.part"))
    assert load_saved_run(folder).path.name == LAST
    assert resume(folder).code == 0
    assert_same_run(folder, whole)


def test_a_log_that_does_not_fit_ends_the_run_clearly(start, resume, whole, monkeypatch):
    log = RunFiles._append

    def append(self: RunFiles, name: str, line: str) -> None:
        self._writer.flush()  # its thread must not meet the limit
        with largest_file(sum(len(text) + 21 for text in logged(whole, name)[:2])):
            log(self, name, line)

    with monkeypatch.context() as patch:
        patch.setattr(RunFiles, "_append", append)
        stopped, folder = start()
    assert stopped.code == 2
    assert "eval.log.txt: cannot be written" in stopped.err
    assert resume(folder).code == 0
    assert_same_run(folder, whole)


# ---------------------------------------------------------------- real processes


def test_the_command_that_a_stopped_process_names_goes_on(tiny_corpus, whole, tmp_path):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    script = PROJECT_ROOT / "method_tvr" / "scripts" / "train.sh"
    options = tiny_corpus.options(**{**RUN, "dset_name": None, "vid_feat_type": "resnet", "results_root": tmp_path})
    process = subprocess.Popen(
        ["bash", str(script), "tvr", "video_sub_tef", "resnet", *options],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 000"):
            break
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 143, err
    command = err.split("go on with: ")[1].splitlines()[0]
    subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True)
    (folder,) = tmp_path.glob("tvr-*")
    assert (folder / BEST).read_bytes() == (whole / BEST).read_bytes()
    assert losses_of(folder) == losses_of(whole)
    assert metrics_of(folder) == metrics_of(whole)
    assert load_saved_run(folder).state.place.phase == Phase.FINISHED
