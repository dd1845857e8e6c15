"""What the tests of this folder share: options of a run on a tiny corpus."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.mini_corpus.files import query_feature_path, sub_feature_path, video_feature_path
from utils.mini_tvr import TINY, generate


@pytest.fixture(scope="session")
def corpus_options(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp("tiny") / "mini"
    generate(root, TINY)
    return tiny_options(root)


def tiny_options(root: Path) -> list[str]:
    """Options of a run of one epoch, in which nothing is left to chance."""
    options = {
        "dset_name": "tvr",
        "train_path": root / "mini_train_release.jsonl",
        "eval_path": root / "mini_val_release.jsonl",
        "video_duration_idx_path": root / "mini_video2dur_idx.json",
        "vid_feat_path": video_feature_path(root, "mini", "resnet_i3d"),
        "sub_bert_path": sub_feature_path(root, "mini"),
        "desc_bert_path": query_feature_path(root, "mini"),
        **{"max_ctx_l": 40, "hidden_size": 16, "n_heads": 2, "bsz": 16, "num_workers": 0, "exp_id": "check"},
        **{"drop": 0, "input_drop": 0, "n_epoch": 1, "lr": 1e-3},
        **{"hard_negative_start_epoch": 0, "hard_pool_size": 1},  # a GPU draws other numbers
    }
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]
