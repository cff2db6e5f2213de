"""What a worker does: pairs from disk to labels on disk, here or on another machine."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from zeroflow_core.datasets.pseudo_labels import label_folders
from zeroflow_core.datasets.stored_flow import write_stored_flow
from zeroflow_core.distillation.labelling.errors import errors_of_label
from zeroflow_core.distillation.pairs import LogPairs, PairRef
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.journal import Record
from zeroflow_core.pairs import Flow, FramePair, Status

if TYPE_CHECKING:
    from zeroflow_core.nsfp.config import TeacherConfig
    from zeroflow_core.nsfp.teacher import Label, Teacher

# Beside a GPU: threads that read, and pairs that each reads in a row, as neighbours share a sweep. Two of the
# teacher's batches are ahead of it.
_READERS, _IN_A_ROW, _AHEAD = 4, 16, 128

Item, Result = TypeVar("Item"), TypeVar("Result")


@dataclass(frozen=True)
class Work:
    """What a worker needs to know; it can be sent to another process.

    config, device, seed: of the teacher
    ground:     as of datasets.ground_choice.ground_of
    out, split: where the labels go, see label_folders
    """

    config: TeacherConfig
    device: str
    seed: int
    ground: str
    out: Path
    split: str


def with_precision(work: Work, precision: str) -> Work:
    """The same work in ``fp32`` or ``bf16``, whatever ``auto`` would be on each machine."""
    return replace(work, config=replace(work.config, precision=precision))


def identity_of(work: Work) -> tuple[str, dict[str, Any]]:
    """The teacher in one line, and plain data that tells its labels from any other's.

    Raises:
        ZeroFlowError: no such teacher, or no such device here.
    """
    from zeroflow_core.nsfp.teacher import Teacher

    # One pair in flight: how many fit isn't asked of a GPU that others will work on.
    teacher = Teacher(work.config.method, work.config, device=work.device, seed=work.seed, pairs_in_flight=1)
    return teacher.name, teacher.identity


@lru_cache(maxsize=1)
def _teacher(work: Work) -> Teacher:
    import torch

    from zeroflow_core.nsfp.teacher import Teacher

    teacher = Teacher(work.config.method, work.config, device=work.device, seed=work.seed)
    if teacher.device == "cpu":
        torch.set_num_threads(1)  # the same label everywhere; the other cores have pairs of their own
    return teacher


@contextmanager
def threads_kept() -> Iterator[None]:
    """For a process that labels by itself and has other work afterwards, which wants all of torch's threads back."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def label_chunk(work: Work, refs: Sequence[PairRef], report: Callable[[Record], None]) -> None:
    """Label some pairs. As soon as the files of one are there, its record goes to `report`.

    A record has log, index and seconds (of this worker), and: iterations, points, loss, and errors where the
    log has labels of its own; or `problem`, where the pair gives the teacher nothing to go by, and so gets no files; or
    `error`, where it failed.

    Raises:
        ZeroFlowError: no such teacher, or a file can't be written.
    """
    _Chunk(work, refs, report).run()


class _Chunk:
    """One pass over some pairs: they are read ahead of the teacher, and their labels written behind it."""

    def __init__(self, work: Work, refs: Sequence[PairRef], report: Callable[[Record], None]) -> None:
        self._teacher = _teacher(work)
        self._work, self._refs, self._report = work, refs, report
        self._folders = label_folders(work.out, work.split, work.config.method)
        self._lock = threading.Lock()  # of `report` and of the clock
        self._clock = time.perf_counter()
        self._logs = threading.local()
        self._read: deque[tuple[PairRef, FramePair]] = deque()  # given to the teacher, which has not answered yet

    def run(self) -> None:
        on_gpu = self._teacher.device != "cpu"
        threads, in_a_row, ahead = (_READERS, _IN_A_ROW, _AHEAD) if on_gpu else (1, 1, 1)
        rows = [self._refs[start : start + in_a_row] for start in range(0, len(self._refs), in_a_row)]
        with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as writers:
            try:
                read = chain.from_iterable(_ahead(readers, self._pairs, rows, ahead // in_a_row))
                for _ in _ahead(writers, self._finish, self._labels(self._readable(read)), ahead):
                    pass
            except BaseException:
                for pool in (readers, writers):
                    pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _pairs(self, refs: Sequence[PairRef]) -> list[tuple[PairRef, FramePair | str]]:
        return [self._pair(ref) for ref in refs]

    def _pair(self, ref: PairRef) -> tuple[PairRef, FramePair | str]:
        """The pair, or why it can't be read."""
        try:
            if getattr(self._logs, "path", None) != ref.log:
                self._logs.pairs, self._logs.path = LogPairs(ref.log, self._work.ground), ref.log
            return ref, self._logs.pairs.pair(ref.index)
        except Exception as error:  # one pair must not end a long run; the end of the run tells
            return ref, _sentence(error)

    def _readable(self, read: Iterable[tuple[PairRef, FramePair | str]]) -> Iterator[FramePair]:
        for ref, pair in read:
            if isinstance(pair, str):
                self._tell(ref, {"error": pair})
            else:
                self._read.append((ref, pair))
                yield pair

    def _labels(self, pairs: Iterator[FramePair]) -> Iterator[tuple[PairRef, FramePair, Label | str]]:
        """Each pair with its label, or with why it has none."""
        going = True
        while going:
            try:
                for label in self._teacher.label(pairs):
                    yield (*self._read.popleft(), label)
                going = False
            except Exception:  # of one of a batch: each once more, by itself
                if not self._read:
                    raise
            while self._read:
                ref, pair = self._read.popleft()
                try:
                    answer = self._teacher.label_one(pair)
                except Exception as error:
                    answer = _sentence(error)
                yield ref, pair, answer

    def _finish(self, labelled: tuple[PairRef, FramePair, Label | str]) -> None:
        ref, pair, label = labelled
        if isinstance(label, str) or label.failed:
            self._tell(ref, {"error": label if isinstance(label, str) else f"{self._teacher.name}: {label.problem}"})
        elif label.problem is not None:
            self._tell(ref, {"problem": label.problem})
        else:
            self._tell(ref, self._write(ref, pair, label))

    def _write(self, ref: PairRef, pair: FramePair, label: Label) -> Record:
        log_id, backward = ref.log.name, None
        if self._folders.reverse is not None:  # first, so that a pair with a forward file is complete
            vectors = pair.ego0_SE3_ego1.inverse().rotate(label.backward.vectors)
            backward = replace(label.backward, vectors=vectors)
            _store(self._folders.reverse / log_id / f"{pair.stamp1_ns}.feather", backward)
        _store(self._folders.forward / log_id / f"{pair.stamp0_ns}.feather", label.flow)
        return {
            "iterations": label.iterations,
            "points": label.points,
            "loss": label.loss if math.isfinite(label.loss) else None,
            "errors": errors_of_label(ref, label.flow, backward),
        }

    def _tell(self, ref: PairRef, outcome: Record) -> None:
        record = {"log": ref.log.name, "index": ref.index, **outcome}
        with self._lock:
            now = time.perf_counter()
            record["seconds"], self._clock = now - self._clock, now
            self._report(record)


def _store(path: Path, flow: Flow) -> None:
    write_stored_flow(path, np.nan_to_num(flow.vectors), flow.status == Status.OK)


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """``function(item)`` of each item, in their order; up to `ahead` of them are worked on before they are asked
    for."""
    begun: deque[Future[Result]] = deque()
    for item in items:
        begun.append(pool.submit(function, item))
        while begun and (len(begun) > ahead or begun[0].done()):
            yield begun.popleft().result()
    for future in begun:
        yield future.result()


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, ZeroFlowError) else f"{type(error).__name__}: {error}"
