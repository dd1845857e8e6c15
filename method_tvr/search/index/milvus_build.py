"""Filling a collection of Milvus with the clips of a corpus: whole or not at all, whoever else does so at once.

Each build has a collection of its own, `NAME_part_1a2b3c4d`, which is given its name last: what has the name is whole.
While it goes on it gives a sign of life. Parts that have given none for `ABANDONED_S` are of builds that were
interrupted; whoever opens an index of this corpus next drops them.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from method_tvr.search.candidates import clip_vectors, n_cells
from method_tvr.search.corpus import Corpus
from method_tvr.search.index.milvus_client import Milvus, import_milvus
from utils.basic_utils import InputError, Meter

ENTRY, VECTOR = "entry", "clip"
PART = "_part_"
ALIVE = "alive"  # property: seconds since 1970
SIGN_S = 20.0  # between signs of life
ABANDONED_S = 600.0  # without one; no request takes longer, and clocks of machines differ less
BATCH_BYTES = 4 << 20  # of vectors that are sent at once; a server takes 64 MiB
INSERTERS = 4  # threads that send
SEGMENT_BYTES = 512 << 20  # of vectors that Milvus indexes by themselves
CLIPS_A_SHARD, MOST_SHARDS = 50_000_000, 16
STUCK_S = 1800.0  # an index that has come no further
POLL_S = 0.5


def index_params(kind: str, n_clips: int, size: int) -> dict[str, Any]:
    """What Milvus calls an index of a kind over `n_clips` vectors of a size: its type, metric and parameters."""
    in_segment = min(n_clips, SEGMENT_BYTES // (4 * size))
    cells = {"nlist": n_cells(in_segment)}
    graph = {"M": 16, "efConstruction": 128}
    name, params = {
        "ivf": ("IVF_FLAT", cells),
        "ivfsq": ("IVF_SQ8", cells),
        "hnsw": ("HNSW", graph),
        "diskann": ("DISKANN", {}),
    }[kind]
    return {"index_type": name, "metric_type": "IP", "params": params}


def n_shards(n_clips: int) -> int:
    """Shards that so many clips are sent to: each is written by one node."""
    return min(MOST_SHARDS, 1 + n_clips // CLIPS_A_SHARD)


def drop_abandoned(milvus: Milvus, name: str) -> None:
    """Drop what interrupted builds have left of a collection, and say so; say it also of builds that go on."""
    for part in milvus.ask("list_collections"):
        if not part.startswith(name + PART):
            continue
        try:
            properties = milvus.ask("describe_collection", part)["properties"]
        except InputError:
            if milvus.ask("has_collection", part):
                raise
            continue  # it has just been given its name, or was dropped
        silent = time.time() - float(properties.get(ALIVE, 0))
        if milvus.is_local or silent > ABANDONED_S:  # a local file is open in one process only
            _say(f"{part} is what an interrupted build has left: it is dropped")
            milvus.ask("drop_collection", part)
        else:
            _say(
                f"{part} is being built, or was {silent:.0f} s ago: this goes on beside it; "
                f"it is dropped {ABANDONED_S:.0f} s after its last sign of life"
            )


def build(milvus: Milvus, name: str, kind: str, corpus: Corpus, modality: int) -> None:
    """Make the collection `name` of the clips of a modality, unless another process does so first.

    An `InputError` if Milvus complains or is away for too long.
    """
    part = f"{name}{PART}{secrets.token_hex(4)}"
    try:
        n_clips, size = int(corpus.n_clips.sum()), int(corpus.rows_of(0).shape[-1])
        _create(milvus, part, n_clips, size)
        _insert_all(milvus, part, corpus, modality, n_clips, size)
        milvus.ask("flush", part, answer_s=ABANDONED_S / 2)
        _index(milvus, part, index_params(kind, n_clips, size), f"indexing modality {modality}")
        _give_name(milvus, part, name)
    except BaseException:
        with suppress(InputError):  # of a Milvus that is away: the part is dropped later, and the first error is said
            milvus.ask("drop_collection", part)
        raise


def _give_name(milvus: Milvus, part: str, name: str) -> None:
    try:
        milvus.ask("rename_collection", part, name)
    except InputError:
        if not milvus.ask("has_collection", name):
            raise
        _say(f"{name} has been built by another process, and is used")
        milvus.ask("drop_collection", part)


def load(milvus: Milvus, name: str, desc: str) -> None:
    """Have a collection read into the memory of the server, and wait for it."""
    milvus.ask("load_collection", name, _async=True)

    def loaded() -> float:
        state = milvus.ask("get_load_state", name)
        return 100.0 if state["state"].name == "Loaded" else float(state.get("progress", 0))

    _wait(loaded, Meter(desc, 100, "%"), 100, name)


def _say(what: str) -> None:
    print(f"note: --index milvus: {what}", file=sys.stderr, flush=True)


def _create(milvus: Milvus, part: str, n_clips: int, size: int) -> None:
    pymilvus = import_milvus()
    schema = pymilvus.MilvusClient.create_schema(auto_id=False)
    schema.add_field("id", pymilvus.DataType.INT64, is_primary=True)
    schema.add_field(ENTRY, pymilvus.DataType.INT64)
    schema.add_field(VECTOR, pymilvus.DataType.FLOAT_VECTOR, dim=size)
    milvus.ask("create_collection", part, schema=schema, num_shards=n_shards(n_clips), properties=_sign_of_life())


def _sign_of_life() -> dict[str, str]:
    return {ALIVE: str(int(time.time()))}


def _signs(milvus: Milvus, part: str) -> Callable[[], None]:
    """To be called often: gives a sign of life now and then."""
    given = time.monotonic()

    def give() -> None:
        nonlocal given
        if time.monotonic() - given > SIGN_S:
            given = time.monotonic()
            milvus.ask("alter_collection_properties", part, _sign_of_life())

    return give


def _insert_all(milvus: Milvus, part: str, corpus: Corpus, modality: int, n_clips: int, size: int) -> None:
    """Send all clips, by several threads, which take some batches at a time: what waits is bounded."""

    def insert(rows: list[dict[str, Any]]) -> int:
        milvus.ask("insert", part, rows, again="upsert")  # no clip is there twice
        return len(rows)

    meter, give_sign = Meter(f"sending modality {modality}", n_clips, "clips"), _signs(milvus, part)
    n_threads = 1 if milvus.is_local else INSERTERS
    done, sent = 0, deque[Future[int]]()
    pool = ThreadPoolExecutor(n_threads)
    try:
        for rows in _batches(corpus, modality, max(1, BATCH_BYTES // (4 * size))):
            sent.append(pool.submit(insert, rows))
            while len(sent) > 2 * n_threads:
                done += sent.popleft().result()
                meter.reach(done)
                give_sign()
        for one in sent:
            done += one.result()
            meter.reach(done)
    finally:
        pool.shutdown(cancel_futures=True)
        meter.close()


def _batches(corpus: Corpus, modality: int, at_a_time: int) -> Iterator[list[dict[str, Any]]]:
    """Rows of all clips, numbered in the order of the corpus."""
    number = 0
    for entries, vectors in clip_vectors(corpus, modality):
        for first in range(0, len(entries), at_a_time):
            some = slice(first, first + at_a_time)
            rows = [
                {"id": number + i, ENTRY: entry, VECTOR: vector}
                for i, (entry, vector) in enumerate(zip(entries[some].tolist(), vectors[some], strict=True))
            ]
            yield rows
            number += len(rows)


def _index(milvus: Milvus, part: str, params: dict[str, Any], desc: str) -> None:
    """Have the clips of a part indexed, and wait for it."""
    described = import_milvus().MilvusClient.prepare_index_params()
    described.add_index(VECTOR, **params)
    milvus.ask("create_index", part, described, sync=False)
    give_sign = _signs(milvus, part)

    def indexed() -> float:
        give_sign()
        said = milvus.ask("describe_index", part, VECTOR)
        if said["state"] == "Failed":
            reason = said.get("index_state_fail_reason") or "no reason given"
            raise InputError(f"--index milvus: {milvus.uri}: {part} cannot be indexed: {reason}: see the server's log")
        return float(said["total_rows"] if said["state"] == "Finished" else said["indexed_rows"])

    total = float(milvus.ask("describe_index", part, VECTOR)["total_rows"])
    _wait(indexed, Meter(desc, total, "clips"), total, part)


def _wait(reached: Callable[[], float], meter: Meter, total: float, name: str) -> None:
    """Until `total` is reached, or no more is for `STUCK_S`, which is an `InputError`."""
    best, moved = -1.0, time.monotonic()
    try:
        while (now := reached()) < total:
            meter.reach(now)
            if now > best:
                best, moved = now, time.monotonic()
            elif time.monotonic() - moved > STUCK_S:
                raise InputError(
                    f"--index milvus: {name} has come no further for {STUCK_S:.0f} s: see the server's log"
                )
            time.sleep(POLL_S)
    finally:
        meter.close()
