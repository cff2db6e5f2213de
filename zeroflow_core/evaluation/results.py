"""What a run leaves in its folder: metrics.json with every figure, pairs.csv with a row for each pair."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation import av2_2023, av2_2024, breakdown, zeroflow_paper
from zeroflow_core.evaluation.tally import Tally, add
from zeroflow_core.files import new_file

DEFINITIONS = (av2_2023, av2_2024, zeroflow_paper)  # of three-way EPE; the breakdown has none
TALLIED = (*DEFINITIONS, breakdown)
METRICS, PAIRS = "metrics.json", "pairs.csv"
PARTS = ("three_way_epe", "fd", "fs", "bs")
_TOLERATED = 0.1  # of the interval between sweeps, before a note says that it is another
_OF_A_PAIR = (*PARTS, "num_fd", "num_points", "coverage")
COLUMNS = ("log", "index", "stamp_ns", "dt_s", "seconds") + tuple(
    f"{module.NAME}/{figure}" for module in DEFINITIONS for figure in _OF_A_PAIR
)


def write_results(out: Path, run: dict, records: Iterable[dict], failed: list[dict]) -> dict:
    """Pool the pairs and write metrics.json and pairs.csv, each complete or not at all.

    Sums are pooled over points: a pair or a log counts as much as it has points. Only the sums of each log are
    kept in memory.

    run:     what was run, for the key "run"; added are the number of logs and pairs, the seconds of a pair, and a note
             where the sweeps are not a tenth of a second apart
    records: lines of the journals of the pairs that were scored, in the order of the rows of pairs.csv
    failed:  lines of the journals of the pairs that were not

    Returns:
        the content of metrics.json

    Raises:
        ZeroFlowError: the file system refuses.
    """
    pools: dict[str, dict[str, Tally]] = {}  # by log, then by definition
    num_pairs: dict[str, int] = {}
    seconds: list[float] = []
    intervals: list[float] = []
    with new_file(out / PAIRS, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for record in records:
            log, tallies = record["log"], record["tallies"]
            pool = pools.setdefault(log, {module.NAME: {} for module in TALLIED})
            for module in TALLIED:
                add(pool[module.NAME], tallies[module.NAME])
            num_pairs[log] = num_pairs.get(log, 0) + 1
            seconds.append(record["seconds"])
            intervals.append(record["dt"])
            writer.writerow(_row(record))
    total: dict[str, Tally] = {module.NAME: {} for module in TALLIED}
    for log in sorted(pools):
        for name, tally in pools[log].items():
            add(total[name], tally)
    metrics = {module.NAME: module.figures(total[module.NAME]) for module in TALLIED}
    metrics["per_log"] = {log: {**_of_a_log(pools[log]), "num_pairs": num_pairs[log]} for log in sorted(pools)}
    metrics["run"] = {
        **run,
        "notes": [*run["notes"], *_about_speeds(intervals)],
        "num_logs": len(pools),
        "num_pairs": len(seconds),
        "seconds": _spread(seconds),
    }
    metrics["failed"] = failed
    with new_file(out / METRICS, "w") as file:
        json.dump(metrics, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")
    return metrics


def read_metrics(folder: Path) -> dict:
    """The content of a run's metrics.json.

    Raises:
        ZeroFlowError: no such folder, no metrics.json in it, or one that no run has written.
    """
    path = folder / METRICS
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ZeroFlowError(f"{folder} {what}; give the folder that zeroflow evaluate wrote (its --out)")
    if not path.exists():
        raise ZeroFlowError(
            f"{folder} has no {METRICS}; run zeroflow evaluate --out {folder} first, or to its end if it was stopped"
        )
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        _check_all(metrics)
    except OSError as error:
        raise ZeroFlowError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # of JSON or UTF-8, too
        raise ZeroFlowError(
            f"{path} is damaged or not of zeroflow evaluate ({error}); run zeroflow evaluate --out {folder} again"
        ) from error
    return metrics


def _row(record: dict) -> list:
    figures = {module.NAME: module.figures(record["tallies"][module.NAME]) for module in DEFINITIONS}
    about = [record[key] for key in ("log", "index", "stamp_ns", "dt", "seconds")]
    return about + [figures[module.NAME][figure] for module in DEFINITIONS for figure in _OF_A_PAIR]


def _of_a_log(pool: dict[str, Tally]) -> dict:
    """The definitions' figures, without the fifty speeds of each class."""
    found = {module.NAME: module.figures(pool[module.NAME]) for module in DEFINITIONS}
    for figures in found[av2_2024.NAME]["classes"].values():
        del figures["buckets"]
    return found


def _about_speeds(intervals: list[float]) -> list[str]:
    """A note where the pairs' seconds are not those of AV2's ten sweeps a second, which two definitions presume."""
    usual = 1 / av2_2024.SWEEPS_PER_SECOND
    median = float(np.median(intervals)) if intervals else usual
    if abs(median - usual) <= _TOLERATED * usual:
        return []
    return [
        f"the sweeps are {median:.2f} s apart: speeds of {av2_2024.NAME} and {zeroflow_paper.NAME} count metres per "
        "pair as if at 10 Hz"
    ]


def _spread(seconds: list[float]) -> dict:
    if not seconds:
        return {"median": None, "p90": None, "mean": None}
    median, p90 = np.percentile(seconds, [50, 90])
    return {"median": float(median), "p90": float(p90), "mean": float(np.mean(seconds))}


def _check_all(metrics: Any) -> None:
    """Raise ValueError unless everything is there that a run writes, and of its kind."""
    every = {module.NAME: module.figures({}) for module in TALLIED}
    group = {"num_points": 0, "epe": None, "epe_zero": None, "coverage": None}
    every[breakdown.NAME]["class"] = [{"name": "", "moving": group, "standing": group}]
    bucket = {"from_mps": 0.0, "to_mps": None, "num_points": 0, "epe": 0.0, "speed": 0.0, "normalised": None}
    for figures in every[av2_2024.NAME]["classes"].values():
        figures["buckets"] = [bucket]
    words = dict.fromkeys(("method", "name", "data", "split", "version"), "")
    every["run"] = {**words, "num_logs": 0, "num_pairs": 0, "jobs": 1, "notes": [""], "seconds": _spread([])}
    every["failed"] = [{"log": "", "index": 0, "stamp_ns": 0, "error": ""}]
    every["per_log"] = {}
    _check(metrics, every)
    of_a_log = {**_of_a_log({module.NAME: {} for module in DEFINITIONS}), "num_pairs": 0}
    for log, found in metrics["per_log"].items():
        _check(found, of_a_log, f"per_log/{log}")


_LIKE = {str: str, int: int, float: (int, float), type(None): (int, float, type(None))}


def _check(found: object, pattern: object, where: str = "") -> None:
    """Raise ValueError where `found` is not like `pattern`, in which None stands for a number or None, and a list of
    one for a list of any length."""
    if isinstance(pattern, dict) and isinstance(found, dict):
        for key, part in pattern.items():
            below = f"{where}/{key}" if where else key
            if key not in found:
                raise ValueError(f"{below} is missing")
            _check(found[key], part, below)
    elif isinstance(pattern, list) and isinstance(found, list) and len(pattern) in (1, len(found)):
        for k, one in enumerate(found):
            _check(one, pattern[k % len(pattern)], f"{where}/{k}")
    elif isinstance(found, bool) or not isinstance(found, _LIKE.get(type(pattern), ())):
        raise ValueError(f"{where or 'its content'} is not what a run writes")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")
