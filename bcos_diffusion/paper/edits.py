"""Figure 6: one seed and prompts that differ in a word; does the picture change as much as the word was relevant?"""

from __future__ import annotations

import difflib
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcos_diffusion.commands.options import Sampling
from bcos_diffusion.paper.record import described, new_figure, progress, save_figure, show, write_result
from bcos_diffusion.staging import staged

if TYPE_CHECKING:
    from torch import Tensor

    from bcos_diffusion.explain import Explanation
    from bcos_diffusion.pipeline import BcosDiffusionPipeline

PROMPTS = (
    "a penguin to the left of a strawberry on a blue background",
    "a penguin to the left of a pizza on a blue background",
    "a penguin to the left of a strawberry on a yellow background",
    "a penguin to the right of a strawberry on a blue background",
    "a penguin and a cactus to the left of a strawberry on a blue background",
)
KINDS = {"noun": "#c44e52", "colour": "#4c72b0", "relation": "#ccb974", "article": "#8c8c8c"}


@dataclass(frozen=True)
class Edit:
    """What an edit did. taken, given: word numbers in the prompt before and in the one after; rms: over rgb.

    relevance: absolute share (Eq. 8) of the words taken in the picture before, or of those given where none was taken.
    """

    before: str
    after: str
    taken: tuple[int, ...]
    given: tuple[int, ...]
    rms: float
    relevance: float
    kind: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON-ready values, words spelt out."""
        return {
            "before": self.before,
            "after": self.after,
            "kind": self.kind,
            "rms": self.rms,
            "relevance_of_changed_words": self.relevance,
        }


def run(sampling: Sampling, prompts: tuple[str, ...], count: int, out: Path) -> str:
    """Draw the prompts from one seed, and measure random edits of ``count`` test prompts besides."""
    prompts = prompts or PROMPTS
    if len(prompts) < 2 or count < 0:
        raise ValueError(f"give at least two prompts and a count of at least 0, got {len(prompts)} and {count}")
    with staged(out) as folder:
        from bcos_diffusion.explain import explain

        pipeline = sampling.load()
        pipeline.model.tokenizer.encode(prompts)
        with progress(len(prompts) + count, "prompt") as advance:
            explained: list[Explanation] = []
            for prompt in prompts:
                explained.append(explain(pipeline, prompt, seed=sampling.seed, **sampling.arguments(pipeline)))
                advance()
            edits = [compare(explained[0], other) for other in explained[1:]]
            measured: list[list[Edit]] = []
            for number in range(count):
                measured.append(_random_edits(pipeline, number, sampling))
                advance()
        over = summary(measured)
        result = described("Figure 6", sampling, pipeline) | {
            "edits": [edit.to_dict() for edit in edits],
            "words": {e.prompt: [{"text": p.text, "absolute": p.relevance_absolute, "signed": p.relevance_signed}
                                 for p in e.words if not p.negative] for e in explained},
            "over_prompts": over,
            "measured": [edit.to_dict() for group in measured for edit in group],
        }  # fmt: skip
        _draw(explained, edits, measured, over, folder / "edits.png")
        write_result(folder, "edits", result)
    lines = [f"{edit.after}: RMS {edit.rms:.3f}, changed words {100 * edit.relevance:.1f}% relevant" for edit in edits]
    return "\n".join(lines)


def changed_words(before: list[str], after: list[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The numbers of the words that stand only in the one and only in the other, by the shortest edit."""
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    blocks = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    taken = tuple(i for _, first, last, _, _ in blocks for i in range(first, last))
    given = tuple(i for _, _, _, first, last in blocks for i in range(first, last))
    return taken, given


def compare(before: Explanation, after: Explanation) -> Edit:
    """The edit from one explained picture to another of the same seed."""
    words, others = _words(before), _words(after)
    taken, given = changed_words([part.text for part in words], [part.text for part in others])
    relevance = sum(words[i].relevance_absolute for i in taken) or sum(others[i].relevance_absolute for i in given)
    return Edit(before.prompt, after.prompt, taken, given, rms(before.image, after.image), relevance)


def rms(a: Tensor, b: Tensor) -> float:
    """Root mean square of the difference of two pictures ``[3, H, W]``."""
    return float((a - b).double().pow(2).mean().sqrt())


def _words(explanation: Explanation) -> list[Any]:
    return [part for part in explanation.words if not part.negative]


def _random_edits(pipeline: BcosDiffusionPipeline, number: int, sampling: Sampling) -> list[Edit]:
    """One edit of every kind of a random prompt, all from one seed."""
    from bcos_diffusion.explain import explain

    prompt, variants = random_edits(number, pipeline.default_size[0])
    seed = sampling.seed + number
    before = explain(pipeline, prompt, seed=seed, **sampling.arguments(pipeline))
    shares = [part.relevance_absolute for part in _words(before)]
    edits = []
    for kind, after in variants.items():
        image = pipeline.generate([after], seed=seed, **sampling.arguments(pipeline))[0]
        taken, given = changed_words(prompt.split(), after.split())
        relevance = sum(shares[i] for i in taken)
        edits.append(Edit(prompt, after, taken, given, rms(before.image, image), relevance, kind))
    return edits


def random_edits(number: int, size: int = 32) -> tuple[str, dict[str, str]]:
    """A prompt about a scene of side ``size``, and the same with one word of every kind swapped."""
    import numpy as np

    from bcos_diffusion.scenes import COLOURS
    from bcos_diffusion.scenes import nouns as nouns_of

    rng = np.random.Generator(np.random.PCG64([number, 6]))
    nouns = [str(noun) for noun in rng.choice(nouns_of(size), 3, replace=False)]
    colours = [str(colour) for colour in rng.choice(sorted(COLOURS), 2, replace=False)]
    relation, other = (("left", "right"), ("right", "left"), ("above", "below"), ("below", "above"))[rng.integers(4)]

    def write(second: str = nouns[1], colour: str = colours[0], link: str = relation, article: str = "a") -> str:
        return f"the {nouns[0]} {link} {'of ' if link in ('left', 'right') else ''}the {second} on {article} {colour}"

    return write(), {
        "noun": write(second=nouns[2]),
        "colour": write(colour=colours[1]),
        "relation": write(link=other),
        "article": write(article="the"),
    }


def summary(measured: list[list[Edit]]) -> dict[str, Any]:
    """Means by kind, and Spearman's correlation of relevance and change: over all edits, and over some kinds alone."""
    from bcos_diffusion.evaluation.statistics import bootstrap, mean, spearman

    def agreement(prompts: Any, kinds: tuple[str, ...] = tuple(KINDS)) -> float:
        kept = [edit for edits in prompts for edit in edits if edit.kind in kinds]
        return spearman([edit.relevance for edit in kept], [edit.rms for edit in kept]) if kept else float("nan")

    kinds = {}
    for kind in KINDS:
        found = [edit for edits in measured for edit in edits if edit.kind == kind]
        kinds[kind] = {name: bootstrap([getattr(edit, name) for edit in found], mean) for name in ("rms", "relevance")}
    return {
        "prompts": len(measured),
        "kinds": kinds,
        "spearman_all": bootstrap(measured, agreement),
        "spearman_nouns_and_colours": bootstrap(measured, lambda m: agreement(m, ("noun", "colour"))),
        "spearman_nouns": bootstrap(measured, lambda m: agreement(m, ("noun",))),
        "spearman_colours": bootstrap(measured, lambda m: agreement(m, ("colour",))),
    }


def _draw(
    explained: list[Explanation], edits: list[Edit], measured: list[list[Edit]], over: dict[str, Any], path: Path
) -> None:
    """A column a prompt: picture, map of the changed word, relevances; the last column is the scatter of edits."""
    columns = len(explained)
    figure = new_figure(1.7 * columns + (3.2 if measured else 0), 6.2)
    widths = [1.7 * columns, 3.2] if measured else [1.0]
    panels = figure.subfigures(1, len(widths), squeeze=False, width_ratios=widths)[0]
    if measured:
        _scatter(panels[1].subplots(), measured, over)
    upper, lower = panels[0].subfigures(2, 1, squeeze=False, height_ratios=[4.2, 2])[:, 0]
    grid, bars = upper.subplots(2, columns, squeeze=False), lower.subplots(1, columns, squeeze=False)[0]
    changes: list[tuple[int, ...]] = [edits[0].taken, *(edit.given for edit in edits)]
    for column, (explanation, changed) in enumerate(zip(explained, changes, strict=True)):
        title = textwrap.fill(explanation.prompt, 27)
        show(grid[0, column], explanation.image.float().cpu(), title, size=7)
        text = "" if column == 0 else f"\nRMS {edits[column - 1].rms:.3f}"
        _show_words(grid[1, column], explanation, changed, text)
        _bars(bars[column], explanation, changed)
    save_figure(figure, path)


def _show_words(axes: Any, explanation: Explanation, changed: tuple[int, ...], text: str) -> None:
    """The maps of the changed words, added up; each figure on the scale of its own words."""
    from bcos_diffusion.explanation.figure import overlay, word_heat

    words = _words(explanation)
    heat = word_heat(explanation)
    chosen = [i for i in changed if float(heat[i].abs().max()) > 0] or list(changed)
    summed = sum((heat[i] for i in chosen), start=0 * heat[0])
    names = " ".join(words[i].text for i in chosen)
    show(axes, overlay(explanation.image.cpu(), summed.cpu()), f"{names or 'nothing'}{text}", size=8)


def _bars(axes: Any, explanation: Explanation, changed: tuple[int, ...]) -> None:
    words = _words(explanation)
    colours = ["#c44e52" if i in changed else "#b0b0b0" for i in range(len(words))]
    axes.barh(range(len(words)), [100 * part.relevance_absolute for part in words], color=colours)
    axes.set_yticks(range(len(words)), [part.text for part in words], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("absolute relevance, %", fontsize=7)


def _scatter(axes: Any, measured: list[list[Edit]], over: dict[str, Any]) -> None:
    for kind, colour in KINDS.items():
        found = [edit for edits in measured for edit in edits if edit.kind == kind]
        axes.scatter([100 * e.relevance for e in found], [e.rms for e in found], s=14, color=colour, label=kind)
    axes.set_xlabel("absolute relevance of the word swapped, %", fontsize=8)
    axes.set_ylabel("change of the picture, RMS", fontsize=8)
    agreement = over["spearman_all"]
    axes.set_title(
        f"{len(measured)} prompts, each edited four ways\nSpearman {agreement['value']:.2f}"
        f" [{agreement['low']:.2f}, {agreement['high']:.2f}]", fontsize=9
    )  # fmt: skip
    axes.legend(fontsize=8)
