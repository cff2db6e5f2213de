"""The launch file and the RViz view: read as text everywhere, loaded where launch is installed."""

from __future__ import annotations

import ast
import runpy
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

LAUNCH_FILE = "launch/flow.launch.py"

DISPLAY_PROPERTIES = {
    "rviz_default_plugins/Grid": {
        "Alpha", "Cell Size", "Color", "Line Style", "Normal Cell Count", "Offset", "Plane", "Plane Cell Count",
        "Reference Frame",
    },
    "rviz_default_plugins/TF": {
        "Frame Timeout", "Frames", "Marker Scale", "Show Arrows", "Show Axes", "Show Names", "Tree",
        "Update Interval",
    },
    "rviz_default_plugins/PointCloud2": {
        "Alpha", "Autocompute Intensity Bounds", "Autocompute Value Bounds", "Axis", "Channel Name", "Color",
        "Color Transformer", "Decay Time", "Invert Rainbow", "Max Color", "Max Intensity", "Min Color",
        "Min Intensity", "Position Transformer", "Selectable", "Size (Pixels)", "Size (m)", "Style", "Topic",
        "Use Fixed Frame", "Use rainbow",
    },
    "rviz_default_plugins/MarkerArray": {"Namespaces", "Topic"},
}  # fmt: skip
TOPIC_PROPERTIES = {
    "Depth": range(1, 100),
    "Durability Policy": {"System Default", "Transient Local", "Volatile"},
    "Filter size": range(1, 100),
    "History Policy": {"System Default", "Keep Last", "Keep All"},
    "Reliability Policy": {"System Default", "Reliable", "Best Effort"},
}


def _tables(repository: Path) -> dict[str, dict]:
    """The tables ARGUMENTS, PARAMETERS and TYPES (by name) as they stand in the launch file."""
    tree = ast.parse((repository / LAUNCH_FILE).read_text())
    assigned = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    types = {key.value: value.id for key, value in zip(assigned["TYPES"].keys, assigned["TYPES"].values, strict=True)}
    return {name: ast.literal_eval(assigned[name]) for name in ("ARGUMENTS", "PARAMETERS")} | {"TYPES": types}


def test_every_launch_argument_is_explained_and_used(repository: Path):
    tables = _tables(repository)
    source = (repository / LAUNCH_FILE).read_text()
    used = {node.args[1].value for node in ast.walk(ast.parse(source)) if _is_call(node, "_is_true")
            if isinstance(node.args[1], ast.Constant)}
    used |= {node.slice.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Subscript)
             if isinstance(node.slice, ast.Constant)}
    switches = {"loop", "lockstep"}  # by a loop over their names
    assert set(tables["ARGUMENTS"]) <= used | switches
    assert all(len(text) > 20 for _, text in tables["ARGUMENTS"].values())
    assert not set(tables["ARGUMENTS"]) & set(tables["PARAMETERS"])


def _is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def test_parameters_of_the_launch_file_have_the_types_that_the_node_declares(repository: Path):
    pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
    from zeroflow_ros.parameters import Settings

    declared = asdict(Settings())
    tables = _tables(repository)
    for name in tables["PARAMETERS"]:
        assert type(declared[name]).__name__ == tables["TYPES"].get(name, "str"), name
    assert set(tables["TYPES"]) <= set(tables["PARAMETERS"])


def _load(repository: Path, **arguments: str) -> list:
    """What the launch file starts, given these arguments."""
    launch = pytest.importorskip("launch", reason="launch is not installed")
    pytest.importorskip("launch_ros", reason="launch_ros is not installed")
    description = runpy.run_path(str(repository / LAUNCH_FILE))["generate_launch_description"]()
    context = launch.LaunchContext()
    context.launch_configurations.update(arguments)
    entities = []
    for entity in description.entities:
        entities += entity.visit(context) or []
    return entities


@pytest.mark.parametrize("arguments, expected", [
    ({}, ["flow_node"]),
    ({"bag": "/some/bag"}, ["flow_node", "replay"]),
    ({"bag": "/some/bag", "rviz": "true", "loop": "true"}, ["flow_node", "replay", "rviz2"]),
])  # fmt: skip
def test_the_launch_file_starts_what_is_asked_for(repository: Path, arguments, expected):
    entities = _load(repository, **arguments)
    assert [entity.node_executable for entity in entities if hasattr(entity, "node_executable")] == expected
    ends = [entity for entity in entities if type(entity).__name__ == "RegisterEventHandler"]
    assert len(ends) == ("bag" in arguments and "loop" not in arguments)


def test_a_switch_that_is_neither_true_nor_false_is_refused(repository: Path):
    pytest.importorskip("launch", reason="launch is not installed")
    with pytest.raises(ValueError, match="rviz:=yes"):
        _load(repository, rviz="yes")


@pytest.fixture
def view(repository: Path) -> dict:
    return yaml.safe_load((repository / "config" / "flow.rviz").read_text())["Visualization Manager"]


def test_the_view_names_only_what_rviz_knows(view: dict):
    assert len(view["Displays"]) == 5
    for display in view["Displays"]:
        known = DISPLAY_PROPERTIES[display["Class"]] | {"Class", "Name", "Enabled", "Value"}
        assert set(display) <= known, display["Name"]
        for name, value in display.get("Topic", {"Value": "/x"}).items():
            assert value in TOPIC_PROPERTIES[name] if name != "Value" else value.startswith("/")
    assert view["Transformation"]["Current"]["Class"] == "rviz_default_plugins/TF"
    assert view["Views"]["Current"]["Class"] == "rviz_default_plugins/Orbit"
    tools = {"Interact", "MoveCamera", "Select", "FocusCamera", "Measure", "SetInitialPose", "SetGoal", "PublishPoint"}
    assert {tool["Class"] for tool in view["Tools"]} <= {f"rviz_default_plugins/{tool}" for tool in tools}


def test_the_view_colours_points_by_speed_on_a_fixed_scale(view: dict):
    flow = next(d for d in view["Displays"] if d.get("Topic", {}).get("Value") == "/flow")
    assert (flow["Color Transformer"], flow["Channel Name"]) == ("Intensity", "speed")
    assert flow["Autocompute Intensity Bounds"] is False
    assert (flow["Min Intensity"], flow["Max Intensity"]) == (0, 15)
    assert flow["Topic"]["Reliability Policy"] == "Reliable"
