"""What goes around every request: security headers, bodies that are too large or too slow, errors that are ours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from method_tvr.web.answers import refusal
from method_tvr.web.guards import THUMBNAILS

LOG = logging.getLogger(__name__)
# Gradio's page has scripts and styles in itself, makes functions of text, and shows pictures that it made
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    ]
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}


KEPT = {  # how long browsers may keep files, by their folder
    "/assets/": "public, max-age=31536000, immutable",  # whose names change with their content
    "/static/": "public, max-age=3600",
    "/api/docs/static/": "public, max-age=3600",
    "/media/": "private, max-age=3600",
    THUMBNAILS: "private, max-age=3600",
}
NOT_KEPT = "no-store"


class SecurityHeaders:
    """Puts headers on every answer by which browsers keep to this server alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
                files = [said for folder, said in KEPT.items() if scope["path"].startswith(folder)]
                kept = files[0] if files and message["status"] < 400 else NOT_KEPT
                MutableHeaders(scope=message)["Cache-Control"] = kept
            await send(message)

        await self._app(scope, receive, send_with_headers)


class OwnErrors:
    """Answers 500 when something fails, and says why in the log alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            if started or scope["type"] != "http":
                raise  # the server cuts the connection
            LOG.exception("%s %r failed", scope["method"], scope["path"])
            await refusal(500, "internal error: see the server's log")(scope, receive, send)


class BodyLimit:
    """Refuses bodies of more bytes than allowed, said beforehand or not, and those that do not arrive in time.

    Who is answered before all of a body has arrived is disconnected, so that nobody reads the rest.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout: float, others: Mapping[str, int]) -> None:
        """`max_bytes` may be sent to any path but those in `others`, which have their own limits."""
        self._app, self._max_bytes, self._timeout, self._others = app, max_bytes, timeout, others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        max_bytes = self._others.get(scope["path"], self._max_bytes)
        headers = Headers(scope=scope)
        length = int(headers.get("content-length", 0))
        expected = length > 0 or "transfer-encoding" in headers or scope["method"] not in ("GET", "HEAD")
        body = _Body(receive, expected, max_bytes, self._timeout)

        async def send_and_part(message: Message) -> None:
            if message["type"] == "http.response.start" and body.expected:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        app = refusal(413, body.too_large) if length > max_bytes else self._app
        await app(scope, body.receive, send_and_part)


class _Body:
    """A request's body as it arrives; `expected`: there is more to come."""

    def __init__(self, receive: Receive, expected: bool, max_bytes: int, timeout: float) -> None:
        self._receive, self._left, self._timeout = receive, max_bytes, timeout
        self._end = asyncio.get_running_loop().time() + timeout
        self.expected = expected
        self.too_large = f"the body has more than {max_bytes} bytes, which are allowed: ask for less"

    async def receive(self) -> Message:
        """The next part of it; once it has all arrived, whatever comes, whenever it comes."""
        if not self.expected:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._end - asyncio.get_running_loop().time())
        except asyncio.TimeoutError as err:
            raise HTTPException(408, f"the body did not arrive within {self._timeout:g} s: send it again") from err
        self.expected = message.get("more_body", False)
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(413, self.too_large)
        return message
