"""By how much the best layer of a model beats the best of a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bcos_diffusion.evaluation.page.results import Number
from bcos_diffusion.features.sweep.found import Found, Values
from bcos_diffusion.features.sweep.measures import JUDGED, LINEAR, LINEAR_FEW, PROBES, Measure
from bcos_diffusion.features.sweep.plan import NOISED, PIXELS, UNTRAINED

AT_REFERENCE: tuple[Measure, ...] = (*JUDGED, LINEAR, LINEAR_FEW)
"""What baselines are compared in: by the linear probe too, which reads more of pixels than Diff-C does."""


@dataclass(frozen=True)
class Margin:
    """layer, own: the best of a model and its number; rival, theirs: of a baseline; gain: above 0 the model is better,
    paired over test images, or over latents."""

    layer: str
    own: Number
    rival: str
    theirs: Number
    gain: Number


def margin(found: Found, label: str, baseline: str, measure: Measure, t: int | None = None) -> Margin | None:
    """Of a model at a timestep, the reference by default; None where one of the two has no number."""
    row, rivals = found.row(label, t), baseline_row(found, baseline, t)
    best, rival = measure.best(row), measure.best(rivals)
    if best is None or rival is None:
        return None
    gain = measure.gain([row[best]], [rivals[rival]])
    return Margin(best, measure.read(row[best]), rival, measure.read(rivals[rival]), gain)


def margins(found: Found) -> list[dict[str, Any]]:
    """Every margin as JSON-ready values: all measures at the reference, probes at every timestep."""
    rows = []
    for t in found.timesteps:
        measures: Sequence[Measure] = AT_REFERENCE if t == found.reference[0] else PROBES
        for label in found.models:
            for measure in measures:
                for baseline in found.baselines:
                    known = margin(found, label, baseline, measure, t)
                    if known is not None:
                        where = {"model": label, "baseline": baseline, "measure": measure.name, "t": t}
                        rows.append(where | asdict(known))
    return rows


def baseline_row(found: Found, baseline: str, t: int | None = None) -> dict[str, Values]:
    """The cells of a baseline at a timestep, by layer; of pixels what the network was given."""
    if baseline == UNTRAINED:
        return found.row(UNTRAINED, t)
    assert baseline == PIXELS
    cell = found.cell(PIXELS, NOISED, t)
    return {} if cell is None else {NOISED: cell}
