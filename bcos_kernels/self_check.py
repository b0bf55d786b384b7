"""One check of what runs here against the reference: values and gradients of both layers, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from bcos_kernels import functional
from bcos_kernels.ops.bcos_conv2d.reference import bcos_conv2d
from bcos_kernels.ops.bcos_linear.reference import bcos_linear

TOLERANCE = 1e-10


def self_check(device: str = "cpu") -> dict[str, float]:
    """Largest relative error of each op, in outputs and in gradients; each should be below ``TOLERANCE``."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device).requires_grad_()

    image, filters = random(2, 6, 9, 8), random(8, 3, 3, 3)
    vectors, rows = random(5, 7), random(6, 7)
    errors = {}
    for b in (1.5, 2.0):
        options = {"b": b, "max_out": 2, "padding": 1, "stride": 2, "groups": 2}
        errors[f"bcos_conv2d B={b}"] = _disagreement(
            functional.bcos_conv2d(image, filters, **options),  # type: ignore[arg-type]
            bcos_conv2d(image, filters, **options),  # type: ignore[arg-type]
            [image, filters],
        )
        errors[f"bcos_linear B={b}"] = _disagreement(
            functional.bcos_linear(vectors, rows, b), bcos_linear(vectors, rows, b), [vectors, rows]
        )
    return errors


def _disagreement(ours: Tensor, theirs: Tensor, inputs: list[Tensor]) -> float:
    upstream = torch.cos(torch.arange(ours.numel(), dtype=ours.dtype, device=ours.device)).view_as(ours)
    found = [ours.detach(), *torch.autograd.grad(ours, inputs, upstream)]
    expected = [theirs.detach(), *torch.autograd.grad(theirs, inputs, upstream)]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True))
