"""Annotations of one query a line, as Moment-DETR, VERIFIED and mTVR publish them: to ours, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from method_tvr.dataset.annotations import load_queries, load_videos
from utils.annotations import convert, to_moment_detr
from utils.basic_utils import read_json, read_jsonl


def qid_row(qid: Any, windows: Any = ((5.0, 12.0),), vid: str = "a", **others: Any) -> dict[str, Any]:
    windows = [list(window) for window in windows] if isinstance(windows, tuple) else windows
    return {
        "qid": qid, "query": "it  rains.", "duration": 30, "vid": vid, "relevant_windows": windows, **others,
    }  # fmt: skip


NESTED: list[Any] = []
for _ in range(300):
    NESTED = [NESTED]
TWO = qid_row(9, ((0, 4), (20.5, 30)), relevant_clip_ids=[0, 1, 10], saliency_scores=[[1, 2, 3]] * 3)
UNANSWERED = {key: value for key, value in qid_row(12, vid="c").items() if key != "relevant_windows"}
FIG = {"desc_id": 4, "fig_desc": "A man in red waves slowly.", "video": "a", "time": [1.5, 8.0]}
SPOKEN = [{"lang": "en", "desc": "They talk."}, {"lang": "zh", "desc": "他们在说话。"}]
MTVR = {"desc_id": 90200, "vid_name": "a", "duration": 61.46, "ts": [4.2, 9.9], "type": "vt", "descs": SPOKEN}


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Converts the files of a new folder; the exit code, and what was printed and written."""

    def run(dataset: str, files: dict[str, Any], *options: str) -> tuple[int, str, Path]:
        (tmp_path / "in").mkdir(exist_ok=True)
        for name, rows in files.items():
            text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / "in" / name).write_text(text, encoding="utf-8")
        code = 0
        try:
            convert.main([dataset, "--in", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *options])
        except SystemExit as end:
            code = int(end.code or 0)
        heard = capsys.readouterr()
        return code, heard.out + heard.err, tmp_path / "out"

    return run


def test_windows_become_moments_and_integer_qids_desc_ids(run):
    files = {"a_train.jsonl": [qid_row(7), TWO], "a_valid.jsonl": [qid_row(8, vid="b")], "a_test.jsonl": [UNANSWERED]}
    code, _, out = run("qvhighlights", files)
    assert code == 0
    train, test = (read_jsonl(out / f"out_{split}_release.jsonl") for split in ("train", "test"))
    assert train[0] == {"desc_id": 7, "desc": "it rains.", "vid_name": "a", "duration": 30.0, "ts": [5.0, 12.0]}
    assert train[1]["ts"] == [[0.0, 4.0], [20.5, 30.0]]
    assert (train[1]["relevant_clip_ids"], train[1]["saliency_scores"]) == ([0, 1, 10], [[1, 2, 3]] * 3)
    assert test == [{"desc_id": 12, "desc": "it rains.", "vid_name": "c", "duration": 30.0}]
    videos = load_videos(out / "out_video2dur_idx.json")
    assert {split: list(entries) for split, entries in videos.items()} == {"train": ["a"], "val": ["b"], "test": ["c"]}
    assert [query.annotated for query in load_queries(out / "out_train_release.jsonl", videos)] == [
        ((5.0, 12.0),),
        ((0.0, 4.0), (20.5, 30.0)),
    ]
    assert read_json(out / "out_made_by.json")["dataset"] == "qvhighlights"


@pytest.mark.parametrize("ids", [("s1_0", "s1_1"), (3, "s1_1"), (3, 3)])
def test_other_qids_are_kept_beside_numbers(run, ids):
    code, _, out = run("tacos", {"train.jsonl": [qid_row(ids[0])], "val.jsonl": [qid_row(1), qid_row(ids[1])]})
    assert code == 0
    rows = read_jsonl(out / "out_val_release.jsonl")
    assert [(row["desc_id"], row["qid"]) for row in rows] == [(2_000_001, 1), (2_000_002, ids[1])]


def test_back_in_moment_detrs_form_nothing_is_lost(run, tmp_path, capsys):
    for ids in ((7, 9, 12), ("x_1", 9, "x_3")):
        rows = [{**qid_row(ids[0]), "query": "it rains."}, {**TWO, "qid": ids[1], "query": "so."}]
        unanswered = [{**UNANSWERED, "qid": ids[2], "query": "why?"}]
        _, _, out = run("qvhighlights", {"a_train.jsonl": rows, "a_val.jsonl": [], "a_test.jsonl": unanswered})
        for split, before in (("train", rows), ("test", unanswered)):
            back = tmp_path / "back.jsonl"
            to_moment_detr.main(["--in", str(out / f"out_{split}_release.jsonl"), "--out", str(back)])
            assert read_jsonl(back) == before
    assert "back.jsonl: 1 queries" in capsys.readouterr().out


def test_tvrs_own_queries_go_into_the_form_too(tmp_path, capsys):
    row = {"desc_id": 90200, "desc": "They talk.", "vid_name": "a", "ts": [4.2, 9.9], "type": "vt"}
    (tmp_path / "q.jsonl").write_text(json.dumps(row))
    command = ["--in", str(tmp_path / "q.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    with pytest.raises(SystemExit) as end:
        to_moment_detr.main(command)
    assert end.value.code == 2
    assert "q.jsonl, line 1: no duration of a: give --durations" in capsys.readouterr().err
    (tmp_path / "d.json").write_text(json.dumps({"val": {"a": [61.46, 3]}}))
    to_moment_detr.main([*command, "--durations", str(tmp_path / "d.json")])
    assert read_jsonl(tmp_path / "out.jsonl") == [
        {
            "qid": 90200, "query": "They talk.", "duration": 61.46, "vid": "a", "relevant_windows": [[4.2, 9.9]],
            "type": "vt",
        }
    ]  # fmt: skip


def test_verifieds_queries_take_the_durations_of_their_dataset(run, tmp_path):
    files = {"charades_fig_train.jsonl": [FIG, {**FIG, "desc_id": 5, "video": "b", "desc": "A man waves."}]}
    code, said, _ = run("charades_sta", files)
    assert code == 2
    assert "line 1: video a has no duration: give --durations" in said
    assert "so it is in 1 more places, of videos a, b" in said
    (tmp_path / "d.json").write_text(json.dumps({"train": {"a": [10.5, 0], "b": [7, 1]}}))
    code, _, out = run("charades_sta", files, "--durations", str(tmp_path / "d.json"), "--val_share", "0")
    assert code == 0
    assert read_jsonl(out / "out_train_release.jsonl") == [
        {"desc_id": 4, "desc": FIG["fig_desc"], "vid_name": "a", "duration": 10.5, "ts": [1.5, 8.0]},
        {"desc_id": 5, "desc": FIG["fig_desc"], "vid_name": "b", "duration": 7.0, "ts": [1.5, 7.0]},
    ]


@pytest.mark.parametrize("descs", [SPOKEN, {"en": "They talk.", "zh": "他们在说话。"}])
def test_of_mtvrs_sentences_one_language_is_taken(run, descs):
    public = {"mtvr_train_release.jsonl": [{**MTVR, "descs": descs}]}
    public["mtvr_test_public_release.jsonl"] = [{"desc_id": 5, "descs": descs}]
    code, said, out = run("tvr", public, "--language", "zh")
    assert code == 0
    (row,) = read_jsonl(out / "out_train_release.jsonl")
    assert (row["desc_id"], row["desc"], row["type"], row["ts"]) == (90200, "他们在说话。", "vt", [4.2, 9.9])
    assert "mtvr_test_public_release.jsonl: is not read: names no videos" in said
    code, said, _ = run("tvr", public, "--language", "fr")
    assert (code, "line 1: has no sentence in fr, but en, zh: give --language" in said) == (2, True)


def test_a_language_that_is_no_word_is_passed_over(run):
    descs = [{"lang": {"of": "it"}, "desc": "They walk."}, {"lang": "en", "desc": "They talk."}]
    code, said, out = run("tvr", {"mtvr_train_release.jsonl": [{**MTVR, "descs": descs}]}, "--language", "en")
    assert code == 0, said
    assert [row["desc"] for row in read_jsonl(out / "out_train_release.jsonl")] == ["They talk."]


def test_training_videos_of_a_dataset_without_val_become_it(run):
    rows = [qid_row(number, vid=f"v{number}") for number in range(20)]
    assert sorted(path.name for path in run("custom", {"train.jsonl": rows})[2].glob("*_release.jsonl")) == [
        "out_train_release.jsonl",
        "out_val_release.jsonl",
    ]


def test_of_two_files_for_a_split_the_datasets_own_is_read(run):
    files = {"highlight_train_release.jsonl": [qid_row(7)], "subs_train.jsonl": [qid_row(8)]}
    code, said, out = run("qvhighlights", files)
    assert code == 0
    assert [row["desc_id"] for row in read_jsonl(out / "out_train_release.jsonl")] == [7]
    code, said, _ = run("tacos", {})
    assert code == 2
    assert "highlight_train_release.jsonl and subs_train.jsonl are both train: move one of them" in said


def test_activitynets_second_val_is_its_test(run):
    files = {"val_1.jsonl": [qid_row(7)], "val_2.jsonl": [qid_row(8)], "train.jsonl": [qid_row(9)]}
    assert run("anet_cap", files)[0] == 0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (qid_row(None), '"qid" None is no id'),
        (qid_row(True), '"qid" True is no id'),
        (qid_row(8, [5.0, "x"]), "[5.0, 'x'] is not a start and an end in seconds"),
        (qid_row(8, [[5.0]]), '"relevant_windows" [[5.0]] is not a list of [start, end]'),
        (qid_row(8, "5-12"), "\"relevant_windows\" '5-12' is not a list of [start, end] in seconds"),
        (UNANSWERED, '"relevant_windows" None is not a list of [start, end]'),
        (qid_row(8, vid=5), "5 is not the name of a video"),
        (qid_row(8, duration=-1), "video a has the duration -1: expected seconds"),
        (qid_row(8, query=["x"]), "has no sentence in en"),
        (qid_row(8, query=3), "3 is not a sentence"),
        (qid_row("s1"), "has the id 's1', which is that of line 1 too"),
        (qid_row(8, [[0, 1]] * 101), "has 101 moments"),
        (qid_row(8, saliency_scores=NESTED), "has something in it that JSON cannot be written of"),
    ],
)
def test_what_is_wrong_with_a_line_is_named(run, row, said):
    code, err, out = run("tacos", {"val.jsonl": [qid_row("s1"), row]})
    assert code == 2
    assert f"val.jsonl, line 2: {said}" in err
    assert not out.exists()


def test_moments_that_nothing_can_answer_are_left_out(run):
    rows = [qid_row("s1"), qid_row("s2", []), qid_row("s3", ((40, 50),)), qid_row("s4", ((25, 33), (40, 50)))]
    code, said, out = run("tacos", {"val.jsonl": rows})
    assert code == 0
    kept = read_jsonl(out / "out_val_release.jsonl")
    assert [(row["qid"], row["ts"]) for row in kept] == [("s1", [5.0, 12.0]), ("s4", [25.0, 30.0])]
    assert "line 2: relevant_windows is empty" in said
    assert "line 3: moment [40, 50] is outside a, which lasts 30 s" in said


def test_files_that_are_no_queries_are_named(run):
    code, said, _ = run("tacos", {"val.txt": "AO8RW 0.0 6.9##a person waves.\n", "notes.jsonl": [qid_row(1)]})
    assert code == 2
    assert "has no jsonl of queries whose name says train, val or test" in said
    code, said, _ = run("tacos", {"train.jsonl": [qid_row(1)]})
    assert code == 2
    assert "has annotations of several forms, keep those of one" in said
    assert "val.txt holds annotations in Charades-STA's form" in said
