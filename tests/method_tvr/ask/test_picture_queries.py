"""A picture or a clip is what is looked for, where the model compares pictures; any other model refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import Image

from method_tvr.ask import search
from method_tvr.ask.questions import QuestionError
from method_tvr.ask.searcher import MomentSearcher
from tests.support.joint_models import PROJECTED, tiny_joint_model
from tests.support.runs.tiny_corpus import as_argv
from tests.support.scenes import N_SCENES, NAMES, RATE, SCENE_S, make_corpus, make_model, scene
from tests.support.video_files import write_video
from utils.basic_utils import InputError
from utils.feature_files.feature_file import FeatureFile

KINDS = ("clip", "siglip2")  # of one size, and of as many patches as the shape allows


class Scenes:
    """A corpus of a kind of model, its results folder, and a picture of the kitchen's last scene."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root, self.kind, self.model = root, kind, root / "model"
        self.corpus = make_corpus(root, kind)
        self.folder = make_model(self.corpus, root / "results")
        self.picture = root / "asked.png"
        Image.fromarray(scene(1, 2)).save(self.picture)
        self.searcher = MomentSearcher.open(self.folder, device=-1, text_model=str(self.model))


@pytest.fixture(scope="module", params=KINDS)
def scenes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return Scenes(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def clip_scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return Scenes(tmp_path_factory.mktemp("clip_scenes"), "clip")


def test_a_picture_finds_the_scene_that_it_shows(scenes):
    assert scenes.searcher.compares_pictures
    asked = [(video, number) for video in range(len(NAMES)) for number in range(N_SCENES)]
    contents = []
    for where in asked:
        path = scenes.root / "{}-{}.png".format(*where)
        Image.fromarray(scene(*where)).save(path)
        contents.append(path.read_bytes())
    found = scenes.searcher.search_pictures(contents, top_k=1)
    for (video, number), (moment,) in zip(asked, found, strict=True):
        assert moment.vid_name == NAMES[video]
        assert number * SCENE_S <= moment.start < moment.end <= (number + 1) * SCENE_S
        assert moment.match["video"] > 0.9
        assert moment.match["sub"] == 0.0


def test_a_pictures_features_are_its_vector_and_nothing_that_is_said(scenes):
    rows = scenes.searcher.of_picture(scenes.picture)
    assert rows.shape == (2, PROJECTED[scenes.kind])
    assert np.linalg.norm(rows[0]) == pytest.approx(1, abs=1e-4)
    assert not rows[1].any()
    assert np.array_equal(rows, scenes.searcher.of_picture(scenes.picture.read_bytes()))
    (by_rows,) = scenes.searcher.search_pictures([rows], 3)
    assert scenes.searcher.search_pictures([scenes.picture], 3) == [by_rows]
    (curves,) = scenes.searcher.curves(rows, [by_rows[0].vid_name])
    assert np.argmax(curves.p_start) * 1.5 == by_rows[0].start


def test_a_clip_is_the_mean_of_its_frames(clip_scenes, tmp_path):
    """As a clip of the corpus is; encoded with less loss, of which a tiny model sees much."""
    frames = [scene(2, 1)] * (SCENE_S * RATE)
    clip = write_video(tmp_path / "clip.mp4", rate=RATE, frames=frames)
    rows = clip_scenes.searcher.of_picture(clip)
    (video,) = (clip_scenes.corpus / "scenes_feature_release" / "video_feature").glob("*.h5")
    with FeatureFile(video) as file:
        vector = file.read("street")[2]  # from 3 to 4.5 s
    assert rows[0] @ vector / np.linalg.norm(vector) > 0.999
    (found,) = clip_scenes.searcher.search_pictures([clip], 1, nms_thd=0.5)
    assert (found[0].vid_name, found[0].start, found[0].end) == ("street", 3.0, 6.0)


def test_searches_can_be_kept_to_a_video_and_to_moments_that_do_not_overlap(clip_scenes):
    (found,) = clip_scenes.searcher.search_pictures([clip_scenes.picture], 20, video="harbor")
    assert {moment.vid_name for moment in found} == {"harbor"}
    (apart,) = clip_scenes.searcher.search_pictures([clip_scenes.picture], 20, video="harbor", nms_thd=0.0)
    assert 0 < len(apart) < len(found)
    with pytest.raises(QuestionError, match="there is no video nowhere"):
        clip_scenes.searcher.search_pictures([clip_scenes.picture], video="nowhere")
    assert clip_scenes.searcher.search_pictures([]) == []


def test_the_command_line_answers_pictures_beside_sentences(clip_scenes, run_main, tmp_path):
    argv = ["Ruth paints.", *as_argv({"model_dir": clip_scenes.folder, "device": -1, "text_model": clip_scenes.model})]
    argv += ["--json", "--query_image", str(clip_scenes.picture), "--csv", str(tmp_path / "found.csv")]
    answered = run_main(search.main, argv)
    assert answered.code == 0, answered.err
    of_sentence, of_picture = map(orjson.loads, answered.out.splitlines())
    assert (of_sentence["query"], "query_image" in of_sentence) == ("Ruth paints.", False)
    assert (of_picture["query_image"], "query" in of_picture) == (str(clip_scenes.picture), False)
    assert of_picture["moments"][0]["vid_name"] == "kitchen"
    assert "asked.png,1,kitchen," in (tmp_path / "found.csv").read_text(encoding="utf-8-sig")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\nbroken"])
def test_a_file_that_is_no_picture_ends_the_command_before_anything_is_loaded(
    clip_scenes, run_main, tmp_path, monkeypatch, content
):
    monkeypatch.setattr(search, "open_model", lambda _: pytest.fail("it was loaded"))
    file = tmp_path / "bad.jpg"
    file.write_bytes(content)
    argv = as_argv({"model_dir": clip_scenes.folder, "device": -1, "query_image": file})
    refused = run_main(search.main, argv)
    assert refused.code == 2
    assert refused.err.splitlines()[-1].startswith(f"error: {file}: ")


def test_another_model_refuses(tiny_model, clip_scenes, run_main, monkeypatch, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "run")  # in which videos are encoded
    monkeypatch.setattr(search, "open_searcher", lambda *_: pytest.fail("videos were encoded"))
    refused = run_main(search.main, as_argv({"model_dir": folder, "device": -1, "query_image": clip_scenes.picture}))
    assert refused.code == 2
    assert f"--query_image {clip_scenes.picture}: this model compares no pictures" in refused.err
    with pytest.raises(QuestionError, match="compares no pictures"):
        MomentSearcher.open(folder, device=-1).search_pictures([clip_scenes.picture])


def test_a_model_that_sees_nothing_refuses(clip_scenes, tmp_path):
    folder = make_model(clip_scenes.corpus, tmp_path / "results", ctx_mode="sub")
    searcher = MomentSearcher.open(folder, device=-1, text_model=str(clip_scenes.model))
    assert not searcher.compares_pictures


def test_a_model_of_other_weights_is_refused(clip_scenes, tmp_path):
    searcher = MomentSearcher.open(clip_scenes.folder, device=-1, text_model=str(clip_scenes.model))
    searcher._picture_model._name = str(tiny_joint_model(tmp_path / "other", "clip", seed=1))
    with pytest.raises(InputError, match="is not the model that made the videos' vectors") as caught:
        searcher.search_pictures([clip_scenes.picture])
    assert not isinstance(caught.value, QuestionError)  # it is nobody's fault who asks
