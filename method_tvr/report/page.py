"""A report as one HTML file that needs nothing else: no server, no network, and no JavaScript to be read."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from method_tvr.report.data import ReportData
from method_tvr.report.gallery import galleries
from method_tvr.report.groups import groupings
from method_tvr.report.panels import panels_of_groups, panels_over_iou, panels_over_k
from standalone_eval.compare import compare_outcomes
from standalone_eval.significance import N_RESAMPLES

TEMPLATES = Path(__file__).resolve().parent / "templates"
TASK_TITLES = {
    "VCMR": "the moment in the whole corpus",
    "SVMR": "the moment in the given video",
    "VR": "the video",
}
LONGEST_TEXT = 2000  # characters of a sentence or a name
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")


def render(data: ReportData, made: datetime) -> str:
    """The page.

    Args:
        data: what it shows.
        made: when.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,  # sentences and names are other people's
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    others = data.files[1:]
    comparisons = compare_outcomes(data.first.outcomes, [file.outcomes for file in others], data.rule)
    return environment.get_template("report.html.j2").render(
        data=data,
        made=made,
        n_videos=len({query.vid_name for query in data.queries}),
        task_titles=TASK_TITLES,
        recalls={task: outcomes.recalls(data.rule) for task, outcomes in data.first.outcomes.items()},
        compared=list(zip(others, comparisons, strict=True)),
        n_comparisons=sum(map(len, comparisons)),
        n_resamples=N_RESAMPLES,
        curves={"over-iou": list(panels_over_iou(data)), "over-k": list(panels_over_k(data))},
        groups=[
            (grouping, list(panels_of_groups(data, grouping))) for grouping in groupings(data.queries, data.durations)
        ],
        galleries=galleries(data),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def shown(text: object) -> str:
    """Other people's text as it goes into the page: without what no page can hold, and of bearable length."""
    clean = _CONTROL.sub("\ufffd", str(text).encode("utf-8", "replace").decode("utf-8"))
    return clean if len(clean) <= LONGEST_TEXT else clean[:LONGEST_TEXT] + "…"
