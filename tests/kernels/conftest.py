"""Each backend forced; a tiny net with every kind of held factor, and its W(x) written out by hand in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bcos_kernels import dispatch, native
from bcos_kernels.modules.attention import MultiHeadAttention
from bcos_kernels.modules.conv import BcosConv2d
from bcos_kernels.modules.gates import GEGLU, SiLU
from bcos_kernels.modules.linear import BcosLinear
from bcos_kernels.modules.norms import GroupNorm, LayerNorm

BACKENDS = ["reference", pytest.param("cpu", marks=pytest.mark.skipif(native.load() is None, reason="not built"))]
N, L, TEXT = 2, 3, 5


class Tiny(nn.Module):
    """Every kind of held factor once: an image and a prompt in, ``[N, 4, 7]`` out."""

    def __init__(self):
        super().__init__()
        self.conv = BcosConv2d(3, 4, 3, padding=1, b=2)
        self.group = GroupNorm(2, 4, centred=True)
        self.silu = SiLU()
        self.down = BcosConv2d(4, 6, 2, stride=2, b=1.5)
        self.attend = MultiHeadAttention(6, TEXT, heads=2, head_dim=3)
        self.layer = LayerNorm(6)
        self.linear = BcosLinear(6, 14, b=2.5)
        self.geglu = GEGLU()

    def forward(self, image, text, mask=None):
        h = self.down(self.silu(self.group(self.conv(image)))).flatten(2).transpose(1, 2)
        h = h + self.attend(h, text, text, mask)
        return self.geglu(self.linear(self.layer(h)))


def unit(weight):
    return weight / weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))


class WrittenOut:
    """Tiny as a function of (image, text) whose factors are numbers, recorded on the first call."""

    def __init__(self, net, mask):
        self.net, self.mask, self.factors, self.recording = net, mask, [], True

    def factor(self, value):
        if self.recording:
            self.factors.append(value)
        else:
            self.at += 1
        return self.factors[-1 if self.recording else self.at - 1]

    def bcos(self, y, norm, b):
        cos = y.abs() / norm
        return y * self.factor(cos if b == 2 else (cos + 1e-6) ** (b - 1))

    def conv(self, layer, x, b, **options):
        weight = layer.linear.weight
        squares = F.conv2d((x**2).sum(1, keepdim=True), torch.ones(1, 1, *weight.shape[2:]).double(), **options)
        return self.bcos(F.conv2d(x, unit(weight), **options), (squares + 1e-6).sqrt(), b)

    def dense(self, layer, x, b):
        return self.bcos(x @ unit(layer.linear.weight).T, x.norm(dim=-1, keepdim=True) + 1e-12, b)

    def attention(self, x, text):
        layer = self.net.attend
        q, k = x @ layer.query.weight.T, text @ layer.key.weight.T
        value, out = self.dense(layer.value, text, 2), []
        for part in (slice(0, 3), slice(3, 6)):
            logits = (q[..., part] @ k[..., part].transpose(1, 2) / 3**0.5).masked_fill(~self.mask[:, None], -torch.inf)
            out.append(self.factor(logits.softmax(-1)) @ value[..., part])
        return self.dense(layer.out, torch.cat(out, -1), 2)

    def __call__(self, image, text):
        net, self.at = self.net, 0
        h = self.conv(net.conv, image, 2, padding=1)
        groups = h.reshape(len(h), 2, -1)
        centred = groups - groups.mean(-1, keepdim=True)
        h = (centred * self.factor(1 / (centred.var(-1, correction=0, keepdim=True) + 1e-6).sqrt())).view_as(h)
        h = h * net.group.weight.view(-1, 1, 1)
        h = h * self.factor(torch.sigmoid(h))
        h = self.conv(net.down, h, 1.5, stride=2).flatten(2).transpose(1, 2)
        h = h + self.attention(h, text)
        centred = h - h.mean(-1, keepdim=True)
        h = centred * self.factor(1 / (centred.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()) * net.layer.weight
        value, gate = self.dense(net.linear, h, 2.5).chunk(2, -1)
        self.recording, out = False, value * self.factor(F.gelu(gate))
        return out

    def matrix(self, image, text):
        """Return the output and W ``[outputs, inputs]``, one column per basis vector of (image, text)."""
        output = self(image, text)
        columns = []
        for i in range(image.numel() + text.numel()):
            basis = torch.zeros(image.numel() + text.numel(), dtype=torch.double)
            basis[i] = 1
            v, w = basis.split([image.numel(), text.numel()])
            columns.append(self(v.view_as(image), w.view_as(text)).flatten())
        return output, torch.stack(columns, 1)


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Every backend that runs float64 on this machine, forced."""
    monkeypatch.setattr(dispatch, "wanted", request.param)
    return request.param


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = Tiny().double()
    for norm in (net.group, net.layer):
        nn.init.normal_(norm.weight, 1, 0.3)
    return net


@pytest.fixture(scope="module")
def inputs():
    torch.manual_seed(1)
    return {"image": torch.randn(N, 3, 4, 4).double(), "text": torch.randn(N, L, TEXT).double()}


@pytest.fixture(scope="module")
def mask():
    return torch.tensor([[True, True, False], [True, False, False]])


@pytest.fixture(scope="module")
def oracle(net, inputs, mask):
    with torch.no_grad():
        return WrittenOut(net, mask).matrix(**inputs)


@pytest.fixture
def affine():
    """A net of torch's own modules, with a bias in three of them and a running mean."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 5)
    ).double()  # fmt: skip
    model(torch.randn(8, 3, 4, 4).double())
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.eval()
