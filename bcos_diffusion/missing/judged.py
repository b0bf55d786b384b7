"""Which named objects are in observed pictures, by the segmenter: the labels of everything here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bcos_diffusion.evaluation.drawn_objects import judge
from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.evaluation.words import SINGULAR
from bcos_diffusion.missing.observe import Observed


@dataclass(frozen=True)
class Judged:
    """An observed picture with the judge's word. drawn: of each named object, whether it is in the picture;
    areas: its area over the usual one in what was predicted at each moment, ``[C][n]``."""

    seen: Observed
    drawn: tuple[bool, ...]
    areas: tuple[tuple[float, ...], ...]


def judge_observed(segmenter: Segmenter, observed: Sequence[Observed]) -> list[Judged]:
    """Judge the pictures, and what was predicted of them on the way."""
    images = torch.stack([one.images for one in observed]).float() / 255  # [N, C, 3, H, W]
    moments = images.shape[1]
    captions = [one.words for one in observed for _ in range(moments)]
    found = judge(segmenter, images.flatten(0, 1), captions)
    judged = []
    for number, one in enumerate(observed):
        nouns = [SINGULAR[one.words[i]] for i in one.named]
        own = found[number * moments : (number + 1) * moments]
        areas = tuple(tuple(drawn.shares.get(noun, 0.0) for noun in nouns) for drawn in own)
        judged.append(Judged(one, tuple(noun in own[-1].present for noun in nouns), areas))
    return judged
