"""What the paper's models are trained on: noise, whole captions, and no effects where layers have biases."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from references.clip import save_clip
from references.portions import portion
from torch import Tensor, nn

from bcos_diffusion.diffusion import noise_schedule
from bcos_diffusion.model import TextToImage
from bcos_diffusion.objective import Objective, drop_words
from bcos_diffusion.presets import build
from bcos_diffusion.text.clip_tokenizer import ClipTokenizer


class Oracle(nn.Module):
    """Knows x_0, and so the noise that the forward process (mathematics §4) mixed into it."""

    def __init__(self, x_0: Tensor, predicts: str, shift: float):
        super().__init__()
        self.x_0, self.alpha_bar, config = x_0, noise_schedule(shift=shift), SimpleNamespace(noise_shift=shift)
        self.unet = SimpleNamespace(predicts=predicts, explainable=True, time_adds=False, config=config)

    def forward(self, x_t: Tensor, t: Tensor, batch: Any) -> Tensor:
        if self.unet.predicts == "x_0":
            return self.x_0
        a = self.alpha_bar[t][:, None, None, None]
        return (x_t - a.sqrt() * self.x_0 - (1 - a.sqrt()) * 0.5) / ((1 - a).sqrt() * 0.5)


@pytest.mark.parametrize("shift", [1.0, 2.0])
@pytest.mark.parametrize("predicts", ["x_0", "noise"])
def test_the_target_is_what_the_model_predicts(predicts: str, shift: float) -> None:
    seen = portion(ClipTokenizer(12), ["cat"] * 16, 4)
    rgb = seen.images.float() / 255
    oracle = Oracle(torch.cat([rgb, 1 - rgb], 1), predicts, shift)
    assert Objective(cast(TextToImage, oracle))(seen)["denoising"].item() < 1e-6


@pytest.mark.parametrize("special", ["visible", "masked"])
def test_start_end_and_padding_go_with_their_caption_only(special: str) -> None:
    batch = ClipTokenizer(12, special).encode(["two flamingos and a cat"] * 2000)
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(2000, generator=generator), torch.rand(batch.mask.shape, generator=generator)
    dropped = drop_words(batch, 0.2, 0.3, *draws).mask
    stays = dropped[:, 0] if special == "visible" else dropped.any(1)
    layout = dropped[:, batch.special[0]]
    if special == "visible":
        assert layout.eq(stays[:, None]).all()
        assert stays.double().mean().item() == pytest.approx(0.8, abs=0.04)
    else:
        assert not layout.any()
    words = dropped[stays][:, batch.value_mask[0]]
    assert words.double().mean(0).tolist() == pytest.approx([0.7] * words.shape[1], abs=0.05)


def test_words_have_no_effect_term_where_layers_have_biases(tmp_path: Path) -> None:
    model = build("vanilla", "small", save_clip(tmp_path / "clip"))
    with pytest.raises(ValueError, match="words have no part of an image"):
        Objective(model, effect_weight=1.0)(portion(model.tokenizer, ["a cat"], 32))


@pytest.mark.parametrize("name", ["bcos-x0", "bcos-clip-eps"])
def test_the_effect_term_trains_the_papers_models(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(name, "small", save_clip(tmp_path / "clip"))
    losses = Objective(model, effect_weight=1.0)(portion(model.tokenizer, ["a cat", "flamingos"], 32))
    losses["effect"].backward()
    assert losses["effect"].item() > 0
    gradients = [p.grad for n, p in model.named_parameters() if ".tokens.value" in n]
    assert gradients and all(g is not None and g.any() for g in gradients)
