"""Figure 2: a sample, what its tokens alone reconstruct (Eq. 6), the same normalised (Eq. 7), and who gave how much."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcos_diffusion.commands.options import Sampling
from bcos_diffusion.paper.record import described, new_figure, progress, save_figure, show, write_result
from bcos_diffusion.staging import staged

if TYPE_CHECKING:
    from bcos_diffusion.explain import Explanation

PROMPT = "a penguin to the left of a strawberry on a green background"


def run(sampling: Sampling, prompt: str, count: int, out: Path) -> str:
    """Explain one sample, and measure its reconstruction over ``count`` test prompts of scenes besides."""
    if count < 0:
        raise ValueError(f"count must be at least 0, got {count}")
    with staged(out) as folder:
        from bcos_diffusion.explain import explain
        from bcos_diffusion.scenes import prompts

        pipeline = sampling.load()
        with progress(1 + count, "picture") as advance:
            explanation = explain(pipeline, prompt, seed=sampling.seed, **sampling.arguments(pipeline))
            advance()
            measured = []
            for number, text in enumerate(prompts(count, size=pipeline.default_size[0]) if count else []):
                further = explain(pipeline, text, seed=sampling.seed + number, **sampling.arguments(pipeline))
                measured.append(numbers(further))
                advance()
        shown = numbers(explanation)
        result = described("Figure 2", sampling, pipeline) | {
            "prompt": prompt,
            **shown,
            "tokens": [
                {"text": part.text, "signed": part.relevance_signed, "absolute": part.relevance_absolute}
                for part in explanation.tokens
            ],
            "over_prompts": {"count": count, **_over(measured)},
        }
        _draw(explanation, shown, folder / "reconstruction.png")
        write_result(folder, "reconstruction", result)
    return (
        f"mean squared error: raw (Eq. 6) {shown['mse_raw']:.4f}, normalised (Eq. 7) {shown['mse_normalised']:.4f};"
        f" the raw one has {100 * shown['brightness_ratio']:.1f}% of the sample's brightness"
    )


def numbers(explanation: Explanation) -> dict[str, float]:
    """How far raw and normalised reconstructions are from the sample, and how bright the raw one is beside it.

    Errors are means over three channels in [0, 1], nothing clipped; brightness is the mean of rgb.
    """
    from bcos_diffusion.encoding import decode

    image, raw = explanation.trace.image.double(), explanation.trace.tokens.double().sum(0)
    sample, normalised = image[:3], decode(raw[None])[0]
    return {
        "mse_raw": float((raw[:3] - sample).pow(2).mean()),
        "mse_raw_complement": float((raw[3:] - image[3:]).pow(2).mean()),
        "mse_normalised": float((normalised - sample).pow(2).mean()),
        "mse_shown": explanation.reconstruction_mse,
        "brightness": float(sample.mean()),
        "brightness_raw": float(raw[:3].mean()),
        "brightness_ratio": float(raw[:3].mean() / sample.mean()),
        "mass_ratio": float(raw.sum() / image.sum()),
        "completeness": explanation.completeness,
    }


def _over(measured: list[dict[str, float]]) -> dict[str, Any]:
    """The mean of every number over prompts, with its interval."""
    from bcos_diffusion.evaluation.statistics import bootstrap, mean

    return {name: bootstrap([m[name] for m in measured], mean) for name in (measured[0] if measured else ())}


def _draw(explanation: Explanation, shown: dict[str, float], path: Path) -> None:
    raw = explanation.trace.tokens.sum(0).float().cpu()
    tiles = [
        (explanation.image, "sample"),
        (raw[:3].clamp(0, 1), f"raw, (r, g, b)\nMSE {shown['mse_raw']:.4f}"),
        (raw[3:].clamp(0, 1), f"raw, (1−r, 1−g, 1−b)\nMSE {shown['mse_raw_complement']:.4f}"),
        (explanation.reconstruction, f"normalised (Eq. 7)\nMSE {shown['mse_shown']:.4f}"),
    ]
    bars = 0.5 + 0.2 * len(explanation.tokens)
    figure = new_figure(8.4, 2.6 + bars)
    figure.suptitle(f"“{explanation.prompt}”, seed {explanation.seed}", fontsize=10)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[2.3, bars])[:, 0]
    for axes, (picture, title) in zip(upper.subplots(1, 4), tiles, strict=True):
        show(axes, picture.float().cpu(), title)
    left, right = lower.subplots(1, 2, width_ratios=[2.4, 1])
    _attribution(left, explanation)
    right.bar([0, 1], [shown["brightness"], shown["brightness_raw"]], color=["#8c8c8c", "#4c72b0"], width=0.6)
    right.set_xticks([0, 1], ["sample", "raw"], fontsize=8)
    right.set_title(f"brightness, mean of rgb\nraw / sample {100 * shown['brightness_ratio']:.1f}%", fontsize=9)
    save_figure(figure, path)


def _attribution(axes: Any, explanation: Explanation) -> None:
    from bcos_diffusion.explanation.figure import label

    tokens = explanation.tokens
    for offset, name, colour in ((-0.2, "signed", "#c44e52"), (0.2, "absolute", "#dd8452")):
        places = [i + offset for i in range(len(tokens))]
        values = [100 * getattr(part, f"relevance_{name}") for part in tokens]
        axes.barh(places, values, height=0.4, color=colour, label=name)
    axes.set_yticks(range(len(tokens)), [label(part) for part in tokens], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_title("relevance of each token (Eq. 8), %", fontsize=9)
    axes.legend(fontsize=8)
