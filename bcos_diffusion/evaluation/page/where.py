"""Do maps lie where their words' objects are: methods beside each other, in both regimes and by noise level."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from bcos_diffusion.evaluation.page.compare import Numbers, differences, table
from bcos_diffusion.evaluation.page.measures import LOCALISATION, MASK_AP, METHODS, RIVAL, TWIN, Measure, label
from bcos_diffusion.evaluation.page.results import Number, floats, number_at, part
from bcos_diffusion.page.section import Chart, Line, Section, Table

TITLES = {
    "regime_a": ("Real scenes, one step", "A real test scene is noised to several levels, and the predicted x₀ is"
                 " attributed to the words of its caption. The true region of every word is known exactly."),
    "regime_b": ("Free generation, whole runs", "The model draws pictures of test captions by itself. The true"
                 " regions are what the segmenter sees in each picture, so its own error is a floor of this table."),
}  # fmt: skip
ALL = "all"
LEAKAGE_RATIO = Measure("leakage_ratio", "leakage, ours over theirs", "", "", False, scale=1, digits=2)
BY_LEVEL = ("ap", "miou", "mass_inside", "leakage")


def sections(result: Any) -> list[Section]:
    """A section a regime."""
    return [_section(result, regime) for regime in TITLES]


def numbers(rows: Any, measures: Mapping[str, Measure]) -> dict[str, dict[str, Number]]:
    """What there is of each method and measure."""
    return {
        method: {key: number_at(row, key) for key in measures if key in row} for method, row in (rows or {}).items()
    }


def labels(rows: Any) -> dict[str, str]:
    """How methods are called: those of ours by the page, others by themselves; with their scenes where these are fewer
    than others'."""
    rows = rows or {}
    others = [method for method in rows if method not in METHODS]
    named = METHODS | {method: str(rows[method].get("label", label(method))) for method in others}
    counts = {method: int(count) for method, row in rows.items() if (count := row.get("scenes"))}
    most = max(counts.values(), default=0)
    fewer = {method: f"{named[method]}, {count} scenes" for method, count in counts.items() if count < most}
    return named | fewer


def _section(result: Any, regime: str) -> Section:
    title, text = TITLES[regime]
    rows = part(result, regime, "methods")
    if not rows:
        return Section(regime, title, (text,), missing="this part was not run")
    texts = [text]
    segmenter = number_at(result, regime, "segmenter", "miou")
    if segmenter.known:
        texts.append(f"The segmenter's own mIoU on held-out scenes: {segmenter.both(100)}%.")
    drawn = number_at(result, regime, "objects", "model", "share")
    if drawn.known:
        texts.append(
            f"Of the objects that captions name, {drawn.both(100)}% were drawn; the others have no region here."
        )
    count = number_at(result, regime, "scenes")
    over = f" over {count.text(1, 0)} pictures" if count.known else ""
    tables = [table(f"{title}: methods by measure{over}, 95% intervals", tuple(LOCALISATION.values()),
                    numbers(rows, LOCALISATION), labels=labels(rows))]  # fmt: skip
    tables += _levels(rows)
    if any(key in row for row in rows.values() for key in MASK_AP):
        caption = "DAAM's average precision of masks, by threshold"
        tables.append(table(caption, tuple(MASK_AP.values()), numbers(rows, MASK_AP), labels=labels(rows), folded=True))
    tables += _ahead(result, regime, rows)
    texts += [f"{label(method)} is left out: {why}" for method, why in (part(result, "left_out") or {}).items()]
    return Section(regime, title, tuple(texts), tuple(tables), charts=tuple(_charts(rows)))


def level_table(
    rows: Any, measure: Measure, judges: Collection[str] = (), overall: Mapping[str, Number] | None = None
) -> Table:
    """One measure by noise level, a column a level; behind them, where it is given, what all levels have together."""
    levels = list(dict.fromkeys(level for row in rows.values() for level in row.get("by_level", {})))
    heads = {level: f"{measure.label}, t = {float(level):g} T" for level in levels}
    columns = [replace(measure, key=key, label=head) for key, head in (heads | {ALL: f"{measure.label}, all"}).items()]
    by_level: Numbers = {
        method: {level: number_at(row, "by_level", level, measure.key) for level in levels}
        | ({} if overall is None else {ALL: overall[method]})
        for method, row in rows.items()
    }
    return table(f"{measure.label} by noise level", columns, by_level, judges, labels(rows), folded=True)


def _levels(rows: Any) -> list[Table]:
    """A table a measure, methods by noise level."""
    return [built for key in BY_LEVEL if len((built := level_table(rows, LOCALISATION[key])).heads) > 1]


def _ahead(result: Any, regime: str, rows: Any) -> list[Table]:
    """How far ours is ahead of each rival, on the scenes that both have."""
    found = part(result, regime, "differences")
    if not found:
        return []
    known = [m for m in LOCALISATION.values() if any(number_at(row, m.key).known for row in found.values())]
    measures = [*(replace(m, label=f"{m.label}, points") for m in known), LEAKAGE_RATIO]
    note = (
        "Paired by scene, on those that both methods ran on. Of leakage and the mass of function words less is better."
    )
    return [differences("", found, measures, note, labels(rows))]


def _charts(rows: Any) -> list[Chart]:
    kinds = (
        ("precision_recall", "Precision and recall of pixels", "recall", "precision", "ap"),
        ("iou", "IoU over the threshold of a map", "threshold, share of the map's maximum", "mean IoU", "miou"),
    )
    found = []
    for kind, title, x_label, y_label, measure in kinds:
        lines = tuple(
            Line(label(method), floats(curve.get("x")), floats(curve.get("y")), style(method),
                 number_at(row, measure).text(100))
            for method, row in charted(rows).items() if (curve := part(row, "curves", kind))
        )  # fmt: skip
        if lines:
            found.append(Chart(title, x_label, y_label, lines))
    return found


def charted(rows: Any) -> dict[str, Any]:
    """The methods that charts show: of the ordinary twin DAAM alone, since more lines cannot be told apart."""
    return {method: row for method, row in rows.items() if method in METHODS or method == RIVAL + TWIN}


def style(method: str) -> int:
    """The number of a method's line, the same in every chart."""
    names = list(METHODS)
    return names.index(method) if method in names else len(names)
