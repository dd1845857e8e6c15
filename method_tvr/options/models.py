"""The models, by the names that `--model` takes, and the options that start elsewhere with one than with ReLoCLNet."""

from __future__ import annotations

from typing import Any

from method_tvr.dataset.clip_times import AVERAGE, CEIL_INSIDE, CUT, FLOOR_CEIL

RELOCLNET, XML = MODELS = ("reloclnet", "xml")
TITLES = {RELOCLNET: "ReLoCLNet", XML: "XML"}  # that people call them by
STARTS: dict[str, dict[str, Any]] = {
    RELOCLNET: {},
    XML: {"hidden_size": 256, "n_heads": 4, "max_ctx_l": 100, "q2c_alpha": 20.0, "lw_fcl": 0.0, "lw_vcl": 0.0},
}
XML_SIGN = "span_predictor_type"  # what TVRetrieval's opt.json has, which names no model, and ReLoCLNet's does not
LONG_VIDEOS = {RELOCLNET: AVERAGE, XML: CUT}  # of clips of a fixed length; others are averaged
LABEL_RULES = {(XML, FLOOR_CEIL): CEIL_INSIDE}  # where a model's published rule is another than its dataset's
