"""Accuracy of probes over layers and timesteps: the paper's Figures 4 and 6 and its Tables 6 to 9."""

from __future__ import annotations

from collections.abc import Sequence

from bcos_diffusion.features.sweep.found import Found
from bcos_diffusion.features.sweep.measure import OBJECT
from bcos_diffusion.features.sweep.measures import DIFF_C, DIFF_C_FEW, PROBES, AccuracyMeasure, linear
from bcos_diffusion.features.sweep.page.grids import (
    BEST_UNTRAINED,
    cell,
    over_conditionings,
    over_timesteps,
    with_baselines,
)
from bcos_diffusion.features.sweep.plan import NOISED
from bcos_diffusion.page.section import Cell, Chart, Line, Section, Table

BESIDE = 0.4
"""Of the distance of two layers, what a chart has beside the first and the last, for their names."""


def section(found: Found) -> Section:
    """Charts and tables of every probe."""
    unseeing, few = found.values["unseeing"][OBJECT], found.values["settings"]["few"]
    text = (
        f"Which of {unseeing['classes']} objects a scene shows, told by Diff-C from all places of a layer and by a"
        f" linear probe from their mean (of pixels, from all of them). They learn from {unseeing['train_images']}"
        f" images, or from at most {few} a class, which are {unseeing['few_images']}, and are judged on"
        f" {unseeing['test_images']}; who looks at none is right in {unseeing['majority']:.1%}."
    )
    return Section(
        "probes",
        "What probes read",
        (text,),
        tables=(
            *(over_timesteps(found, label, measure) for label in found.models for measure in PROBES),
            *(over_conditionings(found, label, measure) for label in found.models for measure in (DIFF_C, DIFF_C_FEW)),
            *(_by_factor(found, label) for label in found.models),
        ),
        charts=tuple(
            draw(found, label, measure)
            for label in found.models
            for measure in (DIFF_C, DIFF_C_FEW)
            for draw in (_over_layers, _over_timesteps)
        ),
    )


def _over_layers(found: Found, label: str, measure: AccuracyMeasure) -> Chart:
    """A line a timestep, over layers (Figure 4)."""
    layers = found.layers(label)
    ends = (-BESIDE, len(layers) - 1 + BESIDE)
    lines = tuple(
        Line(f"t = {t}", tuple(map(float, range(len(layers)))),
             tuple(measure.read(found.cell(label, layer, t)).value for layer in layers), style)
        for style, t in enumerate(found.timesteps)
    )  # fmt: skip
    return Chart(f"{label}: {measure.name} over layers", "layer", "top-1 accuracy", lines, ends, x_names=layers)


def _over_timesteps(found: Found, label: str, measure: AccuracyMeasure) -> Chart:
    """A line a layer and a baseline, over timesteps (Figure 6)."""
    steps = sorted(found.timesteps)
    rows = [with_baselines(found, label, t, measure) for t in steps]
    names: Sequence[str] = (*found.layers(label), NOISED, BEST_UNTRAINED)
    lines = tuple(
        Line(name, tuple(map(float, steps)), tuple(measure.read(row.get(name)).value for row in rows), style)
        for style, name in enumerate(names)
    )
    ends = (float(min(0, *steps)), float(max(1, *steps)))
    return Chart(f"{label}: {measure.name} over timesteps", "timestep", "top-1 accuracy", lines, ends)


def _by_factor(found: Found, label: str) -> Table:
    """The linear probe of every factor at the reference, beside the accuracy of the commonest class."""
    factors = found.factors
    rows: list[tuple[Cell | str, ...]] = [
        (layer, *(cell(linear(factor), values) for factor in factors)) for layer, values in found.row(label).items()
    ]
    blind = ("who looks at no image", *(f"{found.values['unseeing'][factor]['majority']:.1%}" for factor in factors))
    t, said = found.reference
    caption = f"{label}: linear probe of every factor, t = {t}, {said} prompt"
    return Table(caption, ("layer", *factors), (*rows, blind))
