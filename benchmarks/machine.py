"""What every result says about where it was measured, and the table that every script prints."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from typing import Any

import torch

from bcos_diffusion.evaluation.provenance import cpu_name


def describe(device: str | None = None) -> dict[str, Any]:
    """Device ("cpu" or "cuda"; None: the fastest there is), versions and commit, as JSON-ready values."""
    cuda = torch.cuda.is_available() if device is None else device == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "bcos_kernels": version("bcos-kernels"),
        "commit": _commit(),
    }


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print rows of one shape as an aligned table."""
    heads = list(rows[0])
    cells = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    widths = [max(len(head), *(len(row[i]) for row in cells)) for i, head in enumerate(heads)]
    for row in [heads, *cells]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
