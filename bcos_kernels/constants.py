"""Tensors that a network adds and no input gave: constants of the explanation that carry a name in its budget.

A module that computes one (an embedding of time, a mean that is subtracted) passes it through :func:`constant`. Under
explanation mode it then carries no signal of the inputs. ``completeness`` collects what passes, and reports its share
under the name of the module. Parameters that are added as they are need no module: the one that holds them lists them
in ``additive_parameters``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from bcos_kernels.mode import is_explaining

Collector = Callable[[nn.Module, Tensor], Tensor]
"""Given a module and its constant, without a graph, returns what the network shall use: the same value."""


class _Collectors(threading.local):
    active: Collector | None = None


_collectors = _Collectors()


def constant(module: nn.Module, value: Tensor) -> Tensor:
    """Return ``value``; under explanation mode without what it was computed from, and told to who collects."""
    if not is_explaining():
        return value
    value = value.detach()
    return value if _collectors.active is None else _collectors.active(module, value)


@contextmanager
def collecting(collector: Collector) -> Iterator[None]:
    """Ask the collector about every constant that this thread computes in the block."""
    outer = _collectors.active
    _collectors.active = collector
    try:
        yield
    finally:
        _collectors.active = outer


def additive_parameters(model: nn.Module) -> set[str]:
    """Names of the parameters that modules say they add, such as position embeddings."""
    return {
        f"{name}.{parameter}" if name else parameter
        for name, module in model.named_modules()
        for parameter in getattr(module, "additive_parameters", ())
        if getattr(module, parameter, None) is not None
    }
