"""The samples of a run by position: who computes which, in how many rounds, and all that was drawn for them.

Step and batch are ranges of positions. A process takes a contiguous piece of each batch and prepares that piece
alone; pieces of pieces are the rounds of gradient accumulation. Every process takes as many rounds as the others and
calls the model as often in each, because sharded weights are gathered by all of them together.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from bcos_diffusion.diffusion import T
from bcos_diffusion.objective import Portion, draw_timesteps, drop_words
from bcos_diffusion.text import Tokenizer
from bcos_diffusion.text.clip_tokenizer import ClipTokenizer
from bcos_diffusion.training.config import TrainConfig
from bcos_diffusion.training.draws import draw
from bcos_diffusion.training.source import TrainingSource

EFFECT_SHARE = 0.125
"""Share of the samples that the effect term reads: every eighth."""


def piece(positions: range, number: int, of: int) -> range:
    """The part ``number`` of ``of`` contiguous parts whose lengths differ by one at most."""
    n = len(positions)
    return positions[n * number // of : n * (number + 1) // of]


def effect_positions(positions: range) -> list[int]:
    """The positions among these that the effect term reads."""
    every = round(1 / EFFECT_SHARE)
    return [p for p in positions if p % every == 0]


@dataclass(frozen=True)
class Round:
    """What one process does at once: ``own`` of the positions of a step, among the ``parts`` of all."""

    step: range
    own: range
    parts: tuple[range, ...]
    last: bool
    """Whether gradients are exchanged and the weights move after this round."""


def rounds(step: range, process: int, processes: int, most: int | None) -> list[Round]:
    """The rounds of ``process`` in a step over the positions ``step``, of ``most`` samples at most each."""
    largest = math.ceil(len(step) / processes)
    count = math.ceil(largest / (most or largest))
    shares = [piece(step, rank, processes) for rank in range(processes)]
    found = []
    for number in range(count):
        parts = tuple(piece(share, number, count) for share in shares)
        found.append(Round(step, parts[process], parts, last=number == count - 1))
    return found


def prepare(round_: Round, data: TrainingSource, tokenizer: Tokenizer | ClipTokenizer, config: TrainConfig) -> Portion:
    """Images, captions and draws of a round; a process without a sample of its own takes one that weighs nothing."""
    positions = list(round_.own) or [round_.step[0]]
    images, captions = data.batch(positions)
    text = tokenizer.encode(captions, cut=True)
    draws = draw(config.seed, positions, text.ids.shape[1], data.size)
    weight = 1 / len(round_.step)
    marked = effect_positions(round_.own)
    rows = [positions.index(p) for p in marked]
    if not rows and any(effect_positions(part) for part in round_.parts):
        rows = [0]
    return Portion(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        text=drop_words(text, config.caption_dropout, config.word_dropout, draws.caption, draws.words),
        t=draw_timesteps(draws.t, T),
        noise=draws.noise,
        weights=torch.full((len(positions),), weight if round_.own else 0.0),
        effect_rows=rows if config.effect else [],
        effect_scores=draws.effect[rows],
        effect_weights=torch.full((len(rows),), weight / EFFECT_SHARE if marked else 0.0),
    )


def portions(
    first: int,
    data: TrainingSource,
    tokenizer: Tokenizer | ClipTokenizer,
    config: TrainConfig,
    process: int = 0,
    processes: int = 1,
) -> Iterator[tuple[Round, Portion]]:
    """What ``process`` computes from position ``first`` to the end of the run, prepared ahead by threads."""

    def planned() -> Iterator[Round]:
        end = config.steps * config.batch_size
        for start in range(first, end, config.batch_size):
            yield from rounds(range(start, min(start + config.batch_size, end)), process, processes, config.micro_batch)

    coming: deque[tuple[Round, Future[Portion]]] = deque()
    with ThreadPoolExecutor(config.workers) as pool:
        for round_ in planned():
            coming.append((round_, pool.submit(prepare, round_, data, tokenizer, config)))
            if len(coming) > 2 * config.workers:
                ready, portion = coming.popleft()
                yield ready, portion.result()
        for ready, portion in coming:
            yield ready, portion.result()
