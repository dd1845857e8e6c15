"""Who asks too often is refused for as long as it takes, nobody else is, and who is quiet is forgotten."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from method_tvr.web.limits import RateLimiter


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_allowed_and_then_the_rate():
    clock = Clock()
    limiter = RateLimiter(rate=2, burst=3, clock=clock)
    assert [limiter.wait_s("a") for _ in range(4)] == [0, 0, 0, 0.5]
    clock.now += 0.25
    assert limiter.wait_s("a") == pytest.approx(0.25)
    clock.now += 0.25
    assert limiter.wait_s("a") == 0
    assert limiter.wait_s("a") == pytest.approx(0.5)


def test_clients_have_buckets_of_their_own():
    limiter = RateLimiter(rate=1, burst=1, clock=Clock())
    assert [limiter.wait_s(name) for name in ("a", "b", "a", "c")] == [0, 0, 1, 0]


def test_a_rate_of_0_refuses_nobody_and_remembers_nobody():
    limiter = RateLimiter(rate=0, burst=0)
    assert not any(limiter.wait_s("a") for _ in range(1000))
    assert len(limiter) == 0


def test_clients_are_forgotten_once_their_bucket_is_full():
    clock = Clock()
    limiter = RateLimiter(rate=2, burst=4, clock=clock)
    for name in ("a", "b", "c"):
        limiter.wait_s(name)
    assert len(limiter) == 3
    clock.now += 0.5
    limiter.wait_s("d")
    assert len(limiter) == 1


def test_memory_is_bounded_whoever_asks():
    limiter = RateLimiter(rate=0.001, burst=2, clock=Clock(), max_clients=50)
    for number in range(1000):
        limiter.wait_s(f"10.0.{number // 256}.{number % 256}")
        assert len(limiter) <= 50


@given(pauses=st.lists(st.floats(0, 5), min_size=1, max_size=60), rate=st.floats(0.1, 50), burst=st.floats(1, 20))
def test_in_any_stretch_of_time_no_more_get_through_than_burst_and_rate_allow(pauses, rate, burst):
    clock = Clock()
    limiter, let_through = RateLimiter(rate, burst, clock=clock), []
    for pause in pauses:
        clock.now += pause
        wait = limiter.wait_s("a")
        assert wait >= 0
        if wait == 0:
            let_through.append(clock.now)
        else:
            assert wait <= 1 / rate + 1e-9
    for first, start in enumerate(let_through):
        for count, end in enumerate(let_through[first:], start=1):
            assert count <= burst + rate * (end - start) + 1e-6


@given(rate=st.floats(0.5, 50), burst=st.floats(1, 20), n=st.integers(1, 40))
def test_who_keeps_to_the_rate_or_comes_back_when_told_is_never_refused(rate, burst, n):
    clock = Clock()
    limiter = RateLimiter(rate, burst, clock=clock)
    for _ in range(n):
        assert limiter.wait_s("steady") == 0
        clock.now += math.nextafter(1 / rate, math.inf) * (1 + 1e-9)
    while (wait := limiter.wait_s("greedy")) == 0:
        pass
    clock.now += wait * (1 + 1e-9) + 1e-9
    assert limiter.wait_s("greedy") == 0


def test_threads_share_the_tokens():
    limiter = RateLimiter(rate=1e-9, burst=100)
    with ThreadPoolExecutor(8) as pool:
        assert sum(wait == 0 for wait in pool.map(limiter.wait_s, ["a"] * 800)) == 100
