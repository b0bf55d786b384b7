"""The twin of ordinary layers: the same network and text but for what makes it explain itself."""

import dataclasses
from pathlib import Path

import pytest
import torch
from references.tiny_run import TINY, tiny_config
from torch import nn

from bcos_diffusion.explain import explain
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import vocabulary
from bcos_diffusion.text import Tokenizer
from bcos_diffusion.train import train
from bcos_kernels.modules.conv import BcosConv2d
from bcos_kernels.modules.linear import BcosLinear

TWIN = dataclasses.replace(TINY, layers="vanilla", time_conditioning="additive")


def build(config: UNetConfig) -> TextToImage:
    torch.manual_seed(0)
    return TextToImage(config, Tokenizer(vocabulary()), text_depth=1)


def test_the_twin_is_as_large_and_has_no_layer_that_explains() -> None:
    bcos, twin = build(UNetConfig()), build(UNetConfig(layers="vanilla", time_conditioning="additive"))
    sizes = [sum(p.numel() for p in model.parameters()) for model in (bcos, twin)]
    assert abs(sizes[0] - sizes[1]) < 0.01 * sizes[0]
    assert not any(isinstance(module, BcosConv2d | BcosLinear) for module in twin.modules())
    convolutions = [module for module in twin.modules() if isinstance(module, nn.Conv2d)]
    assert convolutions and all(module.bias is not None for module in convolutions)


def test_all_words_of_the_twin_speak_in_context() -> None:
    model = build(TWIN)
    text = model.condition(model.tokenizer.encode(["a cat on a blue background", "a cat on red"]))
    assert text.values is text.keys and bool(text.mask[0, :2].all())
    cat = 1
    assert not torch.equal(text.values[0, cat], text.values[1, cat])


def test_the_twin_draws_and_is_not_explained(tmp_path: Path) -> None:
    pipeline = BcosDiffusionPipeline(build(TWIN))
    pipeline.save_pretrained(tmp_path)
    again = BcosDiffusionPipeline.from_pretrained(tmp_path)
    drawn = again.generate(["a cat"], steps=2)
    torch.testing.assert_close(drawn, pipeline.generate(["a cat"], steps=2), rtol=0, atol=0)
    assert not torch.equal(drawn, again.generate(["a dog"], steps=2))
    with pytest.raises(ValueError, match="ordinary layers with biases"):
        explain(again, "a cat", steps=2)


def test_a_step_reaches_every_parameter_of_the_twin() -> None:
    model = build(TWIN)
    batch = model.tokenizer.encode(["a cat left of a dog on a blue background"])
    for parameter in model.parameters():  # layers that start from zero hide what is before them
        nn.init.normal_(parameter, std=0.2)
    model(torch.rand(1, 6, 24, 24), torch.tensor([500]), batch).square().sum().backward()
    unread = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert unread == []


def test_the_twin_is_trained_without_the_effect_term(tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config(tmp_path, effect_weight=None), model=TWIN)
    assert config.effect == 0
    assert BcosDiffusionPipeline.from_pretrained(train(config)).model.unet.config == TWIN
    with pytest.raises(ValueError, match="effect_weight must be 0"):
        dataclasses.replace(config, effect_weight=1.0)


def test_an_unknown_kind_of_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="layers must be one of"):
        UNetConfig(layers="plain")  # type: ignore[arg-type]
