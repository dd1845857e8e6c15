"""What is refused before anything looks at a request: foreign host names, other origins, clients that ask too often."""

from __future__ import annotations

import ipaddress
import math
import socket
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from method_tvr.web.answers import refusal
from method_tvr.web.limits import RateLimiter

PAGE_FOLDERS = ("/api/", "/media/", "/assets/", "/static/", "/gradio_api/heartbeat/")
PAGE_PATHS = frozenset(
    {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/gradio_api/queue/join", "/gradio_api/queue/data"}
)
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


Refuse = Callable[[Scope, Headers], Response | None]  # the answer to what must not get through; None: it may


class Guard:
    """Answers http requests that it refuses, and lets all else through to an app."""

    def __init__(self, app: ASGIApp, refuse: Refuse) -> None:
        self._app, self._refuse = app, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refuse(scope, Headers(scope=scope)) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)


def foreign_host(names: AbstractSet[str] | None) -> Refuse:
    """Refuses host names not among these (None: any): pages of other sites, whose name was made to point here."""

    def refuse(scope: Scope, headers: Headers) -> Response | None:
        if names is None or _without_port(headers.get("host", "")) in names:
            return None
        return refusal(400, "Host: this server does not go by that name: use the address that it printed")

    return refuse


def needless_path(scope: Scope, headers: Headers) -> Response | None:
    """Refuses all of Gradio's own but what the page needs: no uploads, no files, no API besides ours."""
    if scope["path"] in PAGE_PATHS or scope["path"].startswith(PAGE_FOLDERS):
        return None
    return refusal(404, "there is nothing here: the page is at /, the API at /api/docs")


def foreign_origin(scope: Scope, headers: Headers) -> Response | None:
    """Refuses what pages of other sites ask, for whom the answers are not meant."""
    origin = headers.get("origin")
    if origin is None or not is_asking(scope) or _place(origin) == headers.get("host", "").lower():
        return None
    return refusal(403, "Origin: pages of other sites may not ask: ask from a program, or from this server's page")


def too_often(limiter: RateLimiter) -> Refuse:
    """Refuses clients, which are addresses that connect, that ask more often than they may."""

    def refuse(scope: Scope, headers: Headers) -> Response | None:
        client = scope.get("client")
        seconds = math.ceil(limiter.wait_s(client[0] if client else "")) if is_asking(scope) else 0
        if not seconds:
            return None
        return refusal(429, f"too many requests: ask again in {seconds} s", {"Retry-After": str(seconds)})

    return refuse


def is_asking(scope: Scope) -> bool:
    """Whether a request makes the server work: all of the API, and whatever the page sends."""
    return scope["path"].startswith("/api/") or scope["method"] == "POST"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address or name."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        addresses = [str(found[4][0]) for found in socket.getaddrinfo(host, None)]
    except (OSError, UnicodeError):  # no such name
        return False
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses)


def names_of(host: str) -> frozenset[str] | None:
    """The names that a server at this address or name is asked by; None where others may point to it as well."""
    return LOOPBACK_NAMES | {host.lower()} if is_loopback(host) else None


def _without_port(host: str) -> str:
    name, _, port = host.lower().rpartition(":")
    name = name if name and port.isdecimal() else host.lower()
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
