"""The text of files that people have made, whatever encoding they were saved in."""

from __future__ import annotations

import codecs
import re

from utils.basic_utils import InputError, StrPath, read_bytes

# the longest mark first: that of UTF-32 begins with that of UTF-16
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WESTERN = "cp1252"  # what Windows calls latin-1: the same letters, and the quotation marks that latin-1 lacks
# Those in which subtitles are found; among all that Python knows, rare ones win by accident on files this short.
GUESSES = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256"),
    *("shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
)
SAVE_AS_UTF8 = 'save it as UTF-8 (in an editor: "Save as", encoding UTF-8; in Excel: file type "CSV UTF-8")'
REMEDY = "save it as UTF-8, or give --encoding, if letters are wrong"
INSTALL = "pip install -r utils/text_feature/requirements.txt -c constraints.txt"


def decode(data: bytes, encoding: str | None = None) -> tuple[str, str | None]:
    """The text of a file without byte order mark, and what was guessed ("read as cp1252 …"), None when it is certain.

    Without an `encoding`, UTF-8 comes first, because text in another one is next to never valid UTF-8; then what a byte
    order mark says; then a guess. (TVRetrieval took iso-8859-1 first, which never fails, and garbles UTF-8.)

    Raises:
        InputError: the bytes are not in `encoding`, or there is no such encoding.
    """
    if encoding is not None:
        check_encoding(encoding)
        try:
            return data.decode(encoding).removeprefix("\ufeff"), None
        except UnicodeDecodeError as err:
            raise InputError(f"is not {encoding} (byte {err.start}): give another encoding, or none") from err
    for mark, name in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _decoded(data, name, None)
    utf_16 = _unmarked_utf_16(data)
    if utf_16 is not None:
        return _decoded(data, utf_16, f"read as {utf_16}, which it seems to be: {REMEDY}")
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError:
        return _decoded(data, *_guess(data))


def _decoded(data: bytes, encoding: str, note: str | None) -> tuple[str, str | None]:
    """As `decode`; what is no text in the encoding becomes "\ufffd", and is noted."""
    try:
        return data.decode(encoding), note
    except UnicodeDecodeError:
        damaged = f"has bytes that are no {encoding}, read as \ufffd: {REMEDY}"
        return data.decode(encoding, errors="replace"), note or damaged


def read_text(path: StrPath, remedy: str) -> str:
    """The text of a file whose names and sentences count: UTF-8, or what a byte order mark says.

    Raises:
        InputError: it cannot be read (says the `remedy`), or its encoding would be a guess (says how to save it).
    """
    data = read_bytes(path, remedy)
    text, guess = decode(data)
    if "\ufffd" in text and "\ufffd".encode() not in data:  # what `decode` puts for bytes that mean nothing
        line = text[: text.index("\ufffd")].count("\n") + 1
        raise InputError(f"{path}, line {line}: holds bytes that are not of its encoding: {SAVE_AS_UTF8}")
    if guess is not None:
        raise InputError(f"{path}: is not UTF-8 text: {SAVE_AS_UTF8}")
    if "\0" in text:
        raise InputError(f"{path}: is not a text file: {remedy}")
    return text


def _unmarked_utf_16(data: bytes) -> str | None:
    """Name of the UTF-16 without a mark that text is in: one byte of each space and digit is zero, always the same."""
    first, second = data[::2].count(0), data[1::2].count(0)
    if max(first, second) <= len(data) // 20 or min(first, second) > max(first, second) // 20:
        return None
    return "utf-16-be" if first > second else "utf-16-le"


def check_encoding(encoding: str) -> None:
    """Raise `InputError` unless there is an encoding of text called that."""
    try:
        "".encode(encoding)
    except LookupError as err:
        raise InputError(f"there is no encoding {encoding!r}: give a name that Python knows, such as cp1250") from err


def _guess(data: bytes) -> tuple[str, str]:
    """Name of the encoding that `data` most likely has, and what to tell the user."""
    try:
        from charset_normalizer import from_bytes
    except ImportError:
        return WESTERN, f"not UTF-8, read as {WESTERN}: for a guess by its content, {INSTALL}; {REMEDY}"
    matches = from_bytes(re.sub(rb"[\d:,.\s>-]+", b" ", data), cp_isolation=list(GUESSES))
    best = matches.best()
    if best is None:
        return WESTERN, f"not UTF-8, read as {WESTERN} for want of a better guess: {REMEDY}"
    # On a tie the most common one: Western and Central European letters make texts that look equally likely.
    western = WESTERN in best.could_be_from_charset or any(
        match.encoding == WESTERN and match.chaos <= best.chaos and match.coherence >= best.coherence
        for match in matches
    )
    name = WESTERN if western else best.encoding
    return name, f"not UTF-8, read as {name}, which is a guess: {REMEDY}"
