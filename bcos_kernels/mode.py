"""Explanation mode: the per-thread switch under which a network is its own linear map.

Every data-dependent factor of the network passes through :func:`hold` or :func:`weigh`;
under explanation mode it is then a constant (mathematics: "the dynamic linear map"), and
what is left is linear in the inputs, with an unchanged value. Nothing here keeps a list of
modules, so layers replaced or added at any time are seen.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


class _Mode(threading.local):
    def __init__(self) -> None:  # runs in every thread; defaults of the class would make torch.compile compile twice
        self.depth = 0
        self.slices = 1


_mode = _Mode()


@contextmanager
def explanation_mode() -> Iterator[None]:
    """Hold every data-dependent factor constant inside the block; nestable, per thread."""
    _mode.depth += 1
    try:
        yield
    finally:
        _mode.depth -= 1


@contextmanager
def stacked(slices: int) -> Iterator[None]:
    """Explanation mode for a batch of ``slices`` parts ``[x; v_1; ...]`` along dimension 0.

    Factors are computed from the first part (the primal) alone and shared by all parts, so
    one plain forward pass pushes ``slices - 1`` tangents through W(x), without a graph.
    Every batch that enters the block must have ``slices * N`` rows.
    """
    if slices < 1:
        raise ValueError(f"slices must be at least 1 (the primal), got {slices}")
    outer = _mode.slices
    _mode.slices = slices
    try:
        with explanation_mode():
            yield
    finally:
        _mode.slices = outer


def is_explaining() -> bool:
    """Whether this thread is inside :func:`explanation_mode`."""
    return _mode.depth > 0


def slices() -> int:
    """Number of parts in the stacked batch of this thread; 1 outside :func:`stacked`."""
    return _mode.slices


def hold(factor: Tensor) -> Tensor:
    """Return ``factor``, as a constant under explanation mode."""
    return factor.detach() if _mode.depth else factor


def primal(x: Tensor) -> Tensor:
    """Return the first part of a stacked batch ``[slices * N, ...]`` (all of it when not stacked)."""
    if _mode.slices == 1:
        return x
    if x.shape[0] % _mode.slices:
        raise ValueError(
            f"a stacked batch of {_mode.slices} parts needs a multiple of {_mode.slices} rows, got {x.shape[0]}"
        )
    return x[: x.shape[0] // _mode.slices]


def weigh(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply ``x`` by a data-dependent ``factor`` computed from ``primal(x)``.

    x: ``[slices * N, ...]``; factor: broadcasts against ``[N, ...]``, held constant under
    explanation mode and shared by all parts of a stacked batch.
    """
    factor = hold(factor)
    if _mode.slices == 1:
        return x * factor
    return (x.unflatten(0, (_mode.slices, -1)) * factor).flatten(0, 1)
