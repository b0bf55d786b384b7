"""Relevance by head, token and pixel, by every backend, against probabilities written out in float64.

Tolerance: at most twice the error of plain torch in the same type (probabilities and products in that type), plus a
floor of a few roundings of the accumulation type relative to the magnitudes that enter each sum. A logit is rounded
relative to its own size, which moves its probability by as much: the floor counts that too.
"""

import importlib.util

import pytest
import torch
from references.epilogue import accumulator, inside, random
from torch.nn import functional as F

from bcos_kernels import dispatch, native
from bcos_kernels.ops.attention_relevance import cpu
from bcos_kernels.ops.attention_relevance.held import attend
from bcos_kernels.ops.attention_relevance.op import attention_backward, attention_relevance, attention_relevance_maps
from bcos_kernels.sdpa import sdpa

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# samples, heads, pixels, tokens, features of keys, features of values
SIZES = {
    "cross": (2, 3, 37, 5, 8, 8),
    "one token": (1, 2, 20, 1, 4, 6),
    "one pixel": (2, 1, 1, 19, 5, 3),
    "many tokens": (1, 2, 33, 100, 24, 40),
    "many pixels": (1, 1, 150, 70, 16, 16),
    "wide heads": (1, 1, 20, 40, 72, 130),
}
EMPTY = {"no token": (2, 3, 4, 0, 5, 5), "no pixel": (2, 3, 0, 4, 5, 5), "no sample": (0, 3, 4, 4, 5, 5)}
BIASES = ["none", "keys", "pixels", "added"]


@pytest.fixture(params=["cpu", "triton", "reference"])
def backend(request, monkeypatch):
    if request.param == "cpu" and native.load() is None:
        pytest.skip(native.why_missing())
    if request.param == "triton":
        if importlib.util.find_spec("triton") is None:
            pytest.skip("triton is not installed")
        if DEVICE == "cpu":
            monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(dispatch, "wanted", request.param)
    return request.param


def drawn(backend, sizes, dtype):
    """q, k, v and g."""
    if backend == "triton" and dtype == torch.float64:
        pytest.skip("the Triton kernels take no float64")
    if backend == "triton" and DEVICE == "cpu" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter multiplies matrices of bfloat16 as if they were integers")
    n, heads, pixels, tokens, d, e = sizes
    shapes = (n, heads, pixels, d), (n, heads, tokens, d), (n, heads, tokens, e), (n, heads, pixels, e)
    return [random(shape, dtype, i, DEVICE if backend == "triton" else "cpu") for i, shape in enumerate(shapes)]


def bias_of(kind, q, k):
    """A bias, and the same as numbers to add in float64; the first sample's first row sees no token."""
    n, heads, pixels, tokens = *q.shape[:3], k.shape[2]
    if kind == "none":
        return None, 0.0
    shape = (n, 1, 1, tokens) if kind == "keys" else (n, heads, pixels, tokens)
    drawn = random(shape, torch.float64, 7, q.device)
    if kind == "added":
        return drawn.to(q.dtype), drawn.to(q.dtype).double()
    shown = drawn > -0.3
    shown[:1, :, :1] = False
    return shown, torch.where(shown, 0.0, -torch.inf)


def true(q, k, v, g, added, scale, dtype=torch.float64):
    """Relevance by pixel, and the gradient of the values, with every probability in memory."""
    q, k, v, g = (t.to(dtype) for t in (q, k, v, g))
    logits = q @ k.transpose(2, 3) * scale
    odds = (logits if isinstance(added, float) else logits + added.to(dtype)).softmax(-1).nan_to_num(0.0)
    return odds * (g @ v.transpose(2, 3)), odds.transpose(2, 3) @ g, odds


def close(found, expected, theirs, magnitude, where):
    error, allowed = (found.double() - expected).norm(), (theirs.double() - expected).norm()
    floor = torch.finfo(accumulator(found.dtype)).eps * magnitude.norm()
    rounding = torch.finfo(found.dtype).eps * expected.norm()
    assert found.shape == expected.shape, where
    assert error <= 2 * allowed + floor + rounding, f"{where}: {error} of {allowed}"


def compare(q, k, v, g, kind, where, scale=None):
    bias, added = bias_of(kind, q, k)
    used = q.shape[3] ** -0.5 if scale is None else scale
    maps, grad_v, odds = true(q, k, v, g, added, used)
    their_maps, their_grad_v, _ = true(q, k, v, g, added, used, q.dtype)
    rounded = 16 + float((q.double() @ k.double().transpose(2, 3)).abs().max() * used)
    magnitude = rounded * odds * (g.double().abs() @ v.double().abs().transpose(2, 3))
    relevance, gradient = attention_backward(q, k, v, g, bias, scale)
    alone = attention_relevance(q, k, v, g, bias, scale)
    assert relevance.dtype == alone.dtype == accumulator(q.dtype) and gradient.dtype == v.dtype
    assert gradient.is_contiguous()
    for r in (relevance, alone):
        close(r, maps.sum(2), their_maps.sum(2), magnitude.sum(2), where)
    close(gradient, grad_v, their_grad_v, rounded * odds.transpose(2, 3) @ g.double().abs(), where)
    by_head = attention_relevance_maps(q, k, v, g, bias, scale, sum_heads=False)
    summed = attention_relevance_maps(q, k, v, g, bias, scale)
    assert by_head.dtype == summed.dtype == accumulator(q.dtype)
    close(by_head, maps, their_maps, magnitude, where)
    close(summed, maps.sum(1), their_maps.sum(1), magnitude.sum(1), where)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", BIASES)
@pytest.mark.parametrize("sizes", SIZES)
def test_relevance_gradient_and_maps(sizes, kind, dtype, backend):
    interpreted = backend == "triton" and DEVICE == "cpu"
    if interpreted and dtype == torch.float16 and (sizes not in ("cross", "many tokens") or kind != "keys"):
        pytest.skip("in the interpreter half types change the casts alone")
    compare(*drawn(backend, SIZES[sizes], dtype), kind, sizes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_strides(dtype, backend):
    if backend == "triton" and DEVICE == "cpu" and dtype != torch.float32:
        pytest.skip("in the interpreter half types change the casts alone")
    q, k, v, g = drawn(backend, SIZES["cross"], dtype)
    split = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v, g)]  # heads side by side in memory
    compare(*split, "keys", "heads of a projection")
    compare(*(inside(t, (1, 2, 2, 3)) for t in (q, k, v, g)), "pixels", "sliced")
    compare(*(t.transpose(2, 3).contiguous().transpose(2, 3) for t in (q, k, v, g)), "none", "features first")
    compare(q, k, v, g[:1, :1, :1, :1].expand_as(g), "added", "expanded cotangent", scale=0.7)


@pytest.mark.parametrize("sizes", EMPTY)
def test_nothing_gives_zero(sizes, backend):
    q, k, v, g = drawn(backend, EMPTY[sizes], torch.float32)
    relevance, gradient = attention_backward(q, k, v, g)
    assert relevance.shape == v.shape[:3] and not relevance.any()
    assert gradient.shape == v.shape and not gradient.any()
    maps = attention_relevance_maps(q, k, v, g)
    assert maps.shape == (len(q), q.shape[2], k.shape[2]) and not maps.any()


@pytest.mark.parametrize("kind", ["visible", "added"])
def test_hidden_tokens_and_blind_rows_give_exactly_zero(kind, backend):
    q, k, v, g = drawn(backend, SIZES["many tokens"], torch.float32)
    shown = torch.rand(1, 1, q.shape[2], k.shape[2], generator=torch.Generator().manual_seed(0)).to(q.device) > 0.5
    shown[..., 3], shown[:, :, 4] = False, False
    bias = shown if kind == "visible" else torch.where(shown, 0.0, -torch.inf)
    relevance, gradient = attention_backward(q, k, v, g, bias)
    maps = attention_relevance_maps(q, k, v, g, bias)
    assert relevance.isfinite().all() and gradient.isfinite().all() and maps.isfinite().all()
    assert not relevance[:, :, 3].any() and not gradient[:, :, 3].any()
    assert not maps[:, 4].any() and not maps[:, :, 3].any() and maps[:, 5].any()


def test_large_logits_do_not_overflow(backend):
    q, k, v, g = drawn(backend, SIZES["many pixels"], torch.float32)
    compare(q * 30, k * 30, v, g, "none", "large logits", scale=0.3)  # exp of a logit alone would overflow


def test_what_tokens_give_is_the_inner_product_with_the_output(backend):
    q, k, v, g = drawn(backend, SIZES["cross"], torch.float32)
    out = F.scaled_dot_product_attention(q, k, v)
    given = attention_relevance(q, k, v, g)
    assert torch.allclose(given.sum(2), (out * g).sum((2, 3)), atol=1e-4)


def test_it_is_differentiable_where_a_gradient_is_asked_for(backend):
    q, k, v, g = (t.double().cpu().requires_grad_() for t in drawn("reference", SIZES["one pixel"], torch.float64))
    mask = torch.arange(k.shape[2]) % 3 > 0
    for function in (attention_relevance, attention_relevance_maps):
        assert torch.autograd.gradcheck(lambda *t, run=function: run(*t, mask), (q, k, v, g))


def test_autocast_does_not_touch_it(backend):
    q, k, v, g = drawn(backend, SIZES["cross"], torch.float32)
    plain = attention_relevance(q, k, v, g)
    with torch.autocast(q.device.type, torch.bfloat16):
        assert torch.equal(attention_relevance(q, k, v, g), plain)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["none", "keys"])
def test_held_attention_is_plain_attention_with_its_gradient(kind, dtype, backend):
    q, k, v, g = drawn(backend, SIZES["cross"], dtype)
    mask = bias_of(kind, q, k)[0]
    mask = mask if mask is None else mask | ~mask.any(-1, keepdim=True)

    def run(attention, q, k, v):
        value = v.clone().requires_grad_()
        out = attention(q, k, value)
        return out.detach(), *torch.autograd.grad(out, value, g.to(v.dtype))

    def torchs(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3)

    _, exact = run(torchs, q.double(), k.double(), v.double())
    _, theirs = run(torchs, q, k, v)
    found, ours = run(lambda q, k, v: attend(q, k, v, mask, 0.3, ()), q, k, v)
    assert torch.equal(found, sdpa(q, k, v, mask, 0.3)) and ours.dtype == dtype
    allowed = 2 * (theirs.double() - exact).norm() + 2 * torch.finfo(dtype).eps * exact.norm()
    assert (ours.double() - exact).norm() <= allowed


def test_held_attention_is_differentiable_twice(backend):
    q, k, v, g = drawn(backend, SIZES["one pixel"], torch.float64)
    v.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: attend(q, k, v, None, 0.3, ()), v)
    assert torch.autograd.gradgradcheck(lambda v: attend(q, k, v, None, 0.3, ()), v, g)


def test_memory_is_bounded(monkeypatch):
    """All probabilities would be 16 times what is held."""
    q, k, v, g = drawn("cpu", (1, 2, 2048, 1024, 8, 8), torch.float32)
    with torch.profiler.profile(profile_memory=True) as profile:
        cpu.tokens(q, k, v, g, None, 1.0, True)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest <= 1.5 * 4 * cpu.HELD < 4 * 2 * 2048 * 1024 / 8


X = torch.ones(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": X[0]}, r"must be \[N, H, rows, features\], got q \[3, 4, 5\]"),
        ({"k": torch.ones(2, 3, 4, 6)}, r"do not fit: .*k \[2, 3, 4, 6\]"),
        ({"g": torch.ones(2, 3, 5, 5)}, r"do not fit: .*g \[2, 3, 5, 5\]"),
        ({"v": X.double()}, "one real floating dtype and one device"),
        ({"bias": torch.ones(2, 4)}, r"bias \[2, 4\] does not broadcast to \[N, H, P, S\] = \[2, 3, 4, 4\]"),
        ({"bias": torch.ones(4, dtype=torch.long)}, "must be bool or floating"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        attention_relevance(**({"q": X, "k": X, "v": X, "g": X} | change))
