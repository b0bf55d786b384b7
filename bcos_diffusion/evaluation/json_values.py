"""Results as strict JSON: what it has no number for, spelt out; and what need not be kept to the last bit, rounded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def for_json(values: Any) -> Any:
    """The same values with numbers that JSON lacks spelt out: "infinite", and null for what is undefined."""
    if isinstance(values, dict):
        return {key: for_json(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [for_json(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return None if math.isnan(values) else "infinite"
    return values


def rounded(values: Any) -> Any:
    """Arrays and numbers as lists and numbers of six significant digits, NaN as null: what a record keeps."""
    if isinstance(values, dict):
        return {str(key): rounded(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [rounded(value) for value in values]
    if isinstance(values, np.ndarray | np.generic):
        return rounded(values.tolist())
    if isinstance(values, float):
        return None if math.isnan(values) else float(f"{values:.6g}")
    return values
