"""What a sweep found, by cell: one layer of one model at one timestep, under one conditioning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bcos_diffusion.features.sweep.measure import OBJECT
from bcos_diffusion.features.sweep.plan import PIXELS, UNTRAINED, Cell

Values = Mapping[str, Any]


class Found:
    """Reads what :func:`~bcos_diffusion.features.sweep.sweep` returned, or the same from JSON."""

    def __init__(self, values: Values):
        self.values = values
        self.models: tuple[str, ...] = tuple(values["models"])
        self.timesteps: tuple[int, ...] = tuple(values["timesteps"])
        self.conditionings: tuple[str, ...] = tuple(values["conditionings"])

    @property
    def reference(self) -> tuple[int, str]:
        """The timestep and the conditioning at which everything is compared."""
        return self.timesteps[0], self.conditionings[0]

    def layers(self, label: str) -> tuple[str, ...]:
        """The layers that were read of a model, in running order; none of one that was not."""
        return tuple(self.values["layers"].get(label, ()))

    def cell(self, label: str, layer: str, t: int | None = None, said: str | None = None) -> Values | None:
        """The numbers of a cell, at the reference where nothing is said; None where it was not measured."""
        at, under = self.reference
        cell = Cell(label, layer, at if t is None else t, under if said is None else said)
        found: Values | None = self.values["cells"].get(cell.name)
        return found

    def row(self, label: str, t: int | None = None, said: str | None = None) -> dict[str, Values]:
        """The cells of all layers of a model that were measured, by layer."""
        cells = {layer: self.cell(label, layer, t, said) for layer in self.layers(label)}
        return {layer: cell for layer, cell in cells.items() if cell is not None}

    def of(self, label: str) -> list[Values]:
        """All cells of a model."""
        return [cell for cell in self.values["cells"].values() if cell["model"] == label]

    def family(self, label: str) -> str:
        """U-Net or transformer, or another network."""
        return str(self.values["models"][label]["family"])

    def form(self, label: str) -> str:
        """B-cos, which can be explained exactly, or ordinary."""
        return str(self.values["models"][label]["form"])

    @property
    def factors(self) -> tuple[str, ...]:
        """What labels are of, the object first."""
        return tuple(sorted(self.values["classes"], key=lambda factor: factor != OBJECT))  # stable

    @property
    def baselines(self) -> tuple[str, ...]:
        """The labels of the baselines that were measured."""
        return tuple(label for label in (PIXELS, UNTRAINED) if self.of(label))
