"""What there is to do: the parts of the protocol, each a record a scene, cut into shards."""

from __future__ import annotations

from collections.abc import Callable

from bcos_diffusion.evaluation import full_run, regime_a, regime_b
from bcos_diffusion.evaluation.setup import Record, Setup
from bcos_diffusion.evaluation.shards import Shard, cut

Make = Callable[[Setup, Shard], list[Record]]


def each(record: Callable[[Setup, str, int], Record]) -> Make:
    """A part whose scenes know nothing of each other."""
    return lambda setup, shard: [record(setup, shard.split, number) for number in range(shard.first, shard.end)]


_MAKE: dict[str, Make] = {
    "regime_a": each(regime_a.record),
    "regime_b": each(regime_b.record),
    "full_run": each(full_run.record),
}


def plan(setup: Setup) -> list[Shard]:
    """The shards of the setup's parts in the order of work: validation first, then the first scenes of every part, so
    that a run that is stopped early has some of everything. Without a segmenter nothing can be said of pictures that
    are drawn freely."""
    options = setup.options
    counts = {"regime_a": (options.validation, options.scenes)}
    if setup.segmenter is not None:
        counts["regime_b"] = (options.validation_runs, options.test_runs)
    if can_be_explained(setup):
        counts["full_run"] = (0, options.test_runs)
    counts = {name: count for name, count in counts.items() if name in setup.parts}
    validation = [shard for name, (count, _) in counts.items() for shard in cut(name, "validation", count)]
    test = [shard for name, (_, count) in counts.items() for shard in cut(name, "test", count)]
    return validation + sorted(test, key=lambda shard: shard.first)


def can_be_explained(setup: Setup) -> bool:
    """Whether the images of the model are the sum of what its words gave."""
    try:
        setup.contender.pipeline.model.unet.check_explainable()
    except ValueError:
        return False
    return True


def records(setup: Setup, shard: Shard) -> list[Record]:
    """Make the records of a shard."""
    return _MAKE[shard.part](setup, shard)
