"""The top of the page: which targets were reached, and what was measured on what."""

from __future__ import annotations

from typing import Any

from bcos_diffusion.evaluation.page.results import number_at, part
from bcos_diffusion.evaluation.page.targets import Target, targets
from bcos_diffusion.page.section import Cell, Mark, Section, Table


def lead(result: Any) -> list[str]:
    """The first sentences: how many targets were reached, which were missed, and on how much data."""
    judged = targets(result)
    by = {state: [t for t in judged if t.reached is state] for state in (True, False, None)}
    counts = (len(by[True]), len(judged), len(by[False]), len(by[None]))
    sentences = ["{} of {} targets reached, {} missed, {} not measured.".format(*counts)]
    if by[False]:
        sentences.append("Missed: " + "; ".join(f"{t.what} ({t.bar}): {t.measured}" for t in by[False]) + ".")
    if part(result, "complete") is False:
        done, whole = (number_at(result, "shards", key).text(1, 0) for key in ("done", "all"))
        sentences.append(f"This run is not finished: {done} of {whole} shards are done, and numbers are of these.")
    scenes, pictures = (number_at(result, "settings", key) for key in ("scenes", "pictures"))
    if scenes.known:
        drawn = f" and {pictures.text(1, 0)} drawn pictures" if pictures.known and part(result, "quality") else ""
        sentences.append(f"Model {part(result, 'name') or 'unnamed'}, {scenes.text(1, 0)} real test scenes{drawn}.")
    return sentences


def targets_section(result: Any) -> Section:
    """Every target with what was measured."""
    rows = tuple((t.what, t.bar, Cell(t.verdict, mark=_mark(t)), t.measured) for t in targets(result))
    return Section(
        "targets",
        "Targets",
        ("What explanations of this model must reach on test scenes. A bar is reached when the measured value itself"
         " does; where its 95% interval crosses the bar, another set of scenes might have decided otherwise.",),
        tables=(Table("Targets", ("what", "target", "verdict", "measured, 95% interval"), rows, prose=True),),
    )  # fmt: skip


def _mark(target: Target) -> Mark:
    return {True: "reached", False: "missed", None: "unknown"}[target.reached]  # type: ignore[return-value]


def measured_section(result: Any) -> Section:
    """What was measured on what: model, data, settings, machine, versions, date and duration."""
    found = part(result, "provenance") or {}
    machine = part(found, "machine") or part(result, "machine") or {}
    rows = [
        ("model", part(result, "name") or found.get("model")),
        ("hash of its weights (SHA-256)", found.get("model_sha256")),
        ("hash of the ordinary twin's weights", found.get("twin_sha256")),
        ("segmenter", found.get("segmenter")),
        *((name.replace("_", " "), value) for name, value in (part(result, "settings") or {}).items()),
        ("machine", _machine(machine)),
        ("commit", found.get("commit")),
        *((f"version of {name}", value) for name, value in (found.get("versions") or {}).items()),
        ("date", part(result, "date")),
        ("duration", duration(number_at(result, "seconds").value)),
    ]
    table = tuple((name, _plain(value)) for name, value in rows if value not in (None, "", {}, []))
    return Section(
        "measured", "What was measured on what", tables=(Table("Run", ("what", "value"), table, prose=True),),
        missing="" if table else "the result does not say where it comes from",
    )  # fmt: skip


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds; empty for NaN."""
    if not seconds >= 0:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 s"


def _machine(machine: Any) -> str:
    if isinstance(machine, str):
        return machine
    return ", ".join(f"{value} {key}" if key in ("cores", "threads") else str(value)
                     for key, value in machine.items() if value not in (None, "", "cpu"))  # fmt: skip


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(v)}" for key, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
