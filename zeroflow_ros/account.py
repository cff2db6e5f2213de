"""What a flow node was sent, what came back when, and whether both agree with its own counters. No ROS in here."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np


class Account:
    """Kept by one thread that sends and another that hears.

    ends: names of the counters one of which every received cloud ends in
    """

    def __init__(self, ends: Collection[str]) -> None:
        self._ends = frozenset(ends)
        self._lock = threading.Lock()
        self._sent: dict[int, float] = {}  # when, of time.monotonic, by stamp in ns
        self._flows: dict[int, float] = {}  # seconds after it was sent
        self._processed: dict[int, float] = {}
        self._strangers = self._twice = self._markers = 0
        self._latest_s = 0.0
        self._diagnoses: list[tuple[float, int, str]] = []
        self._values: Mapping[str, str] = {}
        self._before: Mapping[str, str] = {}
        self._began = 0
        self.last_answer = time.monotonic()

    @property
    def unanswered(self) -> int:
        """Clouds of which `processed` has not told the end."""
        with self._lock:
            return len(self._sent) - len(self._processed)

    @property
    def span(self) -> tuple[float, float]:
        """When the first cloud was sent, and when the last answer came, of time.monotonic."""
        return min(self._sent.values(), default=self.last_answer), self.last_answer

    @property
    def num_diagnoses(self) -> int:
        return len(self._diagnoses)

    def begin(self) -> None:
        """From here on it counts."""
        self._before, self._began = self._values, len(self._diagnoses)
        self.last_answer = time.monotonic()

    def sent(self, stamp_ns: int, late: float) -> None:
        """To be told just before. late: seconds after its time"""
        with self._lock:
            self._sent[stamp_ns] = time.monotonic()
            self._latest_s = max(self._latest_s, late)

    def flow(self, stamp_ns: int) -> None:
        self._answer(self._flows, stamp_ns)

    def processed(self, stamp_ns: int) -> None:
        self._answer(self._processed, stamp_ns)

    def markers(self) -> None:
        self._markers += 1

    def diagnosis(self, level: int, message: str, values: Mapping[str, str]) -> None:
        self._values = values
        self._diagnoses.append((time.monotonic(), level, message))

    def summary(self) -> dict[str, Any]:
        """All of it, in plain data.

        sent, processed, flows: clouds, and what came back of them
        lost_to_node:           clouds that were sent and not received
        lost_to_probe:          flows that were published and did not come back
        unaccounted:            received clouds without an end, or with two; 0 when all is well
        unanswered:             received clouds without a message on `processed`
        repeated, strange:      answers that came twice, or to clouds that were not sent
        latency_ms:             from sending a cloud to hearing its flow
        processed_ms:           … its end
        counts:                 the node's counters since the beginning, those that are not 0
        diagnostics:            how many messages, seconds between two at most, how many of each level, the last one
        values:                 the node's last diagnostics
        """
        counts = self._counts()
        received = counts.get("clouds_received", 0)
        with self._lock:
            return {
                "sent": len(self._sent),
                "received": received,
                "processed": len(self._processed),
                "flows": len(self._flows),
                "markers": self._markers,
                "lost_to_node": len(self._sent) - received,
                "lost_to_probe": counts.get("flows_published", 0) - len(self._flows),
                "unaccounted": received - sum(counts.get(name, 0) for name in self._ends),
                "unanswered": received - len(self._processed),
                "repeated": self._twice,
                "strange": self._strangers,
                "latest_ms": self._latest_s * 1e3,
                "latency_ms": _distribution(self._flows.values()),
                "processed_ms": _distribution(self._processed.values()),
                "counts": {name: count for name, count in counts.items() if count},
                "diagnostics": self._diagnostics(),
                "values": dict(self._values),
            }

    def _answer(self, answers: dict[int, float], stamp_ns: int) -> None:
        now = time.monotonic()
        with self._lock:
            if stamp_ns not in self._sent:
                self._strangers += 1
            elif stamp_ns in answers:
                self._twice += 1
            else:
                answers[stamp_ns] = now - self._sent[stamp_ns]
                self.last_answer = now

    def _counts(self) -> dict[str, int]:
        """The node's counters, by how much they grew."""
        now = {name: int(value) for name, value in self._values.items() if value.isdecimal()}
        return {name: count - int(self._before.get(name, 0)) for name, count in now.items()}

    def _diagnostics(self) -> dict[str, Any]:
        heard = self._diagnoses[self._began :]
        gaps = np.diff([moment for moment, _, _ in heard])
        levels = [level for _, level, _ in heard]
        return {
            "messages": len(heard),
            "longest_gap_s": float(gaps.max()) if len(gaps) else None,
            "levels": {str(level): levels.count(level) for level in sorted(set(levels))},
            "last": heard[-1][2] if heard else None,
        }


def header_stamp_ns(cdr: bytes) -> int:
    """The stamp of a serialised message that begins with a Header."""
    seconds, nanosec = struct.unpack_from("<iI" if cdr[1] & 1 else ">iI", cdr, 4)
    return seconds * 1_000_000_000 + nanosec


def with_stamp(cdr: tuple[bytes, bytes], stamp_ns: int) -> bytes:
    """The two parts of a little-endian message around its stamp, as `around_stamp` gives them, with another one."""
    return b"".join((cdr[0], struct.pack("<iI", *divmod(stamp_ns, 1_000_000_000)), cdr[1]))


def around_stamp(cdr: bytes) -> tuple[bytes, bytes]:
    """What comes before and after the stamp of a serialised message that begins with a Header."""
    return cdr[:4], cdr[12:]


def _distribution(seconds: Collection[float]) -> dict[str, float | int | None]:
    """In milliseconds."""
    if not seconds:
        return {"clouds": 0, "p50": None, "p99": None, "max": None}
    middle, slow, worst = np.percentile(list(seconds), [50, 99, 100]) * 1e3
    return {"clouds": len(seconds), "p50": float(middle), "p99": float(slow), "max": float(worst)}
