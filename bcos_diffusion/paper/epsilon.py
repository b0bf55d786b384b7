"""Figure 5: what tokens alone reconstruct where the network predicts noise, and how much special tokens take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcos_diffusion.commands.options import Sampling
from bcos_diffusion.paper.record import described, new_figure, progress, save_figure, show, write_result
from bcos_diffusion.staging import staged

if TYPE_CHECKING:
    from torch import Tensor

    from bcos_diffusion.explain import Explanation

MEASURES = ("signed", "absolute", "norm")
MOST_BARS = 24


def run(sampling: Sampling, prompt: str, out: Path) -> str:
    """Explain one sample and write reconstruction without and with x_T's part, and the share of every token."""
    with staged(out) as folder:
        from bcos_diffusion.explain import explain
        from bcos_diffusion.paper.token_masses import words_of

        pipeline = sampling.load()
        steps = pipeline._settings(sampling.steps, None, None)[0]
        with progress(steps, "step") as advance:

            def step(*_: object) -> None:
                advance()

            explanation = explain(pipeline, prompt, seed=sampling.seed, callback=step, **sampling.arguments(pipeline))
        batch = pipeline.model.tokenizer.encode([prompt])
        words = words_of(batch.words[0], batch.word_index[0].tolist(), len(batch.texts[0]))
        tokens = token_shares(explanation, words)
        pictures = reconstructions(explanation)
        result = described("Figure 5", sampling, pipeline) | {
            "prompt": prompt,
            "budget": explanation.budget,
            "completeness": explanation.completeness,
            "reconstructions": {name: values for name, (_, values) in pictures.items()},
            "tokens": tokens,
            "groups": groups(tokens),
        }
        _draw(explanation, pictures, result, folder / "epsilon.png")
        write_result(folder, "epsilon", result)
    lines = []
    for name, entry in result["groups"].items():
        absolute, norm = 100 * entry["absolute"], 100 * entry["norm"]
        lines.append(f"{name}: {entry['tokens']} tokens, {absolute:.1f}% absolute, {norm:.1f}% of norms")
    return "\n".join(lines)


def reconstructions(explanation: Explanation) -> dict[str, tuple[Tensor, dict[str, float]]]:
    """Pictures ``[3, H, W]`` with their likeness to the sample: the tokens' sum, the same with x_T's part, normalised.

    The first two are unbounded, so they are shown and compared after the gain and offset that fit the sample best.
    """
    from bcos_diffusion.encoding import decode

    trace = explanation.trace
    image, tokens = trace.image.double(), trace.tokens.double().sum(0)
    with_noise = tokens + trace.x_T.double()
    found = {"tokens": fitted(tokens[:3], image[:3]), "tokens and x_T": fitted(with_noise[:3], image[:3])}
    normalised = decode(tokens[None])[0]
    found["normalised"] = normalised.clamp(0, 1), _likeness(normalised.clamp(0, 1), image[:3])
    return found


def fitted(picture: Tensor, image: Tensor) -> tuple[Tensor, dict[str, float]]:
    """``gain · picture + offset`` of least squares to an image, in [0, 1], and its likeness to it."""
    x, y = picture - picture.mean(), image - image.mean()
    gain = float((x * y).sum() / x.pow(2).sum().clamp(min=1e-30))
    offset = float(image.mean() - gain * picture.mean())
    values = {"gain": gain, "offset": offset, "mse_unfitted": float((picture - image).pow(2).mean())}
    shown = (gain * picture + offset).clamp(0, 1)
    return shown, values | _likeness(shown, image)


def _likeness(picture: Tensor, image: Tensor) -> dict[str, float]:
    """Mean squared error and Pearson's correlation over pixels and channels."""
    import torch

    pair = torch.stack([picture.flatten(), image.flatten()])
    correlation = float(torch.corrcoef(pair)[0, 1]) if bool((pair.std(1) > 0).all()) else float("nan")
    return {"mse": float((picture - image).pow(2).mean()), "correlation": correlation}


def token_shares(explanation: Explanation, words: list[str]) -> list[dict[str, Any]]:
    """Every token of the prompt with its shares of Eq. 8, and of the L2 norms of maps, which pairs cannot cancel.

    words: the word that each token is a piece of.
    """
    from bcos_diffusion.paper.token_table import kind

    parts = [part for part in explanation.tokens if not part.negative]
    norms = [float(part.map.double().norm()) for part in parts]
    total = sum(norms) or 1.0
    return [
        {
            "text": part.text,
            "special": kind(words[position]) == "special",
            "signed": part.relevance_signed,
            "absolute": part.relevance_absolute,
            "norm": norm / total,
        }
        for position, (part, norm) in enumerate(zip(parts, norms, strict=True))
    ]


def groups(tokens: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Summed shares: of the prompt's own tokens, and of every kind of special token by its text."""
    found: dict[str, dict[str, float]] = {}
    for token in tokens:
        name = token["text"] if token["special"] else "prompt"
        entry = found.setdefault(name, dict.fromkeys(("tokens", *MEASURES), 0))
        entry["tokens"] += 1
        for measure in MEASURES:
            entry[measure] += token[measure]
    return found


def _draw(explanation: Explanation, pictures: dict[str, Any], result: dict[str, Any], path: Path) -> None:
    from bcos_diffusion.explanation.figure import percent

    tokens = _bars_of(result)
    figure = new_figure(9.2, 5.2)
    figure.suptitle(f"“{explanation.prompt}”, seed {explanation.seed}, model {explanation.model}", fontsize=10)
    upper, lower = figure.subfigures(2, 1, squeeze=False)[:, 0]
    grid = upper.subplots(1, 5)
    show(grid[0], explanation.image.float().cpu(), "sample")
    show(grid[1], explanation.trace.x_T[:3].float().cpu().clamp(0, 1), "x_T's part")
    names = {"tokens": "tokens, fitted", "tokens and x_T": "tokens + x_T, fitted", "normalised": "tokens, Eq. 7"}
    for axes, (name, (picture, values)) in zip(grid[2:], pictures.items(), strict=True):
        show(axes, picture.float().cpu(), f"{names[name]}\nr = {values['correlation']:.2f}")
    axes = lower.subplots()
    for offset, name, colour in ((-0.2, "absolute", "#dd8452"), (0.2, "norm", "#4c72b0")):
        axes.bar([i + offset for i in range(len(tokens))], [100 * t[name] for t in tokens], width=0.4, color=colour,
                 label={"absolute": "absolute share (Eq. 8)", "norm": "share of norms"}[name])  # fmt: skip
    axes.set_xticks(range(len(tokens)), [t["text"] for t in tokens], fontsize=8, rotation=30, ha="right")
    axes.set_ylabel("%")
    axes.legend(fontsize=8)
    budget = ", ".join(f"{name} {percent(share)}" for name, share in explanation.budget.items())
    axes.set_title(f"attribution by token; budget: {budget}", fontsize=9)
    save_figure(figure, path)


def _bars_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """A bar per prompt token, and one for all special tokens of a text, which padding has dozens of."""
    special = [
        {"text": f"{name} × {entry['tokens']}" if entry["tokens"] > 1 else name, **entry}
        for name, entry in result["groups"].items()
        if name != "prompt"
    ]
    return ([token for token in result["tokens"] if not token["special"]] + special)[-MOST_BARS:]
