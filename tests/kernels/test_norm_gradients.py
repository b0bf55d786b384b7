"""Derivatives of the bias-free norms: by gradcheck, and under explanation by a map whose deviation is written down."""

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from bcos_kernels.mode import explanation_mode, stacked
from bcos_kernels.modules.norms import BatchNorm2d, GroupNorm, LayerNorm, PositionNorm2d

EPS = 1e-2
KINDS = {"centred": (True, True), "deviation": (False, True), "rms": (False, False)}
# Norm -> (module of (centred, about_mean), shape of x)
SPANS = {
    "group": (lambda c, a: GroupNorm(2, 4, EPS, c, about_mean=a), (2, 4, 2, 3)),
    "group of a sequence": (lambda c, a: GroupNorm(2, 4, EPS, c, about_mean=a), (2, 4, 3)),
    "group of a volume": (lambda c, a: GroupNorm(1, 2, EPS, c, about_mean=a), (2, 2, 2, 1, 3)),
    "layer": (lambda c, a: LayerNorm(4, EPS, c, about_mean=a), (2, 3, 4)),
    "layer of a vector": (lambda c, a: LayerNorm(4, EPS, c, about_mean=a), (2, 4)),
    "layer of an image": (lambda c, a: LayerNorm(3, EPS, c, about_mean=a), (2, 2, 2, 3)),
    "layer of a volume": (lambda c, a: LayerNorm(3, EPS, c, about_mean=a), (2, 1, 2, 2, 3)),
    "position": (lambda c, a: PositionNorm2d(4, EPS, centred=c, about_mean=a), (2, 4, 2, 3)),
    "batch": (
        lambda c, a: BatchNorm2d(3, EPS, track_running_stats=False, centred=c, about_mean=a),
        (2, 3, 2, 3),
    ),
}
CASES = pytest.mark.parametrize("kind", KINDS)
ALL = pytest.mark.parametrize("span", SPANS)


def random(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(span, kind):
    """A norm as a function of (x, weight), and both."""
    make, shape = SPANS[span]
    norm = make(*KINDS[kind]).double()
    weight = (random(norm.weight.shape, 1) + 1).requires_grad_()

    def function(x, weight):
        return torch.func.functional_call(norm, {"weight": weight}, (x,))

    return function, (random(shape) + 0.5).requires_grad_(), weight


def axes_of(span, x):
    """x with its groups apart, and the axes of statistics."""
    if span.startswith("group"):
        groups = 1 if "volume" in span else 2
        return x.reshape(x.shape[0], groups, -1, *x.shape[2:]), tuple(range(2, x.ndim + 1))
    return x, {"layer": (-1,), "position": (1,), "batch": (0, 2, 3)}[span.split()[0]]


def frozen(span, kind, x):
    """The linear map ``(v, weight) -> weight (v - mean(v)) r`` with r the number that it is at x."""
    centred, about_mean = KINDS[kind]
    grouped, axes = axes_of(span, x.detach())
    about = grouped.mean(axes, keepdim=True) if about_mean else 0
    r = 1 / ((grouped - about).pow(2).mean(axes, keepdim=True) + EPS).sqrt()

    def linear(v, weight):
        parts, axes = axes_of(span, v)
        out = (parts - parts.mean(axes, keepdim=True) if centred else parts) * r
        shape = [-1] if span.startswith("layer") else [-1, *[1] * (v.ndim - 2)]
        return out.reshape(v.shape) * weight.view(shape)

    return linear


@CASES
@ALL
def test_training(span, kind, backend):
    function, x, weight = build(span, kind)
    assert gradcheck(function, (x, weight), check_forward_ad=True)
    assert gradgradcheck(function, (x, weight), fast_mode=True)


@CASES
@ALL
def test_forward_mode_without_a_graph(span, kind, backend):
    """Through the op's own derivative: there is no graph, so no detour by the reference."""
    function, x, weight = build(span, kind)
    x, weight, v, u = x.detach(), weight.detach(), random(x.shape, 2), random(weight.shape, 3)
    step = 1e-6
    for one, two in ((v, u), (v, torch.zeros_like(u)), (torch.zeros_like(v), u)):
        with torch.no_grad(), forward_ad.dual_level():
            duals = (
                forward_ad.make_dual(t, d) if d.any() else t for t, d in ((x, one), (weight, two))
            )  # fmt: skip
            value, tangent = forward_ad.unpack_dual(function(*duals))
            assert torch.equal(value, function(x, weight))
        ahead, behind = (function(x + s * one, weight + s * two) for s in (step, -step))
        torch.testing.assert_close(tangent, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-7)


@CASES
@ALL
def test_explanation_is_the_frozen_map(span, kind, backend):
    function, x, weight = build(span, kind)
    linear, upstream = frozen(span, kind, x), random(x.shape, 4)
    v, u = random(x.shape, 2), random(weight.shape, 3)
    plain = function(x, weight)
    with explanation_mode():
        out = function(x, weight)
    assert torch.equal(out, plain)
    torch.testing.assert_close(out, linear(x, weight))
    for wanted in ((x, weight), (x,), (weight,)):
        expected = torch.autograd.grad(linear(x, weight), wanted, upstream)
        for found, truth in zip(torch.autograd.grad(out, wanted, upstream, retain_graph=True), expected, strict=True):
            torch.testing.assert_close(found, truth)
    with torch.no_grad(), explanation_mode(), forward_ad.dual_level():
        pushed = function(forward_ad.make_dual(x.detach(), v), forward_ad.make_dual(weight.detach(), u))
        tangent = forward_ad.unpack_dual(pushed).tangent
    _, truth = torch.autograd.functional.jvp(linear, (x, weight), (v, u))
    torch.testing.assert_close(tangent, truth)


@CASES
@ALL
def test_matrix_of_the_explanation(span, kind, backend):
    """Identity 3 of mathematics §3: W column by column, from the frozen map, and row by row, from the backward pass."""
    function, x, weight = build(span, kind)
    x, weight, linear = x.detach(), weight.detach(), frozen(span, kind, x)
    columns = torch.stack([linear(e.view(x.shape), weight).flatten() for e in torch.eye(x.numel()).double()], 1)
    with explanation_mode():
        rows = torch.autograd.functional.jacobian(lambda x: function(x, weight), x).reshape(columns.shape)
        batched = torch.func.jacrev(function)(x, weight).reshape(columns.shape)
    torch.testing.assert_close(rows, columns)
    torch.testing.assert_close(batched, columns)
    torch.testing.assert_close(columns @ x.flatten(), function(x, weight).flatten())


@CASES
@ALL
@pytest.mark.parametrize("graph", [False, True])
def test_a_stacked_batch_is_the_frozen_map(span, kind, graph, backend):
    function, x, weight = build(span, kind)
    linear, tangents = frozen(span, kind, x), [random(x.shape, seed).requires_grad_() for seed in (2, 3)]
    with torch.set_grad_enabled(graph), stacked(3):
        out = function(torch.cat([x, *tangents]), weight)
    assert torch.equal(out[: len(x)], function(x, weight))
    expected = torch.cat([linear(v, weight) for v in (x, *tangents)])
    torch.testing.assert_close(out, expected)
    if graph:
        upstream, wanted = random(out.shape, 4), (x, *tangents, weight)
        pairs = zip(*(torch.autograd.grad(o, wanted, upstream) for o in (out, expected)), strict=True)
        for found, truth in pairs:
            torch.testing.assert_close(found, truth)


@CASES
@ALL
def test_transforms_of_torch_func(span, kind):
    function, x, weight = build(span, kind)
    x, weight = x.detach(), weight.detach()
    several = torch.stack([x, 2 * x - 1])
    each = torch.stack([function(one, weight) for one in several])
    torch.testing.assert_close(torch.vmap(function, (0, None))(several, weight), each)
    expected = torch.autograd.functional.jacobian(function, (x, weight))
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        for found, truth in zip(jacobian(function, (0, 1))(x, weight), expected, strict=True):
            torch.testing.assert_close(found, truth)
    batched = torch.autograd.functional.jacobian(function, (x, weight), vectorize=True)
    for found, truth in zip(batched, expected, strict=True):
        torch.testing.assert_close(found, truth)


@ALL
def test_a_weight_made_from_the_input_is_not_counted_twice(span):
    function, x, weight = build(span, "centred")
    made = x.flatten()[: len(weight)] * 2
    total = function(x, made).square().sum()
    once, again = (torch.autograd.grad(total, x, create_graph=c, retain_graph=True)[0] for c in (False, True))
    torch.testing.assert_close(once, again)


@CASES
@ALL
def test_compiled_norms_agree(span, kind):
    make, shape = SPANS[span]
    norm, x = make(*KINDS[kind]).double(), random(shape).requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(norm, backend="aot_eager", fullgraph=True)
    pairs = zip(*(torch.autograd.grad(f(x).square().sum(), (x, norm.weight)) for f in (norm, compiled)), strict=True)
    for found, truth in pairs:
        torch.testing.assert_close(found, truth)


@CASES
@ALL
@pytest.mark.parametrize("held", [False, True])
def test_what_a_norm_keeps(span, kind, held, backend):
    """x and its weight, and per group a mean and an inverse deviation."""
    if backend == "reference":
        pytest.skip("what the reference computes is large, what is kept is the same")
    make, shape = SPANS[span]
    norm, x = make(*KINDS[kind]), torch.randn(*shape[:2], *(8 * n for n in shape[2:-1]), shape[-1], requires_grad=True)
    parts, axes = axes_of(span, x)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        if held:
            with explanation_mode():
                norm(x)
        else:
            norm(x)
    for own in (x, norm.weight):
        kept.pop(own.untyped_storage().data_ptr())
    assert sum(kept.values()) == 4 * parts.mean(axes).numel() * (2 if KINDS[kind][1] else 1)


@ALL
def test_half_types_make_no_wide_copy(span, backend, monkeypatch):
    """Nothing of the size of x in fp32 is allocated, forward or backward."""
    if backend == "reference":
        pytest.skip("the reference makes one")
    make, shape = SPANS[span]
    norm, x = make(True, True).bfloat16(), (torch.randn(shape) * 2 + 1).bfloat16().requires_grad_()
    grad, found = torch.randn(shape).bfloat16(), []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            found.extend(t.dtype for t in (out if isinstance(out, tuple) else (out,))
                         if isinstance(t, torch.Tensor) and t.numel() >= x.numel())  # fmt: skip
            return out

    with Watch():
        out = norm(x)
        out.backward(grad)
    assert found and set(found) == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@ALL
def test_autocast_keeps_the_type_of_the_input(span, dtype):
    make, shape = SPANS[span]
    norm, x = make(True, True), torch.randn(shape)
    with torch.autocast("cpu", dtype):
        assert norm(x).dtype == torch.float32
        out = norm(x.to(dtype))
    assert out.dtype == dtype and norm.weight.dtype == torch.float32
    torch.testing.assert_close(out, norm(x.to(dtype).float()).to(dtype))


def test_integers_are_refused():
    with pytest.raises(ValueError, match=r"floating tensor, got torch\.int64"):
        LayerNorm(4)(torch.ones(2, 4, dtype=torch.int64))
