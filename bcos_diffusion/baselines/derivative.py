"""Derivatives of images along what the network reads of a prompt, by forward-mode differentiation.

A reverse pass gives one number of the image by all inputs, a forward pass all numbers of the image along one
direction: a map for every word costs as many passes as there are words, and memory does not grow with the steps of a
run. These are derivatives of the network as it computes, factors that depend on its input included; explanation mode
is off.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bcos_diffusion.baselines.subject import Subject
from bcos_diffusion.networks.denoiser import Conditioning

AT_ONCE = 32
"""Directions that go through the network together."""


@torch.no_grad()
def along(subject: Subject, text: Conditioning, values: Tensor, keys: Tensor) -> Tensor:
    """J v for K directions: ``[K, N, 6, H, W]``, the derivative of a subject's images at ``text``.

    text: one row, where the derivative is taken; values, keys: ``[K, 1, L, D]``, directions.
    """

    def images(values: Tensor, keys: Tensor) -> Tensor:
        return subject.images(Conditioning(values, keys, text.mask))[0]

    def derivative(values: Tensor, keys: Tensor) -> Tensor:
        return torch.func.jvp(images, (text.values, text.keys), (values, keys))[1]

    if not len(values):
        return torch.zeros(0, *subject.image().shape, dtype=values.dtype, device=values.device)
    # Of the fused attention kernels some have no forward derivative; the plain one does.
    with sdpa_kernel(SDPBackend.MATH):
        return torch.func.vmap(derivative, chunk_size=AT_ONCE)(values, keys)
