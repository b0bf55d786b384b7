"""The figure of PCA maps: rows are images, columns layers (or timesteps), the image beside (Revelio, Figures 11-12)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from bcos_diffusion.encoding import to_pil
from bcos_diffusion.features.pca import upsampled
from bcos_kernels.files import write_atomically

_SIDE = 1.35


def draw_pca(
    images: Tensor, maps: Mapping[str, Tensor], path: Path, explained: Mapping[str, Tensor] | None = None,
    title: str = "",
) -> None:  # fmt: skip
    """Draw the colours of each column beside the images, and write the figure as PNG.

    images: ``[N, 3, H, W]`` in [0, 1]; maps: by the name of the column, colours ``[N, 3, h, w]`` in [0, 1]
    (:meth:`~bcos_diffusion.features.pca.PrincipalComponents.colours`); explained: by the same names, the shares ``[3]``
    of variance that red, green and blue show, for the heads of the columns. Raises ValueError for no maps and for maps
    of another number of images, OSError naming a file that cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    tiles = _tiles(images, maps)
    rows, columns = len(images), 1 + len(maps)
    figure, grid = plt.subplots(
        rows, columns, figsize=(_SIDE * columns + 0.2, _SIDE * rows + 0.7), dpi=110, squeeze=False, layout="constrained"
    )
    if title:
        figure.suptitle(title, fontsize=10)
    for column, (name, pictures) in enumerate(tiles.items()):
        for axes, picture in zip(grid[:, column], pictures, strict=True):
            axes.imshow(np.asarray(to_pil(picture)), interpolation="nearest")
            axes.axis("off")
        grid[0, column].set_title(_head(name, (explained or {}).get(name)), fontsize=8)
    try:
        write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", metadata={"Software": None}))
    finally:
        plt.close(figure)


def _tiles(images: Tensor, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All columns at the size of the images, the images first."""
    if images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(f"images must be [N, 3, H, W] of at least one image, got {list(images.shape)}")
    if not maps:
        raise ValueError("maps must have at least one column")
    for name, colours in maps.items():
        if colours.ndim != 4 or colours.shape[:2] != images.shape[:2]:
            raise ValueError(f"maps of {name!r} must be [{len(images)}, 3, h, w], got {list(colours.shape)}")
    size = (images.shape[2], images.shape[3])
    return {"image": images} | {name: upsampled(colours, size) for name, colours in maps.items()}


def _head(name: str, explained: Tensor | None) -> str:
    """The name of a column, and below it what part of the variance its three colours show."""
    if explained is None:
        return name
    each = " + ".join(f"{100 * share:.0f}" for share in explained.tolist())
    return f"{name}\n{each} = {100 * float(explained.sum()):.0f}%"
