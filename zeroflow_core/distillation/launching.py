"""The command that starts the node with a student, on the robot that its recording came from."""

from __future__ import annotations

import shlex
from pathlib import Path

from zeroflow_core.datasets.recording import Recording

_BASE_FRAME, _ODOM_FRAME = "base_link", "odom"  # the node's own, unless it is told others
_EGO_MOTION = {"odometry": "odom", "tf": "tf", "kiss_icp": "kiss_icp"}  # as the node calls it


def launch_command(checkpoint: Path, recording: Recording | None) -> str:
    """One line for a shell.

    recording: of the clouds that the student learned from; None where these came from logs, whose topics nobody knows
    """
    arguments = {"checkpoint": str(checkpoint.resolve())}
    if recording is not None:
        arguments["points"] = recording.topic
        if recording.odometry is not None:
            arguments["odom"] = recording.odometry
        arguments["ego_motion"] = _EGO_MOTION[recording.ego_motion]
        if recording.ego_motion != "odometry" and recording.vehicle_frame != _BASE_FRAME:
            arguments["base_frame"] = recording.vehicle_frame
        if recording.ego_motion == "tf" and recording.world_frame != _ODOM_FRAME:
            arguments["odom_frame"] = recording.world_frame
        arguments["deskew"] = "always" if recording.deskewed else "never"
        if recording.z_offset:
            arguments["z_offset"] = f"{recording.z_offset:.2f}"
    given = " ".join(f"{name}:={shlex.quote(value)}" for name, value in arguments.items())
    return f"ros2 launch zeroflow_ros flow.launch.py {given}"
