"""The table of parameters: what it refuses, and in which words. It needs no ROS."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_ros.parameters.settings import OUTPUT_FIELDS, WHEN, Settings, checked, mounting_pose, table


def test_the_defaults_are_valid_and_everything_is_explained():
    assert checked({}) == checked(asdict(Settings())) == Settings()
    for entry in table():
        assert len(entry.description) > 20 and entry.description.endswith("."), entry.name
        assert entry.when in WHEN and entry.group
        assert (entry.low is not None) == (entry.kind in (int, float)), f"{entry.name} needs a range"
        assert not entry.choices or entry.kind in (str, tuple)


def test_engine_precision_and_streaming_are_those_of_the_student():
    from zeroflow_core.devices import PRECISIONS
    from zeroflow_core.fastflow3d.anchored import STREAMING
    from zeroflow_core.fastflow3d.student import ENGINES
    from zeroflow_core.verification.flows import VERIFY

    choices = {entry.name: entry.choices for entry in table()}
    assert (choices["engine"], choices["precision"], choices["streaming"]) == (ENGINES, PRECISIONS, STREAMING)
    assert choices["verify"] == VERIFY


def test_whole_numbers_and_lists_serve_as_well():
    settings = checked({"max_gap": 1, "z_offset": -2, "output_fields": ["vx", "ring"]})
    assert type(settings.max_gap) is type(settings.z_offset) is float
    assert settings.output_fields == ("vx", "ring")
    assert checked({"output_fields": []}).output_fields == ()
    assert checked({"output_fields": list(OUTPUT_FIELDS)}).output_fields == OUTPUT_FIELDS


@pytest.mark.parametrize(
    "wrong, text",
    [
        ({"ego_motion": "gps"}, "ego_motion is 'gps', but must be one of: auto, odom, tf, kiss_icp, none"),
        ({"deskew": True}, "deskew is True, but must be one of: auto, always, never"),
        ({"flow_target": ""}, "flow_target is ''"),
        ({"max_gap": 0.0}, "max_gap is 0.0, but must be 0.01 to 10.0"),
        ({"max_gap": 11}, "max_gap is 11.0"),
        ({"max_gap": "soon"}, "max_gap is 'soon', but must be a finite number"),
        ({"max_gap": True}, "max_gap is True"),
        ({"max_gap": None}, "max_gap is None"),
        ({"z_offset": float("nan")}, "z_offset is nan, but must be a finite number"),
        ({"z_offset": float("inf")}, "z_offset is inf"),
        ({"min_points": 2}, "min_points is 2, but must be 3 to 10000"),
        ({"min_points": 20.0}, "min_points is 20.0, but must be a whole number"),
        ({"min_points": True}, "min_points is True"),
        ({"autostart": 1}, "autostart is 1, but must be true or false"),
        ({"checkpoint": 3}, "checkpoint is 3, but must be a text"),
        ({"base_frame": ""}, "base_frame is empty; its default is 'base_link'"),
        ({"mounting": ""}, "mounting is empty"),
        ({"output_fields": "vx"}, "output_fields is 'vx', but must be a list of texts"),
        ({"output_fields": ["vx", "x"]}, "output_fields has 'x', but must be made of: intensity, ring"),
        ({"output_fields": [["vx"]]}, "output_fields has "),
        ({"output_fields": ["vx", "vy", "vx"]}, "output_fields has a name twice: vx, vy, vx"),
        ({"speed": 1.0}, "speed is unknown"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(wrong: dict, text: str):
    with pytest.raises(ZeroFlowError) as refusal:
        checked(wrong)
    assert str(refusal.value).startswith(f"parameter {text}")


@pytest.mark.parametrize(
    "lower, upper, values",
    [
        ("pair_interval", "max_gap", (0.6, 0.5)),
        ("max_latency_ms", "max_latency_error_ms", (300.0, 200.0)),
        ("max_cloud_age", "max_cloud_age_error", (3.0, 2.0)),
        ("max_dropped_share", "max_dropped_share_error", (0.5, 0.4)),
    ],
)
def test_values_that_do_not_fit_together_are_refused(lower: str, upper: str, values: tuple[float, float]):
    with pytest.raises(ZeroFlowError) as refusal:
        checked({lower: values[0], upper: values[1]})
    assert str(refusal.value) == (
        f"parameter {lower} is {values[0]}, but must not be above {upper}, which is {values[1]}"
    )
    checked({lower: values[1], upper: values[1]})


def test_a_mounting_turns_about_x_then_y_then_z_then_shifts():
    assert mounting_pose(Settings()) is None
    assert np.array_equal(mounting_pose(checked({"mounting": "0 0 0 0 0 0"})).matrix, np.eye(4))
    pose = mounting_pose(checked({"mounting": " 1.2 0  -1.8 0.1 -0.2 2.5"}))
    turns = [("x", 0.1), ("y", -0.2), ("z", 2.5)]
    point = np.array([3.0, 4.0, 5.0])
    for axis, angle in turns:
        point = _turned(point, axis, angle)
    assert isinstance(pose, SE3)
    assert pose.rotation @ [3.0, 4.0, 5.0] + pose.translation == pytest.approx(point + [1.2, 0.0, -1.8])


def _turned(point: np.ndarray, axis: str, angle: float) -> np.ndarray:
    """About a fixed axis, counter-clockwise seen from its tip."""
    c, s = np.cos(angle), np.sin(angle)
    x, y, z = point
    return {
        "x": np.array([x, c * y - s * z, s * y + c * z]),
        "y": np.array([c * x + s * z, y, c * z - s * x]),
        "z": np.array([c * x - s * y, s * x + c * y, z]),
    }[axis]


@pytest.mark.parametrize(
    "text", ["odom", "1 2 3", "1 2 3 4 5 6 7", "1,2,3,4,5,6", "0 0 nan 0 0 0", "0 0 0 inf 0 0"]
)
def test_a_mounting_that_is_no_pose_is_refused(text: str):
    with pytest.raises(ZeroFlowError, match="six finite numbers 'x y z roll pitch yaw'"):
        checked({"mounting": text})


def test_the_table_is_read_without_ros():
    program = "import sys, zeroflow_ros.parameters.settings; print(any(name.startswith('rcl') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr
