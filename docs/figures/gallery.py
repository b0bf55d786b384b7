"""Draw the pictures of ``docs/gallery.md`` and write what it says of them.

    python docs/figures/gallery.py

Prompts and seeds are fixed and nothing is chosen by hand: the segmenter says which pictures show what was asked for.
Run it again when the shipped weights change. A picture is ``docs/images/gallery-NN.png``; the page is written between
its markers ``<!-- NAME gallery -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bcos_diffusion.evaluation.drawn_objects import Drawn, judge
from bcos_diffusion.evaluation.segmenter import Segmenter
from bcos_diffusion.evaluation.words import SINGULAR, is_content
from bcos_diffusion.explain import Explanation, explain
from bcos_diffusion.explanation.figure import label, percent, word_heat
from bcos_diffusion.explanation.overlay import overlay
from bcos_diffusion.missing import Scored, score
from bcos_diffusion.paper.record import new_figure, save_figure, show
from bcos_diffusion.pipeline import BcosDiffusionPipeline
from bcos_kernels.files import write_atomically

DOCS = Path(__file__).parent.parent
PROMPTS = (
    "an apple on a white background",
    "a castle on a blue background",
    "a penguin on an orange background",
    "purple octopus",
    "a rocket on a black background",
    "a cat left of a banana on a blue background",
    "a strawberry above a teapot on a green background",
    "a dog right of a tree on a yellow background",
    "a lemon below an umbrella on a gray background",
    "an owl and a snowman on a pink background",
    "two cookies on a purple background",
    "three carrots on a blue background",
    "four stars on a black background",
    "bear , guitar and lemon on green",
    "owl , balloon and duck on red",
    "a train , a crown and a pumpkin on a white background",
    "cat , dog , fish and frog on orange",
    "key , heart , moon and house on brown",
    "a white ghost",
    "a flamingo left of a flamingo on a pink background",
)  # fmt: skip
TILE = 1.25  # inches


@dataclass(frozen=True)
class Shown:
    """A picture of the gallery: its explanation, what the segmenter sees in it, what its explanation says of words."""

    number: int
    explanation: Explanation
    seen: Drawn
    words: tuple[str, ...]
    scores: tuple[Scored, ...]

    @property
    def wrong(self) -> list[str]:
        """What of the prompt the picture does not show, by the segmenter."""
        said = [f"no {noun}" for noun in self.seen.named if noun in self.seen.missing]
        for (noun, wanted), right in zip(self.seen.named.items(), self.seen.counts_right(), strict=True):
            if not right and noun not in self.seen.missing:
                said.append(f"{noun} × {self.seen.counts[noun]} for {wanted or 'several'}")
        said += [f"{noun}, which nobody asked for" for noun in sorted(self.seen.extra)]
        if self.seen.colour_right(self.words) is False:
            said.append(f"a background of {self.seen.colour or 'no colour'}")
        if self.seen.relation_holds(self.words) is False and not self.seen.missing:
            said.append("the two not where the prompt puts them")
        return said

    @property
    def doubted(self) -> list[str]:
        """The words that the explanation holds for missing, and whether the segmenter agrees."""
        doubted = [scored.word for scored in self.scores if not scored.drawn]
        return [word if SINGULAR.get(word) in self.seen.missing else f"{word} (which is there)" for word in doubted]

    @property
    def unnoticed(self) -> list[str]:
        """The words that are missing, and that the explanation does not doubt."""
        return [
            scored.word for scored in self.scores if scored.drawn and SINGULAR.get(scored.word) in self.seen.missing
        ]


def draw(pipeline: BcosDiffusionPipeline, segmenter: Segmenter, number: int) -> Shown:
    """Draw and explain a prompt of the list, from its number as the seed, and judge what was drawn."""
    explanation = explain(pipeline, PROMPTS[number], seed=number)
    words = tuple(part.text for part in explanation.words)
    seen = judge(segmenter, explanation.image[None], [words])[0]
    return Shown(number, explanation, seen, words, score(explanation))


def picture(shown: Shown) -> Path:
    """Write a row: the picture, what words alone reconstruct, and the map of every word that carries a value."""
    found = shown.explanation
    probabilities = {scored.position: scored.probability for scored in shown.scores}
    speaking = [i for i, word in enumerate(shown.words) if is_content(word)]
    figure = new_figure(TILE * (2 + len(speaking)), TILE + 0.5)
    axes = figure.subplots(1, 2 + len(speaking))
    show(axes[0], found.image, "picture\n", 8)
    show(axes[1], found.reconstruction, "its words\nalone", 8)
    heats = word_heat(found)
    for place, i in zip(axes[2:], speaking, strict=True):
        there = f"{probabilities[i]:.0%} there" if i in probabilities else ""
        part = found.words[i]
        show(place, overlay(found.image, heats[i]), f"{label(part)} {percent(part.relevance_signed)}\n{there}", 8)
    path = DOCS / "images" / f"gallery-{shown.number:02d}.png"
    save_figure(figure, path)
    return path


def entry(shown: Shown, path: Path) -> str:
    """A picture of the page in Markdown: the prompt, the row, and what is to be said of it."""
    prompt = shown.explanation.prompt
    said = [("What the segmenter sees", shown.wrong), ("Words that the explanation doubts", shown.doubted)]
    said.append(("Missing words that it does not doubt", shown.unnoticed))
    tokens, noise = (percent(shown.explanation.budget[name]) for name in ("tokens", "x_T"))
    lines = [*(f"{what}: {'; '.join(found)}." for what, found in said if found), f"Words gave {tokens}, x_T {noise}."]
    alt = f"The picture of “{prompt}”, what its words alone give, and a map per word"
    return f"**{prompt}** (seed {shown.number})\n\n![{alt}](images/{path.name})\n\n" + "\n".join(lines) + "\n"


def fill(page: Path, name: str, text: str) -> None:
    """Put text between the page's markers of this name. Raises ValueError where it has none."""
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    filled, count = block.subn(lambda match: f"{match[1]}{text}{match[2]}", page.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{page} must have one place between <!-- {name} --> and <!-- end -->, got {count}")
    write_atomically(page, lambda temporary: temporary.write_text(filled, encoding="utf-8"))


def main() -> None:
    """Draw every prompt, and write the pictures and the page."""
    pipeline = BcosDiffusionPipeline.from_pretrained()
    segmenter = Segmenter.of(pipeline)
    drawn, failed = [], []
    for number in range(len(PROMPTS)):
        shown = draw(pipeline, segmenter, number)
        (failed if shown.wrong else drawn).append(entry(shown, picture(shown)))
        print(f"{number:2d} {PROMPTS[number]}: {'; '.join(shown.wrong) or 'as asked'}")
    page = DOCS / "gallery.md"
    count = f"{len(drawn)} of {len(PROMPTS)} pictures, by {pipeline.name} and {segmenter.name}.\n\n"
    fill(page, "drawn gallery", count + "\n".join(drawn))
    fill(page, "failed gallery", count.replace(str(len(drawn)), str(len(failed)), 1) + "\n".join(failed))


if __name__ == "__main__":
    main()
