"""Every image is the sum of what its sources contributed: completeness, adjointness, bit-identity."""

import pytest
import torch

from bcos_diffusion.diffusion import Guidance, noise_schedule, paired_noise
from bcos_diffusion.explanation.trace import Source, signal_tokens, trace
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.text import Tokenizer
from bcos_kernels.mode import explanation_mode

WORDS = ["a", "cat", "dog", "on", "blue", "left", "of"]


def tiny_model(time_conditioning: str = "scale", b: float = 1.5) -> TextToImage:
    torch.manual_seed(0)
    config = UNetConfig(
        size=16, widths=(8, 16), heads=2, text_dim=8, time_dim=8, b=b, time_conditioning=time_conditioning,
        self_attention=(False, True), cross_attention=(True, True),
    )  # fmt: skip
    model = TextToImage(config, Tokenizer(WORDS), text_depth=1).double().eval()
    for name, parameter in model.named_parameters():
        if "time.project" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def prompt(model: TextToImage) -> tuple[Conditioning, tuple[Source, ...]]:
    batch = model.tokenizer.encode(["a cat left of a dog on blue", "dog"])
    text = model.condition(batch)
    return text, signal_tokens(text.mask)


def start(seed: int = 0) -> torch.Tensor:
    return 0.5 + 0.5 * paired_noise((1, 6, 16, 16), torch.Generator().manual_seed(seed))[0].double()


@pytest.mark.parametrize("update", ["homogeneous", "standard"])
@pytest.mark.parametrize("time_conditioning", ["scale", "additive"])
def test_a_run_is_the_sum_of_its_parts(update: str, time_conditioning: str) -> None:
    model = tiny_model(time_conditioning)
    text, sources = prompt(model)
    result = trace(model.unet, text, sources, start(), noise_schedule().double(), 5, Guidance(2.5), update)
    assert (result.image - result.total).norm() / result.image.norm() < 1e-9
    assert len(result.tokens) == 4
    if time_conditioning == "scale":
        assert result.time.eq(0).all()
    else:
        assert result.time.abs().max() > 0
    assert result.constant.eq(0).all() == (update == "homogeneous")


def test_forward_maps_equal_the_backward_pass() -> None:
    model = tiny_model()
    text, _ = prompt(model)
    text = Conditioning(text.values[:1].detach().requires_grad_(), text.keys[:1], text.mask[:1])
    x_T, alpha_bar = start(), noise_schedule().double()
    sources = signal_tokens(text.mask)
    result = trace(model.unet, text, sources, x_T, alpha_bar, 1)
    with explanation_mode():
        x_hat = model.unet(x_T[None], torch.tensor([999]), text)
    (gradient,) = torch.autograd.grad(x_hat.sum(), text.values)
    by_vjp = (gradient * text.values).sum(-1)[0]
    for source, contribution in zip(sources, result.tokens, strict=True):
        assert by_vjp[source.position].item() == pytest.approx(contribution.sum().item(), rel=1e-9)
    assert by_vjp[~text.mask[0]].eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_explanation_mode_does_not_change_a_bit(dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype)
    text, _ = prompt(model)
    x_t, t = start().to(dtype).expand(2, -1, -1, -1), torch.tensor([3, 700])
    plain = model.unet(x_t, t, text)
    with explanation_mode():
        assert torch.equal(plain, model.unet(x_t, t, text))


def test_the_scale_form_has_no_bias_and_maps_zero_to_zero() -> None:
    model = tiny_model()
    assert not [name for name, _ in model.named_parameters() if "bias" in name]
    text, _ = prompt(model)
    silent = Conditioning(torch.zeros_like(text.values), text.keys, text.mask)
    out = model.unet(torch.zeros(2, 6, 16, 16).double(), torch.tensor([5, 900]), silent)
    assert out.abs().max() < 1e-12
