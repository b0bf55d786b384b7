"""CLIP's byte-pair tokens in CLIP's layout, with the words that they are pieces of.

Ids are those of open_clip's tokenizer: start, tokens, end, and zeros up to the context length, as in Stable
Diffusion 2.1. Start, end and padding are words of their own, so that what they contribute is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from bcos_diffusion.text import END, PADDING, START, TextBatch, bpe

LAYOUTS = ("visible", "masked")


class ClipTokenizer:
    """Tokenize any text as CLIP does; cleaning, lower case and splitting are open_clip's.

    length: the text encoder's context length; special: whether start, end and padding are "visible" to the image, as
    in Stable Diffusion, or "masked". Raises ValueError for another layout or no room for a token.
    """

    def __init__(self, length: int = 77, special: str = "visible"):
        if special not in LAYOUTS:
            raise ValueError(f"special must be one of {LAYOUTS}, got {special!r}")
        if length < 3:
            raise ValueError(f"a context of start, end and a token has a length of at least 3, got {length}")
        self.length, self.special = length, special

    def __len__(self) -> int:
        """How many ids there are."""
        return int(bpe().vocab_size)

    def encode(self, prompts: Sequence[str], cut: bool = False) -> TextBatch:
        """Tokenize prompts; ``cut`` drops the tokens that are too many, as CLIP was trained.

        Raises ValueError for a prompt without any token and, unless ``cut``, for one with too many.
        """
        rows = [self._split(prompt) for prompt in prompts]
        for prompt, pieces in zip(prompts, rows, strict=True):
            if not pieces:
                raise ValueError(f"the prompt {prompt!r} is empty; write at least one word")
            if len(pieces) > self.length - 2 and not cut:
                raise ValueError(f"the prompt has {len(pieces)} tokens, at most {self.length - 2} are accepted")
        return self._lay_out([pieces[: self.length - 2] for pieces in rows])

    def encode_null(self, count: int) -> TextBatch:
        """``count`` empty prompts, as guidance needs them: start, end and padding alone."""
        return self._lay_out([[] for _ in range(count)])

    def _split(self, prompt: str) -> list[tuple[int, str, int, str]]:
        """The pieces of a prompt: number and text of the word, id and text of the piece."""
        tokens, pieces = bpe(), []
        for number, word in enumerate(tokens.pat.findall(tokens.clean_fn(prompt))):
            units = "".join(tokens.byte_encoder[byte] for byte in word.encode("utf-8"))
            for piece in tokens.bpe(units).split(" "):
                pieces.append((number, word, int(tokens.encoder[piece]), _text(piece)))
        return pieces

    def _lay_out(self, prompts: list[list[tuple[int, str, int, str]]]) -> TextBatch:
        shape = (len(prompts), self.length)
        ids, word_index = torch.zeros(shape, dtype=torch.long), torch.full(shape, -1)
        is_word = torch.zeros(shape, dtype=torch.bool)
        words: list[list[str]] = []
        texts: list[list[str]] = []
        for row, pieces in enumerate(prompts):
            end = len(pieces) + 1
            names = {number: word for number, word, _, _ in pieces}
            ids[row, : end + 1] = torch.tensor([bpe().sot_token_id, *(p[2] for p in pieces), bpe().eot_token_id])
            word_index[row, : end + 1] = torch.tensor([0, *(p[0] + 1 for p in pieces), len(names) + 1])
            is_word[row, 1:end] = True
            words.append([START, *names.values(), END])
            texts.append([START, *(p[3] for p in pieces), END])
            padding = self.length - end - 1
            if padding and self.special == "visible":
                word_index[row, end + 1 :] = len(names) + 2
                words[row].append(PADDING)
                texts[row] += [PADDING] * padding
        mask = is_word.clone() if self.special == "masked" else torch.ones_like(is_word)
        return TextBatch(ids, mask, is_word, word_index, words, texts)

    def to_dict(self) -> dict[str, Any]:
        """The layout as JSON-ready values."""
        return {"length": self.length, "special": self.special}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClipTokenizer:
        """Rebuild a tokenizer from :meth:`to_dict`."""
        return cls(int(values["length"]), str(values["special"]))


def _text(piece: str) -> str:
    """A piece as people read it; a part of a character is shown as the replacement character."""
    tokens = bpe()
    return bytes(tokens.byte_decoder[unit] for unit in piece.removesuffix("</w>")).decode("utf-8", errors="replace")
