"""What a trace says: relevance per token and word, the budget of the image's mass, reconstruction.

Equation numbers are those of "Interpretable Diffusion Models with B-cos Networks"; see mathematics §5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.diffusion import Guidance
from bcos_diffusion.encoding import decode
from bcos_diffusion.explanation.phrases import Group, groups, require_phrases
from bcos_diffusion.explanation.regions import Box, RegionReport, report
from bcos_diffusion.explanation.relevance import Part, mean_free, relevance
from bcos_diffusion.explanation.trace import Source, Trace, Watcher
from bcos_diffusion.job import Job
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.start import Start
from bcos_diffusion.text import TextBatch

__all__ = ["Explanation", "Part", "explain", "explain_job", "explained", "mean_free", "relevance"]


@dataclass(frozen=True)
class Explanation:
    """An image, explained.

    image: rgb ``[3, H, W]`` in [0, 1]; reconstruction: the same from the tokens alone, normalised (Eq. 7); words: in
    the order of the prompt, where a phrase is one of them; start: the image that was drawn anew, if any.
    """

    prompt: str
    seed: int
    steps: int
    guidance: Guidance
    update: str
    model: str
    trace: Trace
    image: Tensor
    reconstruction: Tensor
    tokens: tuple[Part, ...]
    words: tuple[Part, ...]
    negative_prompt: str | None = None
    start: Start | None = None

    @property
    def raw_reconstruction(self) -> Tensor:
        """What the tokens alone add up to (Eq. 6), ``[3, H, W]``: the colour channels as they are, not normalised."""
        return self.trace.tokens.sum(0)[:3]

    @property
    def raw_reconstruction_mse(self) -> float:
        """Mean squared error over rgb between the image and Eq. 6."""
        return float((self.image - self.raw_reconstruction).double().pow(2).mean())

    @property
    def origin(self) -> str:
        """What the part of the trace is called that sampling started from: x_T, or x_t of an image."""
        return "x_T" if self.start is None else f"x_{self.start.t}"

    @property
    def completeness(self) -> float:
        """Relative error of image = sum of contributions (in the L2 norm, over six channels)."""
        image = self.trace.image.double()
        return float((image - self.trace.total.double()).norm() / image.norm())

    @property
    def reconstruction_mse(self) -> float:
        """Mean squared error over rgb between the image and what its tokens alone reconstruct, normalised (Eq. 7)."""
        return float((self.image - self.reconstruction).double().pow(2).mean())

    @property
    def budget(self) -> dict[str, float]:
        """Shares of the image's mass by origin; they sum to 1. ``other``: the sampler's own constants."""
        mass = {
            "tokens": self.trace.tokens.double().sum(),
            "x_T": self.trace.x_T.double().sum(),
            "time": self.trace.time.double().sum(),
        }
        total = self.trace.image.double().sum()
        shares = {name: float(value / total) for name, value in mass.items()}
        return shares | {"other": 1.0 - sum(shares.values())}

    def tokens_for(self, region: Box | Tensor) -> RegionReport:
        """Which tokens made a region of the image, exactly; region and errors as for :func:`regions.report`."""
        return report(self.tokens, self._others(), self.trace.image, region)

    def words_for(self, region: Box | Tensor) -> RegionReport:
        """Which words, and phrases, made a region of the image."""
        return report(self.words, self._others(), self.trace.image, region)

    def _others(self) -> dict[str, Tensor]:
        return {self.origin: self.trace.x_T, "time": self.trace.time, "other": self.trace.constant}

    def to_dict(self) -> dict[str, Any]:
        """Everything but the maps, as JSON-ready values; size is width and height in pixels."""
        return {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "seed": self.seed,
            "steps": self.steps,
            **self.guidance.to_dict(),
            "update": self.update,
            "model": self.model,
            "completeness": self.completeness,
            "budget": self.budget,
            "reconstruction_mse": self.reconstruction_mse,
            "raw_reconstruction_mse": self.raw_reconstruction_mse,
            "size": list(self.image.shape[:0:-1]),
            "start": None if self.start is None else {"image": self.start.name, "t": self.start.t},
            "tokens": [_describe(part) for part in self.tokens],
            "words": [_describe(part) for part in self.words],
        }


def _describe(part: Part) -> dict[str, Any]:
    described: dict[str, Any] = {
        "text": part.text,
        "relevance_signed": part.relevance_signed,
        "relevance_absolute": part.relevance_absolute,
    }
    return described | {"negative": True} if part.negative else described


def explain(
    pipeline: BcosDiffusionPipeline,
    prompt: str,
    negative_prompt: str | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    update: str | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
    size: tuple[int, int] | None = None,
    start: Start | None = None,
    phrases: Sequence[str] = (),
) -> Explanation:
    """Draw one image and explain it, in one pass. Arguments and errors as ``pipeline.explain`` and ``pipeline.job``.

    phrases: words that stand beside each other and are explained as one, such as "blue background".
    """

    def watch(number: int, state: Tensor, _: Tensor) -> None:
        if callback is not None:
            callback(number, state[:, 0])

    job = pipeline.job([prompt], [negative_prompt], [seed], steps, guidance, update, size, start)
    require_phrases(job.batch, phrases)
    return explain_job(pipeline, job, [prompt], [negative_prompt], [seed], watch, phrases)[0]


def explain_job(
    pipeline: BcosDiffusionPipeline,
    job: Job,
    prompts: Sequence[str],
    negative_prompts: Sequence[str | None],
    seeds: Sequence[int],
    watch: Watcher | None = None,
    phrases: Sequence[str] = (),
) -> list[Explanation]:
    """Draw and explain the N pictures of a job, made of these prompts and seeds, in one pass over all.

    phrases: words that are explained as one in prompts that have them beside each other.
    """
    return [
        explained(pipeline, job, i, result, prompts[i], negative_prompts[i], seeds[i], phrases)
        for i, result in enumerate(pipeline.trace(job, watch))
    ]


def explained(
    pipeline: BcosDiffusionPipeline,
    job: Job,
    number: int,
    traced: Trace,
    prompt: str,
    negative_prompt: str | None,
    seed: int,
    phrases: Sequence[str] = (),
) -> Explanation:
    """What a trace says of picture ``number`` of a job: of the picture, or of the x_0 predicted at some step."""
    image = decode(traced.image[None])[0].clamp(0, 1)
    reconstruction = decode(traced.tokens.sum(0)[None])[0].clamp(0, 1)
    tokens = _parts(traced, _single_tokens(job.prompts(number)))
    words = _parts(traced, groups(job.prompts(number), phrases))
    return Explanation(
        prompt, seed, job.steps, job.guidance, job.update, pipeline.name, traced, image, reconstruction, tokens, words,
        negative_prompt, job.start,
    )  # fmt: skip


def _single_tokens(batch: TextBatch) -> tuple[Group, ...]:
    return tuple(
        Group(text, (Source(row, position),), negative=row == 1)
        for row, texts in enumerate(batch.texts)
        for position, text in enumerate(texts)
    )


def _parts(result: Trace, spoken: Sequence[Group]) -> tuple[Part, ...]:
    """The maps of a trace by group, function words (exactly zero) included."""
    found = dict(zip(result.sources, result.tokens, strict=True))
    nothing = torch.zeros_like(result.image)
    maps = [sum((found.get(source, nothing) for source in group.tokens), nothing) for group in spoken]
    shares = relevance(maps)
    return tuple(
        Part(group.text, m, *share, negative=group.negative)
        for group, m, share in zip(spoken, maps, shares, strict=True)
    )
