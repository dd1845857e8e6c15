"""Work that cores share piece by piece."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import torch

from utils.cores import WAITING, on_each_core


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


@pytest.mark.parametrize("inference", [True, False])
def test_inference_mode_is_that_of_who_asks(n, inference):
    with torch.inference_mode(inference):
        (found,) = on_each_core(torch.ones, [1])
    assert found.is_inference() == inference


def test_several_threads_may_ask(n):
    threads = [threading.Thread(target=lambda: sums.append(sum(on_each_core(abs, range(1000))))) for _ in range(4)]
    sums: list[int] = []
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sums == [sum(range(1000))] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(n):
    assert sum(on_each_core(abs, range(10))) == 45
    child = os.fork()
    if not child:
        os._exit(sum(on_each_core(abs, range(10))))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 45


def in_a_new_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]
