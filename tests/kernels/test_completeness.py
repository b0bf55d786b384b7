"""Completeness: the sum over inputs and biases is the output, and nothing is hidden."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bcos_kernels.explanation import completeness
from bcos_kernels.modules.linear import BcosLinear


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_completeness_in_every_dtype(net, inputs, dtype, mask):
    net = copy.deepcopy(net).to(dtype)
    found = completeness(net, {name: x.to(dtype) for name, x in inputs.items()}, constants={"mask": mask})
    assert found.output.dtype == dtype
    assert found.error <= 20 * torch.finfo(dtype).eps
    assert list(found.mass) == ["image", "text"]
    assert found.budget["rest"] == pytest.approx(0, abs=200 * torch.finfo(dtype).eps)
    assert sum(found.budget.values()) == pytest.approx(1)
    assert "image" in str(found)


def test_every_bias_is_reported_under_its_own_name(affine, inputs):
    model, x = affine, inputs["image"]
    found = completeness(model, x, target=2)
    assert found.error < 1e-14
    assert list(found.mass) == ["input", "0.bias", "1.bias", "5.bias", "1.running_mean"]
    assert all(abs(value) > 1e-3 for value in found.mass.values())
    assert found.budget["rest"] == pytest.approx(0, abs=1e-12)
    # Independently: what a bias gives is what is lost without it, while the factors stay those of the full model.
    assert found.mass["5.bias"] == pytest.approx(len(x) * model[5].bias[2].item())
    on = (model[:3](x) > 0).double()
    path = (on * model[1].bias.view(-1, 1, 1)).detach()
    full = model[:3](x)
    picked = path.flatten(2).gather(2, F.max_pool2d(full, 2, return_indices=True)[1].flatten(2)).flatten(1)
    assert found.mass["1.bias"] == pytest.approx(float((picked @ model[5].weight[2]).sum().detach()))


def test_completeness_says_by_how_much_it_fails(inputs):
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 6, bias=False), nn.GELU()).double()
    found = completeness(model, inputs["image"])
    output = model(inputs["image"]).detach()
    derivative = torch.func.jvp(model, (inputs["image"],), (inputs["image"],))[1].detach()
    assert found.error == pytest.approx(float((output - derivative).norm() / output.norm()))
    assert found.budget["rest"] == pytest.approx(float(1 - derivative.sum() / output.sum()))
    assert found.error > 0.01


def test_a_position_embedding_can_be_named(inputs):
    class Positioned(nn.Module):
        def __init__(self):
            super().__init__()
            self.position = nn.Parameter(torch.randn(3, 5).double())
            self.linear = BcosLinear(5, 4).double()

        def forward(self, x):
            return self.linear(x + self.position)

    model = Positioned()
    assert completeness(model, inputs["text"]).error > 0.01
    found = completeness(model, inputs["text"], offsets=["position"])
    assert found.error < 1e-14
    assert abs(found.budget["position"]) > 0.01
    with pytest.raises(ValueError, match="no parameter of the model: nowhere"):
        completeness(model, inputs["text"], offsets=["nowhere"])
