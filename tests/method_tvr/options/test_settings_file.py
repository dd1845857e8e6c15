"""A corpus' own settings: taken unless others are typed, kept with the run, and no more than values of options."""

import json
import re

import pytest

from method_tvr.config import parse_train_options
from utils.basic_utils import InputError
from utils.own_corpus.settings import fitted

FILES = {"train_path": "train.jsonl", "video_duration_idx_path": "d.json", "vid_feat_path": "f/v.h5"}
OWN = {**FILES, "desc_bert_path": "q.h5", "clip_length": 2.0, "label_rule": "best_iou", "bsz": 8, "trim_padding": True}
REQUIRED = ["--dset_name", "custom", "--exp_id", "x", "--ctx_mode", "video_tef"]


@pytest.fixture
def parsed(tmp_path):
    """Options of a run with settings in a file, and with others typed."""

    def parsed(settings: object, *typed: str):
        path = tmp_path / "my_training.json"
        path.write_text(json.dumps(settings))
        return parse_train_options([*REQUIRED, "--settings", str(path), *typed])

    return parsed


def test_settings_come_from_the_file_and_its_files_from_its_folder(parsed, tmp_path):
    opt = parsed(OWN)
    assert {name: opt[name] for name in OWN if name not in (*FILES, "desc_bert_path")} == {
        "clip_length": 2.0,
        "label_rule": "best_iou",
        "bsz": 8,
        "trim_padding": True,
    }
    assert {name: opt[name] for name in FILES} == {name: str(tmp_path / file) for name, file in FILES.items()}
    assert opt.settings == str(tmp_path / "my_training.json")  # on record in opt.json, as all options
    assert opt.lr == 1e-4


def test_what_is_typed_wins(parsed):
    opt = parsed(OWN, "--bsz", "16", "--train_path", "mine.jsonl", "--no-trim_padding")
    assert (opt.bsz, opt.train_path, opt.trim_padding) == (16, "mine.jsonl", False)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ([], "an object of options"),
        ({"bsz": "8"}, "bsz '8' is not what --bsz takes"),
        ({"bzs": 8}, "'bzs' is no option"),
        ({"results_root": "/tmp"}, "'results_root' is no option"),
        ({"feature_cache_dir": "/tmp"}, "'feature_cache_dir' is no option"),
        ({"settings": "other.json"}, "'settings' is no option"),
        ({"train_path": "/etc/passwd"}, "not in the folder"),
        ({"train_path": "../train.jsonl"}, "not in the folder"),
        ({**OWN, "bsz": 0}, "--bsz 0 must be above 0"),
    ],
)
def test_what_is_no_setting_is_refused_by_its_name(parsed, settings, named):
    with pytest.raises(InputError, match=re.escape(named)):
        parsed(settings)


def test_a_file_that_is_missing_is_said(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        parse_train_options([*REQUIRED, "--settings", str(tmp_path / "none.json")])


@pytest.mark.parametrize(
    ("n_queries", "bsz", "n_epoch"),
    [(1, 8, 200), (20, 8, 67), (50, 8, 30), (500, 8, 30), (5_000, 64, 30), (19_999, 128, 30), (50_000, 128, 100)],
)
def test_settings_fit_the_number_of_queries(n_queries, bsz, n_epoch):
    found = fitted(n_queries)
    assert (found["bsz"], found["n_epoch"]) == (bsz, n_epoch)
    assert (found["max_es_cnt"], found["lr"]) == ((10, 1e-4) if n_queries == 50_000 else (-1, 3e-4))
