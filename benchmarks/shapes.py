"""A B-cos layer as a network uses it: what it computes and how large its map is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Layer:
    """One layer at one size.

    size: side of the square map, or number of tokens. ``name`` is the first place where a network has
    this layer, ``count`` in how many it does; both say nothing about the layer itself.
    """

    network: str
    name: str
    kind: str  # "conv" or "linear"
    inputs: int
    outputs: int
    size: int
    batch: int = 1
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    b: float = 2
    max_out: int = 1
    count: int = 1

    @property
    def padding(self) -> int:
        return self.kernel // 2

    @property
    def input_shape(self) -> tuple[int, ...]:
        """``[N, C, H, W]`` or ``[N, L, D]``."""
        if self.kind == "conv":
            return self.batch, self.inputs, self.size, self.size
        return self.batch, self.size, self.inputs

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """``[O * max_out, C / groups, h, w]`` or ``[O * max_out, D]``."""
        rows = self.outputs * self.max_out
        if self.kind == "conv":
            return rows, self.inputs // self.groups, self.kernel, self.kernel
        return rows, self.inputs

    @property
    def parameters(self) -> int:
        """Weights of one such layer."""
        return self.outputs * self.max_out * self.inputs // self.groups * self.kernel**2

    @property
    def multiply_adds(self) -> int:
        """Multiplications of one forward pass of the plain layer."""
        positions = self.size if self.kind == "linear" else (-(-self.size // self.stride)) ** 2
        return self.batch * positions * self.parameters

    def input_bytes(self, itemsize: int) -> int:
        """Bytes of one input."""
        return math.prod(self.input_shape) * itemsize

    @property
    def label(self) -> str:
        """The layer in a few characters, ``3×3 320→640 /2 @64²``; one network never has two that are equal."""
        channels = f"{self.inputs}→{self.outputs}"
        if self.kind == "linear":
            parts = ["linear", channels]
        else:
            parts = [f"{self.kernel}×{self.kernel}", channels, f"/{self.stride}" if self.stride > 1 else ""]
        parts.append(f"@{self.size}²" if self.kind == "conv" else f"@{self.size}")
        parts.append(f"N={self.batch}" if self.batch > 1 else "")
        parts.append(f"groups={self.groups}" if self.groups > 1 else "")
        parts.append(f"B={self.b:g}" if self.b != 2 else "")
        parts.append(f"MaxOut={self.max_out}" if self.max_out > 1 else "")
        return " ".join(part for part in parts if part)


def distinct(layers: Iterable[Layer]) -> list[Layer]:
    """Each different layer once, under the name of its first place, with the number of its places."""
    found: dict[Layer, Layer] = {}
    for layer in layers:
        key = replace(layer, name="", count=1)
        known = found.get(key)
        found[key] = layer if known is None else replace(known, count=known.count + layer.count)
    return list(found.values())
