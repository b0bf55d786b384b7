"""Explanation mode for models whose modules have switches of their own, as those of the ``bcos`` library do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from bcos_kernels.mode import stacked


@contextmanager
def explaining(model: Callable[..., Any]) -> Iterator[None]:
    """Explanation mode of this package and, in addition, of whatever in ``model`` has a mode of its own.

    Every module with ``set_explanation_mode`` is switched on, and afterwards put back as it was; a model without any
    that has a context manager ``explanation_mode()`` enters it. Nestable, but such switches act on all threads.
    """
    modules = [m for m in model.modules() if callable(getattr(m, "set_explanation_mode", None))] if (
        isinstance(model, nn.Module)
    ) else []  # fmt: skip
    before = [(module, _is_on(module)) for module in modules]
    with ExitStack() as stack:
        stack.enter_context(stacked(1))
        if not modules and callable(own := getattr(model, "explanation_mode", None)):
            stack.enter_context(own())
        try:
            for module, _ in before:
                module.set_explanation_mode(True)  # type: ignore[operator]
            yield
        finally:
            for module, on in before:
                module.set_explanation_mode(on)  # type: ignore[operator]


def _is_on(module: nn.Module) -> bool:
    return bool(getattr(module, "is_in_explanation_mode", getattr(module, "detach", False)))
