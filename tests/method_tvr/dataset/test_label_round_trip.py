"""Converted moments -> the clips that training labels them with -> seconds: how much of a moment is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from method_tvr.config import parse_train_options
from method_tvr.dataset.clip_times import BEST_IOU, FLOOR_CEIL, LABEL_RULES
from method_tvr.inputs import Inputs
from method_tvr.options.rules import settings_of
from method_tvr.start_end_dataset import StartEndDataset
from tests.method_tvr.dataset.label_bound import furthest
from tests.support.public_corpora import MAX_CTX_L, SPLITS, PublicCorpus
from tests.support.runs.tiny_corpus import as_argv

CPU = torch.device("cpu")
EPS = 1e-9


def train_set(corpus: PublicCorpus, label_rule: str, feature_cache: str = "disk") -> StartEndDataset:
    """Items for each moment that any annotator gave in any split, as training would make them."""
    options = {"dset_name": corpus.name, "exp_id": "x", "label_rule": label_rule, "max_ctx_l": MAX_CTX_L}
    opt = parse_train_options(as_argv({**options, "feature_cache": feature_cache, "device": -1, **corpus.options}))
    inputs = settings_of(Inputs, opt)
    features = inputs.open_features(CPU)
    queries = [query for split in SPLITS for query in corpus.queries(split)]
    assert inputs.train_queries(features) == queries[: len(corpus.queries("train"))]
    moments = [replace(query, ts=moment, moments=()) for query in queries for moment in query.annotated]
    return StartEndDataset(moments, features, inputs.clip_times)


def there_and_back(corpus: PublicCorpus, items: StartEndDataset) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Each moment, what its label stands for, both in clips, and the clips of its video."""
    for number in range(len(items)):
        [query], batch = items.batch([number], None)
        assert query.duration is not None
        n_clips = batch["video_feat"].shape[1]
        assert n_clips == corpus.n_clips(str(query.vid_name))
        [(st, ed)], [labels] = batch["st_ed_indices"].tolist(), batch["match_labels"].tolist()
        assert labels == [int(st <= clip <= ed) for clip in range(n_clips)]
        clip = query.duration / n_clips
        back = items.times.seconds(np.array([st, ed]), query.duration, n_clips)
        yield np.array(query.ts) / clip, back / clip, n_clips


@pytest.fixture(autouse=True)
def _at_the_projects_root(public_corpus: PublicCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(public_corpus.root)


def test_moments_come_back_within_half_a_clip_and_what_short_ones_add(public_corpus):
    short = long = whole = 0
    for moment, back, n_clips in there_and_back(public_corpus, train_set(public_corpus, BEST_IOU)):
        length = moment[1] - moment[0]
        off = np.abs(back - moment).max()
        assert off <= (furthest(length) if length >= 1 else 1) + EPS
        short, long = short + (length < 1), long + (length >= 1)
        if moment[0] == 0 and moment[1] == pytest.approx(n_clips):
            assert back.tolist() == [0, pytest.approx(n_clips)]
            whole += 1
    assert min(short, long, whole) > 0


def test_moments_come_back_within_a_clip_by_tvrs_rule_but_for_the_last_clips_limit(public_corpus):
    limited = 0
    for moment, back, n_clips in there_and_back(public_corpus, train_set(public_corpus, FLOOR_CEIL)):
        assert -EPS <= moment[0] - back[0] < 1 + EPS
        if np.ceil(moment[1] - EPS) > n_clips - 1:
            assert back[1] == pytest.approx(n_clips - 1)
            limited += 1
        else:
            assert -EPS <= back[1] - moment[1] < 1 + EPS
    assert limited > 0


@pytest.mark.parametrize("label_rule", LABEL_RULES)
def test_batches_of_cached_features_have_the_labels_of_the_items(public_corpus, label_rule):
    items = train_set(public_corpus, label_rule)
    cached = train_set(public_corpus, label_rule, "ram")
    queries, batch = cached.batch(range(len(cached)), MAX_CTX_L)
    assert queries == items.queries
    of_items = [items.batch([i], None)[1] for i in range(len(items))]
    assert batch["st_ed_indices"].tolist() == [item["st_ed_indices"][0].tolist() for item in of_items]
    assert batch["match_labels"].sum(dim=1).tolist() == [item["match_labels"].sum() for item in of_items]
