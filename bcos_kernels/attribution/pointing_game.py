"""The grid pointing game: does the explanation of a class lie in the cell that shows it?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bcos_kernels.attribution.explain import explain
from bcos_kernels.attribution.grids import cell_shares, draw_grids, shrink, stitch

PROBABILITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softmax": lambda logits: logits.softmax(1),
}


@dataclass(frozen=True, eq=False)
class PointingGame:
    """Outcome of the grid pointing game on G grids of ``grid * grid`` cells, in the order of rows.

    shares: ``[G, cells]`` in [0, 1], the share of positive contributions to a cell's class that lies in the cell;
    classes, images: ``[G, cells]``, the class and the number of the image in each cell; accuracy: share of all images
    that were classified rightly; confident: how many of them were so with enough confidence to take part.
    """

    grid: int
    shares: Tensor
    classes: Tensor
    images: Tensor
    accuracy: float
    confident: int

    @property
    def score(self) -> float:
        """The mean share: 1 is perfect, ``chance`` is what a map that knows nothing reaches."""
        return float(self.shares.mean())

    @property
    def chance(self) -> float:
        """One over the number of cells."""
        return 1 / self.grid**2

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready values."""
        quartiles = np.percentile(self.shares.numpy(), [25, 50, 75]).tolist()
        cells = zip(self.images.tolist(), self.classes.tolist(), self.shares.tolist(), strict=True)
        return {
            "score": self.score,
            "chance": self.chance,
            "percentiles": dict(zip(("25", "50", "75"), quartiles, strict=True)),
            "grid": self.grid,
            "grids": [{"images": i, "classes": c, "shares": s} for i, c, s in cells],
            "accuracy": self.accuracy,
            "confident_images": self.confident,
        }


def pointing_game(
    model: nn.Module,
    images: Tensor | Sequence[Tensor],
    labels: Tensor | Sequence[int],
    grid: int = 3,
    *,
    count: int = 500,
    confidence: float = 0.5,
    probability: str = "sigmoid",
    smooth: int = 0,
    rescale: bool = False,
    batch_size: int = 32,
    seed: int = 0,
    advance: Callable[[int], object] = lambda images: None,
) -> PointingGame:
    """Play the grid pointing game of the B-cos papers: explain each class of a grid of images of different classes.

    images: ``[M, C, H, W]`` or a sequence of ``[C, H, W]``, encoded as the model takes them; labels: their M classes.
    Those that are classified rightly with a ``probability`` ("sigmoid" or "softmax" of the logits) above
    ``confidence`` take part, each once, the most confident first. Up to ``count`` grids of ``grid * grid`` are
    stitched; the score of a cell is the share of the positive contributions to its class that lies in it. smooth: side
    of the averaging window, odd or 0 (B-cos-v2 reports 15 at 224 pixels). rescale: shrink images so that a grid has
    the size of one, for models of a fixed size. batch_size: images held by the model at once; a grid is one at least.
    advance: told how many images are done. A model with a batch must be in evaluation. Raises ValueError, also when
    too few classes are known well enough for one grid. Source: Böhle et al. 2021, "Convolutional Dynamic Alignment
    Networks", section 4; the protocol is that of the B-cos-v2 code.
    """
    _check(images, labels, grid, count, probability, smooth, batch_size)
    truth = torch.as_tensor(labels, dtype=torch.int64).cpu()
    predicted, sure = _classify(model, images, truth, probability, batch_size, advance)
    right = predicted == truth
    known = (right & (sure > confidence)).nonzero().flatten()
    ranked: dict[int, list[int]] = {}
    for number in known[sure[known].argsort(descending=True, stable=True)].tolist():
        ranked.setdefault(int(truth[number]), []).append(number)
    cells = grid * grid
    chosen = torch.tensor(draw_grids(ranked, cells, count, seed))  # [G, cells]
    if not len(chosen):
        raise ValueError(
            f"a grid needs images of {cells} classes that are classified rightly with a confidence above {confidence}; "
            f"there are such images of {len(ranked)} classes ({len(known)} of {len(truth)} images)"
        )
    shares = []
    for some in chosen.split(max(1, batch_size // cells)):
        tiles = torch.stack([torch.stack([images[i] for i in row]) for row in some.tolist()])
        if rescale:
            tiles = shrink(tiles.flatten(0, 1), grid).unflatten(0, (len(some), cells))
        shares.append(_play(model, stitch(_placed(model, tiles), grid), truth[some], grid, smooth))
        advance(some.numel())
    return PointingGame(grid, torch.cat(shares), truth[chosen], chosen, float(right.double().mean()), len(known))


def _check(
    images: Tensor | Sequence[Tensor],
    labels: Tensor | Sequence[int],
    grid: int,
    count: int,
    probability: str,
    smooth: int,
    batch_size: int,
) -> None:
    if len(images) != len(labels) or not len(images):
        raise ValueError(f"images and labels must be as many, and some, got {len(images)} and {len(labels)}")
    if grid < 2:
        raise ValueError(f"grid must be at least 2, got {grid}")
    if count < 1 or batch_size < 1:
        raise ValueError(f"count and batch_size must be at least 1, got {count} and {batch_size}")
    if probability not in PROBABILITIES:
        raise ValueError(f"probability must be one of {', '.join(PROBABILITIES)}, got {probability!r}")
    if smooth < 0 or (smooth and smooth % 2 == 0):
        raise ValueError(f"smooth must be 0 or an odd number of pixels, got {smooth}")


@torch.no_grad()
def _classify(
    model: nn.Module,
    images: Tensor | Sequence[Tensor],
    truth: Tensor,
    probability: str,
    batch_size: int,
    advance: Callable[[int], object],
) -> tuple[Tensor, Tensor]:
    """The class predicted for each image and its probability, ``[M]`` each."""
    predicted, sure = [], []
    for start in range(0, len(truth), batch_size):
        batch = [images[i] for i in range(start, min(start + batch_size, len(truth)))]
        if len({image.shape for image in batch}) > 1 or batch[0].ndim != 3:
            raise ValueError(f"images must all be [C, H, W] of one size, got {[list(i.shape) for i in batch][:5]}")
        logits = model(_placed(model, torch.stack(batch)))
        if logits.ndim != 2 or len(logits) != len(batch):
            raise ValueError(f"the model must return logits [{len(batch)}, classes], got {list(logits.shape)}")
        if not 0 <= int(truth.min()) <= int(truth.max()) < logits.shape[1]:
            raise ValueError(f"labels must be in [0, {logits.shape[1] - 1}], the classes of the model, got"
                             f" {int(truth.min())} to {int(truth.max())}")  # fmt: skip
        best, chosen = PROBABILITIES[probability](logits.double()).max(1)
        predicted.append(chosen.cpu())
        sure.append(best.cpu())
        advance(len(batch))
    return torch.cat(predicted), torch.cat(sure)


def _play(model: nn.Module, grids: Tensor, classes: Tensor, grid: int, smooth: int) -> Tensor:
    """The share of each cell's class in its own cell, ``[G, cells]``. grids: ``[G, C, H, W]``; classes: as shares."""
    maps = explain(model, grids, classes.T.to(grids.device), images=False).contribution_maps  # [cells, G, H, W]
    return cell_shares(maps, grid, smooth).diagonal(dim1=0, dim2=2).cpu()


def _placed(model: nn.Module, images: Tensor) -> Tensor:
    """Images on the device and in the dtype of the model."""
    first = next(model.parameters(), None)
    return images if first is None else images.to(first.device, first.dtype)
