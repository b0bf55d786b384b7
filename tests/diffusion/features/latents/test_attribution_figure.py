"""The figure of one latent: its bars are the attribution, and the file is a picture."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from references.tiny_dictionary import dictionary_of, tiny_step

from bcos_diffusion.features.latents.activations import collect
from bcos_diffusion.features.latents.attribution import attribute
from bcos_diffusion.features.latents.attribution_figure import bars_of, draw_latent, prediction
from bcos_diffusion.features.latents.top import top_images


@pytest.mark.parametrize("kind", ["scale", "additive"])
def test_bars_are_the_parts_of_the_activation(kind: str) -> None:
    step = tiny_step(kind)
    found = attribute(step, dictionary_of(step), [4])
    bars = bars_of(found, step.batch.words[0], step.t)
    assert sum(value for _, value in bars) == pytest.approx(found.activation[0].item(), rel=1e-9)
    named = [name for name, _ in bars]
    assert named == ["cat", "dog", "blue", "x_300", *(["time"] if kind == "additive" else []), "constant"]


def test_a_figure_is_written(tmp_path: Path) -> None:
    step = tiny_step("scale")
    assert prediction(step).shape == (3, 16, 16)
    values = torch.rand(5, 2) + 0.1
    top = top_images([collect([(values, torch.tensor([[4, 7]]).expand(5, 2))], 24)], 3)
    images = torch.rand(5, 3, 16, 16)
    for latent in (4, 9):  # one with top images, and a dead one
        path = tmp_path / f"{latent}.png"
        draw_latent(step, dictionary_of(step), latent, path, top, images.__getitem__)
        assert Image.open(path).width > 1000
