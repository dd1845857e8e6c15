"""Steps whose loss or gradient is not finite are found, named, and reach nothing that is kept."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import RandomSampler

from method_tvr import train
from method_tvr.dataset.annotations import Query
from method_tvr.training.checkpoint import load_checkpoint
from method_tvr.training.saved_run import BEST, LAST, load_saved_run
from method_tvr.training.step_guard import NotFiniteError, StepGuard, StepValues
from utils.content_digest import content_digest
from utils.mini_corpus.files import video_feature_path
from utils.model_utils import named_generator

QUERIES = [Query(desc_id=i + 100, desc="", line=i, vid_name=f"video {i}", ts=(0.0, 3.0)) for i in range(12)]
RUN = {"exp_id": "x", "n_epoch": 2, "bsz": 32, "lr": 0.01, "eval_tasks_at_training": ["VCMR"], "no_norm_vfeat": True}


def watch(guard: StepGuard, model: nn.Linear, number: int, loss: float, grad: float | None) -> None:
    for parameter in model.parameters():
        parameter.grad = None if grad is None else torch.full_like(parameter, 0.5)
    if grad is not None:
        model.bias.grad[-1] = grad
    names = [name for name, p in model.named_parameters() if p.grad is not None]
    norms = torch.tensor([float(p.grad.norm()) for p in model.parameters() if p.grad is not None])
    losses = {"loss_vcl": torch.tensor(loss), "loss_overall": torch.tensor(loss)}
    guard.watch(2, number, QUERIES[number : number + 10], StepValues.of(names, norms, losses))


@pytest.mark.parametrize(
    ("loss", "grad", "what"),
    [
        (math.nan, 0.0, "the loss is not finite"),
        (math.inf, None, "the loss is not finite"),
        (1.0, math.nan, "the gradient of bias is not finite"),
        (1.0, -math.inf, "the gradient of bias is not finite"),
    ],
)
def test_a_bad_step_is_named_with_its_batch(loss, grad, what):
    model = nn.Linear(3, 2)
    guard = StepGuard(every=1)
    watch(guard, model, 0, 1.0, 1.0)
    with pytest.raises(NotFiniteError, match=f"epoch 2, step 1: {what}") as caught:
        watch(guard, model, 1, loss, grad)
    assert f"loss_vcl {loss:.4g}" in str(caught.value)
    assert "desc_id 101, 102, 103, 104, 105, 106, 107, 108 … (10 in all)" in str(caught.value)
    assert "vid_name video 1, video 2" in str(caught.value)
    assert caught.value.report["desc_ids"] == list(range(101, 111))
    assert caught.value.report["vid_names"] == [f"video {i}" for i in range(1, 11)]
    json.dumps(caught.value.report, allow_nan=False)


@pytest.mark.parametrize(("loss", "grad"), [(1.0, 1e18), (0.0, None), (3e38, -1e18)])
def test_large_numbers_are_no_bad_ones(loss, grad):
    model = nn.Linear(3, 2)
    watch(StepGuard(every=1), model, 0, loss, grad)


def test_steps_looked_at_together_name_the_first_bad_one():
    model = nn.Linear(3, 2)
    guard = StepGuard(every=4)
    for number, loss in enumerate([1.0, math.nan, math.inf]):
        watch(guard, model, number, loss, 1.0)
    watch(guard, model, 3, 1.0, 1.0)  # as many more are asked for before these four are looked at
    for number in range(4, 7):
        watch(guard, model, number, math.nan, 1.0)
    with pytest.raises(NotFiniteError, match="step 1: the loss"):
        watch(guard, model, 7, 1.0, 1.0)
    with pytest.raises(NotFiniteError, match="step 4"):
        guard.check()
    watch(guard, model, 8, 1.0, 1.0)
    guard.check()


def test_only_a_gpu_is_not_waited_for():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert StepGuard.on(cpu, at_once=False).checks_before_update
    assert StepGuard.on(gpu, at_once=True).checks_before_update
    assert not StepGuard.on(gpu, at_once=False).checks_before_update


# ---------------------------------------------------------------- in a run

overflows = pytest.mark.filterwarnings("ignore:overflow encountered")  # already when clips are averaged


@pytest.fixture
def overflowing(own_corpus) -> str:
    """The name of a training video whose features are so large that the model overflows, and which comes late."""
    lines = own_corpus.annotations("train").read_text().splitlines()
    order = RandomSampler(lines, generator=named_generator(2018, "shuffle/0"))
    name = list(dict.fromkeys(json.loads(lines[index])["vid_name"] for index in order))[-1]
    with own_corpus.features("vid_feat_path") as features:
        features[name][:] = 3e38
    return name


@pytest.fixture
def start(run_main, tmp_path):
    """Start a run on a corpus; returns how it ended and its folder."""

    def start(corpus, name: str, **typed: object):
        root = tmp_path / name
        finished = run_main(train.main, corpus.options(**{**RUN, "results_root": root, **typed}))
        (folder,) = root.iterdir()
        return finished, folder

    return start


def named_video(finished, folder: Path, overflowing: str) -> dict:
    """The report, once it is clear that the run ended because of the video."""
    assert finished.code == 2
    assert "is not finite" in finished.err
    assert f"train.sh --resume {folder}" in finished.err
    report = json.loads((folder / "not_finite.json").read_text())
    assert overflowing in report["vid_names"]
    assert len(report["desc_ids"]) == len(report["vid_names"]) <= 32
    assert report["losses"]["loss_overall"] == "nan"
    assert str(report["desc_ids"][0]) in finished.err
    return report


@overflows
def test_features_that_overflow_stop_the_run_before_their_step(start, own_corpus, overflowing):
    finished, folder = start(own_corpus, "bad", save_every=0, bsz=20)
    report = named_video(finished, folder, overflowing)
    saved = load_saved_run(folder)
    assert (saved.state.place.epoch, saved.state.place.step) == (report["epoch"], report["step"])
    assert all(torch.isfinite(tensor).all() for tensor in saved.checkpoint.state.values())
    assert not (folder / BEST).exists()


@overflows
def test_a_run_with_mended_features_goes_on_as_if_they_had_never_been_bad(
    start, run_main, own_corpus, tiny_corpus, overflowing
):
    expected = start(tiny_corpus, "good", bsz=8)[1]
    finished, folder = start(own_corpus, "bad", bsz=8)
    assert named_video(finished, folder, overflowing)["step"] > 0
    mended = str(video_feature_path(tiny_corpus.root, "mini", "resnet_i3d"))
    own = own_corpus.paths["train_path"]
    assert own.read_bytes() == tiny_corpus.annotations("train").read_bytes()
    assert run_main(train.main, ["--resume", str(folder), "--vid_feat_path", mended]).code == 0
    assert (folder / BEST).read_bytes() == (expected / BEST).read_bytes()
    last, other = (load_checkpoint(path / LAST).training for path in (folder, expected))
    assert all(content_digest(last[name]) == content_digest(other[name]) for name in ("optimizer", "meter", "chance"))


@overflows
@pytest.mark.parametrize("save_every", [0, 2])
def test_a_bad_step_found_late_is_in_nothing_that_was_saved(start, own_corpus, overflowing, monkeypatch, save_every):
    # as on a GPU: updates have happened when a step is looked at
    monkeypatch.setattr(StepGuard, "on", lambda device, at_once: StepGuard(every=5))
    finished, folder = start(own_corpus, "bad", bsz=8, save_every=save_every)
    report = (
        named_video(finished, folder, overflowing)
        if save_every
        else json.loads((folder / "not_finite.json").read_text())
    )
    assert overflowing in report["vid_names"]
    saved = load_saved_run(folder)
    if save_every:
        assert saved.state.place.step == report["step"] // save_every * save_every > 0
        assert all(torch.isfinite(tensor).all() for tensor in saved.checkpoint.state.values())
    else:
        assert saved is None


@pytest.mark.filterwarnings("ignore:Error detected in")
def test_anomaly_detection_names_the_operation(start, tiny_corpus, monkeypatch):
    monkeypatch.setattr(
        "method_tvr.model.video_cl", lambda scores, *of_pairs: (scores.sum() * 0).sqrt()
    )  # 0, its slope infinite
    finished, folder = start(tiny_corpus, "anomaly", detect_anomaly=True)
    assert finished.code == 2
    assert "Backward0' returned nan values" in finished.err
    assert json.loads((folder / "not_finite.json").read_text())["step"] == 0
    assert load_saved_run(folder).state.place.step == 0
    assert not torch.is_anomaly_enabled()


def test_a_gradient_that_is_not_finite_is_found_without_anomaly_detection(start, tiny_corpus, monkeypatch):
    monkeypatch.setattr("method_tvr.model.video_cl", lambda scores, *of_pairs: (scores.sum() * 0).sqrt())
    finished, folder = start(tiny_corpus, "gradient")
    assert finished.code == 2
    assert "step 0: the gradient of" in finished.err
    report = json.loads((folder / "not_finite.json").read_text())
    assert "video_encoder1.self.query.weight" in report["gradients"]
    assert report["losses"]["loss_vcl"] == 0
