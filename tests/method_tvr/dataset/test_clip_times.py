"""Seconds to clips and back: the reference's labels, the labels of the best IoU, and what the way back keeps."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from method_tvr.dataset.clip_times import AUTO, BEST_IOU, CEIL_INSIDE, FLOOR_CEIL, LABEL_RULES, ClipTimes
from method_tvr.report.chance import allowed_spans
from standalone_eval.metrics import moment_iou
from tests.method_tvr.dataset.label_bound import furthest

EPS = 1e-9
clip_seconds = st.sampled_from([1.5, 1.0, 2.56, 0.1]) | st.floats(0.05, 20)
shares = st.floats(0, 1)


@st.composite
def moments_in_clips(draw: st.DrawFn, least: float = 0.0) -> tuple[float, float, int]:
    """Start and end of a moment in clips, `least` long at the least, and how many clips its video has."""
    n_clips = draw(st.integers(max(1, math.ceil(least)), 60))
    length = least + draw(shares) * (n_clips - least)
    start = draw(shares) * (n_clips - length)
    return start, min(start + length, n_clips), n_clips


def label_iou(times: ClipTimes, ts: tuple[float, float], duration: float | None, n_clips: int) -> float:
    first, last = times.label(ts, duration, n_clips)
    return iou(ts, times.seconds(np.array([first, last]), duration, n_clips))


def iou(one: tuple[float, float], other: np.ndarray) -> float:
    shared = max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
    return shared / (max(one[1], other[1]) - min(one[0], other[0]))


# ---------------------------------------------------------------------------- labels


@given(st.floats(0, 500), st.floats(0, 500), clip_seconds, st.integers(1, 128))
def test_tvrs_rule_is_the_references(one, other, seconds, n_clips):
    ts = min(one, other), max(one, other)
    label = ClipTimes(seconds, FLOOR_CEIL).label(ts, None, n_clips)
    assert label == (min(math.floor(ts[0] / seconds), n_clips - 1), min(math.ceil(ts[1] / seconds), n_clips - 1))
    assert 0 <= label[0] <= label[1] < n_clips
    assert all(type(clip) is int for clip in label)


def test_the_plain_clip_times_are_tvrs():
    assert ClipTimes() == ClipTimes(1.5, FLOOR_CEIL)
    assert ClipTimes().label((1.6, 4.4), None, 40) == (1, 3)
    assert ClipTimes().seconds(np.array([[1, 3]]), None, 40).tolist() == [[1.5, 4.5]]


@pytest.mark.parametrize(
    ("ts", "label"),
    [
        ((1.0, 3.0), (1, 2)),  # the end is that of the last clip
        ((1.2, 2.9), (1, 2)),
        ((1.7, 3.1), (2, 2)),  # 1 of 1.4 s against 1.4 of 2 s and 1.4 of 2.1 s
        ((0.2, 0.3), (0, 0)),
        ((0.0, 10.0), (0, 9)),
        ((9.9, 10.0), (9, 9)),
        ((3.5, 4.5), (3, 4)),  # 3, 4 and both fit equally well: both cover all of it
        ((12.0, 14.0), (9, 9)),  # past the features' end
    ],
)
def test_the_best_run_of_ten_clips_of_a_second(ts, label):
    assert ClipTimes(1.0, BEST_IOU).label(ts, None, 10) == label


@settings(max_examples=200)
@given(moments_in_clips(), st.floats(0, 2))
def test_no_run_of_clips_fits_better(moment, beyond):
    start, end, n_clips = moment
    end += beyond  # the features may end before the moment does
    assume(end - start > 1e-6)
    first, last = ClipTimes(1.0, BEST_IOU).label((start, end), None, n_clips)
    assert 0 <= first <= last < n_clips
    runs = [np.array([i, j + 1.0]) for i, j in itertools.combinations_with_replacement(range(n_clips), 2)]
    best = max(iou((start, end), run) for run in runs)
    assert iou((start, end), np.array([first, last + 1.0])) == pytest.approx(best, abs=1e-11)


@settings(suppress_health_check=[HealthCheck.filter_too_much])  # many drawn moments begin or end with a clip
@given(moments_in_clips(), st.floats(0.2, 20))
def test_labels_do_not_depend_on_the_unit_of_time(moment, seconds):
    """But for what rounding does to moments that begin or end with a clip."""
    start, end, n_clips = moment
    assume(all(0.001 < x % 1 < 0.999 for x in (start, end)))
    plain, scaled = ClipTimes(1.0, FLOOR_CEIL), ClipTimes(seconds, FLOOR_CEIL)
    ts = (start * seconds, end * seconds)
    assert scaled.label(ts, None, n_clips) == plain.label((start, end), None, n_clips)
    own = ClipTimes(AUTO, FLOOR_CEIL)
    assert own.label(ts, seconds * n_clips, n_clips) == plain.label((start, end), None, n_clips)
    fits = [label_iou(ClipTimes(c, BEST_IOU), t, None, n_clips) for c, t in ((1.0, (start, end)), (seconds, ts))]
    assert fits[0] == pytest.approx(fits[1], abs=1e-9)


# ---------------------------------------------------------------------------- there and back


@given(moments_in_clips(), clip_seconds)
def test_tvrs_labels_come_back_within_a_clip_but_for_the_last_clips_limit(moment, seconds):
    start, end, n_clips = moment
    times = ClipTimes(seconds, FLOOR_CEIL)
    back = times.seconds(np.array(times.label((start * seconds, end * seconds), None, n_clips)), None, n_clips)
    st_clip, ed_clip = back / seconds
    assert start - 1 - EPS < st_clip <= start + EPS
    if math.ceil(end - EPS) > n_clips - 1:
        assert ed_clip == pytest.approx(n_clips - 1, abs=EPS)  # no span reaches the video's end
    else:
        assert end - EPS <= ed_clip < end + 1 + EPS


@given(moments_in_clips(least=1.0), clip_seconds)
def test_labels_of_the_best_iou_come_back_within_half_a_clip_and_what_short_moments_add(moment, seconds):
    start, end, n_clips = moment
    times = ClipTimes(seconds, BEST_IOU)
    back = times.seconds(np.array(times.label((start * seconds, end * seconds), None, n_clips)), None, n_clips)
    st_clip, ed_clip = back / seconds
    most = furthest(end - start)
    assert most <= 0.5 + 1 / (4 * (end - start)) + EPS
    assert max(abs(st_clip - start), abs(ed_clip - end)) <= most + EPS
    assert max(st_clip - start, end - ed_clip) < 0.5 + EPS  # what is cut off


@given(moments_in_clips(), clip_seconds)
def test_moments_of_any_length_come_back_within_a_clip(moment, seconds):
    start, end, n_clips = moment
    assume(end - start > 1e-6)
    times = ClipTimes(seconds, BEST_IOU)
    back = times.seconds(np.array(times.label((start * seconds, end * seconds), None, n_clips)), None, n_clips)
    assert np.abs(back / seconds - [start, end]).max() <= 1 + EPS


def worst_deviation(length: float) -> float:
    """The most clips by which labels of the best IoU miss an end of moments of one length, wherever they begin."""
    times, n_clips = ClipTimes(1.0, BEST_IOU), math.ceil(length) + 2
    starts = 1 + np.arange(0, 1, 1 / 400)
    labels = np.array([times.label((s, s + length), None, n_clips) for s in starts])
    back = times.seconds(labels, None, n_clips)
    return float(np.abs(back - np.stack([starts, starts + length], axis=1)).max())


@pytest.mark.parametrize("length", [1, 1.4, math.sqrt(3), 2, 2.45, math.sqrt(8), 3, 5, 10, 30])
def test_no_moment_is_labelled_further_off_than_the_bound(length):
    """Which is reached: by lengths whose square is one less than a square."""
    worst, most = worst_deviation(length), furthest(length)
    assert worst <= most + EPS
    if math.isclose(math.sqrt(length**2 + 1) % 1, 0, abs_tol=EPS):
        assert worst == pytest.approx(most, abs=1 / 400)


def test_the_bound_is_half_a_clip_for_long_moments_alone():
    assert furthest(1.0) == pytest.approx(math.sqrt(0.5))
    assert worst_deviation(1.0) > 0.66  # two clips, when a third of the moment lies in the first
    assert furthest(100.0) < 0.5026


@given(st.floats(0.5, 5000), st.integers(1, 300))
def test_a_moment_of_the_whole_video_comes_back_whole(duration, n_clips):
    times = ClipTimes(AUTO, BEST_IOU)
    label = times.label((0.0, duration), duration, n_clips)
    assert label == (0, n_clips - 1)
    start, end = times.seconds(np.array(label), duration, n_clips)
    assert start == 0
    assert end == pytest.approx(duration, rel=1e-15)


@pytest.mark.parametrize("label_rule", [FLOOR_CEIL, BEST_IOU])
@given(data=st.data())
def test_labels_are_found_again_from_the_seconds_that_they_stand_for(label_rule, data):
    duration, n_clips = data.draw(st.floats(1, 1000)), data.draw(st.integers(1, 128))
    first = data.draw(st.integers(0, n_clips - 1))
    last = data.draw(st.integers(first, n_clips - 1))
    assume(label_rule == BEST_IOU or last > first)
    times = ClipTimes(AUTO, label_rule)
    start, end = times.seconds(np.array([first, last]), duration, n_clips)
    nudge = 1e-7 * duration / n_clips if label_rule == FLOOR_CEIL else 0  # rounding must not take it out of its clip
    assert times.label((start + nudge, end - nudge), duration, n_clips) == (first, last)


# ---------------------------------------------------------------------------- lengths


def test_a_clips_length_of_its_own_is_the_duration_shared_out():
    times = ClipTimes(AUTO, BEST_IOU)
    assert times.is_auto
    assert times.seconds_per_clip(30.0, 12) == 2.5
    assert times.label((0.0, 2.6), 30.0, 12) == (0, 0)
    assert times.label((0.0, 2.6), 30.0, 120) == (0, 9)
    assert times.seconds(np.array([[3, 5], [11, 11]]), 30.0, 12).tolist() == [[7.5, 15.0], [27.5, 30.0]]


def test_without_the_duration_clips_of_their_own_length_are_an_error_and_others_are_not():
    with pytest.raises(ValueError, match="duration of its video"):
        ClipTimes(AUTO).label((0.0, 1.0), None, 4)
    assert ClipTimes(2.0).seconds_per_clip(None, 4) == 2.0
    assert not ClipTimes(2.0).is_auto


@given(
    st.sampled_from(LABEL_RULES),
    st.integers(1, 40),
    st.integers(0, 6),
    st.integers(1, 40),
    st.floats(1, 500),
)
def test_spans_of_the_band_last_as_many_clips_as_the_options_allow(label_rule, n_clips, min_l, more, duration):
    times, max_l = ClipTimes(AUTO, label_rule), min_l + more
    allowed = allowed_spans(n_clips, *times.band(min_l, max_l))
    pairs = np.array(list(itertools.combinations_with_replacement(range(n_clips), 2)))
    clip = duration / n_clips
    seconds = times.seconds(pairs, duration, n_clips)
    lengths = np.rint((seconds[:, 1] - seconds[:, 0]) / clip) - (
        label_rule == CEIL_INSIDE
    )  # one clip more, as published
    fits = pairs[(lengths >= min_l) & (lengths < max_l)]
    assert sorted(allowed.tolist()) == sorted(fits.tolist())


@given(moments_in_clips(least=1.0), st.sampled_from(LABEL_RULES))
def test_the_label_is_among_the_spans_that_may_be_predicted_when_any_length_may(moment, label_rule):
    start, end, n_clips = moment
    times = ClipTimes(1.0, label_rule)
    label = times.label((start, end), None, n_clips)
    allowed = allowed_spans(n_clips, *times.band(0, n_clips + 1))
    assert list(label) in allowed.tolist()


@given(moments_in_clips(least=1.0))
def test_a_label_of_the_best_iou_is_no_worse_than_rounding_both_ends(moment):
    start, end, n_clips = moment
    times = ClipTimes(1.0, BEST_IOU)
    back = times.seconds(np.array(times.label((start, end), None, n_clips)), None, n_clips)
    least = (end - start - 1) / (end - start)  # half a clip cut off at both ends
    assert moment_iou(back, np.array([start, end])) >= least - 1e-5
