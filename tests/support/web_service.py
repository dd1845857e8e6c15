"""A service with a stub for its searcher, and a client of its app."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
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
from tests.support.web_stubs import VIDEOS, StubSearcher

UNLIMITED = Limits(rate=0)


def media_folder(folder: Path, write: Callable[[Path, int], object]) -> Path:
    """A folder of two videos of 100 frames, as `write` makes them; one that is none; and one that nobody asks for."""
    name, other, third = (video.vid_name for video in VIDEOS)
    write(folder / f"{name}.mp4", 100)
    write(folder / f"{other}.ts", 100)
    (folder / f"{third}.mp4").write_bytes(b"no video")
    os.link(folder / f"{name}.mp4", folder / "of nobody.mp4")
    return folder


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
