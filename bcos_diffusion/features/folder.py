"""The files of an extraction: ``settings.json``, ``labels.safetensors``, ``shards/``, and at the end ``index.json``.

What is on disk is what is done: a shard is there whole or not at all, whoever wrote it, so that processes and machines
that share the folder need not talk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.evaluation.provenance import environment
from bcos_diffusion.features.plan import Layout, Shard, file_bytes
from bcos_diffusion.many import agree_on_settings
from bcos_kernels.files import write_json, write_tensors

FORMAT = "bcos_diffusion.features/1"
SHARDS, LABELS, INDEX = "shards", "labels.safetensors", "index.json"


class FeatureFolder:
    """A folder that features are written into."""

    def __init__(self, out: Path, layout: Layout):
        self.out, self.layout = out, layout

    def begin(self, subject: dict[str, Any]) -> None:
        """Begin the folder or go on with it; subject: what tells the model from others.

        Raises ValueError, saying what differs, where it was begun with other settings; OSError where it cannot be
        written.
        """
        agree_on_settings(self.out, {"format": FORMAT, "subject": subject, **self.layout.plan.settings()})

    def path(self, shard: Shard) -> Path:
        """Where a shard is once it is done."""
        return self.out / SHARDS / shard.name

    def has(self, shard: Shard) -> bool:
        """Whether a shard is done; a file of another length than it must have is not one."""
        path = self.path(shard)
        return path.is_file() and path.stat().st_size == self.layout.shard_bytes(shard)

    def write(self, shard: Shard, tensors: dict[str, Tensor]) -> None:
        """Write a shard's file; it appears whole."""
        write_tensors(self.path(shard), tensors)

    def bytes_left(self) -> int:
        """How much is still to be written."""
        labels = 0 if (self.out / LABELS).is_file() else file_bytes(self.layout.labels())
        return labels + sum(self.layout.shard_bytes(shard) for shard in self.layout.shards if not self.has(shard))

    def write_labels(self) -> None:
        """Write what is in the images, unless somebody has; all write the same."""
        if not (self.out / LABELS).is_file():
            labels = self.layout.plan.images.labels(range(self.layout.plan.count))
            write_tensors(self.out / LABELS, labels or {"none": torch.zeros(0, dtype=torch.int64)})

    def finish(self, subject: dict[str, Any]) -> bool:
        """Write the index if every shard is done; any process may, they all write the same but for the versions."""
        if not all(map(self.has, self.layout.shards)):
            return False
        self.write_labels()
        for left in (self.out / SHARDS).glob(".*.safetensors"):
            left.unlink(missing_ok=True)  # what killed processes left half written
        write_json(self.out / INDEX, self._index(subject))
        return True

    def _index(self, subject: dict[str, Any]) -> dict[str, Any]:
        images = self.layout.plan.images
        shards = [
            {"file": f"{SHARDS}/{s.name}", "first": s.first, "end": s.end, "bytes": self.layout.shard_bytes(s)}
            for s in self.layout.shards
        ]
        return {
            "format": FORMAT,
            "subject": subject,
            **self.layout.plan.settings(),
            "drawn": images.drawn,
            "shapes": {name: list(shape) for name, shape in self.layout.shapes.items()},
            "classes": {factor: list(names) for factor, names in images.classes.items()},
            "bytes": self.layout.total_bytes,
            "shards": shards,
            "provenance": environment(),
        }
