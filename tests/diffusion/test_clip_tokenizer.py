"""CLIP's layout against open_clip's own tokenizer, and the words that pieces spell."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from bcos_diffusion.text.clip_tokenizer import ClipTokenizer

CLIP = SimpleTokenizer()
VISIBLE, MASKED = ClipTokenizer(), ClipTokenizer(special="masked")


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=120))
def test_any_text_has_the_ids_that_open_clip_gives_it(text: str) -> None:
    expected = CLIP([text])
    for tokenizer in (VISIBLE, MASKED):
        if not CLIP.encode(text):
            with pytest.raises(ValueError, match="is empty"):
                tokenizer.encode([text], cut=True)
        else:
            assert torch.equal(tokenizer.encode([text], cut=True).ids, expected)


def test_an_empty_prompt_is_start_and_end() -> None:
    for tokenizer, visible in ((VISIBLE, 77), (MASKED, 0)):
        null = tokenizer.encode_null(2)
        assert torch.equal(null.ids, CLIP(["", ""]))
        assert null.mask.sum(1).tolist() == [visible, visible] and not null.value_mask.any()


def test_words_are_put_together_from_pieces_and_repeated_words_kept_apart() -> None:
    batch = VISIBLE.encode(["Two FLAMINGOS, two flamingos' eggs"])
    assert batch.words[0] == ["[SOS]", "two", "flamingos", ",", "two", "flamingos", "'", "eggs", "[EOS]", "[PAD]"]
    assert batch.texts[0][:9] == ["[SOS]", "two", "flamin", "gos", ",", "two", "flamin", "gos", "'"]
    assert batch.texts[0][9:12] == ["eggs", "[EOS]", "[PAD]"] and len(batch.texts[0]) == 77
    assert batch.word_index[0, :12].tolist() == [0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 9]
    assert batch.word_index[0, 11:].eq(9).all()
    assert torch.equal(batch.special[0], ~batch.value_mask[0])


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(codec="ascii"), max_size=60))
def test_pieces_spell_their_words(text: str) -> None:
    if not CLIP.encode(text):
        return
    batch = VISIBLE.encode([text], cut=True)
    spelled = [""] * len(batch.words[0])
    for piece, index in zip(batch.texts[0], batch.word_index[0].tolist(), strict=True):
        spelled[index] += piece
    assert spelled[1:-2] == batch.words[0][1:-2] or len(CLIP.encode(text)) > 75


def test_masked_layouts_show_no_padding_and_hide_start_and_end() -> None:
    batch = MASKED.encode(["a cat", "cat"])
    assert batch.words == [["[SOS]", "a", "cat", "[EOS]"], ["[SOS]", "cat", "[EOS]"]] == batch.texts
    assert batch.mask.nonzero().tolist() == [[0, 1], [0, 2], [1, 1]]
    assert torch.equal(batch.mask, batch.value_mask)
    assert batch.word_index[1, 3:].eq(-1).all() and batch.special.sum(1).tolist() == [2, 2]


def test_characters_of_several_bytes_are_one_word() -> None:
    batch = VISIBLE.encode(["caf\u00e9 \U0001f9a9 \u732b"])
    assert batch.words[0][1:4] == ["caf\u00e9", "\U0001f9a9", "\u732b"]
    assert "caf\u00e9" in batch.texts[0]
    assert batch.value_mask.sum().item() == len(CLIP.encode("caf\u00e9 \U0001f9a9 \u732b"))


def test_html_and_broken_unicode_are_cleaned_as_open_clip_cleans_them() -> None:
    assert VISIBLE.encode(["salt &amp; pepper"]).words[0][1:4] == ["salt", "&", "pepper"]
    assert VISIBLE.encode(["schÃ¶n"]).words[0][1] == "schön"


def test_numbers_are_split_into_digits() -> None:
    assert VISIBLE.encode(["2024"]).words[0][1:-2] == ["2", "0", "2", "4"]


def test_long_prompts_are_cut_only_when_asked() -> None:
    tokenizer, text = ClipTokenizer(length=6), "a cat on a red mat"
    with pytest.raises(ValueError, match="the prompt has 6 tokens, at most 4 are accepted"):
        tokenizer.encode([text])
    batch = tokenizer.encode([text], cut=True)
    assert torch.equal(batch.ids, CLIP([text], context_length=6))
    assert batch.words == [["[SOS]", "a", "cat", "on", "a", "[EOS]"]]


def test_what_is_no_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="special must be one of"):
        ClipTokenizer(special="hidden")
    with pytest.raises(ValueError, match="at least 3"):
        ClipTokenizer(length=2)
    again = ClipTokenizer.from_dict(ClipTokenizer(9, "masked").to_dict())
    assert (again.length, again.special, len(again)) == (9, "masked", 49408)
