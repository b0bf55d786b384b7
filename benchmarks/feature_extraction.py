"""What reading features costs beside the bare forward pass: a pass with hooks, and a whole extraction to disk.

Both take turns in one run, on one thread, in seconds of the processor, which other programs of a shared machine hardly
change; ratios are medians over the rounds.

python benchmarks/feature_extraction.py --out benchmarks/results/feature_extraction.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from machine import describe, print_table

from bcos_diffusion.features import FeatureStore, Plan, SceneImages, Subject, extract, load_subject, read
from bcos_kernels.files import write_json

BATCH, T = 16, 100
TIMESTEPS = (25, 100, 200, 300, 400, 500)  # those of Revelio


def in_turns(bare: Callable[[], object], other: Callable[[], object], rounds: int) -> dict[str, float]:
    """Median seconds of both, and the median of their ratio within a round."""
    taken: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        pair = (bare, other) if number % 2 else (other, bare)
        seconds = {action: timed(action) for action in pair}
        taken.append((seconds[bare], seconds[other]))
    taken = taken[1:]  # the first round warms up
    bares, others = zip(*taken, strict=True)
    return {"bare_s": median(bares), "read_s": median(others), "ratio": median(b / a for a, b in taken)}


def timed(action: Callable[[], object]) -> float:
    """Seconds of the processor that an action takes."""
    began = time.process_time()
    action()
    return time.process_time() - began


def passes(model: str, subject: Subject, rounds: int) -> list[dict[str, Any]]:
    """Reading layers in one pass: the last one, which nothing cuts short, all aliases, and a coarse one alone."""
    images = SceneImages(subject.size).batch(range(BATCH))
    x_t = subject.noise(subject.encode(images), T, list(range(BATCH)))
    condition = subject.condition([""] * BATCH)
    named = [name for name in subject.layers if "_ft" in name or name == "bottleneck"]
    rows = []
    for what, layers in (("last", named[-1:]), ("all", named), ("bottleneck", ["bottleneck"])):
        for pooled in (True, False):
            found = in_turns(
                lambda: subject.run(x_t, T, condition),
                lambda layers=layers, pooled=pooled: read(subject, x_t, T, condition, layers, pooled),
                rounds,
            )
            rows.append({"model": model, "layers": what, "form": "pooled" if pooled else "spatial", **found})
    return rows


def extraction(model: str, subject: Subject, images: int, rounds: int) -> dict[str, Any]:
    """A whole extraction, with making scenes, noise and files, beside as many bare passes."""
    named = tuple(name for name in subject.layers if name.startswith("up_ft") or name == "bottleneck")
    plan = Plan(SceneImages(subject.size, one_kind=True), images, named, TIMESTEPS, batch=BATCH)
    x_t = subject.noise(subject.encode(plan.images.batch(range(BATCH))), T, list(range(BATCH)))
    condition = subject.condition([""] * BATCH)

    def bare() -> None:
        for _ in range(-(-images // BATCH) * len(TIMESTEPS)):
            subject.run(x_t, T, condition)

    def whole() -> FeatureStore | None:
        with tempfile.TemporaryDirectory() as out:
            return extract(subject, plan, Path(out))

    form = f"{images} images × {len(TIMESTEPS)} timesteps to disk"
    return {"model": model, "layers": "way up", "form": form, **in_turns(bare, whole, rounds)}


def main() -> None:
    """Measure every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["scenes-32", "scenes-64"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for model in options.model:
        subject = load_subject(model)
        rows += passes(model, subject, options.rounds)
        rows.append(extraction(model, subject, options.images, max(1, options.rounds // 5)))
    print_table(rows)
    if options.out is not None:
        write_json(options.out, {"machine": describe("cpu"), "batch": BATCH, "rows": rows})


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
