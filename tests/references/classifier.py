"""A small B-cos classifier, and W(x) of it written out in plain torch, row by row of its Jacobian."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from bcos_kernels import BcosConv2d
from bcos_kernels.modules.logits import LogitLayer
from bcos_kernels.modules.norms import GroupNorm

K, N = 5, 3
TEMPERATURE = 0.5


class Net(nn.Module):
    """Six channels of any size to K logits."""

    def __init__(self, bias=-math.log(K - 1)):
        super().__init__()
        self.conv, self.norm = BcosConv2d(6, 8, 3, padding=1, stride=2), GroupNorm(2, 8)
        self.head, self.logits = BcosConv2d(8, K, 1), LogitLayer(TEMPERATURE, bias)

    def forward(self, x):
        return self.logits(self.head(self.norm(self.conv(x))).mean((2, 3)))


def written_out(net, x):
    """The network in plain torch, every factor that depends on the data detached."""

    def bcos(x, weight, **options):
        unit = weight / weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        y = F.conv2d(x, unit, **options)
        squares = F.conv2d((x.detach() ** 2).sum(1, keepdim=True), torch.ones_like(weight[:1, :1]), **options)
        return y * (y.detach().abs() / (squares + 1e-6).sqrt())

    h = bcos(x, net.conv.linear.weight, padding=1, stride=2)
    groups = h.detach().flatten(2).unflatten(1, (2, 4)).flatten(2)
    rms = (groups.pow(2).mean(-1) + 1e-6).sqrt().repeat_interleave(4, 1)[:, :, None, None]
    h = h / rms * net.norm.weight.view(-1, 1, 1)
    logits = bcos(h, net.head.linear.weight).mean((2, 3)) / TEMPERATURE
    return logits if net.logits.logit_bias is None else logits + net.logits.logit_bias


def jacobian(net, x):
    """W(x) ``[N, K, C, H, W]``: one backward pass a row, one image at a time."""
    rows = []
    for image in x:
        leaf = image[None].clone().requires_grad_()
        logits = written_out(net, leaf)[0]
        rows.append(torch.stack([torch.autograd.grad(y, leaf, retain_graph=True)[0][0] for y in logits]))
    return torch.stack(rows)
