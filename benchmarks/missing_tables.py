"""The tables of docs/missing.md."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from markdown_tables import interval, markdown

from bcos_diffusion.evaluation.page.absent import SCORES, WAYS


def separation(result: dict[str, Any], kind: str = "separation") -> str:
    """AUROC of every score at every moment, and what else was measured at the end."""
    found = result[kind]
    steps = sorted(found["at"], key=int)
    heads = ["score", *(f"AUROC, step {step}" for step in steps), "equal numbers", "AUPRC", "FPR at 95%", "clear cases"]
    last = found["at"][steps[-1]]
    others = ("auroc_of_equal_numbers", "auprc", "fpr_at_95", "clear_auroc")
    rows = [
        [label, *(interval(found["at"][step][name]["auroc"]) for step in steps),
         *(interval(last[name][measure]) for measure in others)]
        for name, label in SCORES.items()
    ]  # fmt: skip
    caption = (
        f"{found['missing']} of {found['objects']} named objects are missing in {found['pictures']} test pictures, by "
        f"{found['judge']}; calibrated on {found['calibration']['pictures']} validation pictures. The last four "
        "columns are at the end. 95% bootstrap intervals over pictures."
    )
    return f"{caption}\n\n" + markdown(heads, rows)


def reliability(result: dict[str, Any]) -> str:
    """What share is drawn of the words that were given a probability, at every moment."""
    at = result["separation"]["at"]
    rows = []
    for step in sorted(at, key=int):
        bins = [f"{row['predicted']:.2f} → {row['drawn']:.2f}" for row in at[step]["exact"]["reliability"]]
        rows.append([step, interval(at[step]["exact"]["calibration_error"], 1, 3), ", ".join(bins)])
    return markdown(["step", "calibration error", "mean probability → share drawn, by tenth"], rows)


def gain(result: dict[str, Any]) -> str:
    """Complete pictures and costs of every way."""
    found = result["gain"]
    heads = ["way", "complete %", "times plain", "evaluations a prompt", "complete per 100", "parts a prompt"]
    rows = [
        [label, interval(found[name]["complete"], 100, 0), interval(found[name]["times_plain"], 1, 1),
         interval(found[name]["evaluations"], 1, 0), interval(found[name]["complete_per_100_evaluations"]),
         interval(found[name]["parts"], 1, 0)]
        for name, label in WAYS.items()
    ]  # fmt: skip
    return f"{found['prompts']} test prompts, at most {found['tries']} tries.\n\n" + markdown(heads, rows)


def strengthening(result: dict[str, Any]) -> str:
    """What a stronger value does for the words that were missing and for the others."""
    found = result["strengthening"]
    rows = [
        ["missing words", interval(found["again"], 100, 0), interval(found["stronger"], 100, 0)],
        ["other objects named", interval(found["others_again"], 100, 0), interval(found["others_stronger"], 100, 0)],
    ]
    heads = ["drawn in the next try, %", "new seed", "new seed and stronger"]
    return f"{found['pictures']} validation pictures that lacked something.\n\n" + markdown(heads, rows)


TABLES: dict[str, tuple[str, str, Callable[[dict[str, Any]], str]]] = {
    "missing_separation": ("docs/missing.md", "missing.json", separation),
    "missing_induced": ("docs/missing.md", "missing.json", partial(separation, kind="induced")),
    "missing_reliability": ("docs/missing.md", "missing.json", reliability),
    "missing_gain": ("docs/missing.md", "missing.json", gain),
    "missing_strengthening": ("docs/missing.md", "missing.json", strengthening),
}
