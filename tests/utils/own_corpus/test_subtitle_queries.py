"""Subtitle lines that are queries: useful ones alone, the same in every run, never in place of what people wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from method_tvr.dataset.annotations import load_queries
from standalone_eval.findings import Findings
from standalone_eval.ground_truth import read_ground_truth
from utils.own_corpus.queries import Query, read_queries
from utils.own_corpus.splits import divide
from utils.own_corpus.subtitle_queries import Chosen, choose_lines

DURATIONS = {"a": 10.0, "b": 20.0}


def line(text: str, start: float = 1.0, end: float = 4.0) -> dict[str, Any]:
    return {"text": text, "start": start, "end": end}


def chosen(*lines: dict[str, Any], durations: dict[str, float] = DURATIONS, **more: Any) -> Chosen:
    """Of lines of the video a."""
    return choose_lines({"a": lines}, durations, 1.5, **more)


def test_a_line_becomes_a_query_for_its_time_within_the_video_and_says_what_it_is() -> None:
    (query,) = chosen(line(" Where did you put it? ", 8, 14)).queries
    assert (query.desc, query.vid_name, query.ts, query.split) == ("Where did you put it?", "a", (8.0, 10.0), None)
    assert (query.content["type"], query.content["made_from"]) == ("t", "subtitles")
    assert query.where == "subtitles of a at 8 s"


@pytest.mark.parametrize(
    ("text", "start", "end", "reason"),
    [
        ("Where is it?", 1, 4, "of fewer than 4 words or more than 20"),
        ("Where - is it ?", 1, 4, "of fewer than 4 words or more than 20"),
        ("word " * 21, 1, 4, "of fewer than 4 words or more than 20"),
        ("\u4ed6\u5728\u54ea", 1, 4, "of fewer than 4 words or more than 20"),
        ("[a door slams far away]", 1, 4, "of sounds or songs"),
        ("\u266a I will always love you \u266a", 1, 4, "of sounds or songs"),
        ("Where did you put it?", 1, 2.4, "shorter than a clip of 1.5 s, or past the end"),
        ("Where did you put it?", 9, 12, "shorter than a clip of 1.5 s, or past the end"),
        ("Where did you put it?", 12, 15, "shorter than a clip of 1.5 s, or past the end"),
    ],
)
def test_lines_that_tell_too_little_are_not_taken(text: str, start: float, end: float, reason: str) -> None:
    found = chosen(line(text, start, end))
    assert (found.queries, dict(found.not_taken)) == ([], {reason: 1})


@pytest.mark.parametrize(
    "text", ["word " * 20, "\u4ed6\u5728\u54ea\u91cc", "[Omar] Where did you go?", "Don't do it, Nora!"]
)
def test_lines_of_enough_words_are_taken(text: str) -> None:
    assert len(chosen(line(text, 1.4, 2.9)).queries) == 1  # 2.9 - 1.4 is less than 1.5 by rounding


def test_of_lines_that_a_video_has_twice_none_is_taken_but_other_videos_may_say_it_too() -> None:
    said = [line("Where did you put it?"), line("where did you put it", 5, 8), line("I have no idea.", 5, 8)]
    found = choose_lines({"a": said, "b": said[:1]}, DURATIONS, 1.5)
    assert [(query.vid_name, query.desc) for query in found.queries] == [
        ("a", "I have no idea."),
        ("b", "Where did you put it?"),
    ]
    (note,) = found.notes()
    assert note == (
        "2 queries are subtitle lines, not sentences that people wrote to search: 2 other lines are not taken "
        "(2 said more than once in their video)"
    )


def test_lines_and_their_numbers_stay_when_videos_are_added() -> None:
    lines = [line(f"This is line number {i}.", i, i + 3) for i in range(5)]
    before = chosen(*lines)
    after = choose_lines({"A": lines, "a": lines, "z": lines}, {**DURATIONS, "A": 10.0, "z": 3.0}, 1.5)
    of_a = [query for query in after.queries if query.vid_name == "a"]
    assert [(query.desc_id, query.desc) for query in of_a] == [(query.desc_id, query.desc) for query in before.queries]
    assert len({query.desc_id for query in after.queries}) == len(after.queries) == 12


def written(tmp_path: Path, *rows: dict[str, Any]) -> list[Query]:
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps({"desc": f"She laughs {i}.", **row}) + "\n" for i, row in enumerate(rows)))
    return read_queries([path])


def test_where_people_wrote_queries_evaluation_is_on_theirs_alone(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    durations = dict.fromkeys(names, 10.0)
    lines = {name: [line("Where did you put it?")] for name in names}
    people = written(tmp_path, *({"vid_name": name, "ts": [0, 3]} for name in names[:3]))
    val = set(divide(people, durations, 0.4)["val"].videos)
    found = choose_lines(lines, durations, 1.5, people, 0.4)
    assert {query.vid_name for query in found.queries} == set(names) - val
    assert {query.split for query in found.queries} == {"train"}
    assert found.not_taken["of videos whose written queries are not for training"] == len(val)
    splits = divide([*people, *found.queries], durations, 0.4)
    assert set(splits["val"].videos) == val
    assert not any("made_from" in query.content for query in splits["val"].queries)
    assert [query.desc for query in splits["train"].queries][: 3 - len(val)] == [
        query.desc for query in people if query.vid_name not in val
    ]


def test_where_people_wrote_queries_without_a_type_lines_have_none(tmp_path: Path) -> None:
    without, typed = ({"vid_name": "b", "ts": [0, 3]}, {"vid_name": "b", "ts": [0, 3], "type": "v"})
    said = line("Where did you put it?")
    assert "type" not in chosen(said, written=written(tmp_path, without)).queries[0].content
    assert chosen(said, written=written(tmp_path, typed)).queries[0].content["type"] == "t"


def test_what_people_wrote_is_not_there_twice(tmp_path: Path) -> None:
    people = written(tmp_path, {"desc": "Where did you put it?", "vid_name": "a", "ts": [1, 4]})
    found = chosen(line("Where did you put it?"), written=people)
    assert (found.queries, found.not_taken.total()) == ([], 1)


def test_readers_and_the_evaluator_take_the_mark(tmp_path: Path) -> None:
    path, findings = tmp_path / "val.jsonl", Findings()
    (query,) = chosen(line("Where did you put it?")).queries
    row = {**query.content, "desc_id": query.desc_id, "duration": 10.0}
    path.write_text(json.dumps(row) + "\n")
    (read,) = load_queries(path)
    assert (read.from_subtitles, read.ts, read.type) == (True, query.ts, "t")
    assert read_ground_truth([row], findings) is not None
    assert (findings.errors, findings.warnings) == ({}, {})
