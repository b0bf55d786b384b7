"""Time and memory of a B-cos convolution beside a plain one and beside the eager reference, in one run.

    python benchmarks/layers.py --out benchmarks/results/layers.json

Rounds are interleaved (plain, ours, eager, plain, …), so that a machine that slows down slows all three.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import describe, print_table
from torch import Tensor, nn

from bcos_diffusion.files import write_json
from bcos_kernels import BcosConv2d
from bcos_kernels.ops.bcos_conv2d.reference import bcos_conv2d as eager_bcos_conv2d

SHAPES = ((8, 64, 32, 3), (8, 128, 16, 3), (8, 256, 16, 1), (8, 256, 8, 3))
"""Batch, channels in and out, side, kernel size."""


def contestants(channels: int, kernel: int, b: float) -> dict[str, Callable[[Tensor], Tensor]]:
    """The three layers of one shape, by name."""
    plain = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
    ours = BcosConv2d(channels, channels, kernel, padding=kernel // 2, b=b)
    weight = ours.linear.weight
    return {
        "plain": plain,
        "bcos_kernels": ours,
        "eager": lambda x: eager_bcos_conv2d(x, weight, b=b, padding=kernel // 2),
    }


def run_once(layer: Callable[[Tensor], Tensor], x: Tensor, train: bool) -> float:
    """Seconds of one forward, or forward and backward, until the device is done."""
    synchronise(x)
    began = time.perf_counter()
    if train:
        x.grad = None
        layer(x).sum().backward()
    else:
        with torch.no_grad():
            layer(x)
    synchronise(x)
    return time.perf_counter() - began


def synchronise(x: Tensor) -> None:
    """Wait for the device of ``x``."""
    if x.is_cuda:
        torch.cuda.synchronize()


def peak_mb(layer: Callable[[Tensor], Tensor], x: Tensor) -> float | None:
    """Peak device memory of one training step in megabytes; None where the device does not count it."""
    if not x.is_cuda:
        return None
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    run_once(layer, x, train=True)
    return (torch.cuda.max_memory_allocated() - start) / 2**20


def measure(
    shape: tuple[int, int, int, int], b: float, device: str, dtype: torch.dtype, rounds: int
) -> list[dict[str, Any]]:
    """Median seconds of each contestant, without and with gradients, rounds interleaved."""
    batch, channels, side, kernel = shape
    x = torch.randn(batch, channels, side, side, device=device, dtype=dtype).requires_grad_()
    x = x.contiguous(memory_format=torch.channels_last).detach().requires_grad_()
    layers = contestants(channels, kernel, b)
    for layer in layers.values():
        if isinstance(layer, nn.Module):
            layer.to(device, dtype)
    rows = []
    for train in (False, True):
        times: dict[str, list[float]] = {name: [] for name in layers}
        for turn in range(rounds + 2):
            for name, layer in layers.items():
                taken = run_once(layer, x, train)
                if turn >= 2:
                    times[name].append(taken)
        medians = {name: sorted(values)[len(values) // 2] for name, values in times.items()}
        row: dict[str, Any] = {"shape": "x".join(map(str, shape)), "b": b, "pass": "train" if train else "forward"}
        row |= {f"{name}_ms": 1e3 * value for name, value in medians.items()}
        row |= {"ours/plain": medians["bcos_kernels"] / medians["plain"]}
        row |= {"eager/plain": medians["eager"] / medians["plain"]}
        if train and x.is_cuda:
            row |= {f"{name}_mb": peak_mb(layer, x) for name, layer in layers.items()}
        rows.append(row)
    return rows


def main() -> None:
    """Measure every shape and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    rows = [
        row for shape in SHAPES for b in (2, 1.5) for row in measure(shape, b, options.device, dtype, options.rounds)
    ]
    print_table(rows)
    if options.out is not None:
        write_json(options.out, {"machine": describe(), "dtype": options.dtype, "layers": rows})


if __name__ == "__main__":
    main()
