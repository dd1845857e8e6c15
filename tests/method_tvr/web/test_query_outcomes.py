"""Which queries are found by type, outcome, rank and words, and what is said of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from method_tvr.web.outcomes.query_outcomes import QueryOutcomes
from method_tvr.web.outcomes.split_outcomes import ANY, Cell, NamedMoment, Wanted
from standalone_eval.metrics import Rule
from utils.basic_utils import InputError

RULE = Rule((0.5, 0.7), (1, 5))
VIDEOS = {"friends_01": 0, "friends_02": 1, "house_01": 2}
RIGHT, NEAR, WRONG, ELSEWHERE = [0, 10.0, 20.0], [0, 10.0, 16.5], [0, 30.0, 40.0], [1, 10.0, 20.0]
QUERIES = [  # (sentence, type, VCMR rows): all of them are about 10 to 20 s of friends_01
    ("Ross opens a door.", "v", [RIGHT, WRONG]),
    ("Rachel opens a letter.", "vt", [ELSEWHERE, NEAR, RIGHT]),
    ("Ross says <b>no</b>.", "t", [WRONG, ELSEWHERE]),
    ("Ross opens a door.", "v", [NEAR, WRONG]),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A prediction file and its annotations."""
    folder = tmp_path_factory.mktemp("outcomes")
    truth, tasks = [], {"VCMR": [], "SVMR": [], "VR": []}
    for desc_id, (desc, kind, rows) in enumerate(QUERIES):
        truth.append({"desc_id": desc_id, "desc": desc, "vid_name": "friends_01", "ts": [10, 20], "type": kind})
        scored = [[*row, 1 - rank / 10] for rank, row in enumerate(rows)]
        tasks["VCMR"].append({"desc_id": desc_id, "desc": desc, "predictions": scored})
        own = [row for row in scored if row[0] == 0]
        tasks["SVMR"].append({"desc_id": desc_id, "desc": desc, "predictions": own})
        of_videos = [[row[0], 0, 0, row[3]] for row in scored]
        tasks["VR"].append({"desc_id": desc_id, "desc": desc, "predictions": of_videos})
    predictions, annotations = folder / "predictions.json", folder / "val.jsonl"
    predictions.write_text(json.dumps({"video2idx": VIDEOS, **tasks}))
    annotations.write_text("".join(f"{json.dumps(row)}\n" for row in truth))
    return predictions, annotations


@pytest.fixture(scope="module")
def outcomes(files: tuple[Path, Path]) -> QueryOutcomes:
    return QueryOutcomes.read(*files, RULE)


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (Wanted(), [0, 1, 2, 3]),
        (Wanted(query_type="v"), [0, 3]),
        (Wanted(hit=True), [0, 3]),
        (Wanted(hit=True, iou_thd=0.7), [0]),
        (Wanted(hit=False, iou_thd=0.7), [1, 2, 3]),
        (Wanted(ranks=(2, 10)), [1]),
        (Wanted(ranks=(0, 0), iou_thd=0.7), [2, 3]),
        (Wanted(words="OPENS ross"), [0, 3]),
        (Wanted(words="friends_01 letter"), [1]),
        (Wanted(words="<b>"), [2]),
        (Wanted("t", 0.5, True), []),
    ],
)
def test_queries_are_found_by_what_is_wanted_of_them(outcomes, wanted, numbers):
    assert outcomes.select(wanted).tolist() == numbers


@given(
    st.sampled_from([ANY, "v", "t", "vt"]),
    st.sampled_from([0.5, 0.7]),
    st.sampled_from([None, True, False]),
    st.none() | st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_each_wish_alone_and_all_together_find_the_same(outcomes, kind, iou_thd, hit, ranks):
    alone = [
        set(outcomes.select(one).tolist())
        for one in (
            Wanted(query_type=kind),
            Wanted(iou_thd=iou_thd, hit=hit),
            Wanted(iou_thd=iou_thd, ranks=ranks),
        )
    ]
    assert set(outcomes.select(Wanted(kind, iou_thd, hit, ranks)).tolist()) == set.intersection(*alone)


def test_a_query_has_its_annotated_moment_and_its_predictions(outcomes):
    assert outcomes.annotated(1) == {"friends_01": [(10, 20)]}
    assert outcomes.truth(1) == [NamedMoment("annotated", "friends_01", (10, 20))]
    first, second = NamedMoment("1", "friends_02", (10, 20), 1.0), NamedMoment("2", "friends_01", (10, 16.5), 0.9)
    assert outcomes.predicted(1, 2) == [first, second]
    wrong = NamedMoment("2", "friends_01", (30, 40), 0.9)
    assert outcomes.predicted(0, 9) == [NamedMoment("1", "friends_01", (10, 20), 1.0), wrong]
    assert outcomes.columns == [
        "Video",
        *(f"{task} rank, IoU {t}" for task in ("VCMR", "SVMR") for t in (0.5, 0.7)),
        "Rank of the video",
    ]
    vcmr, svmr = [Cell("2", "missed"), Cell("3", "missed")], [Cell("1", "hit"), Cell("2", "missed")]
    assert outcomes.cells(1) == [Cell("friends_01", "name"), *vcmr, *svmr, Cell("2")]
    none = Cell("–", "missed", "not among the predictions")
    assert outcomes.cells(2)[1:3] == [none, none]
    assert outcomes.types == ["t", "v", "vt"]
    assert outcomes.kinds[:4] == ["v", "vt", "t", "v"]


@pytest.mark.parametrize(
    ("task", "rows", "wanted"),
    [
        ("SVMR", [ELSEWHERE, WRONG, RIGHT], [("friends_01", (30, 40)), ("friends_01", (10, 20))]),
        ("VR", [[1, 0, 0], [0, 0, 0]], [("friends_02", None), ("friends_01", None)]),
    ],
)
def test_predictions_of_another_task_alone_are_those_that_have_a_rank(files, tmp_path, task, rows, wanted):
    entries = [{"desc_id": number, "predictions": [[*row, 0.5] for row in rows]} for number in range(len(QUERIES))]
    alone = tmp_path / "alone.json"
    alone.write_text(json.dumps({"video2idx": VIDEOS, task: entries}))
    outcomes = QueryOutcomes.read(alone, files[1], RULE)
    assert outcomes.task == task
    assert outcomes.ranks(0.5).tolist() == [2] * len(QUERIES)
    named = [NamedMoment(str(rank), *moment, 0.5) for rank, moment in enumerate(wanted, start=1)]
    assert outcomes.predicted(0, 9) == named
    assert outcomes.predicted(0, 1) == named[:1]


def test_a_query_without_a_sentence_has_none(files, tmp_path):
    rows = [json.loads(line) for line in files[1].read_text().splitlines()]
    rows[0]["desc"] = None
    del rows[1]["desc"]
    annotations = tmp_path / "val.jsonl"
    annotations.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert QueryOutcomes.read(files[0], annotations, RULE).sentences[:2] == ["", ""]


def test_a_sentence_of_several_queries_has_the_moments_of_all(outcomes):
    assert outcomes.annotated_for(" Ross opens a door. ") == {"friends_01": [(10, 20), (10, 20)]}
    assert outcomes.annotated_for("Nobody does.") == {}


def test_files_that_do_not_fit_are_refused_by_name(files, tmp_path):
    predictions, annotations = files
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(annotations.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match=str(predictions)):
        QueryOutcomes.read(predictions, fewer, RULE)
    with pytest.raises(InputError, match="cannot be read"):
        QueryOutcomes.read(tmp_path / "none.json", annotations, RULE)
