"""Layers and activations: B-cos layers and held gates, in float64."""

import copy

import pytest
import torch
from references.bcosify import IMAGES, LINES, ROWS, check, jacobian, randomised, unit
from torch import nn
from torch.nn import functional as F

from bcos_kernels import bcosify, completeness, explanation_mode


@pytest.mark.parametrize("b", [1, 1.5, 2])
@pytest.mark.parametrize("convention", ["A", "B", "C"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_becomes_a_bcos_layer(b, convention, bias):
    layer = randomised(nn.Linear(6, 5, bias))
    w = layer.weight.detach()
    cos = (ROWS @ unit(w).T).abs() / ROWS.norm(dim=-1, keepdim=True)
    cos = cos * w.norm(dim=1) if convention == "B" else cos
    scale = (cos + (0 if b == 2 else 1e-6)) ** (b - 1)
    matrix = unit(w) if convention == "A" else w
    report = check(layer, ROWS, lambda v: (v @ matrix.T) * scale, b=b, convention=convention)
    assert report.biases == (("bias",) if bias else ())


@pytest.mark.parametrize("kind, x", [(nn.Conv1d, LINES), (nn.Conv2d, IMAGES)])
def test_a_convolution_becomes_a_bcos_layer(kind, x):
    layer = randomised(kind(4, 6, 3, stride=2, padding=1, groups=2))
    w = layer.weight.detach()
    function = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d}[kind]

    def linear(v):
        return function(v, w, stride=2, padding=1, groups=2)

    ones = torch.ones_like(w[:2])
    norm = function(x**2, ones, stride=2, padding=1, groups=2).repeat_interleave(3, 1).add(1e-6).sqrt()
    check(layer, x, lambda v: linear(v) * linear(x).abs() / norm)


ACTIVATIONS = [
    nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(0.2), nn.PReLU(4), nn.ELU(1.3), nn.CELU(0.7), nn.SELU(),
    nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Hardswish(), nn.Hardtanh(-0.5, 0.7), nn.Tanh(), nn.Softsign(),
]  # fmt: skip


class Calls(nn.Module):
    """A function of torch, called by a forward of its own."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


FUNCTIONS = {
    "relu": F.relu, "torch.relu": torch.relu, "Tensor.relu": torch.Tensor.relu, "relu6": F.relu6, "selu": F.selu,
    "relu_": lambda x: x.clone().relu_(), "in place": lambda x: F.relu(x.clone(), inplace=True),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.3), "prelu": lambda x: F.prelu(x, x.new_tensor([0.2])),
    "elu": lambda x: F.elu(x, 1.3), "celu": lambda x: F.celu(x, 0.7), "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"), "keyword": lambda x: F.silu(input=x), "silu": F.silu,
    "mish": F.mish, "hardswish": F.hardswish, "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.7), "tanh": torch.tanh,
    "Tensor.tanh": torch.Tensor.tanh, "softsign": F.softsign,
}  # fmt: skip


def held_gate(module, x):
    x = 3 * x
    x[0, 0, 0, 0] = 0.0
    with torch.no_grad():
        plain = module(x.clone())
    gate = torch.where(x == 0, 0, plain / x)
    assert bcosify(module).converted
    with explanation_mode():
        assert torch.equal(module(x.clone()), plain)
    assert torch.equal(module(x.clone()), plain)
    assert torch.allclose(jacobian(lambda t: module(t.clone()), x), torch.diag(gate.flatten()), atol=1e-12)
    assert completeness(module, x).error < 1e-14


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_an_activation_becomes_a_held_gate(activation):
    held_gate(randomised(copy.deepcopy(activation)), IMAGES)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_an_activation_that_a_forward_calls_becomes_a_held_gate(function):
    held_gate(Calls(function), IMAGES)
