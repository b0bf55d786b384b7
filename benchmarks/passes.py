"""What is timed of a layer: each pass as a call on one of several input sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.networks import CALLS
from benchmarks.peers import Peer
from benchmarks.shapes import Layer

TANGENTS = 8
Call = Callable[[int], Any]


class InputSet(NamedTuple):
    """An input, a cotangent of the output, and tangents ``[T, *x.shape]`` alone and stacked behind the input."""

    x: Tensor
    cotangent: Tensor
    tangents: Tensor
    stack: Tensor


def weight_of(layer: Layer, device: str, dtype: torch.dtype) -> Tensor:
    """A random weight whose rows have about unit length."""
    fan_in = layer.parameters / (layer.outputs * layer.max_out)
    generator = torch.Generator(device).manual_seed(0)
    weight = torch.randn(layer.weight_shape, generator=generator, device=device) / fan_in**0.5
    return _layout(weight.to(dtype))


def input_sets(layer: Layer, device: str, dtype: torch.dtype, count: int, tangents: int) -> list[InputSet]:
    """Random input sets; convolutions are given channels-last maps."""
    generator = torch.Generator(device).manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    sets = []
    for _ in range(count):
        stack = _layout(draw((1 + tangents) * layer.batch, *layer.input_shape[1:]))
        others = stack[layer.batch :].unflatten(0, (tangents, layer.batch)) if tangents else stack[:0]
        x = _layout(stack[: layer.batch].clone())
        sets.append(InputSet(x, _layout(draw(*_output_shape(layer))), others, stack))
    return sets


def _output_shape(layer: Layer) -> tuple[int, ...]:
    if layer.kind == "linear":
        return layer.batch, layer.size, layer.outputs
    side = (layer.size + 2 * layer.padding - layer.kernel) // layer.stride + 1
    return layer.batch, layer.outputs, side, side


def _layout(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.contiguous()


def forward(peer: Peer, sets: list[InputSet]) -> Call:
    """The output, nothing kept."""
    return lambda i: peer.forward(sets[i].x)


def train(peer: Peer, sets: list[InputSet]) -> Call:
    """The output, then the gradients of input and weight."""
    leaves, cotangents = [s.x.detach().requires_grad_() for s in sets], _cotangents(peer, sets)

    def call(i: int) -> tuple[Tensor, ...]:
        return torch.autograd.grad(peer.forward(leaves[i]), (leaves[i], peer.weight), cotangents[i])

    return call


def _cotangents(peer: Peer, sets: list[InputSet]) -> list[Tensor]:
    """Those of the sets, repeated for a peer that gives every MaxOut unit."""
    if peer.units == 1:
        return [s.cotangent for s in sets]
    return [_layout(s.cotangent.repeat_interleave(peer.units, 1 if s.x.ndim == 4 else 2)) for s in sets]


def explanation(peer: Peer, sets: list[InputSet]) -> Call:
    """The backward of an explained layer down to its input, its forward being done before."""
    leaves, cotangents = [s.x.detach().requires_grad_() for s in sets], _cotangents(peer, sets)
    with peer.building():
        outputs = [peer.held(leaf) for leaf in leaves]
    return lambda i: torch.autograd.grad(outputs[i], leaves[i], cotangents[i], retain_graph=True)


def tangents(peer: Peer, sets: list[InputSet]) -> Call:
    """The output and its tangents; for the plain layer the output alone."""
    return lambda i: peer.push(sets[i].x, sets[i].tangents, sets[i].stack)


class Pass(NamedTuple):
    """A pass, whether autograd records in it, and about how many plain forwards it takes."""

    build: Callable[[Peer, list[InputSet]], Call]
    grad: bool
    price: float
    tangents: int = 0
    host: bool = False


PASSES = {
    "forward": Pass(forward, False, 1),
    "train": Pass(train, True, 3),
    "explanation": Pass(explanation, True, 2),
    "tangents": Pass(tangents, False, 2 + TANGENTS, TANGENTS),
    "call": Pass(forward, False, 1, host=True),
    "call, recorded": Pass(forward, True, 1, host=True),
}


def passes_for(layer: Layer) -> Iterator[str]:
    """The passes that are timed of a layer: of a tiny one the price of a call, of others all the rest."""
    return (name for name, which in PASSES.items() if which.host == (layer.network == CALLS))


def flat(outcome: Any) -> Tensor:
    """All numbers that a call gave, so that peers can be compared whatever they return."""
    parts = [outcome] if isinstance(outcome, Tensor) else outcome
    return torch.cat([part.detach().flatten().float() for part in parts])
