"""What an open corpus does when its files are cut short or removed meanwhile, and what it keeps in memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from method_tvr.dataset.annotations import Video
from method_tvr.search.corpus_store import NORMS, ROWS
from method_tvr.search.corpus_writer import adding_to
from method_tvr.search.stored_corpus import StoredCorpus
from tests.support.search.encoded_corpora import MODALITIES, RECIPE, stored, write
from utils.basic_utils import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All videos in several parts."""
    return write(tmp_path / "corpus", range(8))


def touch_all(corpus: StoredCorpus) -> dict[str, Callable[[], object]]:
    everything = torch.arange(len(corpus))
    return {
        "blocks": lambda: list(corpus.blocks(1000)),
        "rows_of": lambda: [corpus.rows_of(entry) for entry in everything.tolist()],
        "rows_with": lambda: corpus.rows_with(everything.unsqueeze(0)),
        "clips_of": lambda: corpus.clips_of(everything.numpy()),
        "in_memory": corpus.in_memory,
    }


@pytest.mark.parametrize("name", [ROWS, NORMS])
@pytest.mark.parametrize("left", [0, 200])
def test_a_file_that_is_cut_short_while_the_corpus_is_open_is_said_and_the_process_lives(folder, name, left):
    corpus = stored(folder, range(8))
    for touch in touch_all(corpus).values():
        touch()
    os.truncate(folder / "part-00001" / name, left)
    without_norms = () if name == ROWS else ("rows_of", "rows_with", "in_memory")
    for way, touch in touch_all(corpus).items():
        if way not in without_norms:
            with pytest.raises(InputError, match=rf"part-00001/{name}: has been cut short .*remove the folder part-0"):
                touch()


def test_a_part_that_is_removed_while_the_corpus_is_open_is_read_on(folder):
    corpus = stored(folder, range(8))
    before = [corpus.rows_of(entry).clone() for entry in range(8)]
    shutil.rmtree(folder)
    for entry, rows in enumerate(before):
        torch.testing.assert_close(corpus.rows_of(entry), rows, rtol=0, atol=0)


# ---------------------------------------------------------------------------- memory


def resident_kb() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize("way", ["blocks", "rows_of"])
def test_what_was_read_is_not_kept_in_memory(tmp_path, way):
    recipe, n = replace(RECIPE, hidden_size=1024, max_ctx_l=64), 80
    with adding_to(tmp_path / "corpus", recipe) as writer:  # 40 MiB in one part
        for number in range(n):
            writer.add(Video(f"v{number}", 96.0, number), 64, torch.ones(64, len(MODALITIES), 1024))
    corpus = stored(tmp_path / "corpus", range(n))
    before, most = resident_kb(), 0
    seen = corpus.blocks(64) if way == "blocks" else map(corpus.rows_of, range(n))
    for rows in seen:
        assert float((rows if way == "rows_of" else rows[0]).sum()) == 64 * len(MODALITIES) * 1024
        most = max(most, resident_kb())
    assert most - before < 8 << 10
