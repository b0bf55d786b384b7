"""What the paper's size costs on this machine: forward and backward, the relevance of a prompt's tokens, their maps.

python benchmarks/paper_size.py --json benchmarks/results/paper_size.json

Weights and token embeddings are random: neither time nor memory depends on their values. Every part runs in a process
of its own, whose peak is the most that it ever had in memory, libraries included; results are written as they come.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from machine import describe, print_table

from bcos_diffusion.diffusion import T
from bcos_diffusion.explanation.backward import pull_back
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.layers import KINDS
from bcos_diffusion.networks.paper_unet import PaperUNet
from bcos_diffusion.objective import Objective, Portion, draw_timesteps
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.presets import SIZES, preset
from bcos_diffusion.text.clip import ClipText, ClipTextConfig
from bcos_diffusion.text.clip_tokenizer import ClipTokenizer
from bcos_diffusion.text.frozen import FrozenText
from bcos_diffusion.training.draws import draw
from bcos_kernels.files import write_json

PROMPT = "a purple flamingo stands beside two small penguins on a sunny beach"


def new_model() -> TextToImage:
    """``bcos-x0`` at the paper's size; its prompt has twelve tokens that the image may see."""
    torch.manual_seed(0)
    chosen = preset("bcos-x0")
    tower = ClipText(ClipTextConfig(), chosen.reads)
    return TextToImage(chosen.unet, FrozenText(tower, ClipTokenizer(special=chosen.special), "random"))


def measured(action: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What ``action`` returns, and its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    return result, {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def train(dtype: str, steps: int) -> dict[str, Any]:
    """Forward and backward of one image as the trainer runs them; the last of two, as the first one warms up."""
    model = new_model()
    images, batch = torch.randint(256, (1, 3, 64, 64), dtype=torch.uint8), model.tokenizer.encode([PROMPT])
    draws, nothing = draw(0, [0], batch.ids.shape[1], 64), torch.zeros(0)
    portion = Portion(images, batch, draw_timesteps(draws.t, T), draws.noise, torch.ones(1), [], nothing, nothing)
    objective = Objective(model)

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            loss = objective(portion)["total"]
        loss.backward()
        return loss.item()

    step()
    model.zero_grad()
    loss, taken = measured(step)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    return taken | {"loss": loss}


def relevance(dtype: str, steps: int) -> dict[str, Any]:
    """One image of ``steps`` steps without guidance, and one backward pass over all of them: the tokens' relevance."""
    pipeline = new_pipeline(dtype)
    job = pipeline.job([PROMPT], [None], [0], steps=steps, guidance=1.0)
    found, taken = measured(
        lambda: pull_back(pipeline.model.unet, job.text, job.first, job.alpha_bar, job.steps, job.guidance, job.update)
    )
    by_token = found.tokens.sum(0)[0, 0]  # [L]
    return taken | {"steps": steps, "tokens": int((by_token != 0).sum()), "mass": float(by_token.sum())}


def explain(dtype: str, steps: int) -> dict[str, Any]:
    """One image of ``steps`` steps without guidance, traced to a map of every token, of x_T and of time."""
    pipeline = new_pipeline(dtype)
    (found, _), taken = measured(lambda: pipeline.explain(PROMPT, steps=steps, guidance=1.0))
    image, total = found.image.double(), found.total.double()
    return taken | {
        "steps": steps,
        "tokens": len(found.tokens),
        "completeness": float((image - total).norm() / image.norm()),
    }


def new_pipeline(dtype: str) -> BcosDiffusionPipeline:
    """A new model that samples in ``dtype``."""
    return BcosDiffusionPipeline(new_model().to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]))


def sizes() -> list[dict[str, Any]]:
    """Shape and number of parameters of the U-Net at every size; text is CLIP ViT-H-14's, or of scenes."""
    rows = []
    for size, config in SIZES.items():
        made = {kind: replace(config, layers=kind, text_dim=1024 if size == "paper" else 128) for kind in KINDS}
        with torch.device("meta"):
            counts = {kind: sum(p.numel() for p in PaperUNet(shape).parameters()) for kind, shape in made.items()}
        shape = made["bcos"]
        described = {"channels": shape.channels, "attention": shape.attention, "text_dim": shape.text_dim}
        rows.append({"size": size, "pixels": shape.size, **described, **counts})
    return rows


STEPS = {"train fp32": 1, "train bf16": 1, "relevance fp32": 25, "explain fp32": 2}
"""The parts, and how many steps each takes. Maps of every token cost a forward pass each, whatever the step."""
PARTS: dict[str, Callable[[str, int], dict[str, Any]]] = {"train": train, "relevance": relevance, "explain": explain}


def main() -> None:
    """Run every part in turn, or the one named, whose result is printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/paper_size.json"))
    parser.add_argument("--only", nargs="*", default=list(STEPS))
    parser.add_argument("--part", help="run this one in this process and print its result")
    options = parser.parse_args()
    if options.part:
        kind, dtype = options.part.split()
        result = PARTS[kind](dtype, STEPS[options.part])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kibibytes on Linux
        print(json.dumps({"part": kind, "dtype": dtype, **result, "peak_gib": peak}))
        return
    old = json.loads(options.json.read_text(encoding="utf-8"))["parts"] if options.json.exists() else []
    parts = {f"{row['part']} {row['dtype']}": row for row in old}
    found = {"machine": describe("cpu"), "prompt": PROMPT, "sizes": sizes()}
    write_json(options.json, found | {"parts": old})
    for part in options.only:
        command = [sys.executable, __file__, "--part", part]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        parts[part] = json.loads(done.stdout)
        write_json(options.json, found | {"parts": list(parts.values())})
    print_table([{key: row[key] for key in ("part", "dtype", "seconds", "peak_gib")} for row in parts.values()])


if __name__ == "__main__":
    main()
