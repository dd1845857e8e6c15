"""The shell scripts, run as a user does: train, infer on val with NMS and on test, evaluate the written file."""

import json
import shutil
from pathlib import Path

import pytest

from method_tvr import inference
from tests.support.runs.commands import SCRIPTS, bash
from tests.support.runs.tiny_corpus import as_argv
from utils.mini_tvr import TINY


def load(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that everything is called from: neither the project nor the corpus."""
    return tmp_path_factory.mktemp("somewhere else")


@pytest.fixture(scope="module")
def results(home: Path, tiny_corpus) -> Path:
    """The results folder of two epochs, in a results root with a space in its name."""
    options = tiny_corpus.options(dset_name=None, hidden_size=16, bsz=32, n_epoch=2, lr=0.003, device=0, num_workers=8)
    arguments = ["tvr", "video_sub_tef", "resnet_i3d", "--exp_id", "e2e", "--results_root", home / "my results"]
    finished = bash(SCRIPTS / "train.sh", *arguments, *options, cwd=home)
    assert "CUDA is not available, using the CPU" in finished.stderr
    assert "evaluating the best model" in finished.stdout
    (folder,) = (home / "my results").iterdir()
    return folder


@pytest.fixture(scope="module")
def inferred(home: Path, results: Path) -> Path:
    pattern = "tvr-video_sub_tef-e2e-*"
    arguments = [pattern, "val", "--results_root", home / "my results", "--nms_thd", "0.7", "--eval_id", "again"]
    finished = bash(SCRIPTS / "inference.sh", *arguments, "--device", "-1", cwd=home)
    assert "R@100" in finished.stdout
    return results


def test_training_leaves_every_artefact(results):
    names = {path.name for path in results.iterdir()}
    stem = "tvr_val_predictions_VCMR_SVMR_VR"
    assert {"opt.json", "code.zip", "model.ckpt", "train.log.txt", "eval.log.txt", "tensorboard_log"} <= names
    assert {f"best_{stem}.json", f"best_{stem}_metrics.json"} <= names
    final = "inference_tvr_val_e2e_predictions_VCMR_SVMR_VR"
    assert {f"{final}{nms}{kind}.json" for nms in ("", "_nms_thd_0.5") for kind in ("", "_metrics")} <= names
    assert not [name for name in names if name.endswith(".part")]


def test_the_script_says_that_joined_features_are_normalised_already(results):
    opt = load(results / "opt.json")
    assert opt["no_norm_vfeat"] is True
    assert (opt["dset_name"], opt["ctx_mode"], opt["clip_length"], opt["max_pred_l"]) == (
        "tvr",
        "video_sub_tef",
        1.5,
        16,
    )


def test_inference_finds_what_training_found(inferred):
    stem = "predictions_VCMR_SVMR_VR"
    best = load(inferred / f"best_tvr_val_{stem}_metrics.json")
    assert load(inferred / f"inference_tvr_val_again_{stem}_metrics.json") == best


def test_nms_was_done_at_the_threshold_asked_for(inferred):
    found = load(inferred / "inference_tvr_val_again_predictions_VCMR_SVMR_VR_nms_thd_0.7.json")
    assert list(found) == ["video2idx", "VCMR", "SVMR"]
    for query in found["SVMR"]:
        spans = [row[1:3] for row in query["predictions"]]
        for i, (st, ed) in enumerate(spans):
            for other_st, other_ed in spans[:i]:
                overlap = max(0, min(ed, other_ed) - max(st, other_st)) / (max(ed, other_ed) - min(st, other_st))
                assert overlap <= 0.7 + 1e-6


@pytest.mark.parametrize("nms", ["", "_nms_thd_0.7"])
def test_the_standalone_evaluation_of_the_file_gives_the_same_metrics(inferred, tiny_corpus, home, nms):
    predictions = inferred / f"inference_tvr_val_again_predictions_VCMR_SVMR_VR{nms}.json"
    saved = home / f"metrics{nms}.json"
    bash(SCRIPTS / "eval.sh", tiny_corpus.annotations("val"), predictions, saved, cwd=home)
    assert load(saved) == load(predictions.with_name(f"{predictions.stem}_metrics.json"))


def test_inference_on_test_writes_a_submission_without_svmr(results, tiny_corpus, home, run_main):
    public = as_argv({"eval_path": tiny_corpus.annotations("test_public"), "results_root": home / "my results"})
    argv = ["--model_dir", results.name, "--eval_split_name", "test", *public, "--device", "-1"]
    assert run_main(inference.main, argv).code == 0
    found = load(results / "inference_tvr_test_public_e2e_predictions_VCMR_VR.json")
    assert list(found) == ["video2idx", "VCMR", "VR"]
    assert len(found["VCMR"]) == TINY.n_test * TINY.queries_per_video
    assert len(found["video2idx"]) == TINY.n_test
    assert not list(results.glob("*test_public*metrics*"))


def test_a_search_by_its_script_prints_a_table(results, home):
    found = bash(SCRIPTS / "search.sh", results.name, "Omar laughs.", "--results_root", home / "my results", cwd=home)
    assert found.stdout.splitlines()[1] == "Omar laughs."
    assert found.stdout.splitlines()[2].split()[:2] == ["rank", "video"]


@pytest.mark.parametrize("script", ["train.sh", "inference.sh", "eval.sh", "search.sh", "serve.sh", "report.sh"])
def test_scripts_say_how_they_are_used(script, tmp_path):
    finished = bash(SCRIPTS / script, cwd=tmp_path, code=2)
    assert finished.stderr.startswith("error: usage: ")


@pytest.mark.parametrize(
    ("script", "option"),
    [("train", "--lr "), ("inference", "--eval_id"), ("encode", "--model_dir"), ("search", "--top_k")],
)
def test_scripts_say_what_their_programs_take(script, option, tmp_path):
    finished = bash(SCRIPTS / f"{script}.sh", "--help", cwd=tmp_path)
    assert f"bash method_tvr/scripts/{script}.sh" in finished.stdout
    assert option in finished.stdout


def test_annotations_that_are_not_there_are_asked_for(results, home):
    (predictions,) = results.glob("best_*_VR.json")
    alone = Path(shutil.copytree(results, home / "alone"))
    saved = json.loads((alone / "opt.json").read_text())
    (alone / "opt.json").write_text(json.dumps({**saved, "eval_path": "elsewhere/val.jsonl"}))
    elsewhere = shutil.copy(predictions, home / "predictions.json")
    for path, why in ((elsewhere, "TVR's, as"), (alone / predictions.name, "opt.json says")):
        finished = bash(SCRIPTS / "eval.sh", "val", path, home / "metrics.json", cwd=home, code=2)
        assert why in finished.stderr
        assert "name them with --gt_path PATH" in finished.stderr


def test_a_results_folder_that_was_moved_still_works(results, tiny_corpus, home, run_main, monkeypatch):
    moved = Path(shutil.copytree(results, home / "moved"))
    monkeypatch.chdir(home)
    finished = run_main(inference.main, ["--model_dir", "moved", "--tasks", "SVMR", "--eval_id", "m", "--device", "-1"])
    assert finished.code == 0, finished.err
    assert (moved / "inference_tvr_val_m_predictions_SVMR.json").is_file()
