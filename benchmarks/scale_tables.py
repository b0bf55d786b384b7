"""The tables of docs/scale.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markdown_tables import markdown

NAMES = {"paper": "the paper's U-Net, 64×64", "scenes": "the scenes U-Net, 32×32"}
Table = tuple[list[str], list[list[str]]]


def counted(result: dict[str, Any]) -> Table:
    """What one image's training step computes and keeps."""
    heads = ["", "parameters, M", "forward, GFLOP", "step, GFLOP", "kept for backward, MB",
             "step that recomputes, GFLOP", "it keeps, MB"]  # fmt: skip
    rows = [
        [NAMES[name], f"{c['parameters'] / 1e6:.1f}", f"{c['forward_flops'] / 1e9:.2f}", f"{c['step_flops'] / 1e9:.2f}",
         f"{c['kept_bytes'] / 1e6:.0f}", f"{c['recomputed_step_flops'] / 1e9:.2f}",
         f"{c['recomputed_kept_bytes'] / 1e6:.0f}"]
        for name, c in sorted(result["counted"].items())
    ]  # fmt: skip
    return heads, rows


def states(result: dict[str, Any]) -> Table:
    """What is kept beside the activations, on each device and with shards of it."""
    devices, kept = result["devices"], result["states"]
    rows = [[name, f"{v / 1e9:.2f}", f"{v / 1e9 / devices:.3f}"] for name, v in kept.items()]
    total = sum(kept.values())
    rows.append(["all", f"{total / 1e9:.2f}", f"{total / 1e9 / devices:.3f}"])
    return ["fp32", "DDP, GB a device", f"FSDP over {devices}, GB a device"], rows


def efficiency(result: dict[str, Any]) -> Table:
    """What follows for a step from what is assumed."""
    heads = ["scheme", "assumed: TFLOP/s sustained", "assumed: GB/s a device", "compute, ms", "send, ms",
             "efficiency, nothing overlapped", "efficiency, all overlapped"]  # fmt: skip
    rows = [
        [row["scheme"], f"{row['tflops']:g}", f"{row['link_gb_s']:g}", f"{1e3 * row['compute_s']:.0f}",
         f"{1e3 * row['send_s']:.0f}", f"{100 * row['efficiency_apart']:.0f}%",
         f"{100 * row['efficiency_overlapped']:.0f}%"]
        for row in result["rows"]
    ]  # fmt: skip
    return heads, rows


def measured(result: dict[str, Any]) -> Table:
    """What was measured, and where."""
    step, reduced, machine = result["step"], result["all_reduce"], result["machine"]
    here = f"{machine['device']}, {machine['threads']} thread(s)"
    images, rate = step["batch"], reduced["megabytes"] * 2**20 / reduced["seconds"] / 1e9
    rows = [
        [f"scenes model, loss and gradients of {images} images, no effect term", here, f"{1e3 * step['kept']:.0f} ms"],
        ["the same, activations recomputed", here, f"{1e3 * step['recomputed']:.0f} ms"],
        ["scenes, captions and draws of the same images, in one thread", here, f"{1e3 * step['prepare']:.0f} ms"],
        [f"all-reduce of {reduced['megabytes']} MiB between two processes, gloo", here,
         f"{1e3 * reduced['seconds']:.0f} ms ({rate:.2f} GB/s)"],
    ]  # fmt: skip
    for kernels in result["kernels"]:
        text = f"B-cos layers of the U-Net, forward and backward, one image ({kernels['shapes']} shapes, fp32)"
        rows.append([text, kernels["machine"], f"{kernels['seconds']:.1f} s"])
    if all(kernels["device"] == "cpu" for kernels in result["kernels"]):
        rows.append(["the same on a device", "", "not yet measured on a device"])
    rows.append(["a step of many devices", "", "not yet measured on a device"])
    return ["", "on", "time"], rows


def compiled(result: dict[str, Any]) -> Table:
    """A step as it is and compiled."""
    heads = ["step", "first call, s", "median, ms", "loss"]
    rows = [
        [r["step"], f"{r['first_s']:.1f}", f"{1e3 * r['median_s']:.0f}", f"{r['loss']:.6f}"] for r in result["rows"]
    ]
    return heads, rows


def _rendered(table: Callable[[dict[str, Any]], Table]) -> Callable[[dict[str, Any]], str]:
    return lambda result: markdown(*table(result))


TABLES: dict[str, tuple[str, str, Callable[[dict[str, Any]], str]]] = {
    name: ("docs/scale.md", source, _rendered(table))
    for name, source, table in (
        ("counted", "plan.json", counted),
        ("states", "plan.json", states),
        ("efficiency", "plan.json", efficiency),
        ("measured", "plan.json", measured),
        ("compiled", "compiled_training.json", compiled),
    )
}
