"""``bcos-diffusion features NAME``: what layers represent; each command is in the file of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bcos_diffusion.features.commands.explain import explain
from bcos_diffusion.features.commands.extract import extract
from bcos_diffusion.features.commands.latents import latents
from bcos_diffusion.features.commands.layers import layers
from bcos_diffusion.features.commands.pca import pca
from bcos_diffusion.features.commands.probe import probe
from bcos_diffusion.features.commands.sae import sae
from bcos_diffusion.features.commands.sweep import sweep

DESCRIPTION = "What a layer of a diffusion model represents at a timestep; without a model, of the one in the package."

COMMANDS: dict[str, Callable[..., Any]] = {
    "layers": layers,
    "extract": extract,
    "sae": sae,
    "latents": latents,
    "explain": explain,
    "probe": probe,
    "pca": pca,
    "sweep": sweep,
}
