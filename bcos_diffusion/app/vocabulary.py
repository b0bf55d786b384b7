"""What a model can be asked for: its words, and prompts to begin with, made of words that it knows."""

from __future__ import annotations

from bcos_diffusion.evaluation.words import OBJECTS, group, is_content
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_diffusion.scenes.lexicon import plural

FAVOURITES = "cat banana owl balloon duck fox sunflower penguin strawberry rocket pizza robot".split()
"""Nouns to begin with where a model knows them; its own others follow."""
FORMS = (
    "a {0} left of a {1} on a blue background",
    "{2} , {3} and {4} on red",
    "three {5} on a green background",
    "{6} yellow",
    "a {7} above a {8} on purple",
)


def known_words(pipeline: BcosDiffusionPipeline) -> dict[str, list[str]]:
    """The words of a model with its own word list, by kind, plurals left out; none for one that reads any text."""
    words = list(getattr(pipeline.model.tokenizer, "pieces", {}))
    return {
        "things": _nouns(words),
        "colours": [word for word in words if group(word) == "colour"],
        "others": [word for word in words if word[0].isalnum() and not is_content(word)],
    }


def examples(pipeline: BcosDiffusionPipeline) -> list[str]:
    """Prompts that the model can read, at least one: of its own first nouns, in several forms."""
    nouns = known_words(pipeline)["things"]
    chosen = [noun for noun in FAVOURITES if noun in nouns] if nouns else FAVOURITES
    chosen += [noun for noun in nouns if noun not in chosen]
    filled = [_fill(form, chosen) for form in FORMS] if len(chosen) >= 9 else []
    readable = [prompt for prompt in filled if _reads(pipeline, prompt)]
    return readable or chosen[:3]


def _nouns(words: list[str]) -> list[str]:
    """Content words that name no colour and are no plural of another word."""
    content = [word for word in words if is_content(word) and group(word) != "colour"]
    plurals = {plural(word) for word in content}
    return [word for word in content if word not in plurals or (word in OBJECTS and plural(word) in content)]


def _fill(form: str, nouns: list[str]) -> str:
    forms = list(nouns[:9])
    forms[5] = plural(forms[5])
    return form.format(*forms)


def _reads(pipeline: BcosDiffusionPipeline, prompt: str) -> bool:
    try:
        pipeline.tokenize(prompt)
    except ValueError:
        return False
    return True
