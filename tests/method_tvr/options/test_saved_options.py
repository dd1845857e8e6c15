"""An opt.json brings values of options, and neither names of places to write to nor, unsaid, far files to read."""

import pytest

from method_tvr.config import parse_inference_options, parse_train_options
from method_tvr.options.saved import find_path, load_options, save_options
from utils.basic_utils import InputError, write_json


@pytest.fixture
def model_dir(tmp_path):
    """Makes a results folder of an opt.json alone."""

    def make(name: str = "run", **options: object) -> str:
        opt = parse_train_options(["--dset_name", "tvr", "--exp_id", "x"])
        opt.update(options)
        save_options(opt, tmp_path / name)
        return str(tmp_path / name)

    return make


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_ctx_l", None), ("ctx_mode", None), ("eval_tasks_at_training", []), ("eval_tasks_at_training", "VCMR"),
     ("vid_feat_path", "a\0b"), ("exp_id", [[[]]])],
)  # fmt: skip
def test_a_saved_option_that_could_not_be_typed_is_named(model_dir, name, value):
    with pytest.raises(InputError, match=rf"opt.json: {name} .*mend the file"):
        parse_inference_options(["--model_dir", model_dir(**{name: value})])


def test_names_that_are_no_options_are_warned_of_and_passed_over(model_dir, capsys):
    saved = model_dir()
    options = load_options(saved) | {"results_dir": "elsewhere", "items": "x", "eval_id": "y", "\x1b[2J": 1}
    write_json(options, f"{saved}/opt.json")
    opt = parse_inference_options(["--model_dir", saved])
    assert (opt.eval_id, dict(opt).get("results_dir"), dict(opt.items()).get("items")) == ("x", None, None)
    warning = capsys.readouterr().err
    assert "unknown here are passed over: 'items', 'eval_id', '\\x1b[2J'" in warning
    assert "results_dir" not in warning


def test_what_training_saved_is_known(model_dir, capsys):
    parse_inference_options(["--model_dir", model_dir(results_dir="r")])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("value", ["a/b", "../x", "..", "/x", "a\\b", "a\nb", "\x1b[2J", "x" * 101, "ü" * 51])
def test_names_that_lead_elsewhere_or_are_too_long_are_refused(model_dir, value):
    with pytest.raises(InputError, match=r"--exp_id .* file names"):
        parse_train_options(["--dset_name", "tvr", "--exp_id", value])
    with pytest.raises(InputError, match=r"--eval_id .* file names|--exp_id .* file names"):
        parse_inference_options(["--model_dir", model_dir(exp_id=value)])
    with pytest.raises(InputError, match=r"--eval_id .* file names"):
        parse_inference_options(["--model_dir", model_dir(), "--eval_id", value])
    with pytest.raises(InputError, match=r"--eval_split_name .* file names"):
        parse_inference_options(["--model_dir", model_dir(), "--eval_split_name", value])


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, with a feature file inside and one outside of it."""
    (tmp_path / "here" / "data").mkdir(parents=True)
    (tmp_path / "far").mkdir()
    for path in (tmp_path / "here" / "data" / "near.h5", tmp_path / "far" / "far.h5"):
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def parsed(model_dir, options, *typed):
    return parse_inference_options(["--model_dir", model_dir("here/run", **options), *typed])


@pytest.mark.parametrize(
    "options", [{}, {"vid_feat_path": "data/near.h5"}, {"train_path": "/somewhere/else"}, {"results_root": "/tmp"}]
)
def test_files_of_here_and_of_the_project_are_read_silently(here, model_dir, options, capsys):
    assert parsed(model_dir, options).feature_cache == "auto"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["vid_feat_path", "sub_bert_path", "desc_bert_path"])
@pytest.mark.parametrize("path", ["../far/far.h5", "{tmp}/far/far.h5", "data/../../far/far.h5"])
def test_features_far_away_are_mentioned_and_no_cache_is_made_beside_them(here, model_dir, name, path, capsys):
    options = {name: path.format(tmp=here.parent)}
    assert parsed(model_dir, options).feature_cache == "disk"
    said = capsys.readouterr().err
    assert f"--{name} {options[name]}" in said
    assert "no cache of packed features" in said
    assert parsed(model_dir, options, f"--{name}", options[name]).feature_cache == "auto"
    assert capsys.readouterr().err == ""
    for typed, chosen in ((("--feature_cache", "ram"), "ram"), (("--feature_cache_dir", "caches"), "auto")):
        assert parsed(model_dir, options, *typed).feature_cache == chosen
        assert f"--{name} {options[name]}" in capsys.readouterr().err


def test_a_cache_that_is_there_already_is_used(here, model_dir):
    (here.parent / "far" / "far.h5.cache").mkdir()
    assert parsed(model_dir, {"vid_feat_path": "../far/far.h5"}).feature_cache == "auto"


@pytest.mark.parametrize("name", ["eval_path", "video_duration_idx_path"])
def test_annotations_far_away_are_mentioned(here, model_dir, name, capsys):
    assert parsed(model_dir, {name: "/etc/passwd"}).feature_cache == "auto"
    assert f"--{name} /etc/passwd" in capsys.readouterr().err


def test_links_out_of_the_results_folder_are_mentioned_and_not_written_through(here, model_dir, capsys):
    (here / "run").mkdir()
    (here / "run" / "link.h5").symlink_to(here.parent / "far" / "far.h5")
    (here / "run" / "own.h5").write_bytes(b"")
    (here / "run" / "own.h5.cache").symlink_to(here.parent / "far")
    assert parsed(model_dir, {"vid_feat_path": "run/link.h5"}).feature_cache == "auto"
    assert "--vid_feat_path run/link.h5" in capsys.readouterr().err
    assert parsed(model_dir, {"vid_feat_path": "run/own.h5"}).feature_cache == "disk"
    assert "no cache" in capsys.readouterr().err


def test_links_of_the_users_own_are_followed_silently(here, model_dir, capsys):
    (here / "features").symlink_to(here.parent / "far")
    assert parsed(model_dir, {"vid_feat_path": "features/far.h5"}).feature_cache == "auto"
    assert capsys.readouterr().err == ""


def test_a_resumed_run_writes_caches_only_where_it_is_told_to(here, model_dir, capsys):
    saved = model_dir("here/run", feature_cache_dir="../far", vid_feat_path="../far/far.h5")
    opt = parse_train_options(["--resume", saved])
    assert (opt.feature_cache_dir, opt.feature_cache) == (None, "disk")
    assert "--feature_cache_dir ../far" in capsys.readouterr().err
    opt = parse_train_options(["--resume", saved, "--feature_cache_dir", "../far"])
    assert (opt.feature_cache_dir, opt.feature_cache) == ("../far", "auto")


def test_a_hostile_path_is_a_path_that_is_not_there(model_dir):
    opt = parse_inference_options(["--model_dir", model_dir(vid_feat_path="x" * 5000)])
    assert str(find_path(opt.vid_feat_path)) == "x" * 5000
