"""Write the tables of the docs from ``benchmarks/results``, so that no number is typed by hand.

    python benchmarks/fill_docs.py

A table stands between ``<!-- NAME table -->`` and ``<!-- end -->``; one whose results are missing says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import app_tables
import comparison_tables
import evaluation_tables
import features_tables
import missing_tables
import paper_tables
import scale_tables
from markdown_tables import interval, markdown
from summary import by_network, by_pass

from bcos_kernels.files import write_atomically

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def evaluation(result: dict[str, Any]) -> str:
    """What whole runs carry and draw, and where the exact contributions of the words of real scenes lie."""
    exact, related = result["regime_a"]["methods"]["exact"], result["relevance_and_effect"]
    drawn, real = result["objects_drawn"], result["objects_in_real_scenes"]
    rivals = result["regime_a"]["chance_of_largest_with_rivals"]
    rows = [
        ["words' share of the image, %", "≥ 70", interval(result["budget"]["tokens"], 100, 1)],
        ["x_T's share, %", "the rest", interval(result["budget"]["x_T"], 100, 1)],
        ["time and other, %", "0", f"{100 * abs(result['budget']['time']['value']):.4f}"],
        ["worst completeness error, fp32", "≤ 1e-3", f"{result['budget']['worst_completeness']:.1e}"],
        ["mass, object word / article or preposition", "≥ 10", interval(result["mass"]["object_over_function"])],
        ["effect of dropping, the same ratio", "", interval(result["mass"]["object_over_function_effect"], 1, 1)],
        ["own word largest in an object's mask, %", "≥ 60", interval(exact["largest"], 100, 1)],
        ["the same with a rival word, %", f"chance {100 * rivals:.0f}", interval(exact["largest_with_rivals"], 100, 1)],
        ["colour word largest in the background, %", "", interval(exact["colour_largest"], 100, 1)],
        ["Spearman with dropping a word, mass, all words", "≥ 0.6", interval(related["mass"]["mean_over_images_all"])],
        ["the same, content words, pooled over prompts", "≥ 0.6", interval(related["mass"]["pooled_content"])],
        ["the same, content words, per prompt (three words)", "≥ 0.6",
         interval(related["mass"]["mean_over_images_content"])],
        ["the same, mean-free relevance", "", interval(related["mean_free"]["mean_over_images_content"])],
        ["named objects found in the picture, %", f"real scenes {100 * real['found']['value']:.0f}",
         interval(drawn["found"], 100, 1)],
        ["the same, one object named, %", f"real scenes {100 * real['found_when_alone']['value']:.0f}",
         interval(drawn["found_when_alone"], 100, 1)],
        ["two objects found, and as the relation says, %", f"real scenes {100 * real['relation_holds']['value']:.0f}",
         interval(drawn["relation_holds"], 100, 1)],
        ["background in the colour named, %", "", interval(result["background"]["nearest_is_named"], 100, 1)],
    ]  # fmt: skip
    settings = result["settings"]
    caption = (
        f"Model `{result['name']}`, {result['prompts']} test prompts, {result['regime_a']['scenes']} test scenes,"
        f" {settings['steps']} steps, guidance {settings['guidance']} down to t = {settings['unguided_below']}"
    )
    return f"{caption}; 95% bootstrap intervals.\n\n" + markdown(["measure", "target", "reached"], rows)


def experiments(result: dict[str, Any]) -> str:
    """Every variant at every setting."""
    heads = ["variant", "loss", "update", "guidance", "words %", "x_T %", "time %", "other %", "reconstruction MSE"]
    rows = [
        [row["variant"], f"{row['loss']:.4f}", row["update"], f"{row['guidance']:g}",
         *(f"{100 * row[name]:.1f}" for name in ("tokens", "x_T", "time", "other")), f"{row['reconstruction_mse']:.4f}"]
        for row in result["rows"]
    ]  # fmt: skip
    caption = (
        f"{result['steps']} steps each, means over {result['prompts']} test prompts; {result['machine']['device']}."
    )
    return f"{caption}\n\n" + markdown(heads, rows)


def layers(result: dict[str, Any]) -> str:
    """What a report sums up to: a line a network and pass, then a line a pass."""
    machine, rows = result["machine"], result["rows"]
    shapes = len({(row["network"], row["layer"]) for row in rows})
    threads = f", {machine['threads']} thread(s)" if result["device"] == "cpu" else ""
    return "\n\n".join([
        f"{shapes} shapes on {machine['device']}{threads}, {result['dtype']}, torch {machine['torch']}.",
        "The layers of a network that were measured, each shape as often as the network has it:",
        markdown(*by_network(rows)),
        "Geometric means over the shapes, every shape once:",
        markdown(*by_pass(rows)),
    ])  # fmt: skip


def cost(result: dict[str, Any]) -> str:
    """Seconds with and without explanation."""
    heads = ["prompt", "words that carry a value", "plain s", "explained s", "ratio", "limit"]
    rows = [
        [row["prompt"], str(row["tokens"]), f"{row['plain_s']:.2f}", f"{row['explained_s']:.2f}", f"{row['ratio']:.2f}",
         str(row["tokens"] + 1)]
        for row in result["cost"]
    ]  # fmt: skip
    memory = ", ".join(f"{mb:.0f} MB at {steps} steps" for steps, mb in result["peak_rise_mb_by_steps"].items())
    return markdown(heads, rows) + f"\n\nPeak memory above the start: {memory}."


def guidance(result: dict[str, Any]) -> str:
    """What guidance does to the pictures of a model."""
    features = list(result["rows"][0]["frechet"])
    columns = ("objects", "relation", "counts", "words")
    heads = ["guidance", "down to t", *(f"Fréchet distance, {name} ↓" for name in features), "named objects drawn, % ↑",
             "arranged as named, % ↑", "as many as named, % ↑", "words %"]  # fmt: skip
    rows = [
        [f"{row['guidance']:g}", str(row["unguided_below"]), *(f"{row['frechet'][name]:.3f}" for name in features),
         *(f"{row[name]:.1f}" for name in columns)]
        for row in result["rows"]
    ]  # fmt: skip
    caption = f"{result['model']}, {result['pictures']} pictures of validation captions, {result['steps']} steps"
    return f"{caption}; {result['machine']['device']}.\n\n" + markdown(heads, rows)


def zoo(result: dict[str, Any]) -> str:
    """What patching saves in every entry, and geometric means."""
    columns = "forward x", "forward limit x", "train x", "train limit x", "forward memory x", "train memory x"
    heads = ["entry", "forward, times faster", "limit", "train, times faster", "limit", "memory forward", "train"]

    def cells(name: str, row: dict[str, Any]) -> list[str]:
        return [name, *("" if row[column] is None else f"{row[column]:.2f}" for column in columns)]

    kinds = {"all": "all", "B-cos": "B-cos models", "standard": "standard transformers"}
    means = [cells(f"**{kinds[kind]}**", row) for kind, row in result["geometric_means"].items()]
    rows = [cells(_sized(row), row) for row in result["rows"]]
    batch, machine = result["rows"][0]["batch"], result["machine"]
    caption = (
        f"{len(rows)} entries on {machine['device']}, {machine['threads']} threads, torch {machine['torch']}, fp32,"
        f" batch {batch}. Ratios unpatched / patched, of time and of peak memory; limit: unpatched / plain. Geometric"
        " means first."
    )
    missing = result["not_measured"]
    ending = f"\n\nNot measured for lack of time: {', '.join(missing)}." if missing else ""
    return f"{caption}\n\n{markdown(heads, means + rows)}{ending}"


def _sized(row: dict[str, Any]) -> str:
    return row["entry"] if row["pixels"] == 224 else f"{row['entry']}, {row['pixels']} px"


def pointwise(result: dict[str, Any]) -> str:
    """Milliseconds of 1 x 1 convolutions."""
    names = [f"{name} {side}" for name in ("forward", "backward") for side in ("torch ms", "ours ms", "x")]
    heads = ["N, C, side, O, stride", *names]
    rows = [
        [row[heads[0]], *("torch's" if row[name] is None else f"{row[name]:.1f}" for name in names)]
        for row in result["rows"]
    ]
    machine = result["machine"]
    return f"{machine['device']}, {machine['threads']} threads.\n\n" + markdown(heads, rows)


def classifier(result: dict[str, Any]) -> str:
    """What the classifier of scenes reached."""
    rows = [["accuracy, %", f"{100 * result['chance_of_accuracy']:.1f}", interval(result["accuracy"], 100, 1)]]
    for size in ("2x2", "3x3"):
        game = result[f"pointing_game_{size}"]
        rows.append([f"pointing game {size}, %", f"{100 * game['chance']:.1f}", interval(game, 100, 1)])
    settings, machine = result["settings"], result["machine"]
    caption = (
        f"{settings['steps']} steps of {settings['batch_size']} scenes of {settings['size']} pixels on"
        f" {machine['device']}; {result['scenes']} fresh test scenes."
    )
    return f"{caption}\n\n" + markdown(["measure", "chance", "reached, 95% interval"], rows)


def paper_sizes(result: dict[str, Any]) -> str:
    """Shape and parameters of every size of the paper's models."""
    heads = ["size", "picture", "channels", "attention", "tokens' width", "B-cos, million", "ordinary, million"]
    rows = [
        [row["size"], f"{row['pixels']} x {row['pixels']}", ", ".join(map(str, row["channels"])),
         ", ".join("yes" if attends else "no" for attends in row["attention"]), str(row["text_dim"]),
         *(f"{row[kind] / 1e6:.2f}" for kind in ("bcos", "vanilla"))]
        for row in result["sizes"]
    ]  # fmt: skip
    return markdown(heads, rows)


def paper_size(result: dict[str, Any]) -> str:
    """Time and memory of the paper's size."""
    does = {
        "train": "forward and backward, batch 1",
        "relevance": "draw, and the relevance of {tokens} tokens: {steps} steps",
        "explain": "draw, and the map of each of {tokens} tokens: {steps} steps",
    }
    rows = [
        [does[row["part"]].format(**row), row["dtype"], f"{row['seconds']:.0f}", f"{row['cpu_seconds']:.0f}",
         f"{row['peak_gib']:.1f}", f"{row['completeness']:.0e}" if "completeness" in row else ""]
        for row in result["parts"]
    ]  # fmt: skip
    machine = result["machine"]
    caption = (
        f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}. Drawn without guidance; peak"
        " of the whole process. The machine had other work, which the seconds contain and the seconds of CPU do not."
    )
    missing = set(does) - {row["part"] for row in result["parts"]}
    ending = f"\n\nNot yet measured: {', '.join(sorted(missing))}." if missing else ""
    heads = ["what", "type", "seconds", "seconds of CPU", "peak, GiB", "completeness error"]
    return f"{caption}\n\n" + markdown(heads, rows) + ending


def laion(result: dict[str, Any]) -> str:
    """Speed of searching metadata and of reading shards."""
    select, shards, machine = result["select"], result["shards"], result["machine"]
    matched = sum(select[0]["matched"].values())
    text = (
        f"{machine['device']}, load {result['load']:.1f} from other programs when it began. Made up metadata:"
        f" {select[0]['rows']:,} rows in {select[0]['files']} files, {select[0]['metadata_mb']:.0f} MB, {matched:,}"
        f" captions that name an object. Made up shards: {shards[0]['samples']:,} images of 341 by 256 pixels, read in"
        " batches of 64 at 64 pixels."
    )
    heads = ["processes of `select`", "rows a second", "rows a second of CPU", "peak memory, MB"]
    rows = [[str(row["workers"]), f"{row['rows_per_second']:,.0f}", f"{row['rows'] / row['cpu_seconds']:,.0f}",
             f"{row['peak_mb']:.0f} ({row['start_mb']:.0f} before the first row)" if "peak_mb" in row else ""]
            for row in select]  # fmt: skip
    columns = ["images stored as", "kB a sample", "threads", "indexed a second", "of CPU", "read a second", "of CPU"]
    rates = ("indexed_per_second", "indexed_per_cpu_second", "samples_per_second", "samples_per_cpu_second")
    reading = [[row["encoding"], f"{row['kb_per_sample']:.0f}", str(row["threads"]),
                *(f"{row[name]:,.0f}" for name in rates)] for row in shards]  # fmt: skip
    return f"{text}\n\n{markdown(heads, rows)}\n\n{markdown(columns, reading)}"


def published_procedure(result: dict[str, Any]) -> str:
    """Seconds of the published procedure and of ours."""
    heads = ["image, steps", "published s", "graph kept s", "our maps s", "one backward s", "published / maps",
             "graph kept / maps"]  # fmt: skip
    rows, notes = [], []
    for row in result["rows"]:
        rows.append([
            f"{row['size']}x{row['size']}, {row['steps']}",
            f"{row['published_s']:.0f} *", f"{row['graph_kept_s']:.0f} *",
            f"{row['maps_s']:.2f}", f"{row['backward_s']:.2f}", f"{row['published_over_maps']:.0f}",
            f"{row['graph_kept_over_maps']:.0f}",
        ])  # fmt: skip
        notes.append(
            f"{row['size']}x{row['size']}: {row['patches_and_channels']} patches and channels, of which"
            f" {row['measured']} random ones were timed; contributions agree to {row['agreement']:.0e}."
        )
        if whole := row["whole"]:
            rows.append([
                f"{row['size']}x{row['size']}, {whole['steps']}", f"{whole['published_s']:.1f}", "",
                f"{whole['maps_s']:.3f}", "", f"{whole['published_over_maps']:.0f}", "",
            ])  # fmt: skip
            notes.append(
                f"All of them at {whole['steps']} step(s): extrapolation said {whole['extrapolated_s']:.1f} s."
            )
    caption = f"{result['machine']['device']}, CPU seconds of one thread, “{result['prompt']}”."
    return f"{caption} * extrapolated.\n\n{markdown(heads, rows)}\n\n{' '.join(notes)}"


def batches(result: dict[str, Any]) -> str:
    """CPU seconds a picture by batch."""
    rows = [[str(row["batch"]), f"{row['drawn_s']:.3f}", f"{row['explained_s']:.3f}"] for row in result["rows"]]
    caption = f"{result['machine']['device']}, CPU seconds of one thread a picture, {result['steps']} steps."
    return f"{caption}\n\n" + markdown(["pictures at once", "drawn", "explained"], rows)


TABLES: dict[str, tuple[str, str, Callable[[dict[str, Any]], str]]] = {
    "evaluation": ("docs/explanations.md", "evaluation_report.json", evaluation),
    "experiments": ("docs/explanations.md", "experiments.json", experiments),
    "guidance": ("docs/explanations.md", "guidance.json", guidance),
    "cost": ("docs/explanations.md", "explanation_cost.json", cost),
    "published_procedure": ("docs/sampling.md", "published_procedure.json", published_procedure),
    "app_latency": ("docs/app.md", "app_latency.json", app_tables.latency),
    "batches": ("docs/sampling.md", "batches.json", batches),
    "layers": ("docs/kernels.md", "layers.json", layers),
    "zoo": ("docs/migration.md", "zoo.json", zoo),
    "pointwise": ("docs/migration.md", "pointwise.json", pointwise),
    "paper_sizes": ("docs/paper-models.md", "paper_size.json", paper_sizes),
    "paper_size": ("docs/paper-models.md", "paper_size.json", paper_size),
    "classifier": ("docs/classifiers.md", "classifier.json", classifier),
    **paper_tables.TABLES,
    "comparison_claims": ("docs/comparison.md", "comparison.json", comparison_tables.claims),
    "comparison_models": ("docs/comparison.md", "comparison.json", comparison_tables.models),
    "comparison_tokens": ("docs/comparison.md", "comparison.json", comparison_tables.tokens),
    "comparison_kinds": ("docs/comparison.md", "comparison.json", comparison_tables.kinds),
    **scale_tables.TABLES,
    **evaluation_tables.TABLES,
    **missing_tables.TABLES,
    **features_tables.TABLES,
    "laion": ("docs/data.md", "laion.json", laion),
}


def main() -> None:
    """Fill every table."""
    for name, (page, source, render) in TABLES.items():
        path = RESULTS / source
        table = render(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else "Not yet measured."
        text = (ROOT / page).read_text(encoding="utf-8")
        block = re.compile(rf"(<!-- {name} table -->\n).*?(<!-- end -->)", re.DOTALL)
        filled = block.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)
        write_atomically(ROOT / page, lambda temporary, filled=filled: temporary.write_text(filled, encoding="utf-8"))
        print(f"{page}: {name} {'filled' if path.exists() else 'has no results yet'}")


if __name__ == "__main__":
    main()
