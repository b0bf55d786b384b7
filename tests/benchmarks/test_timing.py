"""Turns, rounds and sample lengths, with clocks that only pretend."""

import time

import pytest

from benchmarks.timing import ROUNDS, HostClock, calls_per_sample, interleave


class Pretend:
    """A clock on which a call takes what it returns; every sample is noted and lets the time pass."""

    sample_s, most_calls = 1.0, 50

    def __init__(self):
        self.samples, self.time = [], 0.0

    def __call__(self, call, sets, inner):
        seconds = call(0)
        self.samples.append((seconds, inner))
        self.time += inner * seconds
        return seconds


def test_peers_take_turns_and_short_calls_are_repeated():
    clock = Pretend()
    calls = {"a": lambda i: 20.0, "b": lambda i: 0.25, "c": lambda i: 0.0001}
    times = interleave(calls, {"a": 20.0, "b": 0.25, "c": 0.0}, clock, 3, end=0.0, now=lambda: clock.time)
    assert times == {"a": [20.0] * 3, "b": [0.25] * 3, "c": [0.0001] * 3}  # the least number of rounds
    first, rounds = clock.samples[:2], clock.samples[2:]  # a call that is long for sure is not measured beforehand
    assert first == [(0.25, 5), (0.0001, 5)]
    one, two, three = (20.0, 1), (0.25, 4), (0.0001, 50)
    assert rounds == [one, two, three, two, three, one, three, one, two]


@pytest.mark.parametrize(("seconds", "expected"), [(5.0, 3), (15.0, 8), (1e6, ROUNDS[1])])
def test_rounds_go_on_while_there_is_time(seconds, expected):
    clock = Pretend()
    times = interleave({"a": lambda i: 2.0}, {"a": 20.0}, clock, 3, end=seconds, now=lambda: clock.time)
    assert len(times["a"]) == expected


def test_the_host_clock_gives_seconds_of_one_call_and_visits_every_set():
    visited = []

    def call(i):
        visited.append(i)
        time.sleep(0.002)

    assert 0.002 <= HostClock("cpu")(call, sets=3, inner=5) < 0.02
    assert visited == [0, 1, 2, 0, 1]
    assert calls_per_sample(HostClock("cpu"), call, 3, about_s=0.002) in range(2, 6)
