"""Annotations in another form, under another name or without durations: one cause is one message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from method_tvr.dataset.annotations import load_queries
from utils.annotations.convert import main
from utils.basic_utils import InputError
from utils.text_feature.text_rows import query_texts

ANET = {"v_a": {"duration": 9.5, "timestamps": [[0, 1]], "sentences": ["Waves."]}}
DIDEMO = [{"annotation_id": 1, "video": "a", "description": "waves", "times": [[0, 0]], "num_segments": 6}]
QIDS = [{"qid": i, "query": "waves", "duration": 30.0, "vid": "a", "relevant_windows": [[5, 12]]} for i in (7, 8)]
STA = "AO8RW 0.0 6.9##a person waves.\n"
TABLE = "id,length\n3MSZA,30.96\n"


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Converts files of a new folder; the exit code, stdout and stderr."""

    def convert(dataset: str, **contents: Any) -> tuple[int, str, str]:
        (tmp_path / "in").mkdir()
        for name, content in contents.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / "in" / name.replace("__", ".")).write_text(text)
        code = 0
        try:
            main([dataset, "--in", str(tmp_path / "in"), "--out", str(tmp_path / "out")])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return convert


@pytest.mark.parametrize(
    ("dataset", "name", "content", "form"),
    [
        ("anet_cap", "train__json", DIDEMO, "DiDeMo's form"),
        ("anet_cap", "train__json", jsonl(QIDS), "Moment-DETR's form (qid"),
        ("anet_cap", "train__json", STA, "Charades-STA's form"),
        ("didemo", "val_data__json", ANET, "ActivityNet Captions' form"),
        ("didemo", "val_data__json", QIDS, "Moment-DETR's form (qid"),
        ("didemo", "val_data__json", jsonl(QIDS), "Moment-DETR's form (qid"),
        ("charades_sta", "charades_sta_test__txt", json.dumps(ANET, indent=1), "ActivityNet Captions' form"),
        ("charades_sta", "charades_sta_test__txt", jsonl(QIDS), "Moment-DETR's form (qid"),
    ],
)
def test_a_file_of_another_form_is_called_by_it_and_nothing_else_is_said(convert, dataset, name, content, form):
    code, _, err = convert(dataset, **{name: content, "Charades_v1_test__csv": TABLE})
    assert code == 2
    assert f"{name.replace('__', '.')}: holds annotations in {form}" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("dataset", "read", "unread", "called"),
    [
        ("anet_cap", {"train__json": ANET}, {"val__json": ANET}, "val.json: would not be read: val is read from val_1"),
        ("anet_cap", {"train__json": ANET}, {"dev__json": ANET}, "dev.json: would not be read: val is read from val_1"),
        ("didemo", {"train_data__json": DIDEMO}, {"test__json": DIDEMO}, "test is read from test_data.json"),
        (
            "charades_sta",
            {"charades_sta_train__txt": STA, "Charades_v1_train__csv": TABLE.replace("3MSZA", "AO8RW")},
            {"test__txt": STA},
            "test is read from charades_sta_test.txt",
        ),
    ],
)
def test_a_split_under_another_name_is_not_left_unread(convert, tmp_path, dataset, read, unread, called):
    code, _, err = convert(dataset, **read, **unread)
    assert code == 2
    assert called in err
    assert not (tmp_path / "out").exists()


def test_other_annotations_beside_a_complete_dataset_are_noted(convert):
    extra = {"val__json": ANET, "highlight_test_release__jsonl": jsonl(QIDS), "train_ids__json": ["v_a"]}
    code, out, _ = convert("anet_cap", train__json=ANET, val_1__json=ANET, val_2__json=ANET, **extra)
    assert code == 0
    noted = [line for line in out.splitlines() if "is not read" in line]
    assert ["Moment-DETR" in line for line in noted] == [True, False]
    assert "val.json: is not read: holds annotations in ActivityNet" in noted[1]


def test_where_nothing_can_be_read_the_forms_that_are_there_are_named(convert):
    code, _, err = convert("anet_cap", val__json=ANET, test__json=DIDEMO, other__json={})
    assert code == 2
    assert "has none of train.json, val_1.json, val_2.json" in err
    assert "val.json holds annotations in ActivityNet Captions' form" in err
    assert "test.json holds annotations in DiDeMo's form" in err


def test_a_missing_table_of_durations_is_named_once(convert):
    lines = "".join(f"V{i % 1000:03} 0.0 6.9##a person waves.\n" for i in range(3000))
    code, _, err = convert("charades_sta", charades_sta_train__txt=lines, Charades_v1_test__csv=TABLE)
    assert code == 2
    (line,) = err.splitlines()[1:]
    assert "charades_sta_train.txt, line 1: video V000 has no length in Charades_v1_train.csv or" in line
    assert "(Charades_v1_train.csv is not there: put it there)" in line
    assert "2,999 more places, of videos V000, V001, V002, V003, V004 … (1000 in all)" in line


def test_videos_without_a_duration_are_named_once(convert):
    videos = {f"v_{i}": {"timestamps": [[0, 1]], "sentences": ["Waves."]} for i in range(50)}
    code, _, err = convert("anet_cap", train__json=videos)
    assert code == 2
    (line,) = err.splitlines()[1:]
    assert "train.json, 'v_0': video v_0 has no duration: expected seconds; so it is in 49 more places" in line


@pytest.mark.parametrize("read", [load_queries, query_texts])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (jsonl(QIDS), "holds annotations in Moment-DETR's form"),
        (json.dumps(DIDEMO, indent=1), "holds annotations in DiDeMo's form"),
        (json.dumps(ANET), "holds annotations in ActivityNet Captions' form"),
        (STA, "holds annotations in Charades-STA's form"),
        (json.dumps([{"desc_id": 1, "desc": "waves"}] * 2, indent=1), "is one JSON list of annotations"),
        (json.dumps({"video2idx": {}, "VR": []}), "holds a prediction file"),
        (jsonl([{"desc_id": 1, "desc": "waves"}]) + "{", "line 2: is not valid JSON"),
    ],
)
def test_readers_of_queries_name_the_form_too(tmp_path, read, content, said):
    (tmp_path / "q.jsonl").write_text(content)
    with pytest.raises(InputError, match=rf"q\.jsonl[:,] {said}"):
        read(tmp_path / "q.jsonl")


def test_a_query_that_names_its_video_alone_has_no_answer(tmp_path):
    row = {"desc_id": 1, "desc": "waves", "vid_name": "a"}
    for other in ({}, {"ts": None}):
        (tmp_path / "q.jsonl").write_text(jsonl([{**row, **other}]))
        assert not load_queries(tmp_path / "q.jsonl")[0].has_moment
