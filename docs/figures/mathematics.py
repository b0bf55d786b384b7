"""Draw the figures of ``docs/mathematics.md`` from the layers and from the model in the package.

    python docs/figures/mathematics.py

Run it again when the shipped weights change.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from bcos_diffusion.diffusion import add_noise, paired_noise
from bcos_diffusion.encoding import encode
from bcos_diffusion.explain import explain_job
from bcos_diffusion.explanation.relevance import Part
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.paper.record import new_figure, save_figure, show
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels import BcosConv2d
from bcos_kernels.functional import bcos_linear

IMAGES = Path(__file__).parent.parent / "images"
PROMPT, SEED = "a cat left of a banana on a blue background", 5
T_SHOWN = 400
COLOURS = ("#c44e52", "#dd8452", "#4c72b0", "#55a868", "#8172b3")
UNITS = 24


def factors(path: Path) -> None:
    """What a unit of length 1 gives to inputs of length 1, by their angle, for several B; and its factor alone."""
    degrees = torch.arange(0, 181, dtype=torch.float64)
    angle = torch.deg2rad(degrees)
    x = torch.stack([angle.cos(), angle.sin()], 1)  # [181, 2]
    weight = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    figure = new_figure(8, 3)
    left, right = figure.subplots(1, 2)
    for b, colour in zip((1, 1.25, 1.5, 2, 2.5), COLOURS, strict=True):
        out = bcos_linear(x, weight, b)[:, 0]
        straight = bcos_linear(x, weight, 1)[:, 0]
        left.plot(
            degrees.numpy(),
            torch.where(straight == 0, torch.nan, out / straight).numpy(),
            color=colour,
            label=f"B = {b:g}",
        )
        right.plot(degrees.numpy(), out.numpy(), color=colour)
    left.set_title("the factor s(x) = |cos|^(B−1)", fontsize=9)
    right.set_title("what the unit gives, s(x) · ŵx", fontsize=9)
    left.legend(fontsize=8)
    for axes in (left, right):
        axes.set_xlabel("angle between x and w, degrees", fontsize=8)
        axes.set_xticks(range(0, 181, 45))
        axes.tick_params(labelsize=8)
    save_figure(figure, path)


def one_layer(pipeline: BcosDiffusionPipeline, path: Path) -> None:
    """The first B-cos layer of the U-Net with B > 1 as the matrix W(x), at two places of one picture.

    Raises RuntimeError where W(x) times the patch is not what the layer gave.
    """
    job = pipeline.job([PROMPT], [None], [SEED])
    image = pipeline.draw(job)[0]  # [3, H, W]
    unet = pipeline.model.unet
    layer = next(m for m in unet.modules() if isinstance(m, BcosConv2d) and m.b > 1)
    seen: dict[str, Tensor] = {}
    hook = layer.register_forward_hook(lambda _, inputs, output: seen.update(x=inputs[0], out=output))
    text = Conditioning(job.text.values[:1], job.text.keys[:1], job.text.mask[:1])
    with torch.no_grad():
        t = torch.tensor([T_SHOWN])
        noise = paired_noise((1, 6, *image.shape[1:]), torch.Generator().manual_seed(SEED))
        unet(add_noise(encode(image[None]), t, noise, pipeline.alpha_bar), t, text)
    hook.remove()
    weight = layer.linear.weight.flatten(1)  # [O, C * k * k]
    unit = weight / weight.norm(dim=1, keepdim=True)
    patches = F.unfold(seen["x"], layer.linear.kernel_size, padding=layer.linear.padding)[0]  # [C * k * k, HW]
    factor = (unit @ patches).abs() / patches.norm(dim=0)  # [O, HW]; |cos|
    factor = factor ** (layer.b - 1)
    out = seen["out"][0].flatten(1)
    error = float((factor * (unit @ patches) - out).norm() / out.norm())
    if error > 1e-4:
        raise RuntimeError(f"W(x) x is not what the layer gave: relative error {error:.1e}")
    row, column = (int(v) for v in brightest_difference(image))
    side = seen["x"].shape[-1]
    scale = side / image.shape[-1]
    places = {"on an object": (int(row * scale), int(column * scale)), "on the background": (1, side // 2)}
    figure = new_figure(11, 3.6)
    first, *rest = figure.subplots(1, 4, width_ratios=[1, 1.5, 1.5, 1.5])
    show(first, image, f"the picture; x is a patch of\nwhat the layer reads at t = {T_SHOWN}", 8)
    for (y, x), mark in zip(places.values(), "ox", strict=True):
        first.plot((x + 0.5) / scale - 0.5, (y + 0.5) / scale - 0.5, mark, color="white", markeredgecolor="black")
    matrices = {f"the weights Ŵ, of which {UNITS} of {len(unit)} units": unit}
    for name, (y, x) in places.items():
        matrices[f"W(x) = diag(|cos|^(B−1)) Ŵ\n{name}"] = factor[:, y * side + x, None] * unit
    dynamic = max(float(matrix[:UNITS].abs().max()) for matrix in list(matrices.values())[1:])
    for axes, (title, matrix) in zip(rest, matrices.items(), strict=True):
        shown = matrix[:UNITS, : 8 * layer.linear.weight[0, 0].numel()]
        limit = (float(unit[:UNITS].abs().max()) if matrix is unit else dynamic) / 2
        axes.imshow(shown.detach().numpy(), cmap="bwr", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axes.set_title(title, fontsize=8)
        axes.set_xlabel("inputs: 3×3 places of 8 channels", fontsize=8)
        axes.tick_params(labelsize=7)
    rest[0].set_ylabel("units", fontsize=8)
    save_figure(figure, path)


def brightest_difference(image: Tensor) -> Tensor:
    """Row and column of the pixel that differs most from the picture's median colour."""
    distance = (image - image.flatten(1).median(1).values[:, None, None]).abs().sum(0)
    return torch.tensor(divmod(int(distance.argmax()), image.shape[-1]))


def budget(pipeline: BcosDiffusionPipeline, path: Path) -> None:
    """Whose mass x_t and the predicted x_0 are, step by step of one run."""
    job = pipeline.job([PROMPT], [None], [SEED])
    states: list[Tensor] = []
    predictions: list[Tensor] = []

    def watch(_: int, state: Tensor, predicted: Tensor) -> None:
        states.append(state[:, 0].double().sum((1, 2, 3)))  # [S]: the image, its tokens, x_T
        predictions.append(predicted[:, 0].double().sum((1, 2, 3)))

    (found,) = explain_job(pipeline, job, [PROMPT], [None], [SEED], watch)
    names = [part.text for part in spoken(found.tokens)]
    figure = new_figure(9, 3.2)
    panels = zip(figure.subplots(1, 2), (states, predictions), ("x_t after a step", "the predicted x_0"), strict=True)
    for axes, masses, title in panels:
        mass = torch.stack(masses)  # [steps, S]
        shares = 100 * mass[:, 1:] / mass[:, :1]
        steps = range(1, len(shares) + 1)
        for i, name in enumerate([*names, "x_T"]):
            colour = "gray" if name == "x_T" else COLOURS[i % len(COLOURS)]
            axes.plot(steps, shares[:, i].numpy(), color=colour, label=name, linewidth=2)
        axes.plot(steps, shares[:, : len(names) + 1].sum(1).numpy(), "k:", label="sum", linewidth=1)
        axes.set_title(f"shares of {title}, %", fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
    axes.legend(fontsize=8)
    save_figure(figure, path)


def spoken(tokens: tuple[Part, ...]) -> list[Part]:
    """The tokens that carry a value, which the parts of a trace are of, in order."""
    return [part for part in tokens if not part.negative and bool(part.map.abs().max() > 0)]


def main() -> None:
    """Write all figures."""
    pipeline = BcosDiffusionPipeline.from_pretrained()
    factors(IMAGES / "mathematics-factors.png")
    one_layer(pipeline, IMAGES / "mathematics-layer.png")
    budget(pipeline, IMAGES / "mathematics-budget.png")


if __name__ == "__main__":
    main()
