"""A real Milvus of one node, as `pip install milvus` has it, in a process of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

START_S = 120.0
STOP_S = 20.0
PARTS = (
    "etcd",
    "root-coord",
    "proxy-internal",
    "query-coord",
    "query-node",
    "index-coord",
    "index-node",
    "data-coord",
    "data-node",
)
COMMAND = "MILVUS_SERVER"  # environment variable that may name the command
TOKEN = "root:Milvus"  # of its first user


def free_port() -> int:
    """A port that nobody listens at, below those that a client which looks for a stopped server may itself be given."""
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                return port


class MilvusServer:
    """A server that asks for a token; it may be stopped and started again over what it has kept.

    Args:
        command: `milvus-server`.
        folder: of its data and logs.
    """

    def __init__(self, command: str, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._command = [command, "--data", str(folder), "--authorization-enabled", "true"]
        self._command += ["--proxy-port", str(self.port)]
        for part in PARTS:  # else one that starts again takes other ports, and looks for its parts at the old ones
            self._command += [f"--{part}-port", str(free_port())]
        self._folder, self._log, self._process = folder, folder / "start.log", None
        folder.mkdir()

    def start(self, wait: bool = True) -> None:
        """Start it, and wait until it answers."""
        command, env, binary = self._command, dict(os.environ), self._folder / "bin" / "milvus"
        if binary.exists():  # `milvus-server` would take other ports, because connections of before still linger
            command = [str(binary), "run", "standalone"]
            env |= {
                "DEPLOY_MODE": "STANDALONE",
                "METRICS_PORT": str(free_port()),
                "LD_LIBRARY_PATH": str(binary.parent),
            }
            env["MILVUS_RUN_DIR"] = str(self._folder / "run")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=env, cwd=self._folder, start_new_session=True
            )
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

    def stop(self) -> None:
        """End it and its children; one that is killed instead leaves sessions that hinder it from starting again."""
        if self._process is not None:
            group = self._process.pid
            os.killpg(group, signal.SIGTERM)
            end = time.monotonic() + STOP_S
            while _is_there(group) and time.monotonic() < end:
                self._process.poll()
                time.sleep(0.1)
            if _is_there(group):
                os.killpg(group, signal.SIGKILL)
            self._process.wait()
            self._process = None


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def milvus_command_or_skip() -> str:
    """The command that starts a server; a test that needs one is skipped where there is none."""
    pytest.importorskip("pymilvus", reason="pymilvus is not installed (method_tvr/search/index/requirements.txt)")
    command = os.environ.get(COMMAND) or shutil.which("milvus-server")
    if command is None:
        pytest.skip(f"there is no milvus-server: pip install milvus, or name the command in {COMMAND}")
    return command
