"""All options of the published codes, ReLoCLNet's and TVRetrieval's: each is taken, or says why not and what to do."""

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import h5py
import numpy as np
import pytest

from method_tvr.config import parse_inference_options, parse_train_options
from method_tvr.options.saved import save_options
from tests.support.golden_files import unpack
from utils.basic_utils import InputError, read_json, write_json

TRAIN = "method_tvr.train"
INFERENCE = "method_tvr.inference"
FRAMES_TO_CLIPS = "utils.video_feature.convert_feature_frm_to_clip"
MERGE = "utils.video_feature.merge_align_i3d"
CONCAT = "utils.video_feature.normalize_and_concat"
WORDS_TO_CLIPS = "utils.text_feature.convert_sub_feature_word_to_clip"
SUBTITLES = "utils.text_feature.preprocess_subtitles"
FINE_TUNING = "utils.text_feature.lm_finetuning_on_single_sentences"


@dataclass(frozen=True)
class Taken:
    """An option as it is typed, and the value that the program then has, under its own name where that is another."""

    command: str
    typed: str
    value: Any
    name: str = ""


@dataclass(frozen=True)
class Refused:
    """An option that is refused as it is typed, and what the one line says."""

    command: str
    typed: str
    says: str


TAKEN = [
    # ReLoCLNet's and TVRetrieval's
    Taken(TRAIN, "--dset_name tvr", "tvr"),
    Taken(TRAIN, "--eval_split_name val", "val"),
    Taken(TRAIN, "--debug", True),
    Taken(TRAIN, "--data_ratio 0.1", 0.1),
    Taken(TRAIN, "--results_root elsewhere", "elsewhere"),
    Taken(TRAIN, "--exp_id mine", "mine"),
    Taken(TRAIN, "--seed 1", 1),
    Taken(TRAIN, "--device -1", -1),
    Taken(TRAIN, "--device_ids 0 1", [0, 1]),
    Taken(TRAIN, "--num_workers 2", 2),
    Taken(TRAIN, "--no_core_driver", True),
    Taken(TRAIN, "--no_pin_memory", True),
    Taken(TRAIN, "--lr 1e-3", 1e-3),
    Taken(TRAIN, "--lr_warmup_proportion 0.1", 0.1),
    Taken(TRAIN, "--wd 0.1", 0.1),
    Taken(TRAIN, "--n_epoch 3", 3),
    Taken(TRAIN, "--max_es_cnt -1", -1),
    Taken(TRAIN, "--stop_task VR", "VR"),
    Taken(TRAIN, "--eval_tasks_at_training VCMR VR", ["VCMR", "VR"]),
    Taken(TRAIN, "--bsz 64", 64),
    Taken(TRAIN, "--eval_query_bsz 5", 5),
    Taken(TRAIN, "--eval_context_bsz 20", 20),
    Taken(TRAIN, "--eval_untrained", True),
    Taken(TRAIN, "--grad_clip 1", 1.0),
    Taken(TRAIN, "--margin 0.2", 0.2),
    Taken(TRAIN, "--lw_neg_q 0", 0.0),
    Taken(TRAIN, "--lw_neg_ctx 0", 0.0),
    Taken(TRAIN, "--lw_st_ed 0.1", 0.1),
    Taken(TRAIN, "--lw_fcl 0", 0.0),
    Taken(TRAIN, "--lw_vcl 0", 0.0),
    Taken(TRAIN, "--train_span_start_epoch -1", -1),
    Taken(TRAIN, "--ranking_loss_type lse", "lse"),
    Taken(TRAIN, "--hard_negative_start_epoch 5", 5),
    Taken(TRAIN, "--hard_negtiave_start_epoch 5", 5, "hard_negative_start_epoch"),
    Taken(TRAIN, "--hard_pool_size 5", 5),
    Taken(TRAIN, "--max_sub_l 40", 40),
    Taken(TRAIN, "--max_desc_l 20", 20),
    Taken(TRAIN, "--max_ctx_l 100", 100),
    Taken(TRAIN, "--train_path t.jsonl", "t.jsonl"),
    Taken(TRAIN, "--eval_path e.jsonl", "e.jsonl"),
    Taken(TRAIN, "--desc_bert_path d.h5", "d.h5"),
    Taken(TRAIN, "--sub_bert_path s.h5", "s.h5"),
    Taken(TRAIN, "--vid_feat_path v.h5", "v.h5"),
    Taken(TRAIN, "--video_duration_idx_path i.json", "i.json"),
    Taken(TRAIN, "--sub_feat_size 768", 768),
    Taken(TRAIN, "--q_feat_size 768", 768),
    Taken(TRAIN, "--vid_feat_size 3072", 3072),
    Taken(TRAIN, "--ctx_mode video_sub", "video_sub"),
    Taken(TRAIN, "--no_norm_vfeat", True),
    Taken(TRAIN, "--no_norm_tfeat", True),
    Taken(TRAIN, "--clip_length 2", 2.0),
    Taken(TRAIN, "--max_position_embeddings 200", 200),
    Taken(TRAIN, "--hidden_size 256", 256),
    Taken(TRAIN, "--n_heads 4", 4),
    Taken(TRAIN, "--input_drop 0.2", 0.2),
    Taken(TRAIN, "--drop 0.2", 0.2),
    Taken(TRAIN, "--conv_kernel_size 3", 3),
    Taken(TRAIN, "--conv_stride 1", 1),
    Taken(TRAIN, "--initializer_range 0.1", 0.1),
    Taken(TRAIN, "--min_pred_l 1", 1),
    Taken(TRAIN, "--max_pred_l 20", 20),
    Taken(TRAIN, "--q2c_alpha 20", 20.0),
    Taken(TRAIN, "--max_before_nms 100", 100),
    Taken(TRAIN, "--max_vcmr_video 50", 50),
    Taken(TRAIN, "--nms_thd 0.5", 0.5),
    Taken(INFERENCE, "--eval_id other", "other"),
    Taken(INFERENCE, "--tasks VR", ["VR"]),
    Taken(INFERENCE, "--external_inference_vr_res_path vr.json", "vr.json"),
    *(
        Taken(TRAIN, f"--{name} --model xml", True, name)
        for name in ("no_cross_att", "no_merge_two_stream", "no_modular")
    ),
    Taken(INFERENCE, "--eval_split_name test", "test_public"),
    Taken(INFERENCE, "--hard_negtiave_start_epoch 5", 5, "hard_negative_start_epoch"),
]
NOT_HERE = "encoders are transformers here"
NOBODY_READS = "is read by nothing, in the published code either: "
REFUSED = [
    Refused(TRAIN, "--conv_stride 2", "--conv_stride 1"),
    Refused(TRAIN, "--conv_kernel_size 4", "must be odd"),
    Refused(TRAIN, "--ctx_mode tef", "add video or sub"),
    *(
        Refused(command, typed, says)
        for command in (TRAIN, INFERENCE)
        for typed, says in {
            "--encoder_type gru": NOT_HERE,
            "--add_pe_rnn": NOT_HERE,
            "--pe_type cosine": NOBODY_READS,
            "--no_self_att": NOBODY_READS,
            "--cross_att_drop 0.1": f"{NOBODY_READS}give --drop",
            "--no_cross_att": "is of XML",
            "--no_merge_two_stream": "is of XML",
            "--no_modular": "is of XML",
            "--span_predictor_type cat_linear": "do not depend on the query",
            "--stack_conv_predictor_conv_kernel_sizes 3 5 7": "give --conv_kernel_size",
            "--stack_conv_predictor_conv_kernel_sizes -1": "give --conv_kernel_size",
            "--use_glove": "language model",
            "--word2idx_path w.json": "language model",
            "--vocab_size 10": "language model",
            "--glove_path g.npz": "language model",
        }.items()
    ),
    *(Refused(tool, "--debug", "give a small file") for tool in (FRAMES_TO_CLIPS, MERGE, CONCAT, WORDS_TO_CLIPS)),
    Refused(FINE_TUNING, "--do_extract", "extract_text_features.py"),
    Refused(FINE_TUNING, "--config_name c", "give --model_name_or_path"),
    Refused(FINE_TUNING, "--tokenizer_name t", "give --model_name_or_path"),
    Refused(FINE_TUNING, "--do_lower_case", "give --model_name_or_path"),
    Refused(FINE_TUNING, "--cache_dir c", "HF_HOME"),
    Refused(FINE_TUNING, "--overwrite_cache", "leave it out"),
    Refused(FINE_TUNING, "--max_steps 3", "give --num_train_epochs"),
    Refused(FINE_TUNING, "--fp16", "give --bf16"),
    Refused(FINE_TUNING, "--fp16_opt_level O1", "give --bf16"),
    Refused(FINE_TUNING, "--per_gpu_eval_batch_size 4", "leave it out"),
    Refused(FINE_TUNING, "--evaluate_during_training", "leave it out"),
    Refused(FINE_TUNING, "--eval_all_checkpoints", "leave it out"),
    Refused(FINE_TUNING, "--logging_steps 50", "leave it out"),
    Refused(FINE_TUNING, "--save_steps 50", "leave it out"),
    Refused(FINE_TUNING, "--save_total_limit 1", "leave it out"),
    Refused(FINE_TUNING, "--should_continue", "leave it out"),
    Refused(FINE_TUNING, "--local_rank -1", "leave it out"),
]


@pytest.fixture
def model_dir(tmp_path):
    (tmp_path / "run").mkdir()
    save_options(parse_train_options(["--dset_name", "tvr", "--exp_id", "x"]), tmp_path / "run")
    return str(tmp_path / "run")


def run(monkeypatch, command, *typed):
    """Run a command; returns its exit code."""
    monkeypatch.setattr(sys, "argv", [command, *map(str, typed)])
    try:
        import_module(command).main()
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize("row", TAKEN, ids=lambda row: f"{row.command} {row.typed}")
def test_an_option_of_the_published_codes_means_what_it_means_there(row, model_dir):
    if row.command == TRAIN:
        opt = parse_train_options(["--dset_name", "tvr", "--exp_id", "x", *row.typed.split()])
    else:
        opt = parse_inference_options(["--model_dir", model_dir, *row.typed.split()])
    assert opt[row.name or row.typed.split()[0].removeprefix("--")] == row.value


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: f"{row.command} {row.typed}")
def test_an_option_that_is_not_taken_says_why_in_one_line(row, monkeypatch, capsys, model_dir):
    others = {TRAIN: ["--dset_name", "tvr", "--exp_id", "x"], INFERENCE: ["--model_dir", model_dir]}
    assert run(monkeypatch, row.command, *others.get(row.command, []), *row.typed.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --")
    assert err.count("\n") == 1
    assert row.says in err


def test_the_misspelt_option_is_read_from_an_opt_json_too(model_dir, capsys):
    saved = read_json(f"{model_dir}/opt.json")
    del saved["hard_negative_start_epoch"]
    write_json({**saved, "hard_negtiave_start_epoch": 7}, f"{model_dir}/opt.json")
    assert parse_inference_options(["--model_dir", model_dir]).hard_negative_start_epoch == 7
    assert "unknown" not in capsys.readouterr().err
    write_json({**saved, "hard_negtiave_start_epoch": "x"}, f"{model_dir}/opt.json")
    with pytest.raises(InputError, match="hard_negative_start_epoch 'x' is not what"):
        parse_inference_options(["--model_dir", model_dir])


def arrays_of(path):
    with h5py.File(path) as file:
        return {key: file[key][()] for key in file}


def halves_of(path, folder):
    """Its videos in two files, one a show."""
    arrays = arrays_of(path)
    names = sorted(arrays)
    paths = [folder / "one.h5", folder / "other.h5"]
    for half, part in zip((names[:2], names[2:]), paths, strict=True):
        with h5py.File(part, "w") as file:
            for name in half:
                file[name] = arrays[name]
    return paths


def test_frame_features_of_several_files_become_one(tmp_path, monkeypatch):
    whole = unpack("preprocess/frame_features.h5", tmp_path / "whole.h5")
    clips = [tmp_path / name for name in ("a.h5", "b.h5")]
    assert run(monkeypatch, FRAMES_TO_CLIPS, "--src_h5_file", whole, "--tgt_h5_file", clips[0]) == 0
    parts = halves_of(whole, tmp_path)
    assert run(monkeypatch, FRAMES_TO_CLIPS, "--src_h5_files", *parts, "--tgt_h5_file", clips[1]) == 0
    ours, theirs = map(arrays_of, clips)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_a_video_in_two_files_of_frames_is_refused(tmp_path, monkeypatch, capsys):
    whole = unpack("preprocess/frame_features.h5", tmp_path / "whole.h5")
    part = halves_of(whole, tmp_path)[0]
    out = tmp_path / "out.h5"
    assert run(monkeypatch, FRAMES_TO_CLIPS, "--src_h5_files", whole, part, "--tgt_h5_file", out) == 2
    assert "give each video once" in capsys.readouterr().err
    assert not out.exists()


def test_the_file_to_align_with_goes_by_both_names(tmp_path, monkeypatch):
    i3d = unpack("preprocess/i3d_raw.h5", tmp_path / "i3d.h5")
    clips = unpack("preprocess/clip_features_max.h5", tmp_path / "clips.h5")
    for name in ("align", "resnet"):
        typed = ["--src_h5_files", i3d, f"--{name}_h5_file", clips, "--tgt_h5_file", tmp_path / f"by_{name}.h5"]
        assert run(monkeypatch, MERGE, *typed) == 0
    assert (tmp_path / "by_align.h5").read_bytes() == (tmp_path / "by_resnet.h5").read_bytes()


def test_subtitles_go_by_names_with_one_dash_too(tmp_path, monkeypatch):
    (tmp_path / "srt").mkdir()
    (tmp_path / "srt" / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello.\n")
    for dash in ("-", "--"):
        typed = [f"{dash}srt_dir", tmp_path / "srt", f"{dash}save_path", tmp_path / f"by{dash}.jsonl"]
        assert run(monkeypatch, SUBTITLES, *typed) == 0
    assert (tmp_path / "by-.jsonl").read_bytes() == (tmp_path / "by--.jsonl").read_bytes()
