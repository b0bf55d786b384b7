"""Read tensors, or rows of them, from the safetensors files of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor


class TensorFiles:
    """The tensors of a folder by name; files are opened when first read and mapped, not loaded.

    Every method raises ValueError with one line that names the file which is missing, cut or foreign.
    """

    def __init__(self, folder: Path, files: Mapping[str, str]):
        self.folder, self.files = folder, files
        self._open: dict[str, Any] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._slice(name).get_shape())

    def read(self, name: str, rows: slice) -> Tensor:
        """Some rows of a tensor, or all of it by ``slice(None)``."""
        part = self._slice(name)
        return part[rows] if part.get_shape() else part[...]

    def between(self, start: str, end: str) -> list[str]:
        """What stands between ``start`` and ``end`` in the names that begin and end so."""
        return [n[len(start) : -len(end)] for n in self.files if n.startswith(start) and n.endswith(end)]

    def check(self, shapes: Mapping[str, tuple[int, ...]], kind: str) -> None:
        """Raise ValueError unless the tensors whose names begin with ``kind`` are these, in these shapes."""
        saved = {name for name in self.files if name.startswith(kind)}
        wrong = saved ^ shapes.keys()
        wrong |= {name for name in saved & shapes.keys() if self.shape(name) != shapes[name]}
        if wrong:
            names = ", ".join(sorted(name.removeprefix(kind) for name in wrong)[:5])
            raise ValueError(f"{self.folder} belongs to another model; these weights differ: {names}")

    def _slice(self, name: str) -> Any:
        path = self.folder / self.files[name]
        try:
            if path.name not in self._open:
                self._open[path.name] = safe_open(path, framework="pt")
            return self._open[path.name].get_slice(name)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is not a readable safetensors file: {error}") from None
