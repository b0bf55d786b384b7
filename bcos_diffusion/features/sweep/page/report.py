"""A sweep as one page and one file of numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bcos_diffusion.evaluation.json_values import for_json
from bcos_diffusion.features.sweep.claims import claims
from bcos_diffusion.features.sweep.found import Found
from bcos_diffusion.features.sweep.margins import margins
from bcos_diffusion.features.sweep.page import baselines, judged, latents, measured, probes, purity
from bcos_diffusion.features.sweep.page.attributed import attribution_sheet
from bcos_diffusion.features.sweep.page.pictures import pca_sheet, top_sheet
from bcos_diffusion.features.sweep.run import Work
from bcos_diffusion.features.sweep.verdict import Claim
from bcos_diffusion.page.html import page
from bcos_diffusion.page.section import Section, Sheet
from bcos_kernels.files import write_atomically, write_json

TITLE = "What the features know"
_OF_IMAGES = ("predicted", "truth")


def write(
    work: Work, values: Mapping[str, Any], command: str, advance: Callable[[], object] = lambda: None
) -> list[str]:
    """Write ``report.json`` and ``report.html``, each whole or not at all; returns the first sentences.

    values: what :func:`~bcos_diffusion.features.sweep.run.values_of` returned; advance: called after the pictures of
    each model. Raises OSError.
    """
    found = Found(values)
    told = claims(found)
    pictures = [_pictures(work, found, label, advance) for label in found.models]
    html = page(TITLE, judged.lead(told), sections(found, told, pictures, command))
    numbers = without_images(dict(values)) | {"claims": [claim.to_dict() for claim in told]}
    numbers |= {"margins": margins(found), "command": command}
    write_json(work.out / "report.json", for_json(numbers))
    write_atomically(work.out / "report.html", lambda temporary: temporary.write_text(html, encoding="utf-8"))
    return judged.lead(told)


def sections(found: Found, told: Sequence[Claim], pictures: Sequence[Sequence[Sheet]], command: str) -> list[Section]:
    """All sections; pictures: of each model, its sheets of top images, components and, of B-cos, attributions."""
    tops, components, driven = (tuple(own[i] for own in pictures if len(own) > i) for i in range(3))
    return [
        judged.section(told),
        purity.section(found),
        probes.section(found),
        latents.monosemantic_section(found),
        latents.dictionaries_section(found),
        baselines.section(found),
        Section("top", "Top images", sheets=tops),
        Section("components", "Principal components of places", (
            "The paper sees parts of objects in the maps of a U-Net and blended colours in those of a transformer. This"
            " is for the eye; no verdict is drawn from it.",), sheets=components),
        Section("attribution", "What drives a latent", sheets=driven,
                missing="" if driven else "only a B-cos model can be taken apart exactly, and the sweep has none"),
        measured.section(found, command),
    ]  # fmt: skip


def without_images(values: Any) -> Any:
    """The same values without what was said of each image, which the files of cells hold."""
    if isinstance(values, Mapping):
        return {key: without_images(value) for key, value in values.items() if key not in _OF_IMAGES}
    return values


def _pictures(work: Work, found: Found, label: str, advance: Callable[[], object]) -> list[Sheet]:
    sheets = [top_sheet(work, label), pca_sheet(work, label)]
    if found.form(label) == "B-cos":
        sheets.append(attribution_sheet(work, found, label, work.out))
    advance()
    return sheets
