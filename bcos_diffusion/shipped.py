"""The models that come with the package, by name: ``scenes-64`` and ``scenes-32``."""

from __future__ import annotations

from pathlib import Path

_WEIGHTS = Path(__file__).parent / "weights"
SHIPPED = _WEIGHTS / "scenes-64"
"""The one that is used where none is named."""


def names() -> tuple[str, ...]:
    """The names of the models in the package, sorted; none in an installation without weights."""
    return tuple(sorted(folder.name for folder in _WEIGHTS.iterdir())) if _WEIGHTS.is_dir() else ()


def locate(source: str | Path | None = None) -> Path:
    """The folder of a model in the package, by its name or where none is named; any other source as it is."""
    if source is None:
        return SHIPPED
    return _WEIGHTS / source if str(source) in names() and not Path(source).exists() else Path(source)


def require_weights(folder: Path) -> None:
    """Raise FileNotFoundError where the package should have a model and does not."""
    if not folder.is_dir():
        raise FileNotFoundError(f"this installation has no weights ({folder} is missing); name a model by --model")
