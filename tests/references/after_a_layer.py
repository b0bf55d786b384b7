"""A prediction from one layer on, with factors held: its graph, and its forward-mode derivative."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from bcos_diffusion.diffusion import predicted_x_0
from bcos_diffusion.features.latents.step import Step, by_position, hooked
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

    with torch.no_grad(), explanation_mode(), forward_ad.dual_level():
        with hooked(step.layer, move):
            predicted = step.predict(step.x_t[None], step.text.values)
        x_0 = predicted_x_0(predicted, step.x_t[None], step.alpha_bar, step.unet.predicts, step.update)
        return forward_ad.unpack_dual(x_0).tangent[0]
