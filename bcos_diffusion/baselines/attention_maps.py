"""What the pixels of a denoiser attend to: softmax(q kᵀ / √d) by layer, head and sampling step, as it runs.

A hook sees what an attention is about to read and computes the probabilities again from its own query and key
projections, so nothing of the network or of its output changes, whatever kernel the network itself uses. Cross- and
self-attention are told apart by what they read: the keys of the prompt, or pixels.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bcos_diffusion.networks.denoiser import Denoiser
from bcos_kernels.modules.attention import MultiHeadAttention


@dataclass(frozen=True)
class Call:
    """One attention of a denoiser, about to run.

    layer: its name in the network; step: which pass of the network this is, from 0; cross: whether it reads tokens;
    grid: height and width of its pixels, ``P = h * w``. x: ``[N, P, D]``, read for queries; key_context:
    ``[N, L, C]``; key_mask: ``[N, L]`` bool, True where a token is visible, or None.
    """

    layer: str
    step: int
    cross: bool
    grid: tuple[int, int]
    module: MultiHeadAttention
    x: Tensor
    key_context: Tensor
    key_mask: Tensor | None

    @torch.no_grad()
    def queries_and_keys(self) -> tuple[Tensor, Tensor]:
        """The module's own projections by head, ``[N, heads, P or L, head_dim]``, in fp32 or more."""
        return self._by_head(self.module.query(self.x)), self._by_head(self.module.key(self.key_context))

    def _by_head(self, x: Tensor) -> Tensor:
        parts = x.unflatten(2, (self.module.heads, self.module.head_dim)).transpose(1, 2)
        return parts.to(torch.promote_types(x.dtype, torch.float32))

    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """``[N, heads, P, L]``: sums to 1 over visible tokens, 0 for hidden ones and where there is none to see."""
        query, key = self.queries_and_keys()
        scores = query @ key.mT * self.module.head_dim**-0.5
        if self.key_mask is None:
            return scores.softmax(-1)
        hidden = ~self.key_mask[:, None, None, :]
        return scores.masked_fill(hidden, -math.inf).softmax(-1).masked_fill(hidden, 0)


@contextmanager
def hear_attention(network: Denoiser, hear: Callable[[Call], None], rows: int = 1) -> Iterator[None]:
    """Call ``hear`` before every attention that runs in the block, in the order they run.

    rows: 2 where every prompt has its counterpart in guidance beside it. The prompt's row alone is heard then, as in
    DAAM. In a stacked batch it is the first part. Raises ValueError for a network without attention or for a batch
    that ``rows`` does not divide.
    """
    layers = {name: m for name, m in network.named_modules() if isinstance(m, MultiHeadAttention)}
    if not layers:
        raise ValueError("the network has no attention")
    now: _Pass | None = None

    forward = inspect.signature(network.forward)

    def begin(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        nonlocal now
        given = forward.bind(*args, **keywords).arguments
        count = len(given["t"])
        if count % rows:
            raise ValueError(f"a batch of {count} rows cannot hold prompts with {rows} rows each")
        now = _Pass(0 if now is None else now.step + 1, count, tuple(given["x_t"].shape[-2:]), given["text"].keys)

    def attend(name: str, module: MultiHeadAttention) -> Callable[..., None]:
        signature = inspect.signature(module.forward)

        def about_to_run(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if now is None:  # a layer that runs alone
                return
            given = signature.bind(*args, **keywords).arguments
            x = given["x"]
            key_context = x if given.get("key_context") is None else given["key_context"]
            cross, mask = key_context is now.keys, given.get("key_mask")
            picked = slice(0, now.count, rows)
            shown = None if mask is None else mask[picked]
            grid = _grid(now.size, x.shape[1])
            hear(Call(name, now.step, cross, grid, module, x[picked], key_context[picked], shown))

        return about_to_run

    with ExitStack() as hooks:
        hooks.enter_context(_removed(network.register_forward_pre_hook(begin, with_kwargs=True)))
        for name, module in layers.items():
            hooks.enter_context(_removed(module.register_forward_pre_hook(attend(name, module), with_kwargs=True)))
        yield


@dataclass(frozen=True)
class _Pass:
    """The pass of the network that runs now: its number, its rows, the size of its pictures and its prompts' keys."""

    step: int
    count: int
    size: tuple[int, int]
    keys: Tensor


@contextmanager
def _removed(hook: torch.utils.hooks.RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        hook.remove()


def _grid(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """Height and width of as many pixels of a picture: every level divides both sides by the same number."""
    height, width = size
    side = math.isqrt(height * width // pixels)
    return height // side, width // side


@dataclass(frozen=True)
class LayerAttention:
    """What one layer attended to.

    cross: whether to tokens, or else to pixels; grid: height and width of the pixels that attend; probabilities:
    ``[steps, N, heads, P, L]``, fp32 or more, where steps is 1 and holds a sum unless every step was asked for.
    """

    cross: bool
    grid: tuple[int, int]
    probabilities: Tensor


@dataclass
class AttentionRecord:
    """What the attentions of a network attended to, by layer in the order they run; step numbers begin at 0."""

    steps: list[int] = field(default_factory=list)
    layers: dict[str, LayerAttention] = field(default_factory=dict)


@contextmanager
def record_attention(
    network: Denoiser,
    rows: int = 1,
    tokens: bool = True,
    pixels: bool = False,
    steps: Collection[int] | None = None,
    each_step: bool = False,
) -> Iterator[AttentionRecord]:
    """Record the attention of every pass of a network in the block.

    tokens, pixels: whether attention to tokens and to pixels is recorded; steps: which passes, all by default.
    Probabilities are summed over passes, so memory does not grow with them, or kept apart with ``each_step``. rows
    and errors: as for :func:`hear_attention`; ValueError also for pictures whose number or size changes.
    """
    record, parts = AttentionRecord(), _Parts(each_step)

    def hear(call: Call) -> None:
        if (steps is not None and call.step not in steps) or not (tokens if call.cross else pixels):
            return
        if call.step not in record.steps:
            record.steps.append(call.step)
        parts.add(call)

    with hear_attention(network, hear, rows):
        try:
            yield record
        finally:
            record.layers.update(parts.layers())


class _Parts:
    """The probabilities of calls so far, by layer."""

    def __init__(self, each_step: bool):
        self.each_step = each_step
        self.kinds: dict[str, tuple[bool, tuple[int, int]]] = {}
        self.found: dict[str, list[Tensor]] = {}

    def add(self, call: Call) -> None:
        found = self.found.setdefault(call.layer, [])
        kind = self.kinds.setdefault(call.layer, (call.cross, call.grid))
        probabilities = call.probabilities()
        if found and (kind != (call.cross, call.grid) or probabilities.shape != found[0].shape):
            raise ValueError(
                f"{call.layer} attended as {list(found[0].shape)} [N, heads, pixels, tokens] on a grid of {kind[1]},"
                f" now as {list(probabilities.shape)} on {call.grid}: a record holds pictures of one number and size"
            )
        if found and not self.each_step:
            found[0] += probabilities
        else:
            found.append(probabilities)

    def layers(self) -> dict[str, LayerAttention]:
        return {name: LayerAttention(*self.kinds[name], torch.stack(parts)) for name, parts in self.found.items()}
