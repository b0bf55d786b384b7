"""``torch.ops.bcos_kernels``: schema, shapes, gradients and refusals of operators, and layers under torch.compile."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.library import opcheck

from bcos_kernels import explanation_mode, stacked
from bcos_kernels.functional import bcos_conv2d, bcos_linear
from bcos_kernels.ops.epilogue import reference

ops = torch.ops.bcos_kernels
WINDOW = ((3, 2), (2, 1), (1, 0, 0, 1), (1, 2))
GROUPS = 2


def random(*shape, seed=0, positive=False):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.abs() + 1 if positive else x


IMAGE, RESPONSE = random(2, 4, 7, 6), random(2, 6, 4, 4, seed=1)
NORMS, LENGTHS = random(2, GROUPS, 4, 4, seed=2, positive=True), random(6, seed=3, positive=True)
ROWS, ROW_NORMS = random(5, 3, seed=4), random(5, seed=5, positive=True)


def calls():
    """Name and arguments of every operator, those in place on tensors of their own."""
    patches = reference.patch_norm(IMAGE, *WINDOW, GROUPS, 0.0)
    yield "row_norm", (ROWS, 1e-12)
    yield "patch_norm", (IMAGE, *WINDOW, GROUPS, 1e-6)
    for b in (1.5, 2.0):
        for lengths in (None, LENGTHS):
            yield "scale", (RESPONSE, NORMS, lengths, b, 1e-6)
            yield "scale_", (RESPONSE.clone(), NORMS, lengths, b, 1e-6)
            yield "apply_factor", (RESPONSE.repeat(3, 1, 1, 1), RESPONSE, NORMS, lengths, b, 1e-6)
            yield "scale_backward", (RESPONSE, RESPONSE, NORMS, lengths, b, 1e-6)
    yield "scale", (ROWS, ROW_NORMS, None, 2.0, 0.0)
    yield "project_rows", (ROWS.clone(), ROWS, ROW_NORMS)
    yield "spread", (IMAGE.clone(), IMAGE, patches, *WINDOW, GROUPS)
    yield "spread_rows", (ROWS.clone(), ROWS, ROW_NORMS)


CALLS = list(calls())


def fresh(arguments, requires_grad=False):
    return [a.clone().requires_grad_(requires_grad) if isinstance(a, torch.Tensor) else a for a in arguments]


@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_opcheck(name, arguments):
    opcheck(getattr(ops, name), fresh(arguments))


@pytest.mark.parametrize(("name", "arguments"), [c for c in CALLS if c[0] in ("row_norm", "patch_norm", "scale")])
def test_gradients(name, arguments, backend):
    operator, arguments = getattr(ops, name), fresh(arguments, requires_grad=True)
    opcheck(operator, arguments)
    assert gradcheck(operator, arguments)
    assert gradgradcheck(operator, arguments, fast_mode=True)


@pytest.mark.parametrize(("name", "arguments"), [c for c in CALLS if c[0] == "apply_factor"])
def test_the_factor_is_a_constant_and_the_rest_linear(name, arguments, backend):
    v, kept, n, lengths, b, delta = fresh(arguments)
    v.requires_grad_()
    assert gradcheck(lambda v: ops.apply_factor(v, kept, n, lengths, b, delta), (v,))
    if lengths is None:
        return
    lengths.requires_grad_()
    out = ops.apply_factor(v, kept, n, lengths, b, delta)
    (found,) = torch.autograd.grad(out.square().sum(), lengths)
    per_unit = (2 * out.detach() ** 2).sum((0, 2, 3))  # out = v / lengths times a constant
    torch.testing.assert_close(found, -per_unit / lengths.detach())


def test_refusals_say_what_is_accepted(backend):
    x, w = torch.ones(1, 4, 3, 3), torch.ones(4, 3, 2, 2)
    window = ((3, 3), (1, 1), (0, 0, 0, 0), (1, 1))
    for message, call in {
        "2 dimensions": lambda: ops.row_norm(x, 0.0),
        "4 dimensions": lambda: ops.patch_norm(x[0], *window, 1, 0.0),
        "divide": lambda: ops.patch_norm(x, *window, 3, 0.0),
        "does not fit": lambda: ops.patch_norm(x, (5, 5), *window[1:], 1, 0.0),
        "at least 1 and padding": lambda: ops.patch_norm(x, (3, 3), (0, 1), *window[2:], 1, 0.0),
        "n must be": lambda: ops.scale(x, x[:, :1, :, :2], None, 2.0, 0.0),
        "b must be at least 1": lambda: ops.scale(x, x[:, :1], None, 0.5, 0.0),
        "grad must be": lambda: ops.scale_backward(x.half(), x, x[:, :1], None, 2.0, 0.0),
        "lengths must be": lambda: ops.scale_(x, x[:, :1], x[0, 0, 0], 2.0, 0.0),
        "one order": lambda: ops.project_rows(w, w.contiguous(memory_format=torch.channels_last), w[:, 0, 0, 0]),
        "parts like y": lambda: ops.apply_factor(x[:, :3], x, x[:, :1], None, 2.0, 0.0),
        "c must be": lambda: ops.spread(x.clone(), x, x[:, :1], *window, 1),
        "share memory": lambda: ops.spread_rows(x[0, :1, 0].expand(3, 3), x[0, 0], x[0, 0, 0]),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()


def _held(layer):
    def held(*inputs):
        with explanation_mode():
            return layer(*inputs)

    return held


def _in_two_parts(layer):
    def stack(*inputs):
        with stacked(2):
            return layer(*inputs)

    return stack


LAYERS = {
    "linear": lambda x, w: bcos_linear(x.flatten(2), w.flatten(1)),
    "conv": lambda x, w: bcos_conv2d(x, w, padding=1),
    "half power": lambda x, w: bcos_conv2d(x, w, 1.5, padding="same"),
    "maxout": lambda x, w: bcos_conv2d(x, w, max_out=2, stride=2, padding=1),
    "lengths kept": lambda x, w: bcos_conv2d(x, w, max_out=2, convention="C"),
    "as it is": lambda x, w: bcos_conv2d(x, w, convention="B", padding=1, padding_mode="reflect"),
    "linear layer": lambda x, w: bcos_conv2d(x, w, b=1),
    "written to": lambda x, w: bcos_conv2d(x, w).mul_(2).sin_(),
    "explained": _held(lambda x, w: bcos_conv2d(x, w, padding=1)),
    "stack": _in_two_parts(lambda x, w: bcos_conv2d(x, w, 1.5, padding=1)),
}


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_compile_whole_for_any_batch(name, compiler):
    torch._dynamo.reset()
    layer = LAYERS[name]
    compiled = torch.compile(layer, backend=compiler, fullgraph=True, dynamic=True)
    for batch in (4, 6):
        x, w = random(batch, 3, 9, 9), random(6, 3, 3, 3, seed=1)
        if name == "linear":
            w = random(6, 81, seed=1)
        with torch.compiler.set_stance("fail_on_recompile" if batch == 6 else "default"):
            found = _out_and_gradients(compiled, x, w)
        for a, b in zip(found, _out_and_gradients(layer, x, w), strict=True):
            torch.testing.assert_close(a, b)


def _out_and_gradients(layer, x, w):
    x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
    out = layer(x, w)
    return out, *torch.autograd.grad(out, (x, w), random(*out.shape, seed=7))


def test_transforms_compile():
    x, w = random(4, 5), random(3, 5, seed=1)
    for f in (
        lambda x, w: torch.vmap(lambda row: bcos_linear(row, w))(x),
        lambda x, w: torch.func.grad(lambda t: bcos_linear(t, w).square().sum())(x),
    ):
        torch._dynamo.reset()
        torch.testing.assert_close(torch.compile(f, backend="aot_eager", fullgraph=True)(x, w), f(x, w))
