"""Files that are evaluated while they are read: the same findings and outcomes as of those that are loaded."""

import json
import tracemalloc
from random import Random

import numpy as np
import pytest

from standalone_eval.aligned import align
from standalone_eval.average_precision import windows_in_video
from standalone_eval.check import EVALUATED, Annotations, check_by_piece, check_file
from standalone_eval.checking import tasks
from standalone_eval.files import document, pieces
from standalone_eval.files.command import BadInput
from standalone_eval.metrics import Rule
from standalone_eval.outcomes import all_outcomes, read_outcomes
from tests.fuzz.mutations import hostile_document

TASKS = ("VCMR", "SVMR", "VR")
RULE = Rule((0.3, 0.5, 0.7), (1, 5))
N_VIDEOS = 6


def drawn(rng, n_queries=40, n_rows=30):
    """Annotations, some queries with several moments, and a submission in another order, some lists of it empty."""
    truth = []
    for number in range(n_queries):
        spans = [sorted((rng.randrange(20) * 1.5, rng.randrange(20) * 1.5)) for _ in range(rng.choice((1, 1, 2, 4)))]
        name, ts = f"v{rng.randrange(N_VIDEOS)}", spans if len(spans) > 1 else spans[0]
        truth.append({"desc_id": 7 * number, "desc": "ü]", "vid_name": name, "ts": ts, "type": rng.choice("vt")})
    submission = {"video2idx": {f"v{i}": i for i in range(N_VIDEOS)}}
    for task in TASKS:
        submission[task] = [
            {"desc_id": query["desc_id"], "predictions": drawn_rows(rng, rng.choice((0, 1, n_rows)))}
            for query in rng.sample(truth, len(truth))
        ]
    return truth, submission


def drawn_rows(rng, n):
    return [[rng.randrange(N_VIDEOS), rng.randrange(20) * 1.5, rng.randrange(30) * 1.5, rng.random()] for _ in range(n)]


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 100)
    monkeypatch.setattr(document, "BATCH", 3000)
    monkeypatch.setattr(tasks, "_BATCH", 3)


@pytest.mark.parametrize("max_pred", [1, 4, 100])
@pytest.mark.parametrize("last", ["video2idx", "VCMR"])
def test_outcomes_are_those_of_the_loaded_file(write, small_pieces, last, max_pred):
    truth, submission = drawn(Random(max_pred))
    submission[last] = submission.pop(last)
    path, gt_path = write(submission, "predictions.json"), write(truth, "gt.jsonl")
    aligned = align(submission, truth)
    found = read_outcomes(path, Annotations.read(str(gt_path), kept=EVALUATED), RULE, max_pred, n_windows=3)
    expected = all_outcomes(aligned, RULE, max_pred)
    assert list(found.by_task()) == list(expected) == list(TASKS)
    assert all(outcomes.video_rank.any() for outcomes in expected.values())
    for task, outcomes in found.by_task().items():
        for name in ("video_rank", "first_iou"):
            np.testing.assert_array_equal(getattr(outcomes, name), getattr(expected[task], name))
        for name, ranks in outcomes.ranks.items():
            np.testing.assert_array_equal(ranks, expected[task].ranks[name])
    windows = windows_in_video(aligned.rows("SVMR", max_pred), aligned.video_idx, 3)
    np.testing.assert_array_equal(found.windows["SVMR"], windows)


def test_of_keys_that_are_there_twice_the_last_counts(write, small_pieces, tmp_path):
    truth, submission = drawn(Random(0))
    _, other = drawn(Random(1))
    text = json.dumps(other)[:-1] + ", " + json.dumps(submission)[1:]
    (tmp_path / "twice.json").write_text(text)
    annotations = Annotations.read(str(write(truth, "gt.jsonl")))
    twice, once = (
        read_outcomes(path, annotations, RULE).by_task()
        for path in (str(tmp_path / "twice.json"), str(write(submission, "once.json")))
    )
    for task in TASKS:
        np.testing.assert_array_equal(twice[task].first_iou, once[task].first_iou)
        np.testing.assert_array_equal(twice[task].video_rank, once[task].video_rank)


def report(check, path, annotations, max_lines):
    try:
        found = check(str(path), annotations, ("VCMR",), max_lines, RULE)
    except BadInput as err:
        return str(err)
    return (found[1] if isinstance(found, tuple) else found).lines()


@pytest.mark.parametrize("max_lines", [0, 2])
def test_findings_are_those_of_the_loaded_file(write, small_pieces, tmp_path, max_lines):
    rng, path, n_refused = Random(max_lines), tmp_path / "predictions.json", 0
    truth, submission = drawn(rng, 6, 3)
    annotations = Annotations.read(str(write(truth, "gt.jsonl")))
    for _ in range(80):
        keys = rng.sample(list(submission), len(submission))
        path.write_bytes(hostile_document(rng, {key: submission[key] for key in keys}))
        found = report(check_by_piece, path, annotations, max_lines)
        assert found == report(check_file, path, annotations, max_lines)
        n_refused += isinstance(found, str)
    assert 5 < n_refused < 75


def test_memory_does_not_grow_with_the_predictions(write, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 1 << 12)
    monkeypatch.setattr(document, "BATCH", 1 << 12)
    peaks, n_queries = [], (20, 20, 120)  # the first reads what is read once
    for n in n_queries:
        truth, submission = drawn(Random(0), n, 50)
        path, annotations = write(submission, "predictions.json"), Annotations.read(str(write(truth, "gt.jsonl")))
        assert annotations.asked.truth
        tracemalloc.start()
        read_outcomes(str(path), annotations, RULE)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    size_of_query = path.stat().st_size / n_queries[-1]  # loaded, it takes five times as much
    assert (peaks[2] - peaks[1]) / (n_queries[2] - n_queries[1]) < size_of_query
