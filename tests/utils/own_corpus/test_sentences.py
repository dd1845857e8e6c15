"""A corpus of one model of images and text has vectors of sentences besides, which agree with its clips and queries."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.joint_corpus import LINES, SECONDS, extract, make_videos
from tests.support.joint_models import LONGEST, PROJECTED, SIZE, tiny_joint_model
from utils.basic_utils import read_json
from utils.feature_files.feature_file import FeatureFile
from utils.feature_files.provenance import properties
from utils.pretrained.joint_model import load_joint_model
from utils.text_feature.joint.sentence_files import clip_texts
from utils.text_feature.joint.text_tower import open_sentence_encoder

CLIP_LENGTH = 1.5
FILES = {
    "video": "video_feature/tiny_clip_rgb_avg_cl-1.5.h5",
    "sub": "bert_feature/tiny_sub_clip_avg_cl-1.5.h5",
    "query": "bert_feature/tiny_query_clip.h5",
    "query_sentences": "bert_feature/tiny_query_clip_sentences.h5",
    "sub_sentences": "bert_feature/tiny_sub_clip_sentences_cl-1.5.h5",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("joint"))


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return tiny_joint_model(folder / "clip", "clip")


@pytest.fixture(scope="module")
def corpus(folder: Path, clip: Path) -> Path:
    """Not to be written to."""
    made = extract(folder, folder / "tiny", image_model=f"hf/{clip}", text_model=f"hf/{clip}")
    assert made.code == 0, made.err
    return folder / "tiny"


def features(corpus: Path) -> dict[str, FeatureFile]:
    return {kind: FeatureFile(corpus / "tiny_feature_release" / name) for kind, name in FILES.items()}


def test_all_files_are_there_agree_and_are_listed(corpus: Path) -> None:
    found = features(corpus)
    listed = read_json(corpus / "tiny_made_by.json")["files"]
    assert {f"tiny_feature_release/{name}" for name in FILES.values()} <= listed.keys()
    for name in SECONDS:
        n_clips = found["video"].form(name)[0]
        assert found["sub_sentences"].form(name)[:2] == (n_clips, PROJECTED["clip"])
    assert found["query"].width() == SIZE
    desc_ids = found["query"].keys()
    assert found["query_sentences"].keys() == desc_ids
    assert {found["query_sentences"].shape(desc_id) for desc_id in desc_ids} == {(2, PROJECTED["clip"])}


def test_sentence_vectors_are_those_of_the_encoder(corpus: Path, clip: Path) -> None:
    found = features(corpus)
    record = properties(found["sub_sentences"].made_by())
    assert record["weights"] == properties(found["video"].made_by())["weights"] == load_joint_model(str(clip)).digest
    encoder = open_sentence_encoder(f"hf/{clip}", record)
    expected = encoder.sentences(["Ruth paints a."])[0]
    np.testing.assert_allclose(found["query_sentences"].read("0"), expected, atol=1e-6)
    said = ["Nora opens the door. Sam!", "Sam! Nora opens the door."]
    rows = found["sub_sentences"].read("a")
    np.testing.assert_allclose(rows[:2], encoder.sentences(said)[:, 1], atol=1e-6)
    for name, rows in ((name, found["sub_sentences"].read(name)) for name in SECONDS):
        spoken = [bool(text) for text in clip_texts(_lines(name), len(rows), CLIP_LENGTH)]
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), np.array(spoken, float), atol=1e-6)


def _lines(name: str) -> list[dict]:
    return [{"start": start, "end": end, "text": text} for start, end, text in LINES.get(name, [])]


def test_clips_are_means_of_unit_vectors(corpus: Path) -> None:
    video = features(corpus)["video"]
    with FeatureFile(corpus / "tiny_intermediate" / "frames_clip.h5") as file:
        frames = file.read("a")  # at 0.15, 0.65, 1.15 s, … of clips of 1.5 s
    unit = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    np.testing.assert_allclose(video.read("a")[0], unit[:3].mean(axis=0), atol=1e-4)
    record = properties(video.made_by())
    assert (record["pooling"], record["normalised"], record["layer"]) == ("avg", "L2 of frames", "projected")


def test_the_same_command_again_changes_nothing_and_changed_lines_are_done_anew(
    corpus: Path, clip: Path, folder: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(corpus, tmp_path / "tiny"))
    copied = Path(shutil.copytree(folder, tmp_path / "raw", copy_function=shutil.copy2))
    before = {path: path.stat().st_mtime_ns for path in own.rglob("*.h5")}
    assert extract(copied, own, image_model=f"hf/{clip}", text_model=clip).code == 0
    assert {path: path.stat().st_mtime_ns for path in own.rglob("*.h5")} == before
    srt = copied / "subtitles" / "b.srt"
    srt.write_text(srt.read_text().replace("red", "blue " * 20))
    made = extract(copied, own, image_model=f"hf/{clip}", text_model=clip)
    assert made.code == 0, made.err
    assert f"cut to {LONGEST} tokens, special ones too, in the vectors of sentences (1): b\n" in made.out
    old, new = (features(out)["sub_sentences"] for out in (corpus, own))
    assert [name for name in SECONDS if not np.array_equal(old.read(name), new.read(name))] == ["b"]


def test_two_models_make_no_sentence_vectors(clip: Path, folder: Path, tmp_path: Path) -> None:
    other = tiny_joint_model(tmp_path / "other", "clip", seed=1)
    made = extract(folder, tmp_path / "tiny", image_model=f"hf/{clip}", text_model=f"hf/{other}")
    assert made.code == 0, made.err
    for said in (made.out, made.err):
        assert "no sentence vectors are written: vectors of two models do not compare: --image_model is clip" in said
    assert not list(tmp_path.rglob("*_sentences*.h5"))


def test_what_stands_in_the_manifest_and_in_the_next_command_opens_the_models_again(corpus: Path, clip: Path) -> None:
    record = read_json(corpus / "tiny_made_by.json")
    assert record["options"]["text_model"] == str(clip)
    weights = load_joint_model(str(clip)).digest
    assert record["models"]["image"]["weights"] == record["models"]["text"]["weights"] == weights


def test_image_weights_are_refused_with_such_a_model(clip: Path, folder: Path, tmp_path: Path) -> None:
    options = {"image_model": f"hf/{clip}", "image_weights": "a.pth", "text_model": clip}
    made = extract(folder, tmp_path / "tiny", **options)
    assert (made.code, "brings its own weights" in made.err) == (2, True)
    assert not list(tmp_path.rglob("*.h5"))


def test_a_clip_says_the_lines_that_overlap_it() -> None:
    lines = [
        {"start": 0.0, "end": 1.5, "text": " One. "},
        {"start": 1.4, "end": 3.1, "text": "Two."},
        {"start": 2.0, "end": 2.0, "text": "In no time."},
        {"start": 3.0, "end": 9.0, "text": ""},
    ]
    assert clip_texts(lines, 4, 1.5) == ["One. Two.", "Two. In no time.", "Two.", ""]
    assert clip_texts([], 2, 1.5) == ["", ""]
