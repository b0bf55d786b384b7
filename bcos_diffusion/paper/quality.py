"""Quality of samples: Fréchet distance to real pictures (FID where Inception's weights are given), kernel distance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcos_diffusion.paper.models import ManySampling
from bcos_diffusion.paper.record import described, new_figure, progress, save_figure, show, write_result
from bcos_diffusion.staging import staged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bcos_diffusion.commands.options import Sampling
    from bcos_diffusion.paper.features import Extractor
    from bcos_diffusion.pipeline import BcosDiffusionPipeline

REAL = "real scenes"
SHOWN = 10
LEAST = 4


def run(
    sampling: ManySampling, reference: Path | None, captions: Path | None, column: str, inception: Path | None,
    count: int, batch_size: int, out: Path,
) -> str:  # fmt: skip
    """Draw ``count`` pictures of every model, measure them, and write table, figure and JSON into ``out``."""
    if count < LEAST or batch_size < 1:
        raise ValueError(f"count must be at least {LEAST} and the batch size 1, got {count} and {batch_size}")
    from bcos_diffusion.paper import features
    from bcos_diffusion.paper.corpus import read_captions
    from bcos_diffusion.paper.sample_folder import images_below

    features.library("metric_fid")  # told before hours of drawing
    models = sampling.load()
    pipelines = [pipeline for _, pipeline in models.values()]
    size, device = _one_size(pipelines), pipelines[0].model.device
    extractor = features.inception(inception, device) if inception else features.random_convnet(device)
    texts = _captions(size, count) if captions is None else list(read_captions(captions, column, count).captions)
    if len(texts) < count:
        raise ValueError(f"{captions} has {len(texts)} captions, and {count} are needed; lower --count")
    for pipeline in pipelines:
        pipeline.model.tokenizer.encode(texts)
    given = None if reference is None else images_below(reference, count)
    with staged(out) as folder, progress(len(models) * count, "picture") as advance:
        heads = {name: described("quality", *pair) for name, pair in models.items()}
        paths = {
            name: _draw_all(out / "samples" / _slug(name), heads[name], *models[name], texts, batch_size, advance)
            for name in models
        }
        measured = Measured(extractor, size, count, out / "features", given)
        rows = [measured.real()] if given is None else []
        rows += [measured.drawn(name, _key(heads[name], texts), paths[name]) for name in models]
        result = {
            "figure": "quality", "metric": extractor.metric, "extractor": extractor.name, "count": count,
            "reference": f"{count} test scenes" if given is None else f"{count} images of {reference}",
            "captions": "of as many other test scenes" if captions is None else captions.name,
            "rows": rows, "models": heads,
        }  # fmt: skip
        write_result(folder, "quality", result)
        (folder / "quality.md").write_text(markdown(result), encoding="utf-8")
        _draw_figure(result, paths, size, folder / "quality.png")
    return markdown(result)


def _one_size(pipelines: list[BcosDiffusionPipeline]) -> int:
    sizes = {pipeline.model.unet.config.size for pipeline in pipelines}
    if len(sizes) > 1:
        raise ValueError(f"the models draw pictures of different sizes: {', '.join(map(str, sorted(sizes)))}")
    return sizes.pop()


def _captions(size: int, count: int) -> list[str]:
    """Captions of the first test scenes; the scenes after them are the reference."""
    from bcos_diffusion.scenes import Scenes

    return Scenes(size=size, split="test").batch(range(count))[1]


def _draw_all(
    folder: Path, head: dict[str, Any], sampling: Sampling, pipeline: BcosDiffusionPipeline, texts: list[str],
    batch_size: int, advance: Any,
) -> list[Path]:  # fmt: skip
    from bcos_diffusion.paper.sample_folder import draw_into

    settings = {"model": head["provenance"]["model_sha256"], "sampling": head["sampling"], "first": texts[0]}
    return draw_into(
        folder, settings, pipeline, texts, sampling.seed, batch_size, sampling.arguments(pipeline), advance
    )


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")


def _key(head: dict[str, Any], texts: list[str]) -> str:
    """A file name for the pictures of a model: its weights, sampler and captions, as a digest."""
    import hashlib
    import json

    told = json.dumps([head["provenance"]["model_sha256"], head["sampling"], texts], sort_keys=True)
    return f"{_slug(head['name'])}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


class Measured:
    """Distances to one reference, whose features are extracted once and kept."""

    def __init__(self, extractor: Extractor, size: int, count: int, cache: Path, given: list[Path] | None):
        self.extractor, self.size, self.count, self.cache = extractor, size, count, cache
        if given is None:
            self.reference = self._features(f"scenes-{size}-test-{count}", self._scenes(count))
        else:
            self.reference = self._features(f"reference-{_digest(given)}", self._files(given))

    def real(self) -> dict[str, Any]:
        """The row of real scenes: those whose captions were drawn, which no model saw. It is what remains at best."""
        return self._row(REAL, self._features(f"scenes-{self.size}-test-0", self._scenes(0)))

    def drawn(self, name: str, key: str, paths: list[Path]) -> dict[str, Any]:
        """The row of a model's pictures."""
        return self._row(name, self._features(key, self._files(paths)))

    def _row(self, name: str, found: NDArray[np.float64]) -> dict[str, Any]:
        from bcos_diffusion.paper import distance

        return {
            "name": name,
            "count": self.count,
            "frechet": distance.frechet(found, self.reference),
            "frechet_of_halves": distance.halves(found, self.reference),
            "kernel": distance.kernel(found, self.reference),
        }

    def _features(self, key: str, load: Any) -> NDArray[np.float64]:
        from bcos_diffusion.paper.features import features

        with progress(self.count, "feature") as advance:
            return features(self.extractor, key, self.count, load, self.cache, advance)

    def _scenes(self, first: int) -> Any:
        from bcos_diffusion.scenes import Scenes

        scenes = Scenes(size=self.size, split="test")
        return lambda numbers: scenes.batch([first + i for i in numbers])[0]

    def _files(self, paths: list[Path]) -> Any:
        import numpy as np

        from bcos_diffusion.paper.sample_folder import load

        def read(numbers: Sequence[int]) -> NDArray[np.uint8]:
            return np.stack([load(paths[i], self.size) for i in numbers])

        return read


def _digest(paths: list[Path]) -> str:
    """Which files these are, by name, length and time of change."""
    import hashlib

    told = "\n".join(f"{path.absolute()} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def markdown(result: dict[str, Any]) -> str:
    """The table: a row a model, after real pictures where there are any."""
    caption = f"{result['count']} pictures of each against {result['reference']}, captions {result['captions']}"
    lines = [
        f"| pictures | {result['metric']} | between halves | kernel distance × 1000 |",
        "| --- | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        half, kernel = row["frechet_of_halves"], row["kernel"]
        lines.append(
            f"| {row['name']} | {row['frechet']:.4g} | {half['mean']:.4g} ± {half['deviation']:.2g}"
            f" | {1000 * kernel['mean']:.3g} ± {1000 * kernel['deviation']:.2g} |"
        )
    return f"{caption}.\n\n" + "\n".join(lines) + "\n"


def _draw_figure(result: dict[str, Any], paths: dict[str, list[Path]], size: int, path: Path) -> None:
    """A row of pictures a model, with its distance at the left."""
    import numpy as np
    from PIL import Image

    from bcos_diffusion.paper.sample_folder import load
    from bcos_diffusion.scenes import Scenes

    rows: list[tuple[dict[str, Any], list[Any]]] = []
    for row in result["rows"]:
        if row["name"] in paths:
            shown = [load(p, size) for p in paths[row["name"]][:SHOWN]]
        else:
            shown = list(Scenes(size=size, split="test").batch(range(min(SHOWN, row["count"])))[0])
        rows.append((row, shown))
    width = max(len(shown) for _, shown in rows)
    figure = new_figure(0.95 * width + 1.6, 1.05 * len(rows) + 0.5)
    figure.suptitle(f"{result['metric']}, {result['count']} pictures against {result['reference']}", fontsize=9)
    grid = figure.subplots(len(rows), width, squeeze=False)
    for axes_of_row, (row, shown) in zip(grid, rows, strict=True):
        for axes in axes_of_row:
            axes.axis("off")
        for axes, pixels in zip(axes_of_row, shown, strict=False):
            show(axes, Image.fromarray(np.asarray(pixels)))
        label = f"{row['name']}\n{row['frechet']:.3g}"
        axes_of_row[0].text(-0.1, 0.5, label, transform=axes_of_row[0].transAxes, ha="right", va="center", fontsize=9)
    save_figure(figure, path)
