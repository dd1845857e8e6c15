"""A published model is the model: whoever loads it gets the same answers, or is told why not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from method_tvr import inference
from method_tvr.ask.searcher import MomentSearcher
from method_tvr.model import ModelConfig
from method_tvr.options.published import find_model
from method_tvr.publish import publish
from method_tvr.publish.card import inference_of
from method_tvr.trained.published_model import load_model, write_model
from method_tvr.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from method_tvr.xml_model import XMLConfig
from tests.support.runs.commands import ON_THE_CPU, SCRIPTS, Finished, bash
from tests.support.runs.tiny_corpus import Corpus, as_argv
from utils.basic_utils import InputError, read_json, write_json
from utils.content_digest import content_digest
from utils.storage.digests import DIGESTS, write_digests
from utils.storage.whole_folder import write_sealed

Run = Callable[..., Finished]
SENTENCE = "Nora opens the drawer."
PREDICTIONS = "inference_tvr_val_a_predictions_VCMR_SVMR_VR.json"


@pytest.fixture(scope="session")
def xml_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of XML that was not trained, of the tiny corpus."""
    folder = tmp_path_factory.mktemp("xml") / "run"
    trained = load_checkpoint(tiny_model / "model.ckpt")
    names = ("visual_input_size", "sub_input_size", "query_input_size", "ctx_mode")
    inputs = {name: getattr(trained.config, name) for name in names}
    model = XMLConfig(**inputs, hidden_size=8, n_heads=2, max_ctx_l=30).build(torch.Generator().manual_seed(1))
    folder.mkdir()
    save_checkpoint(folder / "model.ckpt", model, 3, trained.features)
    write_json({**read_json(tiny_model / "opt.json"), "model": "xml", "max_ctx_l": 30}, folder / "opt.json")
    return folder


def as_published(source: Path, out: Path) -> Path:
    publish.publish(str(source), str(out), "mit", False, "nowhere")
    return out


@pytest.fixture(params=["tiny_model", "xml_run"])
def run(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture
def published(tiny_model: Path, tmp_path: Path) -> Path:
    return as_published(tiny_model, tmp_path / "published")


def test_a_published_model_predicts_the_same_bytes(run, tmp_path, tiny_corpus: Corpus, run_main: Run):
    own = Path(shutil.copytree(run, tmp_path / "own", ignore=shutil.ignore_patterns("inference_*", "encoded_*")))
    others = as_published(own, tmp_path / "published")
    for folder in (own, others):
        argv = as_argv({"model_dir": folder, "eval_id": "a", **tiny_corpus.paths, "train_path": None})
        ended = run_main(inference.main, [*argv, *ON_THE_CPU])
        assert ended.code == 0, ended.err
    assert (others / PREDICTIONS).read_bytes() == (own / PREDICTIONS).read_bytes()
    assert not (others / "model.ckpt").exists()


def test_all_that_a_checkpoint_holds_is_published(run, tmp_path):
    ours, theirs = load_model(run), load_model(as_published(run, tmp_path / "published"))
    assert (theirs.config, theirs.epoch, theirs.features) == (ours.config, ours.epoch, ours.features)
    assert type(theirs.config) is type(ours.config)
    assert theirs.made_by == ours.made_by
    assert theirs.model_digest() == ours.model_digest()  # so that their encoded corpora are one another's
    assert read_json(tmp_path / "published" / "config.json")["model_cfg"]["name"] in ("reloclnet", "xml")


def test_a_searcher_of_a_published_model_answers_the_same(tiny_model, published, tiny_corpus: Corpus, tmp_path):
    own = Path(shutil.copytree(tiny_model, tmp_path / "own"))
    options = {"device": -1, **{name: str(path) for name, path in tiny_corpus.paths.items() if name != "train_path"}}
    ours = MomentSearcher.open(own, **options).search(SENTENCE)
    assert MomentSearcher.from_pretrained(published, **options).search(SENTENCE) == ours
    again = as_published(published, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (published / "model.safetensors").read_bytes()


def test_a_model_without_weights_is_published(tmp_path):
    empty = Checkpoint({}, ModelConfig(), 0, "a test")
    write_model(empty, tmp_path)
    with pytest.raises(InputError, match="weights do not fit its model_cfg"):  # of a model that has some
        load_model(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["epoch"] == 0


def test_no_path_of_this_machine_is_published(published, tiny_corpus: Corpus, tiny_model, tmp_path, capsys):
    for path in published.iterdir():
        assert str(tiny_corpus.root.parent).encode() not in path.read_bytes(), path
        assert str(tiny_model).encode() not in path.read_bytes(), path
    opt = read_json(tiny_model / "opt.json")
    folder = Path(shutil.copytree(tiny_model, tmp_path / "own"))
    write_json({**opt, "vid_feat_path": "data/my/video.h5"}, folder / "opt.json")
    told = publish.shared_options(str(folder))
    assert (told["vid_feat_path"], told["sub_bert_path"]) == ("data/my/video.h5", None)
    assert f"--sub_bert_path {opt['sub_bert_path']}" in capsys.readouterr().err


def test_the_card_says_what_the_hub_reads_and_how_results_were_made(tiny_model, tmp_path):
    own = Path(shutil.copytree(tiny_model, tmp_path / "own", ignore=shutil.ignore_patterns("inference_*")))
    metrics = {"VCMR": {"0.5-r1": 12.5, "0.7-r1": 7.5}, "VR": {"r1": 20.0}, "VR_by_type": {"v-r1": 1.0}}
    write_json(metrics, own / "inference_tvr_val_my_id_predictions_VCMR_VR_nms_thd_0.5_metrics.json")
    folder = as_published(own, tmp_path / "published")
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "mit"
    (one, two, three) = card.data.eval_results
    assert [(r.metric_name, r.metric_value, r.dataset_name, r.dataset_split) for r in (one, two, three)] == [
        ("VCMR 0.5-r1", 12.5, "tvr", "val"),
        ("VCMR 0.7-r1", 7.5, "tvr", "val"),
        ("VR r1", 20.0, "tvr", "val"),
    ]
    assert "method_tvr/scripts/inference.sh MODEL_DIR val --tasks VCMR VR --nms_thd 0.5\n" in card.content
    assert "| VCMR | 0.5 | 12.5 |" in card.content
    assert "| dataset | tvr |" in card.content
    assert read_json(folder / "metrics.json") == {
        "inference_tvr_val_my_id_predictions_VCMR_VR_nms_thd_0.5_metrics.json": metrics
    }
    inference_again = publish.metrics_of(folder)
    assert inference_again == read_json(folder / "metrics.json")


def test_a_name_that_leaves_the_split_open_gives_no_command():
    opt = {"dset_name": "tvr"}
    assert inference_of("inference_tvr_mine_x_predictions_VCMR_metrics.json", opt) is None
    found = inference_of("inference_tvr_test_public_x_val_y_predictions_VR_metrics.json", opt)
    assert found is not None
    assert found.options == "test_public --tasks VR"


@pytest.mark.parametrize("there", ["file", "folder", "link"])
def test_nothing_that_is_there_is_replaced(tiny_model, tmp_path, there):
    out = tmp_path / "out"
    if there == "file":
        out.write_text("mine")
    elif there == "link":
        out.symlink_to(tmp_path / "nothing")
    else:
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        as_published(tiny_model, out)
    assert there == "link" or (out if there == "file" else out / "notes.txt").read_text() == "mine"


def test_a_failed_publication_leaves_nothing(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(publish, "write_digests", lambda folder: 1 / 0)
    (tmp_path / "out").mkdir()
    with pytest.raises(ZeroDivisionError):
        as_published(tiny_model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert list((tmp_path / "out").iterdir()) == []


def spoil(folder: Path, name: str, change: Callable[[bytes], bytes], sealed: bool) -> None:
    """Change a published file; `sealed`: as somebody does who writes the digests anew."""
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    if sealed:
        write_digests(folder)


def changed_config(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    def changed(text: bytes) -> bytes:
        config = json.loads(text)
        change(config)
        return json.dumps(config).encode()

    return changed


@pytest.mark.parametrize(
    ("name", "change", "sealed", "said"),
    [
        ("model.safetensors", lambda b: b[:-8], False, r"safetensors: has \d+ bytes, was published with \d+"),
        ("model.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1]), False, "its SHA-256 is another"),
        ("opt.json", lambda b: b.replace(b"2018", b"2019"), False, "opt.json: is not as it was published"),
        (DIGESTS, lambda b: b.replace(b'"bytes":', b'"bytes" :1'), False, "digests.json: is damaged"),
        ("model.safetensors", lambda b: b[:-8], True, "model.safetensors: cannot be read as weights"),
        ("model.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1]), True, "does not have the digest"),
        ("config.json", changed_config(lambda c: c["model_cfg"].update(name="other")), True, "a model 'other', this"),
        ("config.json", changed_config(lambda c: c["model_cfg"].update(n_heads=4)), True, "does not have the digest"),
        ("config.json", changed_config(lambda c: c.pop("digest")), True, "config.json: does not describe a model"),
        ("config.json", lambda b: b"[]", True, "config.json: does not describe a model"),
    ],
)
def test_what_was_changed_afterwards_is_refused(published, name, change, sealed, said):
    spoil(published, name, change, sealed)
    with pytest.raises(InputError, match=said):
        load_model(Path(find_model(str(published), "nowhere")))


@pytest.mark.parametrize("change", ["shape", "name"])
def test_weights_of_another_shape_or_name_are_refused(published, change):
    ours = load_model(published)
    name = next(iter(ours.state))
    tensor = ours.state.pop(name)
    ours.state[name if change == "shape" else f"{name}_2"] = tensor[None] if change == "shape" else tensor
    write_model(ours, published)
    write_digests(published)
    with pytest.raises(InputError, match=f"weights do not fit its model_cfg: {name}"):
        load_model(Path(find_model(str(published), "nowhere")))


def test_a_pickle_in_a_published_folder_is_never_read(published, tiny_model):
    shutil.copy(tiny_model / "model.ckpt", published)
    (published / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model.safetensors: is missing"):
        find_model(str(published), "nowhere")
    with pytest.raises(InputError, match=r"model.safetensors: is missing"):
        load_model(published)
    (published / DIGESTS).unlink()
    assert load_model(published).epoch == 0  # what is left is a results folder


def test_the_card_may_be_edited(published):
    with open(published / "README.md", "a", encoding="utf-8") as card:
        card.write("Thanks to all.\n")
    assert find_model(str(published), "nowhere") == str(published)


def test_a_checkpoint_of_the_published_code_is_published(golden_dir, tmp_path):
    folder = as_published(golden_dir / "run", tmp_path / "published")
    ours, theirs = load_model(golden_dir / "run"), load_model(folder)
    assert not theirs.has_record
    assert theirs.model_digest() == ours.model_digest()
    assert "How they were made is not on record." in (folder / "README.md").read_text()


def test_digests_name_no_file_outside(published):
    said = read_json(published / DIGESTS)["content"]["files"]["opt.json"]
    for name in ("../opt.json", "/etc/passwd", ""):
        write_sealed(published / DIGESTS, {"files": {name: said}})
        with pytest.raises(InputError, match="lists no files and digests"):
            find_model(str(published), "nowhere")


@pytest.mark.parametrize("package", ["safetensors", "huggingface_hub"])
def test_a_missing_package_is_named(tiny_model, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.torch", None)
    with pytest.raises(InputError, match=f"pip install {package}"):
        as_published(tiny_model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_script_publishes(tiny_model, tmp_path):
    (tmp_path / "out" / "mine").mkdir(parents=True)
    ended = bash(SCRIPTS / "publish.sh", tiny_model, "./out/mine", cwd=tmp_path)
    assert ended.stdout.endswith("published: ./out/mine\n")
    assert "the card says that the licence is unknown" in ended.stderr
    names = {path.name for path in (tmp_path / "out" / "mine").iterdir()}
    assert {"model.safetensors", "config.json", "opt.json", "README.md", DIGESTS} <= names
    assert content_digest(load_model(tmp_path / "out" / "mine").state) == content_digest(
        load_checkpoint(tiny_model / "model.ckpt").state
    )
