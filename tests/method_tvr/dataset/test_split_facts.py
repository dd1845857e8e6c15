"""Facts about splits, worked out by hand; and none of splits with nothing wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from method_tvr.dataset.annotations import Query, Video
from method_tvr.dataset.clip_times import AUTO, BEST_IOU, FLOOR_CEIL
from method_tvr.dataset.split_facts import (
    Moments,
    Reach,
    Split,
    best_ious,
    check_durations,
    facts,
    shares_out_of_reach,
    spans_out_of_reach,
    tell,
    videos_averaged,
    videos_too_short,
)
from standalone_eval.metrics import moment_iou
from utils import extract_features
from utils.basic_utils import InputError

TVR = Reach(clip_length=1.5, label_rule=FLOOR_CEIL, min_pred_l=2, max_pred_l=16, max_ctx_l=128, iou_thds=(0.5, 0.7))
ANY_LENGTH = Reach(AUTO, BEST_IOU, min_pred_l=1, max_pred_l=129, max_ctx_l=128, iou_thds=(0.5, 0.7))


def split_of(
    n_clips: Sequence[int], moments: Sequence[tuple[float, float]] = (), durations: Sequence[float] | None = None
) -> Split:
    """Videos v0, v1 … of so many clips of 1.5 s, with a moment in each as far as there are any."""
    videos = [Video(f"v{i}", 1.5 * n if durations is None else durations[i], i) for i, n in enumerate(n_clips)]
    queries = [Query(i, f"x {i}", i + 1, f"v{i}", ts, duration=videos[i].duration) for i, ts in enumerate(moments)]
    return Split.of("val", videos, n_clips, queries)


# ---------------------------------------------------------------------------- spans


@pytest.mark.parametrize("end_offset", [0, 1])
def test_the_best_iou_is_that_of_the_best_of_all_spans(end_offset: int) -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        n, low, seconds = generator.integers(1, 14), generator.integers(0, 4), generator.choice([0.39, 1.0, 1.5])
        high = low + generator.integers(1, 9)
        edges = (
            generator.uniform(0, (n + 1) * seconds, (4, 2))
            if generator.random() < 0.5
            else seconds * (generator.integers(0, n + 1, (4, 2)))
        )
        spans = np.sort(edges, axis=1)
        found = best_ious(Moments(spans, np.full(4, seconds), np.full(4, n)), low, high, end_offset)
        allowed = [(i, j + end_offset) for i in range(n) for j in range(i + low, min(i + high, n))]
        for span, best in zip(spans, found, strict=True):
            ious = moment_iou(np.array(allowed, dtype=np.float64).reshape(-1, 2) * seconds, span)
            assert best == pytest.approx(ious.max(initial=0), abs=1e-6)


def test_moments_longer_than_any_span_are_counted_with_the_length_that_would_do() -> None:
    # 70 s beside at most 15 clips, 22.5 s: IoU 0.32; from clip 13 to the boundary of clip 60 they are 47 clips long
    split = split_of([100] * 4, [(20.0, 90.0)] * 4)
    assert shares_out_of_reach(split.moments(TVR), TVR).tolist() == [1, 1]
    fact = spans_out_of_reach([split], TVR)
    assert fact is not None
    assert "100.0 % at IoU 0.5, 100.0 % at IoU 0.7 (val)" in fact.text
    assert "2 to 15 clips of 1.5 s" in fact.text
    assert fact.remedy == "--max_pred_l 48 leaves 0.0 % at IoU 0.5, 0.0 % at IoU 0.7"


def test_a_moment_shorter_than_any_span_wants_shorter_ones() -> None:
    # 1.5 s of at least 3 s: IoU 0.5, which is right at 0.5 and not at 0.7
    fact = spans_out_of_reach([split_of([20, 20], [(3.0, 4.5), (3.0, 9.0)])], TVR)
    assert fact is not None
    assert "0.0 % at IoU 0.5, 50.0 % at IoU 0.7" in fact.text
    assert fact.remedy == "--min_pred_l 1 leaves 0.0 % at IoU 0.5, 0.0 % at IoU 0.7"


def test_a_moment_at_the_end_of_its_video_wants_labels_that_reach_it() -> None:
    # of 6 clips, the last boundary is that of the last one, 7.5 s: nothing of [7.5, 9] is reached
    fact = spans_out_of_reach([split_of([6, 6], [(7.5, 9.0), (0.0, 3.0)])], TVR)
    assert fact is not None
    assert "50.0 % at IoU 0.5, 50.0 % at IoU 0.7" in fact.text
    assert "none reaches its video's end" in fact.text
    assert "--label_rule best_iou" in fact.remedy


def test_no_option_mends_clips_that_are_too_long() -> None:
    fact = spans_out_of_reach([split_of([4], [(0.1, 0.4)])], ANY_LENGTH)
    assert fact is not None
    assert fact.remedy == "features of shorter clips (--clip_length) bring them within reach"


def test_up_to_a_tenth_at_the_lowest_iou_and_a_quarter_at_the_highest_nothing_is_said() -> None:
    reached, too_long, half = (3.0, 9.0), (0.0, 60.0), (3.0, 4.5)
    assert spans_out_of_reach([split_of([50] * 20, [reached] * 18 + [too_long] * 2)], TVR) is None
    assert spans_out_of_reach([split_of([50] * 20, [reached] * 17 + [too_long] * 3)], TVR) is not None
    assert spans_out_of_reach([split_of([50] * 20, [reached] * 15 + [half] * 5)], TVR) is None
    assert spans_out_of_reach([split_of([50] * 20, [reached] * 14 + [half] * 6)], TVR) is not None


def test_each_moment_of_a_query_counts() -> None:
    query = Query(0, "x", 1, "v0", (3.0, 9.0), duration=75.0, moments=((3.0, 9.0), (0.0, 60.0)))
    split = Split("val", [query], {"v0": 75.0}, {"v0": 50})
    assert shares_out_of_reach(split.moments(TVR), TVR).tolist() == [0.5, 0.5]


# ---------------------------------------------------------------------------- lengths of videos


def test_averaged_videos_are_named_with_the_moments_after_what_can_be_predicted() -> None:
    split = split_of([267, 100, 200], [(300.0, 310.0), (20.0, 30.0), (100.0, 110.0)])
    fact = videos_averaged([split], TVR)
    assert fact is not None
    assert "2 of 3 videos have more than --max_ctx_l 128 clips" in fact.text
    assert "1 of 3 moments begin after 190.5 s" in fact.text
    assert fact.text.endswith("v0, v2")
    assert "--long_videos windows" in fact.remedy
    assert "--max_ctx_l 267" in fact.remedy
    # how long spans are is another matter, and that moment is not
    assert spans_out_of_reach([split], TVR) is None


def test_videos_in_windows_or_of_clips_of_their_own_length_have_right_times() -> None:
    split = split_of([267, 100], [(300.0, 310.0), (20.0, 30.0)])
    assert videos_averaged([split], Reach.of(vars(TVR), windows=True)) is None
    assert videos_averaged([split], Reach.of(vars(TVR) | {"clip_length": AUTO})) is None


def test_of_an_encoded_corpus_durations_say_what_was_averaged() -> None:
    assert TVR.before_averaging(128, 400.0) == 267  # the last of them not full
    assert TVR.before_averaging(128, 192.4) == 128
    assert TVR.before_averaging(80, 400.0) == 80
    assert Reach.of(vars(TVR), windows=True).before_averaging(128, 400.0) == 128


def test_videos_without_the_clips_of_a_span_are_named_with_the_seconds_that_one_takes() -> None:
    fact = videos_too_short([split_of([2, 3, 6])], TVR)
    assert fact is not None
    assert fact.text == "1 of 3 videos are too short to be found: a span takes 3 clips, more than 3 s: v0"
    assert fact.remedy == "give --min_pred_l 1"
    fact = videos_too_short([split_of([1, 3, 6])], TVR)
    assert fact is not None
    assert "--label_rule best_iou --min_pred_l 1" in fact.remedy
    assert videos_too_short([split_of([1])], ANY_LENGTH) is None


def test_an_extraction_names_as_too_short_what_a_search_does() -> None:
    low, _ = TVR.band
    assert low + 1 == extract_features.FEWEST_CLIPS


# ---------------------------------------------------------------------------- rows and durations


def test_rows_that_cannot_be_of_their_duration_are_refused() -> None:
    split = split_of([76, 40, 20], durations=[30.0, 60.0, 30.0])
    for spread in (False, True):
        with pytest.raises(InputError) as refused:
            check_durations(split, 1.5, spread, "v.h5")
        assert "durations of 1 of 3 videos" in str(refused.value)
        assert "v0 (76 rows of 1.5 s, but lasts 30 s)" in str(refused.value)


def test_fewer_rows_are_refused_unless_they_are_spread_over_the_video() -> None:
    split = split_of([10], durations=[30.0])
    with pytest.raises(InputError, match="v0"):
        check_durations(split, 1.5, False, "v.h5")
    assert check_durations(split, 1.5, True, "v.h5") is None
    assert check_durations(split, None, True, "v.h5") is None


@pytest.mark.parametrize("n", [18, 19, 20, 21, 22])
def test_a_row_or_two_more_or_less_are_nothing(n: int) -> None:
    assert check_durations(split_of([n], durations=[30.0]), 1.5, False, "v.h5") is None


def test_a_small_share_of_many_rows_is_named_and_taken() -> None:
    fact = check_durations(split_of([110, 97, 100], durations=[150.0, 150.0, 150.0]), 1.5, False, "v.h5")
    assert fact is not None
    assert "durations of 2 of 3 videos" in fact.text
    with pytest.raises(InputError, match="1 of 2 videos"):
        check_durations(split_of([111, 97], durations=[150.0, 150.0]), 1.5, False, "v.h5")


# ---------------------------------------------------------------------------- what is said


def test_nothing_is_said_where_nothing_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    split = split_of([20, 30, 128], [(3.0, 9.0), (6.0, 20.0), (100.0, 110.0)])
    for reach in (TVR, ANY_LENGTH):
        tell(facts([split], reach))
    assert capsys.readouterr() == ("", "")


def test_each_fact_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    tell(facts([split_of([267, 2, 100], [(20.0, 90.0), (0.0, 3.0), (20.0, 90.0)])], TVR))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("note: ") for line in lines)


# ---------------------------------------------------------------------------- sentences


def test_sentences_about_several_videos_are_said_where_answers_are_judged() -> None:
    videos = [Video(f"v{i}", 60.0, i) for i in range(4)]
    asked = ["A man waves.", "a man  waves.", "A man waves.", "A dog."]
    queries = [Query(i, text, i + 1, f"v{i // 2}", (3.0, 9.0), duration=60.0) for i, text in enumerate(asked)]
    split = Split.of("val", videos, [40] * 4, queries)
    (fact,) = facts([split], TVR)
    assert "1 of 2 sentences of val are asked about several videos" in fact.text
    assert "R@1 of VCMR and VR is at most 75.00: a man waves." in fact.text  # two of the three, and the dog
    assert facts([replace(split, judged=False)], TVR) == []
    assert facts([replace(split, queries=[queries[0], queries[1], queries[3]])], TVR) == []


# ---------------------------------------------------------------------------- subtitle lines


def test_queries_that_nobody_wrote_are_said_first() -> None:
    split = split_of([20, 20, 20], [(0, 6), (6, 12), (12, 18)])
    assert facts([split], TVR) == []
    lines = [replace(query, from_subtitles=query.desc_id > 0) for query in split.queries]
    trained, fine = replace(split, name="train.jsonl", queries=lines), replace(split, name="val.jsonl")
    short = split_of([1])
    first, *_ = facts([trained, fine, short], TVR)
    assert "not sentences that people wrote to search (2 of 3 of train.jsonl): " in str(first)
    assert len(facts([trained, fine, short], TVR)) == 2
