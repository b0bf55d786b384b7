"""Sampling from a real image noised to any t: what it starts from, and that its explanation is complete."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from references.commands import refused
from references.tiny import tiny_pipeline

from bcos_diffusion import cli
from bcos_diffusion.diffusion import paired_noise
from bcos_diffusion.explain import explain
from bcos_diffusion.start import Start, load_image


def picture(height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("t", [0, 400, 999])
def test_the_first_state_is_the_image_noised_with_the_seed(t: int) -> None:
    pipeline = tiny_pipeline()
    job = pipeline.job(["cat"], [None], [7], steps=1, start=Start(picture(), t))
    rgb, noise = picture().double(), paired_noise((1, 6, 16, 16), torch.Generator().manual_seed(7))[0].double()
    kept = float(pipeline.alpha_bar[t])
    six = torch.cat([rgb, 1 - rgb])
    expected = kept**0.5 * six + (1 - kept**0.5) * 0.5 + (1 - kept) ** 0.5 * 0.5 * noise
    torch.testing.assert_close(job.first[0], expected, rtol=0, atol=1e-6)
    assert len(job.alpha_bar) == t + 1
    torch.testing.assert_close(job.first[0, :3] + job.first[0, 3:], torch.ones(3, 16, 16, dtype=torch.float64))


@pytest.mark.parametrize("update", ["homogeneous", "standard"])
def test_the_explanation_is_complete_with_the_noised_image_as_a_source(update: str) -> None:
    pipeline, start = tiny_pipeline(), Start(picture(16, 24), 400, "mine.png")
    options = {"seed": 2, "steps": 3, "update": update, "size": (16, 24), "start": start}
    explanation = explain(pipeline, "cat on blue", "dog", **options)  # type: ignore[arg-type]
    drawn = pipeline.generate(["cat on blue"], "dog", **options)[0]  # type: ignore[arg-type]
    torch.testing.assert_close(explanation.image, drawn, rtol=0, atol=1e-12)
    assert explanation.completeness < 1e-12 and explanation.origin == "x_400"
    assert sum(explanation.budget.values()) == pytest.approx(1)
    assert [s.text for s in explanation.words_for((0, 0, 3, 3)).others] == ["x_400", "time", "other"]
    assert explanation.to_dict()["start"] == {"image": "mine.png", "t": 400}


def test_little_noise_leaves_the_image_nearly_as_it_was() -> None:
    """From t = 0 a single step remains, whose x̂_0 may be anything; x_0 hardly enters it but through x_t."""
    pipeline = tiny_pipeline()
    near, far = (pipeline.job(["cat"], [None], [1], steps=1, start=Start(picture(), t)).first for t in (0, 999))
    six = torch.cat([picture(), 1 - picture()]).double()
    assert (near[0] - six).abs().mean() < 0.03 < 0.2 < (far[0] - six).abs().mean()
    noise = pipeline.initial_noise(1)
    assert torch.corrcoef(torch.stack([far[0].flatten(), noise.flatten()]))[0, 1] > 0.99


def test_steps_are_those_from_the_start_on() -> None:
    pipeline = tiny_pipeline()
    assert pipeline.job(["cat"], [None], [0], start=Start(picture(), 1)).steps == 2  # of the model's three
    with pytest.raises(ValueError, match="between 1 and 401 from timestep 400 on, got 402"):
        pipeline.job(["cat"], [None], [0], steps=402, start=Start(picture(), 400))


def test_starts_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 999, got 1000"):
        Start(picture(), 1000)
    with pytest.raises(ValueError, match=r"must be rgb \[3, H, W\]"):
        Start(picture()[:1], 4)
    with pytest.raises(ValueError, match=r"is \[16, 24\], the model draws \[16, 16\]"):
        tiny_pipeline().job(["cat"], [None], [0], start=Start(picture(16, 24), 4))


def test_a_picture_is_scaled_to_cover_and_cropped_centrally(tmp_path: Path) -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = (255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    rgb = load_image(tmp_path / "wide.png", (10, 10))
    assert rgb.shape == (3, 10, 10) and rgb[0].eq(1).all() and not rgb[1:].any()
    assert load_image(tmp_path / "wide.png", (20, 40)).shape == (3, 20, 40)
    clear = Image.new("RGBA", (8, 8), (9, 9, 9, 0))
    clear.save(tmp_path / "clear.png")
    assert load_image(tmp_path / "clear.png", (8, 8)).eq(1).all()


@pytest.mark.usefixtures("elsewhere")
def test_the_commands_start_from_a_picture(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray((picture(40, 60).permute(1, 2, 0).numpy() * 255).astype("uint8")).save("mine.jpg")
    options = ["cat", "--model", str(model), "--image", "mine.jpg", "--start-t", "500", "--size", "32x24"]
    assert cli.main(["explain", *options, "--out", "e", "--box", "0", "0", "8", "8", "--phrase", "cat"]) == 0
    shown = capsys.readouterr().out
    assert "x_500" in shown and "the box 0, 0, 8, 8 is made of: " in shown
    said = json.loads(Path("e/explanation.json").read_text(encoding="utf-8"))
    assert said["start"] == {"image": "mine.jpg", "t": 500} and said["size"] == [32, 24] and said["completeness"] < 1e-5
    assert said["region"]["box"] == [0, 0, 8, 8] and said["region"]["others"][0]["text"] == "x_500"
    assert cli.main(["generate", *options, "--out", "g"]) == 0
    with Image.open("e/image.png") as one, Image.open("g/00-cat-seed0.png") as two:
        assert one.size == (32, 24) and np.abs(np.asarray(one).astype(int) - np.asarray(two)).max() <= 1


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--image", "none.png", "--start-t", "5"], "none.png does not exist"),
        (["--image", "text.png", "--start-t", "5"], "text.png is not a readable image"),
        (["--image", "text.png"], "both --image and --start-t"),
        (["--start-t", "5"], "both --image and --start-t"),
        (["--size", "32"], "such as 48x32"),
        (["--size", "0x8"], "such as 48x32"),
        (["--size", "30x24"], "multiples of 8"),
        (["--box", "0", "0", "99", "3"], "the box must be"),
        (["--phrase", "big cat"], "does not have 'big cat'"),
    ],
)
def test_mistakes_are_one_line(
    model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    Path("text.png").write_text("not an image")
    assert re.search(says, refused(capsys, "explain", "cat", *arguments, "--model", model, "--out", "new/out"))
