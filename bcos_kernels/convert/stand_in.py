"""What the stand-ins for the layers of the ``bcos`` library have in common.

A stand-in is a subclass of the library's own class that computes by our functions. An instance is patched by changing
its ``__class__`` and nothing else: parameters, buffers, hooks, names and everything that refers to it stay as they are.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from bcos_kernels.dispatch import traces
from bcos_kernels.mode import explanation_mode, slices


class StandIn:
    """Mixed in before the library's class, which it names as ``original``."""

    original: ClassVar[type[nn.Module]]

    @classmethod
    def refusal(cls, module: nn.Module) -> str | None:
        """Return why this instance of ``original`` must stay as it is; None where it need not."""
        return None

    def following_the_library(self) -> AbstractContextManager[None]:
        """Explanation mode where the library's switch ``detach`` is on; ours holds of its own."""
        return explanation_mode() if getattr(self, "detach", False) else nullcontext()

    def __getstate__(self) -> dict[str, Any]:
        """The library's ``NoBias`` and ``Unaffine`` name a norm by a local function, which cannot be pickled."""
        state = self.__dict__.copy()
        if name := state.get("_get_name"):
            state["_get_name"] = partial(str, name())
        return state


def add_constant(x: Tensor, constant: Tensor | float | None) -> Tensor:
    """x plus a constant, which in a stacked batch belongs to the first part alone, because it is no linear map."""
    if constant is None:
        return x
    if isinstance(constant, Tensor):
        constant = constant.to(x.dtype)
    if slices() == 1:
        return x + constant
    first = len(x) // slices()
    return torch.cat([x[:first] + constant, x[first:]])


def shift(fresh: Tensor, constant: Tensor | None) -> Tensor:
    """As :func:`add_constant`, into the memory of what nobody else has and no backward pass needs."""
    if constant is None or slices() > 1 or forward_ad._current_level >= 0 or traces():
        return add_constant(fresh, constant)
    return fresh.add_(constant.to(fresh.dtype))


def per_channel(bias: Tensor | None) -> Tensor | None:
    """A bias ``[C]`` as it broadcasts against ``[N, C, H, W]``."""
    return None if bias is None else bias[:, None, None]


def hooked(module: nn.Module) -> bool:
    """Whether anyone wants to be called when the module is."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def refuse_hooks(module: nn.Module, name: str) -> None:
    """Raise ValueError for a hook, registered since the model was patched, on a part that a stand-in never calls."""
    if hooked(module):
        raise ValueError(
            f"a hook on {name!r} inside a patched layer would never be called: hook the layer itself, or unpatch the"
            " model, hook and patch it again, which leaves such layers as they are"
        )
