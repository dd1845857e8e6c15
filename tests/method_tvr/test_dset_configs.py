"""A dataset is one entry: where its files lie, and what is special about it."""

import dataclasses

import pytest

from method_tvr import dset_configs, train
from method_tvr.dset_configs import DATASETS, VIDEO_FILES, DatasetConfig
from tests.support.runs.tiny_corpus import SMALL_MODEL, as_argv
from utils import mini_tvr
from utils.basic_utils import InputError, read_json
from utils.mini_corpus.files import query_feature_path, sub_feature_path, video_feature_path


@pytest.fixture
def tiny_mini(tmp_path, monkeypatch):
    """The entry of the mini corpus, which is tiny and lies in the folder `data/mini` of `tmp_path`."""
    generate = mini_tvr.generate
    monkeypatch.setattr(mini_tvr, "generate", lambda root, settings: generate(root, mini_tvr.TINY))
    monkeypatch.setattr(dset_configs, "PROJECT_ROOT", tmp_path)
    return DATASETS["mini"]


def content_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_mini_is_generated_on_first_use_where_the_options_look_for_it(tmp_path, tiny_mini, capsys):
    mini = tiny_mini
    mini.ensure(["elsewhere/val.jsonl"])
    assert not (tmp_path / "data").exists()
    mini.ensure([mini.annotation_path("val")])
    assert "generating the mini corpus" in capsys.readouterr().out
    made = content_of(tmp_path)
    mini.ensure([str(tmp_path / mini.annotation_path("val"))])
    assert capsys.readouterr() == ("", "")
    assert content_of(tmp_path) == made
    paths = [mini.video_duration_idx_path, mini.sub_feature_path]
    paths += [mini.query_feature_path(with_sub) for with_sub in (True, False)]
    paths += [mini.annotation_path(split) for split in ("train", "val", "test_public")]
    paths += [mini.video_feature_path(kind) for kind in VIDEO_FILES]
    assert all((tmp_path / path).is_file() for path in paths)


def test_an_edited_mini_corpus_is_used_as_it_is_and_said_once(tmp_path, tiny_mini, capsys):
    used = [tiny_mini.annotation_path("val")]
    tiny_mini.ensure(used)
    with open(tmp_path / used[0], "a") as file:
        file.write("\n")
    edited = content_of(tmp_path)
    capsys.readouterr()
    for _ in range(2):
        tiny_mini.ensure(used)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "changed since it was made, and used as it is: mini_val_release.jsonl" in err
    assert content_of(tmp_path) == edited


@pytest.mark.parametrize("name", ["mini_train_release.jsonl", "mini_made_by.json"])
def test_a_mini_corpus_that_lacks_a_file_is_not_replaced(tmp_path, tiny_mini, name):
    used = [tiny_mini.annotation_path("val")]
    tiny_mini.ensure(used)
    (tmp_path / "data" / "mini" / name).unlink()
    left = content_of(tmp_path)
    with pytest.raises(InputError, match=f"is not replaced, and lacks {name}: .* `python utils/mini_tvr.py ") as error:
        tiny_mini.ensure(used)
    assert content_of(tmp_path) == left
    # with the settings that it was made with, where these are known
    assert ("--n_train 20 --n_val 10 --n_test 5" in str(error.value)) == (name != "mini_made_by.json")


def test_files_of_ones_own_in_the_folder_of_the_mini_corpus_are_kept(tmp_path, tiny_mini):
    (tmp_path / "data" / "mini").mkdir(parents=True)
    own = tmp_path / tiny_mini.annotation_path("val")
    own.write_text("mine")
    with pytest.raises(InputError, match=r"is not replaced, and lacks mini_made_by\.json"):
        tiny_mini.ensure([tiny_mini.annotation_path("val")])
    assert content_of(tmp_path) == {own: b"mine"}


def test_a_generation_that_is_stopped_is_begun_again(tmp_path, tiny_mini, monkeypatch):
    def stopped(root, settings):
        (root / "mini_val_release.jsonl").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(mini_tvr, "generate", stopped)
        with pytest.raises(KeyboardInterrupt):
            tiny_mini.ensure([tiny_mini.annotation_path("val")])
    assert content_of(tmp_path) == {}
    tiny_mini.ensure([tiny_mini.annotation_path("val")])
    assert (tmp_path / tiny_mini.annotation_path("val")).is_file()


def test_mini_video_is_generated_by_the_first_training_which_sees_video_alone(tmp_path, monkeypatch, run_main):
    generate = mini_tvr.generate

    def tiny(root, settings):
        return generate(root, dataclasses.replace(mini_tvr.TINY, prefix=settings.prefix, subtitles=settings.subtitles))

    monkeypatch.setattr(mini_tvr, "generate", tiny)
    monkeypatch.setattr(dset_configs, "PROJECT_ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    argv = as_argv({"dset_name": "mini_video", "exp_id": "first", "n_epoch": 1, "bsz": 32, **SMALL_MODEL})
    finished = run_main(train.main, argv)
    assert finished.code == 0, finished.err
    assert "generating the mini_video corpus" in finished.out
    (folder,) = (tmp_path / "results").iterdir()
    assert folder.name.startswith("mini_video-video_tef-first-")
    assert not list((tmp_path / "data" / "mini_video").rglob("*_sub_pretrained_*"))
    opt = read_json(folder / "opt.json")
    assert (opt["clip_length"], opt["label_rule"], opt["max_pred_l"]) == (1.5, "floor_ceil", 16)
    metrics = read_json(folder / "inference_mini_video_val_first_predictions_VCMR_SVMR_VR_metrics.json")
    assert set(metrics) == {"VCMR", "SVMR", "VR"}  # queries about video alone have no types to tell apart
    again = run_main(train.main, [*argv, "--exp_id", "second"])
    assert again.code == 0, again.err
    assert "generating" not in again.out


def test_the_generator_and_the_datasets_agree_on_names(tmp_path):
    mini, root = DATASETS["mini"], tmp_path / "data" / "mini"
    assert tmp_path / mini.sub_feature_path == sub_feature_path(root, "mini")
    for with_sub in (True, False):
        assert tmp_path / mini.query_feature_path(with_sub) == query_feature_path(root, "mini")
    for kind in VIDEO_FILES:
        assert tmp_path / mini.video_feature_path(kind) == video_feature_path(root, "mini", kind)


def test_data_that_must_be_downloaded_is_not_generated():
    DatasetConfig(name="x", root="nowhere", prefix="x").ensure(["nowhere/x_val_release.jsonl"])
    assert DATASETS["tvr"].generate is None


@pytest.mark.parametrize(("split", "name"), [("test", "test_public"), ("val", "val"), ("test_public", "test_public")])
def test_test_means_test_public(split, name):
    assert {DATASETS[dataset].split_name(split) for dataset in ("tvr", "mini", "mini_video")} == {name}


def test_datasets_with_a_test_split_of_their_own_keep_its_name():
    assert {DATASETS[name].split_name("test") for name in ("anet_cap", "charades_sta", "didemo", "custom")} == {"test"}


def test_runs_without_subtitles_take_query_features_that_saw_none():
    folder = "data/tvr_feature_release/bert_feature"
    assert DATASETS["tvr"].query_feature_path(with_sub=True) == (
        f"{folder}/sub_query/tvr_query_pretrained_w_sub_query.h5"
    )
    assert DATASETS["tvr"].query_feature_path(with_sub=False) == f"{folder}/query_only/tvr_query_pretrained_w_query.h5"
