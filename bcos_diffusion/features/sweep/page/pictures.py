"""Sheets of the page: top images of latents, and maps of principal components."""

from __future__ import annotations

from torch import Tensor

from bcos_diffusion.encoding import to_pil
from bcos_diffusion.evaluation.page.sheets import png
from bcos_diffusion.features.key import Key
from bcos_diffusion.features.latents.sheet import shared_class
from bcos_diffusion.features.pca import PrincipalComponents, upsampled
from bcos_diffusion.features.pca_fits import fits_of
from bcos_diffusion.features.sweep.page.chosen import Chosen, choose
from bcos_diffusion.features.sweep.plan import Cell
from bcos_diffusion.features.sweep.run import Work
from bcos_diffusion.page.section import Example, Picture, Sheet

FITTED, SHOWN = 256, 6
"""Images that components are fitted on, and those that are shown."""


def top_sheet(work: Work, label: str) -> Sheet:
    """The top images of a few latents of every layer of a model at the reference (Figures 2, 3, 9 and 13)."""
    t, said = work.plan.reference
    examples = [_latents(work, choose(work, Cell(label, layer, t, said))) for layer in work.field.layers[label]]
    return Sheet(
        f"{label}: top images of latents",
        f"t = {t}, {said} prompt. A row is a latent: of each factor the one whose ten top images are the purest, and"
        " the two of the highest mean activation. Below an image, its activation.",
        tuple(examples),
    )


def _latents(work: Work, chosen: Chosen) -> Example:
    store = work.store(work.first)
    rows = []
    for role, latent in chosen.latents.items():
        numbers = chosen.top.image[latent]
        told = [shared_class(f, own[numbers], numbers, store.classes[f]) for f, own in store.labels.items()]
        seen = numbers[numbers >= 0]
        values = chosen.top.value[latent].tolist()
        pictures = tuple(
            Picture(png(to_pil(image)), f"scene {number}", f"{value:.3g}")
            for image, number, value in zip(store.images(seen), seen.tolist(), values, strict=False)
        )
        active = int(chosen.top.active[latent])
        rows.append((f"{role}: latent {latent}, on {active} images; {', '.join(told)}", pictures))
    columns = tuple(str(place + 1) for place in range(chosen.top.image.shape[1]))
    return Example(chosen.cell.layer, "", (), columns, tuple(rows), "latent")


def pca_sheet(work: Work, label: str) -> Sheet:
    """Three principal components as colours: images in rows, layers in columns (Figures 10 to 12)."""
    t, said = work.plan.reference
    store, layers = work.store(label), work.field.layers[label]
    shown = slice(0, min(SHOWN, len(store)))
    images = store.images(shown)
    captions = [work.field.images.caption(number) for number in range(len(images))]
    columns: list[list[Picture]] = []
    fits = fits_of(store, [Key(layer, t, said) for layer in layers], slice(0, FITTED), fitted=FITTED)
    for key, fit in fits.items():
        maps = upsampled(fit.colours(store.read(*key, shown)), (images.shape[2], images.shape[3]))
        columns.append([_map(each, key.layer, caption) for each, caption in zip(maps, captions, strict=True)])
    rows = tuple(
        (caption, (Picture(png(to_pil(image)), caption), *(column[number] for column in columns)))
        for number, (image, caption) in enumerate(zip(images, captions, strict=True))
    )
    told = "; ".join(_explained(key.layer, fit) for key, fit in fits.items())
    return Sheet(
        f"{label}: principal components",
        f"t = {t}, {said} prompt. The first three components of a layer's features over all places of"
        f" {min(FITTED, len(store))} scenes are red, green and blue; of other layers they are turned to agree with"
        f" the first's. Their share of the variance: {told}.",
        (Example(label, "", (), ("image", *layers), rows, "scene"),),
    )


def _map(colours: Tensor, layer: str, caption: str) -> Picture:
    return Picture(png(to_pil(colours)), f"{layer} of “{caption}”")


def _explained(layer: str, fitted: PrincipalComponents) -> str:
    return f"{layer} {float(fitted.explained.sum()):.0%}"
