"""A model remembers what its features were made with, and other features are refused; unknown ones are only noted."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
import torch

from method_tvr import inference, train
from method_tvr.ask import encode_corpus
from method_tvr.config import parse_inference_options
from method_tvr.dataset.cached_store import CachedStore
from method_tvr.dataset.feature_records import joined_records
from method_tvr.inputs import Inputs
from method_tvr.options.rules import settings_of
from method_tvr.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, write_content
from method_tvr.training.saved_run import LAST
from tests.support.runs.commands import Finished
from tests.support.runs.small_models import small_model
from tests.support.runs.tiny_corpus import Corpus
from utils.basic_utils import InputError

MINI = {"video": {"clip_length": 1.5, "normalised": "L2 per half"}, "sub": {"clip_length": 1.5, "pooling": "max"}}
MADE = {
    "vid_feat_path": {"model": "resnet152+i3d", "weights": "0a+1b", "layer": "pool5"},
    "desc_bert_path": {"model": "roberta-base", "layer": "-2", "max_length": 30},
}
TRAINED_ON = {
    "video": {**MADE["vid_feat_path"], **MINI["video"]},
    "sub": MINI["sub"],
    "query": MADE["desc_bert_path"],
}
SHORT = {"exp_id": "r", "n_epoch": 1, "bsz": 64, "data_ratio": 0.5, "eval_tasks_at_training": ["VR"], "stop_task": "VR"}


@pytest.fixture(scope="module")
def trained(tiny_corpus, tmp_path_factory) -> tuple[Corpus, Path]:
    """A corpus whose files say what made them, and the folder of a model trained on it."""
    root = tmp_path_factory.mktemp("recorded")
    corpus = Corpus(Path(shutil.copytree(tiny_corpus.root, root / "corpus")))
    for option, record in MADE.items():
        with corpus.features(option) as file:
            file.attrs.update(record)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py", *corpus.options(**SHORT, results_root=root / "results")])
        train.main()
    (folder,) = (root / "results").iterdir()
    return corpus, folder


@pytest.fixture
def own(trained, tmp_path) -> tuple[Corpus, Path]:
    """Copies of both, to be spoilt."""
    corpus, folder = trained
    return (
        Corpus(Path(shutil.copytree(corpus.root, tmp_path / "corpus"))),
        Path(shutil.copytree(folder, tmp_path / "run")),
    )


@pytest.fixture
def infer(run_main) -> Callable[..., Finished]:
    def infer(corpus: Corpus, folder: Path, *typed: str) -> Finished:
        return run_main(inference.main, inference_options(corpus, folder, *typed))

    return infer


def inference_options(corpus: Corpus, folder: Path, *typed: str) -> list[str]:
    paths = [str(word) for name, path in corpus.paths.items() for word in (f"--{name}", path)]
    return ["--model_dir", str(folder), "--device", "-1", "--num_workers", "0", "--tasks", "VR", *paths, *typed]


def notes(finished: Finished) -> list[str]:
    """Notes about records; others are of caches being made and of paths in opt.json."""
    beginnings = tuple(f"note: {words}" for words in ("no record", "cannot tell", "the checkpoint does not say"))
    return [line for line in finished.err.splitlines() if line.startswith(beginnings)]


def change(corpus: Corpus, option: str, **attributes: object) -> None:
    """Set attributes of a feature file; None removes one."""
    with corpus.features(option) as file:
        for name, value in attributes.items():
            if value is None:
                file.attrs.pop(name)
            else:
                file.attrs[name] = value


def forget(folder: Path, **content: object) -> None:
    """Save the model again as older versions did, without a record of its features, or with other `content`."""
    checkpoint = load_checkpoint(folder / "model.ckpt")
    save_checkpoint(folder / "model.ckpt", checkpoint.build_model(), checkpoint.epoch)
    old = torch.load(folder / "model.ckpt", weights_only=True)
    assert "features" not in old
    if content:
        del old["digest"]
        write_content(folder / "model.ckpt", {**old, **content})


# ---------------------------------------------------------------- what a checkpoint keeps


@pytest.mark.parametrize("name", ["model.ckpt", LAST])
def test_checkpoints_keep_what_the_features_were_made_with(trained, name):
    path = trained[1] / name
    content = torch.load(path, weights_only=True)
    assert content["features"] == TRAINED_ON
    assert load_checkpoint(path).features == TRAINED_ON
    kinds = {type(value) for record in content["features"].values() for value in record.values()}
    assert kinds == {str, float, int}


def test_the_digest_covers_the_record(own):
    path = own[1] / "model.ckpt"
    content = torch.load(path, weights_only=True)
    content["features"]["video"]["layer"] = "c3"
    torch.save(content, path)
    with pytest.raises(InputError, match="digest"):
        load_checkpoint(path)


def test_older_checkpoints_have_no_record_and_load(own, golden_checkpoint):
    forget(own[1])
    for checkpoint in (load_checkpoint(own[1] / "model.ckpt"), golden_checkpoint):
        assert checkpoint.features == {}
        checkpoint.build_model()


@pytest.mark.parametrize("odd", [None, 3, "x", [], [("video", {})], {"video": 1}, {"video": {}, "extra": ["x"]}])
def test_what_is_no_record_is_refused(tmp_path, odd):
    save_checkpoint(tmp_path / "a.ckpt", small_model(), 0, odd or None)
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    torch.save(
        {name: value for name, value in {**content, "features": odd}.items() if name != "digest"}, tmp_path / "b"
    )
    with pytest.raises(InputError, match="its record of features is none"):
        load_checkpoint(tmp_path / "b")


def test_of_a_foreign_record_only_what_can_be_meant_is_taken(tmp_path):
    odd = {"clip_length": float("nan"), "weights": 10**400, "layer": "x" * 1000, "model": "a\x1b[31m", "other": "x"}
    record = {"video": {**odd, "pooling": "max"}, "query": {"layer": torch.zeros(3)}, "x": {"model": "m"}, 3: {}}
    save_checkpoint(tmp_path / "a.ckpt", small_model(), 0, None)
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    del content["digest"]
    torch.save({**content, "features": record}, tmp_path / "a.ckpt")
    assert load_checkpoint(tmp_path / "a.ckpt").features == {"video": {"pooling": "max"}, "query": {}}


# ---------------------------------------------------------------- inference


@pytest.mark.parametrize("cache", ["disk", "ram", "device"])
def test_the_features_of_training_are_taken_without_a_word(trained, infer, cache):
    finished = infer(*trained, "--feature_cache", cache)
    assert finished.code == 0, finished.err
    assert notes(finished) == []


@pytest.mark.parametrize("cache", ["disk", "ram", "device"])
def test_features_of_another_making_are_refused(own, infer, cache):
    corpus, folder = own
    assert infer(corpus, folder, "--feature_cache", cache).code == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    change(corpus, "vid_feat_path", layer="c3", weights="0a+2c")
    finished = infer(corpus, folder, "--feature_cache", cache)
    assert finished.code == 2
    message = finished.err.splitlines()[-1]
    assert message == (
        f"error: {corpus.paths['vid_feat_path']}: the model in {folder} was trained on other features; here: weights "
        "0a+2c (the model: 0a+1b), layer c3 (the model: pool5): give those it was trained on, or extract these again "
        "in the same way"
    )
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("option", "record", "message"),
    [
        ("sub_bert_path", {"pooling": "avg"}, "here: pooling avg (the model: max)"),
        ("desc_bert_path", {"model": "bert-base"}, "here: model bert-base (the model: roberta-base)"),
        ("desc_bert_path", {"max_length": 31}, "here: max_length 31 (the model: 30)"),
        ("vid_feat_path", {"clip_length": 2.0}, "here: clip_length 2.0 (the model: 1.5)"),
    ],
)
def test_each_file_is_compared(own, infer, option, record, message):
    change(own[0], option, **record)
    finished = infer(*own)
    assert finished.code == 2
    assert own[0].paths[option].name in finished.err
    assert message in finished.err


def test_encoding_refuses_them_too_and_searching_compares_the_queries(own, infer, run_main, tmp_path):
    corpus, folder = own
    out = ["--out", str(tmp_path / "encoded")]
    argv = [word for word in inference_options(corpus, folder) if word not in ("--tasks", "VR")]
    change(corpus, "sub_bert_path", pooling="avg")
    finished = run_main(encode_corpus.main, [*argv, *out])
    assert finished.code == 2
    assert "pooling avg (the model: max)" in finished.err
    change(corpus, "sub_bert_path", pooling="max")
    assert run_main(encode_corpus.main, [*argv, *out]).code == 0
    assert infer(corpus, folder, "--encoded_corpus", out[1]).code == 0
    change(corpus, "desc_bert_path", layer="-1")
    finished = infer(corpus, folder, "--encoded_corpus", out[1])
    assert finished.code == 2
    assert "layer -1 (the model: -2)" in finished.err


def test_what_the_file_does_not_say_is_not_compared(own, infer):
    change(own[0], "vid_feat_path", layer=None, weights=None, made_by="another tool")
    finished = infer(*own)
    assert finished.code == 0, finished.err
    assert notes(finished) == []


def test_a_file_without_a_record_gives_one_note(own, infer):
    with own[0].features("sub_bert_path") as file:
        for name in list(file.attrs):
            del file.attrs[name]
    finished = infer(*own)
    assert finished.code == 0, finished.err
    (note,) = notes(finished)
    assert "no record" in note
    assert str(own[0].paths["sub_bert_path"]) in note


def test_a_file_that_says_only_who_made_it_gives_one_note(own, infer):
    change(own[0], "desc_bert_path", **dict.fromkeys(MADE["desc_bert_path"]))
    finished = infer(*own)
    assert finished.code == 0, finished.err
    (note,) = notes(finished)
    assert f"{own[0].paths['desc_bert_path']} says nothing" in note


def test_a_model_without_a_record_gives_one_note(own, infer):
    forget(own[1])
    finished = infer(*own)
    assert finished.code == 0, finished.err
    (note,) = notes(finished)
    assert "cannot tell whether the model" in note
    assert "of its video features the model says nothing, of its sub features" in note


def test_a_model_of_the_original_has_only_its_own_note(own, infer):
    forget(own[1], made_by="unknown")
    finished = infer(*own)
    assert finished.code == 0, finished.err
    (note,) = notes(finished)
    assert "does not say what made it" in note


def test_caches_leave_the_record_within_reach(trained):
    inputs = settings_of(Inputs, parse_inference_options(inference_options(*trained)))
    packed = inputs.open_features(torch.device("cpu"))
    assert isinstance(packed, CachedStore)
    assert packed.records == TRAINED_ON
    again = inputs.open_features(torch.device("cpu"))  # from the cache that is there now
    assert again.records == TRAINED_ON
    assert again.unrecorded == []


# ---------------------------------------------------------------- training


def test_the_mini_corpus_needs_nothing_more(run_main, infer, tiny_corpus, tmp_path):
    finished = run_main(train.main, tiny_corpus.options(**SHORT, results_root=tmp_path))
    assert finished.code == 0, finished.err
    assert notes(finished) == []
    (folder,) = tmp_path.iterdir()
    assert load_checkpoint(folder / "model.ckpt").features == {**MINI, "query": {}}
    assert notes(infer(tiny_corpus, folder)) == []


@pytest.mark.parametrize("option", ["vid_feat_path", "sub_bert_path"])
def test_clips_of_another_length_than_the_option_are_refused(run_main, own_corpus, tmp_path, option):
    change(own_corpus, option, clip_length=2.0)
    finished = run_main(train.main, own_corpus.options(**SHORT, results_root=tmp_path / "results"))
    assert finished.code == 2
    assert finished.err.splitlines()[-1] == (
        f"error: {own_corpus.paths[option]}: its clips are 2.0 s long, but --clip_length is 1.5, so that all times "
        "would be wrong: give --clip_length 2.0, or features of 1.5 s clips"
    )
    assert not (tmp_path / "results").exists()


def test_the_length_of_clips_is_compared_at_inference_when_the_model_says_nothing(own, infer):
    forget(own[1])
    finished = infer(*own, "--clip_length", "3")
    assert finished.code == 2
    assert "its clips are 1.5 s long, but --clip_length is 3.0" in finished.err


def resumable(corpus: Corpus, run_main: Callable, monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """The folder of a run that was stopped before its evaluation."""

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "_end_epoch", stopped)
        assert run_main(train.main, corpus.options(**SHORT, results_root=root)).code == 130
    (folder,) = root.iterdir()
    return folder


def test_a_run_goes_on_with_the_features_it_was_started_with_only(own, run_main, monkeypatch, tmp_path):
    corpus, _ = own
    folder = resumable(corpus, run_main, monkeypatch, tmp_path / "results")
    change(corpus, "vid_feat_path", layer="c3")
    finished = run_main(train.main, ["--resume", str(folder)])
    assert finished.code == 2
    assert "layer c3 (the model: pool5)" in finished.err
    change(corpus, "vid_feat_path", layer=None)  # what is not known any more was known when it started
    finished = run_main(train.main, ["--resume", str(folder)])
    assert finished.code == 0, finished.err
    assert load_checkpoint(folder / "model.ckpt").features == TRAINED_ON
    assert load_checkpoint(folder / LAST).features == TRAINED_ON


def test_records_are_joined_without_losing_anything():
    first, second = {"video": {"layer": "a"}, "sub": {}}, {"video": {"pooling": "max"}, "query": {"layer": "b"}}
    assert joined_records(first, second) == {
        "video": {"pooling": "max", "layer": "a"},
        "sub": {},
        "query": {"layer": "b"},
    }


def test_a_checkpoint_says_whether_it_says_what_made_it(golden_checkpoint, trained):
    assert not golden_checkpoint.has_record
    checkpoint: Checkpoint = load_checkpoint(trained[1] / "model.ckpt")
    assert checkpoint.has_record


def test_odd_attributes_of_a_file_are_no_record(own, infer):
    with own[0].features("vid_feat_path") as file:
        file.attrs["layer"] = h5py.Empty("f4")
        file.attrs["weights"] = [1.0, 2.0]
    finished = infer(*own)
    assert finished.code == 0, finished.err
