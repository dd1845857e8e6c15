"""A real Milvus server: kinds of index, several builds at once, users, and a server that goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from method_tvr.options.values import MILVUS_KINDS
from method_tvr.search.index import milvus_build, milvus_client
from method_tvr.search.index.milvus_client import Milvus
from method_tvr.search.index.milvus_index import MilvusIndex, open_milvus_index
from tests.method_tvr.search.test_indexed_search import ALL_CLIPS, Case, D, assert_same_answers, made_case
from tests.support.milvus_server import TOKEN, MilvusServer, milvus_command_or_skip
from utils.basic_utils import InputError


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    started = MilvusServer(milvus_command_or_skip(), tmp_path_factory.mktemp("milvus") / "data")
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def case() -> Case:
    """Enough clips for Milvus to make an index of them."""
    return made_case(400)


def opened(server: MilvusServer, case: Case, kind: str = "ivf", seal: str = "a", token: str = TOKEN) -> MilvusIndex:
    return open_milvus_index(server.uri, token, kind, seal * 64, case.corpus, 2, ALL_CLIPS)


def collections(server: MilvusServer) -> set[str]:
    return set(Milvus(server.uri, TOKEN).ask("list_collections"))


@pytest.mark.parametrize("kind", [kind for kind in MILVUS_KINDS if kind != "diskann"])
def test_each_kind_finds_what_an_exact_search_finds_and_is_built_once(server, case, kind):
    index = opened(server, case, kind)
    assert_same_answers(case.by(index), case.exact(), case.queries)
    milvus = Milvus(server.uri, TOKEN)
    name = f"clips_{'a' * 32}_{kind}_1"
    made = {"ivf": "IVF_FLAT", "ivfsq": "IVF_SQ8", "hnsw": "HNSW"}[kind]
    assert milvus.ask("describe_index", name, "clip")["index_type"] == made
    number = milvus.ask("describe_collection", name)["collection_id"]
    opened(server, case, kind)
    assert milvus.ask("describe_collection", name)["collection_id"] == number


def test_a_kind_that_the_server_does_not_have_is_refused_before_it_is_built(server, case):
    with pytest.raises(InputError, match=r"nor the server of pip install milvus has this kind: .* ivf, ivfsq, hnsw"):
        opened(server, case, "diskann")
    assert not {name for name in collections(server) if "diskann" in name}


def test_corpora_side_by_side_have_their_own_collections(server, case):
    first = opened(server, case)
    other = made_case(30, seed=6)
    second = opened(server, other, seal="b")
    assert_same_answers(other.by(second), other.exact(), other.queries)
    assert_same_answers(case.by(first), case.exact(), case.queries)
    assert {f"clips_{seal * 32}_ivf_{m}" for seal in "ab" for m in (0, 1)} <= collections(server)


def test_builds_at_once_end_in_one_whole_index(server, case, capfd):
    with ThreadPoolExecutor(3) as pool:
        indexes = list(pool.map(lambda _: opened(server, case, seal="c"), range(3)))
    for index in indexes:
        assert_same_answers(case.by(index), case.exact(), case.queries)
    assert {name for name in collections(server) if "c" * 32 in name} == {f"clips_{'c' * 32}_ivf_{m}" for m in (0, 1)}
    assert "has been built by another process, and is used" in capfd.readouterr().err


def test_an_interrupted_build_is_begun_again_and_what_it_left_dropped_once_it_is_silent(
    server, case, monkeypatch, capfd
):
    milvus, part = Milvus(server.uri, TOKEN), f"clips_{'d' * 32}_ivf_0_part_0123abcd"
    milvus_build._create(milvus, part, 100, D)  # what a killed build leaves
    assert_same_answers(case.by(opened(server, case, seal="d")), case.exact(), case.queries)
    assert part in collections(server)
    assert f"{part} is being built, or was " in capfd.readouterr().err
    monkeypatch.setattr(milvus_build, "ABANDONED_S", -1.0)
    opened(server, case, seal="d")
    assert part not in collections(server)
    assert f"{part} is what an interrupted build has left: it is dropped" in capfd.readouterr().err


@pytest.mark.parametrize("token", ["", "root:wrong", "nobody:at_all"])
def test_a_wrong_token_is_said_at_once(server, case, token):
    begin = time.monotonic()
    with pytest.raises(
        InputError,
        match=r"127.0.0.1:\d+: (missing auth|auth check fail).*: give as --index_token the user:",
    ):
        opened(server, case, token=token)
    assert time.monotonic() - begin < 10


def test_somebody_who_may_not_create_collections_is_told_so(server, case):
    Milvus(server.uri, TOKEN).ask("create_user", "reader", "Reader.1")
    with pytest.raises(InputError, match=r"permission deny to reader.*: give as --index_token the user:password"):
        opened(server, case, seal="e", token="reader:Reader.1")


@contextmanager
def stopped(server: MilvusServer, start_after_s: float | None) -> Iterator[None]:
    """The server stopped, and started again after some seconds, at the latest when the block ends."""
    server.stop()
    back = threading.Timer(start_after_s or 0, server.start, [False])
    if start_after_s is not None:
        back.start()
    try:
        yield
    finally:
        if start_after_s is None:
            server.start()
        else:
            back.join()


def test_a_search_waits_for_a_server_that_starts_again(server, case, monkeypatch, capfd):
    monkeypatch.setattr(milvus_client, "PATIENCE_S", 120.0)  # beside other tests it starts slowly
    index = opened(server, case)
    with stopped(server, start_after_s=2):
        assert_same_answers(case.by(index), case.exact(), case.queries)
    assert f"note: --index milvus: {server.uri} is away" in capfd.readouterr().err


def test_a_server_that_stays_away_ends_a_search_in_bounded_time(server, case, monkeypatch):
    monkeypatch.setattr(milvus_client, "PATIENCE_S", 3.0)
    index = opened(server, case)
    with stopped(server, start_after_s=None):
        begin = time.monotonic()
        with pytest.raises(InputError, match="is --index_uri the address of a running Milvus, and is it up"):
            list(case.by(index).search(case.queries))
        assert 3 <= time.monotonic() - begin < 20


def stopped_while_building(server: MilvusServer, monkeypatch: pytest.MonkeyPatch, start_again: bool) -> list[float]:
    """Have the server stopped after some batches of a build, which are made small; gives the time when it was."""
    batches = milvus_build._batches

    def interrupted(*asked):
        for number, rows in enumerate(batches(*asked)):
            if number == 12 and not gone:
                server.stop()
                gone.append(time.monotonic())
                if start_again:
                    server.start(wait=False)
            yield rows

    gone: list[float] = []
    monkeypatch.setattr(milvus_build, "BATCH_BYTES", 4096)
    monkeypatch.setattr(milvus_build, "_batches", interrupted)
    return gone


def test_a_build_goes_on_when_the_server_is_back(server, case, monkeypatch, capfd):
    monkeypatch.setattr(milvus_client, "PATIENCE_S", 120.0)
    stopped_while_building(server, monkeypatch, start_again=True)
    assert_same_answers(case.by(opened(server, case, seal="f")), case.exact(), case.queries)
    assert "is away" in capfd.readouterr().err


def test_a_build_ends_with_a_message_when_the_server_stays_away(server, case, monkeypatch):
    monkeypatch.setattr(milvus_client, "PATIENCE_S", 3.0)
    opened(server, case)
    gone = stopped_while_building(server, monkeypatch, start_again=False)
    with pytest.raises(InputError, match="is --index_uri the address of a running Milvus, and is it up"):
        opened(server, case, seal="g")
    assert time.monotonic() - gone[0] < 20
    server.start()
    assert not {name for name in collections(server) if "g" * 32 in name and "_part_" not in name}
