"""Stages of a denoiser: which they are, and that computing their activations again saves memory and changes nothing."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from references.clip import save_clip
from references.paper_models import TINY as PAPER_TINY
from references.paper_models import shaken
from references.tiny_run import TINY, tiny_config
from torch import Tensor, nn

from bcos_diffusion.model import TextToImage
from bcos_diffusion.objective import Objective, Portion
from bcos_diffusion.scenes import vocabulary
from bcos_diffusion.text import Tokenizer
from bcos_diffusion.text.frozen import FrozenText
from bcos_diffusion.training.batches import prepare, rounds
from bcos_diffusion.training.recomputation import recompute
from bcos_diffusion.training.source import SceneSource
from bcos_diffusion.training.stages import stages


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


class Holder(nn.Module):
    """A container as diffusers builds them: it has blocks, and no forward."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Pair(), nn.Linear(2, 2)])


class Shades:
    """Grey images of 16 pixels whose captions are longer than CLIP reads."""

    size = 16

    def __len__(self) -> int:
        return 100

    def batch(self, positions: Iterable[int]) -> tuple[NDArray[np.uint8], list[str]]:
        positions = list(positions)
        return np.stack([np.full((16, 16, 3), 20 * p, np.uint8) for p in positions]), ["a cat " * 80] * len(positions)


def test_stages_are_the_outermost_modules_that_compute() -> None:
    net = nn.Module()
    net.first = nn.Linear(2, 2)
    net.nested = nn.ModuleList([nn.ModuleList([Pair()]), nn.ModuleDict({"x": Pair()})])
    net.holder = Holder()
    net.last = nn.Sequential(Pair(), nn.Linear(2, 2))
    names = {module: name for name, module in net.named_modules()}
    assert [names[stage] for stage in stages(net)] == ["nested.0.0", "nested.1.x", "holder.blocks.0", "last"]


def test_stages_of_the_u_net_hold_nearly_all_of_its_weights() -> None:
    unet = TextToImage(TINY, Tokenizer(["cat"])).unet
    names = [name for name, module in unet.named_modules() if any(module is stage for stage in stages(unet))]
    assert names == ["time", "down.0.0", "down.1.0", "up.0.0", "up.1.0"]


def loss_of(time_conditioning: str, again: bool, tmp_path: Path) -> tuple[TextToImage, dict[str, Tensor], int]:
    """Model, losses and bytes kept for backward of eight samples, one read by the effect term."""
    torch.manual_seed(0)
    model = TextToImage(replace(TINY, time_conditioning=time_conditioning), Tokenizer(vocabulary()))
    for name, parameter in model.named_parameters():
        if "time.project" in name:
            nn.init.normal_(parameter, std=0.1)
    if again:
        recompute(model.unet)
    (round_,) = rounds(range(8), 0, 1, None)
    portion: Portion = prepare(round_, SceneSource(24, seed=0), model.tokenizer, tiny_config(tmp_path, batch_size=8))
    assert portion.effect_rows
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = Objective(model, effect_weight=2.0)(portion)
    return model, losses, sum(kept.values())


@pytest.mark.parametrize("time_conditioning", ["scale", "additive"])
def test_gradients_are_the_same_bits_and_memory_is_less(time_conditioning: str, tmp_path: Path) -> None:
    """The effect term runs under explanation of a stacked batch, which backward must find again."""
    plain, losses, whole = loss_of(time_conditioning, False, tmp_path)
    spared, again, kept = loss_of(time_conditioning, True, tmp_path)
    for name, loss in losses.items():
        assert torch.equal(again[name], loss), name
    losses["total"].backward()
    again["total"].backward()
    for (name, a), b in zip(plain.named_parameters(), spared.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None and torch.equal(a.grad, b.grad), name
    assert any(parameter.grad.abs().sum() > 0 for parameter in spared.parameters() if parameter.grad is not None)
    assert kept < 0.5 * whole


@pytest.mark.parametrize("name", ["bcos-x0", "bcos-clip-eps", "vanilla"])
def test_the_papers_models_recompute_to_the_same_bits(name: str, tmp_path: Path) -> None:
    """Long captions, one of them hidden whole; the effect term where there is one."""
    clip, gradients = save_clip(tmp_path / "clip"), []
    for again in (False, True):
        torch.manual_seed(0)
        kind = {"bcos-clip-eps": {"predicts": "noise"}, "vanilla": {"layers": "vanilla"}}.get(name, {})
        text = FrozenText.load(clip, "encoder", "masked" if name == "bcos-x0" else "visible")
        model = TextToImage(replace(PAPER_TINY, **kind), text)  # type: ignore[arg-type]
        shaken(model)
        if again:
            recompute(model.unet)
        weight = 0.0 if name == "vanilla" else 1.0
        config = tiny_config(tmp_path, batch_size=8, effect_weight=weight, caption_dropout=0.5)
        (round_,) = rounds(range(8), 0, 1, None)
        portion = prepare(round_, Shades(), model.tokenizer, config)
        assert 0 < int(portion.text.mask.any(1).sum()) < 8
        losses = Objective(model, weight)(portion)
        assert ("effect" in losses) == (name != "vanilla")
        losses["total"].backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for n, gradient in gradients[0].items():
        assert gradient is not None and torch.equal(gradient, gradients[1][n]), n


def test_a_recomputed_model_keeps_its_names(tmp_path: Path) -> None:
    plain, spared = (loss_of("scale", again, tmp_path)[0] for again in (False, True))
    assert list(plain.state_dict()) == list(spared.state_dict())
