"""Relevance of a part of an image: its share of the mass (Eq. 8), and how far it pushes each pixel's colour."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
