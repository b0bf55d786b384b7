"""Drawing until every object and colour named is there, as the commands offer it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bcos_diffusion.commands.options import Sampling

if TYPE_CHECKING:
    from bcos_diffusion.missing.ensure import Ensured
    from bcos_diffusion.pipeline import BcosDiffusionPipeline

    Draw = Callable[[str, int], Ensured]


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

    def drawer(self, sampling: Sampling, pipeline: BcosDiffusionPipeline, options: Mapping[str, Any]) -> Draw:
        """What draws prompts from seeds on; raises ValueError or OSError where the model has no calibration.

        options: those of ``sampling`` for this pipeline.
        """
        from bcos_diffusion.missing.ensure import Search, ensure
        from bcos_diffusion.missing.witness import Contributions

        witness = Contributions(sampling.calibration(pipeline))
        search, negative = Search(self.tries), sampling.negative_prompt
        return lambda prompt, seed: ensure(pipeline, prompt, witness, seed, search, negative, **options)


def warn(found: Ensured) -> None:
    """Say on stderr which words are still missing."""
    if found.missing:
        print(
            f"“{found.prompt}”: still missing after {len(found.tries)} tries: {', '.join(found.missing)}",
            file=sys.stderr,
        )
