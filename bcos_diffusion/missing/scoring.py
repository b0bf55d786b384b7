"""How likely each content word of a prompt was drawn, from what its word contributed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.evaluation.words import group, is_content
from bcos_diffusion.explain import Explanation
from bcos_diffusion.missing.calibration import Calibration
from bcos_diffusion.missing.features import colour_share, object_features

DRAWN = 0.5


@dataclass(frozen=True)
class Scored:
    """A content word of a prompt. position: its number among the prompt's words; group: "object" or "colour".

    probability: that it was drawn. For objects it is calibrated; for a colour it is the share of the background
    of which its word gives the most.
    """

    word: str
    position: int
    group: str
    probability: float

    @property
    def drawn(self) -> bool:
        """Whether the word is more likely there than not."""
        return self.probability >= DRAWN

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return asdict(self) | {"drawn": self.drawn}


def score(explanation: Explanation, calibration: Calibration | None = None) -> tuple[Scored, ...]:
    """The probability that each content word of an explained picture was drawn, in the order of the prompt.

    calibration: of the model that drew the picture; of the one that comes with the package where not given. Raises
    ValueError where that belongs to another model, and for an explanation with phrases, whose words are joined.
    """
    calibration = Calibration.shipped(explanation.model) if calibration is None else calibration
    words = [part for part in explanation.words if not part.negative]
    maps = torch.stack([part.map for part in words])
    return score_maps(maps, [part.text for part in words], calibration)


def score_maps(maps: Tensor, words: Sequence[str], calibration: Calibration, share: float = 1.0) -> tuple[Scored, ...]:
    """The same of contributions ``[words, 6, H, W]`` to an image, or to a predicted x_0, ``[6, H, W]``.

    share: of the sampling steps taken so far, which picks the checkpoint of the calibration.
    """
    named = objects(words)
    colours = [i for i, word in enumerate(words) if group(word) == "colour"]
    found = [Scored(words[i], i, "colour", colour_share(maps, i)) for i in colours]
    if named:
        probabilities = calibration.at(share).probability(object_features(maps, named))
        found += [Scored(words[i], i, "object", float(p)) for i, p in zip(named, probabilities, strict=True)]
    return tuple(sorted(found, key=lambda scored: scored.position))


def objects(words: Sequence[str]) -> list[int]:
    """The positions of words that carry a value and name no colour."""
    return [i for i, word in enumerate(words) if is_content(word) and group(word) != "colour"]
