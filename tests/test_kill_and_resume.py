"""A small version of the campaign of kills; `python tests/kill_and_resume.py` is the long one."""

import subprocess
import sys

from utils.basic_utils import PROJECT_ROOT


def test_a_few_kills_by_the_system_change_nothing():
    command = [sys.executable, "tests/kill_and_resume.py", "--kills", "2", "--epochs", "2", "--fork"]
    finished = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "2 kills" in finished.stdout
    assert "all equal" in finished.stdout
