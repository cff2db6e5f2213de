"""A measurement in a process that does nothing else, so that memory and settings are its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zeroflow_core.workers import run_in_workers


def in_own_process(function: Callable[..., None], *task: Any) -> Any:
    """What ``function(*task, report)`` reports, called in a fresh process.

    Raises:
        ZeroFlowError: one of the function, or the process was killed.
    """
    reported: list[Any] = []
    run_in_workers(function, [task], 1, reported.append)
    return reported[0]
