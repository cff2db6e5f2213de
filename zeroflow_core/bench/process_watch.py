"""What another process, with its children, takes of the machine, as Linux tells it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class Sample:
    """A process, and the children it has, at one moment.

    at:          seconds, of time.monotonic
    cpu_s:       processor time since it began
    memory:      bytes resident that belong to each alone, so without what it shares with others (DDS's segments)
    resident:    bytes resident
    files:       open file descriptors
    threads:     of them
    """

    at: float
    cpu_s: float
    memory: int
    resident: int
    files: int
    threads: int


def sample(pid: int) -> Sample:
    """The process and its children now. Raises OSError when it is gone, or the system does not tell."""
    own = _sample_alone(pid)
    others = []
    for child in _children(pid):
        with suppress(OSError):  # gone meanwhile
            others.append(_sample_alone(child))
    sums = ("cpu_s", "memory", "resident", "files", "threads")
    return replace(own, **{name: sum(getattr(one, name) for one in (own, *others)) for name in sums})


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            if _stat(process)[1] == str(pid):
                found.append(int(process.name))
    return found


def _stat(process: Path) -> list[str]:
    """What follows the command's name, which may hold anything: state, parent, …"""
    return (process / "stat").read_text().rpartition(")")[2].split()


def _sample_alone(pid: int) -> Sample:
    process = Path("/proc") / str(pid)
    fields = _stat(process)
    pages = [int(number) for number in (process / "statm").read_text().split()]
    size = os.sysconf("SC_PAGE_SIZE")
    return Sample(
        at=time.monotonic(),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS,
        memory=(pages[1] - pages[2]) * size,
        resident=pages[1] * size,
        files=len(os.listdir(process / "fd")),
        threads=int(fields[17]),
    )


class ProcessWatch:
    """Samples of a process at steady intervals, until stopped or the process has ended."""

    def __init__(self, pid: int, interval_s: float = 0.5) -> None:
        self.samples: list[Sample] = []
        self._pid, self._interval_s = pid, interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            try:
                self.samples.append(sample(self._pid))
            except OSError:
                return
            if self._stop.wait(self._interval_s):
                return


def sum_up(samples: Sequence[Sample]) -> dict[str, float | int | None]:
    """processors: kept busy, on average; memory_mb: of its own, at most; files, threads: at most. None for no samples.

    memory_growth_mb: between the first and the last sample
    """
    if len(samples) < 2:
        return dict.fromkeys(("processors", "memory_mb", "memory_growth_mb", "files", "threads"))
    first, last = samples[0], samples[-1]
    return {
        "processors": (last.cpu_s - first.cpu_s) / (last.at - first.at),
        "memory_mb": max(one.memory for one in samples) / 1e6,
        "memory_growth_mb": (last.memory - first.memory) / 1e6,
        "files": max(one.files for one in samples),
        "threads": max(one.threads for one in samples),
    }
