"""Induced misses: words that a model has never learned, among words that it knows.

A masked token has a score of 0 by construction, of which nothing is learned. So some nouns are forgotten instead: their
embeddings become random ones of the usual length, as those of words that training never showed. They are attended to
and say something, and their objects are not drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.evaluation.words import OBJECTS, SINGULAR
from bcos_diffusion.missing.corpus import Asked, asked
from bcos_diffusion.missing.judged import Judged, judge_observed
from bcos_diffusion.missing.observe import Advance, Observed, observe_all
from bcos_diffusion.model import EMBEDDINGS
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes.lexicon import plural
from bcos_diffusion.text import Tokenizer
from bcos_diffusion.text.encoder import TextEncoder

SHARE = 0.25
"""Of the nouns, how many are forgotten."""


def can_forget(pipeline: BcosDiffusionPipeline) -> bool:
    """Whether the words of a model are its own, values included; a frozen CLIP's are not."""
    text = pipeline.model.text
    return isinstance(text, TextEncoder) and text.value_table is not None


def forget(pipeline: BcosDiffusionPipeline, seed: int = 0) -> tuple[BcosDiffusionPipeline, frozenset[str]]:
    """A copy of a pipeline that has forgotten some of its nouns, and which; the same ones for a seed.

    Nouns that share a token with another word are kept. Raises ValueError where :func:`can_forget` says no.
    """
    tokenizer = pipeline.model.tokenizer
    if not can_forget(pipeline) or not isinstance(tokenizer, Tokenizer):
        raise ValueError("only a model with a word list and values of its own can forget words")
    generator = torch.Generator().manual_seed(seed)
    alone = _words_of_their_own(tokenizer)
    chosen = [alone[i] for i in torch.randperm(len(alone), generator=generator)[: round(SHARE * len(alone))].tolist()]
    rows = torch.tensor(sorted({i for noun in chosen for i in _ids(tokenizer, noun)}), dtype=torch.long)
    weights = {name: value.clone() for name, value in pipeline.model.state_dict().items()}
    for name in EMBEDDINGS:
        table = weights[name]
        new = torch.randn(len(rows), table.shape[1], generator=generator).to(table)
        table[rows] = new * (table[1:].norm(dim=1).median() / new.norm(dim=1, keepdim=True))
    forgetful = BcosDiffusionPipeline.from_model(pipeline.model, weights, pipeline.defaults, pipeline.name)
    return forgetful, frozenset(chosen)


def _ids(tokenizer: Tokenizer, noun: str) -> set[int]:
    """The ids of a noun's tokens, singular and plural."""
    return {i for form in (noun, plural(noun)) if form in tokenizer.pieces for i in tokenizer.ids(form)}


def _words_of_their_own(tokenizer: Tokenizer) -> list[str]:
    nouns = sorted({SINGULAR[word] for word in tokenizer.pieces if word in OBJECTS})
    ids = {noun: _ids(tokenizer, noun) for noun in nouns}
    others = {word: {*tokenizer.ids(word)} for word in tokenizer.pieces if word not in OBJECTS}
    used = [*ids.items(), *others.items()]
    return [noun for noun in nouns if not any(ids[noun] & theirs for word, theirs in used if word != noun)]


def prompts_with(forgotten: frozenset[str], count: int, size: int) -> list[Asked]:
    """The first ``count`` test prompts that name a forgotten noun and one that is not, of scenes of side ``size``."""
    found: list[Asked] = []
    for one in asked("test", 20 * count, seed=1, size=size):
        known = [SINGULAR[word] in forgotten for word in one.prompt.split() if word in OBJECTS]
        if any(known) and not all(known) and len(found) < count:
            found.append(one)
    return found


def induced(
    pipeline: BcosDiffusionPipeline,
    segmenter: Segmenter,
    count: int,
    cache: Path | None = None,
    advance: Advance = lambda pictures: None,
) -> list[Judged]:
    """Judged pictures of prompts with forgotten nouns; of the other nouns those alone that were drawn.

    Arguments as for ``observe``. Raises ValueError where the model cannot forget.
    """
    forgetful, forgotten = forget(pipeline)
    wanted = prompts_with(forgotten, count, pipeline.default_size[0])
    judged = judge_observed(segmenter, observe_all(forgetful, wanted, cache, advance))
    return [_without_natural_misses(one, forgotten) for one in judged]


def _without_natural_misses(one: Judged, forgotten: frozenset[str]) -> Judged:
    nouns = [SINGULAR[one.seen.words[i]] for i in one.seen.named]
    kept = [i for i, noun in enumerate(nouns) if noun in forgotten or one.drawn[i]]
    return Judged(_only(one.seen, kept), tuple(one.drawn[i] for i in kept),
                  tuple(tuple(areas[i] for i in kept) for areas in one.areas))  # fmt: skip


def _only(seen: Observed, kept: Sequence[int]) -> Observed:
    named = tuple(seen.named[i] for i in kept)
    return replace(seen, named=named, exact=seen.exact[:, kept], heat=seen.heat[:, kept])
