"""The report on graded moments: its figures, whom it compares, other people's text in it, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from method_tvr.report.report import write_report
from standalone_eval.compare import compare_rankings
from standalone_eval.ranking.evaluation import ranking_of_file
from tests.support.ranked_files import make_answers, make_graded, write_ranked_files
from tests.support.report_files import Page, write_json
from utils.basic_utils import InputError

pytest.importorskip("jinja2", reason="jinja2 is not installed (method_tvr/report/requirements.txt)")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return write_ranked_files(tmp_path_factory.mktemp("ranked"))


@pytest.fixture(scope="module")
def html(files: tuple[Path, Path, Path]) -> str:
    """A report about one file, compared with another."""
    first, other, truth = files
    return write_report([first, other], truth.with_name("report.html"), truth).read_text(encoding="utf-8")


def test_its_figures_are_the_evaluators(html, files):
    first, other, truth = files
    a, b = (ranking_of_file(str(path), json.loads(truth.read_text())).results() for path in (first, other))
    page = Page(html)
    (head, *rows), *_ = page.tables["ndcg"]
    shown = {f"{row[0]}-{name.replace('NDCG@', 'n')}": row[i] for row in rows for i, name in enumerate(head) if i}
    assert shown == {name: f"{100 * mean:.2f}" for name, mean in a.means().items()}
    (comparisons,) = compare_rankings(a, [b])
    (_, *compared), *_ = page.tables["compared"]
    assert [row[3:5] for row in compared] == [[f"{one.a:.2f}", f"{one.b:.2f}"] for one in comparisons]
    over_k = {row[0]: row[1:] for row in page.tables["over-k"][1]}  # at IoU over 0.5
    assert float(over_k["20"][0]) == pytest.approx(100 * a.means()["0.5-n20"], abs=0.006)
    groups = page.tables["by-relevant"][0][1:]
    sizes = [int(re.search(r"n = (\d+)", row[0])[1]) for row in groups]
    assert sum(sizes) == 38  # those that both files answer
    both = a.by_query["0.5-n20"][2:]
    mean = sum(float(row[1]) * n for row, n in zip(groups, sizes, strict=True)) / 38
    assert mean == pytest.approx(100 * both.mean(), abs=0.01)


def test_queries_to_look_at_have_their_grades(html, files):
    first, _, truth = files
    results = ranking_of_file(str(first), json.loads(truth.read_text())).results()
    page = Page(html)
    (_, *outcomes), *_ = page.tables["queries"]
    assert [int(row[1]) for row in outcomes] == [19, 20, 1]
    graded = {row["query_id"]: row["relevant_moment"] for row in make_graded()}
    entries = re.findall(r"<article.*?</article>", html, re.DOTALL)
    assert len(entries) == 12 + 12 + 1
    for entry in entries:
        query_id = int(re.search(r"query (\d+)</span>", entry)[1])
        (of_a,) = re.findall(r"NDCG A ([\d.]+)", entry)
        assert float(of_a) == pytest.approx(100 * results.by_query["0.5-n20"][query_id - 100], abs=0.006)
        ideal = re.search(r'aria-label="best possible: ([^"]*)"', entry)[1]
        assert ideal == ", ".join(str(g) for g in sorted((one["relevance"] for one in graded[query_id]), reverse=True))


def test_other_peoples_text_stays_text(html):
    page = Page(html)
    assert not any(tag == "img" for tag, _ in page.elements)
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert "broken into" in "".join(page.texts["bdi"])
    assert "http" not in re.sub(r"</?bdi>|//evil", "", html.replace("http-equiv", ""))


def test_what_is_about_recalls_is_refused(files):
    first, _, truth = files
    for options in ({"ks": [5]}, {"iou_thds": [0.5]}, {"several": "any"}):
        with pytest.raises(InputError, match="graded moments, which are reported as published"):
            write_report([first], truth.with_name("no.html"), truth, **options)
    assert not truth.with_name("no.html").exists()


def test_files_that_do_not_fit_are_refused_by_name(files, tmp_path):
    first, _, truth = files
    graded = make_graded()
    last = write_json(tmp_path / "last.json", make_answers(graded, 3, leave_out=30))
    answers = make_answers(graded, 3)
    early = write_json(tmp_path / "early.json", {**answers, "VCMR": answers["VCMR"][:10]})
    with pytest.raises(InputError, match="no query in common"):
        write_report([last, early], tmp_path / "r.html", truth)
    foreign = write_json(tmp_path / "foreign.json", {**answers, "VCMR": [{"desc_id": 7, "predictions": []}]})
    with pytest.raises(InputError, match=re.escape(str(foreign))):
        write_report([first, foreign], tmp_path / "r.html", truth)
    with pytest.raises(InputError, match=r"none\.json"):
        write_report([tmp_path / "none.json"], tmp_path / "r.html", truth)
    assert not (tmp_path / "r.html").exists()
