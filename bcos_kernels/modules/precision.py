"""The dtype in which statistics and gates are computed."""

from __future__ import annotations

import torch
from torch import Tensor


def accumulate(x: Tensor) -> Tensor:
    """Return x in fp32 at least, so that fp16 squares do not overflow and results are rounded once."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
