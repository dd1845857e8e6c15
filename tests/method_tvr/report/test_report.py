"""The report about prediction files: numbers, what it shows of other people's data, and what it refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from method_tvr.dataset.annotations import Query
from method_tvr.report.data import video_durations
from method_tvr.report.gallery import N_ENTRIES
from method_tvr.report.report import main, write_report
from standalone_eval.aligned import align
from standalone_eval.compare import compare_outcomes
from standalone_eval.eval import eval_retrieval
from standalone_eval.metrics import Rule
from standalone_eval.outcomes import all_outcomes
from tests.support.report_files import HOSTILE_SENTENCE, HOSTILE_TYPE, HOSTILE_VIDEO, TASKS, Page, make_report_files
from tests.support.shell import PROJECT_ROOT, run_script

if TYPE_CHECKING:
    from tests.support.report_files import ReportFiles
    from tests.support.runs.commands import Finished

pytest.importorskip("jinja2", reason="jinja2 is not installed (method_tvr/report/requirements.txt)")

HOSTILE_NAME = "<i>a & b'.json"
EMPTY_CHART = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1" version="1.1"/>'
Run = Callable[..., "Finished"]
about_no_charts = pytest.mark.usefixtures("empty_charts")


@pytest.fixture
def empty_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes nearly all of a report's time."""
    for kind in ("line_chart", "bar_chart"):
        monkeypatch.setattr(f"method_tvr.report.page.{kind}", lambda *_: EMPTY_CHART)


@pytest.fixture
def files(tmp_path: Path) -> ReportFiles:
    return make_report_files(tmp_path / "home")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    """A report about a file with a hostile name, compared with another."""
    files = make_report_files(tmp_path_factory.mktemp("compared"))
    hostile = files.predictions.rename(files.folder / HOSTILE_NAME)
    return read(write_report([hostile, files.write_other("b.json")], files.folder / "r.html", files.gt))


def read(path: Path) -> tuple[str, Page]:
    html = path.read_text(encoding="utf-8")
    return html, Page(html)


def report(files: ReportFiles, *others: Path, **options: Sequence[float]) -> tuple[str, Page]:
    return read(write_report([files.predictions, *others], gt_path=files.gt, **options))


def recalls_in(page: Page) -> dict[str, dict[str, str]]:
    """The recall table in the form of the metrics."""
    head, *rows = page.tables["recalls"][0]
    found: dict[str, dict[str, str]] = {}
    for task, iou_thd, *values in rows:
        for name, value in zip(head[2:], values, strict=True):
            key = name.replace("R@", "r") if iou_thd == "–" else f"{iou_thd}-{name.replace('R@', 'r')}"
            found.setdefault(task.split()[0], {})[key] = value
    return found


@about_no_charts
@pytest.mark.parametrize("tasks", [TASKS, ("VR",), ("SVMR",), ("VCMR", "VR")])
@pytest.mark.parametrize("typed", [True, False])
def test_recalls_are_those_of_the_evaluation(tmp_path, tasks, typed):
    files = make_report_files(tmp_path, tasks, typed)
    rule = Rule((0.3, 0.7), (1, 3, 100))
    _, page = report(files, iou_thds=rule.iou_thds, ks=rule.ks)
    metrics = eval_retrieval(files.submission, files.ground_truth, rule.iou_thds, rule.ks)
    assert recalls_in(page) == {task: {k: f"{v:.2f}" for k, v in metrics[task].items()} for task in tasks}
    sections = {attributes["id"] for tag, attributes in page.elements if tag == "section"}
    assert ("by-type" in sections) == typed
    assert ("over-iou" in sections) == (tasks != ("VR",))
    assert {"recalls", "over-k", "by-length", "by-position", "queries", "hit", "miss"} - sections in (set(), {"miss"})


@about_no_charts
def test_comparisons_are_those_of_the_command(files):
    others = [files.write_perfect("perfect.json"), files.write_other("vr.json", 2, ("VR",))]
    _, page = report(files, *others)
    outcomes = [
        all_outcomes(align(json.loads(path.read_text()), files.ground_truth), Rule())
        for path in (files.predictions, *others)
    ]
    expected = compare_outcomes(outcomes[0], outcomes[1:], Rule())
    assert len(page.tables["compared"]) == 2
    for table, comparisons in zip(page.tables["compared"], expected, strict=True):
        for row, one in zip(table[1:], comparisons, strict=True):
            assert row[0] == one.task
            assert row[3:5] == [f"{one.a:.2f}", f"{one.b:.2f}"]
            assert row[5].lstrip("▲▼ ") == f"{one.difference.difference:+.2f}".replace("-", "−")
            a_better = one.difference.difference > 0
            better = f"{'▲' if a_better else '▼'} {'A' if a_better else table[0][4]} better, significant"
            assert row[-1] == (better if one.significant else "not significant")
            assert (row[5][0] in "▲▼") == one.significant
    assert {row[-1] for row in page.tables["compared"][0][1:]} == {"▼ B better, significant", "not significant"}
    _, page = read(write_report([others[0], files.predictions], gt_path=files.gt))
    assert "▲ A better, significant" in {row[-1] for row in page.tables["compared"][0][1:]}


@about_no_charts
def test_a_file_compared_with_itself_differs_nowhere(files):
    _, page = report(files, files.predictions)
    assert {row[-1] for row in page.tables["compared"][0][1:]} == {"not significant"}
    assert {row[5] for row in page.tables["compared"][0][1:]} == {"+0.00"}


def test_other_peoples_text_is_shown_and_does_nothing(compared):
    html, page = compared
    assert [tag for tag, _ in page.elements if tag in ("img", "b", "i", "iframe", "link", "object")] == []
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    shown = page.texts["bdi"]
    assert HOSTILE_SENTENCE.replace("\x07", "\ufffd") in shown
    assert {HOSTILE_VIDEO, HOSTILE_TYPE, HOSTILE_NAME} <= set(shown)
    assert any(text.startswith(HOSTILE_TYPE) for text in page.texts["text"])  # in the charts
    assert "\x07" not in html


def test_the_page_refers_to_nothing_outside_itself_and_all_its_links_lead_somewhere(compared):
    html, page = compared
    assert not re.search(
        r"(?:src|href|action|data)\s*=\s*[\"']?\s*(?:\w+:)?//", html.replace(escaped(HOSTILE_VIDEO), "")
    )
    assert not re.search(r"url\(\s*[\"']?(?!#)|@import|xmlns", html)
    targets = [value for _, attributes in page.elements for name, value in attributes.items() if name.endswith("href")]
    targets += [f"#{name}" for name in re.findall(r"url\(#([^)]+)\)", html)]
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert {target[0] for target in targets} == {"#"}
    assert {target[1:] for target in targets} <= set(names)
    assert not [attributes for tag, attributes in page.elements if "src" in attributes or tag == "link"]


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")


def test_no_script_but_its_own_may_run(compared):
    html, page = compared
    (policy,) = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    script = re.search(r"<script>(.*)</script>\n</body>", html, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


@about_no_charts
def test_long_sentences_are_cut(files):
    for row in files.ground_truth:
        row["desc"] = "word " * 20_000
    html, _ = report(files.write())
    assert len(html) < 1_000_000
    assert "word word …" in html


def test_every_timeline_says_in_words_what_it_shows(compared):
    _, page = compared
    timelines = [attributes for _, attributes in page.elements if attributes.get("class") == "timeline"]
    entries = [attributes for _, attributes in page.elements if attributes.get("class") == "entry"]
    assert len(timelines) == len(entries) > N_ENTRIES
    assert all(re.match(r"Timeline of the right video, 60\.0 s; annotated \d", one["aria-label"]) for one in timelines)


def test_durations_come_from_the_annotations_or_else_from_the_runs_file(tmp_path):
    queries = [Query(i, "", i, name, (0.0, 1.0)) for i, name in enumerate("abc")]
    path = tmp_path / "video2dur.json"
    path.write_text(json.dumps({"val": {"a": [5.0, 1], "b": [6.0, 2], "d": [7.0, 3]}}))
    rows = [{"vid_name": "a", "duration": 9.0}, {"vid_name": "b", "duration": None}, {"vid_name": "c"}]
    assert video_durations(rows, queries, path) == {"a": 9.0, "b": 6.0}
    assert video_durations(rows, queries, None) == video_durations(rows, queries, tmp_path / "no") == {"a": 9.0}


@about_no_charts
def test_without_durations_there_is_no_position_and_timelines_end_with_what_they_show(files):
    for row in files.ground_truth:
        del row["duration"]
    _, page = report(files.write())
    assert "by-position" not in page.tables
    assert "hit" in page.tables


@about_no_charts
def test_in_a_results_folder_annotations_and_recalls_are_the_runs(files, monkeypatch, tmp_path):
    saved = {"dset_name": "custom", "iou_thds": [0.3], "recall_ks": [2], "eval_split_name": "val"}
    (files.folder / "opt.json").write_text(json.dumps({**saved, "eval_path": str(files.gt)}))
    monkeypatch.chdir(tmp_path)
    _, page = read(write_report([files.predictions]))
    assert {task: list(values) for task, values in recalls_in(page).items()} == {
        "VCMR": ["0.3-r2"],
        "SVMR": ["0.3-r2"],
        "VR": ["r2"],
    }
    assert "custom, val" in page.texts["bdi"]
    elsewhere = files.gt.rename(files.folder / "moved.jsonl")
    _, page = read(write_report([files.predictions], gt_path=elsewhere))
    assert list(recalls_in(page)["VR"]) == ["r2"]


@about_no_charts
def test_the_page_lies_beside_the_predictions_or_where_it_is_asked_for(files, run_main: Run):
    arguments = [str(files.predictions), "--gt", str(files.gt)]
    finished = run_main(main, arguments)
    assert finished.code == 0, finished.err
    assert finished.out.startswith(str(files.folder / "predictions_report.html"))
    assert run_main(main, [*arguments, "--out", str(files.folder / "new" / "r.html")]).code == 0
    assert (files.folder / "new" / "r.html").is_file()


def test_equal_input_gives_equal_pages(tmp_path):
    files = make_report_files(tmp_path, ("VCMR",))  # which has charts of each kind
    first, second = (re.sub(r"Made [\d: -]+", "", report(files)[0]) for _ in range(2))
    assert first == second


def test_names_of_other_alphabets_are_drawn_without_a_warning(tmp_path):
    files = make_report_files(tmp_path, ("VR",))
    for row in files.ground_truth:
        row["type"] = "画面"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, page = report(files.write())
    assert any(text.startswith("画面") for text in page.texts["text"])


def test_the_script_is_the_same_command(tmp_path):
    files = make_report_files(tmp_path, ("VR",))
    script = PROJECT_ROOT / "method_tvr" / "scripts" / "report.sh"
    finished = run_script(script, files.predictions, files.write_other("b.json", tasks=("VR",)), "--gt", files.gt)
    assert finished.returncode == 0, finished.stderr
    assert "compared" in read(files.folder / "predictions_report.html")[1].tables


def refused(run_main: Run, files: ReportFiles, arguments: Sequence[object], said: str) -> None:
    before = {path.name: path.read_bytes() for path in files.folder.iterdir() if path.is_file()}
    finished = run_main(main, list(map(str, arguments)))
    assert finished.code == 2, finished.err
    assert finished.err.startswith("error: ")
    assert said in finished.err
    assert {path.name: path.read_bytes() for path in files.folder.iterdir() if path.is_file()} == before


@about_no_charts
def test_bad_input_is_refused_and_nothing_is_written(files, run_main: Run):
    with_gt = [files.predictions, "--gt", files.gt]
    refused(run_main, files, [files.predictions], "lies in no results folder (with opt.json): give annotations, --gt")
    refused(run_main, files, [files.folder / "no.json", "--gt", files.gt], "no.json: cannot be read")
    refused(run_main, files, [files.predictions, "--gt", files.folder / "no.jsonl"], "no.jsonl: cannot be read")
    refused(run_main, files, [files.predictions, "--split", "val"], "--split val: ")
    refused(run_main, files, [*with_gt, "--split", "val"], "give one of them")
    refused(run_main, files, [*with_gt, "--out", files.folder], "is a folder or what the report is made from")
    refused(run_main, files, [*with_gt, "--out", files.predictions], "is a folder or what the report is made from")
    refused(run_main, files, [*with_gt, "--out", files.gt / "r.html"], "cannot be written (")
    refused(run_main, files, [*[files.predictions] * 9, "--gt", files.gt], "9 prediction files: a report compares 8")


def test_files_that_do_not_fit_are_refused_with_every_reason(files, run_main: Run):
    other = files.write_other("b.json")
    vr = files.write_other("vr.json", tasks=("VR",))
    moments = files.write_other("moments.json", tasks=("VCMR",))
    refused(run_main, files, [moments, vr, "--gt", files.gt], "vr.json: has none of the tasks of ")
    submission = json.loads(other.read_text())
    submission["VCMR"][0]["desc_id"] = 7
    submission["VR"][0]["predictions"] = [[1, 2]]
    other.write_text(json.dumps(submission))
    refused(run_main, files, [files.predictions, other, "--gt", files.gt], "desc_id is not in the annotations")
    refused(run_main, files, [files.predictions, other, "--gt", files.gt], "b.json, against ")
    other.write_text("{")
    refused(run_main, files, [files.predictions, other, "--gt", files.gt], "b.json: is not valid JSON")
    queries = files.folder / "public.jsonl"
    queries.write_text("\n".join(json.dumps({"desc_id": row["desc_id"], "desc": "x"}) for row in files.ground_truth))
    refused(run_main, files, [files.predictions, "--gt", queries], "cannot be evaluated here")


def test_a_missing_package_is_named_with_the_remedy(files, run_main: Run, monkeypatch):
    for name in ("page", "gallery", "timeline", "rendering"):
        monkeypatch.delitem(sys.modules, f"method_tvr.report.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    refused(run_main, files, [files.predictions, "--gt", files.gt], "pip install -r method_tvr/report/requirements.txt")
