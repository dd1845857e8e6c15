"""A dataset is one entry: where its files lie, and what is special about it."""

import dataclasses

import pytest

from method_tvr import dset_configs, train
from method_tvr.dset_configs import DATASETS, VIDEO_FILES, DatasetConfig
from tests.support.runs.tiny_corpus import SMALL_MODEL, as_argv
from utils import mini_tvr
from utils.basic_utils import read_json
from utils.mini_corpus.files import query_feature_path, sub_feature_path, video_feature_path


def test_mini_is_generated_on_first_use_where_the_options_look_for_it(tmp_path, monkeypatch, capsys):
    made = []
    generate = mini_tvr.generate
    monkeypatch.setattr(mini_tvr, "generate", lambda root, settings: made.append(root) or generate(root, mini_tvr.TINY))
    monkeypatch.setattr(dset_configs, "PROJECT_ROOT", tmp_path)
    mini = DATASETS["mini"]
    mini.ensure()
    mini.ensure()
    assert made == [tmp_path / "data" / "mini"]
    assert "generating the mini corpus" in capsys.readouterr().out
    paths = [mini.video_duration_idx_path, mini.sub_feature_path]
    paths += [mini.query_feature_path(with_sub) for with_sub in (True, False)]
    paths += [mini.annotation_path(split) for split in ("train", "val", "test_public")]
    paths += [mini.video_feature_path(kind) for kind in VIDEO_FILES]
    assert all((tmp_path / path).is_file() for path in paths)


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
    DatasetConfig(name="x", root="nowhere", prefix="x").ensure()
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
