"""Commands as they are typed, and how they ended."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from utils.basic_utils import PROJECT_ROOT

SCRIPTS = PROJECT_ROOT / "method_tvr" / "scripts"
ON_THE_CPU = ["--device", "-1", "--num_workers", "0"]


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


def bash(script: Path, *arguments: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        ["bash", str(script), *map(str, arguments)],
        cwd=cwd,
        env={**environment, "PATH": path, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == code, finished.stderr
    assert "Traceback" not in finished.stderr
    return finished
