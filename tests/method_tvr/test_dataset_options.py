"""What a dataset's entry decides, what options decide instead, and what inference takes over from training."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from method_tvr import inference, train
from method_tvr.config import parse_inference_options, parse_train_options
from method_tvr.dset_configs import DATASETS
from method_tvr.options.rules import evaluation_rule
from method_tvr.options.saved import save_options
from standalone_eval.eval import eval_retrieval
from tests.support.runs.commands import Finished
from tests.support.runs.tiny_corpus import Corpus, as_argv
from utils.basic_utils import InputError, read_json, read_jsonl, write_json

Run = Callable[..., Finished]
VIDEO_DATASETS = ["anet_cap", "charades_sta", "didemo"]
CUSTOM: dict[str, object] = {
    "dset_name": "custom", "exp_id": "own", "clip_length": "auto", "label_rule": "best_iou", "min_pred_l": 1,
    "max_pred_l": 12, "final_nms_thd": 0.35, "iou_thds": [0.4, 0.6], "recall_ks": [1, 3],
}  # fmt: skip
PATHS = ("train_path", "eval_path", "video_duration_idx_path", "desc_bert_path", "vid_feat_path", "sub_bert_path")


def parsed(name: str, *typed: str) -> Any:
    return parse_train_options(["--dset_name", name, "--exp_id", "x", *typed])


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., list[str]]:
    """Makes a results folder of an opt.json alone; what inference is to be called with."""

    def make(name: str, *typed: str, **changed: object) -> list[str]:
        opt = parsed(name, *typed)
        opt.update(changed)
        save_options(opt, tmp_path)
        return ["--model_dir", str(tmp_path)]

    return make


# ---------------------------------------------------------------------------- the entries


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "custom"])
def test_each_dataset_has_a_path_for_every_file_that_its_default_run_reads(name):
    opt = parsed(name)
    for option in PATHS:
        if option != "sub_bert_path" or DATASETS[name].subtitles:
            assert opt[option].startswith((DATASETS[name].root, DATASETS[name].features))
    assert (opt.sub_bert_path is None) == ("sub" not in opt.ctx_mode)
    assert (opt.clip_length, opt.label_rule) == (DATASETS[name].clip_length, DATASETS[name].label_rule)


def test_tvr_is_as_ever():
    opt = parsed("tvr")
    assert (opt.clip_length, opt.label_rule, opt.min_pred_l, opt.max_pred_l) == (1.5, "floor_ceil", 2, 16)
    assert (opt.iou_thds, opt.recall_ks, opt.final_nms_thd) == ([0.5, 0.7], [1, 5, 10, 100], 0.5)
    assert (opt.ctx_mode, opt.margin, opt.lr, opt.q2c_alpha) == ("video_sub_tef", 0.1, 1e-4, 30)


def test_a_typed_value_goes_before_the_recipe(capsys):
    opt = parsed("anet_cap", "--margin", "0.3", "--ctx_mode", "video")
    assert (opt.margin, opt.lr, opt.q2c_alpha, opt.ctx_mode) == (0.3, 2.5e-4, 20, "video")
    assert "--margin 0.3 --lr 0.00025 --q2c_alpha 20, was never published" in capsys.readouterr().err
    assert parsed("anet_cap", "--margin", "0.1").margin == 0.1  # which is the default elsewhere


def test_a_recipe_names_a_set_of_options_before_which_typed_ones_go(tmp_path):
    assert (parsed("tvr").recipe, parsed("tvr").span_init, parsed("tvr").all_negatives) == (None, "drawn", False)
    steady = parsed("tvr", "--recipe", "steady")
    assert (steady.recipe, steady.span_init, steady.all_negatives, steady.bias_correction) == (
        "steady",
        "edge",
        True,
        True,
    )
    assert parsed("tvr", "--recipe", "steady", "--span_init", "drawn").span_init == "drawn"
    (tmp_path / "s.json").write_text('{"recipe": "steady", "all_negatives": false}')
    opt = parsed("tvr", "--settings", str(tmp_path / "s.json"))
    assert (opt.recipe, opt.span_init, opt.all_negatives) == ("steady", "edge", False)


@pytest.mark.parametrize("name", ["tvr", "mini", "mini_video", "charades_sta", "didemo"])
def test_other_recipes_need_no_note(name, capsys):
    parsed(name)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [*VIDEO_DATASETS, "mini_video"])
def test_subtitles_are_refused_where_there_are_none_unless_a_file_is_named(name):
    for ctx_mode in ("video_sub_tef", "sub"):
        with pytest.raises(InputError, match=f"--ctx_mode {ctx_mode}: {name} has no subtitles: give video_tef or"):
            parsed(name, "--ctx_mode", ctx_mode)
        assert parsed(name, "--ctx_mode", ctx_mode, "--sub_bert_path", "mine.h5").sub_bert_path == "mine.h5"


@pytest.mark.parametrize(
    ("name", "vid_feat_type"), [("anet_cap", "vgg"), ("charades_sta", "resnet_i3d"), ("didemo", "c3d"), ("tvr", "c3d")]
)
def test_video_features_that_a_dataset_does_not_have_are_refused_with_those_that_it_has(name, vid_feat_type):
    with pytest.raises(InputError, match=f"--vid_feat_type {vid_feat_type}: {name} has .*, or --vid_feat_path") as err:
        parsed(name, "--vid_feat_type", vid_feat_type)
    assert all(kind in str(err.value) for kind in DATASETS[name].video_files)
    assert parsed(name, "--vid_feat_type", vid_feat_type, "--vid_feat_path", "mine.h5").vid_feat_path == "mine.h5"


@pytest.mark.parametrize("name", VIDEO_DATASETS)
def test_the_first_kind_of_video_features_is_the_default_and_test_a_split_of_its_own(name, saved):
    kind = next(iter(DATASETS[name].video_files))
    opt = parse_inference_options([*saved(name), "--eval_split_name", "test"])
    assert opt.vid_feat_path.endswith(f"{name}_{kind}.h5")
    assert (opt.eval_split_name, opt.eval_path) == ("test", f"data/{name}/{name}_test_release.jsonl")


# ---------------------------------------------------------------------------- inference follows training


def test_properties_typed_in_training_are_inferences_too(saved):
    typed = {"clip_length": 2.5, "label_rule": "floor_ceil", "final_nms_thd": 0.9}
    argv = saved("didemo", *as_argv({**typed, "iou_thds": [0.1, 0.9], "recall_ks": [1, 2]}))
    opt = parse_inference_options(argv)
    assert (opt.clip_length, opt.label_rule, opt.final_nms_thd) == (2.5, "floor_ceil", 0.9)
    assert (opt.iou_thds, opt.recall_ks) == ([0.1, 0.9], [1, 2])
    assert evaluation_rule(opt).iou_thds == [0.1, 0.9]
    opt = parse_inference_options([*argv, "--label_rule", "best_iou", "--iou_thds", "0.3"])
    assert (opt.label_rule, opt.iou_thds, opt.recall_ks) == ("best_iou", [0.3], [1, 2])


def test_span_lengths_are_the_datasets_at_inference_but_for_custom_corpora_those_of_training(saved, custom_paths):
    lengths = ("--min_pred_l", "3", "--max_pred_l", "5")
    opt = parse_inference_options(saved("anet_cap", *lengths))
    assert (opt.min_pred_l, opt.max_pred_l) == (1, 129)
    argv = saved("custom", *as_argv(custom_paths), *lengths)
    opt = parse_inference_options(argv)
    assert (opt.min_pred_l, opt.max_pred_l) == (3, 5)
    opt = parse_inference_options([*argv, "--max_pred_l", "9"])
    assert (opt.min_pred_l, opt.max_pred_l) == (3, 9)


def test_models_from_before_there_were_such_properties_have_their_datasets(saved, tmp_path):
    argv = saved("tvr")
    old = read_json(tmp_path / "opt.json")
    for name in ("label_rule", "final_nms_thd", "iou_thds", "recall_ks"):
        del old[name]
    write_json(old, tmp_path / "opt.json")
    opt = parse_inference_options(argv)
    assert (opt.label_rule, opt.iou_thds, opt.recall_ks, opt.clip_length) == (
        "floor_ceil",
        [0.5, 0.7],
        [1, 5, 10, 100],
        1.5,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip_length", "Auto"),
        ("clip_length", ""),
        ("clip_length", "1.5"),
        ("clip_length", True),
        ("clip_length", ["auto"]),
        ("clip_length", {"auto": 1}),
        ("label_rule", "best"),
        ("label_rule", 1),
        ("iou_thds", 0.5),
        ("iou_thds", ["0.5"]),
        ("iou_thds", [True]),
        ("recall_ks", [1.5]),
        ("recall_ks", []),
        ("final_nms_thd", "0.5"),
    ],
)
def test_saved_properties_that_could_not_be_typed_are_named(saved, name, value):
    with pytest.raises(InputError, match=rf"opt.json: {name} .* is not what --{name} takes: mend the file"):
        parse_inference_options(saved("anet_cap", **{name: value}))


@pytest.mark.parametrize("value", ["auto", 2, 2.5, None])
def test_saved_clip_lengths_that_can_be_typed_are_taken(saved, value):
    assert parse_inference_options(saved("anet_cap", clip_length=value)).clip_length == (value or "auto")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip_length", 0), ("clip_length", -1.5), ("clip_length", math.inf), ("iou_thds", [0]),
        ("iou_thds", [0.5, 1.1]), ("iou_thds", [math.nan]), ("recall_ks", [0]), ("recall_ks", [101]),
        ("final_nms_thd", -0.5),
    ],
)  # fmt: skip
def test_values_without_sense_are_refused_wherever_they_come_from(saved, name, value):
    typed = as_argv({name: value})
    for source in (lambda: parsed("anet_cap", *typed), lambda: parse_inference_options([*saved("anet_cap"), *typed])):
        with pytest.raises(InputError, match=f"--{name} "):
            source()
    if value != math.inf:  # which JSON cannot say
        with pytest.raises(InputError, match=f"{name} "):
            parse_inference_options(saved("anet_cap", **{name: value}))


@pytest.mark.parametrize("text", ["Auto", "long", "", "1,5"])
def test_a_clip_length_that_is_neither_number_nor_auto_is_refused(text, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("tvr", "--clip_length", text)
    assert stop.value.code == 2
    assert "argument --clip_length: invalid number or auto value" in capsys.readouterr().err


# ---------------------------------------------------------------------------- custom: all from options


@pytest.fixture
def custom_paths(tiny_corpus: Corpus) -> dict[str, object]:
    return dict(tiny_corpus.paths)


@pytest.mark.parametrize("ctx_mode", ["video_sub_tef", "video", "sub_tef"])
def test_a_custom_corpus_without_paths_is_refused_with_the_options_that_it_needs(ctx_mode, custom_paths):
    needed = {"video_duration_idx_path", "desc_bert_path"}
    needed |= {{"video": "vid_feat_path", "sub": "sub_bert_path"}[m] for m in ctx_mode.split("_") if m != "tef"}
    typed = ["--ctx_mode", ctx_mode]
    with pytest.raises(InputError, match="custom has no files of its own: say where they lie") as err:
        parsed("custom", *typed)
    assert {name for name in PATHS if f"--{name}" in str(err.value)} == needed
    given = {name: custom_paths[name] for name in needed}
    with pytest.raises(InputError, match="--train_path is missing: custom has no files of its own"):
        parsed("custom", *typed, *as_argv(given))
    for name in needed:
        with pytest.raises(InputError, match=f"^--{name} missing: custom has no files"):
            parsed("custom", *typed, *as_argv({**given, "train_path": "t", name: None}))
    opt = parsed("custom", *typed, *as_argv({**given, "train_path": "t"}))
    assert opt.eval_path is None
    assert (opt.clip_length, opt.label_rule, opt.ctx_mode) == (1.5, "floor_ceil", ctx_mode)


def test_a_custom_corpus_is_trained_on_and_its_model_knows_all_about_it(
    tiny_corpus: Corpus, run_main: Run, tmp_path: Path
):
    argv = tiny_corpus.options(**CUSTOM, n_epoch=1, bsz=32, results_root=tmp_path)
    trained = run_main(train.main, argv)
    assert trained.code == 0, trained.err
    assert "--nms_thd 0.35" in trained.out
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("custom-video_sub_tef-own-")
    assert (folder / "inference_custom_val_own_predictions_VCMR_SVMR_VR_nms_thd_0.35.json").is_file()

    here = {"model_dir": folder, "device": -1, "num_workers": 0}
    finished = run_main(inference.main, as_argv({**here, "eval_id": "again"}))
    assert finished.code == 0, finished.err
    stem = "inference_custom_val_again_predictions_VCMR_SVMR_VR"
    metrics, predictions = read_json(folder / f"{stem}_metrics.json"), read_json(folder / f"{stem}.json")
    assert list(metrics["SVMR"]) == ["0.4-r1", "0.4-r3", "0.6-r1", "0.6-r3"]
    assert metrics == eval_retrieval(predictions, read_jsonl(tiny_corpus.annotations("val")), (0.4, 0.6), (1, 3))
    durations = read_json(tiny_corpus.paths["video_duration_idx_path"])["val"]
    with h5py.File(tiny_corpus.paths["vid_feat_path"]) as file:
        clip_of = {idx: seconds / min(len(file[name]), 40) for name, (seconds, idx) in durations.items()}
    for row in (row for answer in predictions["SVMR"] for row in answer["predictions"]):
        length = (row[2] - row[1]) / clip_of[row[0]]
        assert length == pytest.approx(round(length))
        assert 1 <= round(length) < 12

    refused = run_main(inference.main, as_argv({**here, "eval_split_name": "test_public"}))
    assert refused.code == 2
    assert "--eval_path is missing: custom has no queries of its own for split test_public" in refused.err
    test = {"eval_split_name": "test_public", "eval_path": tiny_corpus.annotations("test_public")}
    finished = run_main(inference.main, as_argv({**here, **test}))
    assert finished.code == 0, finished.err
    assert (folder / "inference_custom_test_public_own_predictions_VCMR_VR.json").is_file()
