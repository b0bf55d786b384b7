"""Time of every part of the B-cos epilogue on every backend that can run it, in one run and in turns.

    python -m benchmarks.epilogue [--device cuda] [--dtype bfloat16] [--seconds 20] [--out FILE]

Prints medians in microseconds. On a CUDA device ``us`` is the device's own time and ``call us`` that of the host, which
enqueues and goes on.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from bcos_kernels import dispatch
from bcos_kernels.files import write_json
from bcos_kernels.ops.epilogue.layout import accumulator
from benchmarks.machine import describe, print_table
from benchmarks.timing import clock_for, interleave, sets_needed

SHAPES = ((4, 320, 64, 64), (4, 1280, 8, 8), (32, 64, 32, 32))
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
PATCH = (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1
Part = Callable[[ModuleType, Tensor, Tensor, Tensor, Tensor], Any]
PARTS: dict[str, Part] = {
    "patch_norm 3x3": lambda backend, x, grad, n, ones: backend.patch_norm(x, *PATCH, 1e-6),
    "scale": lambda backend, x, grad, n, ones: backend.scale(x, n, ones, 2.0, 0.0),
    "apply_factor": lambda backend, x, grad, n, ones: backend.apply_factor(grad, x, n, ones, 2.0, 0.0),
    "scale_backward": lambda backend, x, grad, n, ones: backend.scale_backward(grad, x, n, ones, 2.0, 0.0),
    "spread 3x3": lambda backend, x, grad, n, ones: backend.spread(grad, x, n, *PATCH),
    "row_norm": lambda backend, x, grad, n, ones: backend.row_norm(as_weight(x), 0.0),
    "project_rows": lambda backend, x, grad, n, ones: backend.project_rows(as_weight(grad), as_weight(x), ones),
}


def as_weight(x: Tensor) -> Tensor:
    """The memory of an image as a matrix with a row for each channel."""
    columns = x.numel() // x.shape[1]
    return x.as_strided((x.shape[1], columns), (columns, 1))


def inputs(shape: tuple[int, ...], layout: torch.memory_format, device: str, dtype: torch.dtype) -> list[Tensor]:
    """An image, a gradient, norms of its pixels, and lengths of units."""
    image, grad = (torch.randn(shape, device=device).to(dtype).contiguous(memory_format=layout) for _ in range(2))
    sums = accumulator(image)
    return [
        image,
        grad,
        torch.ones(shape[0], 1, *shape[2:], device=device, dtype=sums),
        image.new_ones(shape[1], dtype=sums),
    ]


def measure(
    part: Part, sets: list[list[Tensor]], backends: dict[str, ModuleType], device: str, host: bool, seconds: float
) -> dict[str, float]:
    """Median microseconds of each backend."""

    def call(backend: ModuleType) -> Callable[[int], Any]:
        return lambda i: part(backend, *sets[i])

    calls = {name: call(backend) for name, backend in backends.items()}
    for run in calls.values():  # compiles
        run(0)
    clock = clock_for(device, host)
    times = interleave(calls, dict.fromkeys(calls, 0.0), clock, len(sets), time.monotonic() + seconds)
    return {name: 1e6 * statistics.median(found) for name, found in times.items()}


def rows(
    device: str, dtype: torch.dtype, seconds: float, shapes: tuple[tuple[int, ...], ...] = SHAPES
) -> Iterator[dict[str, Any]]:
    """One row per part, shape and layout; ``seconds`` for all of them together."""
    share = seconds / (len(shapes) * len(LAYOUTS) * len(PARTS) * (2 if device == "cuda" else 1))
    for shape in shapes:
        for layout, order in LAYOUTS.items():
            probe = inputs(shape, order, device, dtype)
            count = sets_needed(device, 2 * probe[0].numel() * probe[0].element_size())
            sets = [probe, *(inputs(shape, order, device, dtype) for _ in range(count - 1))]
            backends = {name: b for name, b in dispatch.BACKENDS.items() if name not in dispatch.refusals(probe[0])}
            for name, part in PARTS.items():
                found = measure(part, sets, backends, device, False, share)
                row = {"part": name, "shape": "x".join(map(str, shape)), "layout": layout}
                row |= {f"{backend} us": taken for backend, taken in found.items()}
                if device == "cuda":
                    found = measure(part, sets, backends, device, True, share)
                    row |= {f"{backend} call us": taken for backend, taken in found.items()}
                yield row


def main() -> None:
    """Measure, print one table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = list(rows(options.device, getattr(torch, options.dtype), options.seconds))
    print_table(found)
    if options.out is not None:
        write_json(options.out, {"machine": describe(options.device), "dtype": options.dtype, "epilogue": found})


if __name__ == "__main__":
    main()
