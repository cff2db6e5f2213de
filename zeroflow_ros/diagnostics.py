"""The node's health: what it counted, how long its stages take, and what it has to complain about."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

_WINDOW = 200  # clouds over which latencies are summed up: 20 s at 10 Hz
_QUIET_S = 5.0  # between two lines in the log about the same problem
_NO_INPUT_S = 2.0


class Problem(str, Enum):
    """Everything that can go wrong with a cloud (or near one); the value is the counter's name."""

    MALFORMED = "malformed"
    NO_POINTS = "no_points"
    DUPLICATE_STAMP = "duplicate_stamp"
    TIME_JUMP = "time_jump"
    GAP = "gap"
    FRAME_CHANGED = "frame_changed"
    NO_EGO_MOTION = "no_ego_motion"
    EGO_MOTION_JUMP = "ego_motion_jump"
    BAD_ODOMETRY = "bad_odometry"
    SKIPPED_BUSY = "skipped_busy"
    LOST_IN_TRANSPORT = "lost_in_transport"
    INTERNAL_ERROR = "internal_error"


class Health:
    """Counters, latencies and complaints; any thread may report.

    logger: rclpy's logger
    name:   whose health it is
    facts:  what was chosen at the start (device, checkpoint, …), repeated in every report
    """

    def __init__(self, logger, name: str = "flow_node", facts: dict[str, str] | None = None) -> None:
        self._logger = logger
        self._name = name
        self.facts = dict(facts or {})
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._stages: dict[str, deque[float]] = {}
        self._logged: dict[Problem, float] = {}
        self._warned: set[str] = set()
        self._reported_problems = 0
        self._newest_cloud = time.monotonic()

    def cloud_received(self) -> None:
        self.count("clouds_received")
        self._newest_cloud = time.monotonic()

    def count(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[name] += amount

    def problem(self, what: Problem, text: str, amount: int = 1) -> None:
        """Count it, and say so unless the same problem was in the log within the last seconds."""
        now = time.monotonic()
        with self._lock:
            self._counts[what.value] += amount
            total = self._counts[what.value]
            quiet = now - self._logged.get(what, -_QUIET_S) < _QUIET_S
            if not quiet:
                self._logged[what] = now
        if not quiet:
            self._logger.warning(f"{text} [{what.value}, {total} so far]")

    def warn_once(self, text: str) -> None:
        with self._lock:
            known = text in self._warned
            self._warned.add(text)
        if not known:
            self._logger.warning(text)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside, unless it fails."""
        start = time.perf_counter()
        yield
        self.took(name, time.perf_counter() - start)

    def took(self, name: str, seconds: float) -> None:
        with self._lock:
            self._stages.setdefault(name, deque(maxlen=_WINDOW)).append(seconds)

    def counts(self) -> dict[str, int]:
        """Every counter, those of problems that never happened included."""
        with self._lock:
            names = ("clouds_received", "flows_published", *(problem.value for problem in Problem))
            return {name: self._counts[name] for name in names}

    def report(self, stamp) -> DiagnosticArray:
        """Counters as they are, ``<stage>_p50_ms`` and ``_p99_ms`` over the last clouds, and the facts.

        The level is WARN when a problem was counted since the last report, or no cloud came for two seconds.
        """
        counts = self.counts()
        with self._lock:
            stages = {name: np.percentile(list(times), [50, 99]) * 1e3 for name, times in self._stages.items()}
        problems = {problem.value: counts[problem.value] for problem in Problem if counts[problem.value]}
        new, self._reported_problems = sum(problems.values()) - self._reported_problems, sum(problems.values())
        silent = time.monotonic() - self._newest_cloud

        status = DiagnosticStatus(name=f"{self._name}: flow", hardware_id=self.facts.get("device", ""))
        status.level, status.message = DiagnosticStatus.OK, "running"
        if silent > _NO_INPUT_S:
            status.level, status.message = DiagnosticStatus.WARN, f"no cloud for {silent:.0f} s"
        elif new:
            worst = ", ".join(f"{name} {count}" for name, count in problems.items())
            status.level, status.message = DiagnosticStatus.WARN, f"problems so far: {worst}"
        status.values = [KeyValue(key=key, value=value) for key, value in self.facts.items()]
        status.values += [KeyValue(key=key, value=str(value)) for key, value in counts.items()]
        for name, (middle, slow) in stages.items():
            status.values.append(KeyValue(key=f"{name}_p50_ms", value=f"{middle:.2f}"))
            status.values.append(KeyValue(key=f"{name}_p99_ms", value=f"{slow:.2f}"))
        message = DiagnosticArray(status=[status])
        message.header.stamp = stamp
        return message
