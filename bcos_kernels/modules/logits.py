"""The layer that ends a B-cos classifier: temperature and a constant, as in the ``bcos`` library."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bcos_kernels.mode import primal


class LogitLayer(nn.Module):
    """``logits / logit_temperature + logit_bias`` on a tensor of any shape; None leaves a part out.

    Explanations name the constant "logit_bias". In a stacked batch only the first part, which is a value and not a
    tangent, gets it.
    """

    def __init__(self, logit_temperature: float | None = None, logit_bias: float | None = None):
        super().__init__()
        self.logit_bias, self.logit_temperature = logit_bias, logit_temperature

    def forward(self, in_tensor: Tensor) -> Tensor:
        if self.logit_temperature is not None:
            in_tensor = in_tensor / self.logit_temperature
        if self.logit_bias is None:
            return in_tensor
        first = primal(in_tensor)
        if len(first) == len(in_tensor):
            return in_tensor + self.logit_bias
        return torch.cat([first + self.logit_bias, in_tensor[len(first) :]])

    def extra_repr(self) -> str:
        """Constructor arguments."""
        return f"logit_temperature={self.logit_temperature}, logit_bias={self.logit_bias}"
