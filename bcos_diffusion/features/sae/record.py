"""What a training run leaves on the disk: its learning curve, its checkpoint, and the finished autoencoder."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from bcos_diffusion.features.sae.autoencoder import KSparseAutoencoder
from bcos_kernels.files import read_json, read_tensors, write_atomically, write_json, write_tensors

FORMAT = "bcos_diffusion.sae.training/1"
State = tuple[dict[str, Tensor], dict[str, int]]


class Record:
    """The folder of one run. identity: what must be the same for the run to go on. Raises ValueError where it is not."""

    def __init__(self, folder: Path, identity: dict[str, object]):
        self.folder = folder
        self.description, self.path = folder / "training.json", folder / "checkpoint.safetensors"
        if not self.description.exists():
            if (folder / "autoencoder.json").exists():
                raise ValueError(f"{folder} has an autoencoder that was not trained here; choose another folder")
            write_json(self.description, {"format": FORMAT, **identity})
            return
        found = read_json(self.description)
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"{self.description} is not of the format {FORMAT!r}")
        changed = [change for part, now in identity.items() for change in _changes(part, found.get(part), now)]
        if changed:
            raise ValueError(
                f"{folder} has a run with {'; '.join(changed)}; go on as it began, or choose another folder"
            )

    def finished(self) -> bool:
        """Whether the autoencoder is there."""
        return (self.folder / "autoencoder.json").exists()

    def checkpoint(self) -> State | None:
        """Where a run that was cut goes on; None where it begins."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                counts = json.loads((file.metadata() or {})["counts"])
        except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{self.path} is not a checkpoint: {error}; remove it to begin anew") from None
        return read_tensors(self.path), counts

    def save_checkpoint(self, state: State) -> None:
        """Replace the checkpoint, in one step."""
        write_tensors(self.path, state[0], {"counts": json.dumps(state[1])})

    def finish(self, autoencoder: KSparseAutoencoder) -> None:
        """Write what was learned; the checkpoint is of no more use."""
        autoencoder.save(self.folder)
        self.path.unlink(missing_ok=True)


class Curve:
    """Reports, one JSON object a line; a run that goes on drops those it will make again."""

    def __init__(self, path: Path, step: int):
        self.path = path
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_atomically(path, lambda temporary: temporary.write_text("".join(kept), encoding="utf-8"))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def _changes(part: str, before: object, now: object) -> list[str]:
    """What differs between two mappings, in words."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [f"no {part}"]
    names = sorted(before.keys() | now.keys())
    return [f"{n} {before.get(n)!r}, not {now.get(n)!r}" for n in names if before.get(n) != now.get(n)]
