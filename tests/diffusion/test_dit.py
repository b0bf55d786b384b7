"""The diffusion transformer: what it refuses, what it computes, and that its prediction is the sum of its inputs'."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers.models.attention import BasicTransformerBlock
from references.paper_models import shaken
from references.tiny import TINY_DIT, WORDS
from references.tiny_run import saved, tiny_config
from torch import Tensor, nn
from torch.nn import functional as F

from bcos_diffusion.diffusion import Guidance, noise_schedule, paired_noise
from bcos_diffusion.explain import explain
from bcos_diffusion.explanation.trace import signal_tokens, trace
from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.networks.dit import DiT, DiTConfig
from bcos_diffusion.networks.dit_blocks import Block
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.text import Tokenizer
from bcos_diffusion.train import train
from bcos_diffusion.training.config import PaperModel, TrainConfig
from bcos_diffusion.training.stages import stages
from bcos_kernels.mode import explanation_mode, stacked
from bcos_kernels.modules.linear import BcosLinear


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Mixed precision is chosen once per process; each test chooses anew."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


TWIN = dataclasses.replace(TINY_DIT, layers="vanilla", time_conditioning="additive")


def network(**changes: Any) -> DiT:
    torch.manual_seed(0)
    return cast(DiT, shaken(DiT(dataclasses.replace(TINY_DIT, **changes)).double().eval()))


def prompt(rows: int = 2) -> Conditioning:
    """Two prompts of five tokens, two and three of which are hidden."""
    values = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(3)).double()
    mask = torch.tensor([[False, True, True, True, False], [False, True, True, False, False]])
    return Conditioning((values * mask[:, :, None])[:rows], values[:rows], mask[:rows])


def start(height: int = 16, width: int = 16) -> Tensor:
    return 0.5 + 0.5 * paired_noise((1, 6, height, width), torch.Generator().manual_seed(0))[0].double()


def test_the_default_is_as_large_as_the_scenes_u_net() -> None:
    with torch.device("meta"):
        counted = sum(p.numel() for p in DiT(DiTConfig()).parameters())
    assert 4e6 < counted < 8e6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 18}, "multiple of 4"),
        ({"width": 15}, "multiples of heads"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"mlp": 0}, "mlp must be at least 1"),
        ({"time_conditioning": "shift"}, "time_conditioning must be one of"),
        ({"layers": "plain"}, "layers must be one of"),
    ],
)
def test_impossible_shapes_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY_DIT, **wrong)


def test_a_picture_that_patches_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="must be multiples of 4 pixels, got 10x16"):
        network()(torch.zeros(1, 6, 16, 10).double(), torch.zeros(1, dtype=torch.long), prompt(1))


def test_blocks_are_what_training_divides_and_the_last_read_the_first_again() -> None:
    made = DiT(dataclasses.replace(TINY_DIT, depth=6))
    names = [name for name, module in made.named_modules() if any(module is stage for stage in stages(made))]
    assert names == ["time", *(f"blocks.{i}" for i in range(6))]
    assert [cast(Block, block).join is not None for block in made.blocks] == [False] * 4 + [True] * 2
    read, outputs = list[Tensor | None](), list[Tensor]()

    def see(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        read.append(args[4])
        outputs.append(output)

    for block in made.blocks:
        block.register_forward_hook(see)
    made.double()(start()[None], torch.tensor([5]), prompt(1))
    assert read[:4] == [None] * 4 and read[4] is outputs[1] and read[5] is outputs[0]


@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
@pytest.mark.parametrize("time_conditioning", ["scale", "additive"])
def test_the_linear_map_is_the_jacobian_with_factors_held(time_conditioning: str, size: tuple[int, int]) -> None:
    """Every row of the explicit Jacobian in float64: pushed tangents, and the sum of all with the prediction."""
    made, text, t = network(time_conditioning=time_conditioning), prompt(1), torch.tensor([700])
    x_t, values = start(*size)[None].requires_grad_(), text.values.clone().requires_grad_()
    with explanation_mode():
        out = made(x_t, t, Conditioning(values, text.keys, text.mask)).flatten()
    places = torch.randperm(len(out), generator=torch.Generator().manual_seed(0))[:60]
    rows = [torch.autograd.grad(out[place], [values, x_t], retain_graph=True) for place in places]
    tokens = torch.stack([(by_value[0] * text.values[0]).sum(1) for by_value, _ in rows])  # [60, 5]
    image = torch.stack([(by_x * x_t.detach()).sum() for _, by_x in rows])
    parts = 7 + made.time_adds
    stack = torch.zeros(parts, 5, 8).double()
    stack[0] = text.values[0]
    for position in range(5):
        stack[1 + position, position] = text.values[0, position]
    states = torch.zeros(parts, 6, *size).double()
    states[0] = states[6] = x_t[0].detach()
    with torch.no_grad(), stacked(parts):
        pushed = made(states, t, Conditioning(stack, text.keys, text.mask)).flatten(1)
    torch.testing.assert_close(pushed[1:6, places].T, tokens, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(pushed[6, places], image, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(pushed[0], out.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(pushed[1:].sum(0), out.detach(), rtol=1e-9, atol=1e-12)
    assert pushed[1].eq(0).all() and pushed[5].eq(0).all() and tokens[:, [0, 4]].eq(0).all()  # hidden tokens
    assert pushed[2:5].abs().amax(1).min() > 1e-3 and (parts == 7 or pushed[7].abs().max() > 1e-3)


@pytest.mark.parametrize("time_conditioning", ["scale", "additive"])
def test_forward_and_backward_are_adjoint(time_conditioning: str) -> None:
    made, text, t = network(time_conditioning=time_conditioning), prompt(), torch.tensor([30, 800])
    draw = torch.Generator().manual_seed(5)
    x_t, values = start().expand(2, -1, -1, -1).clone().requires_grad_(), text.values.clone().requires_grad_()
    g, v, w = (torch.randn(like.shape, generator=draw).double() for like in (x_t, x_t, values))
    with explanation_mode():
        out = made(x_t, t, Conditioning(values, text.keys, text.mask))
    by_x, by_value = torch.autograd.grad((out * g).sum(), [x_t, values])
    blank = [torch.zeros_like(x_t)] * made.time_adds
    silent = [torch.zeros_like(values)] * made.time_adds
    with torch.no_grad(), stacked(2 + made.time_adds):
        pushed = made(
            torch.cat([x_t, v, *blank]), t, Conditioning(torch.cat([values, w, *silent]), text.keys, text.mask)
        )
    torch.testing.assert_close((g * pushed[2:4]).sum(), (by_x * v).sum() + (by_value * w).sum(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("update", ["homogeneous", "standard"])
@pytest.mark.parametrize("time_conditioning", ["scale", "additive"])
def test_a_run_is_the_sum_of_its_parts(time_conditioning: str, update: str) -> None:
    made, text = network(time_conditioning=time_conditioning), prompt()
    result = trace(made, text, signal_tokens(text.mask), start(), noise_schedule().double(), 4, Guidance(2.5), update)
    assert len(result.tokens) == 5 and (result.tokens.flatten(1).abs().amax(1) > 0).all()
    assert (result.image - result.total).norm() / result.image.norm() < 1e-9
    assert result.time.eq(0).all() == (time_conditioning == "scale")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("time_conditioning", ["additive", "scale"])
def test_explanation_mode_does_not_change_a_bit(dtype: torch.dtype, time_conditioning: str) -> None:
    made, text = network(time_conditioning=time_conditioning).to(dtype), prompt()
    text = Conditioning(text.values.to(dtype), text.keys.to(dtype), text.mask)
    x_t, t = start().to(dtype).expand(2, -1, -1, -1), torch.tensor([3, 700])
    plain = made(x_t, t, text)
    with explanation_mode():
        assert torch.equal(plain, made(x_t, t, text))


def test_the_scale_form_has_no_bias_and_maps_zero_to_zero() -> None:
    text = prompt()
    silent = Conditioning(torch.zeros_like(text.values), text.keys, text.mask)
    nothing, t = torch.zeros(2, 6, 16, 16).double(), torch.tensor([5, 900])
    assert not [name for name, _ in network().named_parameters() if "bias" in name]
    assert network()(nothing, t, silent).abs().max() < 1e-12
    assert network(time_conditioning="additive")(nothing, t, silent).abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["bcos", "vanilla"])
@pytest.mark.parametrize("time_conditioning", ["additive", "scale"])
def test_every_weight_is_trained(kind: str, time_conditioning: str) -> None:
    made, text = network(layers=kind, time_conditioning=time_conditioning), prompt()
    made(start().expand(2, -1, -1, -1), torch.tensor([30, 800]), text).pow(2).sum().backward()
    assert not [n for n, p in made.named_parameters() if p.grad is None or not p.grad.any()]


def test_a_word_is_heard_where_its_place_says() -> None:
    """Alone in one block without attention among patches, a word gives value times place, projected out: by loops."""
    made = DiT(dataclasses.replace(TINY_DIT, depth=1)).double()
    block, text = cast(Block, made.blocks[0]), prompt(1)
    one = Conditioning(text.values[:, 1:2], text.keys[:, 1:2], text.mask[:, 1:2])
    said = block.tokens(torch.randn(1, 16, 16).double(), one, (4, 4))[0]
    value, out = (cast(BcosLinear, m).linear.weight for m in (block.tokens.attend.value, block.tokens.attend.out))
    heard = F.normalize(out, dim=1) @ (F.normalize(value, dim=1) @ one.values[0, 0])
    for place in range(16):
        torch.testing.assert_close(said[place], heard * (1 + block.tokens.place[place]))


def test_an_ordinary_block_is_that_of_dit() -> None:
    """Number by number against diffusers, where no word is seen and patches have no position."""
    torch.manual_seed(0)
    ours = cast(Block, shaken(Block(TWIN, joins=False).double()))
    reference = BasicTransformerBlock(
        16, 2, 8, attention_bias=True, activation_fn="gelu-approximate", norm_type="ada_norm_single",
        norm_elementwise_affine=False, norm_eps=1e-6, ff_inner_dim=32,
    ).double()  # fmt: skip
    attend, steered = ours.patches.attend, {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "out"}
    with torch.no_grad():
        for silent in (
            ours.patches.position,
            cast(nn.Linear, ours.tokens.attend.out).bias,
            reference.scale_shift_table,
        ):
            silent.zero_()
        for theirs, name in steered.items():
            layer, own = reference.attn1.get_submodule(theirs), attend.get_submodule(name)
            layer.weight.copy_(own.weight)
            layer.bias.zero_() if own.bias is None else layer.bias.copy_(own.bias)
        for layer, own in (
            (reference.ff.net[0].proj, ours.feed_forward[0]),
            (reference.ff.net[2], ours.feed_forward[2]),
        ):
            layer.load_state_dict(own.state_dict())
        h, time = torch.randn(2, 16, 16).double(), torch.randn(2, 8).double()
        scale_1, gate_1, _, scale_2, gate_2, shift_1, shift_2 = ours.time(time)
        published = torch.cat([shift_1, scale_1, gate_1, shift_2, scale_2, gate_2], dim=1).flatten(1)
        text = prompt()
        unseen = Conditioning(text.values, text.keys, torch.zeros_like(text.mask))
        torch.testing.assert_close(ours(h, time, unseen, (4, 4)), reference(h, timestep=published))


def test_an_ordinary_block_starts_with_shut_branches() -> None:
    block = Block(TWIN, joins=False)
    cast(nn.Linear, block.tokens.attend.out).weight.data.zero_()
    cast(nn.Linear, block.tokens.attend.out).bias.data.zero_()
    h = torch.randn(2, 16, 16)
    text = prompt()
    heard = Conditioning(text.values.float(), text.keys.float(), text.mask)
    assert torch.equal(block(h, torch.randn(2, 8), heard, (4, 4)), h)


def test_the_twin_is_as_large_and_is_not_explained() -> None:
    with torch.device("meta"):
        bcos, twin = DiT(DiTConfig()), DiT(DiTConfig(layers="vanilla"))
    sizes = [sum(p.numel() for p in made.parameters()) for made in (bcos, twin)]
    assert abs(sizes[0] - sizes[1]) < 0.01 * sizes[0] and not any(isinstance(m, BcosLinear) for m in twin.modules())
    text = prompt()
    with pytest.raises(ValueError, match="it draws, but words have no part of an image"):
        trace(network(layers="vanilla"), text, signal_tokens(text.mask), start(), noise_schedule().double(), 2)


@pytest.mark.parametrize("config", [TINY_DIT, TWIN])
def test_a_saved_pipeline_is_the_same_pipeline(config: DiTConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pipeline = BcosDiffusionPipeline(TextToImage(config, Tokenizer(WORDS), text_depth=1))
    pipeline.save_pretrained(tmp_path)
    again = BcosDiffusionPipeline.from_pretrained(tmp_path)
    assert again.model.unet.config == config and isinstance(again.model.unet, DiT)
    assert (again.model.text.value_table is None) == (config.layers == "vanilla")
    assert torch.equal(again.generate(["a cat"], steps=2), pipeline.generate(["a cat"], steps=2))


def dit_config(out: Path, **changes: Any) -> TrainConfig:
    shape = DiTConfig(size=24, patch=4, width=16, depth=3, heads=2, mlp=2, text_dim=8, time_dim=8)
    plain = tiny_config(out, **changes)
    return dataclasses.replace(plain, model=TrainConfig(out).model, unet="dit", dit=shape)


def test_training_goes_on_to_the_same_bits_and_is_explained(tmp_path: Path) -> None:
    """With the effect term, in bfloat16 and with activations computed again."""
    options: dict[str, Any] = {"precision": "bf16", "recompute": True, "batch_size": 8}
    folder = train(dit_config(tmp_path / "whole", **options))

    def cut(step: int, _: dict[str, float]) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(dit_config(tmp_path / "cut", **options), on_step=cut)
    again = train(dit_config(tmp_path / "cut", **options))
    one, other = (saved(path.parent) for path in (folder, again))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    explanation = explain(BcosDiffusionPipeline.from_pretrained(folder), "a cat on blue", steps=2)
    assert explanation.completeness < 1e-4


def test_which_network_is_trained_is_never_in_doubt(tmp_path: Path) -> None:
    chosen = dit_config(tmp_path)
    assert chosen.shape is chosen.dit and chosen.effect == 1.0
    assert dataclasses.replace(chosen, dit=DiTConfig(layers="vanilla"), effect_weight=None).effect == 0
    with pytest.raises(ValueError, match="choose it by unet 'dit'"):
        dataclasses.replace(chosen, unet="scenes")
    with pytest.raises(ValueError, match="with unet 'dit' set dit instead"):
        dataclasses.replace(chosen, model=tiny_config(tmp_path).model)
    with pytest.raises(ValueError, match="bcos-x0 is a U-Net of the paper"):
        dataclasses.replace(chosen, paper=PaperModel("bcos-x0"))
