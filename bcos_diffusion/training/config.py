"""What a training run is told: how long, how fast, on what, and how it is spread over processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bcos_diffusion.networks.dit import DiTConfig
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.text.clip_weights import VIT_H_14

SCENES = "scenes"
_EFFECT_WEIGHT = 2.0


@dataclass(frozen=True)
class PaperModel:
    """One of the paper's models in the place of the scenes model."""

    name: Literal["bcos-x0", "bcos-clip-x0", "bcos-clip-eps", "vanilla"] | None = None
    size: Literal["paper", "base", "small"] = "small"
    text: str = VIT_H_14
    """The frozen CLIP: a file, a folder or a hub id."""
    time_conditioning: Literal["additive", "scale"] = "additive"
    """How the timestep acts: as published, or by factors that add nothing."""


@dataclass(frozen=True)
class TrainConfig:
    """How long, how fast and on what to train; the network's own shape is ``model`` or ``dit``."""

    out: Path
    unet: Literal["scenes", "dit"] = "scenes"
    """What denoises: the U-Net for scenes, whose shape is ``model``, or the transformer, whose shape is ``dit``."""
    model: UNetConfig = field(default_factory=UNetConfig)
    dit: DiTConfig = field(default_factory=DiTConfig)
    paper: PaperModel = field(default_factory=PaperModel)
    data: str = SCENES
    """``scenes``, or a folder of webdataset shards."""
    start_from: str | None = None
    """Folder or hub id of a model whose weights a new run starts from, of the same shape or with
    fewer words or fine levels, or of smaller pictures; without it, random ones."""
    steps: int = 20_000
    batch_size: int = 64
    """Images of one step, over all processes."""
    micro_batch: int | None = None
    """Most images that a process takes at once, for less memory; a step then takes several rounds."""
    learning_rate: float = 6e-4
    weight_decay: float = 0.0
    warmup: int = 300
    cooldown: float = 0.2
    """Final share of the steps over which the learning rate falls linearly to zero."""
    ema: float = 0.998
    ema_on_cpu: bool = False
    """Keep the averaged weights in the memory of the CPU."""
    clip: float = 0.3
    caption_dropout: float = 0.1
    """Share of whole captions dropped, for classifier-free guidance."""
    word_dropout: float = 0.15
    """Share of single words dropped, so that no word is relied on when it is absent."""
    effect_weight: float | None = None
    """Weight of the term that ties a word's contribution to the effect of dropping it; by default 2 for models
    of scenes, and 0 for the paper's, which have no such term."""
    flip: bool = False
    """Mirror half of the images; of scenes also left and right in their captions."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision as accelerate names it: no, bf16 or fp16."""
    shard: bool = False
    """Spread weights, gradients, optimiser and averaged weights over the processes (FSDP)."""
    recompute: bool = False
    """Compute activations again in the backward pass instead of keeping them (gradient checkpointing)."""
    workers: int = 1
    """Threads of each process that prepare batches ahead."""
    seed: int = 0
    log_every: int = 20
    save_every: int = 500
    sample_every: int = 1000

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}")
        for name in ("micro_batch", "workers", "log_every", "save_every", "sample_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("caption_dropout", "word_dropout", "cooldown"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        self._check_one_network()
        if self.ordinary and self.effect:
            raise ValueError("words contribute nothing of their own in vanilla; its effect_weight must be 0")

    def _check_one_network(self) -> None:
        """Refuse a shape that would be passed over in silence."""
        if self.paper.name is not None and self.unet != "scenes":
            raise ValueError(f"{self.paper.name} is a U-Net of the paper; unet {self.unet!r} is another network")
        if self.unet == "dit" and self.model != UNetConfig():
            raise ValueError("model is the shape of the U-Net; with unet 'dit' set dit instead")
        if self.unet == "scenes" and self.dit != DiTConfig():
            raise ValueError("dit is the shape of the transformer; choose it by unet 'dit'")

    @property
    def shape(self) -> UNetConfig | DiTConfig:
        """The shape of the network, where it is none of the paper's."""
        return self.dit if self.unet == "dit" else self.model

    @property
    def effect(self) -> float:
        """The weight of the effect term."""
        if self.effect_weight is None:
            return 0.0 if self.paper.name or self.ordinary else _EFFECT_WEIGHT
        return self.effect_weight

    @property
    def ordinary(self) -> bool:
        """Whether the model has ordinary layers, in which words contribute nothing of their own."""
        return self.paper.name == "vanilla" or (self.paper.name is None and self.shape.layers == "vanilla")


def learning_rate(config: TrainConfig, step: float) -> float:
    """Linear warm-up, then constant, then a linear fall over the last ``cooldown`` of the steps."""
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    fall = min(1.0, (config.steps - step) / (config.cooldown * config.steps)) if config.cooldown else 1.0
    return config.learning_rate * rise * fall
