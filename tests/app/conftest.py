"""A small model with a calibration of its own, and its page in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from references.tiny import NETWORKS, tiny_pipeline
from references.tiny_page import Visit, calibrated, small_pipeline

from bcos_diffusion.app.drawing import Drawing
from bcos_diffusion.app.studio import Studio
from bcos_diffusion.pipeline import BcosDiffusionPipeline

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


@pytest.fixture(scope="session")
def studio() -> Studio:
    """Draws at 24 pixels with random weights, and judges every picture to lack something."""
    pipeline = small_pipeline()
    return Studio(pipeline, calibrated(pipeline))


@pytest.fixture(scope="session", params=NETWORKS)
def exact(request: pytest.FixtureRequest) -> BcosDiffusionPipeline:
    """A model in float64, whose sums hold to rounding, of each network."""
    return tiny_pipeline(network=request.param)


@pytest.fixture(scope="session")
def drawing(studio: Studio) -> Drawing:
    """A picture of two nouns and a colour, in three steps."""
    *_, (_, found) = studio.picture(studio.read("a cat left of a dog on blue", "red", 1, 3, 2.0))
    assert found is not None
    return found


@pytest.fixture(scope="session")
def address(studio: Studio) -> Iterator[str]:
    """The page, served."""
    pytest.importorskip("gradio", reason="the page needs Gradio")
    from bcos_diffusion.app.server import served

    torch.set_num_threads(1)
    with served(studio, port=0) as found:
        yield found


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Debian's chromium through playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("browser tests need chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: object, address: str, tmp_path: Path) -> Iterator[Visit]:
    """A visitor who has just come: the first picture is there."""
    visitor = Visit(browser, address)
    yield visitor
    visitor.leave()
