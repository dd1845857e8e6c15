"""Queries and subtitles become feature files that training reads, whole, resumable, with their tokens as text."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.support.text_models import LONGEST, SIZE, build_model, run_command, sentences
from utils.basic_utils import InputError, read_jsonl, write_jsonl
from utils.feature_files.feature_file import FeatureFile, new_feature_file
from utils.text_feature import extract_text_features
from utils.text_feature.chunks import chunk_lines
from utils.text_feature.convert_sub_feature_word_to_clip import convert
from utils.text_feature.extract_text_features import extract_queries, extract_subtitles, main
from utils.text_feature.text_encoder import TextEncoder
from utils.text_feature.text_rows import refuse_clashes


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def encoder(tiny: Path) -> TextEncoder:
    return TextEncoder(str(tiny), max_length=32)


def queries(n: int) -> list[dict]:
    return [{"desc_id": 100 + i, "desc": text, "vid_name": f"v{i}"} for i, text in enumerate(sentences(n))]


def video(name: str, *texts: str) -> dict:
    return {
        "vid_name": name,
        "sub": [{"text": text, "start": 2.0 * i, "end": 2.0 * i + 1} for i, text in enumerate(texts)],
    }


def same_content(one: Path, other: Path) -> bool:
    with h5py.File(one) as a, h5py.File(other) as b:
        return sorted(a) == sorted(b) and all(np.array_equal(a[key][()], b[key][()]) for key in a)


class TestQueries:
    def test_each_query_has_its_tokens(self, encoder: TextEncoder, tmp_path: Path):
        rows = queries(9)
        report = extract_queries(rows, encoder, tmp_path / "q.h5", tmp_path / "tokens.jsonl")
        features = FeatureFile(tmp_path / "q.h5")
        assert report.done == [str(row["desc_id"]) for row in rows]
        assert (report.failed, report.cut) == ({}, [])
        assert features.missing(report.done) == []
        for row, tokens in zip(rows, read_jsonl(tmp_path / "tokens.jsonl"), strict=True):
            expected = encoder.encode([row["desc"]])[0]
            np.testing.assert_allclose(features.read(str(row["desc_id"]), SIZE), expected, atol=1e-5)
            assert tokens["desc_id"] == row["desc_id"]
            assert "".join(tokens["tokens"]).replace("Ġ", " ") == row["desc"]
            assert len(tokens["tokens"]) == len(expected)

    def test_a_long_query_is_cut_and_told_and_a_blank_one_is_left_out(self, encoder: TextEncoder, tmp_path: Path):
        rows = [{"desc_id": 1, "desc": "x " * 50}, {"desc_id": 2, "desc": " "}, {"desc_id": 3, "desc": "x"}]
        report = extract_queries(rows, encoder, tmp_path / "q.h5")
        assert (report.done, report.cut, list(report.failed)) == (["1", "3"], ["1"], ["2"])
        assert FeatureFile(tmp_path / "q.h5").read("1").shape == (30, SIZE)
        assert FeatureFile(tmp_path / "q.h5").missing(["2"]) == ["2"]

    def test_only_blank_queries_write_nothing(self, encoder: TextEncoder, tmp_path: Path):
        with pytest.raises(InputError, match="no query has words"):
            extract_queries([{"desc_id": 1, "desc": ""}], encoder, tmp_path / "q.h5")
        assert not (tmp_path / "q.h5").exists()

    def test_a_killed_extraction_goes_on_and_gives_the_same_file(self, encoder, tmp_path: Path, monkeypatch):
        monkeypatch.setattr(extract_text_features, "QUERIES_AT_A_TIME", 4)
        extract_queries(queries(12), encoder, tmp_path / "whole.h5")
        encode, calls = encoder.encode_ids, []

        def killed_in_the_third_group(sequences: list) -> list:
            calls.append(len(sequences))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return encode(sequences)

        monkeypatch.setattr(encoder, "encode_ids", killed_in_the_third_group)
        with pytest.raises(KeyboardInterrupt):
            extract_queries(queries(12), encoder, tmp_path / "q.h5")
        assert not (tmp_path / "q.h5").exists()
        report = extract_queries(queries(12), encoder, tmp_path / "q.h5")
        assert calls == [4, 4, 4, 4]
        assert len(report.done) == 12
        assert same_content(tmp_path / "whole.h5", tmp_path / "q.h5")

    def test_a_changed_query_and_only_that_is_encoded_anew(self, encoder, tmp_path: Path, monkeypatch):
        rows = queries(5)
        extract_queries(rows, encoder, tmp_path / "q.h5")
        encode, seen = encoder.encode_ids, []
        monkeypatch.setattr(encoder, "encode_ids", lambda sequences: seen.append(len(sequences)) or encode(sequences))
        rows[2]["desc"] = "Ruth drinks."
        extract_queries(rows, encoder, tmp_path / "q.h5")
        assert seen == [1]
        np.testing.assert_allclose(
            FeatureFile(tmp_path / "q.h5").read("102"), encode(encoder.tokenizer.ids(["Ruth drinks."]))[0], atol=1e-5
        )

    @pytest.mark.parametrize(
        ("row", "message"),
        [
            ({"desc": "x"}, "row 2: expected"),
            ({"desc_id": "7", "desc": "x"}, "row 2: expected"),
            ({"desc_id": 7, "desc": None}, "row 2: expected"),
            ({"desc_id": 100, "desc": "x"}, "row 2: desc_id 100 is there twice"),
        ],
    )
    def test_rows_that_are_no_queries(self, encoder: TextEncoder, tmp_path: Path, row: dict, message: str):
        with pytest.raises(InputError, match=message):
            extract_queries([*queries(1), row], encoder, tmp_path / "q.h5")


class TestSubtitles:
    def test_chunks_are_encoded_as_one_sequence_and_lengths_are_those_of_lines(self, encoder, tmp_path: Path):
        texts = [*sentences(11), "", "Nora"]
        extract_subtitles([video("v", *texts)], encoder, tmp_path / "s.h5", tmp_path / "tokens.jsonl")
        ids = encoder.tokenizer.line_ids(texts)
        with h5py.File(tmp_path / "s.h5") as h5_file:
            lengths, features = h5_file["v-lengths"][()], h5_file["v"][()]
        assert lengths.dtype == np.int16
        assert lengths.tolist() == [len(line) for line in ids]
        chunks = chunk_lines(lengths.tolist(), 30)
        assert len(chunks) > 2
        expected = [encoder.encode_ids([[t for i in chunk for t in ids[i]]])[0] for chunk in chunks]
        np.testing.assert_allclose(features, np.concatenate(expected), atol=1e-5)
        tokens = read_jsonl(tmp_path / "tokens.jsonl")[0]
        assert tokens["vid_name"] == "v"
        assert ["".join(line).replace("Ġ", " ").strip() for line in tokens["tokens"]] == texts

    def test_a_line_hears_the_lines_of_its_chunk(self, encoder: TextEncoder, tmp_path: Path):
        extract_subtitles([video("a", "Sam", "drinks"), video("b", "Ruth", "drinks")], encoder, tmp_path / "s.h5")
        features = FeatureFile(tmp_path / "s.h5")
        assert np.abs(features.read("a")[-1] - features.read("b")[-1]).max() > 1e-3

    def test_long_lines_silent_videos_and_last_short_chunks(self, encoder: TextEncoder, tmp_path: Path):
        rows = [video("long", "x " * 99, "y"), video("silent"), video("music", "", " "), video("short", "Sam")]
        report = extract_subtitles(rows, encoder, tmp_path / "s.h5")
        assert (report.done, report.cut, report.failed) == (["long", "silent", "music", "short"], ["long"], {})
        with h5py.File(tmp_path / "s.h5") as h5_file:
            assert h5_file["long-lengths"][()].tolist()[0] == 30
            assert h5_file["long"].shape == (h5_file["long-lengths"][()].sum(), SIZE)
            assert (h5_file["silent"].shape, h5_file["silent-lengths"].shape) == ((0, SIZE), (0,))
            assert (h5_file["music"].shape, h5_file["music-lengths"][()].tolist()) == ((0, SIZE), [0, 0])
            assert len(h5_file["short"]) >= 1

    def test_files_for_training_come_out_at_the_end(self, encoder: TextEncoder, tmp_path: Path):
        rows = [video("talk", *sentences(4)), video("silent")]
        extract_subtitles(rows, encoder, tmp_path / "tokens.h5")
        with new_feature_file(tmp_path / "video.h5") as out:
            for name, n_clips in (("talk", 6), ("silent", 3), ("unheard", 2)):
                out.put(name, np.ones((n_clips, 4), np.float32))
        report = convert(tmp_path / "tokens.h5", rows, tmp_path / "video.h5", tmp_path / "clips.h5")
        clips = FeatureFile(tmp_path / "clips.h5")
        assert (report.done, report.silent) == (["silent", "talk", "unheard"], ["silent", "unheard"])
        first_line = encoder.encode_ids([[t for line in encoder.tokenizer.line_ids(sentences(4)) for t in line]])[0]
        n_first = len(encoder.tokenizer.line_ids(sentences(1))[0])
        np.testing.assert_allclose(clips.read("talk")[0], first_line[:n_first].max(axis=0), atol=1e-5)
        assert clips.read("silent").shape == (3, SIZE)
        record = clips.made_by()
        assert (record["model"], record["layer"], record["max_length"]) == ("tiny", "-2", 32)

    def test_a_second_start_encodes_only_what_is_new(self, encoder, tmp_path: Path, monkeypatch):
        rows = [video("a", "Sam"), video("b", "x " * 99), video("c")]
        extract_subtitles(rows, encoder, tmp_path / "s.h5")
        encode, seen = encoder.encode_ids, []
        monkeypatch.setattr(encoder, "encode_ids", lambda sequences: seen.append(len(sequences)) or encode(sequences))
        report = extract_subtitles([*rows, video("d", "Ruth")], encoder, tmp_path / "s.h5")
        assert seen == [1]
        assert (report.done, report.cut) == (["a", "b", "c", "d"], ["b"])


class TestCommand:
    @pytest.fixture
    def files(self, tmp_path: Path) -> Path:
        write_jsonl(queries(4), tmp_path / "train.jsonl")
        write_jsonl([{"desc_id": 7, "desc": "Omar."}], tmp_path / "val.jsonl")
        write_jsonl([video("v", *sentences(3))], tmp_path / "subs.jsonl")
        return tmp_path

    def test_several_query_files_go_into_one(self, tiny: Path, files: Path):
        options = ["--model_name_or_path", tiny, "--query_file", files / "train.jsonl", files / "val.jsonl"]
        options += ["--tgt_h5_file", files / "q.h5", "--device", -1, "--tokens_jsonl", files / "t.jsonl"]
        done = run_command(main, options)
        assert done.code == 0, done.err
        assert "5 queries written, 32 numbers a token; 0 left out" in done.out
        features = FeatureFile(files / "q.h5")
        assert features.missing(["100", "101", "102", "103", "7"]) == []
        record = features.made_by()
        assert (record["kind"], record["max_length"], record["layer"]) == ("query", 32, "-2")
        assert "transformers" in record["versions"]

    def test_subtitles_with_another_layer(self, tiny: Path, files: Path):
        options = [
            "--model_name_or_path",
            tiny,
            "--sub_meta_path",
            files / "subs.jsonl",
            "--tgt_h5_file",
            files / "s.h5",
        ]
        done = run_command(main, [*options, "--device", -1, "--max_length", LONGEST, "--layer", -1, "--bf16"])
        assert done.code == 0, done.err
        assert "1 videos written" in done.out
        record = FeatureFile(files / "s.h5").made_by()
        assert (record["layer"], record["max_length"], record["precision"]) == ("-1", LONGEST, "bfloat16")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"--query_file": "none.jsonl"}, "cannot be read"),
            ({"--query_file": "subs.jsonl"}, "subs.jsonl, line 1: expected"),
            ({"--model_name_or_path": "none"}, "cannot be loaded|no such folder"),
            ({"--layer": 9}, "--layer 9"),
            ({"--max_length": 500}, "--max_length 500"),
            ({"--batch_size": 0}, "--batch_size 0"),
            ({"--sub_meta_path": "subs.jsonl"}, "not allowed with"),
        ],
    )
    def test_bad_input_ends_with_code_2_and_writes_nothing(self, tiny: Path, files: Path, change: dict, message: str):
        options = {
            "--model_name_or_path": tiny,
            "--query_file": files / "train.jsonl",
            "--tgt_h5_file": files / "q.h5",
            "--device": -1,
        }
        options |= {name: files / value if isinstance(value, str) else value for name, value in change.items()}
        done = run_command(main, [part for option in options.items() for part in option])
        assert done.code == 2
        assert any(part in done.err for part in message.split("|"))
        assert not (files / "q.h5").exists()


@pytest.mark.parametrize("other", ["clip-mask", "clip-lengths"])
def test_videos_called_as_what_is_kept_beside_others_are_refused_with_both_names(other):
    refuse_clashes(["clip", "another-mask"])
    with pytest.raises(InputError, match=f"videos clip and {other}: .*rename one"):
        refuse_clashes(["clip", other])
