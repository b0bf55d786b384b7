"""Make models of other libraries B-cos models, and account for their outputs, inputs and constants by name.

    python examples/bcosify_models.py

Weights are random, and widths small, so that it takes seconds; with trained weights the calls are the same.
Needs torchvision, and diffusers for the second part.
"""

from __future__ import annotations

import torch
import torchvision

from bcos_kernels import Stem, bcosify, completeness, contributions, six_channels, unbcosify

# The configuration of stabilityai/stable-diffusion-2-1, but for the numbers of channels.
STABLE_DIFFUSION = {
    "block_out_channels": (32, 64, 64, 64), "attention_head_dim": (2, 4, 4, 4), "cross_attention_dim": 64,
    "sample_size": 8, "use_linear_projection": True, "upcast_attention": True,
}  # fmt: skip


def classifier() -> None:
    """A ResNet-18 of six channels."""
    model = torchvision.models.resnet18(num_classes=10).eval()
    image = torch.rand(1, 3, 64, 64)
    report = bcosify(model, stem=Stem())  # mean and deviation of ImageNet
    print(report, "\n")
    x = six_channels(image)  # [1, 6, 64, 64]: r, g, b, 1-r, 1-g, 1-b
    found = completeness(model, x, target=3)
    shares = found.grouped({"biases": "*.bias", "running means": "*.running_mean", "image mean": "conv1"})
    print(f"logit 3: relative error {found.error:.1e}", shares, "\n")
    pixels = contributions(model, x, target=3, sum_over=(1,))  # [1, 64, 64]
    print("the pixel that gave most:", divmod(int(pixels.abs().argmax()), 64), "\n")
    print(f"undone: {len(unbcosify(model))} modules are what they were\n")


def diffusion() -> None:
    """The U-Net of Stable Diffusion 2.1."""
    try:
        from diffusers import UNet2DConditionModel
    except ImportError:
        print("diffusers is not installed: pip install diffusers")
        return
    unet = UNet2DConditionModel(**STABLE_DIFFUSION).eval()
    print(bcosify(unet), "\n")
    inputs = {"sample": torch.randn(1, 4, 8, 8), "encoder_hidden_states": torch.randn(1, 5, 64)}
    constants = {"timestep": torch.tensor(500), "return_dict": False}
    found = completeness(unet, inputs, constants=constants)
    shares = found.grouped({"time": "*.time_emb_proj", "biases": "*.bias"})
    print(f"predicted noise: relative error {found.error:.1e}", shares)


if __name__ == "__main__":
    torch.manual_seed(0)
    classifier()
    diffusion()
