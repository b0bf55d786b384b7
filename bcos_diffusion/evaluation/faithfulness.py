"""Does a word's relevance tell what would change without it? Rank correlation, per prompt and pooled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from bcos_diffusion.evaluation.statistics import bootstrap, bootstrap_spearman, mean, spearman
from bcos_diffusion.evaluation.words import group, is_content
from bcos_diffusion.explain import mean_free

MEASURES = ("mass", "mean_free", "norm")
FEWEST_WORDS = 3


@dataclass(frozen=True)
class WordEffect:
    """What a word contributed to one image, and what changed when it was dropped (L2, six channels).

    mass: |c_i| of Eq. 8; mean_free: L2 norm of its mean-free map; norm: L2 norm of its map.
    """

    text: str
    mass: float
    mean_free: float
    norm: float
    effect: float


def measure(text: str, contribution: Tensor, image: Tensor, effect: float) -> WordEffect:
    """Sum a contribution ``[6, H, W]`` to an image ``[6, H, W]`` up in each of the measures."""
    contribution, image = contribution.double(), image.double()
    return WordEffect(
        text,
        abs(float(contribution.sum())),
        float(mean_free(contribution, image).norm()),
        float(contribution.norm()),
        effect,
    )


class Judgeable(Protocol):
    """A word, what changed when it was taken out, and whatever is to tell that."""

    @property
    def text(self) -> str: ...

    @property
    def effect(self) -> float: ...


Image = Sequence[Judgeable]


def content(words: Image) -> Image:
    """The words that may carry a value."""
    return [word for word in words if is_content(word.text)]


def objects(words: Image) -> Image:
    """The nouns: among them colour words, which change most pixels, cannot help a correlation."""
    return [word for word in words if group(word.text) == "object"]


def everything(words: Image) -> Image:
    """All words, function words with the relevance 0 that they carry by construction included."""
    return words


KEYS: dict[str, tuple[bool, Callable[[Image], Image]]] = {
    "mean_over_images_content": (False, content),
    "pooled_content": (True, content),
    "pooled_objects": (True, objects),
    "mean_over_images_all": (False, everything),
    "pooled_all": (True, everything),
}


def correlation(words: Image, name: str) -> float:
    """Spearman's rho between one measure of relevance and the effect; NaN where either does not vary."""
    return spearman([getattr(word, name) for word in words], [word.effect for word in words])


def faithfulness(units: Sequence[Sequence[Image]]) -> dict[str, Any]:
    """Correlations for each measure: the mean over images of three content words or more, and pooled over words.

    units: for each prompt or scene, its images, each a list of words. What the keys mean is in :data:`KEYS`.
    """
    result: dict[str, Any] = {"units": len(units), "units_with_3_content_words": len(with_ranks(units))}
    return result | {name: correlations(units, name) for name in MEASURES}


def correlations(units: Sequence[Sequence[Image]], name: str) -> dict[str, dict[str, float]]:
    """How well one attribute of words ranks their effects, in each way of :data:`KEYS`, with intervals over units."""
    rich = with_ranks(units)
    return {
        key: _pooled(units, keep, name) if pooled else _mean(rich, keep, name) for key, (pooled, keep) in KEYS.items()
    }


def rank_of_prompt(unit: Sequence[Image], name: str, keep: Callable[[Image], Image] = everything) -> float:
    """How well one attribute ranks the words of a prompt, all or those to ``keep``: the mean over its images."""
    return mean([correlation(keep(image), name) for image in unit])


def with_ranks(units: Sequence[Sequence[Image]]) -> Sequence[Sequence[Image]]:
    """The prompts of three content words or more: among fewer a rank says little."""
    return [unit for unit in units if len(content(unit[0])) >= FEWEST_WORDS]


def _mean(units: Sequence[Sequence[Image]], keep: Callable[[Image], Image], name: str) -> dict[str, float]:
    return bootstrap([rank_of_prompt(unit, name, keep) for unit in units], mean)


def _pooled(units: Sequence[Sequence[Image]], keep: Callable[[Image], Image], name: str) -> dict[str, float]:
    return bootstrap_spearman([
        np.array([(getattr(word, name), word.effect) for image in unit for word in keep(image)]).reshape(-1, 2)
        for unit in units
    ])  # fmt: skip
