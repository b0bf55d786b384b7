"""The k-sparse autoencoder (Makhzani and Frey 2013) as in Revelio, eq. 3-4, and Gao et al. 2024, §2.3."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from bcos_diffusion.features.sae.pick import pick
from bcos_diffusion.features.sae.sparse import row_products, weighted_rows
from bcos_diffusion.staging import staged
from bcos_kernels.files import read_json, read_tensors, write_json, write_tensors

FORMAT = "bcos_diffusion.sae/1"
EXPANSION = 64


class KSparseAutoencoder(nn.Module):
    """``z = ReLU(TopK(W_enc (x - b_pre) + b_enc))``, ``x̂ = W_decᵀ z + b_pre``: k of n latents for each sample.

    Parameters: ``encoder`` and ``decoder`` ``[n, d]``, whose rows belong to latents, those of the decoder of length 1;
    ``pre_bias`` ``[d]``; ``encoder_bias`` ``[n]``. At the start the encoder is the decoder, of random directions from
    ``seed``, and the biases are 0. dim: d; latents: n, by default 64 d; k: active latents, fewer where activations are
    not positive. Neither pass makes activations ``[N, n]`` whole, nor of a gradient of them. Raises ValueError.
    """

    def __init__(self, dim: int, latents: int | None = None, k: int = 32, seed: int = 0):
        super().__init__()
        latents = EXPANSION * dim if latents is None else latents
        if dim < 1 or latents < 1 or not 1 <= k <= latents:
            raise ValueError(f"dim, latents and k must be at least 1 and k at most latents, got {dim}, {latents}, {k}")
        self.dim, self.latents, self.k = dim, latents, k
        directions = torch.randn(latents, dim, generator=torch.Generator().manual_seed(seed))
        self.decoder = nn.Parameter(unit(directions))
        self.encoder = nn.Parameter(self.decoder.detach().clone())
        self.pre_bias = nn.Parameter(torch.zeros(dim))
        self.encoder_bias = nn.Parameter(torch.zeros(latents))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The active latents of features x ``[N, d]``: values ``[N, k]``, none negative, and indices, int64 ``[N, k]``.

        Differentiable by x and the parameters at the latents that are picked, whose order is not promised. x may have
        any floating dtype; the model's own is computed in.
        """
        self._check(x)
        centred = x.to(self.pre_bias.dtype) - self.pre_bias
        return self.values_at(centred, pick(centred, self.encoder, self.encoder_bias, self.k))

    def values_at(self, centred: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The activations of given latents ``[N, k]`` for ``x - b_pre``, with the indices again."""
        return (row_products(centred, indices, self.encoder) + self.encoder_bias[indices]).relu(), indices

    def decode(self, values: Tensor, indices: Tensor) -> Tensor:
        """The features ``[N, d]`` of active latents: values and indices ``[N, k]``, any k."""
        return weighted_rows(values, indices, self.decoder) + self.pre_bias

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction of x ``[N, d]``."""
        return self.decode(*self.encode(x))

    @torch.no_grad()
    def scale_(self, factor: float) -> KSparseAutoencoder:
        """Make it the autoencoder of ``factor * x``, in place: TopK and ReLU keep positive factors, so only biases do."""
        self.pre_bias *= factor
        self.encoder_bias *= factor
        return self

    def save(self, folder: Path) -> None:
        """Write ``autoencoder.json`` and ``autoencoder.safetensors``; the folder appears whole or not at all."""
        with staged(folder) as new:
            write_tensors(new / "autoencoder.safetensors", self.state_dict())
            shape = {"dim": self.dim, "latents": self.latents, "k": self.k}
            write_json(new / "autoencoder.json", {"format": FORMAT, **shape})

    @classmethod
    def load(cls, folder: Path) -> KSparseAutoencoder:
        """Read what :meth:`save` wrote. Raises FileNotFoundError, or ValueError with the file that is damaged."""
        path = Path(folder) / "autoencoder.json"
        config = read_json(path)
        if not isinstance(config, dict) or config.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is not an autoencoder of the format {FORMAT!r}")
        if config.keys() != {"dim", "latents", "k"} or not all(isinstance(v, int) for v in config.values()):
            raise ValueError(f"{path} must give dim, latents and k as whole numbers, got {config}")
        tensors = read_tensors(path.with_suffix(".safetensors"))
        with torch.device("meta"):
            found = cls(**config)
        try:
            # Copies, because sums depend in their last bit on how memory is aligned, and that of a file is anyhow.
            found.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, assign=True)
        except RuntimeError as error:
            detail = " ".join(str(error).split())[:300]
            raise ValueError(f"{path.with_suffix('.safetensors')} does not fit {path.name}: {detail}") from None
        return found.requires_grad_()

    def _check(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.dim or not x.is_floating_point():
            raise ValueError(f"features must be floating [N, {self.dim}], got {x.dtype} {list(x.shape)}")


def unit(rows: Tensor) -> Tensor:
    """Rows ``[n, d]`` of length 1; a row of zeros stays one."""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
