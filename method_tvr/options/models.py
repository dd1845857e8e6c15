"""The models, by the names that `--model` takes, and the options that start elsewhere with one than with ReLoCLNet."""

from __future__ import annotations

from typing import Any

from method_tvr.dataset.clip_times import AVERAGE, BEST_IOU, CEIL_INSIDE, CUT, FLOOR_CEIL

RELOCLNET, XML, ZERO_SHOT = MODELS = ("reloclnet", "xml", "zero_shot")
UNTRAINED = (ZERO_SHOT,)  # have nothing to train
TITLES = {RELOCLNET: "ReLoCLNet", XML: "XML", ZERO_SHOT: "zero-shot"}  # that people call them by
STARTS: dict[str, dict[str, Any]] = {
    RELOCLNET: {},
    XML: {"hidden_size": 256, "n_heads": 4, "max_ctx_l": 100, "q2c_alpha": 20.0, "lw_fcl": 0.0, "lw_vcl": 0.0},
    ZERO_SHOT: {
        "ctx_mode": "video_sub",
        "max_ctx_l": 1 << 13,  # no positions limit it
        "max_desc_l": 77,  # as CLIP
        "trim_padding": True,
        "q2c_alpha": 10.0,  # videos come in the order of their scores, whatever it is
    },
}
# sets of options that go together: --recipe NAME; what is typed wins
RECIPES: dict[str, dict[str, Any]] = {
    "steady": {"span_init": "edge", "all_negatives": True, "bias_correction": True},
}
XML_SIGN = "span_predictor_type"  # what TVRetrieval's opt.json has, which names no model, and ReLoCLNet's does not
LONG_VIDEOS = {RELOCLNET: AVERAGE, XML: CUT, ZERO_SHOT: AVERAGE}  # of clips of a fixed length; others are averaged
LABEL_RULES = {  # where a model's rule is another than its dataset's
    (XML, FLOOR_CEIL): CEIL_INSIDE,  # as published
    (ZERO_SHOT, FLOOR_CEIL): BEST_IOU,  # its last clip is one of the span
}
