"""Moments that are found are cut out of their videos and listed, and what cannot be is named."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from easydict import EasyDict

from method_tvr.ask import asking, search
from method_tvr.ask.export import Export, clip_name
from method_tvr.ask.moments import Moment
from method_tvr.ask.moments_csv import rows_of, write_moments
from method_tvr.ask.searcher import MomentSearcher
from tests.support.search.asking import options_of
from tests.support.video_files import number_of, write_video
from utils.basic_utils import InputError
from utils.video_feature.frames import open_video

SENTENCES = ["Nora opens the drawer.", "=1+1 Omar laughs."]


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("searched") / "run"))
    MomentSearcher.open(folder, device=-1)
    return folder


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 s, in which picture n is shown from second n on."""
    return write_video(tmp_path_factory.mktemp("film") / "film.mp4", 200, rate=1)


@pytest.fixture
def videos(trained: Path, film: Path, tmp_path: Path) -> Path:
    """A folder with a file of each video that is searched."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for video in MomentSearcher.open(trained, device=-1).videos:
        os.link(film, folder / f"{video.vid_name}.mp4")
    return folder


def rows_in(path: Path) -> list[dict[str, str]]:
    assert path.read_bytes().endswith(b"\r\n")
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_a_search_saves_its_moments_and_lists_them(trained, videos, tmp_path, run_main):
    clips, table = tmp_path / "out" / "clips", tmp_path / "out" / "found.csv"
    kept = {"videos": videos, "save_clips": clips, "csv": table}
    argv = [*options_of(trained, top_k=2, **kept)[:2], *SENTENCES, *options_of(trained, top_k=2, **kept)[2:]]
    argv = [word for word in argv if word not in ("--num_workers", "0")]
    found = run_main(search.main, [*argv, "--json"])
    assert found.code == 0, found.err
    answers = [json.loads(line) for line in found.out.splitlines()]
    rows = iter(rows_in(table))
    for number, answer in enumerate(answers, start=1):
        for rank, moment in enumerate(answer["moments"], start=1):
            row = next(rows)
            start, end = moment["start"], moment["end"]
            name = f"{number}-{rank}_{moment['vid_name']}_{start:.2f}-{end:.2f}.mp4"
            assert (row["rank"], row["video"], row["clip"]) == (str(rank), moment["vid_name"], str(clips / name))
            assert [float(row[key]) for key in ("start", "end", "score")] == [start, end, moment["score"]]
            assert float(row["video_match"]) == moment["match"]["video"]
            assert float(row["share"]) == moment["score"] / answer["moments"][0]["score"]
            clip = open_video(clips / name)
            assert abs(clip.duration - (end - start)) <= 1
            assert number_of(next(clip.frames([0.0]))[1]) == int(start + 1e-3)
            assert f"{clips / name}: encoded" in found.err or f"{clips / name}: copied" in found.err
    assert next(rows, None) is None
    assert rows_in(table)[2]["sentence"] == f"'{SENTENCES[1]}"
    assert len(list(clips.iterdir())) == 4


def test_what_cannot_be_cut_is_named_at_the_end_and_the_rest_is_there(film, tmp_path, capsys):
    videos, clips = tmp_path / "videos", tmp_path / "clips"
    (videos / "frames").mkdir(parents=True)
    (videos / "frames" / "1.jpg").touch()
    (videos / "broken.mp4").write_bytes(b"no video")
    os.link(film, videos / "Good One.mp4")
    names = ["missing", "good one", "broken", "frames", "broken"]
    export = Export(EasyDict(save_clips=str(clips), videos=str(videos), csv=str(tmp_path / "a.csv")), several=False)
    export.add(["Omar laughs."], [[Moment(name, 2.0, 4.0, 1.0) for name in names]], set(names))
    clip = clips / "2_good_one_2.00-4.00.mp4"
    assert list(clips.iterdir()) == [clip]
    capsys.readouterr()
    export.finish()
    told = capsys.readouterr().err
    assert f"no clip of 1 moment: --videos {videos}: holds no file of missing: add it" in told
    assert f"no clip of 2 moments: {videos}/broken.mp4: cannot be decoded" in told
    assert f"no clip of 1 moment: {videos}/frames: is a folder of frames" in told
    assert told.endswith(f"clips of 1 of 5 moments are in {clips}\n")
    assert [row["clip"] for row in rows_in(tmp_path / "a.csv")] == ["", str(clip), "", "", ""]


def test_a_search_of_which_nothing_can_be_cut_fails_once_it_is_listed(trained, film, tmp_path, run_main):
    (tmp_path / "videos").mkdir()
    os.link(film, tmp_path / "videos" / "other.mp4")
    argv = ["--model_dir", str(trained), "--device", "-1", "--top_k", "3", SENTENCES[0], "--csv", f"{tmp_path}/a.csv"]
    argv += ["--videos", str(tmp_path / "videos"), "--save_clips", str(tmp_path / "clips")]
    found = run_main(search.main, argv)
    assert found.code == 2
    assert "none of 3 moments could be cut, see above" in found.err
    assert [row["clip"] for row in rows_in(tmp_path / "a.csv")] == ["", "", ""]


def test_a_prompt_numbers_its_sentences_and_lists_them_all_at_its_end(trained, videos, tmp_path, monkeypatch, run_main):
    monkeypatch.setattr("sys.stdin", io.StringIO("Nora opens the drawer.\n:top 2\nOmar laughs.\n"))
    argv = ["--model_dir", str(trained), "--device", "-1", "--top_k", "1", "--videos", str(videos)]
    found = run_main(search.main, [*argv, "--save_clips", f"{tmp_path}/clips", "--csv", f"{tmp_path}/a.csv"])
    assert found.code == 0, found.err
    names = sorted(path.name.split("_")[0] for path in (tmp_path / "clips").iterdir())
    assert names == ["1-1", "2-1", "2-2"]
    assert [row["sentence"] for row in rows_in(tmp_path / "a.csv")] == [
        "Nora opens the drawer.",
        "Omar laughs.",
        "Omar laughs.",
    ]


def test_inference_saves_its_moments_too(trained, videos, tmp_path, run_main):
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    kept = {"videos": videos, "save_clips": tmp_path / "clips", "csv": tmp_path / "found.csv"}
    found = run_main(
        asking.main, options_of(folder, query="Omar laughs.", top_k=3, encoded_corpus=folder / "encoded_val", **kept)
    )
    assert found.code == 0, found.err
    rows = rows_in(tmp_path / "found.csv")
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert {Path(row["clip"]) for row in rows} == set((tmp_path / "clips").iterdir())
    assert "video_match" not in rows[0]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--save_clips", "{0}/clips"], "give --videos DIR too"),
        (["--videos", "{0}"], "is what --save_clips DIR cuts"),
        (["--videos", "{0}/gone", "--save_clips", "{0}/clips"], "gone: is no folder"),
        (["--csv", "{0}/there"], "there: is there already: move it away"),
        (["--videos", "{0}", "--save_clips", "{0}/there"], "--save_clips .*there: cannot be made"),
        (["--csv", "{0}/a.csv", "--measure_index", "2", "--index", "faiss"], "is of sentences that are asked"),
    ],
)
def test_what_goes_wrong_is_said_before_a_model_is_loaded(tiny_model, tmp_path, monkeypatch, typed, said):
    monkeypatch.setattr(search, "open_searcher", lambda _: pytest.fail("was loaded"))
    (tmp_path / "there").write_text("mine")
    argv = ["--model_dir", str(tiny_model), "--device", "-1", "Omar laughs.", *(w.format(tmp_path) for w in typed)]
    with pytest.raises(InputError, match=said):
        search.run(search.parse_inference_options(argv, search.SEARCH))
    assert (tmp_path / "there").read_text() == "mine"


def test_inference_without_a_sentence_has_nothing_to_keep(tiny_model, tmp_path):
    with pytest.raises(InputError, match="--csv: is for sentences that are asked"):
        asking.parse_inference_options(options_of(tiny_model, csv=tmp_path / "a.csv"))


def test_without_pyav_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("utils.video_feature.decoding.av", None)
    with pytest.raises(InputError, match=r"pip install -r utils/video_feature/requirements\.txt"):
        Export(EasyDict(save_clips=str(tmp_path / "clips"), videos=str(tmp_path), csv=None), several=False)
    assert not (tmp_path / "clips").exists()


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("friends_s01e03", "friends_s01e03_1.00-2.50"),
        ('../a/b\\c:d*?"<>|\n', ".._a_b_c_d________1.00-2.50"),
        ("cafe\u0301 \u0939\u093f\u0928\u094d\u0926\u0940", "caf\u00e9_\u0939\u093f\u0928\u094d\u0926\u0940_1.00-2.50"),
        ("\udcff", "__1.00-2.50"),
        ("\u00e9" * 200, "\u00e9" * 75 + "_1.00-2.50"),
    ],
)
def test_names_of_clips_are_safe(name, part):
    assert clip_name(Moment(name, 1.0, 2.5)) == part


def test_cells_of_others_are_no_formulas_and_numbers_are_numbers(tmp_path):
    moments = [
        Moment('@v,"1"', 0.0, 1.5, 2.0, {"video": -0.25}, 0.5, 0.125),
        Moment("b", 3.0, 4.0, 0.5, {"video": 0.1}, 1, 1),
    ]
    write_moments(rows_of('=HYPERLINK("x")\nOmar \udcff', moments, [Path("-a.mp4"), None]), tmp_path / "a.csv")
    first, second = rows_in(tmp_path / "a.csv")
    assert first == {
        "sentence": '\'=HYPERLINK("x")\nOmar \\udcff',
        "rank": "1",
        "video": '\'@v,"1"',
        "start": "0.0",
        "end": "1.5",
        "share": "1.0",
        "score": "2.0",
        "video_match": "-0.25",
        "p_start": "0.5",
        "p_end": "0.125",
        "clip": "'-a.mp4",
    }
    assert (second["share"], second["clip"]) == ("0.25", "")
