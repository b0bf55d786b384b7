"""From features of a word's contribution to the probability that it was drawn: fitted once per model, kept as JSON."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from bcos_diffusion.missing.logistic import Logistic, sigmoid
from bcos_diffusion.model import TextToImage
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.shipped import SHIPPED, locate, names
from bcos_kernels.files import read_json, write_json

FORMAT = "bcos_diffusion_missing/1"
FILE = "missing.json"
FIT = "python -m bcos_diffusion.missing fit --model FOLDER"


@dataclass(frozen=True)
class Checkpoint:
    """What features say at one moment of a run. share: of the steps that are done by then; platt: (a, b) of
    p = σ(a·logit + b); abort_below: nearly all pictures that become complete have no word below it at this moment."""

    share: float
    logistic: Logistic
    platt: tuple[float, float]
    abort_below: float

    def probability(self, features: ArrayLike) -> NDArray[np.float64]:
        """That words were drawn. features: ``[words, features]``, in the order of the regression's names."""
        a, b = self.platt
        return sigmoid(a * self.logistic.logit(features) + b)


@dataclass(frozen=True)
class Calibration:
    """A model's checkpoints, the last at its end. model: its name; weights: :func:`fingerprint` of its weights;
    fitted: on what, for the record."""

    model: str
    weights: str
    checkpoints: tuple[Checkpoint, ...]
    fitted: dict[str, Any]

    def at(self, share: float) -> Checkpoint:
        """The checkpoint nearest to a share of the steps."""
        return min(self.checkpoints, key=lambda c: abs(c.share - share))

    @property
    def early(self) -> Checkpoint:
        """The checkpoint before the last, where a hopeless try is left."""
        return self.checkpoints[-2]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        rows = [
            {"share": c.share, "platt": list(c.platt), "abort_below": c.abort_below} | c.logistic.to_dict()
            for c in self.checkpoints
        ]
        head = {"format": FORMAT, "model": self.model, "weights": self.weights, "fitted": self.fitted}
        write_json(path, head | {"checkpoints": rows})

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Read what ``write`` wrote. Raises FileNotFoundError, or ValueError for anything else."""
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; fit it with: {FIT}")
        values = read_json(path)
        try:
            if values["format"] != FORMAT:
                raise ValueError(f"format is {values['format']!r}, this version reads {FORMAT!r}")
            checkpoints = tuple(
                Checkpoint(float(c["share"]), Logistic.from_dict(c), (c["platt"][0], c["platt"][1]), c["abort_below"])
                for c in values["checkpoints"]
            )
            if len(checkpoints) < 2 or [c.share for c in checkpoints] != sorted(c.share for c in checkpoints):
                raise ValueError("it needs two checkpoints or more, in the order of the run")
            return cls(values["model"], values["weights"], checkpoints, values["fitted"])
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no calibration of missing words: {error!r}; fit one with: {FIT}") from None

    @classmethod
    def shipped(cls, model: str) -> Calibration:
        """The calibration of a model in the package, by its name; ValueError for any other name."""
        if model not in names():
            raise ValueError(
                f"the package has calibrations of {', '.join(names())}, not of {model}; fit one with: {FIT}"
            )
        return cls.read(locate(model) / FILE)

    @classmethod
    def of(cls, pipeline: BcosDiffusionPipeline, folder: Path = SHIPPED) -> Calibration:
        """The calibration that lies beside a pipeline's weights. Raises ValueError where it is of other weights."""
        found = cls.read(folder / FILE)
        if found.weights != fingerprint(pipeline.model):
            raise ValueError(
                f"{folder / FILE} was fitted for other weights of a model named {found.model}; fit it anew with: {FIT}"
            )
        return found


def fingerprint(model: TextToImage) -> str:
    """SHA-256 of all weights in bf16, in which they are shipped: the same in whatever type they were loaded."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        whole = value.to(torch.bfloat16) if value.is_floating_point() else value
        digest.update(whole.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
