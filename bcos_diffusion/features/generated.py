"""Images that one of our models draws from prompts, read noised like real ones or on their way from noise.

Pictures are drawn in batches of a fixed size, cut from the prompts in order, so that picture i does not depend on
which others are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.diffusion import ddim_timesteps
from bcos_diffusion.evaluation.drawn_objects import MOST, named_objects
from bcos_diffusion.features.images import Images
from bcos_diffusion.features.scene_labels import SCENE_CLASSES
from bcos_diffusion.many import weights_digest
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import COLOURS, nouns

READS = ("noised", "run")
DRAWN_AT_ONCE = 8


@dataclass(frozen=True)
class _Drawn:
    """A batch of runs: images ``[B, 3, H, W]`` and x_t ``[steps, B, 6, H, W]`` at each step's timestep."""

    images: Tensor
    states: Tensor


class GeneratedImages(Images):
    """Picture i, drawn from prompt i with noise of seed ``seed + i``, labelled by what its prompt asks for.

    reads: "noised" has the finished picture noised to t, as real images are; "run" has x_t of the run that drew it, at
    the step nearest to t. steps, guidance: the model's own by default. Raises ValueError for prompts that the model
    cannot read, no prompts, and another ``reads``.
    """

    kind = "generated"
    drawn = True

    def __init__(
        self,
        pipeline: BcosDiffusionPipeline,
        prompts: Sequence[str],
        seed: int = 0,
        reads: str = "noised",
        steps: int | None = None,
        guidance: float | None = None,
    ):
        if reads not in READS:
            raise ValueError(f"reads must be one of {READS}, got {reads!r}")
        if not prompts:
            raise ValueError("generated images need at least one prompt")
        self.pipeline, self.prompts, self.seed, self.reads = pipeline, tuple(prompts), seed, reads
        job = pipeline.job(list(dict.fromkeys(prompts))[:1], [None], [seed], steps, guidance)
        self.reads_runs = reads == "run"
        self.steps, self.guidance, self.update = job.steps, job.guidance, job.update
        self.words = pipeline.model.tokenizer.encode(list(prompts)).words
        self.size = pipeline.default_size[0]
        factors = {name: SCENE_CLASSES[name] for name in ("colour", "count")}
        self.classes = {"object": nouns(self.size), **factors}
        self._kept: dict[int, _Drawn] = {}

    def __len__(self) -> int:
        return len(self.prompts)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}  # what was drawn is not sent to other processes

    def settings(self) -> dict[str, Any]:
        """The model, by the hash of its weights, the prompts and how they are drawn."""
        how = {"steps": self.steps, **self.guidance.to_dict(), "update": self.update, "reads": self.reads}
        model = {"model": self.pipeline.name, "weights": weights_digest(self.pipeline.model)}
        return {"kind": self.kind, **model, "seed": self.seed, **how, "prompts": list(self.prompts)}

    def batch(self, numbers: Sequence[int]) -> Tensor:
        """The finished pictures."""
        return torch.stack([self._batch_of(i).images[i % DRAWN_AT_ONCE] for i in numbers])

    def caption(self, number: int) -> str:
        """The prompt."""
        return self.prompts[number]

    def label(self, number: int) -> dict[str, int]:
        """What the prompt asks for: an object where it names one kind, a colour, and how many objects in all."""
        words = [word.strip() for word in self.words[number]]
        named = named_objects(words)
        known = [noun for noun in named if noun in self.classes["object"]]
        colours = [word for word in words if word in COLOURS]
        total = sum(named.values()) if named and all(named.values()) else 0
        return {
            "object": self.classes["object"].index(known[0]) if len(known) == len(named) == 1 else -1,
            "colour": self.classes["colour"].index(colours[0]) if colours else -1,
            "count": total - 1 if 1 <= total <= MOST else -1,
        }

    def states(self, numbers: Sequence[int], t: int) -> tuple[Tensor, int] | None:
        """x_t ``[N, 6, H, W]`` of the runs at the step nearest to t (the earlier of two as near), and its timestep."""
        if not self.reads_runs:
            return None
        timesteps = ddim_timesteps(self.steps, len(self.pipeline.alpha_bar))
        step = min(range(len(timesteps)), key=lambda i: abs(timesteps[i] - t))
        found = [self._batch_of(i).states[step, i % DRAWN_AT_ONCE] for i in numbers]
        return torch.stack(found), timesteps[step]

    def _batch_of(self, number: int) -> _Drawn:
        """The batch that a picture is drawn in; the last few are remembered."""
        if not 0 <= number < len(self):
            raise IndexError(f"there are images 0 to {len(self) - 1}, got {number}")
        which = number // DRAWN_AT_ONCE
        if which not in self._kept:
            while len(self._kept) >= 4:
                del self._kept[next(iter(self._kept))]
            self._kept[which] = self._draw(which)
        return self._kept[which]

    @torch.no_grad()
    def _draw(self, which: int) -> _Drawn:
        """Draw a batch; the last is filled up with its own last picture, so that all have one shape."""
        first, last = which * DRAWN_AT_ONCE, len(self) - 1
        numbers = [min(first + i, last) for i in range(DRAWN_AT_ONCE)]
        prompts, seeds = [self.prompts[i] for i in numbers], [self.seed + i for i in numbers]
        job = self.pipeline.job(prompts, [None] * len(numbers), seeds, self.steps, self.guidance.scale, self.update)
        states = [job.first]
        images = self.pipeline.draw(job, lambda number, x_t, x_hat: states.append(x_t))
        return _Drawn(images.float().cpu(), torch.stack(states[:-1]))
