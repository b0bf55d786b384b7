"""Which time conditioning, B and guidance let the words carry the image: short runs, side by side.

    python benchmarks/experiments.py --runs runs --out benchmarks/results/experiments.json

Every variant sees the same batches and the same noise. A run that was cut goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from machine import describe, print_table

from bcos_diffusion.explain import explain
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import prompts
from bcos_diffusion.train import TrainConfig, train
from bcos_kernels.files import write_json

SMALL = UNetConfig(widths=(48, 80, 112))
VARIANTS: dict[str, dict[str, Any]] = {
    "scale, B=2": {},
    "scale, B=2, effect=0": {"effect_weight": 0.0},
    "scale, B=1.5, effect=0": {"effect_weight": 0.0, "model": replace(SMALL, b=1.5)},
    "additive, B=2, effect=0": {"effect_weight": 0.0, "model": replace(SMALL, time_conditioning="additive")},
}


def folder_of(runs: Path, name: str) -> Path:
    """Where the run of a variant lives."""
    return runs / name.replace(", ", "-").replace("=", "").lower()


def final_loss(folder: Path, last: int) -> float:
    """Mean denoising loss over the last ``last`` steps that were logged."""
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    end = entries[-1]["step"]
    kept = [entry["denoising"] for entry in entries if entry["step"] > end - last]
    return sum(kept) / len(kept)


def mean_budget(pipeline: BcosDiffusionPipeline, count: int, guidance: float, update: str) -> dict[str, float]:
    """Mean shares of the image's mass, and the error of reconstructing it from its words, over test prompts."""
    total: dict[str, float] = {}
    for seed, prompt in enumerate(prompts(count)):
        explanation = explain(pipeline, prompt, seed=seed, guidance=guidance, update=update)
        for name, value in {**explanation.budget, "reconstruction_mse": explanation.reconstruction_mse}.items():
            total[name] = total.get(name, 0.0) + value / count
    return total


def main() -> None:
    """Train what is missing, then measure every variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--prompts", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name, changes in VARIANTS.items():
        folder = folder_of(options.runs, name)
        fixed = {"model": SMALL, "steps": options.steps, "log_every": 10, "sample_every": options.steps}
        out = train(TrainConfig(out=folder, **(fixed | changes)))
        pipeline, loss = BcosDiffusionPipeline.from_pretrained(out), final_loss(folder, 100)
        settings = [("homogeneous", g) for g in (1.0, 2.0, 3.0)] + [("standard", 2.0)]
        for update, guidance in settings:
            row = {"variant": name, "loss": loss, "update": update, "guidance": guidance}
            rows.append(row | mean_budget(pipeline, options.prompts, guidance, update))
    print_table(rows)
    if options.out is not None:
        result = {"machine": describe(), "steps": options.steps, "prompts": options.prompts, "rows": rows}
        write_json(options.out, result)


if __name__ == "__main__":
    main()
