"""Gradient methods: what each word's embedding does to every pixel, to first order.

The input of a word is all that the U-Net reads of it: its values and its keys, at its tokens. Words that the U-Net
does not read have maps of exactly 0, also where they change how other words are read.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bcos_diffusion.baselines.attribution import Attributed
from bcos_diffusion.baselines.derivative import along
from bcos_diffusion.baselines.subject import OfSubject, Subject
from bcos_diffusion.explanation.reduction import REDUCTION, check_reduction
from bcos_diffusion.networks.denoiser import Conditioning


class _OfReadWords(OfSubject):
    """Derivatives of a subject's images along the words that the U-Net reads, through the whole run if it is one."""

    def attribute(self, subject: Subject) -> Attributed:
        """Maps ``[words, N, H, W]`` of a subject, 0 for words that are not read."""
        read = subject.positions.any(1)
        found = self._attribute(subject, subject.positions[read])
        maps = found.maps.new_zeros(len(read), *found.maps.shape[1:])
        scores = found.scores.new_zeros(len(read), *found.scores.shape[1:])
        maps[read], scores[read] = found.maps, found.scores
        return Attributed(maps, scores)

    @abstractmethod
    def _attribute(self, subject: Subject, positions: Tensor) -> Attributed:
        """Maps and scores of the words at ``positions`` ``[K, L]`` bool."""


@dataclass(frozen=True)
class InputGradient(_OfReadWords):
    """Input × gradient: the derivative of every pixel along a word's embedding (Shrikumar et al. 2016).

    reduction: from six channels to a pixel's value, as for the exact method. Sums of linear reductions over pixels are
    what captum's ``InputXGradient`` gives for the same sum. Scores are those of ``Attributed.of_contributions``.
    """

    reduction: str = REDUCTION
    name: str = "input_gradient"
    label: str = "input × gradient"

    def __post_init__(self) -> None:
        check_reduction(self.reduction)

    def _attribute(self, subject: Subject, positions: Tensor) -> Attributed:
        return _reduced(subject, along(subject, subject.text, *_embeddings(subject.text, positions)), self.reduction)


@dataclass(frozen=True)
class ValueGradient(InputGradient):
    """Value × gradient: the derivative of every pixel along a word's value alone, its keys held as they are.

    To first order, what fades with a word that goes on steering but says less. Contributions hold all that depends on
    the data; here the factors |cos|^(B-1) follow, so that parts do not sum to the image and rank better what would
    change. reduction and scores: as for :class:`InputGradient`.
    """

    name: str = "value_gradient"
    label: str = "value × gradient"

    def _attribute(self, subject: Subject, positions: Tensor) -> Attributed:
        values, keys = _embeddings(subject.text, positions)
        return _reduced(subject, along(subject, subject.text, values, torch.zeros_like(keys)), self.reduction)


@dataclass(frozen=True)
class IntegratedGradients(_OfReadWords):
    """Integrated gradients on the straight path from values and keys of 0 (Sundararajan et al. 2017).

    steps: nodes of Gauss-Legendre quadrature, as captum's default has them. All words sum to what the image changes
    along the path. reduction and score: as for :class:`InputGradient`.
    """

    steps: int = 20
    reduction: str = REDUCTION
    name: str = "integrated_gradients"
    label: str = "integrated gradients"

    def __post_init__(self) -> None:
        check_reduction(self.reduction)
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")

    def _attribute(self, subject: Subject, positions: Tensor) -> Attributed:
        text = subject.text
        directions = _embeddings(text, positions)
        nodes, weights = np.polynomial.legendre.leggauss(self.steps)  # on [-1, 1]
        total: Tensor | float = 0.0
        for share, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            here = Conditioning(text.values * float(share), text.keys * float(share), text.mask)
            total = total + float(weight) * along(subject, here, *directions)
        assert isinstance(total, Tensor)
        return _reduced(subject, total, self.reduction)


@dataclass(frozen=True)
class Gradient(_OfReadWords):
    """|Gradient|: the Frobenius norm of the Jacobian of a pixel's channels by a word's embedding.

    Its square is estimated without bias as the mean of ‖J z‖² over Rademacher vectors z (Hutchinson 1990). probes: how
    many; seed: of the vectors, the same for every word at its tokens. A score estimates the norm of the whole Jacobian.
    """

    probes: int = 16
    seed: int = 0
    name: str = "gradient"
    label: str = "|gradient|"

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise ValueError(f"probes must be at least 1, got {self.probes}")

    def _attribute(self, subject: Subject, positions: Tensor) -> Attributed:
        text = subject.text
        generator = torch.Generator().manual_seed(self.seed)
        shape = (2, self.probes, 1, *text.values.shape)  # values and keys, [P, 1, 1, L, D]
        signs = torch.randint(2, shape, generator=generator).to(text.values) * 2 - 1
        tokens = positions[:, None, :, None].to(text.values)  # [K, 1, L, 1]
        values, keys = ((part * tokens).flatten(0, 1) for part in signs)
        pushed = along(subject, text, values, keys).unflatten(0, (self.probes, len(positions)))
        return Attributed.of_maps(pushed.pow(2).sum(-3).mean(0).sqrt())


def _embeddings(text: Conditioning, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Values and keys of each word alone. positions: ``[K, L]`` bool; returns ``[K, 1, L, D]`` twice."""
    tokens = positions[:, None, :, None].to(text.values.dtype)
    return text.values * tokens, text.keys * tokens


def _reduced(subject: Subject, contributions: Tensor, reduction: str) -> Attributed:
    return Attributed.of_contributions(contributions, subject.image(), subject.null_image(), reduction)
