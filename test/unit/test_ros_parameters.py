"""The table of settings.py as parameters of a node: declared, changed, and not changed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from zeroflow_core.errors import ZeroFlowError
from zeroflow_ros.parameters.declared import Parameters
from zeroflow_ros.parameters.settings import WHEN, Settings, table


@pytest.fixture(scope="module")
def context():
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    yield context
    context.try_shutdown()


class Declared:
    """The table on a node, and what its owner is told."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.told: list[Settings] = []
        self.parameters = Parameters(node, self.told.append)

    @property
    def settings(self) -> Settings:
        return self.parameters.settings

    def set(self, **values: object) -> SetParametersResult:
        """All at once, as the service set_parameters_atomically does."""
        return self.node.set_parameters_atomically([Parameter(name, value=value) for name, value in values.items()])


class Humble(Node):
    """A node without the callback that Humble lacks."""

    def __getattribute__(self, name: str) -> object:
        if name == "add_post_set_parameters_callback":
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.fixture
def declared(context):
    """Declares the table on a node that was started with the given values."""
    nodes = []

    def start(kind: type[Node] = Node, **values: object) -> Declared:
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        nodes.append(kind("parameters", context=context, parameter_overrides=overrides))
        return Declared(nodes[-1])

    yield start
    for node in nodes:
        node.destroy_node()


def test_every_parameter_is_declared_with_what_the_table_says(declared):
    one = declared()
    assert one.settings == Settings()
    for entry in table():
        descriptor = one.node.describe_parameter(entry.name)
        assert descriptor.description == f"{entry.description} {WHEN[entry.when]}"
        assert descriptor.read_only == (entry.when == "fixed")
        ranges = [*descriptor.floating_point_range, *descriptor.integer_range]
        assert [(r.from_value, r.to_value) for r in ranges] == ([] if entry.low is None else [(entry.low, entry.high)])
        assert all(choice in descriptor.additional_constraints for choice in entry.choices)
    assert one.node.describe_parameter("deskew").additional_constraints == "one of: auto, always, never"


def test_given_values_are_read(declared):
    settings = declared(checkpoint="/a/b.ckpt", max_gap=1.5, min_points=5, output_fields=["vx", "status"]).settings
    assert (settings.checkpoint, settings.max_gap, settings.min_points) == ("/a/b.ckpt", 1.5, 5)
    assert settings.output_fields == ("vx", "status")


def test_a_whole_number_is_a_number_at_the_start_and_later(declared):
    one = declared(max_gap=1, z_offset=-2)
    assert (one.settings.max_gap, one.settings.z_offset) == (1.0, -2.0)
    assert one.set(max_gap=2).successful
    assert one.settings.max_gap == 2.0 and type(one.settings.max_gap) is float


def test_an_empty_list_of_fields_is_one(context):
    command_line = ["--ros-args", "-p", "output_fields:=[]"]
    node = rclpy.create_node("parameters", context=context, cli_args=command_line)
    one = Declared(node)
    assert one.settings.output_fields == ()
    assert node.get_parameter("output_fields").type_ is Parameter.Type.STRING_ARRAY
    assert one.set(output_fields=["vx"]).successful and one.set(output_fields=[]).successful
    assert one.settings.output_fields == ()
    node.destroy_node()


@pytest.mark.parametrize(
    "wrong",
    [
        {"ego_motion": "gps"},
        {"deskew": True},
        {"max_gap": 0.0},
        {"max_gap": 11},
        {"max_gap": "soon"},
        {"max_gap": True},
        {"z_offset": float("nan")},
        {"min_points": 2},
        {"min_points": 2.5},
        {"checkpoint": 3},
        {"mounting": "1 2 3"},
        {"output_fields": ["vx", "colour"]},
        {"output_fields": "vx"},
        {"output_fields": [1, 2]},
        {"pair_interval": 0.9},
    ],
)
def test_what_makes_no_sense_is_refused_at_the_start_and_later(declared, wrong: dict):
    (name,) = wrong
    with pytest.raises(ZeroFlowError, match=f"parameter {name}"):
        declared(**wrong)
    one = declared()
    result = one.set(**wrong)
    assert not result.successful and result.reason
    assert one.settings == Settings() and one.told == []
    assert one.node.get_parameter(name).value in (getattr(Settings(), name), list(Settings().output_fields))


@pytest.mark.parametrize("kind", [Node, Humble])
def test_live_parameters_change_together_and_the_owner_is_told_once(declared, kind: type[Node]):
    one = declared(kind)
    one.parameters.configured = True
    assert one.set(max_gap=2.0, pair_interval=1.0, min_points=7).successful
    assert (one.settings.max_gap, one.settings.pair_interval, one.settings.min_points) == (2.0, 1.0, 7)
    assert one.told == [one.settings]
    assert one.node.get_parameter("max_gap").value == 2.0


@pytest.mark.parametrize("kind", [Node, Humble])
def test_one_wrong_value_leaves_all_as_they_were(declared, kind: type[Node]):
    one = declared(kind)
    result = one.set(max_gap=2.0, pair_interval=1.0, object_timeout=-1.0)
    assert not result.successful and "object_timeout" in result.reason
    result = one.set(min_points=7, pair_interval=1.0)
    assert result.reason == "parameter pair_interval is 1.0, but must not be above max_gap, which is 0.5"
    assert one.settings == Settings() and one.told == []
    assert one.node.get_parameter("min_points").value == Settings().min_points


def test_what_another_callback_refuses_is_not_taken(declared):
    one = declared()
    refuse = SetParametersResult(successful=False, reason="no")
    one.node._on_set_parameters_callbacks.append(lambda parameters: refuse)  # after ours
    assert one.set(max_gap=2.0).reason == "no"
    assert one.settings == Settings() and one.told == []


def test_what_is_read_when_configured_changes_only_before(declared):
    one = declared()
    assert one.set(device="cpu").successful and one.settings.device == "cpu"
    one.parameters.configured = True
    result = one.set(device="cuda", min_points=7)
    assert not result.successful
    assert result.reason.startswith("parameter device is read when the node is configured: deactivate the node")
    assert (one.settings.device, one.settings.min_points) == ("cpu", Settings().min_points)
    # A file that holds all parameters may be loaded as long as it changes no such one.
    assert one.set(device="cpu", min_points=7).successful and one.settings.min_points == 7
    one.parameters.configured = False
    assert one.set(device="cuda").successful and one.settings.device == "cuda"


def test_autostart_never_changes(declared):
    one = declared(autostart=False)
    assert one.settings.autostart is False
    assert not one.set(autostart=True).successful


def test_no_parameter_can_be_removed(declared):
    one = declared()
    for entry in table():
        assert not one.set(**{entry.name: None}).successful
        assert one.node.has_parameter(entry.name)


def test_parameters_of_others_pass(declared):
    one = declared()
    one.node.declare_parameter("qos_overrides./points.subscription.depth", 5)
    assert one.set(use_sim_time=True, **{"qos_overrides./points.subscription.depth": 9}).successful
    assert one.told == []


def test_a_misspelt_name_is_told_and_others_are_not(declared, capfd):
    declared(max_gapp=0.3, camera_height=1.5, use_sim_time=False)
    said = capfd.readouterr()
    assert "parameter max_gapp is unknown and ignored: is max_gap meant?" in said.err + said.out
    assert "camera_height" not in said.err + said.out


def test_the_file_that_comes_along_is_read_as_it_stands(context, repository: Path):
    file = str(repository / "config" / "flow.yaml")
    node = rclpy.create_node("parameters", context=context, cli_args=["--ros-args", "--params-file", file])
    one = Declared(node)
    given = node._parameter_overrides
    assert one.settings == Settings() and set(given) == {entry.name for entry in table()}
    node.destroy_node()
