"""Bad input ends with exit code 2, one message naming file, key and remedy, no traceback, and no file left behind."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from method_tvr import inference, train
from utils.basic_utils import PROJECT_ROOT

FEATURES = ["vid_feat_path", "sub_bert_path", "desc_bert_path"]


BEGUN = {"opt.json", "code.zip", "train.log.txt", "tensorboard_log"}  # what a run may leave that fails on its way


@pytest.fixture
def refused(run_main, tmp_path):
    """Run training and return the message it ends with; `begun` when only reading every array can tell."""

    def refused(argv: list[str], begun: bool = False) -> str:
        results = tmp_path / "results"
        finished = run_main(train.main, [*argv, "--results_root", str(results), "--exp_id", "bad", "--n_epoch", "1"])
        assert finished.code == 2, finished.err
        assert "Traceback" not in finished.err
        assert finished.err.splitlines()[-1].startswith("error: ")
        assert {path.name for path in results.glob("*/*")} <= (BEGUN if begun else set())
        return finished.err.splitlines()[-1]

    return refused


def rewrite(path: Path, change) -> None:
    """Change the rows of a jsonl file in place."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")


def first_row(path: Path) -> dict:
    return json.loads(path.read_text().splitlines()[0])


def test_no_exp_id(run_main, tiny_corpus, tmp_path):
    finished = run_main(train.main, tiny_corpus.options(results_root=tmp_path / "r"))
    assert (finished.code, finished.err) == (
        2,
        "error: --exp_id is missing: name this run, for example --exp_id reloclnet\n",
    )
    assert not (tmp_path / "r").exists()


def test_unknown_flag_value(run_main, tiny_corpus):
    finished = run_main(train.main, tiny_corpus.options(exp_id="x", ranking_loss_type="triplet"))
    assert finished.code == 2
    assert "--ranking_loss_type" in finished.err
    assert "hinge" in finished.err


@pytest.mark.parametrize("option", [*FEATURES, "train_path", "eval_path", "video_duration_idx_path"])
def test_missing_file(refused, tiny_corpus, option):
    message = refused(tiny_corpus.options(**{option: tiny_corpus.root / "gone" / "missing.file"}))
    assert "gone/missing.file" in message
    assert "data/README.md" in message


@pytest.mark.parametrize(("option", "share"), list(zip(FEATURES, [0.0, 0.3, 0.95], strict=True)))
def test_truncated_h5(refused, own_corpus, option, share):
    path = own_corpus.paths[option]
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    message = refused(own_corpus.options())
    assert path.name in message
    assert "truncated or not h5" in message


def test_not_h5(refused, own_corpus):
    path = own_corpus.paths["sub_bert_path"]
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert f"{path.name}: cannot be opened as h5" in refused(own_corpus.options())


def test_h5_of_something_else(refused, own_corpus):
    path = own_corpus.paths["vid_feat_path"]
    with h5py.File(path, "w") as h5_file:
        h5_file["answer"] = 42
    assert f"{path.name}: holds no feature array" in refused(own_corpus.options())


@pytest.mark.parametrize("option", ["vid_feat_path", "sub_bert_path"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_video_without_features(refused, own_corpus, option, split):
    name = first_row(own_corpus.annotations(split))["vid_name"]
    with own_corpus.features(option) as h5_file:
        del h5_file[name]
    message = refused(own_corpus.options())
    assert own_corpus.paths[option].name in message
    assert f"1 of {20 if split == 'train' else 10} videos: {name}" in message


@pytest.mark.parametrize("split", ["train", "val"])
def test_desc_id_without_features(refused, own_corpus, split):
    desc_id = first_row(own_corpus.annotations(split))["desc_id"]
    with own_corpus.features("desc_bert_path") as h5_file:
        del h5_file[str(desc_id)]
    message = refused(own_corpus.options())
    assert own_corpus.paths["desc_bert_path"].name in message
    assert f"desc_id {desc_id} (used by line 1 of mini_{split}_release.jsonl)" in message


@pytest.mark.parametrize(
    ("option", "size"),
    [("vid_feat_path", "vid_feat_size"), ("sub_bert_path", "sub_feat_size"), ("desc_bert_path", "q_feat_size")],
)
def test_features_of_another_width_than_the_option_says(refused, tiny_corpus, option, size):
    message = refused(tiny_corpus.options(**{size: 11}))
    assert tiny_corpus.paths[option].name in message
    assert "wide, but the options say 11" in message


def spoilt_key(corpus, option: str, split: str) -> str:
    row = first_row(corpus.annotations(split))
    return str(row["desc_id"]) if option == "desc_bert_path" else row["vid_name"]


@pytest.mark.parametrize(("option", "split"), [*((option, "train") for option in FEATURES), ("vid_feat_path", "val")])
def test_one_array_of_another_width(refused, own_corpus, option, split):
    key = spoilt_key(own_corpus, option, split)
    with own_corpus.features(option) as h5_file:
        shape = h5_file[key].shape
        del h5_file[key]
        h5_file[key] = np.ones((shape[0], 5), dtype=np.float32)
    message = refused(own_corpus.options(), begun=True)
    assert f"{own_corpus.paths[option].name}, key {key}: features are 5 wide" in message


@pytest.mark.parametrize(
    ("option", "value", "split", "num_workers"),
    [
        *((option, np.nan, "train", 0) for option in FEATURES),
        ("vid_feat_path", np.inf, "train", 1),
        ("desc_bert_path", np.nan, "val", 0),
    ],
)
def test_nan_or_inf_in_features(refused, own_corpus, option, value, split, num_workers):
    key = spoilt_key(own_corpus, option, split)
    with own_corpus.features(option) as h5_file:
        h5_file[key][0, 0] = value
    message = refused(own_corpus.options(num_workers=num_workers), begun=True)
    assert f"{own_corpus.paths[option].name}, key {key}: holds NaN or Inf" in message


def test_modalities_of_different_lengths(refused, own_corpus):
    name = first_row(own_corpus.annotations("train"))["vid_name"]
    with own_corpus.features("sub_bert_path") as h5_file:
        clips = h5_file[name][1:]
        del h5_file[name]
        h5_file[name] = clips
    assert name in refused(own_corpus.options(), begun=True)


@pytest.mark.parametrize("split", ["train", "val"])
def test_empty_jsonl(refused, own_corpus, split):
    own_corpus.annotations(split).write_text("")
    assert f"mini_{split}_release.jsonl: has no lines" in refused(own_corpus.options())


def test_broken_jsonl_line(refused, own_corpus):
    path = own_corpus.annotations("train")
    lines = path.read_text().splitlines()
    lines[6] = lines[6][:20]
    path.write_text("\n".join(lines))
    assert f"{path.name}, line 7: is not valid JSON" in refused(own_corpus.options())


def test_reversed_ts(refused, own_corpus):
    path = own_corpus.annotations("train")
    rewrite(path, lambda rows: rows[2]["ts"].reverse())
    message = refused(own_corpus.options())
    assert f"{path.name}, line 3: desc_id " in message
    assert "reversed" in message


def test_ts_starting_after_the_videos_end(refused, own_corpus):
    path = own_corpus.annotations("val")
    rewrite(path, lambda rows: rows[1].update(ts=[1000, 1010]))
    message = refused(own_corpus.options())
    assert f"{path.name}, line 2: desc_id " in message
    assert "starts after" in message


def test_ts_ending_after_the_videos_end_is_clamped_counted_and_warned_of(run_main, own_corpus, tmp_path):
    path = own_corpus.annotations("train")

    def stretch(rows: list[dict]) -> None:
        for row in rows[:3]:
            row["ts"][1] = row["duration"] + 5

    rewrite(path, stretch)
    options = own_corpus.options(exp_id="x", results_root=tmp_path / "results", n_epoch=1, eval_path=None)
    finished = run_main(train.main, options)
    assert finished.code == 0
    assert f"{path.name}: 3 moments end after their video" in finished.err


def test_video_missing_from_video2dur(refused, own_corpus):
    row = first_row(own_corpus.annotations("train"))
    path = own_corpus.paths["video_duration_idx_path"]
    durations = json.loads(path.read_text())
    del durations["train"][row["vid_name"]]
    path.write_text(json.dumps(durations))
    message = refused(own_corpus.options())
    assert f"mini_train_release.jsonl, line 1: desc_id {row['desc_id']}: video {row['vid_name']}" in message


def test_training_on_annotations_without_ground_truth(refused, tiny_corpus):
    message = refused(tiny_corpus.options(train_path=tiny_corpus.annotations("test_public")))
    assert "mini_test_public_release.jsonl: has no ground truth" in message


def test_evaluating_training_on_annotations_without_ground_truth(refused, tiny_corpus):
    options = tiny_corpus.options(eval_path=tiny_corpus.annotations("test_public"), eval_split_name="test")
    assert "mini_test_public_release.jsonl: has no ground truth" in refused(options)


def test_split_that_does_not_exist(refused, tiny_corpus):
    message = refused(tiny_corpus.options(eval_split_name="vall"))
    assert "has no videos of split vall" in message
    assert "train" in message


def test_annotations_of_another_split(refused, tiny_corpus):
    message = refused(tiny_corpus.options(eval_path=tiny_corpus.annotations("train")))
    assert "mini_train_release.jsonl, line 1: video" in message
    assert "not in split val" in message


# ---------------------------------------------------------------- inference


@pytest.fixture
def not_inferred(run_main, golden_run_copy, monkeypatch):
    """Run inference where the reference's opt.json means it to be, and return the message it ends with."""
    monkeypatch.chdir(golden_run_copy)

    def files() -> list[Path]:
        return sorted(path for path in golden_run_copy.rglob("*") if ".h5.cache" not in str(path))

    def not_inferred(*argv: object) -> str:
        before = files()
        typed = ["--model_dir", "run", "--device", "-1", "--num_workers", "0", *map(str, argv)]
        finished = run_main(inference.main, typed)
        assert finished.code == 2, finished.err
        assert "Traceback" not in finished.err
        assert files() == before
        return finished.err.splitlines()[-1]

    return not_inferred


@pytest.fixture
def golden_run_copy(golden_dir, tmp_path):
    """The golden folder; its `run` is a copy to be spoilt."""
    (tmp_path / "corpus").symlink_to(golden_dir / "corpus")
    (tmp_path / "run").mkdir()
    for name in ("model.ckpt", "opt.json"):
        (tmp_path / "run" / name).write_bytes((golden_dir / "run" / name).read_bytes())
    return tmp_path


def test_truncated_checkpoint(not_inferred, golden_run_copy):
    path = golden_run_copy / "run" / "model.ckpt"
    path.write_bytes(path.read_bytes()[:100_000])
    message = not_inferred()
    assert "run/model.ckpt" in message
    assert "truncated" in message


def test_foreign_checkpoint(not_inferred, golden_run_copy):
    (golden_run_copy / "run" / "model.ckpt").write_text("this is no checkpoint")
    assert "run/model.ckpt" in not_inferred()


def test_hostile_checkpoint(not_inferred, golden_run_copy):
    marker = golden_run_copy / "marker"
    code = f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    (golden_run_copy / "run" / "model.ckpt").write_bytes(code)
    assert "run/model.ckpt: refused: it asks for posix.system" in not_inferred()
    assert not marker.exists()


def test_model_folder_without_checkpoint(not_inferred, golden_run_copy):
    (golden_run_copy / "run" / "model.ckpt").unlink()
    assert "run/model.ckpt: checkpoint not found" in not_inferred()


def test_model_folder_without_options(not_inferred, golden_run_copy):
    (golden_run_copy / "run" / "opt.json").unlink()
    message = not_inferred()
    assert "run/opt.json" in message
    assert "results folder" in message


def test_no_such_model_folder(run_main):
    finished = run_main(inference.main, ["--model_dir", "tvr-video_sub_tef-nobody-*"])
    assert finished.code == 2
    assert "tvr-video_sub_tef-nobody-*: no such results folder" in finished.err


def test_split_without_annotations(not_inferred, tiny_corpus):
    durations = tiny_corpus.paths["video_duration_idx_path"]
    message = not_inferred("--eval_split_name", "test_challenge", "--video_duration_idx_path", durations)
    assert "tvr_test_challenge_release.jsonl: cannot be read" in message
    assert "data/README.md" in message


def test_split_whose_annotations_are_missing(not_inferred):
    message = not_inferred("--eval_split_name", "test", "--eval_path", "corpus/tset.jsonl")
    assert "corpus/tset.jsonl" in message


def test_svmr_on_test(not_inferred):
    public = ["--eval_split_name", "test", "--eval_path", "corpus/test_public.jsonl"]
    message = not_inferred(*public, "--tasks", "SVMR")
    assert "test_public" in message
    assert "leave SVMR out of --tasks" in message


def test_features_of_another_size_than_the_models(not_inferred):
    message = not_inferred("--vid_feat_path", "corpus/sub.h5")
    assert "corpus/sub.h5: features are 24 wide" in message
    assert "40" in message


def test_nan_in_features_at_inference(not_inferred, golden_run_copy):
    (golden_run_copy / "video.h5").write_bytes((golden_run_copy / "corpus" / "video.h5").read_bytes())
    name = first_row(golden_run_copy / "corpus" / "val.jsonl")["vid_name"]
    with h5py.File(golden_run_copy / "video.h5", "r+") as h5_file:
        h5_file[name][0, 0] = np.nan
    assert f"video.h5, key {name}: holds NaN or Inf" in not_inferred("--vid_feat_path", "video.h5")


@pytest.mark.parametrize("script", ["method_tvr/train.py", "method_tvr/inference.py"])
def test_a_real_process_ends_with_exit_code_2_and_one_line(script):
    argv = {"method_tvr/train.py": ["--dset_name", "tvr"], "method_tvr/inference.py": ["--model_dir", "nothing-here"]}
    finished = subprocess.run(
        [sys.executable, script, *argv[script]],
        cwd=PROJECT_ROOT,
        env={"PYTHONPATH": str(PROJECT_ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1
