"""Images per second of the trainer's own step, with and without the effect term.

python benchmarks/training_rate.py --out benchmarks/results/training_rate.json
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from machine import describe, print_table

from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.train import TrainConfig, train
from bcos_kernels.files import write_json


def rate(model: UNetConfig, batch_size: int, effect_weight: float, steps: int) -> float:
    """Images per second over the second half of a short run, the first half being warm-up."""
    reached: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            out=Path(folder),
            model=model,
            steps=steps,
            batch_size=batch_size,
            effect_weight=effect_weight,
            log_every=max(1, steps // 2),
            save_every=steps + 1,
            sample_every=steps + 1,
        )

        def note(step: int, values: dict[str, float]) -> None:
            reached[step] = time.monotonic()

        train(config, on_step=note)
    first, last = min(reached), max(reached)
    return (last - first) * batch_size / (reached[last] - reached[first])


def main() -> None:
    """Measure the default model and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200 if torch.cuda.is_available() else 10)
    parser.add_argument("--batch-size", type=int, default=256 if torch.cuda.is_available() else 64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for effect_weight in (0.0, 0.5):
        measured = rate(UNetConfig(), options.batch_size, effect_weight, options.steps)
        rows.append({"effect_weight": effect_weight, "batch": options.batch_size, "images_per_second": measured})
    print_table(rows)
    if options.out is not None:
        write_json(options.out, {"machine": describe(), "training": rows})


if __name__ == "__main__":
    main()
