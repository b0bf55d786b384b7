"""Drawing until every object and colour named is there, as the commands offer it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bcos_diffusion.commands.options import Sampling

if TYPE_CHECKING:
    from bcos_diffusion.missing.ensure import Ensured
    from bcos_diffusion.pipeline import BcosDiffusionPipeline


@dataclass(frozen=True)
class Ensuring:
    """Whether pictures are drawn anew while a word is missing."""

    ensure: bool = False
    """Draw until the explanation says that every object and colour named is there; say which words are missing."""
    tries: int = 4
    """How often at most, with --ensure: other seeds first, then with what is missing made stronger."""

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError(f"tries must be at least 1, got {self.tries}")

    def draw(self, sampling: Sampling, pipeline: BcosDiffusionPipeline, prompt: str, seed: int) -> Ensured:
        """Draw one prompt, from ``seed`` on; raises ValueError or OSError where the model has no calibration."""
        from bcos_diffusion.missing.calibration import Calibration
        from bcos_diffusion.missing.ensure import Search, ensure
        from bcos_diffusion.missing.witness import Contributions
        from bcos_diffusion.shipped import SHIPPED

        folder = SHIPPED if sampling.model is None else Path(sampling.model)
        witness = Contributions(Calibration.of(pipeline, folder))
        arguments = sampling.arguments(pipeline)
        return ensure(pipeline, prompt, witness, seed, Search(self.tries), **arguments)


def warn(found: Ensured) -> None:
    """Say on stderr which words are still missing."""
    if found.missing:
        print(
            f"“{found.prompt}”: still missing after {len(found.tries)} tries: {', '.join(found.missing)}",
            file=sys.stderr,
        )
