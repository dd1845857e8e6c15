"""The moments of a sentence as a table that visitors save."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.responses import Response

from method_tvr.ask.moments_csv import csv_bytes, rows_of
from method_tvr.web.service import Service

PATH = "/api/moments.csv"
_HEADERS = {"Content-Disposition": 'attachment; filename="moments.csv"'}


def list_response(
    service: Service, sentence: str | None, picture: str | None, top_k: int, video: str | None, show: str | None
) -> Response:
    """The moments that the page shows for a sentence, or for a picture that was sent, for spreadsheets.

    Raises `Busy`, or a `QuestionError` if the sentence has a fault, or the picture is not remembered.
    """
    found = service.search(service.what_is_asked(sentence, picture), top_k, video, show)
    rows = rows_of(f"picture {picture}" if sentence is None else sentence, found, [None] * len(found))
    return Response(csv_bytes(rows), headers=_HEADERS, media_type="text/csv; charset=utf-8")


def list_url(sentence: str | None, picture: str | None, top_k: int, video: str | None, show: str | None) -> str:
    """Where the page asks for it."""
    asked = {"sentence": sentence, "picture": picture, "top_k": top_k, "video": video, "show": show}
    return f"{PATH}?{urlencode({name: value for name, value in asked.items() if value is not None})}"
