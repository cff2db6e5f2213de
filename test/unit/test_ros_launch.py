"""The launch file and the RViz view. Where launch is not installed, stand-ins take the place of its classes."""

from __future__ import annotations

import ast
import importlib.util
import runpy
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from zeroflow_core.errors import ZeroFlowError
from zeroflow_ros.parameters.settings import Settings, table

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


def _arguments(repository: Path) -> dict[str, tuple[str, str]]:
    """The table ARGUMENTS as it stands in the launch file: default and description by name."""
    tree = ast.parse((repository / LAUNCH_FILE).read_text())
    assigned = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    return ast.literal_eval(assigned["ARGUMENTS"])


def test_every_launch_argument_is_explained_and_used(repository: Path):
    arguments = _arguments(repository)
    source = (repository / LAUNCH_FILE).read_text()
    used = {
        node.args[1].value
        for node in ast.walk(ast.parse(source))
        if _is_call(node, "_is_true")
        if isinstance(node.args[1], ast.Constant)
    }
    used |= {
        node.slice.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Subscript)
        if isinstance(node.slice, ast.Constant)
    }
    switches = {"loop", "lockstep"}  # by a loop over their names
    assert set(arguments) <= used | switches
    assert all(len(text) > 20 for _, text in arguments.values())
    assert not set(arguments) & {entry.name for entry in table()}


def _is_call(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


class Record:
    """An action or a substitution, as plain data: what it was made of."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.given = given
        self.__dict__.update(named)

    def visit(self, context: LaunchContext) -> list:
        return [self]


class LaunchContext:
    def __init__(self) -> None:
        self.launch_configurations: dict[str, str] = {}


class DeclareLaunchArgument(Record):
    def visit(self, context: LaunchContext) -> list:
        context.launch_configurations.setdefault(self.given[0], self.default_value)
        return [self]


class LaunchConfiguration(Record):
    def perform(self, context: LaunchContext) -> str:
        return context.launch_configurations[self.given[0]]


class OpaqueFunction(Record):
    def visit(self, context: LaunchContext) -> list:
        return self.function(context)


class RegisterEventHandler(Record):
    pass


class Node(Record):
    @property
    def node_executable(self) -> str:
        return self.executable


class ParameterValue:
    """Refuses what launch_ros refuses: a value that is not of the type beside it."""

    def __init__(self, value: Any, *, value_type: Any) -> None:
        is_list = value_type not in (bool, int, float, str)
        if type(value) is not (list if is_list else value_type):
            raise TypeError(f"{value!r} is not of {value_type}")
        self.value = value


def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part of launch and launch_ros that the launch file uses, which PyPI does not have."""
    description = type(
        "LaunchDescription", (), {"__init__": lambda self, entities: vars(self).update(entities=entities)}
    )
    actions = {
        "DeclareLaunchArgument": DeclareLaunchArgument,
        "OpaqueFunction": OpaqueFunction,
        "EmitEvent": Record,
        "RegisterEventHandler": RegisterEventHandler,
        "SetEnvironmentVariable": Record,
    }
    modules = {
        "launch": {"LaunchContext": LaunchContext, "LaunchDescription": description},
        "launch.actions": actions,
        "launch.event_handlers": {"OnProcessExit": Record},
        "launch.events": {"Shutdown": Record},
        "launch.substitutions": {"LaunchConfiguration": LaunchConfiguration},
        "launch_ros": {},
        "launch_ros.actions": {"Node": Node},
        "launch_ros.parameter_descriptions": {"ParameterValue": ParameterValue},
    }  # fmt: skip
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def load(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list]:
    """What the launch file starts, given these arguments; with stand-ins where launch is not installed."""
    if importlib.util.find_spec("launch_ros") is None:
        _stand_ins(monkeypatch)
    launch = importlib.import_module("launch")

    def load(**arguments: str) -> list:
        description = runpy.run_path(str(repository / LAUNCH_FILE))["generate_launch_description"]()
        context = launch.LaunchContext()
        context.launch_configurations.update(arguments)
        entities = []
        for entity in description.entities:
            entities += entity.visit(context) or []
        return entities

    return load


@pytest.mark.parametrize("arguments, expected", [
    ({}, ["flow_node"]),
    ({"bag": "/some/bag"}, ["flow_node", "replay"]),
    ({"bag": "/some/bag", "rviz": "true", "loop": "true"}, ["flow_node", "replay", "rviz2"]),
])  # fmt: skip
def test_the_launch_file_starts_what_is_asked_for(load, arguments, expected):
    entities = load(**arguments)
    assert [entity.node_executable for entity in entities if hasattr(entity, "node_executable")] == expected
    ends = [entity for entity in entities if type(entity).__name__ == "RegisterEventHandler"]
    assert len(ends) == ("bag" in arguments and "loop" not in arguments)


@pytest.fixture
def parameters(load, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list]:
    """What the flow node is given, in order, for these arguments: its file, and the values that win over it."""
    made = []

    class Seen(importlib.import_module("launch_ros.actions").Node):
        def __init__(self, **named: Any) -> None:
            made.append(named)
            super().__init__(**named)

    monkeypatch.setattr(importlib.import_module("launch_ros.actions"), "Node", Seen)

    def parameters(**arguments: str) -> list:
        made.clear()
        load(**arguments)
        return made[0]["parameters"]

    return parameters


def test_every_parameter_is_a_launch_argument_that_wins_over_the_file(parameters, repository: Path):
    texts = {
        entry.name: f"[{', '.join(entry.default)}]" if entry.kind is tuple else str(entry.default).lower()
        for entry in table()
    }
    file, values = parameters(params_file="/my/file.yaml", **texts)
    assert file == "/my/file.yaml"
    assert values.pop("use_sim_time") is False
    values = {name: value.value for name, value in values.items()}
    assert values == {**asdict(Settings()), "output_fields": list(Settings().output_fields)}
    assert all(type(values[entry.name]) is (list if entry.kind is tuple else entry.kind) for entry in table())


def test_without_arguments_the_file_that_comes_along_says_everything(parameters, repository: Path):
    file, values = parameters()
    assert Path(file).samefile(repository / "config" / "flow.yaml")
    assert values == {"use_sim_time": False}


def test_a_number_without_a_point_and_a_text_of_digits_keep_their_types(parameters):
    _, values = parameters(z_offset="1", checkpoint="7", output_fields="[vx]")
    assert [values[name].value for name in ("z_offset", "checkpoint", "output_fields")] == [1.0, "7", ["vx"]]
    assert type(values["z_offset"].value) is float


@pytest.mark.parametrize("text", ["[vx, vy, t]", "vx,vy,t", " vx vy t "])
def test_a_list_of_fields_is_read_with_and_without_brackets(parameters, text: str):
    assert parameters(output_fields=text)[1]["output_fields"].value == ["vx", "vy", "t"]


@pytest.mark.parametrize("wrong, error, text", [
    ({"rviz": "yes"}, ValueError, "rviz:=yes"),
    ({"output_fields": "[]"}, ValueError, "only a params_file can say that"),
    ({"use_respawn": ""}, ValueError, "use_respawn:="),
    ({"min_points": "5.5"}, ZeroFlowError, "min_points is 5.5, but must be a whole number"),
    ({"z_offset": "up"}, ZeroFlowError, "z_offset is 'up', but must be a finite number"),
    ({"deskew": "true"}, ZeroFlowError, "deskew is 'true', but must be one of"),
    ({"output_fields": "[vx, colour]"}, ZeroFlowError, "output_fields has 'colour'"),
    ({"cpu_fallback": "perhaps"}, ZeroFlowError, "cpu_fallback is 'perhaps', but must be true or false"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_starts(load, wrong, error, text):
    with pytest.raises(error, match=text):
        load(**wrong)


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
