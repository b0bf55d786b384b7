"""The paper's models and its baseline: built, drawn from, explained, trained, saved and loaded."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from references.clip import save_clip, tiny_clip
from references.paper_models import shaken
from references.portions import portion

from bcos_diffusion import cli, presets
from bcos_diffusion.explain import explain
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.paper_unet import PaperUNet
from bcos_diffusion.objective import Objective
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.presets import NAMES, SIZES, build, preset
from bcos_diffusion.text import Tokenizer

PROMPT = "two flamingos, a cat"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size that runs in a moment, beside the real ones."""
    size = dataclasses.replace(SIZES["small"], size=16, channels=(8, 16, 16), head_dim=4, groups=4)
    monkeypatch.setitem(presets.SIZES, "tiny", size)


def pipeline(name: str, clip: Path, time_conditioning: str = "additive") -> BcosDiffusionPipeline:
    torch.manual_seed(0)
    model = build(name, "tiny", clip, time_conditioning)
    shaken(model)
    return BcosDiffusionPipeline(model, preset(name, "tiny").defaults, name)


def test_the_four_models_and_the_baseline_are_what_the_paper_says() -> None:
    said = {name: preset(name) for name in NAMES}
    assert list(said) == ["bcos-x0", "bcos-clip-x0", "bcos-clip-eps", "vanilla"]
    assert {n: p.unet.predicts for n, p in said.items() if p.unet.predicts != "x_0"} == {"bcos-clip-eps": "noise"}
    assert {n: p.unet.layers for n, p in said.items() if p.unet.layers != "bcos"} == {"vanilla": "vanilla"}
    assert {n: (p.reads, p.special) for n, p in said.items() if p.reads != "encoder"} == {
        "bcos-x0": ("embeddings", "masked")
    }
    for p in said.values():
        shape = (p.unet.size, p.unet.patch, p.unet.channels, p.unet.attention, p.unet.blocks, p.unet.head_dim)
        assert shape == (64, 1, (320, 320, 1280, 1280), (True, True, True, False), 1, 64)
        assert (p.unet.text_dim, p.unet.b, p.unet.time_conditioning) == (1024, 2.0, "additive")


def test_the_sizes_for_scenes_have_the_parameters_that_the_page_says() -> None:
    counts = {}
    for size in ("small", "base"):
        with torch.device("meta"):
            network = PaperUNet(dataclasses.replace(preset("bcos-x0", size).unet, text_dim=128))
        counts[size] = sum(p.numel() for p in network.parameters())
    assert counts == {"small": 2_882_528, "base": 11_149_248}


def test_a_name_that_is_not_there_says_which_are() -> None:
    with pytest.raises(ValueError, match=r"the models are bcos-x0, .*vanilla; there is no 'bcos'"):
        preset("bcos")
    with pytest.raises(ValueError, match=r"the sizes are paper, base, small.*; there is no 'huge'"):
        preset("bcos-x0", "huge")
    with pytest.raises(ValueError, match="time_conditioning must be one of"):
        preset("bcos-x0", "small", "none")


@pytest.mark.parametrize("time_conditioning", ["additive", "scale"])
@pytest.mark.parametrize("name", ["bcos-x0", "bcos-clip-x0", "bcos-clip-eps"])
def test_an_image_is_the_sum_of_its_tokens_and_the_rest(name: str, time_conditioning: str, clip: Path) -> None:
    made = pipeline(name, clip, time_conditioning)
    made = BcosDiffusionPipeline(made.model.double(), made.defaults, name)
    found = explain(made, PROMPT, steps=2, guidance=2.0)
    assert found.completeness < 1e-9
    words = [part.text for part in found.words if not part.negative]
    relevant = {p.text for p in found.tokens if p.map.any()}
    if name == "bcos-x0":
        assert words == ["[SOS]", "two", "flamingos", ",", "a", "cat", "[EOS]"]
        assert relevant == {"two", "flamin", "gos", ",", "a", "cat"}
        assert not [p for p in found.tokens if p.negative and p.map.any()]
    else:
        assert words == ["[SOS]", "two", "flamingos", ",", "a", "cat", "[EOS]", "[PAD]"]
        assert relevant == {"[SOS]", "two", "flamin", "gos", ",", "a", "cat", "[EOS]", "[PAD]"}
        assert len([p for p in found.tokens if not p.negative]) == 12 and found.trace.tokens.shape[0] == 24
        assert [p for p in found.tokens if p.negative and p.map.any()]


def test_explaining_the_baseline_is_refused_but_drawing_is_not(clip: Path) -> None:
    made = pipeline("vanilla", clip)
    assert made.generate([PROMPT], steps=2).shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match="it draws, but words have no part of an image"):
        explain(made, PROMPT, steps=2)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_is_the_same_model_and_holds_no_clip(name: str, clip: Path, tmp_path: Path) -> None:
    made = pipeline(name, clip)
    made.save_pretrained(tmp_path / "a")
    loaded = BcosDiffusionPipeline.from_pretrained(tmp_path / "a")
    assert (loaded.name, loaded.defaults) == (name, preset(name).defaults)
    assert loaded.model.unet.config == made.model.unet.config
    assert torch.equal(loaded.generate([PROMPT], seed=5, steps=2), made.generate([PROMPT], seed=5, steps=2))
    BcosDiffusionPipeline.from_pretrained(tmp_path / "a", torch.bfloat16).save_pretrained(tmp_path / "b", torch.float32)
    loaded.save_pretrained(tmp_path / "c")
    assert (tmp_path / "a" / "config.json").read_bytes() == (tmp_path / "b" / "config.json").read_bytes()
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "c" / "model.safetensors").read_bytes()
    unet = sum(p.numel() for p in made.model.unet.parameters())
    assert (tmp_path / "a" / "model.safetensors").stat().st_size < 4 * unet + 100_000
    assert sum(p.numel() for p in made.model.parameters()) == unet


def test_the_text_is_found_again_where_it_went_and_known_by_its_hash(clip: Path, tmp_path: Path) -> None:
    moved = save_clip(tmp_path / "first")
    pipeline("bcos-x0", moved).save_pretrained(tmp_path / "model")
    moved.rename(tmp_path / "second")
    with pytest.raises(FileNotFoundError, match="neither a file or folder here"):
        BcosDiffusionPipeline.from_pretrained(tmp_path / "model")
    loaded = BcosDiffusionPipeline.from_pretrained(tmp_path / "model", text_source=tmp_path / "second")
    loaded.save_pretrained(tmp_path / "again")
    said = [json.loads((tmp_path / name / "config.json").read_text(encoding="utf-8")) for name in ("model", "again")]
    assert said[0] == said[1] and said[0]["frozen_text"]["source"] == str(tmp_path / "first")
    changed = tiny_clip()
    changed.positional_embedding.data[0, 0] += 1
    save_clip(tmp_path / "third", changed)
    with pytest.raises(ValueError, match="has other weights than the model was trained with"):
        BcosDiffusionPipeline.from_pretrained(tmp_path / "model", text_source=tmp_path / "third")


def test_a_text_inside_the_models_folder_is_found_wherever_the_folder_is(tmp_path: Path) -> None:
    save_clip(tmp_path / "model" / "text")
    made = pipeline("bcos-clip-x0", tmp_path / "model" / "text")
    made.model.text.source = "text"  # type: ignore[union-attr, assignment]
    made.save_pretrained(tmp_path / "model")
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    loaded = BcosDiffusionPipeline.from_pretrained(tmp_path / "elsewhere")
    assert torch.equal(loaded.generate([PROMPT], steps=1), made.generate([PROMPT], steps=1))


def test_a_clip_that_has_moved_is_named_on_the_command_line(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = save_clip(tmp_path / "here")
    pipeline("bcos-clip-x0", place).save_pretrained(tmp_path / "model")
    place.rename(tmp_path / "there")
    command = ["generate", "cat", "--model", str(tmp_path / "model"), "--steps", "1", "--out", str(tmp_path / "out")]
    assert cli.main(command) == 1 and "CLIP text weights" in capsys.readouterr().err
    assert cli.main([*command, "--text", str(tmp_path / "there")]) == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_model_learns_one_picture(name: str, clip: Path) -> None:
    torch.manual_seed(0)
    model = build(name, "tiny", clip)
    optimiser = torch.optim.Adam(model.parameters(), 2e-2)
    images = torch.linspace(25, 230, 16).byte()[None, None, None, :].expand(2, 3, 16, 16)
    # The same noise each time, so that 20 steps are enough.
    seen = dataclasses.replace(portion(model.tokenizer, [PROMPT] * 2, 16), images=images)
    objective, losses = Objective(model), []
    for _ in range(20):  # the same noise each time, so that 20 steps are enough
        loss = objective(seen)["total"]
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_a_twin_has_weights_of_its_own_and_the_same_text(clip: Path) -> None:
    model = build("bcos-x0", "tiny", clip)
    twin = model.twin()
    assert twin.text is model.text
    assert {n: p.shape for n, p in twin.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in model.parameters()}


def test_texts_that_do_not_fit_are_refused(clip: Path) -> None:
    text = build("bcos-x0", "tiny", clip).text
    with pytest.raises(ValueError, match="tokens of width 1024, the text's have 16"):
        TextToImage(SIZES["small"], text)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not a word list of its own"):
        TextToImage(SIZES["small"], Tokenizer(["cat"]))
