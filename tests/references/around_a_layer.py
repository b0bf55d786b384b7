"""A network up to one layer, and from it on, with factors held: graphs and forward-mode derivatives."""

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from bcos_diffusion.diffusion import predicted_x_0
from bcos_diffusion.features.latents.step import Step, by_position, features_of, hooked
from bcos_kernels.mode import explanation_mode


def x_0_and_features(step: Step) -> tuple[Tensor, Tensor]:
    """The predicted x_0 ``[6, H, W]`` with its graph, and the features ``[P, D]`` in it."""
    found = []

    def cut(output: Tensor) -> Tensor:
        found.append(by_position(output).detach().requires_grad_())
        return found[0].transpose(1, 2).reshape(output.shape) if output.ndim == 4 else found[0]

    with torch.enable_grad(), explanation_mode(), hooked(step.layer, cut):
        predicted = step.predict(step.x_t[None], step.text.values)
        x_0 = predicted_x_0(predicted, step.x_t[None], step.alpha_bar, step.unet.predicts, step.update)
    return x_0[0], found[0]


def by_forward_mode(step: Step, tangent: Tensor) -> Tensor:
    """What a tangent ``[P, D]`` at the layer gives to x_0."""

    def move(output: Tensor) -> Tensor:
        shaped = tangent.t().reshape(output.shape) if output.ndim == 4 else tangent[None]
        return forward_ad.make_dual(output, shaped.contiguous())

    # Of the fused attention kernels some have no forward derivative.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), explanation_mode(), forward_ad.dual_level():
        with hooked(step.layer, move):
            predicted = step.predict(step.x_t[None], step.text.values)
        x_0 = predicted_x_0(predicted, step.x_t[None], step.alpha_bar, step.unet.predicts, step.update)
        return forward_ad.unpack_dual(x_0).tangent[0]


def pushed_forward(step: Step, x_t: Tensor, values: Tensor) -> Tensor:
    """What tangents of the network's inputs give to the layer's features ``[P, D]``, by forward-mode derivatives."""
    found = []
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), explanation_mode(), forward_ad.dual_level():
        duals = (forward_ad.make_dual(step.x_t[None], x_t), forward_ad.make_dual(step.text.values, values))
        with hooked(step.layer, lambda output: found.append(forward_ad.unpack_dual(by_position(output)).tangent)):
            step.predict(*duals)
    return torch.zeros_like(features_of(step)) if found[0] is None else found[0][0]
