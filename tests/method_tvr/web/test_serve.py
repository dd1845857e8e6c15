"""The server as a user starts it: it says where it is, answers, withstands what is sent, and ends when told to."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from method_tvr.web import serve
from tests.support.server_process import LIMIT_S, ServerProcess, serving
from tests.support.web_stubs import REASON, StubSearcher

pytest.importorskip("fastapi_offline", reason=REASON)
pytest.importorskip("gradio", reason=REASON)

from tests.support.web_service import service_of
from utils.basic_utils import InputError

CONTENT = bytes(range(256)) * 10


class Client:
    """Talks to a server."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """The status and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=LIMIT_S)
        content = None if body is None else json.dumps(body)
        given = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, content, given | headers)
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    def send(self, *sent: bytes) -> bytes:
        """What comes back, until the server closes the connection, for bytes as they are."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=LIMIT_S) as connection:
            with suppress(ConnectionError):  # it may have answered and closed before all was sent
                for part in sent:
                    connection.sendall(part)
            received = b""
            with suppress(ConnectionError):
                while part := connection.recv(65536):
                    received += part
        return received


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's results folder that may be written to."""
    return Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("served") / "run"))


@pytest.fixture(scope="module")
def names(tiny_corpus: Any) -> list[str]:
    """The videos that are searched."""
    return list(json.loads((tiny_corpus.root / "mini_video2dur_idx.json").read_text())["val"])


@pytest.fixture(scope="module")
def client(folder: Path, names: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a server with a file of the first video."""
    videos = tmp_path_factory.mktemp("videos")
    (videos / f"{names[0]}.mp4").write_bytes(CONTENT)
    (videos.parent / "secret.mp4").write_bytes(b"secret")
    with serving(folder, "--device", -1, "--max_rate", 0, "--videos", videos) as server:
        client = Client(server)
        yield client
        assert client.ask("GET", "/api/health")[0] == 200  # whatever was sent to it
        assert server.end(signal.SIGTERM) == 0, server.said()
        assert "Traceback" not in server.said()


def test_it_says_what_it_serves(client, names):
    assert client.server.greeting.startswith(f"files of 1 of {len(names)} videos found in ")
    assert "warning" not in client.server.greeting


def test_it_answers(client, names, folder):
    status, body = client.ask("GET", "/api/health")
    assert (status, json.loads(body)) == (200, {"ready": True, "model": folder.name, "n_videos": len(names)})
    status, body = client.ask("POST", "/api/search", {"sentence": "Omar laughs.", "top_k": 4, "video": names[1]})
    assert status == 200
    assert {moment["vid_name"] for moment in json.loads(body)["moments"]} == {names[1]}
    assert client.ask("GET", f"/media/{names[0]}", Range="bytes=3-5") == (206, CONTENT[3:6])
    assert b"swagger" in client.ask("GET", "/api/docs")[1]


def post(length: str, host: str = "localhost") -> bytes:
    return f"POST /api/search HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{length}\r\n\r\n".encode()


def test_a_body_of_any_length_is_refused_before_it_is_sent(client):
    assert client.send(post("Content-Length: 99999999999")).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_an_end_is_cut_off(client):
    answer = client.send(post("Transfer-Encoding: chunked"), *[b"400\r\n" + b" " * 1024 + b"\r\n"] * 5000)
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "path",
    [
        "/media/../secret.mp4",
        "/media/../../../../../../etc/passwd",
        "/../../../../../etc/passwd",
        "/media/..%2fsecret.mp4",
        "/media/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/media//etc/passwd",
        "//etc/passwd",
        "/media/%00",
        "/media/..\\secret.mp4",
        "/api/docs/static/../../../../../../../etc/passwd",
        "/api/docs/static/..%2f..%2f__init__.py",
        "/api/docs/static/",
        "/media/%ff%fe%80",
        "http://localhost/media/..%2fsecret.mp4",
    ],
)
def test_no_path_leads_to_another_file(client, path):
    answer = client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert re.match(rb"HTTP/1\.1 40[045] ", answer), answer
    for content in (b"secret", b"root:", b"import", b"Traceback"):
        assert content not in answer


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /api/health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        b"GET /api/health HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /api/health HTTP/1.0\r\n\r\n",
        b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        post("Content-Length: 2\r\nContent-Length: 3") + b"{}",
        post("Content-Length: -1") + b"{}",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 1000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_to_this_server_is_refused(client, sent):
    answer = client.send(sent, b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.1 4\d\d ", answer), answer
    assert b"Traceback" not in answer


def test_connections_that_never_finish_keep_nobody_from_asking(client):
    idle = [socket.create_connection(("127.0.0.1", client.server.port)) for _ in range(50)]
    for connection in idle:
        connection.sendall(post("Content-Length: 100")[:-2])
    assert client.ask("POST", "/api/search", {"sentence": "Omar laughs."})[0] == 200
    for connection in idle:
        connection.close()


# ---------------------------------------------------------------------------- before it runs


def test_a_port_that_is_taken_is_known_before_the_model_is_loaded(folder, run_main, monkeypatch):
    monkeypatch.setattr("method_tvr.web.service.open_searcher", lambda opt: pytest.fail("loaded"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run_main(serve.main, ["--model_dir", str(folder), "--port", str(port)])
    assert refused.code == 2
    assert f"--host 127.0.0.1 --port {port}: cannot be listened at (Address already in use" in refused.err


def test_connections_send_at_once():
    with serve.listen("localhost", 0) as listening, socket.create_connection(listening.getsockname()[:2]):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--port", "70000"], "--port 70000 must be from 1 to 65535"),
        (["--host", "no.such.name.invalid"], "--host no.such.name.invalid: is no address or name of one"),
        (["--host", "192.0.2.1", "--port", "0"], "--host 192.0.2.1 --port 0: cannot be listened at"),
        (["--videos", "nowhere"], "--videos nowhere: is no folder"),
        (["--max_queue", "0"], "--max_queue 0 must be above 0"),
        (["--max_rate", "-1"], "--max_rate -1.0 must not be negative"),
        (["--max_rate", "nan"], "--max_rate nan is not a finite number"),
        (["--query", "Omar laughs."], "--query and --query_file are inference.sh's"),
        (["--probes", "0"], "--probes 0 must be above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(folder, run_main, typed, said):
    refused = run_main(serve.main, ["--model_dir", str(folder), *typed])
    assert refused.code == 2
    assert said in refused.err


def test_missing_packages_are_named_with_the_command_that_installs_them(folder, run_main, monkeypatch):
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "gradio" else name)
    refused = run_main(serve.main, ["--model_dir", str(folder)])
    assert refused.code == 2
    remedy = "pip install -r method_tvr/web/requirements.txt -c constraints.txt"
    assert refused.err.splitlines()[-1] == f"error: gradio not installed: {remedy}"


@pytest.mark.parametrize(
    ("host", "address", "warned"),
    [
        ("127.0.0.1", "http://127.0.0.1:81", False),
        ("localhost", "http://localhost:81", False),
        ("::1", "http://[::1]:81", False),
        ("0.0.0.0", "http://127.0.0.1:81", True),
        ("::", "http://[::1]:81", True),
        ("192.0.2.1", "http://192.0.2.1:81", True),
    ],
)
def test_a_host_that_others_reach_is_warned_about(host, address, warned):
    with service_of(StubSearcher(), host=host) as service:
        greeting = serve.greeting(service, 81, None)
    assert f"open {address} " in greeting
    assert ("there is no password" in greeting) is warned


def test_temporary_files_have_a_folder_of_their_own_that_is_removed(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/tmp/shared")
    with serve.own_temporary_folder():
        (folder,) = tmp_path.iterdir()
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_where_no_temporary_folder_can_be_made_one_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(InputError, match="name one that can by TMPDIR"), serve.own_temporary_folder():
        pass
