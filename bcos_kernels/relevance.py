"""Relevance of every layer, from its output and the gradient of its output alone (mathematics §3).

While a network is explained, a layer without a bias is a linear map W of its input. What its input gave to an output
with cotangent G is what passed through its output: ``⟨x, Wᵀg⟩ = ⟨out, g⟩`` with g the gradient of ``out``. For a
linear layer, and a convolution of single pixels, this holds at every position. So the relevance of a layer needs no
backward pass through it, and none through what comes before it.

    with record_relevance(model) as record:
        output = model(x)
        record.pull(output)
    record.positions["stem.0"][0]    # [N, H, W]: what passed through each pixel
    record.heads["cross"][0]         # [N, heads, L]: what each token gave through each head
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bcos_kernels import dispatch
from bcos_kernels.cotangents import Cotangent, Target, cotangents
from bcos_kernels.listeners import Ear, listening
from bcos_kernels.mode import explanation_mode, slices
from bcos_kernels.modules.attention import MultiHeadAttention
from bcos_kernels.modules.conv import BcosConv1d, BcosConv2d
from bcos_kernels.modules.linear import BcosLinear
from bcos_kernels.ops.contribution.op import contribution

CHANNELS = {BcosLinear: -1, BcosConv1d: -2, BcosConv2d: -3, MultiHeadAttention: -1}
"""The layers whose relevance is recorded, and the dimension of their output that holds channels."""


class RelevanceRecord:
    """What passed through layers, by name: a list with one tensor a call of the layer and backward pass through it.

    Calls are in the order of the forward pass. A backward pass that does not come to a call adds nothing to it. All
    relevance is in float64 for float64 and float32 otherwise.
    """

    def __init__(self, names: Mapping[nn.Module, str], attention_maps: bool):
        self._names, self._thread, self._maps_wanted = names, threading.get_ident(), attention_maps
        attentions = [name for module, name in names.items() if isinstance(module, MultiHeadAttention)]
        self._positions: dict[str, list[list[Tensor]]] = {name: [] for name in names.values()}
        self._heads: dict[str, list[list[Tensor]]] = {name: [] for name in attentions}
        self._maps: dict[str, list[list[Tensor]]] = {name: [] for name in attentions if attention_maps}
        with torch.inference_mode(False):
            self._token = torch.zeros((), requires_grad=True)

    @property
    def positions(self) -> dict[str, list[Tensor]]:
        """Of every layer the sum over channels of output times gradient: ``[N, P, Q]`` or ``[N, L]``.

        This is what each position of the output passed on; for linear layers and 1 × 1 convolutions of stride 1 also
        what each position of the input gave. Its sum is what all of the input gave, for any layer.
        """
        return _flat(self._positions)

    @property
    def heads(self) -> dict[str, list[Tensor]]:
        """Of every attention what each token of ``value_context`` gave through each head: ``[N, heads, L]``."""
        return _flat(self._heads)

    @property
    def maps(self) -> dict[str, list[Tensor]]:
        """The same by pixel and token, summed over heads, ``[N, P, L]``; empty without ``attention_maps``."""
        return _flat(self._maps)

    def pull(
        self, output: Tensor, cotangent: Cotangent | None = None, *, target: Target | None = None, retain: bool = False
    ) -> None:
        """Pull a cotangent back from an output to the recorded layers, and no further than the first of them.

        cotangent and target: as for :func:`bcos_kernels.contributions`; T at once are T backward passes. retain: keep
        the graph for another pull. Every recorded layer that the output depends on is reached, whether or not anything
        before it asks for a gradient. Raises ValueError where the output depends on none.
        """
        directions, _ = cotangents(output, cotangent, target)
        before = self._heard()
        for i, direction in enumerate(directions if output.requires_grad else ()):
            more = retain or i + 1 < len(directions)
            torch.autograd.grad(output, self._token, direction, retain_graph=more, allow_unused=True)
        if self._heard() == before:
            raise ValueError("the output depends on no recorded layer: run the model inside record_relevance")

    def _heard(self) -> int:
        return sum(len(parts) for parts in (*self.positions.values(), *self.heads.values()))

    def _tap(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """The forward hook of every recorded layer."""
        if threading.get_ident() != self._thread:
            return None
        name = self._names[module]
        _check(name)
        channels = next(dim for kind, dim in CHANNELS.items() if isinstance(module, kind))
        return _Tap.apply(output, self._token, channels, _new_call(self._positions[name]))  # type: ignore[no-any-return, no-untyped-call]

    def _listen(self, module: nn.Module) -> Ear | None:
        """How this record listens to an attention that runs forward."""
        name = self._names.get(module)
        if name is None:
            return None
        _check(name)
        hear_heads = _new_call(self._heads[name])
        hear_maps = _new_call(self._maps[name]) if self._maps_wanted else None

        def hear(relevance: Tensor, maps: Callable[[], Tensor]) -> None:
            hear_heads(relevance)
            if hear_maps is not None:
                hear_maps(maps())

        return Ear(self._token, hear)


@contextmanager
def record_relevance(
    model: nn.Module | Mapping[str, nn.Module], layers: Sequence[str] | None = None, attention_maps: bool = False
) -> Iterator[RelevanceRecord]:
    """Explain what runs inside the block, and record the relevance of its layers in the backward passes through it.

    model: a module, whose B-cos layers and attentions are recorded by their names in it, or modules by name; layers:
    the names of those to record, all by default; attention_maps: also record every attention by pixel. Explanation
    mode is on in the block. ``record.pull(output)`` runs a backward pass that ends at the layers; any other one, such
    as that of :func:`bcos_kernels.contributions` called in the block, is recorded where it comes through a layer. The
    output of a recorded layer cannot be written to in place. Blocks nest. A layer that runs without a graph (under
    ``no_grad``), in a stacked batch, in a torch.func transform or in torch.compile raises ValueError, as do unknown
    names. Calls of the layers in other threads are not recorded.
    """
    record = RelevanceRecord(_chosen(model, layers), attention_maps)
    hooks = [module.register_forward_hook(record._tap) for module in record._names]
    try:
        with explanation_mode(), listening(record._listen):
            yield record
    finally:
        for hook in hooks:
            hook.remove()


class _Tap(torch.autograd.Function):
    """The identity, whose backward pass tells what passes: ``Σ_channels out · g``. The token gets no gradient."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, token: Tensor, channels: int, hear: Callable[[Tensor], None]) -> Tensor:
        ctx.save_for_backward(output)
        ctx.channels, ctx.hear = channels, hear
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (output,) = ctx.saved_tensors
        ctx.hear(contribution(output, grad, (ctx.channels,)))
        return grad, None, None, None


def _chosen(model: nn.Module | Mapping[str, nn.Module], layers: Sequence[str] | None) -> dict[nn.Module, str]:
    """The layers to record with their names."""
    given: dict[str, nn.Module] = dict(model.named_modules()) if isinstance(model, nn.Module) else dict(model)
    kinds = tuple(CHANNELS)
    found = {name: module for name, module in given.items() if isinstance(module, kinds)}
    wanted = list(found) if layers is None and isinstance(model, nn.Module) else list(layers or given)
    if missing := [name for name in wanted if name not in found]:
        accepted = ", ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"no layers to record: {', '.join(missing)}; a layer is one of {accepted}, here: "
                         f"{', '.join(found) or 'none'}")  # fmt: skip
    if not wanted:
        raise ValueError("the model has no layer to record: no BcosLinear, B-cos convolution or MultiHeadAttention")
    return {found[name]: name for name in wanted}


def _check(name: str) -> None:
    if slices() > 1:
        raise ValueError(
            f"layer {name!r} ran in a stacked batch: relevance is recorded in a backward pass, not forward"
        )
    if reason := dispatch.transforms() or ("torch.compile traces it" if torch.compiler.is_compiling() else None):
        raise ValueError(f"layer {name!r} cannot be recorded: {reason}")
    if not torch.is_grad_enabled():
        raise ValueError(f"layer {name!r} ran without a graph: run it outside torch.no_grad and inference_mode")


def _new_call(calls: list[list[Tensor]]) -> Callable[[Tensor], None]:
    """Open the next call of a layer and say where its backward passes report."""
    calls.append([])
    return calls[-1].append


def _flat(found: dict[str, list[list[Tensor]]]) -> dict[str, list[Tensor]]:
    return {name: [part for call in calls for part in call] for name, calls in found.items()}
