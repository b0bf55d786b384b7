"""Run one method and time it, from a random state that is the scene's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

Result = TypeVar("Result")


def timed(device: torch.device, seed: int, work: Callable[[], Result]) -> tuple[Result, float]:
    """What ``work`` returns, and its seconds: of this process's CPU, or on a GPU until that is done.

    Global random numbers begin at ``seed``, so a result does not depend on what ran before.
    """
    torch.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        begin = time.perf_counter()
        result = work()
        torch.cuda.synchronize(device)
        return result, time.perf_counter() - begin
    begin = time.process_time()
    result = work()
    return result, time.process_time() - begin
