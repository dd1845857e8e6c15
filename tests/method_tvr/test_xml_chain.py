"""A run of XML from training to search: every tool takes it as it takes ReLoCLNet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from method_tvr import inference, train
from method_tvr.ask import encode_corpus
from method_tvr.ask.searcher import MomentSearcher
from method_tvr.config import parse_train_options
from method_tvr.train import Trainer
from method_tvr.training.checkpoint import load_checkpoint
from tests.support.runs.commands import Finished
from tests.support.runs.rankings import assert_same_file, load
from tests.support.runs.tiny_corpus import Corpus, as_argv
from utils.basic_utils import InputError, read_json

Run = Callable[..., Finished]
HERE: dict[str, object] = {"device": -1, "num_workers": 0}


@pytest.fixture(scope="module", params=["video_sub_tef", "video_sub --no_merge_two_stream", "sub"])
def trained(request: pytest.FixtureRequest, tiny_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder; in two epochs the second of which has hard negatives."""
    ctx_mode, *switches = request.param.split(" ")
    options = {"model": "xml", "ctx_mode": ctx_mode, "exp_id": "xml", "n_epoch": 2, "bsz": 32, "max_ctx_l": 30}
    argv = tiny_corpus.options(**options, hard_negative_start_epoch=1, lr=0.003)
    opt = parse_train_options([*argv, *switches])
    opt.results_dir = str(tmp_path_factory.mktemp("xml") / "run")
    with Trainer(opt) as trainer:
        trainer.run()
    return Path(opt.results_dir)


def predictions(folder: Path, eval_id: str) -> dict:
    return load(folder / f"inference_tvr_val_{eval_id}_predictions_VCMR_SVMR_VR.json")


def test_the_model_is_on_record(trained):
    opt, checkpoint = read_json(trained / "opt.json"), load_checkpoint(trained / "model.ckpt")
    assert (opt["model"], opt["long_videos"], opt["label_rule"]) == ("xml", "cut", "ceil_inside")
    assert (opt["lw_fcl"], opt["lw_vcl"], opt["q2c_alpha"]) == (0, 0, 20)
    assert type(checkpoint.config).__name__ == "XMLConfig"
    losses = (trained / "train.log.txt").read_text()
    assert "loss_st_ed" in losses


def test_an_encoded_corpus_with_two_vectors_a_clip_gives_the_same_answers(trained, run_main: Run, tmp_path):
    assert run_main(inference.main, as_argv({"model_dir": trained, "eval_id": "plain", **HERE})).code == 0
    argv = {"model_dir": trained, "out": tmp_path / "encoded", **HERE}
    assert run_main(encode_corpus.main, as_argv(argv)).code == 0
    recipe = read_json(tmp_path / "encoded" / "corpus.json")["content"]
    assert (recipe["vectors_for"], recipe["cut"]) == (["videos", "spans"], True)
    argv = {"model_dir": trained, "eval_id": "stored", "encoded_corpus": tmp_path / "encoded", **HERE}
    assert run_main(inference.main, as_argv(argv)).code == 0
    assert_same_file(predictions(trained, "stored"), predictions(trained, "plain"))
    refused = run_main(inference.main, as_argv({**argv, "long_videos": "average"}))
    assert refused.code == 2
    assert "was encoded with --long_videos cut, but this run has average" in refused.err


def test_an_index_finds_what_an_exact_search_does(trained):
    pytest.importorskip("faiss", reason="faiss is not installed")
    exact = MomentSearcher.open(trained, **HERE)
    by_index = MomentSearcher.open(trained, index="faiss", **HERE)
    for sentence in ("somebody opens a door", "they talk about the dog"):
        one, other = (
            [(moment.vid_name, moment.start, moment.end) for moment in searcher.search(sentence)]
            for searcher in (exact, by_index)
        )
        assert one == other
        assert one


def test_long_videos_are_searched_in_windows(trained, run_main: Run):
    argv = {"model_dir": trained, "eval_id": "windows", "long_videos": "windows", "max_pred_l": 6, **HERE}
    assert run_main(inference.main, as_argv(argv)).code == 0
    ends = [row[2] for answer in predictions(trained, "windows")["VCMR"] for row in answer["predictions"]]
    assert max(ends) > 30 * 1.5  # past what is left of videos that are cut off


def test_a_run_is_gone_on_with_as_what_it_is(trained, run_main: Run):
    finished = run_main(train.main, ["--resume", str(trained)])
    assert finished.code == 0, finished.err
    assert "evaluating the best model" in finished.out
    refused = run_main(train.main, ["--resume", str(trained), "--model", "reloclnet"])
    assert refused.code == 2
    assert "was started with xml" in refused.err


def test_what_does_not_go_together_is_refused(tiny_corpus: Corpus):
    for typed, said in (
        (["--no_modular"], "--no_modular: is of XML"),
        (["--model", "xml", "--clip_length", "auto", "--long_videos", "cut"], "are shares of whole videos"),
        (["--long_videos", "windows"], "is for searching with a trained model"),
    ):
        with pytest.raises(InputError, match=said):
            parse_train_options([*tiny_corpus.options(exp_id="odd"), *typed])


def test_clips_of_a_share_of_their_video_are_averaged(tiny_corpus: Corpus):
    opt = parse_train_options([*tiny_corpus.options(exp_id="auto", model="xml"), "--clip_length", "auto"])
    assert (opt.long_videos, opt.label_rule) == ("average", "ceil_inside")
