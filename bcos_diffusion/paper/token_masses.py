"""What every token of every caption contributed (c_i of Eq. 8), measured once and kept on disk in shards.

Two ways: one denoising step of the caption's own picture, where one backward pass from an all-ones cotangent gives
the masses of all tokens of a batch (mathematics §3); or the maps of a whole sampling run. Noise, level and seed
belong to the caption's number, so results depend neither on the batch nor on where a run was cut.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bcos_diffusion.diffusion import T, add_noise, paired_noise, predicted_x_0
from bcos_diffusion.encoding import encode, from_pixels
from bcos_diffusion.explain import explain
from bcos_diffusion.networks.denoiser import Conditioning
from bcos_diffusion.paper.corpus import Corpus
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.explanation import contributions
from bcos_kernels.files import read_json, write_atomically, write_json

SHARD = 1000
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Masses:
    """One caption: its number, its tokens, the word that each is a piece of, and what each contributed."""

    index: int
    texts: list[str]
    words: list[str]
    mass: NDArray[np.float64]


def one_step(
    pipeline: BcosDiffusionPipeline, images: NDArray[np.uint8], captions: list[str], indices: Sequence[int], seed: int
) -> list[Masses]:
    """Noise each picture to a random t, denoise it in one step, and sum the contributions of its tokens.

    images: ``[N, H, W, 3]``. Raises ValueError for captions that the tokenizer refuses.
    """
    unet, device = pipeline.model.unet, pipeline.model.device
    batch = pipeline.model.tokenizer.encode(captions)
    x_0 = encode(from_pixels(images))
    x_t, t = _noised(x_0, indices, seed, pipeline.alpha_bar.cpu())
    x_t, t = x_t.to(device, pipeline.dtype), t.to(device)
    with torch.no_grad():
        text = pipeline.model.condition(batch.to(device))

    longest = max(map(len, batch.texts))  # what follows is padding, which costs time and says nothing
    keys, mask = text.keys[:, :longest], text.mask[:, :longest]

    alpha_bar = pipeline.alpha_bar[t].to(pipeline.dtype)[:, None, None, None]

    def predict(values: Tensor) -> Tensor:
        return predicted_x_0(unet(x_t, t, Conditioning(values, keys, mask)), x_t, alpha_bar, unet.predicts)

    measured = contributions(predict, text.values[:, :longest], sum_over=(-1,)).double().cpu().numpy()  # [N, longest]
    found = zip(indices, batch.texts, batch.words, batch.word_index.tolist(), measured, strict=True)
    return [
        Masses(index, texts, words_of(words, numbers, len(texts)), row[: len(texts)])
        for index, texts, words, numbers, row in found
    ]


def _noised(x_0: Tensor, indices: Sequence[int], seed: int, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """x_t and t ``[N]``; both belong to the numbers of the captions."""
    t, noise = [], []
    for index in indices:
        rng = np.random.Generator(np.random.PCG64([seed, index]))
        t.append(int(rng.integers(T)))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        noise.append(paired_noise((1, *x_0.shape[1:]), generator))
    return add_noise(x_0, torch.tensor(t), torch.cat(noise), alpha_bar), torch.tensor(t)


def words_of(words: list[str], numbers: list[int], length: int) -> list[str]:
    """The word of each token of a prompt; empty for what belongs to none."""
    return [words[number] if number >= 0 else "" for number in numbers[:length]]


def whole_run(pipeline: BcosDiffusionPipeline, caption: str, index: int, seed: int, options: dict[str, Any]) -> Masses:
    """Draw one caption from seed ``seed + index`` and sum the maps of its tokens."""
    batch = pipeline.model.tokenizer.encode([caption])
    explanation = explain(pipeline, caption, seed=seed + index, **options)
    parts = [part for part in explanation.tokens if not part.negative]
    words = words_of(batch.words[0], batch.word_index[0].tolist(), len(parts))
    return Masses(index, [part.text for part in parts], words, np.array([part.mass for part in parts]))


@dataclass(frozen=True)
class Measurement:
    """How masses are measured. options: what ``explain`` takes for whole runs, the seed apart; None for one step."""

    pipeline: BcosDiffusionPipeline
    corpus: Corpus
    seed: int
    batch_size: int
    options: dict[str, Any] | None

    def of(self, indices: Sequence[int]) -> tuple[list[Masses], int]:
        """The masses of some captions, and how many of them the tokenizer refused."""
        images, captions = self.corpus.batch(indices)
        known = [row for row, caption in enumerate(captions) if self._accepts(caption)]
        measured: list[Masses] = []
        if self.options is None:
            assert images is not None
            for first in range(0, len(known), self.batch_size):
                rows = known[first : first + self.batch_size]
                chosen = [captions[row] for row in rows], [indices[row] for row in rows]
                measured += one_step(self.pipeline, images[rows], *chosen, self.seed)
        else:
            for row in known:
                measured.append(whole_run(self.pipeline, captions[row], indices[row], self.seed, self.options))
        return measured, len(captions) - len(known)

    def _accepts(self, caption: str) -> bool:
        try:
            self.pipeline.model.tokenizer.encode([caption])
        except ValueError:
            return False
        return True


def measure(measurement: Measurement, folder: Path, settings: dict[str, Any], advance: Callable[[int], object]) -> None:
    """Measure what ``folder`` does not hold yet, a shard of :data:`SHARD` captions at a time.

    settings: what the result depends on; advance: called with the number of captions of each shard that is there.
    Raises ValueError where the folder holds shards of other settings, OSError where it cannot be written.
    """
    _require_same(folder, settings)
    count = len(measurement.corpus)
    for number, first in enumerate(range(0, count, SHARD)):
        indices = range(first, min(first + SHARD, count))
        path = folder / f"{number:05d}-{len(indices)}.npz"
        if not path.exists():
            _write_shard(path, *measurement.of(indices))
        advance(len(indices))


def _require_same(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / SETTINGS
    if path.exists():
        before = read_json(path)
        differ = sorted(name for name in {*before, *settings} if before.get(name) != settings.get(name))
        if differ:
            raise ValueError(f"{folder} holds results of another {', '.join(differ)}; name another folder by --out")
    else:
        write_json(path, settings)


def _write_shard(path: Path, measured: list[Masses], refused: int) -> None:
    arrays = {
        "caption": np.array([m.index for m in measured for _ in m.texts], np.int64),
        "token": np.array([text for m in measured for text in m.texts], np.str_),
        "word": np.array([word for m in measured for word in m.words], np.str_),
        "mass": np.concatenate([m.mass for m in measured]) if measured else np.zeros(0),
        "refused": np.array(refused),
    }
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, allow_pickle=False, **arrays))


@dataclass(frozen=True)
class Shard:
    """Flat arrays of one shard, an entry a token, captions one after another; refused: captions left out."""

    caption: NDArray[np.int64]
    token: NDArray[np.str_]
    word: NDArray[np.str_]
    mass: NDArray[np.float64]
    refused: int


def read_shards(folder: Path, count: int) -> Iterator[Shard]:
    """The shards of the first ``count`` captions, in order. Raises ValueError for a damaged one."""
    for number, first in enumerate(range(0, count, SHARD)):
        path = folder / f"{number:05d}-{min(SHARD, count - first)}.npz"
        try:
            with np.load(path, allow_pickle=False) as held:
                yield Shard(held["caption"], held["token"], held["word"], held["mass"], int(held["refused"]))
        except (zipfile.BadZipFile, KeyError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete it to measure it again") from None
