"""Missing concepts: does a word's score tell that its object was not drawn, how early, and what repair gains."""

from __future__ import annotations

from typing import Any

from bcos_diffusion.evaluation.page.compare import table
from bcos_diffusion.evaluation.page.measures import Measure
from bcos_diffusion.evaluation.page.results import floats, number, number_at, part
from bcos_diffusion.page.section import Chart, Line, Section, Table

SCORES = {
    "exact": "calibrated contributions (ours)",
    "exact_share": "share of the place it has most of, from contributions",
    "mass": "share of the mass (Eq. 8)",
    "daam": "calibrated heat maps of DAAM",
    "daam_max": "DAAM's maximum intensity",
    "daam_mean": "DAAM's mean intensity",
    "judge": "the segmenter on the picture so far",
}
JUDGES = ("judge",)
KINDS = {"separation": "natural misses", "induced": "induced misses"}
MEASURES = (
    Measure("auroc", "AUROC", "", "", scale=1, digits=3),
    Measure("auroc_of_equal_numbers", "AUROC among pictures of as many objects", "", "", scale=1, digits=3),
    Measure("clear_auroc", "AUROC without half-drawn objects", "", "", scale=1, digits=3),
    Measure("auprc", "AUPRC of the missing", "", "", scale=1, digits=3),
    Measure("fpr_at_95", "FPR at 95% TPR", "", "", higher=False),
    Measure("calibration_error", "calibration error", "", "", higher=False),
)
WAYS = {
    "plain": "one picture",
    "best_of": "the best of all tries",
    "end": "ensured, judged at the end",
    "early": "ensured, judged early too",
    "daam_end": "ensured by DAAM, judged at the end",
    "daam_early": "ensured by DAAM, judged early too",
    "oracle": "ensured by the segmenter itself, judged at the end",
}
REPAIR = (
    ("complete", "complete, % ↑", 100.0, 1),
    ("times_plain", "times those of one picture ↑", 1.0, 2),
    ("evaluations", "evaluations a prompt ↓", 1.0, 1),
    ("complete_per_100_evaluations", "complete per 100 evaluations ↑", 1.0, 2),
    ("parts", "parts evaluated a prompt ↓", 1.0, 0),
    ("complete_per_1000_parts", "complete per 1,000 parts ↑", 1.0, 2),
)
STRONGER = (("missing words", "again", "stronger"), ("other objects named", "others_again", "others_stronger"))
TEXT = (
    "A word is missing when the segmenter does not find its object in the drawn picture. Does the word's score say so,"
    " without looking at the picture? Natural misses are what the model left out by itself; induced ones are words that"
    " it was made to forget: their embeddings are random, so that they say something and draw nothing."
)


def section(result: Any) -> Section:
    """Tables of separation by time, ROC curves, calibration and repair."""
    found = part(result, "missing") or {}
    texts, tables, charts = [TEXT], list[Table](), list[Chart]()
    for kind, name in KINDS.items():
        moments = part(found, kind, "at") or {}
        if moments:
            texts.append(_counted(found[kind], name))
        for step in sorted(moments, key=int, reverse=True):
            rows = {score: moments[step][score] for score in SCORES if score in moments[step]}
            title = f"{name.capitalize()}, after step {step} of {max(moments, key=int)}"
            numbers = {score: {m.key: number_at(row, m.key) for m in MEASURES} for score, row in rows.items()}
            tables.append(table(title, MEASURES, numbers, JUDGES, SCORES))
            charts += _roc(rows, f"ROC: {title[0].lower()}{title[1:]}")
            charts += _calibration(rows, f"Calibration: {title[0].lower()}{title[1:]}")
    tables += _repair(found) + _stronger(found)
    reason = part(found, "left_out") or "this part was not run"
    return Section(
        "missing", "Missing concepts and repair", tuple(texts), tuple(tables), tuple(charts),
        missing="" if tables else reason,
    )  # fmt: skip


def _counted(found: Any, name: str) -> str:
    objects, missing, pictures = (number_at(found, key).text(1, 0) for key in ("objects", "missing", "pictures"))
    return f"{name.capitalize()}: {missing} of {objects} objects named in {pictures} pictures, judged by the segmenter."


def _style(score: str) -> int:
    return list(SCORES).index(score)


def _roc(rows: Any, title: str) -> list[Chart]:
    lines = tuple(
        Line(SCORES[score], floats(curve.get("x")), floats(curve.get("y")), _style(score),
             number_at(row, "auroc").text(1, 3))
        for score, row in rows.items() if (curve := part(row, "roc"))
    )  # fmt: skip
    labels = ("share of drawn words called missing", "share of missing words found")
    return [Chart(title, *labels, lines, diagonal="chance")] if lines else []


def _calibration(rows: Any, title: str) -> list[Chart]:
    lines = tuple(
        Line(SCORES[score], _column(bins, "predicted"), _column(bins, "drawn"), _style(score),
             number_at(row, "calibration_error").text(100, 1))
        for score, row in rows.items() if (bins := part(row, "reliability"))
    )  # fmt: skip
    labels = ("probability of being drawn, as said", "share that was drawn")
    return (
        [Chart(title, *labels, lines, diagonal="as said", text="Beside each: calibration error, %.")] if lines else []
    )


def _repair(found: Any) -> list[Table]:
    """Ways to get a complete picture, with what each costs."""
    rows = part(found, "gain") or {}
    ways = [way for way in WAYS if way in rows]
    columns = [c for c in REPAIR if any(number_at(rows, way, c[0]).known for way in ways)]
    if not columns:
        return []
    lines = tuple(
        (WAYS[way], *(number_at(rows, way, key).both(scale, digits) for key, _, scale, digits in columns))
        for way in ways
    )  # fmt: skip
    prompts, tries = (number_at(rows, key).text(1, 0) for key in ("prompts", "tries"))
    caption = f"Repair: complete pictures of {prompts} prompts by at most {tries} tries"
    note = (
        "A picture is complete when the segmenter finds every object named; all ways but its own decide by the score"
        " alone."
    )
    return [Table(caption, ("way", *(head for _, head, _, _ in columns)), lines, (note,))]


def _stronger(found: Any) -> list[Table]:
    """Whether a stronger value brings a missing word into the picture, beside another seed alone."""
    rows = part(found, "strengthening") or {}
    lines = tuple(
        (label, *(number_at(rows, key).both(100, 1) for key in keys))
        for label, *keys in STRONGER if number_at(rows, keys[0]).known
    )  # fmt: skip
    if not lines:
        return []
    caption = f"Drawn anew with stronger values of missing words, {number_at(rows, 'pictures').text(1, 0)} pictures"
    return [Table(caption, ("share there then, %", "another seed", "another seed and a stronger value"), lines)]


def _column(bins: Any, key: str) -> tuple[float, ...]:
    return tuple(number(b.get(key)).value for b in bins)
