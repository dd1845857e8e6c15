"""Other people's text takes time in proportion to its length, however it is made, in all that reads or shows it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from method_tvr.ask.moments import Moment, moments_table, shortened
from method_tvr.ask.text_models import LAYER
from method_tvr.dataset.annotations import load_queries
from method_tvr.report.charts import key_of
from method_tvr.report.rendering import renderer, shown
from standalone_eval.check import check_files
from standalone_eval.files.command import BadInput
from utils.annotations.charades_sta import _take_line
from utils.annotations.reading import Reader, Source
from utils.basic_utils import InputError, first_few
from utils.inventory.names import Names
from utils.inventory.video_folder import _are_numbered
from utils.mini_corpus.word_vectors import stem, tokenise
from utils.model_utils import named_when_out_of_memory
from utils.own_corpus.layout import name_in_files
from utils.own_corpus.queries import read_queries
from utils.own_corpus.reading.query_keys import standard_keys
from utils.tables import aligned
from utils.text_feature.decode_text import decode
from utils.text_feature.preprocess_subtitles import _by_name_without_language, read_vid_names
from utils.text_feature.subtitle_files import clean_text, read_subtitles

LEAST_S = 0.001  # a text that takes less is made longer, up to LONGEST characters
SHORTEST, LONGEST = 1 << 10, 1 << 14
MOST = 8  # times as long may four times the text take; a quadratic one takes 16
PIECES = (
    *("<", ">", "<v", "<v ", "<v.a", "<i", "<br", "<br ", "</", "{\\", "{", "}", "&", "&#", "&#1", "&a", "(", "[", "]"),
    *(" ", "\t", "\u00a0", "\n", "\r", "\n\n", " \n", "\n1\n", "00:01 --> 00:02\n", "-->", "1 -->", "--> ", "1:", "-"),
    *(
        "1",
        "\u0661",
        ".",
        "1.",
        ":",
        "'",
        "a'",
        "_",
        "a",
        "aa",
        "a ",
        "ss",
        "##",
        "a-",
        ",",
        '"',
        "\\",
        "\x1b[",
        "\x85",
    ),
    *("\nWEBVTT\n", "\r\r\n", "\r", "\nDialogue: ", ",", "{\\p", "<00:01.000>", "\na\n"),
    *("e\u0301", "\u0301", "\u202e", "\U0001f600", "\u212b", "GPU 1", "Tried to allocate 1", "#a", "$", "%"),
)
CUE = "00:01.000 --> 00:02.000"
# what begins something that the pieces go on with, each in a text of its own cue
HEADS = (
    "",
    "<v",
    "<v.",
    "<v a",
    "<i ",
    "<br",
    "{\\",
    "&#",
    "1",
    "00:01",
    CUE,
    f"{CUE} ",
    "NOTE",
    "X-TIMESTAMP-MAP=MPEGTS:1",
    "<00:01.000>",
    "Dialogue: 0,0:00:01.00,0:00:02.00,a,,0,0,0,,{\\p1}",
    "Tried to allocate ",
    "GPU ",
)


def adversarial(piece: str, length: int) -> str:
    """About `length` characters: each head, gone on with by its share of pieces and left open."""
    share = max(1, length // len(HEADS) // len(piece))
    return "WEBVTT\n\n" + "".join(f"{CUE}\n{head}{piece * share}a\n\n" for head in HEADS)


def _subtitles(name: str) -> Callable[[Path, str], object]:
    def read(folder: Path, text: str) -> object:
        (folder / name).write_text(text, errors="surrogatepass")
        return read_subtitles(folder / name)

    return read


def _transcript(folder: Path, text: str) -> None:
    segments = [{"start": i, "end": i + 1, "text": line} for i, line in enumerate(text.split("\n\n"))]
    (folder / "a.json").write_bytes(orjson.dumps({"segments": segments}))
    read_subtitles(folder / "a.json")
    (folder / "a.json").write_text(text, errors="surrogatepass")
    with contextlib.suppress(InputError):
        read_subtitles(folder / "a.json")


def _rows(text: str) -> bytes:
    row = {"desc_id": 0, "desc": text, "vid_name": text, "ts": [0, 1], "type": text, "split": text}
    return orjson.dumps(row) + b"\n" + orjson.dumps({**row, "desc_id": text, "ts": text})


def _queries(folder: Path, text: str) -> None:
    (folder / "queries.jsonl").write_bytes(_rows(text))
    for read in (read_queries, load_queries):
        with contextlib.suppress(InputError):
            read([folder / "queries.jsonl"] if read is read_queries else folder / "queries.jsonl")


def _query_tables(folder: Path, text: str) -> None:
    for head in ("desc,start,end\n", "desc;ts\n", f"desc,{text}", "[", '{"start": 0'):
        (folder / "queries.csv").write_text(head + text)
        with contextlib.suppress(InputError):
            read_queries([folder / "queries.csv"])
    for content in ({text: [0, 1]}, {"start": text, "end": text}, {"start": f"{text}:00", "end": "0:01"}):
        with contextlib.suppress(ValueError):
            standard_keys({"desc": text, **content})
    Names(text.split()).nearest(text)
    _are_numbered([text, f"{text}1"])


def _submission(folder: Path, text: str) -> None:
    rows = [{"desc_id": text, "predictions": [[text, 0, 1, 1]]}, {"desc_id": 0, "predictions": text}]
    (folder / "submission.json").write_bytes(orjson.dumps({"video2idx": {text: 0}, "VCMR": rows, text: 0}))
    (folder / "truth.jsonl").write_bytes(_rows(text))
    with contextlib.suppress(BadInput):
        check_files(str(folder / "submission.json"), str(folder / "truth.jsonl"))


def _out_of_memory(_: Path, text: str) -> None:
    for raised in (f"CUDA out of memory. {text}", f"CUDA error: {text}"):
        with contextlib.suppress(InputError, RuntimeError), named_when_out_of_memory({}, ()):
            raise RuntimeError(raised)


def _vid_names(folder: Path, text: str) -> None:
    (folder / "names").write_text(text)
    read_vid_names(folder / "names")


def _charades(folder: Path, text: str) -> None:
    for line in (text, f"a 0 1##{text}", f"{text}##a"):
        _take_line(Reader(), Source(folder, 1, "train"), line, 1, {"a": 30.0}, "has no length")


def _name(_: Path, text: str) -> None:
    name_in_files(text)
    key_of("recall", text)
    LAYER.fullmatch(text)


def _names_of_files(folder: Path, text: str) -> None:
    _by_name_without_language(
        {stem: [folder] for stem in {text, f"a.en{text}", *(f"{i}.en" for i in range(len(text) // 64))}}
    )


# what meets text of others, each given a folder of its own and the text
READERS: dict[str, Callable[[Path, str], object]] = {
    "vtt": _subtitles("a.vtt"),
    "srt": _subtitles("a.srt"),
    "ass": _subtitles("a.ass"),
    "whisper": _transcript,
    "clean_text": lambda _, text: clean_text(text),
    "decode": lambda _, text: decode(b"\xe9" + text.encode("cp1252", "replace")),
    "words": lambda _, text: [stem(word) for word in (*tokenise(text), text)],
    "queries": _queries,
    "query_tables": _query_tables,
    "submission": _submission,
    "out_of_memory": _out_of_memory,
    "vid_names": _vid_names,
    "charades": _charades,
    "names": _name,
    "names_of_files": _names_of_files,
    "tables": lambda _, text: (aligned([["a", "b"], [text, text]]), first_few([text])),
    "moments": lambda _, text: (shortened(text), moments_table([Moment(text, 0, 1, 1)])),
    "pages": lambda folder, text: [renderer(folder)("a.j2", text=shape(text)) for shape in (str, shown)],
}


def seconds(read: Callable[[Path, str], object], folder: Path, text: str) -> float:
    """CPU time of this process: others' work does not count."""
    start = time.process_time()
    read(folder, text)
    return time.process_time() - start


def in_proportion(read: Callable[[Path, str], object], folder: Path, piece: str) -> bool:
    """Whether four times the text takes less than `MOST` times as long, once it takes long enough to be told."""
    length, taken = SHORTEST, 0.0
    while length < LONGEST and taken < LEAST_S:
        length *= 2
        text = adversarial(piece, length)
        taken = seconds(read, folder, text)
        if taken >= LEAST_S:  # else it is not compared; the better of two, here as below: a slow moment is no fault
            taken = min(taken, seconds(read, folder, text))
    larger = adversarial(piece, 4 * length)
    return taken < LEAST_S or any(seconds(read, folder, larger) < MOST * taken for _ in range(2))


@pytest.mark.parametrize("name", READERS)
def test_four_times_the_text_takes_about_four_times_as_long(tmp_path, name):
    (tmp_path / "a.j2").write_text("{{ text }} {{ text | shown }}")
    for piece in PIECES:  # a slow moment of the machine does not come three times
        assert any(in_proportion(READERS[name], tmp_path, piece) for _ in range(3)), piece
