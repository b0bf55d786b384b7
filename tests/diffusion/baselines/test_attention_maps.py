"""Recorded probabilities are those that the network uses, and recording leaves nothing behind."""

from collections.abc import Callable

import pytest
import torch
from references.attention import projections, slow_probabilities
from torch import Tensor

from bcos_diffusion.baselines.attention_maps import AttentionRecord, Call, hear_attention, record_attention
from bcos_diffusion.job import Job
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.mode import stacked
from bcos_kernels.modules.attention import MultiHeadAttention

PROMPTS = ["a cat left of broccolis", "dog on blue background"]


def job(
    pipeline: BcosDiffusionPipeline, steps: int = 2, guidance: float = 2.5, size: tuple[int, int] = (16, 16)
) -> Job:
    return pipeline.job(PROMPTS, [None, None], [0, 1], steps, guidance, size=size)


def attentions(pipeline: BcosDiffusionPipeline) -> dict[str, MultiHeadAttention]:
    return {n: m for n, m in pipeline.model.unet.named_modules() if isinstance(m, MultiHeadAttention)}


def no_hook_is_left(pipeline: BcosDiffusionPipeline) -> bool:
    return not any(m._forward_pre_hooks or m._forward_hooks for m in pipeline.model.unet.modules())


def one_pass(pipeline: BcosDiffusionPipeline, size: tuple[int, int] = (16, 16)) -> Tensor:
    made = job(pipeline, guidance=1.0, size=size)
    return pipeline.model.unet(made.first, torch.tensor([900, 300]), made.text)


@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
def test_probabilities_are_softmax_by_explicit_loops(pipeline: BcosDiffusionPipeline, size: tuple[int, int]) -> None:
    network = pipeline.model.unet
    with torch.no_grad(), projections(network) as seen:
        one_pass(pipeline, size)
    with torch.no_grad(), record_attention(network, pixels=True) as record:
        one_pass(pipeline, size)
    mask = job(pipeline, guidance=1.0).text.mask
    assert list(record.layers) == list(seen) and {a.cross for a in record.layers.values()} == {True, False}
    for name, layer in record.layers.items():
        (call,) = seen[name]
        if layer.probabilities[0, 0, 0].numel() > 800:
            continue  # the loops take too long; the next test sees them all
        for row in range(2):
            key = call["key"][row]
            shown = mask[row] if layer.cross else torch.ones(len(key), dtype=torch.bool)
            slow = slow_probabilities(call["query"][row], key, attentions(pipeline)[name].heads, shown)
            torch.testing.assert_close(layer.probabilities[0, row], slow)


@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
def test_values_weighed_by_them_are_what_the_network_reads(
    pipeline: BcosDiffusionPipeline, size: tuple[int, int]
) -> None:
    network = pipeline.model.unet
    with torch.no_grad(), projections(network) as seen:
        one_pass(pipeline, size)
    with torch.no_grad(), record_attention(network, pixels=True) as record:
        one_pass(pipeline, size)
    for name, layer in record.layers.items():
        (call,) = seen[name]
        value = call["value"].unflatten(2, (attentions(pipeline)[name].heads, -1)).transpose(1, 2)
        torch.testing.assert_close((layer.probabilities[0] @ value).transpose(1, 2).flatten(2), call["read"])
        # Height and width of every level are in the picture's proportion.
        assert layer.grid[0] * layer.grid[1] == call["query"].shape[1]
        assert layer.grid[0] * size[1] == layer.grid[1] * size[0]


def test_they_sum_to_one_over_visible_tokens_and_are_zero_elsewhere(pipeline: BcosDiffusionPipeline) -> None:
    with torch.no_grad(), record_attention(pipeline.model.unet) as record:
        one_pass(pipeline)
    mask = job(pipeline, guidance=1.0).text.mask
    assert record.layers and all(layer.cross for layer in record.layers.values())
    for layer in record.layers.values():
        by_token = layer.probabilities[0].permute(0, 3, 1, 2)  # [N, L, heads, P]
        assert not by_token[~mask].any()
        torch.testing.assert_close(layer.probabilities.sum(-1), torch.ones_like(layer.probabilities[..., 0]))


def test_a_prompt_without_visible_tokens_attends_to_nothing(every_pipeline: dict[str, BcosDiffusionPipeline]) -> None:
    pipeline = every_pipeline["unet"]
    text = pipeline.condition(pipeline.tokenize("cat"), 2.0)  # beside it the empty prompt
    with torch.no_grad(), record_attention(pipeline.model.unet) as record:
        pipeline.model.unet(job(pipeline).first, torch.tensor([5, 5]), text)
    for layer in record.layers.values():
        assert layer.probabilities[0, 0].sum() > 0 and not layer.probabilities[0, 1].any()


def test_pictures_are_the_same_to_the_bit(pipeline: BcosDiffusionPipeline) -> None:
    made = job(pipeline)
    plain = pipeline.draw(made)
    with record_attention(pipeline.model.unet, made.rows, pixels=True, each_step=True):
        recorded = pipeline.draw(made)
    assert torch.equal(plain, recorded) and torch.equal(plain, pipeline.draw(made))
    assert no_hook_is_left(pipeline)


def recorded(pipeline: BcosDiffusionPipeline, made: Job, **how: object) -> AttentionRecord:
    with record_attention(pipeline.model.unet, **{"rows": made.rows, **how}) as record:  # type: ignore[arg-type]
        pipeline.draw(made)
    return record


def test_with_guidance_the_prompts_row_alone_is_read(pipeline: BcosDiffusionPipeline) -> None:
    made = job(pipeline)
    ours, all_rows = recorded(pipeline, made), recorded(pipeline, made, rows=1)
    for name, layer in ours.layers.items():
        assert layer.probabilities.shape[1] == 2
        assert torch.equal(layer.probabilities, all_rows.layers[name].probabilities[:, ::2])
        assert not torch.allclose(layer.probabilities, all_rows.layers[name].probabilities[:, 1::2])


def test_a_run_is_the_sum_of_its_steps(pipeline: BcosDiffusionPipeline) -> None:
    made = job(pipeline, steps=3)
    summed = recorded(pipeline, made, pixels=True)
    apart = recorded(pipeline, made, pixels=True, each_step=True)
    some = recorded(pipeline, made, pixels=True, steps=(0, 2))
    assert summed.steps == apart.steps == [0, 1, 2] and some.steps == [0, 2]
    for name, layer in apart.layers.items():
        assert len(layer.probabilities) == 3 and len(summed.layers[name].probabilities) == 1
        torch.testing.assert_close(summed.layers[name].probabilities[0], layer.probabilities.sum(0))
        torch.testing.assert_close(some.layers[name].probabilities[0], layer.probabilities[[0, 2]].sum(0))


def test_the_first_part_of_a_stacked_batch_is_heard(pipeline: BcosDiffusionPipeline) -> None:
    made, network = job(pipeline, guidance=1.0), pipeline.model.unet
    t, text = torch.tensor([900, 300]), made.text
    with torch.no_grad(), record_attention(network, pixels=True) as plain:
        network(made.first, t, text)
    parts = Conditioning(torch.cat([text.values, torch.randn_like(text.values)]), text.keys, text.mask)
    with torch.no_grad(), stacked(2), record_attention(network, pixels=True) as explained:
        network(torch.cat([made.first, torch.randn_like(made.first)]), t, parts)
    for name, layer in plain.layers.items():
        torch.testing.assert_close(explained.layers[name].probabilities, layer.probabilities)


@pytest.mark.parametrize("where", ["block", "network", "listener"])
def test_hooks_are_removed_after_an_exception(pipeline: BcosDiffusionPipeline, where: str) -> None:
    def refuse(call: Call) -> None:
        raise RuntimeError("enough")

    def broken_size() -> None:
        pipeline.model.unet(torch.zeros(1, 6, 3, 3), torch.tensor([0]), job(pipeline, guidance=1.0).text)

    def stop() -> None:
        raise RuntimeError("enough")

    hear: Callable[[Call], None] = refuse if where == "listener" else lambda call: None
    with pytest.raises((RuntimeError, ValueError)), hear_attention(pipeline.model.unet, hear):
        {"block": stop, "network": broken_size, "listener": lambda: one_pass(pipeline)}[where]()
    assert no_hook_is_left(pipeline)


def test_calls_say_where_they_are(every_pipeline: dict[str, BcosDiffusionPipeline]) -> None:
    pipeline, calls = every_pipeline["unet"], list[Call]()
    with hear_attention(pipeline.model.unet, calls.append):
        one_pass(pipeline)
        one_pass(pipeline, (8, 24))
    assert [(c.layer, c.cross, c.grid) for c in calls[:6]] == [
        ("down.0.0.tokens.attend", True, (8, 8)),
        ("down.1.0.pixels.attend", False, (4, 4)),
        ("down.1.0.tokens.attend", True, (4, 4)),
        ("up.1.0.pixels.attend", False, (4, 4)),
        ("up.1.0.tokens.attend", True, (4, 4)),
        ("up.0.0.tokens.attend", True, (8, 8)),
    ]
    assert [c.step for c in calls] == [0] * 6 + [1] * 6
    assert {c.grid for c in calls[6:]} == {(4, 12), (2, 6)}


def test_a_layer_that_runs_alone_is_not_heard(every_pipeline: dict[str, BcosDiffusionPipeline]) -> None:
    pipeline, calls = every_pipeline["unet"], list[Call]()
    with hear_attention(pipeline.model.unet, calls.append):
        attentions(pipeline)["down.1.0.pixels.attend"](torch.zeros(1, 4, 16).double())
    assert not calls


def test_mistakes_are_named(every_pipeline: dict[str, BcosDiffusionPipeline]) -> None:
    pipeline = every_pipeline["unet"]
    network = pipeline.model.unet
    message = "a batch of 2 rows cannot hold prompts with 3 rows each"
    with pytest.raises(ValueError, match=message), record_attention(network, rows=3):
        one_pass(pipeline)
    message = "a record holds pictures of one number and size"
    with pytest.raises(ValueError, match=message), record_attention(network):
        one_pass(pipeline)
        one_pass(pipeline, (32, 8))
    assert no_hook_is_left(pipeline)


def test_low_precision_is_read_in_fp32(every_pipeline: dict[str, BcosDiffusionPipeline]) -> None:
    torch.manual_seed(0)
    module = MultiHeadAttention(8, 4, heads=2, head_dim=4).bfloat16()
    call = Call("here", 0, True, (2, 2), module, torch.randn(1, 4, 8).bfloat16(), torch.randn(1, 3, 4).bfloat16(), None)
    assert call.probabilities().dtype == torch.float32
