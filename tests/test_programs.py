"""Programs that are started by their path, which finds the project on PYTHONPATH alone."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.shell import PROJECT_ROOT

PROGRAMS = sorted(
    str(path.relative_to(PROJECT_ROOT))
    for folder in ("method_tvr", "utils")
    for path in (PROJECT_ROOT / folder).rglob("*.py")
    if "__main__" in path.read_text()
)
GUARD = """if find_spec("method_tvr") is None:
    print("error: the project is not on PYTHONPATH: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)
"""


@pytest.mark.parametrize("program", ["utils/annotations/convert.py", "method_tvr/report/summary.py"])
def test_without_pythonpath_a_program_says_so_in_one_line(tmp_path, program):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(PROJECT_ROOT / program), "--help"]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "source setup.sh" in ended.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_asks_before_it_imports_from_the_project(program):
    text = (PROJECT_ROOT / program).read_text()
    assert GUARD in text
    first = re.search(r"^(from|import) (method_tvr|utils|standalone_eval)\b", text, re.MULTILINE)
    assert first
    assert text.index(GUARD) < first.start()
