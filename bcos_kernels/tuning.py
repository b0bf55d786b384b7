"""Which of several ways to compute the same is fastest on this device: measured once, remembered on disk.

The table of a device lies in ``$BCOS_CACHE`` (default: ``~/.cache/bcos_kernels``), in a file named after the device
and the versions of torch, triton and this package. Where it has no entry, the table shipped in ``bcos_kernels/tuned``
for the device answers, then a measurement. None is made while a CUDA graph is captured, while torch is to be
deterministic, or where there is no device to tune for: then the first candidate runs.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

FOLDER = "BCOS_CACHE"
SHIPPED = Path(__file__).with_name("tuned")
WARM_UPS, ROUNDS = 3, 9


def choose(what: str, device: torch.device, candidates: Mapping[str, Callable[[], Any]]) -> str:
    """The name of the fastest candidate for ``what``: an op with its dtype and shape class.

    Candidates that fail (a tile that needs more shared memory than the device has) are left out. Raises the error
    of the last one if all fail.
    """
    table = _table(device)
    if (known := table.get(what)) in candidates:
        return known  # type: ignore[return-value]
    if not _may_measure(device):
        return next(iter(candidates))
    table[what] = best = _fastest(candidates, device)
    _save(device, table)
    return best


def shape_class(count: int) -> int:
    """Counts that share an entry: the next power of 2."""
    return 1 << max(0, count - 1).bit_length()


def _may_measure(device: torch.device) -> bool:
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        return False
    return not torch.cuda.is_current_stream_capturing()


def _fastest(candidates: Mapping[str, Callable[[], Any]], device: torch.device) -> str:
    times: dict[str, float] = {}
    failure: Exception | None = None
    for name, run in candidates.items():
        try:
            times[name] = _seconds(run, device)
        except Exception as error:  # each compiler and each driver has errors of its own
            failure = error
    if not times:
        assert failure is not None
        raise failure
    return min(times, key=times.__getitem__)


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    """The median of several runs, each until the device is done."""
    taken = []
    for turn in range(WARM_UPS + ROUNDS):
        _finish(device)
        began = time.perf_counter()
        run()
        _finish(device)
        if turn >= WARM_UPS:
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@functools.cache
def _table(device: torch.device) -> dict[str, str]:
    """What is known of a device: shipped, then measured here before."""
    shipped = _read(SHIPPED / f"{_device_name(device)}.json")
    return shipped | _read(_path(device))


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        warnings.warn(f"the tuning table {path} cannot be read and is ignored: {error}", stacklevel=2)
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        warnings.warn(f"the tuning table {path} is not a table of names and is ignored", stacklevel=2)
        return {}
    return found


def _save(device: torch.device, table: dict[str, str]) -> None:
    """Write the table beside what other processes have found meanwhile; a folder that cannot be written is no error."""
    path = _path(device)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = json.dumps(_read(path) | table, indent=1, sort_keys=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(whole)
        os.replace(file.name, path)
    except OSError as error:
        _warn_once(f"tuning results are not kept beyond this process: {error}; {FOLDER} names another folder")


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=4)


def _path(device: torch.device) -> Path:
    folder = Path(os.environ.get(FOLDER) or Path.home() / ".cache" / "bcos_kernels")
    versions = "-".join(_version(name) for name in ("torch", "triton", "bcos-kernels"))
    return folder / f"{_device_name(device)}-{versions}.json"


def _device_name(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return name.replace(" ", "_").replace("/", "_")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
