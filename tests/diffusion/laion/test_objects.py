"""Captions name an object in singular or plural, and never inside a longer word."""

import re

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references.laion import names

from bcos_diffusion.laion.objects import PAPER, Matcher, parse_objects

CATS = Matcher(parse_objects(["cat"]))
ACCENT = "\u0301"  # combining acute


def found(matcher: Matcher, caption: str) -> list[bool]:
    """Which objects a caption names; the pass over many captions may not lose any."""
    named = matcher.named([caption])[0].tolist()
    assert bool(matcher.candidates(pa.array([caption]))[0]) or not any(named)
    return named


@pytest.mark.parametrize(
    "caption",
    "cat|CATS!|a Cat|my cat's toy|cat2|2cats|black-cat_3|cat\nand|«cats»|scat cat|❤️cat|cat,dog".split("|"),
)
def test_the_name_stands_free(caption: str) -> None:
    assert found(CATS, caption) == [True]


@pytest.mark.parametrize(
    "caption",
    f"category|tomcat|catss|scats|écat|caté|кcat|cat猫|c at|ca||Cate|catß|e{ACCENT}cat|cats{ACCENT} concat".split("|"),
)
def test_letters_of_any_alphabet_adjoin(caption: str) -> None:
    assert found(CATS, caption) == [False]


@settings(max_examples=200, deadline=None)
@given(st.text("catsCATS'2é -_\n猫b", max_size=12))
def test_agrees_with_looking_at_every_neighbour(caption: str) -> None:
    assert found(CATS, caption) == [names(caption, ("cat", "cats"))]


def test_the_paper_has_five_objects_in_singular_and_plural() -> None:
    forms = {item.name: item.forms for item in parse_objects(PAPER)}
    assert forms == {
        "banana": ("banana", "bananas"),
        "cat": ("cat", "cats"),
        "goat": ("goat", "goats"),
        "flamingo": ("flamingo", "flamingos", "flamingoes"),
        "penguin": ("penguin", "penguins"),
    }


def test_irregular_plurals_and_names_of_several_words_with_accents() -> None:
    objects = parse_objects(["goose=geese", "sheep=", "polar bear", "jalapeño", "T.rex=T.rexes"])
    assert [item.forms for item in objects[:3]] == [("goose", "geese"), ("sheep",), ("polar bear", "polar bears")]
    matcher = Matcher(objects)
    assert found(matcher, "Geese and a sheep") == [True, True, False, False, False]
    assert found(matcher, "gooses and sheeps") == [False] * 5
    assert found(matcher, "Polar Bears") == [False, False, True, False, False]
    assert found(matcher, "JALAPEÑOS") == found(matcher, "jalapen\u0303o") == [False, False, False, True, False]
    assert found(matcher, "T.rex") == [False] * 4 + [True] and found(matcher, "Tarex") == [False] * 5


def test_null_captions_name_nothing() -> None:
    assert CATS.candidates(pa.array(["cat", None, "dog"])).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("objects", "says"),
    [
        ([], "at least one object"),
        (["cat", "Cat"], "given twice: cat"),
        (["12"], "'12' of object '12' must begin and end with a letter"),
        ([""], "must begin and end with a letter"),
        (["cat="], None),
        (["goose=geese,3"], "'3' of object"),
        (["cat\n"], None),
    ],
)
def test_objects_that_cannot_be_meant_are_refused(objects: list[str], says: str | None) -> None:
    if says is None:
        assert parse_objects(objects)[0].name == "cat"
    else:
        with pytest.raises(ValueError, match=re.escape(says)):
            parse_objects(objects)
