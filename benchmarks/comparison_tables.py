"""The tables of docs/comparison.md: the paper's four models beside each other, and its claims beside measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markdown_tables import interval, markdown

RESULTS = Path(__file__).parent / "results"
MODELS = ("bcos-x0", "bcos-clip-x0", "bcos-clip-eps", "vanilla")
EXPLAINED = MODELS[:3]
SPECIAL = {"[SOS]": "start", "[EOS]": "end", "[PAD]": "padding"}


def models(result: dict[str, Any]) -> str:
    """What every model reconstructs, what its parts carry, and how far its pictures are from real ones."""
    distances = {row["name"]: row for row in result["quality"]["rows"]}
    rows = []
    for name in MODELS:
        measured = result["models"].get(name)
        cells = ["not explained"] + [""] * 3
        if measured is not None:
            over = measured["reconstruction"]["over_prompts"]
            cells = [interval(over["mass_ratio"], 100, 1), interval(over["mse_raw"], 1, 4),
                     interval(over["mse_shown"], 1, 4), interval(over["brightness_ratio"], 100, 1)]  # fmt: skip
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
    heads = ["model", "words' share of the mass, %", "raw MSE (Eq. 6)", "normalised MSE (Eq. 7), clipped",
             "brightness of the raw one, %", "Fréchet distance", "between random halves"]  # fmt: skip
    return f"{caption}\n\n" + markdown(heads, rows)


def tokens(result: dict[str, Any]) -> str:
    """Where the absolute mass of the tokens is, in one picture of each model."""
    rows = []
    for name in EXPLAINED:
        measured = result["models"][name]
        groups = measured["epsilon"]["groups"]
        shares = [f"{100 * groups[key]['absolute']:.1f} ({groups[key]['tokens']})" if key in groups else "masked"
                  for key in ("prompt", *SPECIAL)]  # fmt: skip
        rows.append([f"`{name}`", *shares])
    prompt = result["models"]["bcos-x0"]["epsilon"]["prompt"]
    heads = ["model", "the prompt's", *(f"{word} `{key}`" for key, word in SPECIAL.items())]
    caption = f"Share of the tokens' absolute mass in “{prompt}”, a test scene drawn anew, % (number of tokens)."
    return f"{caption}\n\n" + markdown(heads, rows)


def kinds(result: dict[str, Any]) -> str:
    """Relevance by part of speech of each model."""
    found = {name: {row["kind"]: row for row in result["models"][name]["tokens"]["kinds"]} for name in EXPLAINED}
    names = list(dict.fromkeys(kind for kinds in found.values() for kind in kinds))
    rows = [[kind, *(interval(found[name][kind]["absolute"], 100, 1) if kind in found[name] else "" for name in found)]
            for kind in names]  # fmt: skip
    captions = result["models"]["bcos-x0"]["tokens"]["captions"]
    caption = f"Mean absolute relevance of a token by its kind, %, over {captions} captions, one denoising step each."
    return f"{caption}\n\n" + markdown(["kind", *(f"`{name}`" for name in found)], rows)


def claims(result: dict[str, Any]) -> str:
    """The paper's claims, its numbers, ours, and whether they agree."""
    paper, published = _read("paper.json"), _read("published_procedure.json")["rows"][-1]
    found = {name: measured["reconstruction"]["over_prompts"] for name, measured in result["models"].items()}
    x0, small = found["bcos-x0"], paper["reconstruction"]["over_prompts"]
    noise = result["models"]["bcos-clip-eps"]["epsilon"]
    groups, parts = noise["groups"], noise["reconstructions"]
    kinds_of = {row["kind"]: row for row in result["models"]["bcos-x0"]["tokens"]["kinds"]}
    split, edits = paper["failure"]["separation"], paper["edits"]["over_prompts"]
    pearson = {name: entry["absolute"]["pearson"] for name, entry in paper["tokens"]["correlation"].items()}
    distance = {row["name"]: f"{row['frechet']:.3g}" for row in result["quality"]["rows"]}
    rows = [
        ["“The normalized version closely matches the sample” (Fig. 2)", "MSE 0.0045",
         f"`bcos-x0` {interval(x0['mse_normalised'], 1, 4)}, clipped to [0, 1] {interval(x0['mse_shown'], 1, 4)};"
         f" `bcos-clip-x0` clipped {interval(found['bcos-clip-x0']['mse_shown'], 1, 4)};"
         f" `scenes-32` {interval(small['mse_normalised'], 1, 4)}",
         VERDICTS["normalised"]],
        ["The raw reconstruction is “noticeably darker”", "one picture",
         f"brightness `bcos-x0` {interval(x0['brightness_ratio'], 100, 1)}%;"
         f" `scenes-32` {interval(small['brightness_ratio'], 100, 1)}%",
         "agrees where time is added; not where nothing but words and x_T gives"],
        ["So “the model summary effectively captures the underlying computations”, biases or not", "",
         f"words carry {interval(x0['mass_ratio'], 100, 1)}% of the mass in `bcos-x0`,"
         f" {interval(small['mass_ratio'], 100, 1)}% in `scenes-32`",
         "does not follow: Eq. 7 hides whatever a colour and its complement gain alike"],
        ["Meaningful tokens are more relevant than articles and the like (Table 1)", "muffins 30.1%, a 3.0%",
         f"`bcos-x0`: colours {interval(kinds_of['colour']['absolute'], 100, 1)}%, objects"
         f" {interval(kinds_of['object']['absolute'], 100, 1)}%, relations"
         f" {interval(kinds_of['relation']['absolute'], 100, 1)}%, function words"
         f" {interval(kinds_of['function']['absolute'], 100, 1)}%", VERDICTS["kinds"]],
        ["No simple relation between how often a token occurs and its relevance (Table 2)", "Pearson, value lost",
         f"`scenes-32`: all {interval(pearson['all_tokens'])}, objects {interval(pearson['objects'])}, those with a"
         f" value {interval(pearson['tokens_that_contribute'])}",
         "agrees over those that carry a value; not over all, of which frequent ones are silent, nor among objects,"
         " whose plurals are rare and have a picture to themselves"],
        ["Relevance “reliably identifies images that do not align with their prompt” (Fig. 3)", "one picture",
         f"AUROC by Eq. 8 {interval(split['absolute']['auroc'])}, by colour instead of mass"
         f" {interval(split['mean_free']['auroc'])}",
         "in part, and not reliably; better when mass is not what is summed"],
        ["High relevance “does not mean that the model understands a concept”", "",
         f"median share of a missing object {split['absolute']['missing']['q50']:.3f}, of a drawn one"
         f" {split['absolute']['drawn']['q50']:.3f}", "agrees"],
        ["Replacing a highly relevant token “changes the picture completely” (Fig. 6)", "four pictures",
         f"Spearman of relevance and change: nouns and colours {interval(edits['spearman_nouns_and_colours'])}, nouns"
         f" alone {interval(edits['spearman_nouns'])}", "agrees between kinds of words, not within nouns"],
        ["Masked start, end and padding tokens receive 0", "0%", "0 exactly (tests)", "agrees"],
        ["The reconstruction of a model that predicts noise “resembles noise” and cannot be normalised (Fig. 5)",
         "one picture", f"correlation with the sample: tokens {parts['tokens']['correlation']:.2f}, normalised"
         f" {parts['normalised']['correlation']:.2f}, tokens and x_T {parts['tokens and x_T']['correlation']:.2f}",
         "agrees"],
        ["There, the end token gives more than the prompt's, padding roughly 45%", "45%",
         f"end {100 * groups['[EOS]']['absolute']:.1f}%, padding {100 * groups['[PAD]']['absolute']:.1f}%, the prompt's"
         f" {100 * groups['prompt']['absolute']:.1f}%", "padding agrees, the end token does not"],
        ["Predicting noise gives better pictures than predicting x_0 (Fig. 1)", "FID, values lost",
         f"Fréchet distance: `bcos-clip-eps` {distance['bcos-clip-eps']}, `bcos-clip-x0` {distance['bcos-clip-x0']}",
         "not at our budget: errors at high noise grow by 1/√ᾱ, and so short a training leaves them"],
        ["B-cos layers cost quality", "FID, values lost",
         f"Fréchet distance: `bcos-clip-x0` {distance['bcos-clip-x0']}, `vanilla` {distance['vanilla']}",
         VERDICTS["vanilla"]],
        ["All tokens' relevance takes one backward pass; the whole summary is “extremely expensive”", "",
         f"one picture, {published['size']}×{published['size']}, {published['steps']} steps: backward"
         f" {published['backward_s']:.1f} s, published procedure {published['published_s']:.0f} s, our maps"
         f" {published['maps_s']:.1f} s", "agrees for the backward pass; maps pushed forward are not expensive"],
        ["Only x_0 has “promising denoising capabilities” against encoded noise (§3.3)", "", "not measured", ""],
    ]  # fmt: skip
    return markdown(["claim", "the paper's number", "ours", "agreement"], rows)


VERDICTS = {
    "normalised": "agrees, once clipped; before it where no channel's pair is near 0",
    "kinds": "in part: colours stand out; relations are above objects, and these hardly above function words",
    "vanilla": "agrees",
}
"""What the numbers of the last run say."""


def _read(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / name).read_text(encoding="utf-8")))
