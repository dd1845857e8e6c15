"""Many ask at once: they are searched for together, each gets its own answer or error, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from method_tvr.ask.questions import QuestionError
from method_tvr.web.batching import BatchedSearcher, Busy
from tests.support.web_stubs import BROKEN, NO_WORDS, StubSearcher, moments_for


@pytest.fixture
def stub() -> StubSearcher:
    return StubSearcher()


@pytest.fixture
def batched(stub: StubSearcher) -> Iterator[BatchedSearcher]:
    searcher = BatchedSearcher(stub, max_queue=6, max_batch=4)
    yield searcher
    stub.gate.set()
    searcher.close()


@pytest.fixture
def searching(stub: StubSearcher, batched: BatchedSearcher) -> Future:
    """The answer to a sentence that is being searched for until the gate is opened; what comes now has to wait."""
    stub.gate.clear()
    answer = batched.submit("first", 1)
    assert stub.entered.wait(30)
    return answer


def test_an_answer_is_the_searchers(batched):
    assert batched.search("Omar laughs.", 3, show="friends") == moments_for("Omar laughs.", 3, show="friends")
    assert batched.search("Omar laughs.", 2, video="house_one") == moments_for("Omar laughs.", 2, "house_one")


def test_what_waits_in_the_same_videos_is_searched_for_together(stub, batched, searching):
    answers = [batched.submit("a", 2), batched.submit("b", 5, show="house"), batched.submit("c", 4)]
    stub.gate.set()
    assert [answer.result(30) for answer in answers] == [
        moments_for("a", 2), moments_for("b", 5, show="house"), moments_for("c", 4),
    ]  # fmt: skip
    assert stub.calls[1:] == [(["a", "c"], 4, None, None), (["b"], 5, None, "house")]


def test_what_is_asked_with_another_nms_is_searched_for_apart(stub, batched, searching):
    answers = [batched.submit(sentence, 2, nms_thd=thd) for sentence, thd in (("a", 0.5), ("b", None), ("c", 0.5))]
    stub.gate.set()
    assert [answer.result(30) for answer in answers] == [moments_for(sentence, 2) for sentence in "abc"]
    assert [sentences for sentences, *_ in stub.calls[1:]] == [["a", "c"], ["b"]]
    assert stub.nms_thds[1:] == [0.5, None]


def test_a_batch_has_no_more_sentences_than_allowed(stub, batched, searching):
    answers = [batched.submit(name, 1) for name in "abcdef"]
    stub.gate.set()
    assert [answer.result(30)[0].vid_name for answer in answers] == [f"{name} in None" for name in "abcdef"]
    assert [sentences for sentences, *_ in stub.calls] == [["first"], ["a", "b", "c", "d"], ["e", "f"]]


@pytest.mark.parametrize(("bad", "error"), [(NO_WORDS, QuestionError), (BROKEN, RuntimeError)])
def test_a_sentence_that_fails_does_not_fail_those_it_waited_with(stub, batched, searching, bad, error):
    good, spoilt, other = batched.submit("a", 1), batched.submit(bad, 2), batched.submit("b", 3)
    stub.gate.set()
    assert good.result(30) == moments_for("a", 1)
    assert other.result(30) == moments_for("b", 3)
    with pytest.raises(error):
        spoilt.result(30)


@pytest.mark.parametrize(("sentence", "top_k"), [(" \n", 1), ("a", 0)])
def test_what_cannot_be_answered_does_not_even_wait(stub, batched, sentence, top_k):
    with pytest.raises(QuestionError):
        batched.search(sentence, top_k)
    assert not stub.calls


def test_a_full_queue_takes_no_more(stub, batched, searching):
    answers = [batched.submit(name) for name in "abcdef"]
    with pytest.raises(Busy, match="6 sentences are waiting already"):
        batched.search("one more")
    stub.gate.set()
    assert all(answer.result(30) for answer in answers)


def test_who_has_waited_too_long_is_told_and_not_searched_for(stub, batched, searching):
    with pytest.raises(Busy, match="no answer in time"):
        batched.search("a", timeout=0.01)
    with pytest.raises(Busy, match="no answer in time"):
        asyncio.run(batched.search_async("b", 1, None, None, timeout=0.01))
    stub.gate.set()
    assert batched.search("c", 1) == moments_for("c", 1)
    assert [sentences for sentences, *_ in stub.calls] == [["first"], ["c"]]


def test_those_who_gave_up_make_room(stub, batched, searching):
    for answer in [batched.submit(name) for name in "abcdef"]:
        answer.cancel()
    answers = [batched.submit(name, 1) for name in "uvwxyz"]
    stub.gate.set()
    assert [answer.result(30) for answer in answers] == [moments_for(name, 1) for name in "uvwxyz"]


def test_closing_answers_what_is_searched_for_and_refuses_what_waits(stub, batched, searching):
    waiting = batched.submit("a")
    closing = threading.Thread(target=batched.close)
    closing.start()
    with pytest.raises(Busy, match="the server is ending"):
        waiting.result(30)
    stub.gate.set()
    closing.join(30)
    assert searching.result(0) == moments_for("first", 1)
    assert not batched.ready
    with pytest.raises(Busy, match="the server is ending"):
        batched.search("b")
    batched.close()
    assert "searching" not in {thread.name for thread in threading.enumerate()}


def test_waiting_without_a_thread_gives_the_same(batched):
    async def ask() -> list:
        asked = [batched.search_async(name, 2, None, None, timeout=30) for name in ("a", NO_WORDS, "b")]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, wrong, last = asyncio.run(ask())
    assert (first, last) == (moments_for("a", 2), moments_for("b", 2))
    assert isinstance(wrong, QuestionError)


def test_many_threads_get_what_each_would_alone(stub):
    searcher = BatchedSearcher(stub, max_queue=64)
    asked = [(f"s{n % 7}", n % 5 + 1, None, ("friends", None)[n % 2]) for n in range(400)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda each: searcher.search(*each, timeout=30), asked))
    searcher.close()
    assert found == [moments_for(*each) for each in asked]
    assert len(stub.calls) < 400


def test_a_sentence_whose_client_has_gone_is_not_searched_for(stub, batched, searching):
    async def leave() -> None:
        asked = asyncio.create_task(batched.search_async("gone", 1, None, None, timeout=30))
        await asyncio.sleep(0.05)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(leave())
    stub.gate.set()
    assert batched.search("after", 1) == moments_for("after", 1)
    assert [sentences for sentences, *_ in stub.calls] == [["first"], ["after"]]
