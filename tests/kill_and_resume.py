"""Kill training again and again, resume it each time, and compare what comes out with a run that nothing happened to.

    python tests/kill_and_resume.py [--kills 20] [--processes 1] [--seed 1] [--epochs 8] [--fork] [--out DIR]

Each run is one process or several on a tiny generated corpus and on the CPU. Its main process notes down what it is
doing at the moment (in a step, saving, evaluating, or something else), so that kills can be aimed: they take turns
between any moment and each of these, after a random number of times that it was begun and a random delay. Of several
processes a random one is killed, and the others have to end by themselves. A run that finishes before its kill is
compared, and the next one is started, until there were enough kills. The campaign ends with exit code 0 when
model.ckpt, the losses, the metrics and all random states are equal, bit for bit.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

import torch

PROJECT_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT_ROOT))

from method_tvr import train  # noqa: E402
from method_tvr.training import saved_run as training_state  # noqa: E402
from method_tvr.training.checkpoint import load_checkpoint  # noqa: E402
from method_tvr.training.saved_run import BEST, LAST, Phase, load_saved_run  # noqa: E402
from utils.content_digest import content_digest  # noqa: E402
from utils.mini_corpus.files import query_feature_path, sub_feature_path, video_feature_path  # noqa: E402
from utils.mini_tvr import TINY, generate  # noqa: E402

ANY, STEP, SAVING, EVALUATION = "any moment", "step", "saving", "evaluation"
POLL_S = 0.0002
LIMIT_S = 60  # for processes to notice that one of them was killed
AIMS = (ANY, STEP, SAVING, EVALUATION)
MOMENTS = {b"-": "elsewhere", b"s": STEP, b"w": SAVING, b"e": EVALUATION}


def train_noting_moments(environment: dict[str, str], note_path: Path, output_path: Path, arguments: list[str]) -> None:
    """In a process of its own: train, and keep a letter of `MOMENTS` in the file at `note_path`."""
    os.environ |= environment
    output = os.open(output_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    note = os.open(note_path, os.O_WRONLY)

    def noted(letter: bytes, owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            os.pwrite(note, letter, 0)
            try:
                return function(*args, **kwargs)
            finally:
                os.pwrite(note, b"-", 0)

        setattr(owner, name, call)

    noted(b"s", train.Trainer, "_step")
    noted(b"w", training_state, "write_content")
    noted(b"w", train, "save_checkpoint")
    noted(b"e", train, "evaluate_split")
    noted(b"e", train, "run_inference")
    torch.set_num_threads(1)
    sys.argv = ["train.py", *arguments]
    train.main()


class Runs:
    """Training runs on a tiny corpus below `root`."""

    def __init__(self, root: Path, start_method: str, epochs: int, n_processes: int) -> None:
        self.root, self.n_processes = root, n_processes
        self.processes: Any = multiprocessing.get_context(start_method)
        self.moment = root / "moment"
        corpus = root / "mini"
        generate(corpus, TINY)
        paths = {
            "train_path": corpus / "mini_train_release.jsonl",
            "eval_path": corpus / "mini_val_release.jsonl",
            "video_duration_idx_path": corpus / "mini_video2dur_idx.json",
            "vid_feat_path": video_feature_path(corpus, "mini", "resnet_i3d"),
            "sub_bert_path": sub_feature_path(corpus, "mini"),
            "desc_bert_path": query_feature_path(corpus, "mini"),
        }
        small = {"hidden_size": 8, "n_heads": 2, "max_ctx_l": 40, "device": -1, "bsz": 16, "lr": 0.01}
        options = {"dset_name": "tvr", "exp_id": "kill", "save_every": 2, "n_epoch": epochs, **small, **paths}
        self.options = [str(word) for name, value in options.items() for word in (f"--{name}", value)]

    def start(self, *arguments: str) -> list[BaseProcess]:
        """The processes of a run, the main one first; that one tells its moments."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        group: list[BaseProcess] = []
        for rank in range(self.n_processes):
            note = self.moment if rank == 0 else self.root / f"moment_{rank}"
            note.write_bytes(b"-")
            environment = {**meeting, "RANK": str(rank), "WORLD_SIZE": str(self.n_processes)}
            told = environment, note, self.root / "output.txt", list(arguments)
            group.append(self.processes.Process(target=train_noting_moments, args=told))
            group[-1].start()
        return group

    def new(self, name: str) -> list[str]:
        """Arguments of a new run, whose results folder will be the only one below `name`."""
        return [*self.options, "--results_root", str(self.root / name)]

    def folder(self, name: str) -> Path | None:
        return (
            next((self.root / name).glob("tvr-*/opt.json"), Path("/")).parent if (self.root / name).is_dir() else None
        )

    def finish(self, group: Sequence[BaseProcess]) -> None:
        for process in group:
            process.join()
        codes = [process.exitcode for process in group]
        if any(codes):
            self.stop(f"a run ended with exit codes {codes}")

    def kill(self, group: Sequence[BaseProcess], victim: BaseProcess) -> None:
        """Kill one process, and wait for the others, which must not go on without it."""
        victim.kill()
        for process in group:
            process.join(LIMIT_S)
        codes = [process.exitcode for process in group]
        for process in group:
            process.kill()
        if None in codes:
            self.stop(f"{LIMIT_S} s after one process of a run was killed, the exit codes are {codes}")

    def stop(self, what: str) -> NoReturn:
        sys.exit(f"{what}: {(self.root / 'output.txt').read_text()[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many kills")
    parser.add_argument("--processes", type=int, default=1, help="how many processes a run has")
    parser.add_argument("--epochs", type=int, default=8, help="length of a run")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments")
    parser.add_argument("--out", help="folder that runs are kept in (default: a temporary one, removed at the end)")
    parser.add_argument("--fork", action="store_true", help="runs begin with everything imported: much quicker")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        start_method = "fork" if args.fork else "spawn"
        runs = Runs(Path(args.out or temporary), start_method, args.epochs, args.processes)
        campaign(runs, args.kills, random.Random(args.seed))


def campaign(runs: Runs, kills: int, chance: random.Random) -> None:
    """Do all of it, and say how it went; the exit code is 1 if anything differed."""
    started = time.monotonic()
    runs.finish(runs.start(*runs.new("whole")))
    print(f"the run that nothing happens to took {time.monotonic() - started:.1f} s", flush=True)
    tally: Counter[str] = Counter()
    compared = 0
    while sum(tally.values()) < kills or not compared:
        name = f"killed_{compared}"
        runs.finish(kill_until_finished(runs, name, kills, tally, chance))
        differences = compare(runs.folder("whole"), runs.folder(name))
        if differences:
            sys.exit(f"{name} differs from the run that nothing happened to: {', '.join(differences)}")
        compared += 1
    hit = ", ".join(f"{count} in {moment}" for moment, count in sorted(tally.items()))
    print(f"{sum(tally.values())} kills ({hit}); {compared} runs finished, all equal to the one without a kill")


def kill_until_finished(
    runs: Runs, name: str, kills: int, tally: Counter[str], chance: random.Random
) -> list[BaseProcess]:
    """Start a run, kill it and resume it until it finishes or there were `kills`; returns the processes left."""
    while True:
        folder = runs.folder(name)
        begun = folder is not None and (folder / "opt.json").exists()
        group = runs.start("--resume", str(folder)) if begun else runs.start(*runs.new(name))
        number = sum(tally.values())
        if number >= kills or not aim(runs, group[0], AIMS[number % len(AIMS)], chance):
            return group
        moment, victim = MOMENTS[runs.moment.read_bytes()], chance.randrange(len(group))
        runs.kill(group, group[victim])
        tally[moment] += 1
        saved = load_saved_run(runs.folder(name)) if runs.folder(name) else None
        where = saved.state.place if saved else "nothing saved yet"
        if any(process.exitcode == 0 for process in group) and not (
            saved and saved.state.place.phase == Phase.FINISHED
        ):
            runs.stop("a process of a run that was killed has ended as if it had finished")
        whom = f" process {victim}" if len(group) > 1 else ""
        print(f"kill {number + 1}, {name}:{whom} in {moment}; goes on with: {where}", flush=True)


def aim(runs: Runs, process: BaseProcess, what: str, chance: random.Random) -> bool:
    """Wait for the moment of a kill; False if the process ended before."""
    wanted = next((letter for letter, moment in MOMENTS.items() if moment == what), None)
    times = chance.randint(1, 3)  # it is killed in one of the first times that it does this
    while times:
        if not process.is_alive():
            return False
        now = runs.moment.read_bytes()
        if now == wanted or (wanted is None and now != b"-"):
            times -= 1
            while times and runs.moment.read_bytes() == now and process.is_alive():
                time.sleep(POLL_S)
        time.sleep(POLL_S)
    time.sleep(chance.uniform(0, 0.3 if wanted is None else 0.004))
    return process.is_alive()


def compare(whole: Path | None, killed: Path | None) -> list[str]:
    """What differs between two finished runs."""
    assert whole is not None
    assert killed is not None
    found = []
    if (whole / BEST).read_bytes() != (killed / BEST).read_bytes():
        found.append(BEST)
    states = [load_checkpoint(folder / LAST) for folder in (whole, killed)]
    if content_digest(states[0].state) != content_digest(states[1].state):
        found.append(f"the model in {LAST}")
    for name in ("place", "optimizer", "meter", "negatives", "chance"):
        if content_digest(states[0].training[name]) != content_digest(states[1].training[name]):
            found.append(f"{name} in {LAST}")
    for name in ("train.log.txt", "eval.log.txt"):
        logs = [[line.split(" ", 1)[1] for line in (f / name).read_text().splitlines()] for f in (whole, killed)]
        if logs[0] != logs[1]:
            found.append(name)
    for path in whole.glob("*_predictions_*"):
        if path.read_bytes() != (killed / path.name).read_bytes():
            found.append(path.name)
    return found + [f"leftover {path.name}" for path in killed.glob(".*.part")]


if __name__ == "__main__":
    main()
