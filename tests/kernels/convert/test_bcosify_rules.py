"""Every rule: under explanation mode a module is the linear map that is written out here by hand, in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bcos_kernels import bcosify, completeness, contributions, explanation_mode, maps

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


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("functional", [False, True])
def test_an_activation_becomes_a_held_gate(activation, functional):
    class Calls(nn.Module):
        """The same function of torch, called by a forward of its own."""

        def forward(self, x):
            return getattr(F, name)(x, *arguments)

    activation = randomised(activation)
    x = 3 * IMAGES
    x[0, 0, 0, 0] = 0.0
    gate = torch.where(x == 0, 0, activation(x.clone()).detach() / x)
    if functional:
        names = {"relu6": "relu6", "leakyrelu": "leaky_relu"}
        kind = type(activation).__name__.lower()
        name = names.get(kind, kind)
        arguments = {
            nn.LeakyReLU: (0.2,), nn.PReLU: (getattr(activation, "weight", None),), nn.ELU: (1.3,), nn.CELU: (0.7,),
            nn.Hardtanh: (-0.5, 0.7),
        }.get(type(activation), ())  # fmt: skip
        if name in ("hardtanh", "tanh", "gelu") and kind != "tanh":
            pytest.skip("reached by another test")
        activation = Calls()
    else:
        activation = nn.Sequential(nn.Identity(), activation)
    x = x.clone()
    report = bcosify(activation)
    assert report.converted
    with explanation_mode():
        assert torch.equal(activation(x.clone()), (x * gate).where(x == 0, activation(x.clone())))
    matrix = jacobian(lambda t: activation(t.clone()), x)
    assert torch.allclose(matrix, torch.diag(gate.flatten()), atol=1e-12)
    assert completeness(activation, x).error < 1e-14


def centred(x, dims):
    return x - x.mean(dims, keepdim=True)


def deviation(x, dims, eps=1e-5):
    return (x.var(dims, correction=0, keepdim=True) + eps).sqrt()


def test_layer_norm_holds_its_deviation():
    norm = randomised(nn.LayerNorm(6))
    check(norm, ROWS, lambda v: centred(v, -1) / deviation(ROWS, -1) * norm.weight)


def test_layer_norm_over_several_dimensions():
    norm = randomised(nn.LayerNorm((5, 5), elementwise_affine=True))
    check(norm, IMAGES, lambda v: centred(v, (2, 3)) / deviation(IMAGES, (2, 3)) * norm.weight)


def test_rms_norm_holds_its_mean_square():
    norm = randomised(nn.RMSNorm(6, eps=1e-3))
    check(norm, ROWS, lambda v: v / (ROWS.square().mean(-1, keepdim=True) + 1e-3).sqrt() * norm.weight)


@pytest.mark.parametrize("x", [LINES, IMAGES, VOLUMES], ids=["1d", "2d", "3d"])
def test_group_and_instance_norm_hold_their_deviation(x):
    norm = randomised(nn.GroupNorm(2, 4))
    weight = norm.weight.detach().view(-1, *[1] * (x.ndim - 2))

    def grouped(v, groups):
        return v.reshape(N, groups, -1)

    def linear(v):
        return (centred(grouped(v, 2), -1) / deviation(grouped(x, 2), -1)).view_as(v) * weight

    check(norm, x, linear)
    kind = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}[x.ndim]
    check(kind(4).double(), x, lambda v: (centred(grouped(v, 4), -1) / deviation(grouped(x, 4), -1)).view_as(v))


@pytest.mark.parametrize(
    "kind, x",
    [(nn.BatchNorm1d, IMAGES.flatten(1)[:, :4]), (nn.BatchNorm1d, LINES), (nn.BatchNorm2d, IMAGES), (nn.BatchNorm3d, VOLUMES)],
)  # fmt: skip
def test_batch_norm_loses_bias_and_mean(kind, x):
    norm = randomised(kind(4))
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().view(-1, *[1] * (x.ndim - 2))
    check(norm, x, lambda v: v * scale, biases="remove")
    assert norm.bias is None
    assert torch.allclose(norm(x), x * scale)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_that_keeps_its_constants_names_them(affine):
    model = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), randomised(nn.BatchNorm2d(4, affine=affine))).double().eval()
    expected = model(IMAGES).detach()
    bcosify(model, b=1)
    assert torch.allclose(model(IMAGES), expected, atol=1e-14)
    found = completeness(model, IMAGES)
    assert found.error < 1e-14
    assert set(found.mass) == {"input", "1.running_mean"} | ({"1.bias"} if affine else set())


def test_max_pool_holds_its_choice():
    x = IMAGES
    choice = F.max_pool2d(x, 3, 2, 1, return_indices=True)[1].flatten(2)
    check(nn.MaxPool2d(3, 2, 1), x, lambda v: v.flatten(2).gather(2, choice))


def test_max_pool_becomes_an_average():
    check(nn.MaxPool2d(3, 2, 1), IMAGES, lambda v: F.avg_pool2d(v, 3, 2, 1, count_include_pad=False), max_pool="average")
    check(nn.MaxPool1d(2), LINES, lambda v: F.avg_pool1d(v, 2), max_pool="average")


@pytest.mark.parametrize("functional", [False, True])
def test_glu_holds_its_gate(functional):
    class Calls(nn.Module):
        def forward(self, x):
            return F.glu(x, dim=1)

    check(Calls() if functional else nn.GLU(1), IMAGES, lambda v: v[:, :2] * torch.sigmoid(IMAGES[:, 2:]))


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


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"kdim": 5, "vdim": 3}, {"add_bias_kv": True, "add_zero_attn": True}, {"bias": False}], ids=str
)
@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention_computes_what_it_did(need_weights, options, batch_first):
    module = randomised(nn.MultiheadAttention(4, 2, batch_first=batch_first, **options))
    torch.manual_seed(0)
    query = torch.randn(N, 3, 4)
    key, value = (torch.randn(N, 5, options.get(name, 4)) for name in ("kdim", "vdim"))
    inputs = [t.double() if batch_first else t.double().transpose(0, 1) for t in (query, key, value)]
    hidden = torch.tensor([[False, False, True, False, False], [False] * 5])
    arguments = {"key_padding_mask": hidden, "attn_mask": torch.randn(3, 5).double(), "need_weights": need_weights}
    expected = module(*inputs, **arguments)
    bcosify(module, b=1)
    found = module(*inputs, **arguments)
    assert torch.allclose(found[0], expected[0], atol=1e-13)
    assert (found[1] is None) == (expected[1] is None)
    if need_weights:
        assert torch.allclose(found[1], expected[1], atol=1e-13)
    named = dict(zip(("query", "key", "value"), inputs, strict=True))
    given = completeness(lambda **t: module(**t, **arguments)[0], named)
    assert given.mass["query"] == 0 == given.mass["key"]
    assert given.mass["value"] != 0


def test_multihead_attention_without_a_batch_and_with_masks_by_head():
    module = randomised(nn.MultiheadAttention(4, 2))
    x = ROWS.view(3, 4)
    mask = torch.ones(3, 3).triu(1).bool().expand(2, 3, 3)
    expected = module(x, x, x, attn_mask=mask, average_attn_weights=False)
    bcosify(module, b=1)
    found = module(x, x, x, attn_mask=mask, average_attn_weights=False)
    assert all(torch.allclose(a, b, atol=1e-13) for a, b in zip(found, expected, strict=True))
    with pytest.raises(ValueError, match="give the mask too"):
        module(x, x, x, is_causal=True)


def test_multihead_attention_holds_its_probabilities():
    class SelfAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 1, batch_first=True, bias=False)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    module = randomised(SelfAttention())
    x = torch.randn(1, 3, 6).double()
    q, k, v = module.attention.in_proj_weight.detach().chunk(3)
    held = torch.softmax((x @ q.T) @ (x @ k.T).transpose(1, 2) / 6**0.5, -1)
    out = module.attention.out_proj.weight.detach()

    def inner(t):
        return held @ (t @ v.T)

    scale = (inner(x) @ out.T).abs() / inner(x).norm(dim=-1, keepdim=True)
    check(module, x, lambda t: inner(t) @ out.T * scale)


@pytest.mark.parametrize("layer", ["encoder", "decoder"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_transformer_layers_are_not_passed_by_a_fused_kernel(layer, activation):
    options = {"dim_feedforward": 8, "activation": activation, "batch_first": True, "dropout": 0.0}
    kind = nn.TransformerEncoderLayer if layer == "encoder" else nn.TransformerDecoderLayer
    module = randomised(kind(6, 2, **options))
    torch.manual_seed(0)
    inputs = [torch.randn(N, 3, 6).double() for _ in range(1 if layer == "encoder" else 2)]
    with torch.no_grad():
        expected = module(*inputs)
        bcosify(module, b=1)
        assert torch.allclose(module(*inputs), expected, atol=1e-13)
        names = ("src",) if layer == "encoder" else ("tgt", "memory")
        found = completeness(module, dict(zip(names, inputs, strict=True)))
        bcosify(module)
        assert found.error < 1e-13
    with torch.no_grad():
        exact = module(*inputs)
    bent = randomised(kind(6, 2, **options))
    bcosify(bent, b=2)
    with torch.no_grad():
        assert not torch.allclose(bent(*inputs), exact)


def test_a_network_without_biases_maps_tangents_in_a_stacked_batch():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.GELU(), nn.MaxPool2d(2, return_indices=False), nn.GroupNorm(2, 6),
        nn.Flatten(), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 8), nn.GLU(), nn.Linear(4, 3),
    )  # fmt: skip
    model = randomised(model)
    report = bcosify(model, biases="remove")
    assert report.biases == ()
    tangents = torch.randn(3, *IMAGES.shape).double()
    stacked = maps(model, IMAGES, tangents)
    assert torch.allclose(stacked, maps(model, IMAGES, tangents, method="jvp"), rtol=1e-10, atol=1e-14)
    assert torch.allclose(maps(model, IMAGES, IMAGES[None])[0], model(IMAGES))
    given = contributions(model, IMAGES, target=1)
    assert torch.allclose(given.sum((1, 2, 3)), model(IMAGES)[:, 1])
