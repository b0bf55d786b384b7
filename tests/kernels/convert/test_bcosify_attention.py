"""Attention of torch with held probabilities, in float64."""

import pytest
import torch
from references.bcosify import ROWS, N, check, randomised
from torch import nn

from bcos_kernels import bcosify, completeness


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
    mask = torch.ones(3, 5).triu(2).bool()
    if batch_first:  # masks are truths or what is added to logits, both of one kind
        hidden, mask = torch.zeros(N, 5).double().masked_fill(hidden, -torch.inf), torch.randn(3, 5).double()
    arguments = {"key_padding_mask": hidden, "attn_mask": mask, "need_weights": need_weights}
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
