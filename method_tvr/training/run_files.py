"""A run's results folder: logs and curves that a resumed run goes on with, and the code that ran."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson

from method_tvr.training.saved_run import has_state
from standalone_eval.ranking.ndcg import NDCG
from utils.basic_utils import NO_ROOM, PROJECT_ROOT, Closing, InputError, named_when_full, sync, whole_file, write_json
from utils.storage.whole_folder import locked_folder

LOSS_LOG, METRICS_LOG, CURVES = "train.log.txt", "eval.log.txt", "tensorboard_log"
NOT_FINITE = "not_finite.json"
CODE = frozenset({".py", ".sh", ".j2", ".css", ".js", ".txt", ".md"})  # what code.zip keeps of method_tvr
MADE_FILE = "RELOCLNET_MADE"  # environment variable: where a script wants to read which folder its run has made
HOLD_S = 10.0  # a killed run's loading processes hold its folder for some seconds more


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes out of a results folder for the time of the block; an InputError says if one has it."""
    busy = InputError(f"{folder}: another process is training in it: wait until it ends, or stop it")
    with locked_folder(folder, busy, no_locks="do not resume it twice", patience_s=HOLD_S):
        yield


def _told_at_next_write(args: threading.ExceptHookArgs) -> None:
    """Print what ended a thread, but for a full disk under TensorBoard's: who writes the next curves gets it raised."""
    if isinstance(args.exc_value, OSError) and args.exc_value.errno in NO_ROOM:
        return
    threading.__excepthook__(args)


def hand_on(folder: Path) -> None:
    """Write the path of a finished run's results folder for the script that has started it, if one asks for that."""
    if path := os.environ.get(MADE_FILE):
        with named_when_full(path):
            Path(path).write_text(f"{folder.absolute()}\n")


class RunLog(Closing):
    """What a run reports, as a process takes it that does not write files: nothing is kept."""

    def __init__(self, results_dir: Path) -> None:
        self.dir = results_dir

    def log_scalar(self, name: str, value: float, step: int) -> None:
        """A point of a TensorBoard curve."""

    def log_losses(self, epoch: int, losses: dict[str, float], tag: str) -> None:
        """TensorBoard curves of an epoch's losses, and its line in train.log.txt."""

    def log_metrics(self, epoch: int, metrics: dict[str, Any]) -> None:
        """TensorBoard curves of an epoch's recalls, and its line in eval.log.txt."""

    def lengths(self) -> dict[str, int]:
        """Bytes in each log and file of curves, which are safely on the disk when this returns."""
        return {}

    def save_code(self) -> None:
        """Keep the method's code beside what it computed, in code.zip."""

    def keep_latest(self) -> None:
        """Have the prediction files of the latest epoch be those of the best one."""

    def close(self) -> None:
        """Write the last curves."""

    def write_not_finite(self, report: dict[str, Any]) -> Path:
        """Write all about a batch whose loss or gradient is not finite; returns the file's path."""
        return self.dir / NOT_FINITE

    def discard(self) -> None:
        """Remove the folder of a run that failed, unless it had something worth keeping."""


class RunFiles(RunLog):
    """The files in a run's results folder, made here for a new run. No other process can have them until `close`.

    For a run that is resumed, `known` is what `lengths` returned when its state was saved: whatever was logged since is
    cut off, because it will be logged again. An InputError says why the folder cannot be made or had.
    """

    def __init__(self, results_dir: Path, known: Mapping[str, int] | None = None) -> None:
        super().__init__(results_dir)
        self._synced: dict[str, int] = {}
        from torch.utils.tensorboard import SummaryWriter  # here, because only a run of training needs it

        with ExitStack() as opened:
            if known is None:
                try:
                    self.dir.mkdir(parents=True)
                except OSError as err:
                    remedy = "choose another --results_root or --exp_id"
                    raise InputError(f"{self.dir}: cannot be made ({err.strerror}): {remedy}") from err
                opened.enter_context(held(self.dir))
            else:
                self._cut_back(known)
            opened.callback(setattr, threading, "excepthook", threading.excepthook)
            threading.excepthook = _told_at_next_write
            self._writer = SummaryWriter(str(self.dir / CURVES))
            opened.callback(self._writer.close)
            self._opened = opened.pop_all()

    def log_scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)

    def log_losses(self, epoch: int, losses: dict[str, float], tag: str) -> None:
        for name, value in losses.items():
            self.log_scalar(f"{tag}/{name}", value, epoch)
        if tag == "Train":
            line = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
            self._append(LOSS_LOG, f"[Epoch] {epoch:03d} [Loss] {line}")

    def log_metrics(self, epoch: int, metrics: dict[str, Any]) -> None:
        for task in ("VCMR", "SVMR", NDCG):
            for thd in sorted({name.split("-")[0] for name in metrics.get(task, {})}):
                curves = {name: value for name, value in metrics[task].items() if name.startswith(f"{thd}-")}
                self._writer.add_scalars(f"Eval/{task}-{thd}", curves, epoch)
        if "VR" in metrics:
            self._writer.add_scalars("Eval/VR", metrics["VR"], epoch)
        self._append(METRICS_LOG, f"[Epoch] {epoch:03d} [Metrics] {orjson.dumps(metrics).decode()}")

    def lengths(self) -> dict[str, int]:
        self._writer.flush()
        lengths = {name: path.stat().st_size for name, path in self._logs().items()}
        for name, _ in lengths.items() - self._synced.items():
            sync(self.dir / name)
        self._synced = lengths
        return lengths

    def save_code(self) -> None:
        package = PROJECT_ROOT / "method_tvr"
        with whole_file(self.dir / "code.zip") as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for folder, folders, names in os.walk(package):
                folders[:] = sorted(name for name in folders if Path(folder, name) != package / "results")
                for source in (Path(folder, name) for name in sorted(names)):
                    if source.suffix in CODE:
                        archive.write(source, source.relative_to(PROJECT_ROOT))

    def keep_latest(self) -> None:
        for latest in self.dir.glob("latest_*"):
            latest.replace(latest.with_name(latest.name.replace("latest_", "best_", 1)))

    def close(self) -> None:
        self._opened.close()

    def write_not_finite(self, report: dict[str, Any]) -> Path:
        write_json(report, self.dir / NOT_FINITE, indent=True)
        return self.dir / NOT_FINITE

    def discard(self) -> None:
        if has_state(self.dir) or (self.dir / NOT_FINITE).exists():
            return
        self.close()
        shutil.rmtree(self.dir)

    def _append(self, name: str, line: str) -> None:
        """Add a line whole: a disk that fills up leaves none of it."""
        entry = f"{time.strftime('%Y_%m_%d_%H_%M_%S')} {line}\n".encode()
        path = self.dir / name
        with named_when_full(path), open(path, "ab", buffering=0) as log:
            length = log.tell()
            if log.write(entry) < len(entry):
                log.truncate(length)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _logs(self) -> dict[str, Path]:
        """{name relative to the folder: path} of logs and files of curves that are there."""
        paths = [self.dir / LOSS_LOG, self.dir / METRICS_LOG, *(self.dir / CURVES).rglob("events*")]
        return {str(path.relative_to(self.dir)): path for path in paths if path.is_file()}

    def _check_ordinary(self) -> None:
        """Refuse links, which may lead out of the folder, and pipes, which would be waited for."""
        curves = self.dir / CURVES
        kinds = {self.dir / LOSS_LOG: (stat.S_ISREG,), self.dir / METRICS_LOG: (stat.S_ISREG,), curves: (stat.S_ISDIR,)}
        below = [] if curves.is_symlink() else curves.rglob("*")
        for path, allowed in (kinds | dict.fromkeys(below, (stat.S_ISREG, stat.S_ISDIR))).items():
            if os.path.lexists(path) and not any(is_kind(path.lstat().st_mode) for is_kind in allowed):
                raise InputError(f"{path}: is a link or no ordinary file: put a copy of what it stands for there")

    def _cut_back(self, known: Mapping[str, int]) -> None:
        self._check_ordinary()
        for part in self.dir.glob(".*.part"):  # what kills left half written
            if not part.is_dir():
                part.unlink()
        for name, path in self._logs().items():
            length = path.stat().st_size
            if name not in known:
                path.unlink()
            elif length > known[name]:
                os.truncate(path, known[name])
            elif length < known[name]:
                print(f"warning: {path}: its last {known[name] - length} bytes are lost", file=sys.stderr)
