"""Time of bias-free norms beside torch's own, which have a bias, and beside the eager reference, in one run.

    python benchmarks/norms.py [--device cuda] [--dtype bfloat16] [--rounds 30]

Rounds are interleaved (torch, ours, eager, torch, …), so that a machine that slows down slows all three. Prints the
medians, forward without a graph and forward with backward.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from machine import describe, print_table
from torch import Tensor, nn

from bcos_kernels.modules import norms
from bcos_kernels.ops.norms.op import Norm, compose

IMAGES = ((2, 320, 64, 64), (2, 640, 32, 32), (8, 64, 32, 32))
TOKENS = (2, 4096, 320)
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
Layer = Callable[[Tensor], Tensor]


class TorchPositionNorm(nn.LayerNorm):
    """Layer norm of an image's channels, as torch would be asked for it."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def contestants(channels: int, image: bool) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Norm -> (torch's own, ours)."""
    if not image:
        return {
            "layer": (nn.LayerNorm(channels), norms.LayerNorm(channels)),
            "rms": (nn.RMSNorm(channels), norms.RMSNorm(channels)),
        }
    return {
        "group 32 centred": (nn.GroupNorm(32, channels), norms.GroupNorm(32, channels, centred=True)),
        "group 32": (nn.GroupNorm(32, channels), norms.GroupNorm(32, channels)),
        "group 1": (nn.GroupNorm(1, channels), norms.GroupNorm(1, channels)),
        "batch": (nn.BatchNorm2d(channels), norms.BatchNorm2d(channels)),
        "position": (TorchPositionNorm(channels), norms.PositionNorm2d(channels)),
    }


def eager(ours: Any) -> Layer:
    """Our norm by torch's operations."""
    over, groups = "last", 1
    if isinstance(ours, norms.GroupNorm):
        over, groups = "group", ours.num_groups
    elif isinstance(ours, norms.BatchNorm2d):
        over = "batch"
    elif isinstance(ours, norms.PositionNorm2d):
        over = "position"
    norm = Norm(over, groups, ours.eps, ours.centred, ours.about_mean)  # type: ignore[arg-type]
    return lambda x: compose(x, ours.weight, norm, held=False)[0]


def run_once(layer: Layer, x: Tensor, grad: Tensor | None) -> float:
    """Seconds of one forward, with a gradient also of its backward, until the device is done."""
    wait = torch.cuda.synchronize if x.is_cuda else lambda: None
    wait()
    began = time.perf_counter()
    if grad is None:
        with torch.no_grad():
            layer(x)
    else:
        x.grad = None
        layer(x).backward(grad)
    wait()
    return time.perf_counter() - began


def measure(layers: dict[str, Layer], x: Tensor, train: bool, rounds: int) -> dict[str, float]:
    """Median milliseconds of each contestant, rounds interleaved."""
    grad = torch.randn_like(x) if train else None
    x = x.detach().requires_grad_()
    for layer in layers.values():  # compile, allocate
        run_once(layer, x, grad)
    times = []
    for number in range(rounds):  # each in turn goes first: what one frees, the next may find in its cache
        order = [list(layers)[(number + i) % len(layers)] for i in range(len(layers))]
        times.append({name: run_once(layers[name], x, grad) for name in order})
    return {name: 1000 * statistics.median(t[name] for t in times) for name in layers}


def cases(device: str, dtype: torch.dtype) -> list[tuple[str, str, Tensor]]:
    """(shape, layout, input)"""
    random = partial(torch.randn, device=device, dtype=dtype)
    images = [
        ("x".join(map(str, shape)), name, random(shape).contiguous(memory_format=layout))
        for shape in IMAGES
        for name, layout in LAYOUTS.items()
    ]
    return [*images, ("x".join(map(str, TOKENS)), "tokens", random(TOKENS))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    dtype, rows = getattr(torch, options.dtype), []
    for shape, layout, x in cases(options.device, dtype):
        for name, (theirs, ours) in contestants(x.shape[1 if x.ndim == 4 else -1], x.ndim == 4).items():
            layers = {"torch": theirs.to(x), "ours": ours.to(x), "eager": eager(ours)}
            for step in ("forward", "train"):
                found = measure(layers, x, step == "train", options.rounds)
                shares = {"ours/torch": found["ours"] / found["torch"], "ours/eager": found["ours"] / found["eager"]}
                times = {f"{contestant} ms": ms for contestant, ms in found.items()}
                rows.append({"shape": shape, "layout": layout, "norm": name, "pass": step, **times, **shares})
    print(json.dumps(describe() | {"dtype": options.dtype, "rounds": options.rounds}))
    print_table(rows)


if __name__ == "__main__":
    main()
