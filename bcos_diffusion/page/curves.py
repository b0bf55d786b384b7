"""Charts as inline SVG: text stays text, colours follow the page's scheme, and no line is told by its colour alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from bcos_diffusion.page.section import Chart, Line

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 46
STYLES = 10
DASHES = ("", "7 3", "2 3", "9 3 2 3", "12 4", "4 2", "1 4", "8 2 1 2 1 2", "5 5", "3 6")
MARKS = ("circle", "square", "diamond", "triangle", "cross")
MARKERS_PER_LINE = 6


def draw(chart: Chart) -> str:
    """A chart as a ``<figure>`` with its legend; points that are not finite interrupt a line."""
    lines = [line for line in chart.lines if len(_runs(line))]
    described = "; ".join(f"{line.label} {line.value}".strip() for line in lines)
    description = f"{chart.y_label} over {chart.x_label}. {described}."
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}. {escape(description)}">',
        *_axes(chart),
        *(_diagonal(chart) if chart.diagonal else []),
        *(_path(line, chart) for line in reversed(lines)),  # the first on top
        "</svg>",
    ]
    legend = "".join(_legend(line) for line in lines)
    if chart.diagonal:
        legend += f'<li><svg viewBox="0 0 34 12" aria-hidden="true"><path class="diagonal" d="M1 6H33"/></svg>' \
                  f"{escape(chart.diagonal)}</li>"  # fmt: skip
    text = f"<p>{escape(chart.text)}</p>" if chart.text else ""
    return (
        f'<figure class="chart"><figcaption>{escape(chart.title)}</figcaption>{"".join(parts)}'
        f'<ul class="legend">{legend}</ul>{text}</figure>'
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most about ``most`` round numbers from ``low`` to ``high``. Raises ValueError where low is not below high."""
    if not low < high:
        raise ValueError(f"an axis needs low below high, got {low} and {high}")
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _axes(chart: Chart) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value, name in _x_ticks(chart):
        x, _ = _place(chart, value, chart.y_range[0])
        parts.append(f'<path class="grid" d="M{x:.1f} {TOP}V{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{escape(name)}</text>')
    for value in ticks(*chart.y_range):
        _, y = _place(chart, chart.x_range[0], value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle = (TOP + bottom) / 2
    parts.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom}H{right}"/>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(chart.x_label)}</text>')
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        f"{escape(chart.y_label)}</text>"
    )
    return parts


def _x_ticks(chart: Chart) -> list[tuple[float, str]]:
    if chart.x_names:
        return [(float(place), name) for place, name in enumerate(chart.x_names)]
    return [(value, f"{value:g}") for value in ticks(*chart.x_range)]


def _diagonal(chart: Chart) -> list[str]:
    low = max(chart.x_range[0], chart.y_range[0])
    high = min(chart.x_range[1], chart.y_range[1])
    if not low < high:
        return []
    (a, b), (c, d) = _place(chart, low, low), _place(chart, high, high)
    return [f'<path class="diagonal" d="M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}"/>']


def _place(chart: Chart, x: float, y: float) -> tuple[float, float]:
    """Where a point stands in the drawing; what is outside the axes is drawn at their ends."""
    (x_low, x_high), (y_low, y_high) = chart.x_range, chart.y_range
    along = min(max((x - x_low) / (x_high - x_low), 0.0), 1.0)
    up = min(max((y - y_low) / (y_high - y_low), 0.0), 1.0)
    return LEFT + along * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _runs(line: Line) -> list[list[tuple[float, float]]]:
    """The stretches of a line whose points are all finite."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if math.isfinite(x) and math.isfinite(y):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _path(line: Line, chart: Chart) -> str:
    runs = [[_place(chart, x, y) for x, y in run] for run in _runs(line)]
    path = "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in run) for run in runs)
    points = [point for run in runs for point in run]
    every = max(1, math.ceil(len(points) / MARKERS_PER_LINE))
    offset = line.style % every  # so that the markers of lines that coincide do not
    marks = "".join(_marker(line.style, x, y) for x, y in points[offset::every])
    return f'<g class="line s{line.style % STYLES}"><path d="{path}"{_dash(line.style)}/>{marks}</g>'


def _dash(style: int) -> str:
    dashes = DASHES[style % STYLES]
    return f' stroke-dasharray="{dashes}"' if dashes else ""


def _marker(style: int, x: float, y: float) -> str:
    shape = MARKS[style % len(MARKS)]
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'
    corners: Sequence[tuple[float, float]] = {
        "square": ((-3, -3), (3, -3), (3, 3), (-3, 3)),
        "diamond": ((0, -4), (4, 0), (0, 4), (-4, 0)),
        "triangle": ((0, -4), (4, 3), (-4, 3)),
        "cross": ((-3, -1), (-1, -1), (-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1),
                  (-3, 1)),
    }[shape]  # fmt: skip
    return f'<polygon points="{" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)}"/>'


def _legend(line: Line) -> str:
    value = f" <b>{escape(line.value)}</b>" if line.value else ""
    return (
        f'<li><svg viewBox="0 0 34 12" aria-hidden="true"><g class="line s{line.style % STYLES}">'
        f'<path d="M1 6H33"{_dash(line.style)}/>{_marker(line.style, 17, 6)}</g></svg>{escape(line.label)}{value}</li>'
    )
