"""Missing concepts: does a word's score tell that its object was not drawn, how early, and what repair gains."""

from __future__ import annotations

from typing import Any

from bcos_diffusion.evaluation.page.compare import table
from bcos_diffusion.evaluation.page.measures import METHODS, Measure
from bcos_diffusion.evaluation.page.results import floats, number_at, part
from bcos_diffusion.evaluation.page.section import Chart, Line, Section, Table
from bcos_diffusion.evaluation.page.where import style

WHEN = {"end": "at the end", "10": "at step 10", "5": "at step 5"}
KINDS = {"natural": "natural misses", "induced": "induced misses"}
MEASURES = (
    Measure("auroc", "AUROC", "", "", scale=1, digits=3),
    Measure("auprc", "AUPRC", "", "", scale=1, digits=3),
    Measure("fpr_at_95", "FPR at 95% TPR", "", "", higher=False),
)
JUDGES = ("classifier",)


def section(result: Any) -> Section:
    """Tables of separation by time, ROC curves, calibration and repair."""
    found = part(result, "missing") or {}
    text = (
        "A word is missing when the segmenter does not find its object in the drawn picture. Does the word's score say"
        " so, without looking at the picture?"
    )
    tables: list[Table] = []
    charts: list[Chart] = []
    for kind, name in KINDS.items():
        for when, title in WHEN.items():
            scores = found.get(kind) or {}
            rows = {score: row[when] for score, row in scores.items() if isinstance(row.get(when), dict)}
            if not rows:
                continue
            numbers = {score: {m.key: number_at(row, m.key) for m in MEASURES} for score, row in rows.items()}
            tables.append(table(f"{name.capitalize()}, {title}", MEASURES, numbers, judges=JUDGES))
            charts += _roc(rows, f"ROC, {name}, {title}")
    charts += _calibration(found)
    tables += _repair(found)
    return Section("missing", "Missing concepts and repair", (text,), tuple(tables), tuple(charts),
                   missing="" if tables else "this part was not run")  # fmt: skip


def _roc(rows: Any, title: str) -> list[Chart]:
    lines = tuple(
        Line(METHODS.get(score, score), floats(curve.get("x")), floats(curve.get("y")), style(score),
             number_at(row, "auroc").text(1, 3))
        for score, row in rows.items() if (curve := part(row, "roc"))
    )  # fmt: skip
    labels = ("share of drawn words called missing", "share of missing words found")
    return [Chart(title, *labels, lines, diagonal="chance")] if lines else []


def _calibration(found: Any) -> list[Chart]:
    bins = part(found, "calibration")
    if not bins:
        return []
    line = Line("exact contributions (ours)", floats(bins.get("x")), floats(bins.get("y")), 0)
    return [Chart("Calibration", "probability that a word was drawn, as said", "share that was drawn", (line,),
                  diagonal="as said")]  # fmt: skip


def _repair(found: Any) -> list[Table]:
    rows = part(found, "repair", "rows") or []
    return (
        [Table("Repair", ("policy", "complete pictures", "tries"), tuple((str(r["policy"]), "", "") for r in rows))]
        if rows
        else []
    )
