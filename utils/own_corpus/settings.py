"""Settings of training that fit a corpus by its number of queries, in a file that `train.sh … --settings` takes.

The paper's settings are made for the 87,000 queries of TVR: batches of 128, a learning rate of 1e-4, and an end after
11 epochs without a better one. Of 50 queries those are 12 steps, which learn nothing. The rule here, for n queries:

* From `AS_TVR` queries on, the paper's own.
* Below, batches of n / 60, a power of two from 8 to 128; at least 30 epochs, and as many as give 200 steps, without
  an early end, since few queries of evaluation say little about an epoch; three times the learning rate, and a span
  loss that weighs ten times as much, because so few steps learn nothing of starts and ends else. Padding is trimmed.
* Always, moments are labelled by `best_iou` and may be of any length, so that a video's last clip and whole short
  videos are found.

| queries | 20 | 50 | 500 | 5,000 | 50,000 |
| --- | --- | --- | --- | --- | --- |
| batch | 8 | 8 | 8 | 64 | 128 |
| steps an epoch | 3 | 7 | 63 | 79 | 391 |
| epochs | 67 | 30 | 30 | 30 | 100, early stopping |
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.basic_utils import read_json, write_json
from utils.own_corpus.layout import TRAIN, VAL, Layout
from utils.own_corpus.splits import Split

AS_TVR = 20_000  # queries
LEAST_STEPS, LEAST_EPOCHS = 200, 30
MAX_CTX_L = 128  # clips of a video that a model takes in by default
ANY_MOMENT = {"label_rule": "best_iou", "min_pred_l": 1, "max_pred_l": MAX_CTX_L + 1}


def fitted(n_queries: int) -> dict[str, Any]:
    """{option: value} of batches, steps and losses for so many training queries."""
    if n_queries >= AS_TVR:
        return {"bsz": 128, "lr": 1e-4, "n_epoch": 100, "max_es_cnt": 10, "lw_st_ed": 0.01}
    bsz = 2 ** min(max(math.floor(math.log2(max(n_queries, 1) / 60)), 3), 7)
    n_epoch = max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / math.ceil(max(n_queries, 1) / bsz)))
    return {"bsz": bsz, "lr": 3e-4, "n_epoch": n_epoch, "max_es_cnt": -1, "lw_st_ed": 0.1}


def context_of(options: Mapping[str, Any]) -> tuple[str, str]:
    """What a model sees of a corpus' videos, `--ctx_mode` and `--vid_feat_type`, by the options of its extraction."""
    ctx_mode = "video_tef" if options.get("subtitles") is None else "video_sub_tef"
    # only features with I3D's are normalised already
    return ctx_mode, "resnet" if options.get("i3d_weights") is None else "resnet_i3d"


def write_settings(layout: Layout, splits: Mapping[str, Split], earlier: object) -> dict[str, Any]:
    """Write the file of settings and return them, or {} for a corpus that cannot be trained on, which gets none.

    Files are named from the folder of the settings, so that the corpus may be moved. A file that is not as an
    `earlier` run wrote it is the user's, and stays.
    """
    edited = layout.settings.is_file() and read_json(layout.settings, "mend or remove it") != earlier
    if TRAIN not in splits or VAL not in splits:
        if not edited:
            layout.settings.unlink(missing_ok=True)
        return {}
    files = {
        "train_path": layout.release(TRAIN),
        "eval_path": layout.release(VAL),
        "video_duration_idx_path": layout.durations,
        "vid_feat_path": layout.video,
        "sub_bert_path": layout.sub,
        "desc_bert_path": layout.query,
    }
    settings: dict[str, Any] = {option: str(path.relative_to(layout.out)) for option, path in files.items()}
    settings |= {"clip_length": layout.clip_length, "no_norm_vfeat": bool(layout.i3d)}  # I3D's are normalised already
    settings |= ANY_MOMENT
    n_queries = len(splits[TRAIN].queries)
    settings |= {**fitted(n_queries), "trim_padding": n_queries < AS_TVR}
    if edited:
        print(f"note: {layout.settings}: was edited and is kept; remove it for settings that fit anew", file=sys.stderr)
    else:
        write_json(settings, layout.settings, indent=True)
    return settings


def write_zero_shot(layout: Layout, splits: Mapping[str, Split], spoken: bool) -> list[Path]:
    """Write the options of a model without training, which compares vectors of sentences; returns the file.

    `spoken`: whether there are subtitles.
    """
    files = {
        "video_duration_idx_path": layout.durations,
        "vid_feat_path": layout.video,
        "sub_bert_path": layout.sub_sentences,
        "desc_bert_path": layout.query_sentences,  # there is none without queries
        **({"eval_path": layout.release(VAL)} if VAL in splits and splits[VAL].queries else {}),
    }
    settings = {option: str(path.relative_to(layout.out)) for option, path in files.items()}
    more = {"model": "zero_shot", "ctx_mode": "video_sub" if spoken else "video", "clip_length": layout.clip_length}
    write_json({**settings, **more, **ANY_MOMENT}, layout.zero_shot, indent=True)
    return [layout.zero_shot]
