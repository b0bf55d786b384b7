"""The code of documentation pages runs as it stands, block after block, and their links lead somewhere."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import torch
from references.image_server import encoded, picture
from references.laion import sample, write_shard
from torch import Tensor, nn

from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults
from bcos_kernels import BcosConv2d
from bcos_kernels.modules.attention import MultiHeadAttention

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs"
BLOCK = re.compile(r"(?:<!-- needs (\w+) -->\n)?```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
WRITTEN = sorted([*FOLDER.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])


class Described(nn.Module):
    """A model with the layers that docs/explanations.md names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(BcosConv2d(6, 8, 3, padding=1))
        self.cross = MultiHeadAttention(8, heads=2, head_dim=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.cross(self.stem(x).flatten(2).transpose(1, 2)).mean(1)


def shards() -> dict[str, Any]:
    """A folder of shards with more than the eight images that docs/data.md reads."""
    Path("shards").mkdir()
    images = {f"{number:03d}": sample(encoded(picture(80, 64), "JPEG")) for number in range(9)}
    write_shard(Path("shards/00000.tar"), images)
    return {}


PAGES: dict[str, Callable[[], dict[str, Any]]] = {
    "baselines.md": dict,
    "classifiers.md": dict,
    "data.md": shards,
    "features.md": dict,
    "explanations.md": lambda: {"model": Described(), "x": torch.rand(2, 6, 8, 8)},
    "missing.md": dict,
    "sampling.md": dict,
}
"""Pages whose code runs, in one namespace a page, and what a page takes as given."""


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped model, told to draw in five steps where nothing else is said."""
    load = BcosDiffusionPipeline.from_pretrained.__func__

    def quick(cls: type[BcosDiffusionPipeline], *arguments: Any, **options: Any) -> BcosDiffusionPipeline:
        pipeline = load(cls, *arguments, **options)
        pipeline.defaults = Defaults(5, pipeline.defaults.guidance, pipeline.defaults.update)
        return pipeline

    monkeypatch.setattr(BcosDiffusionPipeline, "from_pretrained", classmethod(quick))


@pytest.mark.parametrize("page", PAGES)
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_steps: None) -> None:
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall((FOLDER / page).read_text(encoding="utf-8"))
    assert blocks
    namespace = PAGES[page]()
    for number, (package, code) in enumerate(blocks):
        if not package or importlib.util.find_spec(package) is not None:
            exec(compile(code, f"{page} block {number}", "exec"), namespace)


def test_the_conversion_of_bcosify_runs_with_random_weights(capsys: pytest.CaptureFixture[str]) -> None:
    code = BLOCK.findall((FOLDER / "bcosify.md").read_text(encoding="utf-8"))[0][1]
    assert 'weights="DEFAULT"' in code
    namespace: dict[str, Any] = {}
    exec(code.replace('weights="DEFAULT"', "weights=None").replace("224", "64"), namespace)
    assert namespace["pixels"].shape == (1, 64, 64) and float(namespace["found"].error) < 1e-4
    assert "biases" in capsys.readouterr().out


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """As read in a checkout or on a forge; that they lead somewhere on the site, its build says."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in {_anchor(title) for title in re.findall(r"^#+ (.*)$", target.read_text("utf-8"), re.M)}, (
                link
            )


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_every_page_is_in_the_contents() -> None:
    """The build of the site says so too, of pages that no list has; here without Sphinx."""
    index = (FOLDER / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^(?:.*<)?([\w-]+(?:/index)?)>?$", index, re.MULTILINE))
    pages = {page.stem for page in FOLDER.glob("*.md")} - {"index", "missing", "app"}  # these two by a pattern
    assert pages <= listed


def test_paths_that_the_guide_for_contributors_names_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = [path for path in re.findall(r"`([\w./-]+/[\w.-]+)`", text) if "NAME" not in path]
    assert len(named) > 20
    places = (ROOT, ROOT / "bcos_kernels", ROOT / "benchmarks", ROOT / "docs")
    made = {"benchmarks/results", "dist"}
    assert not [path for path in named if path not in made and not any((place / path).exists() for place in places)]
    code = " ".join(" ".join(BLOCK.findall(text)[0][1].split()).split())
    source = (ROOT / "bcos_kernels/ops/contribution/reference.py").read_text(encoding="utf-8")
    assert code in " ".join(source.split())
