"""Query files as people make them: any form that can be read is, and what is read in other words is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from utils.basic_utils import InputError
from utils.own_corpus.queries import Query, noted, read_queries, with_known_names

ROW = {"desc": "She laughs.", "vid_name": "a", "ts": [1, 2.5]}
LINES = '{"desc": "One é.", "vid_name": "a", "ts": [0, 1]}\n{"desc": "Two.", "vid_name": "b", "ts": [0, 1]}\n'


def read(tmp_path: Path, content: str | bytes, name: str = "q.jsonl") -> list[Query]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_queries([path])


def of_row(tmp_path: Path, **changed: Any) -> Query:
    content = {"desc": "She laughs.", "vid_name": "a", **changed}
    return read(tmp_path, json.dumps(content))[0]


@pytest.mark.parametrize(
    "content",
    [
        LINES.encode("utf-8-sig"),
        LINES.encode("utf-16"),
        LINES.replace("\n", "\n \n\n").encode(),
        ("\ufeff" + LINES.replace("\n", "\n\ufeff", 1)).encode(),
        ("\n" + LINES.replace("\n", "\r\n")).encode(),
        json.dumps([json.loads(line) for line in LINES.splitlines()], indent=1).encode(),
        b"Desc,vid_name,start,end\nOne \xc3\xa9.,a,0,1\n\n,,,\nTwo.,b,0,1\n",
        "sentence\tvideo\tstart_time\tend_time\nOne é.\ta\t0:00\t0:01\nTwo.\tb\t00:00:00\t1\n".encode("utf-16"),
        '\ufeffdesc;vid_name;Start;End\r\n"One é.";a;0,0;1,0\r\nTwo.;b;0;1\r\n'.encode(),
        'desc,vid_name,ts\n"One é.",a,"[0, 1]"\nTwo.,b,"[0, 1.0]"\n'.encode(),
    ],
    ids=["mark", "utf-16", "blank lines", "joined", "crlf", "list", "csv", "tsv", "excel", "csv with ts"],
)
def test_the_same_queries_are_read_whatever_the_file_looks_like(tmp_path: Path, content: bytes) -> None:
    read_so = [(query.desc, query.vid_name, query.ts, query.desc_id) for query in read(tmp_path, content)]
    plain = [(query.desc, query.vid_name, query.ts, query.desc_id) for query in read(tmp_path, LINES)]
    assert read_so == plain


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (LINES.encode("cp1252"), "q.jsonl", r"not UTF-8 text: save it as UTF-8 \(in an editor"),
        (LINES.encode("utf-8-sig").replace(b"\xc3\xa9", b"\xe9"), "q.jsonl", "line 1: holds bytes .* save it as UTF-8"),
        (LINES + "{]\n", "q.jsonl", "line 3: is not valid JSON"),
        ("\n" + LINES + "\n[1]\n", "q.jsonl", "line 5: expected an object"),
        ("", "q.jsonl", "has no lines"),
        (" \n\n", "q.csv", "a table of queries needs a header"),
        ("a,b\nc,d\n", "q.csv", "a header that names the columns desc, vid_name, start and end"),
        ("Where is she?\n", "q.txt", "line 1: is not valid JSON"),
        ("desc,vid_name\nShe laughs, loudly,a\n", "q.csv", "line 2: has more cells than the header"),
        ("desc,desc\na,b\n", "q.csv", "two columns are called desc"),
        (b"PK\x03\x04", "q.xlsx", "is a workbook: save it as CSV UTF-8"),
        ("[1]", "q.json", "entry 1 is no object"),
        ("[{]", "q.json", "is not valid JSON"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_to_do(tmp_path: Path, content: str, name: str, said: str) -> None:
    with pytest.raises(InputError, match=rf"{name}.*{said}"):
        read(tmp_path, content, name)


@pytest.mark.parametrize(
    "moment",
    [
        {"start": 1, "end": 2.5},
        {"Start": "1", "END": "0:02.5"},
        {"startTime": "00:00:01,0", "endTime": "00:00:02,5"},
        {"timestamp": [1, 2.5]},
        {"timestamps": [[1, 2.5]]},
        {"moment": ["0:01", 2.5], "start": 1, "end": 2.5},
        {"relevant_windows": [[1, 2.5]], "ts": None},
        {"TS": [1, 2.5]},
    ],
)
def test_a_moment_in_other_words_is_read_and_said(tmp_path: Path, moment: dict[str, Any]) -> None:
    query = of_row(tmp_path, **moment)
    assert query.ts == (1.0, 2.5)
    assert query.content["ts"] == [1.0, 2.5]
    assert query.desc_id == of_row(tmp_path, ts=[1, 2.5]).desc_id
    ((note, rows),) = noted([query]).items()
    assert note.startswith('read: "')
    assert note.endswith(' as "ts"')
    assert rows == [f"{tmp_path}/q.jsonl, line 1"]


@pytest.mark.parametrize("unread", [{"start": 1}, {"time": 3.5}, {"from_frame": 3}, {"clip": [1, 2]}, {"t": "0:01"}])
def test_a_key_that_may_be_a_moment_but_is_not_read_is_said(tmp_path: Path, unread: dict[str, Any]) -> None:
    query = of_row(tmp_path, **unread)
    assert query.ts is None
    (note,) = query.notes
    assert f'"{next(iter(unread))}"' in note


def test_nothing_is_said_of_other_keys(tmp_path: Path) -> None:
    assert of_row(tmp_path, ts=[1, 2], start=7, annotator=3, duration=9.0).notes == ()
    assert of_row(tmp_path, annotator="Ann", duration=9.0, n_words=2, type="v", desc_id=3).notes == ()


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ({"start": 1, "end": 2, "timestamp": [1, 3]}, '"start", "end", "timestamp" disagree'),
        ({"moments": [[1, 2], [3, 4]]}, '"moments" has 2 moments: write a line with one "ts"'),
        ({"start": "soon", "end": 2}, "\"start\" 'soon' is no time"),
        ({"timestamp": [1]}, "is not [start, end]"),
        ({"start": 3, "end": 2}, "reversed"),
    ],
)
def test_a_moment_that_is_unclear_is_refused(tmp_path: Path, moment: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=r"line 1") as refused:
        of_row(tmp_path, desc_id=31, **moment)
    assert said in str(refused.value)
    assert "(desc_id 31)" in str(refused.value)


def test_splits_in_other_words_are_read_where_that_is_clear(tmp_path: Path) -> None:
    def splits(*names: str) -> list[str | None]:
        rows = ({**ROW, "desc": f"{n}", "split": name} for n, name in enumerate(names))
        return [query.split for query in read(tmp_path, "\n".join(map(json.dumps, rows)))]

    assert splits("training", "validation") == ["train", "val"]
    assert splits("Train", "VAL", "testing") == ["train", "val", "test_public"]
    assert splits("train", "val", "dev") == ["train", "val", "dev"]
    assert splits("train", "valid", "dev", "fold1") == ["train", "valid", "dev", "fold1"]
    assert 'split "dev" is taken for val' in noted(read(tmp_path, json.dumps({**ROW, "split": "dev"})))
    assert not noted(read(tmp_path, json.dumps({**ROW, "split": "test"})))


@pytest.mark.parametrize(
    "spelt", ["Cafe\u0301 3.04 PM", "CAFÉ 3.04\u202fpm", "caf\u00e9\u00a03.04\u3000PM", "ca\u00adfé 3.04  PM"]
)
def test_names_that_differ_in_what_is_not_seen_are_the_same_video(tmp_path: Path, spelt: str) -> None:
    (query,) = with_known_names([of_row(tmp_path, vid_name=spelt)], ["café 3.04\u202fPM", "b"])
    assert query.vid_name == query.content["vid_name"] == "café 3.04\u202fPM"
    assert query.desc_id == of_row(tmp_path, vid_name=spelt).desc_id
    assert len(query.notes) == 1


def test_names_that_could_be_two_videos_are_taken_for_none(tmp_path: Path) -> None:
    (exact,) = with_known_names([of_row(tmp_path, vid_name="B")], ["b", "B"])
    assert (exact.vid_name, exact.notes) == ("B", ())
    with pytest.raises(InputError, match="is none of the videos"):
        with_known_names([of_row(tmp_path, vid_name="CAFE")], ["cafe", "Cafe"])


def test_unknown_names_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bunny_ is none of the videos.* such as bunny$"):
        with_known_names([of_row(tmp_path, vid_name="bunny_")], ["aaa", "bunny", "zzz"])
