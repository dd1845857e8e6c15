"""Training: epochs of steps, each epoch evaluated, the best model kept, and evaluated again at the end."""

from __future__ import annotations

import math
import shutil
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import torch
from easydict import EasyDict
from torch.utils.data import RandomSampler
from torch.utils.tensorboard import SummaryWriter

from method_tvr.checkpoint import save_checkpoint
from method_tvr.config import OFF, dataset_of, parse_inference_options, parse_train_options, save_options
from method_tvr.corpus import EvalSplit, ensure_dataset, load_eval_split, load_train_queries, open_features
from method_tvr.feature_store import TEF_SIZE, FeatureStore
from method_tvr.inference import evaluate_split, run_inference
from method_tvr.loading import BatchLoader
from method_tvr.model import LossSettings, ModelConfig, ReLoCLNet
from method_tvr.optimization import BertAdam, parameter_groups
from method_tvr.start_end_dataset import StartEndDataset, prepare_batch_inputs
from utils.basic_utils import InputError, command_line, progress, whole_file
from utils.model_utils import choose_device, count_parameters, named_generator, seed_everything

AMP_DTYPES = {"off": None, "bf16": torch.bfloat16}
LOSS_NAMES = ("loss_st_ed", "loss_fcl", "loss_vcl", "loss_neg_ctx", "loss_neg_q", "loss_overall")


def model_config(opt: EasyDict, features: FeatureStore) -> ModelConfig:
    """Sizes from the features, the rest from the options."""
    tef = TEF_SIZE if features.use_tef else 0
    return ModelConfig.from_dict(
        {
            **opt,
            "visual_input_size": features.sizes["video"] + tef,
            "sub_input_size": features.sizes["sub"] + tef,
            "query_input_size": features.sizes["query"],
        }
    )


def loss_settings(opt: EasyDict, config: ModelConfig, epoch: int) -> LossSettings:
    """The config's loss settings with what only counts from an epoch of its own."""
    spans = opt.train_span_start_epoch != OFF and epoch >= opt.train_span_start_epoch
    hard = opt.hard_negative_start_epoch != OFF and epoch >= opt.hard_negative_start_epoch
    return replace(config, lw_st_ed=opt.lw_st_ed if spans else 0.0, use_hard_negative=hard)


class LossMeter:
    """Mean of each loss term over an epoch, summed where the model is: reading it is the only wait for the device."""

    def __init__(self, device: torch.device) -> None:
        self._sums = {name: torch.zeros((), device=device) for name in LOSS_NAMES}
        self._batches = 0

    def add(self, losses: dict[str, torch.Tensor]) -> None:
        for name, loss in losses.items():
            self._sums[name] += loss
        self._batches += 1

    def means(self) -> dict[str, float]:
        """{name: mean}; 0 for terms that were off."""
        return {name: float(total) / max(1, self._batches) for name, total in self._sums.items()}


class RunFiles:
    """A run's results folder: logs, curves and the model.

    Args:
        results_dir: the folder, made here.
    """

    def __init__(self, results_dir: Path) -> None:
        self.dir = results_dir
        try:
            self.dir.mkdir(parents=True)
        except OSError as err:
            raise InputError(
                f"{results_dir}: cannot be made ({err.strerror}): choose another --results_root or --exp_id"
            ) from err
        self.writer = SummaryWriter(str(self.dir / "tensorboard_log"))

    def log_losses(self, epoch: int, losses: dict[str, float], tag: str) -> None:
        """TensorBoard curves of an epoch's losses, and its line in train.log.txt."""
        for name, value in losses.items():
            self.writer.add_scalar(f"{tag}/{name}", value, epoch)
        if tag == "Train":
            line = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
            self._append("train.log.txt", f"[Epoch] {epoch:03d} [Loss] {line}")

    def log_metrics(self, epoch: int, metrics: dict[str, Any]) -> None:
        """TensorBoard curves of an epoch's recalls, and its line in eval.log.txt."""
        for task in ("VCMR", "SVMR"):
            for thd in sorted({name.split("-")[0] for name in metrics.get(task, {})}):
                curves = {name: value for name, value in metrics[task].items() if name.startswith(f"{thd}-")}
                self.writer.add_scalars(f"Eval/{task}-{thd}", curves, epoch)
        if "VR" in metrics:
            self.writer.add_scalars("Eval/VR", metrics["VR"], epoch)
        self._append("eval.log.txt", f"[Epoch] {epoch:03d} [Metrics] {orjson.dumps(metrics).decode()}")

    def _append(self, name: str, line: str) -> None:
        with open(self.dir / name, "a") as log:
            log.write(f"{time.strftime('%Y_%m_%d_%H_%M_%S')} {line}\n")

    def discard_if_empty(self) -> None:
        """Remove the folder of a run that failed before it had a model: it holds nothing that is worth keeping."""
        self.writer.close()
        if not (self.dir / "model.ckpt").exists():
            shutil.rmtree(self.dir)

    def save_code(self) -> None:
        """Keep the method's code beside what it computed, in code.zip."""
        package = Path(__file__).resolve().parent
        with whole_file(self.dir / "code.zip") as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for source in sorted([*package.glob("*.py"), *package.glob("scripts/*.sh")]):
                archive.write(source, Path(package.name) / source.relative_to(package))


class Trainer:
    """One training run.

    Args:
        opt: options from `parse_train_options`.

    Raises:
        InputError: something that the options name is missing or wrong; nothing has been written then.
    """

    def __init__(self, opt: EasyDict) -> None:
        self.opt = opt
        seed_everything(opt.seed)
        self.device = choose_device(opt.device)
        self.features = open_features(opt, self.device)
        self.features.note_unknown_files()
        self.train_set = StartEndDataset(load_train_queries(opt, self.features), self.features, opt.clip_length)
        self.eval_split: EvalSplit | None = None
        if opt.eval_path is not None:
            self.eval_split = load_eval_split(opt, self.features)
            if not self.eval_split.has_ground_truth:
                raise InputError(f"{opt.eval_path}: has no ground truth (vid_name and ts): evaluate on another split")
        config = model_config(opt, self.features)
        self.model = ReLoCLNet(config, named_generator(opt.seed, "initialisation")).to(self.device)
        self.steps_per_epoch = math.ceil(len(self.train_set) / opt.bsz)
        self.optimizer = BertAdam(
            parameter_groups(self.model, opt.wd),
            lr=opt.lr,
            warmup=opt.lr_warmup_proportion,
            t_total=self.steps_per_epoch * opt.n_epoch,
        )
        self.best_score = -math.inf
        self.epochs_without_better = 0
        self.files = RunFiles(Path(opt.results_dir))
        save_options(opt, self.files.dir)
        self.files.save_code()

    def run(self) -> None:
        """Train until the last epoch or until `max_es_cnt` epochs brought nothing better."""
        print(
            f"{count_parameters(self.model):,} parameters, {len(self.train_set):,} training queries, "
            f"{self.steps_per_epoch} steps an epoch, on {self.device}; results in {self.files.dir}"
        )
        if self.opt.eval_untrained and self.eval_split is not None:
            self._evaluate(-1)
        for epoch in range(self.opt.n_epoch):
            self._train_epoch(epoch)
            if self.eval_split is None:
                save_checkpoint(self.files.dir / "model.ckpt", self.model, epoch)
                continue
            self._evaluate_losses(epoch)
            self._keep_if_better(epoch, self._evaluate(epoch))
            if OFF != self.opt.max_es_cnt < self.epochs_without_better:
                print(f"no better epoch for {self.epochs_without_better}: stopping early after epoch {epoch}")
                break
        self.files.writer.close()

    def _train_epoch(self, epoch: int) -> None:
        self.model.train()
        settings = loss_settings(self.opt, self.model.config, epoch)
        negatives = named_generator(self.opt.seed, f"negatives/{epoch}")
        shuffle = RandomSampler(self.train_set, generator=named_generator(self.opt.seed, f"shuffle/{epoch}"))
        meter = LossMeter(self.device)
        batches = BatchLoader(self.train_set, self.opt.bsz, self.opt, sampler=shuffle)
        for _, batch in progress(batches, f"epoch {epoch:03d}"):
            inputs = prepare_batch_inputs(batch, self.device, non_blocking=True)
            loss, losses = self.model(inputs, settings, negatives, self.opt.trim_padding, AMP_DTYPES[self.opt.amp])
            self.optimizer.zero_grad(set_to_none=True)
            if loss.requires_grad:  # a last batch of one query has no ranking loss, and maybe no other is on
                loss.backward()
            if self.opt.grad_clip != OFF:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.opt.grad_clip)
            self.files.writer.add_scalar(
                "Train/LR", self.opt.lr * self.optimizer.lr_multiplier(), self.optimizer.steps_done
            )
            self.optimizer.step()
            meter.add(losses)
        means = meter.means()
        if not math.isfinite(means["loss_overall"]):
            raise InputError(f"the loss of epoch {epoch} is not finite ({means}): lower --lr or check the features")
        self.files.log_losses(epoch, means, "Train")

    @torch.no_grad()
    def _evaluate_losses(self, epoch: int) -> None:
        assert self.eval_split is not None
        self.model.eval()
        settings = loss_settings(self.opt, self.model.config, epoch)
        negatives = named_generator(self.opt.seed, f"eval_negatives/{epoch}")
        meter = LossMeter(self.device)
        dataset = StartEndDataset(self.eval_split.queries, self.features, self.opt.clip_length)
        for _, batch in progress(BatchLoader(dataset, self.opt.bsz, self.opt), "losses on the evaluation split"):
            inputs = prepare_batch_inputs(batch, self.device)
            _, losses = self.model(inputs, settings, negatives, self.opt.trim_padding)
            meter.add(losses)
        self.files.log_losses(epoch, meter.means(), "Eval_Loss")

    def _evaluate(self, epoch: int) -> float:
        """Predictions and metrics of this epoch as `latest_*` files; returns the stop score."""
        assert self.eval_split is not None
        opt = self.opt
        self.model.eval()
        tasks = opt.eval_tasks_at_training
        metrics = evaluate_split(
            self.model, self.eval_split, self.features, opt, tasks, self.device, self._prediction_path("latest")
        )
        self.files.log_metrics(epoch, metrics)
        task = opt.stop_task
        score = metrics[task]["r1"] if task == "VR" else metrics[task]["0.5-r1"] + metrics[task]["0.7-r1"]
        recalls = ", ".join(f"{name} {metrics[task][name]:.2f}" for name in metrics[task] if name.endswith("r1"))
        print(f"epoch {epoch:03d}: {task} {recalls} (best so far {max(self.best_score, score):.2f})", flush=True)
        return score

    def _prediction_path(self, which: str) -> Path:
        opt = self.opt
        tasks = "_".join(opt.eval_tasks_at_training)
        return self.files.dir / f"{which}_{opt.dset_name}_{opt.eval_split_name}_predictions_{tasks}.json"

    def _keep_if_better(self, epoch: int, score: float) -> None:
        if score <= self.best_score:
            self.epochs_without_better += 1
            return
        self.best_score = score
        self.epochs_without_better = 0
        save_checkpoint(self.files.dir / "model.ckpt", self.model, epoch)
        for latest in self.files.dir.glob("latest_*"):
            latest.replace(latest.with_name(latest.name.replace("latest_", "best_", 1)))


def results_dir(opt: EasyDict) -> Path:
    """Where a new run's results go."""
    run = f"{opt.dset_name}-{opt.ctx_mode}-{opt.exp_id}-{time.strftime('%Y_%m_%d_%H_%M_%S')}"
    return Path(opt.results_root) / run


def final_inference_options(opt: EasyDict) -> EasyDict:
    """Options of the evaluation that ends training: the best model, with NMS as well."""
    argv = ["--model_dir", opt.results_dir, "--nms_thd", str(dataset_of(opt).final_nms_thd)]
    for name in (
        "eval_path", "eval_split_name", "device", "num_workers", "eval_query_bsz", "eval_context_bsz", "min_pred_l",
        "max_pred_l", "retrieval_dtype", "retrieval_bsz", "feature_cache",
    ):  # fmt: skip
        argv += [f"--{name}", str(opt[name])]
    for name in ("debug", "no_core_driver", "no_pin_memory", "nms_from_all"):
        argv += [f"--{name}"] if opt[name] else []
    argv += ["--feature_cache_dir", opt.feature_cache_dir] if opt.feature_cache_dir else []
    argv += ["--tasks", *opt.eval_tasks_at_training]
    return parse_inference_options(argv)


def train(opt: EasyDict) -> None:
    """One training run; a folder in which it left no model is removed again when it fails."""
    trainer = Trainer(opt)
    try:
        trainer.run()
    except Exception:
        trainer.files.discard_if_empty()
        raise


@command_line
def main() -> None:
    """Command line of training."""
    opt = parse_train_options()
    opt.results_dir = str(results_dir(opt))
    ensure_dataset(opt)
    train(opt)
    if opt.eval_path is not None:
        print(f"evaluating the best model, without NMS and at --nms_thd {dataset_of(opt).final_nms_thd:g}")
        run_inference(final_inference_options(opt))


if __name__ == "__main__":
    main()
