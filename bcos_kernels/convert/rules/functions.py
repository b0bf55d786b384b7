"""Activations, norms and attention that a module's own forward calls as functions, held while it is explained.

A module whose class computes its output itself keeps that forward. Under explanation mode the functions of torch that
it calls are replaced, for the length of the call, by those of :mod:`bcos_kernels.convert.rules.held`: values stay what
they are, and factors are constants.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bcos_kernels.convert.rules import held
from bcos_kernels.mode import is_explaining
from bcos_kernels.ops.norms.op import Norm

_GATES: set[Callable[..., Any]] = {
    F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6, F.leaky_relu, F.leaky_relu_, F.prelu,
    torch.prelu, F.elu, F.elu_, F.celu, F.selu, F.gelu, F.silu, F.mish, F.hardswish, F.hardtanh, F.tanh, torch.tanh,
    Tensor.tanh, F.softsign,
}  # fmt: skip
_FACTORS: set[Callable[..., Any]] = {
    F.softmax, torch.softmax, Tensor.softmax, F.sigmoid, torch.sigmoid, Tensor.sigmoid, F.hardsigmoid,
    torch.rsqrt, Tensor.rsqrt, torch.sqrt, Tensor.sqrt, torch.norm, Tensor.norm, torch.linalg.norm,
    torch.linalg.vector_norm,
}  # fmt: skip


class _Kinds(threading.local):
    def __init__(self) -> None:
        self.stack: list[str] = []


_kinds = _Kinds()


class _Held(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        rule, options = _rule(func, _kinds.stack[-1]), dict(kwargs or {})
        if rule is None:
            return func(*args, **options)
        if not args and "input" in options:
            args = (options.pop("input"),)
        return rule(func, *args, **options)


@contextmanager
def _holding(kind: str) -> Iterator[None]:
    """Replace functions in the block: activations as "gates" or "factors", or nothing at all ("none")."""
    _kinds.stack.append(kind)
    try:
        if len(_kinds.stack) > 1:
            yield
        else:
            with _Held():
                yield
    finally:
        _kinds.stack.pop()


@contextmanager
def paused() -> Iterator[None]:
    """Leave torch's functions alone in the block."""
    if not _kinds.stack:
        yield
        return
    with _holding("none"):
        yield


class Rule:
    """A rule around the forward of the class that the module had, which it runs on torch's functions as they are."""

    def original_forward(self, x: Tensor) -> Tensor:
        """``super().forward`` of the rule, which is that of the original class."""
        with paused():
            return super().forward(x)  # type: ignore[misc,no-any-return]


class OwnForward:
    """Keeps the forward of its class, and holds the functions of torch that it calls while it is explained.

    ``activations`` says what activations in it are: "gates" of their own input, or "factors" of something else.
    """

    activations: str

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        original = getattr(cls, "original", None)
        if original is None:
            return

        @functools.wraps(original.forward)  # the signature, which libraries look at
        def forward(self: Any, *args: Any, **options: Any) -> Any:
            if not is_explaining():
                return original.forward(self, *args, **options)
            with _holding(self.activations):
                return original.forward(self, *args, **options)

        cls.forward = forward  # type: ignore[attr-defined]


def _rule(func: Any, kind: str) -> Callable[..., Any] | None:
    if kind == "none":
        return None
    if func in _FACTORS or (func in _GATES and kind == "factors"):
        return _as_factor
    if func in _GATES:
        return _as_gate
    return _OTHERS.get(func)


def _as_gate(func: Any, x: Tensor, *args: Any, **options: Any) -> Tensor:
    found = held.gate(lambda t: func(t, *args, **options), x)
    return x.copy_(found) if options.get("inplace") or func.__name__.endswith("_") else found


def _as_factor(func: Any, x: Tensor, *args: Any, **options: Any) -> Tensor:
    return held.factor(lambda t: func(t, *args, **options), x)


def _attention(_: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Tensor:
    return held.attention(query, key, value, *args, **options)


def _layer_norm(
    func: Any, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    def function(x: Tensor) -> Tensor:
        return func(x, normalized_shape, weight, bias, eps)  # type: ignore[no-any-return]

    return held.last_norm(function, input, len(normalized_shape), weight, bias, eps, centred=True)


def _rms_norm(
    func: Any, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    def function(x: Tensor) -> Tensor:
        return func(x, normalized_shape, weight, eps)  # type: ignore[no-any-return]

    return held.last_norm(function, input, len(normalized_shape), weight, None, eps, centred=False)


def _group_norm(
    func: Any, input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    rule = Norm("group", num_groups, eps, centred=True, about_mean=True)
    return held.norm(lambda x: func(x, num_groups, weight, bias, eps), input, weight, bias, rule)


def _normalize(func: Any, input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Tensor:
    return held.unit(lambda x: func(x, p, dim, eps), input, p, dim, eps)


def _glu(func: Any, input: Tensor, dim: int = -1) -> Tensor:
    return held.glu(lambda x: func(x, dim), input, dim)


_OTHERS: dict[Any, Callable[..., Any]] = {
    F.scaled_dot_product_attention: _attention,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.normalize: _normalize,
    F.glu: _glu,
}
