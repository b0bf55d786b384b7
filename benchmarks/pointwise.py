"""1 × 1 convolutions on a CPU, contiguous maps: torch's convolution beside our products, forward and backward.

    python -m benchmarks.pointwise [--seconds 60] [--json benchmarks/results/pointwise.json]

Shapes are those of ResNet-50, ConvNeXt and a U-Net. Milliseconds are medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bcos_kernels.files import write_json
from bcos_kernels.ops.bcos_conv2d import pointwise
from bcos_kernels.ops.bcos_conv2d.geometry import Geometry
from benchmarks.machine import describe, print_table
from benchmarks.timing import clock_for, interleave

# batch, channels, side, outputs, stride
SHAPES = (
    (8, 64, 56, 64, 1), (8, 64, 56, 256, 1), (8, 256, 56, 64, 1), (8, 256, 56, 128, 2), (8, 512, 28, 128, 1),
    (8, 512, 28, 1024, 2), (8, 96, 56, 384, 1), (8, 192, 28, 768, 1), (4, 320, 64, 320, 1), (1, 64, 56, 256, 1),
    (1, 320, 32, 320, 1),
)  # fmt: skip


def measure(shape: tuple[int, int, int, int, int], seconds: float) -> dict[str, Any]:
    """One row: milliseconds of both sides; torch's where ours leaves the work to it."""
    batch, channels, side, outputs, step = shape
    geometry = Geometry((1, 1), (step, step), (0, 0), (1, 1), 1)
    x, weight = torch.randn(batch, channels, side, side), torch.randn(outputs, channels, 1, 1)
    grad = torch.randn_like(geometry.convolve(x, weight))

    def torchs(_: int) -> object:
        return torch.ops.aten.convolution_backward(
            grad, x, weight, None, [step, step], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
        )

    sides: dict[str, dict[str, Callable[[int], object]]] = {
        "forward": {
            "torch": lambda _: geometry.convolve(x, weight),
            "ours": lambda i: pointwise.convolve(x, weight, geometry),
        },
        "backward": {
            "torch": torchs,
            "ours": lambda i: pointwise.backward(grad, x, weight, geometry, (True, True)),
        },
    }
    row: dict[str, Any] = {"N, C, side, O, stride": ", ".join(map(str, shape))}
    for name, calls in sides.items():
        if calls["ours"](0) is None:
            row |= {f"{name} torch ms": None, f"{name} ours ms": None, f"{name} x": 1.0}
            continue
        calls["torch"](0)
        times = interleave(calls, dict.fromkeys(calls, 0.0), clock_for("cpu", True), 1, time.monotonic() + seconds / 2)
        median = {side: 1e3 * statistics.median(taken) for side, taken in times.items()}
        row |= {f"{name} {side} ms": taken for side, taken in median.items()}
        row |= {f"{name} x": median["torch"] / median["ours"]}
    return row


@torch.no_grad()
def main() -> None:
    """Measure, print one table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = [measure(shape, options.seconds / len(SHAPES)) for shape in SHAPES]
    print_table(rows)
    if options.json is not None:
        write_json(options.json, {"machine": describe("cpu"), "rows": rows})


if __name__ == "__main__":
    main()
