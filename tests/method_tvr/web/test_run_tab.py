"""The page's tab with recalls and curves, for datasets and runs that are not like TVR's."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from tests.support.web_stubs import REASON

pytest.importorskip("gradio", reason=REASON)

from method_tvr.report.plots import Curve
from method_tvr.web.outcomes.query_outcomes import QueryOutcomes
from method_tvr.web.page import run_tab
from method_tvr.web.page.gradio_package import gr
from standalone_eval.aligned import align
from standalone_eval.metrics import Rule


def outcomes(rule: Rule, types: tuple[str, ...] = (), task: str = "VCMR") -> QueryOutcomes:
    """Four queries, of which the first is right at rank 1, the second at rank 2."""
    right, wrong = [0, 0, 5, 1], [1, 0, 5, 1]
    rows, entries = [], []
    for number, found in enumerate([[right], [wrong, right], [wrong], []]):
        kind = {"type": types[number % len(types)]} if types else {}
        rows.append({"desc_id": number, "vid_name": "a_1", "ts": [0, 5], **kind})
        entries.append({"desc_id": number, "predictions": found})
    submission = {"video2idx": {"a_1": 0, "a_2": 1}, task: entries}
    return QueryOutcomes(align(submission, rows), [""] * len(rows), rule)


def table(html: str) -> list[list[str]]:
    """The cells of a table's rows."""
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>.*?</tr>", html)]


@pytest.mark.parametrize(
    ("rule", "types", "task", "wanted"),
    [
        (Rule((0.7,), (1, 2)), (), "VCMR", [["", "R@1", "R@2"], ["VCMR, IoU 0.7", "25.00", "50.00"]]),
        (
            Rule((0.3,), (10, 2)),  # without k = 1
            ("t", "v"),
            "VCMR",
            [
                ["", "R@10", "R@2", "R@2, type t", "R@2, type v"],
                ["VCMR, IoU 0.3", "50.00", "50.00", "50.00", "50.00"],
            ],
        ),
        (Rule((0.5,), (1,)), ("v",), "VR", [["", "R@1", "R@1, type v"], ["VR", "25.00", "25.00"]]),
    ],
)
def test_recalls_are_those_that_the_dataset_reports(rule, types, task, wanted):
    assert table(run_tab.summary_table(outcomes(rule, types, task))) == wanted


def test_the_line_of_the_model_kept_is_at_the_epoch_of_the_checkpoint(monkeypatch, tmp_path):
    drawn = []
    curves = {"Eval/VCMR-0.5/0.5-r1": Curve([0, 1, 2], [9.0, 1.0, 2.0])}
    monkeypatch.setattr(run_tab, "read_curves", lambda folder: curves)
    monkeypatch.setattr(run_tab, "load_model", lambda path: SimpleNamespace(epoch=2))
    monkeypatch.setattr(run_tab, "draw_curves", lambda figure, curves, epoch: drawn.append(epoch))
    with gr.Blocks():
        run_tab.build_run_tab(tmp_path, None)
    assert drawn == [2]


def test_without_curves_the_folder_is_not_named(tmp_path):
    with gr.Blocks() as page:
        run_tab.build_run_tab(tmp_path, None)
    assert run_tab.NO_CURVES in str(page.get_config_file()["components"])
    assert str(tmp_path) not in str(page.get_config_file())
