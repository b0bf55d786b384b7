"""Attention against a slow reference: probabilities held, values alone carry signal, hidden tokens give 0."""

import math

import pytest
import torch

from bcos_kernels.mode import explanation_mode, stacked
from bcos_kernels.modules.attention import MultiHeadAttention

N, P, L, DIM, CONTEXT = 3, 4, 5, 6, 7
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def unit(layer):
    weight = layer.linear.weight
    return weight / weight.norm(dim=1, keepdim=True)


def bcos(layer, x):
    """A B-cos linear layer with B = 2, by its formula."""
    y = x @ unit(layer).T
    return y * y.abs() / x.norm(dim=-1, keepdim=True).clamp_min(1e-300)


def slow(attention, x, key_context, value_context, mask):
    """One sample, head and pixel at a time, softmax by hand over visible tokens only."""
    size = attention.head_dim
    out = torch.zeros(len(x), x.shape[1], attention.heads * size, dtype=x.dtype)
    for n in range(len(x)):
        queries, keys = x[n] @ attention.query.weight.T, key_context[n] @ attention.key.weight.T
        values = bcos(attention.value, value_context[n])
        shown = mask[n].nonzero().flatten().tolist()
        for h in range(attention.heads):
            part = slice(h * size, (h + 1) * size)
            for p in range(x.shape[1]):
                logits = {i: float(queries[p, part] @ keys[i, part]) / size**0.5 for i in shown}
                odds = {i: math.exp(v - max(logits.values())) for i, v in logits.items()}
                for i in shown:
                    out[n, p, part] += odds[i] / sum(odds.values()) * values[i, part]
    return bcos(attention.out, out)


@pytest.fixture
def attention():
    torch.manual_seed(0)
    return MultiHeadAttention(DIM, CONTEXT, heads=2, head_dim=3).double().requires_grad_(False)


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    x = torch.randn(N, P, DIM, dtype=torch.double)
    keys, values = torch.randn(2, N, L, CONTEXT, dtype=torch.double)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    return x, keys, values, mask


def test_value_is_that_of_the_slow_reference(attention, inputs):
    out = attention(*inputs)
    assert torch.allclose(out, slow(attention, *inputs), atol=1e-12)
    assert out[:2].abs().min() > 0
    assert torch.equal(out[2], torch.zeros(P, DIM, dtype=torch.double))


def test_self_attention_reads_x_three_times():
    attention = MultiHeadAttention(DIM, heads=2, head_dim=3).double()
    x = torch.randn(N, P, DIM, dtype=torch.double)
    every = torch.ones(N, P, dtype=torch.bool)
    with torch.no_grad():
        assert torch.allclose(attention(x), attention(x, x, x, every), atol=1e-12)
        assert torch.allclose(attention(x), slow(attention, x, x, x, every), atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("wanted", ["nothing", "values", "parameters"])
def test_value_is_bit_identical_while_explaining(attention, inputs, dtype, masked, wanted):
    attention.to(dtype).requires_grad_(wanted == "parameters")
    x, keys, values = (t.to(dtype) for t in inputs[:3])
    values.requires_grad_(wanted == "values")
    mask = inputs[3] if masked else None
    plain = attention(x, keys, values, mask)
    with explanation_mode():
        held = attention(x, keys, values, mask)
    assert plain.dtype == dtype
    assert plain.isfinite().all()
    assert torch.equal(held, plain)


def test_only_values_carry_signal_and_they_carry_all_of_it(attention, inputs):
    x, keys, values = (t.requires_grad_() for t in inputs[:3])
    with explanation_mode():
        out = attention(x, keys, values, inputs[3])
        g = torch.randn_like(out)
        gradients = torch.autograd.grad(out, (x, keys, values), g, allow_unused=True)
    assert gradients[0] is None
    assert gradients[1] is None
    given = (values * gradients[2]).sum((1, 2))
    assert torch.allclose(given, (out * g).sum((1, 2)), atol=1e-12)
    assert given[0].abs() > 1e-3


def test_hidden_tokens_contribute_exactly_zero_even_when_not_finite(attention, inputs):
    x, keys, values, mask = inputs
    hidden = values.masked_fill(~mask[:, :, None], float("inf"))
    assert torch.allclose(attention(x, keys, hidden, mask), attention(x, keys, values, mask), atol=1e-12)
    values.requires_grad_()
    with explanation_mode():
        (gradient,) = torch.autograd.grad(attention(x, keys, values, mask).sum(), values)
    assert torch.equal(gradient[~mask], torch.zeros_like(gradient[~mask]))
    assert (gradient[mask].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("masked", [True, False])
def test_stacked_parts_share_the_probabilities_of_the_primal(attention, inputs, masked):
    x, keys, values, mask = inputs
    mask = mask if masked else None
    values = values.clone()  # at the start of its own memory: sums of matrix products depend on the alignment
    tangents = torch.randn(2, *values.shape, dtype=torch.double)
    with stacked(3):
        parts = attention(x, keys, torch.cat([values, *tangents]), mask).unflatten(0, (3, N))
    assert torch.equal(parts[0], attention(x, keys, values, mask))
    leaf = values.clone().requires_grad_()
    with explanation_mode():
        out = attention(x, keys, leaf, mask)
    g = torch.randn_like(out)
    (pulled,) = torch.autograd.grad(out, leaf, g)
    for v, pushed in zip(tangents, parts[1:], strict=True):
        assert torch.allclose((g * pushed).sum(), (pulled * v).sum(), atol=1e-12)


def test_only_the_primal_of_a_stacked_x_is_read(attention, inputs):
    x, keys, values, mask = inputs
    with stacked(2):
        few = attention(x, keys, torch.cat([values, values]), mask)
        many = attention(
            torch.cat([x, x * 9]), torch.cat([keys, -keys]), torch.cat([values, values]), mask.repeat(2, 1)
        )
    assert torch.equal(few, many)


def test_no_parameter_is_a_bias(attention):
    assert all("bias" not in name for name, _ in attention.named_parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, P, DIM)}, "x must have 3 or 3 rows"),
        ({"key_context": torch.zeros(N, 2, CONTEXT)}, "differ in length: 2 and 5"),
        ({"key_mask": torch.ones(N, L)}, "must be bool"),
        ({"key_mask": torch.ones(N, 2, dtype=torch.bool)}, r"key_mask must be \[3, 5\], got \[3, 2\]"),
        ({"value_context": torch.zeros(N, CONTEXT)}, "value_context must be"),
    ],
)
def test_bad_shapes_are_refused(attention, inputs, change, message):
    given = dict(zip(("x", "key_context", "value_context", "key_mask"), inputs, strict=True)) | change
    with pytest.raises(ValueError, match=message):
        attention(**given)


def test_a_stack_that_does_not_divide_is_refused(attention, inputs):
    with stacked(2), pytest.raises(ValueError, match="multiple of it"):
        attention(*inputs)
