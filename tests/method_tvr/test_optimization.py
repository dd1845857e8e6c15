"""BertAdam follows the reference's trajectory and its definition, tensor by tensor."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from method_tvr.model import ReLoCLNet
from method_tvr.optimization import BertAdam, parameter_groups, warmup_linear
from tests.support.golden_files import load_npz
from tests.support.runs.small_models import SMALL, golden_settings


@pytest.fixture(scope="module")
def trajectory():
    return load_npz("train_steps.npz")


def golden_optimizer(model: nn.Module, trajectory) -> BertAdam:
    lr, warmup, t_total = (trajectory[name].item() for name in ("lr", "warmup", "t_total"))
    return BertAdam(parameter_groups(model, 0.01), lr=lr, warmup=warmup, t_total=t_total)


def test_six_steps_agree_with_the_reference(golden_checkpoint, golden_train_set, trajectory):
    model = ReLoCLNet(replace(golden_checkpoint.config, drop=0.0, input_drop=0.0))
    model.load_state_dict(golden_checkpoint.state)
    optimizer = golden_optimizer(model, trajectory)
    losses, multipliers = [], []
    for step in range(6):
        _, batch = golden_train_set.batch(range(8 * step, 8 * step + 8), 128)
        loss, _ = model.train()(batch, golden_settings("hinge"))
        optimizer.zero_grad()
        loss.backward()
        multipliers.append(optimizer.lr_multiplier())
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, trajectory["losses"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(multipliers, trajectory["lr_multiplier"][:6], rtol=1e-12)
    assert {f"param/{name}" for name, _ in model.named_parameters()} == {
        name for name in trajectory if name.startswith("param/")
    }
    for name, parameter in model.named_parameters():
        expected = trajectory[f"param/{name}"]
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=0, atol=5e-6, err_msg=name)


def test_learning_rate_agrees_with_the_reference_even_past_the_planned_steps(trajectory):
    optimizer = golden_optimizer(nn.Linear(1, 1), trajectory)
    found = []
    for _ in trajectory["lr_multiplier"]:
        found.append(optimizer.lr_multiplier())
        optimizer.step()
    np.testing.assert_allclose(found, trajectory["lr_multiplier"], rtol=1e-12, atol=1e-15)


SCALES = (9, 0.1, 5, 0.01)  # of gradients: some above the norm they are clipped to, some below


class ScalarBertAdam:
    """The definition, one tensor after another."""

    def __init__(self, parameters, decays, lr, multiplier):
        self.parameters, self.decays, self.lr, self.multiplier = parameters, decays, lr, multiplier
        self.m = [torch.zeros_like(p) for p in parameters]
        self.v = [torch.zeros_like(p) for p in parameters]
        self.steps = 0

    def step(self, grads):
        for i, (p, grad, decay) in enumerate(zip(self.parameters, grads, self.decays, strict=True)):
            if grad is None:
                continue
            grad = grad * min(1.0, 1.0 / (float(grad.norm()) + 1e-6))
            self.m[i] = 0.9 * self.m[i] + 0.1 * grad
            self.v[i] = 0.999 * self.v[i] + 0.001 * grad * grad
            update = self.m[i] / (self.v[i].sqrt() + 1e-6) + decay * p
            p -= self.lr * self.multiplier(self.steps) * update
        self.steps += 1


def test_steps_agree_with_the_definition():
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5,), (), (2, 3, 2)]
    ours = [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]
    theirs = [p.detach().clone() for p in ours]
    groups = [{"params": ours[:2], "weight_decay": 0.01}, {"params": ours[2:], "weight_decay": 0.0}]
    optimizer = BertAdam(groups, lr=0.1, warmup=0.3, t_total=10)
    definition = ScalarBertAdam(theirs, [0.01, 0.01, 0, 0], 0.1, lambda step: warmup_linear(step / 10, 0.3))
    for step in range(10):
        grads = [
            scale * torch.randn(p.shape, generator=generator).double() for p, scale in zip(ours, SCALES, strict=True)
        ]
        grads[step % 4] = None if step in (3, 6) else grads[step % 4]  # passed over
        for p, grad in zip(ours, grads, strict=True):
            p.grad = None if grad is None else grad.clone()
        optimizer.step()
        definition.step(grads)
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p.detach(), q, rtol=1e-9, atol=1e-12)


def test_the_schedule_agrees_with_its_definition():
    for p in np.linspace(0, 1.2, 25):
        multiplier = p / 0.25 if p < 0.25 else max((p - 1) / (0.25 - 1), 0)
        assert warmup_linear(p, 0.25) == pytest.approx(multiplier), p


def test_the_first_update_has_learning_rate_zero():
    p = nn.Parameter(torch.ones(3))
    optimizer = BertAdam([p], lr=1.0, warmup=0.5, t_total=4)
    p.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(p.detach(), torch.ones(3))
    optimizer.step()
    assert not torch.equal(p.detach(), torch.ones(3))


def test_corrected_steps_are_those_of_adam():
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(5, dtype=torch.float64)) for _ in range(2))
    optimizer = BertAdam([ours], lr=0.01, warmup=0.0, t_total=10**9, eps=0.0, weight_decay=0.0, bias_correction=True)
    adam = torch.optim.Adam([theirs], lr=0.01, eps=0.0)
    for _ in range(20):
        ours.grad = torch.randn(5, dtype=torch.float64) / 10  # shorter than what is clipped
        theirs.grad = ours.grad.clone()
        optimizer.step()
        adam.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_without_correction_the_first_step_is_longer_than_the_learning_rate():
    lengths = []
    for corrected in (False, True):
        p = nn.Parameter(torch.zeros(1))
        optimizer = BertAdam([p], lr=0.01, warmup=0.0, t_total=10**6, weight_decay=0.0, bias_correction=corrected)
        p.grad = torch.full((1,), 0.5)
        optimizer.step()
        lengths.append(abs(p.item()) / 0.01)
    assert lengths == pytest.approx([0.1 / 0.001**0.5, 1.0], rel=1e-3)


def test_a_restored_optimizer_goes_on_as_if_it_had_never_stopped():
    generator = torch.Generator().manual_seed(0)
    grads = torch.randn(6, 4, generator=generator)

    def run(parameter: nn.Parameter, optimizer: BertAdam, steps: range) -> None:
        for step in steps:
            parameter.grad = grads[step].clone()
            optimizer.step()

    def fresh(values: torch.Tensor) -> tuple[nn.Parameter, BertAdam]:
        parameter = nn.Parameter(values.clone())
        return parameter, BertAdam([parameter], lr=0.1, warmup=0.2, t_total=8)

    whole, optimizer = fresh(torch.zeros(4))
    run(whole, optimizer, range(6))
    part, optimizer = fresh(torch.zeros(4))
    run(part, optimizer, range(3))
    state = optimizer.state_dict()
    part, optimizer = fresh(part.detach())
    optimizer.load_state_dict(state)
    run(part, optimizer, range(3, 6))
    assert torch.equal(whole.detach(), part.detach())
    assert optimizer.steps_done == 6


def test_all_is_decayed_but_biases_and_layernorm_weights():
    model = ReLoCLNet(SMALL)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, plain = parameter_groups(model, 0.02)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.02, 0.0)
    decayed_names, plain_names = ({names[id(p)] for p in group["params"]} for group in (decayed, plain))
    assert decayed_names | plain_names == set(names.values())
    assert not decayed_names & plain_names
    assert all("bias" in name or "LayerNorm.weight" in name for name in plain_names)
    assert {"video_cross_layernorm.weight", "sub_cross_layernorm.weight"} <= decayed_names
    assert {"video_cross_layernorm.bias", "query_encoder.output.LayerNorm.weight"} <= plain_names


def saved_and_fresh() -> tuple[dict[str, Any], BertAdam]:
    """The state of an optimiser that has done a step, and another one of the same model."""
    optimizers = []
    for _ in range(2):
        layer = nn.Linear(2, 3)
        optimizers.append(BertAdam(layer.parameters(), lr=0.1, warmup=0.2, t_total=8))
    used, fresh = optimizers
    for parameter in used.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    used.step()
    return used.state_dict(), fresh


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("steps_done", -1),
        ("steps_done", 9),
        ("steps_done", 1.0),
        ("steps_done", 10**400),
        ("param_groups 0 lr", 0.2),
        ("param_groups 0 b1", "0.9"),
        ("param_groups 0 params", [0]),
        ("param_groups", []),
        ("state 0 next_m", torch.zeros(2, 3)),
        ("state 0 next_v", torch.zeros(3, 2, dtype=torch.complex64)),
        ("state 0 next_v", "x"),
        ("state 0", {"next_m": torch.zeros(3, 2)}),
        ("state 0", None),
        ("state 2", {"next_m": torch.zeros(3, 2), "next_v": torch.zeros(3, 2)}),
        ("state x", {}),
        ("state", []),
    ],
)
def test_a_state_of_another_optimizer_is_refused_and_changes_nothing(path, value):
    state, optimizer = saved_and_fresh()
    *folders, name = (int(part) if part.isdigit() else part for part in path.split())
    inner: Any = state
    for folder in folders:
        inner = inner[folder]
    inner[name] = value
    with pytest.raises((KeyError, TypeError, AttributeError, ValueError)):
        optimizer.load_state_dict(state)
    assert optimizer.steps_done == 0
    assert not any(optimizer.state.values())


def test_restored_moments_are_copies_that_can_be_written():
    state, optimizer = saved_and_fresh()
    state["state"][0]["next_m"] = kept = torch.full((1,), 2.0).expand(3, 2)  # all in one place
    optimizer.load_state_dict(state)
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert (kept == 2).all()
    assert optimizer.steps_done == 2
