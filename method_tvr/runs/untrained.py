"""The results folder of a model that needs no training: its options and sizes, to be used as any trained model is."""

from __future__ import annotations

from pathlib import Path

from easydict import EasyDict

from method_tvr.config import final_inference_options
from method_tvr.dataset.feature_records import check_clip_length
from method_tvr.inference import run_inference
from method_tvr.inputs import Inputs
from method_tvr.options.rules import ensure_dataset, settings_of
from method_tvr.options.saved import save_options
from method_tvr.training.checkpoint import save_checkpoint
from method_tvr.training.run_files import hand_on
from method_tvr.training.saved_run import BEST
from method_tvr.training.settings import model_config, results_dir
from standalone_eval.files.parts import part_folder
from utils.basic_utils import InputError
from utils.dataset_files import usable_folder
from utils.model_utils import choose_device
from utils.storage.whole_folder import put_in_place


def run_untrained(opt: EasyDict) -> None:
    """What training does with a model that needs none: make its folder, and evaluate it if there are annotations."""
    ensure_dataset(opt)
    folder = results_dir(opt)
    make_untrained(opt, folder)
    if opt.eval_path is not None:
        run_inference(final_inference_options(opt))
    hand_on(folder)


def make_untrained(opt: EasyDict, folder: Path) -> None:
    """Make the results folder of a model without weights.

    An `InputError` if files are missing, the features are not vectors of one space, or the folder cannot be made.
    """
    inputs = settings_of(Inputs, opt)
    with inputs.open_features(choose_device(opt.device, opt.tf32)) as features:
        features.note_unknown_files()
        check_clip_length(features, inputs.clip_times)
        records, paths = features.records, ", ".join(map(str, features.paths.values()))
        try:
            model = model_config(opt, features).build()
        except ValueError as err:
            raise InputError(
                f"--model {opt.model}: {err}: give features of an encoder of images and text, and its vectors of "
                f"sentences (utils/README.md); these are {paths}"
            ) from err
    opt.results_dir = str(folder)
    with part_folder(usable_folder(folder.parent), f".{folder.name}.") as part:
        save_options(opt, part)
        save_checkpoint(part / BEST, model, 0, records)
        try:
            put_in_place(part, folder)
        except OSError as err:
            raise InputError(f"{folder}: cannot be made ({err.strerror}): choose another --exp_id") from err
    print(f"nothing to train: the model is in {folder}")
