"""Token features are those of transformers, whatever the batches, and models that do not fit are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from tests.support.text_models import LONGEST, N_LAYERS, SIZE, build_model, minilm, sentences
from utils.basic_utils import InputError
from utils.text_feature.pretrained import load_masked_lm
from utils.text_feature.text_encoder import TextEncoder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("models") / "tiny")


def theirs(folder: Path, sentence: str, layer: int, max_length: int) -> np.ndarray:
    """Hidden states of one sentence as transformers gives them, rows of special tokens taken out by its own mask."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).float().eval()
    inputs = tokenizer(
        sentence, return_tensors="pt", truncation=True, max_length=max_length, return_special_tokens_mask=True
    )
    special = inputs.pop("special_tokens_mask")[0].bool()
    with torch.inference_mode():
        hidden = model(**inputs, output_hidden_states=True).hidden_states
    return hidden[layer][0][~special].numpy()


@pytest.mark.parametrize("layer", [-2, -1, 1])
@pytest.mark.parametrize("max_length", [10, LONGEST])
def test_features_of_the_tiny_model_are_those_of_transformers(tiny: Path, layer: int, max_length: int):
    encoder = TextEncoder(str(tiny), layer, max_length)
    texts = [*sentences(7), "x", "A much longer one, " + "again and " * 20]
    for text, features in zip(texts, encoder.encode(texts), strict=True):
        expected = theirs(tiny, text, layer, max_length)
        assert features.shape == expected.shape
        assert features.dtype == np.float32
        np.testing.assert_allclose(features, expected, atol=1e-5)


def test_features_of_a_real_model_are_those_of_transformers():
    folder = minilm()
    encoder = TextEncoder(str(folder), layer=-2, max_length=32)
    texts = ["Phoebe puts one of her ponytails in her mouth.", "coffee", "naïve – 東京"]
    for text, features in zip(texts, encoder.encode(texts), strict=True):
        np.testing.assert_allclose(features, theirs(folder, text, -2, 32), atol=1e-5)
    assert encoder.size == 384


def test_a_real_model_s_features_know_what_words_mean():
    encoder = TextEncoder(str(minilm()), layer=-2, max_length=32)
    means = [f.mean(axis=0) for f in encoder.encode(["A man drinks coffee.", "Someone has a cup of tea.", "He fell."])]
    units = [mean / np.linalg.norm(mean) for mean in means]
    assert units[0] @ units[1] > units[0] @ units[2] + 0.05


def test_the_default_is_the_second_to_last_layer_and_differs_from_the_last(tiny: Path):
    text = sentences(1)
    default, last = (encoder.encode(text)[0] for encoder in (TextEncoder(str(tiny)), TextEncoder(str(tiny), -1)))
    assert np.abs(default - last).max() > 0.01
    np.testing.assert_array_equal(default, TextEncoder(str(tiny), N_LAYERS - 1).encode(text)[0])


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_features_do_not_depend_on_batches_or_order(tiny: Path, batch_size: int):
    texts = [text + " again" * (i % 5) for i, text in enumerate(sentences(17))]
    alone = TextEncoder(str(tiny), batch_size=1)
    expected = [alone.encode([text])[0] for text in texts]
    found = TextEncoder(str(tiny), batch_size=batch_size).encode(texts[::-1])[::-1]
    for ours, one in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, one, atol=1e-5)


def test_blank_sentences_have_no_tokens(tiny: Path):
    features = TextEncoder(str(tiny)).encode(["", " \n", "a"])
    assert [array.shape for array in features] == [(0, SIZE), (0, SIZE), (1, SIZE)]
    assert TextEncoder(str(tiny)).encode([]) == []


def test_bf16_rounds_and_gives_float32(tiny: Path):
    texts = sentences(3)
    exact, rounded = (TextEncoder(str(tiny), bf16=bf16).encode(texts) for bf16 in (False, True))
    for one, other in zip(exact, rounded, strict=True):
        assert other.dtype == np.float32
        assert 0 < np.abs(one - other).max() < 0.1


def test_words_of_a_line_are_not_glued_to_the_line_before(tiny: Path):
    tokenizer = TextEncoder(str(tiny)).tokenizer
    both = tokenizer.line_ids(["Nora opens ", " the old drawer", "", "  "])
    assert both[0] + both[1] == tokenizer.ids([" Nora opens the old drawer"])[0]
    assert both[2:] == [[], []]


class TestRecord:
    def test_it_names_model_weights_layer_and_length(self, tiny: Path, tmp_path: Path):
        record = TextEncoder(str(tiny), layer=-1, max_length=20).properties()
        assert {name: record[name] for name in ("model", "layer", "max_length", "precision")} == {
            "model": "tiny",
            "layer": "-1",
            "max_length": 20,
            "precision": "float32",
        }
        assert len(record["weights"]) == 16

    def test_the_digest_is_the_same_each_time_and_follows_the_weights_alone(self, tiny: Path, tmp_path: Path):
        """The file has no pooler, which transformers then draws at random: it must not count."""
        digest = TextEncoder(str(tiny)).properties()["weights"]
        assert TextEncoder(str(tiny), layer=-1).properties()["weights"] == digest
        copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
        assert TextEncoder(f"{copy}/").properties()["weights"] == digest
        assert TextEncoder(f"{copy}/").properties()["model"] == "copy"
        model = load_masked_lm(str(copy)).model
        with torch.no_grad():
            next(model.parameters())[0, 0] += 1
        model.save_pretrained(copy)
        assert TextEncoder(str(copy)).properties()["weights"] != digest


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"layer": 4}, "--layer 4"),
            ({"layer": -5}, "--layer -5"),
            ({"max_length": 2}, "--max_length 2"),
            ({"max_length": LONGEST + 1}, f"3 to {LONGEST} tokens"),
            ({"batch_size": 0}, "--batch_size 0"),
        ],
    )
    def test_options_that_do_not_fit_the_model(self, tiny: Path, options: dict, message: str):
        with pytest.raises(InputError, match=message):
            TextEncoder(str(tiny), **options)

    def test_the_longest_sequence_works(self, tiny: Path):
        assert len(TextEncoder(str(tiny), max_length=LONGEST).encode(["x " * 100])[0]) == LONGEST - 2

    @pytest.mark.parametrize("name", ["/no/such/folder", "./none", "a name, no model"])
    def test_names_of_nothing(self, name: str):
        with pytest.raises(InputError, match=r"no such folder|cannot be loaded"):
            TextEncoder(name)

    def test_a_folder_without_a_model(self, tmp_path: Path):
        with pytest.raises(InputError, match=r"has no config\.json"):
            TextEncoder(str(tmp_path))

    @pytest.mark.parametrize("damage", ["truncated", "other sizes", "no weights", "fewer layers", "garbage config"])
    def test_a_damaged_model(self, tiny: Path, tmp_path: Path, damage: str):
        folder = Path(shutil.copytree(tiny, tmp_path / damage))
        weights, config = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
        if damage == "truncated":
            weights.write_bytes(weights.read_bytes()[:1000])
        elif damage == "no weights":
            weights.unlink()
        elif damage == "garbage config":
            (folder / "config.json").write_text("{")
        else:
            config.update({"intermediate_size": 128} if damage == "other sizes" else {"num_hidden_layers": 5})
            (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match=damage):
            TextEncoder(str(folder))

    def test_code_that_comes_with_a_model_is_not_run(self, tiny: Path, tmp_path: Path):
        folder = Path(shutil.copytree(tiny, tmp_path / "model"))
        config = json.loads((folder / "config.json").read_text())
        auto_map = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoModelForMaskedLM": "evil.Model"}
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": auto_map}))
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
        for load in (TextEncoder, load_masked_lm):
            with pytest.raises(InputError, match="cannot be loaded"):
                load(str(folder))
        assert not (tmp_path / "was_run").exists()
