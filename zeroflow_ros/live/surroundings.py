"""What the vehicle has driven through: where it was, and what stood still there."""

from __future__ import annotations

import numpy as np
from nav_msgs.msg import Path
from sensor_msgs.msg import PointCloud2

from zeroflow_core.geometry import SE3
from zeroflow_core.pairs import Status
from zeroflow_core.still_map import StillMap
from zeroflow_ros.live.pipeline import Velocities
from zeroflow_ros.messages.clouds import points_message
from zeroflow_ros.messages.path import PathWriter
from zeroflow_ros.parameters.settings import Settings


class Surroundings:
    """Gathers it from one cloud to the next, within a series of clouds. Not for two threads at once."""

    def __init__(self) -> None:
        self._path, self._map = PathWriter(), StillMap()
        self._series = 0

    def take(self, result: Velocities) -> bool:
        """One more cloud; whether its place in the world is known. There is no other for what follows."""
        if result.series != self._series:  # the fixed frame may be another one
            self._path.clear()
            self._map.clear()
            self._series = result.series
        sweep = result.frame.sweep
        if sweep.world_SE3_ego is None:  # nothing seen
            return False
        raised = SE3(np.eye(3), np.array([0.0, 0.0, result.frame.raised_m]))
        self._path.add(sweep.stamp_ns, sweep.world_SE3_ego @ raised)  # of the vehicle's own frame, not of the sweep's
        return True

    def path(self, result: Velocities) -> Path:
        """Where the vehicle frame was, in the frame of the cloud that was taken last."""
        sweep = result.frame.sweep
        cloud_SE3_world = (sweep.world_SE3_ego @ result.frame.vehicle_SE3_cloud).inverse()
        return self._path.message(result.message.header, cloud_SE3_world)

    def map(self, result: Velocities, settings: Settings) -> PointCloud2:
        """What stood still during the last `map_seconds`, without ground, in the frame of the cloud taken last."""
        sweep, velocity = result.frame.sweep, result.velocity_in_vehicle
        estimated = result.status == Status.OK
        with np.errstate(invalid="ignore", over="ignore"):
            is_slow = np.einsum("ij,ij->i", velocity, velocity) < settings.min_speed**2
        self._map.seconds = settings.map_seconds
        points = self._map.update(
            sweep.points, estimated & is_slow, estimated & ~is_slow, sweep.stamp_ns, sweep.world_SE3_ego
        )
        return points_message(result.message.header, result.frame.vehicle_SE3_cloud.inverse().transform(points))
