"""The layers that are measured are those of the networks that are named."""

from collections import Counter

import pytest
import torch
from torch import nn
from torchvision.models import resnet50 as torchvision_resnet50

from benchmarks import networks
from benchmarks.networks import distinct, layers, resnet50, running_order, unet, vit_b
from benchmarks.passes import input_sets, passes_for, weight_of
from benchmarks.peers import plain
from benchmarks.shapes import Layer


def test_the_unet_has_the_parameters_of_the_paper():
    """526 M, without biases and the scales of norms (another 0.26 M in the vanilla one), as B-cos layers have none."""
    assert round(sum(layer.parameters for layer in unet()) / 1e6) == 526


def test_skips_of_the_unet_meet_the_maps_that_were_kept():
    """Each convolution of a block on the way up reads its stream and one map of the same side."""
    up = {layer.name: layer for layer in unet() if layer.name.startswith("up") and layer.name.endswith("conv_1")}
    assert [up[f"up.{level}.{block}.block.conv_1"].inputs for level in (3, 2, 1, 0) for block in (0, 1)] == [
        2560, 2560, 2560, 1600, 1600, 640, 640, 640,
    ]  # fmt: skip


def test_resnet50_is_that_of_torchvision_with_six_channels_in():
    """But for the classifier, which is a 1×1 convolution here."""
    found = Counter()
    model, maps = torchvision_resnet50(), {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, x, y, name=name: maps.update({name: x[0].shape[2]}))
    model(torch.zeros(1, 3, 224, 224))
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            inputs = 6 if name == "conv1" else module.in_channels
            found[inputs, module.out_channels, maps[name], module.kernel_size[0], module.stride[0]] += 1
    ours = Counter((la.inputs, la.outputs, la.size, la.kernel, la.stride) for la in resnet50() if la.name != "fc")
    assert ours == found


def test_vit_b_has_its_parameters():
    """86.6 M of ViT-B/16 with three more channels a patch, without biases, norms, positions and the class token."""
    assert sum(layer.parameters for layer in vit_b()) == 768 * (1536 + 1000) + 12 * 12 * 768**2


@pytest.mark.parametrize("network", [unet, resnet50, vit_b])
def test_distinct_layers_differ_and_stand_for_all(network):
    every, found = list(network()), distinct(network())
    assert sum(layer.count for layer in found) == len(every)
    assert sum(layer.count * layer.multiply_adds for layer in found) == sum(layer.multiply_adds for layer in every)
    assert len({layer.label for layer in found}) == len(found) < len(every)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_quick_shapes_are_among_the_others_and_run_first(device):
    quick, every = layers(device, quick=True), layers(device)
    assert len(quick) == len(networks.QUICK) and set(quick) < set(every)
    assert len({(layer.network, layer.label) for layer in every}) == len(every)
    order = running_order(every)
    assert set(order[: len(quick)]) == set(quick) and set(order) == set(every)
    assert {layer.network for layer in quick} == {layer.network for layer in every}
    assert {name for layer in quick for name in passes_for(layer)} == set(networks_passes())


def networks_passes():
    return ["forward", "train", "explanation", "tangents", "call", "call, recorded"]


LAYERS = (
    Layer("n", "a", "conv", 8, 12, 9, 2, kernel=3, stride=2, groups=4, max_out=2),
    Layer("n", "b", "linear", 8, 12, 5, 3, max_out=2),
    Layer("n", "c", "conv", 4, 8, 7, kernel=7),
)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.label)
def test_shapes_are_those_of_torch(layer):
    weight = weight_of(layer, "cpu", torch.float64)
    (one,) = input_sets(layer, "cpu", torch.float64, 1, 3)
    output = plain(layer, weight).forward(one.x)
    rows = layer.outputs * layer.max_out
    assert weight.numel() == layer.parameters and one.x.numel() * 8 == layer.input_bytes(8)
    assert output.numel() // rows * layer.parameters == layer.multiply_adds
    units = list(one.cotangent.shape)
    units[1 if layer.kind == "conv" else 2] *= layer.max_out
    assert list(output.shape) == units
    assert one.tangents.shape == (3, *one.x.shape) and torch.equal(one.stack[: layer.batch], one.x)
    assert torch.equal(one.stack[layer.batch :], one.tangents.flatten(0, 1))
