"""What is shown of a moment: where it lies in its video, what is said in it, and which file plays."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from method_tvr.ask.moments import Moment
from method_tvr.report.timeline import ANNOTATED, CURVES_HEIGHT, NARROWEST, PREDICTED, Lane, Timeline
from method_tvr.search.answering import SpanCurves
from method_tvr.web.media import MediaFiles
from method_tvr.web.page.moment_view import MomentView, ShownMoment, boundary_curves
from tests.support.video_files import write_video

HOSTILE = """<script>alert(1)</script>"'&{{ 7 * 7 }}${1}"""
CURVES = SpanCurves(np.array([0.1, 0.6, 0.3, 0.0]), np.array([0.0, 0.1, 0.4, 0.5]), clip_length=1.5, end_offset=1)
NO_FILES = MediaFiles()


def files(vid_name: str) -> MediaFiles:
    return MediaFiles({vid_name: Path("/videos/a.mp4")})


def shown(**changed: object) -> ShownMoment:
    found = Moment("friends_01", 12.0, 18.0, 2.5, {"video": 0.5, "sub": 0.25}, 0.6, 0.5)
    moment = replace(found, **{name: changed.pop(name) for name in ("vid_name", "score") if name in changed})
    return ShownMoment(**{"rank": "1", "moment": moment, "duration": 60.0, **changed})


def rectangles(picture: str, kind: str) -> list[tuple[float, float]]:
    """Left and width of the spans of a kind, in seconds of a video of 60."""
    found = re.findall(rf'class="span-{kind}" x="([\d.]+)%" width="([\d.]+)%"', picture)
    return [(float(x) * 60 / 100, float(width) * 60 / 100) for x, width in found]


@given(st.floats(0, 59), st.floats(0.2, 30))
def test_spans_lie_where_they_lie_in_the_video(start, length):
    end = min(start + length, 60.0)
    ((x, width),) = rectangles(Timeline(60.0, [Lane("found", PREDICTED, [(start, end)])]).html(), PREDICTED)
    assert x == pytest.approx(start, abs=0.01)
    assert width == pytest.approx(max(end - start, NARROWEST * 60 / 100), abs=0.01)


def test_curves_have_a_point_for_each_clip_and_touch_the_top_where_they_are_highest():
    picture = Timeline(6.0, [Lane("annotated", ANNOTATED, [(0, 1)])], boundary_curves(CURVES)).html()
    lines = re.findall(r'class="curve-(\w+)" points="([^"]+)"', picture)
    points = {name: [tuple(map(float, point.split(","))) for point in text.split()] for name, text in lines}
    assert [x for x, _ in points["start"]] == [0, 250, 500, 750]
    assert [x for x, _ in points["end"]] == [250, 500, 750, 1000]  # a moment ends after its last clip
    assert min(points["start"], key=lambda point: point[1]) == (250, 2)
    assert min(points["end"], key=lambda point: point[1]) == (1000, 2)
    assert max(y for _, y in points["start"]) == CURVES_HEIGHT - 1
    assert "start, max 0.60" in picture
    assert "end, max 0.50" in picture


def test_a_timeline_says_in_words_what_it_shows():
    picture = shown(truth=[(9, 20), (30, 31)]).picture
    label = re.search(r'aria-label="([^"]+)"', picture)
    assert label
    assert label[1] == "found: 00:12 to 00:18; annotated: 00:09 to 00:20, 00:30 to 00:31; of 01:00"
    ElementTree.fromstring(picture)  # it is well-formed


def test_what_datasets_wrote_is_text_and_nothing_else():
    view = MomentView({HOSTILE: [{"text": HOSTILE, "start": 11, "end": 13}]}, files(HOSTILE))
    moment = shown(vid_name=HOSTILE)
    for html in (view.cards([moment]), view.details(moment, play=True)):
        assert "<script" not in html
        assert "{{ 7 * 7 }}" in html
    assert 'src="/media/%3Cscript%3Ealert%281%29%3C%2Fscript%3E%22%27%26' in view.details(moment, play=True)


def test_a_video_with_a_file_plays_from_where_the_moment_starts():
    view = MomentView({}, files("friends_01"))
    assert 'src="/media/friends_01#t=12.00,18.00"' in view.details(shown(), play=False)
    assert "autoplay" not in view.details(shown(), play=False)
    assert "autoplay" in view.details(shown(), play=True)
    missing = view.details(shown(vid_name="friends_02"), play=True)
    assert "<video" not in missing
    assert "--videos" in missing


@pytest.mark.parametrize(
    ("suffix", "start", "asked"),
    [("mp4", 7.0, 12.0), ("mkv", 7.0, 19.0), ("webm", 5000.5, 5012.5), ("mp4", 0.0, 12.0)],
)
def test_a_player_is_sent_to_the_time_that_the_clock_of_the_file_shows(tmp_path, suffix, start, asked):
    times = [start + n / 25 for n in range(50)]
    write_video(tmp_path / "a.mkv" if suffix == "webm" else tmp_path / f"a.{suffix}", times=times)
    for path in tmp_path.iterdir():
        path.rename(tmp_path / f"friends_01.{suffix}")
    html = MomentView({}, MediaFiles.in_folder(tmp_path, ["friends_01"])).details(shown(), play=False)
    assert f'src="/media/friends_01#t={asked:.2f},{asked + 6:.2f}"' in html
    assert "00:12 – 00:18" in html  # what is said of the moment counts from where the video begins
    assert ("The clock of this file" in html) == (asked > 12)


def test_a_file_that_browsers_do_not_play_gets_a_remedy(tmp_path):
    (tmp_path / "friends_01.avi").write_bytes(b"RIFF")
    media = MediaFiles.in_folder(tmp_path, ["friends_01"])
    html = MomentView({}, media).details(shown(), play=False)
    assert "Browsers do not play .avi files" in html
    assert "ffmpeg -i friends_01.avi" in html
    assert "(1: friends_01)" in media.told()
    assert str(tmp_path) not in html + media.told()
    (tmp_path / "friends_01.mp4").write_bytes(b"a copy")
    assert MediaFiles.in_folder(tmp_path, ["friends_01"]).told() == ""


def test_lines_inside_the_moment_are_told_from_those_around_it():
    lines = [{"text": f"from {start}", "start": start, "end": start + 2} for start in (2, 8, 11, 13, 17, 19, 40)]
    html = MomentView({"friends_01": lines}, NO_FILES).details(shown(), play=False)
    said = re.findall(r'<li class="(\w+)"><time>[\d:]+</time> (from \d+)</li>', html)
    assert said == [("around", "from 8"), ("inside", "from 11"), ("inside", "from 13"), ("inside", "from 17"),
                    ("around", "from 19")]  # fmt: skip
    assert "Nobody speaks" in MomentView({"other": lines}, NO_FILES).details(shown(), play=False)
    assert "What is said" not in MomentView({}, NO_FILES).details(shown(), play=False)


def test_bars_are_as_long_as_scores_compared_with_the_best_and_negative_ones_have_none():
    scores = [4.0, 1.0, 0.0, -2.0, None]
    html = MomentView({}, NO_FILES).cards([shown(score=score) for score in scores])
    assert re.findall(r'class="bar" style="width: ([^"]*)px"></span>([^<]*)<', html) == [
        ("48.0", "100 %"),
        ("12.0", "25 %"),
        ("0.0", "0 %"),
        ("0.0", "-2"),
    ]
    assert 'title="score 4, shown as a share of the best one\'s"' in html
    html = MomentView({}, NO_FILES).cards([shown(score=score) for score in (-1.0, -3.0)])
    assert re.findall(r'class="bar" style="width: ([^"]*)px"', html) == ["0.0", "0.0"]


def test_halves_of_characters_are_replaced():
    half = "\ud800"
    view = MomentView({"friends_01": [{"text": half, "start": 12, "end": 13}]}, files("friends_01"))
    for html in (view.cards([shown(rank=half)]), view.details(shown(), play=False), view.cards([shown(vid_name=half)])):
        html.encode()
        assert "?" in html


def test_an_annotated_moment_has_no_score_and_shows_itself_once():
    html = MomentView({}, NO_FILES).cards([shown(score=None, truth=[(12, 18)], rank="annotated")])
    assert "score" not in html
    assert rectangles(html, ANNOTATED) == [(12, 6)]
    assert rectangles(html, PREDICTED) == []
    assert "No video is long enough" in MomentView({}, NO_FILES).cards([])
