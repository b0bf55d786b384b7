"""Shards spread over processes of one thread each, so that their number changes no bit of what they find."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial

import torch

from bcos_diffusion.evaluation.plan import records
from bcos_diffusion.evaluation.setup import Setup
from bcos_diffusion.evaluation.shards import Shard, ShardFolder

_HERE: dict[str, Setup] = {}


def run_all(
    setup: Setup, folder: ShardFolder, shards: Sequence[Shard], workers: int, advance: Callable[[Shard], object]
) -> None:
    """Write every shard; ``advance`` is called in this process after each.

    workers: 1 for this process, more for as many new ones, which get copies of the models: for a CPU. Raises what a
    shard raises; shards that are done by then stay.
    """
    if workers == 1 or len(shards) <= 1:
        with _one_thread(setup):
            for shard in shards:
                folder.write(shard, partial(records, setup))
                advance(shard)
        return
    context = multiprocessing.get_context("spawn")  # a fork would inherit the locks of torch's threads
    count = min(workers, len(shards))
    pool = ProcessPoolExecutor(count, context, _begin, (setup,))
    try:
        for future in as_completed([pool.submit(_write, folder, shard, count) for shard in shards]):
            advance(future.result())
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread(setup: Setup) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _begin(setup: Setup) -> None:
    """Make a new process ready, and end it should its parent be killed: nobody else would."""
    torch.set_num_threads(1)
    _HERE["setup"] = setup
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _write(folder: ShardFolder, shard: Shard, workers: int) -> Shard:
    folder.write(shard, partial(records, _HERE["setup"]), workers)
    return shard
