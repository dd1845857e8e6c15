"""Text features called by a published qid get the desc_id of the annotations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.utils.feature_forms.converting import FEATURES, assert_holds, convert, npz_folder, refused
from utils.basic_utils import InputError
from utils.feature_files.feature_file import FeatureFile
from utils.feature_forms.query_keys import desc_id_of, desc_ids_of


def queries(path: Path, *rows: dict[str, object]) -> str:
    about = {"desc": "a dog", "vid_name": "v", "duration": 9.0, "ts": [1, 2]}
    path.write_text("".join(json.dumps({**about, **row}) + "\n" for row in rows))
    return str(path)


def test_keys_become_desc_ids_and_lacking_ones_are_listed(tmp_path, capsys):
    a, b, c = FEATURES.values()
    src = npz_folder(tmp_path / "text", {"qids1.mp4_7": a, "qid7": b, "11": c, "qid12": c, "5": a}, "last_hidden_state")
    val = queries(tmp_path / "val.jsonl", {"desc_id": 5, "qid": "s1.mp4_7"}, {"desc_id": 7, "qid": 7}, {"desc_id": 11})
    test = queries(tmp_path / "test.jsonl", {"desc_id": 40, "qid": "nobody"})
    out = convert(src, "--queries", val, test)
    assert_holds(out, {"5": a, "7": b, "11": c})  # and not what the source calls 5, which is no qid
    said = capsys.readouterr().out
    assert "left out: 2 of" in said
    assert "warning: 1 queries have no features: 40" in said
    with FeatureFile(out) as file:
        assert file.made_by()["kind"] == "query"


def test_a_qid_may_begin_as_the_prefix():
    assert desc_id_of("qid3", {"qid3": "1", "3": "2"}) == "1"
    assert desc_id_of("qid4", {"qid3": "1", "4": "2"}) == "2"
    assert desc_id_of("5", {"qid3": "1", "4": "2"}) is None


def test_rows_without_a_usable_id_are_refused_by_line(tmp_path):
    good = {"desc_id": 1, "qid": "a"}
    for bad in ({"desc_id": "7"}, {"desc_id": 2, "qid": 1.5}, {"desc_id": True}, {"desc_id": 2, "qid": None}, {}):
        path = queries(tmp_path / "val.jsonl", good, bad)
        with pytest.raises(InputError, match=r"val\.jsonl, line 2: expected a whole number desc_id"):
            desc_ids_of([path])
    path = queries(tmp_path / "val.jsonl", good, {"desc_id": 2, "qid": "a"})
    with pytest.raises(InputError, match=r"line 2: qid a is desc_id 2 here, 1 before"):
        desc_ids_of([path])


def test_features_of_nobody_are_refused(tmp_path, capsys):
    src = npz_folder(tmp_path / "text")
    val = queries(tmp_path / "val.jsonl", {"desc_id": 5, "qid": "x"})
    assert "has none of the queries such as 5, but cc, v_aa, v_bb" in refused(capsys, src, "--queries", val)
    assert "give one of them" in refused(capsys, src, "--queries", val, "--videos", val)


def test_two_names_of_one_query_are_refused(tmp_path, capsys):
    src = npz_folder(tmp_path / "text", {"qid5": FEATURES["cc"], "5": FEATURES["cc"]})
    val = queries(tmp_path / "val.jsonl", {"desc_id": 5})
    assert "5 and qid5 would both be 5" in refused(capsys, src, "--queries", val)
