"""The HTTP API: questions in JSON, lists of videos, their files, and a documentation that needs no network."""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Annotated, Any
from urllib.parse import parse_qs

import orjson
from fastapi import FastAPI, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as HTTPRefusal
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from method_tvr.ask.moments import QUERY_IMAGE, answer_json
from method_tvr.ask.picture_models import NOT_COMPARED
from method_tvr.ask.questions import QuestionError
from method_tvr.web.answers import (
    LOST,
    MAX_LISTED,
    MAX_NAME,
    Found,
    Health,
    ListedVideo,
    Problem,
    Question,
    Taken,
    Videos,
    faults_text,
    refusal,
)
from method_tvr.web.batching import Busy
from method_tvr.web.guards import (
    COOKIE,
    LOGIN_PATH,
    THUMBNAILS,
    Guard,
    foreign_host,
    foreign_origin,
    names_of,
    needless_path,
    same_token,
    too_often,
    unknown_session,
    without_token,
)
from method_tvr.web.limits import Limits, RateLimiter
from method_tvr.web.middleware import BodyLimit, OwnErrors, SecurityHeaders
from method_tvr.web.pictures.asked import PATH as PICTURES
from method_tvr.web.pictures.thumbnails import Thumbnails
from method_tvr.web.saving.cuts import Cuts
from method_tvr.web.saving.lists import PATH, list_response
from method_tvr.web.service import Service
from utils.basic_utils import InputError

DESCRIPTION = """
Finds moments in videos for a sentence.

    curl -s http://localhost:7860/api/search -H 'Content-Type: application/json' -d '{{"sentence": "Nora laughs."}}'

A sentence has at most {limits.max_sentence} characters, an answer at most {limits.max_top_k} moments, and a
request's body at most {limits.max_body} bytes.{rate}{token}

Seconds count from where a video begins. A file whose own clock begins later says so: `Clock-Start` of what /media
answers is to be added to them for a player in a browser.

What is refused is answered by `{{"error": "what is wrong and what would help"}}`.
"""
TOKEN_NEEDED = " A token is asked for: send it as Authorization: Bearer TOKEN."
LOGIN = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Token</title>
<form method="post" action="/login"><label>Token <input type="password" name="token" autofocus></label>
<button>Open</button></form>"""
LOG = logging.getLogger(__name__)
PROBLEMS = {
    400: "not valid JSON",
    401: "the token is missing or wrong",
    404: "no such video or show, or no file of it",
    408: "the body did not arrive in time",
    413: "the body is too large",
    415: "the body is not said to be JSON, or a picture",
    422: "a field is missing, unknown, or not as it should be",
    429: "too many requests of this client; Retry-After says when to come back",
    503: "too many requests of all clients; Retry-After says when to come back",
}
RETRY_AFTER = {"Retry-After": "1"}  # seconds in which a batch or two have been searched for
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
ListPrefix = Annotated[str, Query(max_length=MAX_NAME, description="only videos whose names begin with this")]
MediaName = Annotated[str, Path(max_length=MAX_NAME, description="the video's")]
OptionalName = Annotated[str | None, Query(max_length=MAX_NAME, description="as in /api/search")]
Second = Annotated[float, Query(ge=0, allow_inf_nan=False, description="seconds from where the video begins")]
ListLimit = Annotated[int, Query(ge=1, le=MAX_LISTED, description="videos to list at most")]


def create_app(service: Service, known_session: Callable[[str], bool]) -> FastAPI:
    """The API of a service, with all that guards it, as `GET /api/docs` says.

    Args:
        service: what answers.
        known_session: whether answers wait, or will, for a session of the page.
    """
    limits = service.limits
    rate = f" A client may ask {limits.rate:g} times a second, {limits.burst:g} times at once." if limits.rate else ""
    app = FastAPIOffline(
        title="Moment retrieval",
        version="1",
        description=DESCRIPTION.format(limits=limits, rate=rate, token=TOKEN_NEEDED if service.token else ""),
        docs_url="/api/docs",
        redoc_url=None,
        openapi_url="/api/openapi.json",
        static_url="/api/docs/static",
        swagger_ui_oauth2_redirect_url="/api/docs/oauth2-redirect",
        middleware=[  # from the outside in
            Middleware(SecurityHeaders),
            Middleware(
                BodyLimit,
                max_bytes=limits.max_body,
                timeout=limits.timeout,
                others={PICTURES: limits.max_picture},
            ),
            Middleware(OwnErrors),
            Middleware(Guard, refuse=foreign_host(names_of(service.host, service.allowed_hosts))),
            Middleware(Guard, refuse=needless_path),
            Middleware(Guard, refuse=foreign_origin),
            Middleware(Guard, refuse=too_often(RateLimiter(limits.rate, limits.burst), _of_thumbnails(limits))),
            Middleware(Guard, refuse=without_token(service.token, lambda: HTMLResponse(LOGIN, 401))),
            Middleware(Guard, refuse=unknown_session(known_session)),
        ],
    )
    _add_refusals(app)
    _add_search(app, service)
    _add_pictures(app, service)
    _add_lists(app, service)
    _add_media(app, service)
    _add_clips(app, service)
    _add_thumbnails(app, service)
    _add_list(app, service)
    _add_login(app, service.token)
    _add_unknown(app)
    return app


def _of_thumbnails(limits: Limits) -> RateLimiter:
    return RateLimiter(limits.thumbnail_rate * limits.rate, limits.thumbnail_rate * limits.burst)


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """What a documentation says about refusals."""
    return {
        code: {
            "model": Problem,
            "description": PROBLEMS[code],
            "content": {"application/json": {"example": {"error": PROBLEMS[code]}}},
        }
        for code in codes
    }


async def wrong_fields(request: Request, err: Exception) -> Response:
    """Answer a request whose fields are not what they should be."""
    assert isinstance(err, RequestValidationError)
    return refusal(422, faults_text(err.errors()))


def _add_refusals(app: FastAPI) -> None:
    """Have errors answered in their one form."""

    @app.exception_handler(HTTPRefusal)
    async def refused(request: Request, err: HTTPRefusal) -> Response:
        return refusal(err.status_code, err.detail, err.headers)

    app.add_exception_handler(RequestValidationError, wrong_fields)

    @app.exception_handler(QuestionError)
    async def wrong_question(request: Request, err: QuestionError) -> Response:
        return refusal(422, str(err))

    @app.exception_handler(InputError)
    async def lost(request: Request, err: InputError) -> Response:
        LOG.error("%s", err)
        return refusal(503, LOST)

    @app.exception_handler(Busy)
    async def busy(request: Request, err: Busy) -> Response:
        return refusal(503, str(err), RETRY_AFTER)


def _add_search(app: FastAPI, service: Service) -> None:
    names = {video.vid_name for video in service.videos}
    shows = {name[:end] for name in names for end, letter in enumerate(name) if letter == "_"}
    body = {"required": True, "content": {"application/json": {"schema": Question.model_json_schema()}}}

    @app.post(
        "/api/search",
        response_model=Found,
        responses=_problems(400, 404, 408, 413, 415, 422, 429, 503),
        openapi_extra={"requestBody": body},
        summary="The best moments for a sentence or a picture",
    )
    async def search(request: Request) -> Response:
        question = await _question(request, service.limits)
        if question.video is not None and question.video not in names:
            raise HTTPException(404, "video: there is none of this name: GET /api/videos lists them")
        if question.show is not None and question.show not in shows:
            raise HTTPException(404, "show: no video's name begins with it and an underscore: see GET /api/videos")
        asked = service.what_is_asked(question.sentence or None, question.picture)
        where = question.top_k, question.video, question.show
        found = await service.batched.search_async(asked, *where, timeout=service.limits.timeout)
        if question.picture is None:
            answer = answer_json(question.sentence, found)
        else:
            answer = answer_json(question.picture, found, QUERY_IMAGE)
        return Response(orjson.dumps(answer), media_type="application/json")


async def _question(request: Request, limits: Limits) -> Question:
    """The body of a request, read by a parser that takes JSON alone: no NaN, no halves of characters."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Content-Type: must be application/json")
    try:
        content = orjson.loads(await request.body())
    except orjson.JSONDecodeError as err:
        raise HTTPException(400, f"the body is not valid JSON in UTF-8 ({err}): see /api/docs") from err
    if not isinstance(content, dict):
        raise HTTPException(422, 'the body must be an object such as {"sentence": "Nora opens the drawer."}')
    try:
        question = Question.model_validate(content)
    except ValidationError as err:
        raise HTTPException(422, faults_text(err.errors(include_input=False, include_url=False))) from err
    if len(question.sentence) > limits.max_sentence:
        raise HTTPException(422, f"sentence: must have at most {limits.max_sentence} characters: shorten it")
    if question.top_k > limits.max_top_k:
        raise HTTPException(422, f"top_k: must be at most {limits.max_top_k}")
    return question


def _add_pictures(app: FastAPI, service: Service) -> None:
    body = {"required": True, "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}}

    @app.post(
        PICTURES,
        response_model=Taken,
        responses=_problems(408, 413, 415, 422, 429, 503),
        openapi_extra={"requestBody": body},
        summary="Send a picture (JPEG, PNG, WebP, BMP or GIF) to ask with",
    )
    async def picture(request: Request) -> Taken:
        if not service.searcher.compares_pictures:
            raise QuestionError(NOT_COMPARED)
        if not request.headers.get("content-type", "").strip().lower().startswith("image/"):
            raise HTTPException(415, "Content-Type: must be that of a picture, such as image/jpeg")
        with service.pictures.receiving(request.client.host if request.client else ""):
            return Taken(picture=await run_in_threadpool(service.pictures.take, await request.body()))


def _add_lists(app: FastAPI, service: Service) -> None:
    @app.get("/api/videos", response_model=Videos, responses=_problems(422, 429), summary="The videos searched")
    async def videos(prefix: ListPrefix = "", limit: ListLimit = 100) -> Videos:
        found = [video for video in service.videos if video.vid_name.startswith(prefix)]
        first = [ListedVideo(vid_name=video.vid_name, duration=video.duration) for video in found[:limit]]
        return Videos(n_videos=len(found), videos=first)

    @app.get("/api/health", response_model=Health, responses=_problems(429), summary="Whether questions are answered")
    async def health() -> Health:
        return Health(ready=service.batched.ready, model=service.model_dir.name, n_videos=len(service.videos))


def _add_media(app: FastAPI, service: Service) -> None:
    path = "/media/{vid_name:path}"

    @app.head(path, include_in_schema=False)
    @app.get(
        path,
        response_class=Response,
        responses=_problems(404, 422) | {200: {"content": {"video/*": {}}}},
        summary="The file of a video, whole or the range of it that is asked for",
    )
    def media(vid_name: MediaName) -> Response:
        return service.media.response(vid_name)


def _add_clips(app: FastAPI, service: Service) -> None:
    cuts = Cuts(service.media, service.limits)

    @app.get(
        "/api/clips/{vid_name:path}",
        response_class=Response,
        responses=_problems(404, 422, 429, 503) | {200: {"content": {"video/*": {}}}},
        summary="Some seconds of a video, cut out of its file: the first frame is the one shown at `start`, or up to "
        "0.1 s before",
    )
    def clip(vid_name: MediaName, start: Second, end: Second) -> Response:
        return cuts.response(vid_name, start, end)


def _add_thumbnails(app: FastAPI, service: Service) -> None:
    thumbnails = Thumbnails(service.media, service.limits)

    @app.get(
        f"{THUMBNAILS}{{vid_name:path}}",
        response_class=Response,
        responses=_problems(404, 422, 429, 503) | {200: {"content": {"image/jpeg": {}}}},
        summary="What is shown at a second of a video, as a picture of at most 320 x 180 pixels",
    )
    def thumbnail(vid_name: MediaName, time: Second) -> Response:
        return thumbnails.response(vid_name, time)


def _add_list(app: FastAPI, service: Service) -> None:
    @app.get(
        PATH,
        response_class=Response,
        responses=_problems(422, 429, 503) | {200: {"content": {"text/csv": {}}}},
        summary="The moments that the page shows for a sentence or a picture, for spreadsheets",
    )
    def moments_list(
        sentence: Annotated[str | None, Query(min_length=1)] = None,
        picture: OptionalName = None,
        top_k: Annotated[int, Query(ge=1)] = 10,
        video: OptionalName = None,
        show: OptionalName = None,
    ) -> Response:
        return list_response(service, sentence, picture, top_k, video, show)


def _add_login(app: FastAPI, token: str | None) -> None:
    """Let a browser show the token by a cookie, once a person has typed it."""

    @app.post(LOGIN_PATH, include_in_schema=False)
    async def login(request: Request) -> Response:
        shown = parse_qs((await request.body()).decode("utf-8", "replace")).get("token", [""])[0]
        if token is None or not same_token(shown, token):
            return HTMLResponse(LOGIN, 401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return answer


def _add_unknown(app: FastAPI) -> None:
    """Answer here what begins as the API does or as the files, whatever else is mounted beside it."""
    methods = {route.path: route.methods for route in app.routes if isinstance(route, Route)}

    @app.api_route("/api/{path:path}", methods=METHODS, include_in_schema=False)
    async def unknown(path: str) -> Response:
        allowed = methods.get(f"/api/{path}")
        if allowed is None:
            return refusal(404, "there is nothing here: GET /api/docs says what there is")
        return _wrong_method(allowed)

    @app.api_route("/media/{path:path}", methods=METHODS, include_in_schema=False)
    async def unchangeable(path: str) -> Response:
        return _wrong_method({"GET", "HEAD"})


def _wrong_method(allowed: AbstractSet[str]) -> Response:
    names = ", ".join(sorted(allowed))
    return refusal(405, f"only {names} here", {"Allow": names})
