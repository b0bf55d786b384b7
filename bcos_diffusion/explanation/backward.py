"""Relevance of all tokens from one backward pass over a whole sampling run (Eq. 8, mathematics §3).

The pass goes from the image to where sampling started. Of the run it keeps x_t alone; the graph of a step is made
again when the pass comes to it, so memory holds one step however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bcos_diffusion.diffusion import Guidance, ddim_path, ddim_step
from bcos_diffusion.explanation.trace import predict_x_0
from bcos_diffusion.networks.denoiser import Conditioning, Denoiser
from bcos_kernels.mode import explanation_mode
from bcos_kernels.modules.attention import MultiHeadAttention
from bcos_kernels.relevance import RelevanceRecord, record_relevance


@dataclass(frozen=True)
class Pulled:
    """What a cotangent, pulled back from N images, found. All relevance is ⟨part, Wᵀ g⟩, in float64.

    image: ``[N, 6, H, W]``; tokens: ``[steps, N, rows, L]``, what each token gave at each step; first: ``[N]``, what
    the run started from gave; heads: by attention to tokens, ``[steps, N, rows, heads, L]``, whose sum over attentions
    and heads is ``tokens``; empty unless asked for.
    """

    image: Tensor
    tokens: Tensor
    first: Tensor
    heads: dict[str, Tensor]


def pull_back(
    unet: Denoiser,
    text: Conditioning,
    first: Tensor,
    alpha_bar: Tensor,
    steps: int,
    guidance: Guidance,
    update: str = "homogeneous",
    cotangent: Tensor | None = None,
    by_head: bool = False,
) -> Pulled:
    """Sample N images and pull a cotangent back to every token and to ``first`` ``[N, 6, H, W]``.

    text: ``N * rows`` prompts, as for :func:`~bcos_diffusion.explanation.trace.trace_batch`; cotangent: of the shape
    of ``first``, all ones by default, whose relevance is mass (Eq. 8); a mask asks for a region. by_head: record
    every attention.
    """
    unet.check_explainable()
    path = ddim_path(alpha_bar, steps)

    def step(number: int, x_t: Tensor, values: Tensor) -> Tensor:
        t, here, end = path[number]
        read = Conditioning(values, text.keys, text.mask)
        x_hat = predict_x_0(unet, read, x_t[None], t, here, guidance, update)[0]
        return ddim_step(x_t, x_hat, here, end, update)

    states = [first]
    with torch.no_grad():
        for number in range(steps):
            states.append(step(number, states[-1], text.values))
    g = torch.ones_like(first) if cotangent is None else cotangent.to(first)
    names = attentions_to_tokens(unet, text, first, path[0][0]) if by_head else {}
    shape = (steps, len(first), len(text.keys) // len(first))
    tokens = torch.zeros(*shape, text.values.shape[1], dtype=torch.float64, device=first.device)
    heads: dict[str, list[Tensor]] = {name: [] for name in names}
    for number in reversed(range(steps)):
        x_t, values = states[number].detach().requires_grad_(), text.values.detach().requires_grad_()
        with torch.enable_grad(), _recording(names) as record:
            g, pulled = torch.autograd.grad(step(number, x_t, values), [x_t, values], g)
        tokens[number] = (pulled.double() * values.detach().double()).sum(-1).unflatten(0, shape[1:])
        for name, found in heads.items():
            assert record is not None
            found.insert(0, torch.stack(record.heads[name]).double().sum(0).unflatten(0, shape[1:]))
    mass = (g.double() * first.double()).flatten(1).sum(1)
    return Pulled(states[-1], tokens, mass, {name: torch.stack(found) for name, found in heads.items()})


@contextmanager
def _recording(names: dict[str, MultiHeadAttention]) -> Iterator[RelevanceRecord | None]:
    """Explanation mode, with a record of these attentions where there are any."""
    if names:
        with record_relevance(names) as record:
            yield record
    else:
        with explanation_mode():
            yield None


@torch.no_grad()
def attentions_to_tokens(unet: Denoiser, text: Conditioning, x_t: Tensor, t: int) -> dict[str, MultiHeadAttention]:
    """The attentions of a network that read the values of tokens, by name in the order they run: seen in one pass.

    Raises ValueError where there is none, because then no token is read by an attention that can be explained.
    """
    found: dict[str, MultiHeadAttention] = {}
    names = {module: name for name, module in unet.named_modules() if isinstance(module, MultiHeadAttention)}

    def look(module: nn.Module, args: tuple[object, ...], keywords: dict[str, object]) -> None:
        if any(given is text.values for given in (*args, *keywords.values())):
            assert isinstance(module, MultiHeadAttention)
            found[names[module]] = module

    hooks = [module.register_forward_pre_hook(look, with_kwargs=True) for module in names]
    try:
        rows = len(text.keys) // len(x_t)
        unet(x_t.repeat_interleave(rows, 0), torch.full((len(text.keys),), t, device=x_t.device), text)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError("the network has no attention that reads the values of tokens")
    return found
