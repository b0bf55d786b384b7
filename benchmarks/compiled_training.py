"""Does ``torch.compile`` make a training step on this CPU faster, and what does it cost to compile?

    python benchmarks/compiled_training.py --out benchmarks/results/compiled_training.json

The step is the trainer's own: loss and gradients of the scenes model in a small size, without the effect term. Rounds
of both are interleaved.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from machine import describe, print_table

from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.objective import Objective, Portion
from bcos_diffusion.training.batches import prepare, rounds
from bcos_diffusion.training.config import TrainConfig
from bcos_diffusion.training.source import SceneSource
from bcos_diffusion.training.trainer import build_model
from bcos_kernels.files import write_json

SMALL = UNetConfig(widths=(32, 64), self_attention=(False, True), cross_attention=(True, True))


def seconds(objective: torch.nn.Module, portion: Portion) -> tuple[float, float]:
    """Time and loss of one step."""
    objective.zero_grad(set_to_none=True)
    began = time.perf_counter()
    loss = objective(portion)["total"]
    loss.backward()
    return time.perf_counter() - began, loss.item()


def main() -> None:
    """Compile, then time both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    config = TrainConfig(out=Path("unused"), model=SMALL, batch_size=options.batch_size, effect_weight=0.0)
    steps = {"as it is": Objective(build_model(config)), "compiled": torch.compile(Objective(build_model(config)))}
    (round_,) = rounds(range(options.batch_size), 0, 1, None)
    tokenizer = build_model(config).tokenizer
    portion = prepare(round_, SceneSource(SMALL.size, config.seed), tokenizer, config)
    first = {name: seconds(step, portion) for name, step in steps.items()}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            taken[name].append(seconds(step, portion)[0])
    rows = [{"step": name, "first_s": first[name][0], "median_s": median(taken[name]), "loss": first[name][1]}
            for name in steps]  # fmt: skip
    print_table(rows)
    if options.out is not None:
        write_json(options.out, {"machine": describe("cpu"), "batch": options.batch_size, "rows": rows})


if __name__ == "__main__":
    main()
