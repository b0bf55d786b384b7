"""Tables of one measure: timesteps, conditionings or models in rows, layers in columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bcos_diffusion.evaluation.page.results import Number
from bcos_diffusion.features.sweep.found import Found, Values
from bcos_diffusion.features.sweep.margins import baseline_row
from bcos_diffusion.features.sweep.measures import AccuracyMeasure, Measure
from bcos_diffusion.features.sweep.plan import PIXELS, UNTRAINED
from bcos_diffusion.page.section import Cell, Table

Row = tuple[str, Mapping[str, Values]]
BEST_UNTRAINED = "untrained, best layer"


def over_timesteps(found: Found, label: str, measure: Measure) -> Table:
    """Timesteps in rows, layers in columns; of accuracies the baselines beside."""
    rows: list[Row] = [(f"t = {t}", with_baselines(found, label, t, measure)) for t in found.timesteps]
    columns = [*found.layers(label), *(name for name in _extra(found, measure) if any(name in row for _, row in rows))]
    return grid(
        f"{label}: {measure.name} over timesteps, {found.reference[1]} prompt", "timestep", rows, columns, measure
    )


def over_conditionings(found: Found, label: str, measure: Measure) -> Table:
    """Conditionings in rows, layers in columns, at the first timestep."""
    rows: list[Row] = [(said, row) for said in found.conditionings if (row := found.row(label, said=said))]
    caption = f"{label}: {measure.name} under prompts, t = {found.reference[0]}"
    return grid(caption, "prompt", rows, found.layers(label), measure)


def grid(caption: str, corner: str, rows: Sequence[Row], columns: Sequence[str], measure: Measure) -> Table:
    """One number a cell with its interval; the best of the table is marked, and what is not apart from it."""
    numbers = [measure.read(row[column]) for _, row in rows for column in columns if column in row]
    known = [number for number in numbers if number.known]
    best = max(known, key=lambda number: measure.better * number.value, default=None)
    body: tuple[tuple[Cell | str, ...], ...] = tuple(
        (name, *(cell(measure, row.get(column), best is not None and measure.read(row.get(column)) == best)
                 for column in columns))
        for name, row in rows
    )  # fmt: skip
    return Table(caption, (corner, *columns), body)


def cell(measure: Measure, values: Values | None, best: bool = False) -> Cell:
    """A number of a cell as tables have it."""
    return Cell("–", mark="unknown") if values is None else number_cell(measure, measure.read(values), best)


def number_cell(measure: Measure, number: Number, best: bool = False) -> Cell:
    """A number of a cell that was measured, which latents may not have."""
    if not number.known:
        return Cell("no latent", mark="unknown")
    interval = number.interval(measure.scale, measure.digits)
    return Cell(number.text(measure.scale, measure.digits) + measure.unit, interval, "best" if best else "")


def with_baselines(found: Found, label: str, t: int, measure: Measure) -> dict[str, Values]:
    """The layers of a model at a timestep; of accuracies the baselines beside."""
    row = dict(found.row(label, t))
    if isinstance(measure, AccuracyMeasure):
        row |= baseline_row(found, PIXELS, t)
        untrained = baseline_row(found, UNTRAINED, t)
        if best := measure.best(untrained):
            row[BEST_UNTRAINED] = untrained[best]
    return row


def _extra(found: Found, measure: Measure) -> tuple[str, ...]:
    return (*baseline_row(found, PIXELS), BEST_UNTRAINED) if isinstance(measure, AccuracyMeasure) else ()
