"""One picture of a report: the ratio to the plain layer of every peer, shape by shape."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from bcos_kernels.files import write_atomically
from benchmarks.summary import OURS, Row, passes_of, peers_of, ratio

LOOKS = {
    "touched": ("#999999", "|", "plain, its memory read once more"),
    OURS: ("#D55E00", "o", "bcos_kernels (ours)"),
    "bcos": ("#0072B2", "s", "bcos 0.1"),
    "compiled": ("#009E73", "^", "reference, torch.compile"),
    "eager": ("#56B4E9", "D", "reference, eager"),
}
"""Colours that the colour-blind can tell apart (Okabe and Ito 2008), with a shape each."""
SPARE = ("#CC79A7", "v")
TICKS = (0.1, 0.2, 0.5, 1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100)
ROW_INCHES, PANEL_INCHES = 0.17, 2.6


def draw(rows: list[Row], caption: str, path: Path) -> None:
    """Draw one panel a pass, one line a shape, one mark a peer; ``path`` says the format. Raises OSError.

    The price of single calls is left to the table.
    """
    rows = [row for row in rows if row["unit"] != "µs"]
    passes = passes_of(rows)
    shapes = list(dict.fromkeys((row["network"], row["layer"]) for row in rows))
    size = 3 + PANEL_INCHES * len(passes), 1.6 + ROW_INCHES * len(shapes)
    figure, axes = plt.subplots(1, len(passes), sharey=True, squeeze=False, figsize=size, layout="constrained")
    for axis, name in zip(axes[0], passes, strict=True):
        _panel(axis, name, [row for row in rows if row["pass"] == name], shapes, peers_of(rows))
    axes[0][0].set_yticks(range(len(shapes)), [f"{network}  {layer}" for network, layer in shapes], fontsize=7)
    axes[0][0].set_ylim(len(shapes) - 0.4, -0.6)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside upper center", ncols=len(handles), frameon=False)
    figure.supxlabel(f"time or memory ÷ that of the plain layer (log; 1 = the same price) — {caption}", fontsize=9)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=110))
    plt.close(figure)


def _panel(axis: Axes, name: str, rows: list[Row], shapes: list[tuple[str, str]], peers: list[str]) -> None:
    """One pass: a mark where a peer was measured, and the spread of ours as a bar."""
    places = {shape: at for at, shape in enumerate(shapes)}
    for peer in reversed(peers):  # ours last, on top
        colour, mark, label = LOOKS.get(peer, (*SPARE, peer))
        points = [(ratio(row, peer), places[row["network"], row["layer"]], row) for row in rows]
        known = [(x, y, row) for x, y, row in points if x is not None]
        own = peer == OURS
        axis.plot(
            [x for x, _, _ in known], [y for _, y, _ in known], mark, color=colour, label=label,
            markersize=5 if own else 4, markerfacecolor=colour if own else "none", zorder=3 if own else 2,
        )  # fmt: skip
        if own:
            lows, highs = ([row["peers"][peer][f"ratio_{end}"] for _, _, row in known] for end in ("low", "high"))
            axis.hlines([y for _, y, _ in known], lows, highs, color=colour, linewidth=1.2, zorder=1)
    axis.axvline(1, color="black", linewidth=1)
    networks = [network for network, _ in shapes]
    for at in range(1, len(shapes)):
        if networks[at] != networks[at - 1]:
            axis.axhline(at - 0.5, color="0.6", linewidth=0.8)
    axis.set_xscale("log")
    axis.set_title(name, fontsize=10)
    low, high = axis.get_xlim()
    low, high = min(low, 0.9), max(high, 1.3)
    axis.set_xlim(low, high)
    ticks = [tick for tick in TICKS if low <= tick <= high]
    wide = high / low > 12
    axis.xaxis.set_major_locator(FixedLocator([t for t in ticks if not wide or t not in (1.2, 1.5, 3)]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(axis="x", color="0.9", linewidth=0.6)
    axis.grid(axis="y", color="0.94", linewidth=0.5)
    axis.set_axisbelow(True)
