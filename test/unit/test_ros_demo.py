"""What the demo's onlooker makes of messages, and what the summary makes of that."""

from __future__ import annotations

import copy
from io import StringIO

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 (rclpy) is not installed")

from rich.console import Console
from ros_messages import SECOND

from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.errors import FlowErrors
from zeroflow_core.moments import Moment
from zeroflow_core.objects import MovingObject
from zeroflow_core.tracking import Track
from zeroflow_ros import album
from zeroflow_ros.summary import check, sum_up, table

CAR = MovingObject(np.array([10.0, 2.0, 0.5]), np.array([4.5, 1.8, 1.5]), -2.5, np.array([-8.0, -6.0, 0.0]), 200)


class Seen:
    """A witness that has seen all there was to see."""

    def __init__(self, num_points: dict[int, int]) -> None:
        self.rows = dict(list(num_points.items())[1:])
        self.latencies = [0.1, 0.2]
        self.num_objects = [2, 4]
        self.facts = {"device": "cpu", "checkpoint": "default", "clouds_received": "3", "gap": "0"}
        self.errors = FlowErrors()


@pytest.fixture
def num_points() -> dict[int, int]:
    return {SECOND: 100, 2 * SECOND: 90, 3 * SECOND: 120}


def test_an_album_gives_its_moments_back_until_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(album, "MOST", 3)
    kept = album.Album(tmp_path)
    for k in range(5):
        velocity = np.full((4, 3), k, np.float32)
        kept.add(Moment(k, np.ones((4, 3), np.float32), velocity, [Track(1, CAR, 1.0, 10, False)], paths={1: velocity}))
    assert [moment.stamp_ns for moment in kept] == [0, 1, 2] and len(kept) == 3
    for moment in kept:  # a second time
        np.testing.assert_array_equal(moment.velocity, np.full((4, 3), moment.stamp_ns))
        np.testing.assert_array_equal(moment.tracks[0].object.centre, CAR.centre)


def test_a_complete_run_is_summed_up_on_one_screen(num_points):
    seen = Seen(num_points)
    flow = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    seen.errors.add(flow * 0.8, flow, 0.1)
    summary = sum_up("a log", num_points, seen, None, None)
    check(summary)
    assert summary["points_per_sweep"] == {"least": 90, "median": 100, "most": 120}
    assert summary["latency_ms"]["p50"] == pytest.approx(150)
    assert summary["problems"] == {}
    console = Console(width=80, record=True, file=StringIO())
    console.print(table(summary))
    screen = console.export_text()
    assert len(screen.splitlines()) <= 24
    words = " ".join(screen.split())
    assert "3 sweeps, 2 flow messages, rows equal to input in 2 of 2" in words
    assert "default on cpu" in words
    assert "end-point error 0.200 m per sweep, 1.000 m for zero flow" in words


@pytest.mark.parametrize("change", ["one flow is missing", "one flow is short", "one flow too many"])
def test_an_incomplete_run_is_a_failure_that_names_the_nodes_complaints(num_points, change):
    seen = Seen(num_points)
    if change == "one flow is missing":
        del seen.rows[3 * SECOND]
    elif change == "one flow is short":
        seen.rows[3 * SECOND] -= 1
    else:
        seen.rows[SECOND] = 100
    seen.facts["gap"] = "1"
    with pytest.raises(ZeroFlowError, match="3 sweeps should give 2 flow messages .* gap 1"):
        check(sum_up("a log", num_points, seen, None, None))


def test_a_run_without_flow_markers_or_diagnostics_is_still_summed_up(num_points):
    seen = Seen(num_points)
    seen.rows, seen.latencies, seen.num_objects, seen.facts = {}, [], [], {}
    summary = sum_up("a log", num_points, seen, None, None)
    before = copy.deepcopy(summary)
    table(summary)
    assert summary == before
    with pytest.raises(ZeroFlowError, match="0 came"):
        check(summary)
