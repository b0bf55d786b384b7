"""The trainer: AdamW, warm-up, EMA, clipping, mixed precision, and a resume that changes nothing.

Every random draw of step k comes from a generator seeded with (seed, k) and every step reads the
data at position k · batch, so the step number is the whole state of randomness and of the data. A
run that is cut and resumed gives the same weights as one that is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from bcos_diffusion.checkpoint import load_checkpoint, save_checkpoint
from bcos_diffusion.diffusion import noise_schedule
from bcos_diffusion.encoding import encode
from bcos_diffusion.model import TextToImage
from bcos_diffusion.objective import drop_words, training_loss
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import Scenes, vocabulary
from bcos_diffusion.text import Tokenizer
from bcos_diffusion.training_log import TrainingLog, write_samples
from bcos_diffusion.unet import UNetConfig

_PACES = {
    "value_table": 20.0,
    "tokens.place": 5.0,
    "tokens.position": 5.0,
    "text.": 3.0,
    "tokens.attend.query": 3.0,
    "tokens.attend.key": 3.0,
}


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast and on what to train; the U-Net's own shape is ``model``."""

    out: Path
    model: UNetConfig = field(default_factory=UNetConfig)
    steps: int = 20_000
    batch_size: int = 64
    learning_rate: float = 6e-4
    weight_decay: float = 0.0
    warmup: int = 300
    cooldown: float = 0.2
    """Final share of the steps over which the learning rate falls linearly to zero."""
    ema: float = 0.998
    clip: float = 0.3
    caption_dropout: float = 0.1
    """Share of whole captions dropped, for classifier-free guidance."""
    word_dropout: float = 0.15
    """Share of single words dropped, so that no word is relied on when it is absent."""
    effect_weight: float = 2.0
    """Weight of the term that ties a word's contribution to the effect of dropping it."""
    flip: bool = False
    """Mirror half of the images, and left and right in their captions: twice as many shapes to learn."""
    precision: str = "no"
    """Mixed precision as accelerate names it: no, bf16 or fp16."""
    seed: int = 0
    log_every: int = 20
    save_every: int = 500
    sample_every: int = 1000

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}")
        for name in ("caption_dropout", "word_dropout", "cooldown"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then constant, then a linear fall over the last ``cooldown`` of the steps."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    fall = min(1.0, (config.steps - step) / (config.cooldown * config.steps)) if config.cooldown else 1.0
    return config.learning_rate * rise * fall


def parameter_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Parameters by the ``pace``, a factor of the learning rate, at which they are trained.

    A row of the value table has a gradient only when its word is in the batch, a factor of place or a position
    only its own pixel's, and what steers attention (text encoder, queries, keys) only through probabilities: at
    the pace of the convolutions, which all pixels share, they hardly leave their start.
    """
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        pace = next((p for part, p in _PACES.items() if part in name), 1.0)
        groups.setdefault(pace, []).append(parameter)
    return [{"params": parameters, "pace": pace} for pace, parameters in groups.items()]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of every random draw of one training step."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def flip_caption(caption: str) -> str:
    """Swap "left" and "right", so that the caption is true of the mirrored image."""
    swap = {"left": "right", "right": "left"}
    return " ".join(swap.get(word, word) for word in caption.split(" "))


def load_batch(data: Scenes, config: TrainConfig, step: int) -> tuple[Tensor, list[str]]:
    """Images ``[N, 3, H, W]`` in [0, 1] and captions of one step, half of them mirrored."""
    start = step * config.batch_size
    images, captions = data.batch([i % len(data) for i in range(start, start + config.batch_size)])
    rgb = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    if config.flip:
        mirrored = torch.rand(len(rgb), generator=step_generator(config.seed + 1, step)) < 0.5
        rgb[mirrored] = rgb[mirrored].flip(-1)
        captions = [flip_caption(c) if m else c for c, m in zip(captions, mirrored.tolist(), strict=True)]
    return rgb, captions


def batches(data: Scenes, config: TrainConfig, first: int) -> Iterator[tuple[Tensor, list[str]]]:
    """The batches from step ``first`` on, each prepared while the one before is trained on."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(load_batch, data, config, first)
        for step in range(first, config.steps):
            ready = following.result()
            if step + 1 < config.steps:
                following = pool.submit(load_batch, data, config, step + 1)
            yield ready


@torch.no_grad()
def update_ema(ema: dict[str, Tensor], model: torch.nn.Module, decay: float, step: int) -> None:
    """Move the average towards the weights; the decay grows with the steps taken, up to ``decay``."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, parameter in model.named_parameters():
        ema[name].lerp_(parameter.detach().float(), 1 - decay)


def train(config: TrainConfig, on_step: Callable[[int, dict[str, float]], None] | None = None) -> Path:
    """Train on scenes until ``config.steps``, resuming from ``config.out`` when it holds a checkpoint.

    Returns the folder of the exported pipeline (EMA weights), ``config.out / "pipeline"``.
    """
    accelerator = Accelerator(mixed_precision=config.precision)
    torch.manual_seed(config.seed)
    data = Scenes(size=config.model.size, split="train", seed=config.seed)
    model = TextToImage(config.model, Tokenizer(vocabulary()))
    optimiser = torch.optim.AdamW(parameter_groups(model), weight_decay=config.weight_decay, betas=(0.9, 0.99))
    ema = {name: p.detach().clone().float() for name, p in model.named_parameters()}
    first = load_checkpoint(config.out, model, optimiser, ema)
    tokenizer = model.tokenizer
    wrapped, optimiser = accelerator.prepare(model, optimiser)
    ema = {name: p.to(accelerator.device) for name, p in ema.items()}
    alpha_bar = noise_schedule().to(accelerator.device)
    log = TrainingLog(config.out, first) if accelerator.is_main_process else None
    progress = tqdm(
        batches(data, config, first), initial=first, total=config.steps, disable=not accelerator.is_main_process
    )
    began = time.monotonic()
    for step, (rgb, captions) in enumerate(progress, start=first):
        generator = step_generator(config.seed, step)
        for group in optimiser.param_groups:
            group["lr"] = group["pace"] * learning_rate(config, step)
        batch = drop_words(tokenizer.encode(captions), config.caption_dropout, config.word_dropout, generator)
        with accelerator.autocast():
            losses = training_loss(
                wrapped,
                encode(rgb.to(accelerator.device)),
                batch.to(accelerator.device),
                alpha_bar,
                generator,
                config.effect_weight,
            )
        accelerator.backward(losses["total"])
        norm = accelerator.clip_grad_norm_(wrapped.parameters(), config.clip)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        update_ema(ema, model, config.ema, step)
        if log is None:
            continue
        done = step + 1
        if done % config.log_every == 0 or done == config.steps:
            values = {name: float(value.detach()) for name, value in losses.items()} | {
                "gradient_norm": float(norm.detach())
            }
            rate = (done - first) * config.batch_size / (time.monotonic() - began)
            log.write(done, values | {"images_per_second": rate, "learning_rate": learning_rate(config, step)})
            progress.set_postfix(loss=f"{values['denoising']:.4f}", rate=f"{rate:.0f}/s")
            if on_step is not None:
                on_step(done, values)
        if done % config.save_every == 0 or done == config.steps:
            save_checkpoint(config.out, done, model, optimiser, ema)
        if done % config.sample_every == 0 or done == config.steps:
            pipeline = BcosDiffusionPipeline.from_model(model, ema)
            pipeline.save_pretrained(config.out / "pipeline")
            write_samples(pipeline, config.out / "samples" / f"{done:07d}.png")
    return config.out / "pipeline"
