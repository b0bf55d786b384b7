"""The table of docs/app.md."""

from __future__ import annotations

from typing import Any

from markdown_tables import markdown


def latency(result: dict[str, Any]) -> str:
    """Seconds from the click to the whole picture, by prompt and sampling steps."""
    steps = sorted({row["steps"] for row in result["rows"]})
    prompts = list(dict.fromkeys(row["prompt"] for row in result["rows"]))
    by = {(row["prompt"], row["steps"]): row for row in result["rows"]}
    rows = []
    for prompt in prompts:
        seconds = [f"{by[prompt, s]['processor_s']:.2f}" for s in steps]
        rows.append([prompt, *seconds, f"{by[prompt, steps[-1]]['bytes'] / 1e6:.1f}"])
    width, height = result["size"]
    first = max(row["first_s"] for row in result["rows"])
    caption = (
        f"{result['model']}, {width}x{height}; {result['machine']['device']}, processor seconds of"
        f" {result['threads']} thread. The first step is there after {first:.2f} s at most; a box that is asked takes"
        f" {result['region_processor_s']:.2f} s."
    )
    return caption + "\n\n" + markdown(["prompt", *(f"{s} steps" for s in steps), "MB sent"], rows)
