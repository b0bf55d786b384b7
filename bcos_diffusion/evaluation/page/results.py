"""Reading a result that may be whole or have parts missing, as written to JSON or as just measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Number:
    """A measured value with its 95% interval; NaN where it is undefined."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is a value, be it infinite."""
        return not math.isnan(self.value)

    def apart(self, other: Number) -> bool:
        """Whether the two intervals are disjoint; False where one is not known."""
        return self.low > other.high or self.high < other.low

    def text(self, scale: float = 1.0, digits: int = 1) -> str:
        """The value alone."""
        return show(self.value, scale, digits)

    def interval(self, scale: float = 1.0, digits: int = 1) -> str:
        """The interval in brackets, empty where there is none."""
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return ""
        return f"[{show(self.low, scale, digits)}, {show(self.high, scale, digits)}]"

    def both(self, scale: float = 1.0, digits: int = 1) -> str:
        """The value with its interval."""
        return f"{self.text(scale, digits)} {self.interval(scale, digits)}".strip()


UNKNOWN = Number(math.nan, math.nan, math.nan)


def show(value: float, scale: float = 1.0, digits: int = 1) -> str:
    """A number as tables print it; what is not finite is said in a word, and a small one keeps its size."""
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "infinite" if value > 0 else "−infinite"
    scaled = scale * value + 0.0  # no minus zero
    if scaled and abs(scaled) < 0.5 * 10**-digits:
        return f"{scaled:.0e}".replace("-", "−")
    return f"{scaled:.{digits}f}".replace("-", "−")


def number(value: Any) -> Number:
    """A plain value or ``{"value", "low", "high"}`` as a number; null and "infinite" are what JSON spells so."""
    if isinstance(value, Mapping):
        parts = (value.get(name) for name in ("value", "low", "high"))
        return Number(*map(_float, parts))
    plain = _float(value)
    return Number(plain, math.nan, math.nan)


def _float(value: Any) -> float:
    if isinstance(value, bool) or value is None:
        return math.nan if value is None else float(value)
    if isinstance(value, str):
        return {"infinite": math.inf, "-infinite": -math.inf}.get(value, math.nan)
    return float(value) if isinstance(value, int | float) else math.nan


def part(result: Any, *path: str) -> Any:
    """The value at a path of keys; None where any of them is absent."""
    for key in path:
        if not isinstance(result, Mapping) or key not in result:
            return None
        result = result[key]
    return result


def number_at(result: Any, *path: str) -> Number:
    """The number at a path of keys; unknown where there is none."""
    return number(part(result, *path))


def floats(values: Any) -> tuple[float, ...]:
    """The points of a curve; NaN for what is not a number."""
    return tuple(map(_float, values)) if isinstance(values, Sequence) and not isinstance(values, str) else ()
