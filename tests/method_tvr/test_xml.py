"""XML agrees with the published code: encoders, scores, losses, gradients, six steps of training, and predictions."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from method_tvr import xml_model
from method_tvr.config import parse_inference_options
from method_tvr.dataset.annotations import load_queries, load_videos
from method_tvr.dataset.clip_times import CEIL_INSIDE, CUT, ClipTimes
from method_tvr.dataset.feature_store import FeatureStore
from method_tvr.inference import run_inference
from method_tvr.models import config_of, name_of
from method_tvr.optimization import BertAdam, parameter_groups
from method_tvr.options.models import XML
from method_tvr.start_end_dataset import StartEndDataset
from method_tvr.training.checkpoint import load_checkpoint
from tests.support.golden_files import load_json, load_npz, unpack
from tests.support.runs.commands import ON_THE_CPU
from tests.support.runs.rankings import assert_same_file, load
from utils.basic_utils import InputError

MODELS = ("video_sub", "video_sub_tef", "video", "sub")
EXISTING, PADDED, LOGITS, SCORES = 2e-6, 5e-5, 5e-6, 3e-7  # absolute; padded clips attend with rounded scores
OF_ALL, OF_OWN = 2e-6, 5e-5  # of a gradient's difference: to the largest of all, and of its own tensor
QUERIES = {"video_sub_tef": 35, "sub": 35}  # the first of val that were asked


@pytest.fixture(scope="module")
def published(golden_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus, and with the models' results folders as the published code leaves them."""
    root = tmp_path_factory.mktemp("xml")
    shutil.copytree(golden_dir / "corpus", root / "corpus")
    for name in MODELS:
        for file in ("model.ckpt", "opt.json"):
            unpack(f"xml/{name}/{file}", root / "xml" / name / file)
        lines = (root / "corpus" / "val.jsonl").read_text().splitlines(keepends=True)
        (root / f"{name}.jsonl").write_text("".join(lines[: QUERIES.get(name)]))
    unpack("xml/video/val_35.jsonl", root / "video.jsonl")
    unpack("xml/video_sub/external_vr.json", root / "external_vr.json")
    return root


def model_of(published: Path, name: str) -> xml_model.XML:
    model = load_checkpoint(published / "xml" / name / "model.ckpt").build_model()
    assert isinstance(model, xml_model.XML)
    return model


def inputs_of(arrays: dict[str, np.ndarray], prefix: str = "in/") -> dict[str, torch.Tensor]:
    """A batch as the model takes it."""
    found = {k.removeprefix(prefix): torch.from_numpy(x) for k, x in arrays.items() if k.startswith(prefix)}
    mask = next(found[f"{m}_mask"] for m in ("video", "sub") if f"{m}_mask" in found)
    return {**found, "ctx_mask": mask, "ctx_lengths": mask.sum(dim=1).long(), "match_labels": torch.zeros_like(mask)}


def check_outputs(model: xml_model.XML, batch: dict[str, torch.Tensor], expected: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        query = model.encode_query(batch["query_feat"], batch["query_mask"])
        context = model.encode_context({m: batch[f"{m}_feat"] for m in model.modalities}, batch["ctx_mask"])
        f1, f2 = ({m: encoding[i] for m, encoding in context.items()} for i in (0, 1))
        scores = model.video_scores(query, f1, batch["ctx_mask"])
        logits = model.span_logits(query, f2, batch["ctx_mask"])
    there = batch["ctx_mask"].bool().numpy()
    for m in model.modalities:
        np.testing.assert_allclose(query[m], expected[f"{m}_query"], atol=EXISTING, rtol=0)
        for name, found in (("feat1", f1[m]), ("feat2", f2[m])):
            wanted = expected[f"{m}_{name}"]
            np.testing.assert_allclose(found.numpy()[there], wanted[there], atol=EXISTING, rtol=0)
            np.testing.assert_allclose(found, wanted, atol=PADDED, rtol=0)
    np.testing.assert_allclose(scores, expected["q2ctx_scores"], atol=SCORES, rtol=0)
    # a clip's convolution sees its neighbours, too: near the end of a video padded clips, which may differ more
    kernel = model.config.conv_kernel_size
    blind = F.max_pool1d(1 - batch["ctx_mask"].float(), kernel, stride=1, padding=kernel // 2).numpy() == 0
    assert blind.any()
    for found, name in zip(logits, ("st_logits", "ed_logits"), strict=True):
        np.testing.assert_allclose(found.numpy()[blind], expected[name][blind], atol=LOGITS, rtol=0)
        np.testing.assert_allclose(found, expected[name], atol=PADDED, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_encodings_scores_and_logits_agree(published, name):
    arrays = load_npz(f"xml/{name}/model_io.npz")
    outputs = {k.removeprefix("out/"): x for k, x in arrays.items() if k.startswith("out/")}
    check_outputs(model_of(published, name), inputs_of(arrays), outputs)


@pytest.mark.parametrize("kind", ["hinge", "lse"])
@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_agree(published, name, kind):
    arrays, model = load_npz(f"xml/{name}/model_io.npz"), model_of(published, name)
    expected = {k.split("/", 1)[1]: x for k, x in arrays.items() if k.startswith(f"grad_{kind}/")}
    settings = replace(model.config, ranking_loss_type=kind, use_hard_negative=True, hard_pool_size=1, lw_st_ed=0.01)
    loss, terms = model(inputs_of(arrays), settings)
    for key in [key for key in arrays if key.startswith(f"loss_{kind}/")]:
        assert float(terms[key.split("/")[1]]) == pytest.approx(float(arrays[key]), rel=1e-6)
    if not expected:  # the smaller models have those of one kind
        assert kind == "lse"
        return
    loss.backward()
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for parameter, gradient in expected.items():
        found = model.get_parameter(parameter).grad
        difference = np.abs((0 if found is None else found.numpy()) - gradient).max()
        assert difference <= OF_ALL * largest, parameter
        assert difference <= OF_OWN * np.abs(gradient).max() or np.abs(gradient).max() < 1e-6, parameter


@pytest.mark.parametrize("name", ["paper", "no_cross_att", "no_merge_two_stream", "no_cross_no_merge", "no_modular",
                                  "video_only", "sub_only"])  # fmt: skip
def test_variants_agree(name):
    arrays, about = load_npz("xml/variants.npz"), load_json("xml/variants.json")[name]
    model, flat = config_of(about["model_cfg"]).build().eval(), arrays[f"{name}/params"]
    state, first = {}, 0
    for key, shape in about["parameters"]:
        size = int(np.prod(shape))
        state[key], first = torch.from_numpy(flat[first : first + size].reshape(shape)), first + size
    model.load_state_dict(state)
    assert first == len(flat)
    outputs = {k.removeprefix(f"{name}/out/"): x for k, x in arrays.items() if k.startswith(f"{name}/out/")}
    assert isinstance(model, xml_model.XML)
    check_outputs(model, inputs_of(arrays, f"{name}/in/"), outputs)


@pytest.mark.parametrize(
    ("name", "said"),
    [("cat_linear", "span_predictor_type"), ("stack_conv", "stack_conv"), ("cnn", "encoder_type cnn"), ("gru", "gru")],
)
def test_variants_that_are_none_here_are_refused(name, said):
    with pytest.raises(ValueError, match=said):
        config_of(load_json("xml/variants.json")[name]["model_cfg"])


def test_six_steps_of_training_agree(published):
    """Batches are padded to their longest video, of which longer ones are cut, as `StartEndDataset` gives them."""
    steps, corpus = load_npz("xml/video_sub/train_steps.npz"), published / "corpus"
    checkpoint = load_checkpoint(published / "xml" / "video_sub" / "model.ckpt")
    model = replace(checkpoint.config, drop=0.0, input_drop=0.0).build()
    model.load_state_dict(checkpoint.state)
    settings = replace(model.config, lw_st_ed=0.01, use_hard_negative=True, hard_pool_size=1)
    optimizer = BertAdam(parameter_groups(model, 0.01), lr=1e-3, warmup=0.25, t_total=12)
    paths = {"video": corpus / "video.h5", "sub": corpus / "sub.h5"}
    normalize = dict.fromkeys(("video", "sub", "query"), True)
    losses: dict[str, list[float]] = {}
    with FeatureStore(paths, corpus / "query.h5", normalize, 100, 30, False, {}, long_videos=CUT) as features:
        queries = load_queries(corpus / "train.jsonl", load_videos(corpus / "video2dur_idx.json"))
        dataset = StartEndDataset(queries, features, ClipTimes(1.5, CEIL_INSIDE))
        for step in range(6):
            _, batch = dataset.batch(range(8 * step, 8 * step + 8), None)
            loss, terms = model(batch, settings)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for term, value in terms.items():
                losses.setdefault(term, []).append(float(value))
    for key in [key for key in steps if key.startswith("losses/")]:
        np.testing.assert_allclose(losses[key.split("/")[1]], steps[key], rtol=1e-6)
    for key in [key for key in steps if key.startswith("param/")]:
        found = model.get_parameter(key.removeprefix("param/")).detach()
        np.testing.assert_allclose(found, steps[key], atol=5e-6, rtol=0)


@pytest.fixture(scope="module", params=MODELS)
def predicted(request: pytest.FixtureRequest, published: Path) -> tuple[str, Path]:
    """The name of a model, and what the names of the files begin with that its inference has written."""
    name = request.param
    argv = ["--model_dir", f"xml/{name}", "--eval_path", f"{name}.jsonl", "--nms_thd", "0.5", "--eval_id", "t"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(published)
        run_inference(parse_inference_options([*argv, *ON_THE_CPU]))
    return name, published / "xml" / name / "inference_tvr_val_t_predictions_VCMR_SVMR_VR"


@pytest.mark.parametrize("kind", ["", "_nms"])
def test_predictions_and_metrics_agree(predicted, kind):
    name, stem = predicted
    golden, ours = f"xml/{name}/val{kind}" + ("_0.5" if kind else ""), f"{stem}{kind}" + ("_thd_0.5" if kind else "")
    assert_same_file(load(Path(f"{ours}.json")), load_json(f"{golden}.json"))
    found, expected = load(Path(f"{ours}_metrics.json")), load_json(f"{golden}_metrics.json")
    for task, values in expected.items():
        assert {key: found[task][key] for key in values} == values


def external(published: Path, patch: pytest.MonkeyPatch, path: Path, *more: str) -> Path:
    """Inference in the videos of a prediction file; what it wrote."""
    lines = (published / "corpus" / "val.jsonl").read_text().splitlines(keepends=True)
    (published / "val_31.jsonl").write_text("".join(lines[:31]))
    argv = ["--model_dir", "xml/video_sub", "--eval_path", "val_31.jsonl", "--eval_id", "other"]
    patch.chdir(published)
    given = ["--external_inference_vr_res_path", str(path), *more]
    run_inference(parse_inference_options([*argv, *given, *ON_THE_CPU]))
    return published / "xml" / "video_sub" / "inference_tvr_val_other_predictions_VCMR_SVMR_VR.json"


def test_moments_in_the_videos_of_another_system_agree(published, monkeypatch):
    found = external(published, monkeypatch, published / "external_vr.json")
    assert_same_file(load(found), load_json("xml/video_sub/val_external.json"))


def test_lists_of_another_system_may_differ_in_length(published, monkeypatch, tmp_path):
    content = load_json("xml/video_sub/external_vr.json")
    for number, entry in enumerate(content["VR"]):
        entry["predictions"] = entry["predictions"][: number % 3 + 1]
    (tmp_path / "short.json").write_text(json.dumps(content))
    found = load(external(published, monkeypatch, tmp_path / "short.json"))
    for number, (ours, given) in enumerate(zip(found["VR"], content["VR"], strict=True)):
        assert [row[0] for row in ours["predictions"]] == [row[0] for row in given["predictions"]]
        videos = {row[0] for row in found["VCMR"][number]["predictions"]}
        assert videos == {row[0] for row in given["predictions"]}
        assert all(row[3] >= 0 for row in found["VCMR"][number]["predictions"])


def first_row(content: dict[str, Any]) -> list[float]:
    row: list[float] = content["VR"][0]["predictions"][0]
    return row


def other_video(content: dict[str, Any]) -> None:
    content["video2idx"]["x"] = 99999
    first_row(content)[0] = 99999


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: first_row(content).__setitem__(3, 5.0), "is then no number"),
        (lambda content: content["VR"].pop(3), "VR has no videos for 1 queries: desc_id"),
        (lambda content: content.pop("VR"), "VR is missing"),
        (lambda content: first_row(content).__setitem__(0, 10**6), "video_idx"),
        (other_video, "VR names videos that are not in the split: x"),
    ],
)
def test_lists_that_cannot_be_used_are_refused(published, monkeypatch, tmp_path, change, said):
    content = load_json("xml/video_sub/external_vr.json")
    change(content)
    (tmp_path / "odd.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        external(published, monkeypatch, tmp_path / "odd.json")


def test_what_the_published_options_say(published, monkeypatch):
    monkeypatch.chdir(published)
    opt = parse_inference_options(["--model_dir", "xml/video_sub", *ON_THE_CPU])
    assert (opt.model, opt.long_videos, opt.label_rule, opt.max_ctx_l) == (XML, CUT, CEIL_INSIDE, 100)
    mended = parse_inference_options(["--model_dir", "xml/video_sub", "--label_rule", "floor_ceil", *ON_THE_CPU])
    assert mended.label_rule == "floor_ceil"
    assert name_of(load_checkpoint(published / "xml" / "sub" / "model.ckpt").config) == XML


def test_without_the_clip_too_many_spans_are_better(published, monkeypatch):
    """The published end labels lie a clip late: recalls without it are those that the specification of XML gives."""
    monkeypatch.chdir(published)
    argv = ["--model_dir", "xml/video_sub", "--label_rule", "floor_ceil", "--tasks", "SVMR", "--eval_id", "mended"]
    recalls = run_inference(parse_inference_options([*argv, *ON_THE_CPU]))["SVMR"]
    assert (recalls["0.5-r1"], recalls["0.7-r1"], recalls["0.7-r100"]) == (44.02, 31.1, 91.39)
