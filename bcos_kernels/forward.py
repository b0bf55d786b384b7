"""The dynamic linear map applied forward: through a stacked batch, or by forward-mode differentiation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from bcos_kernels.call import Call
from bcos_kernels.mode import stacked
from bcos_kernels.modules.norms import BatchNorm2d

_PROBE = (-1.5, 1.25)  # no multiple of 1, both signs, and no number of them sums to 0
_UNHELD = ("activation", "batchnorm", "instancenorm", "normalization", "dropout", "rnn", "transformer")


def along(
    call: Call, tangents: dict[str, Tensor], parameters: dict[str, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return the output and ``W v``, by one forward-mode pass (J v of what is not held).

    tangents: like the inputs, by name, 0 where a name is left out; parameters: tangents of
    ``call.parameters``. Both results have the output's shape and no graph.
    """
    # Of the fused attention kernels some have no forward derivative; the plain one does.
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        stacked(1),
        forward_ad.dual_level(),
    ):
        duals = {
            name: forward_ad.make_dual(x, tangents[name].clone()) if name in tangents else x
            for name, x in call.inputs.items()
        }
        moved = {name: forward_ad.make_dual(call.parameters[name], v) for name, v in (parameters or {}).items()}
        output, tangent = forward_ad.unpack_dual(
            Call(call.model, duals, call.positional, call.constants, {**call.parameters, **moved}).run()
        )
        output = output.detach()
        return output, torch.zeros_like(output) if tangent is None else tangent.detach()


def through_stack(call: Call, tangents: dict[str, Tensor]) -> Tensor:
    """Return ``W v`` for ``[T, *x.shape]`` tangents by name: ``[T, *output.shape]``, by one plain forward pass.

    Raises ValueError when the model is not linear across the stacked batch.
    """
    count = len(next(iter(tangents.values())))
    weights = [_PROBE[i % len(_PROBE)] for i in range(count)]
    parts = count + 2  # the primal, the tangents, their probe
    with torch.inference_mode(False), torch.no_grad(), stacked(parts):
        batch = {
            name: torch.cat([x[None], v, (x + _combine(v, weights))[None]]).flatten(0, 1)
            for (name, x), v in zip(call.inputs.items(), tangents.values(), strict=True)
        }
        output = call.with_inputs(batch).run()
    if output.ndim == 0 or output.shape[0] % parts:
        raise ValueError(f"a stacked batch of {parts} parts went in, but the output is {list(output.shape)}: the model"
                         " must keep the batch in dimension 0; use method='jvp' for one that does not")  # fmt: skip
    primal, *pushed, probe = output.unflatten(0, (parts, -1)).unbind(0)
    mapped = torch.stack(pushed)
    deviation = float((probe.double() - primal.double() - _combine(mapped.double(), weights)).norm())
    scale = float(primal.double().norm()) + float(probe.double().norm())
    scale += sum(abs(w) * float(m.double().norm()) for w, m in zip(weights, pushed, strict=True))
    if not deviation <= torch.finfo(output.dtype).eps ** 0.5 * scale:
        raise ValueError(_not_linear(call, deviation / scale))
    return mapped


def _combine(parts: Tensor, weights: list[float]) -> Tensor:
    """The weighted sum of ``[T, ...]`` over T."""
    return torch.tensordot(torch.tensor(weights, dtype=parts.dtype, device=parts.device), parts, 1)


def _not_linear(call: Call, deviation: float) -> str:
    suspects = []
    for name, module in call.model.named_modules() if isinstance(call.model, nn.Module) else ():
        kind = type(module).__name__
        if isinstance(getattr(module, "bias", None), Tensor):
            suspects.append(f"{name} ({kind}, has a bias)")
        elif isinstance(module, BatchNorm2d) and module.subtracted_constant() is not None:
            suspects.append(f"{name} ({kind}, subtracts a running mean)")
        elif type(module).__module__.removeprefix("torch.nn.modules.") in _UNHELD:
            suspects.append(f"{name} ({kind}, not held)")
    found = f"; suspects: {', '.join(suspects[:8])}" if suspects else ""
    return (
        f"the model is not linear across a stacked batch (relative deviation {deviation:.1e}){found}. Use the"
        " modules of bcos_kernels, without biases, or method='jvp', which is exact for any torch module"
    )
