"""What is served: the HTTP API, and the page beside it."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.routing import Mount

from method_tvr.web.api import create_app, wrong_fields
from method_tvr.web.page.gradio_package import gr
from method_tvr.web.page.page import STYLES, build_page, theme
from method_tvr.web.service import Service


def assemble(service: Service) -> FastAPI:
    """All that a service offers: the page at `/`, the API at `/api`, the videos' files at `/media`."""
    page = build_page(service)
    app = gr.mount_gradio_app(
        create_app(service, page.knows_session),
        page,
        path="/",
        theme=theme(),
        css_paths=[STYLES],
        footer_links=[],
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
    )
    for route in app.routes:  # Gradio's, which is an app of its own, would repeat what it refuses
        if isinstance(route, Mount) and isinstance(route.app, FastAPI):
            route.app.add_exception_handler(RequestValidationError, wrong_fields)
    return app
