"""The pair that the teacher is measured on: of a labelled log, or simulated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zeroflow_core.datasets.av2 import Log, find_split
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.truth import has_labels
from zeroflow_core.ground import Patchwork, mark_ground
from zeroflow_core.pairs import FramePair, make_pair

_SIMULATED = {"seed": 7, "scanner": "av2", "scene": "street"}
_MOST_SIMULATED = 16  # pairs of a batch that are different; making them takes time, too


@dataclass(frozen=True)
class Source:
    """Where the pair is: sweeps `index` and `index` + 1 of a log. origin: plain data that says where it is from"""

    log: Path
    index: int
    origin: dict[str, Any]


@contextmanager
def choose_pair(data: Path | None, split: str, pair: str | None, pairs: int) -> Iterator[Source]:
    """The pair of a log to measure: the one that --data, --split and --pair say, or without --data one simulated.

    pairs: that a batch takes from the same log; as many are simulated, but no more than 16

    Raises:
        ZeroFlowError: there is no such pair, or no labels to tell its errors by.
    """
    if data is not None:
        yield _of_logs(data, split, pair or "0")
        return
    if pair is not None:
        raise ZeroFlowError(f"--pair {pair} chooses among the pairs of --data; give that, or leave --pair out")
    from zeroflow_core.simulation.log import simulate_log

    with TemporaryDirectory() as folder:
        log, sweeps = Path(folder) / "log", min(pairs, _MOST_SIMULATED) + 1
        simulate_log(log, sweeps=sweeps, **_SIMULATED)
        yield Source(log, 0, {"simulated": _SIMULATED})


def _of_logs(data: Path, split: str, pair: str) -> Source:
    form = re.fullmatch(r"(?:(.*):)?(\d+)", pair)
    if form is None:
        raise ZeroFlowError(f"--pair '{pair}' is no pair of a log; give its INDEX, such as 0, or LOG:INDEX")
    name, index = form[1], int(form[2])
    logs = {path.name: path for path in find_split(data, split)}
    if name is not None and name not in logs:
        raise ZeroFlowError(f"there is no log {name} in {data}; its split {split} has: {', '.join(sorted(logs))}")
    labelled = [path for path in logs.values() if has_labels(Log(path))]
    log = logs[name] if name is not None else next(iter(labelled), None)
    if log not in labelled:
        who = f"no log of split {split} in {data} has" if log is None else f"the log {log} has no"
        raise ZeroFlowError(f"{who} labels to tell errors by; choose another")
    if index >= len(Log(log)) - 1:
        raise ZeroFlowError(
            f"the log {log} has {len(Log(log)) - 1} pairs, the first with index 0; there is none with index {index}"
        )
    return Source(log, index, {"data": str(data), "split": split, "log": log.name, "index": index})


def read_pair(log: Log, i: int) -> FramePair:
    """The pair of sweeps `i` and `i` + 1, ground marked by the log's map or, without one, by Patchwork++."""
    rule = log.map_ground() or Patchwork()
    return make_pair(*(mark_ground(log.sweep(k), rule) for k in (i, i + 1)))
