"""How long a visitor of the page waits: from the click to the whole picture with all maps, by sampling steps.

python benchmarks/app_latency.py --out benchmarks/results/app_latency.json

Times are of the server's own work, as the page asks for it: reading the prompt, drawing and tracing, packing every
step, judging missing words, JSON. Processor seconds of one thread are what the clock says on a core of one's own; clock
seconds are beside the load of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from machine import describe

from bcos_diffusion.app.studio import Studio
from bcos_diffusion.missing.calibration import Calibration
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.files import write_json

PROMPTS = ("cat", "a cat left of a banana on a blue background", "owl , balloon and duck on red")
STEPS = (5, 10, 15, 25)
REPEATS = 2


def measure(studio: Studio, prompt: str, steps: int) -> dict[str, Any]:
    """The fastest of a few repeats: seconds to the first preview, to the whole, and of the processor; bytes sent."""
    ask = studio.read(prompt, "", 0, steps, studio.pipeline.defaults.guidance)
    found = []
    for _ in range(REPEATS):
        began, worked, first = time.perf_counter(), time.process_time(), None
        for message, _drawing in studio.picture(ask):
            text = json.dumps(message)
            first = time.perf_counter() - began if first is None else first
        found.append((time.perf_counter() - began, time.process_time() - worked, first, len(text)))
    clock, processor, first, size = (min(column) for column in zip(*found, strict=True))
    return {"clock_s": clock, "processor_s": processor, "first_s": first, "bytes": size}


def region(studio: Studio, prompt: str) -> float:
    """Processor seconds of one question about a box, the fastest of a few."""
    *_, (_, drawing) = studio.picture(studio.read(prompt, "", 0, 4, 2.0))
    assert drawing is not None
    found = []
    for _ in range(REPEATS):
        began = time.process_time()
        studio.region(drawing, [4, 4, 20, 20], 4)
        found.append(time.process_time() - began)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/app_latency.json"))
    parser.add_argument("--model")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    pipeline = BcosDiffusionPipeline.from_pretrained(*[options.model] if options.model else [])
    studio = Studio(pipeline, None if options.model else Calibration.of(pipeline))
    rows = []
    torch.set_num_threads(options.threads)
    for prompt in PROMPTS:
        for steps in STEPS:
            rows.append({"prompt": prompt, "steps": steps} | measure(studio, prompt, steps))
            print(json.dumps(rows[-1]), flush=True)
    said = {"model": pipeline.name, "size": list(pipeline.default_size)}
    said |= {"region_processor_s": region(studio, PROMPTS[1]), "threads": options.threads}
    write_json(options.out, said | {"load": round(os.getloadavg()[0], 1), "machine": describe(), "rows": rows})


if __name__ == "__main__":
    main()
