"""A folder of subtitle files becomes one jsonl with a row for each video, and tells what it lacks."""

import os
import unicodedata
from pathlib import Path

import pytest

from tests.support.text_models import run_command
from utils.basic_utils import InputError, read_json, read_jsonl
from utils.text_feature.preprocess_subtitles import main, preprocess, read_vid_names


def srt(text: str) -> str:
    return f"1\n00:00:01,000 --> 00:00:02,000\n{text}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "subtitles"
    folder.mkdir()
    (folder / "b.srt").write_text(srt("bee"))
    (folder / "a.v1.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nay\n")
    (folder / "c.en.SRT").write_text(srt("sea"))
    (folder / "readme.txt").write_text("no subtitles")
    (folder / "._b.srt").write_bytes(b"\0\1\2")
    return folder


def test_without_names_each_file_is_a_video(folder: Path, tmp_path: Path):
    report = preprocess(folder, None, tmp_path / "out.jsonl")
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [(row["vid_name"], row["sub"][0]["text"]) for row in rows] == [("a.v1", "ay"), ("b", "bee"), ("c.en", "sea")]
    assert report.n_lines == {"a.v1": 1, "b": 1, "c.en": 1}
    assert (report.problems, report.missing, report.unused) == ({}, [], [])


def test_with_names_rows_come_in_their_order_and_what_is_missing_is_told(folder: Path, tmp_path: Path):
    report = preprocess(folder, ["c", "silent", "b", "c"], tmp_path / "out.jsonl")
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [row["vid_name"] for row in rows] == ["c", "silent", "b"]
    assert rows[1]["sub"] == []
    assert rows[0]["sub"] == [{"text": "sea", "start": 1.0, "end": 2.0}]
    assert (report.missing, report.unused) == (["silent"], ["a.v1.vtt"])


def test_of_several_files_the_one_taken_is_told(folder: Path, tmp_path: Path):
    (folder / "c.fr.srt").write_text(srt("mer"))
    report = preprocess(folder, ["c"], tmp_path / "out.jsonl")
    assert "c.en.SRT: taken for c, which has several files: c.en.SRT, c.fr.srt" in report.problems["c"][0]
    assert read_jsonl(tmp_path / "out.jsonl")[0]["sub"][0]["text"] == "sea"


def test_a_video_whose_name_begins_like_another_s_does_not_take_its_file(folder: Path, tmp_path: Path):
    (folder / "bb.srt").write_text(srt("other"))
    (folder / "a.clip_01.srt").write_text(srt("other"))
    assert preprocess(folder, ["b", "a"], tmp_path / "out.jsonl").missing == ["a"]


def test_a_file_that_cannot_be_read_is_told_and_not_fatal(folder: Path, tmp_path: Path):
    (folder / "d.srt").mkdir()
    os.mkfifo(folder / "e.srt")
    (folder / "f.srt").symlink_to("f.srt")
    report = preprocess(folder, ["b", "d", "e", "f"], tmp_path / "out.jsonl")
    for name in "def":
        assert f"{name}.srt: cannot be read" in report.problems[name][0]
    assert read_jsonl(tmp_path / "out.jsonl")[1] == {"vid_name": "d", "sub": []}


def test_no_file_of_any_video_is_an_error_and_writes_nothing(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"no subtitle file of any of the videos, such as x\.srt"):
        preprocess(folder, ["x", "y"], tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def texts_of(folder: Path, tmp_path: Path, *names: str) -> dict[str, str]:
    """The text of each video; "" for a silent one."""
    preprocess(folder, ["b", *names], tmp_path / "out.jsonl")
    rows = read_jsonl(tmp_path / "out.jsonl")[1:]
    return {row["vid_name"]: " ".join(line["text"] for line in row["sub"]) for row in rows}


@pytest.mark.parametrize(
    "name",
    [
        "film.mp4.srt", "film.MKV.srt", "film.en.srt", "film.en-US.srt", "film.pt_BR.srt", "film.English.srt",
        "film.en.sdh.srt", "film.mp4.en.srt", "Film.srt", "FILM.mp4.srt", "Film.en.srt",
    ],
)  # fmt: skip
def test_names_that_players_know_are_found(folder: Path, tmp_path: Path, name: str):
    (folder / name).write_text(srt("found"))
    assert texts_of(folder, tmp_path, "film") == {"film": "found"}


@pytest.mark.parametrize(("of_video", "of_file"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_found_in_either_form(folder: Path, tmp_path: Path, of_video: str, of_file: str):
    (folder / unicodedata.normalize(of_file, "Café.srt")).write_text(srt("found"))
    name = unicodedata.normalize(of_video, "Café")
    assert texts_of(folder, tmp_path, name) == {name: "found"}


def test_a_file_is_that_of_the_video_called_exactly_so_and_of_no_other(folder: Path, tmp_path: Path):
    (folder / "tape2.srt").write_text(srt("lower"))
    (folder / "REEL.srt").write_text(srt("whose?"))
    names = ["Tape2", "tape2", "Reel", "reel", "show", "show.us"]
    (folder / "show.us.en.srt").write_text(srt("office"))
    found = texts_of(folder, tmp_path, *names)
    assert found == {"Tape2": "", "tape2": "lower", "Reel": "", "reel": "", "show": "", "show.us": "office"}
    report = preprocess(folder, ["b", *names], tmp_path / "out.jsonl")
    assert [names for reason, names in report.not_read.items() if "not that of one video" in reason] == [["REEL.srt"]]


def test_of_several_forms_the_surest_is_taken_and_forced_ones_come_last(folder: Path, tmp_path: Path):
    (folder / "film.json").write_text('{"segments": [{"start": 0, "end": 1, "text": "heard"}]}')
    assert texts_of(folder, tmp_path, "film") == {"film": "heard"}
    (folder / "film.ass").write_text("[Events]\nDialogue: 0,0:00:00.00,0:00:01.00,A,,0,0,0,,styled\n")
    assert texts_of(folder, tmp_path, "film") == {"film": "styled"}
    (folder / "film.srt").write_text(srt("written"))
    (folder / "tape.de.forced.srt").write_text(srt("foreign"))
    (folder / "tape.en.srt").write_text(srt("all"))
    assert texts_of(folder, tmp_path, "film", "tape") == {"film": "written", "tape": "all"}


def test_each_cause_is_one_line_with_the_files_it_is_in(folder: Path, tmp_path: Path):
    names = [f"v{i}" for i in range(30)]
    for name in names:
        (folder / f"{name}.srt").write_text(srt("fine") + "\n2\n00:00:05,000 --> 00:00:04,000\nback\n" * 30)
        (folder / f"{name}.ttml").write_text("<tt/>")
        (folder / f"{name}_.lrc").write_text("")
    for name in ("old1", "old2"):
        (folder / f"{name}.ttml").write_text("<tt/>")
    (folder / "old1.jpg").write_bytes(b"")
    (folder / "film.info.json").write_text("{}")
    report = preprocess(folder, [*names, "old1", "old2"], tmp_path / "out.jsonl")
    taken, silent, problem = report.summary()
    assert taken.startswith("subtitle files taken: 30 .srt; not looked at: readme.txt, v0.ttml, v0_.lrc")
    assert silent.startswith("silent, though there is old1.ttml, old2.ttml (.ttml: not read: save it as .srt")
    assert "v0.srt, line 6: ends before it starts" in problem
    assert problem.endswith("(and 899 more such, in v0.srt, v1.srt, v2.srt, v3.srt, v4.srt … (30 in all))")


def test_further_languages_and_folders_are_told_for_what_they_are(folder: Path, tmp_path: Path):
    (folder / "b.fr.srt").write_text(srt("abeille"))
    for name in ("film", "frames"):
        (folder / name).mkdir()
    (folder / "film" / "English.srt").write_text(srt("hidden"))
    (folder / "frames" / "1.png").write_bytes(b"")
    report = preprocess(folder, ["b", "film", "frames"], tmp_path / "out.jsonl")
    assert (report.further, report.unused) == (["b.fr.srt"], ["a.v1.vtt", "c.en.SRT"])
    assert [(names, "a folder, not looked into" in why) for why, names in report.not_read.items()] == [(["film"], True)]
    assert "subtitle files not taken, since one called shorter was: b.fr.srt" in report.summary()


def test_where_nothing_can_be_read_what_lies_there_is_named(tmp_path: Path):
    (tmp_path / "film.sub").write_text("{0}{25}Hi")
    with pytest.raises(InputError, match=r"has no \.srt, .* file: there is film\.sub"):
        preprocess(tmp_path, ["film"], tmp_path / "out.jsonl")
    (tmp_path / "other.srt").write_text(srt("Hi"))
    with pytest.raises(InputError, match=r"no subtitle file of any of the videos.*there are other\.srt, film\.sub"):
        preprocess(tmp_path, ["film"], tmp_path / "out.jsonl")


def test_names_come_from_a_jsonl_or_a_text_file(tmp_path: Path):
    (tmp_path / "q.jsonl").write_text('{"vid_name": "b", "desc": "x"}\n{"vid_name": "b"}\n{"vid_name": "a"}\n')
    (tmp_path / "names.txt").write_text("b\r\n\na\n")
    assert read_vid_names(tmp_path / "q.jsonl") == read_vid_names(tmp_path / "names.txt") == ["b", "a"]


def test_the_command_writes_and_reports(folder: Path, tmp_path: Path):
    (folder / "b.srt").write_text(srt("bee") + "\n2\nno times\n")
    (tmp_path / "names.txt").write_text("b\nsilent\n")
    options = ["--srt_dir", folder, "--save_path", tmp_path / "o.jsonl", "--vid_names", tmp_path / "names.txt"]
    done = run_command(main, [*options, "--report_file", tmp_path / "report.json"])
    assert done.code == 0
    assert "2 videos, 1 of them without lines; 1 lines" in done.out
    assert "line 5: no times" in done.err
    assert "no subtitle file, taken for silent: silent" in done.err
    assert read_json(tmp_path / "report.json")["missing"] == ["silent"]


@pytest.mark.parametrize("case", ["no folder", "no files", "no names", "bad names", "bad encoding"])
def test_bad_input_ends_with_code_2(folder: Path, tmp_path: Path, case: str):
    options = {"--srt_dir": folder, "--save_path": tmp_path / "o.jsonl"}
    if case == "no folder":
        options["--srt_dir"] = tmp_path / "nowhere"
    elif case == "no files":
        (tmp_path / "empty").mkdir()
        options["--srt_dir"] = tmp_path / "empty"
    else:
        names = tmp_path / "names.jsonl"
        names.write_text('{"desc": "x"}\n' if case == "bad names" else "" if case == "no names" else '{"vid_name":"b"}')
        options["--vid_names"] = names
        if case == "bad encoding":
            options["--encoding"] = "none such"
    done = run_command(main, [part for option in options.items() for part in option])
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert not (tmp_path / "o.jsonl").exists()
