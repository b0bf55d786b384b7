"""torch's attention, for every type at the price of the best of its kernels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_NARROW = (torch.bfloat16, torch.float16)


def sdpa(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, scale: float | None = None) -> Tensor:
    """Softmax attention; narrow types are widened to fp32 on CPUs, where torch's own kernels for them are slow.

    Shapes and types as for ``torch.nn.functional.scaled_dot_product_attention``, of which ``visible`` is the mask.
    """
    if value.device.type != "cpu" or value.dtype not in _NARROW:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=scale)
    with torch.autocast("cpu", enabled=False):
        wide = query.float(), key.float(), value.float()
        return F.scaled_dot_product_attention(*wide, attn_mask=visible, scale=scale).to(value.dtype)
