"""The tables of docs/evaluation.md, from the ``report.json`` of ``bcos-diffusion evaluate``.

What is best and which targets are reached is decided where the page decides it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from markdown_tables import interval, markdown

from bcos_diffusion.evaluation.page import absent, axioms, faithful, quality, where
from bcos_diffusion.evaluation.page.measures import METHODS
from bcos_diffusion.evaluation.page.overview import duration
from bcos_diffusion.evaluation.page.results import number_at, part
from bcos_diffusion.evaluation.page.targets import Target, beside_twin, targets
from bcos_diffusion.page.html import SIGNS
from bcos_diffusion.page.section import Cell, Section, Table

NOTHING = "Not yet measured."


def overview(result: dict[str, Any]) -> str:
    """The targets, each with what was measured; those beside the twin have their own run and table."""
    apart = {target.what for target in beside_twin(result)}
    settings, found = part(result, "settings") or {}, part(result, "provenance") or {}
    machine = part(found, "machine") or {}
    caption = (
        f"Model `{part(result, 'name')}`, {settings.get('scenes')} test scenes, {settings.get('validation')} validation"
        f" scenes, {settings.get('pictures')} pictures for image quality; {machine.get('device')},"
        f" {duration(number_at(result, 'seconds').value)}, commit {str(found.get('commit'))[:7]}."
    )
    return f"{caption}\n\n{_targets([target for target in targets(result) if target.what not in apart])}"


def pictures(result: dict[str, Any]) -> str:
    """The targets beside the twin, and the tables behind them."""
    found = tables_of(quality.section(result))
    return found if found == NOTHING else f"{_targets(beside_twin(result))}\n\n{found}"


def _targets(judged: Iterable[Target]) -> str:
    rows = [[target.what, target.bar, target.verdict, target.measured] for target in judged]
    return markdown(["what", "target", "verdict", "measured, 95% interval"], _escaped(rows))


def tables_of(section: Section, keep: Callable[[Table], bool] = lambda table: True) -> str:
    """The tables of a section of the page as markdown, each under its caption, with its notes."""
    chosen = [table for table in section.tables if keep(table)]
    return "\n\n".join(map(_table, chosen)) if chosen else NOTHING


def _table(table: Table) -> str:
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    notes = "".join(f"\n- {note}" for note in table.notes)
    return f"{table.caption}:\n\n{markdown(list(table.heads), _escaped(rows))}" + (f"\n{notes}" if notes else "")


def _cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return cell
    text = f"{cell.text} {cell.interval}".strip()
    return f"{SIGNS[cell.mark][0]} {text}" if cell.mark else text


def _escaped(rows: Iterable[Iterable[str]]) -> list[list[str]]:
    """Bars within cells would end them."""
    return [[cell.replace("|", "\\|") for cell in row] for row in rows]


def tried(result: Mapping[str, Any]) -> str:
    """What was tried to make explanations better, with what it changed."""
    rows = [[str(row.get(column, "")) for column in result["columns"]] for row in result["rows"]]
    caption = result.get("caption", "")
    return (f"{caption}\n\n" if caption else "") + markdown(list(result["columns"]), _escaped(rows))


def scores(result: Mapping[str, Any]) -> str:
    """Ways to score a word by its contribution, each against what dropping the word does."""
    columns = [name for name in result["rows"][0] if name != "score"]
    rows = [[row["score"], *(interval(row[column]) for column in columns)] for row in result["rows"]]
    caption = (
        f"Model `{result['model']}`, {result['scenes']} validation scenes at four noise levels and {result['runs']}"
        f" pictures drawn of their captions; Spearman with dropping a word, 95% intervals. In use: tint"
        f" {result['used']:g}."
    )
    return f"{caption}\n\n{markdown(['score', *columns], rows)}"


SUMMARY = {"miou": "mIoU, %", "ap": "pixel AP, %", "leakage": "on other objects, %", "colour_mass": "colour words, %"}


def summary(result: dict[str, Any]) -> str:
    """The few numbers of real scenes that the README shows, a row a method."""
    methods = part(result, "regime_a", "methods") or {}
    labels, rows = where.labels(methods), []
    for method in (name for name in labels if name in methods):
        measured = methods[method]
        spearman = number_at(result, "faithfulness", "one_step", method, "drop", "spearman_token")
        found = [number_at(measured, measure).both(100) for measure in SUMMARY]
        rows.append([labels[method], *found, spearman.both(1, 2)])
    scenes = number_at(result, "regime_a", "scenes").value
    caption = f"Model `{part(result, 'name')}`, {scenes:.0f} test scenes, four noise levels; 95% intervals."
    heads = ["a word's map", *SUMMARY.values(), "Spearman with dropping the word"]
    return f"{caption}\n\n{markdown(heads, _escaped(rows))}"


def speech(result: dict[str, Any]) -> str:
    """Coverage and mean of maps by part of speech, a column pair a method."""
    methods, settings = result["methods"], result["settings"]
    heads, rows = ["part of speech", "words"], []
    for name in methods:
        heads += [f"{METHODS[name]}: coverage, %", "mean, own scale"]
    for part_of_speech, counted in next(iter(methods.values())).items():
        cells = [part_of_speech, str(counted["words"])]
        for found in methods.values():
            measured = found[part_of_speech]
            cells += [interval(measured["coverage"], 100, 1), interval(measured["mean"], 1, 3)]
        rows.append(cells)
    caption = (
        f"{settings['pictures']} pictures of captions of test scenes, {settings['steps']} steps, guidance"
        f" {settings['guidance']:g}; coverage at {settings['tau']:g} of a map's maximum; 95% intervals."
    )
    return f"{caption}\n\n{markdown(heads, _escaped(rows))}"


def model(result: dict[str, Any]) -> str:
    """A model in short: its targets, its words on real scenes, its pictures, and what it says of missing words."""
    told = tables_of(absent.section(result), lambda table: bool(re.search(r"after step (\d+) of \1$", table.caption)))
    return "\n\n".join([overview(result), summary(result), tables_of(quality.section(result)), told])


def _regime(number: int) -> Callable[[dict[str, Any]], str]:
    return lambda result: tables_of(where.sections(result)[number])


PAGE, SOURCE, TWIN = "docs/evaluation.md", "evaluation_report.json", "evaluation_twin.json"
FINE = "evaluation_scenes-64.json"
TABLES: dict[str, tuple[str, str, Callable[[dict[str, Any]], str]]] = {
    "evaluation_summary": ("README.md", SOURCE, summary),
    "evaluation_targets": (PAGE, SOURCE, overview),
    "evaluation_regime_a": (PAGE, SOURCE, _regime(0)),
    "evaluation_regime_b": (PAGE, SOURCE, _regime(1)),
    "evaluation_faithfulness": (PAGE, SOURCE, lambda result: tables_of(faithful.section(result))),
    "evaluation_missing": (PAGE, SOURCE, lambda result: tables_of(absent.section(result))),
    "evaluation_quality": (PAGE, TWIN, pictures),
    "evaluation_twin": (PAGE, TWIN, summary),
    "evaluation_scenes_64": (PAGE, FINE, model),
    "evaluation_axioms": (PAGE, SOURCE, lambda result: tables_of(axioms.section(result))),
    "speech": ("docs/baselines.md", "speech.json", speech),
    "evaluation_tried": (PAGE, "evaluation_tried.json", tried),
    "evaluation_scores": (PAGE, "evaluation_scores.json", scores),
}
