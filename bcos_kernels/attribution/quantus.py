"""B-cos explanations for Quantus, whose metrics call a function on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bcos_kernels.attribution.explain import explain


def explain_func(
    model: nn.Module,
    inputs: NDArray[Any],
    targets: NDArray[Any],
    *,
    channels: bool = False,
    device: torch.device | str | None = None,
) -> NDArray[Any]:
    """Contribution maps as Quantus asks for them: pass this function as ``explain_func`` to its metrics.

    inputs: ``[N, C, H, W]``; targets: one class a sample, integers ``[N]``. Returns ``[N, 1, H, W]``, what each pixel
    gave, or with ``channels`` ``[N, C, H, W]``, what each channel of it gave, float32 at least: the latter for metrics
    that change single channels. Runs on ``device``, or where the model's parameters are, in their dtype. Raises
    ValueError as ``explain``. Source: Hedström et al. 2023, "Quantus".
    """
    parameter = next(model.parameters(), torch.empty(0))
    x = torch.as_tensor(np.asarray(inputs)).to(device or parameter.device, parameter.dtype)
    classes = torch.as_tensor(np.asarray(targets)).long().reshape(-1).to(x.device)
    found = explain(model, x, classes, weights=channels, images=False)
    maps = found.contribution_maps[:, None]
    if found.weights is not None:
        maps = x.to(maps.dtype) * found.weights.to(maps.dtype)
    return maps.cpu().numpy()  # type: ignore[no-any-return]
