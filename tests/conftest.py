"""Before any test: threads that do not stall one another on two cores; Triton's interpreter without a GPU."""

import importlib.util
import os
from unittest.mock import patch

import torch

WORKER = "PYTEST_XDIST_WORKER" in os.environ
if WORKER:
    os.environ["OMP_NUM_THREADS"] = "1"  # of what a test starts
torch.set_num_threads(1 if WORKER else min(2, torch.get_num_threads()))

# When it is imported, not later, Triton decides whether what it defines is compiled or interpreted.
if importlib.util.find_spec("triton") is not None and not torch.cuda.is_available():
    with patch.dict(os.environ, TRITON_INTERPRET="1"):
        for op in ("epilogue", "dense", "contribution", "attention_relevance", "norms"):
            importlib.import_module(f"bcos_kernels.ops.{op}.triton_kernels")
        importlib.import_module("bcos_kernels.ops.norms.triton_row_kernels")
