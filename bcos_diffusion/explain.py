"""What a trace says: relevance per token and word, the budget of the image's mass, reconstruction.

Equation numbers are those of "Interpretable Diffusion Models with B-cos Networks"; see mathematics §5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.encoding import decode
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import TextBatch
from bcos_diffusion.trace import Trace


@dataclass(frozen=True)
class Part:
    """A token or a word with what it contributed. map: ``[6, H, W]``; relevances are shares (Eq. 8)."""

    text: str
    map: Tensor
    relevance_signed: float
    relevance_absolute: float
    negative: bool = False

    @property
    def mass(self) -> float:
        """The sum of the map over pixels and channels, c_i of Eq. 8."""
        return float(self.map.double().sum())


@dataclass(frozen=True)
class Explanation:
    """An image, explained. image, reconstruction: rgb ``[3, H, W]`` in [0, 1]; the rest as in the trace."""

    prompt: str
    seed: int
    steps: int
    guidance: float
    update: str
    model: str
    trace: Trace
    image: Tensor
    reconstruction: Tensor
    tokens: tuple[Part, ...]
    words: tuple[Part, ...]
    negative_prompt: str | None = None

    @property
    def completeness(self) -> float:
        """Relative error of image = sum of contributions (in the L2 norm, over six channels)."""
        image = self.trace.image.double()
        return float((image - self.trace.total.double()).norm() / image.norm())

    @property
    def reconstruction_mse(self) -> float:
        """Mean squared error between the image and what its tokens alone reconstruct (Eq. 6 and 7)."""
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

    def to_dict(self) -> dict[str, Any]:
        """Everything but the maps, as JSON-ready values."""
        return {
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "seed": self.seed,
            "steps": self.steps,
            "guidance": self.guidance,
            "update": self.update,
            "model": self.model,
            "completeness": self.completeness,
            "budget": self.budget,
            "reconstruction_mse": self.reconstruction_mse,
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


def relevance(maps: list[Tensor]) -> list[tuple[float, float]]:
    """Signed and absolute shares (Eq. 8) of maps ``[6, H, W]``; all zero where no map has mass."""
    masses = [float(m.double().sum()) for m in maps]
    signed, absolute = sum(masses), sum(abs(c) for c in masses)
    return [(c / signed if signed else 0.0, abs(c) / absolute if absolute else 0.0) for c in masses]


def mean_free(map: Tensor, image: Tensor) -> Tensor:
    """How far a contribution pushes each pixel from the image's mean colour towards its own: ``[H, W]``.

    The all-ones cotangent measures brightness (mathematics §5); this one is the image minus its mean.
    map: ``[..., 6, H, W]``; image: ``[6, H, W]``.
    """
    direction = image - image.mean(dim=(-2, -1), keepdim=True)
    return (map * direction).sum(-3)


def explain(
    pipeline: BcosDiffusionPipeline,
    prompt: str,
    negative_prompt: str | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    update: str | None = None,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Explanation:
    """Draw one image and explain it, in one pass. Arguments and errors as ``pipeline.explain``."""
    result, batch = pipeline.explain(prompt, negative_prompt, seed, steps, guidance, update, callback)
    steps, guidance, update = pipeline._settings(steps, guidance, update)
    image = decode(result.image[None])[0].clamp(0, 1)
    reconstruction = decode(result.tokens.sum(0)[None])[0].clamp(0, 1)
    tokens, words = _parts(result, batch)
    return Explanation(
        prompt, seed, steps, guidance, update, pipeline.name, result, image, reconstruction, tokens, words,
        negative_prompt,
    )  # fmt: skip


def _parts(result: Trace, batch: TextBatch) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Group the maps of a trace by token and by word, function words (exactly zero) included."""
    found = {(s.row, s.position): m for s, m in zip(result.sources, result.tokens, strict=True)}
    token_maps: list[tuple[str, bool, Tensor]] = []
    word_maps: dict[tuple[int, int], Tensor] = {}
    for row in range(len(batch.mask)):
        for position, text in enumerate(batch.texts[row]):
            contribution = found.get((row, position), torch.zeros_like(result.image))
            token_maps.append((text, row == 1, contribution))
            key = (row, int(batch.word_index[row, position]))
            word_maps[key] = word_maps.get(key, torch.zeros_like(contribution)) + contribution
    token_shares = relevance([m for _, _, m in token_maps])
    word_shares = relevance(list(word_maps.values()))
    tokens = tuple(
        Part(text, m, *share, negative=neg) for (text, neg, m), share in zip(token_maps, token_shares, strict=True)
    )
    words = tuple(
        Part(batch.words[row][index], m, *share, negative=row == 1)
        for ((row, index), m), share in zip(word_maps.items(), word_shares, strict=True)
    )
    return tokens, words
