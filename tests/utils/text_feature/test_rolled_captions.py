"""Captions that roll are read once, in their time; what somebody says twice is read twice."""

from itertools import chain
from pathlib import Path

import pytest

from utils.text_feature.subtitle_files import read_subtitles

ENGLISH = ["Linus, do your kids think", "that is cool", "or not", "[Music]", "so they said"]
JAPANESE = ["今日はとても寒い", "ですね", "学校に行きましょう", "そうしましょう"]
Shown = list[tuple[str, float, float]]


def stamp(seconds: float) -> str:
    return f"00:{int(seconds) // 60:02}:{seconds % 60:06.3f}"


def timed(row: str, start: float) -> str:
    """A row whose words have times, as yt-dlp saves it; a single word has none."""
    parts = row.split(" ") if " " in row else [row[:2], row[2:]] if len(row) > 4 else [row]
    space = " " if " " in row else ""
    later = (f"<{stamp(start + 0.3 * i)}><c>{space}{part}</c>" for i, part in enumerate(parts[1:], start=1))
    return "".join([parts[0], *later])


def vtt(cues: Shown) -> str:
    body = "".join(f"{stamp(start)} --> {stamp(end)} align:start position:0%\n{text}\n\n" for text, start, end in cues)
    return f"WEBVTT\nKind: captions\nLanguage: en\n\n{body}"


def srt(cues: Shown) -> str:
    numbered = enumerate(cues, start=1)
    return "".join(f"{n}\n{stamp(a)} --> {stamp(b)}\n{text}\n\n" for n, (text, a, b) in numbered)


def rolled(rows: list[str], n_rows: int = 2, inline: bool = True, flashes: bool = True) -> Shown:
    """Each row for 2 s at the bottom, under those before it; with a cue of 10 ms between."""
    cues: Shown = []
    for i, row in enumerate(rows):
        above = rows[max(0, i + 1 - n_rows) : i]
        bottom = timed(row, 2.0 * i) if inline else row
        lines = [*above, bottom] if above or not inline else [" ", bottom]
        cues.append(("\n".join(lines), 2.0 * i, 2.0 * i + 1.99 if flashes else 2.0 * i + 2))
        if flashes:
            kept = [*above, row][-max(1, n_rows - 1) :]
            cues.append(("\n".join([*kept, " "]), 2.0 * i + 1.99, 2.0 * i + 2))
    return cues


@pytest.fixture
def read(tmp_path: Path):
    def read(content: str, name: str = "a.vtt") -> Shown:
        (tmp_path / name).write_text(content)
        lines, problems = read_subtitles(tmp_path / name)
        assert problems == []
        return [(line["text"], line["start"], line["end"]) for line in lines]

    return read


@pytest.mark.parametrize("rows", [ENGLISH, JAPANESE], ids=["english", "japanese"])
@pytest.mark.parametrize("n_rows", [2, 3])
@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("flashes", [True, False])
@pytest.mark.parametrize("form", [vtt, srt])
def test_each_row_is_there_once_when_it_is_said(read, rows, n_rows, inline, flashes, form):
    found = read(form(rolled(rows, n_rows, inline, flashes)), f"a.{form.__name__}")
    assert [(text, start) for text, start, _ in found] == [(row, 2.0 * i) for i, row in enumerate(rows)]
    assert all(end - start > 1.9 for _, start, end in found)


def test_one_row_at_a_time_with_flashes_between(read):
    flash = [(row, 2.0 * i + 1.99, 2.0 * i + 2) for i, row in enumerate(ENGLISH)]
    cues = chain.from_iterable(
        zip([(row, 2.0 * i, 2.0 * i + 1.99) for i, row in enumerate(ENGLISH)], flash, strict=True)
    )
    assert [text for text, _, _ in read(vtt(list(cues)))] == ENGLISH


def test_a_repeated_row_is_said_twice_where_captions_roll(read):
    rows = ["yes it is", "yeah", "yeah", "I think so", "yeah"]
    assert [text for text, _, _ in read(vtt(rolled(rows)))] == rows


def test_after_a_pause_the_same_words_are_said_anew(read):
    cues = rolled(["one two", "three four", "five six"])
    again = [(text, start + 60, end + 60) for text, start, end in rolled(["five six", "seven eight"])]
    found = read(vtt(cues + again))
    assert [text for text, _, _ in found] == ["one two", "three four", "five six", "five six", "seven eight"]
    assert found[3][1] == 60


@pytest.mark.parametrize("form", [vtt, srt])
def test_ordinary_subtitles_in_which_the_same_is_said_twice_stay(read, form):
    cues = [
        ("No.", 0.0, 1.0),
        ("No.", 1.0, 2.0),
        ("- Stop it!\n- No.", 2.0, 4.0),
        ("- No.\n- Why not?", 4.0, 6.0),
        ("Because.", 6.0, 7.0),
        ("Because.", 7.0, 8.0),
        ("La la la\nla la la", 8.0, 9.0),
        ("La la la\nla la la", 9.0, 10.0),
        ("Good night.", 10.0, 11.0),
    ]
    found = read(form(cues), f"a.{form.__name__}")
    assert found == [(text.replace("\n", " "), start, end) for text, start, end in cues]


def test_a_few_subtitles_that_repeat_themselves_stay(read):
    cues = [
        ("Stop.", 0.0, 1.0),
        ("Stop.", 1.0, 2.0),
        ("Stop.\nPlease stop.", 2.0, 3.0),
        ("Please stop.\nNow.", 3.0, 4.0),
    ]
    assert len(" ".join(text for text, _, _ in read(srt(cues), "a.srt")).split()) == 8


def test_a_row_that_stands_through_a_pause_is_said_once(read):
    cues = rolled(["one two", "three four", "five six"])
    late = [(text, start + 5, end + 5) for text, start, end in cues[4:]]
    assert [text for text, _, _ in read(vtt(cues[:4] + late))] == ["one two", "three four", "five six"]


def test_karaoke_with_times_of_words_stays(read):
    cues = [(timed("row row row your boat", start), start, start + 2) for start in (0.0, 2.0, 4.0)]
    assert len(read(vtt(cues))) == 3
