"""Pools, gated units, and functions that a forward of its own calls, in float64."""

import pytest
import torch
from references.bcosify import IMAGES, LINES, ROWS, N, check, randomised
from torch import nn
from torch.nn import functional as F

from bcos_kernels import bcosify, completeness, explanation_mode


class Calls(nn.Module):
    """A function of torch, called by a forward of its own."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_max_pool_holds_its_choice():
    x = IMAGES
    choice = F.max_pool2d(x, 3, 2, 1, return_indices=True)[1].flatten(2)
    check(nn.MaxPool2d(3, 2, 1), x, lambda v: v.flatten(2).gather(2, choice))


def test_max_pool_becomes_an_average():
    pool = nn.MaxPool2d(3, 2, 1)
    check(pool, IMAGES, lambda v: F.avg_pool2d(v, 3, 2, 1, count_include_pad=False), max_pool="average")
    check(nn.MaxPool1d(2), LINES, lambda v: F.avg_pool1d(v, 2), max_pool="average")


@pytest.mark.parametrize("functional", [False, True])
def test_glu_holds_its_gate(functional):
    module = Calls(lambda x: F.glu(x, dim=1)) if functional else nn.GLU(1)
    check(module, IMAGES, lambda v: v[:, :2] * torch.sigmoid(IMAGES[:, 2:]))


def test_a_sigmoid_weighs_something_else():
    class SqueezeExcite(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.gate = nn.Linear(4, 4), nn.Sigmoid()

        def forward(self, x):
            return x * self.gate(self.linear(x.mean((2, 3))))[..., None, None]

    module = randomised(SqueezeExcite())
    weight = torch.sigmoid(F.linear(IMAGES.mean((2, 3)), module.linear.weight, module.linear.bias)).detach()
    check(module, IMAGES, lambda v: v * weight[..., None, None], b=1)


class Functions(nn.Module):
    """Norms, attention and factors that a forward calls as functions."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(6)), nn.Parameter(torch.zeros(6))

    def forward(self, x):  # [N, 6]
        y = F.layer_norm(x, (6,), self.weight, self.bias)
        y = F.group_norm(y, 2, self.weight, bias=self.bias) + F.rms_norm(y, (6,))
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-3) + F.normalize(y, dim=-1)
        rows = y.view(N, 1, 3, 2)
        z = F.scaled_dot_product_attention(rows, 2 * rows, rows + rows.flip(2))
        z = (rows @ rows.transpose(2, 3)).softmax(-1) @ z + F.softmax(input=rows, dim=-1) * z
        return F.relu(z.clone(), inplace=True) + z.sigmoid() * z


def test_functions_that_a_forward_calls_are_held():
    module = randomised(Functions())
    expected = module(ROWS).detach()
    x = ROWS.clone().requires_grad_()
    bcosify(module)
    assert torch.equal(module(x), expected)
    gradient = torch.autograd.grad(module(x).sum(), x)[0]
    with explanation_mode():
        assert torch.allclose(module(x), expected, atol=1e-13)
        assert not torch.allclose(torch.autograd.grad(module(x).sum(), x)[0], gradient)
    found = completeness(module, ROWS)
    assert found.error < 1e-13
    assert set(found.mass) == {"input", "bias"}
