"""Bias-free normalisation with its closed-form gradients, backward and forward.

The backward pass keeps x and, per group, its mean and inverse deviation. Held (explanation mode), the deviation is a
constant and the mean, which is linear, is not (mathematics §3). Gradients of gradients and functorch transforms run
the reference, which autograd differentiates.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from bcos_kernels import dispatch
from bcos_kernels.mode import is_explaining, primal, slices
from bcos_kernels.ops.epilogue.layout import accumulator
from bcos_kernels.ops.norms import reference
from bcos_kernels.ops.norms.views import Over, as_image, from_image
from bcos_kernels.ops.wanted import wanted


class Norm(NamedTuple):
    """What is averaged and what becomes of it, as in ``reference.py``; groups is 1 unless over groups."""

    over: Over
    groups: int
    eps: float
    centred: bool
    about_mean: bool

    @property
    def per_pixel(self) -> bool:
        """Whether statistics are over the channels of each pixel of the image."""
        return self.over in ("position", "last")

    def groups_of(self, image: Tensor) -> int:
        """Groups of channels of an image; a batch norm has one a channel."""
        return image.shape[1] if self.over == "batch" else self.groups


def normalise(x: Tensor, weight: Tensor | None, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``out`` like x, and ``mean`` and ``rstd`` of the primal, which carry no gradient.

    x: floating, of the shape that ``norm.over`` names; weight: ``[C]``, of any floating dtype. Under explanation mode
    rstd is a constant; in a stacked batch it is that of the first part, and each part has a mean of its own.
    """
    _check(x)
    first = primal(x)
    if dispatch.traces():
        out, mean, rstd = compose(first, weight, norm, is_explaining())
        mean, rstd = mean.detach(), rstd.detach()
    elif _is_plain(first, weight):
        out, mean, rstd = _run(first, weight, norm)
    else:
        out, mean, rstd = NormOp.apply(first, weight, norm, is_explaining())  # type: ignore[no-untyped-call]
    if slices() > 1:
        out = torch.cat([out, push(x[len(first) :], weight, norm, rstd, slices() - 1)])
    return out, mean, rstd


def affine_map(x: Tensor, weight: Tensor | None, mean: Tensor | None, power: Tensor, eps: float) -> Tensor:
    """``weight * (x - mean) / sqrt(power + eps)`` by channel, of constants ``[C]``: a batch norm in evaluation.

    x: ``[N, C, *]``, floating. In a stacked batch the mean, which is a bias, belongs to the first part alone.
    """
    _check(x)
    first, rstd = primal(x), (power.to(accumulator(x)) + eps).rsqrt()
    mean = None if mean is None else mean.to(rstd.dtype)
    if dispatch.traces():
        out = compose_affine(first, weight, mean, rstd)
    elif _is_plain(first, weight, mean):
        out = _run_affine(first, weight, mean, rstd)
    else:
        out = AffineOp.apply(first, weight, mean, rstd)  # type: ignore[no-untyped-call]
    if slices() == 1:
        return out  # type: ignore[no-any-return]
    norm = Norm("batch", 1, 0.0, centred=False, about_mean=False)
    return torch.cat([out, push(x[len(first) :], weight, norm, rstd[None], slices() - 1)])


class NormOp(torch.autograd.Function):
    """``out, mean, rstd`` of x and weight; the statistics are not differentiable."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, norm: Norm, held: bool
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        out, mean, rstd = _run(x, weight, norm)
        ctx.norm, ctx.held = norm, held
        ctx.save_for_backward(x, weight, mean, rstd)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(x, weight, mean, rstd)
        ctx.mark_non_differentiable(mean, rstd)
        return out, mean, rstd

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        norm: Norm = ctx.norm
        if torch.is_grad_enabled():
            needed = ctx.needs_input_grad[:2]
            return *_again(lambda x, w: compose(x, w, norm, ctx.held)[0], (x, weight), needed, grad), None, None
        needed = wanted(ctx)
        backend = dispatch.norms(grad, x)
        dx, dw = backend.backward(
            as_image(grad, norm.over), as_image(x, norm.over), _wide(weight, x), mean if norm.about_mean else None,
            rstd, norm.centred, norm.about_mean, ctx.held, *needed,
        )  # fmt: skip
        return (
            from_image(dx, x, norm.over) if needed[0] else None,
            dw.to(weight.dtype) if needed[1] else None,
            None,
            None,
        )

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor | None, weight_t: Tensor | None, *unused: Any) -> tuple[Tensor, None, None]:
        x, weight, mean, rstd = ctx.saved_tensors
        norm: Norm = ctx.norm
        image, parts = as_image(x, norm.over), []
        if x_t is not None and ctx.held:
            parts.append(push(x_t, weight, norm, rstd, 1))
        elif x_t is not None:
            about = mean if norm.about_mean else None
            moved = reference.jvp(as_image(x_t, norm.over), image, _wide(weight, x), about, rstd, norm.centred)
            parts.append(from_image(moved, x, norm.over))
        if weight_t is not None:
            moved = reference.apply(image, _wide(weight_t, x), mean if norm.centred else None, rstd)
            parts.append(from_image(moved, x, norm.over))
        return _sum(parts, x), None, None


class AffineOp(torch.autograd.Function):
    """``weight * (x - mean) * rstd`` by channel; rstd is not differentiable."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, mean, rstd)
        if forward_ad._current_level >= 0:
            ctx.save_for_forward(x, weight, mean, rstd)
        return _run_affine(x, weight, mean, rstd)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            needed = ctx.needs_input_grad[:3]
            return *_again(lambda x, w, m: compose_affine(x, w, m, rstd), (x, weight, mean), needed, grad), None
        needed = *wanted(ctx), ctx.needs_input_grad[2]
        backend, wide, upstream = dispatch.norms(grad, x), _wide(weight, x), as_image(grad, "batch")
        dx = dw = dm = None
        if needed[0]:
            dx = from_image(backend.apply(upstream, wide, None, rstd[None]), x, "batch")
        if needed[1]:
            image, centred, about = as_image(x, "batch"), mean is not None, None if mean is None else mean[None]
            _, dw = backend.backward(upstream, image, wide, about, rstd[None], centred, centred, True, False, True)
            dw = dw.to(weight.dtype)
        if needed[2]:
            dm = -rstd * reference.widen(upstream).sum((0, 2, 3)) * (1 if wide is None else wide)
        return dx, dw, dm, None

    @staticmethod
    def jvp(
        ctx: Any, x_t: Tensor | None, weight_t: Tensor | None, mean_t: Tensor | None, _: Any
    ) -> Tensor:  # fmt: skip
        x, weight, mean, rstd = ctx.saved_tensors
        parts = []
        if x_t is not None:
            parts.append(_run_affine(x_t, weight, None, rstd))
        if weight_t is not None:
            parts.append(_run_affine(x, weight_t, mean, rstd))
        if mean_t is not None:
            parts.append(_run_affine(torch.zeros_like(x), weight, mean_t, rstd))
        return _sum(parts, x)


def compose(x: Tensor, weight: Tensor | None, norm: Norm, held: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The norm by operations that torch differentiates."""
    image = as_image(x, norm.over)
    mean, rstd = reference.statistics(image, norm.groups_of(image), norm.eps, norm.about_mean, norm.per_pixel)
    out = reference.apply(
        image, _wide(weight, x), mean if norm.centred else None, rstd.detach() if held else rstd
    )  # fmt: skip
    return from_image(out, x, norm.over), mean, rstd


def compose_affine(x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor) -> Tensor:
    """The affine map by operations that torch differentiates."""
    about = None if mean is None else mean[None]
    return from_image(reference.apply(as_image(x, "batch"), _wide(weight, x), about, rstd[None]), x, "batch")


def push(v: Tensor, weight: Tensor | None, norm: Norm, rstd: Tensor, parts: int) -> Tensor:
    """The linear map that the norm is at the primal, whose rstd this is, on parts ``[parts * N, ...]``."""
    image, wide = as_image(v, norm.over, parts), _wide(weight, v)
    graph = torch.is_grad_enabled() and (v.requires_grad or (wide is not None and wide.requires_grad))
    through = graph or dispatch.traces()
    backend = reference if through else _backend(v, wide)
    mean = None
    if norm.centred:
        mean, _ = backend.statistics(image, norm.groups_of(image), 1.0, True, norm.per_pixel)
    every = rstd.repeat(len(image) // max(1, len(rstd)), *[1] * (rstd.ndim - 1))
    return from_image(backend.apply(image, wide, mean, every), v, norm.over)


def _run(x: Tensor, weight: Tensor | None, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    """``out, mean, rstd`` by the backend that runs for x."""
    image, wide = as_image(x, norm.over), _wide(weight, x)
    out, mean, rstd = _backend(x, wide).forward(
        image, wide, norm.groups_of(image), norm.eps, norm.centred, norm.about_mean, norm.per_pixel
    )
    return from_image(out, x, norm.over).data, mean, rstd  # .data: an output that is a view is read-only


def _run_affine(x: Tensor, weight: Tensor | None, mean: Tensor | None, rstd: Tensor) -> Tensor:
    wide, about = _wide(weight, x), None if mean is None else mean[None]
    return from_image(_backend(x, wide).apply(as_image(x, "batch"), wide, about, rstd[None]), x, "batch").data


def _check(x: Tensor) -> None:
    if not x.is_floating_point():
        raise ValueError(f"x must be a real floating tensor, got {x.dtype}")


def _is_plain(*tensors: Tensor | None) -> bool:
    """Whether nobody differentiates what is computed of these: an autograd function would cost more than a norm."""
    if forward_ad._current_level >= 0:
        return False
    return not torch.is_grad_enabled() or not any(t is not None and t.requires_grad for t in tensors)


def _backend(x: Tensor, wide: Tensor | None) -> ModuleType:
    return dispatch.norms(x) if wide is None else dispatch.norms(x, wide)


def _wide(weight: Tensor | None, x: Tensor) -> Tensor | None:
    """The weight in the accumulation type."""
    return None if weight is None else weight.to(accumulator(x))


def _sum(parts: list[Tensor], like: Tensor) -> Tensor:
    if not parts:
        return torch.zeros_like(like)
    return parts[0] if len(parts) == 1 else parts[0] + parts[1] if len(parts) == 2 else torch.stack(parts).sum(0)


def _again(
    function: Any, inputs: tuple[Tensor | None, ...], needed: tuple[bool, ...], grad: Tensor
) -> list[Tensor | None]:
    """The gradients of a function, computed by torch so that they can be differentiated again."""
    with torch.enable_grad():
        # Views: where one input was computed from another, no gradient may take that way a second time.
        views = [None if t is None else t.view_as(t) for t in inputs]
        out = function(*views)
        wanted = [t for t, asked in zip(views, needed, strict=True) if asked and t is not None]
        found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    return [next(found) if asked else None for asked in needed]
