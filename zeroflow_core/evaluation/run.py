"""An evaluation from the logs to the report: one pair after the other, kept in journals, pooled at the end."""

from __future__ import annotations

import csv
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from zeroflow_core.datasets.av2 import Log, find_split
from zeroflow_core.errors import ZeroFlowError, differences
from zeroflow_core.evaluation import av2_2023, worst
from zeroflow_core.evaluation.journal import Journal, Record
from zeroflow_core.evaluation.methods import Method, Settings, digest, make_method
from zeroflow_core.evaluation.results import PAIRS, TALLIED, write_results
from zeroflow_core.evaluation.submission import Submission
from zeroflow_core.evaluation.tally import Tally, add
from zeroflow_core.evaluation.truth import Estimate, as_estimate, has_labels, read_truth
from zeroflow_core.files import held, new_file, remove_unfinished, writing_to
from zeroflow_core.ground import mark_ground
from zeroflow_core.pairs import FramePair, make_pair
from zeroflow_core.version import VERSION
from zeroflow_core.workers import run_in_workers

if TYPE_CHECKING:
    from zeroflow_core.evaluation.report import WorstPair

REPORT = "report.html"
_EDITION = 1  # to be raised whenever a pair's tallies change, so that old journals are not mixed with new ones
_RUN = "run.json"


@dataclass(frozen=True)
class Progress:
    """done: pairs that are finished or failed, of `total`; three_way_epe: of av2-2023, over those scored so far."""

    done: int
    total: int
    failed: int
    three_way_epe: float | None


@dataclass(frozen=True)
class Outcome:
    """metrics: content of metrics.json, or None when the logs have no labels and only a submission was made
    failed:  records of the pairs that failed
    archive: of the submission, if one was asked for and is complete
    """

    metrics: dict | None
    failed: list[Record]
    archive: Path | None


@dataclass(frozen=True)
class _Task:
    """What a worker needs to know about a log; everything in it can be sent to another process."""

    settings: Settings
    out: Path
    log: Path
    log_id: str
    scored: bool
    pictures: int
    submission: Submission | None


def evaluate(
    settings: Settings,
    out: Path,
    *,
    jobs: int = 1,
    pictures: int = 4,
    submission: int | None = None,
    masks: Path | None = None,
    supervised: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Score a method on every labelled pair of a split; go on where an earlier call with the same settings stopped.

    Writes to `out`: metrics.json, pairs.csv, report.html, the journals in pairs/, and with `submission` its files
    and archive. A pair that fails is recorded and tried again by the next call.

    jobs:       processes, each with logs of its own
    pictures:   worst pairs to show in the report
    submission: 2023 or 2024, to write the archive for that challenge's server from every fifth pair
    masks:      the challenge's archive of scored points (2023), see Submission
    supervised: what the submission says of the method (2024)
    on_progress: called once at the start, with what was done before, and after every pair

    Raises:
        ZeroFlowError: settings that can't be used, logs without labels, or `out` holds another run or can't be
            written.
    """
    every = find_split(settings.data, settings.split)
    logs = _chosen(every, settings)
    if submission is not None and settings.logs:
        raise ZeroFlowError("a submission needs every log of the split; leave --log out")
    if jobs < 1:
        raise ZeroFlowError(f"{jobs} jobs cannot evaluate anything; ask for at least 1")
    scored = any(has_labels(Log(log)) for log in logs)
    if not scored and submission is None:
        raise ZeroFlowError(
            f"no log of {logs[0].parent} has labels: neither flow_labels/ nor annotations.feather, as in AV2's test "
            "split; errors can't be told without them (a submission can be made: --submission)"
        )
    method, entry, archive = _method(settings), None, None  # before anything is written: most mistakes show here
    if submission is not None:
        archive = out / f"submission-{submission}.zip"
        folder = archive.with_suffix("") if masks is None else out / f"submission-{submission}-{_digest_of(masks)}"
        entry = Submission(submission, folder, every, masks=masks, supervised=supervised)
    tasks = [_Task(settings, out, log, Log(log).log_id, scored, pictures, entry) for log in logs]
    if not any(True for task in tasks for _ in _wanted(task)):
        raise ZeroFlowError(f"the logs in {logs[0].parent} have no pair of sweeps to evaluate: one sweep each")
    with _opened(out, settings, method):
        if archive is not None:
            archive.unlink(missing_ok=True)  # whatever comes, an old one is not this run's
        _do_all(tasks, jobs, on_progress)
        failed = [record for task in tasks for record in _journal(task).records() if "error" in record]
        metrics = None
        if scored:
            metrics = write_results(out, _described(tasks, method, jobs), _scored(tasks), failed)
            _report(tasks, metrics, pictures)
        if entry is not None and any(entry.wants(record["log"], record["index"]) for record in failed):
            archive = None
        elif entry is not None:
            entry.finish(archive)
    return Outcome(metrics, failed, archive)


def _chosen(logs: list[Path], settings: Settings) -> list[Path]:
    unknown = sorted(set(settings.logs) - {log.name for log in logs})
    if unknown:
        raise ZeroFlowError(f"there is no log {', '.join(unknown)} in {logs[0].parent}; give names of folders there")
    return [log for log in logs if not settings.logs or log.name in settings.logs]


def _do_all(tasks: Sequence[_Task], jobs: int, on_progress: Callable[[Progress], None]) -> None:
    totals = {"done": 0, "failed": 0}
    pool: Tally = {}
    num_pairs = sum(len(list(_wanted(task))) for task in tasks)

    def count(record: Record) -> None:
        totals["done"] += 1
        totals["failed"] += "error" in record
        add(pool, record.get("tallies", {}).get(av2_2023.NAME, {}))

    def show(record: Record | None = None) -> None:
        if record is not None:
            count(record)
        so_far = av2_2023.figures(pool)["three_way_epe"]
        on_progress(Progress(totals["done"], num_pairs, totals["failed"], so_far))

    unfinished = []
    for task in tasks:
        missing = set(_missing(task))
        if missing:
            unfinished.append(task)
        for record in _journal(task).records():
            if record["index"] not in missing:
                count(record)
    show()
    if min(jobs, len(unfinished)) > 1:
        run_in_workers(evaluate_log, [(task,) for task in unfinished], min(jobs, len(unfinished)), show)
    else:
        for task in unfinished:
            evaluate_log(task, show)


def evaluate_log(task: _Task, report: Callable[[Record], None]) -> None:
    """Do what is missing of one log; every record goes to the log's journal, then to `report`."""
    journal, log = _journal(task), Log(task.log)
    for i in _missing(task):
        stamp_ns = int(log.stamps_ns[i])
        record: Record = {"log": log.log_id, "index": i, "stamp_ns": stamp_ns}
        try:
            record |= _evaluate_pair(task, log, i)
        except ZeroFlowError as error:
            record["error"] = str(error)
        except Exception as error:  # one pair must not end a long run; the end of the run tells
            record["error"] = f"{type(error).__name__}: {error}"
        journal.append(record)
        report(record)


def _evaluate_pair(task: _Task, log: Log, i: int) -> Record:
    truth = read_truth(log, i) if task.scored else None
    pair, estimate, seconds = _estimate(_method(task.settings), log, i)
    record: Record = {"dt": pair.dt, "seconds": seconds, "tallies": {}}
    if truth is not None:
        record["tallies"] = {module.NAME: module.tally(truth, estimate) for module in TALLIED}
        worst.keep_if_worst(task.out, log.log_id, i, record, estimate, task.pictures)
    if task.submission is not None and task.submission.wants(log.log_id, i):
        task.submission.add(log, i, log.sweep(i), pair.ego0_SE3_ego1, estimate)
    return record


def _estimate(method: Method, log: Log, i: int) -> tuple[FramePair, Estimate, float]:
    """The pair, what the method says of it, and how many seconds that took it."""
    rule = method.ground_rule(log)
    pair = make_pair(*(mark_ground(log.sweep(k), rule) for k in (i, i + 1)))
    start = time.perf_counter()
    flow = method.flow(log, i, pair)
    return pair, as_estimate(flow), time.perf_counter() - start


def _wanted(task: _Task) -> Iterator[int]:
    """Indices of the pairs to do: all that can be scored, or else all that the submission takes."""
    for i in range(len(Log(task.log)) - 1):
        if task.scored or (task.submission is not None and task.submission.wants(task.log_id, i)):
            yield i


def _missing(task: _Task) -> list[int]:
    log, done = Log(task.log), _journal(task).finished()

    def is_done(i: int) -> bool:
        entry = task.submission
        return i in done and (entry is None or not entry.wants(log.log_id, i) or entry.has(log, i))

    return [i for i in _wanted(task) if not is_done(i)]


def _report(tasks: Sequence[_Task], metrics: dict, pictures: int) -> None:
    from zeroflow_core.evaluation.report import write_report

    out, task_of = tasks[0].out, {task.log_id: task for task in tasks}
    chosen = worst.choose(_scored(tasks), pictures)
    with open(out / PAIRS, newline="") as file:
        pairs = list(csv.DictReader(file))
    write_report(out / REPORT, metrics, pairs, [_worst_pair(task_of[record["log"]], record) for record in chosen])
    worst.forget_others(out, chosen)


def _worst_pair(task: _Task, record: Record) -> WorstPair:
    from zeroflow_core.evaluation.report import WorstPair

    log, i = Log(task.log), record["index"]
    estimate = worst.kept(task.out, record)
    if estimate is None:
        estimate = _estimate(_method(task.settings), log, i)[1]
        worst.keep(task.out, log.log_id, i, record, estimate)
    truth, figures = read_truth(log, i), av2_2023.figures(record["tallies"][av2_2023.NAME])
    return WorstPair(
        log_id=record["log"],
        index=i,
        stamp_ns=record["stamp_ns"],
        dt=truth.dt,
        epe=figures["fd"],
        num_points=figures["num_fd"],
        points=truth.points0,
        truth=truth.scene_flow.residual,
        estimate=estimate.residual,
        covered=estimate.covered,
        scored=av2_2023.scored_points(truth),
    )


def _journal(task: _Task) -> Journal:
    return Journal(task.out / "pairs" / f"{task.log_id}.jsonl")


def _scored(tasks: Sequence[_Task]) -> Iterator[Record]:
    records = itertools.chain.from_iterable(_journal(task).records() for task in tasks)
    return (record for record in records if record.get("tallies"))


@lru_cache(maxsize=1)
def _method(settings: Settings) -> Method:
    return make_method(settings)


def _described(tasks: Sequence[_Task], method: Method, jobs: int) -> dict:
    settings = tasks[0].settings
    unmapped = sum(not Log(task.log).has_map_ground for task in tasks)
    notes = [
        f"{unmapped} of {len(tasks)} logs have no map: av2-2024 and zeroflow leave out what their labels call ground"
    ]
    return {
        "method": settings.method,
        "name": method.name,
        "checkpoint": _anywhere(settings.checkpoint) if settings.method == "student" else None,
        "data": str(settings.data),
        "split": settings.split,
        "jobs": jobs,
        "notes": notes if unmapped else [],
        "version": VERSION,
    }


def _anywhere(checkpoint: str) -> str:
    """A name as it is, and a path as other folders know it."""
    from zeroflow_core.fastflow3d.checkpoint import NAMES, checkpoint_file

    return checkpoint if checkpoint in NAMES else str(checkpoint_file(checkpoint).resolve())


def _digest_of(path: Path) -> str:
    """Tells one archive of masks from another, for the name of a folder."""
    try:
        return digest(path)[:8]
    except OSError as error:
        raise ZeroFlowError(f"cannot read {path}: {error.strerror or error}") from error


@contextmanager
def _opened(out: Path, settings: Settings, method: Method) -> Iterator[None]:
    """`out` as a folder of this run's own, held against other processes meanwhile.

    Raises:
        ZeroFlowError: it holds another run, somebody writes to it now, or the file system refuses.
    """
    here = {
        "edition": _EDITION,
        "data": str(Path(settings.data).resolve()),
        "split": settings.split,
        "method": settings.method,
        **method.identity,
    }
    with held(out, "evaluating into"):
        with writing_to(out):
            remove_unfinished(out)
            _claim(out, here)
        yield


def _claim(out: Path, here: dict) -> None:
    """Leave a note in `out` that says which run it holds, or compare with the one that is there."""
    path = out / _RUN
    if not path.exists():
        if (out / "pairs").exists():
            raise ZeroFlowError(f"{out} has journals of a run but no {_RUN}; choose another --out, or remove it")
        with new_file(path, "w") as file:
            file.write(json.dumps(here, indent=2) + "\n")
        return
    try:
        there = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ZeroFlowError(f"{path} is damaged; choose another --out, or remove {out}") from error
    if "verify" in here:
        there.setdefault("verify", "never")  # of runs from before there was such a thing
    if there != here:
        raise ZeroFlowError(
            f"{out} holds another run ({differences(there, here)}); choose another --out, or remove it"
        )
