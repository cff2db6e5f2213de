"""One table of parameters: what the node declares, what the YAML holds, what the launch file passes on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

import rclpy
from rclpy.parameter import Parameter

from zeroflow_core.errors import ZeroFlowError
from zeroflow_ros.parameters import Settings, declare


@pytest.fixture(scope="module")
def context():
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    yield context
    context.try_shutdown()


@pytest.fixture
def declared(context):
    """Declares the table on a node that was started with the given values."""
    nodes = []

    def start(**values):
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        node = rclpy.create_node("parameters", context=context, parameter_overrides=overrides)
        nodes.append(node)
        return declare(node), node

    yield start
    for node in nodes:
        node.destroy_node()


def test_the_yaml_holds_every_parameter_with_its_default(repository: Path):
    content = yaml.safe_load((repository / "config" / "flow.yaml").read_text())
    assert list(content) == ["/**"]
    assert content["/**"]["ros__parameters"] == asdict(Settings())


def test_every_parameter_explains_itself_and_cannot_be_changed_later(declared):
    settings, node = declared()
    assert settings == Settings()
    for name in asdict(settings):
        descriptor = node.describe_parameter(name)
        assert len(descriptor.description) > 20 and descriptor.read_only
    assert "odom, tf" in node.describe_parameter("ego_motion").additional_constraints
    assert node.describe_parameter("max_gap").floating_point_range[0].to_value == 10.0


def test_given_values_are_read(declared):
    settings, _ = declared(checkpoint="/a/b.ckpt", max_gap=1.5, min_points=5, ego_motion="tf", engine="reference")
    assert (settings.checkpoint, settings.max_gap, settings.min_points) == ("/a/b.ckpt", 1.5, 5)
    assert (settings.ego_motion, settings.engine) == ("tf", "reference")


def test_engine_precision_and_streaming_are_those_of_the_student(declared):
    from zeroflow_core.devices import PRECISIONS
    from zeroflow_core.fastflow3d.anchored import STREAMING
    from zeroflow_core.fastflow3d.student import ENGINES

    _, node = declared()
    for name, choices in (("engine", ENGINES), ("precision", PRECISIONS), ("streaming", STREAMING)):
        assert node.describe_parameter(name).additional_constraints == "one of: " + ", ".join(choices)


def test_a_whole_number_is_a_number(declared):
    settings, _ = declared(max_gap=1, z_offset=-2)
    assert (settings.max_gap, settings.z_offset) == (1.0, -2.0)
    assert type(settings.max_gap) is float


@pytest.mark.parametrize(
    "wrong",
    [
        {"ego_motion": "gps"},
        {"flow_target": ""},
        {"engine": "steam"},
        {"precision": "fp8"},
        {"streaming": "off"},
        {"max_gap": 0.0},
        {"max_gap": 11},
        {"max_gap": "soon"},
        {"max_gap": True},
        {"min_points": 2},
        {"min_points": 2.5},
        {"checkpoint": 3},
    ],
)
def test_what_makes_no_sense_is_refused_by_name(declared, wrong: dict):
    with pytest.raises(ZeroFlowError, match=f"parameter {next(iter(wrong))}"):
        declared(**wrong)
