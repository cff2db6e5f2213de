"""The pairs that go worst, for the report's pictures.

Every log's worst pairs so far, as many as the report may show, are kept as files while the run is at it: some methods
take minutes a pair.
"""

from __future__ import annotations

import heapq
import math
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from zeroflow_core.evaluation import av2_2023
from zeroflow_core.evaluation.journal import Record
from zeroflow_core.evaluation.truth import Estimate
from zeroflow_core.files import new_file

_MIN_POINTS = 20  # of moving foreground, for its mean error to say something


def badness(record: Record) -> float | None:
    """Mean error of the moving foreground (av2-2023), in metres; None where there is hardly any."""
    figures = av2_2023.figures(record["tallies"][av2_2023.NAME])
    return figures["fd"] if figures["num_fd"] >= _MIN_POINTS else None


def keep_if_worst(out: Path, log_id: str, i: int, record: Record, estimate: Estimate, count: int) -> None:
    """Keep the estimate of pair `i` in the run's folder `out` if it is among the `count` worst of its log so far, in
    place of the least bad of them."""
    new = badness(record)
    if new is None or not count:
        return
    others = [path for path in (_folder(out) / log_id).glob("*.npz") if path != _path(out, log_id, i)]
    ranked = sorted(((_kept_badness(path), path) for path in others), reverse=True)
    if len(ranked) >= count and ranked[count - 1][0] >= new:
        return
    keep(out, log_id, i, record, estimate)
    for _, path in ranked[count - 1 :]:
        path.unlink(missing_ok=True)


def keep(out: Path, log_id: str, i: int, record: Record, estimate: Estimate) -> None:
    """Keep the estimate of pair `i` in the run's folder `out`."""
    with new_file(_path(out, log_id, i), "wb") as file:
        np.savez_compressed(file, badness=badness(record), residual=estimate.residual, covered=estimate.covered)


def choose(records: Iterable[Record], count: int) -> list[Record]:
    """The `count` worst pairs, worst first: one of each log, and more of the same logs only if these are too few."""
    worst_of: dict[str, list[tuple[float, int, Record]]] = {}
    for record in records:
        value = badness(record)
        if value is None or not count:
            continue
        heap = worst_of.setdefault(record["log"], [])
        entry = (value, -record["index"], record)
        if len(heap) < count:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    ranked = [sorted(heap, reverse=True) for heap in worst_of.values()]
    first = sorted((entries[0] for entries in ranked), key=_order)[:count]
    others = sorted((entry for entries in ranked for entry in entries[1:]), key=_order)
    return [record for _, _, record in sorted(first + others[: count - len(first)], key=_order)]


def kept(out: Path, record: Record) -> Estimate | None:
    """The estimate that was kept of this pair, if it was."""
    there = _read(_path(out, record["log"], record["index"]), "residual", "covered")
    return None if there is None else Estimate(*there)


def forget_others(out: Path, chosen: Sequence[Record]) -> None:
    """Remove what is kept of pairs that are not among the chosen, and what a killed process had half written."""
    wanted = {_path(out, record["log"], record["index"]) for record in chosen}
    for path in set(_folder(out).glob("*/*.npz")) - wanted:
        path.unlink()
        with suppress(OSError):  # not empty
            path.parent.rmdir()


def _order(entry: tuple[float, int, Record]) -> tuple[float, str, int]:
    return -entry[0], entry[2]["log"], -entry[1]


def _folder(out: Path) -> Path:
    return out / "worst"


def _path(out: Path, log_id: str, i: int) -> Path:
    return _folder(out) / log_id / f"{i}.npz"


def _kept_badness(path: Path) -> float:
    there = _read(path, "badness")
    return -math.inf if there is None else float(there[0])


def _read(path: Path, *names: str) -> list[np.ndarray] | None:
    """The arrays of these names. None where there is no file, or none that can be read: it can be made again."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
