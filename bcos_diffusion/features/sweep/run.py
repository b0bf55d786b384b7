"""Run a sweep: read the features of every model, then measure cell by cell. What is done is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bcos_diffusion.evaluation.kept import kept
from bcos_diffusion.evaluation.provenance import environment, machine
from bcos_diffusion.features.again import Again
from bcos_diffusion.features.extraction import extract
from bcos_diffusion.features.plan import Plan
from bcos_diffusion.features.store import FeatureStore
from bcos_diffusion.features.subject import Subject
from bcos_diffusion.features.sweep.field import Field, enter
from bcos_diffusion.features.sweep.measure import OBJECT, Inputs, largest_dictionary, measure_latents, probes, unseeing
from bcos_diffusion.features.sweep.plan import IMAGE, PIXELS, Cell, SweepPlan, cells
from bcos_diffusion.many import agree_on_settings
from bcos_diffusion.workers import spread

Progress = Callable[[str, int], Callable[[], object]]
"""Begins a stage of so many parts, ``progress(name, parts)``, and returns what is called after each."""


def no_progress(name: str, parts: int) -> Callable[[], object]:
    """Say nothing."""
    return lambda: None


def sweep(plan: SweepPlan, out: Path, workers: int = 1, progress: Progress = no_progress) -> dict[str, Any]:
    """Measure what is not yet measured below ``out``, and return all that is, as JSON-ready values.

    workers: processes of one thread each; their number changes no number but seconds. Raises ValueError for models of
    different sizes, for layers that there are not, and where ``out`` was begun with other settings; OSError where it
    cannot be written.
    """
    return values_of(begin(plan, out, workers, progress), workers, progress)


@dataclass(frozen=True)
class Work:
    """What a process needs to measure any cell. stores: folders of features by model, timesteps first; identities: what
    tells models apart."""

    plan: SweepPlan
    out: Path
    field: Field
    stores: Mapping[str, tuple[Path, ...]]
    identities: Mapping[str, Mapping[str, Any]]

    def store(self, label: str, conditioning: str | None = None) -> FeatureStore:
        """Where the features of a model are, under a conditioning or the first one."""
        own = [FeatureStore(folder) for folder in self.stores[label]]
        return own[0] if conditioning in (None, *own[0].conditionings) else own[1]

    @property
    def first(self) -> str:
        """The label of the model that the baselines are of."""
        return self.plan.models[0].label

    def folder_of(self, cell: Cell) -> Path:
        """Where a cell's autoencoder is."""
        return self.out / "autoencoders" / cell.name

    def inputs(self, cell: Cell) -> Inputs:
        """What is read of a cell."""
        if cell.model == PIXELS:
            return Inputs.of_pixels(self._pixels(cell))
        store = self.store(cell.model, cell.conditioning)
        return Inputs.of_layer(store.read(cell.layer, cell.t, cell.conditioning))

    def again(self, label: str, conditioning: str | None = None) -> Again:
        """What a model was given when its features were read."""
        return Again(self.store(label, conditioning), self.field.subjects[label])

    def _pixels(self, cell: Cell) -> torch.Tensor:
        """Clean images ``[N, 3, H, W]``, or what the first model was given of them at a timestep."""
        if cell.layer == IMAGE:
            return self.store(self.first).images(slice(None))
        return self.again(self.first).every_x_t(cell.t)


def begin(plan: SweepPlan, out: Path, workers: int = 1, progress: Progress = no_progress) -> Work:
    """Read the features of every model that are not yet read. Raises as :func:`sweep`."""
    field = enter(plan)
    agree_on_settings(out, plan.settings())
    stores = {label: read_features(plan, field, label, out, workers, progress) for label in field.subjects}
    identities = {label: subject.settings() for label, subject in field.subjects.items()}
    return Work(plan, out, field, stores, identities)


def values_of(work: Work, workers: int = 1, progress: Progress = no_progress) -> dict[str, Any]:
    """Measure what is not yet measured, and return all that is, as JSON-ready values."""
    plan, field = work.plan, work.field
    todo = cells(plan, field.layers, field.conditionings)
    advance = progress("cells", len(todo))
    spread(measure_cell, work, todo, workers, lambda _: advance())
    store = work.store(work.first)
    return {
        "models": {
            m.label: {"source": m.source, **field.kinds[m.label], **work.identities[m.label]} for m in plan.models
        },
        "layers": {label: list(own) for label, own in field.layers.items()},
        "timesteps": list(plan.timesteps),
        "conditionings": list(plan.conditionings),
        "size": field.size,
        "classes": {factor: list(names) for factor, names in store.classes.items()},
        "unseeing": unseeing(store.labels, store.classes, plan),
        "left_out": list(field.left_out),
        "settings": plan.settings(),
        "cells": {cell.name: vars(cell) | measure_cell(work, cell) for cell in todo},
        "provenance": {**environment(), "machine": machine(torch.device("cpu")), "workers": workers},
    }  # fmt: skip


def read_features(
    plan: SweepPlan, field: Field, label: str, out: Path, workers: int, progress: Progress
) -> tuple[Path, ...]:
    """The folders of the features of one model: over timesteps, and over conditionings where it has more than one."""
    (t, said), (_, *others) = plan.reference, field.conditionings[label]
    grids = {"steps": (plan.timesteps, (said,)), "said": ((t,), tuple(others))}
    folders = []
    for name, (timesteps, conditionings) in grids.items():
        if not conditionings:
            continue
        asked = Plan(
            field.images, plan.count, field.layers[label], timesteps, conditionings,
            pooled=False, dtype="float16", seed=plan.seed,
        )  # fmt: skip
        folders.append(
            _extracted(field.subjects[label], asked, out / "features" / label / name, label, workers, progress)
        )
    return tuple(folders)


def _extracted(subject: Subject, asked: Plan, folder: Path, label: str, workers: int, progress: Progress) -> Path:
    tick: list[Callable[[], object]] = []

    def started(summary: str, shards: int) -> None:
        tick.append(progress(f"{label}: {summary}", shards))

    extract(subject, asked, folder, workers, begin=started, advance=lambda _: tick[0]())
    return folder


def measure_cell(work: Work, cell: Cell) -> dict[str, Any]:
    """Measure a cell, or read what was measured of it."""
    plan, coded = work.plan, work.plan.reads_latents(cell)
    label = work.first if cell.model == PIXELS else cell.model
    settings = {**plan.settings(), "cell": vars(cell), "subject": work.identities[label], "latents": coded}

    def found() -> dict[str, Any]:
        inputs, store = work.inputs(cell), work.store(work.first)
        labels, classes = store.labels, store.classes
        told: dict[str, Any] = {"dim": inputs.spatial.shape[1], "places": list(inputs.spatial.shape[2:])}
        if coded:
            latents = None
            if cell.model == PIXELS:
                dims = {layer: shape[0] for layer, shape in store.shapes.items()}
                latents = largest_dictionary(plan.sae, dims)
            told |= measure_latents(inputs.coded, labels, classes, plan, work.folder_of(cell), latents)
        return told | probes(inputs, labels, classes, plan, tuple(labels) if coded else (OBJECT,))

    values = kept(work.out / "cells" / f"{cell.name}.json", settings, found)
    return {"seconds": values["seconds"], **values["found"]}
