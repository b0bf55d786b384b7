"""What batches of prompts save: CPU seconds a picture, drawn and explained, by how many go through at once.

python benchmarks/batches.py --json benchmarks/results/batches.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from machine import describe, print_table
from published_procedure import seconds

from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.files import write_json

PROMPTS = (
    "a cat left of a banana on a blue background", "dog", "two red hearts", "a pizza above a star on green",
    "a flamingo on white", "a penguin right of a goat", "strawberry", "an owl and a bee on a gray background",
)  # fmt: skip


def main() -> None:
    """Draw and explain the same prompts in batches of several sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = BcosDiffusionPipeline.from_pretrained("scenes-32")
    rows: list[dict[str, Any]] = []
    for batch in (1, 2, 4, 8):
        jobs = [
            pipeline.job(PROMPTS[i : i + batch], [None] * batch, range(i, i + batch), options.steps)
            for i in range(0, len(PROMPTS), batch)
        ]
        row: dict[str, Any] = {"batch": batch}
        for name, act in (("drawn", pipeline.draw), ("explained", pipeline.trace)):
            total = seconds(lambda act=act, jobs=jobs: [act(job) for job in jobs], options.repeats)
            row[f"{name}_s"] = total / len(PROMPTS)
        rows.append(row)
    print_table(rows)
    if options.json is not None:
        write_json(options.json, {"machine": describe(), "steps": options.steps, "rows": rows})


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
