"""``bcos-diffusion features`` as people type it, from an extraction to the explanation of a latent."""

import math
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from references.commands import content, refused
from references.feature_commands import CELL, COUNT, DICTIONARY, EXTRACT, K, read, said
from safetensors.torch import load_file
from torch import Tensor

from bcos_diffusion.features import FeatureStore, stored_rows
from bcos_diffusion.features import store as storing
from bcos_diffusion.features.key import Key
from bcos_diffusion.features.sae import KSparseAutoencoder
from bcos_diffusion.features.stored_rows import StoredRows

pytestmark = pytest.mark.usefixtures("elsewhere")


def dense(sae: Path, x: Tensor) -> Tensor:
    """The code of features ``[N, D]`` with all its zeros ``[N, n]``, from the definition."""
    its = {name: value.double() for name, value in load_file(sae / "autoencoder.safetensors").items()}
    z = (x.double() - its["pre_bias"]) @ its["encoder"].T + its["encoder_bias"]
    last = z.sort(dim=1, descending=True).values[:, K - 1 : K]
    return torch.where(z >= last, z, 0.0).relu()


def test_layers_are_listed_with_aliases_and_shapes(model: Path) -> None:
    lines = said("layers --model", model).splitlines()
    assert lines[0].split("  ")[0] == "down_ft0"
    assert any(re.fullmatch(r"up_ft1 +8 channels, 6x6 places  = up\.0\.0", line) for line in lines)
    assert any(re.fullmatch(r"bottleneck +16 channels, 3x3 places  = down\.1\.0", line) for line in lines)
    assert any(re.fullmatch(r"down\.1\.0\.pixels\.attend +16 channels, 9 tokens", line) for line in lines)
    assert any(re.fullmatch(r"time +8 channels, no places", line) for line in lines)


def test_extract_says_the_size_before_and_repeats_without_a_change(features: Path, model: Path) -> None:
    heard = (features.parent / "heard").read_text(encoding="utf-8")
    size = sum(path.stat().st_size for path in features.rglob("*.safetensors"))
    assert heard.startswith(f"{COUNT} images × 8 (layers × timesteps × conditionings): {size:,} bytes")
    assert f"bcos-diffusion features sae {features} --layer up_ft1 --t 400 --conditioning empty" in heard
    assert FeatureStore(features).shapes == {"bottleneck": (16, 3, 3), "up_ft1": (8, 6, 6)}
    assert read(features / "model.json") == {"model": str(model)}
    before = content(features)
    said("extract --model", model, EXTRACT, "--spatial --one-kind --out", features)
    assert content(features) == before


def test_sae_learns_and_is_measured_on_pooled_places(features: Path, sae: Path) -> None:
    x = FeatureStore(features).read("up_ft1", 25, "caption").double().mean((2, 3))
    decoder, bias = (load_file(sae / "autoencoder.safetensors")[n].double() for n in ("decoder", "pre_bias"))
    code = dense(sae, x)
    residual = x - code @ decoder - bias
    explained = 1 - float(residual.var(0, correction=0).sum() / x.var(0, correction=0).sum())
    metrics = read(sae / "metrics.json")
    assert metrics["explained_variance"] == pytest.approx(explained, abs=1e-5) and explained > 0.3
    assert metrics["l0"] == pytest.approx(float((code > 0).sum(1).double().mean()))
    note = read(sae / "source.json")
    assert (note["layer"], note["t"], note["conditioning"], note["places"]) == ("up_ft1", 25, "caption", False)
    before = content(sae)
    assert "explained variance" in said("sae", features, CELL, DICTIONARY, "--out", sae)
    assert content(sae) == before


def test_sae_of_places_reads_every_place(features: Path) -> None:
    heard = said("sae", features, CELL, DICTIONARY, "--places --out places")
    assert f"{36 * COUNT:,} samples of 8 channels, 32 latents" in heard
    said("latents places --rows 3 --out seen")
    top = load_file("seen/latents.safetensors")
    map_of = FeatureStore(features).read("up_ft1", 25, "caption").flatten(2).transpose(1, 2)  # [N, 36, 8]
    code = dense(Path("places"), map_of.flatten(0, 1)).unflatten(0, (COUNT, 36))
    strongest = int(top["mean"].argmax())
    value, image = code[..., strongest].amax(1).max(0)
    assert int(top["image"][strongest, 0]) == int(image)
    assert float(top["value"][strongest, 0]) == pytest.approx(float(value), rel=1e-4)
    assert int(top["place"][strongest, 0]) == int(code[image, :, strongest].argmax())
    said(f"explain places --latent {strongest} --out one")
    told = read(Path("one/latent.json"))
    assert told["position"] == int(top["place"][strongest, 0])
    assert told["activation"] == pytest.approx(float(value), rel=1e-3)


def test_latents_are_counted_judged_and_shown(features: Path, sae: Path) -> None:
    heard = said("latents", sae, "--rows 4 --out seen")
    code = dense(sae, FeatureStore(features).read("up_ft1", 25, "caption").mean((2, 3)))
    told, top = read(Path("seen/latents.json")), load_file("seen/latents.safetensors")
    assert told["active"] == int((code > 0).any(0).sum()) and told["latents"] == 32
    assert (top["active"] == (code > 0).sum(0)).all()
    assert f"{told['active']} of 32 latents are active on any of {COUNT} images" in heard and "σ_label" in heard
    labels = FeatureStore(features).labels
    assert set(told["purity"]) == {f for f, own in labels.items() if len(own[own >= 0].unique()) > 1}
    drawn = [name for name, chosen in told["sheets"].items() if chosen]
    assert "strongest" in drawn and all(Image.open(f"seen/{name}.png").width > 900 for name in drawn)
    assert re.search(rf"bcos-diffusion features explain {sae} --latent \d+", heard)


def test_explain_takes_the_top_image_as_it_was_extracted(features: Path, sae: Path) -> None:
    store = FeatureStore(features)
    code = dense(sae, store.read("up_ft1", 25, "caption").mean((2, 3)))
    latent = int((code > 0).sum(0).argmax())
    heard = said(f"explain {sae} --latent {latent} --out one")
    told, maps = read(Path("one/latent.json")), load_file("one/latent.safetensors")
    image = int(code[:, latent].argmax())
    # The image, its noise and its caption are those of the extraction, or the activation would be another one.
    assert told["image"] == image and told["active"]
    assert told["activation"] == pytest.approx(float(code[image, latent]), rel=1e-3)
    parts = [word["value"] for word in told["words"]] + [told["x_t"], told["time"], told["constant"]]
    assert math.fsum(parts) == pytest.approx(told["activation"], rel=1e-5) and told["completeness"] < 1e-5
    assert [word["text"] for word in told["words"] if word["value"]]
    assert float(maps["pixels"].sum()) == pytest.approx(told["x_t"], rel=1e-4, abs=1e-5)
    assert maps["x_t"].shape == maps["direction"].shape == maps["prediction"].shape == (6, 24, 24)
    shares = told["decomposition"]["shares"]
    assert {"latents", "error", "structure", "bypass"} <= shares.keys() and told["decomposition"]["completeness"] < 1e-4
    assert sum(share["mass"] for share in shares.values()) == pytest.approx(1, abs=1e-3)
    assert f"activation {told['activation']:.4g}" in heard and Image.open("one/latent.png").width > 1000
    other = (image + 1) % COUNT
    said(f"explain {sae} --latent {latent} --image {other} --out other")
    its = load_file(sae / "autoencoder.safetensors")
    centred = store.read("up_ft1", 25, "caption", [other]).mean((2, 3))[0] - its["pre_bias"]
    expected = float(centred @ its["encoder"][latent] + its["encoder_bias"][latent])
    assert read(Path("other/latent.json"))["activation"] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_explain_takes_a_step_of_the_run_that_draws_a_prompt(sae: Path) -> None:
    heard = said("explain", sae, "--latent 1 --prompt cat --seed 3 --out one")
    told = read(Path("one/latent.json"))
    assert (told["text"], told["seed"], told["image"]) == ("cat", 3, None)
    assert told["t"] == 499 and "nearest to t = 25" in heard  # of the two steps, at 999 and 499
    parts = [word["value"] for word in told["words"]] + [told["x_t"], told["time"], told["constant"]]
    assert math.fsum(parts) == pytest.approx(told["activation"], rel=1e-4, abs=1e-5)


def test_pictures_that_are_drawn_are_explained_as_they_were_read(model: Path) -> None:
    said("extract --model", model, "--count 10 --layers up_ft1 --timesteps 500 --images generated --on-the-way",
         "--conditionings caption --out drawn")  # fmt: skip
    said("sae drawn --k 6 --expansion 4 --steps 20 --out sae")
    code = dense(Path("sae"), FeatureStore("drawn").read("up_ft1", 500, "caption"))
    latent = int((code > 0).sum(0).argmax())
    said(f"explain sae --latent {latent} --out one")
    told = read(Path("one/latent.json"))
    assert told["image"] == int(code[:, latent].argmax()) and told["t"] == 499
    assert told["activation"] == pytest.approx(float(code[:, latent].max()), rel=1e-3)


def test_images_without_classes_are_read_and_explained_but_not_judged(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("pictures").mkdir()
    for number in range(12):
        colour = (20 * number, 250 - 20 * number, 100)
        Image.new("RGB", (30, 24), colour).save(f"pictures/{number:02d}.png")
    said("extract --model", model, "--images pictures --layers up_ft1 --timesteps 100 --out read")
    said("sae read --k 4 --expansion 4 --steps 20 --out sae")
    heard = said("latents sae --out seen")
    told = read(Path("seen/latents.json"))
    assert told["purity"] == {} and told["monosemanticity"] is None and "σ_label" not in heard
    assert Image.open("seen/strongest.png").height > 100
    latent = told["sheets"]["strongest"][0]
    said(f"explain sae --latent {latent} --out one")
    expected = load_file("seen/latents.safetensors")["value"][latent, 0]
    assert read(Path("one/latent.json"))["activation"] == pytest.approx(float(expected), rel=1e-3)
    assert "there is no factor 'class'" in refused(capsys, *"features probe read".split())


def test_probe_compares_layers_with_pixels_and_keeps_what_is_done(features: Path) -> None:
    command = f"probe {features} --conditioning empty --factor colour --layers up_ft1 --out probed"
    heard = said(command)
    told = read(Path("probed/probe.json"))
    rows = {(row["what"], row["t"]): row for row in told["rows"]}
    assert list(rows) == [("up_ft1", 25), ("up_ft1", 400), ("x_t", 25), ("x_t", 400), ("images", None)]
    labels = FeatureStore(features).labels["colour"]
    for (what, t), row in rows.items():
        hits = [a == b for a, b in zip(row["predicted"], row["truth"], strict=True)]
        assert row["test"]["top1"] == sum(hits) / len(hits) and len(hits) == told["images"]["test"]
        if what == "up_ft1":
            gained = row["test"]["top1"] - rows["x_t", t]["test"]["top1"]
            assert row["margin"]["value"] == pytest.approx(gained)
            assert row["margin"]["low"] <= row["margin"]["value"] <= row["margin"]["high"]
        else:
            assert row["margin"] is None
    counted = torch.bincount(labels, minlength=len(told["classes"]))
    assert sum(told["images"].values()) == int(counted.sum()) == COUNT
    # With little noise the colour of a background is there for any eye to see.
    assert rows["x_t", 25]["test"]["top1"] > 2 * told["majority"]["top1"]
    assert "x_t" in heard and "the commonest class" in heard
    before = content(Path("probed"))
    times = {path: path.stat().st_mtime_ns for path in Path("probed/rows").iterdir()}
    assert said(command) == heard and content(Path("probed")) == before
    assert times == {path: path.stat().st_mtime_ns for path in Path("probed/rows").iterdir()}


def test_probe_reads_places_and_few_images(features: Path) -> None:
    heard = said(f"probe {features} --conditioning empty --factor count --layers bottleneck --t 25 --few 3",
                 "--probe diff-c --out probed")  # fmt: skip
    told = read(Path("probed/probe.json"))
    assert {row["probe"] for row in told["rows"]} == {"diff-c"} and told["images"]["train"] <= 3 * 4
    assert heard.startswith("count, diff-c: ")


def test_pca_shows_most_of_the_variance_in_three_colours(features: Path) -> None:
    heard = said(f"pca {features} --conditioning empty --layers up_ft1 --images 3 7 --out maps")
    told = read(Path("maps/pca.json"))
    assert told["images"] == [3, 7] and [fit["t"] for fit in told["fits"]] == [25, 400]
    for fit in told["fits"]:
        x = FeatureStore(features).read("up_ft1", fit["t"], "empty").movedim(1, -1).flatten(0, 2).double()
        spread = torch.linalg.svdvals(x - x.mean(0)).square()
        # The order is that of the first fit, to which the second is turned.
        assert sorted(fit["explained"]) == pytest.approx(sorted((spread / spread.sum())[:3].tolist()), abs=1e-6)
    assert Image.open("maps/pca.png").height > 200 and "three components have" in heard
    assert load_file("maps/pca.safetensors")["up_ft1|25|empty|directions"].shape == (3, 8)


def test_rows_are_the_same_held_streamed_and_read_one_by_one(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore(features)
    rows = StoredRows(store, Key("up_ft1", 25, "empty"), places=True)
    held = rows.held()
    assert isinstance(held, Tensor) and held.shape == (36 * COUNT, 8)
    numbers = torch.tensor([2000, 5, 5, 71, 36, 0])
    every = store.read("up_ft1", 25, "empty").flatten(2).transpose(1, 2).flatten(0, 1)
    for sparse in (0, 1000):
        monkeypatch.setattr(storing, "SPARSE", sparse)
        assert (rows.rows(numbers) == every[numbers]).all() and (held == every).all()
    said(f"sae {features} {CELL} {DICTIONARY} --out whole")
    monkeypatch.setattr(stored_rows, "HELD_BYTES", 100)
    assert rows.held() is rows
    said(f"sae {features} {CELL} {DICTIONARY} --out streamed")
    assert KSparseAutoencoder.load(Path("streamed")).encoder.equal(KSparseAutoencoder.load(Path("whole")).encoder)
