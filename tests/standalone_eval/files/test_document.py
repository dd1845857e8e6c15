"""Documents that are read a piece at a time are those that Python reads whole, and so is what is said of bad ones."""

import json
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from standalone_eval.files import document, pieces
from standalone_eval.files.command import BadInput
from standalone_eval.files.document import N_KEPT, read_document
from standalone_eval.files.reading import form_of_file, parse_json, read_lines, read_text
from tests.fuzz.mutations import mutate_bytes

NUMBERS = st.sampled_from(["0", "-0.0", "1e5", "12.5E+10", "NaN", "-Infinity", "1e999", "1" * 30])
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
STRINGS = (
    TEXT.map(json.dumps) | TEXT.map(lambda text: json.dumps(text, ensure_ascii=False)) | st.just(r'"]\"},\ud83d\ude00"')
)
VALUES = st.recursive(
    NUMBERS | STRINGS | st.sampled_from(["null", "true", "false"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda of: f"[{', '.join(of)}]")
        | st.lists(st.tuples(STRINGS, inner), max_size=3).map(
            lambda of: "{" + ",".join(f"{k} :{v}" for k, v in of) + "}"
        )
    ),
    max_leaves=6,
)
SPACE = st.sampled_from(["", "", " ", "\n", "\r\n", "\t \r", "\n\n  "])
KEYS = st.sampled_from(['"VCMR"', '"SVMR"', '"other"', '"V\\u0052"', '"video2idx"'])


@st.composite
def documents(draw):
    """A document's text: an object with large lists, keys twice, whitespace anywhere; or anything else."""
    lists = st.lists(VALUES, max_size=12).map(lambda of: f"[{draw(SPACE)}{(draw(SPACE) + ',' + draw(SPACE)).join(of)}]")
    members = draw(st.lists(st.tuples(KEYS, lists | VALUES), max_size=5))
    whole = f"{draw(SPACE)},{draw(SPACE)}".join(f"{key}{draw(SPACE)}:{draw(SPACE)}{value}" for key, value in members)
    text = draw(st.sampled_from(["{" + draw(SPACE) + whole + draw(SPACE) + "}"]) | lists | VALUES)
    return f"{draw(SPACE)}{text}{draw(SPACE)}"


class Kept:
    """A sink that keeps all."""

    def __init__(self):
        self.elements = []

    def add(self, elements):
        assert elements
        self.elements += elements


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("document") / "in.json"


def read_by_piece(path, piece, batch=1):
    """The document as it is whole, or the message."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", piece)
        patch.setattr(document, "BATCH", batch)
        try:
            content = read_document(path, lambda key, content: Kept())
        except BadInput as err:
            return str(err)
    if isinstance(content, dict):
        return {key: value.elements if isinstance(value, Kept) else value for key, value in content.items()}
    return content


def read_whole(path):
    try:
        content = parse_json(read_text(path), str(path))
    except BadInput as err:
        return str(err)
    return content[:N_KEPT] if isinstance(content, list) else content


@given(documents(), st.integers(0, 2**32), st.integers(1, 40), st.sampled_from([1, 30, 1 << 20]))
@example("\ufeff{}", 0, 1, 1)
@example("", 0, 1, 1)
@example(" {} x", 0, 1, 1)
@example('{"a": [1, ]}', 0, 1, 1)
@example('{"a": [1 2]}', 0, 1, 1)
@example('{"a": 1, }', 0, 1, 1)
@example('{"a" 1}', 0, 1, 1)
@example("{1}", 0, 1, 1)
@example('{"a": [' + "1" * 5000 + "]}", 0, 99, 1)
@settings(max_examples=40, deadline=None)
def test_a_document_is_the_same_in_pieces_and_whole(path, text, seed, piece, batch):
    whole, rng = text.encode(), Random(seed)
    for data in (whole, whole[: rng.randrange(len(whole) + 1)], mutate_bytes(rng, whole)):
        path.write_bytes(data)
        expected = read_whole(path)
        assert repr(read_by_piece(path, piece, batch)) == repr(expected)  # repr, as NaN equals nothing


def test_lists_are_handed_on_a_batch_at_a_time(path):
    path.write_text(json.dumps({"VCMR": [list(range(50))] * 100}))
    sizes = []

    class Counting:
        def add(self, elements):
            sizes.append(len(elements))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "BATCH", 1000)
        read_document(path, lambda key, content: Counting())
    assert sum(sizes) == 100
    assert max(sizes) < 10


@pytest.mark.parametrize("piece", [1, 2, 5, 1 << 20])
@pytest.mark.parametrize("data", [b"[1]\xff", b"{\xc3", b'["\xe2\x82\xac\xe2\x28"]', b"[1]\n" * 3 + b"\xed\xa0\x80"])
def test_bytes_that_are_no_text_are_named_before_all_else(path, data, piece):
    path.write_bytes(data)
    with pytest.raises(UnicodeDecodeError) as err:
        data.decode()
    said = f"is not UTF-8 text ({err.value.reason} at byte {err.value.start}): is it the right file?"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE", piece)
        for read in (read_document, read_text, read_lines, form_of_file):
            with pytest.raises(BadInput) as refused:
                read(path)
            assert str(refused.value) == f"{path}: {said}"


def test_a_line_that_has_no_end_is_not_read_whole(path, monkeypatch):
    monkeypatch.setattr(pieces.lines_of, "__defaults__", (1000,))
    monkeypatch.setattr(pieces, "PIECE", 100)
    monkeypatch.setattr("standalone_eval.files.reading.MAX_LINE", 1000)
    path.write_text('{"desc": "' + "x" * 5000 + '"}')
    with pytest.raises(BadInput, match=r"line 1: is longer than .* characters: is it the right file\?"):
        read_lines(path)
    path.write_text(json.dumps({"video2idx": {}, "VCMR": [{"desc_id": 1, "predictions": [[1, 2, 3, 4]] * 500}]}))
    with pytest.raises(BadInput, match=r"holds a prediction file .*: were two paths swapped\?"):
        read_lines(path)
