"""A service with a stub for its searcher, and a client of its app."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from method_tvr.web.app import assemble
from method_tvr.web.batching import BatchedSearcher
from method_tvr.web.limits import Limits
from method_tvr.web.media import MediaFiles
from method_tvr.web.outcomes.query_outcomes import QueryOutcomes
from method_tvr.web.service import Service
from tests.support.web_stubs import StubSearcher

UNLIMITED = Limits(rate=0)


@contextmanager
def service_of(
    searcher: StubSearcher,
    limits: Limits = UNLIMITED,
    media: Path | None = None,
    host: str = "127.0.0.1",
    outcomes: QueryOutcomes | None = None,
    **access: Any,
) -> Iterator[Service]:
    """A service at an address, which knows the files in a folder, and a split's queries; see `Service` for access."""
    batched = BatchedSearcher(searcher, limits.max_queue)
    names = [video.vid_name for video in searcher.videos]
    files = MediaFiles({}) if media is None else MediaFiles.in_folder(media, names)
    service = Service(
        searcher, batched, files, limits, Path("/secret/place/model-1"), host, outcomes=outcomes, **access
    )
    yield service
    searcher.gate.set()
    service.close()


@contextmanager
def client_of(searcher: StubSearcher, limits: Limits = UNLIMITED, **options: Any) -> Iterator[TestClient]:
    """A client of a service's whole app, as a browser on this machine."""
    with (
        service_of(searcher, limits, **options) as service,
        TestClient(assemble(service), base_url="http://localhost:7860") as client,
    ):
        yield client
