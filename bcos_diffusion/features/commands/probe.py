"""``bcos-diffusion features probe``: how well layers tell classes apart, beside raw pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from bcos_diffusion.commands.progress import progress
from bcos_diffusion.features.commands.explain import ModelNow
from bcos_diffusion.features.commands.sae import Conditioning


def probe(
    features: Positional[Path],
    layers: Annotated[tuple[str, ...], arg(metavar="LAYER …")] = (),
    t: Annotated[tuple[int, ...], arg(metavar="T …")] = (),
    conditioning: Conditioning = None,
    factor: Annotated[str | None, arg(metavar="NAME")] = None,
    few: Annotated[int | None, arg(metavar="N")] = None,
    probe: Literal["linear", "diff-c"] = "linear",
    seed: int = 0,
    model: ModelNow = None,
    out: Path = Path("bcos-features-probe"),
) -> None:
    """Say how accurately a light classifier tells classes from each layer at each timestep, beside raw pixels.

    Run again to go on where it was cut.

    Args:
        features: Folder that `features extract` wrote.
        layers: Of those that were read; all of them where none is named.
        t: Timesteps of those that were read; all of them where none is named.
        factor: What is asked: object, colour, position or count of scenes, class of a folder; without it, the object or
            the class.
        few: Learn from so many images of each class at most.
        probe: Logistic regression on means over places, or Diff-C, which reads all places.
        seed: Of the split into images to learn from, to choose by and to judge on, and of Diff-C.
        out: Folder to write into.
    """
    from bcos_diffusion.evaluation.json_values import for_json
    from bcos_diffusion.features.again import Again
    from bcos_diffusion.features.key import choose_many
    from bcos_diffusion.features.model_record import load_again, source_of
    from bcos_diffusion.features.probe.table import Question, Table, lines, margins
    from bcos_diffusion.features.store import FeatureStore
    from bcos_kernels.files import write_json

    store = FeatureStore(features)
    keys = choose_many(store, layers, t, conditioning)
    asked = Question(factor or ("object" if "object" in store.classes else "class"), probe, few, seed)
    known = model is not None or source_of(store) is not None
    table = Table(store, asked, Again(store, load_again(store, model)) if known else None)
    timesteps = len({key.t for key in keys}) if known else 0
    with progress(len(keys) + timesteps + 1, "probe") as advance:
        rows = table.rows(keys, out / "rows", advance)
    told = [
        {"what": row.what, "t": row.t, "margin": more, **row.found}
        for row, more in zip(rows, margins(rows), strict=True)
    ]
    values = {**vars(asked), "conditioning": keys[0].conditioning, "classes": store.classes[asked.factor],
              "images": table.sizes(), **table.chance(), "rows": told}  # fmt: skip
    write_json(out / "probe.json", for_json(values))
    sizes, plain = table.sizes(), table.chance()
    print(
        f"{asked.factor}, {probe}: {sizes['train']:,} images to learn from, {sizes['validation']:,} to choose by,"
        f" {sizes['test']:,} to judge on; chance {100 * plain['chance']:.1f}%,"
        f" the commonest class {100 * plain['majority']['top1']:.1f}%"
    )
    print("\n".join(lines(rows)))
    if not known:
        print(f"x_t is left out, since {features} does not say where its model is; name it by --model")
    print(f"\n{out / 'probe.json'} has the numbers")
