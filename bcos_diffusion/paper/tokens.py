"""Tables 1 and 2: which tokens matter over a whole corpus of captions, and whether frequent ones matter more."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcos_diffusion.commands.options import Sampling
from bcos_diffusion.paper.record import described, new_figure, progress, save_figure, write_result
from bcos_diffusion.staging import staged

if TYPE_CHECKING:
    from bcos_diffusion.paper.corpus import Corpus
    from bcos_diffusion.paper.token_table import Row

SHOWN = 25
COLOURS = {
    "object": "#c44e52", "colour": "#4c72b0", "number": "#8172b3", "relation": "#ccb974", "function": "#8c8c8c",
    "punctuation": "#b0b0b0", "special": "#55a868", "other": "#937860",
}  # fmt: skip


def run(
    sampling: Sampling, captions: Path | None, column: str, count: int, minimum: int | None, batch_size: int, out: Path
) -> str:
    """Measure what is missing, write table, plot and JSON into ``out``; returns a few lines to print."""
    if count < 1 or batch_size < 1 or (minimum is not None and minimum < 1):
        raise ValueError("count, batch size and minimum must be at least 1")
    if sampling.seed >= 2**32:
        raise ValueError(f"seed must be in [0, 2^32) here, got {sampling.seed}")
    from bcos_diffusion.paper.corpus import SceneCaptions, read_captions
    from bcos_diffusion.paper.token_masses import Measurement, measure, read_shards
    from bcos_diffusion.paper.token_table import by_kind, correlations, rows

    text = None if captions is None else read_captions(captions, column, count)
    whole_runs = text is not None or sampling.steps is not None
    asked = (sampling.guidance, sampling.negative_prompt, sampling.update)
    if not whole_runs and any(value is not None for value in asked):
        raise ValueError("guidance, negative prompt and update belong to whole runs; add --steps")
    pipeline = sampling.load()
    corpus: Corpus = text or SceneCaptions(pipeline.model.unet.config.size, count)
    head = described("Tables 1 and 2", sampling, pipeline) | {"way": "whole runs" if whole_runs else "one step"}
    settings = corpus.describe() | {
        "model": head["provenance"]["model_sha256"] or str(sampling.model),
        "way": head["way"],
        "sampling": head["sampling"] if whole_runs else {"seed": sampling.seed, "dtype": sampling.dtype},
    }
    options = sampling.arguments(pipeline) if whole_runs else None
    measurement = Measurement(pipeline, corpus, sampling.seed, batch_size, options)
    shards = out / "shards"
    with staged(out) as folder, progress(len(corpus), "caption") as advance:
        measure(measurement, shards, settings, advance)
        fewest = max(1, len(corpus) // 1000) if minimum is None else minimum
        table = rows(read_shards(shards, len(corpus)), fewest)
        if not table:
            raise ValueError(f"no token occurs {fewest} times in {len(corpus)} captions; lower --minimum")
        refused = sum(shard.refused for shard in read_shards(shards, len(corpus)))
        result = head | corpus.describe() | {
            "captions": len(corpus), "refused": refused, "minimum": fewest, "correlation": correlations(table),
            "kinds": by_kind(table), "tokens": [row.to_dict() for row in table],
        }  # fmt: skip
        write_result(folder, "tokens", result)
        _write_csv(table, folder / "tokens.csv")
        (folder / "tokens.md").write_text(markdown(table), encoding="utf-8")
        draw(table, result, folder / "tokens.png")
    return summary(result)


def markdown(table: list[Row]) -> str:
    """The whole table, as the paper's Table 2, with both readings of Eq. 8."""
    heads = "| token | kind | occurrences | relevance, signed % | absolute % |\n| --- | --- | ---: | ---: | ---: |\n"
    lines = [
        f"| {row.token.replace('|', chr(92) + '|')} | {row.kind} | {row.occurrences} | {100 * row.signed:.2f} "
        f"| {100 * row.absolute:.2f} |"
        for row in table
    ]
    return heads + "\n".join(lines) + "\n"


def _write_csv(table: list[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0].to_dict()))
        writer.writeheader()
        writer.writerows(row.to_dict() for row in table)


def draw(table: list[Row], result: dict[str, Any], path: Path) -> None:
    """The most and the least relevant tokens as bars, and relevance against occurrences."""
    figure = new_figure(11, 5.6)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.6])
    half = min(SHOWN, len(table) // 2 + len(table) % 2)
    _bars(left, table[:half], "most relevant")
    _bars(middle, table[half:][-half:], "least relevant")
    middle.set_xlim(left.get_xlim())
    for kind in dict.fromkeys(row.kind for row in table):
        found = [row for row in table if row.kind == kind]
        right.scatter(
            [row.occurrences for row in found], [100 * row.absolute for row in found], s=14, label=kind,
            color=COLOURS[kind],
        )  # fmt: skip
    right.set_xscale("log")
    right.set_xlabel("captions in which the token stands once")
    right.set_ylabel("mean absolute relevance, %")
    right.legend(fontsize=8)
    right.set_title(f"Pearson {correlation(result, 'all_tokens')}", fontsize=10)
    figure.suptitle(f"{len(table)} tokens over {result['captions']} captions, {result['way']}, model {result['name']}")
    save_figure(figure, path)


def _bars(axes: Any, table: list[Row], title: str) -> None:
    axes.barh(range(len(table)), [100 * r.absolute for r in table], color=[COLOURS[r.kind] for r in table])
    axes.set_yticks(range(len(table)), [row.token for row in table], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("mean absolute relevance, %", fontsize=8)
    axes.set_title(title, fontsize=10)


def correlation(result: dict[str, Any], tokens: str) -> str:
    """Pearson's correlation of occurrences and absolute relevance, with its interval."""
    found = result["correlation"][tokens]["absolute"]["pearson"]
    if isinstance(found["value"], float) and math.isfinite(found["value"]):
        return f"{found['value']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"
    return "undefined"


def summary(result: dict[str, Any]) -> str:
    """What came out, in a few lines."""
    lines = [f"{result['captions']} captions, {result['refused']} refused; {len(result['tokens'])} tokens"]
    for found in result["kinds"]:
        signed, absolute = (100 * found[name]["value"] for name in ("signed", "absolute"))
        lines.append(
            f"  {found['kind']:<12} {found['tokens']:>5} tokens  {signed:6.2f}% signed  {absolute:6.2f}% absolute"
        )
    lines.append(f"Pearson of occurrences and relevance: {correlation(result, 'all_tokens')} over all tokens,"
                 f" {correlation(result, 'objects')} over objects")  # fmt: skip
    return "\n".join(lines)
