"""Training: what it writes, when it saves and stops, and that one seed gives one model."""

import json
import re
import zipfile
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from method_tvr import train
from method_tvr.config import parse_train_options
from method_tvr.model import ModelConfig
from method_tvr.optimization import BertAdam
from method_tvr.options.rules import settings_of
from method_tvr.options.saved import save_options
from method_tvr.train import Trainer, TrainSettings, final_inference_options
from method_tvr.training.checkpoint import load_checkpoint
from tests.support.runs.results import TIME, losses_of, metrics_of
from utils.mini_tvr import TINY

RECALLS = {f"{thd}-r{k}" for thd in ("0.5", "0.7") for k in (1, 5, 10, 100)}
LOSSES = ["loss_st_ed", "loss_fcl", "loss_vcl", "loss_neg_ctx", "loss_neg_q", "loss_overall"]
N_TRAIN = TINY.n_train * TINY.queries_per_video


@pytest.fixture
def options(tiny_corpus, tmp_path):
    """Options of a training run on the tiny corpus with a results folder of its own."""

    def options(**typed: object):
        typed = {"exp_id": "x", "n_epoch": 2, "bsz": 64, **typed}
        opt = parse_train_options(tiny_corpus.options(**typed))
        opt.results_dir = str(tmp_path / f"run_{len(list(tmp_path.iterdir()))}")
        return opt

    return options


def run(opt) -> Path:
    with Trainer(opt) as trainer:
        trainer.run()
    return Path(opt.results_dir)


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / "model.ckpt").state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def finished(tiny_corpus, tmp_path_factory):
    """A whole run as the command line does it: its folder and options."""
    root = tmp_path_factory.mktemp("results")
    argv = tiny_corpus.options(exp_id="whole", results_root=root, n_epoch=2, bsz=32, eval_untrained=True, lr=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py", *argv])
        train.main()
    (folder,) = root.iterdir()
    return folder


def test_the_results_folder_is_named_after_the_run(finished):
    assert re.fullmatch(rf"tvr-video_sub_tef-whole-{TIME}", finished.name)


def test_all_artefacts_are_there_and_nothing_else(finished):
    stem = "tvr_val_predictions_VCMR_SVMR_VR"
    final = "inference_tvr_val_whole_predictions_VCMR_SVMR_VR"
    expected = {"opt.json", "code.zip", "model.ckpt", "last.ckpt", "train.log.txt", "eval.log.txt", "tensorboard_log"}
    expected |= {f"best_{stem}.json", f"best_{stem}_metrics.json"}
    expected |= {f"{final}{nms}{kind}.json" for nms in ("", "_nms_thd_0.5") for kind in ("", "_metrics")}
    latest = {f"latest_{stem}.json", f"latest_{stem}_metrics.json"}  # there unless the last epoch was the best
    found = {path.name for path in finished.iterdir()}
    assert expected <= found <= expected | latest
    assert len(found & latest) != 1


def test_opt_json_records_every_option(finished, tiny_corpus):
    saved = json.loads((finished / "opt.json").read_text())
    opt = parse_train_options(tiny_corpus.options(exp_id="whole"))
    assert set(saved) == {*opt, "results_dir"}
    assert saved["results_dir"] == str(finished)
    assert (saved["bsz"], saved["lr"], saved["hidden_size"], saved["eval_untrained"]) == (32, 0.01, 8, True)


def test_code_zip_holds_the_methods_code(finished):
    with zipfile.ZipFile(finished / "code.zip") as archive:
        names = set(archive.namelist())
        assert archive.read("method_tvr/model.py") == Path(train.__file__).with_name("model.py").read_bytes()
    assert {"method_tvr/train.py", "method_tvr/scripts/train.sh", "method_tvr/dataset/annotations.py"} <= names
    assert {"method_tvr/report/templates/report.js", "method_tvr/web/page/page.css"} <= names
    assert not any("results/" in name or name.endswith(".pyc") for name in names)


def test_the_model_is_that_of_the_best_epoch_and_has_sizes_with_tef(finished):
    checkpoint = load_checkpoint(finished / "model.ckpt")
    assert checkpoint.config.visual_input_size == TINY.vid_feat_size + 2
    assert checkpoint.config.sub_input_size == TINY.text_feat_size + 2
    assert checkpoint.config.query_input_size == TINY.text_feat_size
    scores = {epoch: m["VCMR"]["0.5-r1"] + m["VCMR"]["0.7-r1"] for epoch, m in metrics_of(finished) if epoch >= 0}
    assert checkpoint.epoch == max(scores, key=scores.get)  # the first of equals
    best = json.loads((finished / "best_tvr_val_predictions_VCMR_SVMR_VR_metrics.json").read_text())
    assert best == dict(metrics_of(finished))[checkpoint.epoch]


def test_the_best_model_is_evaluated_again_at_the_end(finished):
    best = json.loads((finished / "best_tvr_val_predictions_VCMR_SVMR_VR_metrics.json").read_text())
    final = json.loads((finished / "inference_tvr_val_whole_predictions_VCMR_SVMR_VR_metrics.json").read_text())
    assert final == best
    nms = json.loads((finished / "inference_tvr_val_whole_predictions_VCMR_SVMR_VR_nms_thd_0.5.json").read_text())
    assert list(nms) == ["video2idx", "VCMR", "SVMR"]


def test_logs_have_a_line_for_each_epoch(finished):
    for losses in losses_of(finished):
        assert list(losses) == LOSSES
        assert losses["loss_overall"] == pytest.approx(sum(losses[name] for name in LOSSES[:-1]), abs=5e-4)
    assert len(losses_of(finished)) == 2
    assert [epoch for epoch, _ in metrics_of(finished)] == [-1, 0, 1]
    for _, metrics in metrics_of(finished):
        tasks = ("VCMR", "SVMR", "VR")
        assert set(metrics) == {*tasks, *(f"{task}_by_type" for task in tasks)}
        assert set(metrics["VCMR"]) == set(metrics["SVMR"]) == RECALLS


def test_tensorboard_has_the_curves(finished):
    curves = {}
    for folder in [finished / "tensorboard_log", *(finished / "tensorboard_log").iterdir()]:
        if folder.is_dir() and list(folder.glob("events*")):
            events = EventAccumulator(str(folder)).Reload()
            curves |= {
                (folder.name, tag): [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
            }
    plain = {tag: values for (folder, tag), values in curves.items() if folder == "tensorboard_log"}
    assert set(plain) == {"Train/LR", *(f"{kind}/{name}" for kind in ("Train", "Eval_Loss") for name in LOSSES)}
    n_steps = 2 * -(-N_TRAIN // 32)
    assert len(plain["Train/LR"]) == n_steps
    assert plain["Train/LR"][0] == 0
    assert plain["Train/LR"][1] == pytest.approx(0.01 * (1 - 1 / n_steps) / 0.99)
    for epoch, losses in enumerate(losses_of(finished)):
        for name, value in losses.items():
            assert plain[f"Train/{name}"][epoch] == pytest.approx(value, abs=1e-4)
    recalls = {tag for _, tag in curves} - set(plain)
    assert recalls == {*(f"Eval/{task}-{thd}" for task in ("VCMR", "SVMR") for thd in ("0.5", "0.7")), "Eval/VR"}
    assert len(curves["Eval_VR_r1", "Eval/VR"]) == 3


def test_one_seed_gives_one_model_and_another_seed_another(options):
    first, again, other = (run(options(seed=seed, lr=0.01, eval_path=None)) for seed in (1, 1, 2))
    assert same(state_of(first), state_of(again))
    assert losses_of(first) == losses_of(again)
    assert not same(state_of(first), state_of(other))


def test_workers_change_nothing(options):
    alone, helped = (run(options(num_workers=n, feature_cache="disk", eval_path=None)) for n in (0, 1))
    assert same(state_of(alone), state_of(helped))


def test_reading_from_disk_changes_nothing(options):
    modes = ("disk", "ram", "device")
    disk, ram, device = (state_of(run(options(feature_cache=mode, eval_path=None))) for mode in modes)
    assert same(disk, ram)
    assert same(disk, device)


def test_training_lowers_the_loss(options):
    losses = losses_of(run(options(n_epoch=6, lr=0.02, drop=0, input_drop=0, eval_path=None, bsz=32)))
    assert losses[-1]["loss_overall"] < 0.95 * losses[0]["loss_overall"]


def test_the_span_loss_waits_for_its_epoch(options):
    losses = losses_of(run(options(n_epoch=3, train_span_start_epoch=2, eval_path=None)))
    assert [epoch["loss_st_ed"] > 0 for epoch in losses] == [False, False, True]
    never = losses_of(run(options(train_span_start_epoch=-1, eval_path=None)))
    assert all(epoch["loss_st_ed"] == 0 for epoch in never)


def test_hard_negatives_wait_for_their_epoch(options):
    def hard(**typed: object) -> list[bool]:
        settings = settings_of(TrainSettings, options(**typed))
        return [settings.losses(ModelConfig(), epoch).use_hard_negative for epoch in range(4)]

    assert hard(hard_negative_start_epoch=2) == [False, False, True, True]
    assert hard(hard_negative_start_epoch=-1) == [False] * 4
    assert hard(hard_negative_start_epoch=0) == [True] * 4


def test_hard_negatives_are_used_in_training(options):
    easy = losses_of(run(options(n_epoch=1, hard_negative_start_epoch=-1, eval_path=None, lr=0)))[0]
    hard = losses_of(run(options(n_epoch=1, hard_negative_start_epoch=0, hard_pool_size=1, eval_path=None, lr=0)))[0]
    assert hard["loss_neg_ctx"] > easy["loss_neg_ctx"]
    assert hard["loss_neg_q"] > easy["loss_neg_q"]


@pytest.mark.parametrize("off", [("lw_fcl", "lw_neg_q"), ("lw_vcl", "lw_st_ed", "lw_neg_ctx")])
def test_a_weight_of_zero_leaves_its_loss_out(options, off):
    losses = losses_of(run(options(n_epoch=1, eval_path=None, **dict.fromkeys(off, 0))))[0]
    assert {name for name in LOSSES if losses[name] == 0} == {name.replace("lw_", "loss_") for name in off}


def run_scripted(opt, scores: list[float], evaluate: bool) -> Path:
    """Train with evaluations that end in the next of `scores`; `evaluate` whether they do their work before."""
    trainer, remaining = Trainer(opt), iter(scores)
    really_evaluate = trainer._evaluate

    def scored(epoch: int) -> float:
        if evaluate:
            really_evaluate(epoch)
        return next(remaining)

    trainer._evaluate = scored
    trainer.run()
    return Path(opt.results_dir)


@pytest.mark.parametrize(
    ("max_es_cnt", "scores", "epochs", "best"),
    [
        (0, [3, 2, 9], 2, 0),
        (1, [3, 4, 4, 3, 9], 4, 1),  # an equal epoch is no better one
        (1, [3, 2, 4, 3, 5], 5, 4),
        (-1, [3, 2, 2, 2, 2], 5, 0),
    ],
)
def test_training_stops_after_too_many_epochs_without_a_better_one(options, capsys, max_es_cnt, scores, epochs, best):
    folder = run_scripted(options(n_epoch=5, max_es_cnt=max_es_cnt, data_ratio=0.1), scores, evaluate=False)
    assert len(losses_of(folder)) == epochs
    assert load_checkpoint(folder / "model.ckpt").epoch == best
    assert ("stopping early" in capsys.readouterr().out) == (epochs < 5)


@pytest.mark.parametrize(("scores", "kinds"), [([1, 2], {"best"}), ([2, 1], {"best", "latest"})])
def test_the_latest_predictions_become_the_best_when_they_are(options, scores, kinds):
    folder = run_scripted(options(n_epoch=2, data_ratio=0.1), scores, evaluate=True)
    assert {path.name.split("_")[0] for path in folder.glob("*_predictions_*")} == kinds


@pytest.mark.parametrize(("stop_task", "names"), [("SVMR", ("0.5-r1", "0.7-r1")), ("VR", ("r1",))])
def test_the_stop_task_decides(options, stop_task, names):
    opt = options(n_epoch=1, stop_task=stop_task, eval_tasks_at_training=["SVMR", "VR"])
    trainer = Trainer(opt)
    trainer.run()
    ((_, metrics),) = metrics_of(Path(opt.results_dir))
    assert set(metrics) == {"SVMR", "VR", "SVMR_by_type", "VR_by_type"}
    assert trainer.place.best_score == pytest.approx(sum(metrics[stop_task][name] for name in names))
    assert (Path(opt.results_dir) / "best_tvr_val_predictions_SVMR_VR.json").is_file()


def test_without_evaluation_every_epoch_is_saved(options, monkeypatch):
    saved = []
    monkeypatch.setattr(train, "save_checkpoint", lambda path, model, epoch, _: saved.append((Path(path).name, epoch)))
    folder = run(options(n_epoch=3, eval_path=None))
    assert saved == [("model.ckpt", 0), ("model.ckpt", 1), ("model.ckpt", 2)]
    assert not (folder / "eval.log.txt").exists()


def test_the_command_without_evaluation_ends_with_the_last_model(run_main, tiny_corpus, tmp_path):
    finished = run_main(train.main, tiny_corpus.options(exp_id="x", n_epoch=2, eval_path=None, results_root=tmp_path))
    assert finished.code == 0, finished.err
    (folder,) = tmp_path.glob("tvr-*")
    assert load_checkpoint(folder / "model.ckpt").epoch == 1
    assert not list(folder.glob("*_predictions_*"))


def test_a_share_of_the_queries_can_be_used(options):
    trainer = Trainer(options(data_ratio=0.25))
    assert len(trainer.train_set) == N_TRAIN // 4
    assert trainer.train_set.queries == Trainer(options()).train_set.queries[: N_TRAIN // 4]
    assert trainer.optimizer.t_total == 2  # one step an epoch


def test_debug_takes_a_few_batches_of_everything(run_main, tiny_corpus, tmp_path):
    options = tiny_corpus.options(
        exp_id="x", results_root=tmp_path, debug=True, bsz=4, eval_query_bsz=3, eval_context_bsz=1, n_epoch=1
    )
    finished = run_main(train.main, options)
    assert finished.code == 0, finished.err
    assert "12 training queries" in finished.out
    (folder,) = tmp_path.glob("tvr-*")
    predictions = json.loads((folder / "best_tvr_val_predictions_VCMR_SVMR_VR.json").read_text())
    assert len(predictions["VCMR"]) == 9


def test_the_global_gradient_norm_can_be_clipped(options, monkeypatch):
    norms = []
    step = BertAdam.step

    def measured(self: BertAdam) -> None:
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.stack([grad.norm() for grad in grads]).norm().item())
        step(self)

    monkeypatch.setattr(BertAdam, "step", measured)
    run(options(n_epoch=1, grad_clip=0.01, eval_path=None))
    assert max(norms) <= 0.01 * (1 + 1e-4)
    norms.clear()
    run(options(n_epoch=1, eval_path=None))
    assert max(norms) > 0.01


def test_weight_decay_is_obeyed(options):
    groups = Trainer(options(wd=0.3)).optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]


def test_a_batch_of_one_query_can_be_trained_on(options):
    losses = losses_of(run(options(n_epoch=1, bsz=1, data_ratio=0.03, eval_path=None)))[0]
    assert losses["loss_neg_ctx"] == losses["loss_neg_q"] == 0
    assert losses["loss_overall"] > 0


def test_a_loss_that_is_not_finite_is_named(run_main, tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("method_tvr.model.video_cl", lambda scores, *of_pairs: scores.sum() * float("nan"))
    finished = run_main(train.main, tiny_corpus.options(exp_id="x", n_epoch=1, results_root=tmp_path))
    assert finished.code == 2
    assert "epoch 0, step 0: the loss is not finite" in finished.err
    assert "loss_vcl nan" in finished.err
    assert not list(tmp_path.rglob("model.ckpt"))


@pytest.mark.parametrize("ctx_mode", ["video_sub"])
def test_tef_can_be_left_out(options, ctx_mode):
    checkpoint = load_checkpoint(run(options(n_epoch=1, ctx_mode=ctx_mode)) / "model.ckpt")
    assert checkpoint.config.visual_input_size == TINY.vid_feat_size
    assert checkpoint.config.ctx_mode == ctx_mode


def test_the_lse_ranking_loss_can_be_trained_with(options):
    losses = losses_of(run(options(n_epoch=1, ranking_loss_type="lse", eval_path=None)))[0]
    assert losses["loss_neg_ctx"] == pytest.approx(0.69, abs=0.2)  # log 2 while scores say nothing


@pytest.mark.parametrize("tf32", [False, True])
def test_the_final_evaluation_is_as_precise_as_training(options, tf32):
    opt = options(tf32=tf32)
    Path(opt.results_dir).mkdir()
    save_options(opt, opt.results_dir)
    assert final_inference_options(opt).tf32 == tf32


def test_the_final_evaluation_reads_the_files_that_a_resumed_run_was_given(options, tiny_corpus):
    opt = options()
    Path(opt.results_dir).mkdir()
    save_options(opt, opt.results_dir)
    names = ("vid_feat_path", "sub_bert_path", "desc_bert_path", "video_duration_idx_path")
    for name in names:
        opt[name] = f"moved/{Path(opt[name]).name}"
    final = final_inference_options(opt)
    assert [final[name] for name in names] == [opt[name] for name in names]
