"""By how much features beat the pixels that the network is given, and the network as it is before training."""

from __future__ import annotations

from bcos_diffusion.features.sweep.found import Found
from bcos_diffusion.features.sweep.margins import AT_REFERENCE, margin
from bcos_diffusion.features.sweep.measures import PROBES, Measure
from bcos_diffusion.features.sweep.page.grids import cell, number_cell
from bcos_diffusion.features.sweep.plan import IMAGE, PIXELS, UNTRAINED
from bcos_diffusion.page.section import Cell, Section, Table

HEADS = ("best layer", "its number", "noised pixels", "margin", "untrained, best layer", "margin")


def section(found: Found) -> Section:
    """Margins at the reference in every measure, and over timesteps."""
    t = found.reference[0]
    tables = [_at_reference(found, label) for label in found.models]
    tables += [_over_timesteps(found, label, m) for label in found.models for m in PROBES]
    return Section(
        "baselines",
        "Against pixels and random features",
        (
            "Noised pixels are what the first model is given at a timestep, with the very noise that the features had;"
            " Diff-C reads them as they are, the linear probe all of them at once, and the autoencoder a thumbnail of"
            " them with as many latents as the largest of the layers'. The untrained network is the first model's with"
            " the weights that its training began with. A margin is of the best layer over the baseline's best, in"
            " points, with its 95% interval: paired over test images, or over latents. Above 0 the layer is better."
            f" Autoencoders of both baselines were trained at t = {t} alone.",
            *_clean(found),
        ),
        tables=tuple(tables),
    )


def _clean(found: Found) -> list[str]:
    image = found.cell(PIXELS, IMAGE, 0)
    if image is None:
        return []
    told = ", ".join(f"{m.name} {m.show(m.read(image))}" for m in PROBES)
    return [f"Of clean images, which no network here was given: {told}."]


def _at_reference(found: Found, label: str) -> Table:
    t, said = found.reference
    rows = tuple((measure.name, *_margins(found, label, measure, t)) for measure in AT_REFERENCE)
    return Table(f"{label}: margins at t = {t}, {said} prompt", ("measure", *HEADS), rows)


def _over_timesteps(found: Found, label: str, measure: Measure) -> Table:
    rows = tuple((f"t = {t}", *_margins(found, label, measure, t)) for t in found.timesteps)
    return Table(f"{label}: margins of {measure.name} over timesteps", ("timestep", *HEADS), rows)


def _margins(found: Found, label: str, measure: Measure, t: int) -> tuple[Cell | str, ...]:
    row = found.row(label, t)
    best = measure.best(row)
    cells: list[Cell | str] = [best or "none", cell(measure, row[best] if best else None)]
    for baseline in (PIXELS, UNTRAINED):
        known = margin(found, label, baseline, measure, t)
        if known is None:
            cells += [Cell("–", mark="unknown"), Cell("–", mark="unknown")]
            continue
        gain = known.gain
        mark = "reached" if gain.low > 0 else "missed" if gain.high < 0 else ""
        text, interval = gain.text(measure.scale, measure.digits), gain.interval(measure.scale, measure.digits)
        cells += [number_cell(measure, known.theirs), Cell(text, interval, mark)]  # type: ignore[arg-type]
    return tuple(cells)
