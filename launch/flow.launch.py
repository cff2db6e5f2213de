"""The flow node on a LiDAR topic; with rviz:=true a view of it, with bag:=… something to look at.

    ros2 launch zeroflow_ros flow.launch.py points:=/ouster/points odom:=/odometry/filtered rviz:=true
    ros2 launch zeroflow_ros flow.launch.py bag:=$(ros2 pkg prefix --share zeroflow_ros)/rosbags/small_scanner
"""

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

from zeroflow_core.resources import share_file
from zeroflow_ros import dds

# Given ones become parameters of the flow node and win over params_file.
PARAMETERS = {
    "checkpoint": "weights of the student: a .ckpt or .safetensors file, or 'default'",
    "device": "where the student runs: auto, cpu, cuda or cuda:n",
    "engine": "what computes the student's flow: fast, or reference (the plain modules that train)",
    "precision": "numbers the student multiplies: auto, fp32 or bf16",
    "streaming": "what is kept of the cloud before: none, or anchored (its encoding, on a grid that stands still)",
    "flow_target": "whose points get a velocity: current (the newest cloud) or previous",
    "ego_motion": "where the vehicle's motion comes from: auto, odom, tf, kiss_icp (the clouds) or none",
    "odom_frame": "the fixed frame, when poses come from transforms",
    "base_frame": "the vehicle frame, when poses come from transforms or clouds",
    "deskew": "true compensates clouds for the vehicle's motion during a sweep, where the driver doesn't",
    "ground": "how ground is left out: auto, patchwork or none",
    "z_offset": "metres added to z for the student, so that the ground lies where it lay in training",
}
TYPES = {"deskew": bool, "z_offset": float}  # the others are texts

ARGUMENTS = {
    "points": ("/lidar/points", "topic of the clouds (sensor_msgs/PointCloud2)"),
    "odom": ("/odom", "topic of the odometry (nav_msgs/Odometry)"),
    "params_file": ("", "parameters of the flow node; empty for config/flow.yaml of this package"),
    "namespace": ("", "namespace of the nodes and of the topics they publish"),
    "use_sim_time": ("", "take the time from /clock: true or false; empty for true with a bag, else false"),
    "log_level": ("info", "debug, info, warn, error or fatal"),
    "rviz": ("false", "true opens RViz with config/flow.rviz"),
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
        DeclareLaunchArgument(name, default_value="", description=f"{text}; empty for what params_file says")
        for name, text in PARAMETERS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_start)])


def _start(context: LaunchContext) -> list:
    """Everything that depends on the arguments' values."""
    given = {name: LaunchConfiguration(name).perform(context) for name in (*ARGUMENTS, *PARAMETERS)}
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
    return actions


def _flow_node(given: dict[str, str]) -> Node:
    overrides = {n: ParameterValue(given[n], value_type=TYPES.get(n, str)) for n in PARAMETERS if given[n]}
    return Node(
        package="zeroflow_ros",
        executable="flow_node",
        namespace=given["namespace"],
        parameters=[
            given["params_file"] or str(share_file("config/flow.yaml")),
            {"use_sim_time": _sim_time(given), **overrides},
        ],
        remappings=[("points", given["points"]), ("odom", given["odom"])],
        arguments=["--ros-args", "--log-level", given["log_level"]],
        output="screen",
    )


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
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=given["namespace"],
        parameters=[{"use_sim_time": _sim_time(given)}],
        # The saved view names absolute topics; relative ones follow the namespace.
        remappings=[("/flow", "flow"), ("/markers", "markers"), ("/lidar/points", given["points"])],
        arguments=["-d", str(share_file("config/flow.rviz"))],
        output="screen",
    )


def _sim_time(given: dict[str, str]) -> bool:
    return _is_true(given, "use_sim_time") if given["use_sim_time"] else bool(given["bag"])


def _is_true(given: dict[str, str], name: str) -> bool:
    if given[name].lower() not in ("true", "false"):
        raise ValueError(f"launch argument {name}:={given[name]} is neither true nor false")
    return given[name].lower() == "true"
