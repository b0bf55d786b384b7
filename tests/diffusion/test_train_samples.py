"""What sample i of a run is, and who computes it: positions, draws, mirrored scenes, rounds."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references.tiny_run import tiny_config

from bcos_diffusion.objective import Portion
from bcos_diffusion.scenes import vocabulary
from bcos_diffusion.text import Tokenizer
from bcos_diffusion.training.batches import effect_positions, piece, portions, prepare, rounds
from bcos_diffusion.training.draws import draw, sample_generator
from bcos_diffusion.training.source import SceneSource, flip_caption

ROWS = ("images", "t", "noise")


def test_a_sample_draws_the_same_in_any_company() -> None:
    together = draw(7, range(20, 26), length=5, size=4)
    for row, position in enumerate(range(20, 26)):
        alone = draw(7, [position], length=5, size=4)
        for name, value in vars(alone).items():
            assert torch.equal(getattr(together, name)[row], value[0]), name
    other_seed, neighbour = draw(8, [20], 5, 4), draw(7, [21], 5, 4)
    for other in (other_seed, neighbour):
        assert not torch.equal(other.noise[0], together.noise[0]) and not torch.equal(other.t[0], together.t[0])


def test_draws_of_neighbours_are_independent() -> None:
    """Generators keyed by consecutive numbers: means, spreads and correlations as for one long stream."""
    n = 20_000
    draws = draw(0, range(n), length=1, size=1)
    uniform = torch.cat([draws.t, draws.caption[:, None], draws.words, draws.effect], dim=1)  # [n, 5]
    assert uniform.min() >= 0 and uniform.max() < 1
    assert uniform.mean(0).sub(0.5).abs().max() < 4 * (1 / 12 / n) ** 0.5
    noise = draws.noise.flatten(1)
    assert noise.mean(0).abs().max() < 4 / n**0.5 and noise.var(0).sub(1).abs().max() < 4 * (2 / n) ** 0.5
    columns = torch.cat([uniform, noise], dim=1).double()
    lagged = torch.cat([columns[:-1], columns[1:]], dim=1)  # each sample beside the next
    correlation = torch.corrcoef(lagged.T) - torch.eye(lagged.shape[1])
    assert correlation.abs().max() < 5 / n**0.5


def test_generators_do_not_repeat_within_a_run() -> None:
    firsts = {int(torch.randint(2**62, (1,), generator=sample_generator(3, i))) for i in range(3000)}
    assert len(firsts) == 3000


def test_half_of_the_scenes_are_mirrored_with_their_captions() -> None:
    positions = range(128, 192)
    plain, captions = SceneSource(24, seed=0).batch(positions)
    flipped, new_captions = SceneSource(24, seed=0, flip=True).batch(positions)
    mirrored = swapped = 0
    for before, after, old, new in zip(plain, flipped, captions, new_captions, strict=True):
        if (before == after).all():
            assert old == new
            continue
        mirrored += 1
        assert (before == after[:, ::-1]).all()
        words = [{"left": "right", "right": "left"}.get(word, word) for word in old.split()]
        assert new.split() == words
        swapped += old != new
    assert 16 < mirrored < 48 and swapped > 2
    (one,), (caption,) = SceneSource(24, seed=0, flip=True).batch([150])
    assert (one == flipped[22]).all() and caption == new_captions[22]


def test_scenes_begin_again_after_the_last() -> None:
    data = SceneSource(24, seed=0)
    (again,), captions = data.batch([len(data) + 3])
    (first,), expected = data.batch([3])
    assert (again == first).all() and captions == expected


def test_flip_caption_swaps_whole_words_only() -> None:
    assert flip_caption("a cat to the left of a dog , right") == "a cat to the right of a dog , left"
    assert flip_caption("a cat above a dog") == "a cat above a dog"


@given(st.integers(0, 300), st.integers(0, 200), st.integers(1, 9))
def test_pieces_are_contiguous_whole_and_even(start: int, length: int, of: int) -> None:
    pieces = [piece(range(start, start + length), number, of) for number in range(of)]
    assert list(itertools.chain(*pieces)) == list(range(start, start + length))
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


@given(st.integers(0, 500), st.integers(1, 70), st.integers(1, 9), st.none() | st.integers(1, 12))
@settings(max_examples=200)
def test_processes_share_a_step_and_stay_together(start: int, length: int, processes: int, most: int | None) -> None:
    step = range(start, start + length)
    plans = [rounds(step, process, processes, most) for process in range(processes)]
    assert sorted(p for plan in plans for round_ in plan for p in round_.own) == list(step)
    assert len({len(plan) for plan in plans}) == 1
    for together in zip(*plans, strict=True):
        assert len({round_.parts for round_ in together}) == 1
        assert [round_.own for round_ in together] == list(together[0].parts)
        assert len({round_.last for round_ in together}) == 1
        assert most is None or max(len(round_.own) for round_ in together) <= most
    assert [round_.last for round_ in plans[0]] == [False] * (len(plans[0]) - 1) + [True]


def kept(parts: Iterable[Portion], name: str) -> torch.Tensor:
    return torch.cat([getattr(part, name)[part.weights > 0] for part in parts])


@pytest.mark.parametrize(("processes", "most"), [(1, None), (2, None), (3, 1), (4, 2)])
def test_a_batch_is_the_same_however_it_is_divided(processes: int, most: int | None, tmp_path: Path) -> None:
    """Nine samples, with the effect term reading positions 8 and 16."""
    config, data, tokenizer = tiny_config(tmp_path), SceneSource(24, seed=1), Tokenizer(vocabulary())
    step = range(8, 17)
    (alone,) = (prepare(r, data, tokenizer, config) for r in rounds(step, 0, 1, None))
    plans = [rounds(step, process, processes, most) for process in range(processes)]
    parts = [prepare(round_, data, tokenizer, config) for plan in plans for round_ in plan]
    for name in ROWS:
        assert torch.equal(kept(parts, name), getattr(alone, name)), name
    assert sum(float(part.weights.sum()) for part in parts) == pytest.approx(1)
    masks = torch.cat([part.text.mask[part.weights > 0] for part in parts])
    assert torch.equal(masks, alone.text.mask)
    read = [(part, i) for part in parts for i, weight in enumerate(part.effect_weights) if weight > 0]
    assert len(read) == len(alone.effect_rows) == len(effect_positions(step)) == 2
    for (part, i), expected in zip(read, range(2), strict=True):
        assert torch.equal(part.effect_scores[i], alone.effect_scores[expected])
        assert torch.equal(part.noise[part.effect_rows[i]], alone.noise[alone.effect_rows[expected]])
    assert [float(part.effect_weights[i]) for part, i in read] == pytest.approx([8 / 9, 8 / 9])
    for together in zip(*([prepare(r, data, tokenizer, config) for r in plan] for plan in plans), strict=True):
        assert len({bool(part.effect_rows) for part in together}) == 1  # all call the model equally often


def test_batches_come_in_order_and_end_with_the_run(tmp_path: Path) -> None:
    config, data = tiny_config(tmp_path, batch_size=6, workers=3), SceneSource(24, seed=1)
    found = list(portions(6, data, Tokenizer(vocabulary()), config))
    assert [(round_.step.start, round_.step.stop) for round_, _ in found] == [(6, 12), (12, 18), (18, 24)]
    expected = torch.from_numpy(data.batch(range(6, 24))[0]).permute(0, 3, 1, 2)
    assert torch.equal(torch.cat([portion.images for _, portion in found]), expected)


def test_a_source_that_fails_says_so(tmp_path: Path) -> None:
    class Broken(SceneSource):
        def batch(self, positions: Iterable[int]):  # type: ignore[no-untyped-def]
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(portions(0, Broken(24, 1), Tokenizer(vocabulary()), tiny_config(tmp_path)))
