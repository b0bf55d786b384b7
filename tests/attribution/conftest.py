"""A small B-cos classifier in float64, and images for it."""

import pytest
import torch
from references.classifier import N, Net
from torch import nn


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net().double()
    nn.init.normal_(net.norm.weight, 1, 0.3)
    return net.eval()


@pytest.fixture
def images():
    rgb = torch.rand(N, 3, 12, 10, generator=torch.Generator().manual_seed(1)).double()
    return torch.cat([rgb, 1 - rgb], 1)
