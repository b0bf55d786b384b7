"""Which backend runs an op, and why the others do not.

``BCOS_BACKEND=auto|cpu|reference`` forces one. Device backends plug in here as further entries.
"""

from __future__ import annotations

import os
from types import ModuleType

import torch
from torch import Tensor

from bcos_kernels.ops.epilogue import cpu, reference

SWITCH = "BCOS_BACKEND"
BACKENDS: dict[str, ModuleType] = {"cpu": cpu, "reference": reference}
"""Name and epilogue of every backend, fastest first; the reference takes anything."""


def refusals(*tensors: Tensor) -> dict[str, str]:
    """Why each backend that cannot take these tensors refuses. Raises ValueError on a bad ``BCOS_BACKEND``."""
    wanted = os.environ.get(SWITCH, "auto")
    if wanted not in ("auto", *BACKENDS):
        raise ValueError(f"{SWITCH} must be auto, {', '.join(BACKENDS)}; got {wanted!r}")
    found: dict[str, str] = {}
    for name, backend in BACKENDS.items():
        if wanted not in ("auto", name):
            found[name] = f"{SWITCH}={wanted}"
        elif name == "reference":
            continue
        elif torch.compiler.is_compiling():
            found[name] = "torch.compile fuses the reference itself"
        elif torch._C._functorch.peek_interpreter_stack() is not None:
            found[name] = "under a torch.func transform tensors have no memory of their own"
        elif reason := backend.supports(*tensors):
            found[name] = reason
    return found


def choose(*tensors: Tensor) -> str:
    """The name of the backend that runs for these tensors. Raises ValueError when a forced one cannot."""
    refused = refusals(*tensors)
    for name in BACKENDS:
        if name not in refused:
            return name
    raise ValueError(f"no backend can run: {'; '.join(f'{k}: {v}' for k, v in refused.items())}")


def epilogue(*tensors: Tensor) -> ModuleType:
    """The functions of ``ops/epilogue`` in the backend that runs for these tensors."""
    return BACKENDS[choose(*tensors)]
