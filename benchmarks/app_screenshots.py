"""Take the screenshots of docs/app.md from the page itself, in a real browser.

python benchmarks/app_screenshots.py --out docs/images
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, sync_playwright

from bcos_diffusion.app.server import served
from bcos_diffusion.app.studio import Studio
from bcos_diffusion.missing.calibration import Calibration
from bcos_diffusion.pipeline import BcosDiffusionPipeline

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
WIDE, NARROW = {"width": 1180, "height": 900}, {"width": 360, "height": 740}
LACKING = "owl , balloon and duck on red"
LARGEST = 150 * 1024


@contextmanager
def pages(address: str) -> Iterator[dict[str, Page]]:
    """A page of each width, with its first picture."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        opened = {}
        for name, size in (("wide", WIDE), ("narrow", NARROW)):
            opened[name] = browser.new_page(viewport=size, color_scheme="light", has_touch=name == "narrow")
            opened[name].goto(address)
            opened[name].locator('#viewer-a .bcos[data-state="whole"]').wait_for()
        yield opened
        browser.close()


def drawn(page: Page, prompt: str) -> None:
    """Draw a prompt and wait for the whole picture."""
    page.locator("#prompt textarea, #prompt input").first.fill(prompt)
    page.get_by_role("button", name="Draw", exact=True).click()
    page.locator('#viewer-a .bcos[data-state="preview"]').wait_for()
    page.locator('#viewer-a .bcos[data-state="whole"]').wait_for(timeout=120_000)


def drag(page: Page, frame: Locator, box: tuple[float, float, float, float]) -> None:
    """Drag a box, in shares of the picture, and wait for the answer."""
    frame.scroll_into_view_if_needed()
    at = frame.bounding_box()
    assert at is not None
    left, top, right, bottom = box
    page.mouse.move(at["x"] + left * at["width"], at["y"] + top * at["height"])
    page.mouse.down()
    page.mouse.move(at["x"] + right * at["width"], at["y"] + bottom * at["height"], steps=6)
    page.mouse.up()
    page.locator("#viewer-a .sum", has_text="backward").wait_for()


def shoot(page: Page, path: Path, whole: bool = False) -> None:
    """A screenshot as a small file."""
    page.wait_for_timeout(300)
    page.screenshot(path=path, full_page=whole)
    Image.open(path).convert("RGB").save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, at most {LARGEST} are accepted")


def take(address: str, out: Path) -> None:
    """All screenshots."""
    with pages(address) as opened:
        page, narrow = opened["wide"], opened["narrow"]
        viewer = page.locator("#viewer-a")
        shoot(page, out / "app-light.png")
        viewer.locator(".chip").first.hover()
        shoot(page, out / "app-hover.png")
        page.mouse.move(2, 2)
        drag(page, viewer.locator(".ours"), (0.1, 0.3, 0.45, 0.65))
        shoot(page, out / "app-box.png")
        page.locator(".theme").click()
        shoot(page, out / "app-dark.png")
        viewer.locator(".daam").click()
        viewer.locator(".rival canvas").wait_for(timeout=60_000)
        viewer.locator(".chip").first.hover()
        shoot(page, out / "app-daam.png")
        page.locator(".theme").click()
        viewer.locator(".daam").click()
        drawn(page, LACKING)
        shoot(page, out / "app-missing.png")
        shoot(narrow, out / "app-360.png", whole=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    out = parser.parse_args().out
    pipeline = BcosDiffusionPipeline.from_pretrained()
    with served(Studio(pipeline, Calibration.of(pipeline)), port=0) as address:
        take(address, out)


if __name__ == "__main__":
    main()
