"""Graded moments on the page: what is said of each query, which queries are found, and all predictions together."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from method_tvr.web.outcomes.graded_outcomes import N_TRUTH, GradedOutcomes
from method_tvr.web.outcomes.split_outcomes import NamedMoment, Wanted
from method_tvr.web.page_files import open_outcomes
from standalone_eval.ranking.evaluation import ranking_of_file
from tests.support.ranked_files import make_graded, write_ranked_files
from tests.support.report_files import HOSTILE_SENTENCE, N_QUERIES, write_json


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return write_ranked_files(tmp_path_factory.mktemp("graded"))


@pytest.fixture(scope="module")
def outcomes(files: tuple[Path, Path, Path]) -> GradedOutcomes:
    """As the page opens them."""
    first, _, truth = files
    found, why_not = open_outcomes(SimpleNamespace(predictions=str(first), eval_path=str(truth)))
    assert not why_not
    assert isinstance(found, GradedOutcomes)
    return found


def test_all_predictions_together_have_the_evaluators_figures(outcomes, files):
    first, _, truth = files
    means = ranking_of_file(str(first), json.loads(truth.read_text())).results().means()
    summary = outcomes.summary()
    assert summary.headings == ["NDCG@10", "NDCG@20", "NDCG@40"]
    assert {
        f"{name.split()[-1]}-{heading.replace('NDCG@', 'n')}": value
        for name, row in summary.rows
        for heading, value in zip(summary.headings, row, strict=True)
    } == {name: pytest.approx(100 * mean) for name, mean in means.items()}


def test_a_query_has_its_moments_with_grades_and_what_was_predicted(tmp_path):
    moments = [("a", 0, 10, 1), ("b", 20, 30, 4), ("a", 40, 50, 0), ("a", 5, 9, 3), ("c", 0, 1, 2), ("c", 7, 9, 1)]
    graded = [
        {"video_name": name, "timestamp": [st, ed], "relevance": relevance} for name, st, ed, relevance in moments
    ]
    truth = write_json(tmp_path / "t.json", [{"query_id": 7, "query": "Nora leaves.", "relevant_moment": graded}])
    rows = [[0, 80, 90, 0.9], [1, 20, 30, 0.8], [0, 0, 4, 0.7]]
    content = {"video2idx": {"a": 0, "b": 1}, "VCMR": [{"desc_id": 7, "predictions": rows}]}
    outcomes = GradedOutcomes.read(write_json(tmp_path / "p.json", content), json.loads(truth.read_text()), truth)
    assert [one.name for one in outcomes.truth(0)] == [f"annotated, grade {grade}" for grade in (4, 3, 2, 1, 1)]
    assert outcomes.truth(0)[0] == NamedMoment("annotated, grade 4", "b", (20.0, 30.0))
    assert outcomes.predicted(0, 9) == [
        NamedMoment("1", "a", (80.0, 90.0), 0.9),
        NamedMoment("2, grade 4", "b", (20.0, 30.0), 0.8),
        NamedMoment("3", "a", (0.0, 4.0), 0.7),  # 4 of 10 s: at IoU over 0.3 alone
    ]
    assert outcomes.annotated_for("Nora leaves.") == {
        "b": [(20, 30)], "a": [(5, 9), (0, 10)], "c": [(0, 1), (7, 9)]
    }  # fmt: skip
    assert [cell.text for cell in outcomes.cells(0)] == ["5", f"{outcomes.quality(0.5)[0]:.3f}", "2", "2", "2"]
    assert len(outcomes.columns) == 5
    for word in ("nora", "c", "b leaves"):
        assert outcomes.select(Wanted(words=word)).tolist() == [0]
    assert outcomes.select(Wanted(words="d")).tolist() == []


def test_queries_are_found_by_the_rank_of_the_first_relevant_moment(outcomes):
    ranks = outcomes.ranks(0.7)
    assert {*outcomes.select(Wanted(iou_thd=0.7, hit=True))} == {*np.flatnonzero(ranks == 1)}
    assert {*outcomes.select(Wanted(iou_thd=0.7, ranks=(0, 0)))} == {*np.flatnonzero(ranks == 0)}
    assert N_QUERIES - 1 in outcomes.select(Wanted(iou_thd=0.3, ranks=(0, 0)))  # to which nothing is relevant
    assert (outcomes.quality(0.7)[ranks > 20] == 0).all()
    assert (outcomes.quality(0.7)[(ranks > 0) & (ranks <= 20)] > 0).all()


def test_of_many_graded_moments_the_best_are_shown_and_a_sentence_has_those_of_all_its_queries(outcomes):
    assert len(outcomes.truth(0)) == N_TRUTH
    spans = sum(len(spans) for spans in outcomes.annotated_for(HOSTILE_SENTENCE).values())
    relevant = [sum(one["relevance"] > 0 for one in row["relevant_moment"]) for row in make_graded()[1::2]]
    assert spans == sum(relevant)
