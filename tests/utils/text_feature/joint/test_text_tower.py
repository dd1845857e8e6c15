"""The text towers of CLIP, SigLIP and SigLIP 2 give what transformers gives, for tokens and for whole sentences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from tests.support.joint_models import KINDS, LONGEST, PROJECTED, SIZE, tiny_joint_model
from tests.support.text_models import build_model, sentences
from utils.basic_utils import InputError
from utils.pretrained.joint_model import load_joint_model
from utils.text_feature.joint.neutral import NEUTRAL_SENTENCES
from utils.text_feature.joint.open_encoder import open_text_encoder
from utils.text_feature.joint.text_tower import JointTextEncoder, open_sentence_encoder
from utils.text_feature.text_encoder import TextEncoder

TEXTS = ["Nora opens the old drawer.", "Sam.", "A red bicycle, " * 10]  # the last is cut


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: tiny_joint_model(tmp_path_factory.mktemp("joint") / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def encoders(folders: dict[str, Path]) -> dict[str, JointTextEncoder]:
    return {kind: JointTextEncoder(load_joint_model(f"hf/{folder}")) for kind, folder in folders.items()}


def theirs(folder: Path, kind: str, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Of transformers: the projected vectors (n, D), and of all tokens (n, L, size)."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    padding = True if kind == "clip" else "max_length"  # as the documentation of each says
    given = tokenizer(texts, padding=padding, max_length=LONGEST, truncation=True, return_tensors="pt")
    with torch.no_grad():
        found = model.get_text_features(**given)
        tokens = model.text_model(**given).last_hidden_state
    return getattr(found, "pooler_output", found).numpy(), tokens.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_are_those_of_transformers(folders, encoders, kind: str) -> None:
    expected, _ = theirs(folders[kind], kind, TEXTS)
    found = encoders[kind].sentences(TEXTS)
    assert (found.shape, found.dtype) == ((3, 2, PROJECTED[kind]), np.float32)
    np.testing.assert_allclose(found[:, 0], expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_the_last_hidden_state_without_special_tokens(folders, encoders, kind: str) -> None:
    encoder = encoders[kind]
    assert (encoder.size, encoder.max_length, encoder.most) == (SIZE, LONGEST, LONGEST)
    _, expected = theirs(folders[kind], kind, TEXTS)
    first = kind == "clip"  # of SigLIP, no token comes before
    lengths = [min(len(ids), encoder.max_tokens) for ids in encoder.tokenizer.ids(TEXTS)]
    assert len(set(lengths)) == 3
    for row, (tokens, length) in enumerate(zip(encoder.encode(TEXTS), lengths, strict=True)):
        np.testing.assert_allclose(tokens, expected[row, first : first + length], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_row_1_has_what_sentences_share_taken_out(folders, encoders, kind: str) -> None:
    unit = [
        vector / np.linalg.norm(vector) for vector in theirs(folders[kind], kind, [*NEUTRAL_SENTENCES, TEXTS[0]])[0]
    ]
    expected = unit[-1] - np.mean(unit[:-1], axis=0)
    found = encoders[kind].sentences(TEXTS[:1])[0, 1]
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)
    assert len(NEUTRAL_SENTENCES) == 16


@pytest.mark.parametrize("kind", KINDS)
def test_batches_do_not_matter_and_blank_texts_are_zero(folders, encoders, kind: str) -> None:
    together = encoders[kind].sentences([*TEXTS, " \n", ""])
    alone = JointTextEncoder(load_joint_model(str(folders[kind])), batch_size=1)
    np.testing.assert_allclose(alone.sentences(TEXTS), together[:3], atol=1e-5)
    assert not together[3:].any()
    assert alone.sentences([]).shape == (0, 2, PROJECTED[kind])
    assert not len(alone.encode(["", "Sam."])[0])


def test_bfloat16_is_near_and_is_on_record(folders, encoders) -> None:
    rounded = open_text_encoder(str(folders["clip"]), bf16=True)
    exact = encoders["clip"].sentences(TEXTS)
    assert 0 < abs(rounded.sentences(TEXTS) - exact).max() < 0.05
    assert (rounded.properties()["precision"], encoders["clip"].properties()["precision"]) == ("bfloat16", "float32")


def test_a_name_is_opened_by_what_its_config_says(folders, tmp_path: Path) -> None:
    assert isinstance(open_text_encoder(str(folders["clip"])), JointTextEncoder)
    assert isinstance(open_text_encoder(f"hf/{folders['siglip']}"), JointTextEncoder)
    roberta = str(build_model(tmp_path / "roberta"))
    language_model = open_text_encoder(roberta)
    assert isinstance(language_model, TextEncoder)
    assert language_model.layer == -2
    with pytest.raises(InputError, match=r"is a roberta, not a model of images and text"):
        open_text_encoder(f"hf/{roberta}")
    with pytest.raises(InputError, match=r"--layer -1: .*leave it out"):
        open_text_encoder(str(folders["clip"]), layer=-1)


def test_the_record_names_model_weights_and_what_was_read(folders, encoders) -> None:
    encoder = encoders["clip"]
    weights = encoder.joint.digest
    common = {"model": "clip", "weights": weights, "precision": "float32"}
    assert encoder.properties() == {**common, "layer": "last_hidden_state", "max_length": LONGEST}
    projected = {"layer": "projected", "max_length": LONGEST, "normalised": "L2"}
    assert encoder.sentence_properties() == {**common, **projected}
    assert encoder.cut_to(8).properties()["max_length"] == 8
    assert encoder.cut_to(8).encode(TEXTS)[2].shape == (6, SIZE)


def test_only_the_model_on_record_is_opened_for_sentences(folders, encoders, tmp_path: Path) -> None:
    record = encoders["clip"].sentence_properties()
    same = open_sentence_encoder(str(folders["clip"]), record)
    np.testing.assert_array_equal(same.sentences(TEXTS), encoders["clip"].sentences(TEXTS))
    other = tiny_joint_model(tmp_path / "clip", "clip", seed=1)
    with pytest.raises(InputError, match=r"is not the model that made the features"):
        open_sentence_encoder(str(other), record)


def test_siglips_own_tokenizer_is_read_as_transformers_reads_it(folders, tmp_path: Path) -> None:
    """As on the hub: a sentencepiece model, and the padding of its class."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = Path(shutil.copytree(folders["siglip"], tmp_path / "siglip"))
    (folder / "tokenizer.json").unlink()
    ids = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    with open(folder / "spiece.model", "wb") as file:
        lines = iter([sentence.lower() for sentence in sentences(24)])
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=file, vocab_size=90, hard_vocab_limit=False, minloglevel=2, **ids
        )
    about = {"tokenizer_class": "SiglipTokenizer", "model_max_length": LONGEST, "model_input_names": ["input_ids"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    expected, _ = theirs(folder, "siglip", TEXTS)
    found = JointTextEncoder(load_joint_model(str(folder))).sentences(TEXTS)
    np.testing.assert_allclose(found[:, 0], expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)


def test_without_sentencepiece_the_remedy_is_named(folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_args: object, **_options: object) -> None:
        raise ImportError("\n SiglipTokenizer requires the SentencePiece library but it was not found")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", load)
    with pytest.raises(InputError, match=r"SentencePiece library .*pip install -r utils/pretrained/requirements"):
        JointTextEncoder(load_joint_model(str(folders["siglip"])))
