"""All that a stopped run needs to go on as if nothing had happened: `last.ckpt`, a checkpoint with more in it."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import torch

from method_tvr.dataset.annotations import Query
from method_tvr.model import ReLoCLNet
from method_tvr.optimization import BertAdam
from method_tvr.training.checkpoint import Checkpoint, checkpoint_content, load_checkpoint, write_content
from method_tvr.training.loss_meter import LossMeter
from utils.basic_utils import InputError
from utils.feature_files.provenance import FeatureRecords
from utils.random_states import RandomStates, check_torch_state, is_cuda_state

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "model.ckpt"

PHASES = ("evaluation before training", "training", "evaluation", "final inference", "finished")


class Phase:
    """The phases of a run, in their order; training and evaluation take turns."""

    UNTRAINED, TRAINING, EVALUATION, INFERENCE, FINISHED = PHASES


MOST = 1 << 53  # of anything that is counted: floats count no further


@dataclass
class Place:
    """Where a run is, and what it has found so far."""

    phase: str
    epoch: int = 0
    step: int = 0  # steps of the epoch that are done
    best_score: float = -math.inf
    epochs_without_better: int = 0

    def check(self) -> None:
        """Raise a ValueError for what no run can have come to."""
        counts = all(_is_count(number) for number in (self.epoch, self.step, self.epochs_without_better))
        if self.phase not in PHASES or not counts or type(self.best_score) is not float or math.isnan(self.best_score):
            raise ValueError("a place in a run that there is not")

    def __str__(self) -> str:
        within = self.phase in (Phase.TRAINING, Phase.EVALUATION)
        return f"{self.phase}, epoch {self.epoch}, {self.step} steps of it done" if within else self.phase


@dataclass
class TrainingState:
    """What a run holds besides its model."""

    place: Place
    optimizer: dict[str, Any]  # its state_dict
    meter: dict[str, Any]  # the epoch's `LossMeter.state_dict`
    negatives: torch.Tensor  # state of the generator that the epoch's negatives are drawn with
    chance: list[RandomStates]  # of the global generators, of each process
    log_lengths: dict[str, int]  # of `RunFiles.lengths`
    queries: str  # `queries_digest` of what it trains and is evaluated on

    def to_plain(self) -> dict[str, Any]:
        """As plain types and tensors on the CPU."""
        chance = [states.to_plain() for states in self.chance]
        plain: dict[str, Any] = _on_cpu({**vars(self), "place": asdict(self.place), "chance": chance})
        return plain

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> TrainingState:
        """Back from `to_plain`; of anything else it raises KeyError, TypeError, AttributeError or ValueError."""
        place, chance = Place(**plain["place"]), [RandomStates.from_plain(states) for states in plain["chance"]]
        place.check()
        if not is_cuda_state(plain["negatives"]):
            check_torch_state(plain["negatives"])
        if not all(_is_count(length) for length in plain["log_lengths"].values()):
            raise ValueError("lengths of logs that are none")
        return cls(**{**plain, "place": place, "chance": chance})


@dataclass
class SavedRun:
    """A `last.ckpt` (or its predecessor) that was read."""

    path: Path
    checkpoint: Checkpoint
    state: TrainingState

    def restore(
        self,
        model: ReLoCLNet,
        optimizer: BertAdam,
        meter: LossMeter,
        negatives: torch.Generator,
        device: torch.device,
        rank: int = 0,
    ) -> None:
        """Give all that changes while a run trains its saved values, the global random generators among it.

        These are of the process with number `rank`. One that had none when the run was saved keeps its own, and so do
        the negatives of a run that was on the CPU and is on a GPU now, or the other way round.
        """
        try:
            model.load_state_dict(self.checkpoint.state)
            optimizer.load_state_dict(self.state.optimizer)
            meter.load_state_dict(self.state.meter)
            if is_cuda_state(self.state.negatives) == is_cuda_state(negatives.get_state()):
                negatives.set_state(self.state.negatives)
            for states in self.state.chance[rank : rank + 1]:
                states.give_back(device)
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, LookupError) as err:
            raise InputError(
                f"{self.path}: does not fit this run ({type(err).__name__}: {err}): was opt.json changed, or do "
                "features have another size?"
            ) from err


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MOST


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(item) for key, item in value.items()}
    return [_on_cpu(item) for item in value] if isinstance(value, list) else value


def queries_digest(*splits: Sequence[Query]) -> str:
    """SHA-256 of queries in their order: a run goes on with the annotations that it was started with, or not at all."""
    rows = [[_as_trained(query) for query in queries] for queries in splits]
    return hashlib.sha256(orjson.dumps(rows)).hexdigest()


def _as_trained(query: Query) -> list[Any]:
    weight = [] if query.item_weight is None else [query.item_weight]
    return [query.desc_id, query.vid_name, query.moments or query.ts, *weight]


def save_training_state(
    folder: Path, model: ReLoCLNet, state: TrainingState, features: FeatureRecords | None = None
) -> None:
    """Write last.ckpt; the one before it becomes previous.ckpt once the new one is whole."""
    content = {**checkpoint_content(model, state.place.epoch, features), "training": state.to_plain()}
    write_content(folder / LAST, content, previous=folder / PREVIOUS)


def mark_finished(folder: Path) -> None:
    """Note in last.ckpt that there is nothing left to do, and remove the one before it."""
    saved = load_saved_run(folder)
    assert saved is not None
    state = replace(saved.state, place=replace(saved.state.place, phase=Phase.FINISHED))
    save_training_state(folder, saved.checkpoint.build_model(), state, saved.checkpoint.features)
    (folder / PREVIOUS).unlink(missing_ok=True)


def has_state(folder: Path) -> bool:
    """Whether a results folder has something to go on with."""
    return (folder / LAST).exists() or (folder / PREVIOUS).exists()


def load_saved_run(folder: Path) -> SavedRun | None:
    """The state in a results folder: last.ckpt, or previous.ckpt when a kill or damage has left no whole last.ckpt.

    None for a run that was stopped before it saved anything: it goes on at its beginning. An InputError says where
    there is nothing whole, or the folder is not one that can be gone on with.
    """
    errors = []
    for path in (folder / LAST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            saved = _load(path)
        except InputError as err:
            errors.append(err)
            print(f"warning: {err}", file=sys.stderr)
            continue
        if path.name == PREVIOUS:
            print(f"warning: going on with {path}, which was saved before it", file=sys.stderr)
        return saved
    if errors:
        raise InputError(f"{folder}: no saved state is whole, so the run cannot go on: start a new one") from errors[0]
    if (folder / BEST).exists():
        raise InputError(f"{folder}: has a model but no {LAST} to go on with: infer with it, or start a new run")
    return None


def _load(path: Path) -> SavedRun:
    checkpoint = load_checkpoint(path)
    if checkpoint.training is None:
        raise InputError(f"{path}: is a model without the state of its training: start a new run")
    try:
        return SavedRun(path, checkpoint, TrainingState.from_plain(checkpoint.training))
    except (KeyError, TypeError, AttributeError, ValueError) as err:
        raise InputError(f"{path}: its state of training cannot be read ({type(err).__name__}: {err})") from err
