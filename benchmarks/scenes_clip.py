"""Train a small CLIP on scenes, for its text encoder: the models on CLIP's encodings then need no download.

    python -m benchmarks.scenes_clip --out runs/scenes-clip

Writes a folder that ``--paper.text`` of the trainer reads: ``open_clip_config.json`` and the text tower's weights
under open_clip's names; and ``log.json``, with how often the right caption is found among 256 held-out pairs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIP
from torch import Tensor
from tqdm import trange

from bcos_diffusion.scenes import Scenes
from bcos_kernels.files import write_json, write_tensors
from benchmarks.machine import describe

SIZE = 32
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 4}
VISION = {"image_size": SIZE, "patch_size": 8, "width": 160, "head_width": 32, "layers": 4}
TOWER = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")


def pairs(data: Scenes, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Images ``[N, 3, H, W]`` in [-1, 1] and token ids ``[N, L]`` of scenes from ``first`` on."""
    images, captions = data.batch(range(first, first + count))
    tokenize = open_clip.SimpleTokenizer(context_length=TEXT["context_length"])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1, tokenize(captions)


@torch.no_grad()
def accuracy(model: CLIP, count: int = 256) -> float:
    """Share of held-out images whose own caption, or one of the same words, is the nearest of ``count``."""
    images, tokens = pairs(Scenes(SIZE, "validation"), 0, count)
    image, text, _ = model.eval()(images, tokens)
    model.train()
    nearest = (image @ text.t()).argmax(1)
    return float((tokens[nearest] == tokens).all(1).float().mean())


def train(steps: int, batch: int, rate: float) -> tuple[CLIP, list[dict[str, float]]]:
    """A contrastively trained model and what was measured on the way."""
    torch.manual_seed(0)
    model = CLIP(TEXT["width"], vision_cfg=VISION, text_cfg=TEXT)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    loss_of, data, log = ClipLoss(), Scenes(SIZE, "train"), []
    for step in trange(steps):
        image, text, scale = model(*pairs(data, step * batch, batch))
        loss = loss_of(image, text, scale)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6)
        if (step + 1) % 100 == 0 or step + 1 == steps:
            log.append({"step": step + 1, "loss": float(loss.detach()), "accuracy": accuracy(model)})
            print(log[-1], flush=True)
    return model, log


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    chosen = parser.parse_args()
    model, log = train(chosen.steps, chosen.batch, chosen.rate)
    state: dict[str, Any] = {k: v for k, v in model.state_dict().items() if k.split(".")[0] in TOWER}
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_tensors(chosen.out / "open_clip_model.safetensors", state)
    write_json(chosen.out / "open_clip_config.json", {"model_cfg": {"embed_dim": TEXT["width"], "text_cfg": TEXT}})
    write_json(chosen.out / "log.json", {"machine": describe("cpu"), "log": log})


if __name__ == "__main__":
    main()
