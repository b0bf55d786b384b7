"""Prompts are the same every time, name several objects, and splits share nothing."""

import pytest

from bcos_diffusion.evaluation.words import OBJECTS
from bcos_diffusion.missing.corpus import asked
from bcos_diffusion.scenes import COLOURS, held_out_pairs, vocabulary
from bcos_diffusion.scenes.lexicon import plural
from bcos_diffusion.text import Tokenizer


@pytest.mark.parametrize("size", [32, 64])
def test_splits_are_disjoint_and_seeded(size: int) -> None:
    validation, test = asked("validation", 200, size=size), asked("test", 200, size=size)
    assert validation == asked("validation", 200, size=size) != asked("validation", 200, 1, size)
    assert not {a.prompt for a in validation} & {a.prompt for a in test}
    assert not {a.seed for a in validation} & {a.seed for a in test}
    assert len({a.prompt for a in test}) == 200
    Tokenizer(vocabulary(size)).encode([a.prompt for a in validation + test])


def test_prompts_name_objects_and_hold_pairs_out() -> None:
    named = [[w for w in a.prompt.split() if w in OBJECTS] for a in asked("validation", 400)]
    shares = {n: sum(len(words) == n for words in named) / 400 for n in (1, 2, 3, 4)}
    assert sum(shares.values()) == 1 and all(share > 0.05 for share in shares.values())
    for one in asked("validation", 400):
        words = one.prompt.split()
        nouns = {n for _, n in held_out_pairs() if n in words or plural(n) in words}
        assert not {(c, n) for c in words if c in COLOURS for n in nouns} & held_out_pairs()


@pytest.mark.parametrize(("split", "count"), [("train", 5), ("test", 0)])
def test_mistakes(split: str, count: int) -> None:
    with pytest.raises(ValueError, match="split must be one of"):
        asked(split, count)
