"""The layers that are timed beside one another, all on the same weight.

- plain: the convolution or matrix product alone, the floor
- touched: the same, but torch's own operations then read its input and its weight and rescale its output once: the
  memory traffic that a B-cos layer around a library's product cannot avoid, and no arithmetic of its own
- bcos_kernels: this package's modules
- bcos: the modules of the package ``bcos`` from PyPI
- compiled: this package's pure-PyTorch reference under ``torch.compile``
- eager: the same reference, uncompiled
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn import functional as F

from bcos_kernels import BcosConv2d, BcosLinear, explanation_mode, stacked
from bcos_kernels.ops.bcos_conv2d.reference import bcos_conv2d
from bcos_kernels.ops.bcos_linear.reference import bcos_linear
from benchmarks.shapes import Layer

PLAIN, TOUCHED, OURS, COMPILED, EAGER = "plain", "touched", "bcos_kernels", "compiled", "eager"
LINEAR = PLAIN, TOUCHED
"""The peers that are no B-cos layers."""


class Peer(NamedTuple):
    """One way to run a layer.

    forward and held take x; ``held`` runs under explanation. ``push`` takes x ``[N, ...]``, tangents
    ``[T, N, ...]`` and both in one stacked batch, whichever it can use, and gives the output with its
    T tangents. ``building`` surrounds the runs of ``held`` before a backward. ``units``: how many outputs it
    has for each output of the layer.
    """

    weight: Tensor
    forward: Callable[[Tensor], Tensor]
    held: Callable[[Tensor], Tensor]
    push: Callable[[Tensor, Tensor, Tensor], Any]
    building: Callable[[], AbstractContextManager[Any]] = nullcontext
    units: int = 1


def plain(layer: Layer, weight: Tensor) -> Peer:
    """The linear map, with every MaxOut unit; of its tangents none: the price of the output alone is the floor."""
    weight = weight.clone().requires_grad_()
    if layer.kind == "linear":
        forward = partial(_product, weight)
    else:
        forward = partial(_convolution, weight, layer.stride, layer.padding, layer.groups)
    return Peer(weight, forward, forward, lambda x, tangents, stack: forward(x), units=layer.max_out)


def touched(layer: Layer, weight: Tensor) -> Peer:
    """The plain layer and one more pass over its memory each way; a lower bound: gradients are not read again."""
    peer = plain(layer, weight)

    def forward(x: Tensor) -> Tensor:
        for read in (x, peer.weight):
            torch.linalg.vector_norm(read.detach())
        return peer.forward(x).mul_(1.0)

    return peer._replace(forward=forward, held=forward, push=lambda x, tangents, stack: forward(x))


def _product(weight: Tensor, x: Tensor) -> Tensor:
    return F.linear(x, weight)


def _convolution(weight: Tensor, stride: int, padding: int, groups: int, x: Tensor) -> Tensor:
    return F.conv2d(x, weight, None, stride, padding, 1, groups)


def ours(layer: Layer, weight: Tensor) -> Peer:
    """The drop-in modules of ``bcos_kernels``."""
    module = _module(BcosConv2d, BcosLinear, layer, weight)

    def held(x: Tensor) -> Tensor:
        with explanation_mode():
            return module(x)  # type: ignore[no-any-return]

    def push(x: Tensor, tangents: Tensor, stack: Tensor) -> Tensor:
        with stacked(1 + len(tangents)):
            return module(stack)  # type: ignore[no-any-return]

    return Peer(module.linear.weight, module, held, push)  # type: ignore[arg-type,union-attr]


def published(layer: Layer, weight: Tensor) -> Peer:
    """The modules of the package ``bcos``. Raises ImportError where it is not installed."""
    from bcos import modules

    module = _module(modules.BcosConv2d, modules.BcosLinear, layer, weight)
    explained = _module(modules.BcosConv2d, modules.BcosLinear, layer, weight)
    explained.linear.weight = module.linear.weight  # type: ignore[union-attr]
    explained.set_explanation_mode(True)  # type: ignore[operator]
    return Peer(module.linear.weight, module, explained, partial(_push, explained))  # type: ignore[arg-type,union-attr]


def eager(layer: Layer, weight: Tensor) -> Peer:
    """The reference as it is written."""
    weight = weight.clone().requires_grad_()
    forward = partial(_reference, layer, weight, False)
    held = partial(_reference, layer, weight, True)
    return Peer(weight, forward, held, partial(_push, held))


def compiled(layer: Layer, weight: Tensor) -> Peer:
    """The reference compiled for one shape, without a graph break."""
    torch._dynamo.reset()  # type: ignore[no-untyped-call]  # it refuses a function compiled for too many shapes
    peer = eager(layer, weight)
    whole = partial(torch.compile, fullgraph=True, dynamic=False)
    # A backward that runs twice must not reuse the memory of what its forward kept. One from torch's cache would:
    # whether it may is not part of the key.
    repeatable = partial(torch._functorch.config.patch, donated_buffer=False, enable_autograd_cache=False)
    return Peer(peer.weight, whole(peer.forward), whole(peer.held), whole(peer.push), repeatable)


PEERS: dict[str, Callable[[Layer, Tensor], Peer]] = {
    PLAIN: plain,
    TOUCHED: touched,
    OURS: ours,
    "bcos": published,
    COMPILED: compiled,
    EAGER: eager,
}


def _module(convolution: Any, product: Any, layer: Layer, weight: Tensor) -> nn.Module:
    options = {"b": layer.b, "max_out": layer.max_out}
    module: nn.Module
    if layer.kind == "linear":
        module = product(layer.inputs, layer.outputs, **options)
    else:
        module = convolution(
            layer.inputs, layer.outputs, layer.kernel, layer.stride, layer.padding, groups=layer.groups, **options
        )
    module.linear.weight = nn.Parameter(weight.clone())  # type: ignore[union-attr]
    return module


def _reference(layer: Layer, weight: Tensor, held: bool, x: Tensor) -> Tensor:
    if layer.kind == "linear":
        return bcos_linear(x, weight, layer.b, layer.max_out, held=held)
    return bcos_conv2d(
        x, weight, layer.b, layer.max_out, stride=layer.stride, padding=layer.padding, groups=layer.groups, held=held
    )


def _push(held: Callable[[Tensor], Tensor], x: Tensor, tangents: Tensor, stack: Tensor) -> Any:
    """What plain PyTorch offers for many tangents: forward-mode differentiation, batched."""
    return vmap(lambda v: jvp(held, (x,), (v,)), out_dims=(None, 0))(tangents)  # type: ignore[arg-type]
