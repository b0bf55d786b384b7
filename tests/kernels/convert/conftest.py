"""A network with containers, a shared module and a shared weight."""

import pytest
import torch
from references.bcosify import Net
from torch import nn


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net().double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.2, 0.5)
    return net


@pytest.fixture
def x():
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)).double()
