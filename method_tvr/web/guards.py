"""What is refused before anything looks at a request: foreign hosts and origins, no token, asking too often."""

from __future__ import annotations

import hmac
import ipaddress
import math
import socket
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from method_tvr.web.answers import refusal
from method_tvr.web.limits import RateLimiter

SESSION_PATH = "/gradio_api/queue/data"
LOGIN_PATH = "/login"
PAGE_FOLDERS = ("/api/", "/media/", "/assets/", "/static/", "/gradio_api/heartbeat/")
PAGE_PATHS = frozenset(
    {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/gradio_api/queue/join", SESSION_PATH, LOGIN_PATH}
)
THUMBNAILS = "/api/thumbnails/"
COOKIE = "token"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


Refuse = Callable[[Scope, Headers], Response | None]  # the answer to what must not get through; None: it may


class Guard:
    """Answers http requests that it refuses, and lets all else through to an app."""

    def __init__(self, app: ASGIApp, refuse: Refuse) -> None:
        self._app, self._refuse = app, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refuse(scope, Headers(scope=scope)) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)


def foreign_host(names: AbstractSet[str]) -> Refuse:
    """Refuses host names not among these: pages of other sites, whose name was made to point here.

    The address that was connected to is taken as well: no name can be made to look like it.
    """

    def refuse(scope: Scope, headers: Headers) -> Response | None:
        name, (address, _) = _without_port(headers.get("host", "")), scope.get("server") or ("", 0)
        if name in names or name == address.partition("%")[0]:
            return None
        return refusal(
            400,
            "Host: this server does not go by that name: use the address that it printed, or have it started with "
            "--allow_host NAME",
        )

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


def unknown_session(known: Callable[[str], bool]) -> Refuse:
    """Refuses to fetch answers for a session of the page that has asked nothing."""

    def refuse(scope: Scope, headers: Headers) -> Response | None:
        if scope["path"] != SESSION_PATH:
            return None
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])
        return None if known(asked[0]) else refusal(404, "session_hash: nothing was asked under this name")

    return refuse


def without_token(token: str | None, form: Callable[[], Response]) -> Refuse:
    """Refuses whoever does not show a token (None: nobody has to), in a header or in the cookie that logging in sets.

    Args:
        token: which.
        form: where a person can type it, shown in place of the page.
    """

    def refuse(scope: Scope, headers: Headers) -> Response | None:
        if token is None or scope["path"] == LOGIN_PATH:
            return None
        kind, _, shown = headers.get("authorization", "").partition(" ")
        shown = shown.strip() if kind.lower() == "bearer" else cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if same_token(shown, token):
            return None
        if scope["path"] == "/":
            return form()
        return refusal(401, "a token is needed: send Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    return refuse


def same_token(shown: str, token: str) -> bool:
    """Whether these are the same, in a time that tells nothing of where they differ."""
    return hmac.compare_digest(shown.encode("utf-8", "replace"), token.encode())


def too_often(limiter: RateLimiter, thumbnails: RateLimiter) -> Refuse:
    """Refuses clients, which are addresses that connect, that ask more often than they may.

    Args:
        limiter: of all that they ask.
        thumbnails: of these in its place: a page asks for many at once.
    """

    def refuse(scope: Scope, headers: Headers) -> Response | None:
        client = scope.get("client")
        asked = thumbnails if scope["path"].startswith(THUMBNAILS) else limiter
        seconds = math.ceil(asked.wait_s(client[0] if client else "")) if is_asking(scope) else 0
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


def names_of(host: str, allowed: Iterable[str] = ()) -> frozenset[str]:
    """The names that a server at this address or name goes by, and the others that are allowed."""
    names = LOOPBACK_NAMES | {host.lower(), *(_without_port(name) for name in allowed)}
    return names if is_loopback(host) else names | _names_of_machine()


def _names_of_machine() -> set[str]:
    own = {socket.gethostname().lower(), socket.getfqdn().lower()} - {""}
    names = own | {f"{name}.local" for name in own}
    for name in own:
        with suppress(OSError, UnicodeError):  # a name that nobody knows has no address
            names |= {str(found[4][0]).partition("%")[0] for found in socket.getaddrinfo(name, None)}
    return names


def _without_port(host: str) -> str:
    name, _, port = host.lower().rpartition(":")
    name = name if name and port.isdecimal() else host.lower()
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
