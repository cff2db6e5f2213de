"""What this machine does at best of the student's two kinds of work: multiplying matrices, and moving bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter

import torch

from zeroflow_core.bench.teacher_cost import matmul_rate

_BYTES = 256 << 20  # of what is copied: far more than caches hold
_LEAST_S, _LEAST_TIMES = 0.5, 3  # seconds and repetitions that a copy is timed for


@dataclass(frozen=True)
class Limits:
    """matmul: floating-point operations a second of a plain product of matrices, by precision
    copy: bytes a second, read and written, of a plain copy
    """

    matmul: dict[str, float]
    copy: float


def limits_of(device: str, precisions: Iterable[str]) -> Limits:
    return Limits({precision: matmul_rate(precision, device) for precision in precisions}, copy_rate(device))


def copy_rate(device: str) -> float:
    """Bytes a second, those read and those written, that the device copies within its memory."""
    source = torch.ones(_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    taken: list[float] = []
    begin = perf_counter()
    while len(taken) <= _LEAST_TIMES or perf_counter() - begin < _LEAST_S:
        start = perf_counter()
        target.copy_(source)
        if device != "cpu":
            torch.cuda.synchronize(device)
        taken.append(perf_counter() - start)
    return 2 * _BYTES / min(taken[1:])  # the first one warms up
