"""What being explainable costs the pictures: the B-cos model beside an ordinary twin of the same budget."""

from __future__ import annotations

from typing import Any

from bcos_diffusion.evaluation.page.results import number_at, part
from bcos_diffusion.page.section import Section, Table

ROWS = {
    ("model", "drawn"): "B-cos (ours)",
    ("twin", "drawn"): "ordinary twin",
    ("model", "real"): "the captions' own scenes",
}
DISTANCES = (("frechet", "Fréchet distance", 1.0, 3), ("kernel", "kernel distance × 1000", 1000.0, 2))
SHARES = {
    "objects": "named objects drawn, % ↑",
    "colour": "backgrounds as named, % ↑",
    "relation": "arranged as named, % ↑",
    "counts": "as many as named, % ↑",
}


def section(result: Any) -> Section:
    """Distances to held-out scenes on the features of each network, and what the segmenter finds in the pictures."""
    found, denoised = part(result, "quality") or {}, denoising(part(result, "denoising_mse") or {})
    if not found:
        reason = "pictures were not drawn in this run"
        return Section("quality", "Image quality", tables=(denoised,) if denoised else (), missing=reason)
    texts = [
        "Pictures of the captions of test scenes, beside scenes that follow these. The captions' own scenes are what"
        " can be reached at best. Distances vary with the network whose features are compared, so there are two."
    ]
    if "twin" not in found:
        texts.append("No ordinary twin was given (--twin FOLDER), so what exactness costs is not measured here.")
    tables = [table for table in (distances(found), shares(found), denoised) if table]
    return Section("quality", "Image quality", tuple(texts), tuple(tables))


def extractors(found: Any) -> list[str]:
    """The networks on whose features distances were measured."""
    return list(part(found, "model", "drawn", "frechet") or {})


def distances(found: Any) -> Table | None:
    """A column for each distance and network."""
    columns = [
        (key, name, title, scale, digits) for name in extractors(found) for key, title, scale, digits in DISTANCES
    ]
    if not columns:
        return None
    heads = ("pictures of", *(f"{title}, {name} ↓" for _, name, title, _, _ in columns))
    rows = tuple(
        (label, *(number_at(found, *path, key, name).both(scale, digits) for key, name, _, scale, digits in columns))
        for path, label in ROWS.items() if part(found, *path)
    )  # fmt: skip
    return Table(f"Distance of {_count(found)} pictures to held-out scenes", heads, rows)


def shares(found: Any) -> Table | None:
    """What is in the pictures of what captions name."""
    known = {key: head for key, head in SHARES.items() if any(number_at(found, *path, key).known for path in ROWS)}
    if not known:
        return None
    rows = tuple(
        (label, *(number_at(found, *path, key).both(100, 1) for key in known))
        for path, label in ROWS.items() if part(found, *path)
    )  # fmt: skip
    return Table(f"What the segmenter finds in {_count(found)} pictures", ("pictures of", *known.values()), rows)


def denoising(found: Any) -> Table | None:
    """Mean squared error of the predicted x_0, by model and noise level."""
    models = {name: label for name, label in (("model", "B-cos (ours)"), ("twin", "ordinary twin")) if name in found}
    levels = list(found["model"]) if "model" in found else []
    if not levels:
        return None
    rows = tuple((label, *(number_at(found, m, level).both(1, 4) for level in levels)) for m, label in models.items())
    heads = ("model", *(f"t = {float(level):g} T ↓" for level in levels))
    return Table("Mean squared error of the x₀ predicted in one step, six channels", heads, rows)


def _count(found: Any) -> str:
    count = number_at(found, "model", "count")
    return count.text(1, 0) if count.known else "drawn"
