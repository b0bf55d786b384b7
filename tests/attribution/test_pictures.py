"""Contribution maps in colour, and PNG files."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from bcos_kernels import contribution_image, plot_contribution_map, write_png

matplotlib.use("Agg")


@pytest.fixture
def values():
    return torch.randn(9, 7, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("options", [{}, {"vrange": 2.0}, {"vmin": -1, "percentile": 90}, {"cmap": "PuOr", "vmax": 3}])
def test_plots_what_the_bcos_library_plots(values, options):
    library = pytest.importorskip("bcos.common")
    ours, theirs = plot_contribution_map(values, **options)[1], library.plot_contribution_map(values, **options)[1]
    assert np.allclose(ours.get_array(), theirs.get_array(), atol=1e-6)
    assert np.allclose(ours.get_clim(), theirs.get_clim()) and ours.get_cmap().name == theirs.get_cmap().name


def test_cut_at_the_percentile_on_the_given_axes(values):
    axes = plt.subplots()[1]
    found, image = plot_contribution_map(values.bfloat16(), axes, percentile=50)
    assert found is axes and not found.get_xticks().size
    limit = np.percentile(values.bfloat16().double().abs(), 50)
    assert np.allclose(image.get_array(), values.bfloat16().double().clamp(-limit, limit))
    assert np.allclose(image.get_clim(), (-limit, limit))
    assert plot_contribution_map(values.numpy(), hide_ticks=False)[0].get_xticks().size


def test_colours_without_axes():
    found = contribution_image(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), percentile=100)
    expected = [[1, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0.5, 0.5]]
    torch.testing.assert_close(found.flatten(1).T, torch.tensor(expected).float(), atol=0.01, rtol=0)
    assert (contribution_image(torch.zeros(3, 3)) > 0.99).all()
    assert plot_contribution_map(torch.zeros(3, 3))[1].get_clim() == (-1, 1)


@pytest.mark.parametrize("wrong", [torch.zeros(1, 3, 3), torch.zeros(0, 3), torch.full((2, 2), float("nan"))])
def test_refused_maps(wrong):
    with pytest.raises(ValueError, match=r"\[H, W\] of finite"):
        plot_contribution_map(wrong)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_png_holds_the_pixels(tmp_path, channels, dtype):
    image = (torch.arange(channels * 6).view(channels, 2, 3) / 19).to(dtype)  # beyond 1 at the end
    write_png(tmp_path / "new" / "a.png", image, scale=2)
    with Image.open(tmp_path / "new" / "a.png") as opened:
        found = torch.from_numpy(np.array(opened)).permute(2, 0, 1)
    expected = (image.double().clamp(0, 1) * 255).round()
    assert torch.equal(found[:, ::2, ::2].double(), expected) and found.shape == (channels, 4, 6)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.png"]


def test_refused_pngs(tmp_path):
    for wrong in (torch.zeros(2, 3, 3), torch.zeros(3, 3), torch.zeros(3, 0, 3), torch.full((3, 1, 1), float("nan"))):
        with pytest.raises(ValueError):
            write_png(tmp_path / "a.png", wrong)
    with pytest.raises(ValueError, match="scale"):
        write_png(tmp_path / "a.png", torch.zeros(3, 1, 1), scale=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write"):
        write_png(tmp_path / "file" / "a.png", torch.zeros(3, 1, 1))
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
