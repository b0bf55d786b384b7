"""Quality: distances against closed forms and SciPy, and that pictures and features are kept."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from references.commands import refused

from bcos_diffusion import cli
from bcos_diffusion.paper import features
from bcos_diffusion.paper.features import random_convnet
from bcos_diffusion.paper.sample_folder import load

pytest.importorskip("torch_fidelity")
linalg = pytest.importorskip("scipy.linalg")

from bcos_diffusion.paper import distance  # noqa: E402

DEVICE = torch.device("cpu")


def draws(seed: int, count: int = 400, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 6)) @ rng.standard_normal((6, 6)) + shift


def test_the_frechet_distance_is_that_of_scipys_matrix_root() -> None:
    x, y = draws(0), draws(1, 300, 0.5)
    root = linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert distance.frechet(x, y) == pytest.approx(expected, rel=1e-6)


def test_the_frechet_distance_of_moved_and_scaled_features_has_a_closed_form() -> None:
    x = draws(0)
    assert distance.frechet(x, x) == pytest.approx(0, abs=1e-5)
    assert distance.frechet(x, x + 2) == pytest.approx(4 * 6, rel=1e-5)
    centred = x - x.mean(0)
    assert distance.frechet(centred, 3 * centred) == pytest.approx(4 * np.trace(np.cov(x.T)), rel=1e-5)


def test_the_kernel_distance_is_the_unbiased_estimate() -> None:
    x, y = draws(0, 40), draws(1, 40)
    rng = np.random.RandomState(2020)
    expected = []
    for _ in range(distance.SUBSETS):
        a, b = (part[rng.choice(40, 20, replace=False)] for part in (x, y))
        k = [(p @ q.T / 6 + 1) ** 3 for p, q in ((a, a), (b, b), (a, b))]
        within = sum((m.sum() - np.trace(m)) / (20 * 19) for m in k[:2])
        expected.append(within - 2 * k[2].mean())
    found = distance.kernel(x, y)
    assert found["mean"] == pytest.approx(np.mean(expected)) and found["deviation"] == pytest.approx(np.std(expected))


def test_the_fixed_network_is_the_same_every_time() -> None:
    pictures = torch.arange(2 * 3 * 16 * 16).remainder(251).to(torch.uint8).view(2, 3, 16, 16)
    first, second = random_convnet(DEVICE).extract(pictures), random_convnet(DEVICE).extract(pictures)
    assert first.shape == (2, 288) and torch.equal(first, second)
    assert first.sum().item() == pytest.approx(138.8114, rel=1e-4)  # what results of other days stand on


def test_features_are_read_where_they_are_and_a_cut_extraction_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "SHARD", 4)
    asked: list[int] = []
    pictures = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)

    def read(numbers: range) -> np.ndarray:
        asked.extend(numbers)
        return pictures[list(numbers)]

    def cut(numbers: range) -> np.ndarray:
        if 8 in numbers:
            raise KeyboardInterrupt
        return read(numbers)

    extractor = random_convnet(DEVICE)
    with pytest.raises(KeyboardInterrupt):
        features.features(extractor, "some", 10, cut, tmp_path, lambda n: None)
    whole = features.features(extractor, "some", 10, read, tmp_path, lambda n: None)
    assert asked == list(range(10))
    again = features.features(extractor, "some", 10, read, tmp_path, lambda n: None)
    assert asked == list(range(10))
    expected = extractor.extract(torch.from_numpy(pictures).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_array_equal(whole, again)
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-6)


def test_images_are_resized_by_the_shorter_side_and_cut_in_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (load(tmp_path / "wide.png", 8) == 200).all()
    assert load(tmp_path / "wide.png", 4).shape == (4, 4, 3)
    (tmp_path / "broken.png").write_bytes(b"PNG")
    with pytest.raises(ValueError, match=r"broken\.png is not a readable image"):
        load(tmp_path / "broken.png", 8)


@pytest.mark.usefixtures("elsewhere")
def test_the_command_keeps_pictures_and_goes_on_where_one_is_missing(model: Path) -> None:
    command = ["paper", "quality", "--model", str(model), "--count", "12", "--out", "found", "--batch-size"]
    assert cli.main([*command, "5"]) == 0
    first = json.loads(Path("found/quality.json").read_text())
    assert [row["name"] for row in first["rows"]] == ["real scenes", "tiny"] and first["count"] == 12
    assert first["metric"] == "Fréchet distance on random-convnet features" and "FID" not in json.dumps(first)
    assert first["rows"][0]["frechet"] < first["rows"][1]["frechet"]
    drawn = sorted(Path("found/samples/tiny").glob("*.png"))
    assert len(drawn) == 12
    kept, gone = drawn[0].stat().st_mtime_ns, drawn[7].read_bytes()
    drawn[7].unlink()
    assert cli.main([*command, "5"]) == 0
    assert drawn[0].stat().st_mtime_ns == kept and drawn[7].read_bytes() == gone
    assert json.loads(Path("found/quality.json").read_text())["rows"] == first["rows"]


@pytest.mark.usefixtures("elsewhere")
def test_a_folder_of_images_can_be_the_reference(model: Path) -> None:
    Path("real/deep").mkdir(parents=True)
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (6, 30, 24, 3), np.uint8)):
        Image.fromarray(pixels).save(f"real/deep/{i}.jpg")
    Path("c.txt").write_text("a cat\n" * 6)
    options = ["--reference", "real", "--captions", "c.txt", "--count", "6"]
    assert cli.main(["paper", "quality", "--model", str(model), *options]) == 0
    result = json.loads(Path("bcos-paper-quality/quality.json").read_text())
    assert [row["name"] for row in result["rows"]] == ["tiny"] and result["captions"] == "c.txt"


@pytest.mark.usefixtures("elsewhere")
def test_mistakes_are_told_in_one_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["paper", "quality", "--model", model, "--count", 4]
    assert features.INCEPTION in refused(capsys, *command, "--inception", "gone.pth")
    Path("text.pth").write_text("no weights")
    assert "not a file of weights" in refused(capsys, *command, "--inception", "text.pth")
    torch.save({"other": torch.zeros(1)}, "other.pth")
    assert "torch-fidelity's Inception" in refused(capsys, *command, "--inception", "other.pth")
    assert "not a folder" in refused(capsys, *command, "--reference", "gone")
    Path("empty").mkdir()
    assert "has 0 images" in refused(capsys, *command, "--reference", "empty")
    assert "at least 4" in refused(capsys, "paper", "quality", "--model", model, "--count", 3)
