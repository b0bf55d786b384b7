"""The constants that logit layers add: B-cos classifiers start all classes as unlikely, by one number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from bcos_kernels.call import Model

Added = list[tuple[Tensor, float]]


@contextmanager
def record_logit_biases(model: Model) -> Iterator[Added]:
    """Collect the output of every logit layer that runs inside the block, with the constant that it added.

    A logit layer is a module with ``logit_bias`` and ``logit_temperature``, as in the ``bcos`` library.
    """
    added: Added = []

    def listen(layer: nn.Module, _: object, output: Tensor) -> None:
        if output.requires_grad:
            added.append((output, float(layer.logit_bias)))  # type: ignore[arg-type]

    handles = [layer.register_forward_hook(listen) for layer in logit_layers(model) if layer.logit_bias]
    try:
        yield added
    finally:
        for handle in handles:
            handle.remove()


def logit_layers(model: Model) -> list[nn.Module]:
    """The logit layers of a model; none of what is not a module."""
    if not isinstance(model, nn.Module):
        return []
    return [m for m in model.modules() if hasattr(m, "logit_bias") and hasattr(m, "logit_temperature")]
