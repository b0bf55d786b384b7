"""Which parameters learn faster than the others."""

from __future__ import annotations

from typing import Any

from torch import nn

_PACES = {
    "value_table": 20.0,
    "tokens.place": 5.0,
    "tokens.position": 5.0,
    "text.": 3.0,
    "tokens.attend.query": 3.0,
    "tokens.attend.key": 3.0,
}


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Parameters by the ``pace``, a factor of the learning rate, at which they are trained; frozen ones apart.

    A row of the value table has a gradient only when its word is in the batch, a factor of place or a position
    only its own pixel's, and what steers attention (text encoder, queries, keys) only through probabilities: at
    the pace of the convolutions, which all pixels share, they hardly leave their start.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            pace = next((p for part, p in _PACES.items() if part in name), 1.0)
            groups.setdefault(pace, []).append(parameter)
    return [{"params": parameters, "pace": pace} for pace, parameters in groups.items()]
