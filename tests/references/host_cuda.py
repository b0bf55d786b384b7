"""The CUDA C++ kernels compiled for the host, from the very same sources (see tests/kernels/host_cuda)."""

import functools
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import pytest
import torch

from bcos_kernels import native
from bcos_kernels.ops.epilogue import cuda

ROOT = Path(__file__).parents[2]
COMPILER = os.environ.get("CXX", "g++")
FLAGS = "-std=c++17 -fPIC -fvisibility=hidden -Wall -Wno-unknown-pragmas -Werror -x c++".split()
# A read that does not start at a multiple of its size ends the process, as it would on a device.
CHECKED = "-O1 -fsanitize=alignment -fsanitize-undefined-trap-on-error".split()
_folders = []  # which last as long as what is loaded from them


def use(monkeypatch):
    """Let the CUDA backend run: on the device, or else on the host. Skips the test where it cannot."""
    if not torch.cuda.is_available():
        pretend(monkeypatch)
    elif native.load("cuda") is None:
        pytest.skip(native.why_missing("cuda"))


def pretend(monkeypatch):
    """Let the CUDA backend run on CPU tensors. Skips the test where no compiler is."""
    if shutil.which(COMPILER) is None or importlib.util.find_spec("pybind11") is None:
        pytest.skip(f"needs {COMPILER} and pybind11")
    monkeypatch.setattr(cuda, "_kernels", load())
    monkeypatch.setattr(cuda, "_queue", lambda x: (0, 0))
    monkeypatch.setattr(cuda, "_refusal_of", lambda device: "")
    monkeypatch.setattr(cuda, "DEVICE", "cpu")


@functools.cache
def load():
    """The extension, compiled once."""
    import pybind11

    folder = tempfile.TemporaryDirectory()
    _folders.append(folder)
    places = [ROOT / "tests/kernels/host_cuda", ROOT / "csrc", pybind11.get_include(), sysconfig.get_path("include")]
    target = Path(folder.name) / "_cuda.so"
    sources = [*sorted((ROOT / "csrc/cuda").glob("*.cu")), ROOT / "csrc/cuda/bindings.cpp"]
    objects = [f"{folder.name}/{source.name}.o" for source in sources]
    for source, output in zip(sources, objects, strict=True):
        flags = [*FLAGS, *(CHECKED if source.suffix == ".cu" else []), *(f"-I{place}" for place in places)]
        _run([COMPILER, *flags, "-c", str(source), "-o", output])
    _run([COMPILER, "-shared", *objects, "-o", str(target)])
    spec = importlib.util.spec_from_file_location("_cuda", target)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
