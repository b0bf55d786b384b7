"""What tells, in the contributions of a prompt's words, whether the object of each was drawn.

A word's contribution has a mass, which is mostly brightness of the whole canvas, and a colour, (z_c − z_{c+3}) / 2,
which says how the word pushes each pixel. An object that is drawn has somewhere a window of an object's size in which
its word pushes colours hard and other objects' words do not. All numbers are on the scale of the picture: no map is
divided by its own maximum, which would erase the very signal.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from bcos_diffusion.explanation.relevance import relevance
from bcos_diffusion.objective import colour_part

WINDOW_NAMES = ("objects", "share", "lead", "push")
"""How many objects the prompt names; the largest share of the objects' energy in a window that is the word's; by how
much (root of energy) the word leads there where it is strongest; and how strong it is there, as a logarithm."""
NAMES = (*WINDOW_NAMES, "mass")
"""The same, and the word's absolute share of the mass (Eq. 8): what of it is not the object's tints the canvas."""

# Sides of windows as shares of the picture: an object among several, and its surroundings.
_WINDOW = 0.34
_SURROUNDINGS = 0.53
# Energies (mean squared change of colours in [0, 1]) below these are nothing that one would see.
_NO_SHARE = 0.01
_TINY = 1e-6


def object_features(maps: Tensor, named: Sequence[int]) -> Tensor:
    """The :data:`NAMES` of each object word of a prompt: ``[objects, 5]``, float64 on the CPU.

    maps: contributions ``[words, 6, H, W]`` to an image or to a predicted x_0; named: the words that name objects.
    """
    windows = window_features(energies(colour_part(maps[list(named)])), _NO_SHARE)
    mass = torch.tensor([absolute for _, absolute in relevance(list(maps))], dtype=torch.float64)
    return torch.cat([windows, mass[list(named), None]], dim=1)


def window_features(windows: Tensor, no_share: float) -> Tensor:
    """The :data:`WINDOW_NAMES` of words by the energy ``[objects, H, W]`` around each pixel: ``[objects, 4]``.

    no_share: an energy that is little, so that a word has no share where nothing is drawn.
    """
    total = windows.sum(0)
    share = (windows / (total + no_share)).flatten(1).amax(1)
    push, place = windows.flatten(1).max(1)
    roots = windows.flatten(1).sqrt()[:, place]  # [objects, the place of each]
    own = roots.diagonal()
    others = roots.masked_fill(torch.eye(len(roots), dtype=torch.bool), 0).amax(0)
    count = torch.full_like(push, len(windows))
    return torch.stack([count, share, own - others, (push + _TINY).log()], dim=1)


def energies(maps: Tensor) -> Tensor:
    """How strongly maps ``[n, C, H, W]`` stand out around each pixel: ``[n, H, W]``, float64 on the CPU.

    The mean over a window of the square of a map, less the map's mean over the surroundings: a word that tints the
    whole canvas alike draws no object.
    """
    maps = maps.detach().cpu().double()
    contrast = maps - _mean(maps, _SURROUNDINGS)
    return _mean(contrast.pow(2).sum(1, keepdim=True), _WINDOW)[:, 0]


def colour_share(maps: Tensor, word: int) -> float:
    """The share of the border of the picture, most of which is background, where a word gives the most mass.

    maps: contributions of all words ``[words, 6, H, W]``; word: which of them.
    """
    most = maps.sum(1).argmax(0)  # [H, W]
    border = torch.cat([most[0], most[-1], most[1:-1, 0], most[1:-1, -1]])
    return float((border == word).double().mean())


def _mean(x: Tensor, share: float) -> Tensor:
    """The mean over a square window around each pixel, of what of it is inside. x: ``[n, C, H, W]``."""
    side = 2 * round(share * min(x.shape[-2:]) / 2) + 1
    return F.avg_pool2d(x, side, 1, side // 2, count_include_pad=False)
