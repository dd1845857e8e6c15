"""Serve a trained model: a page and an HTTP API that find moments for sentences.

python method_tvr/web/serve.py --model_dir MODEL_DIR [any option]
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import TYPE_CHECKING

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "easydict", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from method_tvr.config import OPTIONS, SERVE, typed
from utils.basic_utils import parse_first

if __name__ == "__main__":
    parse_first(typed, OPTIONS, SERVE)

from method_tvr.config import SEARCH_MEMORY, parse_inference_options
from utils.basic_utils import InputError, command_line, end_at_once
from utils.model_utils import named_when_out_of_memory

if TYPE_CHECKING:
    from method_tvr.web.service import Service

PACKAGES = ("gradio", "fastapi", "uvicorn", "fastapi_offline")


def check_packages() -> None:
    """Raise an `InputError` if a package that only a server needs is missing, without importing it."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"{', '.join(missing)} not installed: pip install -r method_tvr/web/requirements.txt -c constraints.txt"
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that clients may connect to from now on; they wait until it is served.

    Raises:
        InputError: there is no such address here, or its port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as err:
        raise InputError(f"--host {host}: is no address or name of one ({err}): try 127.0.0.1") from err
    try:
        listening = socket.create_server(address[:2], family=family, backlog=socket.SOMAXCONN)
    except OSError as err:
        raise InputError(
            f"--host {host} --port {port}: cannot be listened at ({err.strerror}): give another --port, or 0 for any "
            "that is free; the host must be an address of this machine"
        ) from err
    # connections inherit it; asyncio sets it only on those of its own sockets, and without it an answer's second half
    # waits 40 ms for a sign that the first has arrived
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


@contextmanager
def own_temporary_folder() -> Iterator[None]:
    """A folder for what the page framework writes, which nobody else can write to, removed at the end."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="moments-", ignore_cleanup_errors=True)
    except OSError as err:
        raise InputError(f"no temporary folder can be made ({err.strerror}): name one that can by TMPDIR") from err
    with folder:
        os.environ["GRADIO_TEMP_DIR"] = folder.name
        yield


def greeting(service: Service, port: int, videos_dir: str | None, subtitles: str | None = None) -> str:
    """What the user is told: what is shown of which files, where the page is, and who else can open it."""
    from method_tvr.web.guards import is_loopback

    host, lines = service.host, []
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    here = f"[{here}]" if ":" in here else here
    if videos_dir is not None:
        lines.append(f"files of {len(service.media)} of {len(service.videos)} videos found in {videos_dir}")
        lines += filter(None, [service.media.told()])
    if service.subtitles:
        spoken = sum(bool(service.subtitles.get(video.vid_name)) for video in service.videos)
        lines.append(f"subtitles of {spoken} of {len(service.videos)} videos read from {subtitles}")
    if not is_loopback(host) and service.token is None:
        lines.append(
            f"warning: --host {host}: whoever reaches port {port} of this machine can ask and see the videos; there is "
            "no password: --token_file asks for one"
        )
    return "\n".join([*lines, f"open http://{here}:{port} (the API: http://{here}:{port}/api/docs); Ctrl-C ends"])


def run(service: Service, listening: socket.socket) -> None:
    """Serve until told to end by Ctrl-C or SIGTERM."""
    from method_tvr.web.app import assemble
    from method_tvr.web.connections import serve
    from method_tvr.web.log import log_to_stderr

    log_to_stderr()
    serve(assemble(service), listening)


@command_line
def main(argv: Sequence[str] | None = None) -> None:
    opt = parse_inference_options(argv, SERVE)
    check_packages()
    from method_tvr.web.service import open_service

    enough = named_when_out_of_memory(opt, SEARCH_MEMORY)
    # first the address: a model takes a while
    with closing(listen(opt.host, opt.port)) as listening, enough, own_temporary_folder():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn calls it once it has ended
        with redirect_stdout(sys.stderr):  # progress
            service = open_service(opt)
        with closing(service):
            print(greeting(service, listening.getsockname()[1], opt.videos, opt.subtitles), flush=True)
            run(service, listening)


if __name__ == "__main__":
    try:
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    else:
        code = 0
    end_at_once(code)  # all is closed: to take torch and the page framework apart takes Python seconds
