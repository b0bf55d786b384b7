"""A small extraction, also as a program of its own that may be killed: ``python tiny_features.py MODEL OUT``."""

import sys
from pathlib import Path
from typing import Any

from bcos_diffusion.features import Plan, SceneImages, extract, load_subject


def tiny_plan(**changes: Any) -> Plan:
    """Eighteen scenes in batches of 4, of which the last is not full."""
    values = {
        "images": SceneImages(24, "test"), "count": 18, "layers": ("bottleneck", "up_ft0"), "timesteps": (25, 400),
        "conditionings": ("empty", "caption"), "batch": 4,
    }  # fmt: skip
    return Plan(**(values | changes))


def files(out: Path) -> dict[str, bytes]:
    """Every file of tensors below a folder, by path."""
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.safetensors"))}


if __name__ == "__main__":
    from bcos_diffusion.features import plan

    plan._SHARD_IMAGES = 4
    print("begun", flush=True)
    extract(load_subject(sys.argv[1]), tiny_plan(), Path(sys.argv[2]), advance=lambda shard: print(shard, flush=True))
