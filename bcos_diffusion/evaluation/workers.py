"""The shards of an evaluation spread over processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from bcos_diffusion.evaluation.plan import records
from bcos_diffusion.evaluation.setup import Setup
from bcos_diffusion.evaluation.shards import Shard, ShardFolder
from bcos_diffusion.workers import spread


def run_all(
    setup: Setup, folder: ShardFolder, shards: Sequence[Shard], workers: int, advance: Callable[[Shard], object]
) -> None:
    """Write every shard; ``advance`` is called in this process after each.

    workers: as :func:`~bcos_diffusion.workers.spread` has it. Raises what a shard raises; shards that are done by then
    stay.
    """
    count = max(1, min(workers, len(shards)))
    spread(_write, (setup, folder, count), shards, workers, advance)


def _write(state: tuple[Setup, ShardFolder, int], shard: Shard) -> Shard:
    setup, folder, workers = state
    folder.write(shard, partial(records, setup), workers)
    return shard
