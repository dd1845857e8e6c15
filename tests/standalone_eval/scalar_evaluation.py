"""The evaluation query by query in plain Python, and submissions and annotations of all kinds to try it on."""

import numpy as np
from hypothesis import strategies as st


def scalar_iou(span, other):
    st_, ed, other_st, other_ed = map(np.float32, (*span, *other))
    hull = max(ed, other_ed) - min(st_, other_st)
    return max(np.float32(0), min(ed, other_ed) - max(st_, other_st)) / hull if hull else np.float32(0)


def scalar_is_right(task, row, video_idx, annotated, iou_thd):
    if task == "VR":
        return row[0] == video_idx
    agreeing = sum(scalar_iou(row[1:3], span) >= np.float32(iou_thd) for span in annotated)
    return row[0] == video_idx and agreeing >= (2 if len(annotated) >= 4 else 1)


def scalar_query(task, submission, query, max_pred):
    """A query's rows that have a rank, its video and its annotated moments."""
    video_idx = submission["video2idx"][query["vid_name"]]
    annotated = query["ts"] if isinstance(query["ts"][0], list) else [query["ts"]]
    entry = next(entry for entry in submission[task] if entry["desc_id"] == query["desc_id"])
    rows = entry["predictions"][:max_pred]
    if task == "SVMR":
        rows = [row for row in rows if row[0] == video_idx]
    return rows, video_idx, annotated


def scalar_recall(task, submission, ground_truth, iou_thd, k, max_pred):
    hits = []
    for query in ground_truth:
        rows, video_idx, annotated = scalar_query(task, submission, query, max_pred)
        hits.append(any(scalar_is_right(task, row, video_idx, annotated, iou_thd) for row in rows[:k]))
    return round(float(np.mean(hits)) * 100, 2)


seconds = st.integers(0, 7).map(lambda clip: clip * 1.5)
span = st.tuples(seconds, seconds).map(sorted)
ts = st.one_of(span, st.lists(span, min_size=1, max_size=5))
row = st.builds(lambda video, times, score: [video, *times, score], st.integers(0, 2), span, st.floats(0, 1))


@st.composite
def cases(draw):
    videos = ["a", "b", "c"]
    ground_truth = [
        {"desc_id": i, "vid_name": draw(st.sampled_from(videos)), "ts": draw(ts), "type": draw(st.sampled_from("vt"))}
        for i in range(draw(st.integers(1, 4)))
    ]
    submission = {"video2idx": {name: i for i, name in enumerate(videos)}}
    for task in ("VCMR", "SVMR", "VR"):
        order = draw(st.permutations([query["desc_id"] for query in ground_truth]))
        submission[task] = [{"desc_id": i, "predictions": draw(st.lists(row, max_size=6))} for i in order]
    return submission, ground_truth
