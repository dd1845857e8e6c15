"""Items and batches are the reference's."""

import numpy as np
import pytest
import torch

from method_tvr.dataset.annotations import Entry, Query, Video
from method_tvr.dataset.clip_times import ClipTimes
from method_tvr.dataset.feature_store import FeatureStore
from method_tvr.start_end_dataset import (
    StartEndDataset,
    StartEndEvalDataset,
    prepare_batch_inputs,
)
from tests.support.golden_files import load_json


class FakeFeatures(FeatureStore):
    """Three queries of `desc_id` tokens; videos called by their number of clips."""

    def __init__(self) -> None:
        self.modalities = "video", "sub"

    def query(self, desc_id: int) -> np.ndarray:
        return np.full((desc_id, 3), desc_id, dtype=np.float32)

    def context(self, vid_name: str, clips: range | None = None) -> dict[str, np.ndarray]:
        n_clips = int(vid_name)
        return {"video": np.ones((n_clips, 5), np.float32), "sub": np.full((n_clips, 4), 2, np.float32)}


def query(desc_id: int = 2, vid_name: str = "6", ts=(1.6, 4.4)) -> Query:
    return Query(desc_id, "a query", 1, vid_name, ts, "v")


def test_items_of_the_corpus_are_the_references_batch(golden_train_set, model_io):
    metas, batch = golden_train_set.batch(range(12), ctx_length=128)
    for meta, expected in zip(metas, load_json("model_io_meta.json"), strict=True):
        assert (meta.vid_name, meta.desc_id, list(meta.ts)) == (
            expected["vid_name"],
            expected["desc_id"],
            expected["ts"],
        )
    names = {"ctx_mask": "video_mask"}
    assert batch.pop("ctx_lengths").tolist() == batch["ctx_mask"].sum(dim=1).tolist()
    for name, tensor in batch.items():
        expected = model_io[f"in/{names.get(name, name)}"]
        assert tensor.shape == expected.shape, name
        assert tensor.numpy().dtype == expected.dtype, name
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=0, atol=1e-6, err_msg=name)
    assert set(batch) | {"video_mask", "sub_mask"} == {
        name.removeprefix("in/") for name in model_io if name.startswith("in/")
    } | {"ctx_mask"}


@pytest.mark.parametrize(
    ("ts", "n_clips", "expected"),
    [
        ((0.0, 1.5), 10, (0, 1)),  # the end clip is the one that starts where the moment ends
        ((1.4, 1.6), 10, (0, 2)),
        ((1.5, 3.1), 10, (1, 3)),
        ((0.0, 0.0), 10, (0, 0)),
        ((13.5, 15.0), 10, (9, 9)),  # an end at the video's end has no clip of its own
        ((14.0, 99.0), 10, (9, 9)),
        ((30.0, 40.0), 10, (9, 9)),  # both past the features' end
        ((0.0, 9.0), 1, (0, 0)),
    ],
)
def test_labels_are_clamped_at_the_videos_end(ts, n_clips, expected):
    assert ClipTimes(1.5).label(ts, None, n_clips) == expected


def test_labels_follow_the_clip_length():
    assert ClipTimes(5.0).label((5.0, 11.0), None, 10) == (1, 3)


def test_match_labels_are_one_from_start_to_end_inclusive():
    _, batch = StartEndDataset([query()], FakeFeatures(), ClipTimes(1.5)).batch([0], ctx_length=None)
    assert batch["st_ed_indices"].tolist() == [[1, 3]]
    assert batch["match_labels"].tolist() == [[0, 1, 1, 1, 0, 0]]


def test_clips_are_padded_to_the_most_and_tokens_to_the_longest():
    data = StartEndDataset([query(2, "6"), query(5, "3", (0.0, 1.0))], FakeFeatures(), ClipTimes(1.5))
    _, batch = data.batch([0, 1], ctx_length=9)
    assert batch["video_feat"].shape == (2, 9, 5)
    assert batch["sub_feat"].shape == (2, 9, 4)
    assert batch["query_feat"].shape == (2, 5, 3)
    assert batch["ctx_mask"].tolist() == [[1.0] * 6 + [0.0] * 3, [1.0] * 3 + [0.0] * 6]
    assert batch["query_mask"].tolist() == [[1.0] * 2 + [0.0] * 3, [1.0] * 5]
    assert not batch["video_feat"][1, 3:].any()
    assert not batch["query_feat"][0, 2:].any()
    assert batch["match_labels"].tolist() == [[0, 1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0, 0]]
    assert batch["match_labels"].dtype == batch["st_ed_indices"].dtype == torch.int64


def test_evaluation_has_a_pass_over_videos_and_one_over_queries():
    videos = [Entry(Video("4", 6.0, 10)), Entry(Video("6", 9.0, 11))]
    data = StartEndEvalDataset([query(), query(3), query(1)], videos, FakeFeatures())
    assert len(data) == 2
    metas, batch = data.batch([0, 1], ctx_length=8)
    assert metas == videos
    assert set(batch) == {"video_feat", "sub_feat", "ctx_mask", "ctx_lengths"}
    data.set_data_mode("query")
    assert len(data) == 3
    metas, batch = data.batch(range(3), ctx_length=8)
    assert [meta.desc_id for meta in metas] == [2, 3, 1]
    assert set(batch) == {"query_feat", "query_mask"}


def test_an_unknown_pass_is_refused():
    with pytest.raises(ValueError, match="context"):
        StartEndEvalDataset([], [], FakeFeatures(), "videos")


def test_batches_move_whole():
    batch = {"a": torch.ones(2), "b": torch.zeros(3)}
    moved = prepare_batch_inputs(batch, torch.device("cpu"))
    assert set(moved) == set(batch)
    assert all(torch.equal(moved[name], batch[name]) for name in batch)


def test_clip_counts_stay_on_the_cpu():
    batch = {"ctx_lengths": torch.ones(2), "ctx_mask": torch.ones(2)}
    moved = prepare_batch_inputs(batch, torch.device("meta"))
    assert (moved["ctx_lengths"].device.type, moved["ctx_mask"].device.type) == ("cpu", "meta")


def test_clips_are_padded_to_the_batchs_longest_when_no_length_is_given():
    data = StartEndDataset([query(2, "6"), query(5, "3", (0.0, 1.0))], FakeFeatures(), ClipTimes(1.5))
    _, batch = data.batch([0, 1], ctx_length=None)
    assert batch["video_feat"].shape == (2, 6, 5)
    assert batch["match_labels"].shape == batch["ctx_mask"].shape == (2, 6)
    assert batch["ctx_lengths"].tolist() == [6, 3]


def test_each_draw_trains_on_one_of_several_windows_of_a_query():
    windows = ((0.0, 1.4), (3.1, 4.4), (6.1, 7.4))
    queries = [query(desc_id=2), Query(3, "windows", 2, "6", windows[0], "v", moments=windows)]
    dataset = StartEndDataset(queries, FakeFeatures(), ClipTimes())
    drawn = []
    for seed in range(20):
        dataset.draw_moments(torch.Generator().manual_seed(seed))
        metas, batch = dataset.batch(range(2), None)
        assert metas[0] is queries[0]
        assert batch["st_ed_indices"][0].tolist() == [1, 3]
        assert batch["st_ed_indices"][1].tolist() == list(ClipTimes().label(metas[1].ts, None, 6))
        drawn.append(metas[1].ts)
    assert set(drawn) == set(windows)
    dataset.draw_moments(torch.Generator().manual_seed(3))
    assert dataset.queries[1].ts == drawn[3]
    assert queries[1].ts == windows[0]
