"""What a run's options mean for its model, its losses, its steps and where its results go."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from easydict import EasyDict

from method_tvr.dataset.feature_store import TEF_SIZE, FeatureStore
from method_tvr.model import LossSettings, ModelConfig, ReLoCLNet
from method_tvr.models import NAME, config_of
from method_tvr.optimization import BertAdam, parameter_groups
from method_tvr.options.values import OFF
from standalone_eval.metrics import ANY
from standalone_eval.ranking.ndcg import SHOWN_IOU, SHOWN_K
from utils.basic_utils import InputError
from utils.ranks import Ranks

BEST_NDCG = f"{SHOWN_IOU}-n{SHOWN_K}"
AMP_DTYPES = {"off": None, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class TrainSettings:
    """How a run trains: the options of these names."""

    seed: int
    span_init: str
    several: str
    lr: float
    lr_warmup_proportion: float
    wd: float
    bias_correction: bool
    n_epoch: int
    bsz: int
    max_ctx_l: int
    max_es_cnt: int
    stop_task: str
    eval_tasks_at_training: list[str]
    eval_untrained: bool
    grad_clip: float
    save_every: int
    detect_anomaly: bool
    lw_st_ed: float
    train_span_start_epoch: int
    hard_negative_start_epoch: int
    feature_cache: str
    trim_padding: bool
    cuda_graph: str
    amp: str

    @property
    def draws_moments(self) -> bool:
        """Whether a query that has several moments is trained on another one each epoch."""
        return self.several == ANY

    def to_longest(self, config: ModelConfig) -> bool:
        """Whether a batch's clips are padded to its longest video."""
        return self.trim_padding or config.pads_to_batch

    def losses(self, config: ModelConfig, epoch: int) -> LossSettings:
        """The config's loss settings with what only counts from an epoch of its own."""
        spans = self.train_span_start_epoch != OFF and epoch >= self.train_span_start_epoch
        hard = self.hard_negative_start_epoch != OFF and epoch >= self.hard_negative_start_epoch
        return replace(config, lw_st_ed=self.lw_st_ed if spans else 0.0, use_hard_negative=hard)

    def memory(self, config: ModelConfig) -> int:
        """Bytes that training takes on a GPU, about: copies of a step's inputs, and what layers leave for the way back.

        Plain steps and CUDA graphs each have memory of their own.
        """
        # measured: 2.4 GiB at the paper's sizes
        of_clip = 5 * sum(config.input_sizes.values()) + 60 * config.hidden_size
        return 2 * self.bsz * self.max_ctx_l * of_clip * 4

    def optimizer(self, model: ReLoCLNet, t_total: int) -> BertAdam:
        """The optimiser of a run of `t_total` steps."""
        groups = parameter_groups(model, self.wd)
        return BertAdam(groups, self.lr, self.lr_warmup_proportion, t_total, bias_correction=self.bias_correction)

    def uses_graphs(self, device: torch.device, ranks: Ranks) -> bool:
        """Whether steps are CUDA graphs: where nothing in a step is the host's, and its sizes come back.

        An `InputError` if they are to be, and cannot.
        """
        hinders = {
            "the steps are not on a GPU": device.type != "cuda",
            "several processes exchange tensors in a step": ranks.size > 1,
            "--detect_anomaly looks at each operation": self.detect_anomaly,
            "--feature_cache disk makes batches of any size": self.feature_cache == "disk",
        }
        reasons = [reason for reason, holds in hinders.items() if holds]
        if self.cuda_graph == "on" and reasons:
            raise InputError(f"--cuda_graph on: {reasons[0]}: leave it out")
        return self.cuda_graph != "off" and not reasons


def model_config(opt: EasyDict, features: FeatureStore) -> ModelConfig:
    """Sizes from the features, the rest from the options."""
    tef = TEF_SIZE if features.use_tef else 0
    sizes = {m: features.sizes[m] + tef for m in features.modalities}
    inputs = {"visual_input_size": sizes.get("video"), "sub_input_size": sizes.get("sub")}
    switches = {"merge_two_stream": not opt.no_merge_two_stream, "cross_att": not opt.no_cross_att}
    of_query = features.sizes.get("query", max(sizes.values()))  # a corpus without queries is searched without training
    return config_of({**opt, **switches, **inputs, NAME: opt.model, "query_input_size": of_query})


def stop_score(recalls: Mapping[str, float]) -> float:
    """What decides which epoch is best: R@k at the lowest k, of moments the sum over IoU 0.5 and 0.7; or an NDCG.

    Where recalls are reported at other thresholds only, the sum is over those. TVR-Ranking's NDCG is that at 20 and
    IoU 0.5.
    """
    if BEST_NDCG in recalls:
        return recalls[BEST_NDCG]
    lowest = min(int(name.rpartition("r")[2]) for name in recalls)
    names = [name for name in recalls if name.rpartition("r")[2] == str(lowest)]
    usual = [name for name in names if name.startswith(("0.5-", "0.7-"))]
    return sum(recalls[name] for name in usual or names)


def headline(metrics: Mapping[str, float], best: float) -> str:
    """What is said of an epoch, with the best score so far."""
    if BEST_NDCG in metrics:
        shown = ", ".join(f"{name} {ndcg:.4f}" for name, ndcg in metrics.items() if name.endswith(f"n{SHOWN_K}"))
        return f"{shown} (best at IoU {SHOWN_IOU}: {best:.4f})"
    shown = ", ".join(f"{name} {recall:.2f}" for name, recall in metrics.items() if name.endswith("r1"))
    return f"{shown} (best sum: {best:.2f})"


def results_dir(opt: EasyDict) -> Path:
    """Where a new run's results go."""
    run = f"{opt.dset_name}-{opt.ctx_mode}-{opt.exp_id}-{time.strftime('%Y_%m_%d_%H_%M_%S')}"
    return Path(opt.results_root) / run
