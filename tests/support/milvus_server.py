"""A real Milvus of one node, as `pip install milvus` has it, in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

START_S = 120.0
COMMAND = "MILVUS_SERVER"  # environment variable that may name the command
TOKEN = "root:Milvus"  # of its first user


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


class MilvusServer:
    """A server that asks for a token; it may be killed and started again over what it has kept.

    Args:
        command: `milvus-server`.
        folder: of its data and logs.
    """

    def __init__(self, command: str, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._command = [command, "--data", str(folder), "--authorization-enabled", "true"]
        self._command += ["--proxy-port", str(self.port)]
        self._log, self._process = folder / "start.log", None
        folder.mkdir()

    def start(self, wait: bool = True) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + START_S
        while wait and not self.answers():
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"milvus-server did not start:\n{self._log.read_text()}")
            time.sleep(0.5)

    def answers(self) -> bool:
        """Whether somebody who may is answered."""
        import pymilvus

        try:
            pymilvus.MilvusClient(self.uri, token=TOKEN, timeout=2).list_collections(timeout=2)
        except pymilvus.MilvusException:
            return False
        return True

    def kill(self) -> None:
        """End it and its children at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def milvus_command_or_skip() -> str:
    """The command that starts a server; a test that needs one is skipped where there is none."""
    pytest.importorskip("pymilvus", reason="pymilvus is not installed (method_tvr/search/index/requirements.txt)")
    command = os.environ.get(COMMAND) or shutil.which("milvus-server")
    if command is None:
        pytest.skip(f"there is no milvus-server: pip install milvus, or name the command in {COMMAND}")
    return command
