"""The paper's U-Net: Stable Diffusion's in every layer and number, and the sum of what its inputs contribute."""

import dataclasses
from typing import Any, cast

import pytest
import torch
from references.paper_models import TINY, copy_from, layer_counts, shaken, stable_diffusion
from torch import Tensor, nn

from bcos_diffusion.diffusion import Guidance, noise_schedule, paired_noise
from bcos_diffusion.explanation.trace import signal_tokens, trace
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.networks.paper_unet import PaperUNet, PaperUNetConfig
from bcos_diffusion.networks.unet import TimeConditioning
from bcos_kernels.mode import explanation_mode, stacked
from bcos_kernels.modules import norms
from bcos_kernels.modules.conv import BcosConv2d, NormedConv2d
from bcos_kernels.modules.linear import BcosLinear, NormedLinear

PAPER = PaperUNetConfig()
FORMS = [(time, predicts) for time in ("additive", "scale") for predicts in ("x_0", "noise")]


def network(**changes: Any) -> PaperUNet:
    torch.manual_seed(0)
    made = PaperUNet(dataclasses.replace(TINY, **changes)).double().eval()
    return cast(PaperUNet, shaken(made))


def prompt(rows: int = 2) -> Conditioning:
    """Two prompts of five tokens, two and three of which are hidden."""
    values = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3)).double()
    mask = torch.tensor([[False, True, True, True, False], [False, True, True, False, False]])
    return Conditioning((values * mask[:, :, None])[:rows], values[:rows], mask[:rows])


def start(height: int = 16, width: int = 16) -> Tensor:
    return 0.5 + 0.5 * paired_noise((1, 6, height, width), torch.Generator().manual_seed(0))[0].double()


@pytest.mark.parametrize("time_conditioning", ["additive", "scale"])
def test_the_papers_size_is_stable_diffusions_without_its_biases(time_conditioning: str) -> None:
    with torch.device("meta"):
        bcos = PaperUNet(dataclasses.replace(PAPER, time_conditioning=time_conditioning))
        reference = stable_diffusion(PAPER)
    counted = {name: p.numel() for name, p in reference.named_parameters()}
    biases = sum(n for name, n in counted.items() if name.endswith("bias"))
    assert not [name for name, _ in bcos.named_parameters() if "bias" in name]
    assert sum(p.numel() for p in bcos.parameters()) == sum(counted.values()) - biases == 526_203_520
    assert sum(counted.values()) == 526_405_126


def test_ordinary_layers_have_every_parameter_of_stable_diffusion() -> None:
    with torch.device("meta"):
        vanilla, reference = PaperUNet(dataclasses.replace(PAPER, layers="vanilla")), stable_diffusion(PAPER)
        copy_from(reference, vanilla)
    assert sum(p.numel() for p in vanilla.parameters()) == sum(p.numel() for p in reference.parameters())


def test_every_layer_of_stable_diffusion_has_its_counterpart() -> None:
    with torch.device("meta"):
        bcos, reference = PaperUNet(PAPER), stable_diffusion(PAPER)
    theirs = {"conv": (nn.Conv2d,), "linear": (nn.Linear,), "group": (nn.GroupNorm,), "layer": (nn.LayerNorm,)}
    ours = {
        "conv": (BcosConv2d,),
        "linear": (BcosLinear, nn.Linear),
        "group": (norms.GroupNorm,),
        "layer": (norms.LayerNorm,),
    }
    found = layer_counts(bcos, ours)
    found["linear"] -= layer_counts(bcos, {"inside": (NormedLinear,)})["inside"]
    assert found == layer_counts(reference, theirs)
    # Queries and keys alone stay linear; every convolution is a B-cos one.
    steering = [n for n, m in bcos.named_modules() if isinstance(m, nn.Linear) and not isinstance(m, NormedLinear)]
    assert {name.rsplit(".", 1)[1] for name in steering} == {"query", "key"}
    assert all(isinstance(m, NormedConv2d) for m in bcos.modules() if isinstance(m, nn.Conv2d))
    assert {(m.b, m.max_out) for m in bcos.modules() if isinstance(m, BcosConv2d | BcosLinear)} == {(2.0, 1)}


@pytest.mark.parametrize("blocks", [1, 2])
def test_ordinary_layers_compute_what_stable_diffusion_computes(blocks: int) -> None:
    """Number by number against diffusers, with the same weights, on an oblong picture."""
    config = dataclasses.replace(TINY, layers="vanilla", blocks=blocks)
    reference = shaken(stable_diffusion(config).double().eval(), seed=1)
    ours = PaperUNet(config).double().eval()
    copy_from(cast(Any, reference), ours)
    x_t, t, text = torch.rand(2, 6, 8, 16).double(), torch.tensor([2, 7]), prompt()
    text = Conditioning(text.keys, text.keys, torch.ones_like(text.mask))
    with torch.no_grad():
        torch.testing.assert_close(ours(x_t, t, text), reference(x_t, t, text.keys).sample, rtol=1e-5, atol=1e-6)
        late = torch.tensor([871, 999])  # whose sines diffusers takes in fp32
        torch.testing.assert_close(ours(x_t, late, text), reference(x_t, late, text.keys).sample, rtol=1e-2, atol=2e-4)


@pytest.mark.parametrize("update", ["homogeneous", "standard"])
@pytest.mark.parametrize(("time_conditioning", "predicts"), FORMS)
def test_a_run_is_the_sum_of_its_parts(time_conditioning: str, predicts: str, update: str) -> None:
    unet, text = network(time_conditioning=time_conditioning, predicts=predicts), prompt()
    sources = signal_tokens(text.mask)
    result = trace(unet, text, sources, start(), noise_schedule().double(), 4, Guidance(2.5), update)
    assert len(result.tokens) == 5 and (result.tokens.flatten(1).abs().amax(1) > 0).all()
    assert (result.image - result.total).norm() / result.image.norm() < 1e-9
    assert result.time.eq(0).all() == (time_conditioning == "scale")


@pytest.mark.parametrize(("time_conditioning", "predicts"), FORMS)
def test_forward_maps_equal_the_backward_pass(time_conditioning: str, predicts: str) -> None:
    """At one step: each source's mass by its tangent and by the gradient of the sum, time's blocks included."""
    unet, text = network(time_conditioning=time_conditioning, predicts=predicts), prompt(1)
    x_t, t = start(8, 16)[None].requires_grad_(), torch.tensor([700])
    values, shifts = text.values.clone().requires_grad_(), []

    def keep(module: nn.Module, args: Any, gamma: Tensor) -> Tensor:
        shifts.append(gamma.detach().requires_grad_())
        return shifts[-1]

    modules = [m for m in unet.modules() if isinstance(m, TimeConditioning)]
    hooks = [cast(nn.Module, m.project).register_forward_hook(keep) for m in modules]
    with explanation_mode():
        out = unet(x_t, t, Conditioning(values, text.keys, text.mask))
    adds = time_conditioning == "additive"
    gradients = torch.autograd.grad(out.sum(), [values, x_t, *(shifts if adds else [])])
    for hook in hooks:
        hook.remove()
    assert len(shifts) == 11
    by_vjp = [*(gradients[0] * values).sum(-1)[0].tolist(), (gradients[1] * x_t).sum().item()]
    if adds:
        by_vjp.append(sum((g * s).sum().item() for g, s in zip(gradients[2:], shifts, strict=True)))
    parts = 7 + adds
    stack = torch.zeros(1 + parts - 1, 5, 16).double()
    stack[0] = text.values[0]
    for position in range(5):
        stack[1 + position, position] = text.values[0, position]
    images = torch.zeros(parts, 6, 8, 16).double()
    images[0] = images[6] = x_t[0].detach()
    with torch.no_grad(), stacked(parts):
        maps = unet(images, t, Conditioning(stack, text.keys, text.mask))
    assert maps[1:].flatten(1).sum(1).tolist() == pytest.approx(by_vjp, rel=1e-9, abs=1e-12)
    assert maps[1].eq(0).all() and maps[5].eq(0).all() and gradients[0][0, [0, 4]].eq(0).all()  # hidden tokens
    torch.testing.assert_close(maps[0], out[0].detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(maps[1:].sum(0), out[0].detach(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("time_conditioning", ["additive", "scale"])
def test_explanation_mode_does_not_change_a_bit(dtype: torch.dtype, time_conditioning: str) -> None:
    unet, text = network(time_conditioning=time_conditioning).to(dtype), prompt()
    text = Conditioning(text.values.to(dtype), text.keys.to(dtype), text.mask)
    x_t, t = start().to(dtype).expand(2, -1, -1, -1), torch.tensor([3, 700])
    plain = unet(x_t, t, text)
    with explanation_mode():
        assert torch.equal(plain, unet(x_t, t, text))


def test_the_scale_form_maps_zero_to_zero() -> None:
    text = prompt()
    silent = Conditioning(torch.zeros_like(text.values), text.keys, text.mask)
    nothing, t = torch.zeros(2, 6, 16, 16).double(), torch.tensor([5, 900])
    assert network(time_conditioning="scale")(nothing, t, silent).abs().max() < 1e-12
    assert network(time_conditioning="additive")(nothing, t, silent).abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["bcos", "vanilla"])
@pytest.mark.parametrize("time_conditioning", ["additive", "scale"])
def test_every_weight_is_trained(kind: str, time_conditioning: str) -> None:
    unet, text = network(layers=kind, time_conditioning=time_conditioning), prompt()
    unet(start().expand(2, -1, -1, -1), torch.tensor([30, 800]), text).pow(2).sum().backward()
    idle = [n for n, p in unet.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


def test_ordinary_layers_are_not_explained() -> None:
    unet, text = network(layers="vanilla"), prompt()
    with pytest.raises(ValueError, match="it draws, but words have no part of an image"):
        trace(unet, text, signal_tokens(text.mask), start(), noise_schedule().double(), 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 18}, "multiple of 4"),
        ({"size": 36, "patch": 2}, "multiple of 8"),
        ({"attention": (True,)}, "attention needs one entry per level: 3"),
        ({"time_conditioning": "shift"}, "time_conditioning must be one of"),
        ({"predicts": "velocity"}, "predicts must be one of"),
        ({"layers": "plain"}, "layers must be one of"),
        ({"head_dim": 3}, "multiples of groups"),
    ],
)
def test_impossible_shapes_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **wrong)


def test_a_picture_that_the_strides_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="must be multiples of 4 pixels, got 10x16"):
        network()(torch.zeros(1, 6, 16, 10).double(), torch.zeros(1, dtype=torch.long), prompt(1))


def test_a_configuration_survives_json() -> None:
    for config in (PAPER, dataclasses.replace(TINY, layers="vanilla", patch=2)):
        as_json = {k: list(v) if isinstance(v, tuple) else v for k, v in config.to_dict().items()}
        assert PaperUNetConfig.from_dict(as_json) == config
