"""Whether memory grows while the student answers pair after pair, no two of them alike."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from zeroflow_core.bench.student_pairs import points_pair
from zeroflow_core.errors import ZeroFlowError

READINGS = 20
_FEWER, _MORE = 0.8, 1.2  # points of a cloud, as shares of the usual number
_TOLERATED = 4 << 20  # bytes from the second quarter to the last


@dataclass(frozen=True)
class Reading:
    """frames: answered so far
    resident: bytes of the process in memory: the least after any frame since the last reading, which leaves out what
              the allocator is only slow to give back
    device:   bytes of the GPU that torch has taken; 0 on the CPU
    """

    frames: int
    resident: int
    device: int


@dataclass(frozen=True)
class Growth:
    """readings: at equal intervals, the last after the last frame
    grown:    bytes, from the median of the second quarter of the readings to that of the last: the first is for
              allocators to settle in. Of the process and of the GPU, whichever grew more
    grew:     by more than readings differ by themselves
    """

    readings: list[Reading]
    grown: int
    grew: bool


def check_growth(
    flow: Callable[[np.ndarray, np.ndarray], Any],
    frames: int,
    points: int,
    device: str,
    report: Callable[[Reading], None] = lambda reading: None,
) -> Growth:
    """Let `flow` answer so many pairs made up, after one with the most points.

    frames: at least 20
    points: of a cloud on average; each has up to a fifth more or less
    report: told of every reading

    Raises:
        ZeroFlowError: the system does not tell how much memory a process has.
    """
    resident_memory()  # where that cannot be known it shows before the work
    most = round(_MORE * points)
    flow(*_clouds(most, most, seed=0))
    counts = np.random.default_rng(0).integers(round(_FEWER * points), most, (frames, 2), endpoint=True)
    ends = {frames * k // READINGS for k in range(1, READINGS + 1)}
    readings: list[Reading] = []
    least: int | None = None
    for frame, numbers in enumerate(counts.tolist(), start=1):
        flow(*_clouds(*numbers, seed=frame))
        now = resident_memory()
        least = now if least is None else min(least, now)
        if frame in ends:
            readings.append(Reading(frame, least, _device_memory(device)))
            report(readings[-1])
            least = None
    return judged(readings)


def judged(readings: list[Reading]) -> Growth:
    """What twenty readings say."""
    quarter = len(readings) // 4
    early, late = readings[quarter : 2 * quarter], readings[-quarter:]
    grown = max(
        round(median(getattr(reading, kind) for reading in late) - median(getattr(reading, kind) for reading in early))
        for kind in ("resident", "device")
    )
    return Growth(readings, grown, grown > _TOLERATED)


def resident_memory() -> int:
    """Bytes of this process that are in memory now.

    Raises:
        ZeroFlowError: the system does not tell.
    """
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError as error:
        raise ZeroFlowError(f"--frames needs /proc/self/statm to tell a process's memory: {error}") from error


def _device_memory(device: str) -> int:
    if device == "cpu":
        return 0
    import torch

    return torch.cuda.memory_reserved(device)


def _clouds(points0: int, points1: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    pair = points_pair(max(points0, points1), seed)
    return pair.pc0[:points0], pair.pc1[:points1]
