"""Milvus in a local file, and a stand-in for a server's client: whole or not at all, bounded retries, what is said."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from method_tvr.search.index import milvus_build, milvus_client
from method_tvr.search.index.milvus_build import index_params, n_shards
from method_tvr.search.index.milvus_client import Milvus
from method_tvr.search.index.milvus_index import open_milvus_index, search_params
from tests.method_tvr.search.test_indexed_search import ALL_CLIPS, Case, D, assert_same_answers, made_case
from utils.basic_utils import InputError

pymilvus = pytest.importorskip(
    "pymilvus", reason="pymilvus is not installed (method_tvr/search/index/requirements.txt)"
)
grpc = pytest.importorskip("grpc", reason="grpc is not installed (method_tvr/search/index/requirements.txt)")

SERVER = "http://server:19530"
AWAY = pymilvus.MilvusException(2, "Fail connecting to server")


class Refused(grpc.RpcError):
    """What gRPC raises where a token is wrong."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAUTHENTICATED

    def details(self) -> str:
        return "auth check failure\nand a frame"


class Client:
    """In place of a client of a server: each call takes the next of what is to come, raises it or gives it."""

    def __init__(self, *to_come: object) -> None:
        self.to_come, self.called, self._lock = list(to_come), list[str](), threading.Lock()

    def __call__(self, *_: object, **__: object) -> Client:
        return self  # it also stands in for the class

    def __getattr__(self, method: str) -> object:
        def call(*_: object, timeout: float) -> object:
            with self._lock:
                self.called.append(method)
                come = self.to_come.pop(0) if len(self.to_come) > 1 else self.to_come[0]
            if isinstance(come, BaseException):
                raise come
            return come

        return call


@pytest.fixture
def connected(monkeypatch):
    """Makes a `Milvus` of a server whose calls have given results, after the first, which finds that it is there."""
    monkeypatch.setattr(milvus_client, "AGAIN_S", 0.01)
    monkeypatch.setattr(milvus_client, "PATIENCE_S", 0.2)

    pymilvus_client = pymilvus.MilvusClient

    def connect(*to_come: object) -> tuple[Milvus, Client]:
        client = Client([], *to_come)
        client.prepare_index_params = pymilvus_client.prepare_index_params
        monkeypatch.setattr(pymilvus, "MilvusClient", client)
        return Milvus(SERVER, None), client

    return connect


STARTING = pymilvus.MilvusException(65535, "empty grpc client: failed to connect 10.0.0.2:20389")


@pytest.mark.parametrize("away", [AWAY, STARTING, pymilvus.MilvusException(101, "collection not loaded")])
def test_a_server_that_comes_back_is_asked_again_and_that_is_said(connected, away, capfd):
    milvus, client = connected(away, away, "found")
    assert milvus.ask("search") == "found"
    assert client.called == ["list_collections", "search", "search", "search"]
    assert capfd.readouterr().err.count(f"note: --index milvus: {SERVER} is away") == 1


BUSY = pymilvus.MilvusException(2, "Stream removed (Deadline Exceeded)")


def test_a_server_that_is_busy_is_asked_again_however_long_its_silence_was(connected, capfd, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(milvus_client, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda s: None))
    milvus, client = connected(BUSY, "found")
    silent = client.__getattr__("search")
    client.search = lambda *args, **options: now.__setitem__(0, now[0] + 60) or silent(*args, **options)
    assert milvus.ask("search") == "found"
    assert f"{SERVER} has not answered in time" in capfd.readouterr().err
    client.to_come = [BUSY]
    with pytest.raises(InputError, match=r"is it busy.*ask again later"):
        milvus.ask("search")


def test_what_may_have_been_sent_without_an_answer_is_not_sent_twice(connected):
    milvus, client = connected(AWAY, "sent")
    milvus.ask("insert", again="upsert")
    assert client.called[1:] == ["insert", "upsert"]


def test_threads_lose_patience_together(connected):
    milvus, _ = connected(AWAY)
    begin = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(milvus.ask, "search") for _ in range(20)]:  # ten times as many as there are threads
            with pytest.raises(InputError, match=f"{SERVER}: .*Fail connecting.*is --index_uri the address of a"):
                one.result()
    assert 0.2 <= time.monotonic() - begin < 1.5


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Refused(), "auth check failure: give as --index_token the user:password"),
        (pymilvus.MilvusException(65535, "no memory left"), "no memory left.*: is there room"),
    ],
)
def test_other_complaints_are_said_at_once(connected, error, said):
    milvus, client = connected(error)
    with pytest.raises(InputError, match=f"^--index milvus: {SERVER}: .*{said}"):
        milvus.ask("search")
    assert len(client.called) == 2


def test_a_refused_connection_is_told_from_one_to_nowhere(connected):
    refused = pymilvus.MilvusException(2, "Fail connecting to server")
    refused.__cause__ = Refused()
    refused.__cause__.__cause__ = refused.__cause__  # as pymilvus raises it
    milvus, _ = connected(refused)
    with pytest.raises(InputError, match="auth check failure: give as --index_token"):
        milvus.ask("search")


def test_an_index_that_fails_or_comes_no_further_is_said(connected, monkeypatch):
    monkeypatch.setattr(milvus_build, "POLL_S", 0.01)
    monkeypatch.setattr(milvus_build, "STUCK_S", 0.1)
    said = {"total_rows": 10, "indexed_rows": 3, "state": "InProgress"}
    for state, words in (("InProgress", "part has come no further for"), ("Failed", "cannot be indexed: no reason")):
        milvus, client = connected({**said, "state": state})
        client.create_index = lambda *_, **__: None
        with pytest.raises(InputError, match=words):
            milvus_build._index(milvus, "part", index_params("ivf", 10, D), "indexing")


# ---------------------------------------------------------------------------- a local file


@pytest.fixture(scope="module")
def case() -> Case:
    return made_case(20)


def opened(folder, case, kind="ivf", seal="a"):
    return open_milvus_index(str(folder / "clips.db"), None, kind, seal * 64, case.corpus, 2, ALL_CLIPS)


@pytest.mark.parametrize("kind", ["ivfsq", "hnsw"])
def test_other_kinds_find_the_same_and_have_collections_of_their_own(case, tmp_path, kind):
    index = opened(tmp_path, case, kind)
    assert_same_answers(case.by(index), case.exact(), case.queries)
    assert sorted(index._milvus.ask("list_collections")) == [f"clips_{'a' * 32}_{kind}_{m}" for m in (0, 1)]


def test_a_kind_that_a_local_file_does_not_have_is_refused(case, tmp_path):
    with pytest.raises(InputError, match=r"--index_kind diskann: neither .* or one of ivf, ivfsq, hnsw"):
        opened(tmp_path, case, "diskann")


def test_what_a_killed_build_has_left_is_dropped_and_begun_again(case, tmp_path, capfd):
    milvus, part = Milvus(str(tmp_path / "clips.db"), None), f"clips_{'a' * 32}_ivf_1_part_0123abcd"
    milvus_build._create(milvus, part, 100, D)
    milvus_build._create(milvus, part.replace("a" * 32, "b" * 32), 100, D)  # of another corpus
    assert_same_answers(case.by(opened(tmp_path, case)), case.exact(), case.queries)
    assert capfd.readouterr().err.count(f"{part} is what an interrupted build has left: it is dropped") == 1
    assert sorted(milvus.ask("list_collections")) == [
        *(f"clips_{'a' * 32}_ivf_{m}" for m in (0, 1)),
        part.replace("a" * 32, "b" * 32),
    ]


def test_a_build_that_is_interrupted_leaves_nothing(case, tmp_path, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    milvus = Milvus(str(tmp_path / "clips.db"), None)
    monkeypatch.setattr(milvus_build, "_index", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opened(tmp_path, case)
    assert milvus.ask("list_collections") == []


def test_of_two_builds_the_first_to_end_is_used(case, tmp_path, monkeypatch, capfd):
    index = milvus_build._index

    def overtaken(*asked: object) -> None:
        index(*asked)
        monkeypatch.setattr(milvus_build, "_index", index)
        opened(tmp_path, case)

    milvus = Milvus(str(tmp_path / "clips.db"), None)
    monkeypatch.setattr(milvus, "is_local", False)  # else the other build's part would count as abandoned
    monkeypatch.setattr("method_tvr.search.index.milvus_index.Milvus", lambda *_: milvus)
    monkeypatch.setattr(milvus_build, "_index", overtaken)
    assert_same_answers(case.by(opened(tmp_path, case)), case.exact(), case.queries)
    said = capfd.readouterr().err
    assert re.search(r"is being built, or was \d s ago: this goes on beside it", said)
    assert f"clips_{'a' * 32}_ivf_0 has been built by another process, and is used" in said
    assert sorted(milvus.ask("list_collections")) == [f"clips_{'a' * 32}_ivf_{m}" for m in (0, 1)]


# ---------------------------------------------------------------------------- in Milvus' words


def test_cells_are_those_of_a_segment_which_milvus_indexes_by_itself():
    assert index_params("ivf", 1_120_000, 384)["params"] == {"nlist": 2048}  # 4 * sqrt(349,525)
    assert index_params("ivfsq", 10**9, 384) == {
        "index_type": "IVF_SQ8",
        "metric_type": "IP",
        "params": {"nlist": 2048},
    }
    assert index_params("ivf", 100, 384)["params"] == {"nlist": 32}


@pytest.mark.parametrize(
    ("kind", "limit", "wanted"),
    [
        ("ivf", 3072, {"nprobe": 256}),
        ("hnsw", 3072, {"ef": 3328}),
        ("hnsw", 4, {"ef": 40}),
        ("diskann", 3072, {"search_list": 3328}),
    ],
)
def test_a_search_looks_as_far_as_probes_say(kind, limit, wanted):
    assert search_params(kind, limit, 256) == wanted
    assert search_params("hnsw", 16_384, 20_000) == {"ef": 32_768}


@pytest.mark.parametrize(("n_clips", "n"), [(1_120_000, 1), (100_000_000, 3), (1_000_000_000, 16)])
def test_shards_grow_with_the_corpus(n_clips, n):
    assert n_shards(n_clips) == n
