"""The bench of ego motion and ground: what it calls an error, and its tables on something tiny."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from zeroflow_core.bench.__main__ import app
from zeroflow_core.bench.odometry_run import as_fired, simulated_log
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.simulation.log import Drive
from zeroflow_core.simulation.scanners import scanner_named


@pytest.fixture(scope="module")
def measured():
    return simulated_log("small", 0, 3)


def test_points_as_fired_are_those_of_the_moving_scanner():
    """Put back where the vehicle was at each point's time, they lie where they lay."""
    simulator = Drive(1, 2, scanner_named("small"), "street").simulator()
    sweep = simulator.sweep(1).sweep
    fired = as_fired(sweep, simulator)
    offsets = sweep.time_offset_ns
    for row in np.linspace(0, len(sweep) - 1, 30).astype(int):
        pose = simulator.ego_pose(0.1 + 1e-9 * int(offsets[row]))
        back = sweep.world_SE3_ego.inverse() @ pose
        np.testing.assert_allclose(back.transform(fired.points[row : row + 1]), sweep.points[row : row + 1], atol=1e-3)
    assert np.linalg.norm(fired.points - sweep.points, axis=1)[offsets > 80_000_000].mean() > 0.5
    first = offsets == offsets.min()
    np.testing.assert_allclose(fired.points[first], sweep.points[first], atol=0.02)


def test_a_simulated_log_is_judged_by_what_it_knows_exactly(measured):
    assert (measured.sensor, measured.scene) == ("small", "street")
    assert set(measured.poses) == {"compensated", "fired", "deskewed"}
    for errors in measured.poses.values():
        assert errors.metres.shape == errors.degrees.shape == errors.apparent.shape == (2,)
        assert 0 < errors.metres.max() < 0.15
        # at least the shift, but for what the turn makes good
        assert (errors.apparent > 0.3 * errors.metres).all()
    assert measured.step > 0.3
    assert measured.deskewed_m.mean() < 0.3 * measured.fired_m.mean()
    assert 0.6 < measured.ground.overlap.mean() < 1.0
    assert abs(measured.ground.ground_z - measured.ground.true_ground_z) < 0.05


def test_the_command_prints_tables_and_one_line_of_json():
    done = CliRunner().invoke(app, ["odometry", "--sensor", "small", "--sim-logs", "1", "--sweeps", "3"])
    assert done.exit_code == 0, done.output
    line = json.loads(done.stdout.splitlines()[-1])
    assert (line["bench"], len(line["simulated"]), line["real"]) == ("odometry", 1, [])
    for words in ("as fired, deskewed", "Patchwork++ IoU"):
        assert words in done.stdout


def test_a_real_pair_agrees_with_its_poses_and_map(test_data: Path):
    path = test_data / "av2"
    done = CliRunner().invoke(app, ["odometry", "--sim-logs", "0", "--data", str(path)])
    assert done.exit_code == 0, done.output
    (log,) = json.loads(done.stdout.splitlines()[-1])["real"]
    assert log["sweeps"] == 2
    assert log["poses"]["metres"][0] < 0.03 and log["poses"]["degrees"][0] < 0.1
    assert log["ground"]["iou_av2"] == pytest.approx(0.83, abs=0.02)
    assert abs(log["ground"]["z_error_m"]) < 0.05


def test_nothing_to_measure_and_unknown_scanners_are_told():
    for words, match in ((["--sim-logs", "0"], "nothing to measure"), (["--sensor", "sonar"], "scanner 'sonar'")):
        done = CliRunner().invoke(app, ["odometry", *words])
        assert isinstance(done.exception, ZeroFlowError)
        assert match in str(done.exception)
