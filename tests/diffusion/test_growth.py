"""A larger model starts from a smaller one: what both have is equal, what is new is named, other shapes are refused."""

import dataclasses
from pathlib import Path

import pytest
import torch

from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.dit import DiTConfig
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes import vocabulary
from bcos_diffusion.text import Tokenizer
from bcos_diffusion.training.growth import grow
from bcos_diffusion.training.trainer import take_weights

SMALL = UNetConfig(
    size=16, widths=(8, 16), self_attention=(False, True), cross_attention=(True, True), text_dim=16, time_dim=16
)
LARGE = dataclasses.replace(
    SMALL,
    size=32,
    widths=(4, 8, 16),
    self_attention=(False, False, True),
    cross_attention=(False, True, True),
    noise_shift=2.0,
)
WORDS = vocabulary()


def model(config: UNetConfig | DiTConfig, words: list[str] = WORDS, seed: int = 0, depth: int = 1) -> TextToImage:
    torch.manual_seed(seed)
    return TextToImage(config, Tokenizer(words), text_depth=depth)


def test_every_parameter_comes_from_the_start_or_is_named_as_new() -> None:
    small, large = model(SMALL, seed=1), model(LARGE)
    before, new = {k: v.clone() for k, v in large.state_dict().items()}, grow(large, small)
    taken = {name for name, value in large.state_dict().items() if not torch.equal(value, before[name])}
    constant = {name for name, value in before.items() if value.numel() and (value == value.flatten()[0]).all()}
    assert taken | set(new) | constant == before.keys() and not taken & set(new)
    assert {name.split(".")[1] for name in new} <= {
        "conv_in",
        "conv_out",
        "norm_out",
        "down",
        "up",
        "downsample",
        "upsample",
    }


def test_the_inner_levels_compute_what_they_did() -> None:
    small, large = model(SMALL, seed=1), model(LARGE)
    grow(large, small)
    batch = small.tokenizer.encode(["a cat left of two bananas"])
    text = small.condition(batch)
    torch.testing.assert_close(large.condition(batch).values, text.values)
    torch.testing.assert_close(large.condition(batch).keys, text.keys)
    x, time = torch.randn(1, 8, 8, 8), torch.randn(1, 16)
    for coarse, fine in ((0, 1), (1, 2)):
        stage, other = small.unet.down[coarse][0], large.unet.down[fine][0]
        x = x if coarse == 0 else small.unet.downsample[0](x)
        torch.testing.assert_close(other(x, time, text), stage(x, time, text))
        x = stage(x, time, text)


def test_words_keep_their_embeddings_and_new_ones_are_told() -> None:
    few = [word for word in WORDS if word not in ("cat", "cats")]
    small, large = model(SMALL, few, seed=1), model(LARGE)
    new = grow(large, small)
    assert {"text.value_table.weight", "text.key_table.weight"} <= set(new)
    for word in ("banana", "bananas", "left", "blue", ","):
        here, there = (m.condition(m.tokenizer.encode([word])).values for m in (large, small))
        torch.testing.assert_close(here, there)
    fresh = model(LARGE).text.value_table
    (cat,) = set(large.tokenizer.encode(["cat"]).ids.flatten().tolist()) - {0}
    assert torch.equal(large.text.value_table.weight[cat], fresh.weight[cat])


@pytest.mark.parametrize(
    "held",
    [
        model(dataclasses.replace(SMALL, widths=(8, 24))),
        model(dataclasses.replace(SMALL, b=1.5)),
        model(
            dataclasses.replace(
                LARGE, size=64, widths=(4, 4, 8, 16), self_attention=(False,) * 4, cross_attention=(True,) * 4
            )
        ),
        model(SMALL, depth=2),
        model(SMALL, [*WORDS, "unheard"]),
    ],
    ids=["widths", "b", "deeper", "text", "words"],
)
def test_other_shapes_are_refused_and_nothing_changes(held: TextToImage) -> None:
    large = model(LARGE)
    before = {k: v.clone() for k, v in large.state_dict().items()}
    with pytest.raises(ValueError):
        grow(large, held)
    assert all(torch.equal(value, before[name]) for name, value in large.state_dict().items())


def test_training_takes_a_smaller_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = model(SMALL, seed=1), model(LARGE)
    BcosDiffusionPipeline(small).save_pretrained(tmp_path / "small")
    take_weights(large, str(tmp_path / "small"))
    held = BcosDiffusionPipeline.from_pretrained(tmp_path / "small").model.state_dict()
    assert torch.equal(
        large.state_dict()["unet.down.2.0.block.conv_1.linear.weight"], held["unet.down.1.0.block.conv_1.linear.weight"]
    )
    assert "unet.conv_in.linear.weight" in capsys.readouterr().err


def test_a_transformer_grows_in_size_and_words() -> None:
    shape = DiTConfig(size=16, patch=4, width=16, depth=3, heads=2, mlp=2, text_dim=16, time_dim=16)
    small = model(shape, WORDS[:-5], seed=1)
    large = model(dataclasses.replace(shape, size=32, noise_shift=2.0))
    new, one, other = grow(large, small), small.state_dict(), large.state_dict()
    assert set(new) == {"text.value_table.weight", "text.key_table.weight"}
    places = [name for name in one if name.startswith("unet") and name.endswith((".position", ".place"))]
    assert len(places) == 3 * 3
    for name in places:
        coarse, fine = one[name].unflatten(0, (4, 4)), other[name].unflatten(0, (8, 8))
        # Linear between the middles of patches, a quarter of a large patch's side away from its own.
        torch.testing.assert_close(fine[0, 0], coarse[0, 0])
        torch.testing.assert_close(fine[0, 1], 0.75 * coarse[0, 0] + 0.25 * coarse[0, 1])
        torch.testing.assert_close(fine[2, 0], 0.75 * coarse[1, 0] + 0.25 * coarse[0, 0])
    assert all(torch.equal(one[n], other[n]) for n in one if n.startswith("unet") and n not in places)
    for wrong in (dataclasses.replace(shape, depth=4), SMALL):
        with pytest.raises(ValueError, match="differ in more than the size"):
            grow(large, model(wrong))
