"""The results folder of a model that needs no training: its options and sizes, to be used as any trained model is."""

from __future__ import annotations

from pathlib import Path

from easydict import EasyDict

from method_tvr.dataset.feature_records import check_clip_length
from method_tvr.inputs import Inputs
from method_tvr.options.rules import settings_of
from method_tvr.options.saved import find_path, save_options
from method_tvr.training.checkpoint import save_checkpoint
from method_tvr.training.saved_run import BEST
from method_tvr.training.settings import model_config
from standalone_eval.files.parts import part_folder
from utils.basic_utils import InputError
from utils.dataset_files import usable_folder
from utils.model_utils import choose_device
from utils.storage.whole_folder import put_in_place


def make_untrained(opt: EasyDict, folder: Path, replace: bool = False) -> None:
    """Make the results folder of a model without weights; one that is there is an error, or is to be replaced.

    An `InputError` if files are missing, the features are not vectors of one space, or the folder cannot be made.
    """
    inputs = settings_of(Inputs, opt)
    with_queries = find_path(opt.desc_bert_path).is_file()  # a corpus may have none yet
    with inputs.open_features(choose_device(opt.device, opt.tf32), with_queries) as features:
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
            put_in_place(part, folder, (lambda: True) if replace else None)
        except OSError as err:
            raise InputError(f"{folder}: cannot be made ({err.strerror}): choose another --exp_id") from err
