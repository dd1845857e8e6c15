"""The stories of the embedded corpus hold together, and what validation tests was never in training."""

import itertools

import numpy as np
import pytest

from utils.mini_corpus.world import (
    SPLITS,
    Video,
    is_held_out,
    make_queries,
    make_video,
    said_combination,
    seen_combination,
)

SEED = 2018
VIDEOS = {split: [make_video(SEED, split, number) for number in range(60)] for split in SPLITS}
ALL = [video for videos in VIDEOS.values() for video in videos]


def combinations(videos: list[Video]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    scenes = [scene for video in videos for scene in video.scenes]
    return [seen_combination(s.sight) for s in scenes], [said_combination(s.speech) for s in scenes if s.speech]


def test_a_video_is_the_same_each_time_and_differs_with_the_seed() -> None:
    assert make_video(SEED, "val", 3) == make_video(SEED, "val", 3)
    assert make_video(SEED, "val", 3) != make_video(SEED + 1, "val", 3)


def test_names_are_tvr_like_and_unique_over_splits() -> None:
    names = [video.vid_name for video in ALL]
    assert len(set(names)) == len(names)
    assert make_video(SEED, "train", 0).vid_name == "harbor_s01e01_seg02_clip_00"


def test_durations_lie_between_24_and_180_s_and_a_few_are_past_128_clips() -> None:
    durations = [video.duration for video in ALL]
    long = [duration for duration in durations if duration > 128 * 1.5]
    assert 0 < len(long) <= 0.05 * len(ALL)
    assert all(24 <= duration <= 180 for duration in durations if duration not in long)


def test_scenes_fill_the_video_without_gaps_and_lines_stay_in_their_scene() -> None:
    for video in ALL:
        assert video.scenes[0].start == 0
        assert video.scenes[-1].end == video.duration
        assert all(a.end == b.start for a, b in itertools.pairwise(video.scenes))
        assert all(scene.end > scene.start for scene in video.scenes)
        assert any(scene.speech for scene in video.scenes)
        for scene in video.scenes:
            for line in scene.speech.lines if scene.speech else ():
                assert scene.start <= line.start < line.end <= scene.end
        assert video.lines == sorted(video.lines, key=lambda line: line.start)


def test_training_never_shows_or_says_a_held_out_combination() -> None:
    for found in combinations(VIDEOS["train"]):
        assert found
        assert not any(is_held_out(SEED, combination) for combination in found)


@pytest.mark.parametrize("split", ["val", "test_public"])
@pytest.mark.parametrize("kind", [0, 1])
def test_about_half_of_the_other_splits_scenes_are_held_out_combinations(split: str, kind: int) -> None:
    found = combinations(VIDEOS[split])[kind]
    assert 0.4 < np.mean([is_held_out(SEED, combination) for combination in found]) < 0.6
    assert not set(found) & set(combinations(VIDEOS["train"])[kind]) & {c for c in found if is_held_out(SEED, c)}


def test_every_part_of_a_held_out_combination_is_known_from_training() -> None:
    for kind in (0, 1):
        known = set(itertools.chain(*combinations(VIDEOS["train"])[kind]))
        assert set(itertools.chain(*combinations(VIDEOS["val"])[kind])) <= known


def test_neighbouring_scenes_share_things_and_no_scene_of_a_video_repeats() -> None:
    pairs = [pair for video in ALL for pair in itertools.pairwise(video.scenes)]
    assert np.mean([a.sight.place == b.sight.place for a, b in pairs]) > 0.6
    assert np.mean([a.sight.actor == b.sight.actor for a, b in pairs]) > 0.4
    for video in ALL:
        found = combinations([video])[0]
        assert len(set(found)) == len(found)


def test_queries_are_typed_in_tvrs_proportions_and_timed_as_their_scene() -> None:
    pairs = [(video, query) for video in ALL for query in make_queries(SEED, video, 5)]
    types = [query.type for _, query in pairs]
    for kind, share in (("v", 0.74), ("t", 0.09), ("vt", 0.17)):
        assert abs(types.count(kind) / len(types) - share) < 0.04
    for video, query in pairs:
        start, end = query.ts
        assert 0 <= start < end <= video.duration
        assert (start, end) == (round(start, 2), round(end, 2))
        assert query.desc[0].isupper()
        assert query.desc.endswith(".")
        assert "  " not in query.desc
    lengths = [query.ts[1] - query.ts[0] for _, query in pairs]
    assert 4 < np.median(lengths) < 7  # TVR: 5.1
    assert 7 < np.mean(lengths) < 11  # TVR: 9.2


def test_more_queries_than_scenes_can_be_asked() -> None:
    assert len(make_queries(SEED, VIDEOS["val"][0], 100)) == 100
