"""Every Triton kernel compiles for the devices we name, within their registers; no device is needed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def test_kernels_compile_without_spills_and_read_wide_words(tmp_path):
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    environment = {**kept, "PYTHONPATH": path, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "references.compile_triton"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {variant["architecture"] for variant in found} == {80, 90, 100}
    assert len({variant["kernel"] for variant in found}) == 14
    for variant in found:
        assert variant["spilled"] == 0, variant
        assert variant["registers"] <= 128, variant  # four blocks of 128 threads fit a multiprocessor
        assert variant["shared"] <= 16384, variant
        if variant["known"].get("steps") == 1:
            continue  # one element a program, or lines that do not follow one another: compiled, not fast
        # What is kept per pixel is fp32 and read at shifted places.
        assert variant["load_bits"] == (32 if variant["kernel"] == "box_norm_kernel" else 128), variant
