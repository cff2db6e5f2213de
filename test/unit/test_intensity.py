"""Flow comes from x, y and z alone: another intensity or laser number of every point changes nothing, to the byte."""

from __future__ import annotations

import array
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from zeroflow_core.cli import main
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.av2_writer import write_log
from zeroflow_core.datasets.point_cloud2 import fields_of, rows_of
from zeroflow_core.datasets.stored_flow import read_stored_flow
from zeroflow_core.fastflow3d.student import Student, load_student
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import Patchwork, mark_ground
from zeroflow_core.pairs import Sweep, estimate_flow, make_pair
from zeroflow_core.simulation.log import simulate_sweeps


@pytest.fixture(scope="module")
def student() -> Student:
    """What ships."""
    return load_student("default", device="cpu")


@pytest.fixture(scope="module")
def sweeps() -> list[Sweep]:
    return [
        replace(simulated.sweep, is_ground=None, time_offset_ns=None)
        for simulated in simulate_sweeps(21, 2, "small", "junction")
    ]


def altered(sweep: Sweep, seed: int) -> Sweep:
    """The same points, with an intensity and a laser number at random."""
    rng = np.random.default_rng(seed)
    return replace(
        sweep,
        intensity=rng.uniform(0, 255, len(sweep)).astype(np.float32),
        ring=rng.integers(0, 64, len(sweep)).astype(np.uint16),
    )


def changes(sweeps: list[Sweep]) -> list[list[Sweep]]:
    """The sweeps altered at random, and without both."""
    bare = [replace(sweep, intensity=None, ring=None) for sweep in sweeps]
    return [[altered(sweep, k) for k, sweep in enumerate(sweeps)], bare]


def test_the_core_takes_x_y_z(student: Student, sweeps: list[Sweep]):
    def flow(first: Sweep, second: Sweep) -> np.ndarray:
        marked = [mark_ground(sweep, Patchwork()) for sweep in (first, second)]
        assert marked[0].is_ground.any()
        return estimate_flow(student, make_pair(*marked)).vectors

    usual = flow(*sweeps)
    assert (np.abs(np.nan_to_num(usual)) > 0.01).any()
    for other in changes(sweeps):
        np.testing.assert_array_equal(flow(*other), usual)
    raised = [replace(sweep, points=sweep.points + np.float32([0, 0, 1])) for sweep in sweeps]
    assert (np.nan_to_num(flow(*raised)) != np.nan_to_num(usual)).any()  # z is one of them


def test_the_command_line_takes_x_y_z(sweeps: list[Sweep], tmp_path: Path):
    answers = []
    for k, chosen in enumerate((sweeps, [altered(sweep, 7) for sweep in sweeps])):
        log = tmp_path / f"log{k}"
        write_log(log, chosen, None, {"up_lidar": SE3.identity(), "down_lidar": SE3.identity()})
        out = tmp_path / f"out{k}"
        arguments = ["flow", str(log), "--method", "student", "--device", "cpu", "--out", str(out)]
        result = CliRunner().invoke(main.app, arguments)
        assert result.exit_code == 0, result.output
        answers.append(read_stored_flow(out / "flow.feather", len(chosen[0]))[0])
    there = [Log(tmp_path / f"log{k}").sweep(0) for k in range(2)]
    assert (there[0].intensity != there[1].intensity).any() and (there[0].ring != there[1].ring).any()
    np.testing.assert_array_equal(*answers)
    assert (np.abs(np.nan_to_num(answers[0])) > 0.01).any()


def test_the_node_takes_x_y_z(student: Student, sweeps: list[Sweep]):
    pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")
    from ros_messages import SECOND, Log
    from sensor_msgs.msg import PointCloud2, PointField

    from zeroflow_ros.live.ego_motion import Place
    from zeroflow_ros.live.health import Health
    from zeroflow_ros.live.pipeline import Pipeline
    from zeroflow_ros.parameters.settings import Settings

    class Route:
        """The poses of the sweeps, whose frame is the vehicle's."""

        def locate(self, stamp_ns: int, cloud_frame: str) -> Place:
            (sweep,) = (sweep for sweep in sweeps if sweep.stamp_ns == stamp_ns)
            return Place(sweep.world_SE3_ego, SE3.identity(), "odom")

    def message(sweep: Sweep) -> PointCloud2:
        rows = rows_of(sweep)
        cloud = PointCloud2(height=1, width=len(rows), point_step=rows.itemsize, row_step=rows.nbytes, is_dense=True)
        cloud.fields = [
            PointField(name=name, offset=offset, datatype=datatype, count=count)
            for name, offset, datatype, count in fields_of(rows.dtype)
        ]
        cloud.data = array.array("B", rows.tobytes())
        cloud.header.frame_id = "base_link"
        cloud.header.stamp.sec, cloud.header.stamp.nanosec = divmod(sweep.stamp_ns, SECOND)
        return cloud

    def velocity(chosen: list[Sweep]) -> np.ndarray:
        settings = replace(Settings(), estimate_z_offset=False)
        pipeline = Pipeline(student, Patchwork(), lambda: settings, Route(), Health(Log()))
        first, second = (pipeline.feed(message(sweep)) for sweep in chosen)
        assert first is None
        return second.velocity

    usual = velocity(sweeps)
    assert (np.abs(np.nan_to_num(usual)) > 0.1).any()
    for other in changes(sweeps):
        np.testing.assert_array_equal(velocity(other), usual)
