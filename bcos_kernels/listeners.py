"""Who wants to hear what the backward pass of an attention finds: per thread, like explanation mode.

An attention asks, when it runs forward, who listens; what it finds in its backward pass it then tells them. It keeps
no list itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn


class Ear(NamedTuple):
    """token: a leaf whose gradient is asked for, so that the backward pass comes as far as the attention; hear:
    called there with the relevance ``[N, H, S]`` and a function that returns the maps ``[N, P, S]``.
    """

    token: Tensor
    hear: Callable[[Tensor, Callable[[], Tensor]], None]


Listener = Callable[[nn.Module], Ear | None]
"""Says how it listens to an attention that runs forward, or that it does not."""


class _Listeners(threading.local):
    active: tuple[Listener, ...] = ()


_listeners = _Listeners()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Ask the listener about every attention that runs forward in the block, in this thread; nestable."""
    outer = _listeners.active
    _listeners.active = (*outer, listener)
    try:
        yield
    finally:
        _listeners.active = outer


def ears(module: nn.Module) -> tuple[Ear, ...]:
    """How this thread's listeners listen to this call of a module."""
    found = (listener(module) for listener in _listeners.active)
    return tuple(ear for ear in found if ear is not None)
