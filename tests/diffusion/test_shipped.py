"""What the models in the package promise: completeness, no bias, exact zeros, one value in every mode."""

import pytest
import torch

from bcos_diffusion.explain import explain
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import nouns, vocabulary
from bcos_diffusion.shipped import SHIPPED, locate, names
from bcos_diffusion.text import Tokenizer
from bcos_kernels import explanation_mode, stacked

PROMPT = "a cat left of a banana on a blue background"


@pytest.fixture(scope="module", params=names())
def pipeline(request: pytest.FixtureRequest) -> BcosDiffusionPipeline:
    return BcosDiffusionPipeline.from_pretrained(request.param)


def test_there_are_two_and_the_finer_one_is_the_first() -> None:
    assert names() == ("scenes-32", "scenes-64") and locate() == locate("scenes-64") == SHIPPED
    assert BcosDiffusionPipeline.from_pretrained().default_size == (64, 64)


@pytest.mark.parametrize("name", names())
def test_it_is_small_and_comes_with_its_card(name: str) -> None:
    folder = locate(name)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 16e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert all(part in card for part in ("CC BY-SA 4.0", "OpenMoji", "bcos-diffusion train"))


def test_its_words_are_those_of_its_scenes(pipeline: BcosDiffusionPipeline) -> None:
    size = pipeline.default_size[0]
    assert isinstance(pipeline.model.tokenizer, Tokenizer)
    assert set(pipeline.model.tokenizer.pieces) == set(vocabulary(size))
    assert len(nouns(size)) == {32: 65, 64: 174}[size]


def test_nothing_in_it_is_a_bias(pipeline: BcosDiffusionPipeline) -> None:
    assert not [name for name, _ in pipeline.model.named_parameters() if "bias" in name]
    assert pipeline.model.unet.config.time_conditioning == "scale"


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-3), (torch.float64, 1e-9)])
def test_completeness_over_a_whole_run(name: str, dtype: torch.dtype, limit: float) -> None:
    explanation = explain(BcosDiffusionPipeline.from_pretrained(name, dtype), PROMPT, seed=1)
    assert explanation.trace.image.dtype == dtype
    assert explanation.completeness <= limit
    assert abs(explanation.budget["other"]) <= limit and explanation.budget["time"] == 0
    silent = [part for part in explanation.tokens if part.text in ("a", "of", "on", "left", "background")]
    assert len(silent) == 7 and all(part.map.abs().max() == 0 for part in silent)


def test_the_picture_is_the_same_with_and_without_its_explanation(pipeline: BcosDiffusionPipeline) -> None:
    assert torch.equal(
        explain(pipeline, PROMPT, seed=2, steps=5).image, pipeline.generate([PROMPT], seed=2, steps=5)[0]
    )
    text, x_t = pipeline.condition(pipeline.tokenize(PROMPT), guidance=1.0), pipeline.initial_noise(3)[None]
    plain = pipeline.model.unet(x_t, torch.tensor([700]), text)
    with explanation_mode():
        assert torch.equal(pipeline.model.unet(x_t, torch.tensor([700]), text), plain)


def test_forward_and_backward_agree(pipeline: BcosDiffusionPipeline) -> None:
    """⟨g, W v⟩ = ⟨Wᵀ g, v⟩ for the values of all words and for x_t."""
    text = pipeline.condition(pipeline.tokenize(PROMPT), guidance=1.0)
    x_t, t = pipeline.initial_noise(4)[None], torch.tensor([500])
    g = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(0))
    leaf, values = x_t.clone().requires_grad_(), text.values.clone().requires_grad_()
    with explanation_mode():
        out = pipeline.model.unet(leaf, t, Conditioning(values, text.keys, text.mask))
    pulled = torch.autograd.grad(out, [leaf, values], g)
    with torch.no_grad(), stacked(3):
        nothing, silence = torch.zeros_like(x_t), torch.zeros_like(text.values)
        parts = Conditioning(torch.cat([text.values, text.values, silence]), text.keys, text.mask)
        _, words, image = pipeline.model.unet(torch.cat([x_t, nothing, x_t]), t, parts).chunk(3)
    for forward, backward in ((image, pulled[0] * x_t), (words, pulled[1] * text.values)):
        scale = float((forward * g).abs().sum())
        assert abs(float((forward * g).double().sum() - backward.double().sum())) <= 1e-5 * scale
