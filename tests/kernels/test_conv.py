"""bcos_conv2d against a loop over patches in float64 that shares no code with it."""

import itertools

import pytest
import torch
from references.conv import slow
from torch import nn
from torch.nn import functional as F

from bcos_kernels import BcosConv2d, explanation_mode, stacked
from bcos_kernels.functional import bcos_conv2d

EXPONENTS = [1, 1.5, 2, 2.5]
# channels, outputs, (H, W), kernel, and the options of the layer
GEOMETRIES = {
    "pixel": (4, 3, (5, 6), (1, 1), {}),
    "patch": (3, 4, (6, 5), (3, 3), {"padding": 1}),
    "strided": (3, 4, (9, 8), (3, 2), {"stride": (2, 3), "padding": (1, 0)}),
    "pixel_strided": (4, 2, (6, 7), (1, 1), {"stride": 2}),
    "dilated": (2, 3, (9, 10), (3, 2), {"dilation": (2, 3), "padding": (2, 1)}),
    "dilated_both": (2, 3, (9, 8), (3, 3), {"dilation": 2}),
    "grouped": (6, 4, (5, 6), (3, 3), {"groups": 2, "padding": 1}),
    "depthwise": (4, 4, (5, 5), (3, 3), {"groups": 4, "padding": 1}),
    "same": (3, 4, (6, 7), (3, 3), {"padding": "same"}),
    "same_even_dilated": (3, 2, (7, 6), (2, 4), {"padding": "same", "dilation": (3, 1)}),
    "same_reflect": (3, 2, (6, 5), (3, 2), {"padding": "same", "padding_mode": "reflect"}),
    "valid": (3, 4, (6, 7), (3, 3), {"padding": "valid"}),
    "reflect": (3, 4, (6, 5), (3, 3), {"padding": (2, 1), "padding_mode": "reflect"}),
    "replicate": (3, 4, (4, 5), (3, 3), {"padding": (3, 1), "padding_mode": "replicate", "stride": 2}),
    "circular": (4, 4, (5, 6), (3, 3), {"padding": (1, 2), "padding_mode": "circular", "groups": 2}),
}
LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "strided": lambda x: x.repeat_interleave(2, 3)[:, :, :, ::2],
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def tensors(geometry, max_out=1, batch=2):
    channels, outputs, size, kernel, options = GEOMETRIES[geometry]
    groups = options.get("groups", 1)
    return random(batch, channels, *size), random(outputs * max_out, channels // groups, *kernel, seed=1), options


@pytest.mark.parametrize("b", EXPONENTS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_values(geometry, b, backend):
    x, weight, options = tensors(geometry)
    expected = slow(x, weight, b, **options)
    assert expected.abs().max() > 0.1
    for layout, lay in LAYOUTS.items():
        out = bcos_conv2d(lay(x), weight, b, **options)
        torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-12, msg=lambda m, at=layout: f"{at}: {m}")


@pytest.mark.parametrize("convention", "ABC")
@pytest.mark.parametrize("max_out", [1, 3])
@pytest.mark.parametrize("b", EXPONENTS)
def test_conventions_and_maxout(b, max_out, convention, backend):
    x, weight, options = tensors("grouped", max_out)
    expected = slow(x, weight, b, max_out, convention=convention, **options)
    out = bcos_conv2d(x, weight, b, max_out, convention=convention, **options)
    torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-12)


def test_the_loop_tells_conventions_and_exponents_apart():
    x, weight, options = tensors("patch", 2, batch=1)
    found = [slow(x, weight, b, 2, convention=c, **options) for b in EXPONENTS for c in "ABC"]
    same = [(i, j) for i, j in itertools.combinations(range(12), 2) if torch.allclose(found[i], found[j], rtol=1e-2)]
    assert same == [(1, 2)]  # with b = 1, B and C are the plain convolution


def composed(x, weight, padding=1):
    """The formula of B-cos-v2 for b = 2, operation by operation in x's own dtype."""
    y = F.conv2d(x, weight / torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True), padding=padding)
    n = (F.avg_pool2d((x**2).sum(1, keepdim=True), 3, padding=padding, stride=1) * 9 + 1e-6).sqrt()
    return y.abs() / n * y


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_error_in_a_dtype_is_that_of_torch(dtype, layout, backend):
    x, weight = LAYOUTS[layout](random(2, 16, 9, 8, dtype=dtype)), random(8, 16, 3, 3, seed=1, dtype=dtype)
    upstream = random(2, 8, 9, 8, seed=2, dtype=dtype)

    def run(layer, wide):
        a, w, g = (t.to(wide).detach().requires_grad_() for t in (x, weight, upstream))
        out = layer(a, w)
        return [t.detach() for t in (out, *torch.autograd.grad(out, (a, w), g))]

    def ours(a, w):
        return bcos_conv2d(a, w, padding=1)

    found = zip(run(ours, dtype), run(composed, dtype), run(composed, torch.float64), strict=True)
    for what, (mine, torchs, truth) in zip(("out", "dx", "dw"), found, strict=True):
        assert mine.dtype == dtype
        errors = [float((t.double() - truth).norm() / truth.norm()) for t in (mine, torchs)]
        assert errors[0] <= 2 * errors[1] + torch.finfo(dtype).eps / 8, (what, errors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("b", EXPONENTS)
def test_explanation_mode_does_not_change_a_bit(b, dtype, backend):
    for options in ({}, {"max_out": 2}, {"convention": "C"}, {"convention": "B", "padding_mode": "reflect"}):
        x, weight = random(2, 4, 7, 6, dtype=dtype), random(8, 4, 3, 3, seed=1, dtype=dtype)
        plain = bcos_conv2d(x, weight, b, padding=1, **options)
        with explanation_mode():
            assert torch.equal(bcos_conv2d(x, weight, b, padding=1, **options), plain)


def test_output_keeps_the_memory_format(backend):
    x, weight = random(2, 4, 6, 6), random(8, 4, 3, 3, seed=1)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        ours = bcos_conv2d(x.contiguous(memory_format=memory_format), weight)
        plain = F.conv2d(x.contiguous(memory_format=memory_format), weight)
        assert ours.stride() == plain.stride()


# The defects of the reference library that must not return (mathematics §1).


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_cosine_never_exceeds_one_under_any_padding(mode):
    x = random(1, 2, 6, 6) * torch.linspace(0, 9, 6).view(1, 1, 1, 6).double()  # the most at the border
    patch = F.pad(x, (1, 1, 1, 1), mode)[0, :, 3:6, -3:]
    y = bcos_conv2d(x, patch[None], b=1, padding=1, padding_mode=mode)
    out = bcos_conv2d(x, patch[None], b=2, padding=1, padding_mode=mode)
    cosine = (out / y).abs()
    assert cosine.max() <= 1 + 1e-12
    assert cosine[0, 0, 3, -1] == pytest.approx(1, abs=1e-6)  # a filter that is its patch


@pytest.mark.parametrize("b", EXPONENTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("convention", "ABC")
def test_zeros_give_zero_and_finite_gradients(convention, dtype, b, backend):
    some, none = random(4, 2, 3, 3, dtype=dtype), torch.zeros(4, 2, 3, 3, dtype=dtype)
    for x, weight in ((some, none), (none, some), (none, none)):
        x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
        out = bcos_conv2d(x, weight, b, max_out=2, padding=1, convention=convention)
        gradients = torch.autograd.grad(out.sum(), (x, weight))
        assert not out.any()
        assert all(torch.isfinite(g).all() for g in gradients)


def test_half_precision_does_not_overflow_in_the_norm(backend):
    x = torch.full((1, 4, 3, 3), 1000.0, dtype=torch.float16)  # squares are beyond fp16, the result is not
    out = bcos_conv2d(x, torch.ones(1, 4, 3, 3, dtype=torch.float16))
    assert out.item() == pytest.approx(6000, rel=2e-3)


@pytest.mark.parametrize("shape", [(0, 3, 5, 5), (0, 3, 3, 3)])
def test_empty_batch(shape, backend):
    x, weight = torch.zeros(shape, requires_grad=True), random(4, 3, 3, 3, dtype=torch.float32).requires_grad_()
    out = bcos_conv2d(x, weight, b=1.5)
    dx, dw = torch.autograd.grad(out.sum(), (x, weight))
    assert out.shape == (0, 4, shape[2] - 2, shape[3] - 2)
    assert dx.shape == x.shape
    assert not dw.any()


def test_an_image_without_a_batch():
    x, weight = random(3, 5, 5), random(4, 3, 3, 3, seed=1)
    assert torch.equal(bcos_conv2d(x, weight), bcos_conv2d(x[None], weight)[0])
    with stacked(3), pytest.raises(ValueError, match="batch dimension"):
        bcos_conv2d(x, weight)


def test_autocast_computes_in_its_type_and_keeps_parameters_wide():
    x, weight = (t.float().requires_grad_() for t in (random(2, 4, 6, 6), random(8, 4, 3, 3, seed=1)))
    with torch.autocast("cpu", torch.bfloat16):
        out = bcos_conv2d(x, weight, padding=1)
        assert bcos_conv2d(x.double(), weight.double()).dtype == torch.float64  # as F.conv2d
    dx, dw = torch.autograd.grad(out.float().square().sum(), (x, weight))
    assert (out.dtype, dx.dtype, dw.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    truth = slow(x.detach().double(), weight.detach().double(), padding=1)
    assert (out.double() - truth).norm() < 1e-2 * truth.norm()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": 0.5}, "b must be"),
        ({"b": float("nan")}, "b must be"),
        ({"b": float("inf")}, "b must be"),
        ({"max_out": 0}, "max_out"),
        ({"max_out": 3}, "max_out"),
        ({"convention": "D"}, "convention"),
        ({"groups": 3}, "groups"),
        ({"groups": 0}, "groups"),
        ({"stride": 0}, "stride"),
        ({"stride": (1, 2, 3)}, "stride"),
        ({"dilation": 0}, "dilation"),
        ({"dilation": 1.5}, "dilation"),
        ({"padding": -1}, "padding"),
        ({"padding": "full"}, "padding"),
        ({"padding": "same", "stride": 2}, "stride 1"),
        ({"padding_mode": "mirror"}, "padding_mode"),
        ({"padding": 5, "padding_mode": "reflect"}, "reflect"),
        ({"padding": 6, "padding_mode": "circular"}, "circular"),
        ({"dilation": 3}, "does not fit"),
        ({"x": torch.ones(2, 3, 5, 5)}, "channels"),
        ({"x": torch.ones(2, 4, 5)}, "channels|expected"),
        ({"x": torch.ones(4, 5)}, "expected"),
        ({"x": torch.ones(2, 4, 5, 5, dtype=torch.long)}, "floating"),
        ({"x": torch.ones(2, 4, 5, 5, dtype=torch.complex64)}, "floating"),
        ({"x": torch.ones(2, 4, 5, 5, dtype=torch.float64)}, "one dtype"),
        ({"weight": torch.ones(8, 4)}, "expected"),
    ],
)  # fmt: skip
def test_bad_input_is_named(change, message):
    good = {"x": torch.ones(2, 4, 5, 5), "weight": torch.ones(8, 4, 3, 3)}
    assert bcos_conv2d(**good).shape == (2, 8, 3, 3)
    with pytest.raises(ValueError, match=message):
        bcos_conv2d(**(good | change))


class TestModule:
    def test_signature_is_that_of_bcos(self):
        layer = BcosConv2d(6, 4, 3, 2, 1, 1, 2, "reflect", None, torch.float64, 1.5, 2)
        assert (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride) == (6, 4, 3, 2)
        assert (layer.padding, layer.dilation, layer.groups, layer.padding_mode) == (1, 1, 2, "reflect")
        assert (layer.b, layer.max_out) == (1.5, 2)
        x, weight = random(2, 6, 7, 6), layer.linear.weight.detach()
        expected = slow(x, weight, 1.5, 2, stride=2, padding=1, groups=2, padding_mode="reflect")
        torch.testing.assert_close(layer(x), expected, rtol=1e-11, atol=1e-12)

    def test_state_is_one_weight(self):
        state = nn.Sequential(BcosConv2d(6, 4, 3, groups=2, max_out=3)).state_dict()
        assert {name: tuple(t.shape) for name, t in state.items()} == {"0.linear.weight": (12, 3, 3, 3)}

    def test_defaults_are_those_of_bcos(self):
        layer = BcosConv2d(3, 4)
        assert tuple(layer.linear.weight.shape) == (4, 3, 1, 1)
        assert (layer.b, layer.max_out, layer.convention) == (2, 1, "A")

    def test_unknown_keywords_are_ignored_as_in_bcos_but_a_bias_is_refused(self):
        BcosConv2d(3, 4, 3, bias=False)
        with pytest.raises(ValueError, match="bias"):
            BcosConv2d(3, 4, 3, bias=True)

    def test_its_linear_part_has_unit_filters(self):
        layer, x = BcosConv2d(3, 4, 3, padding=1, dtype=torch.float64), random(2, 3, 5, 5)
        torch.testing.assert_close(layer.linear(x), slow(x, layer.linear.weight.detach(), b=1, padding=1))

    @pytest.mark.parametrize("bad", [{"b": 0}, {"max_out": 0}, {"convention": "a"}])
    def test_bad_options_are_refused_at_once(self, bad):
        with pytest.raises(ValueError, match=next(iter(bad))):
            BcosConv2d(3, 4, 3, **bad)


def test_a_number_that_equals_a_good_one_is_refused_all_the_same():
    x, weight = torch.ones(1, 2, 4, 4), torch.ones(2, 2, 3, 3)
    bcos_conv2d(x, weight, stride=1, padding=(1, 1))  # remembered
    for options in ({"stride": 1.0, "padding": (1, 1)}, {"stride": 1, "padding": (1.0, 1)}):
        with pytest.raises(ValueError, match="must be an integer"):
            bcos_conv2d(x, weight, **options)
