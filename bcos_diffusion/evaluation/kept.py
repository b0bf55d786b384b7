"""Parts of an evaluation that are measured at once, kept on disk so that the same command need not do them again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bcos_diffusion.evaluation.json_values import for_json
from bcos_kernels.files import read_json, write_json


def kept(path: Path, settings: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What ``path`` holds if it was measured with equal ``settings``; else what ``work`` returns, written there.

    Returns ``settings``, ``seconds`` of work and ``found``. Raises ValueError for a file that is not JSON.
    """
    wanted = for_json(dict(settings))
    if path.is_file():
        values = read_json(path)
        if isinstance(values, dict) and values.get("settings") == wanted:
            return values
    begin = time.perf_counter()
    found = for_json(dict(work()))
    values = {"settings": wanted, "seconds": time.perf_counter() - begin, "found": found}
    write_json(path, values)
    return values
