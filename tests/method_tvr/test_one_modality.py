"""Video or subtitles alone, from training to answers, on a corpus that lacks the files of the other modality."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from method_tvr import inference, train
from method_tvr.ask import asking, encode_corpus
from method_tvr.config import parse_train_options
from method_tvr.report import quickstart
from method_tvr.train import Trainer
from method_tvr.training.checkpoint import load_checkpoint
from tests.support.runs.commands import Finished
from tests.support.runs.tiny_corpus import Corpus, as_argv
from utils.mini_tvr import TINY

Run = Callable[..., Finished]
OTHER_FILES = {"video": "sub_bert_path", "sub": "vid_feat_path"}
RUN: dict[str, object] = {"exp_id": "one", "n_epoch": 2, "bsz": 32, "lr": 0.01, "save_every": 3}


@dataclass(frozen=True)
class Trained:
    """A model of one modality, and the corpus without the other that it was trained on."""

    ctx_mode: str
    corpus: Corpus
    folder: Path

    @property
    def modality(self) -> str:
        return self.ctx_mode.split("_")[0]

    def options(self, **options: object) -> list[str]:
        return as_argv({"model_dir": self.folder, "device": "-1", "num_workers": "0", **options})

    def predictions(self, eval_id: str) -> dict:
        name = f"inference_tvr_val_{eval_id}_predictions_VCMR_SVMR_VR.json"
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=["video_tef", "sub"])
def trained(request: pytest.FixtureRequest, tiny_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained as the command line does it, the evaluation at the end included."""
    root = tmp_path_factory.mktemp(request.param)
    corpus = Corpus(Path(shutil.copytree(tiny_corpus.root, root / "corpus")))
    corpus.paths[OTHER_FILES[request.param.split("_")[0]]].unlink()
    argv = corpus.options(**RUN, ctx_mode=request.param, results_root=root / "results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py", *argv])
        train.main()
    (folder,) = (root / "results").iterdir()
    return Trained(request.param, corpus, folder)


def test_the_checkpoint_and_the_options_know_nothing_of_the_other_modality(trained):
    opt = json.loads((trained.folder / "opt.json").read_text())
    assert trained.folder.name.startswith(f"tvr-{trained.ctx_mode}-one-")
    assert opt["ctx_mode"] == trained.ctx_mode
    assert [opt[OTHER_FILES[m]] is None for m in ("video", "sub")] == [m == trained.modality for m in ("video", "sub")]
    checkpoint = load_checkpoint(trained.folder / "model.ckpt")
    tef = 2 if "tef" in trained.ctx_mode else 0
    sizes = {"video": TINY.vid_feat_size + tef, "sub": TINY.text_feat_size + tef}
    assert checkpoint.config.input_sizes == {trained.modality: sizes[trained.modality]}
    assert {checkpoint.config.visual_input_size, checkpoint.config.sub_input_size} == {None, sizes[trained.modality]}
    assert set(checkpoint.features) == {trained.modality, "query"}
    branches = {name.split("_")[0] for name in checkpoint.state} - {"query", "ctx", "modular", "merged"}
    assert branches == {trained.modality}
    plain = torch.load(trained.folder / "model.ckpt", weights_only=True)
    assert plain["model_cfg"]["ctx_mode"] == trained.ctx_mode


def test_inference_finds_what_the_best_epoch_found_with_an_encoded_corpus_too(trained, run_main: Run, tmp_path):
    best = json.loads((trained.folder / "best_tvr_val_predictions_VCMR_SVMR_VR_metrics.json").read_text())
    again = run_main(inference.main, trained.options(eval_id="again"))
    assert again.code == 0, again.err
    metrics = trained.folder / "inference_tvr_val_again_predictions_VCMR_SVMR_VR_metrics.json"
    assert json.loads(metrics.read_text()) == best

    encoded = run_main(encode_corpus.main, trained.options(out=tmp_path / "encoded"))
    assert encoded.code == 0, encoded.err
    found = run_main(inference.main, trained.options(eval_id="stored", encoded_corpus=tmp_path / "encoded"))
    assert found.code == 0, found.err
    expected = trained.predictions("again")
    for task, answers in trained.predictions("stored").items():
        if task == "video2idx":
            continue
        for answer, wanted in zip(answers, expected[task], strict=True):
            scores = [row[3] for row in answer["predictions"]]
            assert scores == pytest.approx([row[3] for row in wanted["predictions"]], rel=1e-4)


def test_what_it_is_worth_is_shown_as_the_quickstart_does(trained, run_main: Run):
    assert run_main(inference.main, trained.options(eval_id="shown", nms_thd=0.5)).code == 0
    predictions = trained.folder / "inference_tvr_val_shown_predictions_VCMR_SVMR_VR"
    suffixes = {"metrics": "_metrics", "nms_metrics": "_nms_thd_0.5_metrics", "nms_predictions": "_nms_thd_0.5"}
    files = {name: f"{predictions}{suffix}.json" for name, suffix in suffixes.items()}
    finished = run_main(quickstart.main, as_argv({"model_dir": trained.folder, **files}))
    assert finished.code == 0, finished.err
    assert (trained.folder / "quickstart_table.txt").read_text().strip() in finished.out
    assert (trained.folder / "quickstart.png").read_bytes().startswith(b"\x89PNG")


def test_a_sentence_asked_in_words_gets_what_the_same_query_gets(trained, run_main: Run):
    assert run_main(inference.main, trained.options(eval_id="stored")).code == 0
    stored = trained.predictions("stored")
    names = {idx: name for name, idx in stored["video2idx"].items()}
    wanted = stored["VCMR"][0]
    hidden = trained.corpus.paths["desc_bert_path"].rename(trained.corpus.root / "hidden")
    try:  # which word table made the queries is then told by the one context file that there is
        finished = run_main(asking.main, trained.options(query=wanted["desc"], eval_id="asked", top_k=5))
    finally:
        hidden.rename(trained.corpus.paths["desc_bert_path"])
    assert finished.code == 0, finished.err
    answers = json.loads((trained.folder / "inference_tvr_val_asked_answers.json").read_text())["answers"]
    found = [(moment["vid_name"], moment["start"], moment["end"]) for moment in answers[0]["moments"]]
    assert found == [(names[idx], start, end) for idx, start, end, _ in wanted["predictions"][:5]]


def test_a_run_that_was_killed_goes_on_to_the_same_model(trained, run_main: Run, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def die(trainer: Trainer) -> None:
        raise Killed

    argv = trained.corpus.options(**RUN, ctx_mode=trained.ctx_mode, results_root=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_end_epoch", die)
        with pytest.raises(Killed):
            run_main(train.main, argv)
    (folder,) = tmp_path.iterdir()
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    refused = run_main(train.main, ["--resume", str(moved), "--ctx_mode", "video_sub_tef"])
    assert refused.code == 2
    assert f"was started with {trained.ctx_mode}" in refused.err
    finished = run_main(train.main, ["--resume", str(moved)])
    assert finished.code == 0, finished.err
    assert (moved / "model.ckpt").read_bytes() == (trained.folder / "model.ckpt").read_bytes()


def test_a_model_is_refused_with_another_context_than_it_was_trained_with(trained, run_main: Run):
    for ctx_mode in {"video_sub_tef", "video", "video_tef", "sub", "sub_tef"} - {trained.ctx_mode}:
        refused = run_main(inference.main, trained.options(ctx_mode=ctx_mode))
        assert refused.code == 2
        assert f"--ctx_mode {ctx_mode}: the model in" in refused.err
        assert f"was trained with {trained.ctx_mode}" in refused.err


def test_two_modalities_need_both_files_and_one_needs_its_own(trained, run_main: Run, tmp_path):
    for ctx_mode in ("video_sub_tef", {"video": "sub", "sub": "video"}[trained.modality]):
        refused = run_main(train.main, trained.corpus.options(**RUN, ctx_mode=ctx_mode, results_root=tmp_path))
        assert refused.code == 2
        assert str(trained.corpus.paths[OTHER_FILES[trained.modality]]) in refused.err
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ctx_mode", ["tef", "video_video", "audio", "video-tef", "Video", "video_sub_tef_x", "_", ""])
def test_contexts_that_cannot_be_are_refused(tiny_corpus, run_main: Run, tmp_path, ctx_mode):
    refused = run_main(train.main, [*tiny_corpus.options(**RUN, results_root=tmp_path), "--ctx_mode", ctx_mode])
    assert refused.code == 2
    assert f"--ctx_mode {ctx_mode}" in refused.err
    assert not list(tmp_path.iterdir())


def test_order_of_the_parts_means_nothing(tiny_corpus):
    opts = [parse_train_options(tiny_corpus.options(**RUN, ctx_mode=mode)) for mode in ("tef_video", "video_tef")]
    assert {opt.sub_bert_path for opt in opts} == {None}
    assert len({opt.vid_feat_path for opt in opts}) == 1
