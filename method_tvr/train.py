"""Training: epochs of steps, each epoch evaluated, the best model kept, and evaluated again at the end.

A run can be stopped at any moment and gone on with: all that changes while it runs is in the model, the optimiser, and
the trainer's `place`, `meter`, `negatives` and files, which `Trainer._save` writes and `Trainer._go_on_from` reads.
Several processes may train together (`ranks`): all run this code, and the main one writes files.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if not all(map(find_spec, ("method_tvr", "numpy", "torch", "easydict", "h5py", "orjson", "tqdm"))):
    print("error: the project or its packages are missing: type `source setup.sh` in its folder first", file=sys.stderr)
    sys.exit(2)

from method_tvr.config import OPTIONS, TRAIN, typed
from utils.basic_utils import parse_first

if __name__ == "__main__":
    parse_first(typed, OPTIONS, TRAIN)

import torch
from easydict import EasyDict
from torch.utils.data import RandomSampler

from method_tvr.config import RESUMED_MEMORY, TRAINING_MEMORY, final_inference_options, parse_train_options
from method_tvr.dataset.annotations import Query
from method_tvr.dataset.feature_records import check_clip_length, check_trained_on, joined_records
from method_tvr.dataset.loading import BatchLoader, copied_ahead
from method_tvr.dataset.split_facts import Reach, tell
from method_tvr.inference import evaluate_split, evaluation_of, mean_losses, run_inference
from method_tvr.inputs import Inputs
from method_tvr.model import LossSettings, ModelConfig
from method_tvr.options.models import UNTRAINED
from method_tvr.options.rules import ensure_dataset, settings_of
from method_tvr.options.saved import save_options
from method_tvr.options.values import OFF
from method_tvr.runs.learnt import Material, warn_if_unlearnt, warn_of_few_steps
from method_tvr.runs.untrained import run_untrained
from method_tvr.start_end_dataset import StartEndDataset
from method_tvr.training.checkpoint import save_checkpoint
from method_tvr.training.initial_model import initial_model
from method_tvr.training.launch import launch, naming_lost_processes, processes_to_launch, started
from method_tvr.training.loss_meter import LossMeter
from method_tvr.training.run_files import RunFiles, RunLog, hand_on, held
from method_tvr.training.saved_run import (
    BEST,
    Phase,
    Place,
    SavedRun,
    TrainingState,
    load_saved_run,
    mark_finished,
    queries_digest,
    save_training_state,
)
from method_tvr.training.settings import AMP_DTYPES, TrainSettings, headline, model_config, results_dir, stop_score
from method_tvr.training.step_guard import NotFiniteError, StepGuard, not_finite
from method_tvr.training.stopping import StopSignals, resumable
from method_tvr.training.training_step import AnomalyError, GraphedStep, TrainingStep
from utils.basic_utils import Closing, InputError, command_line, progress
from utils.model_utils import (
    choose_device,
    count_parameters,
    named_generator,
    named_seed,
    named_when_out_of_memory,
    seed_everything,
)
from utils.random_states import RandomStates
from utils.ranks import ALONE, Ranks


class Trainer(Closing):
    """One training run, whose features and files are open until it is closed.

    Args:
        opt: from `parse_train_options`, with `results_dir`.
        saved: for a run that is resumed, where it goes on; None: at its beginning.
        signals: what SIGTERM and Ctrl-C are told to.
        device: where this one computes, by default where the options say.

    Raises:
        InputError: something that the options name is missing or wrong; nothing has been written then.
    """

    def __init__(
        self,
        opt: EasyDict,
        saved: SavedRun | None = None,
        signals: StopSignals | None = None,
        ranks: Ranks = ALONE,
        device: torch.device | None = None,
    ) -> None:
        self.settings, self.inputs, self.ranks = settings_of(TrainSettings, opt), settings_of(Inputs, opt), ranks
        self.signals, self.resumed = signals or StopSignals(), opt.resume is not None
        seed_everything(opt.seed)
        ranks.seed_dropout(opt.seed)
        self.device = choose_device(opt.device, opt.tf32) if device is None else device
        with ExitStack() as opened:
            self.features = opened.enter_context(self.inputs.open_features(self.device))
            self._read_inputs(opt)
            self._set_up(model_config(opt, self.features), saved)
            ranks.check_equal(self.model.parameters(), "the model's parameters")
            known = saved.state.log_lengths if saved is not None else {} if self.resumed else None
            folder = Path(opt.results_dir)
            self.files = opened.enter_context(RunFiles(folder, known) if ranks.is_main else RunLog(folder))
            if not self.resumed and ranks.is_main:
                self._save_beginning(opt)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the files of features and results."""
        self._opened.close()

    def _save_beginning(self, opt: EasyDict) -> None:
        """Keep what a new run is made of; its folder is removed if there is no room."""
        try:
            save_options(opt, self.files.dir)
            self.files.save_code()
        except InputError:
            self.files.discard()
            raise

    def _read_inputs(self, opt: EasyDict) -> None:
        """Training queries, and the split that epochs are evaluated on."""
        self.features.note_unknown_files()
        check_clip_length(self.features, times := self.inputs.clip_times)
        self.feature_records = self.features.records
        self.train_set = StartEndDataset(self.inputs.train_queries(self.features), self.features, times)
        split, on = self.inputs.judged_split(self.features, opt.stop_task), (self.features, self.device, self.ranks)
        self.evaluation = None if split is None else evaluation_of(opt, split, *on)
        facts = self.inputs.facts_in_training(self.train_set.queries, split, self.features, Reach.of(opt))
        if self.ranks.is_main:
            tell(facts)
        self.queries_digest = queries_digest(self.train_set.queries, split.queries if split is not None else [])

    def _set_up(self, config: ModelConfig, saved: SavedRun | None) -> None:
        """Model and optimiser, as they are at the beginning or where a saved run goes on."""
        settings = self.settings
        self.model = initial_model(config, settings.seed, settings.span_init).to(self.device)
        self.guard = StepGuard.on(self.device, at_once=settings.detect_anomaly)
        self.steps_per_epoch = math.ceil(len(self.train_set) / settings.bsz)
        self.optimizer = settings.optimizer(self.model, self.steps_per_epoch * settings.n_epoch)
        self.place = Place(Phase.UNTRAINED if settings.eval_untrained and self.evaluation else Phase.TRAINING)
        self.negatives = torch.Generator(self.device)
        inputs = partial(self.train_set.inputs, device=self.device)
        step = TrainingStep(
            self.model, self.optimizer, inputs, self.negatives, settings.trim_padding, AMP_DTYPES[settings.amp],
            self.ranks, settings.grad_clip,
        )  # fmt: skip
        graphs, insist = settings.uses_graphs(self.device, self.ranks), settings.cuda_graph == "on"
        self.update = GraphedStep(step, self.device, insist) if graphs else step
        self.meter = self._epoch_start()
        if saved is not None:
            self._go_on_from(saved)
        if (decided := self.features.settle(settings.memory(config))) and self.ranks.is_main:
            print(decided)

    def run(self) -> None:
        """Train until the last epoch or until `max_es_cnt` epochs brought nothing better.

        The folder of a new run that fails before it had anything worth keeping is removed.
        """
        try:
            self._run()
        except Exception:
            if not self.resumed:
                self.files.discard()
            raise

    def _run(self) -> None:
        several = f"{self.ranks.size} processes, the main one on " if self.ranks.size > 1 else ""
        print(
            f"{count_parameters(self.model):,} parameters, {len(self.train_set):,} training queries, "
            f"{self.steps_per_epoch} steps an epoch, on {several}{self.device}; results in {self.files.dir}"
        )
        if self.resumed:
            print(f"going on with {self.place}", flush=True)
        if self.place.phase == Phase.UNTRAINED:
            self._evaluate(-1)
            self.place.phase = Phase.TRAINING
            self._save()
        while self.place.phase in (Phase.TRAINING, Phase.EVALUATION):
            if self.place.phase == Phase.TRAINING:
                try:
                    with self.signals.postponed(), torch.autograd.set_detect_anomaly(self.settings.detect_anomaly):
                        self._train_epoch()
                except NotFiniteError as err:
                    path = self.files.write_not_finite(err.report)
                    self.ranks.barrier()  # the first to end ends all
                    raise err.kept_in(path) from err
            else:
                self._end_epoch()

    def _train_epoch(self) -> None:
        """The steps of the epoch that are not done yet."""
        epoch = self.place.epoch
        self.model.train()
        if self.place.step == 0:
            self.meter = self._epoch_start()
        weights, bsz = self.settings.losses(self.model.config, epoch), self.settings.bsz
        if self.settings.draws_moments:
            self.train_set.draw_moments(named_generator(self.settings.seed, f"moments/{epoch}"))
        order = list(RandomSampler(self.train_set, generator=named_generator(self.settings.seed, f"shuffle/{epoch}")))
        left = order[self.place.step * bsz :]
        loader = BatchLoader(self.train_set, bsz, self.settings.to_longest(self.model.config), left, self.ranks)
        before: tuple[RandomStates, torch.Tensor] | None = None
        for _, batch in progress(copied_ahead(loader, self.device), f"epoch {epoch:03d}", total=len(loader)):
            if self.guard.checks_before_update:
                before = RandomStates.take(self.device), self.negatives.get_state()
            whole = [self.train_set.queries[i] for i in order[self.place.step * bsz :][:bsz]]
            try:
                self._step(whole, batch, weights)
            except NotFiniteError:
                if before is not None:  # the step ended before its update, but has drawn from the generators
                    chance, negatives = before
                    chance.give_back(self.device)
                    self.negatives.set_state(negatives)
                    self._save()
                raise
            asked, every = self.ranks.any(self.signals.asked is not None), self.settings.save_every
            due = every > 0 and self.place.step < self.steps_per_epoch and self.optimizer.steps_done % every == 0
            if asked or due:
                self._save()
            if asked:  # else a signal that came since then ends all together after the next step
                self.signals.raise_if_asked(anyone=True)
        self.guard.check()
        self.files.log_losses(epoch, self.meter.means(), "Train")
        self.place.phase = Phase.EVALUATION
        self._save()

    def _step(self, queries: Sequence[Query], batch: dict[str, Any], weights: LossSettings) -> None:
        """One update from this process's share of a batch; `queries` are those of the whole batch."""
        place = self.place
        self.files.log_scalar("Train/LR", self.settings.lr * self.optimizer.lr_multiplier(), self.optimizer.steps_done)
        try:
            values = self.update(batch, weights, partial(self.guard.watch, place.epoch, place.step, queries))
        except AnomalyError as err:
            raise not_finite(f"a gradient ({err})", place.epoch, place.step, queries, err.losses) from err
        self.meter.add(values.losses)
        place.step += 1

    def _end_epoch(self) -> None:
        """Evaluate the epoch that was trained, keep it if it is the best, and say what comes next."""
        epoch = self.place.epoch
        if self.evaluation is None:
            self._save_best(epoch)
        else:
            if self.evaluation.split.has_ground_truth:  # graded moments are in no pairs
                self._evaluate_losses(epoch)
            score = self._evaluate(epoch)
            if score > self.place.best_score:
                self.place.best_score, self.place.epochs_without_better = score, 0
                self._save_best(epoch)
                self.files.keep_latest()
            else:
                self.place.epochs_without_better += 1
        waited = self.place.epochs_without_better
        stops = OFF != self.settings.max_es_cnt < waited
        if stops:
            print(f"no better epoch for {waited}: stopping early after epoch {epoch}")
        if stops or epoch + 1 == self.settings.n_epoch:
            self.place.phase = Phase.INFERENCE
        else:
            self.place = replace(self.place, phase=Phase.TRAINING, epoch=epoch + 1, step=0)
        self._save()

    # ---------------------------------------------------------------- saving and going on

    def _epoch_start(self) -> LossMeter:
        """A new epoch's losses; its negatives are drawn by its own number."""
        self.negatives.manual_seed(named_seed(self.settings.seed, f"negatives/{self.place.epoch}"))
        return LossMeter(self.device)

    def _save(self) -> None:
        """Write all that the run needs to go on from here."""
        self.guard.check()
        chance = self.ranks.gather(RandomStates.take(self.device))
        if self.ranks.is_main:
            state = TrainingState(
                place=self.place,
                optimizer=self.optimizer.state_dict(),
                meter=self.meter.state_dict(),
                negatives=self.negatives.get_state(),
                chance=chance,
                log_lengths=self.files.lengths(),
                queries=self.queries_digest,
            )
            save_training_state(self.files.dir, self.model, state, self.feature_records)
        self.ranks.barrier()  # whoever ends the run next must not end it while the main process writes

    def _save_best(self, epoch: int) -> None:
        if self.ranks.is_main:
            save_checkpoint(self.files.dir / BEST, self.model, epoch, self.feature_records)

    def _go_on_from(self, saved: SavedRun) -> None:
        if saved.state.queries != self.queries_digest:
            raise InputError(
                f"{saved.path}: the run was started with other queries than {self.inputs.train_path} and "
                f"{self.inputs.eval_path} have now: put those back, or start a new run"
            )
        check_trained_on(saved.checkpoint.features, self.features, str(saved.path.parent))
        self.feature_records = joined_records(saved.checkpoint.features, self.feature_records)
        saved.restore(self.model, self.optimizer, self.meter, self.negatives, self.device, self.ranks.rank)
        self.place = place = saved.state.place
        done = place.epoch * self.steps_per_epoch + place.step
        beyond = place.epoch >= self.settings.n_epoch or place.step > self.steps_per_epoch
        if beyond or self.optimizer.steps_done != done:
            raise InputError(f"{saved.path}: is at {place}, where this run does not come: was opt.json changed?")

    # ---------------------------------------------------------------- evaluation

    def _evaluate_losses(self, epoch: int) -> None:
        assert self.evaluation is not None
        self.model.eval()
        settings = self.settings
        dataset = StartEndDataset(self.evaluation.split.queries, self.features, self.train_set.times)
        means = mean_losses(
            self.model, dataset, settings.bsz, settings.trim_padding, settings.losses(self.model.config, epoch),
            named_generator(settings.seed, f"eval_negatives/{epoch}", self.device), self.device, self.ranks,
        )  # fmt: skip
        self.files.log_losses(epoch, means, "Eval_Loss")

    def _evaluate(self, epoch: int) -> float:
        """Predictions and metrics of this epoch as `latest_*` files; returns the stop score."""
        assert self.evaluation is not None
        self.model.eval()
        task, tasks, inputs = self.settings.stop_task, self.settings.eval_tasks_at_training, self.inputs
        name = f"latest_{inputs.dset_name}_{inputs.eval_split_name}_predictions_{'_'.join(tasks)}.json"
        metrics = self.ranks.broadcast(evaluate_split(self.model, self.evaluation, tasks, self.files.dir / name))
        self.files.log_metrics(epoch, metrics)
        score = stop_score(metrics[task])
        print(f"epoch {epoch:03d}: {task} {headline(metrics[task], max(self.place.best_score, score))}", flush=True)
        return score


def run(opt: EasyDict, signals: StopSignals, ranks: Ranks = ALONE, device: torch.device | None = None) -> None:
    """A run from its beginning, or from where it was stopped, to the evaluation of its best model."""
    folder = Path(opt.results_dir)
    ranks.barrier()  # what others have left behind is read once the main process has the folder
    saved = load_saved_run(folder) if opt.resume is not None else None
    phase = saved.state.place.phase if saved is not None else None
    steps, about = saved.state.optimizer["steps_done"] if saved is not None else 0, None
    if phase == Phase.FINISHED:
        print(f"{folder}: the run is finished, there is nothing left to do")
        return
    if phase != Phase.INFERENCE:
        with Trainer(opt, saved, signals, ranks, device) as trainer:
            if ranks.is_main and opt.resume is None:
                warn_of_few_steps(opt, len(trainer.train_set))
            trainer.run()
            steps = trainer.optimizer.steps_done
            about = Material.of(len(trainer.train_set), trainer.evaluation, trainer.features)
    with held(folder) if ranks.is_main and opt.resume is None else nullcontext():  # a resumed run has it already
        metrics = {}
        if opt.eval_path is not None:
            print(f"evaluating the best model, without NMS and at --nms_thd {opt.final_nms_thd:g}")
            metrics = run_inference(final_inference_options(opt), ranks, device, told=phase != Phase.INFERENCE)
        if ranks.is_main:
            mark_finished(folder)
            warn_if_unlearnt(opt, about or Material.read(opt), steps, metrics)


@command_line
def main() -> None:
    opt = parse_train_options()
    if opt.model in UNTRAINED:
        return run_untrained(opt)
    if (n := processes_to_launch(opt.device_ids)) > 1:
        launch(sys.argv, n)
    with started(opt.device, opt.device_ids, opt.tf32) as (ranks, device):
        if opt.detect_anomaly and ranks.size > 1:
            raise InputError("--detect_anomaly finds operations of one process only: resume the run with one")
        if opt.resume is None:
            opt.results_dir = ranks.broadcast(str(results_dir(opt)))
        if ranks.is_main:
            ensure_dataset(opt)
        ranks.barrier()
        folder = Path(opt.results_dir)
        alone = held(folder) if opt.resume and ranks.is_main else nullcontext()
        anew = ", ".join(f"--{name}" for name in RESUMED_MEMORY)
        enough = named_when_out_of_memory(opt, TRAINING_MEMORY, f"; of these, a resumed run takes {anew} anew")
        with resumable(folder, device) as signals, naming_lost_processes(), alone, enough:
            run(opt, signals, ranks, device)
        if ranks.is_main:
            hand_on(folder)


if __name__ == "__main__":
    main()
