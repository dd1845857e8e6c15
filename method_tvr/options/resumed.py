"""The options of a run that is gone on with: those of its opt.json, and what may be changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from easydict import EasyDict

from method_tvr.dset_configs import DATASETS
from method_tvr.options import rules
from method_tvr.options.row import Option
from method_tvr.options.saved import find_model_dir, keep_to_known_places, load_known
from utils.basic_utils import InputError


def resumed_options(
    options: Mapping[str, Option], opt: EasyDict, given: Mapping[str, Any], unsaid: Mapping[str, Any]
) -> EasyDict:
    """Options of the run in the results folder `opt.resume`, changed by what was typed.

    `resume` and `results_dir` of what comes back are the folder.

    Args:
        options: of training.
        opt: as typed, else the defaults.
        given: what was typed.
        unsaid: what runs were made with whose opt.json does not say.
    """
    folder = find_model_dir(opt.resume, opt.results_root)
    saved = {**unsaid, **load_known(folder, options)}
    for name in sorted(given):
        if not options[name].on_resume and name in saved and opt[name] != saved[name]:
            raise InputError(
                f"--{name} {opt[name]}: the run in {folder} was started with {saved[name]}, and would be "
                "another one: leave the option out, or start a new run"
            )
    opt.update({name: value for name, value in saved.items() if name not in given})
    if opt.dset_name not in DATASETS:
        raise InputError(f"{folder}/opt.json: dset_name {opt.dset_name!r} is unknown: mend the file")
    opt.resume = opt.results_dir = folder
    rules.finish(opt, given, keep_without_eval=True)
    rules.check(options, opt)
    keep_to_known_places(opt, saved, given, folder)
    return opt
