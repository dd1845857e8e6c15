"""NDCG of ranked moments: the published code's figures, and files as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from standalone_eval.findings import Findings
from standalone_eval.ranking.evaluation import align_ranking, ranking_of_file
from standalone_eval.ranking.ndcg import RankedTruth, grades, ndcg_of_queries
from tests.standalone_eval.commands import FOLDER, run
from tests.support.golden_files import load_json

CASES = load_json("ndcg/cases.json")


def as_files(queries: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A prediction file, and graded moments by query."""
    names = sorted({row["video_name"] for query in queries for row in query["predictions"] or ()})
    idx_of = {name: 7 * number for number, name in enumerate(names)} or {"none": 0}
    entries = [
        {
            "desc_id": query["query_id"],
            "predictions": [[idx_of[row["video_name"]], *row["timestamp"], 1.0] for row in query["predictions"]],
        }
        for query in queries
        if query["predictions"] is not None
    ]
    truth = [{"query_id": query["query_id"], "relevant_moment": query["ground_truth"]} for query in queries]
    return {"video2idx": idx_of, "VCMR": entries}, truth


def evaluate(folder: Path, submission: object, truth: object, *typed: str):
    """Run the command; what it ended with, and the file that it may have written."""
    for name, content in (("p", submission), ("t", truth)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    paths = ["--submission_path", folder / "p.json", "--gt_path", folder / "t.json", "--save_path", folder / "m.json"]
    return run("python", FOLDER / "eval.py", *paths, *typed), folder / "m.json"


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_small_cases_have_the_published_figures(case):
    findings = Findings()
    answers = align_ranking(*as_files(case["queries"]), findings)
    assert answers is not None, findings.lines()
    found = answers.results(case["thresholds"], case["ks"])
    for k, of_thd in case["expected"]["ndcg"].items():
        for thd, value in of_thd.items():
            assert found.means()[f"{thd}-n{k}"] == pytest.approx(value, abs=1e-12)
    for query in case["expected"]["per_query"]:
        number = found.query_ids.index(query["query_id"])
        for k, of_thd in query["ndcg"].items():
            for thd, value in of_thd.items():
                assert found.by_query[f"{thd}-n{k}"][number] == pytest.approx(value, abs=1e-12)


def test_a_corpus_of_queries_has_the_published_figures(tmp_path):
    """As it is typed: grouped by query, and a row a pair."""
    content, expected = load_json("ndcg/corpus.json"), load_json("ndcg/corpus_expected.json")
    submission, truth = as_files(content["queries"])
    pairs = [
        {"query_id": query["query_id"], "query": "q", **pair} for query in truth for pair in query["relevant_moment"]
    ]
    for rows in (truth, pairs):
        done, path = evaluate(tmp_path, submission, rows)
        assert done.returncode == 0, done.stderr
        metrics = json.loads(path.read_text())
        assert list(metrics) == ["NDCG"]
        for k, of_thd in expected["ndcg"].items():
            for thd, value in of_thd.items():
                assert metrics["NDCG"][f"{thd}-n{k}"] == pytest.approx(value, abs=1e-12)
        assert "NDCG@10" in done.stdout


class Plain:
    """The definition, one prediction after another."""

    def __init__(self, moments: list[tuple[int, float, float, float]]) -> None:
        self.moments = sorted(moments, key=lambda moment: -moment[3])

    def grades(self, predictions: list[tuple[int, float, float]], thd: float) -> list[float]:
        free, out = list(range(len(self.moments))), []
        for video, start, end in predictions:
            best, best_iou = None, 0.0
            for i in free:
                other, st, ed, _ = self.moments[i]
                shared = max(0.0, min(ed, end) - max(st, start))
                union = (ed - st) + (end - start) - shared
                iou = shared / union if other == video and union > 0 else 0.0
                if iou > best_iou:
                    best, best_iou = i, iou
            right = best is not None and best_iou > thd
            if right:
                free.remove(best)
            out.append(self.moments[best][3] if right else 0.0)
        return out


times = st.integers(0, 12)
spans = st.tuples(times, times).map(sorted)
moments = st.lists(st.tuples(st.integers(0, 2), spans, st.integers(0, 4)), max_size=6)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(moments, st.lists(st.tuples(st.integers(0, 2), spans), max_size=7)), min_size=1, max_size=4))
def test_many_queries_at_once_get_what_each_gets_alone(queries):
    width, longest = (max(len(query[i]) for query in queries) for i in (0, 1))
    video, relevance = np.full((len(queries), width), np.nan), np.zeros((len(queries), width))
    truth_spans = np.full((len(queries), width, 2), np.nan)
    rows = np.full((len(queries), longest, 3), np.nan)
    plain = [Plain([(v, *span, grade) for v, span, grade in of_query]) for of_query, _ in queries]
    for number, (of_query, (_, predicted)) in enumerate(zip(plain, queries, strict=True)):
        for place, (v, start, end, grade) in enumerate(of_query.moments):
            video[number, place], relevance[number, place], truth_spans[number, place] = v, grade, (start, end)
        for place, (v, span) in enumerate(predicted):
            rows[number, place] = v, *span
    truth = RankedTruth(list(range(len(queries))), {}, video, truth_spans, relevance)
    for thd in (0.0, 0.3, 0.5):
        found = grades(truth, rows, thd)
        for number, (of_query, (_, predicted)) in enumerate(zip(plain, queries, strict=True)):
            expected = of_query.grades([(v, *span) for v, span in predicted], thd)
            assert found[number, : len(predicted)].tolist() == expected
    for values in ndcg_of_queries(truth, rows, (0.3,), (1, 10)).values():
        assert ((values >= 0) & (values <= 1 + 1e-12)).all()


def test_queries_without_predictions_count_when_they_are_asked_to(tmp_path):
    moment = {"video_name": "a", "timestamp": [0, 10], "relevance": 4}
    truth = [{"query_id": i, "relevant_moment": [moment] if i < 3 else []} for i in (1, 2, 3)]
    submission = {"video2idx": {"a": 0}, "VCMR": [{"desc_id": i, "predictions": [[0, 0, 10, 1.0]]} for i in (1, 3)]}
    for typed, value in (((), 0.5), (("--all_queries",), 1 / 3)):
        done, path = evaluate(tmp_path, submission, truth, *typed)
        assert done.returncode == 0, done.stderr
        assert json.loads(path.read_text())["NDCG"]["0.5-n10"] == pytest.approx(value)
        assert "1 queries have no relevant moment and count 0, as published; without them" in done.stdout
        assert ("1 queries have no predictions and do not count" in done.stdout) == (not typed)


def test_two_rankings_are_compared_query_by_query(tmp_path):
    submission, truth = as_files(load_json("ndcg/corpus.json")["queries"])
    worse = {**submission, "VCMR": [{**entry, "predictions": entry["predictions"][5:]} for entry in submission["VCMR"]]}
    for name, content in (("a", submission), ("b", worse), ("t", truth)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = [tmp_path / "a.json", tmp_path / "b.json", "--gt_path", tmp_path / "t.json"]
    done = run("python", FOLDER / "compare.py", *files, "--save_path", tmp_path / "c.json", "--n_resamples", "500")
    assert done.returncode == 0, done.stderr
    compared = json.loads((tmp_path / "c.json").read_text())
    assert compared["n_queries"] == len({entry["desc_id"] for entry in submission["VCMR"]})
    means = [ranking_of_file(str(tmp_path / name), truth).results().means()["0.5-n20"] for name in ("a.json", "b.json")]
    found = compared["metrics"]["NDCG"]["0.5-n20"]
    assert [found["a"], found["b"]] == [pytest.approx(100 * mean, abs=0.005) for mean in means]
    assert found["difference"] == pytest.approx(100 * (means[0] - means[1]), abs=0.006)
    assert found["interval"][0] < found["difference"] < found["interval"][1]
    assert "NDCG 0.5-n20" in done.stdout


PAIR = {"query_id": 1, "video_name": "a", "timestamp": [0, 10], "relevance": 3}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{**PAIR, "query_id": "1"}], "query_id is missing or not an integer"),
        ([{**PAIR, "timestamp": [10, 0]}], "timestamp is not [st, ed] in seconds"),
        ([{**PAIR, "timestamp": [0, float("nan")]}], "timestamp is not [st, ed] in seconds"),
        ([{**PAIR, "relevance": -1}], "relevance is not a number from 0"),
        ([{key: PAIR[key] for key in ("query_id", "video_name", "timestamp")}], "pseudo training sets have none"),
        ([{**PAIR, "video_name": 3}], "video_name is missing or not text"),
        ([{"query_id": 1, "relevant_moment": {}}], "relevant_moment is not a list of moments"),
        ([{**PAIR, "query_id": 2}], "desc_id is no query_id of the ground truth"),
    ],
)
def test_graded_moments_that_cannot_be_used_are_named(tmp_path, rows, said):
    submission = {"video2idx": {"a": 0}, "VCMR": [{"desc_id": 1, "predictions": [[0, 0, 10, 1.0]]}]}
    done, path = evaluate(tmp_path, submission, rows)
    assert done.returncode == 2
    assert said in done.stderr
    assert not path.exists()
