"""From real videos, written subtitles and sentences to features, a trained model and a printed answer."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from method_tvr.ask import search
from method_tvr.config import parse_train_options
from method_tvr.dataset.annotations import load_queries, load_videos
from tests.support.raw_corpus import DURATIONS, FAILED, SILENT, RawCorpus, make_raw_corpus, srt, text_model
from tests.support.shell import PROJECT_ROOT, run_script
from tests.support.video_files import efficientnet_weights, write_video
from utils import extract_features
from utils.basic_utils import read_json, read_jsonl
from utils.feature_files.feature_file import FeatureFile
from utils.feature_files.provenance import properties
from utils.video_feature import pipeline
from utils.video_feature.frames import open_video
from utils.video_feature.i3d import I3D
from utils.video_feature.image_models import load_image_model
from utils.video_feature.sampling import centre_crop

CLIP_LENGTH = 1.5
SMALL = ["--hidden_size", "8", "--n_heads", "2", "--n_epoch", "1", "--bsz", "8", "--max_ctx_l", "10", "--device", "-1"]


@dataclass(frozen=True)
class Made:
    """A corpus that a run has made, what it printed, and which videos it opened."""

    out: Path
    code: int
    told: str
    noted: str
    opened: set[str]

    def path(self, name: str) -> Path:
        return self.out / f"{self.out.name}_{name}"

    @property
    def features(self) -> dict[str, Path]:
        """The newest of each kind."""
        patterns = {
            "video": "video_feature/*.h5",
            "sub": "bert_feature/*_sub_*.h5",
            "query": "bert_feature/*_query_*.h5",
        }
        found = {kind: list(self.path("feature_release").glob(pattern)) for kind, pattern in patterns.items()}
        return {kind: max(paths, key=lambda path: path.stat().st_mtime_ns) for kind, paths in found.items() if paths}


def make(raw: RawCorpus, out: Path, **changed: Any) -> Made:
    """Run the command in this process."""
    opened: set[str] = set()

    def spy(path: Any, *args: Any) -> Any:
        opened.add(Path(path).stem)
        return open_video(path, *args)

    told, noted, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(told), contextlib.redirect_stderr(noted):
        patch.setattr(pipeline, "open_video", spy)
        try:
            extract_features.main(raw.command(out, **changed))
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Made(out, code, told.getvalue(), noted.getvalue(), opened)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> RawCorpus:
    """Not to be written to."""
    return make_raw_corpus(tmp_path_factory.mktemp("raw") / "raw")


@pytest.fixture(scope="module")
def corpus(raw: RawCorpus, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Made by a script that was killed once some videos were done, and by another run; not to be written to."""
    out = tmp_path_factory.mktemp("corpus") / "tiny"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "VIRTUAL_ENV": sys.prefix,
    }
    command = ["bash", "utils/extract_features.sh", *raw.command(out)]
    child = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, stderr=subprocess.PIPE)
    items = out / "tiny_intermediate" / "frames_efficientnet_lite0.h5.partial" / "items"
    while child.poll() is None and not (items.is_file() and items.stat().st_size > 30_000):
        time.sleep(0.01)
    child.kill()
    _, err = child.communicate()
    assert child.returncode == -signal.SIGKILL, err.decode()
    assert not list(out.glob("*release*"))
    return make(raw, out)


@pytest.fixture
def own(corpus: Made, tmp_path: Path) -> Path:
    """A copy of the corpus to go on with."""
    return Path(shutil.copytree(corpus.out, tmp_path / "own" / "tiny"))


@pytest.fixture
def own_raw(raw: RawCorpus, tmp_path: Path) -> RawCorpus:
    """A copy of what it was made of."""
    return RawCorpus(Path(shutil.copytree(raw.folder, tmp_path / "raw", copy_function=shutil.copy2)))


def test_a_killed_run_goes_on_where_it_was(corpus: Made) -> None:
    assert corpus.code == 0, corpus.noted
    assert "the same command goes on" not in corpus.noted
    n_done = int(corpus.noted.partition("goes on, ")[2].split()[0])
    assert 1 <= n_done < len(DURATIONS)
    assert len(corpus.opened - FAILED.keys()) == len(DURATIONS) - n_done


def test_all_files_speak_of_the_videos_that_could_be_read(corpus: Made) -> None:
    features = {kind: FeatureFile(path) for kind, path in corpus.features.items()}
    assert set(features["video"].keys()) == set(DURATIONS)
    assert set(features["sub"].keys()) == {key for name in DURATIONS for key in (name, f"{name}-mask")}
    splits = load_videos(corpus.path("video2dur_idx.json"))
    assert {name: video.duration for name, video in splits["all"].items()} == pytest.approx(DURATIONS, abs=0.05)
    for name, duration in DURATIONS.items():
        n_clips = features["video"].form(name)[0]
        assert abs(n_clips - duration / CLIP_LENGTH) <= 1
        assert features["sub"].form(name)[0] == n_clips
    ids = []
    for split in ("train", "val"):
        queries = load_queries(corpus.path(f"{split}_release.jsonl"), splits)
        assert {query.vid_name for query in queries} == set(splits[split])
        ids += [str(query.desc_id) for query in queries]
    assert sorted(features["query"].keys()) == sorted(ids)
    assert len(ids) == 2 * len(DURATIONS) + 1
    assert not set(splits["train"]) & set(splits["val"])


def test_clip_features_are_those_of_the_frames_in_the_clip(corpus: Made, raw: RawCorpus) -> None:
    model = load_image_model("timm/efficientnet_lite0", efficientnet_weights())
    crop, resize = model.preparation.crop, model.preparation.resize
    frames = list(open_video(raw.videos / "bunny.mp4").frames(1.0, resize))
    encoded = model(np.stack([centre_crop(frame, crop) for _, frame in frames]))
    clip_of = [int(seconds // CLIP_LENGTH) for seconds, _ in frames]
    assert clip_of == [0, 0, 1, 2, 2]  # frames at 0.3, 1.3, … 4.3 s
    found = FeatureFile(corpus.features["video"]).read("bunny")
    for clip, features in enumerate(found):
        pooled = encoded[[i for i, other in enumerate(clip_of) if other == clip]].max(0)
        np.testing.assert_allclose(features, pooled, rtol=1e-4, atol=1e-4)


def test_files_say_what_made_them(corpus: Made) -> None:
    records = {kind: properties(FeatureFile(path).made_by()) for kind, path in corpus.features.items()}
    assert records["video"]["model"] == "timm/efficientnet_lite0"
    assert records["video"]["clip_length"] == records["sub"]["clip_length"] == CLIP_LENGTH
    assert records["video"]["frame_rate"] == 1.0
    assert records["sub"]["model"] == records["query"]["model"] == text_model().name
    assert records["sub"]["weights"] == records["query"]["weights"]
    assert "efficientnet_lite0_rgb_max_cl-1.5" in corpus.features["video"].name


def test_subtitles_lie_in_their_clips_and_silence_is_zero(corpus: Made) -> None:
    with h5py.File(corpus.features["sub"]) as sub:
        for name in SILENT:
            assert not np.any(sub[name])
            assert not np.any(sub[f"{name}-mask"])
        assert np.all(sub["phone-mask"])  # its last cue goes on past the end
        assert np.any(sub["phone"])
    assert "subtitle files taken: 8 .srt\n" in corpus.told
    assert f"videos without a subtitle file, whose subtitle features are zero (2): {', '.join(SILENT)}" in corpus.told
    assert "videos with subtitle lines that begin after their end, in no clip (8): " in corpus.told


def test_what_is_left_out_is_listed_with_its_reason_and_recorded(corpus: Made) -> None:
    for name, reason in FAILED.items():
        assert f"  {name}: " in corpus.told
        assert reason in corpus.told
    for line, reason in (("21", "no video missing"), ("22", "broken failed"), ("23", "after phone ends")):
        assert any(f"queries.jsonl, line {line}:" in text and reason in text for text in corpus.told.splitlines())
    assert "moments that end after their video, clamped to its end when they are read (1): " in corpus.told
    record = read_json(corpus.path("made_by.json"))
    assert set(record["failed"]) == set(FAILED)
    assert len(record["left_out"]) == 3
    assert all((corpus.out / name).stat().st_size == size for name, size in record["files"].items())


def test_settings_that_fit_the_corpus_its_subtitles_and_where_it_came_from_lie_in_it(
    corpus: Made, raw: RawCorpus
) -> None:
    settings, record = read_json(corpus.path("training.json")), read_json(corpus.path("made_by.json"))
    files = [value for name, value in settings.items() if name.endswith("_path")]
    assert len(files) == 6
    assert all((corpus.out / file).is_file() for file in files)
    n_train = len(read_jsonl(corpus.path("train_release.jsonl")))
    assert settings["bsz"] * 60 > n_train  # else a larger batch fits
    assert settings["n_epoch"] * -(-n_train // settings["bsz"]) >= 200
    assert settings["label_rule"] == "best_iou"
    assert {"tiny_training.json", "tiny_subtitles.jsonl"} <= record["files"].keys()
    assert record["options"]["videos"] == str(raw.videos)
    assert Path(record["options"]["text_model"]).is_dir()
    assert {row["vid_name"] for row in read_jsonl(corpus.path("subtitles.jsonl"))} >= set(DURATIONS)


def test_the_same_command_again_changes_nothing(raw: RawCorpus, own: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in own.rglob("*.h5")}
    again = make(raw, own)
    assert again.code == 0, again.noted
    assert {path: path.stat().st_mtime_ns for path in own.rglob("*.h5")} == before
    assert again.opened == set(FAILED)
    assert "videos with subtitle lines that begin after their end, in no clip (8): " in again.told


def test_annotations_that_were_changed_since_are_not_replaced(raw: RawCorpus, own: Path, corpus: Made) -> None:
    release = own / corpus.path("train_release.jsonl").name
    release.write_bytes(release.read_bytes().replace(b"a", b"an", 1))
    edited = release.read_bytes()
    again = make(raw, own)
    assert again.code == 2
    assert f"{release.name}: changed since an earlier run wrote it" in again.noted
    assert release.read_bytes() == edited
    release.unlink()
    assert make(raw, own).code == 0
    assert release.is_file()


def test_annotations_of_another_making_are_not_replaced(raw: RawCorpus, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    durations = tmp_path / "mine" / "mine_video2dur_idx.json"
    durations.write_text("{}")
    made = make(raw, tmp_path / "mine")
    assert made.code == 2
    assert "mine_video2dur_idx.json: changed since an earlier run wrote it, or never written by one" in made.noted
    assert list((tmp_path / "mine").iterdir()) == [durations]


def test_only_what_has_changed_is_done_again(own_raw: RawCorpus, own: Path, corpus: Made) -> None:
    write_video(own_raw.videos / "broken.mp4", 40)
    (own_raw.folder / "subtitles" / "phone.srt").write_text(srt([(0.0, 1.4, "Something new.")]))
    with open(own_raw.queries, "a") as file:
        file.write(json.dumps({"desc": "A new query.", "vid_name": "bikes", "ts": [0, 3], "desc_id": 3}) + "\n")
    again = make(own_raw, own)
    assert again.code == 0, again.noted
    assert again.opened == set(FAILED)
    before, after = ({kind: FeatureFile(path) for kind, path in made.features.items()} for made in (corpus, again))
    assert set(after["video"].keys()) - set(before["video"].keys()) == {"broken"}
    assert len(set(after["query"].keys()) - set(before["query"].keys())) == 2
    for name in DURATIONS:
        np.testing.assert_array_equal(before["video"].read(name), after["video"].read(name))
        assert np.array_equal(before["sub"].read(name), after["sub"].read(name)) == (name != "phone")
    assert (
        "It is broken." in again.path("train_release.jsonl").read_text() + again.path("val_release.jsonl").read_text()
    )


def test_another_pooling_needs_no_video(raw: RawCorpus, own: Path, corpus: Made, monkeypatch) -> None:
    monkeypatch.setattr(extract_features, "MAX_CTX_L", 5)
    again = make(raw, own, pool="avg")
    assert again.opened == set(FAILED)
    maximum, average = (FeatureFile(made.features["video"]).read("phone") for made in (corpus, again))
    assert np.all(average <= maximum + 1e-6)
    assert not np.allclose(average, maximum)
    assert "videos of more than 5 clips" in again.told
    assert "--long_videos windows): phone_loop\n" in again.told.replace(" (1)", "")


def test_queries_without_times_make_a_corpus_to_search(own_raw: RawCorpus, own: Path) -> None:
    own_raw.queries.write_text('{"desc": "Where is the rabbit?"}\n{"desc": "Who drives?", "vid_name": "phone"}\n')
    (own_raw.videos / "notes.txt").touch()
    (own_raw.videos / "phone.srt").write_text(srt([(0.0, 1.4, "Beside its video.")]))
    for name in ("1", "2"):
        (own_raw.videos / name).mkdir()
        shutil.copy(own_raw.videos / "empty.mp4", own_raw.videos / name / "same.mp4")
    made = make(own_raw, own, subtitles=None, remove_intermediate=True)
    assert made.code == 0, made.noted
    assert "3 other files and folders are not taken" in made.noted
    assert "not looked at (1): notes.txt\n" in made.told
    assert (
        "subtitle files beside the videos, read only from the folder that --subtitles names (1): phone.srt" in made.told
    )
    assert "1/same.mp4 and 2/same.mp4 would have one name" in made.told
    record = read_json(made.path("made_by.json"))
    assert record["inventory"]["videos"]["taken"] == len(DURATIONS) + len(FAILED)
    assert "same" in record["failed"]
    assert f"though there is phone.srt beside them: --subtitles {own_raw.videos}" in made.told
    assert "inference.sh MODEL_DIR test_public" in made.told
    assert "all videos are zero" in made.told
    (note,) = [line for line in made.told.splitlines() if "too short to be found" in line]  # by another's model
    assert "a span takes 3 clips, more than 3 s" in note
    assert "pictures" in note.partition("): ")[2]
    splits = load_videos(made.path("video2dur_idx.json"))
    assert set(splits) == {"test_public", "all"}
    assert set(splits["test_public"]) == set(DURATIONS)
    assert [row["desc"] for row in read_jsonl(made.path("test_public_release.jsonl"))] == [
        "Where is the rabbit?",
        "Who drives?",
    ]
    assert not made.path("train_release.jsonl").exists()
    assert not made.path("intermediate").exists()
    assert made.path("subtitles.jsonl").is_file()
    assert not made.path("training.json").exists()
    with h5py.File(made.features["sub"]) as sub:
        assert not any(np.any(array) for array in sub.values())


def test_subtitle_lines_are_queries_where_there_are_no_others(raw: RawCorpus, own: Path) -> None:
    assert (
        "Or train on what is said: the same extraction with --queries_from subtitles"
        in make(raw, own, queries=None).told
    )
    made = make(raw, own, queries=None, queries_from="subtitles")
    assert made.code == 0, made.noted
    spoken = len(DURATIONS) - len(SILENT)  # videos, of whose lines one is long enough
    rows = [row for split in ("train", "val") for row in read_jsonl(made.path(f"{split}_release.jsonl"))]
    assert {row["desc"] for row in rows} == {"Where are they going?"}
    assert len(rows) == len({row["vid_name"] for row in rows}) == spoken
    assert {(row["made_from"], row["type"]) for row in rows} == {("subtitles", "t")}
    (note,) = [line for line in made.told.splitlines() if "not sentences that people wrote to search" in line]
    assert note.startswith(f"  {spoken} queries are subtitle lines, ")
    assert f": {3 * spoken} other lines are not taken (" in note
    record = read_json(made.path("made_by.json"))
    assert record["query_sources"]["subtitle_lines"] == spoken
    assert record["options"]["queries_from"] == "subtitles"
    assert made.path("training.json").is_file()


def test_i3d_features_stand_beside_the_image_models(raw: RawCorpus, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(I3D().state_dict(), tmp_path / "i3d.pt")
    few = RawCorpus(tmp_path / "few")
    few.videos.mkdir(parents=True)
    write_video(few.videos / "short.mp4", 14)
    shutil.copy(raw.videos / "empty.mp4", few.videos)
    options = {
        "i3d_weights": tmp_path / "i3d.pt",
        "clip_length": 0.4,
        "frame_rate": 5,
        "queries": None,
        "subtitles": None,
    }
    made = make(few, tmp_path / "both", **options)
    assert made.code == 0, made.noted
    found = FeatureFile(made.features["video"])
    assert found.keys() == ["short"]
    features = found.read("short", 1280 + 1024)
    assert len(features) == 2
    np.testing.assert_allclose(np.linalg.norm(features[:, :1280], axis=1), 1, rtol=1e-3)
    assert np.all(np.linalg.norm(features[:, 1280:], axis=1) <= 1)  # random weights give little to divide by
    assert np.all(np.any(features[:, 1280:], axis=1))
    record = properties(found.made_by())
    assert record["model"] == "timm/efficientnet_lite0+i3d"
    assert record["normalised"] == "L2 per half"
    assert 'inference.sh MODEL_DIR all --query "a sentence"' in made.told


def _refusal(raw: RawCorpus, tmp_path: Path, **changed: Any) -> str:
    made = make(raw, tmp_path / "out", **changed)
    assert made.code == 2
    assert not made.opened
    return made.noted


def test_wrong_input_is_refused_before_any_video_is_opened(raw: RawCorpus, tmp_path: Path) -> None:
    queries = tmp_path / "q.jsonl"
    queries.write_text('{"desc": "Late.", "vid_name": "phone", "ts": [2, 1]}\n')
    assert "q.jsonl, line 1" in _refusal(raw, tmp_path, queries=queries)
    queries.write_text('{"desc": "Where?", "vid_name": "phone.mp4", "ts": [1, 2]}\n')
    assert "is none of the videos" in _refusal(raw, tmp_path, queries=queries)
    assert "no such folder" in _refusal(raw, tmp_path, text_model=tmp_path / "nothing")
    assert "weights not found" in _refusal(raw, tmp_path, image_weights=tmp_path / "nothing.pt")
    assert "has no .srt" in _refusal(raw, tmp_path, subtitles=raw.videos)
    assert "give their folder by --subtitles" in _refusal(raw, tmp_path, queries_from="subtitles", subtitles=None)
    assert "--val_share" in _refusal(raw, tmp_path, val_share=1)
    assert "--clip_length" in _refusal(raw, tmp_path, clip_length="nan")
    assert "without a frame" in _refusal(raw, tmp_path, frame_rate=0.5)


def test_a_corpus_of_failed_videos_alone_is_none(raw: RawCorpus, tmp_path: Path) -> None:
    few = RawCorpus(tmp_path / "few")
    few.videos.mkdir(parents=True)
    shutil.copy(raw.videos / "empty.mp4", few.videos)
    made = make(few, tmp_path / "none", queries=None, subtitles=None)
    assert made.code == 2
    assert "no video could be used" in made.noted
    assert not list(made.out.glob("*release*"))


@pytest.fixture(scope="module")
def model_dir(corpus: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, trained by the command that was printed."""
    root = tmp_path_factory.mktemp("results")
    command = corpus.told.partition("Train on it:\n\n")[2].partition("\n\n")[0].strip()
    finished = run_script("-c", f"{command} {' '.join(SMALL)} --results_root {root}")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (found,) = root.iterdir()
    return found


def test_the_printed_command_trains_as_the_long_one_does(model_dir: Path, corpus: Made) -> None:
    words = ["--dset_name", "custom", "--ctx_mode", "video_sub_tef", "--vid_feat_type", "resnet", "--exp_id", "tiny"]
    words += ["--settings", str(corpus.path("training.json")), "--results_root", str(model_dir.parent)]
    long = {**parse_train_options([*words, *SMALL]), "results_dir": str(model_dir)}
    assert read_json(model_dir / "opt.json") == long
    assert model_dir.name.startswith("custom-video_sub_tef-tiny-")


def test_files_become_a_model_and_a_sentence_an_answer(model_dir: Path, corpus: Made, capsys) -> None:
    command = shlex.split(corpus.told.partition("Then ask it:\n\n")[2].partition("\n\nOr ask it on a page:\n\n")[0])
    pattern = "custom-video_sub_tef-tiny-[0-9][0-9][0-9][0-9]_*"
    assert command == ["bash", "method_tvr/scripts/search.sh", pattern, "a sentence"]
    question = "A rabbit comes out"
    capsys.readouterr()
    search.main(["--model_dir", str(model_dir), question, "--device", "-1"])
    printed = capsys.readouterr()
    assert f"note: sentences are encoded by {text_model()}, which made this corpus by " in printed.err
    rows = [line.split() for line in printed.out.partition(question)[2].splitlines()]
    rows = [row for row in rows if row[5:6] == ["%"]]
    assert len(rows) == 10
    for _, name, start, end, *_ in rows:
        assert name in DURATIONS
        assert start < end <= f"00:{int(DURATIONS[name]) + 1:02}"
