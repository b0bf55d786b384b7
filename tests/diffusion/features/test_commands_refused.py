"""What ``bcos-diffusion features`` refuses, in a line that says what is accepted."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from references.commands import SHAPE, content, refused
from references.feature_commands import CELL, DICTIONARY, EXTRACT, said

from bcos_diffusion.features.latents.choice import explainable
from bcos_diffusion.model import TextToImage
from bcos_diffusion.pipeline import BcosDiffusionPipeline, Defaults
from bcos_diffusion.scenes import vocabulary
from bcos_diffusion.text import Tokenizer

pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("layers --model nowhere/at/all", "nowhere/at/all is neither a folder nor a model"),
        ("extract {model} --layers up_ft9", r"there is no layer 'up_ft9' \(did you mean up_ft"),
        ("extract {model} --timesteps 1000", r"timesteps must be in \[0, 1000\), got 1000"),
        ("extract {model} --count 0", "count must be between 1 and"),
        ("extract {model} --share 2/2", "share must be I/N"),
        ("extract {model} --workers 0", "workers must be at least 1, got 0"),
        ("extract {model} --images nowhere", "nowhere is no folder of images"),
        ("extract {model} --conditionings zzyzx", "unknown word: 'zzyzx'"),
        ("extract {model} --on-the-way", "are for pictures that the model draws: --images generated"),
        ("extract {model} --images generated --prompts here", "here is not a file of prompts"),
        ("sae nowhere", "nowhere holds no features"),
        ("sae {features}", "more than one layer in .*; name it by --layer: bottleneck, up_ft1"),
        ("sae {features} --layer nose", "there is no layer 'nose' in .*, but bottleneck, up_ft1"),
        ("sae {features} {cell} --k 0", "must be at least 1: k 0"),
        ("sae {features} {cell} --k 100 --expansion 2", "k 100 must be at most the number of latents, 16"),
        ("sae {pooled} --places", "are pooled and have no places; extract with --spatial"),
        ("latents nowhere", "nowhere is no folder of `features sae`"),
        ("latents {sae} --rows 0", "rows must be at least 1, got 0"),
        ("latents {sae} --features {pooled}", "holds other features than those the autoencoder was trained on"),
        ("explain {sae} --latent 32", r"latents must be one or more of 0 to 31, got \[32\]"),
        ("explain {sae} --latent 1 --image 60", "there are images 0 to 59, got 60"),
        ("explain {sae} --latent 1 --image 1 --prompt cat", "give an image or a prompt, not both"),
        ("explain {sae} --latent 1 --prompt zzyzx", "unknown word: 'zzyzx'"),
        (
            "probe {features} --conditioning empty --factor nose",
            "there is no factor 'nose' in .*, but colour, count, object",
        ),
        ("probe {features} --factor colour", "more than one conditioning in .*; name it by --conditioning"),
        ("probe {pooled} --probe diff-c", "Diff-C reads places; extract with --spatial"),
        ("probe {features} --conditioning empty --factor colour --few 0", "per_class must be at least 1, got 0"),
        ("pca {pooled}", "are pooled and have no places; extract with --spatial"),
        ("pca {features} --conditioning empty --images 60", r"images must be one or more of 0 to 59, got \[60\]"),
        ("pca {features} --conditioning empty --t 3", "there is no timestep 3 in .*, but 25, 400"),
    ],
)
def test_bad_input_is_one_line(
    model: Path, features: Path, pooled: Path, sae: Path, capsys: pytest.CaptureFixture[str], arguments: str, says: str
) -> None:
    given = {"model": f"--model {model}", "features": features, "pooled": pooled, "sae": sae, "cell": CELL}
    assert re.search(says, refused(capsys, "features", *arguments.format(**given).split()))


def test_a_folder_is_not_mixed_with_other_features(
    model: Path, features: Path, sae: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(sae), content(features)
    line = refused(capsys, *f"features sae {features} {CELL} {DICTIONARY} --places --out {sae}".split())
    assert "has an autoencoder of other features: places False, not True" in line
    line = refused(capsys, *f"features extract --model {model} {EXTRACT} --out {features}".split())
    assert "was begun with other settings" in line
    assert (content(sae), content(features)) == before


def saved(folder: Path, **changes: Any) -> Path:
    """A tiny model of other weights, or of another kind."""
    torch.manual_seed(1)
    whole = TextToImage(dataclasses.replace(SHAPE, **changes), Tokenizer(vocabulary()), text_depth=1)
    BcosDiffusionPipeline(whole, Defaults(steps=2), "other").save_pretrained(folder)
    return folder


def test_what_cannot_be_explained_is_refused(sae: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = saved(Path("other"))
    line = refused(capsys, *f"features explain {sae} --latent 1 --model {other}".split())
    assert "were read from another model than other: weights" in line
    with pytest.raises(ValueError, match="some is a model of diffusers'"):
        explainable(SimpleNamespace(name="some"))  # type: ignore[arg-type]


def test_a_network_with_biases_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    plain = saved(Path("plain"), layers="vanilla", time_conditioning="additive")
    said("extract --model", plain, "--count 12 --layers up_ft1 --out read")
    said("sae read --k 4 --expansion 4 --steps 5 --out sae")
    assert "bias" in refused(capsys, *"features explain sae --latent 1".split())
