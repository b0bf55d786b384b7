"""The linear map that a converted module is under explanation mode, found by autograd and written out by hand."""

import torch
from torch import nn

from bcos_kernels import bcosify, completeness, explanation_mode

N = 2


def unit(weight):
    return weight / weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))


def jacobian(model, x):
    """``[outputs, inputs]`` of the held network."""
    with explanation_mode():
        found = torch.autograd.functional.jacobian(model, x)
    return found.reshape(-1, x.numel())


def written(linear, x):
    """The matrix of a linear function, column by column."""
    with torch.no_grad():
        return torch.stack([linear(v.view_as(x)).flatten() for v in torch.eye(x.numel(), dtype=x.dtype)], 1)


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.3, 0.7)
    for each in module.modules():
        if isinstance(each, nn.modules.batchnorm._BatchNorm):
            each.running_mean.normal_()
            each.running_var.uniform_(0.5, 2)
    return module.double().eval()


def check(module, x, linear, **options):
    """The held map is the one written out, values are unchanged by explanation mode, and nothing is missing."""
    report = bcosify(module, **options)
    assert not report.unconverted
    plain = module(x).detach()
    with explanation_mode():
        assert torch.equal(module(x), plain)
    assert torch.allclose(jacobian(module, x), written(linear, x), rtol=1e-11, atol=1e-12)
    assert completeness(module, x).error < 1e-13
    x = x.clone().requires_grad_()
    module(x).sum().backward()
    assert x.grad.isfinite().all()
    return report


ROWS = torch.randn(N, 6, generator=torch.Generator().manual_seed(1)).double()
LINES = torch.randn(N, 4, 7, generator=torch.Generator().manual_seed(2)).double()
IMAGES = torch.randn(N, 4, 5, 5, generator=torch.Generator().manual_seed(3)).double()
VOLUMES = torch.randn(N, 4, 3, 3, 2, generator=torch.Generator().manual_seed(4)).double()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)])
        self.act = nn.SiLU()

    def forward(self, x):
        for layer in self.layers:
            x = self.act(layer(x))
        return x


class Net(nn.Module):
    """Containers, a shared module, a shared weight and a forward of its own."""

    def __init__(self):
        super().__init__()
        block = Block()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), block, nn.MaxPool2d(2), block)
        self.norm = nn.LayerNorm(16)
        self.head, self.tied = nn.Linear(16, 16), nn.Linear(16, 16, bias=False)
        self.tied.weight = self.head.weight

    def forward(self, x):
        return self.tied(self.head(self.norm(self.features(x).flatten(1))))


def classes(model):
    return {name: type(module) for name, module in model.named_modules()}
