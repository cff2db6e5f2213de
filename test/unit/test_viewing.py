"""Moments in a Rerun recording: what was logged is read back from the file, and judged by Rerun itself."""

from __future__ import annotations

import shutil
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rerun", reason="the extra viz is not installed")

import rerun as rr
from rrd_cases import BEGIN, SECOND, STEP, Recording, moment, verify

from zeroflow_core.drawing import colour_wheel
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3
from zeroflow_core.moments import Moment
from zeroflow_core.viewing import outlets, require_viewer
from zeroflow_core.viewing.recording import ARROW_S, MOST_ARROWS, SceneRecording

AT = "/world/vehicle/estimate"


@pytest.fixture
def recorded(tmp_path):
    """What a file holds after these moments were logged."""

    def record(*moments: Moment, latency_ms: float | None = None) -> Recording:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.rrd"
        stream = rr.RecordingStream("test")
        with outlets.to_file(stream, path) as check:
            scene = SceneRecording(stream)
            for one in moments:
                check()
                scene.log(one, latency_ms)
        assert scene.count == len(moments)
        verify(path)
        return Recording(path)

    return record


def test_points_are_those_of_the_moment_by_what_they_do(recorded):
    moments = [moment(k) for k in range(3)]
    there = recorded(*moments)
    for k, one in enumerate(moments):
        still, moving = (there.of(f"{AT}/{what}", "positions", one.stamp_ns) for what in ("still", "moving"))
        np.testing.assert_array_equal(still, one.points[1:200])  # without the first, which is NaN
        np.testing.assert_array_equal(moving, one.points[200:])
        expected = colour_wheel.colours(one.velocity[200:], 10.0).astype(np.uint8)
        np.testing.assert_array_equal(there.colours(f"{AT}/moving", one.stamp_ns), expected)
        assert there.sweeps[one.stamp_ns] == k
    assert list(there.sweeps) == [BEGIN, BEGIN + STEP, BEGIN + 2 * STEP]
    assert there.timelines == {"stamp", "sweep"}, "nothing that differs from one recording to the next"


def test_grey_is_light_high_up(recorded):
    grey = recorded(moment(0)).colours(f"{AT}/still").astype(int)
    z = moment(0).points[1:200, 2]
    assert grey[z > 2.5].min() > grey[z < 0.5].max()
    assert np.ptp(grey, axis=1).max() < 30


def test_flow_is_half_a_second_of_travel_of_some_points(recorded):
    there = recorded(moment(0, moving=40), moment(1, moving=2 * MOST_ARROWS + 1))
    np.testing.assert_array_equal(there.of(f"{AT}/flow", "origins"), moment(0).points[200:])
    np.testing.assert_allclose(there.of(f"{AT}/flow", "vectors"), ARROW_S * moment(0).velocity[200:])
    assert MOST_ARROWS / 2 < len(there.of(f"{AT}/flow", "vectors", BEGIN + STEP)) <= MOST_ARROWS


def test_objects_have_boxes_names_arrows_and_trails(recorded):
    there, box = recorded(moment(1)), moment(1).objects[0]
    at = BEGIN + STEP
    np.testing.assert_allclose(there.of(f"{AT}/boxes", "centers", at), [box.centre], rtol=1e-6)
    np.testing.assert_allclose(there.of(f"{AT}/boxes", "half_sizes", at), [[2.0, 0.9, 0.7]], rtol=1e-6)
    np.testing.assert_allclose(
        there.of(f"{AT}/boxes", "quaternions", at), [[0, 0, np.sin(0.15), np.cos(0.15)]], atol=1e-6
    )
    assert list(there.of(f"{AT}/boxes", "labels", at)) == ["#12 8.0 m/s"]
    np.testing.assert_allclose(there.of(f"{AT}/arrows", "vectors", at), [box.velocity], rtol=1e-6)
    np.testing.assert_allclose(there.of(f"{AT}/trails", "strips", at)[0], moment(1).paths[12], rtol=1e-6)
    np.testing.assert_allclose(there.of("/world/vehicle/path", "strips", at)[0], moment(1).ego_path)


def test_what_is_predicted_is_pale(recorded):
    one = moment(0)
    track = one.tracks[0]
    hidden = replace(one, tracks=[replace(track, is_predicted=True, object=replace(track.object, num_points=0))])
    seen, predicted = (recorded(shown).colours(f"{AT}/boxes")[0].astype(int) for shown in (one, hidden))
    assert 60 < predicted.max() < 0.8 * seen.max()


def test_what_is_gone_is_gone_from_the_view(recorded):
    there = recorded(moment(0), moment(1, moving=0))
    for what, component in (("moving", "positions"), ("boxes", "centers"), ("arrows", "vectors"), ("flow", "vectors")):
        assert len(there.of(f"{AT}/{what}", component)) > 0
        assert len(there.of(f"{AT}/{what}", component, BEGIN + STEP)) == 0


def test_the_map_stands_still_while_the_vehicle_drives(recorded):
    there = recorded(*[moment(k) for k in range(11)])
    maps = there.at["/world/map"]
    assert list(maps) == [BEGIN, BEGIN + 5 * STEP, BEGIN + 10 * STEP], "twice a second"
    for stamp_ns in maps:
        points = there.of("/world/map", "positions", stamp_ns)
        assert len(points) > 100
        assert (np.abs(points[:, 0] - 10.05) < 0.06).all(), "the wall, and not the car"
    pose = there.at["/world/vehicle"][BEGIN + 10 * STEP]
    np.testing.assert_allclose(pose["translation"], [[5.0, 0.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(np.reshape(pose["mat3x3"], (3, 3)).T, SE3.from_yaw(0.2, np.zeros(3)).rotation, atol=1e-6)


def test_far_from_the_origin_of_a_map_nothing_trembles(recorded):
    def far_away(k: int) -> Moment:
        pose = moment(k).world_SE3_vehicle
        return replace(moment(k), world_SE3_vehicle=SE3(pose.rotation, pose.translation + [5e6, 4e5, 100.0]))

    there = recorded(far_away(0), far_away(1))
    np.testing.assert_allclose(there.of("/world/vehicle", "translation", BEGIN + STEP), [[0.5, 0.0, 0.0]], atol=1e-6)
    assert np.abs(there.of("/world/map", "positions")[:, 0] - 10.05).max() < 0.06


def test_a_world_that_begins_anew_has_a_map_of_its_own(recorded):
    first = [moment(k) for k in range(4)]
    jump = SE3.from_yaw(1.0, np.array([3.0, 4.0, 0.0]))
    other = replace(moment(5), world_SE3_vehicle=jump, ego_path=np.zeros((1, 3)))
    there = recorded(*first, other)
    points = there.of("/world/map", "positions", other.stamp_ns)
    expected = jump.transform(other.points[1:200].astype(float))
    assert 100 < len(points) <= len(expected)
    assert np.linalg.norm(points[:, None] - expected, axis=2).min(axis=1).max() < 0.01, "nothing of the other world"


def test_without_a_pose_there_is_no_map_and_no_speed(recorded):
    there = recorded(*[moment(k, known=False) for k in range(2)])
    assert "/world/map" not in there.at and "/plots/speed/vehicle" not in there.at
    np.testing.assert_array_equal(there.of("/world/vehicle", "translation", BEGIN + STEP), np.zeros((1, 3)))


def test_without_an_estimate_everything_stands_still(recorded):
    there = recorded(replace(moment(0), velocity=None, tracks=[], paths={}))
    assert len(there.of(f"{AT}/still", "positions")) == 239
    assert len(there.of(f"{AT}/moving", "positions")) == 0


def test_a_sweep_without_points(recorded):
    nothing = np.zeros((0, 3), np.float32)
    there = recorded(Moment(BEGIN, nothing, nothing), moment(1))
    assert len(there.of(f"{AT}/still", "positions")) == 0


def test_truth_has_a_view_of_its_own(recorded):
    there = recorded(moment(0, truth=True), moment(1))
    truth = moment(0, truth=True)
    moving = there.of("/world/vehicle/truth/moving", "positions")
    np.testing.assert_array_equal(moving, truth.points[[2, *range(200, 240)]], "0.6 m/s is fast enough")
    assert list(there.of("/world/vehicle/truth/boxes", "labels")) == ["16.0 m/s"]
    assert there.of("/plots/objects/truth", "scalars") == [1.0]
    assert {"Estimate", "Truth", "Estimate, from above", "Truth, from above", "Colours"} <= set(there.views)
    assert "is_recursive" in str(there.at["/world/vehicle/truth"][BEGIN + STEP]), "it is not shown beside the next one"


def test_without_truth_there_is_no_view_of_it(recorded):
    there = recorded(moment(0))
    assert "From behind" in there.views and "From above" in there.views and "Truth" not in there.views
    assert not any(entity.startswith("/world/vehicle/truth") for entity in there.at)


def test_figures_over_time(recorded):
    there = recorded(moment(0), moment(1), latency_ms=42.0)
    assert there.of("/plots/speed/fastest", "scalars") == [8.0]
    assert there.of("/plots/speed/vehicle", "scalars", BEGIN + STEP) == pytest.approx([5.0])
    assert there.of("/plots/objects/estimate", "scalars") == [1.0]
    assert there.of("/plots/latency/flow", "scalars", BEGIN + STEP) == [42.0]
    assert "Latency (ms)" in there.views


def test_the_timeline_goes_on_when_stamps_go_back(recorded):
    there = recorded(moment(0), moment(1), moment(0), moment(1))
    stamps = list(there.sweeps)
    assert list(there.sweeps.values()) == [0, 1, 2, 3] and np.all(np.diff(stamps) > 0)
    assert stamps[3] - stamps[2] == STEP and stamps[2] - stamps[1] < SECOND


def test_the_same_moments_are_the_same_recording(recorded):
    first, second = (recorded(*[moment(k, truth=True) for k in range(2)]) for _ in range(2))
    assert first.at == second.at and first.views == second.views


def test_no_file_is_left_where_the_disk_is_all_but_full(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    room = iter([10 << 30, 10 << 30, 1 << 20])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, next(room)))
    stream = rr.RecordingStream("test")
    with pytest.raises(ZeroFlowError, match=r"cannot write .*1 MB are left"):
        with outlets.to_file(stream, tmp_path / "a.rrd") as check:
            scene = SceneRecording(stream)
            for k in range(2):
                check()
                scene.log(moment(k))
    assert list(tmp_path.iterdir()) == []


def test_what_fails_in_between_leaves_the_file_before_as_it_was(tmp_path):
    path = tmp_path / "a.rrd"
    path.write_text("before")
    with pytest.raises(KeyError):
        with outlets.to_file(rr.RecordingStream("test"), path):
            raise KeyError
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have a screen")
def test_without_a_screen_it_says_what_to_do(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ZeroFlowError, match=r"no screen.*--save.*--serve"):
        with outlets.to_screen(rr.RecordingStream("test"), live=False):
            raise AssertionError("there is no screen")


def test_the_viewer_is_the_one_that_belongs_to_the_sdk(monkeypatch):
    spawned = {}
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(rr, "spawn", lambda **how: spawned.update(how))
    stream = rr.RecordingStream("test")
    with outlets.to_screen(stream, live=True):
        pass
    assert Path(spawned["executable_path"]).is_file()
    assert spawned["recording"] is stream
    assert spawned["memory_limit"].endswith("GB"), "a live view is open for days"


def test_a_viewer_that_does_not_start_is_told_in_a_line(monkeypatch):
    def refuse(**how):
        raise RuntimeError("no such thing\n\nand much advice")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(rr, "spawn", refuse)
    with pytest.raises(ZeroFlowError, match=r"did not start: no such thing$"):
        with outlets.to_screen(rr.RecordingStream("test"), live=False):
            pass


def test_a_viewer_that_is_closed_ends_it(monkeypatch):
    def refuse(*where, **how):
        raise ConnectionRefusedError

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(rr, "spawn", lambda **how: None)
    monkeypatch.setattr(outlets, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr("socket.create_connection", refuse)
    with pytest.raises(ZeroFlowError, match="the viewer was closed"):
        with outlets.to_screen(rr.RecordingStream("test"), live=False) as check:
            check()


@pytest.mark.parametrize("hidden", ["rerun", "rerun.blueprint"])
def test_without_rerun_it_says_what_to_install(monkeypatch, hidden: str):
    monkeypatch.setitem(sys.modules, hidden, None)
    monkeypatch.delitem(sys.modules, "rerun.blueprint") if hidden == "rerun" else None
    with pytest.raises(ZeroFlowError, match=r"pip install 'zeroflow_ros\[viz\]'"):
        require_viewer()
