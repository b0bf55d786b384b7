"""B-cos explanations as a captum attribution, so that captum's own metrics run on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bcos_kernels.attribution.switches import explaining

try:
    from captum.attr import GradientAttribution
except ImportError as error:
    raise ImportError("bcos_kernels.attribution.captum needs captum: pip install captum") from error

Target = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | None


class BcosAttribution(GradientAttribution):  # type: ignore[misc]
    """Contributions of inputs to a target, ``x * W(x)^T e_target``; an ``Attribution`` as captum defines it.

    Arguments mean what they mean in captum's own ``InputXGradient``, which under explanation mode this is; captum
    checks them and raises AssertionError on those that do not fit.
    """

    def __init__(self, forward_func: Callable[..., Tensor]) -> None:
        super().__init__(forward_func)

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Target = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
    ) -> Any:
        """Return contributions shaped like ``inputs``, a tuple for a tuple.

        target: an output index for all samples, a list or tensor ``[N]`` of one a sample, or tuples of indices where
        the output has more dimensions. return_convergence_delta: return also :meth:`compute_convergence_delta` from a
        start at zero, ``[N]``, as captum's ``IntegratedGradients`` does.
        """
        several = isinstance(inputs, tuple)
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        with torch.inference_mode(False), torch.enable_grad(), explaining(self.forward_func):
            leaves = tuple((x.clone() if x.is_inference() else x).detach().requires_grad_() for x in given)
            gradients = self.gradient_func(self.forward_func, leaves, target, additional_forward_args)
            parts = tuple(leaf.detach() * g.detach() for leaf, g in zip(leaves, gradients, strict=True))
        attributions = parts if several else parts[0]
        if not return_convergence_delta:
            return attributions
        start = tuple(torch.zeros_like(x) for x in given)
        return attributions, self.compute_convergence_delta(
            attributions, start, inputs, target=target, additional_forward_args=additional_forward_args
        )

    def has_convergence_delta(self) -> bool:
        """True: a sum of contributions that is not the change of the output from zero inputs shows as a delta."""
        return True

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: what is returned are contributions, not slopes."""
        return True
