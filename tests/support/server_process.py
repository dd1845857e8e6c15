"""A server of a model, started by its script in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from utils.basic_utils import PROJECT_ROOT

LIMIT_S = 30  # for a server to end
ADDRESS = re.compile(r"open http://127\.0\.0\.1:(\d+) ")


@dataclass
class ServerProcess:
    """A running server.

    Attributes:
        pid: of its process.
        wait: its exit code, when it ends within so many seconds; else None or an exception.
        log: what it writes to stderr.
        greeting: what it printed when it was ready.
        port: that it listens at, on this machine.
    """

    pid: int
    wait: Callable[[float], int | None]
    log: Path
    greeting: str
    port: int

    def said(self) -> str:
        """All that it wrote to stderr."""
        return self.log.read_text(encoding="utf-8")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int | None:
        """Its exit code after a signal."""
        os.kill(self.pid, how)
        return self.wait(LIMIT_S)


@contextmanager
def serving(model_dir: str | Path, *options: object) -> Iterator[ServerProcess]:
    """A server of a model on a free port, until the block ends.

    Raises:
        RuntimeError: it did not start; with what it said.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    script = PROJECT_ROOT / "method_tvr" / "scripts" / "serve.sh"
    command = ["bash", str(script), str(model_dir), "--port", "0", *map(str, options)]
    with (
        tempfile.NamedTemporaryFile("w") as log,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PATH": path},
            preexec_fn=heed_interrupts,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            greeting = ""
            for line in process.stdout:
                greeting += line
                if found := ADDRESS.search(line):
                    yield ServerProcess(process.pid, process.wait, Path(log.name), greeting, int(found[1]))
                    break
            else:
                raise RuntimeError(f"the server did not start:\n{Path(log.name).read_text(encoding='utf-8')}")
        finally:
            process.kill()


def heed_interrupts() -> None:
    """What a shell starts in the background, such as a run of these tests, passes on that Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
