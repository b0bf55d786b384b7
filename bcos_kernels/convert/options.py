"""What a caller may choose about a conversion, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from bcos_kernels.modules.linear import check_options

Exponent = float | Mapping[str, float] | Callable[[str, float], float]
"""B for all layers; or by patterns of names, the first that matches; or as a function of name and depth in [0, 1]."""

_BIASES, _POOLS = ("keep", "remove"), ("hold", "average")


@dataclass(frozen=True)
class Stem:
    """The first convolution of an image model, which then reads six channels ``[r, g, b, 1-r, 1-g, 1-b]`` in [0, 1].

    mean and deviation: what was subtracted from three channels in [0, 1], and what they were divided by, before they
    entered the model. name: the convolution; by default the only one that reads three channels.
    """

    mean: Sequence[float] = (0.485, 0.456, 0.406)
    deviation: Sequence[float] = (0.229, 0.224, 0.225)
    name: str | None = None

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.deviation) != 3 or not all(d > 0 for d in self.deviation):
            raise ValueError(
                f"a stem has three means and three positive deviations, got {self.mean} and {self.deviation}"
            )


@dataclass(frozen=True)
class Options:
    """The arguments of :func:`bcos_kernels.bcosify`."""

    b: Exponent
    convention: str
    biases: str
    max_pool: str
    stem: Stem | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    constants: tuple[str, ...]

    def check(self, names: Sequence[str]) -> None:
        """Raises ValueError for a value that is not accepted, or a pattern that matches none of the names."""
        if self.biases not in _BIASES:
            raise ValueError(f"biases must be one of {_BIASES}, got {self.biases!r}")
        if self.max_pool not in _POOLS:
            raise ValueError(f"max_pool must be one of {_POOLS}, got {self.max_pool!r}")
        schedule = tuple(self.b) if isinstance(self.b, Mapping) else ()
        for pattern in (*self.include, *self.exclude, *self.constants, *schedule):
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(f"no module is named like {pattern!r}")

    def selects(self, name: str) -> bool:
        """Whether a module may be converted."""
        return _any(name, self.include) and not _any(name, self.exclude)

    def is_constant(self, name: str) -> bool:
        """Whether the caller says that a module's output is a constant."""
        return _any(name, self.constants)

    def exponent(self, name: str, depth: float) -> float:
        """B of a layer. Raises ValueError where there is none, or one that no B-cos layer can have."""
        if isinstance(self.b, Mapping):
            b = next((value for pattern, value in self.b.items() if fnmatchcase(name, pattern)), None)
            if b is None:
                raise ValueError(f"b has no pattern for {name!r}; end it with '*'")
        else:
            b = self.b(name, depth) if callable(self.b) else self.b
        check_options(b, 1, self.convention)
        return b


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def find_stem(stem: Stem, modules: Mapping[str, nn.Module]) -> str:
    """The name of the first convolution. Raises ValueError unless exactly one fits."""
    found = [
        name
        for name, module in modules.items()
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and module.groups == 1
    ]
    if stem.name is not None:
        if stem.name not in found:
            others = ", ".join(found) or "none"
            raise ValueError(f"{stem.name!r} is no convolution of three channels; those are: {others}")
        return stem.name
    if len(found) != 1:
        raise ValueError(
            f"a stem is the convolution that reads three channels, here: {', '.join(found) or 'none'}; name it in Stem"
        )
    return found[0]
