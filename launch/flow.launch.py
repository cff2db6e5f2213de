"""The flow node on a LiDAR topic; with rviz:=true or foxglove:=true a view of it, with bag:=… something to look at.

    ros2 launch zeroflow_ros flow.launch.py points:=/ouster/points odom:=/odometry/filtered rviz:=true
    ros2 launch zeroflow_ros flow.launch.py bag:=$(ros2 pkg prefix --share zeroflow_ros)/rosbags/small_scanner

Every parameter of the node is a launch argument too; given ones win over params_file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import List  # noqa: UP035 launch knows no other list of texts

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.resources import share_file
from zeroflow_ros.parameters.settings import Entry, entry_value, table
from zeroflow_ros.processes import dds

ARGUMENTS = {
    "points": ("/lidar/points", "topic of the clouds (sensor_msgs/PointCloud2)"),
    "odom": ("/odom", "topic of the odometry (nav_msgs/Odometry)"),
    "params_file": ("", "YAML file with parameters of the flow node; empty for config/flow.yaml of this package"),
    "namespace": ("", "namespace of the nodes and of the topics they publish"),
    "use_sim_time": ("", "time from /clock: true or false; empty for true with a bag, else as params_file says"),
    "use_respawn": ("false", "true starts the flow node again, two seconds after it ended by itself"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "rviz": ("false", "true opens RViz with config/flow.rviz"),
    "fixed_frame": ("", "RViz's fixed frame; empty for base_link. Without TF it must be the clouds' frame"),
    "foxglove": ("false", "true starts foxglove_bridge for Foxglove, whose layout is config/foxglove_layout.json"),
    "foxglove_port": ("8765", "TCP port that Foxglove connects to, as ws://<this machine>:<port>"),
    "bag": ("", "rosbag2 to play; empty for live clouds"),
    "rate": ("1.0", "times as fast as recorded, for the bag; 0 for as fast as possible"),
    "loop": ("false", "true plays the bag again and again; otherwise everything ends with it"),
    "lockstep": ("true", "true plays the next cloud only after the node has answered the one before"),
}


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    arguments += [
        DeclareLaunchArgument(entry.name, default_value="", description=_description(entry)) for entry in table()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_start)])


def _description(entry: Entry) -> str:
    form = f" A list: [{', '.join(entry.choices)}]." if entry.kind is tuple else ""
    return f"{entry.description}{form} Empty for what params_file says."


def _start(context: LaunchContext) -> list:
    """Everything that depends on the arguments' values."""
    names = [*ARGUMENTS, *(entry.name for entry in table())]
    given = {name: LaunchConfiguration(name).perform(context) for name in names}
    # Every process needs the profile, or big clouds get lost between them.
    actions = [SetEnvironmentVariable(name, value) for name, value in dds.environment().items()]
    actions.append(_flow_node(given))
    if given["bag"]:
        replay = _replay(given)
        actions.append(replay)
        if not _is_true(given, "loop"):
            ending = OnProcessExit(target_action=replay, on_exit=[EmitEvent(event=Shutdown(reason="the bag is over"))])
            actions.append(RegisterEventHandler(ending))
    if _is_true(given, "rviz"):
        actions.append(_rviz(given))
    if _is_true(given, "foxglove"):
        actions.append(_foxglove_bridge(given))
    return actions


def _flow_node(given: dict[str, str]) -> Node:
    overrides = {entry.name: _parameter(entry, given[entry.name]) for entry in table() if given[entry.name]}
    if given["use_sim_time"] or given["bag"]:
        overrides["use_sim_time"] = _sim_time(given)
    return Node(
        package="zeroflow_ros",
        executable="flow_node",
        name="flow_node",  # or the overrides would be for every node, and lose against what the file says of this one
        namespace=given["namespace"],
        parameters=[
            _params_file(given) if given["params_file"] else str(share_file("config/flow.yaml")),
            *([overrides] if overrides else []),
        ],
        remappings=[("points", given["points"]), ("odom", given["odom"])],
        arguments=["--ros-args", "--log-level", given["log_level"]],
        respawn=_is_true(given, "use_respawn"),
        respawn_delay=2.0,
        output="screen",
    )


def _params_file(given: dict[str, str]) -> str:
    """launch_ros would go on without a file that is not there, and the node with none of its parameters."""
    path = Path(given["params_file"]).expanduser()
    if not path.is_file():
        raise ZeroFlowError(f"launch argument params_file:={given['params_file']}: there is no such file")
    return str(path)


def _parameter(entry: Entry, text: str) -> ParameterValue:
    """The parameter's value, of its type: launch would guess it, and take a text 1 for a number.

    Raises:
        ZeroFlowError: it is no value of this parameter.
    """
    if entry.kind is tuple:
        names = entry_value(entry, text.strip("[] ").replace(",", " ").split())
        if not names:  # rcl takes no notice of an empty list that follows another one
            raise ValueError(f"launch argument {entry.name}:={text} is empty: only a params_file can say that")
        return ParameterValue(list(names), value_type=List[str])  # noqa: UP006
    return ParameterValue(entry_value(entry, _read(entry.kind, text)), value_type=entry.kind)


def _read(kind: type, text: str) -> bool | int | float | str:
    """The text as that kind of value, or as it is."""
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    for number in (int, float) if kind in (int, float) else ():
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _replay(given: dict[str, str]) -> Node:
    switches = [f"--{name}" for name in ("loop", "lockstep") if _is_true(given, name)]
    return Node(
        package="zeroflow_ros",
        executable="replay",
        namespace=given["namespace"],
        arguments=[given["bag"], "--rate", given["rate"], *switches],
        output="screen",
    )


def _rviz(given: dict[str, str]) -> Node:
    frame = given["fixed_frame"]
    _require("rviz2", "rviz2")
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=given["namespace"],
        parameters=[{"use_sim_time": _sim_time(given)}],
        # The saved view names absolute topics; relative ones follow the namespace.
        remappings=[
            *((f"/{topic}", topic) for topic in ("flow", "markers", "flow_node/map", "flow_node/path")),
            ("/lidar/points", given["points"]),
        ],
        arguments=["-d", str(share_file("config/flow.rviz")), *(["-f", frame] if frame else [])],
        output="screen",
    )


def _foxglove_bridge(given: dict[str, str]) -> Node:
    _require("foxglove_bridge", "foxglove-bridge")
    if not given["foxglove_port"].isdecimal():
        raise ValueError(f"launch argument foxglove_port:={given['foxglove_port']} is no number")
    return Node(
        package="foxglove_bridge",
        executable="foxglove_bridge",
        namespace=given["namespace"],
        parameters=[{"use_sim_time": _sim_time(given), "port": int(given["foxglove_port"])}],
        output="screen",
    )


def _require(package: str, name: str) -> None:
    try:
        get_package_prefix(package)
    except PackageNotFoundError as error:
        distribution = os.environ.get("ROS_DISTRO", "<distribution>")
        raise ZeroFlowError(f"{package} is not installed: sudo apt install ros-{distribution}-{name}") from error


def _sim_time(given: dict[str, str]) -> bool:
    return _is_true(given, "use_sim_time") if given["use_sim_time"] else bool(given["bag"])


def _is_true(given: dict[str, str], name: str) -> bool:
    if given[name].lower() not in ("true", "false"):
        raise ValueError(f"launch argument {name}:={given[name]} is neither true nor false")
    return given[name].lower() == "true"
