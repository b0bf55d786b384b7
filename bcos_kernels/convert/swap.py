"""How a module is converted in place: by its class, which is exchanged for one that explains itself.

The new class is made of a rule and of the class that the module had, so the object, its parameters, hooks, name,
place in other modules, state_dict and ``isinstance`` stay what they were. Such classes are made where they are needed
and pickled by what they are made of.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

_BEFORE = "_before_bcosify"
_MISSING = "nothing was there"


class Converted:
    """Mixed into the class of every converted module: what it was made of, and how it is pickled."""

    rule: ClassVar[type]
    original: ClassVar[type[nn.Module]]

    def __reduce_ex__(self, protocol: Any) -> Any:
        state = self.__getstate__() if hasattr(type(self), "__getstate__") else self.__dict__
        return _blank, (type(self).rule, type(self).original), state


class Reshaped:
    """A rule under which parameters get another shape."""

    def restore(self, before: dict[str, Any]) -> None:
        """Give the remembered parameters the values that the present ones have come to."""
        raise NotImplementedError


_made: dict[tuple[type, type], type[nn.Module]] = {}


def mixed(rule: type, original: type[nn.Module]) -> type[nn.Module]:
    """The class of a module of class ``original`` under a rule; it keeps the name, which configurations store."""
    if (rule, original) in _made:
        return _made[rule, original]
    body = {"rule": rule, "original": original, "__module__": original.__module__, "__doc__": original.__doc__}
    made = types.new_class(original.__name__, (Converted, rule, original), {}, lambda space: space.update(body))
    assert issubclass(made, nn.Module)
    return _made.setdefault((rule, original), made)


def _blank(rule: type, original: type[nn.Module]) -> nn.Module:
    """A module without any state yet, which unpickling fills."""
    made = mixed(rule, original)
    return made.__new__(made)


def swap(module: nn.Module, rule: type, changes: Mapping[str, Any]) -> None:
    """Put a module under a rule, and set attributes, of which it remembers what they were."""
    before = {name: getattr(module, name, _MISSING) for name in changes}
    module.__class__ = mixed(rule, type(module))
    module.__dict__[_BEFORE] = before
    for name, value in changes.items():
        setattr(module, name, value)


def restore(module: nn.Module) -> None:
    """Undo :func:`swap`: the class, and the attributes as they were; parameters come back as the same objects."""
    assert isinstance(module, Converted)
    weight = next(module.parameters(recurse=False), None)
    before = module.__dict__.pop(_BEFORE)
    if isinstance(module, Reshaped):
        module.restore(before)
    module.__class__ = type(module).original  # type: ignore[assignment]
    for name, value in before.items():
        if isinstance(value, str) and value == _MISSING:
            delattr(module, name)
            continue
        if isinstance(value, nn.Parameter) and weight is not None:
            with torch.no_grad():  # it was not there when the module moved
                value.data = _like(value.data, weight)
        setattr(module, name, value)


def _like(value: Tensor, weight: Tensor) -> Tensor:
    return value if value.is_meta or weight.is_meta else value.to(weight)
