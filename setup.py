"""What setup.cfg can't say: the files a ROS installation looks for. `colcon build` and pip both run this."""

from pathlib import Path

from setuptools import setup

INDEX = "share/ament_index/resource_index/packages"
CORE_COMMANDS = (
    "infer",
    "flow",
    "convert",
    "simulate",
    "distill",
    "evaluate",
    "compare",
    "render",
    "view",
    "export",
    "download",
    "doctor",
)


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """Every file below `folder`, as (destination under share/zeroflow_ros, [source]) for data_files."""
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file() and p.parent.name != "__pycache__")
    return [(f"share/zeroflow_ros/{file.parent}", [str(file)]) for file in files]


setup(
    python_requires=">=3.10",  # in setup.cfg it would become an object that colcon can't read
    data_files=[
        (INDEX, ["resource/zeroflow_ros", "resource/zeroflow_core"]),
        # `ros2 run <package> <command>` starts lib/<package>/<command>. A console script there would name the
        # build's interpreter in its first line and miss what the user's virtual environment has.
        ("lib/zeroflow_ros", ["scripts/zeroflow_ros/" + name for name in ("flow_node", "replay", "live_view", "demo")]),
        ("lib/zeroflow_core", ["scripts/zeroflow_core/" + name for name in CORE_COMMANDS]),
        ("share/zeroflow_ros", ["package.xml"]),
        ("share/zeroflow_core", ["LICENSE"]),  # each source once: colcon keeps one destination per file
        *tree("launch"),
        *tree("config"),
        *tree("rosbags"),
    ],
)
