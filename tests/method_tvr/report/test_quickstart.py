"""The table, the choice of examples, the curves and the picture that end the quickstart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.utils.tensorboard import SummaryWriter

from method_tvr.config import parse_train_options
from method_tvr.dataset.annotations import Query, Video
from method_tvr.inference import evaluation_of, predict
from method_tvr.inputs import Inputs
from method_tvr.model import ReLoCLNet
from method_tvr.options.rules import settings_of
from method_tvr.report.examples import Example, first_right_and_wrong, is_right, outcome_in_words, span_curves
from method_tvr.report.plots import Curve, draw_run, iou_styles, read_curves
from method_tvr.report.quickstart import mean_recalls, recall_table
from method_tvr.report.timeline import ANNOTATED, RIGHT, WRONG, BoundaryCurve, Lane, Timeline
from method_tvr.train import model_config
from utils.basic_utils import InputError
from utils.model_utils import named_generator

if TYPE_CHECKING:
    from tests.support.runs.tiny_corpus import Corpus

QUERY = Query(1, "Nora sniffs the jacket.", 1, "a", (3.0, 6.0), "v")
VIDEO = Video("a", 30.0, 7)


def example(n_clips: int, n_moments: int) -> Example:
    p = np.full(n_clips, 1 / n_clips)
    moments = [[7, 3.0 * rank, 3.0 * rank + 3.0, 0.1] for rank in range(n_moments)]
    kinds = [RIGHT if right else WRONG for right in is_right(moments, QUERY, VIDEO, 0.5)]
    ranked = [Lane("ranked", kind, [(row[1], row[2])]) for kind, row in zip(kinds, moments, strict=True)]
    curves = [BoundaryCurve(name, 1.5 * np.arange(n_clips), p) for name in ("start", "end")]
    shown = Timeline(30.0, [Lane("annotated", ANNOTATED, QUERY.annotated), *ranked], curves)
    return Example(QUERY, shown, "VCMR: right at rank 1")


def test_table_has_a_row_per_recall_and_a_dash_where_a_column_lacks_it() -> None:
    columns = {
        "chance": {"VCMR": {"0.5-r1": 0.02, "0.5-r10": 0.2}, "VR": {"r1": 0.4}},
        "trained": {"VCMR": {"0.5-r1": 41.0, "0.5-r10": 60.0}, "VR": {"r1": 50.0}},
        "trained, NMS": {"VCMR": {"0.5-r1": 42.5, "0.5-r10": 61.0}},
    }
    rows = [line.split() for line in recall_table(columns, "chance", "trained").splitlines() if "R@" in line]
    assert rows == [
        ["VCMR", "IoU", "0.5", "R@1", "0.020", "41.00", "42.50", "2050.0"],
        ["VCMR", "IoU", "0.5", "R@10", "0.200", "60.00", "61.00", "300.0"],
        ["VR", "R@1", "0.400", "50.00", "–", "125.0"],
    ]


def test_table_does_not_divide_by_a_chance_of_zero() -> None:
    columns = {"chance": {"SVMR": {"0.7-r1": 0.0}}, "trained": {"SVMR": {"0.7-r1": 5.0}}}
    assert recall_table(columns, "chance", "trained").split()[-1] == "–"


def test_mean_recalls_is_the_mean_of_each_recall() -> None:
    runs = [{"VR": {"r1": 1.0, "r5": 4.0}}, {"VR": {"r1": 2.0, "r5": 6.0}}]
    assert mean_recalls(runs) == {"VR": {"r1": 1.5, "r5": 5.0}}


def test_first_right_and_first_wrong_query_of_each_type_are_chosen() -> None:
    queries = [Query(i, "", i, "a", (0.0, 1.0), kind) for i, kind in enumerate(["v", "t", "v", "v", "t", "v"])]
    right = [False, True, True, False, True, True]
    assert first_right_and_wrong(queries, right) == {"v": (queries[2], queries[0]), "t": (queries[1], None)}


def test_queries_without_types_are_one_type() -> None:
    queries = [Query(i, "", i, "a", (0.0, 1.0)) for i in range(2)]
    assert first_right_and_wrong(queries, [True, False]) == {"all": (queries[0], queries[1])}


def test_a_right_span_in_another_video_is_wrong() -> None:
    rows = [[8, 3.0, 6.0, 0.9], [7, 3.0, 6.0, 0.8], [7, 10.0, 12.0, 0.7]]
    assert is_right(rows, QUERY, VIDEO, 0.5).tolist() == [False, True, False]
    assert is_right([], QUERY, VIDEO, 0.5).tolist() == []


def test_outcome_says_the_rank_and_what_came_first() -> None:
    names = {7: "a", 8: "b"}
    right, other, elsewhere = [7, 3.0, 6.0, 0.8], [8, 0.0, 4.5, 0.9], [7, 9.0, 12.0, 0.9]
    assert outcome_in_words([right], np.array([True]), QUERY, names) == "VCMR: right at rank 1"
    two = outcome_in_words([other, right], np.array([False, True]), QUERY, names)
    assert two == "VCMR: right at rank 2; rank 1 is 0.0–4.5 s of b"
    none = outcome_in_words([elsewhere], np.array([False]), QUERY, names)
    assert none == "VCMR: none of 1 ranks is right; rank 1 is 9.0–12.0 s of this video"
    assert outcome_in_words([], np.zeros(0, dtype=bool), QUERY, names) == "VCMR: no prediction"


def test_curves_come_back_as_training_logs_them(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for epoch in (-1, 0, 1):
            writer.add_scalars("Eval/VCMR-0.5", {"0.5-r1": epoch + 1.0, "0.5-r10": epoch + 10.0}, epoch)
            writer.add_scalars("Eval/VR", {"r1": epoch + 2.0}, epoch)
        writer.add_scalar("Train/loss_overall", 0.5, 0)
    assert read_curves(tmp_path) == {
        "Train/loss_overall": Curve([0], [0.5]),
        "Eval/VCMR-0.5/0.5-r1": Curve([-1, 0, 1], [0.0, 1.0, 2.0]),
        "Eval/VCMR-0.5/0.5-r10": Curve([-1, 0, 1], [9.0, 10.0, 11.0]),
        "Eval/VR/r1": Curve([-1, 0, 1], [1.0, 2.0, 3.0]),
    }


def test_curves_of_a_run_that_was_gone_on_with_follow_each_other_whatever_lies_among_them(tmp_path: Path) -> None:
    for epoch in (0, 1):  # in a file each
        with SummaryWriter(str(tmp_path), filename_suffix=f".{epoch}") as writer:
            writer.add_scalar("Train/loss_overall", 0.5 - epoch, epoch)
    for odd in (tmp_path, tmp_path / "below"):
        odd.mkdir(exist_ok=True)
        os.mkfifo(odd / "events.out.tfevents.9.pipe")
        (odd / "events.out.tfevents.9.itself").symlink_to("events.out.tfevents.9.itself")
        (odd / "a").symlink_to(".")
        (odd / "b").symlink_to(".")
    assert read_curves(tmp_path) == {"Train/loss_overall": Curve([0, 1], [0.5, -0.5])}


def test_a_folder_without_curves_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no TensorBoard curves"):
        read_curves(tmp_path)


def test_picture_is_drawn_whatever_is_missing(tmp_path: Path) -> None:
    curves = {"Train/loss_overall": Curve([0, 1], [0.5, 0.3]), "Train/loss_fcl": Curve([0, 1], [0.0, 0.0])}
    examples = {"vt": (None, example(3, 0)), "all": (example(20, 5), None)}
    draw_run(tmp_path / "run.png", "a run", curves, 1, examples, 0.5)
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_recalls_are_drawn_at_the_thresholds_that_were_logged_each_in_its_own_style() -> None:
    tags = [f"Eval/{task}-{thd}/{thd}-r1" for task in ("VCMR", "SVMR") for thd in ("0.7", "0.3", "0.9", "0.5", "0.1")]
    styles = iou_styles([*tags, "Eval/VR/r1", "Train/loss_overall"])
    assert list(styles) == ["0.1", "0.3", "0.5", "0.7", "0.9"]
    assert (styles["0.5"], styles["0.7"]) == ("-", "--")
    assert len(set(styles.values())) == len(styles)


def test_best_span_of_the_curves_is_the_best_moment_of_the_search(tiny_corpus: Corpus) -> None:
    opt = parse_train_options(tiny_corpus.options(exp_id="test"))
    inputs, device = settings_of(Inputs, opt), torch.device("cpu")
    features = inputs.open_features(device)
    split = inputs.eval_split(features)
    model = ReLoCLNet(model_config(opt, features), named_generator(0, "initialisation")).eval()
    queries = split.queries[:4]
    evaluation = evaluation_of(opt, split, features, device)
    found = predict(model, evaluation, ["SVMR"])["SVMR"]
    for row, (p_st, p_ed) in enumerate(span_curves(model, queries, evaluation)):
        assert p_st.sum() == pytest.approx(1, abs=1e-5)
        assert len(p_st) == features.n_clips(str(queries[row].vid_name))
        _, st, ed, score = found.of_query(row)[0]
        product = p_st[round(st / opt.clip_length)] * p_ed[round(ed / opt.clip_length)]
        assert product == pytest.approx(score, rel=1e-4)
