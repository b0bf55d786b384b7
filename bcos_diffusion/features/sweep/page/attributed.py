"""Exact attribution of a few latents of a B-cos model: which words and pixels drive them, and what they draw."""

from __future__ import annotations

from pathlib import Path

from bcos_diffusion.features.key import Key
from bcos_diffusion.features.latents.attribution_figure import draw_latent
from bcos_diffusion.features.latents.choice import explainable, step_of_image
from bcos_diffusion.features.sweep.found import Found
from bcos_diffusion.features.sweep.measure import OBJECT
from bcos_diffusion.features.sweep.measures import DIFF_C_FEW, TOP_SHARE
from bcos_diffusion.features.sweep.page.chosen import Chosen, choose
from bcos_diffusion.features.sweep.plan import Cell
from bcos_diffusion.features.sweep.run import Work
from bcos_diffusion.page.section import Example, Picture, Sheet

FIGURES = "figures"
LATENTS = 3


def attribution_sheet(work: Work, found: Found, label: str, folder: Path) -> Sheet:
    """Figures of latents of the purest layer, under a targeted prompt where there is one. Written below ``folder``.

    Each is of the latent's first top image. Raises OSError.
    """
    chosen = choose(work, _cell(work, found, label))
    cell = chosen.cell
    pictures = [
        Picture(_draw(work, chosen, latent, folder), f"latent {latent}: top images and what drives it", role, wide=True)
        for role, latent in few(chosen).items()
    ]
    return Sheet(
        f"{label}: what drives latents of {cell.layer}",
        f"t = {cell.t}, {cell.conditioning} prompt, for the image that activates each most. The bars are exact: what"
        " each word, x_t, the timestep and the autoencoder's constant add to the activation, which is their sum. The"
        " last picture is what the latent's direction adds to the predicted image.",
        (Example(cell.layer, "", tuple(pictures)),),
    )


def _cell(work: Work, found: Found, label: str) -> Cell:
    """The purest layer by objects; where no latent can be judged, the one that a few images tell most of."""
    t, said = work.plan.reference
    said = "targeted" if "targeted" in work.field.conditionings[label] else said
    row = found.row(label, t, said)
    return Cell(label, TOP_SHARE.best(row) or DIFF_C_FEW.best(row) or next(iter(row)), t, said)


def few(chosen: Chosen) -> dict[str, int]:
    """The purest by object first, then the others, each latent once."""
    names = sorted(chosen.latents, key=lambda name: name != f"purest by {OBJECT}")  # stable
    once: dict[int, str] = {}
    for name in names:
        once.setdefault(chosen.latents[name], name)
    return {name: latent for latent, name in list(once.items())[:LATENTS]}


def _draw(work: Work, chosen: Chosen, latent: int, folder: Path) -> bytes:
    cell = chosen.cell
    store = work.store(cell.model)
    again = work.again(cell.model, cell.conditioning)
    key = Key(cell.layer, cell.t, cell.conditioning)
    step, _ = step_of_image(again, explainable(again.subject), key, int(chosen.top.image[latent, 0]))
    path = folder / FIGURES / f"{cell.name}-latent-{latent}.png"
    draw_latent(step, chosen.autoencoder, latent, path, chosen.top, lambda i: store.images([i])[0])
    return path.read_bytes()
