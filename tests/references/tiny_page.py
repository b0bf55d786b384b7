"""A small model to serve, and a visitor of its page in a browser."""

from typing import Any

import torch

from bcos_diffusion.missing.calibration import Calibration, Checkpoint, fingerprint
from bcos_diffusion.missing.features import NAMES
from bcos_diffusion.missing.logistic import Logistic
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults
from bcos_diffusion.scenes import vocabulary
from bcos_diffusion.text import Tokenizer

WAIT_MS = 120_000


def small_pipeline() -> BcosDiffusionPipeline:
    """Random weights, the vocabulary of scenes, 24 pixels, three steps."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        config = UNetConfig(
            size=24, widths=(8, 16), heads=2, text_dim=8, time_dim=8, self_attention=(False, True),
            cross_attention=(True, True),
        )  # fmt: skip
        model = TextToImage(config, Tokenizer(vocabulary()), text_depth=1)
    return BcosDiffusionPipeline(model, Defaults(steps=3, guidance=2.0), "small <b>")


def calibrated(pipeline: BcosDiffusionPipeline) -> Calibration:
    """A calibration that says of every object that it is probably missing, and leaves no try early."""
    count = len(NAMES)
    logistic = Logistic(NAMES, (0.0,) * count, (1.0,) * count, (0.0,) * count, -2.0)
    checkpoints = tuple(Checkpoint(share, logistic, (1.0, 0.0), 0.0) for share in (0.4, 1.0))
    return Calibration(pipeline.name, fingerprint(pipeline.model), checkpoints, {})


class Visit:
    """One tab, with what it asked of the network and what went wrong in it."""

    def __init__(self, browser: Any, address: str, wait: bool = True, **options: Any):
        self.context = browser.new_context(**({"viewport": {"width": 1180, "height": 1100}} | options))
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.viewer = self.page.locator("#viewer-a")
        self.frame = self.viewer.locator(".ours")
        if wait:
            self.whole()

    def whole(self, name: str = "a") -> None:
        """Wait until a viewer shows a whole picture and nothing is under way."""
        self.page.locator(f'#viewer-{name} .bcos[data-state="whole"]:not([aria-busy])').wait_for()

    def fill(self, name: str, text: str) -> None:
        self.page.locator(f"#{name} :is(textarea, input)").first.fill(text)

    def draw(self, prompt: str) -> None:
        """Ask for a prompt; does not wait."""
        self.fill("prompt", prompt)
        self.page.locator("#draw").click()

    def drawn(self, prompt: str) -> None:
        """Draw a prompt to its end."""
        before = self.number()
        self.draw(prompt)
        changed = "before => document.querySelector('#viewer-a .bcos').dataset.number != before"
        self.page.wait_for_function(changed, arg=before)
        self.whole()

    def number(self) -> str:
        """Which picture is shown."""
        return str(self.viewer.locator(".bcos").get_attribute("data-number"))

    def chips(self) -> dict[str, float]:
        """The words with their relevance."""
        script = "chips => chips.map((chip) => [chip.firstChild.textContent, Number(chip.dataset.relevance)])"
        return dict(self.viewer.locator(".chip").evaluate_all(script))

    def pixels(self, where: str = ".ours") -> list[int]:
        """What the canvas shows now."""
        script = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
        return list(self.viewer.locator(f"{where} canvas").evaluate(script))

    def values(self) -> list[float]:
        """The numbers of the list of what made a pixel or a box."""
        script = "rows => rows.map((row) => Number(row.dataset.value))"
        return list(self.viewer.locator(".made tbody tr").evaluate_all(script))

    def total(self) -> float:
        return float(self.viewer.locator(".made").get_attribute("data-total"))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A place in the picture, in shares of it, as the mouse knows it."""
        self.frame.scroll_into_view_if_needed()
        bounds = self.frame.bounding_box()
        return bounds["x"] + x * bounds["width"], bounds["y"] + y * bounds["height"]

    def leave(self) -> None:
        self.context.close()
