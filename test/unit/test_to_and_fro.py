"""The drive there and back again: that its clouds are of one size, and that the end leads to the beginning."""

from __future__ import annotations

import numpy as np
import pytest

from zeroflow_core.ego_motion import KissOdometry, relative_pose_errors
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.simulation.to_and_fro import PERIOD_S, to_and_fro

POINTS, RATE = 6000, 5.0


@pytest.fixture(scope="module")
def sweeps():
    return to_and_fro(POINTS, RATE)


def test_clouds_have_as_many_points_as_were_asked_for_at_steady_times(sweeps):
    assert len(sweeps) == PERIOD_S * RATE
    assert {len(sweep) for sweep in sweeps} == {POINTS}
    assert {stamp for stamp in np.diff([sweep.stamp_ns for sweep in sweeps])} == {200_000_000}
    assert sweeps[0].time_offset_ns.max() < 2_000_000  # as good as at once


def test_the_way_is_smooth_and_closed(sweeps):
    there = [sweep.world_SE3_ego.translation for sweep in sweeps]
    steps = np.linalg.norm(np.diff([*there, there[0]], axis=0), axis=1)
    assert steps.max() > 0.5  # it drives
    assert steps[[0, -1]].max() < 0.25 * steps.max()  # and turns round gently
    assert np.abs(np.diff([*steps, steps[0]])).max() < 0.5
    half = len(sweeps) // 2
    assert np.array_equal(sweeps[half - 2].points, sweeps[half + 2].points)


def test_the_clouds_tell_the_motion_also_where_it_begins_anew():
    rate = 10.0
    sweeps = to_and_fro(20_000, rate)
    odometry, poses, truth = KissOdometry(deskew=False), [], []
    for k in range(len(sweeps) + 5):
        sweep = sweeps[k % len(sweeps)]
        truth.append(sweep.world_SE3_ego)
        # Stamps go on.
        poses.append(odometry.register(type(sweep)(sweep.points, round(k * 1e9 / rate), None)))
    metres, _ = relative_pose_errors(poses, truth)
    assert np.median(metres) < 0.1
    assert metres.max() < 0.5


@pytest.mark.parametrize("points, rate", [(0, 10.0), (1000, 0.2)])
def test_what_makes_no_drive_is_refused(points, rate):
    with pytest.raises(ZeroFlowError, match="cannot be made"):
        to_and_fro(points, rate)
