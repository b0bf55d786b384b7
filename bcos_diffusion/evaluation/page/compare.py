"""Methods beside each other: which is best, which are not apart from it, and where ours is not the best."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from bcos_diffusion.evaluation.page.measures import METHODS, OURS, Measure, label
from bcos_diffusion.evaluation.page.results import UNKNOWN, Number, number_at
from bcos_diffusion.page.section import Cell, Mark, Table

Numbers = Mapping[str, Mapping[str, Number]]
"""Method, measure, number."""


def best(measure: Measure, numbers: Mapping[str, Number], judges: Collection[str] = ()) -> str | None:
    """The method with the best value, those of ``judges`` (who know the answer) left out; None for none."""
    known = {method: n for method, n in numbers.items() if n.known and method not in judges}
    if not known:
        return None
    sign = 1 if measure.higher else -1
    return max(known, key=lambda method: sign * known[method].value)


def better(measure: Measure, one: Number, other: Number) -> bool:
    """Whether a value is better than another one."""
    return one.value > other.value if measure.higher else one.value < other.value


def mark(measure: Measure, method: str, numbers: Mapping[str, Number], judges: Collection[str] = ()) -> Mark:
    """What a method's value means among those of the others."""
    first, own = best(measure, numbers, judges), numbers.get(method, UNKNOWN)
    if first is None or not own.known or method in judges:
        return ""
    if not better(measure, numbers[first], own):
        return "best"
    if method == OURS:
        return "beaten"
    return "" if own.apart(numbers[first]) else "close"


def losses(
    measures: Sequence[Measure],
    numbers: Numbers,
    judges: Collection[str] = (),
    labels: Mapping[str, str] = METHODS,
) -> list[str]:
    """A sentence for each measure on which another method is better than ours, with how clearly."""
    said = []
    for measure in measures:
        column = {method: row.get(measure.key, UNKNOWN) for method, row in numbers.items()}
        first, own = best(measure, column, judges), column.get(OURS, UNKNOWN)
        if first is None or not own.known or not better(measure, column[first], own):
            continue
        values = (n.both(measure.scale, measure.digits) for n in (column[first], own))
        clearly = "the intervals are apart" if own.apart(column[first]) else "the intervals overlap"
        said.append(
            f"{measure.label}: {labels.get(first, first)} is better than ours, {' against '.join(values)}; {clearly}."
        )
    return said


def table(
    caption: str,
    measures: Sequence[Measure],
    numbers: Numbers,
    judges: Collection[str] = (),
    labels: Mapping[str, str] = METHODS,
    folded: bool = False,
) -> Table:
    """Methods × measures with intervals and marks; measures that no method has are left out.

    Below it: what the marks mean, and every measure on which ours is not the best.
    """
    used = [m for m in measures if any(row.get(m.key, UNKNOWN).known for row in numbers.values())]
    rows: list[tuple[Cell | str, ...]] = []
    order = list(labels)
    for method in sorted(numbers, key=lambda name: order.index(name) if name in order else len(order)):
        name = labels.get(method, label(method))
        cells = [_cell(measure, method, numbers, judges) for measure in used]
        rows.append((f"{name} (oracle)" if method in judges else name, *cells))
    heads = ("method", *(measure.head for measure in used))
    notes = ["★ best; ≈ its interval overlaps that of the best; ▼ ours, where another method is better."]
    lost = losses(used, numbers, judges, labels)
    if OURS in numbers and not lost:
        notes.append("No method is better than ours on any of these measures.")
    return Table(caption, heads, tuple(rows), (*notes, *lost), folded=folded)


def differences(
    caption: str, found: Mapping[str, Any], measures: Sequence[Measure], note: str, labels: Mapping[str, str]
) -> Table:
    """How far ours is ahead of each rival, on the scenes that both have: rivals × measures, without marks."""
    rows = tuple(
        (labels.get(rival, label(rival)), number_at(row, "scenes").text(1, 0),
         *(number_at(row, m.key).both(m.scale, m.digits) for m in measures))
        for rival, row in found.items()
    )  # fmt: skip
    heads = ("ours minus", "scenes", *(measure.label for measure in measures))
    return Table(f"How far exact contributions are ahead{caption}, 95% intervals", heads, rows, (note,), folded=True)


def _cell(measure: Measure, method: str, numbers: Numbers, judges: Collection[str]) -> Cell:
    own = numbers[method].get(measure.key)
    if own is None:
        return Cell("–")
    column = {name: row.get(measure.key, UNKNOWN) for name, row in numbers.items()}
    return Cell(
        own.text(measure.scale, measure.digits),
        own.interval(measure.scale, measure.digits),
        mark(measure, method, column, judges),
    )
