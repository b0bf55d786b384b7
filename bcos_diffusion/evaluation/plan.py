"""What there is to do: the parts of the protocol, each a record a scene, cut into shards."""

from __future__ import annotations

from collections.abc import Callable

from bcos_diffusion.evaluation import full_run, regime_a, regime_b
from bcos_diffusion.evaluation.setup import Record, Setup
from bcos_diffusion.evaluation.shards import Shard, cut

PARTS: dict[str, Callable[[Setup, str, int], Record]] = {
    "regime_a": regime_a.record,
    "regime_b": regime_b.record,
    "full_run": full_run.record,
}


def plan(setup: Setup) -> list[Shard]:
    """All shards in the order of work: validation first, then the first scenes of every part, so that a run that is
    stopped early has some of everything. Without a segmenter nothing can be said of pictures that are drawn freely."""
    options = setup.options
    names = ["regime_a"] + ([] if setup.segmenter is None else ["regime_b"])
    validation = [shard for name in names for shard in cut(name, "validation", options.validation)]
    if can_be_explained(setup):
        names.append("full_run")
    test = [shard for name in names for shard in cut(name, "test", options.scenes)]
    return validation + sorted(test, key=lambda shard: shard.first)


def can_be_explained(setup: Setup) -> bool:
    """Whether the images of the model are the sum of what its words gave."""
    try:
        setup.contender.pipeline.model.unet.check_explainable()
    except ValueError:
        return False
    return True


def run_shard(setup: Setup, shard: Shard) -> Callable[[str, int], Record]:
    """The function that makes the records of a shard."""
    make = PARTS[shard.part]
    return lambda split, number: make(setup, split, number)
