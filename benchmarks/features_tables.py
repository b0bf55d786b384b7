"""The tables of docs/features.md, from a sweep's ``report.json``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markdown_tables import interval, markdown

NAMES = {"pixels": "noised pixels", "untrained": "untrained network"}
READING = {
    "Diff-C": lambda cell: cell["diff_c"]["object"],
    "Diff-C, few images": lambda cell: cell["few"]["diff_c"]["object"],
}


def claims(result: dict[str, Any]) -> str:
    """Every claim of the paper, and ours, beside the verdict for each model; then those about two models."""
    models = _models(result)
    single: dict[tuple[str, str], dict[str, str]] = {}
    pairs = []
    for claim in result["claims"]:
        if claim["subject"] in models:
            single.setdefault((claim["statement"], claim["source"]), {})[claim["subject"]] = _verdict(claim)
        elif claim["subject"]:
            pairs.append([claim["statement"], claim["source"], claim["subject"], _verdict(claim)])
    rows = [[*key, *(told.get(model, "–") for model in models)] for key, told in single.items()]
    return "\n\n".join([
        f"{_caption(result)} In brackets: how many measures tell, and all say so; of the others intervals hold 0.",
        markdown(["claim", "where", *models], rows),
        markdown(["claim", "where", "models", "verdict"], pairs),
    ])  # fmt: skip


def _verdict(claim: dict[str, Any]) -> str:
    """The verdict with how many of its measures say so."""
    holds, fails = ([leg["verdict"] for leg in claim["legs"]].count(vote) for vote in ("holds", "does not hold"))
    if holds and fails:
        return f"measures disagree ({holds} for, {fails} against)"
    if holds or fails:
        return f"{claim['verdict']} ({max(holds, fails)} of {len(claim['legs'])})"
    return str(claim["reason"] or claim["verdict"])


def _models(result: dict[str, Any]) -> list[str]:
    """The models in the order of the command."""
    subjects = dict.fromkeys(claim["subject"] for claim in result["claims"])
    return [subject for subject in subjects if subject in result["models"]]


def margins(result: dict[str, Any]) -> str:
    """By how much the best layer of each model beats pixels and the untrained network, at the reference."""
    first = result["timesteps"][0]
    models = _models(result)
    found = [row for row in result["margins"] if row["t"] == first]
    found.sort(key=lambda row: models.index(row["model"]))
    return f"{_probed(result)} t = {first}.\n\n" + markdown(*_margins(found, "measure", lambda row: row["measure"]))


def later(result: dict[str, Any]) -> str:
    """The same of probes of few images over the timesteps."""
    measures = ("Diff-C, few images", "linear probe, few images")
    models = _models(result)
    found = [row for row in result["margins"] if row["measure"] in measures]
    found.sort(key=lambda row: (models.index(row["model"]), row["measure"], row["t"]))
    heads, rows = _margins(found, "measure, timestep", lambda row: f"{row['measure']}, t = {row['t']}")
    return markdown(heads, rows)


def layers(result: dict[str, Any]) -> str:
    """Every layer at every timestep by the probes of objects, and its label purity at the reference."""
    first, said = result["timesteps"][0], result["conditionings"][0]
    heads = ["model, layer", "σ_label (chance)", "top images of one class, % (chance)"]
    heads += [f"{name}, t = {t}, %" for name in READING for t in result["timesteps"]]
    cells = {(c["model"], c["layer"], c["t"], c["conditioning"]): c for c in result["cells"].values()}
    rows = []
    for label in (*_models(result), "untrained"):
        for layer in result["layers"].get(label, ()):
            at = cells[label, layer, first, said]
            row = [f"{label}, {layer}", *_purity(at)]
            for read in READING.values():
                found = [cells.get((label, layer, t, said)) for t in result["timesteps"]]
                row += ["" if cell is None else f"{100 * read(cell)['top1']:.1f}" for cell in found]
            rows.append(row)
    return f"{said} prompt; purity at t = {first}.\n\n" + markdown(heads, rows)


def dictionaries(result: dict[str, Any]) -> str:
    """Explained variance of autoencoders, the least and the most of each model."""
    rows = []
    for label in (*_models(result), "untrained", "pixels"):
        found = [cell for cell in result["cells"].values() if cell["model"] == label and "sae" in cell]
        if not found:
            continue
        worst = min(found, key=lambda cell: cell["sae"]["explained_variance"])
        values = sorted(100 * cell["sae"]["explained_variance"] for cell in found)
        where = f"{worst['layer']}, t = {worst['t']}, {worst['conditioning']}"
        rows.append([label, str(len(values)), f"{values[0]:.1f} ({where})", f"{values[len(values) // 2]:.1f}",
                     f"{100 * worst['sae']['components']:.1f}"])  # fmt: skip
    heads = ["model", "autoencoders", "least explained variance, %", "median, %",
             "as many principal components explain of the worst, %"]  # fmt: skip
    return markdown(heads, rows)


def extraction(result: dict[str, Any]) -> str:
    """Seconds of reading layers beside those of the bare forward pass."""
    heads = ["model", "layers", "what", "bare, s of CPU", "reading, s of CPU", "times"]
    rows = [
        [
            row["model"],
            row["layers"],
            row["form"],
            f"{row['bare_s']:.3f}",
            f"{row['read_s']:.3f}",
            f"{row['ratio']:.2f}",
        ]
        for row in result["rows"]
    ]
    machine = result["machine"]
    return f"{machine['device']}, {machine['threads']} thread, batch {result['batch']}.\n\n" + markdown(heads, rows)


def sparse(result: dict[str, Any]) -> str:
    """Milliseconds of the sums of a sparse code by every way to compute them."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in result["rows"]:
        shape = f"{row['samples']:,} × {row['latents']:,} × {row['width']:,}"
        rows.setdefault((shape, row["sum"]), {})[row["way"]] = f"{row['ms']:.3g}"
    ways = list(dict.fromkeys(way for own in rows.values() for way in own))
    machine = result["machine"]
    caption = f"{machine['device']}, {machine['threads']} thread(s), torch {machine['torch']}, k = 32."
    heads = ["samples × latents × channels", "sum", *(f"{way}, ms" for way in ways)]
    return f"{caption}\n\n" + markdown(
        heads, [[*key, *(own.get(way, "") for way in ways)] for key, own in rows.items()]
    )


def _margins(
    found: list[dict[str, Any]], corner: str, name: Callable[[dict[str, Any]], str]
) -> tuple[list[str], list[list[str]]]:
    """Baselines in columns."""
    baselines = list(dict.fromkeys(row["baseline"] for row in found))
    rows: dict[tuple[str, str], list[str]] = {}
    for row in found:
        scale, digits = (1.0, 2) if row["measure"] == "σ_label" else (100.0, 1)
        own = rows.setdefault((row["model"], name(row)), [f"{row['layer']} {scale * row['own']['value']:.{digits}f}"])
        own += [f"{scale * row['theirs']['value']:.{digits}f}", interval(row["gain"], scale, digits)]
    heads = ["model", corner, "best layer"]
    for baseline in baselines:
        heads += [NAMES[baseline], "margin"]
    return heads, [[*key, *values] for key, values in rows.items()]


def _purity(cell: dict[str, Any]) -> list[str]:
    """σ_label and the share of the commonest class, with chance; nothing where no latent could be judged."""
    found = cell.get("purity", {}).get("object")
    if not found or not found["latents"] or found["mean"]["sigma"] is None:
        return ["–", "–"]
    mean, chance = found["mean"], found["chance"]
    return [f"{mean['sigma']:.2f} ({chance['sigma']:.2f})",
            f"{100 * mean['majority']:.1f} ({100 * chance['majority']:.1f})"]  # fmt: skip


def _probed(result: dict[str, Any]) -> str:
    """What probes were asked, of how many images."""
    unseeing, few = result["unseeing"]["object"], result["settings"]["few"]
    return (
        f"{unseeing['classes']} objects, {unseeing['train_images']} images to learn from, or at most {few} of a class"
        f" ({unseeing['few_images']}), {unseeing['test_images']} to be judged on; the commonest object is"
        f" {100 * unseeing['majority']:.1f}% of them. Percent, of σ_label its own unit; margins in points with 95%"
        " intervals, above 0 the layer is better."
    )


def _caption(result: dict[str, Any]) -> str:
    machine, seconds = result["provenance"]["machine"], result["seconds"]
    took = f", {seconds / 60:.0f} minutes" if seconds else ""
    cells = len(result["cells"])
    return (
        f"`{result['command']}`; {result['settings']['count']} scenes, {cells} cells,"
        f" {result['provenance']['workers']} processes on {machine['device']}{took}."
    )


Page = tuple[str, str, Callable[[dict[str, Any]], str]]
TABLES: dict[str, Page] = {
    f"features_{name}": ("docs/features.md", "feature_sweep.json", render)
    for name, render in (
        ("claims", claims), ("margins", margins), ("later", later), ("layers", layers), ("dictionaries", dictionaries),
    )
} | {
    "features_paper_claims": ("docs/features.md", "feature_sweep_paper.json", claims),
    "features_paper_margins": ("docs/features.md", "feature_sweep_paper.json", margins),
    "features_extraction": ("docs/features.md", "feature_extraction.json", extraction),
    "features_sparse": ("docs/features.md", "sparse_decode.json", sparse),
}  # fmt: skip
