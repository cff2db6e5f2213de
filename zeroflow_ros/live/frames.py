"""Clouds on their way into pairs, and the few before that the next one may be paired with."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from sensor_msgs.msg import PointCloud2

from zeroflow_core.datasets.point_cloud2 import Cloud
from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Sweep
from zeroflow_ros.messages.clouds import nanoseconds

_MOST_FRAMES = 32
_NEW = 4  # frames that may not have been estimated yet
_LONGEST_NAME = 60  # letters of a frame that are shown
_YOUNGEST_PARTNER = 0.6  # of the interval that is asked for: a scanner of 20 Hz waits for its second cloud


@dataclass(frozen=True)
class Frame:
    """A cloud that is ready to be paired.

    message, cloud:    as it came, and decoded
    sweep:             its points in the vehicle frame, ground marked
    vehicle_SE3_cloud: from the message's frame into the sweep's
    source:            who told where the vehicle was: odom, tf, kiss_icp or none
    skewed:            the motion that is to be taken out of its points is not known before the next cloud
    raised_m:          by how much the sweep has been raised (`z_offset`): the vehicle's own frame lies so much higher
    """

    message: PointCloud2
    cloud: Cloud
    sweep: Sweep
    vehicle_SE3_cloud: SE3
    source: str
    skewed: bool = False
    raised_m: float = 0.0

    @property
    def name(self) -> str:
        return named(self.message)

    def same_mount(self, other: Frame) -> bool:
        """Whether both clouds came in one frame, mounted alike."""
        same = np.allclose(self.vehicle_SE3_cloud.matrix, other.vehicle_SE3_cloud.matrix, atol=1e-3)
        return same and self.message.header.frame_id == other.message.header.frame_id


class History:
    """The frames of a series, oldest first, as far back as partners are looked for; two threads may ask."""

    def __init__(self) -> None:
        self.series = 0  # how many there have been before this one
        self._frames: deque[Frame] = deque()
        self._lock = threading.Lock()

    @property
    def newest(self) -> Frame | None:
        with self._lock:
            return self._frames[-1] if self._frames else None

    def clear(self) -> None:
        """The next frame begins a new series."""
        with self._lock:
            self._frames.clear()
            self.series += 1

    def add(self, frame: Frame, reach_ns: int) -> None:
        """Add the newest one; the others are kept as long as they are less than `reach_ns` older. When they are too
        many, the one goes that leaves the smallest gap, so that there is still one near any age."""
        with self._lock:
            self._frames.append(frame)
            while len(self._frames) > 2 and self._frames[0].sweep.stamp_ns < frame.sweep.stamp_ns - reach_ns:
                self._frames.popleft()
            if len(self._frames) > _MOST_FRAMES:
                stamps = [kept.sweep.stamp_ns for kept in self._frames]
                del self._frames[min(range(1, len(stamps) - _NEW), key=lambda k: stamps[k + 1] - stamps[k - 1])]

    def replace_newest(self, frame: Frame) -> None:
        with self._lock:
            if self._frames:
                self._frames[-1] = frame

    def partner_of(self, frame: Frame, interval_ns: int) -> Frame | None:
        """The one before `frame` that is nearest to `interval_ns` older; None when all are much younger than that, or
        the series that `frame` belonged to has ended."""
        with self._lock:
            frames = list(self._frames)
        if not any(other is frame for other in frames):
            return None
        ages = [(frame.sweep.stamp_ns - other.sweep.stamp_ns, other) for other in frames]
        fit = [(abs(age - interval_ns), k) for k, (age, _) in enumerate(ages) if age >= _YOUNGEST_PARTNER * interval_ns]
        return ages[min(fit)[1]][1] if fit else None


def named(message: PointCloud2) -> str:
    """What to call a cloud in a sentence, which stays a line whatever its frame is called."""
    frame = message.header.frame_id
    shown = repr(frame if len(frame) <= _LONGEST_NAME else frame[:_LONGEST_NAME] + "…")
    return f"cloud at {nanoseconds(message.header.stamp) * 1e-9:.3f} s in {shown}"
