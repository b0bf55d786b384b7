"""What a conversion did, or would do: by module name, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_EXAMPLES = 3


@dataclass(frozen=True)
class Change:
    """A module's class as it was, and what it became."""

    was: str
    became: str


@dataclass(frozen=True)
class Report:
    """The result of :func:`bcos_kernels.bcosify`; the keys of every mapping are module names.

    converted: what changed. unchanged: what is linear, or a constant, as it is, and why it stays. unconverted: what may
    leave an explanation incomplete, and why. refused: why nothing at all was converted (in a dry run alone; else it is
    the error). biases: names of parameters, and constants: of parameters and modules, that ``completeness`` reports
    beside the inputs.
    """

    converted: dict[str, Change] = field(default_factory=dict)
    unchanged: dict[str, str] = field(default_factory=dict)
    unconverted: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    biases: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    dry_run: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries, lists and strings, fit for JSON."""
        return asdict(self) | {"biases": list(self.biases), "constants": list(self.constants)}

    def __str__(self) -> str:
        verb = "would convert" if self.dry_run else "converted"
        changes = {name: f"{change.was} → {change.became}" for name, change in self.converted.items()}
        lines = [f"{verb} {len(changes)} modules", *_grouped(changes)]
        for title, found in (
            ("unchanged", self.unchanged),
            ("NOT converted", self.unconverted),
            ("REFUSED", self.refused),
        ):
            if found:
                lines += [f"{title}: {len(found)}", *_grouped(found)]
        for title, names in (("biases in the budget", self.biases), ("constants in the budget", self.constants)):
            if names:
                lines.append(f"{title}: {len(names)} ({_some(names)})")
        return "\n".join(lines)


def _grouped(texts: Mapping[str, str]) -> list[str]:
    """One line a distinct text: how often, and where."""
    places: dict[str, list[str]] = {}
    for name, text in texts.items():
        places.setdefault(text, []).append(name or "the model itself")
    return [f"  {len(names):4}  {text}  ({_some(names)})" for text, names in places.items()]


def _some(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:_EXAMPLES]) + (", …" if len(names) > _EXAMPLES else "")
