"""What a sweep compares, and which cells of models × layers × timesteps × conditionings it measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bcos_diffusion.features.probe import Recipe
from bcos_diffusion.features.sae import SAEConfig

UNTRAINED, PIXELS = "untrained", "pixels"
"""Baselines: the first model's network as it is before training, and the images themselves."""
IMAGE, NOISED = "image", "x_t"
"""What is read of :data:`PIXELS`: clean images, and what the first model was given of them, with the same noise."""
SAE = SAEConfig(expansion=8)
"""Of a few thousand images, the paper's 64 latents a dimension are more than there are images, and few of them would be
active on the ten labelled ones that its purity asks for; an eighth of them is also an eighth of the time."""


@dataclass(frozen=True)
class Model:
    """label: as tables name it; source: its folder, hub id or name in the package."""

    label: str
    source: str

    @classmethod
    def parse(cls, text: str) -> Model:
        """Read ``LABEL=SOURCE``, or a source whose last part is its label. Raises ValueError for an empty part."""
        label, given, source = text.partition("=")
        found = cls(label, source) if given else cls(Path(text).name, text)
        if not found.label or not found.source:
            raise ValueError(f"a model must be SOURCE or LABEL=SOURCE, got {text!r}")
        return found


@dataclass(frozen=True)
class SweepPlan:
    """What is compared.

    models: the first is the one whose untrained network is the baseline; layers: names or aliases, where there are none
    each model's own (:func:`~bcos_diffusion.features.layers.own_layers`); timesteps: the first is where conditionings
    are compared; conditionings: the first is where layers and timesteps are; count: test scenes; seed: of everything
    that is drawn; few: images of each class that probes of a few examples learn from. Raises ValueError for values that
    cannot be compared.
    """

    models: tuple[Model, ...]
    layers: tuple[str, ...] = ()
    timesteps: tuple[int, ...] = (25, 100, 200, 500)
    conditionings: tuple[str, ...] = ("empty", "generic", "targeted")
    count: int = 2400
    seed: int = 0
    few: int = 5
    sae: SAEConfig = SAE
    recipe: Recipe = Recipe()

    def __post_init__(self) -> None:
        labels = [model.label for model in self.models]
        for name, values in (("models", labels), ("timesteps", self.timesteps), ("conditionings", self.conditionings)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be at least one, each once, got {', '.join(map(str, values)) or 'none'}")
        if taken := {UNTRAINED, PIXELS} & set(labels):
            raise ValueError(
                f"{taken.pop()!r} is the name of a baseline; write LABEL=SOURCE to name the model otherwise"
            )
        if self.count < 100:
            raise ValueError(
                f"count must be at least 100 scenes, of which two fifths have one kind of object: {self.count}"
            )
        if self.few < 1:
            raise ValueError(f"few must be at least 1 image of a class, got {self.few}")

    @property
    def reference(self) -> tuple[int, str]:
        """The timestep and the conditioning at which everything is compared."""
        return self.timesteps[0], self.conditionings[0]

    def settings(self) -> dict[str, Any]:
        """All that one cell's numbers depend on beside the cell and its model's weights."""
        numbers = {"count": self.count, "seed": self.seed, "few": self.few}
        return {**numbers, "sae": asdict(self.sae), "recipe": asdict(self.recipe)}

    def reads_latents(self, cell: Cell) -> bool:
        """Whether a cell has an autoencoder: every one of a model, and of the baselines those at the reference.

        There the baselines are compared with it in every number; elsewhere they say how far object probes get.
        """
        return cell.model not in (UNTRAINED, PIXELS) or (cell.t, cell.conditioning) == self.reference


@dataclass(frozen=True)
class Cell:
    """One layer of one model at one timestep, under one conditioning."""

    model: str
    layer: str
    t: int
    conditioning: str

    @property
    def name(self) -> str:
        """Its file's name."""
        return f"{self.model}-{self.layer}-{self.t}-{self.conditioning}".replace("/", "_").replace(" ", "_")


def cells(
    plan: SweepPlan, layers: Mapping[str, tuple[str, ...]], conditionings: Mapping[str, tuple[str, ...]]
) -> list[Cell]:
    """The cells of a sweep, baselines last; layers, conditionings: of each model, by label, that of a baseline too.

    Layers × timesteps under the first conditioning, then layers × the other conditionings at the first timestep: every
    comparison of the paper, without the rest of the grid.
    """
    t, said = plan.reference
    found = []
    for label, own in layers.items():
        found += [Cell(label, layer, step, said) for step in plan.timesteps for layer in own]
        found += [Cell(label, layer, t, other) for other in conditionings[label][1:] for layer in own]
    found += [Cell(PIXELS, NOISED, step, said) for step in plan.timesteps]
    return [*found, Cell(PIXELS, IMAGE, 0, said)]
