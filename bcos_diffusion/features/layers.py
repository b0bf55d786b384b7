"""The layers of a network by name: what Revelio calls them, and the dotted names of all modules.

Aliases, in the order in which they run: ``down_ft0`` … (finest first), ``bottleneck``, ``up_ft0`` … (coarsest first)
of a U-Net; ``block_0`` … and ``bottleneck``, the middle block, of a transformer. As in DIFT and Revelio the number of
an ``up_ft`` counts levels on the way up.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from bcos_diffusion.networks.paper_unet import PaperUNet
from bcos_diffusion.networks.unet import UNet

if TYPE_CHECKING:
    from bcos_diffusion.features.subject import Subject

MOST_BLOCKS = 5
"""Of a transformer, where no layers are named."""


def layers(network: nn.Module) -> dict[str, nn.Module]:
    """Every layer of a network that has an output of its own: aliases in running order, then dotted module names."""
    lists = nn.ModuleList | nn.ModuleDict
    named = {name: module for name, module in network.named_modules() if name and not isinstance(module, lists)}
    return aliases(network) | named


def aliases(network: nn.Module) -> dict[str, nn.Module]:
    """The layers with names that mean the same in all networks of a kind; none of a kind that is not known.

    Known are our U-Nets, any transformer with a list of ``blocks``, and diffusers' U-Nets and ``transformer_blocks``.
    """
    for kind in (UNet, PaperUNet):
        if isinstance(network, kind):
            return _of_our_unet(network)
    if isinstance(getattr(network, "up_blocks", None), nn.ModuleList):
        return _of_diffusers_unet(network)
    for name in ("blocks", "transformer_blocks"):
        if isinstance(blocks := getattr(network, name, None), nn.ModuleList):
            return {f"block_{i}": block for i, block in enumerate(blocks)} | {"bottleneck": blocks[len(blocks) // 2]}
    return {}


def find(there: Mapping[str, nn.Module], names: Iterable[str]) -> dict[str, nn.Module]:
    """The layers of these names, in the order asked for. Raises ValueError, listing what there is, for another name."""
    found = {}
    for name in names:
        if name not in there:
            raise ValueError(f"there is no layer {name!r}{_hint(name, there)}")
        found[name] = there[name]
    if not found:
        raise ValueError(f"name at least one layer of {_listed(there)}")
    return found


def own_layers(subject: Subject, asked: Sequence[str]) -> tuple[str, ...]:
    """The layers to read of a subject: those asked for, or its own.

    Its own are the bottleneck and all levels on the way up of a U-Net, as in the paper, and five blocks spread over a
    transformer. Of those asked for, it may lack some that another model beside it has. Raises ValueError for a
    subject that has none of them, and where no layer has a known name.
    """
    if asked:
        there = [name for name in asked if name in subject.layers]
        return tuple(find(subject.layers, there or asked))
    ups = [name for name in subject.layers if name.startswith("up_ft")]
    if ups:
        return ("bottleneck", *ups)
    blocks = [name for name in subject.layers if name.startswith("block_")]
    if not blocks:
        raise ValueError(f"{subject.name} is of a kind whose layers have no known names; name them")
    last, number = len(blocks) - 1, min(MOST_BLOCKS, len(blocks))
    return tuple(dict.fromkeys(blocks[round(i * last / max(1, number - 1))] for i in range(number)))


def _of_our_unet(network: UNet | PaperUNet) -> dict[str, nn.Module]:
    down = [cast(nn.ModuleList, stages)[-1] for stages in network.down]
    up = [cast(nn.ModuleList, stages)[-1] for stages in network.up]
    if isinstance(network, UNet):  # its list is by level, finest first, and it has no middle
        up.reverse()
        middle = down[-1]
    else:
        middle = network.middle[-1]
    return _around(down, middle, up)


def _of_diffusers_unet(network: Any) -> dict[str, nn.Module]:
    down, up = list(network.down_blocks), list(network.up_blocks)
    return _around(down, network.mid_block if network.mid_block is not None else down[-1], up)


def _around(down: list[nn.Module], middle: nn.Module, up: list[nn.Module]) -> dict[str, nn.Module]:
    return (
        {f"down_ft{i}": module for i, module in enumerate(down)}
        | {"bottleneck": middle}
        | {f"up_ft{i}": module for i, module in enumerate(up)}
    )


def _hint(name: str, there: Mapping[str, nn.Module]) -> str:
    close = difflib.get_close_matches(name, there, n=3)
    meant = f" (did you mean {' or '.join(close)}?)" if close else ""
    return f"{meant}; there are {_listed(there)}"


def _listed(there: Mapping[str, nn.Module]) -> str:
    return ", ".join(there)
