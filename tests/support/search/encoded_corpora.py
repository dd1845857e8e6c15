"""Encoded corpora of eight videos, written, opened, and changed behind their seals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from method_tvr.dataset.annotations import Video
from method_tvr.search.corpus_store import CorpusRecipe, CorpusStore, write_sealed
from method_tvr.search.corpus_writer import adding_to
from method_tvr.search.stored_corpus import StoredCorpus

D, MODALITIES = 4, ("video", "sub")
ROW_BYTES = D * len(MODALITIES) * 4
RECIPE = CorpusRecipe("a" * 64, MODALITIES, D, "float32", "video_sub_tef", 1.5, 12, False, True, False)
CPU = torch.device("cpu")
N_CLIPS = [3, 12, 11, 1, 3, 12, 3, 5]


def a_video(number: int) -> Video:
    return Video(f"v{number}", 1.5 * N_CLIPS[number], number)


def encoded(number: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(min(N_CLIPS[number] + 2, 12), len(MODALITIES), D, generator=generator)


def write(folder: Path, numbers: Sequence[int], recipe: CorpusRecipe = RECIPE, rows_a_part: int = 20) -> Path:
    with adding_to(folder, recipe, rows_a_part * ROW_BYTES) as writer:
        for number in numbers:
            writer.add(a_video(number), N_CLIPS[number], encoded(number))
    return folder


def stored(folder: Path, numbers: Sequence[int]) -> StoredCorpus:
    return StoredCorpus(CorpusStore(folder), [f"v{number}" for number in numbers], CPU)


def read_all(folder: Path) -> None:
    corpus = stored(folder, range(8))
    for _ in corpus.blocks(1000):
        pass


def rewrite(path: Path, change: dict[str, object]) -> None:
    content = json.loads(path.read_bytes())["content"]
    write_sealed(path, {**content, **change})
