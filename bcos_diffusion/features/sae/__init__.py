"""k-sparse autoencoders of features: what a layer represents, as a dictionary of directions of which k are active.

    autoencoder = train(features, SAEConfig(), Path("sae"))
    values, indices = autoencoder.encode(features)
    evaluate(autoencoder, features).explained_variance
"""

from bcos_diffusion.features.sae.autoencoder import KSparseAutoencoder
from bcos_diffusion.features.sae.config import SAEConfig
from bcos_diffusion.features.sae.metrics import Metrics, evaluate
from bcos_diffusion.features.sae.source import Features, Rows
from bcos_diffusion.features.sae.training import train

__all__ = ["Features", "KSparseAutoencoder", "Metrics", "Rows", "SAEConfig", "evaluate", "train"]
