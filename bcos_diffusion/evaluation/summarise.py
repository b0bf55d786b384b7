"""Everything that was found, from records to one result: by section, machine-readable, whole or so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bcos_diffusion.evaluation.noised import SHARES
from bcos_diffusion.evaluation.setup import Record
from bcos_diffusion.evaluation.summary.faithfulness import ceiling, differences, faithfulness
from bcos_diffusion.evaluation.summary.full_run import full_run
from bcos_diffusion.evaluation.summary.localisation import localisation
from bcos_diffusion.evaluation.summary.models import denoising, drawn, seconds

Read = Callable[[str, str], Sequence[Record]]
"""The records of a part and a split that there are."""


def summarise(read: Read) -> dict[str, Any]:
    """The sections for which there are records. Numbers are of the test split, thresholds of validation scenes."""
    result: dict[str, Any] = {}
    if test := read("regime_a", "test"):
        result["regime_a"] = localisation(read("regime_a", "validation"), test, SHARES)
        result["denoising_mse"] = denoising(test)
        result["faithfulness"] = {
            "one_step": faithfulness(test, SHARES),
            "ceiling": ceiling(test, SHARES),
            "differences": differences(test),
        }
    if test := read("regime_b", "test"):
        result["regime_b"] = localisation(read("regime_b", "validation"), test) | {"objects": drawn(test)}
        result.setdefault("faithfulness", {})["whole_run"] = faithfulness(test)
    if test := read("full_run", "test"):
        result |= full_run(test)
    parts = {part: read(part, "test") for part in ("regime_a", "regime_b")}
    result["timing"] = {part: seconds(records) for part, records in parts.items() if records}
    return result
