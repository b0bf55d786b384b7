"""DAAM as its authors publish it (the package ``daam``, if installed), on the U-Net of diffusers.

``pip install --no-deps daam`` is enough: it imports spaCy and transformers, which tag words and load models, and
neither takes part in a heat map.
"""

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.networks.paper_unet import PaperUNet
from bcos_diffusion.text.tokenizer import bpe
from references.paper_models import name_in_diffusers, stable_diffusion


class _Absent(types.ModuleType):
    """A package that is not there, whose names may be imported and mean nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or type(name, (), {})


def published(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the package; skips the test where it is not installed."""
    if importlib.util.find_spec("daam") is None:
        pytest.skip("daam is not installed")
    for package, names in (("spacy", ["spacy", "spacy.tokens"]), ("transformers", ["transformers"])):
        if package not in sys.modules and importlib.util.find_spec(package) is None:
            for name in names:
                monkeypatch.setitem(sys.modules, name, _Absent(name))
    # By name: the package's own ``trace`` is a class that hides the module.
    return SimpleNamespace(**{part: importlib.import_module(f"daam.{part}") for part in ("heatmap", "hook", "trace")})


class Words:
    """What the package asks of a tokenizer: pieces of a text, as CLIP's byte-pair encoding makes them."""

    def tokenize(self, text: str) -> list[str]:
        return [bpe().decoder[i] for i in bpe().encode(text)]


def published_heat_maps(
    daam: Any, network: PaperUNet, text: Conditioning, prompt: str, states: list[tuple[Tensor, int]], folder: Path,
    **how: Any,
) -> tuple[Any, int]:  # fmt: skip
    """The package's heat maps of a network of ordinary layers, and how many maps of layers and heads they average.

    text: the prompt and its counterpart; states: x_t ``[1, 6, H, H]`` and t of every step; how: which layers and heads,
    as in ``compute_global_heat_map``.
    """
    theirs = stable_diffusion(network.config).double().eval()
    theirs.load_state_dict({name_in_diffusers(name): value for name, value in network.state_dict().items()})
    heat_maps = daam.heatmap.RawHeatMapCollection()
    trace = SimpleNamespace(all_heat_maps=heat_maps, _gen_idx=0)
    side = states[0][0].shape[-1]
    located = daam.hook.UNetCrossAttentionLocator().locate(theirs)
    for number, module in enumerate(located):
        daam.trace.UNetCrossAttentionHooker(
            module, trace, context_size=text.keys.shape[1], layer_idx=number, latent_hw=side**2, data_dir=folder
        ).hook()
    with torch.no_grad():
        for x_t, t in states:  # the package expects the empty prompt first
            theirs(torch.cat([x_t, x_t]), t, text.keys.flip(0))
    held = SimpleNamespace(
        all_heat_maps=heat_maps, latent_hw=side**2, last_prompt=prompt, pipe=SimpleNamespace(tokenizer=Words())
    )
    found = daam.trace.DiffusionHeatMapHooker.compute_global_heat_map(held, **how)
    layer, head = how.get("layer_idx"), how.get("head_idx")
    keys = [k for k, _ in heat_maps if (layer is None or k[1] == layer) and (head is None or k[2] == head)]
    return found, len(keys)
