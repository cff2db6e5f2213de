"""config/foxglove_layout.json, by what Foxglove's panels take (the settings in the sources that were public until 2024,
which Lichtblick goes on with) and by the topics of the node and of bags written here."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from view_cases import bag_topics, flow_fields, topics

from zeroflow_core.drawing.view import BACKGROUND

NUMBER = (int, float)
CAMERA = {
    "distance": NUMBER, "perspective": bool, "phi": NUMBER, "target": [3], "targetOffset": [3],
    "targetOrientation": [4], "thetaOffset": NUMBER, "fovy": NUMBER, "near": NUMBER, "far": NUMBER,
}  # fmt: skip
SCENE = {
    "enableStats": bool, "backgroundColor": "colour", "labelScaleFactor": NUMBER, "ignoreColladaUpAxis": bool,
    "meshUpAxis": {"y_up", "z_up"}, "syncCamera": bool, "topicsVisible": bool,
    "transforms": {
        "editable": bool, "showLabel": bool, "labelSize": NUMBER, "axisScale": NUMBER, "lineWidth": NUMBER,
        "lineColor": "colour", "enablePreloading": bool,
    },
}  # fmt: skip
GRID = {
    "visible": bool, "frameLocked": bool, "label": str, "instanceId": str, "layerId": {"foxglove.Grid"},
    "frameId": str, "size": NUMBER, "divisions": int, "lineWidth": NUMBER, "color": "colour", "position": [3],
    "rotation": [3], "order": int,
}  # fmt: skip
CLOUD = {
    "visible": bool, "frameLocked": bool, "pointSize": NUMBER, "pointShape": {"circle", "square"},
    "decayTime": NUMBER, "colorMode": {"flat", "gradient", "colormap", "rgb", "rgba", "rgba-fields"},
    "flatColor": "colour", "colorField": str, "gradient": ["colour", "colour"], "colorMap": {"turbo", "rainbow"},
    "explicitAlpha": NUMBER, "minValue": NUMBER, "maxValue": NUMBER, "stixelsEnabled": bool,
}  # fmt: skip
MARKERS = {"visible": bool, "color": "colour", "showOutlines": bool, "selectedIdVariable": str, "namespaces": dict}
PATH = {
    "visible": bool, "type": {"axis", "arrow", "line"}, "axisScale": NUMBER, "arrowScale": [3], "lineWidth": NUMBER,
    "gradient": ["colour", "colour"],
}  # fmt: skip
SETTINGS = {
    "sensor_msgs/msg/PointCloud2": CLOUD,
    "visualization_msgs/msg/MarkerArray": MARKERS,
    "nav_msgs/msg/Path": PATH,
}
PLOT_PATH = {
    "value": str, "label": str, "color": "colour", "enabled": bool, "showLine": bool,
    "timestampMethod": {"receiveTime", "headerStamp"},
}  # fmt: skip
PANELS = {
    "3D": {
        "foxglovePanelTitle": str, "cameraState": CAMERA, "followTf": str,
        "followMode": {"follow-pose", "follow-position", "follow-none"}, "scene": SCENE, "transforms": dict,
        "topics": dict, "layers": dict, "publish": dict, "imageMode": dict,
    },
    "Plot": {
        "title": str, "paths": list, "showXAxisLabels": bool, "showYAxisLabels": bool, "showLegend": bool,
        "legendDisplay": {"floating", "top", "left", "none"}, "showPlotValuesInLegend": bool, "isSynced": bool,
        "xAxisVal": {"timestamp", "index", "custom", "currentCustom"}, "sidebarDimension": NUMBER,
        "minYValue": NUMBER, "maxYValue": NUMBER, "followingViewWidth": NUMBER,
    },
    "DiagnosticSummary": {
        "minLevel": int, "pinnedIds": list, "topicToRender": {"/diagnostics"}, "hardwareIdFilter": str,
        "sortByLevel": bool,
    },
}  # fmt: skip
LAYOUT = {"configById", "globalVariables", "userNodes", "playbackConfig", "layout"}


def kinds() -> dict[str, str]:
    """The type of the messages on every topic there may be: the node's, and those of a bag written here."""
    return bag_topics() | {name: outlet.kind for name, outlet in topics().items()}


def problems(layout: dict) -> list[str]:
    """What Foxglove would not understand or never receive, a line each."""
    found = [f"layout: no '{name}'" for name in layout if name not in LAYOUT]
    shown = list(_panels_in(layout["layout"]))
    if sorted(shown) != sorted(layout["configById"]):
        found.append(f"panels {sorted(layout['configById'])} are shown as {sorted(shown)}")
    for name, settings in layout["configById"].items():
        kind = name.partition("!")[0]
        if kind not in PANELS:
            found.append(f"there is no panel {kind}")
            continue
        found += _checked(settings, PANELS[kind], name)
        found += {"3D": _scene_problems, "Plot": _plot_problems}.get(kind, lambda *_: [])(settings, name)
    return found


def _panels_in(node) -> list[str]:
    if isinstance(node, str):
        return [node]
    assert set(node) == {"direction", "first", "second", "splitPercentage"}
    assert node["direction"] in ("row", "column") and 0 < node["splitPercentage"] < 100
    return [*_panels_in(node["first"]), *_panels_in(node["second"])]


def _checked(item: dict, known: dict, where: str) -> list[str]:
    found = [f"{where}: no setting '{name}'" for name in item if name not in known]
    given = [name for name in known if name in item]
    return found + [f"{where}: {name} is {item[name]!r}" for name in given if not _fits(item[name], known[name])]


def _fits(value, kind) -> bool:
    if kind == "colour":
        return re.fullmatch(r"#([0-9a-f]{6}|[0-9a-f]{8})", value) is not None
    if isinstance(kind, set):
        return value in kind
    if isinstance(kind, dict):
        return isinstance(value, dict) and not _checked(value, kind, "")
    if isinstance(kind, list) and isinstance(kind[0], int):
        return len(value) == kind[0] and all(isinstance(number, NUMBER) for number in value)
    if isinstance(kind, list):
        return len(value) == len(kind) and all(map(_fits, value, kind))
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _scene_problems(settings: dict, where: str) -> list[str]:
    found = []
    for name, layer in settings["layers"].items():
        found += _checked(layer, GRID, where)
        if layer.get("instanceId") != name:
            found.append(f"{where}: layer {name} is called {layer.get('instanceId')}")
    for topic, shown in settings["topics"].items():
        if topic not in kinds():
            found.append(f"{where}: nobody publishes {topic}")
            continue
        found += _checked(shown, SETTINGS[kinds()[topic]], f"{where} {topic}")
        if topic == "/flow" and shown.get("colorField") not in flow_fields():
            found.append(f"{where}: flow has no field {shown.get('colorField')}")
    return found


def _plot_problems(settings: dict, where: str) -> list[str]:
    found = []
    for path in settings["paths"]:
        found += _checked(path, PLOT_PATH, where)
        topic, _, field = path["value"].partition(".")
        kind = kinds().get(topic)
        if kind is None:
            found.append(f"{where}: nobody publishes {topic}")
        elif not _has(kind, field):
            found.append(f"{where}: {kind} has no number {field}")
    return found


def _has(kind: str, field: str) -> bool:
    """Whether a message of that kind has a number of that name."""
    package, _, name = kind.split("/")
    value = getattr(__import__(f"{package}.msg", fromlist=[name]), name)()
    for part in field.split("."):
        value = getattr(value, part, None)
    return isinstance(value, float)


@pytest.fixture
def layout(repository: Path) -> dict:
    return json.loads((repository / "config" / "foxglove_layout.json").read_text())


def test_the_layout_says_only_what_foxglove_understands_and_somebody_publishes(layout: dict):
    assert problems(layout) == []


MISTAKES = {
    "a panel that is none": (("configById", "Plot!time"), None, "are shown as"),
    "a panel's other name": (("layout", "first"), "3D Panel!chase", "are shown as"),
    "a setting that is none": (("configById", "3D!chase", "topics", "/flow", "colourMode"), "rgb", "no setting"),
    "a mode that is none": (("configById", "3D!chase", "topics", "/flow", "colorMode"), "RGB8", "colorMode is 'RGB8'"),
    "a field that flow has not": (("configById", "3D!chase", "topics", "/flow", "colorField"), "color", "no field"),
    "a topic nobody has": (("configById", "3D!above", "topics", "/map"), {"visible": True}, "nobody publishes /map"),
    "a path's settings of a cloud": (
        ("configById", "3D!chase", "topics", "/flow_node/path", "pointSize"), 2, "no setting 'pointSize'"
    ),
    "a number that a message has not": (
        ("configById", "Plot!speed", "paths", 0, "value"), "/odom.twist.linear.x", "has no number twist.linear.x"
    ),
    "two numbers for three": (("configById", "3D!chase", "cameraState", "target"), [0, 0], "cameraState is"),
    "a colour in words": (("configById", "3D!chase", "scene", "backgroundColor"), "black", "scene is"),
    "a layer's other name": (
        ("configById", "3D!above", "layers", "grid-above", "instanceId"), "grid", "is called grid"
    ),
    "something that layouts have not": (("panels",), [], "no 'panels'"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_would_be_noticed(layout: dict, mistake: str):
    path, value, complaint = MISTAKES[mistake]
    spoiled = place = copy.deepcopy(layout)
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    if value is None:
        del place[path[-1]]
    assert any(complaint in line for line in problems(spoiled))


def test_flow_has_its_colours_before_the_grey_of_what_stands_still(layout: dict):
    for name in ("3D!chase", "3D!above"):
        shown = layout["configById"][name]["topics"]
        assert (shown["/flow"]["colorMode"], shown["/flow"]["colorField"]) == ("rgb", "rgb")
        assert shown["/flow_node/map"]["colorMode"] == shown["/lidar/points"]["colorMode"] == "flat"
        assert shown["/flow"]["pointSize"] > max(shown[t]["pointSize"] for t in ("/flow_node/map", "/lidar/points"))
        assert all(settings["visible"] for settings in shown.values())
        assert layout["configById"][name]["scene"]["backgroundColor"] == "#" + bytes(BACKGROUND).hex()


def test_a_bag_written_here_shows_its_clouds_around_the_vehicle_and_its_speed(layout: dict):
    panels = layout["configById"]
    assert panels["3D!chase"]["followTf"] == panels["3D!above"]["followTf"] == "base_link"  # /tf: odom → base_link
    assert panels["3D!chase"]["topics"]["/lidar/points"]["visible"]
    assert panels["Plot!speed"]["paths"][0]["value"].partition(".")[0] in bag_topics()


def test_there_is_a_view_from_behind_and_one_from_above_with_the_way_ahead_up(layout: dict):
    # Foxglove looks from (−sin theta sin phi, −cos theta sin phi, cos phi), and down with (sin theta, cos theta) up.
    chase, above = (layout["configById"][name]["cameraState"] for name in ("3D!chase", "3D!above"))
    assert chase["perspective"] and chase["thetaOffset"] == 90 and 45 < chase["phi"] < 80
    assert not above["perspective"] and above["thetaOffset"] == 90
