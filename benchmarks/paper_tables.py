"""The tables of docs/paper.md from ``benchmarks/results/paper.json``, which ``benchmarks/paper.py`` writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markdown_tables import interval, markdown

from bcos_diffusion.paper.failure import MEASURES

SHOWN = 12
"""Tokens at either end of the table, as in the paper's Table 1."""


def reconstruction(found: dict[str, Any]) -> str:
    """Errors of the raw and the normalised reconstruction over prompts."""
    over = found["over_prompts"]
    rows = [
        ["raw reconstruction (Eq. 6), MSE", "", f"{found['mse_raw']:.4f}", interval(over["mse_raw"], 1, 4)],
        ["normalised (Eq. 7), MSE", "0.0045", f"{found['mse_normalised']:.4f}", interval(over["mse_normalised"], 1, 4)],
        ["brightness of the raw one, % of the sample's", "“noticeably darker”",
         f"{100 * found['brightness_ratio']:.1f}", interval(over["brightness_ratio"], 100, 1)],
        ["share of the sample's mass that is the words', %", "", f"{100 * found['mass_ratio']:.1f}",
         interval(over["mass_ratio"], 100, 1)],
    ]  # fmt: skip
    caption = f"The sample of the figure, and the mean over {over['count']} test prompts with its 95% interval."
    return f"{caption}\n\n" + markdown(["measure", "paper, one sample", "this sample", "test prompts"], rows)


def failure(found: dict[str, Any]) -> str:
    """How well relevance tells missing objects from drawn ones."""
    split, judge = found["separation"], found["judge_on_real_scenes"]
    rows = []
    for name, meaning in MEASURES.items():
        entry = split[name]
        medians = [f"{entry[side]['q50']:.3f}" if entry[side]["count"] else "" for side in ("drawn", "missing")]
        rows.append([meaning, interval(entry["auroc"]), interval(entry["auroc_of_equal_numbers"]), *medians])
    caption = (
        f"{found['pictures']} pictures; of {split['objects']} objects named, {split['missing']} are missing. The judge"
        f" finds {interval(judge['found'], 100, 1)}% of the objects in {judge['scenes']} real scenes of several."
        " AUROC: 1 if every missing object had less relevance than every drawn one, 0.5 by chance; of equal numbers:"
        " the same over pairs from pictures that name equally many objects."
    )
    return f"{caption}\n\n" + markdown(
        ["relevance, as", "AUROC", "of equal numbers", "median, drawn", "median, missing"], rows
    )


def epsilon(found: dict[str, Any]) -> str:
    """Likeness of the reconstructions, and what special tokens take."""
    rows = [
        [name, f"{values['correlation']:.3f}", f"{values['mse']:.5f}"]
        for name, values in found["reconstructions"].items()
    ]
    shares = [
        [name, str(entry["tokens"]), f"{100 * entry['absolute']:.1f}", f"{100 * entry['norm']:.1f}"]
        for name, entry in found["groups"].items()
    ]
    return (
        markdown(["reconstruction from", "correlation with the sample", "MSE"], rows)
        + "\n\n"
        + markdown(["tokens", "how many", "absolute share, %", "share of norms, %"], shares)
    )


def edits(found: dict[str, Any]) -> str:
    """What an edit of every kind changes, and whether relevance says so."""
    over = found["over_prompts"]
    rows = [
        [kind, interval(entry["relevance"], 100, 1), interval(entry["rms"], 1, 3)]
        for kind, entry in over["kinds"].items()
    ]
    agreement = [
        ["all edits", interval(over["spearman_all"])],
        ["nouns and colours", interval(over["spearman_nouns_and_colours"])],
        ["nouns alone", interval(over["spearman_nouns"])],
        ["colours alone", interval(over["spearman_colours"])],
    ]
    return (
        f"{over['prompts']} random prompts of two objects and a colour, each with one word of every kind swapped.\n\n"
        + markdown(["word swapped", "its absolute relevance before, %", "change of the picture, RMS"], rows)
        + "\n\n"
        + markdown(["Spearman of relevance and change over", "reached"], agreement)
    )


def tokens(found: dict[str, Any]) -> str:
    """The most and the least relevant tokens (Table 1)."""

    def cells(row: dict[str, Any]) -> list[str]:
        shares = (f"{100 * row[name] + 0.0:.2f}" for name in ("signed", "absolute"))
        return [row["token"], row["kind"], str(row["occurrences"]), *shares]

    table = found["tokens"]
    speaking = [row for row in table if row["absolute"] > 0]
    silent = sorted((row for row in table if row["absolute"] == 0), key=lambda row: -row["occurrences"])
    heads = ["token", "kind", "occurrences", "relevance, signed %", "absolute %"]
    caption = (
        f"{found['captions']} captions of training scenes, each denoised in {found['way']} from a random t; tokens that"
        f" stand once in at least {found['minimum']} captions: {len(table)}, of which {len(silent)} carry no value."
    )
    parts = [
        caption,
        "The most relevant:",
        markdown(heads, [cells(row) for row in speaking[:SHOWN]]),
        "The least relevant of those that carry a value:",
        markdown(heads, [cells(row) for row in speaking[-SHOWN:]]),
        "Those without one: " + ", ".join(f"{row['token']} ({row['occurrences']})" for row in silent) + ".",
    ]
    return "\n\n".join(parts)


def kinds(found: dict[str, Any]) -> str:
    """Means by part of speech, and the correlation of occurrences and relevance (Table 2)."""
    rows = [
        [entry["kind"], str(entry["tokens"]), str(entry["occurrences"]), interval(entry["signed"], 100, 2),
         interval(entry["absolute"], 100, 2)]
        for entry in found["kinds"]
    ]  # fmt: skip
    names = {"all_tokens": "all", "tokens_that_contribute": "that carry a value", "objects": "of objects"}
    pairs = [
        [names[name], str(entry["tokens"]), *(interval(entry[m]["pearson"]) for m in ("signed", "absolute"))]
        for name, entry in found["correlation"].items()
    ]
    return (
        markdown(["kind", "tokens", "occurrences", "signed %", "absolute %"], rows)
        + "\n\nPearson's correlation of a token's occurrences and its relevance, 95% intervals over tokens:\n\n"
        + markdown(["tokens", "how many", "signed", "absolute"], pairs)
    )


def quality(found: dict[str, Any]) -> str:
    """Distances of samples to real pictures."""
    rows = [
        [
            row["name"],
            str(row["count"]),
            f"{row['frechet']:.3g}",
            f"{row['frechet_of_halves']['mean']:.3g} ± {row['frechet_of_halves']['deviation']:.2g}",
            f"{1000 * row['kernel']['mean']:.3g} ± {1000 * row['kernel']['deviation']:.2g}",
        ]
        for row in found["rows"]
    ]
    caption = f"{found['metric']}, against {found['reference']}; captions {found['captions']}."
    return f"{caption}\n\n" + markdown(
        ["pictures", "count", "Fréchet distance", "between random halves", "kernel distance × 1000"], rows
    )


def section(name: str, render: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
    """A table of one command's results; one that has not run says so."""
    return lambda result: render(result[name]) if name in result else "Not yet measured."


TABLES: dict[str, tuple[str, str, Callable[[dict[str, Any]], str]]] = {
    f"paper {title}": ("docs/paper.md", "paper.json", section(name, render))
    for title, name, render in (
        ("reconstruction", "reconstruction", reconstruction),
        ("failure", "failure", failure),
        ("epsilon", "epsilon", epsilon),
        ("edits", "edits", edits),
        ("tokens", "tokens", tokens),
        ("kinds", "tokens", kinds),
        ("quality", "quality", quality),
    )
}
