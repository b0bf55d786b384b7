"""Explaining an image by the published procedure, and by ours: seconds, on the model in the package.

The paper computes the summary W of a sampling run by backward passes: one forward and backward pass through the whole
run for every 8 x 8 patch and channel (384 at 64 x 64 pixels). The contributions of all tokens to that patch and
channel come from one such pass, so tokens share it, and nothing else is shared. A kinder form, which keeps the graph
of the run in memory and goes back through it for every patch, is timed too.

    python benchmarks/published_procedure.py --size 32 --json benchmarks/results/published_procedure.json

Patches are a random subset, of which the time of all is extrapolated linearly; with fewer steps the whole procedure is
run as well, and compared with its own extrapolation. Times are CPU seconds of this process on one thread, so that
what else the machine does hardly counts. Results of other sizes in the JSON are kept.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import describe
from torch import Tensor

from bcos_diffusion.diffusion import sample
from bcos_diffusion.explanation.backward import pull_back
from bcos_diffusion.explanation.trace import predict_x_0
from bcos_diffusion.job import Job
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.files import read_json, write_json
from bcos_kernels.mode import explanation_mode

PROMPT = "a cat left of a banana on a blue background"
PATCH = 8


def run_with_graph(pipeline: BcosDiffusionPipeline, job: Job, values: Tensor) -> Tensor:
    """Sample the image ``[1, 6, H, W]`` of a job in explanation mode, with the graph of the whole run."""
    text = Conditioning(values, job.text.keys, job.text.mask)

    def denoise(x_t: Tensor, t: int) -> Tensor:
        return predict_x_0(
            pipeline.model.unet, text, x_t[None], t, job.alpha_bar[t], job.guidance, job.update
        )[0]  # fmt: skip

    with explanation_mode():
        return sample(denoise, job.first, job.alpha_bar, job.steps, job.update)


def patches(size: int) -> list[tuple[int, int, int]]:
    """Channel, top and left of every patch and channel."""
    return [(c, y, x) for c in range(6) for y in range(0, size, PATCH) for x in range(0, size, PATCH)]


def one_patch(image: Tensor, values: Tensor, patch: tuple[int, int, int], keep: bool) -> Tensor:
    """What each token ``[rows, L]`` gave to one channel of one patch."""
    c, y, x = patch
    (gradient,) = torch.autograd.grad(
        image[0, c, y : y + PATCH, x : x + PATCH].sum(), values, retain_graph=keep
    )  # fmt: skip
    return (gradient * values.detach()).sum(-1)


def published(
    pipeline: BcosDiffusionPipeline, job: Job, chosen: list[tuple[int, int, int]]
) -> tuple[list[float], list[Tensor]]:
    """Seconds and token contributions of every chosen patch: a forward and backward pass each."""
    taken, found = [], []
    for patch in chosen:
        began = time.process_time()
        values = job.text.values.detach().requires_grad_()
        found.append(one_patch(run_with_graph(pipeline, job, values), values, patch, keep=False))
        taken.append(time.process_time() - began)
    return taken, found


def graph_kept(
    pipeline: BcosDiffusionPipeline, job: Job, chosen: list[tuple[int, int, int]]
) -> tuple[float, list[float]]:
    """Seconds of one forward pass, and of a backward pass for every chosen patch."""
    began = time.process_time()
    values = job.text.values.detach().requires_grad_()
    image = run_with_graph(pipeline, job, values)
    forward, taken = time.process_time() - began, []
    for patch in chosen:
        began = time.process_time()
        one_patch(image, values, patch, keep=True)
        taken.append(time.process_time() - began)
    return forward, taken


def seconds(action: Callable[[], object], repeats: int) -> float:
    """The median CPU time of ``action``."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        action()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def agreement(pipeline: BcosDiffusionPipeline, job: Job, chosen: list[Any], found: list[Tensor]) -> float:
    """The largest gap between the published contributions and our maps summed over the patch, relative to both."""
    trace = pipeline.trace(job)[0]
    gaps = []
    for (c, y, x), tokens in zip(chosen, found, strict=True):
        ours = trace.tokens[:, c, y : y + PATCH, x : x + PATCH].sum((1, 2))
        theirs = torch.stack([tokens[source.row, source.position] for source in trace.sources])
        gaps.append(float((ours - theirs).norm() / theirs.norm()))
    return max(gaps)


def whole_procedure(
    pipeline: BcosDiffusionPipeline, job: Job, every: list[Any], chosen: list[Any], repeats: int
) -> dict[str, float]:
    """The published procedure for all patches and channels, beside what a subset says of it and beside our maps."""
    extrapolated_s = statistics.mean(published(pipeline, job, chosen)[0]) * len(every)
    published_s = sum(published(pipeline, job, every)[0])
    maps_s = seconds(lambda: pipeline.trace(job), repeats)
    return {
        "steps": job.steps, "published_s": published_s, "extrapolated_s": extrapolated_s, "maps_s": maps_s,
        "published_over_maps": published_s / maps_s,
    }  # fmt: skip


def measure(size: int, samples: int, whole_steps: int, repeats: int) -> dict[str, Any]:
    """Time all procedures at one size."""
    pipeline = BcosDiffusionPipeline.from_pretrained("scenes-32")

    def job_of(steps: int | None) -> Job:
        return pipeline.job([PROMPT], [None], [0], steps=steps, size=(size, size))

    def backward(job: Job) -> object:
        unet = pipeline.model.unet
        return pull_back(unet, job.text, job.first, job.alpha_bar, job.steps, job.guidance, job.update)

    job, every = job_of(None), patches(size)
    chosen = random.Random(0).sample(every, samples)
    pipeline.trace(job_of(1))  # warm
    maps_s = seconds(lambda: pipeline.trace(job), repeats)
    backward_s = seconds(lambda: backward(job), repeats)
    plain_s = seconds(lambda: pipeline.draw(job), repeats)
    taken, found = published(pipeline, job, chosen)
    forward, kept = graph_kept(pipeline, job, chosen)
    published_s = statistics.mean(taken) * len(every)
    kept_s = forward + statistics.mean(kept) * len(every)
    return {
        "size": size, "clock": "CPU seconds, one thread", "steps": job.steps, "patches_and_channels": len(every),
        "measured": samples,
        "extrapolation": f"mean of {samples} random patches and channels x {len(every)}",
        "published_s": published_s, "published_each_s": taken, "graph_kept_s": kept_s,
        "maps_s": maps_s, "backward_s": backward_s, "plain_s": plain_s,
        "published_over_maps": published_s / maps_s, "graph_kept_over_maps": kept_s / maps_s,
        "published_over_backward": published_s / backward_s,
        "agreement": agreement(pipeline, job, chosen, found),
        "whole": whole_procedure(pipeline, job_of(whole_steps), every, chosen, repeats) if whole_steps else None,
    }  # fmt: skip


def main() -> None:
    """Measure one size and write it beside those that were measured before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--whole-steps", type=int, default=1, help="steps of the whole procedure; 0: leave it out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    row = measure(options.size, options.samples, options.whole_steps, options.repeats)
    for name, value in row.items():
        print(f"{name}: {value}")
    if options.json is not None:
        before = read_json(options.json)["rows"] if options.json.exists() else []
        rows = [*(old for old in before if old["size"] != options.size), row]
        result = {
            "machine": describe(),
            "prompt": PROMPT,
            "patch": PATCH,
            "rows": sorted(rows, key=lambda r: r["size"]),
        }
        write_json(options.json, result)


if __name__ == "__main__":
    main()
