"""Cached features give the items and batches that the files give, in host memory and on a device."""

from __future__ import annotations

import re
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from method_tvr.config import parse_train_options
from method_tvr.dataset import feature_cache
from method_tvr.dataset.annotations import Entry, load_queries, load_videos
from method_tvr.dataset.cached_store import CachedStore
from method_tvr.dataset.clip_times import ClipTimes
from method_tvr.dataset.feature_store import FeatureStore
from method_tvr.dataset.loading import BatchLoader
from method_tvr.inputs import Inputs
from method_tvr.options.rules import settings_of
from method_tvr.start_end_dataset import StartEndDataset, StartEndEvalDataset
from utils.basic_utils import InputError

CPU = torch.device("cpu")
LONG = 12  # max_ctx_l below which most videos of the tiny corpus are sampled


def described(corpus, **other: object) -> dict:
    return {
        "context_paths": {"video": corpus.paths["vid_feat_path"], "sub": corpus.paths["sub_bert_path"]},
        "query_path": corpus.paths["desc_bert_path"],
        "normalize": {"video": False, "sub": True, "query": True},
        "max_ctx_l": LONG,
        "max_desc_l": 7,
        "use_tef": True,
        "sizes": {},
        **other,
    }


def queries_of(corpus, split: str = "train"):
    videos = load_videos(corpus.paths["video_duration_idx_path"])
    return load_queries(corpus.annotations(split), videos), list(videos[split].values())


def batches(dataset, trim_padding: bool = False, sampler=None) -> list:
    loaded = BatchLoader(dataset, 16, trim_padding, sampler)
    if isinstance(dataset, StartEndDataset):
        return [(metas, dataset.inputs(batch, CPU)) for metas, batch in loaded]
    return list(loaded)


def assert_same(found: list, expected: list, atol: float = 0.0) -> None:
    assert [metas for metas, _ in found] == [metas for metas, _ in expected]
    for (_, one), (_, other) in zip(found, expected, strict=True):
        assert set(one) == set(other)
        for name, tensor in one.items():
            assert tensor.dtype == other[name].dtype, name
            torch.testing.assert_close(tensor, other[name], rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("use_tef", [True, False])
@pytest.mark.parametrize("trim_padding", [True, False])
@pytest.mark.parametrize("device", [None, CPU])
def test_training_batches_are_those_of_the_files(tiny_corpus, device, trim_padding, use_tef):
    queries, _ = queries_of(tiny_corpus)
    order = torch.randperm(len(queries), generator=torch.Generator().manual_seed(1)).tolist()
    disk = FeatureStore(**described(tiny_corpus, use_tef=use_tef))
    packed = CachedStore(**described(tiny_corpus, use_tef=use_tef), device=device)
    packed.require(queries, [query.vid_name for query in queries], "train.jsonl")
    packed.max_ctx_l = disk.max_ctx_l = LONG + 3  # of padding; the rows are prepared already
    found, expected = (
        batches(StartEndDataset(queries, store, ClipTimes(1.5)), trim_padding, order) for store in (packed, disk)
    )
    assert len(expected) > 2
    assert_same(found, expected)


@pytest.mark.parametrize("device", [None, CPU])
def test_evaluation_batches_are_those_of_the_files(tiny_corpus, device):
    queries, videos = queries_of(tiny_corpus, "val")
    disk, packed = FeatureStore(**described(tiny_corpus)), CachedStore(**described(tiny_corpus), device=device)
    packed.require(queries, [video.vid_name for video in videos], "val.jsonl")
    entries = [Entry(video) for video in videos]
    for mode in ("context", "query"):
        assert_same(*(batches(StartEndEvalDataset(queries, entries, store, mode)) for store in (packed, disk)))


def test_items_are_those_of_the_files(tiny_corpus):
    queries, _ = queries_of(tiny_corpus)
    disk, packed = FeatureStore(**described(tiny_corpus)), CachedStore(**described(tiny_corpus))
    for query in queries[:10]:
        assert np.array_equal(packed.query(query.desc_id), disk.query(query.desc_id))
        found, expected = packed.context(query.vid_name), disk.context(query.vid_name)
        assert all(np.array_equal(found[m], expected[m]) and found[m].dtype == expected[m].dtype for m in expected)


@pytest.mark.parametrize("device", [None, CPU])
def test_float16_changes_batches_by_its_rounding(tiny_corpus, device):
    queries, _ = queries_of(tiny_corpus)
    packed = CachedStore(**described(tiny_corpus), dtype="float16", device=device)
    packed.require(queries, [query.vid_name for query in queries], "train.jsonl")
    disk = FeatureStore(**described(tiny_corpus))
    found, expected = (batches(StartEndDataset(queries, store, ClipTimes(1.5))) for store in (packed, disk))
    assert_same(found, expected, atol=2**-11)  # of values below 1
    assert not torch.equal(found[0][1]["video_feat"], expected[0][1]["video_feat"])


def test_a_device_holds_what_was_required_and_no_more(tiny_corpus, monkeypatch):
    monkeypatch.setattr("method_tvr.dataset.feature_rows.COPY_BYTES", 1 << 12)
    queries, videos = queries_of(tiny_corpus, "val")
    packed = CachedStore(**described(tiny_corpus), device=CPU)
    few = [video.vid_name for video in videos[:3]]
    packed.require(queries[:2], few, "val.jsonl")
    packed.context_batch(few, None)
    assert len(packed._on_device["video"].numbers) == 3
    names = [video.vid_name for video in videos]
    packed.require(queries, names, "val.jsonl")
    host = CachedStore(**described(tiny_corpus))
    found, expected = packed.context_batch(names, LONG), host.context_batch(names, LONG)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_device_without_room_is_named(tiny_corpus, monkeypatch):
    queries, _ = queries_of(tiny_corpus)
    packed = CachedStore(**described(tiny_corpus), device=CPU)
    packed.require(queries, [query.vid_name for query in queries], "train.jsonl")

    def full(*args: object, **kwargs: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("torch.zeros", full)
    with pytest.raises(InputError, match=r"GiB of features do not fit on cpu: .*float16"):
        packed.query_batch([queries[0].desc_id])


def test_without_room_anywhere_features_are_read_from_their_files(own_corpus, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 3}))
    monkeypatch.setattr(feature_cache, "available_memory", lambda: 7.0)
    options = own_corpus.options(exp_id="x", feature_cache="auto", feature_cache_dir=own_corpus.root / "caches")
    store = settings_of(Inputs, parse_train_options(options)).open_features(CPU)
    assert type(store) is FeatureStore
    assert "--feature_cache disk, as is done now: features are read item by item\n" in capsys.readouterr().err
    inputs = settings_of(Inputs, parse_train_options([*options, "--feature_cache", "ram"]))
    with pytest.raises(InputError, match="would fill the memory"):
        inputs.open_features(CPU)


@pytest.mark.parametrize("mode", ["ram", "device"])
def test_broken_features_are_named_before_any_work_when_they_are_used(own_corpus, mode):
    inputs = settings_of(Inputs, parse_train_options(own_corpus.options(exp_id="x", feature_cache=mode)))
    train, _ = queries_of(own_corpus)
    with own_corpus.features("sub_bert_path") as features:
        features[train[0].vid_name][0, 0] = np.nan
    store = inputs.open_features(CPU)
    inputs.eval_split(store)
    with pytest.raises(InputError, match=rf"sub_.*h5, key {train[0].vid_name}: holds NaN or Inf"):
        inputs.train_queries(store)


@pytest.mark.parametrize("mode", ["ram", "device"])
def test_clip_counts_that_differ_are_named_even_where_sampling_hides_them(own_corpus, mode):
    train, _ = queries_of(own_corpus)
    with own_corpus.features("sub_bert_path") as features, own_corpus.features("vid_feat_path") as video:
        name = max((query.vid_name for query in train), key=lambda vid_name: len(video[vid_name]))
        n_clips = len(video[name])
        rows = np.ones((n_clips + 2, features[name].shape[1]), dtype=np.float32)
        del features[name]
        features[name] = rows
    inputs = settings_of(
        Inputs, parse_train_options(own_corpus.options(exp_id="x", feature_cache=mode, max_ctx_l=LONG))
    )
    store = inputs.open_features(CPU)
    message = rf"{name}: its modalities differ.*: {n_clips} in .*, {n_clips + 2} in .*: align the files"
    with pytest.raises(InputError, match=message):
        inputs.train_queries(store)
    with pytest.raises(InputError, match=message):
        store.context(name)


def test_a_key_mended_after_packing_asks_for_another_run(own_corpus):
    train, _ = queries_of(own_corpus)
    name = train[0].vid_name
    with own_corpus.features("sub_bert_path") as features:
        kept = features[name][()]
        features[name][0, 0] = np.nan
    store = CachedStore(**described(own_corpus))
    store._files["sub"]._h5.close()
    store._files["sub"]._h5 = None
    with h5py.File(own_corpus.paths["sub_bert_path"], "r+") as features:
        features[name][...] = kept
    with pytest.raises(InputError, match=f"key {name}: was not usable when it was packed"):
        store.context(name)


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_of_every_kind_read_from_disk(tiny_corpus, monkeypatch, start):
    queries, _ = queries_of(tiny_corpus)
    disk = FeatureStore(**described(tiny_corpus), num_workers=2)
    disk.query(queries[0].desc_id)  # so that files are open before workers start
    dataset = StartEndDataset(queries[:40], disk, ClipTimes(1.5))
    loader = BatchLoader(dataset, 16, False)
    workers = loader._workers()
    workers.multiprocessing_context = start
    monkeypatch.setattr(loader, "_workers", lambda: workers)
    found = list(loader)
    disk.num_workers = 0
    assert_same(found, batches(dataset))


def test_loading_leaves_the_global_generator_alone(tiny_corpus):
    queries, _ = queries_of(tiny_corpus)
    for store in (FeatureStore(**described(tiny_corpus)), CachedStore(**described(tiny_corpus))):
        before = torch.get_rng_state()
        batches(StartEndDataset(queries, store, ClipTimes(1.5)))
        assert torch.equal(torch.get_rng_state(), before)


def test_a_loop_may_stop_before_the_last_batch(tiny_corpus):
    queries, _ = queries_of(tiny_corpus)
    dataset = StartEndDataset(queries, CachedStore(**described(tiny_corpus)), ClipTimes(1.5))
    for metas, _ in BatchLoader(dataset, 4, False):
        assert metas == queries[:4]
        break


@pytest.mark.parametrize(
    ("room", "where", "said"),
    [
        (1.0, CPU, "on cpu"),
        (0.6, None, "do not fit on cpu .*; --cache_dtype float16 would fit"),
        (0.4, None, r"do not fit on cpu \([^;]*\)$"),
    ],
)
def test_features_are_on_the_device_where_they_fit_beside_the_training(tiny_corpus, monkeypatch, room, where, said):
    queries, videos = queries_of(tiny_corpus, "val")
    store = CachedStore(**described(tiny_corpus), may_hold=CPU)
    store.require(queries, [video.vid_name for video in videos], "val.jsonl")
    takes, needed, total = store.required_bytes("float32"), 1000, 10_000
    assert 2 * store.required_bytes("float16") == takes
    free = needed + total // 10 + int(room * takes)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, total))
    assert re.search(said, store.settle(needed))
    assert store.device == where
    assert CachedStore(**described(tiny_corpus)).settle(needed) is None


def test_batches_for_graphs_have_few_sizes(tiny_corpus):
    store = CachedStore(**described(tiny_corpus), few_sizes=True)
    assert store.desc_length(np.array([3, 5])) == store.max_desc_l
    store.max_ctx_l = 40
    assert [store.ctx_length(np.array([1, n])) for n in (1, 16, 17, 35)] == [16, 16, 32, 40]


def test_moments_that_are_drawn_anew_are_labelled_alike_on_disk_and_on_a_device(tiny_corpus):
    queries, _ = queries_of(tiny_corpus)
    queries = [replace(one, moments=(one.ts, (0.0, 1.0), (2.0, 3.0))) for one in queries[:20]]
    found = []
    for store in (FeatureStore(**described(tiny_corpus)), CachedStore(**described(tiny_corpus), device=CPU)):
        store.require(queries, [one.vid_name for one in queries], "train.jsonl")
        dataset = StartEndDataset(queries, store, ClipTimes())
        found.append([])
        for seed in (1, 2):
            dataset.draw_moments(torch.Generator().manual_seed(seed))
            found[-1].append(batches(dataset))
    for one, other in zip(*found, strict=True):
        assert_same(one, other)
    labels = [torch.cat([batch["st_ed_indices"] for _, batch in of_draw]) for of_draw in found[1]]
    assert not torch.equal(*labels)
