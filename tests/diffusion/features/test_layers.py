"""Names of layers: the same in all networks, in the order in which they run, and helpful when wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from references.diffusers_models import tiny_dit, tiny_unet
from references.tiny import tiny_pipeline
from torch import nn

from bcos_diffusion.features.layers import aliases, find, layers
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.networks.paper_unet import PaperUNet, PaperUNetConfig
from bcos_diffusion.networks.unet import UNet, UNetConfig

TEXT = Conditioning(torch.randn(1, 4, 8), torch.randn(1, 4, 8), torch.ones(1, 4, dtype=torch.bool))


def scenes_unet() -> UNet:
    config = UNetConfig(24, 2, (8, 16, 16), 2, (False,) * 3, (True,) * 3, heads=2, text_dim=8, time_dim=8)
    return UNet(config)


def paper_unet() -> PaperUNet:
    config = PaperUNetConfig(16, channels=(8, 8, 16), attention=(True,) * 3, blocks=2, head_dim=4, groups=4, text_dim=8)
    return PaperUNet(config)


def run_ours(network: Any) -> None:
    network(torch.rand(1, 6, network.config.size, network.config.size), torch.tensor([5]), TEXT)


def run_unet(network: Any) -> None:
    network(torch.rand(1, 3, 16, 16), torch.tensor([5]), torch.rand(1, 4, 12))


def run_dit(network: Any) -> None:
    network(torch.rand(1, 3, 16, 16), torch.tensor([5]), torch.tensor([2]))


@pytest.mark.parametrize(
    "make, run, names",
    [
        (scenes_unet, run_ours, "down_ft0 down_ft1 down_ft2 bottleneck up_ft0 up_ft1 up_ft2"),
        (paper_unet, run_ours, "down_ft0 down_ft1 down_ft2 bottleneck up_ft0 up_ft1 up_ft2"),
        (tiny_unet, run_unet, "down_ft0 down_ft1 bottleneck up_ft0 up_ft1"),
        (tiny_dit, run_dit, "block_0 block_1 block_2 block_3"),
    ],
)
@torch.no_grad()
def test_aliases_run_in_their_order(make: Callable[[], Any], run: Callable[[Any], None], names: str) -> None:
    network = make().eval()
    ran: list[str] = []
    modules = aliases(network)
    for name in names.split():
        modules[name].register_forward_hook(lambda *_, name=name: ran.append(name))
    run(network)
    assert ran == names.split()
    assert set(modules) == {*names.split(), "bottleneck"}


@pytest.mark.parametrize("make, sides", [(scenes_unet, [3, 3, 6, 12]), (paper_unet, [4, 4, 8, 16])])
@torch.no_grad()
def test_aliases_of_a_unet_count_from_the_coarsest_level(make: Callable[[], Any], sides: list[int]) -> None:
    network, found = make(), {}
    modules = aliases(network)
    for name in ("bottleneck", "up_ft0", "up_ft1", "up_ft2"):
        modules[name].register_forward_hook(lambda _, __, out, name=name: found.update({name: out.shape[-1]}))
    run_ours(network)
    assert list(found.values()) == sides
    # The last stage of a level is meant, of which there are several.
    last = network.up[0] if isinstance(network, UNet) else network.up[-1]
    assert modules["up_ft2"] is last[-1] and modules["up_ft2"] is not last[0]


def test_the_bottleneck_of_a_transformer_is_its_middle_block() -> None:
    network = nn.Module()
    network.blocks = nn.ModuleList(nn.Identity() for _ in range(5))
    there = layers(network)
    assert there["bottleneck"] is there["block_2"] is network.blocks[2]
    assert aliases(tiny_dit())["bottleneck"] is not None


def test_all_modules_have_their_dotted_names() -> None:
    network = tiny_pipeline().model.unet
    there = layers(network)
    for name, module in network.named_modules():
        if name and not isinstance(module, nn.ModuleList):
            assert there[name] is module
    assert "down" not in there and "down.0.0" in there and "" not in there


def test_unknown_layers_list_those_that_there_are() -> None:
    there = layers(tiny_pipeline().model.unet)
    with pytest.raises(ValueError, match=r"no layer 'upft1' \(did you mean up_ft1") as error:
        find(there, ["up_ft0", "upft1"])
    assert all(name in str(error.value) for name in there)
    with pytest.raises(ValueError, match="at least one layer"):
        find(there, [])
    assert list(find(there, ["up_ft1", "bottleneck"])) == ["up_ft1", "bottleneck"]
