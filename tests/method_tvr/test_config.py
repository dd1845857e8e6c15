"""Every option of the reference is there with its default; typed wins over opt.json, opt.json over the default."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from method_tvr.config import OPTIONS, SEARCH, inference_options, parse_inference_options, parse_train_options
from method_tvr.options.row import ALL_PROGRAMS, SAVED, TRAIN, options_of, typed
from method_tvr.options.saved import find_model_dir, find_path, load_options, save_options
from utils.basic_utils import PROJECT_ROOT, InputError

DEFAULTS = {
    "eval_split_name": "val",
    "debug": False,
    "data_ratio": 1.0,
    "results_root": "results",
    "seed": 2018,
    "device": 0,
    "device_ids": [0],
    "num_workers": 8,
    "feature_cache": "auto",
    "cache_dtype": "float32",
    "no_core_driver": False,
    "no_pin_memory": False,
    "lr": 1e-4,
    "lr_warmup_proportion": 0.01,
    "wd": 0.01,
    "n_epoch": 100,
    "max_es_cnt": 10,
    "stop_task": "VCMR",
    "eval_tasks_at_training": ["VCMR", "SVMR", "VR"],
    "bsz": 128,
    "eval_query_bsz": 50,
    "eval_context_bsz": 200,
    "eval_untrained": False,
    "grad_clip": -1,
    "margin": 0.1,
    "lw_neg_q": 1,
    "lw_neg_ctx": 1,
    "lw_st_ed": 0.01,
    "lw_fcl": 0.03,
    "lw_vcl": 0.03,
    "train_span_start_epoch": 0,
    "ranking_loss_type": "hinge",
    "hard_negative_start_epoch": 20,
    "hard_pool_size": 20,
    "max_sub_l": 50,
    "max_desc_l": 30,
    "max_ctx_l": 128,
    "no_norm_vfeat": False,
    "no_norm_tfeat": False,
    "max_position_embeddings": 300,
    "hidden_size": 384,
    "n_heads": 8,
    "input_drop": 0.1,
    "drop": 0.1,
    "conv_kernel_size": 5,
    "conv_stride": 1,
    "initializer_range": 0.02,
    "q2c_alpha": 30,
    "max_before_nms": 200,
    "max_vcmr_video": 100,
    "nms_thd": -1,
    # from the dataset
    "clip_length": 1.5,
    "min_pred_l": 2,
    "max_pred_l": 16,
    "train_path": "data/tvr_train_release.jsonl",
    "eval_path": "data/tvr_val_release.jsonl",
    "video_duration_idx_path": "data/tvr_video2dur_idx.json",
    "desc_bert_path": "data/tvr_feature_release/bert_feature/sub_query/tvr_query_pretrained_w_sub_query.h5",
    "sub_bert_path": "data/tvr_feature_release/bert_feature/sub_query/tvr_sub_pretrained_w_sub_query_max_cl-1.5.h5",
    "vid_feat_path": "data/tvr_feature_release/video_feature/tvr_resnet152_rgb_max_i3d_rgb600_avg_cat_cl-1.5.h5",
    # read from the files
    "sub_feat_size": None,
    "q_feat_size": None,
    "vid_feat_size": None,
    "ctx_mode": "video_sub_tef",
    "dset_name": "tvr",
    "exp_id": "x",
}
REQUIRED = ["--dset_name", "tvr", "--exp_id", "x"]


@pytest.fixture
def model_dir(tmp_path):
    """A results folder; the function writes its opt.json."""

    def write(name: str = "run", **options: object):
        opt = parse_train_options(REQUIRED)
        opt.update(options)
        save_options(opt, tmp_path / name)
        return str(tmp_path / name)

    return write


def test_options_have_the_references_defaults():
    opt = parse_train_options(REQUIRED)
    assert {name: opt[name] for name in DEFAULTS} == DEFAULTS
    for name, value in DEFAULTS.items():
        assert type(opt[name]) is type(value) or isinstance(value, int), name


def test_inference_has_its_own_options_besides_all_others(model_dir):
    opt = parse_inference_options(["--model_dir", model_dir()])
    assert opt.tasks is None
    assert opt.eval_id == "x"
    assert set(DEFAULTS) <= set(opt)


@pytest.mark.parametrize("program", ALL_PROGRAMS)
def test_every_option_has_a_help(program, capsys):
    options = options_of(OPTIONS, program).values()
    assert all(option.help for option in options)
    with pytest.raises(SystemExit):
        typed(OPTIONS, program, ["--help"])
    said = capsys.readouterr().out
    assert all(f"--{option.name}" in said for option in options if option.nargs != "*")


@pytest.mark.parametrize(
    ("vid_feat_type", "name"),
    [("resnet", "resnet152_rgb_max_cl-1.5.h5"), ("i3d", "i3d_rgb600_avg_cl-1.5.h5")],
)
def test_the_feature_type_names_the_video_features(vid_feat_type, name):
    opt = parse_train_options([*REQUIRED, "--vid_feat_type", vid_feat_type])
    assert opt.vid_feat_path == f"data/tvr_feature_release/video_feature/tvr_{name}"


def test_typed_options_win_over_saved_ones_and_saved_ones_over_defaults(model_dir):
    saved = model_dir(q2c_alpha=20.0, max_vcmr_video=7, hidden_size=16)
    opt = parse_inference_options(["--model_dir", saved, "--max_vcmr_video", "9"])
    assert (opt.q2c_alpha, opt.max_vcmr_video, opt.hidden_size, opt.lr) == (20.0, 9, 16, 1e-4)


def test_a_default_typed_at_inference_wins_too(model_dir):
    saved = model_dir(q2c_alpha=20.0, no_norm_vfeat=True)
    opt = parse_inference_options(["--model_dir", saved, "--q2c_alpha", "30"])
    assert opt.q2c_alpha == 30
    assert opt.no_norm_vfeat is True


OTHER = {
    "results_root": "elsewhere",
    "num_workers": 3,
    "nms_thd": 0.3,
    "debug": True,
    "eval_query_bsz": 11,
    "eval_context_bsz": 12,
    "max_pred_l": 30,
    "min_pred_l": 1,
    "device": 3,
    "device_ids": [3],
    "feature_cache": "device",
    "feature_cache_dir": "caches",
    "no_core_driver": True,
    "no_pin_memory": True,
    "nms_from_all": True,
    "tf32": True,
}


def test_options_of_the_machine_and_the_evaluation_are_not_inherited(model_dir):
    opt, usual = parse_inference_options(["--model_dir", model_dir(**OTHER)]), parse_train_options(REQUIRED)
    assert {name: opt[name] for name in OTHER} == {name: usual[name] for name in OTHER}


def test_what_the_reference_does_not_inherit_is_not_inherited():
    options = options_of(OPTIONS, TRAIN)
    assert all(options[name].inference != SAVED for name in (*OTHER, "eval_split_name", "eval_path"))


@pytest.mark.parametrize(
    ("typed", "device"),
    [
        ("--device_ids 1", 1),
        ("--device 0 --device_ids 1", 1),
        ("--device 1 --device_ids 1", 1),
        ("--device -1 --device_ids 1", -1),
        ("--device 2", 2),
        ("--device_ids 1 2", 0),
    ],
)
def test_one_device_may_be_named_either_way(model_dir, typed, device):
    assert parse_train_options([*REQUIRED, *typed.split()]).device == device
    assert parse_inference_options(["--model_dir", model_dir(device_ids=[3]), *typed.split()]).device == device


def test_two_names_of_one_device_must_agree():
    with pytest.raises(InputError, match="--device 2, but --device_ids 1"):
        parse_train_options([*REQUIRED, "--device", "2", "--device_ids", "1"])


@pytest.mark.parametrize(("typed", "device"), [("", 1), ("--device 2", 2), ("--device_ids 2", 2), ("--device -1", -1)])
def test_a_resumed_run_takes_the_device_that_is_typed_last(model_dir, typed, device):
    folder = model_dir(device=1, device_ids=[1])
    assert parse_train_options(["--resume", folder, *typed.split()]).device == device


def test_the_device_is_never_inherited(model_dir):
    saved = model_dir(device=-1)
    assert parse_inference_options(["--model_dir", saved]).device == 0
    assert parse_inference_options(["--model_dir", saved, "--device", "-1"]).device == -1


def test_annotations_are_inherited_for_the_same_split_only(model_dir):
    saved = model_dir(eval_path="mine/val.jsonl")
    assert parse_inference_options(["--model_dir", saved]).eval_path == "mine/val.jsonl"
    assert (
        parse_inference_options(["--model_dir", saved, "--eval_split_name", "test"]).eval_path
        == "data/tvr_test_public_release.jsonl"
    )
    typed = parse_inference_options(["--model_dir", saved, "--eval_split_name", "test", "--eval_path", "t.jsonl"])
    assert typed.eval_path == "t.jsonl"


def test_test_means_test_public(model_dir):
    opt = parse_inference_options(["--model_dir", model_dir(), "--eval_split_name", "test"])
    assert opt.eval_split_name == "test_public"


def test_options_survive_opt_json(model_dir):
    saved = model_dir(eval_tasks_at_training=["VR"], results_dir="r")
    assert load_options(saved) == {
        **parse_train_options(REQUIRED),
        "eval_tasks_at_training": ["VR"],
        "results_dir": "r",
    }


def test_own_training_files_have_no_evaluation_unless_it_is_named():
    assert parse_train_options([*REQUIRED, "--train_path", "mine.jsonl"]).eval_path is None
    both = parse_train_options([*REQUIRED, "--train_path", "mine.jsonl", "--eval_path", "my_val.jsonl"])
    assert both.eval_path == "my_val.jsonl"


def test_debug_uses_no_workers_and_no_ram():
    opt = parse_train_options([*REQUIRED, "--debug", "--num_workers", "4"])
    assert (opt.num_workers, opt.feature_cache) == (0, "disk")


def test_no_core_driver_means_disk(model_dir):
    assert parse_train_options([*REQUIRED, "--no_core_driver"]).feature_cache == "disk"
    assert parse_inference_options(["--model_dir", model_dir(), "--no_core_driver"]).feature_cache == "disk"


def test_a_model_folder_is_found_by_path_name_and_pattern(model_dir, tmp_path, capsys, monkeypatch):
    older, newer = model_dir("tvr-a-2026_01_02"), model_dir("tvr-a-2026_01_01")
    os.utime(older, (time.time() - 100, time.time() - 100))
    assert find_model_dir(older, "nowhere") == older
    assert find_model_dir("tvr-a-2026_01_02", str(tmp_path)) == older
    assert find_model_dir("tvr-a-*02", str(tmp_path)) == older
    assert capsys.readouterr().out == ""
    assert find_model_dir("tvr-a-*", str(tmp_path)) == newer
    said = capsys.readouterr().out
    assert "2 results folders" in said
    assert newer in said
    assert find_model_dir(f"{tmp_path}/tvr-*", "nowhere") == newer
    monkeypatch.chdir(tmp_path)
    assert find_model_dir("tvr-a-2026_01_02", "nowhere") == "tvr-a-2026_01_02"


def test_files_are_no_model_folders(tmp_path):
    (tmp_path / "run-1").write_text("")
    with pytest.raises(InputError, match=r"run-\*: no such results folder"):
        find_model_dir("run-*", str(tmp_path))


def test_a_missing_model_folder_is_said_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(InputError, match="no such results folder") as caught:
        find_model_dir("tvr-nothing-*", str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_a_model_folder_without_or_with_broken_options_is_refused(tmp_path):
    for content, message in ((None, "opt.json"), ("{", "not valid JSON"), ("[1]", "expected an object")):
        if content is not None:
            (tmp_path / "opt.json").write_text(content)
        with pytest.raises(InputError, match=message):
            parse_inference_options(["--model_dir", str(tmp_path)])


def test_an_unknown_dataset_in_opt_json_is_refused(model_dir):
    with pytest.raises(InputError, match=r"opt\.json.*anet"):
        parse_inference_options(["--model_dir", model_dir(dset_name="anet")])


def test_relative_paths_are_tried_from_here_and_then_from_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_path("method_tvr/config.py") == PROJECT_ROOT / "method_tvr" / "config.py"
    (tmp_path / "method_tvr").mkdir()
    (tmp_path / "method_tvr" / "config.py").write_text("")
    assert str(find_path("method_tvr/config.py")) == "method_tvr/config.py"
    assert str(find_path("not/there")) == "not/there"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--dset_name", "tvr"], "--exp_id is missing"),
        (["--exp_id", "x"], "--dset_name is missing"),
        ([*REQUIRED, "--ctx_mode", "video_subs"], "--ctx_mode video_subs"),
        ([*REQUIRED, "--ctx_mode", "tef"], "--ctx_mode tef"),
        ([*REQUIRED, "--ctx_mode", "tef"], "add video or sub"),
        ([*REQUIRED, "--ctx_mode", "video_video_sub"], "--ctx_mode"),
        ([*REQUIRED, "--ctx_mode", "video_video"], "--ctx_mode video_video"),
        ([*REQUIRED, "--ctx_mode", "tef_tef"], "--ctx_mode tef_tef"),
        ([*REQUIRED, "--ctx_mode", "video_"], "--ctx_mode video_"),
        ([*REQUIRED, "--ctx_mode", "video-tef"], "--ctx_mode video-tef"),
        ([*REQUIRED, "--ctx_mode", ""], "--ctx_mode"),
        ([*REQUIRED, "--conv_kernel_size", "4"], "--conv_kernel_size"),
        ([*REQUIRED, "--conv_kernel_size", "-1"], "--conv_kernel_size"),
        ([*REQUIRED, "--conv_stride", "2"], "--conv_stride"),
        ([*REQUIRED, "--hidden_size", "10", "--n_heads", "4"], "--n_heads"),
        ([*REQUIRED, "--n_heads", "0"], "--n_heads"),
        ([*REQUIRED, "--min_pred_l", "16"], "--min_pred_l"),
        ([*REQUIRED, "--data_ratio", "0"], "--data_ratio"),
        ([*REQUIRED, "--data_ratio", "1.5"], "--data_ratio"),
        ([*REQUIRED, "--bsz", "0"], "--bsz"),
        ([*REQUIRED, "--max_ctx_l", "-3"], "--max_ctx_l"),
        ([*REQUIRED, "--hard_pool_size", "0"], "--hard_pool_size"),
        ([*REQUIRED, "--clip_length", "0"], "--clip_length"),
        ([*REQUIRED, "--drop", "1.5"], "--drop"),
        ([*REQUIRED, "--input_drop", "-0.1"], "--input_drop"),
        ([*REQUIRED, "--num_workers", "-1"], "--num_workers"),
        ([*REQUIRED, "--seed", "-1"], "--seed"),
        ([*REQUIRED, "--eval_tasks_at_training", "VR"], "--stop_task"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(argv, message):
    with pytest.raises(InputError, match=message):
        parse_train_options(argv)


@pytest.mark.parametrize(
    "typed",
    [
        ["--dset_name", "anet"],
        ["--ranking_loss_type", "triplet"],
        ["--bsz", "many"],
        ["--stop_task", "XX"],
        ["--eval_tasks_at_training", "VCMR", "XX"],
        ["--vid_feat_type", "mfcc"],
        ["--no_such_option"],
        ["--hidden", "8"],
    ],
)
def test_unknown_values_and_options_end_with_exit_code_2(typed, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_train_options([*REQUIRED, *typed])
    assert caught.value.code == 2
    assert typed[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_ctx_l", "a"),
        ("max_ctx_l", 12.5),
        ("ctx_mode", 5),
        ("vid_feat_type", "x"),
        ("no_norm_vfeat", "yes"),
        ("drop", "0.1"),
        ("trim_padding", 1),
        ("stop_task", ["VCMR"]),
    ],
)
def test_a_saved_option_of_the_wrong_type_is_named(model_dir, name, value):
    with pytest.raises(InputError, match=rf"opt.json: {name} "):
        parse_inference_options(["--model_dir", model_dir(**{name: value})])


@pytest.mark.parametrize(
    "option",
    ["--clip_length nan", "--lr inf", "--wd -1", "--max_es_cnt -2", "--nms_thd -0.5", "--q2c_alpha 500", "--margin -1"],
)
def test_numbers_out_of_range_are_refused(option):
    with pytest.raises(InputError, match=option.split()[0]):
        parse_train_options([*REQUIRED, *option.split()])


def test_a_run_without_any_loss_is_refused():
    weights = [f"--{name}=0" for name in ("lw_neg_q", "lw_neg_ctx", "lw_st_ed", "lw_fcl", "lw_vcl")]
    with pytest.raises(InputError, match="nothing"):
        parse_train_options([*REQUIRED, *weights])


def test_the_newest_run_is_the_one_that_began_last_whatever_was_touched_since(tmp_path):
    for stamp in ("2026_01_02_00_00_00", "2026_01_01_00_00_00"):  # the older one is changed last
        (tmp_path / "results [1]" / f"tvr-video_sub_tef-a-{stamp}").mkdir(parents=True)
        time.sleep(0.01)
    found = find_model_dir("tvr-*-a-*", str(tmp_path / "results [1]"))
    assert found.endswith("2026_01_02_00_00_00")


@pytest.mark.parametrize(
    "module",
    ["config", "dset_configs", *(f"options.{name}" for name in ("row", "rules", "saved", "values"))],
)
def test_reading_options_needs_no_torch(module):
    check = f"import sys, method_tvr.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=PROJECT_ROOT, timeout=60).returncode == 0


def test_values_of_a_program_are_read_as_typed_ones(model_dir):
    folder = model_dir()
    typed_ones = ["--device", "2", "--tf32", "--query", "a", "--query", "b", "--clip_length", "auto", "--lr", "1"]
    assert inference_options(
        Path(folder), device="2", tf32=True, debug=False, query=["a", "b"], clip_length="auto", lr=1, text_model=None
    ) == parse_inference_options(["--model_dir", folder, *typed_ones])
    assert inference_options(folder, SEARCH, index="faiss").index == "faiss"
    assert parse_inference_options(["--model_dir", folder, "--bsz", "3"], bsz=4, n_epoch=5).bsz == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"no_such_option": 1}, "--no_such_option: there is no such option"),
        ({"index": "faiss"}, "--index: there is no such option of inference"),
        ({"device": "many"}, "--device 'many' .* type int"),
        ({"device": True}, "--device True .* type int"),
        ({"max_ctx_l": 12.5}, "--max_ctx_l 12.5 .* type int"),
        ({"clip_length": "long"}, "--clip_length 'long' .* number or auto"),
        ({"tf32": "yes"}, "--tf32 'yes' .* True or False"),
        ({"tasks": ["VR", "XX"]}, "--tasks 'XX' .* VCMR, SVMR, VR"),
        ({"bsz": 0}, "--bsz 0 must be above 0"),
    ],
)
def test_values_of_a_program_are_refused_as_typed_ones(model_dir, values, message):
    with pytest.raises(InputError, match=message):
        inference_options(model_dir(), **values)
