"""What a training run says of itself: a JSONL line a report, TensorBoard curves, pace and memory."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from bcos_kernels.files import write_atomically


class TrainingLog:
    """Append training values to ``log.jsonl`` and to TensorBoard; a resumed run drops what it redoes."""

    def __init__(self, folder: Path, first: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        self._forget_after(first)
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=first + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Report the values of one step."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        self.board.close()

    def _forget_after(self, step: int) -> None:
        """A run cut after its last checkpoint has logged steps that will be taken again."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        write_atomically(self.path, lambda temporary: temporary.write_text("".join(kept), encoding="utf-8"))


class Pace:
    """Images a second and seconds a step since the last report, what is done between steps apart."""

    def __init__(self, processes: int):
        self.processes = processes
        self.seconds, self.samples, self.steps = 0.0, 0, 0
        self.go_on()

    def go_on(self) -> None:
        """A step begins."""
        self.began = time.monotonic()

    def add(self, samples: int) -> None:
        """A step over ``samples`` ended."""
        self.seconds += time.monotonic() - self.began
        self.samples += samples
        self.steps += 1

    def take(self) -> dict[str, float]:
        """What to report; the next report begins anew."""
        rate = self.samples / self.seconds
        found = {
            "images_per_second": rate,
            "images_per_second_per_process": rate / self.processes,
            "step_seconds": self.seconds / self.steps,
        }
        self.seconds, self.samples, self.steps = 0.0, 0, 0
        return found


def peak_memory_gb(device: torch.device) -> float:
    """Most memory that this process has held: of its device, or of the system where it has none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
