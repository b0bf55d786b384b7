"""Seconds of calls that take turns, so that a machine that slows down slows all of them.

Each sample is long enough to be measured and walks through several input sets. On a CUDA device its time is
the device's own, between two events: the host enqueues a sample while the device still sleeps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import torch

from benchmarks.passes import Call

ROUNDS = 3, 30
"""At least and at most."""


class Clock(Protocol):
    """Seconds per call of one sample of ``inner`` calls, and how long a sample should be."""

    sample_s: float
    most_calls: int

    def __call__(self, call: Call, sets: int, inner: int) -> float: ...


class HostClock:
    """Seconds until the host is done with a call, which on a CUDA device is before the device is."""

    sample_s, most_calls = 0.01, 2000

    def __init__(self, device: str) -> None:
        self._wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def __call__(self, call: Call, sets: int, inner: int) -> float:
        self._wait()
        began = time.perf_counter()
        for i in range(inner):
            call(i % sets)
        taken = time.perf_counter() - began
        self._wait()
        return taken / inner


class DeviceClock:
    """Seconds of the CUDA device, without the gaps in which it would wait for the host."""

    sample_s, most_calls = 0.002, 30  # a launch queue holds about a thousand kernels
    _CYCLES_PER_SECOND = 2e9

    def __init__(self) -> None:
        cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self._flush = torch.empty(2 * cache, dtype=torch.int8, device="cuda")
        self._asleep_s = 0.001

    def __call__(self, call: Call, sets: int, inner: int) -> float:
        for _ in range(6):
            taken, ahead = self._sample(call, sets, inner)
            if ahead:
                break
            self._asleep_s = min(2 * self._asleep_s, 0.25)
        return taken / inner

    def _sample(self, call: Call, sets: int, inner: int) -> tuple[float, bool]:
        """Seconds of one sample, and whether all of it was enqueued before the device woke up."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        torch.cuda._sleep(int(self._asleep_s * self._CYCLES_PER_SECOND))  # type: ignore[no-untyped-call]
        start.record()
        for i in range(inner):
            call(i % sets)
        ahead = not start.query()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3, ahead


def clock_for(device: str, host: bool) -> Clock:
    """The clock for a pass: the device's own, unless the price of the call itself is asked for."""
    return DeviceClock() if device == "cuda" and not host else HostClock(device)


def calls_per_sample(clock: Clock, call: Call, sets: int, about_s: float) -> int:
    """How many calls make a sample long enough, where one takes at least ``about_s``."""
    if about_s >= 10 * clock.sample_s:
        return 1
    once = max(clock(call, sets, min(5, clock.most_calls)), 1e-9)
    return max(1, min(clock.most_calls, round(clock.sample_s / once)))


def interleave(
    calls: dict[str, Call], about_s: dict[str, float], clock: Clock, sets: int, end: float,
    now: Callable[[], float] = time.monotonic,
) -> dict[str, list[float]]:  # fmt: skip
    """Seconds per call of every peer, one sample each a round, the first of a round taking turns.

    Rounds go on until ``end`` on the clock ``now``, within ``ROUNDS``. The calls are warm; about_s: what one takes at
    least.
    """
    inner = {name: calls_per_sample(clock, call, sets, about_s[name]) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for turn in range(ROUNDS[1]):
        if turn >= ROUNDS[0] and now() >= end:
            break
        for name in order:
            times[name].append(clock(calls[name], sets, inner[name]))
        order = order[1:] + order[:1]
    return times


def sets_needed(device: str, input_bytes: int) -> int:
    """Input sets to rotate over: three, or more where a device's cache would hold three of this size."""
    if device != "cuda":
        return 3
    cache = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    return min(16, max(3, -(-2 * cache // input_bytes)))
