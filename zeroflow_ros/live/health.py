"""The node's health: what it counted, how long its stages take, and what it has to complain about."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from zeroflow_ros.parameters.settings import Settings

_WINDOW = 200  # clouds over which latencies are summed up: 20 s at 10 Hz
_RECENT_S = 10.0  # what rates, shares and levels are about
_ENOUGH = 5  # clouds among which a share says something
_MOST_WARNINGS = 200  # that are said once
_LONGEST_LINE = 1000
_QUIET_S = 5.0  # between two lines in the log about the same thing


class Problem(str, Enum):
    """Everything that can go wrong with a cloud (or near one); the value is the counter's name."""

    MALFORMED = "malformed"
    NO_POINTS = "no_points"
    DUPLICATE_STAMP = "duplicate_stamp"
    OUT_OF_ORDER = "out_of_order"
    TIME_JUMP = "time_jump"
    GAP = "gap"
    FRAME_CHANGED = "frame_changed"
    BAD_TRANSFORM = "bad_transform"
    NO_EGO_MOTION = "no_ego_motion"
    EGO_MOTION_JUMP = "ego_motion_jump"
    EGO_MOTION_SWITCHED = "ego_motion_switched"
    BAD_ODOMETRY = "bad_odometry"
    SKIPPED_BUSY = "skipped_busy"
    LOST_IN_TRANSPORT = "lost_in_transport"
    STUDENT_FAILED = "student_failed"
    DEVICE_FALLBACK = "device_fallback"
    PUBLISH_FAILED = "publish_failed"
    OBJECTS_FAILED = "objects_failed"
    OBJECTS_SKIPPED = "objects_skipped"
    INTERNAL_ERROR = "internal_error"

    @property
    def drops(self) -> bool:
        """Whether it is the end of a cloud that was received. Then it is counted once for that cloud, and nothing
        else is that ends it."""
        return self in _DROPS


_DROPS = {
    Problem.MALFORMED,
    Problem.DUPLICATE_STAMP,
    Problem.OUT_OF_ORDER,
    Problem.GAP,
    Problem.FRAME_CHANGED,
    Problem.NO_EGO_MOTION,
    Problem.EGO_MOTION_JUMP,
    Problem.SKIPPED_BUSY,
    Problem.STUDENT_FAILED,
    Problem.PUBLISH_FAILED,
    Problem.INTERNAL_ERROR,
}
_DROP_NAMES = {problem.value for problem in _DROPS}
# Normal for a machine that is slower than the scanner, or judged by thresholds of their own.
_TOLERATED = {Problem.SKIPPED_BUSY, Problem.OBJECTS_SKIPPED, Problem.NO_EGO_MOTION}
_FOR_ERRORS = {
    "max_cloud_age": "max_cloud_age_error",
    "max_latency_ms": "max_latency_error_ms",
    "max_dropped_share": "max_dropped_share_error",
}
_GOOD_ENDS = ("flows_published", "no_partner", "unwatched")
ENDS = frozenset(_GOOD_ENDS) | _DROP_NAMES  # the counters one of which every received cloud ends in


class Health:
    """Counters, latencies and complaints; any thread may report.

    Every cloud received ends in one of `outcomes`: its flow is published (or just the objects in it, if nobody listens
    to flow), it has no partner yet, nobody watches, or one Problem that drops it.

    logger: rclpy's logger
    name:   whose health it is
    facts:  what was chosen at the start (device, checkpoint, …), repeated in every report

    standing: what is wrong as long as the node is not configured anew, a sentence by name; to be filled by whoever
              finds out
    """

    def __init__(self, logger, name: str = "flow_node", facts: Mapping[str, str] | None = None) -> None:
        self._logger = logger
        self._name = name
        self.facts = dict(facts or {})
        self.standing: dict[str, str] = {}
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._stages: dict[str, deque[tuple[float, float]]] = {}  # when it ended, and seconds it took
        self._logged: dict[str, float] = {}
        self._warned: set[str] = set()
        self._recent: deque[tuple[float, str, int]] = deque()  # what was counted in the last seconds
        self._complaints: set[str] = set()
        self._state = "unconfigured"
        self._start_anew()

    def _start_anew(self) -> None:
        self._active_since = time.monotonic()
        self._newest_cloud: float | None = None
        self._newest_pose: float | None = None
        self._poses_missing_since: float | None = None
        self._recent.clear()

    @property
    def state(self) -> str:
        """The node's: unconfigured, inactive or active. Only an active one is judged."""
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        with self._lock:
            if state == "active" and self._state != "active":
                self._start_anew()
            self._state = state

    def cloud_received(self) -> None:
        self._newest_cloud = time.monotonic()
        self.count("clouds_received")

    def flow_published(self) -> None:
        self.count("flows_published")

    def ego_motion_known(self) -> None:
        """A cloud's pose was found."""
        self._newest_pose = time.monotonic()
        self._poses_missing_since = None

    def count(self, name: str, amount: int = 1) -> None:
        """Clouds that end without flow and without anything wrong are counted as no_partner or unwatched."""
        now = time.monotonic()
        with self._lock:
            self._add(name, amount, now)

    def problem(self, what: Problem, text: str, amount: int = 1) -> None:
        """Count it, and say so unless the same problem was in the log within the last seconds."""
        now = time.monotonic()
        with self._lock:
            self._add(what.value, amount, now)
            if what is Problem.NO_EGO_MOTION and self._poses_missing_since is None:
                self._poses_missing_since = now
            total = self._counts[what.value]
        self._say(what.value, f"{text} [{what.value}, {total} so far]", now)

    def warn_once(self, text: str) -> None:
        with self._lock:
            known = text in self._warned or len(self._warned) == _MOST_WARNINGS  # names may change without end
            if not known:
                self._warned.add(text)
        if not known:
            self._logger.warning(_line(text))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is done inside, unless it fails."""
        start = time.perf_counter()
        yield
        self.took(name, time.perf_counter() - start)

    def took(self, name: str, seconds: float) -> None:
        now = time.monotonic()
        with self._lock:
            self._stages.setdefault(name, deque(maxlen=_WINDOW)).append((now, seconds))

    def counts(self) -> dict[str, int]:
        """Every counter, those of what never happened included."""
        with self._lock:
            names = dict.fromkeys(("clouds_received", *_GOOD_ENDS, *(problem.value for problem in Problem)))
            return {name: self._counts[name] for name in names | dict.fromkeys(self._counts)}

    def outcomes(self) -> dict[str, int]:
        """What became of clouds; the sum is ``clouds_received`` less those that are still under way."""
        counts = self.counts()
        return {name: count for name, count in counts.items() if name in ENDS}

    def report(self, stamp: Time, settings: Settings, gauges: Mapping[str, str] | None = None) -> DiagnosticArray:
        """One status: facts, gauges, counters, rates and the share of dropped clouds over the last ten seconds, ages
        in seconds, and ``<stage>_p50_ms`` and ``_p99_ms`` over the last 200 clouds.

        While the node is active, the level is that of the worst threshold exceeded, and WARN for ten seconds after a
        problem that has no threshold; the message names each with its value and its limit.

        settings: holds the thresholds
        gauges:   what changes, and is measured elsewhere; "input" says which topic clouds are expected on
        """
        values = {**self.facts, **(gauges or {})}
        now = time.monotonic()
        with self._lock:
            recent = self._recently(now)
            stages = {name: list(times) for name, times in self._stages.items()}
        judgement = _Judgement(settings, recent)
        if self._state == "active":
            self._judge(judgement, now, stages.get("total", []), values.get("input", "clouds"))
        status = DiagnosticStatus(name=f"{self._name}: flow", hardware_id=self.facts.get("device", ""))
        status.level, status.message = judgement.level, judgement.message or self._state
        values = {**values, **self.counts(), **self._rates(judgement, now)}
        for name, times in stages.items():
            middle, slow = _percentiles(times)
            values[f"{name}_p50_ms"], values[f"{name}_p99_ms"] = f"{middle:.2f}", f"{slow:.2f}"
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = stamp
        self._say_news(judgement, now)
        return message

    def _judge(self, judgement: _Judgement, now: float, totals: list[tuple[float, float]], source: str) -> None:
        settings = judgement.settings
        if self._newest_cloud is not None:
            judgement.compare("max_cloud_age", now - self._newest_cloud, "s without a cloud", f": waiting for {source}")
        elif now - self._active_since > settings.max_cloud_age:
            judgement.complain(f"no cloud yet: waiting for {source}")
            if now - self._active_since > settings.max_cloud_age_error:  # drivers may start after the node
                judgement.exceeded["max_cloud_age"] = judgement.message
        latest = [entry for entry in totals if now - entry[0] < _RECENT_S]
        if latest:
            judgement.compare("max_latency_ms", _percentiles(latest)[1], "ms from a cloud to its flow (p99)")
        if judgement.ended >= _ENOUGH:
            judgement.compare("max_dropped_share", judgement.dropped_share, "of the clouds dropped")
        # Nobody asks for poses while nobody listens.
        if self._poses_missing_since is not None and judgement.recent[Problem.NO_EGO_MOTION.value]:
            since = self._poses_missing_since if self._newest_pose is None else self._newest_pose
            judgement.compare("max_ego_motion_age", now - since, "s without ego motion")
        for text in list(self.standing.values()):
            judgement.complain(text)
        for problem in Problem:
            if problem not in _TOLERATED and judgement.recent[problem.value]:
                judgement.complain(f"{problem.value} {judgement.recent[problem.value]} in the last {_RECENT_S:.0f} s")

    def _rates(self, judgement: _Judgement, now: float) -> dict[str, str]:
        seconds = min(max(now - self._active_since, 1.0), _RECENT_S)
        ages = {"cloud_age_s": self._newest_cloud, "ego_motion_age_s": self._newest_pose}
        return {
            "state": self._state,
            "input_rate_hz": f"{judgement.recent['clouds_received'] / seconds:.2f}",
            "output_rate_hz": f"{judgement.recent['flows_published'] / seconds:.2f}",
            "dropped_share": f"{judgement.dropped_share:.3f}",
            **{name: "never" if moment is None else f"{now - moment:.3f}" for name, moment in ages.items()},
        }

    def _add(self, name: str, amount: int, now: float) -> None:
        self._counts[name] += amount
        self._recent.append((now, name, amount))
        self._forget(now)

    def _recently(self, now: float) -> Counter[str]:
        self._forget(now)
        recent: Counter[str] = Counter()
        for _, name, amount in self._recent:
            recent[name] += amount
        return recent

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0][0] > _RECENT_S:
            self._recent.popleft()

    def _say_news(self, judgement: _Judgement, now: float) -> None:
        """A threshold that has been exceeded since the last report is worth a line in the log."""
        for limit, text in judgement.exceeded.items():
            if limit not in self._complaints:
                self._say(limit, text, now)
        self._complaints = set(judgement.exceeded)

    def _say(self, key: str, text: str, now: float) -> None:
        with self._lock:
            quiet = now - self._logged.get(key, -_QUIET_S) < _QUIET_S
            if not quiet:
                self._logged[key] = now
        if not quiet:
            self._logger.warning(_line(text))


class _Judgement:
    """The level of a report, and why.

    recent:   what was counted in the last seconds, by name
    exceeded: what is worth a line in the log, by threshold
    """

    def __init__(self, settings: Settings, recent: Counter[str]) -> None:
        self.settings = settings
        self.recent = recent
        self.level = DiagnosticStatus.OK
        self.exceeded: dict[str, str] = {}
        self._texts: list[str] = []

    @property
    def message(self) -> str:
        return "; ".join(self._texts)

    @property
    def ended(self) -> int:
        """Clouds of which it is known what became of them."""
        return self._dropped + sum(self.recent[name] for name in _GOOD_ENDS)

    @property
    def dropped_share(self) -> float:
        return self._dropped / max(self.ended, 1)

    @property
    def _dropped(self) -> int:
        return sum(self.recent[name] for name in _DROP_NAMES)

    def compare(self, threshold: str, value: float, text: str, more: str = "") -> None:
        """Complain when `value` exceeds the setting `threshold`, and more so above the one for errors.

        text: what follows the value: its unit, and what it measures
        more: what follows the limit
        """
        for name, level in ((_FOR_ERRORS.get(threshold), DiagnosticStatus.ERROR), (threshold, DiagnosticStatus.WARN)):
            if name is not None and value > getattr(self.settings, name):
                self.complain(f"{value:.3g} {text}, above {name} ({getattr(self.settings, name):g}){more}", level)
                self.exceeded[threshold] = self._texts[-1]
                return

    def complain(self, text: str, level: bytes = DiagnosticStatus.WARN) -> None:
        self.level = max(self.level, level)
        self._texts.append(text)


def told(error: Exception) -> str:
    """What an error is and says, without the pages that some add."""
    first = str(error).strip().splitlines()[:1]
    return f"{type(error).__name__}: {first[0] if first else ''}"


def _line(text: str) -> str:
    """One line of the log, whatever names there are in the text."""
    line = " ".join(text.splitlines())
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


def _percentiles(times: list[tuple[float, float]]) -> tuple[float, float]:
    """The median and the 99th percentile, in ms, between neighbours interpolated. (NumPy takes ten times as long for
    lists as short as these.)"""
    ordered = sorted(seconds for _, seconds in times)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        k = int(place)
        after = ordered[min(k + 1, len(ordered) - 1)]
        return 1e3 * (ordered[k] + (place - k) * (after - ordered[k]))

    return at(0.5), at(0.99)
