"""From samples to ratios, from ratios to a table and a few lines that sum it up. Needs nothing but Python."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

PLAIN, OURS = "plain", "bcos_kernels"
ORDER = (PLAIN, "touched", OURS, "bcos", "compiled", "eager")
Row = dict[str, Any]


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie, interpolated."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and the range that holds the middle 80%."""
    return {"value": median(values), "low": quantile(values, 0.1), "high": quantile(values, 0.9)}


def against_plain(samples: dict[str, list[float]], scale: float = 1.0) -> dict[str, dict[str, float]]:
    """Value and ratio to the plain layer of every peer, with their spreads.

    samples: one value a round and peer. A ratio is taken within its round, so that a machine that slows
    down slows both of its parts.
    """
    found = {}
    for name, values in samples.items():
        entry: dict[str, float] = spread([scale * value for value in values])
        if PLAIN in samples:
            ratios = [value / floor if floor else math.nan for value, floor in zip(values, samples[PLAIN], strict=True)]
            entry |= {f"ratio{'' if key == 'value' else '_' + key}": v for key, v in spread(ratios).items()}
        found[name] = entry | {"rounds": len(values)}
    return found


def geometric_mean(values: Iterable[float]) -> float:
    """The mean for ratios: that of 2 and 1/2 is 1. Raises ValueError on none."""
    logs = [math.log(value) for value in values]
    if not logs:
        raise ValueError("the geometric mean of no values is not defined")
    return math.exp(sum(logs) / len(logs))


def ratio(row: Row, peer: str) -> float | None:
    """The ratio of a peer to the plain layer in a row; None if it was not measured."""
    found = row["peers"].get(peer, {}).get("ratio")
    return None if found is None or not math.isfinite(found) or found <= 0 else float(found)


def peers_of(rows: list[Row]) -> list[str]:
    """Every peer of the table but the plain layer, in ``ORDER``, which a file does not keep; others behind."""
    found = {name for row in rows for name in row["peers"]} - {PLAIN}
    return sorted(found, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))


def passes_of(rows: list[Row]) -> list[str]:
    """Every pass of the table, in its order."""
    return list(dict.fromkeys(row["pass"] for row in rows))


def table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells: one row a shape and pass, in it the plain layer's value and every peer's ratio to it."""
    peers = peers_of(rows)
    heads = ["network", "layer", "×", "pass", PLAIN, *peers, f"{OURS} p10–p90"]
    cells = []
    for row in rows:
        floor, own = row["peers"].get(PLAIN, {}), row["peers"].get(OURS, {})
        cells.append([
            row["network"], row["layer"], str(row["count"]), row["pass"],
            f"{floor['value']:.4g} {row['unit']}" if "value" in floor else "-",
            *(_number(ratio(row, name)) for name in peers),
            f"{own['ratio_low']:.2f}–{own['ratio_high']:.2f}" if "ratio_low" in own else "-",
        ])  # fmt: skip
    return heads, cells


def by_pass(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells: for each pass the geometric mean of every peer's ratios, how we compare, our worst shape."""
    peers = peers_of(rows)
    others = [name for name in peers if name != OURS]
    heads = ["pass", "shapes", *peers, *(f"ours vs {name}" for name in others), "our worst shape"]
    cells = []
    for name in passes_of(rows):
        part = [row for row in rows if row["pass"] == name]
        own = [(found, row) for row in part if (found := ratio(row, OURS)) is not None]
        worst = max(own, key=lambda pair: pair[0], default=None)
        cells.append([
            name, str(len(own)),
            *(_mean([found for row in part if (found := ratio(row, peer)) is not None], len(own)) for peer in peers),
            *(_faster(part, peer) for peer in others),
            "-" if worst is None else f"{worst[1]['network']} {worst[1]['layer']} ({worst[0]:.2f})",
        ])  # fmt: skip
    return heads, cells


def by_network(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells: all layers of a network together, each shape as often as the network has it.

    A peer is compared on the shapes on which it was measured. Left out are networks in which no shape stands
    for several, because their shapes are examples, and the peak, which is of one layer at a time.
    """
    peers = peers_of(rows)
    cells = []
    for network in dict.fromkeys(row["network"] for row in rows if row["count"] > 1):
        for name in (name for name in passes_of(rows) if name != "peak"):
            part = [row for row in rows if row["network"] == network and row["pass"] == name]
            if any(ratio(row, OURS) for row in part):
                unit = part[0]["unit"]
                plain = sum(row["count"] * row["peers"][PLAIN]["value"] for row in part if ratio(row, OURS))
                cells.append([network, name, f"{plain:.4g} {unit}", *(_together(part, peer) for peer in peers)])
    return ["network", "pass", PLAIN, *peers], cells


def reasons(rows: list[Row]) -> list[str]:
    """One line for every peer and reason why it has no number, with how many rows that concerns and the first."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, entry in row["peers"].items():
            if "reason" in entry:
                where = f"{row['network']} {row['layer']}, {row['pass']}"
                found.setdefault((name, entry["reason"]), []).append(where)
    return [f"- {name}: {reason} ({len(w)}: {w[0]}{' …' if len(w) > 1 else ''})" for (name, reason), w in found.items()]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _mean(values: list[float], expected: int) -> str:
    """The geometric mean, with the number of values where it is not that of all shapes."""
    if not values:
        return "-"
    return f"{geometric_mean(values):.2f}" + ("" if len(values) == expected else f" (of {len(values)})")


def _faster(rows: list[Row], peer: str) -> str:
    """How much less than a peer we take, on the shapes that both were measured on."""
    pairs = [(ratio(row, peer), ratio(row, OURS)) for row in rows]
    factors = [theirs / own for theirs, own in pairs if theirs is not None and own is not None]
    return f"{geometric_mean(factors):.2f}×" if factors else "-"


def _together(rows: list[Row], peer: str) -> str:
    """The mean ratio over the plain layers' time or memory, with the number of shapes where it is not all of them."""
    measured = [(row["count"] * row["peers"][PLAIN]["value"], of) for row in rows if (of := ratio(row, peer))]
    if not measured:
        return "-"
    mean = sum(floor * of for floor, of in measured) / sum(floor for floor, _ in measured)
    return f"{mean:.2f}" + ("" if len(measured) == len(rows) else f" ({len(measured)} of {len(rows)} shapes)")
