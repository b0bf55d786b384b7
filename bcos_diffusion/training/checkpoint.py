"""Training state on disk, written whole and independent of how many processes wrote it.

``checkpoints/<samples>/`` holds ``index.json`` and safetensors files of about a gigabyte, in which every tensor is
whole: a run goes on with any number of processes, sharded or not. Tensors are gathered, written and read one by one,
so neither takes a second copy of the state. A folder appears under its name only when all of it is on the disk; the
one before is then removed. Weights, optimiser and average are all there is: samples, the one counter, fixes
randomness and data.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bcos_diffusion.staging import staged
from bcos_diffusion.training.distributed import held_rows, local, rank, spread, whole
from bcos_diffusion.training.tensor_files import TensorFiles
from bcos_kernels.files import read_json, write_json, write_tensors

FORMAT = "bcos_diffusion.training/2"
PARTS = {"progress", "run", "scaler", "tensors"}
FILE_BYTES = 2**30


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps taken, samples seen, and steps skipped because their gradient was not finite."""

    step: int = 0
    samples: int = 0
    skipped: int = 0

    def after(self, samples: int, took: bool) -> Progress:
        """The progress after one more step."""
        return Progress(self.step + 1, self.samples + samples, self.skipped + (not took))


def save_checkpoint(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    ema: dict[str, Tensor],
    run: Mapping[str, object] | None = None,
    scaler: Mapping[str, object] | None = None,
) -> None:
    """Write the state of a run into ``folder / "checkpoints"``; all processes must call it.

    run: what must be the same when the run goes on, such as its seed; scaler: the state of fp16's loss scale.
    """
    state = _state(model, optimiser, ema)
    if rank() > 0:
        for part, like in state.values():
            whole(part, like)
        return
    parent = folder / "checkpoints"
    parent.mkdir(parents=True, exist_ok=True)
    with staged(parent / f"{progress.samples:012d}") as new:
        files: dict[str, str] = {}
        for number, tensors in enumerate(_files(state)):
            name = f"tensors-{number:05d}.safetensors"
            write_tensors(new / name, tensors)
            _to_disk(new / name)
            files |= dict.fromkeys(tensors, name)
        index = {"format": FORMAT, "progress": asdict(progress), "run": dict(run or {})}
        write_json(new / "index.json", index | {"scaler": scaler, "tensors": files})
        _to_disk(new / "index.json")
    for older in _checkpoints(folder)[:-1]:
        shutil.rmtree(older)


def find_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in ``folder``. Raises ValueError for one of an earlier version."""
    found = _checkpoints(folder)
    if found:
        return found[-1]
    old = folder / "checkpoint.safetensors"
    if old.exists():
        raise ValueError(
            f"{old} is of an earlier version, which drew by step and not by sample; this one cannot go on exactly:"
            " finish with that version, or train into another folder"
        )
    return None


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    ema: dict[str, Tensor],
    run: Mapping[str, object] | None = None,
) -> tuple[Progress, dict[str, Any] | None]:
    """Restore model, optimiser and EMA in place, each process what it holds; returns progress and loss scale.

    Raises ValueError when the checkpoint is damaged, belongs to a model of another shape, or to another ``run``.
    """
    index = read_json(path / "index.json")
    if not isinstance(index, dict) or index.get("format") != FORMAT or not index.keys() >= PARTS:
        raise ValueError(f"{path / 'index.json'} is not an index of the format {FORMAT!r}")
    before = index["run"]
    changed = [f"{k} {before.get(k)!r}, not {v!r}" for k, v in (run or {}).items() if before.get(k) != v]
    if changed:
        raise ValueError(f"{path} is of a run with {' and '.join(changed)}; go on as it began or choose another folder")
    trained = _trained(model)
    reader = TensorFiles(path, index["tensors"])
    reader.check({f"weights/{name}": tuple(p.shape) for name, p in trained.items()}, "weights/")
    for name, parameter in trained.items():
        rows = held_rows(parameter)
        local(parameter.detach()).copy_(reader.read(f"weights/{name}", rows))
        ema[name].copy_(reader.read(f"ema/{name}", rows))
        for kind in reader.between("optimiser/", f"/{name}"):
            optimiser.state[parameter][kind] = _moment(reader, kind, name, parameter)
    return Progress(**index["progress"]), index["scaler"]


def clean(folder: Path) -> None:
    """Remove what a killed process left half written; no other may be writing."""
    for left in (folder / "checkpoints").glob(".bcos-*"):
        shutil.rmtree(left)


def _moment(reader: TensorFiles, kind: str, name: str, parameter: nn.Parameter) -> Tensor:
    """What the optimiser keeps beside a parameter: of its shape, or one number that stays on the CPU."""
    key = f"optimiser/{kind}/{name}"
    if reader.shape(key) != tuple(parameter.shape):
        return reader.read(key, slice(None))
    return spread(reader.read(key, held_rows(parameter)).to(parameter.device), parameter)


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _state(
    model: nn.Module, optimiser: torch.optim.Optimizer, ema: dict[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Every tensor of the state as this process holds it, and the parameter that it is spread like."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, parameter in _trained(model).items():
        found[f"weights/{name}"] = (local(parameter.detach()), parameter)
        found[f"ema/{name}"] = (ema[name], parameter)
        for kind, value in optimiser.state.get(parameter, {}).items():
            found[f"optimiser/{kind}/{name}"] = (local(torch.as_tensor(value)), parameter)
    return found


def _files(state: dict[str, tuple[Tensor, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """The state in whole tensors on the CPU, as much at a time as goes into one file."""
    tensors: dict[str, Tensor] = {}
    size = 0
    for name, (part, like) in state.items():
        tensors[name] = whole(part, like).cpu()
        size += tensors[name].nbytes
        if size >= FILE_BYTES:
            yield tensors
            tensors, size = {}, 0
    if tensors:
        yield tensors


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(p for p in (folder / "checkpoints").glob("[0-9]*") if p.is_dir())


def _to_disk(path: Path) -> None:
    """Wait until a file survives a loss of power."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
