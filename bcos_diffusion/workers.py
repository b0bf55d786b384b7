"""Work spread over processes of one thread each, so that their number changes no bit of what they find."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")

_HERE: dict[str, Any] = {}


def spread(
    work: Callable[[State, Item], Result],
    state: State,
    items: Sequence[Item],
    workers: int,
    advance: Callable[[Result], object],
) -> None:
    """Do ``work(state, item)`` for every item; ``advance`` is called in this process with each result.

    work: a function of a module, since it is named to other processes; workers: 1 for this process, more for as many
    new ones, which get copies of the state: for a CPU. Raises what the work raises; the items done by then stay done.
    """
    if workers == 1 or len(items) <= 1:
        with one_thread():
            for item in items:
                advance(work(state, item))
        return
    context = multiprocessing.get_context("spawn")  # a fork would inherit the locks of torch's threads
    pool = ProcessPoolExecutor(min(workers, len(items)), context, _begin, (work, state))
    try:
        for future in as_completed([pool.submit(_do, item) for item in items]):
            advance(future.result())
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: how a sum is split among threads changes its last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _begin(work: Callable[[Any, Any], Any], state: Any) -> None:
    """Make a new process ready, and end it should its parent be killed: nobody else would."""
    torch.set_num_threads(1)
    _HERE["work"], _HERE["state"] = work, state
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(item: Any) -> Any:
    return _HERE["work"](_HERE["state"], item)
