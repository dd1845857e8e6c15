"""What is refused before anything looks at a request: foreign host names, other origins, clients that ask too often."""

from __future__ import annotations

import ipaddress
import math
import socket
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


class Guard:
    """Lets requests through that it has nothing against.

    Args:
        app: what they are let through to.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def refuse(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a request that must not get through; None for others."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self.refuse(scope, Headers(scope=scope)) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)


class HostGuard(Guard):
    """Refuses host names that are not the server's: a page of another site, whose name was made to point here.

    Args:
        app: what others are let through to.
        names: the server's, without ports; None: any.
    """

    def __init__(self, app: ASGIApp, names: AbstractSet[str] | None) -> None:
        super().__init__(app)
        self._names = names

    def refuse(self, scope: Scope, headers: Headers) -> Response | None:
        if self._names is None or _without_port(headers.get("host", "")) in self._names:
            return None
        return refusal(400, "Host: this server does not go by that name: use the address that it printed")


class OriginGuard(Guard):
    """Refuses what pages of other sites ask, for whom the answers are not meant."""

    def refuse(self, scope: Scope, headers: Headers) -> Response | None:
        origin = headers.get("origin")
        if origin is None or not is_asking(scope) or _place(origin) == headers.get("host", "").lower():
            return None
        return refusal(403, "Origin: pages of other sites may not ask: ask from a program, or from this server's page")


class RateGuard(Guard):
    """Refuses clients that ask more often than they may. A client is an address that connects.

    Args:
        app: what others are let through to.
        limiter: knows how often.
    """

    def __init__(self, app: ASGIApp, limiter: RateLimiter) -> None:
        super().__init__(app)
        self._limiter = limiter

    def refuse(self, scope: Scope, headers: Headers) -> Response | None:
        if not is_asking(scope):
            return None
        client = scope.get("client")
        seconds = math.ceil(self._limiter.wait_s(client[0] if client else ""))
        if not seconds:
            return None
        return refusal(429, f"too many requests: ask again in {seconds} s", {"Retry-After": str(seconds)})


class PageGuard(Guard):
    """Lets nothing of Gradio's own through but what the page needs: no uploads, no files, no API besides ours."""

    def refuse(self, scope: Scope, headers: Headers) -> Response | None:
        path = scope["path"]
        if path in PAGE_PATHS or path.startswith(PAGE_FOLDERS):
            return None
        return refusal(404, "there is nothing here: the page is at /, the API at /api/docs")


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
