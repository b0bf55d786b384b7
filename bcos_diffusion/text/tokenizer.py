"""From prompts to token ids: open_clip's byte-pair encoding over a compact vocabulary."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from bcos_diffusion.text.batch import TextBatch
from bcos_diffusion.text.function_words import FUNCTION_WORDS

LENGTH = 24
_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*|[,.;:!?]")


@cache
def bpe() -> Any:
    """open_clip's tokenizer, loaded when first needed: its import takes seconds."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


class Tokenizer:
    """Byte-pair tokens of a known list of words, numbered from 1; 0 is padding."""

    def __init__(self, words: Sequence[str], length: int = LENGTH):
        if not words:
            raise ValueError("a tokenizer needs at least one word")
        self.length = length
        self.pieces = {word: [(int(i), str(bpe().decoder[i])) for i in bpe().encode(word)] for word in sorted(words)}
        self._number()

    def _number(self) -> None:
        ids = sorted({i for pieces in self.pieces.values() for i, _ in pieces})
        self._compact = {bpe: number for number, bpe in enumerate(ids, start=1)}

    @property
    def byte_pairs(self) -> list[int]:
        """open_clip's number of each id from 1 on."""
        return list(self._compact)

    def __len__(self) -> int:
        """How many ids there are, padding included."""
        return len(self._compact) + 1

    def to_dict(self) -> dict[str, Any]:
        """The vocabulary as JSON-ready values; :meth:`from_dict` needs no tokenizer data."""
        return {"length": self.length, "pieces": {w: [list(p) for p in ps] for w, ps in self.pieces.items()}}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Tokenizer:
        """Rebuild a tokenizer from :meth:`to_dict`."""
        tokenizer = cls.__new__(cls)
        tokenizer.length = int(values["length"])
        tokenizer.pieces = {word: [(int(i), str(t)) for i, t in pieces] for word, pieces in values["pieces"].items()}
        tokenizer._number()
        return tokenizer

    def encode(self, prompts: Sequence[str], cut: bool = False) -> TextBatch:
        """Tokenize prompts; ``cut`` drops the tokens that are too many.

        Raises ValueError for an empty prompt, unknown words and, unless ``cut``, for too many tokens.
        """
        return self._pad([self._words(prompt) for prompt in prompts], cut)

    def encode_null(self, count: int) -> TextBatch:
        """``count`` prompts without any token, as guidance needs them."""
        return self._pad([[] for _ in range(count)])

    def ids(self, word: str) -> list[int]:
        """The ids of the tokens of a known word, in order."""
        return [self._compact[pair] for pair, _ in self.pieces[word]]

    def _words(self, prompt: str) -> list[str]:
        words = _WORD.findall(prompt.lower())
        if not words:
            raise ValueError("the prompt is empty; write at least one word")
        unknown = [word for word in words if word not in self.pieces]
        if unknown:
            raise ValueError(
                f"unknown {'word' if len(unknown) == 1 else 'words'}: {', '.join(map(self._hint, unknown))}"
            )
        return words

    def _hint(self, word: str) -> str:
        close = difflib.get_close_matches(word, self.pieces, n=2)
        return f"{word!r} (did you mean {' or '.join(close)}?)" if close else repr(word)

    def _pad(self, prompts: list[list[str]], cut: bool = False) -> TextBatch:
        shape = (len(prompts), self.length)
        ids = [[0] * self.length for _ in prompts]
        word_index = [[-1] * self.length for _ in prompts]
        carries = [[False] * self.length for _ in prompts]
        texts: list[list[str]] = []
        for row, words in enumerate(prompts):
            pieces = [(number, word, *piece) for number, word in enumerate(words) for piece in self.pieces[word]]
            if len(pieces) > self.length and not cut:
                raise ValueError(f"the prompt has {len(pieces)} tokens, at most {self.length} are accepted")
            pieces = pieces[: self.length]
            texts.append([text.removesuffix("</w>") for *_, text in pieces])
            for position, (number, word, bpe, _) in enumerate(pieces):
                ids[row][position] = self._compact[bpe]
                word_index[row][position] = number
                carries[row][position] = word[0].isalnum() and word not in FUNCTION_WORDS
        numbers = torch.tensor(ids, dtype=torch.long).view(shape)
        return TextBatch(
            numbers,
            numbers > 0,
            torch.tensor(carries, dtype=torch.bool).view(shape),
            torch.tensor(word_index, dtype=torch.long).view(shape),
            prompts,
            texts,
        )
