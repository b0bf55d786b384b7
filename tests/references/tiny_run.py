"""A training run small enough for a test, in this process or, as a program, in one of several.

    python tiny_run.py OUT CHANGES DEATH

CHANGES: fields of the configuration as JSON. DEATH: where this process kills itself, as JSON: a ``rank`` (null for
all), a ``step`` and whether it dies ``while`` in that step ("training") or writing what it left behind ("saving").
Each process writes the positions that it trained on to ``OUT/seen-RANK.jsonl``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.train import TrainConfig, train
from bcos_diffusion.training import checkpoint, trainer
from bcos_diffusion.training.checkpoint import find_checkpoint
from bcos_diffusion.training.distributed import rank
from bcos_kernels.files import read_json, read_tensors, write_tensors

TINY = UNetConfig(
    size=24, widths=(8, 16), heads=2, text_dim=8, time_dim=8,
    self_attention=(False, True), cross_attention=(True, True),
)  # fmt: skip


def tiny_config(out: Path, **changes: Any) -> TrainConfig:
    """Four steps of four images, with a checkpoint every other step."""
    values: dict[str, Any] = {
        "steps": 4, "batch_size": 4, "warmup": 3, "cooldown": 0.5, "effect_weight": 1.0,
        "log_every": 1, "save_every": 2, "sample_every": 100, "seed": 1,
    }  # fmt: skip
    return TrainConfig(out=out, model=TINY, **(values | changes))


def saved(folder: Path) -> dict[str, Tensor]:
    """All tensors of the newest checkpoint of a run."""
    path = find_checkpoint(folder)
    assert path is not None
    files = sorted(set(read_json(path / "index.json")["tensors"].values()))
    return {name: tensor for file in files for name, tensor in read_tensors(path / file).items()}


def log_lines(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def seen(folder: Path) -> list[tuple[int, list[int]]]:
    """(first position of the step, positions) of every round that any process trained on."""
    lines = [line for path in sorted(folder.glob("seen-*.jsonl")) for line in path.read_text().splitlines()]
    return [(entry["step"], entry["own"]) for entry in map(json.loads, lines)]


def launch(command: list[str], out: Path, changes: dict[str, Any], death: dict[str, Any] | None = None) -> int:
    """Run this file under a launcher such as torchrun; returns its exit code."""
    arguments = [*command, __file__, str(out), json.dumps(changes), json.dumps(death or {})]
    return subprocess.run(arguments, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=280).returncode


def _record(out: Path, portions: Any, death: dict[str, Any]) -> Any:
    def recorded(*arguments: Any) -> Iterator[Any]:
        with (out / f"seen-{rank()}.jsonl").open("a", encoding="utf-8") as file:
            for round_, portion in portions(*arguments):
                file.write(json.dumps({"step": round_.step.start, "own": list(round_.own)}) + "\n")
                file.flush()
                step = round_.step.start // len(round_.step) + 1
                if death.get("while") == "training" and step == death["step"] and death["rank"] in (None, rank()):
                    os.kill(os.getpid(), signal.SIGKILL)
                yield round_, portion

    return recorded


def _die_saving(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write half of a file, then die as by kill -9."""
    write_tensors(path, tensors)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    out, changes, death = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)

    def save(folder: Path, progress: checkpoint.Progress, *state: Any) -> None:
        dies = death.get("while") == "saving" and progress.step == death["step"]
        with patch.object(checkpoint, "write_tensors", _die_saving if dies else write_tensors):
            checkpoint.save_checkpoint(folder, progress, *state)

    recorded = _record(out, trainer.portions, death)
    with patch.object(trainer, "portions", recorded), patch.object(trainer, "save_checkpoint", save):
        train(tiny_config(out, **changes))


if __name__ == "__main__":
    main()
