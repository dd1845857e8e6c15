"""Where luck enters is told source by source: runs that draw the same are the same, and what is drawn anew differs."""

from __future__ import annotations

import json

import pytest
import torch

from method_tvr import train
from method_tvr.model import ModelConfig
from tests.benchmarks import luck

CONFIG = ModelConfig(
    visual_input_size=6, sub_input_size=6, query_input_size=6, hidden_size=8, n_heads=2, max_ctx_l=10, max_desc_l=6
)
KERNEL, OTHER, NAMES = "merged_st_predictor.weight", "query_encoder.output.dense.weight", ("shuffle/3", "negatives/0")


def drawn(**seeds: int) -> dict[str, object]:
    """What a run draws, by source."""
    with luck.drawn_by(dict.fromkeys(luck.SOURCES, 1) | seeds):
        state = train.initial_model(CONFIG, 5, "drawn").state_dict()
        train.seed_everything(5)
        return {
            luck.KERNELS: state[KERNEL].tolist(),
            luck.WEIGHTS: state[OTHER].tolist(),
            luck.ORDER: torch.rand(3, generator=train.named_generator(5, "shuffle/3")).tolist(),
            luck.NEGATIVES: train.named_seed(5, "negatives/0"),
            luck.DROPOUT: torch.rand(3).tolist(),
        }


@pytest.mark.parametrize("source", luck.SOURCES)
def test_one_source_is_drawn_anew_and_no_other(source):
    usual, other = drawn(), drawn(**{source: 2})
    assert [name for name in luck.SOURCES if usual[name] != other[name]] == [source]


def test_a_run_is_written_down_by_epoch_and_halves(tiny_corpus, tmp_path, capsys):
    options = tiny_corpus.options(bsz=32, n_epoch=2)
    path = tmp_path / "luck.jsonl"
    luck.main(["--seeds", "1", "2", "--epochs", "2", "--json", str(path), "--", *options])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["seed"], line["vary"], len(line["recalls"])) for line in lines] == [(1, "all", 2), (2, "all", 2)]
    every, even, odd = lines[0]["recalls"][0]
    assert min(even, odd) <= every <= max(even, odd)
    capsys.readouterr()
    luck.main(["--table", str(path), "--picture", str(tmp_path / "luck.png")])
    header, row = capsys.readouterr().out.splitlines()[:2]
    assert header.split()[-4:] == ["epoch", "0", "epoch", "1"]
    assert "±" in row
    assert (tmp_path / "luck.png").stat().st_size > 1000


def test_more_epochs_than_the_schedule_has_are_refused(tiny_corpus, capsys):
    with pytest.raises(SystemExit):
        luck.main(["--epochs", "3", "--", *tiny_corpus.options(n_epoch=2)])
    assert "--epochs 3: the schedule ends after 2: give -- --n_epoch 3" in capsys.readouterr().err


def test_the_run_of_the_first_seed_is_made_once_for_all_sources(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(luck, "run", lambda seeds, *_: made.append(dict(seeds)) or [[0.0, 0.0, 0.0]])
    path = tmp_path / "luck.jsonl"
    luck.main(["--vary", "kernels", "dropout", "--seeds", "1", "2", "--json", str(path)])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["vary"], line["seed"]) for line in lines] == [
        ("kernels", 1), ("kernels", 2), ("dropout", 1), ("dropout", 2)
    ]  # fmt: skip
    as_usual = dict.fromkeys(luck.SOURCES, 1)
    assert made == [as_usual, as_usual | {"kernels": 2}, as_usual | {"dropout": 2}]
