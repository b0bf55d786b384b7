"""The compiled extensions: loads them, or says why there is none."""

from __future__ import annotations

import functools
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

# Before the extension: both use libgomp.so.1, and torch's copy, loaded first, then serves both with one
# pool of threads.
import torch  # noqa: F401

_BUILD = Path(__file__).with_name("_build.json")


@functools.cache
def build_info() -> dict[str, Any]:
    """What setup.py built: for ``cpu`` and ``cuda`` a dict with ``built`` and ``compiler, flags`` or ``why``.

    Empty where the package is used from a source folder that was never built.
    """
    try:
        return json.loads(_BUILD.read_text())
    except (OSError, ValueError):
        return {}


@functools.cache
def _import(name: str) -> tuple[ModuleType | None, str]:
    if name not in ("cpu", "cuda"):
        raise ValueError(f'the extensions are "cpu" and "cuda", got {name!r}')
    try:
        return importlib.import_module(f"bcos_kernels._{name}"), ""
    except ImportError as error:
        built = build_info().get(name)
        if built is None:
            return None, f"extension bcos_kernels._{name} was never built here (python setup.py build_ext --inplace)"
        if not built["built"]:
            return None, f"extension bcos_kernels._{name} was not built: {built['why']}"
        return None, f"extension bcos_kernels._{name} was built but does not load: {error}"


def load(name: str = "cpu") -> ModuleType | None:
    """Return the extension ``"cpu"`` or ``"cuda"``, or None (see :func:`why_missing`)."""
    return _import(name)[0]


def why_missing(name: str = "cpu") -> str:
    """Why :func:`load` returned None, in one sentence; empty where it did not."""
    return _import(name)[1]
