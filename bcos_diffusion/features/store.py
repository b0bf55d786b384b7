"""Features on disk, read a part at a time: only what is asked for is ever in memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bcos_diffusion.encoding import from_pixels
from bcos_diffusion.features.folder import FORMAT, INDEX, LABELS
from bcos_diffusion.features.images import images_of
from bcos_diffusion.features.plan import IMAGES, key_name
from bcos_diffusion.many import SETTINGS
from bcos_kernels.files import read_json, read_tensors

Rows = slice | Sequence[int] | Tensor
SPARSE = 8
"""Of so many rows of a shard at least one must be wanted for all to be read at once."""


class FeatureStore:
    """What :func:`~bcos_diffusion.features.extraction.extract` wrote into a folder.

    layers, timesteps, conditionings: what there is; shapes: of one image's features by layer, ``[D]`` or
    ``[D, H, W]``; classes: factor -> names. Raises FileNotFoundError where there are no features, ValueError where the
    extraction is not finished, files are missing or damaged, or of another version.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        index = self._read_index()
        self.index: dict[str, Any] = index
        self.layers: tuple[str, ...] = tuple(index["layers"])
        self.timesteps: tuple[int, ...] = tuple(index["timesteps"])
        self.conditionings: tuple[str, ...] = tuple(index["conditionings"])
        self.pooled: bool = index["pooled"]
        self.shapes = {name: tuple(shape) for name, shape in index["shapes"].items()}
        self.classes = {factor: tuple(names) for factor, names in index["classes"].items()}
        self._shards: list[dict[str, Any]] = index["shards"]
        for shard in self._shards:
            path = self.folder / shard["file"]
            if not path.is_file():
                raise ValueError(f"{path} is missing; run the extraction again, which makes it anew")
            if path.stat().st_size != shard["bytes"]:
                raise ValueError(
                    f"{path} is damaged: {path.stat().st_size} bytes instead of {shard['bytes']}; run the extraction"
                    " again, which makes it anew"
                )

    def __len__(self) -> int:
        """How many images."""
        return int(self.index["count"])

    @cached_property
    def labels(self) -> dict[str, Tensor]:
        """The classes of the images by factor: int64 ``[N]`` each, -1 where a factor does not apply."""
        tensors = read_tensors(self.folder / LABELS)
        if any(factor not in tensors or len(tensors[factor]) != len(self) for factor in self.classes):
            raise ValueError(f"{self.folder / LABELS} does not have the labels of these images; remove it and run the"
                             " extraction again")  # fmt: skip
        return {factor: tensors[factor] for factor in self.classes}

    def read(self, layer: str, t: int, conditioning: str = "empty", rows: Rows | None = None) -> Tensor:
        """Features ``[N, D]`` or ``[N, D, H, W]`` in float32, of all images or of ``rows``, in their order.

        Raises ValueError for a layer, timestep or conditioning that was not read and for a damaged file, IndexError for
        a row that there is not.
        """
        for what, value, there in (
            ("layer", layer, self.layers),
            ("timestep", t, self.timesteps),
            ("conditioning", conditioning, self.conditionings),
        ):
            if value not in there:
                raise ValueError(f"there is no {what} {value!r} in {self.folder}, but {', '.join(map(str, there))}")
        return self._gather(key_name(layer, t, conditioning), self.shapes[layer], torch.float32, self._rows(rows))

    def images(self, rows: Rows) -> Tensor:
        """The images that features were read of: rgb ``[N, 3, H, W]`` in [0, 1], made or opened again.

        Raises ValueError where a folder of images has changed since.
        """
        numbers = self._rows(rows)
        source = self.index["images"]
        if not self.index["drawn"]:
            return images_of(source).batch(numbers.tolist())
        side = self._image_side
        pixels = self._gather(IMAGES, (3, side, side), torch.uint8, numbers)
        return from_pixels(pixels.permute(0, 2, 3, 1).numpy())

    @cached_property
    def _image_side(self) -> int:
        path = self.folder / self._shards[0]["file"]
        with safe_open(path, framework="pt") as file:
            return int(file.get_slice(IMAGES).get_shape()[-1])

    def _rows(self, rows: Rows | None) -> Tensor:
        if rows is None or isinstance(rows, slice):
            return torch.arange(len(self))[rows if rows is not None else slice(None)]
        numbers = torch.as_tensor(rows, dtype=torch.int64).flatten()
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(self):
            raise IndexError(f"rows must be in [0, {len(self)}), got {int(numbers.min())} to {int(numbers.max())}")
        return numbers

    def _gather(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, rows: Tensor) -> Tensor:
        """One tensor's rows from all shards that have some of them; what lies between few of them is not read."""
        out = torch.empty(len(rows), *shape, dtype=dtype)
        for shard in self._shards:
            here = ((rows >= shard["first"]) & (rows < shard["end"])).nonzero().flatten()
            if not len(here):
                continue
            places = rows[here] - shard["first"]
            low, high = int(places.min()), int(places.max()) + 1
            path = self.folder / shard["file"]
            try:
                with safe_open(path, framework="pt") as file:
                    part = file.get_slice(name)
                    if high - low <= SPARSE * len(here):
                        out[here] = part[low:high][places - low].to(dtype)
                        continue
                    for row, place in zip(here.tolist(), places.tolist(), strict=True):
                        out[row] = part[place].to(dtype)
            except (SafetensorError, OSError, RuntimeError) as error:
                raise ValueError(f"{path} is damaged ({error}); remove it and run the extraction again") from None
        return out

    def _read_index(self) -> dict[str, Any]:
        path = self.folder / INDEX
        if not path.is_file():
            if (self.folder / SETTINGS).is_file():
                raise ValueError(f"the extraction into {self.folder} is not finished; run it again, it goes on")
            raise FileNotFoundError(f"{self.folder} holds no features: there is no {INDEX}")
        index = read_json(path)
        if not isinstance(index, dict) or index.get("format") != FORMAT:
            raise ValueError(f"{path} is not the index of an extraction ({FORMAT!r})")
        return index
