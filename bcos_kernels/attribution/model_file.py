"""A model from the command line: a factory ``module:function`` and weights in safetensors."""

from __future__ import annotations

import importlib
from pathlib import Path

from torch import nn

from bcos_kernels.files import read_tensors


def load_model(factory: str, weights: Path | None) -> nn.Module:
    """Call the factory without arguments and load its weights; returns the model in evaluation mode.

    Raises ValueError when the factory cannot be found or returns no module, or when names or shapes differ, and
    FileNotFoundError.
    """
    model = _made(factory)
    if weights is not None:
        tensors, own = read_tensors(weights), model.state_dict()
        wrong = [f"{name} is missing" for name in own.keys() - tensors.keys()]
        wrong += [f"{name} is not in the model" for name in tensors.keys() - own.keys()]
        wrong += [
            f"{name} is {list(tensors[name].shape)}, the model has {list(own[name].shape)}"
            for name in own.keys() & tensors.keys()
            if own[name].shape != tensors[name].shape
        ]
        if wrong:
            listed = "; ".join(sorted(wrong)[:5]) + ("; …" if len(wrong) > 5 else "")
            raise ValueError(f"{weights} does not fit the model of {factory}: {listed}")
        model.load_state_dict(tensors)
    return model.eval()


def _made(factory: str) -> nn.Module:
    name, _, attribute = factory.partition(":")
    if not name or not attribute:
        raise ValueError(f"a model is named as module:function, got {factory!r}")
    try:
        function = getattr(importlib.import_module(name), attribute, None)
    except ImportError as error:
        raise ValueError(f"cannot import {name!r} of {factory!r}: {error}") from None
    if not callable(function):
        raise ValueError(f"module {name!r} has no function {attribute!r}")
    try:
        model = function()
    except TypeError as error:
        raise ValueError(f"{factory} cannot be called without arguments: {error}") from None
    if not isinstance(model, nn.Module):
        raise ValueError(f"{factory} must return a torch module, got {type(model).__name__}")
    return model
