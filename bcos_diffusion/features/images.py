"""Where images come from, with their labels: scenes or a folder. Item i is always the same.

Labels say what is in an image by factor: the number of a class, or -1 where a factor does not apply.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bcos_diffusion.encoding import from_pixels
from bcos_diffusion.features.scene_labels import SCENE_CLASSES, scene_labels
from bcos_diffusion.scenes import Scene, Scenes, nouns
from bcos_diffusion.start import load_image

Labels = dict[str, Tensor]
Classes = dict[str, tuple[str, ...]]


class Images(ABC):
    """Images by number. size: their side in pixels; classes: factor -> names of its classes."""

    kind: str
    size: int
    classes: Classes
    drawn: bool = False
    """Whether images exist nowhere else, so that what reads them keeps them."""
    reads_runs: bool = False
    """Whether :meth:`states` has the x_t of runs, which only the model that drew them can read."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What tells this source from others, as JSON-ready values."""

    @abstractmethod
    def batch(self, numbers: Sequence[int]) -> Tensor:
        """Rgb images ``[N, 3, size, size]`` in [0, 1], float32 on the CPU."""

    @abstractmethod
    def caption(self, number: int) -> str:
        """What an image is said to show; it tells the labels."""

    @abstractmethod
    def label(self, number: int) -> dict[str, int]:
        """The class of an image by each factor of :attr:`classes`, -1 where it has none."""

    def labels(self, numbers: Iterable[int]) -> Labels:
        """The classes of images by factor, int64 ``[N]`` each."""
        found = [self.label(number) for number in numbers]
        return {factor: torch.tensor([row[factor] for row in found], dtype=torch.int64) for factor in self.classes}

    def states(self, numbers: Sequence[int], t: int) -> tuple[Tensor, int] | None:
        """x_t of the runs that drew the images, and the timestep it is at; None where images are noised instead."""
        return None


class SceneImages(Images):
    """Scenes by number, with the labels of :mod:`~bcos_diffusion.features.scene_labels`.

    one_kind: only the scenes of one kind of object, every one of which has an ``object``; split and seed: as
    :class:`~bcos_diffusion.scenes.Scenes` has them; start: the number of the first. Raises ValueError as it does.
    """

    kind = "scenes"

    def __init__(self, size: int = 32, split: str = "test", one_kind: bool = False, seed: int = 0, start: int = 0):
        self.scenes = Scenes(size, split, seed)
        if not 0 <= start < len(self.scenes):
            raise ValueError(f"start must be in [0, {len(self.scenes)}), got {start}")
        self.size, self.one_kind, self.start = size, one_kind, start
        self.classes = {"object": nouns(size), **SCENE_CLASSES}
        self._of_one_kind: list[int] = []

    def __len__(self) -> int:
        # A third of all scenes are of one kind; a quarter leaves room on the safe side.
        return (len(self.scenes) - self.start) // (4 if self.one_kind else 1)

    def settings(self) -> dict[str, Any]:
        """Everything that :meth:`__init__` takes."""
        scenes = {"size": self.size, "split": self.scenes.split, "seed": self.scenes.seed}
        return {"kind": self.kind, **scenes, "one_kind": self.one_kind, "start": self.start}

    def batch(self, numbers: Sequence[int]) -> Tensor:
        """The pictures of scenes."""
        return from_pixels(self.scenes.batch(self.number(i) for i in numbers)[0])

    def caption(self, number: int) -> str:
        """The scene's own caption."""
        return self.scene(number).caption

    def label(self, number: int) -> dict[str, int]:
        """Object, colour, position and count."""
        return scene_labels(self.scene(number), self.classes)

    def scene(self, number: int) -> Scene:
        """The scene of an image, with its masks."""
        return self.scenes[self.number(number)]

    def number(self, number: int) -> int:
        """The number among all scenes of image ``number`` of this source. Raises IndexError beyond the last."""
        if not 0 <= number < len(self):
            raise IndexError(f"there are images 0 to {len(self) - 1}, got {number}")
        if not self.one_kind:
            return self.start + number
        known = self._of_one_kind
        candidate = known[-1] + 1 if known else self.start
        while len(known) <= number:
            if self.scenes.composition(candidate)[1] == 1:
                known.append(candidate)
            candidate += 1
        return known[number]


class FolderImages(Images):
    """The images below a folder, in an order shuffled by ``seed``; each folder in it is a class, as in torchvision.

    Images are scaled to cover the size and cropped centrally. Raises FileNotFoundError where there are none.
    """

    kind = "folder"

    def __init__(self, path: str | Path, size: int, seed: int = 0):
        self.path, self.size, self.seed = Path(path).resolve(), size, seed
        classes, samples = _listed(self.path)
        self.classes = {"class": classes} if classes else {}
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
        self._samples = [samples[i] for i in order.tolist()]

    def __len__(self) -> int:
        return len(self._samples)

    def settings(self) -> dict[str, Any]:
        """The folder, what its files are called and how long they are, and how they are read."""
        digest = hashlib.sha256()
        for path, _ in self._samples:
            digest.update(f"{path.relative_to(self.path).as_posix()} {path.stat().st_size}\n".encode())
        files = digest.hexdigest()
        return {"kind": self.kind, "path": str(self.path), "size": self.size, "seed": self.seed, "files": files}

    def batch(self, numbers: Sequence[int]) -> Tensor:
        """The images of files; raises ValueError for what is no image."""
        return torch.stack([load_image(self._samples[i][0], (self.size, self.size)) for i in numbers])

    def caption(self, number: int) -> str:
        """The name of the class, in words; raises ValueError where there are no classes."""
        if not self.classes:
            raise ValueError(f"{self.path} has no folders of classes, so its images have no captions")
        return self.classes["class"][self._samples[number][1]].replace("_", " ").replace("-", " ")

    def label(self, number: int) -> dict[str, int]:
        """The class."""
        return {"class": self._samples[number][1]} if self.classes else {}


def images_of(settings: dict[str, Any]) -> Images:
    """Images as they were when ``settings`` were asked of them. Raises ValueError where they have changed since."""
    given = {name: value for name, value in settings.items() if name not in ("kind", "files")}
    images: Images = SceneImages(**given) if settings["kind"] == "scenes" else FolderImages(**given)
    if images.settings() != settings:
        raise ValueError(f"{given.get('path')} holds other files than when features were read of its images")
    return images


def _listed(folder: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]]]:
    """Classes and, sorted, files with their class; no classes where images lie in the folder itself."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder of images")
    if any(path.is_dir() for path in folder.iterdir()):
        classes, numbers = find_classes(folder)
        samples = make_dataset(str(folder), numbers, IMG_EXTENSIONS, allow_empty=True)
        found = [(Path(path), number) for path, number in samples]
    else:
        classes = []
        found = [(path, -1) for path in sorted(folder.iterdir()) if path.suffix.lower() in IMG_EXTENSIONS]
    if not found:
        raise FileNotFoundError(f"{folder} holds no images ({', '.join(IMG_EXTENSIONS)}), nor folders of them")
    return tuple(classes), found
