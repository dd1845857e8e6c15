"""Public annotation files become the project's: what they say survives, and what is wrong with them is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from method_tvr.dataset.annotations import load_queries, load_videos, most_agreed
from standalone_eval.findings import Findings
from standalone_eval.ground_truth import read_ground_truth
from utils.annotations import convert
from utils.annotations.convert import keep_with_features, read
from utils.annotations.reading import IDS_PER_FILE, Reader, Source
from utils.basic_utils import BAD_INPUT_EXIT_CODE, InputError, read_jsonl
from utils.feature_files.feature_file import new_feature_file

ANET_TRAIN = {
    "v_QOlSCBRmfWY": {
        "duration": 82.73,
        "timestamps": [[0.83, 19.86], [17.37, 60.81], [56.26, 82.99]],
        "sentences": [
            "A young woman is seen standing in a room and leads into her dancing.",
            " The girl dances around the room\n while the camera captures her movements.",
            " She continues dancing around the room and ends by laying on the floor.",
        ],
    },
    "v_ehGHCYKzyZ8": {"duration": 61.7, "timestamps": [[41.95, 61.1]], "sentences": ["He “throws” the ball."]},
}
ANET_VAL_1 = {"v_uqiMw7tQ1Cc": {"duration": 55.15, "timestamps": [[0, 4.14]], "sentences": ["A weight lifter walks."]}}
ANET_VAL_2 = {"v_uqiMw7tQ1Cc": {"duration": 55.15, "timestamps": [[0.28, 55]], "sentences": ["A man lifts weights."]}}

STA_TRAIN = """AO8RW 0.0 6.9##a person is putting a book on a shelf.
AO8RW 0.0 6.9##person begins to put books on a shelf.
Y6R7T 20.8 30.0##person laughing at the ## television.
"""
STA_TEST = "3MSZA 24.3 30.4##person turn a light on.\n"
CHARADES_HEAD = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
CHARADES_TRAIN = (
    CHARADES_HEAD
    + 'AO8RW,HR43,Bedroom,6,7,Yes,"A person, ""tidy"".\nThen a book.",book,A book is put.,c024 0.00 6.90,33.67\n'
    + "Y6R7T,HR43,Den,6,7,Yes,A person laughs.,tv,Laughing.,c149 20.80 30.00,29.50\n"
)
CHARADES_TEST = CHARADES_HEAD + "3MSZA,XK8M,Kitchen,7,7,Yes,A person.,light,Light on.,c104 24.30 30.40,30.96\n"


def didemo_entry(number: int, times: list[list[int]], video: str = "1@N0_1.mov", n_segments: int = 6) -> dict[str, Any]:
    return {
        "annotation_id": number,
        "dl_link": "https://www.flickr.com/video_download.gne?id=1",
        "video": video,
        "description": f"dog number {number} jumps",
        "times": times,
        "num_segments": n_segments,
    }


DIDEMO_TRAIN = [didemo_entry(7, [[1, 1], [0, 1], [1, 1]]), didemo_entry(9, [[5, 5]])]
DIDEMO_VAL = [
    didemo_entry(7, [[0, 0], [0, 0], [0, 1], [4, 5]], "2@N0_2.mov", 5),
    didemo_entry(8, [[2, 2]], "2@N0_2.mov", 5),
]


def files(folder: Path, **contents: Any) -> Path:
    """Write files, `a__json` being a.json; what is not text as JSON."""
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def anet(tmp_path: Path) -> Path:
    return files(tmp_path / "anet", train__json=ANET_TRAIN, val_1__json=ANET_VAL_1, val_2__json=ANET_VAL_2)


@pytest.fixture
def charades(tmp_path: Path) -> Path:
    return files(
        tmp_path / "charades",
        charades_sta_train__txt=STA_TRAIN,
        charades_sta_test__txt=STA_TEST,
        Charades_v1_train__csv=CHARADES_TRAIN,
        Charades_v1_test__csv=CHARADES_TEST,
    )


@pytest.fixture
def didemo_files(tmp_path: Path) -> Path:
    return files(tmp_path / "didemo", train_data__json=DIDEMO_TRAIN, val_data__json=DIDEMO_VAL)


def converted(dataset: str, folder: Path, *options: str) -> Path:
    """Run the command; where it wrote."""
    out = folder.parent / "corpus"
    convert.main([dataset, "--in", str(folder), "--out", str(out), *options])
    return out


def refused(capsys: pytest.CaptureFixture[str], dataset: str, folder: Path, *options: str) -> str:
    """Run the command, which must fail without writing anything; its message."""
    with pytest.raises(SystemExit) as stop:
        converted(dataset, folder, *options)
    assert stop.value.code == BAD_INPUT_EXIT_CODE
    assert not (folder.parent / "corpus").exists()
    return capsys.readouterr().err


def rows_of(out: Path, split: str) -> list[dict[str, Any]]:
    return read_jsonl(out / f"corpus_{split}_release.jsonl")


def test_activitynet_is_read_by_training_and_evaluation(anet, capsys):
    out = converted("anet_cap", anet)
    videos = load_videos(out / "corpus_video2dur_idx.json")
    assert {split: list(entries) for split, entries in videos.items()} == {
        "train": list(ANET_TRAIN),
        "val": list(ANET_VAL_1),
        "test": list(ANET_VAL_2),
    }
    assert videos["train"]["v_QOlSCBRmfWY"].duration == 82.73
    assert videos["val"]["v_uqiMw7tQ1Cc"].idx == videos["test"]["v_uqiMw7tQ1Cc"].idx
    for split in ("train", "val", "test"):
        queries = load_queries(out / f"corpus_{split}_release.jsonl", videos)
        assert read_ground_truth(rows_of(out, split), Findings()) is not None
        assert all(query.has_moment for query in queries)
    assert "moments end after" not in capsys.readouterr().err
    assert rows_of(out, "train")[1] == {
        "desc_id": 1_000_002,
        "desc": "The girl dances around the room while the camera captures her movements.",
        "vid_name": "v_QOlSCBRmfWY",
        "duration": 82.73,
        "ts": [17.37, 60.81],
    }
    assert rows_of(out, "train")[3]["desc"] == "He “throws” the ball."


def test_a_moment_past_the_end_is_clamped_and_counted(anet, capsys):
    out = converted("anet_cap", anet)
    assert rows_of(out, "train")[2]["ts"] == [56.26, 82.73]
    record = json.loads((out / "corpus_made_by.json").read_text())["read"]["train.json"]
    assert (record["queries"], record["kept"], record["moments_clamped"]) == (4, 4, 1)
    assert record["clamped_by_at_most"] == pytest.approx(0.26)
    line = next(line for line in capsys.readouterr().out.splitlines() if "train.json" in line)
    assert line.split() == ["train.json", "4", "4", "1", "0.26", "s"]


@pytest.mark.parametrize(
    ("span", "reason"),
    [([9, 3], "reversed"), ([4, 4], "empty"), ([60, 70], "outside v_b"), ([-3, -1], "outside v_b")],
)
def test_a_moment_without_any_time_in_its_video_is_left_out_and_listed(tmp_path, capsys, span, reason):
    entry = {"duration": 50, "timestamps": [span, [1, 2]], "sentences": ["Bad.", "Good."]}
    out = converted("anet_cap", files(tmp_path / "in", train__json={"v_b": entry}))
    assert [row["desc_id"] for row in rows_of(out, "train")] == [1_000_002]
    printed = capsys.readouterr().out
    assert reason in printed
    assert "train.json, 'v_b', sentence 1" in printed
    (left_out,) = json.loads((out / "corpus_made_by.json").read_text())["read"]["train.json"]["left_out"]
    assert reason in left_out["why"]


def test_an_empty_sentence_is_left_out_and_its_video_is_still_searched(tmp_path):
    entries = {
        "v_a": {"duration": 50, "timestamps": [[1, 2]], "sentences": [" "]},
        "v_b": {"duration": 50, "timestamps": [[1, 2]], "sentences": ["Good."]},
    }
    out = converted("anet_cap", files(tmp_path / "in", train__json=entries))
    assert [row["vid_name"] for row in rows_of(out, "train")] == ["v_b"]
    assert list(load_videos(out / "corpus_video2dur_idx.json")["train"]) == ["v_a", "v_b"]


def ids(out: Path) -> dict[str, int]:
    """desc_id by sentence, of all splits that are there."""
    return {
        row["desc"] + row["vid_name"]: row["desc_id"]
        for path in out.glob("*_release.jsonl")
        for row in read_jsonl(path)
    }


def test_desc_ids_stay_when_a_file_is_read_again_or_others_are_added(tmp_path, anet, charades, didemo_files):
    for dataset, folder, late in (
        ("anet_cap", anet, "train.json"),
        ("charades_sta", charades, "charades_sta_train.txt"),
        ("didemo", didemo_files, "train_data.json"),
    ):
        content = (folder / late).read_bytes()
        (folder / late).unlink()
        part = ids(converted(dataset, folder))
        (folder / late).write_bytes(content)
        out = converted(dataset, folder)
        whole = ids(out)
        assert part.items() < whole.items()
        assert len(set(whole.values())) == len(whole) == sum(len(read_jsonl(p)) for p in out.glob("*_release.jsonl"))
        assert ids(converted(dataset, folder)) == whole
        for path in out.iterdir():
            path.unlink()


def test_charades_train_is_divided_by_video_and_ids_do_not_depend_on_the_share(charades):
    out = converted("charades_sta", charades)
    train, val = rows_of(out, "train"), rows_of(out, "val")
    assert len(train) + len(val) == 3
    assert not {row["vid_name"] for row in train} & {row["vid_name"] for row in val}
    divided = ids(out)
    (out / "corpus_val_release.jsonl").unlink()
    assert ids(converted("charades_sta", charades, "--val_share", "0")) == divided
    assert not (out / "corpus_val_release.jsonl").exists()
    assert [row["desc_id"] for row in rows_of(out, "train")] == [1_000_001, 1_000_002, 1_000_003]
    assert rows_of(out, "train")[2] == {
        "desc_id": 1_000_003,
        "desc": "person laughing at the ## television.",
        "vid_name": "Y6R7T",
        "duration": 29.5,
        "ts": [20.8, 29.5],
    }
    assert rows_of(out, "test")[0]["ts"] == [24.3, 30.4]
    assert load_videos(out / "corpus_video2dur_idx.json")["test"]["3MSZA"].duration == 30.96


def test_didemo_trains_on_the_most_agreed_moment_and_is_evaluated_with_all(didemo_files, capsys):
    out = converted("didemo", didemo_files)
    train = load_queries(out / "corpus_train_release.jsonl", load_videos(out / "corpus_video2dur_idx.json"))
    assert [query.ts for query in train] == [(5, 10), (25, 30)]
    assert [row["ts"] for row in rows_of(out, "val")] == [[[0, 5], [0, 5], [0, 10], [20, 25]], [[10, 15]]]
    assert [row["desc_id"] for row in rows_of(out, "val")] == [2_000_007, 2_000_008]
    assert [row["duration"] for row in rows_of(out, "val")] == [25, 25]
    findings = Findings()
    truth = read_ground_truth(rows_of(out, "val"), findings)
    assert truth is not None
    assert truth.spans.shape == (2, 4, 2)
    assert "there is no split test" in capsys.readouterr().out


def test_a_bad_annotation_of_didemo_leaves_the_others(tmp_path):
    out = converted("didemo", files(tmp_path / "in", val_data__json=[didemo_entry(1, [[2, 1], [6, 6], [3, 3]])]))
    assert rows_of(out, "val")[0]["ts"] == [[15, 20]]
    left_out = json.loads((out / "corpus_made_by.json").read_text())["read"]["val_data.json"]["left_out"]
    assert ["reversed" in each["why"] or "outside" in each["why"] for each in left_out] == [True, True]


@pytest.mark.parametrize(
    ("dataset", "contents", "said"),
    [
        ("anet_cap", {"train__json": "{"}, "train.json: is not valid JSON"),
        ("anet_cap", {"train__json": []}, "train.json: expected an object"),
        ("anet_cap", {"train__json": '{"v_a": {"duration": NaN}}'}, "not valid JSON"),
        ("anet_cap", {"train__json": '{"v_a": {}, "v_a": {}}'}, "train.json: has 'v_a' twice"),
        ("anet_cap", {"train__json": {"v_a": 3}}, "train.json, 'v_a': expected duration"),
        (
            "anet_cap",
            {"train__json": {"v_a": {"timestamps": [[1, 2]], "sentences": ["S."]}}},
            "train.json, 'v_a': video v_a has no duration",
        ),
        (
            "anet_cap",
            {"train__json": {"v_a": {"duration": 9, "timestamps": [[1, 2]], "sentences": []}}},
            "train.json, 'v_a': has 1 timestamps, but 0 sentences",
        ),
        (
            "anet_cap",
            {"train__json": {"v_a": {"duration": 9, "timestamps": [[1, "2"]], "sentences": ["S."]}}},
            "sentence 1: [1, '2'] is not a start and an end",
        ),
        (
            "anet_cap",
            {"train__json": {"a/b": {"duration": 9, "timestamps": [[1, 2]], "sentences": ["S."]}}},
            "'a/b' is not the name of a video",
        ),
        (
            "anet_cap",
            {"train__json": {"v_a": {"duration": 9, "timestamps": [[2, 1]], "sentences": ["S."]}}},
            "there is nothing to write for it",
        ),
        ("didemo", {"val_data__json": [didemo_entry(3, [[1, 1]]), didemo_entry(3, [[1, 2]])]}, "entry 2 (annotation_"),
        ("didemo", {"val_data__json": [didemo_entry(3, [])]}, "has 0 moments"),
        ("didemo", {"val_data__json": [didemo_entry(3, [[1]])]}, '"times" [[1]] is not a list'),
        ("didemo", {"val_data__json": [didemo_entry(-1, [[1, 1]])]}, "number -1 of a query"),
        ("didemo", {"val_data__json": [{**didemo_entry(1, [[1, 1]]), "num_segments": None}]}, "num_segments"),
        ("didemo", {"val_data__json": {}}, "val_data.json: expected a list"),
        ("didemo", {"test__json": []}, "has none of train_data.json, val_data.json, test_data.json"),
        ("charades_sta", {"charades_sta_test__txt": STA_TEST}, "has none of Charades_v1_train.csv"),
    ],
)
def test_files_of_another_form_are_refused_with_place_and_reason(tmp_path, capsys, dataset, contents, said):
    message = refused(capsys, dataset, files(tmp_path / "in", **contents))
    assert said in message
    assert message.startswith("error: ")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("charades_sta_test__txt", STA_TEST + "3MSZA 24.3##no end\n", "charades_sta_test.txt, line 2: '3MSZA 24.3##no"),
        ("charades_sta_test__txt", STA_TEST + "3MSZA 1 2 no sentence\n", "charades_sta_test.txt, line 2"),
        ("charades_sta_test__txt", STA_TEST + "\nZZZZZ 1 2##s\n", "line 3: video ZZZZZ has no length in"),
        ("charades_sta_test__txt", "3MSZA 1 nan##s\n", "line 1: [1.0, nan] is not a start and an end"),
        ("charades_sta_test__txt", "\n", "it has no queries"),
        (
            "Charades_v1_test__csv",
            CHARADES_TEST.replace("30.96", "long"),
            "Charades_v1_test.csv, line 2: length 'long'",
        ),
        ("Charades_v1_test__csv", CHARADES_TEST.replace("length", "len"), "has no columns id and length"),
        (
            "Charades_v1_test__csv",
            CHARADES_TEST + CHARADES_TEST.splitlines()[1].replace("30.96", "31"),
            "line 3: video 3MSZA lasts 31 s here and 30.96 s before",
        ),
    ],
)
def test_bad_lines_of_charades_are_refused_with_file_and_line(charades, capsys, name, content, said):
    assert said in refused(capsys, "charades_sta", files(charades, **{name: content}))


def test_text_that_is_not_utf8_is_refused_with_its_line(charades, capsys):
    (charades / "charades_sta_test.txt").write_bytes(STA_TEST.encode() + b"3MSZA 1 2##caf\xe9\n")
    assert "charades_sta_test.txt, line 2: is not UTF-8" in refused(capsys, "charades_sta", charades)


def test_nothing_is_written_when_one_file_cannot_be(anet, monkeypatch):
    out = converted("anet_cap", anet)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (anet / "val_1.json").write_text(json.dumps({**ANET_VAL_1, **ANET_TRAIN}))

    def full(*_: Any, **__: Any) -> None:
        raise InputError("no room")

    monkeypatch.setattr(convert, "json_bytes", full)
    with pytest.raises(SystemExit):
        converted("anet_cap", anet)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_only_an_earlier_conversion_is_replaced(anet, capsys):
    out = converted("anet_cap", anet)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    converted("anet_cap", anet)
    (record,) = out.glob("*_made_by.json")
    record.unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        converted("anet_cap", anet)
    assert stop.value.code == BAD_INPUT_EXIT_CODE
    assert "is of no conversion, and would be replaced" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} | {record.name: before[record.name]} == before


def test_windows_line_ends_change_nothing(charades):
    out = converted("charades_sta", charades)
    before = {path.name: path.read_bytes() for path in out.glob("*_release.jsonl")}
    for path in charades.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    converted("charades_sta", charades)
    assert {path.name: path.read_bytes() for path in out.glob("*_release.jsonl")} == before


seconds = st.floats(-50, 200, allow_nan=False)


@given(st.lists(st.tuples(seconds, seconds), min_size=1, max_size=5), st.floats(0.1, 100))
def test_what_is_kept_lies_in_its_video_and_nothing_disappears_unsaid(moments, duration):
    reader = Reader()
    source = Source(Path("train.json"), 1, "train")
    assert reader.video("a", duration, "here")
    reader.query(source, 3, "a", "S.", moments, "here")
    reader.check()
    kept = [span for query in source.queries for span in query.moments]
    assert all(0 <= start < end <= duration for start, end in kept)
    assert all(any(max(s, 0) == start and min(e, duration) == end for s, e in moments) for start, end in kept)
    assert len(kept) + len(source.left_out) == len(moments)
    assert source.n_clamped == sum(
        (max(s, 0.0), min(e, duration)) in kept and (s < 0 or e > duration) for s, e in moments
    )
    assert all(query.desc_id == IDS_PER_FILE + 3 for query in source.queries)


segments = st.integers(0, 5).flatmap(lambda first: st.tuples(st.just(first), st.integers(first + 1, 6)))


@given(st.lists(segments, min_size=1, max_size=4))
def test_the_most_agreed_moment_is_one_of_them_and_that_of_a_majority(spans):
    moments = tuple((5.0 * start, 5.0 * end) for start, end in spans)
    chosen = most_agreed(moments)
    assert chosen in moments
    for moment in moments:
        if moments.count(moment) * 2 > len(moments):
            assert most_agreed(moments) == moment


def test_videos_without_features_are_left_out_when_a_feature_file_is_given(tmp_path, capsys):
    entries = {name: {"duration": 10.0, "timestamps": [[0, 5]], "sentences": [name]} for name in ("v_a", "v_b", "v_c")}
    folder = files(tmp_path / "in", train__json=entries, val_1__json={"v_c": entries["v_c"]})
    features = tmp_path / "video.h5"
    with new_feature_file(features, made_by="a test") as writer:
        for name in ("v_a", "v_c"):
            writer.put(name, np.ones((4, 3), np.float32))
    out = converted("anet_cap", folder, "--features", str(features))
    assert [row["desc"] for row in rows_of(out, "train")] == ["v_a", "v_c"]
    assert [row["desc_id"] for row in rows_of(out, "train")] == [1_000_001, 1_000_003]
    assert set(load_videos(out / "corpus_video2dur_idx.json")["train"]) == {"v_a", "v_c"}
    assert json.loads((out / "corpus_made_by.json").read_text())["without_features"] == ["v_b"]
    assert "left out: 1 videos without features" in capsys.readouterr().out
    with new_feature_file(features, made_by="a test") as writer:
        writer.put("v_a", np.ones((4, 3), np.float32))
    with pytest.raises(InputError, match="has none of the videos of val, such as v_c"):
        keep_with_features(read("anet_cap", folder)[1], features)
