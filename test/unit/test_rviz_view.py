"""config/flow.rviz, by what RViz 2 knows: its classes and their properties as its sources have them (Humble to Kilted),
and the topics and QoS of the node."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from view_cases import flow_fields, topics

from zeroflow_core.drawing.view import BACKGROUND

PANELS = {
    "rviz_common/Displays": {"Help Height", "Property Tree Widget", "Splitter Ratio", "Tree Height"},
    "rviz_common/Selection": set(),
    "rviz_common/Tool Properties": {"Expanded", "Splitter Ratio"},
    "rviz_common/Views": {"Expanded", "Splitter Ratio"},
    "rviz_common/Time": {"Experimental", "SyncMode", "SyncSource"},
}
TOPIC = {"Depth", "Durability Policy", "History Policy", "Reliability Policy", "Value"}
FILTERED = TOPIC | {"Filter size"}  # of displays that wait for transforms
VECTOR = {"X", "Y", "Z"}
# By class, every property with what it may be: a type, a set of values, or a set of the names of its parts.
DISPLAYS = {
    "rviz_default_plugins/Grid": {
        "Alpha": float, "Cell Size": float, "Color": "colour", "Line Style": {"Line Width": float, "Value": str},
        "Normal Cell Count": int, "Offset": dict.fromkeys(VECTOR, float), "Plane": ("XY", "XZ", "YZ"),
        "Plane Cell Count": int, "Reference Frame": str,
    },
    "rviz_default_plugins/TF": {
        "Filter (blacklist)": str, "Filter (whitelist)": str, "Frame Timeout": float,
        "Frames": {"All Enabled": bool}, "Marker Scale": float, "Show Arrows": bool, "Show Axes": bool,
        "Show Names": bool, "Tree": {}, "Update Interval": float,
    },
    "rviz_default_plugins/PointCloud2": {
        "Alpha": float, "Autocompute Intensity Bounds": bool,
        "Autocompute Value Bounds": {"Max Value": float, "Min Value": float, "Value": bool}, "Axis": ("X", "Y", "Z"),
        "Channel Name": str, "Color": "colour",
        "Color Transformer": ("Intensity", "RGB8", "RGBF32", "AxisColor", "FlatColor"), "Decay Time": float,
        "Invert Rainbow": bool, "Max Color": "colour", "Max Intensity": float, "Min Color": "colour",
        "Min Intensity": float, "Position Transformer": ("XYZ",), "Selectable": bool, "Size (Pixels)": float,
        "Size (m)": float, "Style": ("Points", "Squares", "Flat Squares", "Spheres", "Boxes", "Tiles"),
        "Topic": FILTERED, "Use Fixed Frame": bool, "Use rainbow": bool,
    },
    "rviz_default_plugins/MarkerArray": {"Namespaces": {}, "Topic": TOPIC},
    "rviz_default_plugins/Path": {
        "Alpha": float, "Buffer Length": int, "Color": "colour", "Head Diameter": float, "Head Length": float,
        "Length": float, "Line Style": ("Lines", "Billboards"), "Line Width": float,
        "Offset": dict.fromkeys(VECTOR, float), "Pose Color": "colour", "Pose Style": ("None", "Axes", "Arrows"),
        "Radius": float, "Shaft Diameter": float, "Shaft Length": float, "Topic": FILTERED,
    },
}  # fmt: skip
MESSAGES = {
    "rviz_default_plugins/PointCloud2": "sensor_msgs/msg/PointCloud2",
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "rviz_default_plugins/Path": "nav_msgs/msg/Path",
}
POLICIES = {
    "Depth": range(1, 101),
    "Filter size": range(1, 101),
    "Durability Policy": {"System Default", "Transient Local", "Volatile"},
    "History Policy": {"System Default", "Keep Last", "Keep All"},
    "Reliability Policy": {"System Default", "Reliable", "Best Effort"},
}
TOOLS = {
    "rviz_default_plugins/Interact": {"Hide Inactive Objects"},
    "rviz_default_plugins/MoveCamera": set(),
    "rviz_default_plugins/Select": set(),
    "rviz_default_plugins/FocusCamera": set(),
    "rviz_default_plugins/Measure": {"Line color"},
}
STEREO = {"Stereo Eye Separation": float, "Stereo Focal Distance": float, "Swap Stereo Eyes": bool, "Value": bool}
ANY_VIEW = {"Enable Stereo Rendering": STEREO, "Invert Z Axis": bool, "Near Clip Distance": float, "Target Frame": str}
AROUND = {
    "Distance": float, "Focal Point": dict.fromkeys(VECTOR, float), "Focal Shape Fixed Size": bool,
    "Focal Shape Size": float, "Pitch": float, "Yaw": float,
}  # fmt: skip
VIEWS = {
    "rviz_default_plugins/Orbit": ANY_VIEW | AROUND,
    "rviz_default_plugins/ThirdPersonFollower": ANY_VIEW | AROUND,
    "rviz_default_plugins/TopDownOrtho": ANY_VIEW | dict.fromkeys(("Angle", "Scale", "X", "Y"), float),
}
GLOBAL = {"Background Color": "colour", "Fixed Frame": str, "Frame Rate": int}
MANAGER = {"Class", "Displays", "Enabled", "Global Options", "Name", "Tools", "Transformation", "Value", "Views"}


def problems(config: dict) -> list[str]:
    """What RViz 2 would not understand or not receive, a line each."""
    found = _named(config, {"Panels", "Visualization Manager", "Window Geometry"}, "file")
    for panel in config["Panels"]:
        found += _of_class(panel, PANELS, "panel")
    manager = config["Visualization Manager"]
    found += _named(manager, MANAGER, "manager")
    found += _typed(manager["Global Options"], GLOBAL, "Global Options")
    if manager["Transformation"] != {"Current": {"Class": "rviz_default_plugins/TF"}}:
        found.append("Transformation is another one")
    for tool in manager["Tools"]:
        found += _of_class(tool, TOOLS, "tool")
    for view in [manager["Views"]["Current"], *(manager["Views"]["Saved"] or [])]:
        found += _view_problems(view)
    for display in manager["Displays"]:
        found += _display_problems(display)
    return found


def _of_class(item: dict, known: dict[str, set], what: str) -> list[str]:
    if item.get("Class") not in known:
        return [f"there is no {what} {item.get('Class')}"]
    return _named(item, known[item["Class"]] | {"Class", "Name"}, item["Class"])


def _named(item: dict, known: set, where: str) -> list[str]:
    return [f"{where}: no property '{name}'" for name in item if name not in known]


def _typed(item: dict, known: dict, where: str) -> list[str]:
    found = _named(item, set(known), where)
    for name, value in item.items():
        if name in known and not _fits(value, known[name]):
            found.append(f"{where}: {name} cannot be {value!r}")
    return found


def _fits(value, kind) -> bool:
    if kind == "colour":
        parts = str(value).split("; ")
        return len(parts) == 3 and all(part.isdecimal() and int(part) < 256 for part in parts)
    if isinstance(kind, tuple):
        return value in kind
    if isinstance(kind, dict):
        return isinstance(value, dict) and (not kind or not _typed(value, kind, ""))
    if isinstance(kind, set):
        return isinstance(value, dict) and set(value) == kind
    return type(value) is kind or (kind is float and type(value) is int)


def _view_problems(view: dict) -> list[str]:
    if view.get("Class") not in VIEWS:
        return [f"there is no view {view.get('Class')}"]
    short = view["Class"].partition("/")[2]
    plugin = "rviz" if short == "Orbit" else "rviz_default_plugins"  # the name of the one is older
    own = {"Class": str, "Name": str, "Value": (f"{short} ({plugin})",)}
    return _typed(view, VIEWS[view["Class"]] | own, short)


def _display_problems(display: dict) -> list[str]:
    kind, name = display.get("Class"), display.get("Name")
    if kind not in DISPLAYS:
        return [f"there is no display {kind}"]
    found = _typed(display, DISPLAYS[kind] | {"Class": str, "Name": str, "Enabled": bool, "Value": bool}, name)
    if display.get("Enabled") != display.get("Value"):
        found.append(f"{name}: Enabled and Value must agree")
    if kind in MESSAGES:
        found += _topic_problems(kind, name, display.get("Topic"))
    if kind == "rviz_default_plugins/PointCloud2" and isinstance(display.get("Topic"), dict):
        found += _channel_problems(display)
    return found


def _topic_problems(kind: str, name: str, topic) -> list[str]:
    if not isinstance(topic, dict):
        return [f"{name}: Topic is a list of properties"]
    offered = topics().get(topic.get("Value"))
    if offered is None:
        return [f"{name}: nobody publishes {topic.get('Value')}"]
    found = [f"{name}: {key} is {topic[key]}" for key in POLICIES if key in topic and topic[key] not in POLICIES[key]]
    if offered.kind != MESSAGES[kind]:
        found.append(f"{name}: {topic['Value']} has {offered.kind}")
    reliable = offered.qos.reliability in (ReliabilityPolicy.RELIABLE, ReliabilityPolicy.SYSTEM_DEFAULT)
    if topic.get("Reliability Policy") != "Best Effort" and not reliable:
        found.append(f"{name}: asks for reliable messages where there are none")
    latched = offered.qos.durability is DurabilityPolicy.TRANSIENT_LOCAL
    if topic.get("Durability Policy") == "Transient Local" and not latched:
        found.append(f"{name}: asks for latched messages where there are none")
    return found


def _channel_problems(display: dict) -> list[str]:
    wanted = {"RGB8": "rgb", "Intensity": display.get("Channel Name")}.get(display.get("Color Transformer"))
    if display["Topic"].get("Value") == "/flow" and wanted not in (None, *flow_fields()):
        return [f"{display['Name']}: flow has no field {wanted}"]
    return []


@pytest.fixture
def config(repository: Path) -> dict:
    return yaml.safe_load((repository / "config" / "flow.rviz").read_text())


@pytest.fixture
def displays(config: dict) -> dict[str, dict]:
    return {display["Name"]: display for display in config["Visualization Manager"]["Displays"]}


def test_the_view_says_only_what_rviz_understands_and_the_node_publishes(config: dict):
    assert problems(config) == []


def _spoiled(config: dict, *path, value) -> dict:
    """A copy in which one thing is another, or where `value` is None is missing."""
    spoiled = copy.deepcopy(config)
    place = spoiled["Visualization Manager"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    if value is None:
        del place[path[-1]]
    return spoiled


FLOW, MAP, MARKERS = ("Displays", 2), ("Displays", 1), ("Displays", 4)
MISTAKES = {
    "a class of ROS 1": ((*FLOW, "Class"), "rviz/PointCloud2", "no display rviz/PointCloud2"),
    "a topic of ROS 1": ((*FLOW, "Topic"), "/flow", "Topic cannot be '/flow'"),
    "a property of ROS 1": ((*FLOW, "Queue Size"), 10, "no property 'Queue Size'"),
    "a marker topic of ROS 1": ((*MARKERS, "Marker Topic"), "/markers", "no property 'Marker Topic'"),
    "unreliable as in ROS 1": ((*FLOW, "Unreliable"), True, "no property 'Unreliable'"),
    "a view of ROS 1": (("Views", "Current", "Class"), "rviz/ThirdPersonFollower", "no view rviz"),
    "a tool of ROS 1": (("Tools", 0, "Class"), "rviz/MoveCamera", "no tool rviz/MoveCamera"),
    "a transformer that is none": ((*FLOW, "Color Transformer"), "RGB", "Color Transformer cannot be 'RGB'"),
    "a style that is none": ((*FLOW, "Style"), "Point", "Style cannot be 'Point'"),
    "a typing error": ((*FLOW, "Size (pixels)"), 3, "no property 'Size (pixels)'"),
    "a number as text": ((*FLOW, "Alpha"), "1", "Alpha cannot be '1'"),
    "a colour with commas": ((*MAP, "Color"), "1, 2, 3", "Color cannot be"),
    "a topic nobody has": ((*MAP, "Topic", "Value"), "/map", "nobody publishes /map"),
    "a topic of another type": ((*MAP, "Topic", "Value"), "/flow_node/path", "has nav_msgs/msg/Path"),
    "reliable clouds of a driver": (("Displays", 7, "Topic", "Reliability Policy"), "Reliable", "asks for reliable"),
    "a latched flow": ((*FLOW, "Topic", "Durability Policy"), "Transient Local", "asks for latched"),
    "a policy that is none": ((*FLOW, "Topic", "History Policy"), "Last", "History Policy is Last"),
    "half a topic": ((*FLOW, "Topic", "Depth"), None, "Topic cannot be"),
    "a filter where nothing is filtered": ((*MARKERS, "Topic", "Filter size"), 10, "Topic cannot be"),
    "a channel that flow has not": (("Displays", 3, "Channel Name"), "velocity", "flow has no field velocity"),
    "on and off": ((*FLOW, "Value"), False, "must agree"),
    "a view's other value": (("Views", "Saved", 1, "Value"), "TopDownOrtho (rviz)", "Value cannot be"),
    "a view's property of another": (("Views", "Saved", 1, "Yaw"), 0.0, "no property 'Yaw'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_would_be_noticed(config: dict, mistake: str):
    path, value, complaint = MISTAKES[mistake]
    assert any(complaint in line for line in problems(_spoiled(config, *path, value=value)))


def test_flow_is_coloured_by_heading_and_on_demand_by_speed_on_a_fixed_scale(displays: dict):
    heading, speed = displays["Flow by heading"], displays["Flow by speed, 0 to 15 m/s (off)"]
    assert (heading["Color Transformer"], heading["Enabled"], speed["Enabled"]) == ("RGB8", True, False)
    assert (speed["Color Transformer"], speed["Channel Name"]) == ("Intensity", "speed")
    assert speed["Autocompute Intensity Bounds"] is False
    assert (speed["Min Intensity"], speed["Max Intensity"]) == (0, 15)


def test_what_stands_still_is_a_grey_between_the_background_and_the_points_of_now(config: dict, displays: dict):
    background = config["Visualization Manager"]["Global Options"]["Background Color"]
    assert background == "; ".join(map(str, BACKGROUND))
    red, green, blue = map(int, displays["What stands still"]["Color"].split("; "))
    assert max(red, green, blue) - min(red, green, blue) < 20 and sum(BACKGROUND) + 90 < red + green + blue < 292


def test_there_is_a_view_from_behind_and_one_from_above_with_the_way_ahead_up(config: dict):
    views = config["Visualization Manager"]["Views"]
    chase, above = views["Saved"]
    assert {**views["Current"], "Name": "Chase"} == chase
    assert chase["Class"].endswith("ThirdPersonFollower") and above["Class"].endswith("TopDownOrtho")
    # RViz puts the eye at focal point + distance · (cos yaw cos pitch, sin yaw cos pitch, sin pitch).
    assert chase["Focal Point"]["X"] + chase["Distance"] * math.cos(chase["Yaw"]) * math.cos(chase["Pitch"]) < -15
    assert abs(math.sin(chase["Yaw"])) < 1e-6 and 0.2 < chase["Pitch"] < 0.8
    assert math.cos(above["Angle"] + math.pi / 2) == pytest.approx(1.0)  # up is (−sin angle, cos angle)
    assert {view["Target Frame"] for view in (chase, above)} == {"base_link"}


def test_a_bag_has_its_time_panel(config: dict):
    assert "rviz_common/Time" in {panel["Class"] for panel in config["Panels"]}
    assert config["Window Geometry"]["Time"] == {"collapsed": False}
