"""Backends of the sparse sums; Triton's interpreter where there is no GPU."""

import importlib.util
import os
from unittest.mock import patch

import pytest
import torch

from bcos_kernels import dispatch

# When it is imported, not later, Triton decides whether what it defines is compiled or interpreted.
if importlib.util.find_spec("triton") is not None and not torch.cuda.is_available():
    with patch.dict(os.environ, TRITON_INTERPRET="1"):
        importlib.import_module("bcos_diffusion.features.sae.sparse.triton_kernels")


@pytest.fixture(params=["bags", "triton"])
def device(request, monkeypatch):
    """The device that the sums run on, by one of their backends, which is forced."""
    if request.param == "bags":
        monkeypatch.setattr(dispatch, "wanted", "reference")
        return "cpu"
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    monkeypatch.setattr(dispatch, "wanted", "triton")
    if torch.cuda.is_available():
        return "cuda"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    return "cpu"
