"""What a latent's decoder direction draws: which pixels of the predicted x_0 it makes, by one pass forward.

The rest of the network after a layer is linear once its factors are held. Its Jacobian-vector product with the
direction at the layer is what the direction adds to the image, for an activation of 1 and for this x_t, t and prompt;
times an activation, it is what the latent added to this image. It is the adjoint of the attribution: ⟨g, J d⟩ =
⟨Jᵀ g, d⟩ for any weighing g of the image's pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bcos_diffusion.features.latents.attribution import check_latents, check_width
from bcos_diffusion.features.latents.step import Dictionary, Step, features_of, pass_on, read_at

AT_ONCE = 16


def draw_directions(step: Step, dictionary: Dictionary, latents: Sequence[int], position: int | None = None) -> Tensor:
    """The six channels that an activation of 1 of each latent adds to the predicted x_0: ``[J, 6, H, W]``.

    position: of a spatial code, row-major, where the direction is put; for a pooled code (None) it is put everywhere,
    so that the mean over positions moves by it. Raises ValueError as
    :func:`~bcos_diffusion.features.latents.attribution.attribute`.
    """
    chosen = check_latents(dictionary, latents)
    features = features_of(step)
    check_width(dictionary, features.shape[1])
    read_at(features, position)
    where = torch.zeros_like(features[:, :1])
    where[slice(None) if position is None else position] = 1.0
    return push(step, dictionary.decoder.detach()[chosen].to(features)[:, None] * where)


def push(step: Step, tangents: Tensor) -> Tensor:
    """Push tangents of the layer's output ``[J, P, D]`` on to the predicted x_0 ``[J, 6, H, W]``, a few at once."""
    return torch.cat([pass_on(step, some)[1] for some in tangents.split(AT_ONCE)])


def colours(contributions: Tensor) -> Tensor:
    """Which way six-channel contributions ``[..., 6, H, W]`` push the colour: rgb ``[..., 3, H, W]``, of either sign.

    Half the difference of each pair of channels. What a pair has in common is no colour: it is mass.
    """
    return (contributions[..., :3, :, :] - contributions[..., 3:, :, :]) / 2
