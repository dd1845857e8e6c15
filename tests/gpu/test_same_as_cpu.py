"""What is computed on a GPU is what is computed on the CPU, path by path.

Without a GPU on a stand-in that holds real values (`fake_device`), and on a GPU where there is one.
"""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_iter

from method_tvr import contrastive
from method_tvr.config import parse_train_options
from method_tvr.model import LossSettings, ReLoCLNet
from method_tvr.model_components import conv_predictors
from method_tvr.optimization import BertAdam, parameter_groups
from method_tvr.search.candidates import CandidateIndex, CandidateSettings
from method_tvr.search.encoding import encode_corpus, encode_queries
from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.records import EncodedQueries, SearchSettings
from method_tvr.search.retrieval import Searcher
from method_tvr.search.sharding import Shard
from method_tvr.start_end_dataset import prepare_batch_inputs
from method_tvr.train import Trainer
from method_tvr.training.loss_meter import LossMeter
from method_tvr.training.training_step import GraphedStep, TrainingStep
from tests.gpu.fake_device import CPU, CUDA, REAL, OnCuda, fake_cuda, values
from tests.gpu.small_batches import SMALL, config_for, small_batch
from utils.model_utils import named_generator
from utils.ranks import ALONE, Ranks

stand_in_only = pytest.mark.skipif(REAL, reason="a GPU does not tell")


# ------------------------------------------------------------------ the model


def train_steps(
    device, ctx_mode, trim_padding=False, amp=None, settings=None, n=9, steps=2, grad_clip=-1.0, graph=None
):
    """What training computes: losses, gradients of the last step, parameters after it."""
    torch.manual_seed(0)
    config = config_for(ctx_mode)
    model = ReLoCLNet(config, named_generator(1, "initialisation")).to(device)
    optimizer = BertAdam(parameter_groups(model, 0.01), lr=0.01, warmup=0.1, t_total=10)
    meter, batch, negatives = LossMeter(device), small_batch(n, config.modalities), named_generator(1, "negatives")
    batch = prepare_batch_inputs(batch, device, non_blocking=True)
    step = TrainingStep(model, optimizer, lambda inputs: inputs, negatives, trim_padding, amp, ALONE, grad_clip)
    update, watched = graph(step, device) if graph else step, []
    for _ in range(steps):
        found = update(batch, settings or config, watched.append)
        meter.add(found.losses)
    assert len(watched) == steps
    assert bool(found.finite)
    gradients = dict(zip(found.names, values(found.norms), strict=True))
    return meter.means(), gradients, {name: values(p) for name, p in model.named_parameters()}


CASES = {
    "plain": {},
    "trimmed": {"trim_padding": True},
    "bf16": {"amp": torch.bfloat16},
    "trimmed, bf16": {"trim_padding": True, "amp": torch.bfloat16},
    "hard negatives": {"settings": LossSettings(use_hard_negative=True, hard_pool_size=3), "grad_clip": 1.0},
    "lse": {"settings": LossSettings(ranking_loss_type="lse", lw_fcl=0.0)},
    "spans alone": {"settings": LossSettings(lw_neg_q=0, lw_neg_ctx=0, lw_fcl=0, lw_vcl=0)},
    "one query": {"n": 1},
}


@pytest.mark.parametrize(
    ("ctx_mode", "case"),
    [("video_sub_tef", case) for case in CASES]
    + [(mode, case) for mode in ("video_tef", "sub_tef") for case in ("plain", "trimmed", "bf16")],
)
def test_training_computes_what_it_does_on_the_cpu(monkeypatch, ctx_mode, case):
    expected = train_steps(CPU, ctx_mode, **CASES[case])
    with fake_cuda(monkeypatch):
        found = train_steps(CUDA, ctx_mode, **CASES[case])
    tolerance = {"rtol": 0.05, "atol": 0.02} if "bf16" in case else {"rtol": 1e-3, "atol": 2e-5}
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("case", ["plain", "trimmed, bf16", "hard negatives", "one query"])
def test_the_step_that_is_captured_is_the_plain_step(monkeypatch, case):
    with fake_cuda(monkeypatch):
        negatives = [torch.Generator(CUDA), torch.Generator(CUDA)]
        monkeypatch.setattr("tests.gpu.test_same_as_cpu.named_generator", lambda *_: negatives.pop().manual_seed(7))
        plain, graphed = (
            train_steps(CUDA, "video_sub_tef", **CASES[case], steps=4, graph=g) for g in (None, GraphedStep)
        )
    for ours, theirs in zip(graphed, plain, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(
                ours[name], value, rtol=1e-3, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
            )


def unrecordable(*_):
    raise RuntimeError("operation not permitted when stream is capturing")


def test_steps_that_cannot_be_captured_are_plain_steps_and_said_to_be(monkeypatch, capsys):
    expected = train_steps(CPU, "video_sub_tef", steps=4)
    with fake_cuda(monkeypatch):
        monkeypatch.setattr(GraphedStep, "_captured", unrecordable)
        found = train_steps(CUDA, "video_sub_tef", steps=4, graph=GraphedStep)
        with pytest.raises(RuntimeError, match="not permitted"):
            train_steps(CUDA, "video_sub_tef", steps=4, graph=partial(GraphedStep, insist=True))
    assert found[0] == pytest.approx(expected[0], rel=1e-3)
    assert capsys.readouterr().err.count("cannot be CUDA graphs here (operation not permitted") == 1


@stand_in_only
@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_for_nothing(monkeypatch, case):
    with fake_cuda(monkeypatch) as mode:
        train_steps(CUDA, "video_sub_tef", **CASES[case])
    of_steps = ("model", "contrastive", "optimization", "training_step")
    # what is waited for once is kept for the steps that follow
    inside = {wait: n for wait, n in mode.waits.items() if wait[1].startswith(of_steps) and n > 1}
    assert not inside


@pytest.mark.parametrize("measure", contrastive.MEASURES)
def test_every_measure(monkeypatch, measure):
    def measured(device):
        generator = torch.Generator().manual_seed(3)
        clips, labels = torch.randn(4, 6, 8, generator=generator), torch.tensor([[1, 1, 0, 0, 0, 0]] * 4)
        mask, spans = (torch.arange(6) < torch.tensor([[6], [5], [4], [3]])).float(), torch.tensor([[0, 1]] * 4)
        on_device = [x.to(device) for x in (clips, spans, labels, mask)]
        two = contrastive.frame_cl(on_device[0][:, :, 0], *on_device[2:], measure)
        return values(contrastive.frame_cl_video_to_video(*on_device, measure) + two)

    expected = measured(CPU)
    with fake_cuda(monkeypatch):
        torch.testing.assert_close(measured(CUDA), expected)


@stand_in_only
def test_what_is_forbidden_on_a_gpu_is_forbidden_here(monkeypatch):
    with fake_cuda(monkeypatch) as mode:
        there, here = torch.zeros(3, 2, device=CUDA), torch.zeros(3, 2)
        for wrong in (
            lambda: there + here,
            lambda: torch.cat([there, here]),
            lambda: here[torch.zeros(1, dtype=torch.long, device=CUDA)],
            lambda: there.index_copy_(0, torch.arange(3), there),
            lambda: F.linear(there, here),
            lambda: torch.randn(3, device=CUDA, generator=torch.Generator()),
            lambda: there.copy_(here).add_(here),
        ):
            with pytest.raises(RuntimeError):
                wrong()
        with pytest.raises(TypeError):
            there.numpy()
        assert (there + torch.tensor(1.0)).device == CUDA
        assert there[torch.tensor([0, 2])].device == CUDA
        assert mode.waits
        pinned = torch.ones(4, pin_memory=True)
        pinned.to(CUDA, non_blocking=True)
        pinned.zero_()
        with pytest.raises(AssertionError, match="being copied"):
            there.cpu()


# ------------------------------------------------------------------ the search


class AllClips(CandidateIndex):
    """Names all entries, in an order of its own."""

    def __init__(self, n: int) -> None:
        self.settings, self._n = CandidateSettings(), n

    def nearest_clips(self, modality, queries, allowed):
        entries = np.tile(np.arange(self._n)[::-1], (len(queries), 1))
        return entries, np.ones(entries.shape, dtype=np.float32)


class TwoRanks(Ranks):
    """Two processes, of which the other one finds what this one does."""

    size = 2

    def all_gather(self, value):
        tensors = [x for x in tree_iter(value) if isinstance(x, torch.Tensor)]
        assert not any(isinstance(x, OnCuda) for x in tensors), "objects are exchanged on the CPU"
        return [value, value]


SEARCH = SearchSettings(
    max_vcmr_video=12, max_moments=20, max_pred_l=6, query_block=4, queries_per_pass=8, clip_block=64
)


def search(device, dtype, kind) -> dict[str, np.ndarray]:
    generator, rng = torch.Generator().manual_seed(5), np.random.default_rng(5)
    n_clips = rng.integers(4, 13, 40)
    rows = [torch.randn(int(n) + 2, 2, 16, generator=generator).to(device) for n in n_clips]
    video, span = torch.randn(2, 9, 2, 16, generator=generator)
    queries = EncodedQueries(F.normalize(video, dim=-1), span).to(device)
    kernels = torch.randn(2, 5, generator=generator).to(device)
    corpus = EncodedCorpus([x.to(dtype) for x in rows], n_clips, dtype)
    of_entry = np.arange(40) // 2 if kind == "windows" else None
    index = AllClips(40) if kind == "index" else None
    shard = Shard(range(40), TwoRanks()) if kind == "shards" else None
    searcher = Searcher(corpus, conv_predictors(*kernels), SEARCH, of_entry, index, shard)
    allowed = np.arange(40) % 3 > 0 if kind == "allowed" else None
    found = list(searcher.search(queries, allowed))
    answer = {f"video_{name}": np.concatenate([getattr(v, name) for _, v in found]) for name in ("entry", "score")}
    for name in ("entry", "st", "ed", "score"):
        answer[name] = np.concatenate([getattr(m, name) for m, _ in found])
    if kind == "windows":
        own = torch.tensor([[0, 1], [2, 3]]).to(device)
        answer["one_video"] = searcher.search_moments(queries.of(np.array([3, 5])), own, one_video=True).score
    if kind == "plain":
        answer["match"] = values(searcher.match_scores(queries[:1], 3).cpu()).numpy()
    return answer


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, torch.float32) for kind in ("plain", "allowed", "windows", "index", "shards")),
        *((kind, dtype) for kind in ("plain", "index") for dtype in (torch.float16, torch.bfloat16)),
    ],
)
def test_search_finds_what_it_does_on_the_cpu(monkeypatch, kind, dtype):
    expected = search(CPU, dtype, kind)
    with fake_cuda(monkeypatch):
        found = search(CUDA, dtype, kind)
    for name, value in expected.items():
        # sums of half precision are rounded in another order on a GPU
        rtol = 5e-3 if REAL and dtype != torch.float32 else 1e-4
        np.testing.assert_allclose(found[name], value, rtol=rtol, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("trim_padding", [False, True])
def test_encoding_gives_what_it_does_on_the_cpu(monkeypatch, trim_padding):
    def encoded(device):
        model = ReLoCLNet(SMALL, named_generator(1, "initialisation")).to(device).eval()
        batch = small_batch(9, SMALL.modalities)
        corpus = encode_corpus(model, [([], batch), ([], batch)], device, trim_padding, torch.float32)
        queries = encode_queries(model, prepare_batch_inputs(batch, device))
        return [values(x.cpu()) for x in (corpus.rows, queries.for_videos, queries.for_spans)]

    expected = encoded(CPU)
    with fake_cuda(monkeypatch):
        torch.testing.assert_close(encoded(CUDA), expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ runs from files


def run_epoch(argv: list[str], folder: Path, device: torch.device) -> tuple[dict[str, float], dict]:
    """Losses of an epoch, and the predictions after it."""
    opt = parse_train_options(argv)
    opt.results_dir = str(folder)
    trainer = Trainer(opt, device=device)
    trainer._train_epoch()
    losses = trainer.meter.means()
    trainer._evaluate_losses(0)
    trainer._evaluate(0)
    trainer.close()
    return losses, json.loads(next(folder.glob("latest_*_VCMR_SVMR_VR.json")).read_text())


RUNS = {
    "auto": [],
    "ram": ["--feature_cache", "ram"],
    "plain steps": ["--cuda_graph", "off"],
    "device": ["--feature_cache", "device"],
    "device, float16, trimmed": ["--feature_cache", "device", "--cache_dtype", "float16", "--trim_padding"],
    "disk, video alone": ["--feature_cache", "disk", "--ctx_mode", "video_tef", "--no_pin_memory"],
    "fp16 search": ["--retrieval_dtype", "fp16", "--no_pin_memory"],
}


ON_A_GPU = (["--feature_cache", "ram"], ["--feature_cache", "device"], ["--cuda_graph", "off"])  # none of the CPU's


@pytest.fixture(scope="module")
def run_on_the_cpu(corpus_options, tmp_path_factory):
    """What a run with more options gives on the CPU."""

    @cache
    def run(*options: str):
        return run_epoch([*corpus_options, *options, "--device", "-1"], tmp_path_factory.mktemp("cpu") / "run", CPU)

    return run


@pytest.mark.parametrize("name", RUNS)
def test_a_run_gives_what_it_does_on_the_cpu(monkeypatch, corpus_options, run_on_the_cpu, tmp_path, name):
    expected = run_on_the_cpu(*([] if RUNS[name] in ON_A_GPU else RUNS[name]))
    with fake_cuda(monkeypatch) as mode:
        found = run_epoch([*corpus_options, *RUNS[name]], tmp_path / "cuda", CUDA)
    assert found[0] == pytest.approx(expected[0], rel=1e-3, abs=1e-5)
    for task in ("VCMR", "SVMR", "VR"):
        scores = [[row[3] for line in run[1][task] for row in line["predictions"]] for run in (found, expected)]
        np.testing.assert_allclose(*scores, rtol=0.05 if "fp16" in name else 5e-3)
    if name == "ram" and not REAL:
        assert mode.copies["pinned", "without waiting"] > mode.copies["pageable", "without waiting"]
    print(name, {" ".join(kind): n for kind, n in mode.copies.items()})
