"""How well the models denoise and draw, and how long every method takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bcos_diffusion.evaluation.noised import SHARES
from bcos_diffusion.evaluation.setup import Record
from bcos_diffusion.evaluation.statistics import bootstrap, mean, ratio
from bcos_diffusion.evaluation.summary.methods import names, ran


def denoising(records: Sequence[Record]) -> dict[str, Any]:
    """Mean squared error of the predicted x_0 over six channels, by model and noise level."""
    return {
        model: {
            str(level): bootstrap([record[model]["mse"][row] for record in records], mean)
            for row, level in enumerate(SHARES)
        }
        for model in ("model", "twin")
        if any(model in record for record in records)
    }


def drawn(records: Sequence[Record]) -> dict[str, Any]:
    """How many object words captions name, and of how many the object was drawn: the others have no true region."""
    return {
        model: {
            "named": sum(record[model]["named"] for record in records),
            "drawn": sum(record[model]["drawn"] for record in records),
            "share": bootstrap([(record[model]["drawn"], record[model]["named"]) for record in records], ratio),
        }
        for model in ("model", "twin")
        if any(model in record for record in records)
    }


def seconds(records: Sequence[Record]) -> dict[str, Any]:
    """Mean seconds of every method a scene: on a CPU those of one core, all noise levels together."""
    taken = {
        name: [record[model]["methods"][method]["seconds"] for record in ran(records, model, method)]
        for model, method, name in names(records)
    }
    return {name: {"scenes": len(values), "seconds": mean(values)} for name, values in taken.items()}
