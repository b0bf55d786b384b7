"""``torch.ops.bcos_kernels``: functions as torch operators, so that torch.compile and torch.export keep them whole.

Eager layers call the functions themselves: an operator costs microseconds more a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "bcos_kernels"
_library = torch.library.Library(NAMESPACE, "DEF")


def register(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Make ``run`` the operator of this schema on every device, and return it; ``fake`` computes shapes alone."""
    name = schema.split("(")[0]
    _library.define(schema)
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
    return getattr(getattr(torch.ops, NAMESPACE), name)


def differentiate(operator: Any, truth: Callable[..., Tensor], backward: Callable[..., Any] | None = None) -> None:
    """Give an operator of one result its gradients.

    ``truth`` is the same function by operations that torch differentiates; ``backward(inputs, output, grad)`` returns
    a gradient for each input by faster ones, which are not differentiated again.
    """

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*[i for i in inputs if isinstance(i, Tensor)], output)
        ctx.inputs = [None if isinstance(i, Tensor) else (i,) for i in inputs]

    def gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, output = ctx.saved_tensors
        at = iter(tensors)
        inputs = [next(at) if boxed is None else boxed[0] for boxed in ctx.inputs]
        if backward is None or torch.is_grad_enabled():
            return _gradients_of(truth, inputs, ctx.needs_input_grad, grad)
        return backward(inputs, output, grad)  # type: ignore[no-any-return]

    torch.library.register_autograd(operator._qualified_op_name, gradients, setup_context=keep, lib=_library)


def _gradients_of(
    truth: Callable[..., Tensor], inputs: list[Any], needed: tuple[bool, ...], grad: Tensor
) -> tuple[Tensor | None, ...]:
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        views = [i.view_as(i) if isinstance(i, Tensor) else i for i in inputs]
        wanted = [view for view, need in zip(views, needed, strict=False) if need]  # defaults may be left out
        found = iter(torch.autograd.grad(truth(*views), wanted, grad, create_graph=again, materialize_grads=True))
    return tuple(next(found) if need else None for need in needed)
