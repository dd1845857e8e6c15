"""What the speed options may change, and what they may not."""

import re
import shutil
import signal
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import method_tvr.model as model_module
import method_tvr.search.scoring as scoring_module
from method_tvr import inference, train
from method_tvr.ask import encode_corpus, search
from method_tvr.config import OPTIONS
from method_tvr.dataset import video_groups
from method_tvr.layers.attention import attention, hide
from method_tvr.layers.dropout import keep_scale, kept, random_draws
from method_tvr.model import ReLoCLNet
from method_tvr.model_components import conv_predictors
from method_tvr.options.row import INFERENCE, TRAIN, options_of
from method_tvr.search.memory_corpus import EncodedCorpus
from method_tvr.search.records import EncodedQueries, SearchSettings
from method_tvr.search.retrieval import Searcher
from method_tvr.trained import trained_model
from method_tvr.training import launch
from method_tvr.web import serve
from method_tvr.xml_model import XMLConfig
from tests.support.runs.small_models import SMALL, small_batch, small_model

PROGRAMS = (train, inference, encode_corpus, search, serve)
NO_DROPOUT = replace(SMALL, input_drop=0.0, drop=0.0)


class ChosenError(RuntimeError):
    """A program has chosen its device."""


@pytest.fixture(params=PROGRAMS, ids=lambda program: program.__name__)
def program(request, tiny_model, tiny_corpus, tmp_path, monkeypatch) -> tuple[Any, list[str]]:
    """A program, and a command line for it."""
    argv = ["--model_dir", str(shutil.copytree(tiny_model, tmp_path / "run"))]
    if request.param is train:
        argv = tiny_corpus.options(exp_id="x", results_root=tmp_path)
    if request.param is inference:
        argv += ["--eval_path", str(tiny_corpus.annotations("val"))]
    if request.param is encode_corpus:
        argv += ["--out", str(tmp_path / "corpus")]
    if request.param is serve:
        argv += ["--port", "0"]
        pytest.importorskip("gradio")
        monkeypatch.setattr(signal, "signal", lambda *_: None)
    return request.param, argv


@pytest.mark.parametrize("typed", [[], ["--tf32"]])
def test_every_program_chooses_the_precision_that_it_was_asked_for(program, typed, monkeypatch):
    def choose(device: int, tf32: bool | None = None) -> torch.device:
        raise ChosenError(device, tf32)

    for module in (launch, trained_model):
        monkeypatch.setattr(module, "choose_device", choose)
    command, argv = program
    monkeypatch.setattr(sys, "argv", ["command", *argv, "--device", "3", *typed])
    with pytest.raises(ChosenError) as caught:
        command.main()
    assert caught.value.args == (3, bool(typed))


def test_every_program_says_which_of_its_options_need_less_memory(program, monkeypatch, run_main):
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")

    monkeypatch.setattr(torch.nn.Module, "to", full)
    command, argv = program
    ended = run_main(command.main, [*argv, "--device", "-1"])
    assert ended.code == 2
    assert ended.err.count("error: the GPU's memory is not enough (CUDA out of memory.") == 1
    assert "Traceback" not in ended.err
    suggested = re.findall("--[a-z_]+", ended.err.partition("try ")[2].partition(" or --device")[0])
    of_training = [] if command is not train else ["--bsz", "--amp"]
    assert {"--eval_context_bsz", *of_training} <= set(suggested)
    assert set(suggested) <= {f"--{name}" for name in options_of(OPTIONS, TRAIN if command is train else INFERENCE)}


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    batch = small_batch(9)
    return batch | {"ctx_lengths": batch["ctx_mask"].sum(dim=1).long()}


def encode(model: ReLoCLNet, batch: dict[str, torch.Tensor], trim_padding: bool) -> dict[str, torch.Tensor]:
    """{modality_h2 or _h3: (N, L, D)} of a batch, zeros where a group was not padded to."""
    found = {
        f"{m}_{name}": torch.zeros(*batch["ctx_mask"].shape, model.config.hidden_size)
        for m in model.modalities
        for name in ("h2", "h3")
    }
    with torch.no_grad():
        for rows, mask, _, h3, h2 in model.eval().encode_videos(batch, trim_padding):
            for m in model.modalities:
                found[f"{m}_h2"][rows, : mask.shape[1]] = h2[m]
                found[f"{m}_h3"][rows, : mask.shape[1]] = h3[m]
    return found


def test_trimming_changes_no_clip_that_exists_and_leaves_zeros_past_them(batch):
    model = small_model()
    whole, trimmed = encode(model, batch, False), encode(model, batch, True)
    exists = batch["ctx_mask"].bool()
    for name in whole:
        torch.testing.assert_close(trimmed[name][exists], whole[name][exists], atol=1e-6, rtol=1e-5)
        if name.endswith("h3"):
            assert (trimmed[name][~exists] == 0).all()


ONE_MODALITY = replace(SMALL, ctx_mode="video_tef")
XML = XMLConfig(**{**vars(SMALL), "ctx_mode": "video_sub"})


@pytest.mark.parametrize("config", [SMALL, ONE_MODALITY, XML, replace(XML, cross_att=False)])
def test_evaluation_encodes_of_the_padding_what_scores_see_as_beside_all_of_it(config):
    config = replace(config, max_ctx_l=70)
    batch = small_batch(50, config=config)
    exists = batch["ctx_mask"].unsqueeze(2)
    batch |= {f"{m}_feat": batch[f"{m}_feat"] * exists for m in config.modalities}
    model = config.build(torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        context = model.encode_context({m: batch[f"{m}_feat"] for m in model.modalities}, batch["ctx_mask"])
        groups = model.encode_videos(batch)
    h2, h3 = ({m: encoding[i] for m, encoding in context.items()} for i in (0, 1))
    whole = model.as_used(slice(None), batch["ctx_mask"], h2, h3)
    lengths = [group.mask.shape[1] for group in groups]
    assert lengths == sorted(lengths)
    assert lengths[0] < config.max_ctx_l
    kernel = config.conv_kernel_size
    seen_of_all = F.max_pool1d(batch["ctx_mask"], kernel, stride=1, padding=kernel // 2).bool()
    for group in groups:
        seen, n_clips = seen_of_all[group.rows], group.mask.shape[1]
        assert not seen[:, n_clips:].any()
        seen = seen[:, :n_clips]
        for of_group, of_all in ((group.for_videos, whole.for_videos), (group.for_spans, whole.for_spans)):
            for m in model.modalities:
                expected = of_all[m][group.rows, :n_clips]
                torch.testing.assert_close(of_group[m][seen], expected[seen], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("trim_padding", [False, True])
@pytest.mark.parametrize("group", [1, 2, 100])
def test_losses_and_gradients_do_not_depend_on_how_videos_are_grouped(batch, monkeypatch, group, trim_padding):
    results = []
    for size in (4, group):
        monkeypatch.setattr(video_groups, "CPU_GROUP", size)
        results.append(losses_and_gradients(batch, NO_DROPOUT, trim_padding))
    assert_same_training(*results)


def losses_and_gradients(batch, config, trim_padding) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    model = small_model(config)
    loss, losses = model(batch, generator=torch.Generator().manual_seed(0), trim_padding=trim_padding)
    loss.backward()
    return losses, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same_training(expected, found) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_trimming_changes_only_logits_whose_convolution_reaches_past_the_end(batch, kernel):
    model = small_model(replace(SMALL, conv_kernel_size=kernel)).eval()
    with torch.no_grad():
        query = model.encode_query(batch["query_feat"], batch["query_mask"])
    logits = []
    for trim_padding in (False, True):
        encoded = encode(model, batch, trim_padding)
        h3 = {m: encoded[f"{m}_h3"] for m in model.modalities}
        with torch.no_grad():
            logits.append(torch.stack(model.span_logits(query, h3, batch["ctx_mask"])))
    clips = torch.arange(SMALL.max_ctx_l)
    # where the padded length itself ends the convolution, nothing is seen past it either way
    inside = (clips < batch["ctx_lengths"][:, None] - kernel // 2) | (batch["ctx_lengths"][:, None] == SMALL.max_ctx_l)
    torch.testing.assert_close(logits[1][:, inside], logits[0][:, inside], atol=1e-5, rtol=1e-4)


def test_with_a_kernel_of_one_trimming_changes_neither_losses_nor_gradients(batch):
    config = replace(NO_DROPOUT, conv_kernel_size=1)
    assert_same_training(*(losses_and_gradients(batch, config, trim_padding) for trim_padding in (False, True)))


def test_amp_keeps_losses_within_two_percent_and_gradients_in_float32(batch):
    results = []
    for dtype in (None, torch.bfloat16):
        model = small_model(NO_DROPOUT)
        loss, losses = model(batch, generator=torch.Generator().manual_seed(0), amp_dtype=dtype)
        loss.backward()
        assert all(p.grad is None or p.grad.dtype == torch.float32 for p in model.parameters())
        results.append(losses)
    for name, value in results[0].items():
        assert float(results[1][name]) == pytest.approx(float(value), rel=0.02, abs=2e-3), name


@pytest.mark.parametrize(
    ("off", "method"),
    [
        ({"lw_st_ed": 0.0}, "span_logits"),
        ({"lw_vcl": 0.0}, "video_cl_scores"),
        ({"lw_neg_q": 0.0, "lw_neg_ctx": 0.0}, "video_scores"),
    ],
)
def test_nothing_is_computed_for_losses_that_are_off(batch, monkeypatch, off, method):
    def refuse(*_: object) -> None:
        raise AssertionError(f"{method} was called for a loss that is off")

    monkeypatch.setattr(ReLoCLNet, method, refuse)
    loss, _ = small_model()(batch, replace(SMALL, **off))
    assert torch.isfinite(loss)


@pytest.mark.parametrize("keys_only", [True, False])
def test_attention_with_dropout_is_attention_whose_dropped_weights_are_zero(keys_only):
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 6, 8, requires_grad=True) for _ in range(3))
    q = q[:, :5]
    visible = torch.rand(3, 1 if keys_only else 5, 6) < 0.7
    visible[..., 0] = True
    torch.manual_seed(1)
    found = attention(q, k, v, hide(visible), 2, 0.3)
    torch.manual_seed(1)
    keep = kept(random_draws(torch.Size((3, 2, 5, 6))), 0.3, torch.float32)
    of_heads = [x.unflatten(2, (2, 4)).transpose(1, 2) for x in (q, k, v)]
    weights = (of_heads[0] @ of_heads[1].transpose(2, 3) / 2).masked_fill(~visible.unsqueeze(1), -1e4).softmax(dim=-1)
    expected = ((weights * keep * keep_scale(0.3)) @ of_heads[2]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(found, expected)
    towards = torch.randn_like(found)
    for ours, theirs in zip(*(torch.autograd.grad(x, (q, k, v), towards) for x in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_second_derivatives_of_attention_with_dropout_are_refused_rather_than_wrong():
    q, k, v = (torch.randn(1, 3, 4, requires_grad=True) for _ in range(3))
    found = attention(q, k, v, torch.zeros(1, 1, 3), 1, 0.5)
    (grad,) = torch.autograd.grad(found.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_as_often_as_asked_and_keeps_the_mean(p):
    torch.manual_seed(0)
    dropped = kept(random_draws(torch.Size((1001, 999))), p, torch.float32) == 0
    assert float(dropped.float().mean()) == pytest.approx(p, abs=0.002)
    assert keep_scale(p) == pytest.approx(1 / (1 - p), rel=1e-4)
    # neighbours share a 64-bit draw, and must not share their fate
    pairs = dropped.flatten()[:-1] & dropped.flatten()[1:]
    assert float(pairs.float().mean()) == pytest.approx(p * p, abs=0.002)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_corpus_in_half_precision_finds_nearly_the_same(dtype):
    generator = torch.Generator().manual_seed(0)
    n_clips = [3 + i % 7 for i in range(60)]
    rows = [torch.randn(n, 2, 32, generator=generator) for n in n_clips]
    directions = {m: torch.randn(20, 32, generator=generator) for m in ("video", "sub")}
    queries = EncodedQueries.build(directions, directions, ("video", "sub"))
    kernels = torch.randn(2, 3, generator=generator) * 0.1
    settings = SearchSettings(max_vcmr_video=10)
    scores = []
    for number_type in (torch.float32, dtype):
        corpus = EncodedCorpus(rows, n_clips, number_type)
        assert corpus.rows.dtype == number_type
        moments, videos = next(Searcher(corpus, conv_predictors(*kernels), settings).search(queries))
        assert moments.score.dtype == videos.score.dtype == "float32"
        scores.append(videos)
    kept_videos = [len(set(a) & set(b)) / 10 for a, b in zip(scores[0].entry, scores[1].entry, strict=True)]
    assert sum(kept_videos) / len(kept_videos) > 0.95


@pytest.mark.parametrize("way", [scoring_module.ON_CPU, scoring_module.ON_GPU])
def test_search_scores_videos_as_training_does(batch, monkeypatch, way):
    def smooth_maximum(similarity: torch.Tensor) -> torch.Tensor:
        return torch.logsumexp(20 * similarity, dim=-1) / 20

    # another pooling, as a user would write one, so that both are seen to go through it
    monkeypatch.setattr(model_module, "pool_clips", smooth_maximum)
    monkeypatch.setattr(scoring_module, "pool_clips", smooth_maximum)
    model = small_model().eval()
    with torch.no_grad():
        encoded = encode(model, batch, trim_padding=False)
        query = model.encode_query(batch["query_feat"], batch["query_mask"])
        h3 = {m: encoded[f"{m}_h3"] for m in model.modalities}
        expected = model.video_scores(query, h3, batch["ctx_mask"])
        packed = torch.stack([h3[m] for m in model.modalities], dim=2)
        lengths = batch["ctx_lengths"].tolist()
        corpus = EncodedCorpus([rows[:length] for rows, length in zip(packed, lengths, strict=True)], lengths)
        queries = EncodedQueries.build(query, model.span_queries(query), model.modalities)
        searcher = Searcher(corpus, conv_predictors(torch.ones(1), torch.ones(1)), SearchSettings())
        searcher._way = way
        found = searcher.find(queries)
    torch.testing.assert_close(found.video_scores, expected.gather(1, found.videos), atol=1e-6, rtol=1e-5)
