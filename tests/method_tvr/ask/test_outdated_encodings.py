"""Encoded videos, indexes over them and answers are of what is there now, or the user is told what is not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from method_tvr.ask import encode_corpus, search
from method_tvr.ask.searcher import MomentSearcher
from method_tvr.config import parse_inference_options
from method_tvr.inference import run_inference
from method_tvr.search.corpus_store import SEEN
from method_tvr.trained import outdated_encodings
from method_tvr.training.checkpoint import load_checkpoint, save_checkpoint
from tests.support.runs.tiny_corpus import Corpus
from tests.support.search.asking import ask, options_of
from utils.basic_utils import InputError
from utils.storage.whole_folder import write_sealed

SENTENCE = "Nora opens the drawer."
CONTEXT = ("vid_feat_path", "sub_bert_path", "video_duration_idx_path")


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "run"))


def paths_of(corpus: Corpus) -> dict[str, Path]:
    return {name: corpus.paths[name] for name in CONTEXT}


def answers(model: Path, corpus: Corpus, **options: object) -> list[tuple[str, float, float, float]]:
    searcher = MomentSearcher.open(model, device=-1, **paths_of(corpus), **options)
    found = searcher.search(SENTENCE, top_k=20) + searcher.search(SENTENCE, top_k=5, video=a_video(corpus))
    return [(m.vid_name, m.start, m.end, m.score) for m in found]


def said_of_encodings(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said since, without what is said of the model's folder and the videos' lengths every time."""
    lines = capsys.readouterr().err.splitlines()
    return "\n".join(line for line in lines if "opt.json has files" not in line and "--max_ctx_l" not in line)


def fresh(model: Path, corpus: Corpus, tmp_path: Path) -> list[tuple[str, float, float, float]]:
    """What a folder without encodings answers."""
    folder = shutil.copytree(model, tmp_path / "fresh", ignore=shutil.ignore_patterns("encoded_*"))
    return answers(folder, corpus)


def a_video(corpus: Corpus) -> str:
    return next(iter(json.loads(corpus.paths["video_duration_idx_path"].read_text())["val"]))


def change(corpus: Corpus, option: str, name: str, unseen: bool = False) -> None:
    """Other features of a video, as many; `unseen`: in a file of the same size and time, put in the place of this."""
    path = corpus.paths[option]
    before = path.stat()
    with corpus.features(option) as features:
        features[name][:] = features[name][:][::-1] * 0.5 + 0.25
    if unseen:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def without_digests(corpus_folder: Path) -> None:
    """The corpus as earlier versions wrote it."""
    for index in corpus_folder.glob("part-*/index.json"):
        content = json.loads(index.read_bytes())["content"]
        del content["features"]
        write_sealed(index, content)
        (index.parent / SEEN).unlink()


# ---------------------------------------------------------------------------- kept in the model's folder


@pytest.mark.parametrize("unseen", [False, True])
@pytest.mark.parametrize("option", ["vid_feat_path", "sub_bert_path"])
def test_a_changed_video_is_encoded_again(model, own_corpus, tmp_path, capsys, option, unseen):
    before = answers(model, own_corpus)
    name = a_video(own_corpus)
    change(own_corpus, option, name, unseen)
    capsys.readouterr()
    now = answers(model, own_corpus)
    said = capsys.readouterr().err
    assert f"encoded_val: 1 of 10 videos have changed since they were encoded: {name}: encoding again" in said
    assert now != before
    assert now == fresh(model, own_corpus, tmp_path)
    capsys.readouterr()
    assert answers(model, own_corpus) == now
    assert said_of_encodings(capsys) == ""


def test_what_changed_in_other_splits_is_of_no_account(model, own_corpus):
    answers(model, own_corpus)
    (part,) = (model / "encoded_val").glob("part-*")
    stamp = (part / "index.json").stat()
    change(own_corpus, "vid_feat_path", a_video_of("train", own_corpus))
    answers(model, own_corpus)
    assert (part / "index.json").stat() == stamp


def a_video_of(split: str, corpus: Corpus) -> str:
    return next(iter(json.loads(corpus.paths["video_duration_idx_path"].read_text())[split]))


def test_files_that_were_touched_alone_are_compared_once(model, own_corpus, monkeypatch, capsys):
    before = answers(model, own_corpus)
    for name in ("vid_feat_path", "sub_bert_path"):
        other = own_corpus.paths[name].with_name("other.h5")
        shutil.copyfile(own_corpus.paths[name], other)
        os.replace(other, own_corpus.paths[name])
    assert answers(model, own_corpus) == before
    monkeypatch.setattr(outdated_encodings, "rows_digest", None)
    capsys.readouterr()
    assert answers(model, own_corpus) == before
    assert said_of_encodings(capsys) == ""


def test_a_video_of_another_duration_is_encoded_again(model, own_corpus, capsys):
    answers(model, own_corpus)
    path, name = own_corpus.paths["video_duration_idx_path"], a_video(own_corpus)
    content = json.loads(path.read_text())
    content["val"][name][0] += 0.25
    path.write_text(json.dumps(content))
    answers(model, own_corpus)
    assert f"have changed since they were encoded: {name}: encoding again" in capsys.readouterr().err


def test_a_model_that_was_trained_on_encodes_again(model, own_corpus, tmp_path, capsys):
    before = answers(model, own_corpus)
    saved = load_checkpoint(model / "model.ckpt")
    network = saved.build_model()
    with torch.no_grad():
        for weights in network.parameters():
            weights *= 1.25
    save_checkpoint(model / "model.ckpt", network, saved.epoch, saved.features)
    now = answers(model, own_corpus)
    assert "encoded_val: was encoded by what the model was before: encoding again" in capsys.readouterr().err
    assert now != before
    assert now == fresh(model, own_corpus, tmp_path)


def test_encodings_are_enough_without_their_features(model, own_corpus, capsys):
    before = answers(model, own_corpus)
    for name in ("vid_feat_path", "sub_bert_path"):
        own_corpus.paths[name].unlink()
    capsys.readouterr()
    assert answers(model, own_corpus) == before
    assert said_of_encodings(capsys) == ""


def test_encodings_of_earlier_versions_are_used_as_long_as_nobody_writes_to_their_features(
    model, own_corpus, tmp_path, capsys
):
    before = answers(model, own_corpus)
    without_digests(model / "encoded_val")
    capsys.readouterr()
    assert answers(model, own_corpus) == before
    assert said_of_encodings(capsys) == ""
    change(own_corpus, "sub_bert_path", a_video(own_corpus))
    now = answers(model, own_corpus)
    assert "an earlier version encoded them, which kept no digests: encoding again" in capsys.readouterr().err
    assert now == fresh(model, own_corpus, tmp_path)


def test_a_link_in_the_models_folder_is_another_folder(model, own_corpus, tmp_path):
    answers(model, own_corpus)
    (model / "encoded_val").rename(tmp_path / "elsewhere")
    (model / "encoded_val").symlink_to(tmp_path / "elsewhere")
    change(own_corpus, "vid_feat_path", a_video(own_corpus))
    with pytest.raises(InputError, match="were encoded from other features than"):
        answers(model, own_corpus)


def test_an_index_over_videos_that_changed_places_is_built_again(model, own_corpus):
    pytest.importorskip("faiss", reason="not installed")
    few = {"index": "faiss", "index_kind": "flat", "candidate_videos": 2, "candidate_clips": 4}
    answers(model, own_corpus, **few)
    listed = json.loads(own_corpus.paths["video_duration_idx_path"].read_text())["val"]
    one, other = list(listed)[:2]
    for option in ("vid_feat_path", "sub_bert_path"):
        with own_corpus.features(option) as features:
            rows = {name: features[name][:] for name in (one, other)}
            for name, of in ((one, other), (other, one)):
                del features[name]
                features[name] = rows[of]
    listed[one][0], listed[other][0] = listed[other][0], listed[one][0]
    durations = json.loads(own_corpus.paths["video_duration_idx_path"].read_text())
    own_corpus.paths["video_duration_idx_path"].write_text(json.dumps({**durations, "val": listed}))
    now = answers(model, own_corpus, **few)
    shutil.rmtree(model / "encoded_val_flat_index")
    assert now == answers(model, own_corpus, **few)


# ---------------------------------------------------------------------------- given by the user


@pytest.fixture
def encoded(model, own_corpus, tmp_path, run_main) -> Path:
    argv = [*options_of(model, **paths_of(own_corpus)), "--out", str(tmp_path / "encoded")]
    assert run_main(encode_corpus.main, argv).code == 0
    return tmp_path / "encoded"


def test_a_given_corpus_of_other_features_is_refused_by_all_that_read_it(model, own_corpus, encoded, run_main):
    name = a_video(own_corpus)
    change(own_corpus, "vid_feat_path", name, unseen=True)
    options = {**paths_of(own_corpus), "encoded_corpus": encoded}
    said = (
        rf"{encoded}: 1 of 10 videos were encoded from other features than .*\.h5 has now: {name}: give the features "
        "that they were encoded from, or remove the folders part-00000 and run encode.sh again"
    )
    with pytest.raises(InputError, match=said):
        answers(model, own_corpus, encoded_corpus=encoded)
    with pytest.raises(InputError, match=said):
        ask(model, query=SENTENCE, **options)
    opt = parse_inference_options(options_of(model, **options, eval_path=own_corpus.paths["eval_path"]))
    with pytest.raises(InputError, match=said):
        run_inference(opt)
    argv = [*options_of(model, **paths_of(own_corpus)), "--out", str(encoded)]
    refused = run_main(encode_corpus.main, argv)
    assert (refused.code, "were encoded from other features" in refused.err) == (2, True)
    shutil.rmtree(encoded / "part-00000")
    assert run_main(encode_corpus.main, argv).code == 0
    assert answers(model, own_corpus, encoded_corpus=encoded) == answers(model, own_corpus)


def test_a_part_of_other_features_that_was_put_there_is_refused(model, own_corpus, encoded, tmp_path, run_main):
    name = a_video(own_corpus)
    change(own_corpus, "vid_feat_path", name)
    other = tmp_path / "other"
    argv = [*options_of(model, **paths_of(own_corpus)), "--out", str(other)]
    assert run_main(encode_corpus.main, argv).code == 0
    shutil.rmtree(other / "part-00000")
    shutil.copytree(encoded / "part-00000", other / "part-00007")
    with pytest.raises(InputError, match=f": {name}: .* remove the folders part-00007"):
        answers(model, own_corpus, encoded_corpus=other)


def test_a_given_corpus_of_an_earlier_version_is_used_with_a_note(model, own_corpus, encoded, run_main):
    without_digests(encoded)
    argv = [*options_of_search(model, own_corpus), "--encoded_corpus", str(encoded), SENTENCE]
    quiet = run_main(search.main, argv)
    assert (quiet.code, "cannot be compared" in quiet.err) == (0, False)
    own_corpus.paths["sub_bert_path"].touch()
    noted = run_main(search.main, argv)
    assert noted.code == 0
    assert noted.err.count("10 of 10 videos cannot be compared with their features") == 1
    assert noted.out == quiet.out
    with own_corpus.features("sub_bert_path") as features:
        name = a_video(own_corpus)
        rows = features[name][:5]
        del features[name]
        features[name] = rows
    refused = run_main(search.main, argv)
    assert (refused.code, f"has now: {name}: " in refused.err) == (2, True)


def options_of_search(model: Path, corpus: Corpus) -> list[str]:
    argv = ["--model_dir", str(model), "--device", "-1"]
    for name, path in paths_of(corpus).items():
        argv += [f"--{name}", str(path)]
    return argv


def test_a_folder_that_cannot_be_written_to_is_compared_every_time(model, own_corpus, encoded, monkeypatch):
    own_corpus.paths["sub_bert_path"].touch()

    def read_only(*_: object) -> None:
        raise PermissionError("nobody may write there")

    monkeypatch.setattr(outdated_encodings, "write_seen", read_only)
    assert answers(model, own_corpus, encoded_corpus=encoded)
