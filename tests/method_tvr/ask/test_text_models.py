"""New sentences are encoded by the language model that encoded the dataset's, once the user has agreed to it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from method_tvr.ask.asking import run_asking
from method_tvr.ask.text_models import _load
from method_tvr.config import parse_inference_options, parse_train_options
from method_tvr.inference import run_inference
from method_tvr.model import ModelConfig, ReLoCLNet
from method_tvr.options.saved import load_options, save_options
from method_tvr.training.checkpoint import load_checkpoint, save_checkpoint
from tests.support.joint_models import tiny_joint_model
from tests.support.runs.tiny_corpus import Corpus
from tests.support.search.asking import answers_in, ask, options_of
from tests.support.text_models import SIZE, build_model
from utils.basic_utils import InputError
from utils.mini_tvr import TINY
from utils.text_feature.extract_text_features import extract_queries
from utils.text_feature.joint.open_encoder import open_text_encoder
from utils.text_feature.text_encoder import TextEncoder


class Terminal:
    """A terminal at which somebody types an answer."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self, *_: object) -> str:
        return self._answer


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("language_model") / "tiny-lm")


@pytest.fixture(scope="module")
def queries(tiny_corpus: Corpus) -> list[dict]:
    return [json.loads(line) for line in tiny_corpus.annotations("val").read_text().splitlines()]


def save_model(folder: Path, features: dict | None = None) -> None:
    """An untrained model that takes what the language model makes."""
    sizes = {"visual_input_size": TINY.vid_feat_size + 2, "sub_input_size": TINY.text_feat_size + 2}
    torch.manual_seed(3)
    config = ModelConfig(**sizes, query_input_size=SIZE, hidden_size=16, n_heads=2, max_ctx_l=40)
    save_checkpoint(folder / "model.ckpt", ReLoCLNet(config), 0, features)


@pytest.fixture(scope="module")
def asked_of_lm(tiny_corpus, language_model, queries, tmp_path_factory) -> Path:
    """A results folder whose model takes the query features that the language model makes, and remembers that."""
    root = tmp_path_factory.mktemp("lm")
    folder = root / "run"
    folder.mkdir()
    encoder = TextEncoder(str(language_model), layer=-1, max_length=12)
    extract_queries(queries, encoder, root / "query.h5")
    save_model(folder, {"query": encoder.properties()})
    save_options(parse_train_options(tiny_corpus.options(exp_id="lm", desc_bert_path=root / "query.h5")), folder)
    return folder


def test_with_the_model_typed_a_query_gets_the_moments_of_its_features(
    tiny_corpus, asked_of_lm, language_model, queries
):
    run_inference(parse_inference_options(options_of(asked_of_lm, eval_path=tiny_corpus.annotations("val"))))
    (path,) = asked_of_lm.glob("inference_*_predictions_VCMR_SVMR_VR.json")
    stored = json.loads(path.read_text())
    name_of = {idx: name for name, idx in stored["video2idx"].items()}
    answers = ask(asked_of_lm, query=[row["desc"] for row in queries], text_model=language_model, top_k=5)
    for answer, entry in zip(answers, stored["VCMR"], strict=True):
        found = [(moment["vid_name"], moment["start"], moment["end"]) for moment in answer["moments"]]
        assert found == [(name_of[idx], start, end) for idx, start, end, _ in entry["predictions"][:5]]
        scores = [moment["score"] for moment in answer["moments"]]
        np.testing.assert_allclose(scores, [row[3] for row in entry["predictions"][:5]], rtol=1e-4)
    assert answers_in(asked_of_lm)["text_model"] == str(language_model)


def test_tokens_past_the_language_models_length_are_noted(asked_of_lm, language_model, capsys):
    ask(
        asked_of_lm,
        query="Nora opens the old drawer in the kitchen of the old house today again",
        text_model=language_model,
    )
    assert "tokens only the first 10 are looked at" in capsys.readouterr().err


def refusal(folder: Path, **options: object) -> str:
    with pytest.raises(InputError) as refused:
        run_asking(parse_inference_options(options_of(folder, query="Nora", **options)))
    return str(refused.value)


def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the language models that are loaded from now on, which are not."""
    loaded: list[str] = []

    def load(name: str, *_: object) -> None:
        loaded.append(name)
        raise InputError("loaded")

    monkeypatch.setattr("method_tvr.ask.text_models._load", load)
    return loaded


def test_a_name_in_a_file_is_not_used_when_nobody_can_be_asked(asked_of_lm, monkeypatch):
    loaded = loads(monkeypatch)
    with open("/dev/null") as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        assert "give --text_model tiny-lm if you trust it" in refusal(asked_of_lm)
    assert loaded == []


@dataclass
class Own:
    """A model of a corpus of the user's own, and where that has its record."""

    folder: Path
    durations: Path
    record: Path

    def refusal(self, recorded: object) -> str:
        """What is said where this text model is on record."""
        self.record.write_text(json.dumps({"options": {"text_model": recorded}}))
        return refusal(self.folder, video_duration_idx_path=self.durations)


@pytest.fixture
def own(asked_of_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Own]:
    """Nobody is there to be asked."""
    folder = Path(shutil.copytree(asked_of_lm, tmp_path / "run"))
    durations = Path(shutil.copy(load_options(folder)["video_duration_idx_path"], tmp_path / "my_video2dur_idx.json"))
    with open("/dev/null") as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        yield Own(folder, durations, tmp_path / "my_made_by.json")


def test_of_a_corpus_of_ones_own_the_folder_on_record_is_named(own, monkeypatch):
    loaded = loads(monkeypatch)
    for recorded, named in (
        ("/moved/since/tiny-lm", "/moved/since/tiny-lm"),
        ("gone/tiny-lm", "tiny-lm"),
        ("/of/another/model", "tiny-lm"),
        (["no", "text"], "tiny-lm"),
    ):
        assert f"give --text_model {named} if you trust it" in own.refusal(recorded)
    assert loaded == []


def test_of_a_corpus_of_ones_own_the_folder_that_is_there_is_loaded_unasked_and_said(
    own, language_model, monkeypatch, capsys
):
    loaded = loads(monkeypatch)
    assert own.refusal(str(language_model)) == "loaded"
    assert loaded == [str(language_model)]
    said = f"note: sentences are encoded by {language_model}, which made this corpus by {own.record}: --text_model"
    assert said in capsys.readouterr().err


def test_where_others_can_write_the_record_the_user_is_asked(own, language_model, monkeypatch, capsys):
    loaded = loads(monkeypatch)
    own.refusal(str(language_model))
    for place in (own.record, own.record.parent):
        mode = place.stat().st_mode
        place.chmod(0o777)
        capsys.readouterr()
        assert f"give --text_model {language_model} if you trust it" in own.refusal(str(language_model))
        assert f"note: {own.record}: it or its folder can be written to by other users, so" in capsys.readouterr().err
        place.chmod(mode)
    assert loaded == [str(language_model)]


def test_a_folder_on_record_by_a_part_of_its_path_is_asked_about(own, language_model, monkeypatch):
    loaded = loads(monkeypatch)
    monkeypatch.chdir(language_model.parent)
    assert "give --text_model tiny-lm if you trust it" in own.refusal("tiny-lm")
    assert loaded == []


def test_a_name_of_the_hub_on_record_is_loaded_unasked_only_if_it_was_before(own, tmp_path, monkeypatch):
    loaded, cache = loads(monkeypatch), tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    save_model(own.folder, {"query": {"model": "some/tiny-lm"}})
    assert "give --text_model some/tiny-lm if you trust it" in own.refusal("some/tiny-lm")
    assert loaded == []
    of_model = cache / "models--some--tiny-lm"
    (of_model / "refs").mkdir(parents=True)
    (of_model / "refs" / "main").write_text("0")
    (of_model / "snapshots" / "0").mkdir(parents=True)
    (of_model / "snapshots" / "0" / "config.json").write_text("{}")
    assert own.refusal("some/tiny-lm") == "loaded"
    assert loaded == ["some/tiny-lm"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("y\n", ["tiny-lm"]), ("Yes \n", ["tiny-lm"]), ("n\n", []), ("\n", []), ("", []), ("yo\n", [])],
)
def test_at_a_terminal_the_user_is_asked(asked_of_lm, monkeypatch, capsys, answer, expected):
    loaded = loads(monkeypatch)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    said = refusal(asked_of_lm)
    assert loaded == expected
    assert said == ("loaded" if expected else "no text model was agreed to: name one with --text_model")
    captured = capsys.readouterr()
    assert "made by tiny-lm, according to the files" in captured.err
    assert "Load tiny-lm" in captured.out


def test_without_any_record_the_user_has_to_name_the_model(asked_of_lm, tmp_path):
    with h5py.File(tmp_path / "query.h5", "w") as h5_file:
        h5_file["1"] = np.ones((2, SIZE), np.float32)
    folder = Path(shutil.copytree(asked_of_lm, tmp_path / "run"))
    save_model(folder)
    assert "says which one it was: name it with --text_model" in refusal(folder, desc_bert_path=tmp_path / "query.h5")


def test_another_model_is_refused_by_its_weights_and_its_size(asked_of_lm, language_model, tmp_path):
    other = build_model(tmp_path / "tiny-lm", n_layers=2)
    said = refusal(asked_of_lm, text_model=other)
    assert "is not what made the query features: weights " in said
    assert "(theirs: " in said
    folder = Path(shutil.copytree(asked_of_lm, tmp_path / "run"))
    config = load_checkpoint(folder / "model.ckpt").config
    save_checkpoint(folder / "model.ckpt", ReLoCLNet(replace(config, query_input_size=16)), 0)
    named = {"text_model": language_model, "desc_bert_path": tmp_path / "none.h5"}
    assert "its tokens have 32 features, but the model" in refusal(folder, **named)


def test_models_that_are_not_there_are_named(asked_of_lm, tmp_path):
    assert "nothing" in refusal(asked_of_lm, text_model=tmp_path / "nothing")


def test_a_model_without_a_record_of_its_weights_is_used_with_a_note(asked_of_lm, language_model, tmp_path, capsys):
    folder = Path(shutil.copytree(asked_of_lm, tmp_path / "run"))
    save_model(folder, {"query": {"model": "roberta-base"}})
    assert ask(folder, query="Nora", text_model=language_model, desc_bert_path=tmp_path / "none.h5")[0]["moments"]
    assert "no record of the weights that made the query features" in capsys.readouterr().err


def test_a_model_of_images_and_text_is_opened_by_what_it_has_on_record(tmp_path: Path) -> None:
    clip, other = tiny_joint_model(tmp_path / "clip", "clip"), tiny_joint_model(tmp_path / "other", "clip", seed=1)
    record = open_text_encoder(f"hf/{clip}", max_length=12).properties()
    encoder = _load(f"hf/{clip}", record, torch.device("cpu"))
    assert (encoder.properties(), encoder.max_tokens) == (record, 10)
    with pytest.raises(InputError, match=r"is not what made the query features: weights"):
        _load(str(other), record, torch.device("cpu"))
