"""Turn a training run into the folder of weights that the package ships.

    python benchmarks/ship_weights.py --run runs/scenes --name scenes-32 --guidance 2

Writes bf16 weights, the configuration with its sampling defaults, the curves of the run, and every fifth report of
its log to benchmarks/results/training_NAME.json. The model card beside the weights is written by hand.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import torch
from training_log import keep

from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults
from bcos_diffusion.shipped import SHIPPED
from bcos_kernels.files import write_atomically

LIMIT_MB = 32


def draw_curves(entries: list[dict[str, float]], path: Path) -> None:
    """The losses and the learning rate of a run over its steps, smoothed over 20 reports."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (losses, rate) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for name in ("denoising", "effect"):
        points = [(entry["step"], entry[name]) for entry in entries if name in entry]
        values = [value for _, value in points]
        smooth = [sum(values[max(0, i - 19) : i + 1]) / len(values[max(0, i - 19) : i + 1]) for i in range(len(values))]
        if points:
            losses.semilogy([step for step, _ in points], smooth, label=name)
    losses.set(xlabel="step", title="loss (mean of 20 reports)")
    losses.legend()
    rate.plot([entry["step"] for entry in entries], [entry["learning_rate"] for entry in entries])
    rate.set(xlabel="step", title="learning rate")
    write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))
    plt.close(figure)


def main() -> None:
    """Ship a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, action="append", help="in order, where there are several")
    parser.add_argument("--name", required=True)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--unguided-below", type=int, default=0, help="timestep below which there is no guidance")
    parser.add_argument("--weights", type=Path, help="pipeline folder to ship, if not the run's own")
    options = parser.parse_args()
    trained = BcosDiffusionPipeline.from_pretrained(options.weights or options.run[-1] / "pipeline")
    defaults = Defaults(options.steps, options.guidance, unguided_below=options.unguided_below)
    shipped = BcosDiffusionPipeline(trained.model, defaults, options.name)
    out = SHIPPED.parent / options.name
    shipped.save_pretrained(out, dtype=torch.bfloat16)
    draw_curves(keep(options.run, options.name), out / "curves.png")
    size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    print(f"{out}: {size:.1f} MB of at most {LIMIT_MB}")
    if size > LIMIT_MB:
        raise SystemExit(f"too large to ship: {size:.1f} MB")


if __name__ == "__main__":
    main()
