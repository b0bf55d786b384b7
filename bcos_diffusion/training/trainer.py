"""The trainer: AdamW, warm-up, EMA, clipping, mixed precision, one process or many, and a resume that changes nothing.

The whole state of randomness and of the data is one counter, the samples seen: what sample ``i`` draws depends on
(seed, i) alone and its image on ``i``. So a run that is cut gives the weights of one that is not, and one process
computes what many do, up to the order of sums.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from bcos_diffusion.model import TextToImage
from bcos_diffusion.objective import Objective, Portion
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults
from bcos_diffusion.presets import build, preset
from bcos_diffusion.scenes import vocabulary
from bcos_diffusion.text import Tokenizer
from bcos_diffusion.training.batches import Round, portions
from bcos_diffusion.training.checkpoint import Progress, clean, find_checkpoint, load_checkpoint, save_checkpoint
from bcos_diffusion.training.config import TrainConfig, learning_rate
from bcos_diffusion.training.distributed import everywhere, local, start, whole, wrap
from bcos_diffusion.training.ema import start_ema, update_ema
from bcos_diffusion.training.growth import grow
from bcos_diffusion.training.log import Pace, TrainingLog, peak_memory_gb
from bcos_diffusion.training.paces import parameter_groups
from bcos_diffusion.training.recomputation import recompute
from bcos_diffusion.training.samples import sample_prompts, write_samples
from bcos_diffusion.training.source import TrainingSource, open_source

MOST_SKIPPED = 100
"""Steps in a row without a finite gradient after which a run is given up."""

OnStep = Callable[[int, dict[str, float]], None]


def build_model(config: TrainConfig) -> TextToImage:
    """The model that ``config`` describes, with its random start."""
    torch.manual_seed(config.seed)
    paper = config.paper
    if paper.name is not None:
        return build(paper.name, paper.size, paper.text, paper.time_conditioning)
    return TextToImage(config.shape, Tokenizer(vocabulary(config.shape.size)))


def take_weights(model: TextToImage, source: str, text_source: str | None = None) -> None:
    """Give a model the weights of a saved pipeline, of its own shape or smaller (:func:`grow`).

    source and errors as for ``from_pretrained``. Raises ValueError where it is of another shape.
    """
    held = BcosDiffusionPipeline.from_pretrained(source, text_source=text_source).model
    if json.dumps(held.to_dict()) == json.dumps(model.to_dict()):  # as they are stored: tuples are lists there
        model.load_state_dict(held.state_dict())
        return
    try:
        new = grow(model, held)
    except ValueError as error:
        raise ValueError(f"{source} is a model of another shape than the one to be trained: {error}") from None
    print(f"started from {source}; new are {', '.join(new)}", file=sys.stderr)


def sampling_defaults(config: TrainConfig) -> Defaults:
    """How the model that ``config`` describes is sampled."""
    return preset(config.paper.name, config.paper.size).defaults if config.paper.name else Defaults()


def train(config: TrainConfig, on_step: OnStep | None = None, data: TrainingSource | None = None) -> Path:
    """Train until ``config.steps``, resuming from ``config.out`` when it holds a checkpoint.

    on_step: called by the main process with the step and its values at every line of the log; data: what to train on
    where it is not what ``config.data`` names. Returns the folder of the exported pipeline (EMA weights),
    ``config.out / "pipeline"``. Raises ValueError or OSError for what cannot be trained, resumed or written.
    """
    Run(config, data).train(on_step)
    return config.out / "pipeline"


class Run:
    """One training run as one of its processes sees it."""

    def __init__(self, config: TrainConfig, data: TrainingSource | None):
        self.config = config
        self.accelerator = start(config)
        self.total = config.steps * config.batch_size
        self.model = build_model(config)
        if config.start_from is not None and find_checkpoint(config.out) is None:
            take_weights(self.model, config.start_from, config.paper.text if config.paper.name else None)
        size = self.model.unet.config.size
        with self.accelerator.main_process_first():  # the first to open shards indexes them, for all
            self.data = open_source(config, size) if data is None else data
        if self.data.size != size:
            raise ValueError(f"the data has images of {self.data.size} pixels, the model reads {size}")
        if config.recompute:
            recompute(self.model.unet)
        objective = Objective(self.model, config.effect)
        self.objective = wrap(self.accelerator, objective, self.model.unet, config.shard)
        groups = parameter_groups(self.model)
        optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay, betas=(0.9, 0.99))
        self.optimiser = self.accelerator.prepare_optimizer(optimiser)
        self.ema = start_ema(self.model, "cpu" if config.ema_on_cpu else None)
        self.identity = {"seed": config.seed, "images of an epoch": len(self.data)}
        self.progress = self._resume()
        self.skipped_in_a_row = 0

    def train(self, on_step: OnStep | None) -> None:
        """Take the steps that are left."""
        config, accelerator = self.config, self.accelerator
        log = TrainingLog(config.out, self.progress.step) if accelerator.is_main_process else None
        pace = Pace(accelerator.num_processes)
        tokenizer, process, processes = self.model.tokenizer, accelerator.process_index, accelerator.num_processes
        prepared = portions(self.progress.samples, self.data, tokenizer, config, process, processes)
        left = -(-(self.total - self.progress.samples) // config.batch_size)
        with tqdm(initial=self.progress.step, total=self.progress.step + left, disable=log is None) as bar:
            while self.progress.samples < self.total:
                before = self.progress.samples
                lr = learning_rate(config, before / config.batch_size)
                losses, norm = self._step(prepared, lr)
                bar.update()
                pace.add(self.progress.samples - before)
                step, ended = self.progress.step, self.progress.samples == self.total
                if step % config.log_every == 0 or ended:
                    values = self._over_processes(losses) | {"gradient_norm": norm, "learning_rate": lr}
                    values |= {"samples": self.progress.samples, "skipped": self.progress.skipped}
                    if log is not None:
                        values |= pace.take() | {"peak_memory_gb": peak_memory_gb(accelerator.device)}
                        log.write(step, values)
                        bar.set_postfix(loss=f"{values['denoising']:.4f}", rate=f"{values['images_per_second']:.0f}/s")
                        if on_step is not None:
                            on_step(step, values)
                if step % config.save_every == 0 or ended:
                    self._save()
                if step % config.sample_every == 0 or ended:
                    self._export()
                pace.go_on()
        if log is not None:
            log.close()
        accelerator.end_training()

    def _step(self, prepared: Iterator[tuple[Round, Portion]], lr: float) -> tuple[dict[str, Tensor], float]:
        """One update of the weights; returns this process's part of the losses, and the gradient's norm."""
        accelerator = self.accelerator
        for group in self.optimiser.param_groups:
            group["lr"] = group["pace"] * lr
        losses: dict[str, Tensor] = {}
        for round_, portion in prepared:
            with self._alone(round_):
                with accelerator.autocast():
                    found = self.objective(portion.to(accelerator.device))
                # DDP and FSDP take the mean of gradients over processes; each has computed its part of one sum.
                accelerator.backward(found["total"] * accelerator.num_processes)
            losses = {name: losses.get(name, 0) + value.detach() for name, value in found.items()}
            if round_.last:
                break
        norm = float(everywhere(accelerator.clip_grad_norm_(self.objective.parameters(), self.config.clip)))
        took = self._update(norm)
        self.optimiser.zero_grad(set_to_none=True)
        if took:
            update_ema(self.ema, self.model, self.config.ema, self.progress.step)
        self.progress = self.progress.after(len(round_.step), took)
        self.skipped_in_a_row = 0 if took else self.skipped_in_a_row + 1
        if self.skipped_in_a_row == MOST_SKIPPED:
            raise ValueError(f"the gradient has not been finite for {MOST_SKIPPED} steps; lower the learning rate")
        return losses, norm

    def _alone(self, round_: Round) -> AbstractContextManager[None]:
        """Keep gradients to this process in all rounds but the last; in shards there is no room for whole ones."""
        if round_.last or self.config.shard:
            return nullcontext()
        return self.accelerator.no_sync(self.objective)

    def _update(self, norm: float) -> bool:
        """Move the weights unless the gradient is not finite; fp16's scaler judges for itself and lowers its scale."""
        if self.accelerator.scaler is not None:
            self.optimiser.step()
            return not self.accelerator.optimizer_step_was_skipped
        if math.isfinite(norm):
            self.optimiser.step()
        return math.isfinite(norm)

    def _over_processes(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """The losses of the whole step."""
        parts = torch.stack(list(losses.values()))
        return dict(zip(losses, self.accelerator.reduce(parts, "sum").tolist(), strict=True))

    def _resume(self) -> Progress:
        """Go on from the newest checkpoint, which all processes must see."""
        accelerator, out = self.accelerator, self.config.out
        if accelerator.is_main_process:
            clean(out)
        accelerator.wait_for_everyone()
        found = find_checkpoint(out)
        number = torch.tensor([int(found.name) if found else -1], device=accelerator.device)
        if len(set(accelerator.gather(number).tolist())) > 1:
            raise ValueError(f"processes find different checkpoints in {out}; it must be on a file system they share")
        if found is None:
            return Progress()
        progress, scale = load_checkpoint(found, self.model, self.optimiser.optimizer, self.ema, self.identity)
        if scale is not None and accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(scale)
        return progress

    def _save(self) -> None:
        scaler = self.accelerator.scaler
        scale = None if scaler is None else scaler.state_dict()
        optimiser = self.optimiser.optimizer
        save_checkpoint(self.config.out, self.progress, self.model, optimiser, self.ema, self.identity, scale)

    def _export(self) -> None:
        """Write the pipeline of the averaged weights, and pictures of fixed prompts."""
        weights = {}
        for name, tensor in self.model.state_dict().items():
            average = whole(self.ema.get(name, local(tensor)), tensor)
            if self.accelerator.is_main_process:
                weights[name] = average
        if self.accelerator.is_main_process:
            pipeline = BcosDiffusionPipeline.from_model(
                self.model, weights, sampling_defaults(self.config), self.config.paper.name or "unnamed"
            )
            pipeline.save_pretrained(self.config.out / "pipeline")
            texts = sample_prompts(self.data, self.model.tokenizer)
            write_samples(pipeline, texts, self.config.out / "samples" / f"{self.progress.step:07d}.png")
