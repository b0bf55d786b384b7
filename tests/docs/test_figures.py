"""The scripts that draw pictures of the docs run, on a copy of what they fill."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults

FOLDER = Path(__file__).parents[2] / "docs" / "figures"


def load(name: str) -> Iterator[ModuleType]:
    """A script as a module, which is forgotten afterwards."""
    spec = importlib.util.spec_from_file_location(f"figures_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def gallery() -> Iterator[ModuleType]:
    yield from load("gallery")


@pytest.fixture
def mathematics() -> Iterator[ModuleType]:
    yield from load("mathematics")


@pytest.fixture
def pipeline() -> BcosDiffusionPipeline:
    """The shipped model, drawing in few steps."""
    found = BcosDiffusionPipeline.from_pretrained()
    found.defaults = Defaults(5, found.defaults.guidance, found.defaults.update)
    return found


def test_gallery(
    gallery: ModuleType, pipeline: BcosDiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    page = tmp_path / "gallery.md"
    page.write_text("<!-- drawn gallery -->\nold\n<!-- end -->\nkept\n<!-- failed gallery -->\n<!-- end -->\n")
    monkeypatch.setattr(gallery, "DOCS", tmp_path)
    monkeypatch.setattr(gallery, "PROMPTS", ("an apple on a white background", "owl , balloon and duck on red"))
    monkeypatch.setattr(BcosDiffusionPipeline, "from_pretrained", lambda: pipeline)
    gallery.main()
    text = page.read_text(encoding="utf-8")
    assert "old" not in text and "kept" in text and text.count("of 2 pictures") == 2
    for number in range(2):
        assert text.count(f"images/gallery-{number:02d}.png") == 1
        assert Image.open(tmp_path / "images" / f"gallery-{number:02d}.png").width > 300


def test_what_is_wrong_with_a_picture_is_said(gallery: ModuleType, pipeline: BcosDiffusionPipeline) -> None:
    """Of a prompt the picture of another: the noun is missing, another is there, and the colour is not the one."""
    shown = gallery.draw(pipeline, Segmenter.load(), 0)
    words = ("a", "banana", "on", "a", "black", "background")
    seen = gallery.judge(Segmenter.load(), shown.explanation.image[None], [words])[0]
    other = gallery.Shown(0, shown.explanation, seen, words, shown.scores)
    assert "no banana" in other.wrong and "apple, which nobody asked for" in other.wrong
    assert any(said.startswith("a background of") for said in other.wrong)


def test_a_page_without_a_place_is_refused(gallery: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="one place"):
        gallery.fill(page, "drawn gallery", "text")


def test_mathematics(mathematics: ModuleType, pipeline: BcosDiffusionPipeline, tmp_path: Path) -> None:
    mathematics.factors(tmp_path / "factors.png")
    mathematics.one_layer(pipeline, tmp_path / "layer.png")  # raises where W(x) x is not what the layer gives
    mathematics.budget(pipeline, tmp_path / "budget.png")
    assert all(Image.open(path).width >= 800 for path in tmp_path.glob("*.png"))
    assert len(list(tmp_path.glob("*.png"))) == 3
