"""Before any test: one thread pool, because two on two cores stall one another; Triton's interpreter without a GPU."""

import importlib.util
import os
from unittest.mock import patch

import torch

torch.set_num_threads(min(2, torch.get_num_threads()))

# When it is imported, not later, Triton decides whether what it defines is compiled or interpreted.
if importlib.util.find_spec("triton") is not None and not torch.cuda.is_available():
    with patch.dict(os.environ, TRITON_INTERPRET="1"):
        for op in ("epilogue", "dense", "contribution", "attention_relevance", "norms"):
            importlib.import_module(f"bcos_kernels.ops.{op}.triton_kernels")
        importlib.import_module("bcos_kernels.ops.norms.triton_row_kernels")
