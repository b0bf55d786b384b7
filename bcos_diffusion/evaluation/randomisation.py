"""Sanity by randomisation (Adebayo et al. 2018): an explanation of a network must change with its weights.

Weights are drawn anew block by block, from the output towards the input, and what was randomised stays so. A method
whose maps stay as they were explains the prompt or the picture, not the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bcos_diffusion.pipeline import BcosDiffusionPipeline


def cascade(pipeline: BcosDiffusionPipeline, seed: int = 0) -> Iterator[tuple[str, BcosDiffusionPipeline]]:
    """Every block from the last that runs to the first, with a pipeline of which it and all later ones are random.

    A text encoder that was trained with the network comes at the end, named "text". New weights are normal with the
    mean and deviation of the old, tensor by tensor. The pipeline itself is left as it is.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {name: value.clone() for name, value in pipeline.model.state_dict().items()}
    parameters = {name for name, _ in pipeline.model.named_parameters()}
    blocks = [f"unet.{block}" for block in reversed(blocks_in_order(pipeline))]
    for block in [*blocks, "text"]:
        inside = sorted(name for name in parameters if name.startswith(f"{block}."))
        if inside:
            weights |= {name: _like(weights[name], generator) for name in inside}
            copy = BcosDiffusionPipeline.from_model(pipeline.model, weights, pipeline.defaults, pipeline.name)
            copy.model.to(pipeline.dtype)
            yield block.removeprefix("unet."), copy


@torch.no_grad()
def blocks_in_order(pipeline: BcosDiffusionPipeline) -> list[str]:
    """The blocks of the denoiser, such as "up.0.1" and "conv_out", in the order in which they finish in one pass."""
    unet, order = pipeline.model.unet, dict[str, None]()

    def finished(name: str) -> None:
        block = re.match(r"\w*[a-z]\w*(\.\d+)*", name)
        assert block is not None
        order.pop(block.group(), None)
        order[block.group()] = None

    def listen(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(lambda *_: finished(name))

    # Not only modules with weights of their own: a B-cos layer reads those of a child that never runs.
    inside = {n: m for n, m in unet.named_modules() if n and list(m.parameters()) and not isinstance(m, nn.Sequential)}
    hooks = [listen(name, module) for name, module in inside.items()]
    try:
        null = pipeline.model.condition(pipeline.model.tokenizer.encode_null(1).to(pipeline.model.device))
        unet(pipeline.initial_noise(0)[None], torch.zeros(1, dtype=torch.long, device=pipeline.model.device), null)
    finally:
        for hook in hooks:
            hook.remove()
    return list(order)


def _like(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Normal values with the mean and the deviation of a tensor."""
    noise = torch.randn(weight.shape, generator=generator).to(weight)
    return weight.mean() + noise * weight.std(correction=0)
