"""Where a search looks in a corpus of one's own unless a split is typed, and what it says of that."""

import json

import pytest

from method_tvr.config import INFERENCE, SEARCH, SERVE, parse_inference_options, parse_train_options
from method_tvr.options.saved import save_options

SPLITS = {"train": ["a", "b", "c", "d"], "val": ["e"], "all": ["a", "b", "c", "d", "e"]}


@pytest.fixture
def searched(tmp_path, capsys):
    """Options of a program for a model of a corpus with such splits, and what was said."""

    def searched(splits: dict, *typed: str, program: str = SEARCH, dset_name: str = "custom"):
        durations = {split: {name: [5.0, ord(name)] for name in names} for split, names in splits.items()}
        (tmp_path / "my_video2dur_idx.json").write_text(json.dumps(durations))
        files = {"train_path": "t", "eval_path": "val.jsonl", "vid_feat_path": "v", "desc_bert_path": "q"}
        files |= {"video_duration_idx_path": str(tmp_path / "my_video2dur_idx.json"), "ctx_mode": "video_tef"}
        argv = [word for name, file in files.items() for word in (f"--{name}", file)]
        opt = parse_train_options(["--dset_name", dset_name, "--exp_id", "x", *argv])
        save_options(opt, tmp_path / "run")
        capsys.readouterr()
        found = parse_inference_options(["--model_dir", str(tmp_path / "run"), *typed], program)
        notes = [line for line in capsys.readouterr().err.splitlines() if " searched" in line]
        return found, notes

    return searched


@pytest.mark.parametrize("program", [SEARCH, SERVE])
def test_all_videos_are_searched_with_the_queries_that_the_run_was_evaluated_on(searched, program):
    opt, (note,) = searched(SPLITS, program=program)
    assert (opt.eval_split_name, opt.eval_path) == ("all", "val.jsonl")
    assert "all 5 videos of" in note
    assert "--eval_split_name val looks in 1 of them alone" in note


def test_a_split_that_is_typed_stays_and_nothing_is_said(searched):
    assert searched(SPLITS, "--eval_split_name", "val")[0].eval_split_name == "val"
    assert searched(SPLITS, "--eval_split_name", "val")[1] == []
    opt, notes = searched(SPLITS, "--eval_split_name", "all")
    assert (opt.eval_split_name, opt.eval_path, notes) == ("all", "val.jsonl", [])


def test_without_a_split_of_all_videos_it_is_said_how_many_are_left_out(searched):
    opt, (note,) = searched({"train": ["a", "b"], "val": ["c"]})
    assert opt.eval_split_name == "val"
    assert "of 3 videos" in note
    assert "only the 1 of split val" in note
    assert searched({"val": ["a"]})[1] == []


def test_inference_and_datasets_of_this_project_are_as_they_were(searched):
    assert searched(SPLITS, program=INFERENCE)[0].eval_split_name == "val"
    for program in (SEARCH, SERVE):
        opt, notes = searched(SPLITS, program=program, dset_name="tvr")
        assert (opt.eval_split_name, notes) == ("val", [])
