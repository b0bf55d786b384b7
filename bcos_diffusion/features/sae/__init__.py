"""k-sparse autoencoders of features: what a layer represents, as a dictionary of directions of which k are active.

``train(features, SAEConfig(), folder)`` gives a :class:`KSparseAutoencoder`; its ``encode`` the active latents of
features ``[N, D]``, and :func:`evaluate` how much of them it explains.
"""

from bcos_diffusion.features.sae.autoencoder import KSparseAutoencoder
from bcos_diffusion.features.sae.config import SAEConfig
from bcos_diffusion.features.sae.metrics import Metrics, evaluate
from bcos_diffusion.features.sae.source import Features, Rows
from bcos_diffusion.features.sae.training import train

__all__ = ["Features", "KSparseAutoencoder", "Metrics", "Rows", "SAEConfig", "evaluate", "train"]
