"""`train.sh own DATA_DIR` is `train.sh custom` with what extraction left in the folder, or says why it cannot be."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from method_tvr.options.own_preset import preset
from tests.support.shell import run_script
from utils.basic_utils import InputError
from utils.own_corpus.layout import SCRIPT

OPTIONS = {"subtitles": "/my/subtitles", "i3d_weights": None}
SETTINGS = {"bsz": 8}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder as extraction leaves it, as far as is looked at."""
    folder = tmp_path / "data" / "moved"  # since it was made: its files are still called as it was
    folder.mkdir(parents=True)
    record(folder)
    (folder / "my_training.json").write_text(json.dumps(SETTINGS))
    return folder


def record(folder: Path, **changed: object) -> Path:
    path = folder / "my_made_by.json"
    path.write_text(json.dumps({"made_by": SCRIPT, "options": OPTIONS, "settings": SETTINGS, **changed}))
    return path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["video_sub_tef", "resnet"]),
        ({"subtitles": None}, ["video_tef", "resnet"]),
        ({"i3d_weights": "i3d.pt"}, ["video_sub_tef", "resnet_i3d"]),
    ],
)
def test_what_the_model_sees_follows_from_what_was_extracted(corpus, options, words):
    record(corpus, options={**OPTIONS, **options})
    assert preset(str(corpus)) == ["custom", *words, "--settings", str(corpus / "my_training.json")]


def test_a_folder_is_named_as_it_was_typed(corpus, monkeypatch):
    monkeypatch.chdir(corpus.parent.parent)
    assert preset("data/moved/")[-1] == "data/moved/my_training.json"


def refused(corpus: Path) -> str:
    with pytest.raises(InputError) as said:
        preset(str(corpus))
    return str(said.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"made_by": "utils/mini_tvr.py"}, "says that 'utils/mini_tvr.py' made this corpus, not utils/extract_feat"),
        ({"made_by": ["\x1b[2J"]}, r"says that ['\x1b[2J'] made this corpus"),
        ({"options": None}, "does not say which options the corpus was made with"),
    ],
)
def test_a_record_of_another_making_is_refused(corpus, changed, said):
    record(corpus, **changed)
    assert said in refused(corpus)


def test_what_is_no_folder_of_one_corpus_is_refused_with_the_remedy(corpus):
    assert "cannot be read (No such file or directory): give the folder that" in refused(corpus / "none")
    (corpus / "other_made_by.json").write_text("{}")
    assert "holds 2 corpora, by my_made_by.json, other_made_by.json: move the files" in refused(corpus)
    for path in corpus.glob("*_made_by.json"):
        path.unlink()
    assert "holds no NAME_made_by.json, which extraction writes last" in refused(corpus)


def test_a_corpus_that_cannot_be_trained_on_is_told_from_one_that_is_old_or_damaged(corpus):
    (corpus / "my_training.json").unlink()
    assert re.search(r"my_training\.json: is missing: put it back", refused(corpus))
    record(corpus, settings={})
    assert "has no training queries, or none to evaluate on: give utils/extract_features.sh sentences" in refused(
        corpus
    )
    record(corpus, settings=None)
    assert "is of an earlier version, which wrote no my_training.json: run the command" in refused(corpus)
    (corpus / "my_training.json").write_text("{}")  # the user's own
    assert preset(str(corpus))[0] == "custom"


def test_the_script_ends_with_the_message_and_with_its_code(corpus):
    for path in corpus.glob("*_made_by.json"):
        path.unlink()
    ended = run_script("method_tvr/scripts/train.sh", "own", corpus, "--exp_id", "x")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "holds no NAME_made_by.json" in ended.stderr
    ended = run_script("method_tvr/scripts/train.sh", "own")
    assert ended.returncode == 2
    assert "usage: train.sh DSET" in ended.stderr
