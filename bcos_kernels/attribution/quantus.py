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
    device: torch.device | str | None = None,
) -> NDArray[Any]:
    """Contribution maps as Quantus asks for them: pass this function as ``explain_func`` to its metrics.

    inputs: ``[N, C, H, W]``; targets: one class a sample, integers ``[N]``. Runs on ``device``, or where the model's
    parameters are, in their dtype. Returns ``[N, 1, H, W]``, float32 at least. Raises ValueError as ``explain``.
    """
    parameter = next(model.parameters(), torch.empty(0))
    x = torch.as_tensor(np.asarray(inputs)).to(device or parameter.device, parameter.dtype)
    classes = torch.as_tensor(np.asarray(targets)).long().reshape(-1).to(x.device)
    return explain(model, x, classes, images=False).contribution_maps[:, None].cpu().numpy()  # type: ignore[no-any-return]
