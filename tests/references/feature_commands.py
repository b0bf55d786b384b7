"""``bcos-diffusion features`` in tests: what is typed, and what it answers."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from bcos_diffusion import cli

COUNT, K = 60, 6
EXTRACT = f"--count {COUNT} --layers bottleneck up_ft1 --timesteps 25 400 --conditionings caption empty --batch 20"
CELL = "--layer up_ft1 --t 25 --conditioning caption"
DICTIONARY = f"--k {K} --expansion 4 --steps 30 --batch-size 32"


def said(*arguments: object) -> str:
    """Run a command that must succeed; returns what it says."""
    heard = io.StringIO()
    with redirect_stdout(heard):
        assert cli.main(["features", *(word for part in arguments for word in str(part).split())]) == 0
    return heard.getvalue()


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
