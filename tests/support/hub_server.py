"""A hub on this machine: what huggingface_hub asks of one to fetch a repository, and to write to it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

Files = dict[str, bytes]
API = re.compile(r"/api/(models|datasets)/([\w.-]+/[\w.-]+)/(revision|tree|preupload|commit)/([^/]+)/?")
RESOLVE = re.compile(r"/(datasets/)?([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)")
ABOUT = {"private": False, "downloads": 0, "likes": 0, "tags": []}  # of any repository


@dataclass
class Hub:
    """Repositories, and what was asked of them."""

    address: str = ""
    commits: dict[str, dict[str, Files]] = field(default_factory=dict)  # {models/org/name: {commit: its files}}
    tags: dict[str, dict[str, str]] = field(default_factory=dict)  # {the same: {branch or tag: commit}}
    cut: set[str] = field(default_factory=set)  # files of which half is sent
    asked: list[str] = field(default_factory=list)  # of requests, method and path
    tokens: list[str] = field(default_factory=list)  # that writers had

    def put(self, repository: str, files: Files, tag: str | None = None, kind: str = "models") -> str:
        """A new commit of a repository, as its main branch; returns its name."""
        key = f"{kind}/{repository}"
        content = repr((key, sorted(files.items()))).encode()
        commit = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        self.commits.setdefault(key, {})[commit] = files
        self.tags.setdefault(key, {}).update({"main": commit, **({tag: commit} if tag else {})})
        return commit

    def put_folder(self, repository: str, folder: Path, tag: str | None = None, kind: str = "models") -> str:
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return self.put(repository, files, tag, kind)

    def files(self, key: str, revision: str) -> tuple[str, Files] | None:
        """The commit that a branch, a tag or a commit is, and its files."""
        commit = self.tags.get(key, {}).get(revision, revision)
        found = self.commits.get(key, {}).get(commit)
        return None if found is None else (commit, found)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        body, path = self._body(), urlsplit(self.path).path
        self.hub.asked.append(f"POST {path}")
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
            return
        self.hub.tokens.append(self.headers.get("Authorization", ""))
        if path == "/api/repos/create":
            said = json.loads(body)
            repository = f"{said['organization']}/{said['name']}" if said.get("organization") else said["name"]
            self.hub.commits.setdefault(f"{said.get('type', 'model')}s/{repository}", {})
            self._json({"url": f"{self.hub.address}/{repository}"})
            return
        found = API.fullmatch(path)
        assert found
        kind, repository, what, _ = found.groups()
        if what == "preupload":
            files = json.loads(body)["files"]
            self._json({"files": [{**one, "uploadMode": "regular", "shouldIgnore": False} for one in files]})
            return
        lines = [json.loads(line) for line in body.splitlines()]
        written = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        _, before = self.hub.files(f"{kind}/{repository}", "main") or ("", {})
        commit = self.hub.put(repository, {**before, **written}, kind=kind)
        address = f"{self.hub.address}/{repository}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": address})

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        api, resolve = API.fullmatch(path), RESOLVE.fullmatch(path)
        if api:
            kind, repository, what, revision = api.groups()
            found = self._found(f"{kind}/{repository}", revision)
            if found:
                self._describe(what, repository, *found)
        elif resolve:
            datasets, repository, revision, name = resolve.groups()
            found = self._found(f"{'datasets' if datasets else 'models'}/{repository}", revision)
            if found:
                self._file(name, *found)
        else:
            self._refuse("RepoNotFound")

    def _found(self, key: str, revision: str) -> tuple[str, Files] | None:
        found = self.hub.files(key, revision)
        if found is None:
            self._refuse("RevisionNotFound" if key in self.hub.commits else "RepoNotFound")
        return found

    def _describe(self, what: str, repository: str, commit: str, files: Files) -> None:
        if what == "revision":
            self._json({"id": repository, "sha": commit, **ABOUT, "siblings": [{"rfilename": name} for name in files]})
            return
        self._json(
            [
                {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
                for name, content in files.items()
            ]
        )

    def _file(self, name: str, commit: str, files: Files) -> None:
        content = files[name]
        headers = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": commit}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        end = len(content) // 2 if self.command == "GET" and name in self.hub.cut else len(content)
        if start is None:
            self._send(200, content[:end], headers)
            return
        span = f"bytes {start[1]}-{len(content) - 1}/{len(content)}"
        self._send(206, content[int(start[1]) : end], {**headers, "Content-Range": span})

    def _refuse(self, code: str) -> None:
        self._send(404, b"", {"X-Error-Code": code})

    def _json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub without repositories, until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def point_at(monkeypatch: pytest.MonkeyPatch, address: str, cache: Path, offline: bool = False) -> None:
    """Have huggingface_hub, in this process, ask that hub, and keep what it fetches in a folder.

    It reads its variables when it is imported; in its former versions each module has values of its own.
    """
    for name in ("hf_api", "file_download", "_snapshot_download", "constants"):
        pytest.importorskip(f"huggingface_hub.{name}")
    values = {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": offline,
    }
    for module in [module for name, module in sys.modules.items() if name.startswith("huggingface_hub.")]:
        for name in values.keys() & vars(module).keys():
            monkeypatch.setattr(module, name, values[name])
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
