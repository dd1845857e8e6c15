"""TVR-Ranking: its weighted loss agrees with the published code's, and its files go from training to NDCG."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from method_tvr import data_check, inference, train
from method_tvr.contrastive import frame_cl, span_loss, video_cl
from method_tvr.dataset.annotations import Video, load_videos
from method_tvr.dataset.ranked_pairs import load_asked_queries, load_training_queries
from method_tvr.dset_configs import DATASETS
from standalone_eval import eval as standalone
from tests.support.golden_files import GOLDEN
from tests.support.runs.commands import Finished
from tests.support.runs.small_models import SMALL, golden_settings, small_batch, small_model
from tests.support.runs.tiny_corpus import Corpus, as_argv
from utils.basic_utils import InputError, read_json, read_jsonl

Run = Callable[..., Finished]
HERE: dict[str, object] = {"device": -1, "num_workers": 0}
TINY: dict[str, object] = {"hidden_size": 8, "n_heads": 2, "max_ctx_l": 40, "n_epoch": 2, "bsz": 16, **HERE}
LOSS, GRADIENT, KEY_BIAS = 1e-6, 1e-4, 1e-7  # the last: zero in exact arithmetic
VIDEOS = {"train": {"a": Video("a", 30.0, 0), "b": Video("b", 12.0, 1)}}
PAIR: dict[str, Any] = {"video_name": "a", "timestamp": [3, 9.5], "similarity": 0.5}


@pytest.fixture(scope="module")
def golden() -> Any:
    return np.load(GOLDEN / "ndcg" / "weighted_loss.npz")


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("kind", ["hinge", "lse"])
@pytest.mark.parametrize("case", ["ones", "high", "mixed"])
def test_the_weighted_loss_and_its_gradients_are_the_published_ones(
    golden, golden_checkpoint, golden_batch, case, kind
):
    model = golden_checkpoint.build_model()
    weights = torch.from_numpy(golden[f"{case}/similarity"]).float().unsqueeze(1)
    total, _ = model({**golden_batch, "item_weights": weights}, golden_settings(kind))
    expected = float(golden[f"{case}/loss_{kind}"])
    assert abs(float(total.detach()) - expected) < LOSS * abs(expected)
    if kind == "lse" or case == "ones":
        return
    total.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name in golden.files:
        what, _, parameter = name.removeprefix(f"{case}/").partition("/")
        if not name.startswith(case) or what not in ("grad", "grad_norm"):
            continue
        found = gradients[parameter] if what == "grad" else torch.linalg.vector_norm(gradients[parameter])
        difference = np.linalg.norm(found.numpy() - golden[name])
        scale = np.linalg.norm(golden[name])
        assert difference < (KEY_BIAS if parameter.endswith("key.bias") else GRADIENT * scale), name


def test_terms_of_single_pairs_are_the_published_ones(golden, golden_checkpoint, golden_batch):
    model, n = golden_checkpoint.build_model(), len(golden["terms/fcl"])
    with torch.no_grad():
        query = model.encode_query(golden_batch["query_feat"], golden_batch["query_mask"])
        context = model.encode_context(
            {m: golden_batch[f"{m}_feat"] for m in model.modalities}, golden_batch["ctx_mask"]
        )
    mask, st_ed = golden_batch["ctx_mask"], golden_batch["st_ed_indices"]
    clips = torch.stack([torch.einsum("nd,nld->nl", query[m], context[m].h2) for m in model.modalities])
    scores = model.video_cl_scores(query, {m: context[m].h2 for m in model.modalities}, mask)
    with torch.no_grad():
        logits = model.span_logits(query, {m: context[m].h3 for m in model.modalities}, mask)
    for i in range(n):
        one = torch.eye(n)[i] * n  # of a mean over n items, one alone
        of_fcl = frame_cl(clips, golden_batch["match_labels"], mask, item_weights=one)
        terms = {"fcl": of_fcl, "vcl": video_cl(scores, one), "st_ed": span_loss(*logits, st_ed, one)}
        for name, term in terms.items():
            assert float(term) == pytest.approx(float(golden[f"terms/{name}"][i]), rel=1e-5), name


def test_weights_of_one_change_nothing_and_of_two_double_all_but_the_ranking_losses():
    model, batch = small_model(replace(SMALL, lw_st_ed=0.5)).eval(), small_batch(6)
    generators = [torch.Generator().manual_seed(3) for _ in range(3)]
    _, plain = model(batch, generator=generators[0])
    _, ones = model({**batch, "item_weights": torch.ones(6, 1)}, generator=generators[1])
    _, twos = model({**batch, "item_weights": torch.full((6, 1), 2.0)}, generator=generators[2])
    for name, loss in plain.items():
        assert float(ones[name]) == pytest.approx(float(loss), rel=1e-6)
        if name != "loss_overall":
            assert float(twos[name]) == pytest.approx((1 if "neg" in name else 2) * float(loss), rel=1e-6), name


@torch.no_grad()
def test_clamping_counts_pairs_of_negative_similarity_as_nothing():
    model, batch = small_model(replace(SMALL, lw_st_ed=0.5)).eval(), small_batch(6)
    similarity = torch.tensor([[0.5], [-0.5], [1.0], [-1.0], [0.0], [0.25]])
    generators = [torch.Generator().manual_seed(3) for _ in range(3)]
    clamped, _ = model(
        {**batch, "item_weights": similarity}, replace(model.config, clamp_similarity=True), generators[0]
    )
    without, _ = model({**batch, "item_weights": similarity.clamp(min=0)}, generator=generators[1])
    inverted, _ = model({**batch, "item_weights": similarity}, generator=generators[2])
    assert float(clamped) == float(without)
    assert float(inverted) != float(without)


@torch.no_grad()
def test_masked_pairs_of_one_query_are_not_each_others_negatives(monkeypatch):
    model, batch = small_model(SMALL).eval(), small_batch(6)
    pairs = {**batch, "item_weights": torch.ones(6, 1), "query_ids": torch.tensor([[7], [8], [7], [9], [7], [10]])}
    masked = replace(model.config, mask_same_query=True)
    seen = []

    def keep(scores, item_weights, same_query):
        seen.append(same_query)
        return video_cl(scores, item_weights, same_query)

    monkeypatch.setattr("method_tvr.model.video_cl", keep)
    _, plain = model(pairs, generator=torch.Generator().manual_seed(3))
    _, losses = model(pairs, masked, torch.Generator().manual_seed(3))
    assert seen[0] is None
    assert seen[1].nonzero().tolist() == [[0, 2], [0, 4], [2, 0], [2, 4], [4, 0], [4, 2]]
    assert float(losses["loss_vcl"]) < float(plain["loss_vcl"])  # fewer terms in the sum
    for name in ("loss_fcl", "loss_st_ed"):
        assert float(losses[name]) == float(plain[name])
    alone = {**pairs, "query_ids": torch.arange(6).unsqueeze(1)}
    assert float(model(alone, masked)[1]["loss_vcl"]) == float(plain["loss_vcl"])


# ---------------------------------------------------------------- reading


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_by_query_and_by_row_are_the_same_pairs(tmp_path, capsys):
    late = {"video_name": "b", "timestamp": [4.5, 13], "similarity": -0.25}
    grouped = [{"query_id": 7, "query": "x", "relevant_moment": [PAIR, late]}, {"query_id": 8, "query": "y", **PAIR}]
    flat = [{"query_id": 7, "query": "x", **PAIR}, {"query_id": 7, "query": "x", **late}, grouped[1]]
    queries = load_training_queries(write(tmp_path / "grouped.json", grouped), VIDEOS)
    assert queries == load_training_queries(write(tmp_path / "flat.json", flat), VIDEOS)
    assert [(q.desc_id, q.vid_name, q.ts, q.item_weight) for q in queries] == [
        (7, "a", (3.0, 9.5), 0.5),
        (7, "b", (4.5, 12.0), -0.25),
        (8, "a", (3.0, 9.5), 0.5),
    ]
    said = capsys.readouterr().err
    assert "1 moments end after their video" in said
    assert "1 of 3 pairs have a similarity below 0" in said


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"query_id": "7", "query": "x", **PAIR}, '"query_id" (an integer)'),
        ({"query_id": 7, "relevant_moment": [PAIR]}, '"query" (a sentence)'),
        ({"query_id": 7, "query": "x", "relevant_moment": {}}, "not a list of moments"),
        ({"query_id": 7, "query": "x", "relevant_moment": [3]}, '"video_name"'),
        ({"query_id": 7, "query": "x", "relevant_moment": []}, "no pairs"),
        ({"query_id": 7, "query": "x", **PAIR, "video_name": "c"}, "video 'c' is in no split"),
        ({"query_id": 7, "query": "x", **PAIR, "timestamp": [9.5, 3]}, "reversed"),
        ({"query_id": 7, "query": "x", **PAIR, "timestamp": [31, 33]}, "outside its video"),
        ({"query_id": 7, "query": "x", **PAIR, "timestamp": [1, None]}, '"timestamp"'),
        ({"query_id": 7, "query": "x", **PAIR, "similarity": True}, '"similarity"'),
        ({"query_id": 7, "query": "x", "video_name": "a", "timestamp": [1, 2], "relevance": 3}, '"similarity"'),
    ],
)
def test_what_is_no_pair_is_refused_with_its_place(tmp_path, row, named):
    path = write(tmp_path / "train_top20.json", [row])
    with pytest.raises(InputError) as caught:
        load_training_queries(path, VIDEOS)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


def test_graded_moments_of_videos_outside_the_corpus_are_refused(tmp_path):
    graded = {"query_id": 7, "query": "x", "video_name": "a", "timestamp": [1, 2], "relevance": 3}
    queries, truth = load_asked_queries(write(tmp_path / "val.json", [graded]), VIDEOS)
    assert [query.desc_id for query in queries] == truth.query_ids == [7]
    with pytest.raises(InputError, match="1 moments are in videos of no corpus, query_id 7"):
        load_asked_queries(write(tmp_path / "val.json", [{**graded, "video_name": "c"}]), VIDEOS)
    with pytest.raises(InputError, match="relevance is not a number"):
        load_asked_queries(write(tmp_path / "val.json", [{**graded, "relevance": None}]), VIDEOS)


def test_durations_alone_are_a_corpus_of_all_splits(tmp_path):
    splits = load_videos(write(tmp_path / "video_corpus.json", {"b": 12.5, "a": 30}))
    assert splits["val"] == splits["test"] == {"b": Video("b", 12.5, 0), "a": Video("a", 30.0, 1)}


# ---------------------------------------------------------------- the chain


def as_ranking(corpus: Corpus, root: Path) -> None:
    """The tiny corpus in the folders and forms of TVR-Ranking: each query with its own moment, and the one after it."""
    dataset, ranking = DATASETS["tvr_ranking"], root / "data" / "tvr_ranking"
    ranking.mkdir(parents=True)
    durations: dict[str, float] = {}
    for videos in read_json(corpus.paths["video_duration_idx_path"]).values():
        durations |= {name: duration for name, (duration, _) in videos.items()}
    write(ranking / "video_corpus.json", durations)
    for split, name in (("train", "train_top20"), ("val", "val")):
        rows = read_jsonl(corpus.annotations(split))
        entries = []
        for row, other in zip(rows, rows[1:] + rows[:1], strict=True):
            moments = [
                {"video_name": one["vid_name"], "timestamp": one["ts"], "duration": one["duration"], **grade}
                for one, grade in (
                    (row, {"similarity": 0.9, "relevance": 4}),
                    (other, {"similarity": 0.4, "relevance": 1}),
                )
            ]
            entries.append({"query_id": row["desc_id"], "query": row["desc"], "relevant_moment": moments})
        write(ranking / f"{name}.json", entries)
    links = {
        dataset.video_feature_path("i3d"): "vid_feat_path",
        dataset.sub_feature_path: "sub_bert_path",
        dataset.query_feature_path(True): "desc_bert_path",
    }
    for path, option in links.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        os.link(corpus.paths[option], root / path)


@pytest.mark.parametrize("model", ["reloclnet", "xml"])
def test_from_pairs_to_ndcg(model, tmp_path, tiny_corpus: Corpus, monkeypatch, run_main: Run):
    as_ranking(tiny_corpus, tmp_path)
    monkeypatch.chdir(tmp_path)
    argv = as_argv({"dset_name": "tvr_ranking", "exp_id": "chain", "model": model, "vid_feat_type": "i3d", **TINY})
    done = run_main(train.main, argv)
    assert done.code == 0, done.err
    assert "NDCG 0.3-n20" in done.out
    (folder,) = (tmp_path / "results").iterdir()
    opt = read_json(folder / "opt.json")
    assert (opt["stop_task"], opt["seed"], opt["ctx_mode"]) == ("NDCG", 2024, "video_sub")
    found = run_main(inference.main, as_argv({"model_dir": folder, "eval_id": "val", "nms_thd": 0.5, **HERE}))
    assert found.code == 0, found.err
    assert "NDCG@20" in found.out
    stem = folder / "inference_tvr_ranking_val_val_predictions_VCMR_VR"
    for name in (stem.name, f"{stem.name}_nms_thd_0.5"):
        typed = {"submission_path": stem.with_name(f"{name}.json"), "gt_path": "data/tvr_ranking/val.json"}
        evaluated = run_main(standalone.main, as_argv({**typed, "save_path": tmp_path / "m.json"}))
        assert evaluated.code == 0, evaluated.err
        ours = read_json(stem.with_name(f"{name}_metrics.json"))
        assert ours["NDCG"].keys() == read_json(tmp_path / "m.json")["NDCG"].keys()
        for figure, ndcg in read_json(tmp_path / "m.json")["NDCG"].items():
            assert ours["NDCG"][figure] == pytest.approx(ndcg, abs=1e-12), figure


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"stop_task": "VCMR"}, "has graded moments, for NDCG alone"),
        ({"eval_tasks_at_training": ["VR"]}, "--stop_task NDCG is not among"),
        ({"eval_tasks_at_training": ["VCMR", "SVMR"]}, "SVMR: goes with one right moment"),
        ({"eval_path": "mini"}, "has no graded moments: give --stop_task VCMR"),
    ],
)
def test_tasks_that_a_split_cannot_decide_are_refused(
    options, named, tmp_path, tiny_corpus, monkeypatch, run_main: Run
):
    as_ranking(tiny_corpus, tmp_path)
    monkeypatch.chdir(tmp_path)
    if "eval_path" in options:
        options = {"eval_path": tiny_corpus.annotations("val")}
    argv = as_argv({"dset_name": "tvr_ranking", "exp_id": "chain", "vid_feat_type": "i3d", **TINY, **options})
    refused = run_main(train.main, argv)
    assert (refused.code, list((tmp_path / "results").glob("*"))) == (2, [])
    assert named in refused.err


def test_the_check_knows_its_files(tmp_path, tiny_corpus, monkeypatch, run_main: Run):
    as_ranking(tiny_corpus, tmp_path)
    monkeypatch.setattr(data_check, "PROJECT_ROOT", tmp_path)
    checked = run_main(data_check.main, ["tvr_ranking", "--splits", "train", "val"])
    assert checked.code == 0, checked.out
    by_path = run_main(data_check.main, [str(tmp_path / "data" / "tvr_ranking"), "--splits", "train", "val"])
    assert by_path.out == checked.out
    n = len(read_jsonl(tiny_corpus.annotations("val")))
    assert f"{n} queries, {2 * n} graded moments" in checked.out
    n_train = len(read_jsonl(tiny_corpus.annotations("train")))
    assert f"{2 * n_train} pairs of {n_train} queries, of " in checked.out
    with h5py.File(tmp_path / "data" / "tvr_ranking" / "query_bert.h5", "r") as file:
        assert len(file) > n
