"""What was measured on what, what it took, and the command that repeats it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bcos_diffusion.evaluation.page.overview import duration
from bcos_diffusion.features.sweep.found import Found
from bcos_diffusion.page.section import Section, Table


def section(found: Found, command: str) -> Section:
    """Settings, labels, times, versions and the command."""
    values = found.values
    models = [(f"model {label}", _plain(model)) for label, model in values["models"].items()]
    layers = [(f"layers of {label}", ", ".join(own)) for label, own in values["layers"].items()]
    labels = [(f"labels: {factor}", _plain(told)) for factor, told in values["unseeing"].items()]
    seconds = [cell["seconds"] for cell in values["cells"].values()]
    rows = [
        *models, *layers,
        ("timesteps", _plain(values["timesteps"])), ("prompts", _plain(values["conditionings"])),
        *labels, *((name, _plain(value)) for name, value in values["settings"].items()),
        ("cells", f"{len(seconds)}, which took {duration(sum(seconds))} of one process each,"
                  " without reading the features"),
        *((name, _plain(value)) for name, value in values["provenance"].items() if value is not None),
    ]  # fmt: skip
    text = (
        "The same command on the same commit, weights and versions gives the same numbers on one machine, whatever the"
        " number of processes. report.json, beside this page, holds every number; what probes said of each image is in"
        " the folder of cells.",
    )
    table = Table("Run", ("what", "value"), tuple(rows), prose=True)
    return Section("measured", "What was measured", (*text, *values["left_out"]), (table,), code=(command,))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items() if part not in (None, "", {}))
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
