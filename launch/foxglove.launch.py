"""The flow node for Foxglove: flow.launch.py with foxglove:=true, and all its other arguments.

    ros2 launch zeroflow_ros foxglove.launch.py points:=/ouster/points odom:=/odometry/filtered

Then, in Foxglove: Open connection, ws://<this machine>:8765; Layouts, Import from file, config/foxglove_layout.json.
"""

from __future__ import annotations

from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

from zeroflow_core.resources import share_file


def generate_launch_description() -> LaunchDescription:
    source = PythonLaunchDescriptionSource(str(share_file("launch/flow.launch.py")))
    return LaunchDescription([IncludeLaunchDescription(source, launch_arguments=[("foxglove", "true")])])
