"""The launch files. Where launch is not installed, stand-ins take the place of its classes."""

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


class LaunchDescription(Record):
    def visit(self, context: LaunchContext) -> list:
        (entities,) = self.given
        return entities


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


class PythonLaunchDescriptionSource(Record):
    pass


class IncludeLaunchDescription(Record):
    def visit(self, context: LaunchContext) -> list:
        context.launch_configurations.update(self.launch_arguments)
        (source,) = self.given
        return [runpy.run_path(source.given[0])["generate_launch_description"]()]


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


def _no_package(name: str) -> str:
    raise KeyError(name)


def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part of launch and launch_ros that the launch file uses, which PyPI does not have."""
    actions = {
        "DeclareLaunchArgument": DeclareLaunchArgument,
        "OpaqueFunction": OpaqueFunction,
        "EmitEvent": Record,
        "IncludeLaunchDescription": IncludeLaunchDescription,
        "RegisterEventHandler": RegisterEventHandler,
        "SetEnvironmentVariable": Record,
    }
    modules = {
        "ament_index_python": {},
        "ament_index_python.packages": {"PackageNotFoundError": KeyError, "get_package_prefix": _no_package},
        "launch": {"LaunchContext": LaunchContext, "LaunchDescription": LaunchDescription},
        "launch.actions": actions,
        "launch.event_handlers": {"OnProcessExit": Record},
        "launch.events": {"Shutdown": Record},
        "launch.launch_description_sources": {"PythonLaunchDescriptionSource": PythonLaunchDescriptionSource},
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
    """What a launch file starts, given these arguments; with stand-ins where launch is not installed."""
    if importlib.util.find_spec("launch_ros") is None:
        _stand_ins(monkeypatch)
    launch = importlib.import_module("launch")

    def load(file: str = LAUNCH_FILE, **arguments: str) -> list:
        context = launch.LaunchContext()
        context.launch_configurations.update(arguments)
        return _expanded(runpy.run_path(str(repository / file))["generate_launch_description"](), context)

    return load


def _expanded(entity, context) -> list:
    """What comes of it; processes are not started."""
    made = entity.visit(context) or []
    if type(entity).__name__ in ("IncludeLaunchDescription", "LaunchDescription"):
        return [leaf for other in made for leaf in _expanded(other, context)]
    return made


@pytest.fixture
def with_bridge(load, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if foxglove_bridge were installed."""
    packages = importlib.import_module("ament_index_python.packages")
    monkeypatch.setattr(packages, "get_package_prefix", lambda name: f"/opt/{name}")


@pytest.mark.parametrize("arguments, expected", [
    ({}, ["flow_node"]),
    ({"bag": "/some/bag"}, ["flow_node", "replay"]),
    ({"bag": "/some/bag", "rviz": "true", "loop": "true"}, ["flow_node", "replay", "rviz2"]),
    ({"rviz": "true", "foxglove": "true"}, ["flow_node", "rviz2", "foxglove_bridge"]),
    ({"file": "launch/foxglove.launch.py", "bag": "/some/bag"}, ["flow_node", "replay", "foxglove_bridge"]),
])  # fmt: skip
def test_the_launch_file_starts_what_is_asked_for(load, with_bridge, arguments, expected):
    entities = load(**arguments)
    assert [entity.node_executable for entity in entities if hasattr(entity, "node_executable")] == expected
    ends = [entity for entity in entities if type(entity).__name__ == "RegisterEventHandler"]
    assert len(ends) == ("bag" in arguments and "loop" not in arguments)


@pytest.fixture
def nodes(load, with_bridge, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, dict]]:
    """What each node is made of, by its executable, for these arguments."""
    made = []

    class Seen(importlib.import_module("launch_ros.actions").Node):
        def __init__(self, **named: Any) -> None:
            made.append(named)
            super().__init__(**named)

    monkeypatch.setattr(importlib.import_module("launch_ros.actions"), "Node", Seen)

    def nodes(**arguments: str) -> dict[str, dict]:
        made.clear()
        load(**arguments)
        return {named["executable"]: named for named in made}

    return nodes


@pytest.fixture
def parameters(nodes) -> Callable[..., list]:
    """What the flow node is given, in order, for these arguments: its file, and the values that win over it."""
    return lambda **arguments: nodes(**arguments)["flow_node"]["parameters"]


def test_every_parameter_is_a_launch_argument_that_wins_over_the_file(parameters, repository: Path):
    texts = {
        entry.name: f"[{', '.join(entry.default)}]" if entry.kind is tuple else str(entry.default).lower()
        for entry in table()
    }
    file, values = parameters(params_file=str(repository / "config" / "flow.yaml"), **texts)
    assert file == str(repository / "config" / "flow.yaml")
    values = {name: value.value for name, value in values.items()}
    assert values == {**asdict(Settings()), "output_fields": list(Settings().output_fields)}
    assert all(type(values[entry.name]) is (list if entry.kind is tuple else entry.kind) for entry in table())


def test_without_arguments_the_file_that_comes_along_says_everything(parameters, repository: Path):
    (file,) = parameters()
    assert Path(file).samefile(repository / "config" / "flow.yaml")


@pytest.mark.parametrize(
    ("arguments", "says"), [({"use_sim_time": "true"}, True), ({"bag": "b"}, True), ({"use_sim_time": "false"}, False)]
)
def test_the_clock_is_the_file_s_unless_somebody_says_otherwise(parameters, arguments, says):
    assert parameters(**arguments)[1:] == [{"use_sim_time": says}]


def test_what_is_given_is_for_the_node_by_its_name(nodes):
    """What is for any node loses against what a file says of one."""
    assert nodes(min_speed="2.0")["flow_node"]["name"] == "flow_node"


def test_a_file_below_the_home_folder_is_found(parameters, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "flow.yaml").touch()
    assert parameters(params_file="~/flow.yaml") == [str(tmp_path / "flow.yaml")]


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
    ({"foxglove": "true"}, ZeroFlowError, "sudo apt install ros-jazzy-foxglove-bridge"),
    ({"file": "launch/foxglove.launch.py"}, ZeroFlowError, "foxglove_bridge is not installed"),
    ({"rviz": "true"}, ZeroFlowError, "rviz2 is not installed: sudo apt install ros-jazzy-rviz2"),
    ({"params_file": "/no/such.yaml"}, ZeroFlowError, "params_file:=/no/such.yaml: there is no such file"),
    ({"cpu_fallback": "perhaps"}, ZeroFlowError, "cpu_fallback is 'perhaps', but must be true or false"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_before_anything_starts(load, monkeypatch, tmp_path, wrong, error, text):
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))  # with nothing in it
    with pytest.raises(error, match=text):
        load(**wrong)


def test_a_port_is_a_number(load, with_bridge):
    with pytest.raises(ValueError, match="foxglove_port:=http is no number"):
        load(foxglove="true", foxglove_port="http")


def test_foxglove_s_bridge_has_the_node_s_clock_and_namespace(nodes):
    bridge = nodes(foxglove="true", foxglove_port="9000", namespace="left", bag="/some/bag")["foxglove_bridge"]
    assert bridge["parameters"] == [{"use_sim_time": True, "port": 9000}]
    assert (bridge["package"], bridge["namespace"]) == ("foxglove_bridge", "left")
    live = nodes(file="launch/foxglove.launch.py", use_sim_time="false")["foxglove_bridge"]
    assert live["parameters"] == [{"use_sim_time": False, "port": 8765}]


def test_rviz_opens_the_view_that_comes_along_and_looks_where_the_node_publishes(nodes, repository: Path):
    rviz = nodes(rviz="true", points="/ouster/points", namespace="left")["rviz2"]
    switch, file = rviz["arguments"]
    assert switch == "-d" and Path(file).samefile(repository / "config" / "flow.rviz")
    assert rviz["namespace"] == "left" and rviz["parameters"] == [{"use_sim_time": False}]
    names = dict(rviz["remappings"])
    assert names.pop("/lidar/points") == "/ouster/points"
    view = yaml.safe_load(Path(file).read_text())["Visualization Manager"]
    topics = {display["Topic"]["Value"] for display in view["Displays"] if "Topic" in display}
    assert names == {topic: topic[1:] for topic in topics - {"/lidar/points"}}  # relative, so in the namespace


def test_rviz_s_fixed_frame_may_be_given(nodes):
    assert nodes(rviz="true", fixed_frame="os_lidar")["rviz2"]["arguments"][2:] == ["-f", "os_lidar"]
