"""Parts of the vision transformers of the package ``bcos``, patched: attention and position embedding."""

import pytest
import torch
from torch import nn

pytest.importorskip("bcos.modules", reason="the package bcos is not installed: pip install '.[test]'")
pytest.importorskip("einops", reason="the package einops, which the transformers need, is not installed")

from bcos.models.vit import Attention, SimpleViT
from bcos.modules import BcosLinear, norms

from bcos_kernels import completeness, maps, patch, stacked, unpatch


def test_a_vision_transformer_s_attention_is_left_where_someone_watches_its_softmax():
    attention, x, seen = (
        Attention(8, 2, 4, BcosLinear, norms.NoBias(norms.DetachableLayerNorm)),
        torch.rand(2, 3, 8),
        [],
    )
    expected = attention(x)
    handle = attention.attend.register_forward_hook(lambda *_: seen.append(1))
    assert "attend" in patch(attention).left[""]
    torch.testing.assert_close(attention(x), expected)
    assert seen == [1]
    handle.remove()
    assert patch(attention).replaced == {"": "Attention"}
    torch.testing.assert_close(attention(x), expected)
    attention.double()
    x = x.double()
    found = maps(attention, x, torch.stack([x, -3 * x]))
    torch.testing.assert_close(found, torch.stack([attention(x), -3 * attention(x)]))


def test_a_position_embedding_has_a_name_and_no_part_in_maps():
    torch.manual_seed(0)
    norm = norms.NoBias(norms.DetachableLayerNorm)
    vit = SimpleViT(image_size=16, patch_size=4, num_classes=5, dim=16, depth=2, heads=2, mlp_dim=24,
                    linear_layer=BcosLinear, norm_layer=norm, act_layer=nn.Identity)  # fmt: skip
    vit = vit.double().eval()
    x = torch.rand(2, 6, 16, 16, dtype=torch.float64)
    output = vit(x)
    assert "positional_embedding" in patch(vit).replaced
    torch.testing.assert_close(vit(x), output)
    found = completeness(vit, x, target=3)
    assert found.error < 1e-12 and abs(found.budget["positional_embedding"]) > 1e-3
    assert found.mass.keys() == {"input", "positional_embedding"}
    with pytest.raises(ValueError, match="not linear"):
        maps(vit, x, x[None])
    pushed = maps(vit, x, torch.stack([x, -2 * x]), method="jvp")
    torch.testing.assert_close(pushed[1], -2 * pushed[0])
    assert float(pushed[0][:, 3].sum()) == pytest.approx(found.mass["input"])
    with stacked(2), torch.no_grad():
        primal, mapped = vit(torch.cat([x, -2 * x])).chunk(2)
    torch.testing.assert_close(primal, output)
    torch.testing.assert_close(mapped, pushed[1])
    unpatch(vit)
    torch.testing.assert_close(vit(x), output, rtol=0, atol=0)
