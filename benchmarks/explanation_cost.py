"""What explaining costs: seconds and peak memory of tracing n words, beside plain sampling, in one run.

python benchmarks/explanation_cost.py --out benchmarks/results/explanation_cost.json
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe, print_table

from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.files import write_json

PROMPTS = ("cat", "cat blue", "a cat left of a banana on a blue background", "cat banana goat ghost")


def peak_rise(action: Callable[[], object]) -> float:
    """Megabytes that resident memory rises above its start while ``action`` runs, sampled every 5 ms."""
    done, highest, start = threading.Event(), [resident()], resident()

    def watch() -> None:
        while not done.wait(0.005):
            highest[0] = max(highest[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    action()
    done.set()
    watcher.join()
    return highest[0] - start


def resident() -> float:
    """Resident memory of this process in megabytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def seconds(action: Callable[[], object], repeats: int) -> float:
    """The median wall time of ``action``."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2]


def main() -> None:
    """Time every prompt with and without explanation, and trace with 10 and 100 steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="scenes-32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    pipeline = BcosDiffusionPipeline.from_pretrained(options.model)
    pipeline.explain(PROMPTS[0], steps=1)
    memory = {steps: peak_rise(lambda s=steps: pipeline.explain(PROMPTS[2], steps=s)) for steps in (10, 100)}
    print("peak memory rise, MB, by steps:", {steps: round(mb, 1) for steps, mb in memory.items()})
    rows = []
    for prompt in PROMPTS:
        plain = seconds(lambda p=prompt: pipeline.generate([p]), options.repeats)
        traced = seconds(lambda p=prompt: pipeline.explain(p), options.repeats)
        n = len(pipeline.explain(prompt, steps=1)[0].sources)
        rows.append({"prompt": prompt, "tokens": n, "plain_s": plain, "explained_s": traced, "ratio": traced / plain})
    print_table(rows)
    if options.out is not None:
        write_json(options.out, {"machine": describe(), "cost": rows, "peak_rise_mb_by_steps": memory})


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
