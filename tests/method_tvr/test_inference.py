"""Inference agrees with the reference row by row, and works where its files do not reach."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from method_tvr.ask.encode_corpus import main as encode_main
from method_tvr.config import parse_inference_options
from method_tvr.dataset.annotations import Query, Video
from method_tvr.dataset.feature_store import FeatureStore
from method_tvr.inference import evaluate_rows, evaluation_of, predict, run_inference
from method_tvr.inputs import EvalSplit
from method_tvr.model import ReLoCLNet
from method_tvr.search.encoding import encode_corpus, encode_queries
from method_tvr.search.records import SearchSettings
from method_tvr.search.retrieval import Searcher
from method_tvr.training.checkpoint import save_checkpoint
from standalone_eval.eval import eval_retrieval
from tests.support.golden_files import load_json, load_jsonl, unpack
from tests.support.runs.commands import ON_THE_CPU, SCRIPTS, bash
from tests.support.runs.rankings import assert_same_file, load
from tests.support.runs.small_models import SMALL, small_model
from utils.basic_utils import InputError


def assert_same_metrics(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    for task, values in expected.items():
        assert {name: found[task][name] for name in values} == values


@pytest.fixture(scope="module")
def golden_run(golden_dir, tmp_path_factory):
    """A folder like the one that the reference's opt.json means, to be written to."""
    folder = tmp_path_factory.mktemp("golden_run")
    shutil.copytree(golden_dir, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def at_golden_run(golden_run, monkeypatch):
    monkeypatch.chdir(golden_run)
    return golden_run


@pytest.fixture(scope="module")
def golden_predictions(golden_run):
    """Both prediction files of one run with NMS."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(golden_run)
        metrics = run_inference(parse_inference_options(["--model_dir", "run", "--nms_thd", "0.5", *ON_THE_CPU]))
    stem = "inference_tvr_val_A_predictions_VCMR_SVMR_VR"
    names = {
        kind: golden_run / "run" / f"{stem}{kind}.json"
        for kind in ("", "_metrics", "_nms_thd_0.5", "_nms_thd_0.5_metrics")
    }
    return metrics, {kind: load(path) for kind, path in names.items()}


def test_predictions_agree_with_the_reference(golden_predictions):
    assert_same_file(golden_predictions[1][""], load_json("predictions/val_no_nms.json"))


def test_predictions_after_nms_agree_with_the_reference(golden_predictions):
    found = golden_predictions[1]["_nms_thd_0.5"]
    assert list(found) == ["video2idx", "VCMR", "SVMR"]
    assert_same_file(found, load_json("predictions/val_nms_0.5.json"))


def test_metrics_equal_the_references(golden_predictions):
    returned, files = golden_predictions
    assert_same_metrics(returned, load_json("predictions/val_no_nms_metrics.json"))
    assert files["_metrics"] == returned
    assert_same_metrics(files["_nms_thd_0.5_metrics"], load_json("predictions/val_nms_0.5_metrics.json"))


def test_svmr_alone_agrees_with_the_reference(at_golden_run):
    opt = parse_inference_options(["--model_dir", "run", "--tasks", "SVMR", "--eval_id", "alone", *ON_THE_CPU])
    metrics = run_inference(opt)
    found = load(at_golden_run / "run" / "inference_tvr_val_alone_predictions_SVMR.json")
    assert_same_file(found, load_json("predictions/val_svmr_only.json"))
    assert_same_metrics(metrics, load_json("predictions/val_svmr_only_metrics.json"))


@pytest.mark.parametrize("where", ["disk", "ram", "device"])
def test_predictions_agree_with_the_reference_wherever_features_are(at_golden_run, where):
    opt = parse_inference_options(["--model_dir", "run", "--eval_id", where, *ON_THE_CPU])
    opt.feature_cache = where  # the command line refuses `device` without a GPU; its code works on any device
    run_inference(opt)
    found = load(at_golden_run / "run" / f"inference_tvr_val_{where}_predictions_VCMR_SVMR_VR.json")
    assert_same_file(found, load_json("predictions/val_no_nms.json"))


@pytest.fixture(scope="module")
def golden_corpora(golden_run):
    """The folders `fp32` and `fp16` of encoded val videos, and `both` with those of test_public too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(golden_run)
        for name, options in (("fp32", []), ("fp16", ["--retrieval_dtype", "fp16"]), ("both", [])):
            encode_main(["--model_dir", "run", "--out", f"encoded/{name}", *options, *ON_THE_CPU])
        encode_main(["--model_dir", "run", "--out", "encoded/both", "--eval_split_name", "test", *ON_THE_CPU])
    return golden_run / "encoded"


def infer_from(corpus: str, *options: str) -> dict:
    """What inference writes that searches an encoded corpus, where no features of videos are."""
    absent = ["--vid_feat_path", "nowhere.h5", "--sub_bert_path", "nowhere.h5"]
    argv = ["--model_dir", "run", "--encoded_corpus", f"encoded/{corpus}", "--eval_id", corpus, *absent]
    run_inference(parse_inference_options([*argv, *ON_THE_CPU, *options]))
    (path,) = (path for path in Path("run").glob(f"*_{corpus}_predictions_*") if "_metrics" not in path.name)
    found = load(path)
    path.unlink()
    return found


@pytest.mark.parametrize("corpus", ["fp32", "both"])
def test_an_encoded_corpus_gives_the_references_predictions_without_video_features(
    at_golden_run, golden_corpora, golden_predictions, corpus, capsys
):
    found = infer_from(corpus)
    assert_same_file(found, load_json("predictions/val_no_nms.json"))
    assert_same_file(found, golden_predictions[1][""])
    said = "encoded/both: 12 of its videos are not in val: not searched"
    assert (said in capsys.readouterr().err) == (corpus == "both")


def test_a_corpus_in_half_precision_ranks_nearly_alike(at_golden_run, golden_corpora, golden_predictions):
    for one, other in zip(infer_from("fp16")["VR"], golden_predictions[1][""]["VR"], strict=True):
        scores = {row[0]: row[3] for row in one["predictions"]}
        expected = {row[0]: row[3] for row in other["predictions"]}
        shared = sorted(scores.keys() & expected.keys())
        assert len(shared) >= 0.95 * len(expected)
        np.testing.assert_allclose([scores[v] for v in shared], [expected[v] for v in shared], rtol=0.02)


def test_svmr_alone_looks_into_an_encoded_corpus_too(at_golden_run, golden_corpora):
    assert_same_file(infer_from("fp32", "--tasks", "SVMR"), load_json("predictions/val_svmr_only.json"))


def test_a_model_folder_names_no_corpus_to_be_searched(tmp_path):
    (tmp_path / "opt.json").write_text('{"dset_name": "tvr", "exp_id": "x", "encoded_corpus": "elsewhere"}')
    assert parse_inference_options(["--model_dir", str(tmp_path)]).encoded_corpus is None


def test_videos_are_encoded_once_and_later_ones_added(at_golden_run, golden_corpora, capsys):
    before = sorted(path for path in (golden_corpora / "both").rglob("*") if path.is_file())
    encode_main(["--model_dir", "run", "--out", "encoded/both", *ON_THE_CPU])
    assert "encoding the other 0" in capsys.readouterr().out
    assert sorted(path for path in (golden_corpora / "both").rglob("*") if path.is_file()) == before
    assert {path.parent.name for path in before} == {"both", "part-00000", "part-00001"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--eval_split_name", "test", "--eval_path", "corpus/test_public.jsonl"],
            r"encoded/fp32: lacks 12 videos .*: ",
        ),
        (["--trim_padding"], "was encoded with trim_padding False, but this run has True"),
        (["--clip_length", "2"], r"was encoded with clip_length 1\.5, but this run has 2\.0"),
        (["--max_ctx_l", "100"], "was encoded with max_ctx_l 128, but this run has 100"),
        (["--no_norm_vfeat"], "was encoded with no_norm_vfeat False, but this run has True"),
        (["--retrieval_dtype", "fp16"], "kept in the number type that it was encoded with"),
    ],
)
def test_a_corpus_that_does_not_fit_the_run_is_refused(at_golden_run, golden_corpora, options, message):
    with pytest.raises(InputError, match=message):
        infer_from("fp32", *options)


def test_a_corpus_of_another_model_is_refused_for_search_and_for_adding(at_golden_run, golden_corpora, tmp_path):
    argv = foreign_run(at_golden_run, tmp_path)
    with pytest.raises(InputError, match=r"encoded/fp32: was encoded by another model"):
        run_inference(parse_inference_options([*argv, "--encoded_corpus", "encoded/fp32"]))
    with pytest.raises(SystemExit) as stop:
        encode_main([*argv, "--out", "encoded/fp32"])
    assert stop.value.code == 2


def test_the_script_encodes_what_inference_then_searches(at_golden_run, golden_predictions):
    finished = bash(SCRIPTS / "encode.sh", "run", "val", "encoded/by script", *ON_THE_CPU, cwd=at_golden_run)
    n_videos = len(golden_predictions[1][""]["video2idx"])
    assert finished.stdout == f"encoded/by script: {n_videos} videos, {n_videos} of them added now\n"
    assert_same_file(infer_from("by script", "--eval_id", "by script"), golden_predictions[1][""])
    assert "usage: encode.sh" in bash(SCRIPTS / "encode.sh", "run", "val", cwd=at_golden_run, code=2).stderr


def test_encoding_refuses_what_it_cannot_keep_or_find(at_golden_run, run_main):
    argv = ["--model_dir", "run", "--out", "encoded/refused", *ON_THE_CPU]
    for options, message in (
        (["--retrieval_dtype", "bf16"], "kept in fp32 or fp16"),
        (["--eval_split_name", "test_challenge"], "has no videos of split test_challenge"),
        (["--vid_feat_path", "nowhere.h5"], "nowhere.h5"),
    ):
        finished = run_main(encode_main, [*argv, *options])
        assert finished.code == 2
        assert message in finished.err


def test_trimming_leaves_the_references_video_ranking(at_golden_run):
    options = ["--model_dir", "run", "--trim_padding", "--tasks", "VR", "--eval_id", "trimmed", *ON_THE_CPU]
    run_inference(parse_inference_options(options))
    found = load(at_golden_run / "run" / "inference_tvr_val_trimmed_predictions_VR.json")
    expected = load_json("predictions/val_no_nms.json")
    assert_same_file(found, {name: expected[name] for name in ("video2idx", "VR")})


def test_batch_sizes_and_reading_from_disk_change_no_ranking(at_golden_run, golden_predictions):
    sizes = ["--eval_query_bsz", "7", "--eval_context_bsz", "9", "--no_core_driver", "--eval_id", "sizes"]
    run_inference(parse_inference_options(["--model_dir", "run", *sizes, *ON_THE_CPU]))
    found = load(at_golden_run / "run" / "inference_tvr_val_sizes_predictions_VCMR_SVMR_VR.json")
    assert_same_file(found, golden_predictions[1][""])


def test_test_public_has_predictions_without_svmr_and_no_metrics(at_golden_run):
    name = ["--eval_split_name", "test", "--eval_id", "pub", "--eval_path", "corpus/test_public.jsonl"]
    assert run_inference(parse_inference_options(["--model_dir", "run", *name, "--nms_thd", "0.5", *ON_THE_CPU])) == {}
    written = {path.name for path in (at_golden_run / "run").glob("*_pub_*")}
    stem = "inference_tvr_test_public_pub_predictions_VCMR_VR"
    assert written == {f"{stem}.json", f"{stem}_nms_thd_0.5.json"}
    found = load(at_golden_run / "run" / f"{stem}.json")
    assert list(found) == ["video2idx", "VCMR", "VR"]
    assert found["video2idx"] == {
        name: idx for name, (_, idx) in load_json("corpus/video2dur_idx.json")["test_public"].items()
    }
    asked = [row["desc_id"] for row in load_jsonl("corpus/test_public.jsonl")]
    for task, n_rows in (("VCMR", 100), ("VR", 12)):  # twelve videos, though twenty could be kept
        assert [row["desc_id"] for row in found[task]] == asked
        assert {len(row["predictions"]) for row in found[task]} == {n_rows}


def test_svmr_asked_for_without_ground_truth_is_refused(at_golden_run):
    argv = ["--model_dir", "run", "--eval_split_name", "test", "--eval_path", "corpus/test_public.jsonl"]
    with pytest.raises(InputError, match=r"test_public\.jsonl: SVMR .*leave SVMR out of --tasks"):
        run_inference(parse_inference_options([*argv, "--tasks", "VCMR", "SVMR", *ON_THE_CPU]))


def test_only_the_tasks_asked_for_are_written(at_golden_run):
    argv = ["--model_dir", "run", "--tasks", "VR", "--eval_id", "vr", "--nms_thd", "0.5", *ON_THE_CPU]
    metrics = run_inference(parse_inference_options(argv))
    assert list(metrics) == ["VR", "VR_by_type"]
    assert {path.name for path in (at_golden_run / "run").glob("*_vr_*")} == {
        "inference_tvr_val_vr_predictions_VR.json",
        "inference_tvr_val_vr_predictions_VR_metrics.json",
    }


def test_nms_can_see_all_spans(at_golden_run, golden_predictions):
    argv = ["--model_dir", "run", "--nms_thd", "0.5", "--nms_from_all", "--eval_id", "all", *ON_THE_CPU]
    run_inference(parse_inference_options(argv))
    found = load(at_golden_run / "run" / "inference_tvr_val_all_predictions_VCMR_SVMR_VR_nms_thd_0.5.json")
    usual = golden_predictions[1]["_nms_thd_0.5"]
    more = 0
    for task in ("VCMR", "SVMR"):
        for one, other in zip(found[task], usual[task], strict=True):
            kept = [row[:3] for row in other["predictions"]]
            assert [row[:3] for row in one["predictions"]][: len(kept)] == kept
            assert len(one["predictions"]) <= 100
            more += len(one["predictions"]) > len(kept)
    assert more > 0


def test_metrics_are_those_of_the_written_file(golden_predictions):
    metrics, files = golden_predictions
    assert eval_retrieval(files[""], load_jsonl("corpus/val.jsonl")) == metrics
    assert eval_retrieval(files["_nms_thd_0.5"], load_jsonl("corpus/val.jsonl")) == files["_nms_thd_0.5_metrics"]


def test_probabilities_of_every_pair_are_the_references(golden_checkpoint, golden_batch, model_io):
    model = golden_checkpoint.build_model()
    batch = golden_batch | {"ctx_lengths": golden_batch["ctx_mask"].sum(dim=1).long()}
    corpus = encode_corpus(model, [([], batch)], torch.device("cpu"))
    searcher = Searcher(corpus, model.span_predictors, SearchSettings())
    n = len(corpus)
    found = searcher.span_probabilities(encode_queries(model, batch), torch.arange(n).expand(n, -1))
    length = found[0].shape[2]
    for probabilities, name in zip(found[:2], ("st", "ed"), strict=True):
        expected = torch.from_numpy(model_io[f"out/cross_{name}_logits"]).softmax(dim=-1)
        assert not expected[..., length:].any()
        torch.testing.assert_close(probabilities, expected[..., :length], rtol=1e-4, atol=1e-7)
    found = searcher.find(encode_queries(model, batch))
    expected = torch.from_numpy(model_io["out/q2ctx_scores"])
    torch.testing.assert_close(found.video_scores, expected.gather(1, found.videos), rtol=0, atol=1e-5)


class FakeFeatures(FeatureStore):
    """Random but fixed features; videos are called `v{number of clips}_…`."""

    def __init__(self) -> None:
        self.modalities, self.max_ctx_l, self.num_workers, self.pin_memory = ("video", "sub"), 10, 0, False

    def clip_counts(self, vid_names: list[str]) -> list[int]:
        raise AssertionError("clips of a fixed length are not counted")

    def context(self, vid_name: str, clips: range | None = None) -> dict[str, np.ndarray]:
        n_clips = int(vid_name[1:].split("_")[0])
        random = np.random.default_rng([n_clips, len(vid_name)])
        sizes = {"video": SMALL.visual_input_size, "sub": SMALL.sub_input_size}
        return {m: random.normal(size=(n_clips, size)).astype(np.float32) for m, size in sizes.items()}

    def query(self, desc_id: int) -> np.ndarray:
        size = 1 + desc_id % 4, SMALL.query_input_size
        return np.random.default_rng(desc_id).normal(size=size).astype(np.float32)


def small_split(clips: Sequence[int], n_queries: int) -> EvalSplit:
    videos = [Video(f"v{n}{'_' * i}", n * 1.5, 100 + i) for i, n in enumerate(clips)]
    queries = [
        Query(i, f"query {i}", i + 1, videos[i % len(videos)].vid_name, (0.0, 1.5), "v") for i in range(n_queries)
    ]
    return EvalSplit("val", queries, videos)


@pytest.fixture
def small_options(tmp_path):
    (tmp_path / "opt.json").write_text('{"dset_name": "tvr", "exp_id": "x", "max_ctx_l": 10, "max_desc_l": 6}')
    return parse_inference_options(["--model_dir", str(tmp_path), *ON_THE_CPU])


def predict_small(split: EvalSplit, opt, model: ReLoCLNet | None = None, tasks=("VCMR", "SVMR", "VR")):
    model = model or small_model().eval()
    return predict(model, evaluation_of(opt, split, FakeFeatures(), torch.device("cpu")), tasks)


def possible_spans(n_clips: int) -> int:
    return sum(2 <= ed - st < 16 for st in range(n_clips) for ed in range(st, n_clips))


@pytest.mark.parametrize("n_queries", [1, 2, 51])
@pytest.mark.parametrize("clips", [[1], [2], [3], [10], [1, 2, 3, 10, 3]])
def test_small_corpora_and_single_queries_give_all_possible_spans_and_no_other(small_options, clips, n_queries):
    split = small_split(clips, n_queries)
    rows = predict_small(split, small_options)
    clips_of = {video.idx: round(video.duration / 1.5) for video in split.videos}
    assert rows["VR"].count.tolist() == [len(clips)] * n_queries
    assert rows["VCMR"].count.tolist() == [sum(map(possible_spans, clips))] * n_queries
    for i, query in enumerate(split.queries):
        own = next(video for video in split.videos if video.vid_name == query.vid_name)
        assert rows["SVMR"].count[i] == possible_spans(clips_of[own.idx])
        assert {row[0] for row in rows["SVMR"].of_query(i)} <= {own.idx}
        for video_idx, st, ed, score in rows["VCMR"].of_query(i):
            assert 0 <= st <= ed - 3.0
            assert ed <= (clips_of[video_idx] - 1) * 1.5
            assert score >= 0
    evaluation = evaluation_of(small_options, split, FakeFeatures(), torch.device("cpu"))
    metrics = evaluate_rows(rows, evaluation)
    assert metrics["VR"]["r100"] == 100.0
    assert set(metrics) == {*rows, *(f"{task}_by_type" for task in rows)}


def test_what_svmr_finds_does_not_depend_on_other_tasks(small_options):
    split = small_split([3, 9, 10, 5], 6)
    alone, together = (predict_small(split, small_options, tasks=t)["SVMR"] for t in (["SVMR"], ["VCMR", "SVMR"]))
    for i in range(6):
        assert [row[:3] for row in alone.of_query(i)] == [row[:3] for row in together.of_query(i)]


def test_span_lengths_follow_the_options(small_options):
    small_options.min_pred_l, small_options.max_pred_l = 0, 3
    rows = predict_small(small_split([10, 4], 3), small_options)["VCMR"]
    lengths = {(ed - st) / 1.5 for i in range(3) for _, st, ed, _ in rows.of_query(i)}
    assert lengths == {0, 1, 2}


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_encoded_entries_keep_the_padding_that_kernels_see(small_options, kernel):
    model = small_model(replace(SMALL, conv_kernel_size=kernel)).eval()
    batch = {m: torch.randn(3, 10, SMALL.input_sizes[m]) for m in model.modalities}
    lengths = torch.tensor([4, 10, 9])
    mask = (torch.arange(10) < lengths.unsqueeze(1)).float()
    feats = {f"{m}_feat": batch[m] for m in batch} | {"ctx_mask": mask, "ctx_lengths": lengths}
    corpus = encode_corpus(model, [([], feats)], torch.device("cpu"))
    assert [len(corpus.rows_of(i)) for i in range(3)] == [min(n + kernel // 2, 10) for n in (4, 10, 9)]


def foreign_run(golden_run, tmp_path, **change: object) -> list[str]:
    """The golden run with a model of another config in it."""
    folder = tmp_path / "run"
    folder.mkdir()
    unpack("run/opt.json", folder / "opt.json")
    config = {"visual_input_size": 42, "sub_input_size": 26, "query_input_size": 24, "max_ctx_l": 128, "max_desc_l": 30}
    save_checkpoint(folder / "model.ckpt", ReLoCLNet(replace(SMALL, **{**config, **change})), 0)
    return ["--model_dir", str(folder), *ON_THE_CPU]


@pytest.mark.parametrize(
    ("size", "name"),
    [("visual_input_size", r"video\.h5"), ("sub_input_size", r"sub\.h5"), ("query_input_size", r"query\.h5")],
)
def test_a_model_trained_on_other_sizes_is_refused(at_golden_run, tmp_path, size, name):
    with pytest.raises(InputError, match=rf"{name}.* wide, but the model .* was trained on"):
        run_inference(parse_inference_options(foreign_run(at_golden_run, tmp_path, **{size: 60})))


@pytest.mark.parametrize("option", ["max_ctx_l", "max_desc_l"])
def test_more_clips_or_tokens_than_the_model_has_positions_for_are_refused(at_golden_run, tmp_path, option):
    argv = foreign_run(at_golden_run, tmp_path, **{option: 8})
    with pytest.raises(InputError, match=f"--{option}"):
        run_inference(parse_inference_options(argv))
