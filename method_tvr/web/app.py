"""What is served: the HTTP API, and the page beside it."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import RedirectResponse, Response

from method_tvr.web.api import create_app
from method_tvr.web.service import Service


def assemble(service: Service) -> FastAPI:
    """All that a service offers: the page at `/`, the API at `/api`, the videos' files at `/media`."""
    app = create_app(service)
    mount_page(app, service)
    return app


def mount_page(app: FastAPI, service: Service) -> None:
    """Put the page at `/`."""

    @app.get("/", include_in_schema=False)
    async def start() -> Response:
        return RedirectResponse("/api/docs")
