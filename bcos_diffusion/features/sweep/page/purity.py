"""Label purity, the paper's Table 2: by layer, timestep, prompt and model, with chance beside."""

from __future__ import annotations

from bcos_diffusion.features.sweep.found import Found, Values
from bcos_diffusion.features.sweep.margins import baseline_row
from bcos_diffusion.features.sweep.measure import OBJECT
from bcos_diffusion.features.sweep.measures import PurityMeasure, sigma, top_share
from bcos_diffusion.features.sweep.page.grids import cell, over_conditionings, over_timesteps
from bcos_diffusion.page.section import Cell, Section, Table

HEADS = ("layer", "σ_label ↓", "by chance", "top images of one class ↑", "by chance", "latents measured")


def section(found: Found) -> Section:
    """All tables of purity."""
    measures = (sigma(), top_share())
    t, said = found.reference
    return Section(
        "purity",
        "Label purity of latents",
        (
            "Of the 1,000 latents of the highest mean activation, those that are active on more than ten images which"
            " have a label: the standard deviation of the class numbers of their ten top images (σ_label, the paper's),"
            " and the share of the most frequent class among these. Chance is the same with labels shuffled. Class"
            " numbers are those of the alphabet, for objects and colours, so σ_label says how far apart in the alphabet"
            " objects are; it is compared between cells of one factor alone.",
        ),
        tables=(
            *(_by_layer(found, factor, f"{factor}, t = {t}, {said} prompt") for factor in found.factors),
            *(over_timesteps(found, label, measure) for label in found.models for measure in measures),
            *(over_conditionings(found, label, measure) for label in found.models for measure in measures),
        ),
    )  # fmt: skip


def _by_layer(found: Found, factor: str, where: str) -> Table:
    """Every layer of every model at the reference, and of the baselines (Table 2a, c and d)."""
    rows = [(f"{label} {layer}", values) for label in found.models for layer, values in found.row(label).items()]
    for baseline in found.baselines:
        rows += [(f"{baseline} {layer}", values) for layer, values in baseline_row(found, baseline).items()]
    one, two = sigma(factor), top_share(factor)
    of_models = {name: values for name, values in rows if values["model"] in found.models}
    best = {measure: measure.best(of_models) for measure in (one, two)}

    def row(name: str, values: Values) -> tuple[Cell | str, ...]:
        count = values.get("purity", {}).get(factor, {}).get("latents", 0)
        return (
            name, cell(one, values, best[one] == name), _chance(one, values),
            cell(two, values, best[two] == name), _chance(two, values), str(count),
        )  # fmt: skip

    return Table(f"Purity by {where}", HEADS, tuple(row(*each) for each in rows), folded=factor != OBJECT)


def _chance(measure: PurityMeasure, values: Values) -> Cell:
    number = measure.chance(values)
    if not number.known:
        return Cell("–", mark="unknown")
    return Cell(number.text(measure.scale, measure.digits) + measure.unit)
