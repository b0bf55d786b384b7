"""What single latents are about, and how good the autoencoders are that they are of."""

from __future__ import annotations

from bcos_diffusion.features.sweep.claims import ACTIVE, EXPLAINED
from bcos_diffusion.features.sweep.found import Found, Values
from bcos_diffusion.features.sweep.margins import baseline_row
from bcos_diffusion.page.section import Cell, Section, Table


def monosemantic_section(found: Found) -> Section:
    """Shares of latents by what they tell, by layer, beside those of shuffled labels."""
    t, said = found.reference
    tables = [_shares(found, label, found.row(label), f"t = {t}, {said} prompt") for label in found.models]
    tables += [_shares(found, name, baseline_row(found, name), f"t = {t}") for name in found.baselines]
    return Section(
        "monosemanticity",
        "What single latents tell",
        (
            "A latent tells a class where at least half of the way from chance to certainty is gone: of its activation,"
            " as much falls on images of the class. It is monosemantic in a factor if it tells a class of that factor"
            " alone, and mixed if it tells classes of several. Below each share, what labels shuffled over the images"
            " give. Shares are of latents that are active on at least ten images. A scene has an object where it"
            " shows one kind alone, so fewer latents can be found to tell one.",
        ),
        tables=tuple(tables),
    )


def _shares(found: Found, label: str, row: dict[str, Values], where: str) -> Table:
    names = [*found.factors, "mixed", "nothing"]
    rows: list[tuple[Cell | str, ...]] = []
    for layer, values in row.items():
        of = values["monosemanticity"]
        shares, chance = of["summary"]["monosemantic"], of["chance"]["monosemantic"]
        cells = [Cell(_percent(shares[name]), f"chance {_percent(chance[name])}") for name in names]
        rows.append((layer, *cells, f"{of['judged']:,}"))
    return Table(f"{label}: latents by what they tell, {where}", ("layer", *names, "latents judged"), tuple(rows))


def _percent(share: float | None) -> str:
    """A share; of no latents it is no number."""
    return "–" if share is None else f"{share:.1%}"


def dictionaries_section(found: Found) -> Section:
    """Quality of every autoencoder, against the target; where it was missed, why."""
    cells = [cell for cell in found.values["cells"].values() if "sae" in cell]
    settings = found.values["settings"]["sae"]
    missed = [cell for cell in cells if cell["sae"]["explained_variance"] < EXPLAINED]
    text = (
        f"{settings['expansion']} latents for each dimension, {settings['k']} of them active, {settings['steps']} steps"
        f" of {settings['batch_size']} images, measured on a tenth of the images, which they did not learn from. The"
        f" target is to explain {EXPLAINED:.0%} of the variance with {ACTIVE} active latents:"
        f" {len(cells) - len(missed)} of {len(cells)} do."
    )
    return Section("autoencoders", "How good the autoencoders are", (text, *map(_reason, missed)), (_quality(cells),))


def _quality(cells: list[Values]) -> Table:
    rows = []
    for cell in cells:
        sae = cell["sae"]
        explained = sae["explained_variance"]
        rows.append((
            f"{cell['model']} {cell['layer']}, t = {cell['t']}, {cell['conditioning']}",
            Cell(f"{explained:.1%}", mark="reached" if explained >= EXPLAINED else "missed"),
            f"{sae['normalised_mse']:.3f}", f"{sae['l0']:.1f}", f"{sae['dead_share']:.1%}", f"{sae['latents']:,}",
            f"{sae['components']:.1%}", f"{sae['seconds']:.0f}",
        ))  # fmt: skip
    heads = ("features", "explained variance", "normalised MSE", "L0", "dead latents", "latents",
             f"variance of the first {ACTIVE} principal components", "seconds")  # fmt: skip
    return Table("Every autoencoder of the sweep", heads, tuple(rows), folded=len(rows) > 12)


def _reason(cell: Values) -> str:
    """Why an autoencoder misses the target, from its own numbers."""
    sae = cell["sae"]
    return (
        f"{cell['model']} {cell['layer']} at t = {cell['t']}, {cell['conditioning']}, explains"
        f" {sae['explained_variance']:.1%}: its features vary in many directions at once, of which the first {ACTIVE}"
        f" principal components explain {sae['components']:.1%}; {sae['dead_share']:.1%} of its latents are not used."
    )
