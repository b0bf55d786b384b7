"""What ``patch`` saves in every entry of the model zoo of the package ``bcos``, at random weights.

    python -m benchmarks.zoo [--json benchmarks/results/zoo.json] [--entries resnet18 ...] [--limit-seconds 1800]

Each model runs patched and unpatched in turns, the same instance, forward in evaluation without a graph and forward
with backward in training; and patched with B = 1, plain layers on weights of unit length: about the limit of what can
be saved.
Images are 224 pixels wide, or the widest of a few for which the unpatched training step is expected to fit into the
memory, judged by a small image. Needs ``pip install ".[bench]"``. CPU alone.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler otherwise reports each start and stop

import torch
from torch import Tensor, nn

from bcos_kernels import patch, unpatch
from bcos_kernels.files import write_json
from benchmarks.machine import describe, print_table
from benchmarks.memory import peak_bytes

PIXELS = 224, 160, 112, 64
SMALLEST_ROUNDS = 2
MEASURES = ("forward", "train")
Step = Callable[[], object]


def entries() -> list[str]:
    """The names of the zoo: B-cos models, and "standard" vision transformers, of which attention and norms count."""
    from bcos.models import pretrained

    return pretrained.list_available()


def build(entry: str) -> nn.Module:
    """An entry at random weights."""
    from bcos.models import pretrained

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(pretrained, entry)(pretrained=False)  # type: ignore[no-any-return]


def images(entry: str, batch: int, pixels: int) -> Tensor:
    """Random images: colours and their complements, or colours alone for a standard model."""
    colours = torch.rand(batch, 3, pixels, pixels, generator=torch.Generator().manual_seed(1))
    return colours if entry.startswith("standard") else torch.cat([colours, 1 - colours], 1)


def steps(model: nn.Module, x: Tensor) -> dict[str, Step]:
    """What is timed, by name; both leave the model's parameters as they are."""

    def forward() -> object:
        model.eval()
        with torch.no_grad():
            return model(x)

    def train() -> None:
        model.train()
        model.zero_grad(set_to_none=True)
        torch.manual_seed(2)  # stochastic depth drops the same blocks every time
        model(x).sum().backward()

    return {"forward": forward, "train": train}


def settle(model: nn.Module, x: Tensor) -> None:
    """Make running statistics those of x: with others, activations shrink to numbers that a CPU is slow with."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def widest(model: nn.Module, entry: str, batch: int, room: float) -> int:
    """The widest images of ``PIXELS`` whose unpatched training step is expected to take at most ``room`` bytes.

    Small images of one batch and of twice that tell what grows with images and what does not.
    """
    small, peaks = PIXELS[-1], []
    for count in (batch, 2 * batch):
        step = steps(model, images(entry, count, small))["train"]
        step()
        peaks.append(peak_bytes(lambda _, step=step: step(), "cpu"))  # type: ignore[misc]
    model.zero_grad(set_to_none=True)
    activations = max(0, peaks[1] - peaks[0])
    return next((p for p in PIXELS if peaks[0] + activations * ((p / small) ** 2 - 1) <= room), small)


def sides_of(model: nn.Module) -> dict[str, Callable[[], object]]:
    """What makes the model one of the sides that are compared; a model without B-cos layers has no plain side."""
    exponents = [(m, m.b) for m in model.modules() if hasattr(m, "b") and hasattr(m, "linear")]

    def prepare(change: Callable[[nn.Module], object], plain: bool = False) -> None:
        change(model)
        for layer, b in exponents:
            layer.b = 1 if plain else b

    sides = {"bcos": lambda: prepare(unpatch), "ours": lambda: prepare(patch)}
    return sides | ({"plain": lambda: prepare(patch, plain=True)} if exponents else {})


def measure(entry: str, batch: int, room: float, end: float, most_rounds: int) -> dict[str, Any]:
    """One row: milliseconds and megabytes of all sides, and the ratios to unpatched; rounds go on until ``end``."""
    model = build(entry)
    pixels = widest(model, entry, batch, room)
    x = images(entry, batch, pixels)
    settle(model, x)
    sides, row = (
        sides_of(model),
        {"entry": entry, "batch": batch, "pixels": pixels, "commit": describe("cpu")["commit"]},
    )
    for name, step in steps(model, x).items():
        peaks = {side: _peak(prepare, step) for side, prepare in sides.items()}
        times: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(most_rounds):
            if turn >= SMALLEST_ROUNDS and time.monotonic() > end:
                break
            for side in list(sides)[:: 1 - 2 * (turn % 2)]:
                sides[side]()
                began = time.perf_counter()
                step()
                times[side].append(time.perf_counter() - began)
        row |= {f"{name} {side} ms": 1000 * statistics.median(taken) for side, taken in times.items()}
        ratios = {side: [a / b for a, b in zip(times["bcos"], times[side], strict=True)] for side in sides}
        row |= {f"{name} x": statistics.median(ratios["ours"]), f"{name} rounds": len(ratios["ours"])}
        row |= {f"{name} limit x": statistics.median(ratios["plain"]) if "plain" in sides else None}
        row |= {f"{name} {side} MB": peak / 1e6 for side, peak in peaks.items()}
        row |= {f"{name} memory x": peaks["bcos"] / peaks["ours"]}
    return row


def _peak(prepare: Step, step: Step) -> float:
    prepare()
    return peak_bytes(lambda _: step(), "cpu")


def geometric_means(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Of every ratio, over the rows that have it."""
    names = [f"{name} {what}" for name in MEASURES for what in ("x", "limit x", "memory x")]
    logs = {name: [math.log(row[name]) for row in rows if row[name] is not None] for name in names}
    return {name: math.exp(statistics.fmean(found)) if found else None for name, found in logs.items()}


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Geometric means over all entries, and over B-cos models and standard ones."""
    kinds = {
        "all": rows,
        "B-cos": [row for row in rows if not row["entry"].startswith("standard")],
        "standard": [row for row in rows if row["entry"].startswith("standard")],
    }
    return {kind: geometric_means(chosen) for kind, chosen in kinds.items() if chosen}


def available() -> float:
    """Bytes of memory that can be had without swapping (Linux)."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return 1024 * float(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))


def measured(path: Path | None) -> list[dict[str, Any]]:
    """The rows of a run that was cut."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path is not None and path.exists() else []


def arguments() -> argparse.Namespace:
    """The options; a bad entry ends the program with the list of those there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", nargs="+", choices=entries(), default=entries(), metavar="NAME")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=10, help="at most; at least 2")
    parser.add_argument("--memory-gb", type=float, help="for one step; by default 70%% of what is free")
    parser.add_argument("--limit-seconds", type=float, default=math.inf, help="no entry is begun after that")
    parser.add_argument("--entry-seconds", type=float, default=40.0, help="no round beyond 2 is begun after that")
    parser.add_argument("--json", type=Path, metavar="FILE", help="goes on where it ends, if it exists")
    return parser.parse_args()


def main() -> None:
    """Measure, print one table and the means, and write everything down after each entry."""
    options = arguments()
    room, began, rows = options.memory_gb, time.monotonic(), measured(options.json)
    room = 0.7 * available() if room is None else 1e9 * room
    for entry in options.entries:
        if entry in [row["entry"] for row in rows]:
            continue
        if time.monotonic() - began > options.limit_seconds:
            break
        rows.append(measure(entry, options.batch, room, time.monotonic() + options.entry_seconds, options.rounds))
        shown = {name: value for name, value in rows[-1].items() if not name.endswith(("rounds", "MB", "plain ms"))}
        print_table([shown])
        missing = [name for name in options.entries if name not in [row["entry"] for row in rows]]
        result = {"machine": describe("cpu"), "rows": rows, "geometric_means": summary(rows), "not_measured": missing}
        if options.json is not None:
            write_json(options.json, result)
    print_table([{"entries": kind, **means} for kind, means in summary(rows).items()])
    if missing:
        print("not measured for lack of time:", ", ".join(missing))


if __name__ == "__main__":
    main()
