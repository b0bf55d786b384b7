"""Run a sweep: read the features of every model, then measure cell by cell. What is done is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.evaluation.kept import kept
from bcos_diffusion.evaluation.provenance import environment, machine
from bcos_diffusion.features.extraction import extract
from bcos_diffusion.features.images import SceneImages
from bcos_diffusion.features.pipeline_subject import PipelineSubject
from bcos_diffusion.features.plan import Plan
from bcos_diffusion.features.store import FeatureStore
from bcos_diffusion.features.subject import Subject, load_subject
from bcos_diffusion.features.sweep.measure import largest_dictionary, measure
from bcos_diffusion.features.sweep.plan import PIXELS, UNTRAINED, Cell, SweepPlan, cells, own_layers
from bcos_diffusion.many import agree_on_settings
from bcos_diffusion.pipeline import BcosDiffusionPipeline
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
    subjects = {model.label: load_subject(model.source) for model in plan.models}
    first = subjects[plan.models[0].label]
    sizes = {label: subject.size for label, subject in subjects.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{label} {size}" for label, size in sizes.items())
        raise ValueError(f"models of one sweep must read images of one size, these differ: {told}")
    layers = {label: own_layers(subject, plan.layers) for label, subject in subjects.items()}
    agree_on_settings(out, plan.settings())
    subjects[UNTRAINED] = untrained(first, plan.seed)
    layers[UNTRAINED] = layers[plan.models[0].label]
    stores = {label: read_features(plan, subjects[label], layers[label], out, label, workers, progress) for label in layers}
    todo = cells(plan, layers)
    work = Work(plan, out, {label: tuple(s.folder for s in own) for label, own in stores.items()}, settings_of(subjects))
    advance = progress("cell", len(todo))
    spread(measure_cell, work, todo, workers, lambda _: advance())
    found = {cell.name: vars(cell) | measure_cell(work, cell) for cell in todo}
    store = stores[plan.models[0].label][0]
    return {
        "models": {model.label: {"source": model.source, **subjects[model.label].settings()} for model in plan.models},
        "layers": {label: list(own) for label, own in layers.items()},
        "timesteps": list(plan.timesteps),
        "conditionings": list(plan.conditionings),
        "size": first.size,
        "classes": {factor: list(names) for factor, names in store.classes.items()},
        "labelled": {factor: int((own >= 0).sum()) for factor, own in store.labels.items()},
        "settings": plan.settings(),
        "cells": found,
        "provenance": {**environment(), "machine": machine(torch.device("cpu"))},
    }


def untrained(subject: Subject, seed: int) -> Subject:
    """A subject with the weights that training starts from: random features of the same shape. Ours alone have one."""
    if not isinstance(subject, PipelineSubject):
        raise ValueError(f"the first model of a sweep must be one of ours, {subject.name} is not")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = subject.pipeline.model.twin()
    return PipelineSubject(BcosDiffusionPipeline(model, subject.pipeline.defaults, UNTRAINED))


def read_features(
    plan: SweepPlan, subject: Subject, layers: Sequence[str], out: Path, label: str, workers: int, progress: Progress
) -> tuple[FeatureStore, ...]:
    """The features of one model: over timesteps, and over conditionings; of the untrained one at one point alone."""
    t, said = plan.reference
    images = SceneImages(subject.size, "test", seed=plan.seed)
    grids = [(plan.timesteps, (said,)), ((t,), plan.conditionings[1:])]
    stores = []
    for name, (timesteps, conditionings) in zip(("steps", "said"), grids, strict=True):
        if label == UNTRAINED:
            timesteps = (t,)
        if not conditionings or (label == UNTRAINED and name == "said"):
            continue
        asked = Plan(
            images, plan.count, tuple(layers), timesteps, conditionings, pooled=False, dtype="float16", seed=plan.seed
        )
        tick: list[Callable[[], object]] = []
        begin = lambda summary, shards: tick.append(progress(f"{label}: {summary}", shards))  # noqa: E731
        store = extract(subject, asked, out / "features" / label / name, workers, begin=begin, advance=lambda _: tick[0]())
        assert store is not None  # no share is anybody else's
        stores.append(store)
    return tuple(stores)


@dataclass(frozen=True)
class Work:
    """What a process needs to measure any cell. stores: folders of features by model; identities: what tells models
    apart."""

    plan: SweepPlan
    out: Path
    stores: Mapping[str, tuple[Path, ...]]
    identities: Mapping[str, Mapping[str, Any]]

    def store_of(self, cell: Cell) -> FeatureStore:
        """Where a cell's features are."""
        label = self.plan.models[0].label if cell.model == PIXELS else cell.model
        own = [FeatureStore(folder) for folder in self.stores[label]]
        return own[0] if cell.model == PIXELS or cell.conditioning in own[0].conditionings else own[1]

    def folder_of(self, cell: Cell) -> Path:
        """Where a cell's autoencoder is."""
        return self.out / "autoencoders" / cell.name


def measure_cell(work: Work, cell: Cell) -> dict[str, Any]:
    """Measure a cell, or read what was measured of it."""
    settings = {**work.plan.settings(), "cell": vars(cell), "subject": work.identities.get(cell.model)}

    def found() -> dict[str, Any]:
        store = work.store_of(cell)
        if cell.model == PIXELS:
            features = store.images(slice(None))
            dims = {layer: shape[0] for layer, shape in store.shapes.items()}
            latents = largest_dictionary(work.plan.sae, dims)
        else:
            features, latents = store.read(cell.layer, cell.t, cell.conditioning), None
        return measure(features, store.labels, store.classes, work.plan, work.folder_of(cell), latents)

    values = kept(work.out / "cells" / f"{cell.name}.json", settings, found)
    return {"seconds": values["seconds"], **values["found"]}


def settings_of(subjects: Mapping[str, Subject]) -> dict[str, dict[str, Any]]:
    """What tells models apart, by label."""
    return {label: subject.settings() for label, subject in subjects.items()}


def pooled_features(work: Work, cell: Cell) -> Tensor:
    """The features ``[N, D]`` that a cell's autoencoder was trained on."""
    return work.store_of(cell).read(cell.layer, cell.t, cell.conditioning).mean((2, 3))
