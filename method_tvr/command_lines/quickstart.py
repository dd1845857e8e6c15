"""The command line of report/quickstart.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the program."""
    parser = argparse.ArgumentParser(description="Compare a trained model with untrained ones and with chance")
    parser.add_argument("--model_dir", required=True, help="results folder of the training run")
    parser.add_argument("--metrics", required=True, help="its recalls on val, as standalone_eval saved them")
    parser.add_argument("--nms_metrics", required=True, help="the same after NMS")
    parser.add_argument("--nms_predictions", required=True, help="its predictions on val after NMS, VCMR and SVMR")
    parser.add_argument("--device", type=int, default=0, help="CUDA device, -1 for the CPU")
    return parser.parse_args(argv)
