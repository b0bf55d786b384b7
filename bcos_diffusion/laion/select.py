"""Choose the captions that name an object and fit their image best, out of more metadata than fits in memory.

Every source file leaves a piece of its own: the best rows of that file for each object. Pieces are
written whole or not at all, so that an interrupted run goes on with the files that have none, and what
is chosen from them does not depend on the order of files or on how many processes read them.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bcos_diffusion.laion.best import Best, Row
from bcos_diffusion.laion.metadata import EXTRAS, UNREADABLE, Source, find_sources
from bcos_diffusion.laion.scan import Plan, scan
from bcos_kernels.files import write_atomically, write_json

FORMAT = 1
PIECES = ".pieces"


def select(
    places: Sequence[str],
    out: Path,
    plan: Plan,
    workers: int = 1,
    progress: Callable[[int, int, int], object] = lambda done, files, rows: None,
) -> dict[str, Any]:
    """Select from the parquet files of ``places`` into ``out/selection.parquet`` and ``out/selection.json``.

    places: paths, folders, globs or URLs, see :func:`bcos_diffusion.laion.metadata.find_sources`.
    workers: processes that read files. progress: called with files done, files and rows read so far.
    Returns what selection.json holds. Files that cannot be read are skipped and named in it. Raises
    ValueError when no file can be read or no caption names an object, OSError when ``out`` cannot be written.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    sources = find_sources(places)
    pieces = {source: out / PIECES / f"{_identity(source, plan)}.parquet" for source in sources}
    unread: dict[str, str] = {}
    rows = 0
    progress(0, len(sources), 0)
    for done, (source, outcome) in enumerate(_make_pieces(pieces, plan, workers), start=1):
        if isinstance(outcome, str):
            unread[source.path] = outcome
        else:
            rows += outcome
        progress(done, len(sources), rows)
    if len(unread) == len(sources):
        path, reason = min(unread.items())
        raise ValueError(f"none of {len(sources)} files can be read; {path}: {reason}")
    readable = [pieces[source] for source in sources if source.path not in unread]
    summary = _merge(readable, plan, out)
    summary["files"] = {"read": len(readable), "unreadable": [{"file": p, "why": unread[p]} for p in sorted(unread)]}
    write_json(out / "selection.json", summary)
    for old in set((out / PIECES).glob("*.parquet")) - set(pieces.values()):
        old.unlink()
    return summary


def _identity(source: Source, plan: Plan) -> str:
    """A name that changes when the file or the plan does."""
    text = json.dumps([FORMAT, asdict(source), asdict(plan)], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _make_pieces(pieces: dict[Source, Path], plan: Plan, workers: int) -> Iterator[tuple[Source, int | str]]:
    """Yield every source with its number of rows, or with why it cannot be read."""
    if workers == 1:
        for source, piece in pieces.items():
            yield source, _make_piece(source, plan, piece)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(pieces)), context, initializer=_leave_interrupts_to_the_parent)
    try:
        jobs = {pool.submit(_make_piece, source, plan, piece): source for source, piece in pieces.items()}
        for job in as_completed(jobs):
            yield jobs[job], job.result()
    except BrokenProcessPool:
        raise OSError("a process that read files was ended, by lack of memory perhaps; run again to go on") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _make_piece(source: Source, plan: Plan, piece: Path) -> int | str:
    """Write the best rows of one file, unless that was done; returns its number of rows or what is wrong with it."""
    if piece.exists():
        return int(_counts(pq.read_schema(piece))["rows"])
    best = [Best(plan.per_object) for _ in plan.objects]
    try:
        counts = scan(source, plan, best)
    except UNREADABLE as error:
        return " ".join(str(error).split()) or type(error).__name__
    found = [(number, key, row) for number, kept in enumerate(best) for key, row in kept.items()]
    columns = {
        "object": pa.array([number for number, *_ in found], pa.int32()),
        **_columns([(key, row) for _, key, row in found]),
    }
    table = pa.table(columns).replace_schema_metadata({"counts": json.dumps(counts)})
    write_atomically(piece, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
    return counts["rows"]


def _columns(found: Sequence[tuple[str, Row]]) -> dict[str, pa.Array]:
    columns = {
        "key": pa.array([key for key, _ in found], pa.string()),
        "url": pa.array([row.url for _, row in found], pa.string()),
        "caption": pa.array([row.caption for _, row in found], pa.string()),
        "similarity": pa.array([row.similarity for _, row in found], pa.float64()),
    }
    extras = {name: pa.array([row.extras[i] for _, row in found], pa.float64()) for i, name in enumerate(EXTRAS)}
    return columns | extras


def _counts(schema: pa.Schema) -> Counter[str]:
    return Counter(json.loads(schema.metadata[b"counts"]))


def _merge(pieces: Sequence[Path], plan: Plan, out: Path) -> dict[str, Any]:
    """Write the selection out of the pieces; returns its summary."""
    best = [Best(plan.per_object) for _ in plan.objects]
    counts: Counter[str] = Counter()
    for piece in pieces:
        table = pq.read_table(piece)
        counts.update(_counts(table.schema))
        for line in table.to_pylist():
            extras = tuple(line[name] for name in EXTRAS)
            best[line["object"]].add(Row(line["similarity"], line["url"], line["caption"], extras))
    chosen: dict[str, tuple[Row, list[str]]] = {}
    about = {}
    for item, kept in zip(plan.objects, best, strict=True):
        items = kept.items()
        about[item.name] = {
            "forms": list(item.forms),
            "matched": counts.pop(f"matched {item.name}", 0),
            "selected": len(items),
            "lowest_similarity": items[-1][1].similarity if items else None,
        }
        for key, row in items:
            chosen.setdefault(key, (row, []))[1].append(item.name)
    if not chosen:
        raise ValueError(f"no caption among {counts['rows']:,} rows names any of: {', '.join(about)}")
    # Keys are digests: their order mixes objects and hosts, and is the same every time.
    order = sorted(chosen)
    columns = _columns([(key, chosen[key][0]) for key in order])
    columns["objects"] = pa.array([chosen[key][1] for key in order], pa.list_(pa.string()))
    table = pa.table(columns)
    write_atomically(out / "selection.parquet", lambda temporary: pq.write_table(table, temporary))
    return {
        "per_object": plan.per_object,
        "limits": {name: f"{side} {limit:g}" for name, (side, limit) in plan.limits.items()},
        "rows": counts.pop("rows"),
        "skipped": dict(sorted(counts.items())),
        "objects": about,
        "pairs": len(chosen),
        "pairs_of_several_objects": sum(len(names) > 1 for _, names in chosen.values()),
    }


def describe(summary: dict[str, Any]) -> str:
    """A summary in a few lines: what each object has, what was skipped, which files could not be read."""
    lines = [f"{summary['pairs']:,} pairs of image and caption out of {summary['rows']:,} rows"]
    for name, about in summary["objects"].items():
        forms = ", ".join(about["forms"])
        if not about["selected"]:
            lines.append(f"  {name}: none ({forms})")
            continue
        short = "" if about["selected"] == summary["per_object"] else f", fewer than {summary['per_object']:,}"
        lines.append(
            f"  {name}: {about['selected']:,} of {about['matched']:,}, similarity from"
            f" {about['lowest_similarity']:.4f}{short} ({forms})"
        )
    if summary["pairs_of_several_objects"]:
        lines.append(f"  {summary['pairs_of_several_objects']:,} pairs are of several objects")
    lines += [f"  {count:,} rows skipped: {reason}" for reason, count in summary["skipped"].items()]
    lines += [f"  not read: {entry['file']}: {entry['why']}" for entry in summary["files"]["unreadable"]]
    return "\n".join(lines)
