"""Whether a training run learns anything: one line where its steps are too few, or its result is that of chance.

Steps are too few below `FEWEST_STEPS`, or where their learning rates add up to less than half of the deviation that
weights are drawn with: Adam moves a weight by about the learning rate a step, so that none can leave its place then. A
result is that of chance where blind draws are as good in one of a hundred tries or more.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace

import torch
from easydict import EasyDict

from method_tvr.config import evaluation_rule, settings_of
from method_tvr.dataset.feature_store import FeatureStore
from method_tvr.inputs import Inputs
from method_tvr.optimization import warmup_linear
from method_tvr.report.chance import chance_level
from utils.feature_files.feature_file import FeatureFile
from utils.own_corpus.settings import fitted

FEWEST_STEPS = 50
BY_CHANCE = 0.01  # probability from which blind draws explain a result


def warn_of_few_steps(opt: EasyDict, n_queries: int) -> None:
    """Before a run: say that all the steps that it can take are too few, if they are."""
    few = _too_few(opt, n_queries, _planned_steps(opt, n_queries))
    if few:
        print(
            f"warning: training will end before anything is learnt: {few}: {_remedy(opt, n_queries)}", file=sys.stderr
        )


def warn_if_unlearnt(opt: EasyDict, steps: int, metrics: Mapping[str, Mapping[str, float]]) -> None:
    """After a run of so many steps: say that it has learnt next to nothing, if its steps or its result show that.

    `metrics` are those of its best model, {} where it was not evaluated.
    """
    inputs = replace(settings_of(Inputs, opt), feature_cache="disk")  # nothing of the features but their sizes is read
    with inputs.open_features(torch.device("cpu")) as features:
        n_queries = len(inputs.train_queries(features))
        as_chance = _as_chance(opt, inputs, features, metrics) if opt.stop_task in metrics else ""
    why = [as_chance, _too_few(opt, n_queries, steps)]
    if any(why):
        said = "; and ".join(filter(None, why))
        print(f"warning: this model has learnt next to nothing: {said}: {_remedy(opt, n_queries)}", file=sys.stderr)


def _planned_steps(opt: EasyDict, n_queries: int) -> int:
    return math.ceil(n_queries / opt.bsz) * opt.n_epoch


def _too_few(opt: EasyDict, n_queries: int, steps: int) -> str:
    """Why so many steps of a run are too few; "" if they are not."""
    planned = _planned_steps(opt, n_queries)
    rates = opt.lr * math.fsum(warmup_linear(step / planned, opt.lr_warmup_proportion) for step in range(steps))
    if steps >= FEWEST_STEPS and rates >= opt.initializer_range / 2:
        return ""
    return f"{steps} steps at --lr {opt.lr:g} are too few steps to move the weights far from where they were drawn"


def _as_chance(
    opt: EasyDict, inputs: Inputs, features: FeatureStore, metrics: Mapping[str, Mapping[str, float]]
) -> str:
    """How a result is no better than blind draws; "" if it is better."""
    rule = evaluation_rule(opt)
    rule = replace(rule, iou_thds=[min(rule.iou_thds)], ks=[min(rule.ks)])
    name = f"r{rule.ks[0]}" if opt.stop_task == "VR" else f"{rule.iou_thds[0]}-r{rule.ks[0]}"
    split = inputs.eval_split(features)
    with FeatureFile(features.paths[features.modalities[0]]) as file:
        n_clips = {video.vid_name: min(file.form(video.vid_name)[0], opt.max_ctx_l) for video in split.videos}
    chance = chance_level(split.queries, n_clips, inputs.clip_times, opt.min_pred_l, opt.max_pred_l, rule)
    n, recall, blind = len(split.queries), metrics[opt.stop_task][name], chance[opt.stop_task][name]
    n_right = round(recall * n / 100)
    if n_right == n or at_least(n_right, n, blind / 100) < BY_CHANCE:
        return ""
    return f"{opt.stop_task} {name} is {recall:.2f} %, {n_right} of {n} queries, where blind draws reach {blind:.2g} %"


def at_least(n_right: int, n: int, chance: float) -> float:
    """The probability that of n draws, right with probability `chance` each, at least `n_right` are right."""
    if n_right == 0 or chance >= 1:
        return 1.0
    if chance <= 0:
        return 0.0

    def probability(k: int) -> float:
        ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        return math.exp(ways + k * math.log(chance) + (n - k) * math.log1p(-chance))

    return max(0.0, 1 - math.fsum(map(probability, range(n_right))))


def _remedy(opt: EasyDict, n_queries: int) -> str:
    """The options that fit the number of queries, as far as the run had others."""
    others = [f"--{name} {value:g}" for name, value in fitted(n_queries).items() if opt[name] != value]
    if others:
        return f"for {n_queries} queries give {' '.join(others)}"
    return "check that queries, times and features belong together (bash data/check.sh), or give more queries"
