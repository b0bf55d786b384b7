"""The picture of Figure 3: missing objects of least and of most relevance, beside the same words where drawn."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcos_diffusion.paper.failure import with_interval
from bcos_diffusion.paper.record import new_figure, save_figure, show

if TYPE_CHECKING:
    from bcos_diffusion.paper.failure import Judged

LOWEST, HIGHEST = 4, 2


def draw(judged: list[Judged], result: dict[str, Any], path: Path) -> None:
    """Pictures and maps of chosen missing objects, where each stands among the drawn ones, and a histogram."""
    from bcos_diffusion.explanation.figure import overlay

    chosen = choose(judged)
    columns = max(len(chosen), 2)
    figure = new_figure(1.9 * columns, 7.2 if chosen else 2.8)
    if chosen:
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[4.6, 2.6])[:, 0]
        grid = upper.subplots(3, columns, squeeze=False, height_ratios=[1, 1, 0.35])
        for column, (picture, number) in enumerate(chosen):
            named = picture.objects[number]
            title = textwrap.fill(f"{picture.prompt}, seed {picture.seed}", 24)
            show(grid[0, column], picture.image, title, size=7.5)
            share = 100 * named.relevance["absolute"]
            show(
                grid[1, column], overlay(picture.image, picture.heats[number]), f"no {named.noun}: {share:.1f}%", size=9
            )
            _place_among_drawn(grid[2, column], share, result["drawn_by_word"].get(named.noun))
        for row in grid:
            for axes in row[len(chosen) :]:
                axes.axis("off")
    else:
        lower = figure
    _histogram(lower.subplots(), judged, result)
    save_figure(figure, path)


def choose(judged: list[Judged]) -> list[tuple[Judged, int]]:
    """Missing objects: those of least relevance for their word, then those of most, which speak against the claim."""
    missing = [(picture, i) for picture in judged for i, named in enumerate(picture.objects) if not named.drawn]
    known = [(p, i) for p, i in missing if not math.isnan(p.objects[i].relevance["against_its_own"])]
    ordered = sorted(known or missing, key=lambda found: found[0].objects[found[1]].relevance["against_its_own"])
    if len(ordered) <= LOWEST + HIGHEST:
        return ordered
    return ordered[:LOWEST] + ordered[-HIGHEST:]


def _place_among_drawn(axes: Any, share: float, drawn: dict[str, float] | None) -> None:
    """The word's relevance as a line over mean, quartiles and 90% of its relevance where it is drawn."""
    axes.set_yticks([])
    axes.tick_params(axis="x", labelsize=7)
    axes.axvline(share, color="#c44e52", linewidth=2)
    if drawn is None:
        axes.set_xlabel("never drawn", fontsize=7)
        return
    low, first, third, high = (100 * drawn[name] for name in ("q05", "q25", "q75", "q95"))
    axes.barh([0], [high - low], left=[low], height=0.5, color="#c6dbef")
    axes.barh([0], [third - first], left=[first], height=0.5, color="#4c72b0")
    axes.plot([100 * drawn["mean"]], [0], "wo", markersize=4)
    axes.set_xlim(0, max(high, share, 1) * 1.1)
    axes.set_xlabel(f"% where drawn (n = {drawn['count']})", fontsize=7)


def _histogram(axes: Any, judged: list[Judged], result: dict[str, Any]) -> None:
    import numpy as np

    objects = [named for picture in judged for named in picture.objects]
    values = {flag: [100 * n.relevance["absolute"] for n in objects if n.drawn is flag] for flag in (True, False)}
    edges = np.linspace(0, max((max(v) for v in values.values() if v), default=1) or 1, 31)
    for flag, name, colour in ((True, "drawn", "#4c72b0"), (False, "missing", "#c44e52")):
        if values[flag]:
            count = len(values[flag])
            weights = np.full(count, 100 / count)
            axes.hist(values[flag], edges, weights=weights, color=colour, alpha=0.6, label=f"{name} ({count})")
    told = with_interval(result["separation"]["absolute"]["auroc"])
    axes.set_title(f"relevance of the word of every named object; AUROC missing against drawn {told}", fontsize=9)
    axes.set_xlabel(
        "absolute relevance, %; above: the missing word (red), the same word where it is drawn (blue)", fontsize=8
    )
    axes.set_ylabel("% of each group", fontsize=8)
    axes.legend(fontsize=8)
