"""The tables of docs/comparison.md: the paper's four models beside each other, and its claims beside measurements."""

from __future__ import annotations

from typing import Any

from markdown_tables import interval, markdown

SPECIAL = {"[SOS]": "start", "[EOS]": "end", "[PAD]": "padding"}


def models(result: dict[str, Any]) -> str:
    """What every model reconstructs, what its parts carry, and how far its pictures are from real ones."""
    distances = {row["name"]: row for row in result["quality"]["rows"]}
    rows = []
    for name in result["losses"]:
        measured = result["models"].get(name)
        cells = ["not explained"] + [""] * 3
        if measured is not None:
            over = measured["reconstruction"]["over_prompts"]
            cells = [interval(over["mass_ratio"], 100, 1), interval(over["mse_raw"], 1, 4),
                     interval(over["mse_normalised"], 1, 4), interval(over["brightness_ratio"], 100, 1)]  # fmt: skip
        distance = distances[name]
        halves = distance["frechet_of_halves"]
        rows.append([f"`{name}`", *cells, f"{distance['frechet']:.3g}",
                     f"{halves['mean']:.3g} ± {halves['deviation']:.2g}"])  # fmt: skip
    for name in ("scenes-32", "real scenes"):
        halves = distances[name]["frechet_of_halves"]
        rows.append([name, "", "", "", "", f"{distances[name]['frechet']:.3g}",
                     f"{halves['mean']:.3g} ± {halves['deviation']:.2g}"])  # fmt: skip
    training, quality = result["training"], result["quality"]
    caption = (
        f"{training['steps']} steps of {training['batch-size']} scenes each, the same in the same order."
        f" Reconstruction: means over {result['models']['bcos-x0']['reconstruction']['over_prompts']['count']} test"
        f" prompts. Distance: {quality['metric']}, {quality['count']} pictures against {quality['reference']}."
    )
    heads = ["model", "words' share of the mass, %", "raw MSE (Eq. 6)", "normalised MSE (Eq. 7)",
             "brightness of the raw one, %", "Fréchet distance", "between random halves"]  # fmt: skip
    return f"{caption}\n\n" + markdown(heads, rows)


def tokens(result: dict[str, Any]) -> str:
    """Where the absolute mass of the tokens is, in one picture of each model."""
    rows = []
    for name, measured in result["models"].items():
        groups = measured["epsilon"]["groups"]
        shares = [f"{100 * groups[key]['absolute']:.1f} ({groups[key]['tokens']})" if key in groups else "masked"
                  for key in ("prompt", *SPECIAL)]  # fmt: skip
        rows.append([f"`{name}`", *shares])
    prompt = result["models"]["bcos-x0"]["epsilon"]["prompt"]
    heads = ["model", "the prompt's", *(f"{word} `{key}`" for key, word in SPECIAL.items())]
    return f"Share of the tokens' absolute mass in “{prompt}”, % (number of tokens).\n\n" + markdown(heads, rows)


def kinds(result: dict[str, Any]) -> str:
    """Relevance by part of speech of each model."""
    found = {name: {row["kind"]: row for row in measured["tokens"]["kinds"]}
             for name, measured in result["models"].items()}  # fmt: skip
    names = list(dict.fromkeys(kind for kinds in found.values() for kind in kinds))
    rows = [[kind, *(interval(found[name][kind]["absolute"], 100, 1) if kind in found[name] else "" for name in found)]
            for kind in names]  # fmt: skip
    captions = result["models"]["bcos-x0"]["tokens"]["captions"]
    caption = f"Mean absolute relevance of a token by its kind, %, over {captions} captions, one denoising step each."
    return f"{caption}\n\n" + markdown(["kind", *(f"`{name}`" for name in found)], rows)
