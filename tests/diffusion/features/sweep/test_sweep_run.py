"""Sweeps of tiny models, from the command to the page; stopped, and refused."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bcos_diffusion.features import FeatureStore, load_subject
from bcos_diffusion.features import sweep as sweeping
from bcos_diffusion.features.commands import sweep as command
from bcos_diffusion.features.extraction import noise_seed
from bcos_diffusion.features.probe import Recipe, fit_linear, stratified_split
from bcos_diffusion.features.sae import KSparseAutoencoder, SAEConfig
from bcos_diffusion.features.sweep import measure
from bcos_diffusion.features.sweep.page.attributed import few

COUNT = 120
LAYERS = ("bottleneck", "up_ft1")
Run = Callable[..., None]


@pytest.fixture(scope="module")
def quickly() -> Iterator[Run]:
    """The command, with autoencoders and probes of hardly any size."""
    sae = SAEConfig(k=4, expansion=4, steps=6, batch_size=32)
    small = partial(sweeping.SweepPlan, sae=sae, recipe=Recipe(width=4, epochs=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeping, "SweepPlan", small)
        yield command.sweep


@pytest.fixture(scope="module")
def done(quickly: Run, labelled: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep") / "out"
    quickly((labelled,), LAYERS, (25, 500), ("empty", "targeted"), COUNT, out=out)
    return out


def numbers(out: Path) -> dict[str, Any]:
    """The report without what differs between runs: seconds."""
    text = re.sub(r'"seconds": [0-9.e-]+', '"seconds": 0', (out / "report.json").read_text())
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_page_stands_alone_and_has_everything(done: Path) -> None:
    html = (done / "report.html").read_text()
    assert "http://" not in html and "https://" not in html and "<script" not in html
    for anchor in ("claims", "purity", "probes", "monosemanticity", "autoencoders", "baselines", "top", "components",
                   "attribution", "measured"):  # fmt: skip
        assert f'<section id="{anchor}">' in html
    found = numbers(done)
    assert len(found["cells"]) == 2 * (2 + 1) + 2 * 2 + 2 + 1
    assert {"holds", "does not hold", "cannot be told", "not measured"} >= {c["verdict"] for c in found["claims"]}
    assert f"--count {COUNT}" in found["command"] and found["command"] in html
    assert not re.search(r"\b(nan|None|inf)\b", re.sub(r"data:image/png;base64,[^\"]*", "", html))
    assert len(list((done / "figures").glob("*.png"))) == html.count('<img class="wide"') > 0
    assert "predicted" not in json.dumps(found["cells"])


def test_margins_are_of_the_best_layers_on_the_same_images(done: Path) -> None:
    def cell(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((done / "cells" / f"{name}.json").read_text())["found"]
        return found

    rows = {(row["baseline"], row["measure"], row["t"]): row for row in numbers(done)["margins"]}
    probes = ("Diff-C", "Diff-C, few images", "linear probe", "linear probe, few images")
    assert {(name, t) for _, name, t in rows} >= {(name, t) for name in probes for t in (25, 500)}
    for baseline, theirs in (("pixels", ("x_t",)), ("untrained", LAYERS)):
        row = rows[baseline, "linear probe", 500]
        own = {layer: cell(f"bcos-{layer}-500-empty")["linear"]["object"] for layer in LAYERS}
        rivals = {layer: cell(f"{baseline}-{layer}-500-empty")["linear"]["object"] for layer in theirs}
        best, rival = max(own.values(), key=lambda p: p["top1"]), max(rivals.values(), key=lambda p: p["top1"])
        assert own[row["layer"]] == best and row["own"]["value"] == best["top1"]
        assert row["gain"]["value"] == pytest.approx(best["top1"] - rival["top1"])
        assert row["gain"]["low"] <= row["gain"]["value"] <= row["gain"]["high"]


def test_a_sweep_that_was_cut_ends_the_same(done: Path, quickly: Run, labelled: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(done, out)
    cut = [out / "report.json", *sorted((out / "cells").glob("bcos-up*")), *(out / "features").rglob("index.json")]
    for path in (*cut, *sorted((out / "features" / "bcos" / "steps" / "shards").iterdir())[:1]):
        path.unlink()
    shutil.rmtree(out / "autoencoders" / "bcos-up_ft1-500-empty")
    quickly((labelled,), LAYERS, (25, 500), ("empty", "targeted"), COUNT, out=out)
    again, before = numbers(out), numbers(done)
    assert again.pop("command") != before.pop("command")
    assert again == before


def test_other_settings_and_wrong_layers_are_refused(done: Path, quickly: Run, labelled: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count was 120, now 130"):
        quickly((labelled,), LAYERS, (25, 500), ("empty", "targeted"), 130, out=done)
    with pytest.raises(ValueError, match="begun with other settings"):
        quickly((labelled,), LAYERS, (25,), ("empty", "targeted"), COUNT, out=done)
    with pytest.raises(ValueError, match="there is no layer 'up_ft9'"):
        quickly((labelled,), ("up_ft0", "up_ft9"), out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_noised_pixels_have_the_noise_of_the_features(done: Path, model: Path, quickly: Run) -> None:
    store, subject = FeatureStore(done / "features" / "bcos" / "steps"), load_subject(model)
    images = store.images(slice(None))
    x_t = subject.noise(subject.encode(images), 500, [noise_seed(0, number, 500) for number in range(COUNT)])
    own, classes = store.labels["object"], len(store.classes["object"])
    expected = fit_linear(x_t.flatten(1), own, classes, stratified_split(own, 0)).test
    kept = json.loads((done / "cells" / "pixels-x_t-500-empty.json").read_text())["found"]
    assert kept["linear"]["object"]["predicted"] == expected.predicted.tolist()
    assert kept["dim"] == 6 and "sae" not in kept


def test_models_of_all_kinds_side_by_side(quickly: Run, labelled: str, others: dict[str, str], tmp_path: Path) -> None:
    models = (labelled, *(f"{label}={source}" for label, source in others.items()))
    quickly(models, ("bottleneck",), (25,), ("empty", "generic"), COUNT, out=tmp_path)
    found, html = numbers(tmp_path), (tmp_path / "report.html").read_text()
    kinds = {label: (own["family"], own["form"]) for label, own in found["models"].items()}
    assert kinds == {
        "bcos": ("U-Net", "B-cos"), "vanilla": ("U-Net", "ordinary"),
        "dit": ("transformer", "B-cos"), "diffusers": ("U-Net", "ordinary"),
    }  # fmt: skip
    assert len(found["left_out"]) == 1 and "no text encoder" in found["left_out"][0] and "no text encoder" in html
    told = {(claim["key"], claim["subject"]) for claim in found["claims"]}
    assert {("families", "bcos and dit"), ("forms", "bcos and vanilla"), ("blocks", "dit")} <= told


def test_a_sweep_of_diffusers_alone_has_no_untrained_network(
    quickly: Run, others: dict[str, str], tmp_path: Path
) -> None:
    quickly((others["diffusers"],), ("bottleneck",), (25,), ("empty",), COUNT, out=tmp_path)
    found = numbers(tmp_path)
    assert "the baseline of random features is left out" in found["left_out"][0].replace("\n", " ")
    assert {cell["model"] for cell in found["cells"].values()} == {"diffusers", "pixels"}
    untrained = next(claim for claim in found["claims"] if claim["key"] == "untrained")
    assert untrained["verdict"] == "not measured"


def test_latents_are_shown_once_the_purest_by_object_first() -> None:
    latents = {
        "purest by colour": 5,
        "purest by object": 7,
        "purest by position": 5,
        "strongest, 1": 2,
        "strongest, 2": 7,
    }
    shown = few(SimpleNamespace(latents=latents))  # type: ignore[arg-type]
    assert list(shown.items()) == [("purest by object", 7), ("purest by colour", 5), ("strongest, 1", 2)]


def test_pixels_are_coded_as_thumbnails() -> None:
    pixels = torch.rand(2, 3, 32, 32)
    inputs = measure.Inputs.of_pixels(pixels)
    assert inputs.vectors.shape == (2, 3 * 32 * 32)
    first = inputs.coded.view(2, 3, 8, 8)[0, 0, 0, 0]
    assert first == pytest.approx(float(pixels[0, 0, :4, :4].mean()), abs=1e-6)


def test_few_directions_hold_what_principal_components_say() -> None:
    coded = torch.randn(50, 2) @ torch.randn(2, 20) + 3
    learned, held = measure.held_out(coded)
    assert torch.cat([learned, held]).equal(coded) and len(held) == 5
    assert measure.share_of_components(learned, held, 2) == pytest.approx(1.0)
    centred = (learned - learned.mean(0)).double()
    first = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    apart = (held - held.mean(0)).double()
    expected = (apart @ first).square().sum() / apart.square().sum()
    assert measure.share_of_components(learned, held, 1) == pytest.approx(float(expected))


def test_autoencoders_are_measured_on_images_they_did_not_learn_from(done: Path) -> None:
    found = json.loads((done / "cells" / "bcos-up_ft1-25-empty.json").read_text())["found"]["sae"]
    coded = FeatureStore(done / "features" / "bcos" / "steps").read("up_ft1", 25, "empty").mean((2, 3))
    autoencoder = KSparseAutoencoder.load(done / "autoencoders" / "bcos-up_ft1-25-empty")
    values, indices = autoencoder.encode(coded)
    error = (coded - autoencoder.decode(values, indices))[-12:].detach().double()
    spread = coded[-12:].double().var(0, correction=0).sum()
    assert found["explained_variance"] == pytest.approx(1 - float(error.var(0, correction=0).sum() / spread), abs=1e-5)
    used = torch.zeros(autoencoder.latents, dtype=torch.bool)
    used[indices[values > 0]] = True
    assert found["dead_share"] == pytest.approx(1 - float(used.double().mean()))
