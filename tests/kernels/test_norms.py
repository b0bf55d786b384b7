"""Bias-free norms against torch's own, in value and under explanation mode."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bcos_kernels.mode import explanation_mode, stacked
from bcos_kernels.modules.norms import GroupNorm, LayerNorm, PositionNorm2d, RMSNorm

EPS = 1e-5
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def uncentred_group(x, groups, weight):
    """Group norm by RMS norm: the groups of a sample as rows."""
    rows = x.reshape(len(x), groups, -1)
    return F.rms_norm(rows, rows.shape[2:], eps=EPS).view_as(x) * weight.view(-1, *[1] * (x.ndim - 2))


def over_deviation(x, axes, weight):
    """An uncentred norm of the bcos library: divided by the standard deviation, the mean not subtracted."""
    deviation = (x.float() if x.itemsize < 4 else x).var(axes, correction=0, keepdim=True).add(EPS).sqrt()
    return (x / deviation * weight.view(-1, *[1] * (x.ndim - 2))).to(x.dtype)


def layer_of_pixels(x, weight):
    return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, eps=EPS).permute(0, 3, 1, 2)


CASES = {
    "group centred": (
        lambda: GroupNorm(2, 6, EPS, centred=True),
        lambda x, w: F.group_norm(x, 2, w, eps=EPS),
        (3, 6, 4, 5),
    ),
    "group": (lambda: GroupNorm(3, 6, EPS), lambda x, w: uncentred_group(x, 3, w), (3, 6, 4, 5)),
    "group of a sequence": (
        lambda: GroupNorm(2, 6, EPS, centred=True),
        lambda x, w: F.group_norm(x, 2, w, eps=EPS),
        (3, 6, 7),
    ),
    "group of vectors": (lambda: GroupNorm(2, 6, EPS), lambda x, w: uncentred_group(x, 2, w), (3, 6)),
    "layer": (lambda: LayerNorm(6, EPS), lambda x, w: F.layer_norm(x, (6,), w, eps=EPS), (3, 4, 6)),
    "layer uncentred": (
        lambda: LayerNorm(6, EPS, centred=False),
        lambda x, w: F.rms_norm(x, (6,), w, eps=EPS),
        (3, 4, 6),
    ),
    "group over the deviation": (
        lambda: GroupNorm(1, 6, EPS, about_mean=True),
        lambda x, w: over_deviation(x, (1, 2, 3), w),
        (3, 6, 4, 5),
    ),
    "position": (lambda: PositionNorm2d(6, EPS), layer_of_pixels, (3, 6, 4, 5)),
    "position over the deviation": (
        lambda: PositionNorm2d(6, EPS, centred=False),
        lambda x, w: over_deviation(x, (1,), w),
        (3, 6, 4, 5),
    ),
    "rms": (lambda: RMSNorm(6, EPS), lambda x, w: F.rms_norm(x, (6,), w, eps=EPS), (3, 6)),
}
ALL = pytest.mark.parametrize(("make", "reference", "shape"), CASES.values(), ids=CASES)


def build(make, dtype):
    torch.manual_seed(0)
    norm = make()
    torch.nn.init.normal_(norm.weight, 1, 0.5)
    return norm.to(dtype)


@ALL
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_is_as_close_to_the_truth_as_torch(make, reference, shape, dtype):
    norm = build(make, dtype)
    x = (torch.randn(shape) * 3 + 2).to(dtype)
    truth = reference(x.double(), norm.weight.detach().double())
    ours = norm(x)
    assert ours.dtype == dtype
    error = (ours.double() - truth).abs().max()
    torchs = (reference(x, norm.weight.detach()).double() - truth).abs().max()
    assert error <= 2 * torchs + 4 * torch.finfo(dtype).eps * truth.abs().max() * (dtype in DTYPES[:2])
    assert truth.abs().max() > 0.5


@ALL
def test_half_precision_keeps_its_range(make, reference, shape):
    norm = build(make, torch.float16)
    x = torch.randn(shape)
    x = (x / x.abs().max() * 60000).half()
    truth = reference(x.double(), norm.weight.detach().double())
    assert torch.allclose(norm(x).double(), truth, atol=1e-3, rtol=2e-3)


@ALL
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_is_bit_identical_while_explaining(make, reference, shape, dtype):
    norm, x = build(make, dtype), torch.randn(shape).to(dtype)
    plain = norm(x)
    with explanation_mode():
        assert torch.equal(norm(x), plain)


@ALL
def test_held_norm_is_its_own_linear_map(make, reference, shape):
    """W x = norm(x), and a tangent meets the statistics of the primal, never its own."""
    norm = build(make, torch.double)
    x, v = torch.randn(2, *shape, dtype=torch.double)
    with explanation_mode():
        out, pushed = torch.func.jvp(norm, (x,), (v,))
        own = torch.func.jvp(norm, (x,), (x,))[1]
        plain = norm(x)
    assert torch.allclose(own, out, atol=1e-12) and torch.allclose(plain, out, atol=1e-12)
    with stacked(2):
        both = norm(torch.cat([x, v]))
    assert torch.equal(both[: len(x)], plain)
    assert torch.allclose(both[len(x) :], pushed, atol=1e-12)
    with stacked(3):
        sums = norm(torch.cat([x, v, 2 * x - 3 * v]))[2 * len(x) :]
    assert torch.allclose(sums, 2 * out - 3 * pushed, atol=1e-12)
    assert not torch.allclose(norm(v), pushed, atol=0.1)


@ALL
def test_gradient_for_training_is_that_of_torch(make, reference, shape):
    norm = build(make, torch.double)
    x = torch.randn(shape, dtype=torch.double, requires_grad=True)
    g = torch.randn(shape, dtype=torch.double)
    ours = torch.autograd.grad(norm(x), (x, norm.weight), g)
    torchs = torch.autograd.grad(reference(x, norm.weight), (x, norm.weight), g)
    for a, b in zip(ours, torchs, strict=True):
        assert torch.allclose(a, b, atol=1e-10)


def test_zero_stays_zero():
    for norm, shape in (
        (GroupNorm(2, 6), (2, 6, 3, 3)),
        (LayerNorm(6), (2, 6)),
        (RMSNorm(6), (2, 6)),
        (PositionNorm2d(6), (2, 6, 3, 3)),
    ):
        assert torch.equal(norm(torch.zeros(shape)), torch.zeros(shape))


def test_no_norm_has_a_bias():
    for norm in (GroupNorm(2, 6), LayerNorm(6), RMSNorm(6), PositionNorm2d(6)):
        assert [name for name, _ in norm.named_parameters()] == ["weight"]
    assert not list(GroupNorm(2, 6, affine=False).parameters())


def changed(norm, **attributes):
    """What a norm of six channels makes of an image after somebody wrote into it."""
    for name, value in attributes.items():
        setattr(norm, name, value)
    return norm(torch.zeros(2, 6, 3, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GroupNorm(4, 6), "divisible"),
        (lambda: GroupNorm(0, 6), "divisible"),
        (lambda: GroupNorm(2, 6)(torch.zeros(2, 5, 3, 3)), r"expected \[N, 6, \*\], got \[2, 5, 3, 3\]"),
        (lambda: PositionNorm2d(6)(torch.zeros(2, 6, 3)), r"expected \[N, 6, H, W\], got \[2, 6, 3\]"),
        (lambda: LayerNorm(6)(torch.zeros(2, 6).int()), "real floating"),
        (lambda: changed(GroupNorm(2, 6), weight=nn.Parameter(torch.ones(5))), r"weight must be \[6\], got \[5\]"),
        (lambda: changed(GroupNorm(2, 6), num_groups=4), "groups must divide the 6 channels, got 4"),
        (lambda: LayerNorm(6)(torch.zeros(2, 5)), r"expected \[\.\.\., 6\], got \[2, 5\]"),
    ],
)
def test_bad_shapes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
