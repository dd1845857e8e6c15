"""A server of a model in a forked process, for tests to which it does not matter how a server is started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from method_tvr.web import serve
from tests.support.processes import start_command
from tests.support.server_process import ADDRESS, ServerProcess, heed_interrupts


@contextmanager
def forked_server(folder: Path, model_dir: Path, *options: object) -> Iterator[ServerProcess]:
    """As `serving`, with what it prints in a folder; it starts sooner, because everything is imported already."""
    typed = ["--model_dir", str(model_dir), "--port", "0", *map(str, options)]
    (process,) = start_command(1, folder, serve.main, typed, heed_interrupts)

    def wait(seconds: float) -> int | None:
        process.join(seconds)
        return process.exitcode

    out, err = folder / "out_0", folder / "err_0"
    try:
        while (found := ADDRESS.search(greeting := out.read_text() if out.exists() else "")) is None:
            if wait(0.05) is not None:
                raise RuntimeError(f"the server did not start:\n{err.read_text()}")
        assert process.pid is not None
        yield ServerProcess(process.pid, wait, err, greeting, int(found[1]))
    finally:
        process.kill()
        process.join()
