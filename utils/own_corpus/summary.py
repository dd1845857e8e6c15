"""What a run tells at its end: tables, what was left out, and the command to run next."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from utils.basic_utils import PROJECT_ROOT
from utils.own_corpus.layout import ALL, TEST, TRAIN, VAL
from utils.own_corpus.new_dataset import NewDataset
from utils.own_corpus.settings import context_of
from utils.pretrained.names import place_of
from utils.tables import aligned, file_size

SHOWN = 20
LINES = "Or train on what is said: the same extraction with --queries_from subtitles takes subtitle lines for queries."
NEW_LINE = " \\\n    "


def told(made: NewDataset) -> str:
    """What became of a dataset, as text."""
    parts = [_splits(made), _files(made)]
    parts.append(
        aligned([["step", "seconds"], *([step, f"{taken:.1f}"] for step, taken in made.steps.seconds.items())])
    )
    if made.notes:
        parts.append("Notes\n" + "\n".join(f"  {note}" for note in made.notes))
    if made.left_out:
        parts.append(_listed("Left out: queries", [str(query) for query in made.left_out]))
    if made.failed:
        reasons = [f"{name}: {reason}" for name, reason in made.failed.items()]
        parts.append(_listed("Left out: videos, tried again by the same command", reasons))
    if made.sentences:
        command = f"bash method_tvr/scripts/train.sh own {_shown(made.layout.out)} --model zero_shot"
        parts.append(_command("Search it without training:", [f"{command} --exp_id {made.layout.prefix}"]))
    return "\n\n".join([*parts, next_commands(made)])


def _splits(made: NewDataset) -> str:
    rows = [["split", "videos", "hours", "clips", "queries"]]
    for name, split in made.splits.items():
        hours = math.fsum(made.durations[vid_name] for vid_name in split.videos) / 3600
        clips = sum(made.n_clips[vid_name] for vid_name in split.videos)
        rows.append([name, *map(str, (len(split.videos), f"{hours:.3f}", clips, len(split.queries) or "-"))])
    title = f"Corpus {made.layout.prefix} in {made.layout.out}, clips of {made.layout.clip_length:g} s"
    return f"{title}\n{aligned(rows)}"


def _files(made: NewDataset) -> str:
    layout, splits = made.layout, made.splits
    paths = [layout.release(name) for name, split in splits.items() if split.queries]
    paths += [layout.durations, layout.video, layout.sub, *([layout.query] if paths else []), *made.sentences]
    return aligned([["file", "size"], *([str(path.relative_to(layout.out)), file_size(path)] for path in paths)])


def _listed(title: str, lines: Sequence[str]) -> str:
    more = [] if len(lines) <= SHOWN else [f"… {len(lines) - SHOWN} more, all in the made_by.json"]
    return f"{title} ({len(lines)})\n" + "\n".join(f"  {line}" for line in [*lines[:SHOWN], *more])


def next_commands(made: NewDataset) -> str:
    """What can be done with the dataset: training and then asking, or a search with a model that is there."""
    layout, splits = made.layout, made.splits
    files = [
        f"--video_duration_idx_path {_shown(layout.durations)}",
        f"--vid_feat_path {_shown(layout.video)}",
        f"--sub_bert_path {_shown(layout.sub)}",
    ]
    query_file = f"--desc_bert_path {_shown(layout.query)}"
    if TRAIN in splits and VAL in splits:
        training = [f"bash method_tvr/scripts/train.sh own {_shown(layout.out)} --exp_id {layout.prefix}"]
        ctx_mode, _ = context_of(vars(made.opt))
        # no other run's that begins so
        pattern = shlex.quote(f"custom-{ctx_mode}-{layout.prefix}-[0-9][0-9][0-9][0-9]_*")
        then = [f'bash method_tvr/scripts/search.sh {pattern} "a sentence"']
        page = [f"bash method_tvr/scripts/serve.sh {pattern}"]
        commands = {"Train on it:": training, "Then ask it:": then, "Or ask it on a page:": page}
        return "\n\n".join(_command(title, lines) for title, lines in commands.items())
    if TRAIN in splits:
        return "No training: that needs queries with times of two splits, one of them val, or of two videos at least."
    if TEST in splits:
        search = f"bash method_tvr/scripts/inference.sh MODEL_DIR {TEST}"
        lines = [search, f"--eval_path {_shown(layout.release(TEST))}", *files, query_file]
        return _command("Search it with a model that was trained on such features:", lines)
    asking = f'{ALL} --query "a sentence" --text_model {_shown_model(made.opt.text_model)}'
    asked = [f"bash method_tvr/scripts/inference.sh MODEL_DIR {asking}", *files]
    command = _command("Ask a model that was trained on such features:", asked)
    spoken = made.opt.subtitles is not None and made.opt.queries_from is None
    return f"{command}\n\n{LINES}" if spoken else command


def _command(title: str, lines: Sequence[str]) -> str:
    return f"{title}\n\n{NEW_LINE.join(lines)}"


def _shown(path: Path) -> str:
    """Relative to the project's folder where it is inside, from where commands find it; ready for a shell."""
    inside = path.is_relative_to(PROJECT_ROOT)
    return shlex.quote(str(path.relative_to(PROJECT_ROOT) if inside else path))


def _shown_model(name: str) -> str:
    """A model's name, or its folder as other paths are shown."""
    place = place_of(name)
    return _shown(Path(place)) if os.path.isdir(place) else shlex.quote(name)
