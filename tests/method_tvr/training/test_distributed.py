"""Several processes train as one does, drop other elements each, and end together when one fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from method_tvr.dataset.loading import BatchLoader
from method_tvr.model import LossSettings
from method_tvr.optimization import BertAdam, parameter_groups
from method_tvr.training import launch
from method_tvr.training.distributed import ProcessRanks
from method_tvr.training.launch import processes_to_launch, started
from tests.support.processes import LIMIT_S, codes_of, results_of, run_ranks, said, start_ranks, stay_in_c
from tests.support.runs.items import Items
from tests.support.runs.small_models import SMALL, small_batch, small_model
from tests.support.shell import PROJECT_ROOT
from utils import model_utils
from utils.basic_utils import InputError
from utils.model_utils import named_generator
from utils.ranks import ALONE, Ranks

BATCHES = (12, 7, 2, 1, 5, 3)  # rows of each step's batch; four processes have uneven shares, and none
AGREE = 1e-5
NO_DROPOUT = replace(SMALL, input_drop=0.0, drop=0.0)
STRONG = LossSettings(lw_st_ed=0.5, lw_fcl=0.5, lw_vcl=0.5, hard_pool_size=3)


@dataclass(frozen=True)
class Case:
    settings: LossSettings = STRONG
    trim_padding: bool = False
    amp: torch.dtype | None = None
    config: Any = NO_DROPOUT


CASES = {
    "hinge": Case(),
    "lse": Case(replace(STRONG, ranking_loss_type="lse"), trim_padding=True),
    "hard negatives": Case(replace(STRONG, use_hard_negative=True), trim_padding=True),
    "hard negatives, lse": Case(replace(STRONG, use_hard_negative=True, ranking_loss_type="lse")),
    "ranking only": Case(replace(STRONG, lw_st_ed=0.0, lw_fcl=0.0, lw_vcl=0.0)),  # a batch of one has no loss then
    "spans only": Case(replace(STRONG, lw_neg_q=0.0, lw_neg_ctx=0.0, lw_fcl=0.0, lw_vcl=0.0)),
    "bfloat16": Case(amp=torch.bfloat16),
    "dropout": Case(config=SMALL),
    "dropout again": Case(config=SMALL),
}
OF_FOUR = ("hinge", "lse", "hard negatives", "ranking only")  # cases that four processes train as well


def whole_batch(n: int, seed: int) -> dict[str, torch.Tensor]:
    batch = small_batch(n, seed)
    first, clips = torch.arange(n) % 3, torch.arange(SMALL.max_ctx_l)
    return batch | {
        "ctx_lengths": batch["ctx_mask"].sum(dim=1).long(),
        "st_ed_indices": torch.stack([first, torch.full((n,), 2)], dim=1),
        "match_labels": ((clips >= first[:, None]) & (clips <= 2)).long(),
    }


def share_of(batch: dict[str, torch.Tensor], ranks: Ranks, trim_padding: bool) -> dict[str, torch.Tensor]:
    """Rows of one rank, padded as its loader pads them."""
    rows = ranks.slice_of(len(batch["ctx_mask"]))
    own = {name: tensor[rows] for name, tensor in batch.items()}
    n_tokens, n_clips = (max(1, int(own[mask].any(dim=0).sum())) for mask in ("query_mask", "ctx_mask"))
    if not trim_padding:
        n_clips = SMALL.max_ctx_l
    for name, tensor in own.items():
        if name.startswith("query"):
            own[name] = tensor[:, :n_tokens]
        elif name not in ("ctx_lengths", "st_ed_indices"):
            own[name] = tensor[:, :n_clips]
    return own


def train(case: Case, ranks: Ranks) -> dict[str, Any]:
    """Six steps; "losses" of each, "parameters" after them, and names of those that had no gradient ("untouched")."""
    torch.manual_seed(0)
    ranks.seed_dropout(0)
    model = small_model(case.config).train()
    optimizer = BertAdam(parameter_groups(model, 0.01), lr=1e-3, warmup=0.1, t_total=20)
    negatives = named_generator(0, "negatives")
    losses = []
    for step, n in enumerate(BATCHES):
        own = share_of(whole_batch(n, step), ranks, case.trim_padding)
        loss, terms = model(own, case.settings, negatives, case.trim_padding, case.amp, ranks)
        optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
        ranks.sum_gradients(model.parameters())
        optimizer.step()
        losses.append({name: float(term) for name, term in terms.items()})
    ranks.check_equal(model.parameters(), "parameters")
    return {
        "losses": losses,
        "parameters": {name: p.detach() for name, p in model.named_parameters()},
        "untouched": {name for name, p in model.named_parameters() if not optimizer.state[p]},
    }


# ---------------------------------------------------------------- processes


def all_work(ranks: Ranks) -> dict[str, Any]:
    """Everything that needs processes and no failure, so that they are started once."""
    return {
        "trained": {name: train(CASES[name], ranks) for name in (CASES if ranks.size == 2 else OF_FOUR)},
        "gradients": gathered_gradients(ranks),
        "exchanged": exchanged(ranks),
        "unequal": unequal(ranks),
    }


@pytest.fixture(scope="module")
def by_size(tmp_path_factory) -> dict[int, list[dict[str, Any]]]:
    """{number of processes: what each found}."""
    return {n: results_of(n, tmp_path_factory.mktemp("ranks"), all_work) for n in (2, 4)}


@pytest.fixture(params=[2, 4])
def results(request, by_size) -> list[dict[str, Any]]:
    return by_size[request.param]


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return {name: train(case, ALONE) for name, case in CASES.items()}


def largest_difference(found: dict[str, Any], expected: dict[str, Any]) -> tuple[float, float]:
    """Of losses, and of parameters."""
    assert [step.keys() for step in found["losses"]] == [step.keys() for step in expected["losses"]]
    losses = [[list(step.values()) for step in run["losses"]] for run in (found, expected)]
    loss = max(np.abs(np.subtract(ours, theirs)).max() for ours, theirs in zip(*losses, strict=True))
    pairs = [(p, expected["parameters"][name]) for name, p in found["parameters"].items()]
    return loss, max(float((ours - theirs).abs().max()) for ours, theirs in pairs)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("n", "name"),
    [(2, name) for name, case in CASES.items() if case.config is NO_DROPOUT and case.amp is None]
    + [(4, name) for name in OF_FOUR],
)
def test_losses_and_parameters_are_those_of_one_process(by_size, alone, n, name):
    for found in by_size[n]:
        loss, parameter = largest_difference(found["trained"][name], alone[name])
        assert loss < AGREE
        assert parameter < AGREE
        assert found["trained"][name]["untouched"] == alone[name]["untouched"]


def test_training_moves_parameters_by_far_more_than_what_agrees(alone):
    start = small_model(NO_DROPOUT).state_dict()
    for name in ("hinge", "hard negatives"):
        moved = [float((p - start[key]).abs().max()) for key, p in alone[name]["parameters"].items()]
        assert np.median(moved) > 100 * AGREE


def test_in_bfloat16_losses_are_nearly_those_of_one_process(by_size, alone):
    loss, parameter = largest_difference(by_size[2][0]["trained"]["bfloat16"], alone["bfloat16"])
    assert loss < 0.05
    assert parameter < 0.01


def test_with_dropout_two_runs_are_equal_and_each_process_drops_other_elements(by_size):
    results = by_size[2]
    one, other = (results[1]["trained"][name] for name in ("dropout", "dropout again"))
    assert largest_difference(one, other) == (0, 0)
    assert largest_difference(one, results[1]["trained"]["hinge"])[0] > AGREE
    seeds = [found["exchanged"]["seed"] for found in results]
    assert len(set(seeds)) == len(results)
    assert seeds[0] == 0


def test_one_process_that_torchrun_starts_is_alone(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    with started(-1, [0]) as (ranks, device):
        assert ranks is ALONE
        assert device.type == "cpu"


# ---------------------------------------------------------------- what is exchanged


def gathered_gradients(ranks: Ranks) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Gradients of this rank's queries and videos through the gathering, and those of plain autograd."""
    n = 6
    generator = torch.Generator().manual_seed(0)
    query, video, weight = (torch.randn(n, k, generator=generator).requires_grad_() for k in (3, 3, n))
    rows = ranks.slice_of(n)
    share = ranks.share(share_of(whole_batch(n, 0), ranks, trim_padding=False))

    def loss_of(scores: torch.Tensor) -> torch.Tensor:
        return (scores.softmax(dim=0) * weight.detach()).sum() + (scores.diagonal() ** 2).sum()

    plain = torch.autograd.grad(loss_of(video @ query.t()), (query, video))
    own = [tensor.detach()[rows].requires_grad_() for tensor in (query, video)]
    queries = share.gather_queries({"a": own[0][:, :1], "b": own[0][:, 1:]})
    scores = share.gather_scores({"s": own[1] @ torch.cat([queries["a"], queries["b"]], dim=1).t()})["s"]
    found = torch.autograd.grad(loss_of(scores), own)
    return list(found), [grad[rows] for grad in plain]


def test_gradients_through_gathering_are_those_of_autograd(results):
    for result in results:
        found, expected = result["gradients"]
        torch.testing.assert_close(found, expected)


def exchanged(ranks: Ranks) -> dict[str, Any]:
    mine = np.arange(3) + 10 * ranks.rank
    return {
        "seed": torch.initial_seed(),
        "broadcast": ranks.broadcast({"folder": f"of {ranks.rank}"}),
        "gathered": ranks.gather(mine),
        "gathered by all": ranks.all_gather(mine),
        "any": (ranks.any(False), ranks.any(ranks.rank == ranks.size - 1)),
        "main": ranks.is_main,
    }


def test_objects_are_exchanged(results):
    n = len(results)
    assert [result["exchanged"]["main"] for result in results] == [True] + [False] * (n - 1)
    for rank, result in enumerate(results):
        found = result["exchanged"]
        assert found["broadcast"] == {"folder": "of 0"}
        assert found["any"] == (False, True)
        expected = [[10 * r, 10 * r + 1, 10 * r + 2] for r in range(n)]
        assert [array.tolist() for array in found["gathered"]] == (expected if rank == 0 else [])
        assert [array.tolist() for array in found["gathered by all"]] == expected
    alone = exchanged(ALONE)
    assert (alone["broadcast"], alone["any"], len(alone["gathered"])) == ({"folder": "of 0"}, (False, True), 1)


def unequal(ranks: Ranks) -> str:
    tensors = [torch.zeros(3), torch.full((2,), float(ranks.rank == 1)) * 1e-30]
    try:
        ranks.check_equal(tensors, "parameters")
    except InputError as err:
        return str(err)
    return ""


def test_tensors_that_differ_in_a_bit_are_noticed_by_all(results):
    assert all(result["unequal"].startswith("parameters differ between processes") for result in results)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_shares_are_even_and_make_up_the_whole(size):
    ranks = [numbered(rank, size) for rank in range(size)]
    for n in range(10):
        shares = [list(range(n))[rank.slice_of(n)] for rank in ranks]
        assert [i for share in shares for i in share] == list(range(n))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def numbered(rank: int, size: int) -> Ranks:
    ranks = Ranks()
    ranks.rank, ranks.size = rank, size
    return ranks


@pytest.mark.parametrize("num_workers", [0, 1])
def test_each_rank_loads_its_share_of_every_batch(tmp_path, num_workers):
    items = Items(tmp_path, 7, set(), num_workers=num_workers)
    loaders = [BatchLoader(items, 3, False, sampler=range(6, -1, -1), ranks=numbered(rank, 2)) for rank in range(2)]
    assert [len(loader) for loader in loaders] == [3, 3]
    metas, values = [], []
    for shares in zip(*loaders, strict=True):
        metas.append([meta for own, _ in shares for meta in own])
        values.append(torch.cat([batch["query_feat"] for _, batch in shares])[:, 0, 0].tolist())
    assert metas == values == [[6, 5, 4], [3, 2, 1], [0]]


# ---------------------------------------------------------------- failing, and starting


def one_fails(ranks: Ranks) -> None:
    if ranks.rank == 1:
        raise InputError("video.h5, key a: is broken")
    ranks.barrier()


def all_fail(ranks: Ranks) -> None:
    raise InputError("video.h5: is not there")


def one_is_killed(ranks: Ranks) -> None:
    if ranks.rank == 1:
        os.kill(os.getpid(), 9)
    ranks.barrier()


@pytest.mark.parametrize(
    ("work", "codes", "message"),
    [
        (one_fails, [2, 2], "error: video.h5, key a: is broken"),
        (all_fail, [2, 2], "error: video.h5: is not there"),
        (one_is_killed, [2, -9], "error: lost another process, which may have been killed"),
    ],
)
def test_when_one_fails_all_end_and_one_says_why(tmp_path, work, codes, message):
    assert run_ranks(2, tmp_path, work) == codes
    assert_one_error(said(2, tmp_path), message)


def assert_one_error(errors: str, message: str) -> None:
    assert errors.count("error: ") == 1
    assert message in errors
    assert "Traceback" not in errors


def watched(lost: str, noticing_s: float, work: Callable[[Ranks], None]) -> None:
    """In a process of its own: as on CUDA, whose waits are watched over."""
    launch.WAITING_IN_C, launch.NOTICING_S, launch.LOST = ("cpu",), noticing_s, lost
    with started(-1, [0]) as (ranks, _):
        work(ranks)


def one_is_killed_and_the_others_are_stuck(ranks: Ranks) -> None:
    ranks.barrier()
    if ranks.rank == 1:
        os.kill(os.getpid(), 9)
    stay_in_c()


def one_fails_and_the_others_are_stuck(ranks: Ranks) -> None:
    ranks.barrier()
    if ranks.rank == 1:
        raise InputError("video.h5, key a: is broken")
    stay_in_c()


@pytest.mark.parametrize(
    ("work", "codes", "message"),
    [
        (one_is_killed_and_the_others_are_stuck, [2, -9, 2], "error: lost one of us\n"),
        (one_fails_and_the_others_are_stuck, [2, 2, 2], "error: video.h5, key a: is broken\n"),
    ],
)
def test_processes_that_wait_in_c_end_when_one_is_lost_and_one_says_so(tmp_path, work, codes, message):
    processes = start_ranks(3, tmp_path, partial(watched, "lost one of us", 0.2, work))
    assert codes_of(processes) == codes
    assert_one_error(said(3, tmp_path), message)


def one_is_killed_while_another_computes(ranks: Ranks) -> None:
    if ranks.rank == 1:
        os.kill(os.getpid(), 9)
    time.sleep(1)
    ranks.barrier()


def test_who_notices_a_lost_process_by_itself_says_what_it_noticed(tmp_path):
    work = partial(watched, "lost", 60, one_is_killed_while_another_computes)
    assert codes_of(start_ranks(2, tmp_path, work)) == [2, -9]
    assert (tmp_path / "err_0").read_text().startswith("error: lost (")


def done(ranks: Ranks) -> None:
    ranks.barrier()


def test_processes_that_end_because_they_are_done_are_not_lost(tmp_path):
    assert codes_of(start_ranks(3, tmp_path, partial(watched, "lost", 0, done))) == [0, 0, 0]
    assert said(3, tmp_path) == ""


def quiet(ranks: Ranks) -> bool:
    return isinstance(ranks, ProcessRanks)


def test_only_the_main_process_prints(tmp_path):
    assert results_of(2, tmp_path, quiet) == [True, True]
    assert [(tmp_path / f"out_{rank}").read_text() for rank in range(2)] == ["rank 0 is done\n", ""]


def test_a_launched_command_ends_with_the_exit_code_of_the_process_that_fails(tmp_path):
    script = tmp_path / "command.py"
    script.write_text(
        "import os, sys, time\n"
        "if 'RANK' not in os.environ:\n"
        "    from method_tvr.training.launch import launch\n"
        "    launch(sys.argv, 2)\n"
        "if os.environ['RANK'] == '1':\n"
        "    sys.exit(int(sys.argv[1]))\n"
        "time.sleep(60)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RANK"}
    environment["PYTHONPATH"] = str(PROJECT_ROOT)
    done = subprocess.run(
        [sys.executable, script, "3"], env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("environment", "device_ids", "expected"),
    [
        ({}, [0], 1),
        ({}, [0, 1], 2),
        ({"NGPU": "3"}, [0], 3),
        ({"NGPU": "2"}, [4, 5], 2),
        ({"NGPU": "1"}, [4], 1),
        ({"NGPU": "3", "RANK": "0", "WORLD_SIZE": "3"}, [0], 1),
    ],
)
def test_processes_are_launched_when_several_are_asked_for(monkeypatch, environment, device_ids, expected):
    set_environment(monkeypatch, environment)
    assert processes_to_launch(device_ids) == expected


@pytest.mark.parametrize(("typed", "device_ids"), [("two", [0]), ("0", [0]), ("-1", [0]), ("3", [0, 1]), ("2", [1])])
def test_a_number_of_processes_that_makes_no_sense_is_refused(monkeypatch, typed, device_ids):
    set_environment(monkeypatch, {"NGPU": typed})
    with pytest.raises(InputError, match="NGPU"):
        processes_to_launch(device_ids)


@pytest.mark.parametrize(
    ("device_ids", "local_rank", "expected"), [([0], 0, 0), ([0], 2, 2), ([3, 1], 0, 3), ([3, 1], 1, 1), ([2], 0, 2)]
)
def test_each_process_takes_the_device_that_is_named_for_it(monkeypatch, device_ids, local_rank, expected):
    have_devices(monkeypatch, 4)
    assert launch._device(0, device_ids, local_rank, False) == torch.device("cuda", expected)


@pytest.mark.parametrize(
    ("device_ids", "local_rank", "message"),
    [
        ([0], 4, "no CUDA device 4 for process 4"),
        ([3, 7], 1, "no CUDA device 7 for process 1"),
        ([-1, 0], 0, "no CUDA device -1 for process 0"),
        ([2], 1, "--device_ids 2, for 2 processes or more"),
        ([3, 1], 2, "--device_ids 3 1, for 3 processes or more"),
    ],
)
def test_a_process_without_a_device_is_refused(monkeypatch, device_ids, local_rank, message):
    have_devices(monkeypatch, 4)
    with pytest.raises(InputError, match=message):
        launch._device(0, device_ids, local_rank, False)


def have_devices(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(model_utils, "_add_on", lambda number: None)


def test_half_of_torchruns_environment_is_refused(monkeypatch):
    set_environment(monkeypatch, {"WORLD_SIZE": "2", "RANK": "0"})
    with pytest.raises(InputError, match="MASTER_ADDR, MASTER_PORT"), started(-1, [0]):
        pass


def set_environment(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name in ("NGPU", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
