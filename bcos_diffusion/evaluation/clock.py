"""Run one method and time it, from a random state that is the scene's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def timed(device: torch.device, seed: int, work: Callable[[], Result]) -> tuple[Result, float]:
    """What ``work`` returns, and its seconds: of this process's CPU, or on a GPU until that is done.

    Random numbers begin at ``seed``, so a result does not depend on what ran before, and end as they were.
    """
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        torch.manual_seed(seed)
        begin = _now(device, on_gpu)
        result = work()
        return result, _now(device, on_gpu) - begin


def _now(device: torch.device, on_gpu: bool) -> float:
    if on_gpu:
        torch.cuda.synchronize(device)
    return time.perf_counter() if on_gpu else time.process_time()
