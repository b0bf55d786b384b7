"""What the configurations of all denoisers do alike."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bcos_diffusion.networks.layers import Layers

if TYPE_CHECKING:
    from typing import Self

TIME_CONDITIONINGS = ("scale", "additive")


class NetworkConfig:
    """Base of the frozen dataclasses that describe a network; each says how many ``levels`` it has."""

    size: int
    patch: int
    time_conditioning: str
    noise_shift: float = 1.0
    """How far the noise schedule is moved, as in ``noise_schedule``."""

    @property
    def levels(self) -> int:
        """How many resolutions the network works at."""
        raise NotImplementedError

    @property
    def stride(self) -> int:
        """Pixels of an image per side of the coarsest level's cells."""
        return self.patch * 2 ** (self.levels - 1)

    def check_size_and_time(self) -> None:
        """Raise ValueError for a size that the levels do not divide, or an unknown conditioning on time."""
        if self.time_conditioning not in TIME_CONDITIONINGS:
            raise ValueError(f"time_conditioning must be one of {TIME_CONDITIONINGS}, got {self.time_conditioning!r}")
        if not self.noise_shift > 0:
            raise ValueError(f"noise_shift must be above 0, got {self.noise_shift}")
        if self.size % self.stride:
            raise ValueError(f"size must be a multiple of {self.stride} for this depth and patch, got {self.size}")

    def to_dict(self) -> dict[str, object]:
        """The configuration as JSON-ready values."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Rebuild a configuration from :meth:`to_dict`; lists become tuples."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


class ScenesConfig(NetworkConfig):
    """Base of the networks of our own design: B-cos layers are all their nonlinearity, and they have ordinary twins."""

    layers: str
    b: float

    @property
    def curved(self) -> Layers:
        """The layers whose alignment is the network's nonlinearity."""
        return Layers(self.layers, self.b, convention="A")

    @property
    def straight(self) -> Layers:
        """The layers that only change widths and sizes."""
        return Layers(self.layers, b=1, convention="A")
