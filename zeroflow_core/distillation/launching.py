"""The command that starts the node with a student, on the robot that its recording came from."""

from __future__ import annotations

import shlex
from pathlib import Path

from zeroflow_core.datasets.recording import Recording

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
        if recording.deskewed:
            arguments["deskew"] = "true"
        if recording.z_offset:
            arguments["z_offset"] = f"{recording.z_offset:.2f}"
    given = " ".join(f"{name}:={shlex.quote(value)}" for name, value in arguments.items())
    return f"ros2 launch zeroflow_ros flow.launch.py {given}"
