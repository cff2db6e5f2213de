"""The frames of a recording that holds flow already, as the live node publishes it: shown as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zeroflow_core.datasets.bags.bag import Bag
from zeroflow_core.datasets.bags.messages import CLOUD
from zeroflow_core.datasets.point_cloud2 import decode, dtype_of, is_return
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.playback.bag_frames import BagClouds
from zeroflow_core.playback.frames import Frame

_VELOCITY = ("vx", "vy", "vz")
_OF_OBJECTS = "yaw"  # the node's objects are a cloud with velocities, too


def flow_topics(path: Path) -> tuple[list[str], list[str]]:
    """The PointCloud2 topics of a bag: those that hold flow, and those of clouds as a scanner gives them. Objects, and
    topics without a message, are neither."""
    flow, plain = [], []
    with Bag(path) as bag:
        for topic in [name for name, msgtype in bag.topics.items() if msgtype == CLOUD]:
            first = next(bag.messages([topic]), None)
            if first is None:
                continue
            names = {field.name for field in bag.deserialize(topic, first[2]).fields}
            if not names.issuperset(_VELOCITY):
                plain.append(topic)
            elif _OF_OBJECTS not in names:
                flow.append(topic)
    return flow, plain


class RecordedFlow:
    """One frame a cloud of flow."""

    def __init__(self, clouds: BagClouds) -> None:
        self.name = clouds.name
        self.method = f"as recorded in {clouds.source.recording.topic}"
        self._clouds = clouds

    def __len__(self) -> int:
        return self._clouds.count

    def read(self, indices: Sequence[int]) -> Iterator[Frame]:
        topic = self._clouds.source.recording.topic
        with Bag(self._clouds.path) as bag:
            messages = enumerate(bag.messages([topic]))
            for run, clouds in self._clouds.runs(indices):
                for one in clouds:
                    if one.index in run:
                        cdr = next(cdr for number, (_, _, cdr) in messages if number == one.index)
                        velocity = one.vehicle_SE3_cloud.rotate(_velocity(bag.deserialize(topic, cdr)))
                        yield Frame(one.index, one.sweep, velocity.astype(np.float32))
                    if one.index >= run[-1]:
                        break


def _velocity(message: Any) -> np.ndarray:
    """(N,3) float32, m/s, of those points that a Sweep has of the cloud."""
    try:
        layout = dtype_of(message.fields, message.point_step, bool(message.is_bigendian))
        rows = np.ndarray(
            (message.height, message.width), layout, message.data, strides=(message.row_step, message.point_step)
        ).reshape(-1)
        with np.errstate(over="ignore"):  # what a float32 does not hold is no velocity
            velocity = np.stack([rows[name].astype(np.float32) for name in _VELOCITY], axis=1)
    except (ValueError, TypeError) as error:
        raise ZeroFlowError(f"a recorded flow cannot be understood ({error}); record it again") from error
    return velocity[is_return(decode(message).points)]
