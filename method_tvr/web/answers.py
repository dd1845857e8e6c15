"""What is asked over HTTP and what is answered, as the documentation shows it, and the one form of refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from method_tvr.ask.moments import shortened

MAX_NAME = 500  # characters of a video's or show's name that is asked for
MAX_LISTED = 1000  # videos of one list
FAULTS_SHOWN = 3
LOST = "a file that this server answers from has changed or is gone: its log says which"  # visitors need not know


class Question(BaseModel):
    """What to look for, and where."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={"example": {"sentence": "Nora opens the drawer.", "top_k": 5}},
    )

    sentence: str = Field(
        "",
        min_length=1,
        description="what happens in the moment, in a sentence; its length is limited, see above",
    )
    picture: str | None = Field(
        None,
        max_length=MAX_NAME,
        description="in place of a sentence: what a moment looks like, by the name that POST /api/pictures gave",
    )
    top_k: int = Field(10, ge=1, description="moments to find at most; limited, see above")
    video: str | None = Field(None, max_length=MAX_NAME, description="look in the video of this name alone")
    show: str | None = Field(
        None, max_length=MAX_NAME, description="look in the videos whose names begin with this and an underscore alone"
    )


class Moment(BaseModel):
    """A moment, and what its score is made of: exp(q2c_alpha * mean of `match`) * `p_start` * `p_end`."""

    vid_name: str = Field(description="its video", examples=["friends_s01e03_seg02_clip_19"])
    start: float = Field(description="seconds from the start of the video", examples=[12.0])
    end: float = Field(description="seconds from the start of the video", examples=[19.5])
    score: float = Field(description="the higher the better; comparable within an answer", examples=[3.1e9])
    match: dict[str, float] = Field(
        description="for each modality, the cosine of the sentence and the clip of the video that is most like it",
        examples=[{"video": 0.71, "sub": 0.78}],
    )
    p_start: float = Field(description="probability that it starts there, if it is in this video", examples=[0.41])
    p_end: float = Field(description="probability that it ends there, if it is in this video", examples=[0.36])


class Found(BaseModel):
    """The answer to a question."""

    query: str = Field("", description="the sentence", examples=["Nora opens the drawer."])
    query_image: str = Field("", description="in place of `query`: the picture's name", examples=["9f86d081884c"])
    proved: bool = Field(
        False, description="of servers with an index alone: whether it is certain that an exact search finds the same"
    )
    moments: list[Moment] = Field(description="best first; fewer than `top_k` where there are no more")


class Taken(BaseModel):
    """A picture that can be asked with."""

    picture: str = Field(description="its name, for /api/search; the latest are remembered", examples=["9f86d081884c"])


class ListedVideo(BaseModel):
    """A video that is searched."""

    vid_name: str = Field(description="its name", examples=["friends_s01e03_seg02_clip_19"])
    duration: float = Field(description="seconds", examples=[61.5])


class Videos(BaseModel):
    """Some of the videos that are searched."""

    n_videos: int = Field(description="how many there are whose names begin as asked, listed or not", examples=[250])
    videos: list[ListedVideo] = Field(description="the first of them")


class Health(BaseModel):
    """The state of the server."""

    ready: bool = Field(description="whether questions are answered")
    model: str = Field(description="name of the model's folder", examples=["tvr-video_sub_tef-reloclnet-2026_01_31"])
    n_videos: int = Field(description="videos that are searched", examples=[250])


class Problem(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="what is wrong, and what would help")


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """A `Problem`, what is wrong and what would help, as a response."""
    return JSONResponse({"error": message}, status_code=status, headers=headers)


def faults_text(faults: Sequence[Mapping[str, Any]]) -> str:
    """pydantic's findings in one line: which field, and what it should be."""
    said = []
    for fault in faults[:FAULTS_SHOWN]:
        where = ".".join(str(step) for step in fault["loc"] if step not in ("body", "query", "path"))
        said.append(f"{shortened(where)}: {fault['msg'][:1].lower()}{fault['msg'][1:]}")
    return f"{'; '.join(said)} (see /api/docs)"
