"""Which backend runs an op, and why the others do not.

``BCOS_BACKEND=auto|cpu|triton|cuda|reference``, read when the package is imported, forces one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd import forward_ad

from bcos_kernels.ops.epilogue import cpu, cuda, reference, triton
from bcos_kernels.ops.norms import cpu as norms_cpu
from bcos_kernels.ops.norms import reference as norms_reference
from bcos_kernels.ops.norms import triton as norms_triton

SWITCH = "BCOS_BACKEND"
Backends = Mapping[str, ModuleType]
BACKENDS: Backends = {"cpu": cpu, "triton": triton, "cuda": cuda, "reference": reference}
"""Name and epilogue of every backend, in the order in which they are asked; the reference takes anything."""
NORMS: Backends = {"cpu": norms_cpu, "triton": norms_triton, "reference": norms_reference}
"""The norms of the backends that have some, which take what its epilogue takes."""


wanted = os.environ.get(SWITCH, "auto")
"""The backend that is forced, or ``auto``; here, because to ask the environment again costs more than a kernel."""


def refusals(*tensors: Tensor) -> dict[str, str]:
    """Why each backend that cannot take these tensors refuses. Raises ValueError on a bad ``BCOS_BACKEND``."""
    _check_wanted()
    opaque = transforms() or _not_plain(*tensors)
    reasons = {name: _refusal(name, wanted, opaque, tensors) for name in BACKENDS}
    return {name: reason for name, reason in reasons.items() if reason}


def _check_wanted() -> None:
    if wanted not in BACKENDS and wanted != "auto":
        raise ValueError(f"{SWITCH} must be auto, {', '.join(BACKENDS)}; got {wanted!r}")


def _refusal(name: str, forced: str, opaque: str | None, tensors: tuple[Tensor, ...]) -> str | None:
    if forced not in ("auto", name):
        return f"{SWITCH}={forced}"
    if name == "reference":
        return None
    return opaque or BACKENDS[name].supports(*tensors)  # type: ignore[no-any-return]


def transforms() -> str | None:
    """Why torch is to see through every operation here, so that no hand-written derivative may run; None if not."""
    if torch._C._are_functorch_transforms_active():
        return "a torch.func transform batches and differentiates the reference itself"
    if forward_ad._current_level >= 0 and torch.is_grad_enabled():
        return "forward-mode differentiation of a backward pass goes through the reference"
    return None


def traces() -> bool:
    """Whether plain operations are to run where kernels are no operators: in a transform, and in torch.compile."""
    return torch.compiler.is_compiling() or transforms() is not None


def _not_plain(*tensors: Tensor) -> str | None:
    """Why the memory of these tensors is not all there is to them: kernels read nothing else."""
    for tensor in tensors:
        if type(tensor) not in (Tensor, torch.nn.Parameter):
            return f"a {type(tensor).__name__} is more than its memory"
        if not torch._C._has_storage(tensor):
            return "a batched tensor has no memory of its own"
        dual = forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled()
        if dual and forward_ad.unpack_dual(tensor).tangent is not None:
            return "a kernel would drop the tangent of a dual tensor"
    return None


def choose(*tensors: Tensor, among: Backends = BACKENDS) -> str:
    """The name of the backend that runs for these tensors, of those that an op has.

    An op that the forced backend does not have runs as if none were forced. Raises ValueError when a forced one cannot.
    """
    transformed = forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()
    if (wanted == "auto" or wanted == "cpu") and not transformed and cpu.takes(*tensors):
        return "cpu"  # a shorter way to what the loop below finds
    _check_wanted()
    opaque, forced = transforms() or _not_plain(*tensors), wanted if wanted in among else "auto"
    for name in among:
        if _refusal(name, forced, opaque, tensors) is None:
            return name
    raise ValueError(f"no backend can run: {'; '.join(f'{k}: {v}' for k, v in refusals(*tensors).items())}")


def epilogue(*tensors: Tensor) -> ModuleType:
    """The functions of ``ops/epilogue`` in the backend that runs for these tensors."""
    return BACKENDS[choose(*tensors)]


def norms(*tensors: Tensor) -> ModuleType:
    """The functions of ``ops/norms`` in the backend that runs for these tensors."""
    return NORMS[choose(*tensors, among=NORMS)]
