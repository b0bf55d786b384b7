"""From what a word contributed to six channels to one value per pixel, the same for every method that is compared."""

from __future__ import annotations

from torch import Tensor

from bcos_diffusion.encoding import pair_mean
from bcos_diffusion.explanation.relevance import mean_free

REDUCTIONS = ("mass", "mean_free", "norm", "colour", "contrast")
REDUCTION = "mean_free"
"""What a pixel's value is unless told otherwise."""


def check_reduction(kind: str) -> str:
    """Return ``kind``. Raises ValueError for an unknown one."""
    if kind not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {REDUCTIONS}, got {kind!r}")
    return kind


def pixel_values(contributions: Tensor, image: Tensor, kind: str = REDUCTION, null: Tensor | None = None) -> Tensor:
    """Reduce contributions ``[..., N, 6, H, W]`` to images ``[N, 6, H, W]`` to one value per pixel ``[..., N, H, W]``.

    kind: "mass", the sum of the channels (Eq. 8); "mean_free", the push from the image's mean colour towards the
    pixel's own; "contrast", the push from the image that no words give (``null``) towards this one; both are linear
    and signed; "norm", the L2 norm of the channels; "colour", that of the colour part (z_c - z_{c+3}) / 2, which
    complementary mass cannot reach. Raises ValueError for another kind, and for "contrast" without ``null``.
    """
    match check_reduction(kind):
        case "mass":
            return contributions.sum(-3)
        case "mean_free":
            return mean_free(contributions, image)
        case "norm":
            return contributions.norm(dim=-3)
        case "colour":
            return (contributions - pair_mean(contributions))[..., :3, :, :].norm(dim=-3)
    if null is None:
        raise ValueError("the reduction 'contrast' needs the image that no words give")
    return (contributions * (image - null)).sum(-3)
