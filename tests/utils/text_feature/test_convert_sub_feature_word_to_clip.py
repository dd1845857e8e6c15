"""Subtitle tokens become clips as the reference makes them, and videos that cannot are told and left out."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.support.golden_files import load_jsonl, unpack
from tests.support.text_models import run_command
from utils.basic_utils import InputError, write_jsonl
from utils.feature_files.feature_file import FeatureFile, new_feature_file
from utils.text_feature.convert_sub_feature_word_to_clip import clip_lines, convert, main, pool_clips

GOLDEN = ("sub_tokens.h5", "subtitles.jsonl", "sub_clips_max.h5", "sub_clips_avg.h5", "clip_features_max.h5")


def line(start: float, end: float, text: str = "w") -> dict:
    return {"text": text, "start": start, "end": end}


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preprocess")
    for name in GOLDEN:
        unpack(f"preprocess/{name}", folder / name)
    return folder


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_the_reference_s_clips_and_masks_bit_for_bit(golden: Path, tmp_path: Path, pool: str):
    video = golden / "clip_features_max.h5"
    report = convert(golden / "sub_tokens.h5", golden / "subtitles.jsonl", video, tmp_path / "out.h5", 1.5, pool)
    with h5py.File(golden / f"sub_clips_{pool}.h5") as theirs, h5py.File(tmp_path / "out.h5") as ours:
        assert sorted(ours) == sorted(theirs)
        for key in theirs:
            assert ours[key].dtype == theirs[key].dtype == np.float32
            assert np.array_equal(ours[key][()], theirs[key][()]), key
    assert (report.done, report.failed, report.silent) == (_names(golden), {}, [])


def _names(golden: Path) -> list[str]:
    return sorted(row["vid_name"] for row in load_jsonl("preprocess/subtitles.jsonl"))


def test_the_golden_files_have_what_the_rules_are_about(golden: Path):
    """Fewer lengths than lines, empty lines, and clips that nobody speaks in: else the test above could not tell."""
    with h5py.File(golden / "sub_tokens.h5") as tokens, h5py.File(golden / "sub_clips_max.h5") as clips:
        rows = {row["vid_name"]: row["sub"] for row in load_jsonl("preprocess/subtitles.jsonl")}
        assert any(len(tokens[f"{name}-lengths"]) < len(lines) for name, lines in rows.items())
        assert any(line["text"] == "" for lines in rows.values() for line in lines)
        assert any((clips[f"{name}-mask"][()] == 0).any() for name in rows)


def test_a_line_is_in_the_clips_it_overlaps():
    lines = [line(0.0, 1.5), line(1.4, 3.1), line(4.5, 4.5), line(4.6, 4.6), line(100, 200), line(-1.0, 0.2)]
    assert clip_lines(lines, 5, 1.5) == [(0, 5), (1, 1), (1, 1), (3, 3), None]


def test_a_clip_pools_from_its_first_line_to_its_last_also_those_between():
    tokens = np.array([[1.0], [9.0], [3.0]], np.float32)
    spans = clip_lines([line(0, 9), line(0, 1), line(6, 9)], 3, 3.0)
    assert spans == [(0, 1), (0, 0), (0, 2)]
    features, mask = pool_clips(tokens, np.array([1, 1, 1]), spans, "max")
    assert features.tolist() == [[9.0], [1.0], [9.0]]
    assert mask.tolist() == [1.0, 1.0, 1.0]
    averages, _ = pool_clips(tokens, np.array([1, 1, 1]), spans, "avg")
    assert averages[2, 0] == pytest.approx(13 / 3)


def test_lines_beyond_those_with_tokens_count_as_the_last_and_empty_lines_stay_zero():
    tokens = np.array([[-1.0], [-2.0]], np.float32)
    spans = [(0, 0), (1, 1), (2, 2), (3, 3), None]
    features, mask = pool_clips(tokens, np.array([1, 0, 1]), spans, "max")
    assert features[:, 0].tolist() == [-1.0, 0.0, -2.0, -2.0, 0.0]
    assert mask.tolist() == [1.0, 0.0, 1.0, 1.0, 0.0]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Video `spoken` with tokens, `silent` without subtitles, and a word-less one, `music`."""
    with new_feature_file(tmp_path / "tokens.h5", kind="sub", model="tiny", layer="-2", weights="0123") as tokens:
        tokens.put("spoken", np.array([[1, 2], [3, 0]], np.float32))
        tokens.put("spoken-lengths", np.array([1, 1], np.int16))
        tokens.put("music", np.zeros((0, 2), np.float32))
        tokens.put("music-lengths", np.zeros(1, np.int16))
    rows = [
        {"vid_name": "spoken", "sub": [line(0, 1), line(2, 2.5), line(50, 60)]},
        {"vid_name": "music", "sub": [line(0, 1, "")]},
        {"vid_name": "elsewhere", "sub": [line(0, 1)]},
    ]
    write_jsonl(rows, tmp_path / "subs.jsonl")
    with new_feature_file(tmp_path / "video.h5") as video:
        for name in ("spoken", "silent", "music"):
            video.put(name, np.ones((4, 3), np.float32))
    return tmp_path


def argv(corpus: Path, **options: object) -> list[object]:
    given = {
        "src_h5_file": corpus / "tokens.h5",
        "sub_meta_path": corpus / "subs.jsonl",
        "vid_clip_h5_file": corpus / "video.h5",
        "tgt_h5_file": corpus / "out.h5",
        **options,
    }
    return [part for name, value in given.items() for part in (f"--{name}", value)]


def test_the_command_writes_every_video_and_tells_what_is_odd(corpus: Path):
    done = run_command(main, argv(corpus))
    assert done.code == 0, done.err
    out = FeatureFile(corpus / "out.h5")
    assert out.read("spoken").tolist() == [[1, 2], [3, 0], [0, 0], [0, 0]]
    for name in ("silent", "music"):
        assert out.read(name).tolist() == [[0, 0]] * 4
    assert "1 lines begin after the last clip of their video and are in none: spoken" in done.err
    assert "subtitles of videos without clips: elsewhere" in done.err
    assert "no clip with subtitles, all zero: music, silent" in done.err
    assert "3 videos written, 2 silent, 0 left out" in done.out


def test_the_record_tells_what_made_tokens_and_clips(corpus: Path):
    run_command(main, argv(corpus, clip_length=2, pool_type="avg"))
    made_by = FeatureFile(corpus / "out.h5").made_by()
    expected = {"kind": "sub", "model": "tiny", "weights": "0123", "layer": "-2", "clip_length": 2.0, "pooling": "avg"}
    assert {name: made_by[name] for name in expected} == expected
    assert made_by["made_by"] == "utils/text_feature/convert_sub_feature_word_to_clip.py"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("absent", "has subtitles, but no token features"),
        ("no lengths", "has tokens, but no spoken-lengths"),
        ("other lines", "has tokens of 4 lines, the subtitles have 3"),
        ("other sum", "has 2 tokens, its lengths sum to 3"),
        ("float lengths", "expected a row of lengths"),
        ("nan", "holds NaN or Inf"),
    ],
)
def test_a_video_whose_tokens_are_unusable_is_told_and_not_written(corpus: Path, fault: str, reason: str):
    lengths = {"other lines": np.ones(4, np.int16), "other sum": np.array([1, 2], np.int16)}
    with h5py.File(corpus / "tokens.h5", "r+") as tokens:
        if fault == "nan":
            tokens["spoken"][0, 0] = np.nan
        else:
            del tokens["spoken-lengths"]
            if fault in lengths:
                tokens["spoken-lengths"] = lengths[fault]
            elif fault == "float lengths":
                tokens["spoken-lengths"] = np.ones(2, np.float32)
            elif fault == "absent":
                del tokens["spoken"]
    done = run_command(main, argv(corpus))
    assert done.code == 0, done.err
    assert FeatureFile(corpus / "out.h5").missing(["spoken", "silent", "music"]) == ["spoken"]
    assert f"left out: spoken: {reason}" in done.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"src_h5_file": "none.h5"}, "feature file not found"),
        ({"sub_meta_path": "none.jsonl"}, "cannot be read"),
        ({"vid_clip_h5_file": "none.h5"}, "feature file not found"),
        ({"clip_length": 0}, "--clip_length 0"),
        ({"clip_length": "nan"}, "--clip_length nan"),
        ({"pool_type": "min"}, "invalid choice"),
    ],
)
def test_bad_input_ends_with_code_2_and_writes_nothing(corpus: Path, change: dict, message: str):
    change = {name: corpus / value if str(value).startswith("none") else value for name, value in change.items()}
    done = run_command(main, argv(corpus, **change))
    assert done.code == 2
    assert message in done.err
    assert not (corpus / "out.h5").exists()


@pytest.mark.parametrize(
    "row",
    [
        '{"vid_name": 1, "sub": []}',
        '{"vid_name": "spoken"}',
        '{"vid_name": "spoken", "sub": [{"text": "w", "end": 1}]}',
    ],
)
def test_a_row_that_is_no_video_s_subtitles_is_named(corpus: Path, row: str):
    (corpus / "subs.jsonl").write_text(row)
    done = run_command(main, argv(corpus))
    assert (done.code, "subs.jsonl, line 1: expected" in done.err) == (2, True)


def test_a_video_twice_and_no_video_at_all_are_errors(corpus: Path):
    row = {"vid_name": "spoken", "sub": []}
    with pytest.raises(InputError, match="row 2: spoken is there twice"):
        convert(corpus / "tokens.h5", [row, row], corpus / "video.h5", corpus / "out.h5")
    with pytest.raises(InputError, match="no subtitles of any video, such as music"):
        convert(corpus / "tokens.h5", [{**row, "vid_name": "x"}], corpus / "video.h5", corpus / "out.h5")
