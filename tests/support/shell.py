"""Running the project's scripts as a user does who has activated the environment that the tests run in."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]


def run_script(*command: str | Path, cwd: str | Path = PROJECT_ROOT) -> subprocess.CompletedProcess[str]:
    """Run `bash command…` with this Python first on PATH and its environment active."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": sys.prefix,
    }
    return subprocess.run(
        ["bash", *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
