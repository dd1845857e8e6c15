"""The reference's corpus, model and batch, a tiny mini corpus, and the command lines run in this process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from method_tvr.config import parse_train_options
from method_tvr.dataset.annotations import load_queries, load_videos
from method_tvr.dataset.clip_times import ClipTimes
from method_tvr.dataset.feature_store import FeatureStore
from method_tvr.start_end_dataset import StartEndDataset
from method_tvr.train import Trainer
from method_tvr.training.checkpoint import Checkpoint, load_checkpoint
from tests.support.golden_files import load_npz, unpack
from tests.support.open_files import open_h5_files
from tests.support.public_corpora import PublicCorpus, make_public_corpus
from tests.support.runs.commands import Finished
from tests.support.runs.tiny_corpus import Corpus
from utils.mini_tvr import TINY, generate

GOLDEN_FILES = [
    *(f"corpus/{name}" for name in ("video.h5", "sub.h5", "query.h5", "video2dur_idx.json")),
    *(f"corpus/{split}.jsonl" for split in ("train", "val", "test_public")),
    *(f"run/{name}" for name in ("model.ckpt", "opt.json")),
]


@pytest.fixture(scope="session")
def golden_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`corpus/` and `run/` as the reference left them; not to be written to."""
    folder = tmp_path_factory.mktemp("golden")
    for name in GOLDEN_FILES:
        unpack(name, folder / name)
    return folder


@pytest.fixture(scope="session")
def golden_checkpoint(golden_dir: Path) -> Checkpoint:
    return load_checkpoint(golden_dir / "run" / "model.ckpt")


@pytest.fixture(scope="session")
def model_io() -> dict[str, np.ndarray]:
    return load_npz("model_io.npz")


@pytest.fixture(scope="session")
def golden_batch(model_io: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    names = ("query_feat", "query_mask", "video_feat", "sub_feat", "st_ed_indices", "match_labels")
    batch = {name: torch.from_numpy(model_io[f"in/{name}"]) for name in names}
    assert np.array_equal(model_io["in/video_mask"], model_io["in/sub_mask"])
    return batch | {"ctx_mask": torch.from_numpy(model_io["in/video_mask"])}


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Not to be written to."""
    root = tmp_path_factory.mktemp("tiny") / "mini"
    generate(root, TINY)
    return Corpus(root)


@pytest.fixture(scope="session", params=["anet_cap", "charades_sta", "didemo"])
def public_corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PublicCorpus:
    """A converted public dataset, each in turn; not to be written to but for results and caches."""
    return make_public_corpus(request.param, tmp_path_factory.mktemp(request.param) / "root")


@pytest.fixture(scope="session")
def tiny_model(tiny_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a model of the tiny corpus; not to be written to."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    opt = parse_train_options(
        tiny_corpus.options(exp_id="tiny", n_epoch=1, bsz=32, lr=0.003, eval_path=None, hidden_size=16)
    )
    opt.results_dir = str(folder)
    with Trainer(opt) as trainer:
        trainer.run()
    return folder


@pytest.fixture
def own_corpus(tiny_corpus: Corpus, tmp_path: Path) -> Corpus:
    """A copy to be spoilt."""
    return Corpus(Path(shutil.copytree(tiny_corpus.root, tmp_path / "own_corpus")))


@pytest.fixture
def run_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Callable[[], None], Sequence[str]], Finished]:
    """Run a command's `main` as if it had been typed; an exception that is no SystemExit fails the test.

    However it ends, all feature files have to be closed then, though what it ended with lives on.
    """

    def run(main: Callable[[], None], argv: Sequence[str]) -> Finished:
        monkeypatch.setattr(sys, "argv", ["command", *argv])
        capsys.readouterr()
        before, ended = open_h5_files(), SystemExit(0)
        try:
            main()
        except SystemExit as stop:
            ended = stop
        assert open_h5_files() <= before
        captured = capsys.readouterr()
        return Finished(int(ended.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def golden_train_set(golden_dir: Path) -> StartEndDataset:
    """The training items of the reference's corpus, in file order."""
    corpus = golden_dir / "corpus"
    features = FeatureStore(
        {"video": corpus / "video.h5", "sub": corpus / "sub.h5"},
        corpus / "query.h5",
        normalize={"video": True, "sub": True, "query": True},
        max_ctx_l=128,
        max_desc_l=30,
        use_tef=True,
        sizes={},
    )
    queries = load_queries(corpus / "train.jsonl", load_videos(corpus / "video2dur_idx.json"))
    return StartEndDataset(queries, features, ClipTimes(1.5))
