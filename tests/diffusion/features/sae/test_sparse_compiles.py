"""The Triton kernels of sparse sums compile for the devices we name, within their registers; no device is needed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
EVERY = [90, pytest.param(80, marks=pytest.mark.slow), pytest.param(100, marks=pytest.mark.slow)]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("architecture", EVERY)
def test_kernels_compile_without_spills_and_read_wide_words(architecture, tmp_path):
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    environment = {**kept, "PYTHONPATH": path, "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "references.compile_sparse", str(architecture)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {variant["kernel"] for variant in found} == {"bags_kernel", "products_kernel"} and len(found) == 8
    for variant in found:
        assert variant["spilled"] == 0 and variant["shared"] <= 16384, variant
        assert variant["registers"] <= 128, variant  # four blocks of 128 threads fit a multiprocessor
        assert variant["load_bits"] == 128, variant
