"""From what was typed to all options of a run: defaults, opt.json and the dataset put in, and all of it checked.

Options reach a program as one EasyDict, `opt`, whose entries are what opt.json records. What was typed comes as
{name: value}, from a command line or from another program (`row.typed`, `row.as_typed`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from easydict import EasyDict

from method_tvr.dset_configs import DATASETS
from method_tvr.options import rules
from method_tvr.options.row import INFERENCE, MOVABLE, OWN, SAVED, SEARCH, SERVE, TRAIN, Option, Table, options_of
from method_tvr.options.saved import find_model_dir, keep_to_known_places, load_known
from utils.basic_utils import InputError


def training_options(table: Table, typed: Mapping[str, Any]) -> EasyDict:
    """Options of a training run, with the dataset's defaults filled in.

    Raises:
        InputError: options are missing or do not go together.
    """
    options = options_of(table, TRAIN)
    opt = _with_defaults(options, typed)
    if opt.resume is not None:
        return _resumed_options(options, opt, typed)
    if not opt.exp_id:
        raise InputError("--exp_id is missing: name this run, for example --exp_id reloclnet")
    if opt.dset_name is None:
        raise InputError(f"--dset_name is missing: one of {', '.join(sorted(DATASETS))}")
    _start_from_recipe(opt, typed)
    # a dataset's own evaluation annotations would not fit other training files
    own_corpus = "train_path" in typed and "eval_path" not in typed
    rules.finish(opt, typed, keep_without_eval=own_corpus)
    _check(options, opt)
    rules.check_training(opt)
    return opt


def _with_defaults(options: Mapping[str, Option], typed: Mapping[str, Any]) -> EasyDict:
    defaults = {name: option.default for name, option in options.items()}
    return EasyDict({**defaults, **typed})


def _check(options: Mapping[str, Option], opt: EasyDict) -> None:
    for name, option in options.items():
        option.check(opt[name])
    rules.check_together(opt)


def _start_from_recipe(opt: EasyDict, typed: Mapping[str, Any]) -> None:
    """Values that training on the dataset starts from, where nothing else was typed."""
    dataset = rules.dataset_of(opt)
    opt.update({name: value for name, value in dataset.recipe.items() if name not in typed})
    if dataset.recipe_note:
        values = " ".join(f"--{name} {opt[name]}" for name in dataset.recipe)
        print(f"note: the recipe of {dataset.name}, {values}, {dataset.recipe_note}", file=sys.stderr)


def _resumed_options(options: Mapping[str, Option], opt: EasyDict, typed: Mapping[str, Any]) -> EasyDict:
    """Options of the run in the results folder `opt.resume`, changed by what was typed.

    `resume` and `results_dir` of what comes back are the folder.

    Raises:
        InputError: there is no such run, or something typed would make it another run.
    """
    folder = find_model_dir(opt.resume, opt.results_root)
    saved = load_known(folder, options)
    for name in sorted(typed):
        if not options[name].on_resume and name in saved and opt[name] != saved[name]:
            raise InputError(
                f"--{name} {opt[name]}: the run in {folder} was started with {saved[name]}, and would be "
                "another one: leave the option out, or start a new run"
            )
    opt.update({name: value for name, value in saved.items() if name not in typed})
    if opt.dset_name not in DATASETS:
        raise InputError(f"{folder}/opt.json: dset_name {opt.dset_name!r} is unknown: mend the file")
    opt.resume = opt.results_dir = folder
    rules.finish(opt, typed, keep_without_eval=True)
    _check(options, opt)
    keep_to_known_places(opt, saved, set(typed), folder)
    return opt


def inference_options(table: Table, typed: Mapping[str, Any], program: str = INFERENCE) -> EasyDict:
    """Options of inference, a search or a server: typed ones, then those of the model folder's opt.json, then defaults.

    Raises:
        InputError: no such model folder, or options do not go together.
    """
    options = options_of(table, program)
    opt = _with_defaults(options, typed)
    opt.model_dir = find_model_dir(opt.model_dir, opt.results_root)
    saved = load_known(opt.model_dir, options_of(table, TRAIN))
    for name, value in saved.items():
        if options[name].inference in (SAVED, MOVABLE) and name not in typed:
            opt[name] = value
    if opt.dset_name not in DATASETS:
        raise InputError(f"{opt.model_dir}/opt.json: dset_name {opt.dset_name!r} is unknown: give --dset_name")
    if rules.dataset_of(opt).root is None:  # which spans to look for is said nowhere else
        opt.update({name: saved.get(name) for name in ("min_pred_l", "max_pred_l") if name not in typed})
    split_name = rules.dataset_of(opt).split_name
    if "eval_path" not in typed:
        same_split = split_name(saved.get("eval_split_name", "")) == split_name(opt.eval_split_name)
        opt.eval_path = saved.get("eval_path") if same_split else None
    opt.eval_id = opt.eval_id or opt.exp_id
    rules.check_encoded(opt, typed)
    if program == INFERENCE:
        rules.check_asking(opt, typed)
    rules.finish(opt, typed)
    _check(options, opt)
    keep_to_known_places(opt, saved, {*typed, "train_path"}, opt.model_dir)  # inference reads no training queries
    if program in (SEARCH, SERVE):
        rules.check_index(opt)
    if program == SERVE:
        rules.check_serving(opt)
    return opt


def handed_over(table: Table, opt: EasyDict) -> dict[str, Any]:
    """{name: value} that an evaluation of a run has from its training, since opt.json does not say it, or not anew."""
    return {name: opt[name] for name, option in options_of(table, TRAIN).items() if option.inference in (MOVABLE, OWN)}
