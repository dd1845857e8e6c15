"""From a folder of videos to answers by one command, and again when the folder has changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from method_tvr.ask import search_videos, video_corpus
from tests.support.joint_corpus import make_videos
from tests.support.joint_models import tiny_joint_model
from tests.support.text_models import Finished, run_command
from utils.basic_utils import read_json


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_joint_model(tmp_path_factory.mktemp("model") / "clip", "clip")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return make_videos(tmp_path / "my") / "videos"


def ask(videos: Path, model: Path, *words: object) -> Finished:
    return run_command(search_videos.main, [videos, *words, "--image_model", model, "--device", -1])


def answers(finished: Finished) -> list[dict]:
    assert finished.code == 0, finished.err
    return [json.loads(line) for line in finished.out.splitlines()]


def found(finished: Finished) -> set[str]:
    return {moment["vid_name"] for answer in answers(finished) for moment in answer["moments"]}


def test_a_folder_is_searched_and_only_what_is_new_is_taken_in(videos, model, monkeypatch):
    first = ask(videos, model, "A red bicycle.", "--json", "--top_k", 50)
    assert found(first) == {"a", "b", "c", "d"}
    assert sorted(path.name for path in videos.iterdir()) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]  # as it was
    made = videos.with_name("videos_search")
    assert read_json(made / "zero_shot" / "opt.json", "")["ctx_mode"] == "video"

    with monkeypatch.context() as patched:
        patched.setattr(video_corpus.VideoCorpus, "_extract", lambda self: pytest.fail("nothing is new"))
        again = ask(videos, model, "A red bicycle.", "--json", "--top_k", 50)
    assert answers(again) == answers(first)
    assert "0 of them added now" in again.err

    shutil.copy(videos / "a.mp4", videos / "e.mp4")
    more = ask(videos, model, "A red bicycle.", "--json", "--top_k", 50)
    assert found(more) == {"a", "b", "c", "d", "e"}
    assert "4 of 5 videos are in" in more.err
    scores = {moment["vid_name"]: moment["score"] for moment in reversed(answers(more)[0]["moments"])}
    assert scores["e"] == pytest.approx(scores["a"])


def test_what_is_said_counts_where_subtitle_files_lie(videos, model):
    shutil.copytree(videos.with_name("subtitles"), videos, dirs_exist_ok=True)
    said = answers(ask(videos, model, "A red bicycle.", "--json", "--top_k", 50))[0]["moments"]
    match = {moment["vid_name"]: moment["match"] for moment in said}
    assert match["b"]["sub"] > 0.1  # half of what the sentences have in common
    assert match["c"]["sub"] == 0  # nobody speaks
    weighed = answers(ask(videos, model, "A red bicycle.", "--json", "--top_k", 50, "--sub_weight", 0.25))[0]["moments"]
    quarter = {moment["vid_name"]: moment["match"] for moment in weighed}
    assert quarter["b"]["sub"] == pytest.approx(match["b"]["sub"] / 2, abs=1e-3)
    assert quarter["b"]["video"] == pytest.approx(match["b"]["video"], abs=1e-3)


def test_the_page_is_opened_with_the_videos_and_the_model(videos, model, monkeypatch):
    started = []

    def never_returns(program: str, words: list[str]) -> None:
        started.append(words)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", never_returns)
    assert ask(videos, model, "--page", "--port", 7861).code == 0
    words = started[0]
    assert words[1].endswith("serve.py")
    assert words[words.index("--videos") + 1] == str(videos)
    assert words[words.index("--model_dir") + 1] == str(videos.with_name("videos_search") / "zero_shot")
    assert words[-2:] == ["--port", "7861"]
    both = ask(videos, model, "A red bicycle.", "--page", "--port", 7861)
    assert (both.code, "A red bicycle." in both.out) == (0, True)
    assert started[1] == words


def test_what_is_wrong_is_said_before_anything_is_made(videos, model, tmp_path):
    nowhere = ask(tmp_path / "nowhere", model, "a sentence")
    assert (nowhere.code, "is no folder" in nowhere.err) == (2, True)
    blank = ask(videos, model, " ")
    assert (blank.code, "blank" in blank.err) == (2, True)
    inside = ask(videos, model, "a sentence", "--out", videos)
    assert (inside.code, "name another" in inside.err) == (2, True)
    mistaken = run_command(search_videos.main, ["--json", videos, "a sentence"])
    assert (mistaken.code, "folder of videos first" in mistaken.err) == (2, True)
    no_model = ask(videos, tmp_path, "a sentence")
    assert no_model.code == 2
    assert str(tmp_path) in no_model.err
    assert not (tmp_path / "my" / "videos_search" / "taken_in.json").exists()
