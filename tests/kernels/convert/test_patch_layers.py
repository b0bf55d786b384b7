"""Each layer of the package ``bcos``, patched, beside itself unpatched: values, gradients and statistics."""

import copy
import itertools
import warnings

import pytest
import torch
from torch import nn

pytest.importorskip("bcos.modules", reason="the package bcos is not installed: pip install '.[test]'")

from bcos.modules import BcosConv2d, BcosConv2dWithScale, BcosLinear, LogitLayer, norms
from bcos.modules.bcosconv2d import NormedConv2d
from bcos.modules.bcoslinear import NormedLinear
from references.bcos_zoo import error, library_mode, passes

from bcos_kernels import explanation_mode, patch, stacked, unpatch

FLOOR = {torch.float64: 1e-13, torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}
DTYPES, LAYOUTS = list(FLOOR), [torch.contiguous_format, torch.channels_last]
IMAGE, TOKENS = (3, 8, 9, 7), (2, 5, 8)

CONVOLUTIONS = {
    "3x3": lambda: BcosConv2d(8, 6, 3, padding=1),
    "stride": lambda: BcosConv2d(8, 6, (3, 2), stride=2, padding=(1, 0), b=1.5),
    "1x1, MaxOut": lambda: BcosConv2d(8, 6, 1, b=2.5, max_out=2),
    "groups, MaxOut": lambda: BcosConv2d(8, 6, 3, groups=2, max_out=3),
    "depthwise": lambda: BcosConv2d(8, 8, 5, padding=2, groups=8),
    "dilation": lambda: BcosConv2d(8, 6, 3, padding=2, dilation=2, groups=2),
    "B=1": lambda: BcosConv2d(8, 6, 3, b=1, max_out=2),
    "unpadded circular": lambda: BcosConv2d(8, 6, 3, padding_mode="circular"),
    "scale": lambda: BcosConv2dWithScale(8, 6, 3, padding=1, b=1.25),
    "normed": lambda: NormedConv2d(8, 6, 3, padding=1, padding_mode="reflect"),
}
LINEAR = {
    "linear": lambda: BcosLinear(8, 6),
    "linear, MaxOut": lambda: BcosLinear(8, 6, b=1.5, max_out=2),
    "linear, B=1": lambda: BcosLinear(8, 6, b=1),
    "normed linear": lambda: NormedLinear(8, 6),
    "layer norm": lambda: norms.DetachableLayerNorm(8),
    "layer norm of two dimensions": lambda: norms.DetachableLayerNorm((5, 8)),
    "logits": lambda: LogitLayer(logit_temperature=0.3, logit_bias=-1.5),
}
MADE_OF_CHANNELS = {
    "all": norms.AllNorm2d,
    "all, uncentered": norms.AllNormUncentered2d,
    "batch": norms.BatchNorm2d,
    "batch, uncentered": norms.BatchNormUncentered2d,
    "instance": norms.DetachableGNInstanceNorm2d,
    "instance, uncentered": norms.GNInstanceNormUncentered2d,
    "group": lambda channels: norms.DetachableGroupNorm2d(4, channels),
    "group, uncentered": lambda channels: norms.GroupNormUncentered2d(4, channels),
    "GN layer": norms.DetachableGNLayerNorm2d,
    "GN layer, uncentered": norms.GNLayerNormUncentered2d,
    "position": norms.DetachablePositionNorm2d,
    "position, uncentered": norms.PositionNormUncentered2d,
}
AFFINE = {"": lambda make: make, "no bias": norms.NoBias, "unaffine": norms.Unaffine}
NORMS = {
    f"{name} {affine}".strip(): lambda make=make, change=change: change(make)(8)
    for (name, make), (affine, change) in itertools.product(MADE_OF_CHANNELS.items(), AFFINE.items())
}


def made(make):
    """A layer with random parameters and statistics, in evaluation, and three of it in all types' precision."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, slow
        layer = make()
    for name, parameter in layer.named_parameters():
        nn.init.uniform_(parameter, 0.5 if "bias" not in name and parameter.ndim < 2 else -1, 1.5)
    if getattr(layer, "running_var", None) is not None:
        layer.running_var.uniform_(0.5, 2)
        if "Uncentered" not in type(layer).__name__:
            layer.running_mean.uniform_(-1, 1)
    return layer.eval()


def inputs(shape, dtype, layout=torch.contiguous_format):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) + 0.3
    return x.to(dtype).contiguous(memory_format=layout)


def compare(layer, x, dtype, explaining):
    """The patched layer beside the library's, in one type, against the library's in float64."""
    layer = layer.to(dtype)
    library, patched = copy.deepcopy(layer), copy.deepcopy(layer)
    truth_layer = copy.deepcopy(layer).double()
    report = patch(patched)
    assert list(report.replaced.values()) == [type(layer).__name__] and not report.left
    floor = FLOOR[dtype] * (10 if getattr(layer, "max_out", 1) > 1 else 1)  # of two units near a tie, either may win
    truth = passes(truth_layer, x.double(), library_mode(truth_layer))
    theirs = passes(library, x, library_mode(library))
    ours = passes(patched, x, explaining or library_mode(patched))
    for name, value in truth.items():
        assert ours[name].dtype == theirs[name].dtype and ours[name].shape == theirs[name].shape
        if value.numel() == 0:
            continue
        assert error(ours[name], value) <= 2 * error(theirs[name], value) + floor, name
    for name, value in truth_layer.state_dict().items():
        mine, other = patched.state_dict()[name], library.state_dict()[name]
        assert error(mine, value) <= 2 * error(other, value) + FLOOR[dtype], name


@pytest.mark.parametrize("explaining", [None, explanation_mode], ids=["their switch", "our switch"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [*CONVOLUTIONS, *NORMS])
def test_layers_of_images(name, dtype, layout, explaining):
    compare(made({**CONVOLUTIONS, **NORMS}[name]), inputs(IMAGE, dtype, layout), dtype, explaining)


@pytest.mark.parametrize("explaining", [None, explanation_mode], ids=["their switch", "our switch"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LINEAR)
def test_layers_of_tokens(name, dtype, explaining):
    compare(made(LINEAR[name]), inputs(TOKENS, dtype), dtype, explaining)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("name", [name for name in NORMS if name.startswith(("all, un", "batch, un"))])
def test_uncentered_batch_norms_in_training(name, momentum):
    """Their switch explains in training too, and goes on tracking; ours refuses to change statistics."""
    layer = made(NORMS[name]).train()
    layer.momentum = momentum
    compare(layer, inputs(IMAGE, torch.float64), torch.float64, None)
    single = made(NORMS[name]).train()  # one value a channel: a variance of 0
    compare(single, inputs((1, 8, 1, 1), torch.float64), torch.float64, None)
    patch(layer)
    with explanation_mode(), pytest.raises(ValueError, match=r"model\.eval"):
        layer(inputs(IMAGE, torch.float32).to(next(iter(layer.buffers())).dtype))


@pytest.mark.parametrize("name", ["all", "batch", "batch no bias", "batch unaffine"])
def test_centred_batch_norms_in_training(name):
    layer = made(NORMS[name]).train().double()
    patched, x = copy.deepcopy(layer), inputs(IMAGE, torch.float64)
    patch(patched)
    for _ in range(2):
        torch.testing.assert_close(patched(x), layer(x))
    torch.testing.assert_close(patched.state_dict(), layer.state_dict())
    if name != "all":
        with pytest.raises(ValueError, match="more than 1 value"):
            patched(x[:1, :, :1, :1])
    with pytest.raises(AssertionError, match="eval"):  # the library's own
        patched.set_explanation_mode(True)


@pytest.mark.parametrize("name", [*CONVOLUTIONS, *NORMS, *LINEAR])
def test_a_stacked_batch_is_the_held_linear_map(name):
    """Of each tangent what a Jacobian in explanation mode gives, without constants; of the primal the output."""
    layer = made({**CONVOLUTIONS, **NORMS, **LINEAR}[name]).double()
    patch(layer)
    x = inputs(TOKENS if name in LINEAR else IMAGE, torch.float64)
    tangents = torch.stack([x.flip(-1) * 2, x.square()])
    with explanation_mode():
        expected = [torch.autograd.functional.jvp(layer, x, v)[1] for v in tangents]
    with stacked(3), torch.no_grad():
        found = layer(torch.cat([x, *tangents])).unflatten(0, (3, -1))
    torch.testing.assert_close(found[0], layer(x))
    torch.testing.assert_close(found[1:], torch.stack(expected))


def test_a_layer_goes_back_to_what_it_was():
    for make in {**CONVOLUTIONS, **NORMS, **LINEAR}.values():
        layer = made(make)
        kind, held = type(layer), dict(layer.__dict__)
        patch(layer)
        assert type(layer) is not kind and isinstance(layer, kind)
        assert unpatch(layer) == [""]
        assert type(layer) is kind and layer.__dict__ == held


def test_every_norm_of_the_library_is_here():
    known = {type(made(make)) for make in (*NORMS.values(), *LINEAR.values())}
    modules = (norms.centered_norms, norms.uncentered_norms)
    assert {getattr(m, name) for m in modules for name in dir(m) if name.endswith(("Norm", "Norm2d", "Uncentered2d"))
            and isinstance(getattr(m, name), type) and issubclass(getattr(m, name), nn.Module)} <= known  # fmt: skip
