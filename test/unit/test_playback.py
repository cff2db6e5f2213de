"""A log, a bag or a run as moments: what is seen in them, and mistakes in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bag_cases import START, STEP, cloud_message, message_of, odometry_message, record, tf_message
from evaluation_cases import labelled_by_cuboids

from zeroflow_core import load_student
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.bags import write_bag
from zeroflow_core.datasets.recording import stream as recording_stream
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.evaluation.methods import Settings, make_method
from zeroflow_core.evaluation.run import evaluate
from zeroflow_core.evaluation.truth import read_truth
from zeroflow_core.fastflow3d.anchored import flow_estimator
from zeroflow_core.geometry import SE3
from zeroflow_core.ground import Patchwork, mark_ground, no_ground
from zeroflow_core.moments import Moment
from zeroflow_core.pairs import Flow, make_pair
from zeroflow_core.playback import open_playback, opening
from zeroflow_core.playback.bag_frames import BagClouds, BagFrames
from zeroflow_core.playback.playback import Playback
from zeroflow_core.simulation.log import simulate_log

SWEEPS = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two simulated logs with labels, the second without motion to get wrong, in sensor/val."""
    root = tmp_path_factory.mktemp("data")
    simulate_log(root / "sensor" / "val" / "drive", seed=21, sweeps=SWEEPS, scanner="small", scene="junction")
    simulate_log(root / "sensor" / "val" / "other", seed=4, sweeps=2, scanner="small", scene="street")
    return root


@pytest.fixture(scope="module")
def log(root) -> Log:
    return Log(root / "sensor" / "val" / "drive")


@pytest.fixture(scope="module")
def bag(log, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bag") / "drive_bag"
    write_bag(path, log.sweeps(), {"lidar": SE3.identity()})
    return path


def _moments(source: Path, indices=None, **how) -> list[Moment]:
    return list(open_playback(source, **how).moments(indices))


def _same(left: Moment, right: Moment) -> None:
    np.testing.assert_array_equal(left.points, right.points)
    np.testing.assert_array_equal(left.velocity, right.velocity)
    assert left.stamp_ns == right.stamp_ns


# Logs


def test_a_log_is_its_sweeps_with_the_velocities_that_the_method_gives_them(log):
    playback = open_playback(log.path, method="labels")
    moments = list(playback.moments())
    assert playback.name == f"log {log.log_id}"
    assert playback.method == "the logs' own labels"
    assert len(playback) == len(moments) == SWEEPS - 1
    for i, moment in enumerate(moments):
        sweep, truth = log.sweep(i), read_truth(log, i)
        assert moment.stamp_ns == sweep.stamp_ns
        np.testing.assert_array_equal(moment.points, sweep.points)
        np.testing.assert_array_equal(moment.world_SE3_vehicle.matrix, sweep.world_SE3_ego.matrix)
        expected = truth.scene_flow.residual / truth.dt
        np.testing.assert_allclose(moment.velocity, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(moment.truth, expected, rtol=1e-5, atol=1e-6)


def test_the_student_is_shown_what_the_node_shows_it(log):
    moment = _moments(log.path, [2])[0]
    sweeps = (mark_ground(log.sweep(i), Patchwork()) for i in (2, 3))
    expected = flow_estimator(load_student("default"))(make_pair(*sweeps)).velocity
    np.testing.assert_array_equal(moment.velocity, expected)


def test_what_moves_is_followed_and_leaves_trails(log):
    moments = _moments(log.path, method="labels")
    ids = [{track.id for track in moment.tracks} for moment in moments]
    lasting = set.intersection(*ids)
    assert len(lasting) >= 3
    errors = []
    for number in lasting:
        track = next(track for track in moments[-1].tracks if track.id == number)
        path = moments[-1].paths[number]
        assert len(path) == len(moments)
        travelled = np.linalg.norm(path[-1] - path[0]) / ((len(moments) - 1) * 0.1)
        errors.append(abs(travelled - track.object.speed))
        np.testing.assert_allclose(path[-1], track.object.centre)
    assert np.median(errors) < 0.5  # some grow while they come into view
    assert len(moments[-1].ego_path) == len(moments)
    back = moments[-1].world_SE3_vehicle.inverse() @ moments[0].world_SE3_vehicle
    np.testing.assert_allclose(moments[-1].ego_path[0], back.translation, atol=1e-9)


def test_the_first_moment_has_objects_already_and_a_later_one_a_past(log):
    whole = _moments(log.path, method="labels")
    assert len(whole[0].tracks) >= 3
    late = _moments(log.path, [5, 6], method="labels")
    assert len(late) == 2
    assert len(late[0].ego_path) == 3  # two sweeps before it were looked at
    _same(late[0], whole[5])
    assert len(next(open_playback(log.path, method="labels").moments([5], lead_in=5)).ego_path) == 6


def test_a_real_log_of_one_pair_shows_what_its_labels_say(test_data):
    folder = next((test_data / "av2" / "sensor" / "val").iterdir())
    (moment,) = _moments(folder, method="labels")
    assert len(moment.points) == 99_229
    fast = np.linalg.norm(moment.truth, axis=1) >= 0.5
    assert 1_800 < fast.sum() < 4_000
    assert 5 <= len(moment.true_objects) <= 40
    assert [track.object.num_points for track in moment.tracks] == [o.num_points for o in moment.true_objects]


def test_truth_says_nothing_where_labels_do_not(log, tmp_path):
    labelled_by_cuboids(log.path, tmp_path / "cuboids")
    cuboids = Log(tmp_path / "cuboids")
    known = read_truth(cuboids, 0).scene_flow.is_valid
    assert not known.all()
    moment = _moments(cuboids.path, [0], method="zero")[0]
    np.testing.assert_array_equal(np.isfinite(moment.truth).all(axis=1), known)
    assert np.all(moment.velocity == 0)
    assert not moment.tracks
    assert moment.true_objects


def test_truth_is_left_out_on_demand_and_where_it_cannot_be_known(log, tmp_path, caplog):
    assert _moments(log.path, [0], method="zero", with_truth=False)[0].truth is None
    labelled_by_cuboids(log.path, tmp_path / "unmapped")
    shutil.rmtree(tmp_path / "unmapped" / "map")
    moments = _moments(tmp_path / "unmapped", [0, 1], method="zero")
    assert [moment.truth for moment in moments] == [None, None]
    assert len(caplog.records) == 1
    assert "has no map/ with ground heights" in caplog.text


def test_min_speed_says_what_moves(log):
    slow = _moments(log.path, [3], method="labels")[0]
    middle = float(np.median([found.speed for found in slow.true_objects]))
    fast = _moments(log.path, [3], method="labels", min_speed=middle)[0]
    assert 0 < len(fast.true_objects) < len(slow.true_objects)
    assert all(found.speed >= middle for found in fast.true_objects)
    assert len(fast.tracks) < len(slow.tracks)


def test_the_liveliest_moment_is_the_one_where_most_points_move(log):
    playback = open_playback(log.path, method="labels")
    moving = [(np.linalg.norm(moment.velocity, axis=1) >= 0.5).sum() for moment in playback.moments()]
    first = (len(playback) - 1) // 2  # what led up to it can be shown
    assert playback.liveliest(sample=len(playback)) == first + int(np.argmax(moving[first:]))
    assert playback.liveliest(sample=2) == (first if moving[first] >= moving[-1] else len(playback) - 1)


@pytest.mark.parametrize("indices", [[2, 1], [1, 1], [-1], [SWEEPS - 1]])
def test_indices_ascend_and_are_there(log, indices):
    with pytest.raises(ValueError, match="ascend from 0 to below"):
        _moments(log.path, indices, method="zero")


def test_no_indices_are_no_moments(log):
    assert _moments(log.path, [], method="zero") == []


# Bags


def test_a_bag_shows_what_its_log_does(bag, log):
    height = 0.33  # of the vehicle frame's origin; the ground as it is estimated lies elsewhere by centimetres
    expected, moments = _moments(log.path), _moments(bag, height=height)
    playback = open_playback(bag, height=height)
    assert playback.name == "bag drive_bag"
    assert playback.method.startswith("student")
    assert len(playback) == len(moments) == SWEEPS - 1
    for left, right in zip(expected, moments, strict=True):
        assert left.stamp_ns == right.stamp_ns
        assert right.truth is None
        kept = np.isfinite(left.points).all(axis=1)
        np.testing.assert_allclose(right.points, left.points[kept], atol=1e-5)
        np.testing.assert_allclose(right.velocity, left.velocity[kept], atol=1e-3)
    assert [track.id for track in moments[-1].tracks] == [track.id for track in expected[-1].tracks]


def test_a_bag_without_poses_has_those_of_kiss_icp(log, tmp_path):
    write_bag(tmp_path / "bag", log.sweeps(), {"lidar": SE3.identity()}, odom=False, tf=False)
    moments = _moments(tmp_path / "bag", method="zero")
    assert len(moments) == SWEEPS - 1
    way = moments[0].world_SE3_vehicle.inverse() @ moments[-1].world_SE3_vehicle
    true = log.pose(log.stamps_ns[0]).inverse() @ log.pose(log.stamps_ns[SWEEPS - 2])
    assert np.linalg.norm(way.translation - true.translation) < 0.3


class _Spy:
    """A method that says that nothing moves, and remembers what it was asked."""

    name = "spy"

    def __init__(self) -> None:
        self.asked: list[tuple[int, float]] = []

    def ground_rule(self, log):
        return no_ground

    def flow(self, log, i, pair) -> Flow:
        self.asked.append((i, round(pair.dt, 3)))
        return Flow(np.zeros_like(pair.pc0), np.zeros(len(pair.pc0), np.uint8), pair.dt)


def _clouds(stamps_s: list[float], broken: tuple[int, ...] = (), odometry: bool = True) -> Iterator[tuple]:
    """Clouds of a plane with something on it, seen by a vehicle that stands."""
    rng = np.random.default_rng(3)
    plane = np.column_stack([rng.uniform(-20, 20, (3000, 2)), np.full(3000, -1.7)])
    box = rng.uniform((5, -1, -1.6), (8, 1, 1), (400, 3))
    points = np.concatenate([plane, box]).astype(np.float32)
    for k, seconds in enumerate(stamps_s):
        stamp = START + round(seconds * 1e9)
        if odometry:
            yield "/odom", odometry_message(SE3.identity(), stamp, child="velodyne"), stamp
        yield "/points", cloud_message(points, stamp, **({"point_step": 5} if k in broken else {})), stamp


@pytest.mark.parametrize(
    ("step", "count", "expected"),
    [
        (0.1, 4, [(0, 0.1), (1, 0.1), (2, 0.1)]),
        (0.05, 6, [(0, 0.1), (1, 0.1), (2, 0.1), (3, 0.1), (4, 0.05)]),
        (0.02, 8, [(0, 0.1), (1, 0.1), (2, 0.1), (3, 0.08), (4, 0.06), (5, 0.04), (6, 0.02)]),
        (0.2, 3, [(0, 0.2), (1, 0.2)]),
        (1.5, 3, []),
    ],
)
def test_a_bags_pairs_are_a_tenth_of_a_second_apart_where_clouds_are_that_close(tmp_path, step, count, expected):
    record(tmp_path / "bag", _clouds([step * k for k in range(count)]))
    spy = _Spy()
    moments = list(Playback(BagFrames(BagClouds(tmp_path / "bag", None, None), spy)).moments())
    assert len(moments) == len(expected)
    assert [(i, dt) for i, dt in spy.asked] == [(i, pytest.approx(dt, abs=0.021)) for i, dt in expected]


def test_clouds_that_cannot_be_used_are_left_out_and_counted(tmp_path, caplog):
    record(tmp_path / "bag", _clouds([0.1 * k for k in range(7)], broken=(3,)))
    spy = _Spy()
    moments = list(Playback(BagFrames(BagClouds(tmp_path / "bag", None, None), spy)).moments())
    assert [i for i, _ in spy.asked] == [0, 1, 2, 4, 5]
    assert len(moments) == 5
    assert "clouds left out: 1 could not be decoded" in caplog.text


def test_what_lies_between_far_sweeps_is_not_decoded(tmp_path, monkeypatch):
    record(tmp_path / "bag", _clouds([0.1 * k for k in range(90)]))
    playback = Playback(BagFrames(BagClouds(tmp_path / "bag", None, None), spy := _Spy()))
    decoded = []
    monkeypatch.setattr(
        recording_stream, "read_cloud", lambda *a, read=recording_stream.read_cloud: decoded.append(a[2]) or read(*a)
    )
    assert len(list(playback.moments([2, 80], lead_in=0))) == 2
    assert [i for i, _ in spy.asked] == [2, 80]
    assert len(decoded) < 12


# Recordings of flow


def _flow_clouds(count: int = 4) -> Iterator[tuple]:
    """What the node publishes, in the frame of a scanner that is turned by a quarter: a box that drives along the
    scanner's x."""
    mount = SE3.from_yaw(np.pi / 2, np.array([1.0, 0.0, 1.7]))
    yield "/tf_static", tf_message(("base_link", "velodyne", mount)), START
    for k, (_, message, stamp) in enumerate(_clouds([0.1 * k for k in range(count)], odometry=False)):
        points = np.ndarray((message.width, 3), np.float32, message.data).copy()
        moving = np.arange(len(points)) >= 3000
        points[moving, 0] += 0.5 * k
        points[7] = np.nan
        velocity = np.where(moving[:, None], np.float32([5, 0, 0]), np.float32(0))
        velocity[:5] = np.nan
        columns = {name: points[:, axis] for axis, name in enumerate("xyz")}
        columns |= {f"v{name}": velocity[:, axis] for axis, name in enumerate("xyz")}
        columns["status"] = np.zeros(len(points), np.uint8)
        yield "/odom", odometry_message(SE3.identity(), stamp), stamp
        yield "/flow", message_of(columns, stamp), stamp
        box = {name: np.zeros(1, np.float32) for name in ("x", "y", "z", "yaw", "vx", "vy", "vz")}
        yield "/flow_node/objects", message_of(box, stamp), stamp


def test_recorded_flow_is_shown_as_it_was_and_nothing_is_estimated(tmp_path, monkeypatch):
    record(tmp_path / "bag", _flow_clouds())
    monkeypatch.setattr(opening, "make_method", lambda settings: pytest.fail("a method was made"))
    playback = open_playback(tmp_path / "bag")
    assert playback.method == "as recorded in /flow"
    moments = list(playback.moments())
    assert len(playback) == len(moments) == 4
    for k, moment in enumerate(moments):
        assert len(moment.points) == 3399  # one was no return
        assert np.isnan(moment.velocity[:5]).all()
        # The scanner's x is the vehicle's y.
        np.testing.assert_allclose(moment.velocity[-400:], np.tile([0, 5, 0], (400, 1)), atol=1e-5)
        np.testing.assert_allclose(moment.velocity[5:2999], 0)
        assert moment.points[-400:, 1].mean() == pytest.approx(6.5 + 0.5 * k, abs=0.2)
        (track,) = moment.tracks
        np.testing.assert_allclose(track.object.velocity, [0, 5, 0], atol=1e-4)
    assert len(moments[-1].paths[moments[-1].tracks[0].id]) == 4


def test_beside_recorded_flow_a_method_takes_the_clouds(tmp_path):
    messages = [*_flow_clouds(), *_clouds([0.1 * k for k in range(4)], odometry=False)]
    record(tmp_path / "bag", sorted(messages, key=lambda message: message[2]))
    assert open_playback(tmp_path / "bag").method == "as recorded in /flow"
    for how in ({"method": "zero"}, {"method": "zero", "topic": "/points"}):
        playback = open_playback(tmp_path / "bag", **how)
        assert playback.method.startswith("zero flow")
        assert [moment.points.shape for moment in playback.moments()] == [(3400, 3)] * 3


def test_of_several_flows_one_must_be_named(tmp_path):
    flows = list(_flow_clouds())
    second = [("/second", message, stamp) for topic, message, stamp in flows if topic == "/flow"]
    record(tmp_path / "bag", sorted([*flows, *second], key=lambda message: message[2]))
    with pytest.raises(ZeroFlowError, match=r"several .*; choose one as topic: .*/flow.*/second"):
        open_playback(tmp_path / "bag")
    assert open_playback(tmp_path / "bag", topic="/second").method == "as recorded in /second"


# Runs


@pytest.fixture(scope="module")
def evaluation(root, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("results") / "zero"
    evaluate(Settings(root, method="zero"), out, pictures=0)
    return out


def test_an_evaluation_shows_its_method_on_its_worst_log(evaluation):
    errors = {
        log: figures["av2-2023"]["fd"]
        for log, figures in json.loads((evaluation / "metrics.json").read_text())["per_log"].items()
    }
    worst = max(errors, key=lambda log: errors[log] or 0)
    playback = open_playback(evaluation)
    assert playback.name == f"log {worst}"
    assert playback.method.startswith("zero flow")
    other = min(errors, key=lambda log: errors[log] or 0)
    assert open_playback(evaluation, log=other).name == f"log {other}"
    assert open_playback(evaluation, method="labels").method == "the logs' own labels"


def test_an_evaluation_of_a_student_takes_the_student_as_it_was(root, tmp_path):
    settings = Settings(
        root, ground="none", precision="fp32", streaming="anchored", verify="never", logs=("other",)
    )
    evaluate(settings, tmp_path / "run", pictures=0)
    playback = open_playback(tmp_path / "run")
    assert playback.name == "log other"
    assert playback.method.endswith("ground: none, streaming: anchored)")
    assert open_playback(tmp_path / "run", verify="always").method.endswith("streaming: anchored, verified)")
    assert "ground: patchwork" in open_playback(tmp_path / "run", ground="patchwork").method


@pytest.mark.parametrize("config", ["published", "fast"])
def test_an_evaluation_of_a_teacher_takes_the_teacher_as_it_was(evaluation, tmp_path, config):
    teacher = Settings(Path(), method="fastnsf", teacher_config=config, seed=7, ground="patchwork")
    shutil.copytree(evaluation, tmp_path / "run")
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    told |= {"method": "fastnsf", **make_method(teacher).identity}
    (tmp_path / "run" / "run.json").write_text(json.dumps(told))
    assert open_playback(tmp_path / "run").method == make_method(teacher).name


def test_an_unfinished_evaluation_says_so(evaluation, tmp_path):
    shutil.copytree(evaluation, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    with pytest.raises(ZeroFlowError, match=r"has no metrics.json yet; run the same `zeroflow evaluate`"):
        open_playback(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text("{}")
    with pytest.raises(ZeroFlowError, match="is damaged"):
        open_playback(tmp_path / "run")


def test_an_evaluation_whose_data_is_gone_says_so(evaluation, tmp_path):
    shutil.copytree(evaluation, tmp_path / "run")
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(told | {"data": str(tmp_path / "gone")}))
    with pytest.raises(ZeroFlowError, match="there is no folder"):
        open_playback(tmp_path / "run")


def _distillation(folder: Path, **settings: object) -> Path:
    """What `zeroflow distill` leaves, as far as it is read."""
    from zeroflow_core.fastflow3d.checkpoint import checkpoint_file

    (folder / "labels").mkdir(parents=True)
    shutil.copy(checkpoint_file("default"), folder / "student.safetensors")
    (folder / "config.json").write_text(json.dumps({"settings": settings, "version": "0"}))
    return folder


def test_a_distillation_shows_its_student_on_its_data(root, tmp_path):
    run = _distillation(tmp_path / "run", data=str(root), split="val", names=["other"], bag=None)
    playback = open_playback(run)
    assert playback.name == "log other"
    assert playback.method.startswith("student")
    assert len(list(playback.moments())) == 1


def test_a_distillation_of_a_bag_has_its_logs_in_its_folder(log, tmp_path):
    run = _distillation(tmp_path / "run", data=None, split="train", names=[], bag="/gone")
    shutil.copytree(log.path, run / "data" / "sensor" / "train" / "drive_1")
    assert open_playback(run).name == "log drive_1"


def test_an_unfinished_distillation_says_so(root, tmp_path):
    run = _distillation(tmp_path / "run", data=str(root), split="val", names=[], bag=None)
    (run / "student.safetensors").unlink()
    with pytest.raises(ZeroFlowError, match=r"no student.safetensors yet; run the same `zeroflow distill`"):
        open_playback(run)


# Mistakes


def test_mistakes_are_told_in_a_sentence(root, log, bag, tmp_path):
    (tmp_path / "text.txt").write_text("no log")
    (tmp_path / "empty").mkdir()
    mistakes = [
        (tmp_path / "missing", {}, "there is no .*missing; give an AV2 log, a rosbag2, or"),
        (tmp_path / "text.txt", {}, "text.txt is neither a log nor a bag nor a run"),
        (tmp_path / "empty", {}, "no AV2 log in"),
        (root, {}, "holds 2 logs; name one, such as --log drive"),
        (root, {"log": "gone"}, "there is no log gone in .*; it has: drive, other"),
        (log.path, {"topic": "/points"}, "--topic is of a bag, and .*drive is none; leave it out"),
        (log.path, {"odometry": "/odom"}, "--odometry is of a bag"),
        (log.path, {"height": 1.8}, "--height is of a bag"),
        (log.path, {"method": "magic"}, "method 'magic' is unknown"),
        (log.path, {"ground": "sand"}, "ground rule 'sand' is unknown"),
        (bag, {"log": "drive"}, "--log names one of several logs, and .* is a bag; leave it out"),
        (bag, {"method": "labels"}, "--method labels is of logs"),
        (bag, {"topic": "/gone"}, "no sensor_msgs/msg/PointCloud2 topic /gone"),
    ]
    for source, how, sentence in mistakes:
        with pytest.raises(ZeroFlowError, match=sentence):
            open_playback(source, **how)


def test_one_sweep_is_no_flow(log, tmp_path):
    shutil.copytree(log.path, tmp_path / "log")
    for file in sorted((tmp_path / "log" / "sensors" / "lidar").iterdir())[1:]:
        file.unlink()
    with pytest.raises(ZeroFlowError, match="has one sweep; flow needs two"):
        open_playback(tmp_path / "log", method="zero")
    record(tmp_path / "bag", _clouds([0.0]))
    with pytest.raises(ZeroFlowError, match="has one cloud; flow needs two"):
        open_playback(tmp_path / "bag", method="zero")


def test_a_gap_begins_anew(log, tmp_path):
    sweeps = list(log.sweeps())
    late = [replace(sweep, stamp_ns=sweep.stamp_ns + (20 * STEP if k > 3 else 0)) for k, sweep in enumerate(sweeps)]
    write_bag(tmp_path / "bag", late, {"lidar": SE3.identity()})
    moments = _moments(tmp_path / "bag", method="zero")
    assert [len(moment.ego_path) for moment in moments] == [1, 2, 3, 1, 2, 3]  # sweeps 3 and 7 have no partner
