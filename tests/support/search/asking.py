"""Sentences asked of a model folder."""

from __future__ import annotations

import json
from pathlib import Path

from method_tvr.ask.asking import run_asking
from method_tvr.config import parse_inference_options


def options_of(folder: Path, **options: object) -> list[str]:
    argv = ["--model_dir", str(folder), "--device", "-1", "--num_workers", "0"]
    for name, value in options.items():
        for each in value if isinstance(value, list) else [value]:
            argv += [f"--{name}", str(each)]
    return argv


def ask(folder: Path, **options: object) -> list[dict]:
    """The answers that are written."""
    run_asking(parse_inference_options(options_of(folder, **options)))
    return answers_in(folder)["answers"]


def answers_in(folder: Path) -> dict:
    (path,) = folder.glob("inference_*_answers.json")
    return json.loads(path.read_text(encoding="utf-8"))
