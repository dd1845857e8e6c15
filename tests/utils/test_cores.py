"""Work that cores share piece by piece."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from utils import cores
from utils.cores import WAITING, Room, on_each_core


@pytest.fixture(params=[1, 2, 3])
def n(request: pytest.FixtureRequest) -> Iterator[int]:
    """Threads that PyTorch uses."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_what_is_found_comes_in_the_order_of_its_pieces(n):
    assert list(on_each_core(lambda piece: piece**2, range(100))) == [i**2 for i in range(100)]
    assert list(on_each_core(abs, [])) == []


def test_pieces_are_worked_on_at_once_each_by_one_thread(n):
    all_there = threading.Barrier(n)

    def work(_: int) -> int:
        all_there.wait(timeout=60)  # as many as there are cores have to be there together
        return torch.get_num_threads()

    assert list(on_each_core(work, range(2 * n))) == [1] * 2 * n
    assert torch.get_num_threads() == n
    assert in_a_new_thread(torch.get_num_threads) == n


def test_few_pieces_are_asked_for_ahead(n):
    asked: list[int] = []
    found = on_each_core(abs, (asked.append(i) or i for i in range(100)))
    assert not asked
    assert next(found) == 0
    assert len(asked) <= WAITING * n + 1
    found.close()
    assert len(asked) <= WAITING * n + 1


def test_what_a_piece_raises_ends_it(n):
    found = on_each_core(lambda piece: 1 / piece, [1, 2, 0, 4])
    assert [next(found), next(found)] == [1, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert list(on_each_core(abs, [-1])) == [1]


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_gradients_are_kept_as_who_asks_has_them(n, mode):
    weight = torch.ones(1, requires_grad=True)
    with mode():
        wanted = weight * 2
        (found,) = on_each_core(lambda number: weight * number, [2])
    assert (found.is_inference(), found.requires_grad) == (wanted.is_inference(), wanted.requires_grad)


def test_several_threads_may_ask(n):
    threads = [threading.Thread(target=lambda: sums.append(sum(on_each_core(abs, range(1000))))) for _ in range(4)]
    sums: list[int] = []
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sums == [sum(range(1000))] * 4


def test_a_thread_that_goes_on_when_the_main_one_has_ended_still_gets_what_it_asks_for():
    """Whether it has asked before or not."""
    program = """
import threading, torch
from utils.cores import on_each_core
torch.set_num_threads(2)
def work():
    threading.main_thread().join()
    print(sum(on_each_core(abs, range(10))))
{}
threading.Thread(target=work).start()
"""
    for before in ("", "list(on_each_core(abs, range(10)))"):
        done = subprocess.run([sys.executable, "-c", program.format(before)], capture_output=True, text=True)
        assert (done.stdout, done.stderr, done.returncode) == ("45\n", "", 0)


def test_what_is_under_way_has_ended_when_the_rest_is_not_asked_for(n):
    under_way: list[int] = []

    def work(piece: int) -> int:
        under_way.append(piece)
        time.sleep(0.05 if piece else 0)
        under_way.remove(piece)
        return piece

    found = on_each_core(work, range(100))
    next(found)
    found.close()
    assert not under_way


def test_where_no_thread_can_be_started_pieces_are_worked_on_here(monkeypatch):
    def refuse(_: int) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(cores, "_started", refuse)
    assert set(on_each_core(lambda _: threading.get_ident(), range(3))) == {threading.get_ident()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(n):
    begun = on_each_core(abs, range(100))
    next(begun)
    child = os.fork()
    if not child:
        begun.close()
        os._exit(sum(on_each_core(abs, range(10))))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 45


def test_a_room_is_used_again_by_its_thread_alone_and_grows():
    room = Room(np.empty)
    first = room.of(3)
    assert [len(first), len(room.of(2)), len(room.of(5))] == [3, 2, 5]
    large = room.of(4)
    assert np.shares_memory(large, room.of(2))
    assert not np.shares_memory(large, in_a_new_thread(lambda: room.of(4)))


def in_a_new_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]
