"""One latent at one prediction, as a figure, numbers and maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bcos_diffusion.features.latents.attribution import LatentAttribution, attribute
from bcos_diffusion.features.latents.attribution_figure import bars_of, draw_latent
from bcos_diffusion.features.latents.choice import in_code
from bcos_diffusion.features.latents.decomposition import Decomposition, decompose
from bcos_diffusion.features.latents.direction import draw_directions
from bcos_diffusion.features.latents.sheet import Images
from bcos_diffusion.features.latents.step import Dictionary, Step
from bcos_diffusion.features.latents.top import TopImages
from bcos_kernels.files import write_json, write_tensors

_BAR = 30


@dataclass(frozen=True, eq=False)
class Explained:
    """position: of a spatial code, None for a pooled one; found: what drives the latent; drawn: ``[6, H, W]``, what an
    activation of 1 adds to the predicted x_0; parts: that prediction through the layer; active: whether TopK keeps it.
    """

    step: Step
    latent: int
    position: int | None
    found: LatentAttribution
    drawn: Tensor
    parts: Decomposition
    active: bool

    @classmethod
    def of(cls, step: Step, dictionary: Dictionary, latent: int, position: int | None) -> Explained:
        """Explain a latent at a step. Raises ValueError as :func:`attribute`."""
        found = attribute(step, dictionary, [latent], position)
        drawn = draw_directions(step, dictionary, [latent], position)[0]
        parts = decompose(step, dictionary, spatial=position is not None)
        return cls(step, latent, position, found, drawn, parts, in_code(step, dictionary, latent, position))

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready values: what drives it, and the shares of what the layer passes on."""
        found, spoken = self.found, zip(self.step.batch.words[0], self.found.words[0].tolist(), strict=True)
        shares = {name: {"mass": mass, "colour": colour} for name, (mass, colour) in self.parts.shares().items()}
        listed = zip(self.parts.latents.tolist(), self.parts.activation.tolist(), strict=True)
        return {
            "latent": self.latent, "t": self.step.t, "position": self.position,
            "activation": float(found.activation[0]), "active": self.active,
            "words": [{"text": word, "value": value} for word, value in spoken],
            "x_t": float(found.x_t[0].sum()), "time": float(found.time[0]), "constant": float(found.constant[0]),
            "completeness": found.completeness,
            "decomposition": {
                "shares": shares, "completeness": self.parts.completeness,
                "latents": [{"latent": j, "activation": value} for j, value in listed],
            },
        }  # fmt: skip

    def write(
        self, folder: Path, dictionary: Dictionary, top: TopImages, images: Images, about: dict[str, Any]
    ) -> None:
        """Write ``latent.png``, ``latent.json`` and ``latent.safetensors``. about: what else the JSON is to say."""
        draw_latent(self.step, dictionary, self.latent, folder / "latent.png", top, images, self.position)
        write_json(folder / "latent.json", about | self.to_dict())
        maps = {"pixels": self.found.pixels[0], "x_t": self.found.x_t[0], "direction": self.drawn,
                "prediction": self.parts.prediction, "state": self.step.x_t}  # fmt: skip
        write_tensors(folder / "latent.safetensors", maps)

    def lines(self) -> list[str]:
        """What drives the latent, and what its layer passes on, for people."""
        activation = float(self.found.activation[0])
        kept = "" if self.active else ", but TopK keeps others"
        lines = [f"latent {self.latent} at t = {self.step.t}: activation {activation:.4g}{kept}, the sum of"]
        bars = bars_of(self.found, self.step.batch.words[0], self.step.t)
        largest = max(abs(value) for _, value in bars) or 1.0
        width = max(len(name) for name, _ in bars)
        for name, value in bars:
            bar = "█" * math.ceil(_BAR * abs(value) / largest)
            lines.append(f"  {name:<{width}}  {value:>10.4g}  {'-' if value < 0 else ''}{bar}")
        lines.append(f"with relative error {self.found.completeness:.0e}")
        shares = ", ".join(f"{name} {100 * colour:.0f}%" for name, (_, colour) in self.parts.shares().items())
        lines.append(f"colours of the predicted x_0: {shares} (relative error {self.parts.completeness:.0e})")
        return lines
