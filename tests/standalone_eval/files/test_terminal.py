"""What files say reaches the terminal as text alone."""

from __future__ import annotations

import io
import json
import sys

import pytest
from tqdm import tqdm

from standalone_eval.files.command import BadInput
from standalone_eval.files.command import command_line as standalone_command
from standalone_eval.files.terminal import escaped_output, printable
from utils.basic_utils import InputError, command_line, first_few
from utils.tables import aligned

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x7f\x9b1A\u202eb\u2066\u2028\ud800"
ESCAPED = r"a\x1b]0;owned\x07\x1b[2J\u007f\u009b1A\u202eb\u2066\u2028\ud800"


def test_what_a_terminal_would_obey_is_shown():
    assert printable(HOSTILE) == ESCAPED
    assert printable("line\nand\rline\t") == r"line\x0aand\x0dline\x09"
    assert printable("\u00e9\u0301 \u200d \U0001f468\u200d\U0001f469 \u00a0 抽屉 שלום \\x1b") == (
        "\u00e9\u0301 \u200d \U0001f468\u200d\U0001f469 \u00a0 抽屉 שלום \\x1b"
    )


@pytest.mark.parametrize(("command", "error"), [(command_line, InputError), (standalone_command, BadInput)])
def test_commands_print_the_names_of_files_as_text(capsys, command, error):
    @command
    def main() -> None:
        print(f"{HOSTILE}\n\tb")
        print(f"note: {HOSTILE}", file=sys.stderr)
        raise error(f"{HOSTILE}:\n  b")

    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr() == (f"{ESCAPED}\n\tb\n", f"note: {ESCAPED}\nerror: {ESCAPED}:\n  b\n")


def test_json_among_the_output_stays_what_it_says(capsys):
    text = HOSTILE[:-1]
    with escaped_output():
        print(json.dumps(text, ensure_ascii=False))
    printed = capsys.readouterr().out
    assert printed.isprintable() or printed.rstrip("\n").isprintable()
    assert json.loads(printed) == text


def test_progress_bars_still_go_back_to_the_beginning_of_their_line(monkeypatch):
    heard = io.StringIO()
    monkeypatch.setattr(sys, "stderr", heard)
    with escaped_output():
        list(tqdm(range(3), desc=f"b\r{HOSTILE[:5]}"))
    assert heard.getvalue().startswith("\rb\\x0da\\x1b]0;")
    assert "\x1b" not in heard.getvalue()


def test_a_closed_stream_is_left_closed(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with escaped_output():
        assert sys.stderr is None


def test_a_name_stays_in_its_line_of_a_table_and_its_place_in_a_list():
    assert aligned([["name", "n"], ["a\nerror: b", "1"]]).splitlines() == [
        "  name           n",
        "  a\\x0aerror: b  1",
    ]
    assert first_few(["a\nerror: b", "c"]) == r"a\x0aerror: b, c"
