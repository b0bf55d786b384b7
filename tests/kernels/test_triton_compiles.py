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


def compiled(module, folder):
    """What ptxas says of every kernel, variant and architecture that a module of references compiles."""
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    environment = {**kept, "PYTHONPATH": path, "TRITON_CACHE_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-m", module], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {variant["architecture"] for variant in found} == {80, 90, 100}
    return found


def test_kernels_compile_without_spills_and_read_wide_words(tmp_path):
    found = compiled("references.compile_triton", tmp_path)
    assert len({variant["kernel"] for variant in found}) == 6
    for variant in found:
        assert variant["spilled"] == 0, variant
        assert variant["registers"] <= 128, variant  # four blocks of 128 threads fit a multiprocessor
        assert variant["shared"] <= 16384, variant
        # What is kept per pixel is fp32 and read at shifted places.
        assert variant["load_bits"] == (32 if variant["kernel"] == "box_norm_kernel" else 128), variant


def test_kernels_of_relevance_compile_without_spills(tmp_path):
    found = compiled("references.compile_relevance", tmp_path)
    assert len({variant["kernel"] for variant in found}) == 4
    for variant in found:
        assert variant["spilled"] == 0, variant
        if variant["kernel"] == "contribution_kernel":
            assert variant["registers"] <= 128 and variant["shared"] <= 16384, variant
            assert variant["load_bits"] == 128, variant
        else:  # products of matrices: two blocks of 128 threads fit a multiprocessor
            assert variant["registers"] <= 255 and variant["shared"] <= 81920, variant
