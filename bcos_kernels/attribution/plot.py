"""Contribution maps in diverging colours: red for what speaks for a class, blue for what speaks against it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage


def plot_contribution_map(
    contribution_map: Tensor | NDArray[np.floating],
    ax: Axes | None = None,
    vrange: float | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    hide_ticks: bool = True,
    cmap: str = "bwr",
    percentile: float = 99.5,
) -> tuple[Axes, AxesImage]:
    """Plot one map ``[H, W]`` on ``ax`` or a new figure, as the function of this name in the ``bcos`` library does.

    Sizes beyond ``percentile`` of all sizes are cut there; colours range over [-vrange, vrange], by default to the
    largest size that is left, unless ``vmin`` or ``vmax`` say otherwise. Returns the axes and the image on them.
    Raises ValueError for anything but a map ``[H, W]`` of finite numbers.
    """
    values, largest = _cut(contribution_map, percentile)
    if ax is None:
        from matplotlib import pyplot as plt

        ax = plt.subplots(1)[1]
    reach = largest if vrange is None else vrange
    image = ax.imshow(
        values, cmap=cmap, vmin=-reach if vmin is None else vmin, vmax=reach if vmax is None else vmax
    )  # fmt: skip
    if hide_ticks:
        ax.set_xticks([])
        ax.set_yticks([])
    return ax, image


def contribution_image(
    contribution_map: Tensor | NDArray[np.floating],
    vrange: float | None = None,
    percentile: float = 99.5,
    cmap: str = "bwr",
) -> Tensor:
    """The pixels of :func:`plot_contribution_map` without axes: ``[H, W]`` to RGB ``[3, H, W]`` in [0, 1]."""
    import matplotlib

    values, largest = _cut(contribution_map, percentile)
    reach = largest if vrange is None else vrange
    colours = matplotlib.colormaps[cmap](np.clip(0.5 + values / (2 * reach), 0, 1))[..., :3]
    return torch.from_numpy(colours).permute(2, 0, 1).float()


def _cut(contribution_map: Tensor | NDArray[np.floating], percentile: float) -> tuple[NDArray[np.float64], float]:
    """The map cut at ``percentile`` of its sizes, and its largest size; 1 for a map of zeros, which is then white."""
    if isinstance(contribution_map, Tensor):
        contribution_map = contribution_map.detach().double().cpu().numpy()
    values = np.asarray(contribution_map, np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"a contribution map must be [H, W] of finite numbers, got {list(values.shape)}")
    limit = np.percentile(np.abs(values), percentile)
    values = np.clip(values, -limit, limit)
    return values, float(np.abs(values).max()) or 1.0
