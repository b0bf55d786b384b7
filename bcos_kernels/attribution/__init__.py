"""Explain classifiers: contributions by class, RGBA pictures, the grid pointing game, captum and Quantus."""

from bcos_kernels.attribution.explain import Explanation, explain
from bcos_kernels.attribution.plot import contribution_image, plot_contribution_map
from bcos_kernels.attribution.png import write_png
from bcos_kernels.attribution.pointing_game import PointingGame, pointing_game
from bcos_kernels.attribution.rgba import rgba_image
from bcos_kernels.attribution.switches import explaining

__all__ = [
    "Explanation",
    "PointingGame",
    "contribution_image",
    "explain",
    "explaining",
    "plot_contribution_map",
    "pointing_game",
    "rgba_image",
    "write_png",
]
