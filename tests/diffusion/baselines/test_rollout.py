"""Rollout equals the products of dense matrices, written out path by path for each network."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bcos_diffusion.baselines.attention_maps import record_attention
from bcos_diffusion.baselines.rollout import RolledOut, Rollout, roll_out
from bcos_diffusion.job import Job
from bcos_diffusion.pipeline import BcosDiffusionPipeline

PROMPTS = ["a cat left of broccolis", "dog on blue background"]


def job(pipeline: BcosDiffusionPipeline, size: tuple[int, int] = (16, 16), guidance: float = 2.5) -> Job:
    return pipeline.job(PROMPTS, [None, None], [0, 1], 2, guidance, size=size)


def pooling(fine: tuple[int, int]) -> Tensor:
    """The mean of 2 x 2 pixels as a matrix ``[P / 4, P]``."""
    (h, w), matrix = fine, torch.zeros(fine[0] * fine[1] // 4, fine[0] * fine[1]).double()
    for y in range(h):
        for x in range(w):
            matrix[(y // 2) * (w // 2) + x // 2, y * w + x] = 0.25
    return matrix


def doubling(fine: tuple[int, int]) -> Tensor:
    """Linear upscaling to ``fine`` as a matrix ``[P, P / 4]``: weights 3/4 and 1/4 along each axis, edges repeated."""
    (h, w), matrix = fine, torch.zeros(fine[0] * fine[1], fine[0] * fine[1] // 4).double()
    for y in range(h):
        for x in range(w):
            for row, down in ((y // 2, 0.75), (y // 2 + (1 if y % 2 else -1), 0.25)):
                for column, across in ((x // 2, 0.75), (x // 2 + (1 if x % 2 else -1), 0.25)):
                    row, column = min(max(row, 0), h // 2 - 1), min(max(column, 0), w // 2 - 1)
                    matrix[y * w + x, row * (w // 2) + column] += down * across
    return matrix


class Layers:
    """What each layer of one pass attended to, mean over heads, as matrices for one picture."""

    def __init__(self, pipeline: BcosDiffusionPipeline, size: tuple[int, int], row: int):
        made = job(pipeline, size, guidance=1.0)
        with torch.no_grad(), record_attention(pipeline.model.unet, pixels=True) as record:
            pipeline.model.unet(made.first, torch.tensor([999, 999]), made.text)
        self.means = {name: a.probabilities[0, row].mean(0) for name, a in record.layers.items()}

    def words(self, name: str) -> Tensor:
        return self.means[name]

    def carry(self, name: str) -> Tensor:
        """½ I + ½ Ā."""
        a = self.means[name]
        return 0.5 * torch.eye(len(a)).double() + 0.5 * a


def unet_by_hand(at: Layers, grid: tuple[int, int]) -> Tensor:
    down, up = pooling(grid), doubling(grid)
    first = at.words("down.0.0.tokens.attend")
    second = at.words("down.1.0.tokens.attend")
    third = at.words("up.1.0.tokens.attend")
    last = at.words("up.0.0.tokens.attend")
    carry_2, carry_3 = at.carry("down.1.0.pixels.attend"), at.carry("up.1.0.pixels.attend")
    return (
        (first + up @ carry_3 @ carry_2 @ down @ first) / 2
        + up @ carry_3 @ second / 2
        + up @ third / 2
        + last
    )  # fmt: skip


def dit_by_hand(at: Layers, grid: tuple[int, int]) -> Tensor:
    held = at.words("blocks.0.tokens.attend")
    for block in ("blocks.1", "blocks.2"):
        held = at.carry(f"{block}.patches.attend") @ held + at.words(f"{block}.tokens.attend")
    return held


def paper_by_hand(at: Layers, grid: tuple[int, int]) -> Tensor:
    half = (grid[0] // 2, grid[1] // 2)

    def stage(name: str, held: Tensor) -> Tensor:
        return at.carry(f"{name}.transformer.pixels") @ held + at.words(f"{name}.transformer.tokens")

    first = at.words("down.0.0.transformer.tokens")  # nothing was heard before it
    second = stage("down.1.0", pooling(grid) @ first)
    middle = stage("middle.0", pooling(half) @ second)
    joined = (doubling(half) @ middle + second) / 2
    joined = stage("up.1.1", stage("up.1.0", joined))
    joined = (doubling(grid) @ joined + first) / 2
    return stage("up.2.1", stage("up.2.0", joined))


@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
def test_one_pass_equals_its_paths_written_out(pipeline: BcosDiffusionPipeline, size: tuple[int, int]) -> None:
    made, network = job(pipeline, size, guidance=1.0), pipeline.model.unet
    with torch.no_grad(), roll_out(network) as rolled:
        network(made.first, torch.tensor([999, 999]), made.text)
    patch = network.config.patch
    grid = (size[0] // patch, size[1] // patch)
    by_hand = {"tiny": unet_by_hand, "dit": dit_by_hand}.get(pipeline.name, paper_by_hand)
    for row in range(2):
        slow = by_hand(Layers(pipeline, size, row), grid).mT.unflatten(1, grid)
        slow = F.interpolate(slow[None], size, mode="bilinear")[0]
        torch.testing.assert_close(rolled.maps(size)[row], slow)


def test_every_pixel_holds_as_much_of_all_words_together(every_pipeline: dict[str, BcosDiffusionPipeline]) -> None:
    pipeline = every_pipeline["unet"]
    made = job(pipeline)
    with roll_out(pipeline.model.unet, made.rows) as rolled:
        pipeline.draw(made)
    # Three layers on the way that came from below and one that the skip brought, halved, and the last; two steps.
    total = rolled.maps((16, 16)).sum(1)
    torch.testing.assert_close(total, torch.full_like(total, 2 * ((3 + 1) / 2 + 1)))


def test_a_run_adds_up_its_steps(pipeline: BcosDiffusionPipeline) -> None:
    made, states = job(pipeline), list[tuple[Tensor, Tensor]]()
    network = pipeline.model.unet
    hook = network.register_forward_pre_hook(lambda _, args: states.append((args[0][::2].clone(), args[1][::2])))
    found = Rollout().draw(pipeline, made)
    hook.remove()
    assert len(states) == 2
    for row, words in enumerate(found):
        batch = made.prompts(row)[:1]
        apart = [Rollout().denoise(pipeline, batch, x_t[row : row + 1], t[row : row + 1]) for x_t, t in states]
        torch.testing.assert_close(words.maps, sum(a.maps for a in apart))
        torch.testing.assert_close(words.scores, words.maps.mean((-2, -1)))


def test_a_picture_in_a_batch_is_as_alone(pipeline: BcosDiffusionPipeline) -> None:
    together = Rollout().draw(pipeline, job(pipeline))
    alone = Rollout().draw(pipeline, pipeline.job(PROMPTS[1:], [None], [1], 2, 2.5))
    torch.testing.assert_close(together[1].maps, alone[0].maps)


def test_nothing_heard_is_an_error(every_pipeline: dict[str, BcosDiffusionPipeline]) -> None:
    with pytest.raises(ValueError, match="nothing to roll out"):
        RolledOut().maps((16, 16))
