"""What an evaluation works with: models, methods and options, the same in every process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from bcos_diffusion.baselines.attribution import Attribution
from bcos_diffusion.pipeline import BcosDiffusionPipeline


class Segmenter(Protocol):
    """Says where objects are in a drawn picture."""

    @property
    def name(self) -> str:
        """Which segmenter this is, as results state it."""
        ...

    @property
    def present_share(self) -> float:
        """The share of an object's usual area from which on it counts as drawn."""
        ...

    def masks(self, image: Tensor, words: list[str]) -> Mapping[str, Any]:
        """The pixels ``[H, W]`` of those words whose object, or colour, is in an rgb image ``[3, H, W]`` in [0, 1]."""
        ...


PARTS = ("regime_a", "regime_b", "full_run")
"""What is measured scene by scene: real scenes, free generation, and whole runs drawn again without each word."""

RUNS_SHARE = 10
"""Of that many costly scenes, one is also drawn from noise."""


@dataclass(frozen=True)
class Options:
    """How much is measured, and how.

    scenes: of the test split, whose numbers are reported; validation: scenes by which thresholds are chosen; runs: how
    many of the test scenes have whole sampling runs, and as large a share of the validation scenes; costly_scenes: of
    each split, on how many the methods of ``costly`` run; seed: of data and of noise; steps, guidance and update: of
    whole runs.
    """

    scenes: int = 1000
    validation: int = 200
    runs: int = 1000
    costly_scenes: int = 100
    costly: tuple[str, ...] = ("integrated_gradients", "gradient")
    seed: int = 0
    steps: int = 25
    guidance: float = 2.0
    update: str = "homogeneous"

    def __post_init__(self) -> None:
        for name in ("scenes", "validation"):
            if getattr(self, name) < 1:
                raise ValueError(f"the number of {name} must be at least 1, got {getattr(self, name)}")
        for name in ("runs", "costly_scenes"):
            if getattr(self, name) < 0:
                raise ValueError(f"the number of {name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2^32), got {self.seed}")

    @property
    def test_runs(self) -> int:
        """How many test scenes have whole runs."""
        return min(self.runs, self.scenes)

    @property
    def validation_runs(self) -> int:
        """How many validation scenes have whole runs."""
        return -(-self.validation * self.test_runs // self.scenes)

    @property
    def costly_runs(self) -> int:
        """On how many scenes of each split costly methods explain whole runs, of which each is many steps."""
        return -(-self.costly_scenes // RUNS_SHARE)


@dataclass(frozen=True)
class Contender:
    """A model with the methods that can explain it, by name."""

    pipeline: BcosDiffusionPipeline
    methods: dict[str, Attribution]


@dataclass(frozen=True)
class Setup:
    """Everything that a record of one scene depends on beside its number.

    twin: the ordinary model of the same size, if there is one; segmenter: needed for what is drawn freely; parts: which
    of :data:`PARTS` are measured.
    """

    contender: Contender
    options: Options = field(default_factory=Options)
    twin: Contender | None = None
    segmenter: Segmenter | None = None
    parts: tuple[str, ...] = PARTS

    def __post_init__(self) -> None:
        if self.twin is not None and self.twin.pipeline.default_size != self.contender.pipeline.default_size:
            sizes = [c.pipeline.default_size for c in self.contenders.values()]
            raise ValueError(f"model and twin must draw pictures of one size, got {sizes[0]} and {sizes[1]}")

    @property
    def size(self) -> int:
        """The side of scenes in pixels: that of the model's pictures."""
        return self.contender.pipeline.default_size[0]

    @property
    def contenders(self) -> dict[str, Contender]:
        """The model and its twin, by the names that records have for them."""
        return {"model": self.contender} | ({} if self.twin is None else {"twin": self.twin})

    def methods(self, contender: Contender, number: int, of_costly: int) -> dict[str, Attribution]:
        """The methods that run on scene ``number``: costly ones on the first ``of_costly`` scenes alone."""
        costly = () if number < of_costly else self.options.costly
        return {name: method for name, method in contender.methods.items() if name not in costly}


Record = dict[str, Any]
