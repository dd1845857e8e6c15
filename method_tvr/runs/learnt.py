"""Whether a training run learns anything: one line where its steps are too few, or its result is that of chance.

Steps are too few below `FEWEST_STEPS`, or where their learning rates add up to less than half of the deviation that
weights are drawn with: Adam moves a weight by about the learning rate a step, so that none can leave its place then. A
result of n queries is that of chance where blind draws are as good with a probability above 1 / (2 n): the more queries
there are, the surer it has to be.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from easydict import EasyDict

from method_tvr.dataset.feature_store import FeatureStore
from method_tvr.inference import Evaluation
from method_tvr.inputs import EvalSplit, Inputs
from method_tvr.optimization import warmup_linear
from method_tvr.options.rules import evaluation_rule, settings_of
from method_tvr.report.chance import chance_level
from utils.feature_files.feature_file import FeatureFile
from utils.own_corpus.settings import fitted

FEWEST_STEPS = 50


@dataclass(frozen=True)
class Material:
    """What a run trains and is evaluated on."""

    n_queries: int  # to train on
    split: EvalSplit | None  # to evaluate on, if any
    features: Path  # of the videos, clips in rows

    @classmethod
    def of(cls, n_queries: int, evaluation: Evaluation | None, features: FeatureStore) -> Material:
        """Of a run that has read it."""
        split = evaluation.split if evaluation is not None else None
        return cls(n_queries, split, features.paths[features.modalities[0]])

    @classmethod
    def read(cls, opt: EasyDict) -> Material:
        """From the files that the options name, as a run reads them."""
        inputs = replace(settings_of(Inputs, opt), feature_cache="disk")  # of the features, sizes alone are needed
        with inputs.open_features(torch.device("cpu")) as features:
            split = None if opt.eval_path is None else inputs.eval_split(features)
            return cls(len(inputs.train_queries(features)), split, features.paths[features.modalities[0]])


def warn_of_few_steps(opt: EasyDict, n_queries: int) -> None:
    """Before a run: say that all the steps that it can take are too few, if they are."""
    few = _too_few(opt, n_queries, _planned_steps(opt, n_queries))
    if few:
        print(
            f"warning: training will end before anything is learnt: {few}: {_remedy(opt, n_queries)}", file=sys.stderr
        )


def warn_if_unlearnt(opt: EasyDict, about: Material, steps: int, metrics: Mapping[str, Mapping[str, float]]) -> None:
    """After a run of so many steps: say that it has learnt next to nothing, if its steps or its result show that.

    `metrics` are those of its best model, {} where it was not evaluated.
    """
    why = [_as_chance(opt, about, metrics), _too_few(opt, about.n_queries, steps)]
    if any(why):
        said, remedy = "; and ".join(filter(None, why)), _remedy(opt, about.n_queries)
        print(f"warning: this model has learnt next to nothing: {said}: {remedy}", file=sys.stderr)


def _planned_steps(opt: EasyDict, n_queries: int) -> int:
    return math.ceil(n_queries / opt.bsz) * opt.n_epoch


def _too_few(opt: EasyDict, n_queries: int, steps: int) -> str:
    """Why so many steps of a run are too few; "" if they are not."""
    planned = _planned_steps(opt, n_queries)
    rates = opt.lr * math.fsum(warmup_linear(step / planned, opt.lr_warmup_proportion) for step in range(steps))
    if steps >= FEWEST_STEPS and rates >= opt.initializer_range / 2:
        return ""
    return f"{steps} steps at --lr {opt.lr:g} are too few steps to move the weights far from where they were drawn"


def _as_chance(opt: EasyDict, about: Material, metrics: Mapping[str, Mapping[str, float]]) -> str:
    """How a result is no better than blind draws; "" if it is better, or there is none."""
    if about.split is None or about.split.graded is not None or opt.stop_task not in metrics:
        return ""
    rule, times = evaluation_rule(opt), settings_of(Inputs, opt).clip_times
    rule = replace(rule, iou_thds=[min(rule.iou_thds)], ks=[min(rule.ks)])
    name = f"r{rule.ks[0]}" if opt.stop_task == "VR" else f"{rule.iou_thds[0]}-r{rule.ks[0]}"
    queries, videos = about.split.queries, about.split.videos
    with FeatureFile(about.features) as file:
        n_clips = {video.vid_name: min(file.form(video.vid_name)[0], opt.max_ctx_l) for video in videos}
    chance = chance_level(queries, n_clips, times, opt.min_pred_l, opt.max_pred_l, rule)
    n, recall, blind = len(queries), metrics[opt.stop_task][name], chance[opt.stop_task][name]
    n_right = round(recall * n / 100)
    if n_right == n or at_least(n_right, n, blind / 100) < 1 / (2 * n):
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
