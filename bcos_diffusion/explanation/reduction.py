"""From what a word contributed to six channels to one value per pixel, the same for every method that is compared."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from bcos_diffusion.encoding import pair_mean
from bcos_diffusion.explanation.relevance import mean_free

REDUCTIONS = ("own_colour", "mass", "mean_free", "norm", "colour", "contrast", "change")
REDUCTION = "own_colour"
"""What a pixel's value is unless told otherwise; docs/evaluation.md has the others beside it."""

TINT_OF_CHANGE = 0.3
"""The quantile of a word's map that :func:`change` takes for what it gives to the whole picture."""

_TINT = 0.1
_SHARPNESS = 4
_WINDOW = 3


def check_reduction(kind: str) -> str:
    """Return ``kind``. Raises ValueError for an unknown one."""
    if kind not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {REDUCTIONS}, got {kind!r}")
    return kind


def pixel_values(contributions: Tensor, image: Tensor, kind: str = REDUCTION, null: Tensor | None = None) -> Tensor:
    """Reduce contributions ``[words, N, 6, H, W]`` to images ``[N, 6, H, W]`` to one value per pixel.

    Returns ``[words, N, H, W]``. kind: "mass", the sum of the channels (Eq. 8); "mean_free", the push from the image's
    mean colour towards the pixel's own; "contrast", the push from the image that no words give (``null``) towards this
    one; both are linear and signed; "norm", the L2 norm of the channels; "colour", that of the colour part
    (z_c - z_{c+3}) / 2, which complementary mass cannot reach; "own_colour", what of it belongs to this word rather
    than to the others (:func:`own_colour`); "change", what of all that words change is this word's (:func:`change`).
    Raises ValueError for another kind, and for "contrast" and "change" without ``null``.
    """
    match check_reduction(kind):
        case "mass":
            return contributions.sum(-3)
        case "mean_free":
            return mean_free(contributions, image)
        case "norm":
            return contributions.norm(dim=-3)
        case "colour":
            return colour(contributions)
        case "own_colour":
            return own_colour(contributions)
    if null is None:
        raise ValueError(f"the reduction {kind!r} needs the image that no words give")
    return change(contributions, image, null) if kind == "change" else (contributions * (image - null)).sum(-3)


def colour(contributions: Tensor) -> Tensor:
    """The length of the colour part (z_c - z_{c+3}) / 2: ``[..., 6, H, W]`` to ``[..., H, W]``."""
    return (contributions - pair_mean(contributions))[..., :3, :, :].norm(dim=-3)


def own_colour(contributions: Tensor) -> Tensor:
    """How much colour each word gives to each pixel and its neighbours, where no other word gives more.

    With a the colour of all words beyond their tints ``[words, N, H, W]``, the first deciles of their maps: each pixel
    goes to the words by a⁴ / Σ a⁴; the mean over 3 × 3 pixels of a · share is the value. Chosen on validation scenes
    (docs/evaluation.md). contributions: ``[words, N, 6, H, W]``.
    """
    a = _beyond_tint(contributions, _TINT)
    owned = a * _shares(a.pow(_SHARPNESS))
    flat = owned.flatten(0, -3)[:, None]  # [words * N, 1, H, W]
    return F.avg_pool2d(flat, _WINDOW, 1, _WINDOW // 2, count_include_pad=False).view(owned.shape)


def change(contributions: Tensor, image: Tensor, null: Tensor, tint: float = TINT_OF_CHANGE) -> Tensor:
    """How far each pixel is from the image that no words give, dealt out to the words.

    A pixel goes to the words by a / Σ a, a the colour of each beyond its tint. Chosen on validation scenes
    (docs/evaluation.md). contributions: ``[words, N, 6, H, W]``; image, null: ``[N, 6, H, W]``; tint: a quantile.
    """
    return _shares(_beyond_tint(contributions, tint)) * (image - null).float().norm(dim=-3)


def _beyond_tint(contributions: Tensor, tint: float) -> Tensor:
    """The colour that words give beyond a quantile of what each gives to the picture: not what it gives everywhere."""
    g = colour(contributions).float()
    return (g - g.flatten(-2).quantile(tint, -1)[..., None, None]).clamp(min=0) if len(g) else g


def _shares(of_words: Tensor) -> Tensor:
    """The share of each word ``[words, ...]`` in the sum of all; 0 where no word has any."""
    return of_words / of_words.sum(0, keepdim=True).clamp(min=1e-20)
