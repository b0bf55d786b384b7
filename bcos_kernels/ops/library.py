"""``torch.ops.bcos_kernels``: functions as torch operators, so that torch.compile and torch.export keep them whole.

Eager layers call the functions themselves: an operator costs microseconds more a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

NAMESPACE = "bcos_kernels"
_library = torch.library.Library(NAMESPACE, "DEF")


def register(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Make ``run`` the operator of this schema on every device, and return it; ``fake`` computes shapes alone."""
    name = schema.split("(")[0]
    _library.define(schema)
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
    return getattr(getattr(torch.ops, NAMESPACE), name)


def differentiate(operator: Any, backward: Callable[..., Any], keep: Callable[..., None]) -> None:
    """Give an operator its gradients: ``keep(ctx, inputs, output)``, then ``backward(ctx, *grads)``."""
    torch.library.register_autograd(
        f"{NAMESPACE}::{operator._qualified_op_name.split('::')[1]}", backward, setup_context=keep, lib=_library
    )
