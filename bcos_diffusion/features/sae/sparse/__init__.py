"""Sums over the few active latents of each sample, without a dense matrix of activations."""

from bcos_diffusion.features.sae.sparse.op import row_products, scattered_rows, weighted_rows

__all__ = ["row_products", "scattered_rows", "weighted_rows"]
