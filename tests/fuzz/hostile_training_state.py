"""Results folders of stopped runs whose `last.ckpt` or logs were made hostile, and what going on with them does."""

from __future__ import annotations

import os
import random
import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from method_tvr.model import ReLoCLNet
from method_tvr.optimization import BertAdam, parameter_groups
from method_tvr.training.loss_meter import LOSS_NAMES, LossMeter
from method_tvr.training.run_files import CURVES, LOSS_LOG, METRICS_LOG, RunFiles
from method_tvr.training.saved_run import (
    LAST,
    PHASES,
    PREVIOUS,
    Phase,
    Place,
    SavedRun,
    TrainingState,
    load_saved_run,
    mark_finished,
    save_training_state,
)
from tests.fuzz.bystanders import PRECIOUS, add_bystander, nothing_touched_beside
from tests.fuzz.hostile_checkpoint import ODD_VALUES, write_checkpoint
from tests.fuzz.mutations import mutate_bytes, some_place
from tests.support.runs.small_models import SMALL, small_model
from utils.content_digest import content_digest
from utils.random_states import RandomStates

CPU = torch.device("cpu")
NUMBERS = (-1, 0, 1, 623, 625, 10**6, 2**31, -(2**31), 2**62, 2**64, 10**400, True, 0.5, float("nan"), float("inf"))
TEXTS = ("", "../../x", f"../{PRECIOUS}", "/etc/passwd", "x" * 5000, "\0", "\ud800", "MT19937", *PHASES)


class _Run:
    """All that changes while a small model is trained."""

    def __init__(self, seed: int) -> None:
        self.model = small_model(replace(SMALL, ctx_mode="video_tef"), seed)
        self.optimizer = BertAdam(parameter_groups(self.model, 0.01), lr=0.01, warmup=0.1, t_total=100)
        self.meter, self.negatives = LossMeter(CPU), torch.Generator().manual_seed(seed)

    def step(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = torch.full_like(parameter, 0.01)
        self.optimizer.step()
        self.meter.add({name: torch.tensor(0.5) for name in LOSS_NAMES})

    def save(self, folder: Path, place: Place, log_lengths: dict[str, int]) -> None:
        state = TrainingState(
            place=place,
            optimizer=self.optimizer.state_dict(),
            meter=self.meter.state_dict(),
            negatives=self.negatives.get_state(),
            chance=[RandomStates.take(CPU)],
            log_lengths=log_lengths,
            queries="0" * 64,
        )
        save_training_state(folder, self.model, state)

    def restore(self, saved: SavedRun) -> None:
        saved.restore(self.model, self.optimizer, self.meter, self.negatives, CPU)


def _write_logs(folder: Path) -> dict[str, int]:
    """Logs and curves in a folder, and what a state says about them that was saved before the last lines."""
    (folder / CURVES).mkdir()
    logs = {LOSS_LOG: 30, METRICS_LOG: 40, f"{CURVES}/events.out.tfevents.1": 10}
    for name in logs:
        (folder / name).write_bytes(b"a line\n" * 6)
    return logs


@cache
def _good() -> dict[str, Any]:
    """What a good last.ckpt holds. Read once, so that what it needs is imported."""
    run = _Run(seed=1)
    run.step()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name) / "run"
        folder.mkdir()
        run.save(folder, Place(Phase.TRAINING, epoch=1, step=1, best_score=2.5), _write_logs(folder))
        content: dict[str, Any] = torch.load(folder / LAST, weights_only=True)
        add_bystander(folder.parent)
        read(folder.parent)
    del content["digest"]
    return content


# ---------------------------------------------------------------- writing


def write(rng: Random, folder: Path) -> None:
    """A results folder in `folder`, with a file beside it that is none of its business."""
    run = folder / "run"
    good = _good()
    run.mkdir()
    add_bystander(folder)
    _write_logs(run)
    _write_state(rng, run / LAST, good)
    if rng.random() < 0.2:
        _write_state(rng, run / PREVIOUS, good)
    if rng.random() < 0.2:
        _spoil_file(rng, run, rng.choice((LAST, LOSS_LOG, METRICS_LOG, CURVES, ".x.part", f"{CURVES}/events.x")))


def _write_state(rng: Random, path: Path, good: dict[str, Any]) -> None:
    kind = rng.choice(("spoilt", "spoilt", "spoilt", "spoilt", "spoilt", "bytes", "checkpoint", "good"))
    if kind == "checkpoint":
        write_checkpoint(rng, path, good)
        return
    content = _copied(good)
    if rng.random() < 0.3:
        content["training"]["place"]["phase"] = rng.choice(PHASES)
    for _ in range(rng.choice((1, 1, 1, 2, 4)) if kind == "spoilt" else 0):
        _spoil(rng, content)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)  # to write what is nested deeply
    try:
        content["digest"] = content_digest(content)
        if rng.random() < 0.05:
            del content["digest"]
        torch.save(content, path)
    except (TypeError, ValueError, RuntimeError):
        torch.save({**content, "digest": "0"}, path)
    finally:
        sys.setrecursionlimit(limit)
    if kind == "bytes":
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))


def _copied(value: Any) -> Any:
    """A copy whose tensors are the same ones: none is changed."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _spoil(rng: Random, content: dict[str, Any]) -> None:
    """Change one thing in a state of training."""
    chosen = rng.choice([*content["training"]] * 4 + ["model"])
    part, key = (content, chosen) if chosen == "model" else (content["training"], chosen)
    if isinstance(part[key], dict | list) and rng.random() < 0.9:
        inner, inner_key = some_place(rng, part[key])
        part, key = (part, key) if inner is None else (inner, inner_key)
    kind = rng.random()
    if kind < 0.1:
        del part[key]
    elif kind < 0.2 and isinstance(part, dict):
        other = rng.choice((*TEXTS, *NUMBERS, (1, "x"), b"x"))
        part[other] = _copied(part[key])
        if rng.random() < 0.5 and other != key:
            del part[key]
    elif kind < 0.3:
        part[key] = rng.choice((*ODD_VALUES, *NUMBERS, *TEXTS, _nested(100), _nested(700), _doubled(12), _doubled(30)))
    else:
        part[key] = _spoilt_value(rng, part[key])


def _spoilt_value(rng: Random, value: Any) -> Any:
    """Another value of the same type, or nearly."""
    if isinstance(value, torch.Tensor):
        return _spoilt_tensor(rng, value)
    if isinstance(value, str):
        return rng.choice(TEXTS)
    if isinstance(value, dict):
        return rng.choice((list(value.items()), {}, {**value, rng.choice(TEXTS): rng.choice(NUMBERS)}))
    if isinstance(value, list):
        return rng.choice((value * 2, value[:-1], value[::-1], dict(enumerate(value)), tuple(value)))
    return rng.choice(NUMBERS)


def _spoilt_tensor(rng: Random, tensor: torch.Tensor) -> torch.Tensor:
    kind = rng.randrange(10)
    if kind == 0:
        return tensor.to(rng.choice((torch.float64, torch.float16, torch.int64, torch.uint8, torch.complex64)))
    if kind == 1:
        return tensor[..., :-1] if tensor.ndim else tensor.repeat(2)
    if kind == 2:
        return tensor.repeat(2) if tensor.ndim == 1 else tensor.unsqueeze(0)
    if kind == 3:
        return torch.full_like(tensor, rng.choice((0, 1, 255)))
    if kind == 4:
        return tensor.flatten()[:1].expand(tensor.numel()).view(tensor.shape)
    if kind == 5:
        return torch.as_strided(torch.zeros(tensor.numel(), dtype=tensor.dtype), tensor.shape, [0] * tensor.ndim)
    if kind == 6 and tensor.is_floating_point():
        return torch.full_like(tensor, rng.choice((float("nan"), float("inf"), -1.0, 1e38)))
    if kind == 7:
        return torch.nn.Parameter(tensor.clone(), requires_grad=tensor.is_floating_point())
    if kind == 8:
        return tensor.clone().flatten().as_strided(tensor.shape[::-1], [1] * tensor.ndim)
    raw = bytearray(tensor.clone().flatten().view(torch.uint8).numpy().tobytes())
    for _ in range(rng.choice((1, 3))):  # generators keep their positions at the beginning
        raw[rng.randrange(min(len(raw), rng.choice((24, len(raw)))))] = rng.choice((0, 1, 2, 113, 127, 128, 255))
    return torch.frombuffer(raw, dtype=tensor.dtype).view(tensor.shape)


def _nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


def _doubled(depth: int) -> list:
    """Small where it is kept, and 2 ** depth values to whoever walks through it."""
    value: list = []
    for _ in range(depth):
        value = [value, value]
    return value


def _spoil_file(rng: Random, folder: Path, name: str) -> None:
    """Something else in the place of a file or folder: a link out of the results folder, a pipe, a folder, nothing."""
    path = folder / name
    if path.is_dir():
        path.rename(folder.with_name("elsewhere"))
    else:
        path.unlink(missing_ok=True)
    kind = rng.randrange(5)
    if kind == 0:
        outside = (f"../{PRECIOUS}", "../elsewhere", "../new.txt", "/dev/null", path.name)
        path.symlink_to(rng.choice(outside))
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.mkdir()
        (path / "events.x").write_bytes(b"x")
    elif kind == 3:
        path.write_bytes(b"x" * 100)


# ---------------------------------------------------------------- reading


def read(folder: Path) -> None:
    """Go on with the run in `folder` as training does, by one step."""
    run_folder = folder / "run"
    with nothing_touched_beside(run_folder), patch.object(os, "fsync"):
        saved = load_saved_run(run_folder)
        if saved is not None:
            _go_on(run_folder, saved)


def _go_on(folder: Path, saved: SavedRun) -> None:
    place = saved.state.place
    assert place.phase in PHASES
    assert len(str(place)) < 200
    if place.phase == Phase.FINISHED:
        return
    if place.phase == Phase.INFERENCE:
        mark_finished(folder)
    else:
        run = _Run(seed=2)
        run.restore(saved)
        _check_restored(run, saved)
        lengths = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
        files = RunFiles(folder, saved.state.log_lengths)
        try:
            assert all(path.stat().st_size <= lengths.get(path, 0) for path in folder.glob("*.txt"))
            files.log_losses(place.epoch, run.meter.means(), "Train")
            run.save(folder, place, files.lengths())
        finally:
            files.close()
    again = load_saved_run(folder)
    assert again is not None
    assert again.path.name == LAST
    _Run(seed=3).restore(again)


def _check_restored(run: _Run, saved: SavedRun) -> None:
    _check_weights(run.model, saved)
    place = saved.state.place
    assert [type(n) for n in (place.epoch, place.step, place.epochs_without_better)] == [int] * 3
    assert min(place.epoch, place.step, place.epochs_without_better) >= 0
    assert type(max(place.best_score, 0.5)) is float
    assert not np.isnan(place.best_score)
    random.gauss(0, 1)
    assert 0 <= random.randrange(5) < 5
    for draw in (np.random.rand, np.random.randn):
        assert np.isfinite(draw(700)).all()
    for generator in (None, run.negatives):
        drawn = torch.rand(700, generator=generator)
        assert ((drawn >= 0) & (drawn < 1)).all()
        torch.randn(700, generator=generator)
    before = {name: parameter.clone() for name, parameter in run.model.named_parameters()}
    run.step()
    assert before.keys() == dict(run.model.named_parameters()).keys()
    assert all(parameter.shape == before[name].shape for name, parameter in run.model.named_parameters())
    assert isinstance(run.optimizer.lr_multiplier(), float)


def _check_weights(model: ReLoCLNet, saved: SavedRun) -> None:
    for name, found in model.state_dict().items():
        expected = saved.checkpoint.state[name].to(found.dtype)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
