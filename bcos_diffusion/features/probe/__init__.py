"""Light classifiers on fixed features: how well a layer at a timestep tells classes apart (Revelio, section 3.3)."""

from bcos_diffusion.features.probe.accuracy import Accuracy, margin, wilson
from bcos_diffusion.features.probe.baselines import chance, majority
from bcos_diffusion.features.probe.diff_c import DiffC
from bcos_diffusion.features.probe.diff_c_training import PAPER, DiffCResult, Recipe, train_diff_c
from bcos_diffusion.features.probe.linear import LinearProbe, LinearResult, fit_linear
from bcos_diffusion.features.probe.splits import Split, stratified_split

__all__ = [
    "PAPER",
    "Accuracy",
    "DiffC",
    "DiffCResult",
    "LinearProbe",
    "LinearResult",
    "Recipe",
    "Split",
    "chance",
    "fit_linear",
    "majority",
    "margin",
    "stratified_split",
    "train_diff_c",
    "wilson",
]
