"""Commands run by several processes: the results of one, and runs that end together and go on with any number."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from method_tvr import inference, train
from method_tvr.ask import encode_corpus
from method_tvr.config import parse_inference_options
from method_tvr.optimization import BertAdam
from method_tvr.train import Trainer
from method_tvr.training import launch, run_files
from method_tvr.training.checkpoint import load_checkpoint
from method_tvr.training.saved_run import BEST, LAST, Phase, load_saved_run
from method_tvr.training.step_guard import StepGuard, StepValues
from tests.support.processes import LIMIT_S, codes_of, results_of, said, start_command, stay_in_c
from tests.support.runs.rankings import assert_same_file, load
from tests.support.runs.results import logged, losses_of, metrics_of
from tests.support.runs.tiny_corpus import as_argv
from tests.support.shell import PROJECT_ROOT
from utils.ranks import Ranks

AGREE = 1e-5
NO_DROPOUT = {"drop": 0, "input_drop": 0}
RUN = {  # two epochs of nine steps, the last one with three of the 75 queries
    "exp_id": "p", "n_epoch": 2, "bsz": 9, "data_ratio": 0.75, "lr": 0.001, "lr_warmup_proportion": 0.1,
    "save_every": 2,
}  # fmt: skip
STEPS = 9
QUICK = {**RUN, "n_epoch": 1, "eval_tasks_at_training": ["VCMR"]}


# ---------------------------------------------------------------- what happens in the processes


def record_losses(folder: Path) -> None:
    """Append the losses of each step to `steps_{rank}` in a folder."""
    watch, path = StepGuard.watch, folder / f"steps_{os.environ['RANK']}"

    def watched(self: StepGuard, epoch: int, number: int, queries: Any, values: StepValues) -> None:
        with open(path, "a") as steps:
            print(json.dumps({name: float(loss) for name, loss in values.losses.items()}), file=steps)
        watch(self, epoch, number, queries, values)

    StepGuard.watch = watched


def hit(victim: int, number: int, owner: type, name: str, call: int) -> None:
    """Send a signal to the process with number `victim` when its call number `call` (from 0) of a method begins."""
    method, made = getattr(owner, name), []

    def called(*args: object) -> object:
        made.append(1)
        if len(made) == call + 1 and os.environ["RANK"] == str(victim):
            os.kill(os.getpid(), number)
        return method(*args)

    setattr(owner, name, called)


def end_all(step: int) -> None:
    """As torchrun does, send SIGTERM to the main process and to those that load for it, when a step begins."""
    begin = Trainer._step

    def called(self: Trainer, *args: Any) -> None:
        if self.place.step == step and self.ranks.is_main:
            loading = multiprocessing.active_children()
            assert loading
            # not os.kill: loading processes take the signal for a quiet end when it comes from their parent
            subprocess.run(["kill", *(str(child.pid) for child in loading)], check=True)
            loading[0].join(0.3)
            assert all(child.is_alive() for child in loading)
            os.kill(os.getpid(), signal.SIGTERM)
        begin(self, *args)

    Trainer._step = called


def stick_without(victim: int, step: int) -> None:
    """As on CUDA: when a step begins a process is killed, and the others wait in C for it."""
    launch.WAITING_IN_C, launch.NOTICING_S = ("cpu",), 0.2
    begin = Trainer._step

    def called(self: Trainer, *args: Any) -> None:
        if self.place.step == step:
            if self.ranks.rank == victim:
                os.kill(os.getpid(), signal.SIGKILL)
            stay_in_c()
        begin(self, *args)

    Trainer._step = called


def stay_in_step(step: int) -> None:
    """Begin a step and never get any further."""
    method = BertAdam.step

    def called(self: BertAdam) -> None:
        while self.steps_done == step:
            time.sleep(0.05)
        method(self)

    BertAdam.step = called


# ---------------------------------------------------------------- runs


class Runs:
    """Training runs by several processes, each below a folder of its own."""

    def __init__(self, corpus: Any, root: Path) -> None:
        self.corpus, self.root = corpus, root

    def start(self, n: int, name: str, prepare: Callable[[], None] | None = None, **typed: object) -> list[Any]:
        argv = self.corpus.options(**{**RUN, "results_root": self.root / name, **typed})
        return start_command(n, self.root / name, train.main, argv, prepare)

    def do(self, n: int, name: str, prepare: Callable[[], None] | None = None, **typed: object) -> list[int]:
        return codes_of(self.start(n, name, prepare, **typed))

    def finish(self, n: int, name: str, prepare: Callable[[], None] | None = None, **typed: object) -> Path:
        assert self.do(n, name, prepare, **typed) == [0] * n, self.said(n, name)
        return self.folder(name)

    def said(self, n: int, name: str) -> str:
        return said(n, self.root / name)

    def folder(self, name: str) -> Path:
        (folder,) = (self.root / name).glob("tvr-*")
        return folder

    def resume(self, n: int, folder: Path) -> Path:
        """Go on with a copy of a results folder, until it is finished."""
        there = self.root / f"resumed_{len(list(self.root.iterdir()))}"
        copy = Path(shutil.copytree(folder, there / folder.name))
        codes = codes_of(start_command(n, there, train.main, ["--resume", str(copy)]))
        assert codes == [0] * n, said(n, there)
        assert "going on with training" in (there / "out_0").read_text()
        return copy


@pytest.fixture(scope="module")
def runs(tiny_corpus, tmp_path_factory) -> Runs:
    return Runs(tiny_corpus, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def trained(runs) -> dict[int, Path]:
    """{number of processes: results folder}, without dropout."""
    return {n: runs.finish(n, f"by_{n}", partial(record_losses, runs.root / f"by_{n}"), **NO_DROPOUT) for n in (1, 3)}


@pytest.fixture(scope="module")
def with_dropout(runs) -> Path:
    """The results folder of two processes."""
    return runs.finish(2, "dropout")


def steps_of(folder: Path, rank: int) -> np.ndarray:
    """(steps, terms) losses that a rank saw."""
    lines = (folder.parent / f"steps_{rank}").read_text().splitlines()
    return np.array([list(json.loads(line).values()) for line in lines])


def assert_same_parameters(folder: Path, expected: Path) -> None:
    found, theirs = (load_checkpoint(path / LAST).state for path in (folder, expected))
    assert found.keys() == theirs.keys()
    assert max(float((found[name] - theirs[name]).abs().max()) for name in theirs) < AGREE


def assert_same_predictions(folder: Path, expected: Path) -> None:
    """Rows are equal and scores agree, but that rows of nearly one score may swap."""
    names = sorted(path.name for path in expected.glob("*_predictions_*"))
    assert names == sorted(path.name for path in folder.glob("*_predictions_*"))
    assert names
    for name in names:
        if name.endswith("_metrics.json"):
            assert load(folder / name) == load(expected / name), name
        else:
            assert_same_file(load(folder / name), load(expected / name))


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("n", [3])
def test_losses_and_parameters_are_those_of_one_process(trained, n):
    expected = steps_of(trained[1], 0)
    assert len(expected) == 2 * STEPS
    for rank in range(n):
        np.testing.assert_allclose(steps_of(trained[n], rank), expected, rtol=0, atol=AGREE)
    assert_same_parameters(trained[n], trained[1])


@pytest.mark.parametrize("n", [3])
def test_the_results_folder_is_that_of_one_process(trained, n):
    assert {path.name for path in trained[n].iterdir()} == {path.name for path in trained[1].iterdir()}
    assert_same_predictions(trained[n], trained[1])
    assert metrics_of(trained[n]) == metrics_of(trained[1])
    losses, expected = ([list(epoch.values()) for epoch in losses_of(trained[k])] for k in (n, 1))
    np.testing.assert_allclose(losses, expected, atol=1.1e-4)  # they are written with four decimals
    assert load_checkpoint(trained[n] / BEST).epoch == load_checkpoint(trained[1] / BEST).epoch
    kept = [json.loads((trained[k] / "opt.json").read_text()) for k in (n, 1)]
    assert {name for name in kept[0] if kept[0][name] != kept[1][name]} == {"results_dir", "results_root"}


def test_only_the_main_process_writes_and_prints(trained):
    for rank in (1, 2):
        assert (trained[3].parent / f"out_{rank}").read_text() == ""
        assert (trained[3].parent / f"err_{rank}").read_text() == ""
    assert len(list(trained[3].parent.glob("tvr-*"))) == 1
    assert len(list((trained[3] / "tensorboard_log").glob("events*"))) == 1
    assert (trained[3].parent / "out_0").read_text().count("3 processes, the main one on cpu") == 1


def test_other_ways_of_computing_work_too(runs):
    options = {"amp": "bf16", "trim_padding": True, "hard_negative_start_epoch": 0, "feature_cache": "disk"}
    folder = runs.finish(2, "ways", **{**QUICK, **options})
    assert np.isfinite(list(losses_of(folder)[0].values())).all()


# ---------------------------------------------------------------- inference


@pytest.fixture(scope="module")
def two_videos(tiny_corpus, tmp_path_factory) -> dict[str, Path]:
    """Options that name a split of two videos and a query about each."""
    folder = tmp_path_factory.mktemp("two_videos")
    rows = [json.loads(line) for line in tiny_corpus.annotations("val").read_text().splitlines()]
    asked = list({row["vid_name"]: row for row in rows}.values())[:2]
    durations = json.loads(tiny_corpus.paths["video_duration_idx_path"].read_text())
    (folder / "val.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in asked))
    (folder / "durations.json").write_text(
        json.dumps({"val": {row["vid_name"]: durations["val"][row["vid_name"]] for row in asked}})
    )
    return {"eval_path": folder / "val.jsonl", "video_duration_idx_path": folder / "durations.json"}


def infer(model: Path, out: Path, commands: dict[str, list[str]], ranks: Ranks) -> None:
    """Several inferences, each into a folder of its own."""
    for name, argv in commands.items():
        own = out / name
        if ranks.is_main:
            own.mkdir(parents=True)
            for needed in ("opt.json", BEST):
                shutil.copy(model / needed, own)
        ranks.barrier()
        inference.run_inference(parse_inference_options(["--model_dir", str(own), *argv]), ranks)


@pytest.fixture(scope="module")
def inferred(trained, two_videos, tmp_path_factory) -> dict[int, Path]:
    """{number of processes: folder of what they inferred with one model}."""
    root = tmp_path_factory.mktemp("inferred")
    corpus = root / "corpus"
    encode_corpus.main(["--model_dir", str(trained[1]), "--out", str(corpus), *as_argv({"device": -1})])
    small = {"device": -1, "num_workers": 0, "eval_query_bsz": 7, "eval_context_bsz": 3, "retrieval_bsz": 16}
    commands = {
        "all": {"nms_thd": 0.5},
        "svmr": {"tasks": ["SVMR"], "nms_thd": 0.5},
        "stored": {"encoded_corpus": corpus, "nms_thd": 0.5, "feature_cache": "disk"},
        "stored_svmr": {"encoded_corpus": corpus, "tasks": ["SVMR"]},
        "two_videos": two_videos,
        "two_videos_stored": {**two_videos, "encoded_corpus": corpus},
    }
    argvs = {name: as_argv({**small, **options}) for name, options in commands.items()}
    for n in (1, 3):
        results_of(n, root / f"by_{n}", partial(infer, trained[1], root / f"by_{n}", argvs))
    return {n: root / f"by_{n}" for n in (1, 3)}


@pytest.mark.parametrize("n", [3])
@pytest.mark.parametrize("name", ["all", "svmr", "stored", "stored_svmr", "two_videos", "two_videos_stored"])
def test_inference_gives_the_files_of_one_process(inferred, n, name):
    assert_same_predictions(inferred[n] / name, inferred[1] / name)


def test_the_command_of_inference_runs_in_two_processes(inferred, trained, tmp_path):
    folder = Path(shutil.copytree(trained[1], tmp_path / "run"))
    for path in folder.glob("*_predictions_*"):
        path.unlink()
    argv = ["--model_dir", str(folder), "--device", "-1", "--num_workers", "0", "--nms_thd", "0.5"]
    assert codes_of(start_command(2, tmp_path, inference.main, argv)) == [0, 0], said(2, tmp_path)
    assert_same_predictions(folder, inferred[1] / "all")
    assert (tmp_path / "out_0").read_text().count("50 queries over 10 videos") == 1
    assert (tmp_path / "out_1").read_text() == ""


# ---------------------------------------------------------------- stopping and going on


def test_a_run_that_lost_a_process_ends_and_goes_on_with_more(runs, trained):
    codes = runs.do(2, "lost", partial(hit, 1, signal.SIGKILL, Trainer, "_step", 5), **NO_DROPOUT)
    assert codes == [2, -signal.SIGKILL]
    assert "lost another process" in runs.said(2, "lost")
    assert runs.said(2, "lost").count(f"train.sh --resume {runs.folder('lost')}") == 1
    assert load_saved_run(runs.folder("lost")).state.optimizer["steps_done"] == 4
    assert_same_parameters(runs.resume(3, runs.folder("lost")), trained[3])


@pytest.mark.parametrize("victim", [0, 1])
def test_a_run_that_waits_in_c_for_a_lost_process_ends_and_goes_on_alone(runs, trained, victim):
    run = f"stuck_{victim}"
    codes = runs.do(2, run, partial(stick_without, victim, 5), **NO_DROPOUT)
    assert (codes[victim], codes[1 - victim]) == (-signal.SIGKILL, 2)
    if victim:  # else what decides who speaks went with process 0, which torchrun keeps elsewhere
        assert runs.said(2, run).count("error: lost another process") == 1
        assert runs.said(2, run).count(f"train.sh --resume {runs.folder(run)}") == 1
    else:
        assert_same_parameters(runs.resume(1, runs.folder(run)), trained[3])


def test_resumed_with_the_number_it_had_a_run_is_the_uninterrupted_one(runs, with_dropout):
    codes = runs.do(2, "lost_dropout", partial(hit, 0, signal.SIGKILL, Trainer, "_step", STEPS + 3))
    assert codes[0] == -signal.SIGKILL
    assert codes[1] == 2
    folder = runs.resume(2, runs.folder("lost_dropout"))
    assert (folder / BEST).read_bytes() == (with_dropout / BEST).read_bytes()
    for name in ("train.log.txt", "eval.log.txt"):
        assert logged(folder, name) == logged(with_dropout, name)
    assert len(load_saved_run(folder).state.chance) == 2


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize(("name", "call", "steps"), [("_step", 4, 5), ("_save", 1, 5)])
def test_a_signal_to_one_process_makes_all_save_after_the_step_and_end(runs, victim, name, call, steps):
    run = f"signal_{victim}{name}"
    assert runs.do(2, run, partial(hit, victim, signal.SIGTERM, Trainer, name, call), **QUICK) == [143, 143]
    said = runs.said(2, run)
    folder = runs.folder(run)
    assert said.count(f"train.sh --resume {folder}") == 1
    assert said.count("stopped by SIGTERM") == 1
    assert "error" not in said
    state = load_saved_run(folder).state
    assert (state.place.step, state.optimizer["steps_done"]) == (steps, steps)
    assert not list(folder.glob(".*.part"))


def test_a_signal_to_all_leaves_loading_processes_to_the_step_that_is_finished(runs):
    options = {**QUICK, "feature_cache": "disk", "num_workers": 1}
    assert runs.do(2, "end_all", partial(end_all, 4), **options) == [143, 143], runs.said(2, "end_all")
    assert load_saved_run(runs.folder("end_all")).state.place.step == 5


@pytest.mark.parametrize("victim", [0, 1])
def test_a_signal_to_one_process_outside_steps_ends_all(runs, victim):
    run = f"signal_outside_{victim}"
    codes = runs.do(2, run, partial(hit, victim, signal.SIGTERM, Trainer, "_evaluate", 0), **QUICK)
    assert codes[victim] == 143
    assert codes[1 - victim] == 2
    assert runs.said(2, run).count(f"train.sh --resume {runs.folder(run)}") == 1
    assert load_saved_run(runs.folder(run)).state.place.phase == Phase.EVALUATION


def test_a_step_that_is_not_finite_is_named_with_the_whole_batch(runs):
    reports = {}
    for n in (1, 2):
        assert runs.do(n, f"not_finite_{n}", **{**QUICK, "lr": 4e9}) == [2] * n
        reports[n] = load(runs.folder(f"not_finite_{n}") / run_files.NOT_FINITE)
        assert runs.said(n, f"not_finite_{n}").count("is not finite") == 1
    assert len(reports[1]["desc_ids"]) == RUN["bsz"]
    for name in ("epoch", "step", "desc_ids", "vid_names"):
        assert reports[2][name] == reports[1][name]


def test_anomalies_are_not_looked_for_in_several_processes(runs):
    assert runs.do(2, "anomaly", detect_anomaly=True) == [2, 2]
    assert runs.said(2, "anomaly").count("--detect_anomaly") == 1
    assert not list((runs.root / "anomaly").glob("tvr-*"))


def test_a_folder_in_which_a_run_is_going_on_is_resumed_by_no_other(runs, run_main, monkeypatch):
    processes = runs.start(2, "going_on", partial(stay_in_step, 5), **QUICK)
    try:
        while not list((runs.root / "going_on").glob(f"tvr-*/{LAST}")):
            assert all(process.is_alive() for process in processes), runs.said(2, "going_on")
            time.sleep(0.05)
        folder = runs.folder("going_on")
        while load_saved_run(folder).state.place.step < 4:  # the last that it saves before it stays
            assert all(process.is_alive() for process in processes), runs.said(2, "going_on")
            time.sleep(0.05)
        before = {path: path.read_bytes() for path in folder.iterdir() if path.suffix in (".ckpt", ".json", ".txt")}
        monkeypatch.setattr(run_files, "HOLD_S", 0.1)
        refused = run_main(train.main, ["--resume", str(folder)])
    finally:
        for process in processes:
            process.kill()
        codes_of(processes)
    assert refused.code == 2
    assert "another process is training in it" in refused.err
    assert {path: path.read_bytes() for path in before} == before
    assert run_main(train.main, ["--resume", str(folder)]).code == 0


# ---------------------------------------------------------------- starting


@pytest.mark.parametrize("module", [train, inference])
def test_a_process_is_started_for_each_of_several_devices(module, tiny_corpus, trained, run_main, monkeypatch):
    launched: list[tuple[Sequence[str], int]] = []

    def launch(argv: Sequence[str], n: int) -> None:
        launched.append((argv, n))
        sys.exit(3)

    monkeypatch.setattr(module, "launch", launch)
    monkeypatch.delenv("NGPU", raising=False)
    options = {"device_ids": [0, 1], "device": -1}
    argv = tiny_corpus.options(exp_id="x", **options)
    if module is inference:
        argv = as_argv({"model_dir": trained[1], **options})
    assert run_main(module.main, argv).code == 3
    assert launched == [(["command", *argv], 2)]


def test_one_command_trains_in_two_processes(tiny_corpus, trained, tmp_path):
    environment = {**os.environ, "NGPU": "2", "PYTHONPATH": str(PROJECT_ROOT)}
    options = tiny_corpus.options(**{**RUN, **NO_DROPOUT, "results_root": tmp_path})
    command = [sys.executable, str(PROJECT_ROOT / "method_tvr" / "train.py"), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 processes, the main one on cpu") == 1
    assert done.stdout.count("epoch 000: VCMR") == 1
    (folder,) = tmp_path.iterdir()
    assert_same_parameters(folder, trained[3])
