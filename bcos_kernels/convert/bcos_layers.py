"""Stand-ins for the B-cos layers of the ``bcos`` library; imported only where a model has some.

All three of its conventions are ours: ``|cos|^(B-1) ŵx``, the patch norm ``sqrt(Σ x² + 1e-6)`` and the row norm
``‖x‖ + 1e-12``, and what other B than 2 add to |cos|, 1e-6.
"""

from __future__ import annotations

from typing import Any

from bcos.modules import BcosConv2d, BcosConv2dWithScale, BcosLinear, LogitLayer
from bcos.modules.bcosconv2d import NormedConv2d
from bcos.modules.bcoslinear import NormedLinear
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from bcos_kernels import functional
from bcos_kernels.convert.stand_in import StandIn, add_constant, hooked, per_channel, refuse_hooks
from bcos_kernels.ops.weights import prepare


class PatchedBcosConv2d(StandIn, BcosConv2d):
    """``BcosConv2d`` by :func:`bcos_kernels.functional.bcos_conv2d`."""

    original = BcosConv2d

    @classmethod
    def refusal(cls, module: nn.Module) -> str | None:
        if reason := _refusal_of_inner(module, NormedConv2d):
            return reason
        inner: Any = module.linear
        norms = BcosConv2d.calc_patch_norms, BcosConv2d._calc_patch_norms_slow
        if inner.padding_mode != "zeros" and inner.padding not in ("valid", (0, 0)):
            return (
                f"padding_mode={inner.padding_mode!r}: the library's patch norm is that of zeros all the same, so that"
                " |cos| may exceed 1; that of ours is not, and neither are its outputs"
            )
        if getattr(module.calc_patch_norms, "__func__", None) not in norms:
            return "its calc_patch_norms is not the library's"
        return None

    def forward_impl(self, in_tensor: Tensor) -> Tensor:
        linear = self.linear
        refuse_hooks(linear, "linear")
        with self.following_the_library():
            return functional.bcos_conv2d(
                in_tensor, linear.weight, self.b, self.max_out, linear.stride, linear.padding, linear.dilation,
                linear.groups,
            )  # fmt: skip


class PatchedBcosConv2dWithScale(PatchedBcosConv2d, BcosConv2dWithScale):
    """``BcosConv2dWithScale``, whose own forward divides by its scale."""

    original = BcosConv2dWithScale


class PatchedBcosLinear(StandIn, BcosLinear):
    """``BcosLinear`` by :func:`bcos_kernels.functional.bcos_linear`."""

    original = BcosLinear

    @classmethod
    def refusal(cls, module: nn.Module) -> str | None:
        return _refusal_of_inner(module, NormedLinear)

    def forward(self, in_tensor: Tensor) -> Tensor:
        refuse_hooks(self.linear, "linear")
        with self.following_the_library():
            return functional.bcos_linear(in_tensor, self.linear.weight, self.b, self.max_out)


class PatchedNormedConv2d(StandIn, NormedConv2d):
    """``NormedConv2d`` outside a B-cos layer: half types sum in fp32, and a filter of zeros stays zero."""

    original = NormedConv2d

    def forward(self, in_tensor: Tensor) -> Tensor:
        unit = prepare(self.weight, "A")[0]
        return add_constant(self._conv_forward(in_tensor, unit, None), per_channel(self.bias))


class PatchedNormedLinear(StandIn, NormedLinear):
    """``NormedLinear`` outside a B-cos layer, likewise."""

    original = NormedLinear

    def forward(self, input: Tensor) -> Tensor:
        return add_constant(F.linear(input, prepare(self.weight, "A")[0]), self.bias)


class PatchedLogitLayer(StandIn, LogitLayer):
    """``LogitLayer``, as fast as it was; in a stacked batch its bias, a constant, goes to the first part alone."""

    original = LogitLayer

    def forward(self, in_tensor: Tensor) -> Tensor:
        if self.logit_temperature is not None:
            in_tensor = in_tensor / self.logit_temperature
        return add_constant(in_tensor, self.logit_bias)


def _refusal_of_inner(module: nn.Module, kind: type[nn.Module]) -> str | None:
    """Why our functions would not compute what the inner ``linear`` of a B-cos layer does."""
    inner: Any = module.linear
    plain = type(inner).__bases__[0] if is_parametrized(inner) else type(inner)
    if plain is not kind or "forward" in inner.__dict__:
        return f"its inner 'linear' is a {type(inner).__name__} with a forward of its own, not the library's"
    if inner.bias is not None:
        return "its inner 'linear' has a bias"
    if hooked(inner):
        return "a hook on its inner 'linear' (of yours, of pruning or of an old weight_norm) must go on being called"
    b: Any = module.b
    if not 1 <= b < float("inf"):
        return f"b = {b} is not a finite number of at least 1"
    return None


STAND_INS: tuple[type[StandIn], ...] = (
    PatchedBcosConv2d,
    PatchedBcosConv2dWithScale,
    PatchedBcosLinear,
    PatchedNormedConv2d,
    PatchedNormedLinear,
    PatchedLogitLayer,
)
AROUND_LINEAR = (BcosConv2d, BcosLinear)
"""Layers whose weight is that of a part, ``linear``, which stand-ins never call."""
