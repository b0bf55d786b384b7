"""Reading beside the slow way: one image at a time, a hook on one layer, the whole pass."""

from typing import Any

import pytest
import torch
from references.diffusers_models import tiny_dit, tiny_unet
from references.tiny import tiny_pipeline
from torch import Tensor, nn

from bcos_diffusion.diffusion import noise_schedule
from bcos_diffusion.features import Subject, capture, read, subject_of
from bcos_diffusion.features.diffusers_subject import DiTSubject, UNetSubject
from bcos_diffusion.features.shapes import output_shapes

LAYERS = {
    "ours": ["up_ft0", "bottleneck", "down.1.0.block"],
    "unet": ["up_ft0", "bottleneck", "down_ft0"],
    "dit": ["block_1", "bottleneck", "transformer_blocks.0.attn1"],
}


def subject_called(name: str) -> Subject:
    if name == "ours":
        return subject_of(tiny_pipeline())
    if name == "unet":
        return UNetSubject(tiny_unet(), noise_schedule())
    return DiTSubject(tiny_dit(), noise_schedule())


@torch.no_grad()
def slowly(subject: Subject, layer: str, x_t: Tensor, t: int, text: str) -> Tensor:
    """What a layer puts out, ``[N, D, h, w]``: one image at a time, and tokens put in their places one by one."""
    rows = []
    for row in x_t:
        outputs: list[Any] = []
        handle = subject.layers[layer].register_forward_hook(lambda _, __, output, to=outputs: to.append(output))
        subject.run(row[None], t, subject.condition([text]))
        handle.remove()
        output = outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]
        if output.ndim == 3:
            side = round(output.shape[1] ** 0.5)
            grid = torch.zeros(1, output.shape[2], side, side, dtype=output.dtype)
            for place in range(output.shape[1]):
                grid[0, :, place // side, place % side] = output[0, place]
            output = grid
        rows.append(output[0])
    return torch.stack(rows)


@pytest.mark.parametrize("name", LAYERS)
def test_features_are_those_read_slowly(name: str) -> None:
    subject = subject_called(name)
    images = torch.rand(3, 3, subject.size, subject.size, generator=torch.Generator().manual_seed(1))
    x_t = subject.noise(subject.encode(images), 300, [1, 2, 3])
    spatial = read(subject, x_t, 300, subject.condition([""] * 3), LAYERS[name], pooled=False)
    pooled = read(subject, x_t, 300, subject.condition([""] * 3), LAYERS[name])
    assert list(spatial) == list(pooled) == LAYERS[name]
    for layer in LAYERS[name]:
        expected = slowly(subject, layer, x_t, 300, "")
        torch.testing.assert_close(spatial[layer], expected, atol=2e-6, rtol=1e-4)
        torch.testing.assert_close(pooled[layer], expected.flatten(2).mean(2), atol=2e-6, rtol=1e-4)
        assert not expected.allclose(torch.zeros_like(expected))


def test_words_reach_the_layer() -> None:
    subject = subject_of(tiny_pipeline())
    x_t = subject.noise(subject.encode(torch.rand(1, 3, 16, 16)), 300, [1])
    one, other = (read(subject, x_t, 300, subject.condition([text]), ["up_ft1"])["up_ft1"] for text in ("cat", "dog"))
    assert not torch.equal(one, other)


def test_a_pass_ends_with_the_last_layer_and_leaves_no_hook() -> None:
    subject = subject_called("unet")
    ran: list[str] = []
    for name in ("up_ft0", "up_ft1"):
        subject.layers[name].register_forward_hook(lambda *_, name=name: ran.append(name))
    x_t, condition = torch.rand(1, 3, 16, 16), subject.condition([""])
    read(subject, x_t, 3, condition, ["up_ft0", "bottleneck"])
    assert ran == ["up_ft0"]
    subject.run(x_t, 3, condition)
    assert ran == ["up_ft0", "up_ft0", "up_ft1"]
    assert not subject.layers["bottleneck"]._forward_hooks


def test_features_do_not_change_when_later_layers_work_in_place() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 3, 1))
    subject = subject_called("ours")
    subject.network, subject.layers = network, dict(network.named_children())
    subject.run = lambda x_t, t, condition: network(x_t)  # type: ignore[method-assign]
    x_t = torch.randn(2, 3, 5, 5)
    found = read(subject, x_t, 0, None, ["0", "2"], pooled=False)["0"]
    torch.testing.assert_close(found, network[0](x_t).detach())
    assert found.min() < 0


class Results(nn.Module):
    """Puts out a mapping of results, as models of other libraries do."""

    def forward(self, x: Tensor) -> dict[str, Any]:
        return {"sample": (2 * x, None), "rest": []}


def test_the_first_result_of_a_mapping_is_read_and_listed() -> None:
    subject = subject_called("ours")
    subject.network = nn.Sequential(Results())
    subject.layers = {"results": subject.network[0]}
    subject.run = lambda x_t, t, condition: subject.network(x_t)  # type: ignore[method-assign]
    x_t = torch.randn(2, 6, 16, 16)
    found = read(subject, x_t, 0, None, ["results"], pooled=False)["results"]
    assert torch.equal(found, 2 * x_t)
    assert output_shapes(subject) == {"results": tuple(found.shape[1:])}


def test_gradients_flow_through_what_is_captured() -> None:
    subject = subject_called("unet")
    x_t = torch.rand(1, 3, 16, 16, requires_grad=True)
    modules = {"up_ft0": subject.layers["up_ft0"]}
    found = capture(modules, lambda: subject.run(x_t, 3, subject.condition([""])), lambda _, output: output)
    found["up_ft0"].sum().backward()
    assert x_t.grad is not None and x_t.grad.abs().sum() > 0


def test_what_cannot_be_read_is_said() -> None:
    subject = subject_called("dit")
    x_t, condition = torch.rand(2, 3, 16, 16), subject.condition(["", "3"])
    with pytest.raises(ValueError, match="no layer 'block_9'"):
        read(subject, x_t, 3, condition, ["block_9"])
    subject.layers["idle"] = nn.Identity()
    with pytest.raises(ValueError, match="nothing can be read of idle"):
        read(subject, x_t, 3, condition, ["idle", "block_0"])
    with pytest.raises(ValueError, match=r"puts out \[2, 16\], which has no places"):
        read(subject, x_t, 3, condition, ["transformer_blocks.0.norm1.emb"], pooled=False)
    ours = subject_called("ours")
    x_t = ours.noise(ours.encode(torch.rand(1, 3, 16, 16)), 3, [0])
    with pytest.raises(ValueError, match="24 tokens, which fill no picture of 16x16"):
        read(ours, x_t, 3, ours.condition(["cat"]), ["down.0.0.tokens.attend.key"], pooled=False)
