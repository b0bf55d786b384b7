"""Stand-ins for parts of the ``bcos`` library's vision transformers; imported where a model has some."""

from __future__ import annotations

import torch
from bcos.models.vit import Attention, PosEmbSinCos2d
from torch import Tensor, nn

from bcos_kernels.constants import constant
from bcos_kernels.convert.stand_in import StandIn, hooked, refuse_hooks
from bcos_kernels.mode import primal, slices
from bcos_kernels.modules.attention import attend_by_head


class PatchedAttention(StandIn, Attention):
    """``Attention`` by torch's fused one, which keeps no probabilities for the backward pass."""

    original = Attention

    @classmethod
    def refusal(cls, module: nn.Module) -> str | None:
        softmax = module.attend
        if type(softmax) is not nn.Softmax or softmax.dim != -1 or "forward" in softmax.__dict__:
            return f"its 'attend' is {softmax}, not a softmax over tokens"
        if hooked(softmax):
            return "a hook on its 'attend' must go on being called with the probabilities"
        return None

    def forward(self, x: Tensor) -> Tensor:
        refuse_hooks(self.attend, "attend")
        x = self.norm(x)
        query, key, value = (part.unflatten(2, (self.heads, -1)) for part in self.to_qkv(x).chunk(3, -1))
        query, key = (primal(part).transpose(1, 2) for part in (query, key))  # [N, heads, L, head_dim]
        with self.following_the_library():
            out = attend_by_head(self, query, key, value.unflatten(0, (slices(), len(query))), self.scale)
        return self.to_out(out)


class PatchedPosEmbSinCos2d(StandIn, PosEmbSinCos2d):
    """``PosEmbSinCos2d``, whose share of an output has a name; in a stacked batch the first part alone has it."""

    original = PosEmbSinCos2d

    def forward(self, patches: Tensor) -> Tensor:
        first = primal(patches)
        added: Tensor = constant(self, super().forward(first))  # [L, D]
        if slices() == 1:
            return added
        others = added.new_zeros(len(patches) - len(first), *added.shape)
        return torch.cat([added.expand(len(first), -1, -1), others])


STAND_INS: tuple[type[StandIn], ...] = (PatchedAttention, PatchedPosEmbSinCos2d)
