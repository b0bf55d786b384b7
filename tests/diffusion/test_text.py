"""Tokens against open_clip's own tokenizer; words, marks and padding against their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from bcos_diffusion.model import TextToImage
from bcos_diffusion.networks.unet import UNetConfig
from bcos_diffusion.scenes import vocabulary
from bcos_diffusion.text import TextBatch, Tokenizer

CLIP = SimpleTokenizer()
SCENES = Tokenizer(vocabulary())
LONG = Tokenizer(["strawberryish", "cat", "on", "a", ","], length=8)

some_words = st.lists(st.sampled_from(vocabulary()), min_size=1, max_size=6)


def clip_ids(batch: TextBatch, row: int, tokenizer: Tokenizer) -> list[int]:
    """Recover open_clip's ids from compact ones, through the saved form of the vocabulary alone."""
    known = sorted({int(i) for pieces in tokenizer.to_dict()["pieces"].values() for i, _ in pieces})
    return [known[int(i) - 1] for i, real in zip(batch.ids[row], batch.mask[row], strict=True) if real]


@settings(deadline=None, max_examples=60)
@given(some_words)
def test_a_prompt_has_the_tokens_that_open_clip_gives_it_and_decodes_to_itself(words: list[str]) -> None:
    prompt = " ".join(words)
    ids = clip_ids(SCENES.encode([prompt]), 0, SCENES)
    assert ids == CLIP.encode(prompt)
    assert CLIP.decode(ids).split() == words


@settings(deadline=None, max_examples=30)
@given(some_words)
def test_tokens_are_grouped_into_the_words_they_spell(words: list[str]) -> None:
    batch = SCENES.encode([" ".join(words)])
    assert batch.words == [words]
    spelled = [""] * len(words)
    for text, index in zip(batch.texts[0], batch.word_index[0].tolist(), strict=False):
        spelled[index] += text
    assert spelled == words


def test_a_word_of_several_pieces_is_one_word() -> None:
    batch = LONG.encode(["a strawberryish cat"])
    pieces = len(CLIP.encode("strawberryish"))
    assert pieces > 1
    assert batch.word_index[0].tolist() == [0, *[1] * pieces, 2, *[-1] * (6 - pieces)]


def test_case_and_spacing_do_not_matter() -> None:
    spaced, plain = SCENES.encode(["  A Cat,BANANA  "]), SCENES.encode(["a cat , banana"])
    assert spaced.words == plain.words and torch.equal(spaced.ids, plain.ids)


def test_there_are_no_special_tokens_and_padding_is_masked() -> None:
    special = set(CLIP.all_special_ids)
    assert len(special) == 2
    assert not special & {i for pieces in SCENES.pieces.values() for i, _ in pieces}
    batch = SCENES.encode(["a cat", "cat"])
    assert batch.mask.sum(1).tolist() == [2, 1]
    padded = ~batch.mask
    assert (batch.ids[padded] == 0).all() and (batch.word_index[padded] == -1).all()
    assert not batch.value_mask[padded].any()
    assert not SCENES.encode_null(2).mask.any()


def test_only_content_words_carry_values() -> None:
    batch = SCENES.encode(["a cat to the left of two bananas , blue background"])
    carriers = [w for w, carries in zip(batch.words[0], batch.value_mask[0].tolist(), strict=False) if carries]
    assert carriers == ["cat", "bananas", "blue"]


@pytest.mark.parametrize("prompt", ["", "   ", "\n", "()"])
def test_an_empty_prompt_is_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        SCENES.encode([prompt])


def test_unknown_words_are_named_with_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"unknown words: 'bananna' \(did you mean banana.*'xyzzy'"):
        SCENES.encode(["a bananna xyzzy"])


def test_the_limit_is_on_tokens_and_its_edge_is_accepted() -> None:
    assert SCENES.encode(["cat " * SCENES.length]).mask.all()
    with pytest.raises(ValueError, match=f"{SCENES.length + 1} tokens, at most {SCENES.length}"):
        SCENES.encode(["cat " * (SCENES.length + 1)])


def test_a_vocabulary_survives_saving() -> None:
    again = Tokenizer.from_dict(SCENES.to_dict())
    prompts = ["a cat on blue", "two broccolis"]
    assert torch.equal(again.encode(prompts).ids, SCENES.encode(prompts).ids)
    assert len(again) == len(SCENES) == 1 + len({i for p in SCENES.pieces.values() for i, _ in p})


def test_batches_join_in_order() -> None:
    joined = TextBatch.concatenate([SCENES.encode(["cat"]), SCENES.encode(["a dog"])])
    assert joined.words == [["cat"], ["a", "dog"]]
    assert torch.equal(joined.ids, SCENES.encode(["cat", "a dog"]).ids)
    assert joined[1:].words == [["a", "dog"]]


def test_padding_does_not_reach_the_image() -> None:
    torch.manual_seed(0)
    config = UNetConfig(32, 4, (8, 16), 1, (False, True), (True, True), heads=2, text_dim=8, time_dim=8)
    model = TextToImage(config, SCENES, text_depth=1).eval()
    batch = SCENES.encode(["a cat", "left of banana on blue"])
    assert (model.condition(batch).values[~(batch.mask & batch.value_mask)] == 0).all()
    x, t = torch.rand(2, 6, 32, 32), torch.tensor([10, 500])
    with torch.no_grad():
        before = model(x, t, batch)
        model.text.value_table.weight[0] += 3
        model.text.key_table.weight[0] += 3
        assert torch.equal(model(x, t, batch), before)
        model.text.value_table.weight += 3
        assert not torch.allclose(model(x, t, batch), before)
