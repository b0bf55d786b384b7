"""One call of a model that is to be explained: named inputs, constants, and the checks on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

Model = Callable[..., Tensor]
SINGLE = "input"
"""The name of an input that was given as a bare tensor."""


@dataclass(frozen=True)
class Call:
    """A model with the inputs to explain by name; ``parameters`` replace the model's own when it runs."""

    model: Model
    inputs: dict[str, Tensor]
    positional: bool
    constants: dict[str, Any]
    parameters: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, inputs: Tensor | Mapping[str, Tensor], constants: Mapping[str, Any] | None) -> Call:
        """Name and check the inputs.

        Raises ValueError for inputs that are missing, not floating or also constants, and for a batch
        norm in training mode, whose running statistics an explanation would change.
        """
        positional = isinstance(inputs, Tensor)
        named = {SINGLE: inputs} if isinstance(inputs, Tensor) else dict(inputs)
        if not named:
            raise ValueError("inputs is empty: give a tensor or a mapping of names to tensors")
        for name, x in named.items():
            if not isinstance(x, Tensor) or not x.is_floating_point():
                what = x.dtype if isinstance(x, Tensor) else type(x).__name__
                raise ValueError(f"input {name!r} must be a floating tensor, got {what}; pass the rest as constants")
        constants = dict(constants or {})
        if not positional and (twice := named.keys() & constants.keys()):
            raise ValueError(f"given both as input and as constant: {', '.join(sorted(twice))}")
        for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
            if isinstance(module, _BatchNorm) and module.training and module.track_running_stats:
                raise ValueError(
                    f"batch norm {name or 'model'!r} is in training mode: explaining would change its running"
                    " statistics; call model.eval() first"
                )
        with torch.inference_mode(False):  # inference tensors cannot enter a graph; their clones can
            named = {name: x.detach().clone() if x.is_inference() else x.detach() for name, x in named.items()}
        return cls(model, named, positional, constants)

    def with_inputs(self, inputs: dict[str, Tensor]) -> Call:
        """The same call on other inputs."""
        return replace(self, inputs=inputs)

    def run(self) -> Tensor:
        """Run the model; ValueError unless it returns one floating tensor, or a tuple of just that."""
        args = (self.inputs[SINGLE],) if self.positional else ()
        keywords = self.constants if self.positional else {**self.inputs, **self.constants}
        if self.parameters:
            assert isinstance(self.model, nn.Module)
            output = functional_call(self.model, self.parameters, args, keywords)
        else:
            output = self.model(*args, **keywords)
        if isinstance(output, tuple) and len(output) == 1:
            output = output[0]
        if not isinstance(output, Tensor) or not output.is_floating_point():
            what = output.dtype if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"the model must return one floating tensor, got {what}; wrap it in a function that does")
        return output
