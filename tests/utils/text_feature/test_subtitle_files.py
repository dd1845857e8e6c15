"""Subtitle files as people have them are read right, and what is wrong in them is told and skipped."""

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.basic_utils import InputError
from utils.text_feature.decode_text import decode
from utils.text_feature.subtitle_files import MAX_PROBLEMS, clean_text, read_subtitles

RUSSIAN = "Привет, как дела? Я сегодня не пойду в школу, потому что болен."
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy. Kde jsi byl celou noc, řekni mi to."
JAPANESE = "おはようございます。今日はとても寒いですね。学校に行きましょう。"


def cue(text: str, start: str = "00:00:01,000", end: str = "00:00:02,500", number: int = 1) -> str:
    return f"{number}\n{start} --> {end}\n{text}\n\n"


@pytest.fixture
def read(tmp_path: Path):
    def read(content: str | bytes, name: str = "video.srt", encoding: str | None = None):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_subtitles(path, encoding)

    return read


def texts(lines: list[dict]) -> list[str]:
    return [line["text"] for line in lines]


class TestTimes:
    @pytest.mark.parametrize(
        ("written", "seconds"),
        [
            ("00:00:00,000", 0.0),
            ("00:00:03,286", 3.286),
            ("01:02:03,456", 3723.456),
            ("26:00:00,001", 93600.001),
            ("100:00:00,000", 360000.0),
            ("0:00:01.5", 1.5),
            ("00:01,250", 1.25),
            ("00:00:07", 7.0),
        ],
    )
    def test_a_time_is_in_seconds_hours_included(self, read, written: str, seconds: float):
        lines, problems = read(cue("Hello", written, "200:00:00,000"))
        assert problems == []
        assert lines == [{"text": "Hello", "start": seconds, "end": 720000.0}]

    def test_coordinates_after_the_times_are_no_text(self, read):
        lines, problems = read("1\n00:00:01,000 --> 00:00:02,000  X1:10 X2:20 Y1:5 Y2:6\nHi\n")
        assert (texts(lines), problems) == (["Hi"], [])


class TestText:
    @pytest.mark.parametrize(
        ("raw", "cleaned"),
        [
            ("two\nlines", "two lines"),
            ("(Lanie:)The window", " Lanie : The window"),
            ("at 10:30", "at 10 : 30"),
            ("so   many    spaces", "so many spaces"),
            ("a : b", "a : b"),
            ("well (sighs)", "well sighs "),
            ("", ""),
        ],
    )
    def test_cleaning_is_that_of_the_original(self, raw: str, cleaned: str):
        assert clean_text(raw) == cleaned

    @given(st.text())
    def test_cleaning_leaves_no_newline_parenthesis_or_run_of_spaces(self, text: str):
        cleaned = clean_text(text)
        assert not re.search(r"[\n()]|\s\s", cleaned)
        assert all(cleaned[max(i - 1, 0) : i + 2] == " : " for i, char in enumerate(cleaned) if char == ":")
        assert clean_text(cleaned) == cleaned

    @pytest.mark.parametrize(
        ("raw", "cleaned"),
        [
            ("<i>Hello</i> <B>you</B>", "Hello you"),
            ('<font color="#ff0000">Red</font>', "Red"),
            (r"{\an8}{\i1}Up here{\i0}", "Up here"),
            ("one<br />two", "one two"),
            ("I <3 you, 1 < 2 and a > b {not markup}", "I <3 you, 1 < 2 and a > b {not markup}"),
            ("<i>\n</i>", ""),
            ("AT&amp;T", "AT&amp;T"),
        ],
    )
    def test_markup_is_removed_and_nothing_else(self, read, raw: str, cleaned: str):
        lines, problems = read(cue(raw))
        assert (texts(lines), problems) == ([cleaned], [])

    def test_overlapping_cues_are_kept_by_their_start(self, read):
        content = cue("late", "00:00:05,000", "00:00:06,000") + cue("long", "00:00:01,000", "00:00:09,000")
        content += cue("first of two", "00:00:03,000", "00:00:04,000") + cue("second", "00:00:03,000", "00:00:08,000")
        lines, problems = read(content)
        assert texts(lines) == ["long", "first of two", "second", "late"]
        assert problems == []

    def test_a_number_as_text_is_text(self, read):
        lines, problems = read(cue("42") + cue("43\n44", number=2))
        assert (texts(lines), problems) == (["42", "43 44"], [])


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    @pytest.mark.parametrize("text", ["Café – “fine”…", RUSSIAN, JAPANESE])
    def test_unicode_is_certain(self, read, encoding: str, text: str):
        lines, problems = read(cue(text).encode(encoding))
        assert (texts(lines), problems) == ([clean_text(text)], [])

    def test_utf_16_with_the_other_byte_order(self, read):
        lines, problems = read(b"\xfe\xff" + cue("Hello").encode("utf-16-be"))
        assert (texts(lines), problems) == (["Hello"], [])

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
    def test_utf_16_without_a_mark_is_seen(self, read, encoding: str):
        lines, problems = read(cue("Hello").encode(encoding))
        assert texts(lines) == ["Hello"]
        assert encoding in problems[0]

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
    @pytest.mark.parametrize("text", [RUSSIAN * 3, JAPANESE * 2])
    def test_utf_16_of_other_scripts_without_a_mark_is_seen(self, read, encoding: str, text: str):
        lines, problems = read("".join(cue(text, number=i) for i in range(1, 4)).encode(encoding))
        assert texts(lines) == [clean_text(text)] * 3
        assert f"read as {encoding}" in problems[0]

    @pytest.mark.parametrize(
        ("text", "encoding"),
        [
            ("He ordered a café latte, ‘fine’ — “really”…", "cp1252"),
            ("Je suis désolé, je n'ai pas compris. Où est passé le garçon ?", "cp1252"),
            (CZECH, "cp1250"),
            (RUSSIAN, "cp1251"),
            (JAPANESE, "shift_jis"),
        ],
    )
    def test_other_encodings_are_guessed_and_the_guess_is_told(self, read, text: str, encoding: str):
        pytest.importorskip("charset_normalizer")
        content = "".join(cue(text, number=i) for i in range(1, 6)).encode(encoding)
        lines, problems = read(content)
        assert texts(lines) == [clean_text(text)] * 5
        assert len(problems) == 1
        assert f"read as {encoding}, which is a guess" in problems[0]

    def test_without_the_guessing_package_western_is_assumed_and_the_package_named(self, read, monkeypatch):
        monkeypatch.setitem(sys.modules, "charset_normalizer", None)
        lines, problems = read(cue("Café").encode("cp1252"))
        assert texts(lines) == ["Café"]
        assert "pip install -r utils/text_feature/requirements.txt" in problems[0]

    def test_an_encoding_given_wins(self, read):
        assert texts(read(cue(CZECH).encode("cp1250"), encoding="cp1250")[0]) == [clean_text(CZECH)]

    @pytest.mark.parametrize("encoding", ["no-such-encoding", "ascii"])
    def test_an_encoding_that_does_not_fit_is_an_error_that_names_the_file(self, read, encoding: str):
        with pytest.raises(InputError, match=r"video\.srt.*encoding|video\.srt.*ascii"):
            read(cue("Café"), encoding=encoding)

    @given(st.binary(max_size=200))
    def test_any_bytes_have_a_text(self, data: bytes):
        assert isinstance(decode(data)[0], str)

    @pytest.mark.parametrize("newline", ["\r\n", "\r"])
    def test_line_ends_of_other_systems(self, read, newline: str):
        content = cue("one\ntwo") + cue("three", number=2)
        lines, problems = read(content.replace("\n", newline))
        assert (texts(lines), problems) == (["one two", "three"], [])


class TestVtt:
    def test_a_whole_file(self, read):
        lines, problems = read(
            "WEBVTT - some title\nKind: captions\nLanguage: en\n\n"
            "STYLE\n::cue { color: red }\n\n"
            "REGION\nid:fred\n\n"
            "NOTE a comment\nover two lines\n\n"
            "intro\n00:01.000 --> 00:02.500 align:start position:0%\n<v.loud Mary Ann>Hi &amp; <c.red>bye</c>\n\n"
            "01:00:00.000 --> 01:00:01.000\nsome <00:00:01.500><b>words</b> &lt;3&nbsp;x\n\n"
            "NOTE\n\n"
            "3\n00:03.000 --> 00:04.000\n- one\n- two",
            "video.vtt",
        )
        assert problems == []
        assert lines == [
            {"text": "Mary Ann : Hi & bye", "start": 1.0, "end": 2.5},
            {"text": "- one - two", "start": 3.0, "end": 4.0},
            {"text": "some words <3 x", "start": 3600.0, "end": 3601.0},
        ]

    def test_a_vtt_file_called_srt_is_read_as_vtt(self, read):
        lines, problems = read("\ufeffWEBVTT\n\n00:01.000 --> 00:02.000\na &amp; b\n")
        assert (texts(lines), problems) == (["a & b"], [])

    def test_a_missing_header_is_told(self, read):
        lines, problems = read("00:01.000 --> 00:02.000\nHi\n", "video.vtt")
        assert texts(lines) == ["Hi"]
        assert "line 1: does not begin with WEBVTT" in problems[0]

    def test_a_missing_blank_line_after_the_header_loses_nothing(self, read):
        lines, problems = read("WEBVTT\n00:01.000 --> 00:02.000\nHi\n", "video.vtt")
        assert (texts(lines), problems) == (["Hi"], [])

    def test_a_cue_called_note_is_a_cue(self, read):
        lines, _ = read("WEBVTT\n\nNOTE\n00:01.000 --> 00:02.000\nHi\n", "video.vtt")
        assert texts(lines) == ["Hi"]


class TestMalformed:
    def test_each_malformed_cue_is_told_with_its_line_and_the_others_are_read(self, read, tmp_path: Path):
        lines, problems = read(
            cue("fine")  # lines 1 to 4
            + "2\n00:00:05,000 --> 00:00:04,000\nbackwards\n\n"  # 5 to 8
            + "3\n00:00:0x,000 --> 00:00:09,000\ngarbled\n\n"  # 9 to 12
            + "4\nno times at all\n\n"  # 13 to 15
            + "garbage\nand more\n5\n00:00:10,000 --> 00:00:11,000\nafter garbage\n\n"  # 16 to 21
            + cue("last", "00:00:12,000", "00:00:12,000", 6)
        )
        assert texts(lines) == ["fine", "after garbage", "last"]
        starts = [f"{tmp_path / 'video.srt'}, line {n}: " for n in (6, 10, 13, 16)]
        assert [problem.startswith(start) for problem, start in zip(problems, starts, strict=True)] == [True] * 4
        for problem, words in zip(problems, ("ends before", "not understood", "no times", "without"), strict=True):
            assert words in problem

    def test_missing_blank_lines_and_numbers_lose_nothing(self, read):
        lines, problems = read(
            "1\n00:00:01,000 --> 00:00:02,000\none\n2\n00:00:03,000 --> 00:00:04,000\n3\n"
            "00:00:05,000 --> 00:00:06,000\nthree\n\n00:00:07,000 --> 00:00:08,000\nfour"
        )
        assert (texts(lines), problems) == (["one", "", "three", "four"], [])

    @pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\n \n"])
    def test_an_empty_file_has_no_lines_and_says_so(self, read, content: bytes):
        lines, problems = read(content)
        assert lines == []
        assert [problem.split(": ")[1] for problem in problems] == ["is empty"]

    def test_a_vtt_file_without_cues_says_so(self, read):
        assert "has no subtitles" in read("WEBVTT\n", "video.vtt")[1][0]

    def test_a_binary_file_is_told_once(self, read):
        lines, problems = read(bytes(range(256)) * 40)
        assert lines == []
        assert "is not a text file" in problems[0]

    def test_a_file_of_garbage_does_not_flood(self, read):
        lines, problems = read("garbage\n\n" * 1000)
        assert lines == []
        assert len(problems) == MAX_PROBLEMS + 1
        assert f"{1001 - MAX_PROBLEMS} more problems" in problems[-1]

    def test_a_file_that_is_not_there_is_an_error(self, tmp_path: Path):
        with pytest.raises(InputError, match=r"none\.srt.*cannot be read"):
            read_subtitles(tmp_path / "none.srt")

    @given(st.lists(st.sampled_from(["1", "", "00:00:01,000 --> 00:00:02,000", "-->", "WEBVTT", "NOTE", "text", "<v"])))
    def test_any_order_of_parts_is_read(self, tmp_path_factory, parts: list[str]):
        for name in ("any.srt", "any.vtt"):
            path = tmp_path_factory.getbasetemp() / name
            path.write_text("\n".join(parts))
            lines, problems = read_subtitles(path)
            assert all(line["end"] == 2.0 for line in lines)
            assert lines or problems


class TestAsPlayersShowIt:
    @pytest.mark.parametrize("newline", ["\n", "\r\n", "\r\r\n"])
    @pytest.mark.parametrize("blanks", ["\n", "\n\n", " \n\t\n"])
    def test_text_after_blank_lines_belongs_to_the_times_before(self, read, newline: str, blanks: str):
        content = "".join(f"{n}\n00:00:0{n},000 --> 00:00:0{n},500\n{blanks}Line {n}.\nMore.\n\n" for n in (1, 2, 3))
        lines, problems = read(content.replace("\n", newline))
        assert (texts(lines), problems) == (["Line 1. More.", "Line 2. More.", "Line 3. More."], [])

    @pytest.mark.parametrize("name", ["video.srt", "video.vtt"])
    def test_doubled_line_ends_lose_nothing(self, read, name: str):
        content = (
            "WEBVTT\n\n" * name.endswith("vtt")
            + cue("one", "00:01.000", "00:02.000")
            + cue("2", "00:03.000", "00:04.000", 2)
        )
        for newline in ("\n\n", "\r\r\n", "\r\r\r\n"):
            lines, problems = read(content.replace("\n", newline), name)
            assert (texts(lines), problems) == (["one", "2"], [])

    def test_a_blank_line_inside_a_text_does_not_end_it(self, read):
        lines, problems = read(cue("- Who?\n\n- Me.") + cue("Ah.", number=2))
        assert (texts(lines), problems) == (["- Who? - Me.", "Ah."], [])

    def test_a_cue_without_text_takes_none_of_the_next(self, read):
        lines, problems = read(cue("") + cue("Hi", "00:00:03,000", "00:00:04,000", 2))
        assert (texts(lines), problems) == (["", "Hi"], [])

    def test_spaces_in_times_are_read(self, read):
        lines, problems = read(cue("Hi", "00:00:01, 500", "00: 00:02,000"))
        assert (lines, problems) == ([{"text": "Hi", "start": 1.5, "end": 2.0}], [])

    def test_two_files_in_one_are_told(self, read):
        lines, problems = read(cue("one") + cue("two", "00:10:00,000", "00:10:01,000", 2) + cue("three"))
        assert len(lines) == 3
        assert "line 10: numbers and times begin again" in problems[0]


def segment(stamp: str, *cues: tuple[str, str, str]) -> str:
    return f"WEBVTT\n{stamp}\n\n" + "".join(f"{start} --> {end}\n{text}\n\n" for text, start, end in cues)


class TestSegmentsOfAStream:
    def test_one_segment_keeps_its_times(self, read):
        stamp = "X-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:00.000"
        lines, problems = read(segment(stamp, ("Hi", "00:01.000", "00:02.000")), "video.vtt")
        assert (lines, problems) == ([{"text": "Hi", "start": 1.0, "end": 2.0}], [])

    @pytest.mark.parametrize("between", ["", "\n", "\ufeff"])
    def test_each_clock_counts_from_the_first(self, read, between: str):
        first = segment("X-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:00.000", ("one", "00:01.000", "00:02.000"))
        second = segment("X-TIMESTAMP-MAP=LOCAL:00:00:10.000,MPEGTS:2250000", ("two", "00:11.000", "00:12.000"))
        lines, problems = read(first + between + second, "video.vtt")
        assert problems == []
        assert lines[1] == {"text": "two", "start": 16.0, "end": 17.0}

    def test_segments_on_one_clock_repeat_a_cue_that_both_show(self, read):
        stamp = "X-TIMESTAMP-MAP=MPEGTS:0,LOCAL:00:00:00.000"
        first = segment(stamp, ("one", "00:01.000", "00:02.000"), ("both", "00:05.000", "00:07.000"))
        whole = segment(stamp, ("both", "00:05.000", "00:07.000"), ("three", "00:08.000", "00:09.000"))
        parted = segment(stamp, ("three", "00:09.000", "00:10.000"))
        lines, problems = read((first + whole + parted).rstrip() + "\n", "video.vtt")
        assert problems == []
        assert [(line["text"], line["start"], line["end"]) for line in lines] == [
            ("one", 1.0, 2.0),
            ("both", 5.0, 7.0),
            ("three", 8.0, 10.0),
        ]

    def test_a_clock_that_passes_its_end_goes_on(self, read):
        first = segment(
            f"X-TIMESTAMP-MAP=MPEGTS:{(1 << 33) - 90000},LOCAL:00:00:00.000", ("a", "00:00.000", "00:01.000")
        )
        second = segment("X-TIMESTAMP-MAP=MPEGTS:90000,LOCAL:00:00:00.000", ("b", "00:00.000", "00:01.000"))
        assert read(first + second, "video.vtt")[0][1] == {"text": "b", "start": 2.0, "end": 3.0}

    def test_times_that_begin_again_and_a_stamp_that_makes_no_sense_are_told(self, read):
        first = segment("X-TIMESTAMP-MAP=here", ("a", "00:10.000", "00:11.000"))
        lines, problems = read(first + segment("", ("b", "00:01.000", "00:02.000")), "video.vtt")
        assert texts(lines) == ["b", "a"]
        assert "line 2: X-TIMESTAMP-MAP not understood" in problems[0]
        assert "line 7: a new WEBVTT whose times begin again" in problems[1]


class TestOtherForms:
    ASS = (
        "[Script Info]\n; made by hand\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname\nStyle: A,Arial\n\n"
        "[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
        r"Dialogue: 0,0:00:05.50,1:00:00.00,A,,0,0,0,,{\an8}Late, {\i1}very{\i0}\hlate\Nindeed{a comment}" "\n"
        "Comment: 0,0:00:01.00,0:00:02.00,A,,0,0,0,,not shown\n"
        "Dialogue: 0,0:00:01.00,0:00:02.25,A,Ann,0,0,0,,Hello\n"
        "Dialogue: 1,0:00:01.00,0:00:02.25,A,,0,0,0,,{\\blur3}Hello\n"
        "Dialogue: 0,0:00:01.00,0:00:02.00,A,,0,0,0,,{\\p1}m 0 0 l 9 9{\\p0}\n"
    )  # fmt: skip

    @pytest.mark.parametrize("name", ["video.ass", "video.SSA", "video.srt"])
    def test_dialogue_of_ass_is_what_is_shown(self, read, name: str):
        lines, problems = read(self.ASS, name)
        assert problems == []
        assert lines == [
            {"text": "Hello", "start": 1.0, "end": 2.25},
            {"text": "Late, very late indeed", "start": 5.5, "end": 3600.0},
        ]

    def test_what_is_wrong_in_ass_is_told_with_its_line(self, read):
        events = "[Events]\nDialogue: 0,0:00:03.00,0:00:01.00,A,,0,0,0,,back\nDialogue: short\n"
        lines, problems = read(events + "Dialogue: 0,0:00:03.00,0:00:04.00,A,,0,0,0,,fine\n", "video.ass")
        assert texts(lines) == ["fine"]
        assert "line 2: ends before it starts" in problems[0]
        assert "line 3: times or text not found" in problems[1]

    def test_segments_of_whisper_are_read_whatever_else_it_says(self, read):
        content = (
            '{"segments": [{"id": 0, "start": 1, "end": 2.5, "text": " Hi (there).", "avg_logprob": NaN},'
            ' {"start": 5, "end": 4, "text": "back"}, 7, {"start": 1e999, "end": 1e999, "text": ""},'
            f' {{"start": {10**400}, "end": {10**400}, "text": "never"}},'
            ' {"start": 3, "end": 4, "text": " "}]}'
        )
        lines, problems = read(content, "video.json")
        assert lines == [{"text": "Hi there .", "start": 1.0, "end": 2.5}]
        assert ["'segment 2'" in problems[0], "'segment 3'" in problems[1]] == [True, True]

    @pytest.mark.parametrize("content", ["{", "[]", "{}", '{"segments": 1}', "[" * 100_000])
    def test_other_json_is_no_transcript(self, read, content: str):
        with pytest.raises(InputError, match=r"video\.json: is no transcript of whisper"):
            read(content, "video.json")


class TestDamagedEncodings:
    @pytest.mark.parametrize(
        "data", [b"\xef\xbb\xbf" + cue("Caf\xe9").encode("cp1252"), cue("Hi").encode("utf-16") + b"x"]
    )
    def test_bytes_that_belie_their_mark_are_told_with_the_remedy(self, read, data: bytes):
        lines, problems = read(data)
        assert len(lines) == 1
        assert "bytes that are no utf-" in problems[0]
        assert "save it as UTF-8, or give --encoding" in problems[0]
