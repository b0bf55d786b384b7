"""Sweeps over layers, timesteps, conditionings and models: which represent what, in one report."""

from bcos_diffusion.features.sweep.plan import Cell, Model, SweepPlan
from bcos_diffusion.features.sweep.run import sweep

__all__ = ["Cell", "Model", "SweepPlan", "sweep"]
