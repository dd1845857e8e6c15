"""A saved state that no run can have come to is refused, whatever its digest says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from method_tvr.optimization import BertAdam
from method_tvr.training.checkpoint import write_content
from method_tvr.training.loss_meter import LossMeter
from method_tvr.training.saved_run import LAST, Phase, Place, TrainingState, load_saved_run, save_training_state
from tests.support.runs.small_models import small_model
from utils.basic_utils import InputError
from utils.random_states import RandomStates

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A results folder with a good state."""
    model = small_model()
    optimizer = BertAdam(model.parameters(), lr=0.1, warmup=0.1, t_total=10)
    negatives, chance = torch.Generator().get_state(), [RandomStates.take(CPU)]
    meter = LossMeter(CPU).state_dict()
    state = TrainingState(
        Place(Phase.TRAINING), optimizer.state_dict(), meter, negatives, chance, {"train.log.txt": 3}, "0"
    )
    save_training_state(tmp_path, model, state)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("place phase", "lunch"),
        ("place phase", torch.zeros(2)),
        ("place epoch", -1),
        ("place epoch", 1.0),
        ("place epoch", 10**30),
        ("place step", -1),
        ("place step", True),
        ("place epochs_without_better", "0"),
        ("place best_score", float("nan")),
        ("place best_score", "x"),
        ("log_lengths train.log.txt", -1),
        ("log_lengths train.log.txt", (1, 2)),
        ("log_lengths ../../x", 0.5),
        ("log_lengths", [3]),
        ("negatives", torch.zeros(5056, dtype=torch.uint8)),
        ("chance", 3),
    ],
)
def test_a_state_that_is_none_is_refused(folder, path, value):
    assert load_saved_run(folder) is not None
    content = torch.load(folder / LAST, weights_only=True)
    del content["digest"]
    *names, name = path.split()
    inner: Any = content["training"]
    for part in names:
        inner = inner[part]
    inner[name] = value
    write_content(folder / LAST, content)
    with pytest.raises(InputError, match="no saved state is whole"):
        load_saved_run(folder)
