"""Queries with several moments: for any of them, or for two that agree."""

import json

import numpy as np
import pytest

from standalone_eval.metrics import LEAST_RIGHT, Rule, exclusive
from tests.standalone_eval.commands import FOLDER, run

APART = [[0.0, 10.0], [30.0, 40.0], [60.0, 70.0], [100.0, 120.0]]
AGREE, ANY = (Rule(least_right=LEAST_RIGHT[several]) for several in ("agree", "any"))


@pytest.mark.parametrize(
    ("moments", "never"),
    [
        (APART, True),
        (APART[::-1], True),
        (APART[:3], False),  # of three, one is enough
        ([[0, 10], [10, 20], [20, 30], [30, 40]], True),  # touching is not overlapping
        ([*APART[:3], [69.0, 120.0]], False),
        ([[0, 120], [30, 40], [60, 70], [100, 110]], False),
        ([[30, 40], [0, 100], [60, 70], [80, 90]], False),  # the overlapping ones are no neighbours in order
        ([[5, 5], [5, 5], [6, 6], [7, 7]], True),
        ([], False),
    ],
)
def test_queries_whose_moments_exclude_each_other_are_found(moments, never):
    spans = np.full((1, 5, 2), np.nan)
    spans[0, : len(moments)] = np.array(moments, dtype=float).reshape(-1, 2)
    assert exclusive(spans, AGREE).tolist() == [never]
    assert not exclusive(spans, ANY).any()


@pytest.fixture
def files(write):
    rows = [{"desc_id": i, "vid_name": "a", "ts": APART[: 3 + i]} for i in (0, 1)]
    entries = [{"desc_id": i, "predictions": [[0, 30, 40, 1.0]]} for i in (0, 1)]
    return write({"video2idx": {"a": 0}, "SVMR": entries}, "predictions.json"), write(rows, "gt.jsonl")


def arguments(files, *options):
    return "--submission_path", files[0], "--gt_path", files[1], *options


@pytest.mark.parametrize(("options", "recall"), [((), 50.0), (("--several", "any"), 100.0)])
def test_separate_windows_are_answered_by_any_and_warned_of_else(files, tmp_path, options, recall):
    result = run("python", FOLDER / "eval.py", *arguments(files, "--save_path", tmp_path / "m.json", *options))
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "m.json").read_text())["SVMR"]["0.5-r1"] == recall
    warned = "give --several any (1)" in result.stderr
    assert warned == (recall < 100)
    assert len(result.stderr.splitlines()) == warned


def test_check_and_compare_judge_by_the_same_option(files):
    check, compare = FOLDER / "check.py", FOLDER / "compare.py"
    compared = ("python", compare, files[0], files[0], "--gt_path", files[1], "--n_resamples", "10")
    for command in (("python", check, *arguments(files)), compared):
        assert run(*command).stderr.count("--several any") == 1
        assert run(*command, "--several", "any").stderr == ""
    assert "100.00" not in run(*compared).stdout
    assert "100.00" in run(*compared, "--several", "any").stdout


def test_not_verbose_saves_without_printing(files, tmp_path):
    options = ("--save_path", tmp_path / "m.json", "--several", "any", "--not_verbose")
    result = run("python", FOLDER / "eval.py", *arguments(files, *options))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert json.loads((tmp_path / "m.json").read_text())["SVMR"]["0.5-r1"] == 100.0
