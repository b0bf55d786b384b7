"""Training state on disk: weights, optimiser, EMA and the step, which fixes randomness and data."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bcos_kernels.files import read_tensors, write_tensors

NAME = "checkpoint.safetensors"


def save_checkpoint(
    folder: Path, step: int, model: torch.nn.Module, optimiser: torch.optim.Optimizer, ema: dict[str, Tensor]
) -> None:
    """Write everything that step ``step`` left behind to one file, atomically."""
    tensors = {"step": torch.tensor(step)}
    for name, parameter in model.named_parameters():
        tensors[f"weights/{name}"] = parameter
        tensors[f"ema/{name}"] = ema[name]
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser/{key}/{name}"] = torch.as_tensor(value)
    write_tensors(folder / NAME, tensors)


def load_checkpoint(
    folder: Path, model: torch.nn.Module, optimiser: torch.optim.Optimizer, ema: dict[str, Tensor]
) -> int:
    """Restore model, optimiser and EMA in place; returns the steps done, 0 when there is no checkpoint.

    Raises ValueError when the checkpoint belongs to a model of another shape.
    """
    path = folder / NAME
    if not path.exists():
        return 0
    tensors = read_tensors(path)
    parameters = dict(model.named_parameters())
    saved = {name.removeprefix("weights/") for name in tensors if name.startswith("weights/")}
    wrong = saved ^ parameters.keys()
    wrong |= {n for n in saved & parameters.keys() if tensors[f"weights/{n}"].shape != parameters[n].shape}
    if wrong:
        raise ValueError(f"{path} belongs to another model; these weights differ: {', '.join(sorted(wrong)[:5])}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weights/{name}"])
            ema[name].copy_(tensors[f"ema/{name}"])
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            _, kind, name = key.split("/", 2)
            optimiser.state[parameters[name]][kind] = value
    return int(tensors["step"])
