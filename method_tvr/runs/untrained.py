"""What training does with a model that needs none."""

from __future__ import annotations

from easydict import EasyDict

from method_tvr.config import final_inference_options
from method_tvr.inference import run_inference
from method_tvr.options.rules import ensure_dataset
from method_tvr.trained.untrained import make_untrained
from method_tvr.training.run_files import hand_on
from method_tvr.training.settings import results_dir


def run_untrained(opt: EasyDict) -> None:
    """Make its results folder, and evaluate it if there are annotations."""
    ensure_dataset(opt)
    folder = results_dir(opt)
    make_untrained(opt, folder)
    print(f"nothing to train: the model is in {folder}")
    if opt.eval_path is not None:
        run_inference(final_inference_options(opt))
    hand_on(folder)
