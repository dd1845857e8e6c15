"""Where a search looks by default in a corpus of one's own: in all of its videos, whatever the run was evaluated on."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any

from easydict import EasyDict

from method_tvr.dataset.annotations import load_videos
from method_tvr.options.rules import dataset_of
from method_tvr.options.saved import find_path
from utils.own_corpus.layout import ALL


def look_everywhere(opt: EasyDict, saved: Mapping[str, Any], typed: Collection[str]) -> None:
    """Have a search of a corpus that is no dataset of this project look at all its videos, and say so in one line.

    A split that was typed stays, and so does the default where the corpus has no split of all; then it is said what is
    left out. The queries that the run was evaluated on are those of `all` too, unless others are typed.

    Args:
        opt: options of a search or a server; `eval_split_name` and `eval_path` are changed.
        saved: what the model's opt.json says.
    """
    path = opt.video_duration_idx_path
    if dataset_of(opt).root is not None or path is None or not find_path(path).is_file():
        return
    splits = {name: set(videos) for name, videos in load_videos(find_path(path)).items()}
    default, everywhere = opt.eval_split_name, set().union(*splits.values())
    if "eval_split_name" not in typed and ALL in splits:
        opt.eval_split_name = ALL
        less = splits.get(default, everywhere) < splits[ALL]
        alone = f"; --eval_split_name {default} looks in {len(splits[default])} of them alone" if less else ""
        print(f"note: all {len(splits[ALL])} videos of {path} are searched{alone}", file=sys.stderr)
    elif "eval_split_name" not in typed and splits.get(default, everywhere) < everywhere:
        print(
            f"note: of {len(everywhere)} videos in {path} only the {len(splits[default])} of split {default} are "
            f"searched: --eval_split_name names another, of {', '.join(splits)}",
            file=sys.stderr,
        )
    evaluated_on = splits.get(str(saved.get("eval_split_name")), set())
    if opt.eval_split_name == ALL and "eval_path" not in typed and evaluated_on <= splits.get(ALL, set()):
        opt.eval_path = saved.get("eval_path")
