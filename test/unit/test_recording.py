"""Bags imported as logs: poses, frames and heights that are known, every way to record, and what goes wrong."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bag_cases import START, STEP, split
from drive_cases import MOUNT, Drive, message_of, misplaced, world_SE3_base
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer

from zeroflow_core.cli.convert import convert
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.bags import CLOUD, read_sweeps
from zeroflow_core.datasets.recording import import_bag, read_recording
from zeroflow_core.ego_motion import relative_pose_errors
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.ground import GROUND_Z, ground_z_of

DRIVE = Drive()
NAME = f"bag_{START}"


def content(folder: Path) -> dict[str, bytes]:
    """Every file below, but for the path of the bag in recording.json."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for name, data in files.items():
        if name.endswith("recording.json"):
            files[name] = json.dumps(json.loads(data) | {"bag": ""}).encode()
    return files


@pytest.fixture
def complete(tmp_path) -> Path:
    """With odometry and the scanner's mounting."""
    return DRIVE.record(tmp_path / "bag", DRIVE.clouds(), DRIVE.odometry(), DRIVE.mounting())


# --- where the vehicle was ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recorded, expected",
    [
        ([DRIVE.odometry(), DRIVE.mounting()], ("odometry", "odom", "base_link")),
        ([DRIVE.odometry(), DRIVE.mounting(), DRIVE.tf()], ("odometry", "odom", "base_link")),
        ([DRIVE.odometry(child="")], ("odometry", "odom", "velodyne")),
        ([DRIVE.odometry(child="velodyne")], ("odometry", "odom", "velodyne")),
        ([DRIVE.tf(), DRIVE.mounting()], ("tf", "odom", "base_link")),
        ([DRIVE.tf("/map", "car"), DRIVE.mounting("car")], ("tf", "map", "car")),
        ([DRIVE.mounting()], ("kiss_icp", "", "base_link")),
        ([], ("kiss_icp", "", "velodyne")),
    ],
)
def test_the_street_stands_still_in_every_log(tmp_path, recorded, expected):
    (log,) = import_bag(DRIVE.record(tmp_path / "bag", DRIVE.clouds(), *recorded), tmp_path / "logs")
    assert log == tmp_path / "logs" / NAME
    recording = read_recording(log)
    assert (recording.ego_motion, recording.world_frame, recording.vehicle_frame) == expected
    height = 0.0 if recording.vehicle_frame in ("base_link", "car") else MOUNT.translation[2]
    assert recording.ground_z == pytest.approx(-height, abs=0.02)
    assert recording.z_offset == pytest.approx(GROUND_Z + height, abs=0.02)
    assert (recording.sweeps, recording.interval_s) == (5, 0.1)
    assert ground_z_of(Log(log).sweeps()) == pytest.approx(GROUND_Z, abs=0.02)
    _, degrees = relative_pose_errors(
        [s.world_SE3_ego for s in Log(log).sweeps()], [world_SE3_base(0.1 * k) for k in range(5)]
    )
    exact = recording.ego_motion != "kiss_icp"
    assert degrees.max() < (0.001 if exact else 0.1)
    if height == 0.0:
        assert misplaced(log, 0.0) < (0.001 if exact else 0.1)
    for sweep, k in zip(Log(log).sweeps(), range(5), strict=True):
        points, offsets = DRIVE.cloud(k)
        assert len(sweep) == len(points)
        np.testing.assert_array_equal(sweep.intensity, np.arange(len(points), dtype=np.float32) / 7)
        np.testing.assert_array_equal(sweep.time_offset_ns, offsets)
        mount = Log(log).calibration()["up_lidar"]
        np.testing.assert_allclose(sweep.points, mount.transform(points), atol=1e-5)


def test_av2_reads_what_is_imported(tmp_path, complete):
    from av2.structures.sweep import Sweep
    from av2.utils.io import read_city_SE3_ego

    (log,) = import_bag(complete, tmp_path / "logs")
    files = sorted((log / "sensors" / "lidar").iterdir())
    for file, sweep in zip(files, Log(log).sweeps(), strict=True):
        read = Sweep.from_feather(file)
        np.testing.assert_array_equal(read.xyz, sweep.points)
        np.testing.assert_array_equal(read.intensity, sweep.intensity)
        pose = read_city_SE3_ego(log)[sweep.stamp_ns].transform_matrix
        np.testing.assert_allclose(pose, sweep.world_SE3_ego.matrix, atol=1e-9)


def test_the_asked_for_ego_motion_is_taken(tmp_path):
    bag = DRIVE.record(tmp_path / "bag", DRIVE.clouds(), DRIVE.odometry(), DRIVE.mounting(), DRIVE.tf())
    for kind in ("odometry", "tf", "kiss_icp"):
        (log,) = import_bag(bag, tmp_path / kind, ego_motion=kind)
        assert read_recording(log).ego_motion == kind
    with pytest.raises(ZeroFlowError, match="'gps' is unknown; choose one of: auto, odometry, tf, kiss_icp"):
        import_bag(bag, tmp_path / "gps", ego_motion="gps")


@pytest.mark.parametrize("kind", ["odometry", "tf"])
def test_ego_motion_that_is_not_there_is_missed(tmp_path, kind):
    bag = DRIVE.record(tmp_path / "bag", DRIVE.clouds())
    with pytest.raises(ZeroFlowError, match=f"does not give the ego motion by {kind}: it has none .*kiss_icp"):
        import_bag(bag, tmp_path / "logs", ego_motion=kind)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    "odometry, says",
    [
        (DRIVE.odometry(child="wheels"), "no transform joins 'wheels'.*'velodyne'"),
        (DRIVE.odometry(later_ns=10**12), "its stamps do not match"),
    ],
)
def test_odometry_that_does_not_fit_gives_way_to_the_clouds(tmp_path, caplog, odometry, says):
    bag = DRIVE.record(tmp_path / "bag", DRIVE.clouds(), odometry, DRIVE.mounting())
    (log,) = import_bag(bag, tmp_path / "logs")
    assert read_recording(log).ego_motion == "kiss_icp"
    assert "odometry is not used" in caplog.text
    for options in ({"ego_motion": "odometry"}, {"odometry": "/odom"}):
        with pytest.raises(ZeroFlowError, match=says):
            import_bag(bag, tmp_path / "asked", **options)


def test_clouds_without_a_pose_are_left_out_and_counted(tmp_path, caplog):
    drive = Drive(tuple(range(8)))
    odometry = [message for message in drive.odometry() if message[2] < START + 5 * STEP]
    bag = drive.record(tmp_path / "bag", drive.clouds(), odometry, drive.mounting())
    (log,) = import_bag(bag, tmp_path / "logs")
    assert len(Log(log)) == 5
    assert "left out 3 of 8 clouds: 3 had no pose" in caplog.text


# --- how high, and when within a sweep ---------------------------------------------------------------------


def test_a_given_height_is_taken(tmp_path, complete):
    (log,) = import_bag(complete, tmp_path / "logs", height=2.4)
    recording = read_recording(log)
    assert recording.height == 2.4
    assert recording.ground_z == pytest.approx(MOUNT.translation[2] - 2.4)
    assert recording.z_offset == pytest.approx(GROUND_Z - recording.ground_z)
    for height in (0.0, -1.0, float("nan"), 1e3):
        with pytest.raises(ZeroFlowError, match="height of .* cannot be"):
            import_bag(complete, tmp_path / "other", height=height)


def test_ground_that_lies_right_stays(tmp_path):
    clouds = [
        ("/points", message_of(dict(zip("xyz", (points + [0, 0, 1.55]).astype(np.float32).T, strict=True)), t), t)
        for t, points in ((START + k * STEP, DRIVE.cloud(k)[0]) for k in range(3))
    ]
    (log,) = import_bag(DRIVE.record(tmp_path / "bag", clouds), tmp_path / "logs")
    assert read_recording(log).z_offset == 0.0


def test_where_no_ground_is_seen_the_height_is_asked_for(tmp_path):
    points = np.random.default_rng(0).normal(0, 0.5, (500, 3)).astype(np.float32)
    columns = dict(zip("xyz", points.T, strict=True))
    clouds = [("/points", message_of(columns, t), t) for t in (START, START + STEP)]
    bag = DRIVE.record(tmp_path / "bag", clouds)
    with pytest.raises(ZeroFlowError, match="ground cannot be found in the clouds of /points .*--height"):
        import_bag(bag, tmp_path / "logs")
    assert len(import_bag(bag, tmp_path / "logs", height=1.8)) == 1


@pytest.mark.parametrize("kind", ["odometry", "kiss_icp"])
def test_deskewing(tmp_path, kind):
    drive = Drive(tuple(range(6)), skewed=True)
    bag = drive.record(tmp_path / "bag", drive.clouds(), drive.odometry(), drive.mounting())
    raw, deskewed, auto = (
        import_bag(bag, tmp_path / deskew, ego_motion=kind, deskew=deskew)[0] for deskew in ("never", "always", "auto")
    )
    assert read_recording(deskewed).deskewed and not read_recording(raw).deskewed
    assert misplaced(raw, 0.0) > 0.6  # 8 m/s for most of a tenth of a second
    assert misplaced(deskewed, 0.0) < (0.03 if kind == "odometry" else 0.1)
    # Who tells the ego motion may have compensated the clouds; clouds that tell it themselves cannot be compensated.
    like = raw if kind == "odometry" else deskewed
    assert read_recording(auto) == read_recording(like)
    for one, other in zip(Log(auto).sweeps(), Log(like).sweeps(), strict=True):
        np.testing.assert_array_equal(one.points, other.points)


def test_clouds_without_times_are_not_deskewed(tmp_path, caplog):
    clouds = []
    for k in range(2):
        columns = dict(zip("xyz", DRIVE.cloud(k)[0].T, strict=True))
        clouds.append(("/points", message_of(columns, DRIVE.stamp_ns(k)), DRIVE.stamp_ns(k)))
    bag = DRIVE.record(tmp_path / "bag", clouds)
    for deskew in ("auto", "always"):
        assert "no times" not in caplog.text
        (log,) = import_bag(bag, tmp_path / deskew, deskew=deskew)
        assert read_recording(log).ego_motion == "kiss_icp" and not read_recording(log).deskewed
    assert "deskew is set, but clouds have no times of points" in caplog.text
    with pytest.raises(ZeroFlowError, match="deskew 'yes' is unknown; choose one of: auto, always, never"):
        import_bag(bag, tmp_path / "other", deskew="yes")


# --- how it was recorded -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {"plugin": StoragePlugin.MCAP},
        {"plugin": StoragePlugin.MCAP, "compression": CompressionMode.FILE},
        {"plugin": StoragePlugin.MCAP, "compression": CompressionMode.MESSAGE},
        {"plugin": StoragePlugin.MCAP, "compression": CompressionMode.STORAGE},
        {"plugin": StoragePlugin.SQLITE3, "compression": CompressionMode.FILE},
        {"plugin": StoragePlugin.SQLITE3, "compression": CompressionMode.MESSAGE},
        {"version": 8},
    ],
)
def test_every_storage_gives_the_same_log(tmp_path, complete, how):
    import_bag(complete, tmp_path / "expected")
    parts = (DRIVE.clouds(), DRIVE.odometry(), DRIVE.mounting())
    import_bag(DRIVE.record(tmp_path / "other" / "bag", *parts, **how), tmp_path / "logs")
    assert content(tmp_path / "logs") == content(tmp_path / "expected")


def test_a_split_bag_gives_the_same_log(tmp_path, complete):
    import_bag(complete, tmp_path / "expected")
    messages = sorted(DRIVE.clouds() + DRIVE.odometry() + DRIVE.mounting(), key=lambda message: message[2])
    middle = START + 2 * STEP
    halves = [[m for m in messages if m[2] < middle], [m for m in messages if m[2] >= middle]]
    parts = [DRIVE.record(tmp_path / f"part{k}", half) for k, half in enumerate(halves)]
    (tmp_path / "other").mkdir()
    import_bag(split(tmp_path / "other" / "bag", parts, listed=[1, 0]), tmp_path / "logs")
    assert content(tmp_path / "logs") == content(tmp_path / "expected")


def test_a_single_file_is_named_without_its_ending(tmp_path, complete):
    (log,) = import_bag(complete / "bag.db3", tmp_path / "logs")
    assert log.name == NAME


def _double(points, time_ns):
    return message_of({name: points[:, axis].astype(np.float64) for axis, name in enumerate("zyx"[::-1])}, time_ns)


def _big_endian(points, time_ns):
    plain = message_of(dict(zip("xyz", points.T, strict=True)), time_ns)
    plain.data = np.ascontiguousarray(points.astype(">f4")).view(np.uint8).ravel()
    plain.is_bigendian = True
    return plain


def _organised(points, time_ns):
    """Two rows with padding between them, and directions in which nothing was seen, as drivers mark them."""
    half = -(-len(points) // 2) + 2
    cloud = np.zeros((2 * half, 3), np.float32)
    cloud[: len(points)] = points
    cloud[len(points) :: 2] = np.nan
    plain = message_of(dict(zip("xyz", cloud.T, strict=True)), time_ns)
    rows = np.pad(plain.data.reshape(2, half * 12), ((0, 0), (0, 20)))
    plain.height, plain.width, plain.row_step, plain.data = 2, half, half * 12 + 20, rows.ravel()
    plain.is_dense = False
    return plain


def _shuffled(points, time_ns):
    rest = {"rgb": np.zeros(len(points), np.float32), "ring": np.zeros(len(points), np.uint16)}
    return message_of({**rest, "z": points[:, 2], "y": points[:, 1], "label": rest["ring"], "x": points[:, 0]}, time_ns)


@pytest.mark.parametrize("layout", [_double, _big_endian, _organised, _shuffled])
def test_every_field_layout_gives_the_same_points(tmp_path, complete, layout):
    clouds = [("/points", layout(DRIVE.cloud(k)[0], START + k * STEP), START + k * STEP) for k in range(5)]
    (log,) = import_bag(
        DRIVE.record(tmp_path / "odd" / "bag", clouds, DRIVE.odometry(), DRIVE.mounting()), tmp_path / "odd-logs"
    )
    (expected,) = import_bag(complete, tmp_path / "logs")
    for mine, theirs in zip(Log(log).sweeps(), Log(expected).sweeps(), strict=True):
        np.testing.assert_array_equal(mine.points, theirs.points)
        np.testing.assert_allclose(mine.world_SE3_ego.matrix, theirs.world_SE3_ego.matrix, atol=1e-12)


# --- one bag, several logs ---------------------------------------------------------------------------------


def test_a_log_ends_at_gaps_and_where_clocks_go_back(tmp_path):
    drive = Drive((0, 1, 2, 14, 15, 5, 6, 7, 30))
    clouds = drive.clouds()
    messages = [(topic, message, START + k) for k, (topic, message, _) in enumerate(clouds)]
    bag = drive.record(tmp_path / "bag", messages, drive.odometry(), drive.mounting())
    logs = import_bag(bag, tmp_path / "logs")
    assert [log.name for log in logs] == [f"bag_{START + t * STEP}" for t in (0, 14, 5)]
    assert [len(Log(log)) for log in logs] == [3, 2, 3]  # the last cloud is alone
    assert all(misplaced(log, t * 0.1) < 0.001 for log, t in zip(logs, (0, 14, 5), strict=True))


def test_the_same_drive_twice_in_one_bag(tmp_path):
    again = [(topic, message, time_ns + 10**12) for topic, message, time_ns in DRIVE.clouds()]
    bag = DRIVE.record(tmp_path / "bag", DRIVE.clouds(), again, DRIVE.odometry(), DRIVE.mounting())
    for _ in range(2):  # and they are found again
        logs = import_bag(bag, tmp_path / "logs")
        assert [log.name for log in logs] == [NAME, f"{NAME}_2"]


def test_stamps_that_repeat_are_left_out(tmp_path, caplog):
    drive = Drive((0, 1, 1, 2, 2, 2))
    (log,) = import_bag(drive.record(tmp_path / "bag", drive.clouds()), tmp_path / "logs", ego_motion="kiss_icp")
    assert len(Log(log)) == 3
    assert "left out 3 of 6 clouds: 3 had the stamp of the one before" in caplog.text


@pytest.fixture
def short_logs(monkeypatch):
    monkeypatch.setattr("zeroflow_core.datasets.recording.importing._MOST_SWEEPS", 3)


def test_a_log_has_a_length_at_most(tmp_path, short_logs):
    drive, progress = Drive(tuple(range(7))), []
    bag = drive.record(tmp_path / "bag", drive.clouds())
    logs = import_bag(bag, tmp_path / "logs", on_sweep=lambda *numbers: progress.append(numbers))
    assert [read_recording(log).messages for log in logs] == [(0, 3), (3, 6)]
    assert progress == [(k, 7) for k in range(1, 8)]
    for log in logs:  # KISS-ICP begins anew in each
        np.testing.assert_array_equal(Log(log).sweep(0).world_SE3_ego.matrix, np.eye(4))


def test_an_interrupted_import_goes_on(tmp_path, short_logs, monkeypatch):
    drive = Drive(tuple(range(9)))
    spoilt = drive.clouds()
    spoilt[4][1].point_step = 1  # what cannot be decoded is counted in the same way again
    bag = drive.record(tmp_path / "bag", spoilt)
    import_bag(bag, tmp_path / "expected")

    def interrupt(done, total):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_bag(bag, tmp_path / "logs", on_sweep=interrupt)
    (kept,) = (tmp_path / "logs").iterdir()
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*")}
    logs = import_bag(bag, tmp_path / "logs")
    assert len(logs) == 3 and logs[0] == kept
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*")} == before
    assert content(tmp_path / "logs") == content(tmp_path / "expected")


def test_what_a_killed_import_left_is_cleared(tmp_path):
    bag = DRIVE.record(tmp_path / "bag", DRIVE.clouds())
    script = (
        "import os, signal, sys; from zeroflow_core.datasets.recording import import_bag\n"
        f"def kill(done, total):\n    if done == 4: os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
        "import_bag(sys.argv[1], sys.argv[2], on_sweep=kill)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, bag, tmp_path / "logs"], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path / "logs")
    assert left.startswith(".")
    (log,) = import_bag(bag, tmp_path / "logs")
    assert os.listdir(tmp_path / "logs") == [log.name]


def test_a_log_that_was_imported_otherwise_is_not_taken_for_this_one(tmp_path, complete):
    (log,) = import_bag(complete, tmp_path / "logs")
    with pytest.raises(ZeroFlowError, match=f"{log} was imported otherwise .*height: null, not 1.8.*remove it"):
        import_bag(complete, tmp_path / "logs", height=1.8)
    (log / "recording.json").write_text("{")
    with pytest.raises(ZeroFlowError, match=r"recording.json is damaged"):
        import_bag(complete, tmp_path / "logs")
    (log / "recording.json").unlink()
    with pytest.raises(ZeroFlowError, match=f"{log} exists already"):
        import_bag(complete, tmp_path / "logs")
    assert read_recording(log) is None


def test_a_bag_that_moved_is_the_same_bag(tmp_path, complete):
    (log,) = import_bag(complete, tmp_path / "logs")
    (tmp_path / "archive").mkdir()
    assert import_bag(complete.rename(tmp_path / "archive" / "bag"), tmp_path / "logs") == [log]


# --- bad sources -------------------------------------------------------------------------------------------


def test_clouds_that_cannot_be_decoded_are_left_out_and_counted(tmp_path, caplog):
    clouds = DRIVE.clouds()
    clouds[0][1].point_step = 1
    clouds[2][1].fields = clouds[2][1].fields[1:]
    clouds[3] = ("/points", message_of({n: np.full(3, np.nan, np.float32) for n in "xyz"}, START + 3), START + 3)
    bag = DRIVE.record(tmp_path / "bag", clouds, DRIVE.odometry(), DRIVE.mounting())
    (log,) = import_bag(bag, tmp_path / "logs")
    assert len(Log(log)) == 2
    assert "left out 3 of 5 clouds: " in caplog.text
    assert "2 could not be decoded" in caplog.text and "1 held no point" in caplog.text
    assert f"the first: /points at {START} ns in the bag" in caplog.text


def _without_clouds(tmp_path):
    return DRIVE.record(tmp_path / "bag", DRIVE.odometry())


def _two_topics(tmp_path):
    return DRIVE.record(tmp_path / "bag", DRIVE.clouds(), [("/rear", DRIVE.message(0), START)])


def _all_broken(tmp_path):
    clouds = DRIVE.clouds()
    for _, message, _ in clouds:
        message.point_step = 1
    return DRIVE.record(tmp_path / "bag", clouds)


def _one_sweep(tmp_path):
    return Drive((0,)).record(tmp_path / "bag", Drive((0,)).clouds())


def _far_apart(tmp_path):
    drive = Drive((0, 20, 40))
    return drive.record(tmp_path / "bag", drive.clouds())


def _empty(tmp_path):
    from bag_cases import STORE

    with Writer(tmp_path / "bag", version=9) as writer:
        writer.add_connection("/points", CLOUD, typestore=STORE)
    return tmp_path / "bag"


def _metadata_of_another(tmp_path):
    bag = DRIVE.record(tmp_path / "bag", DRIVE.clouds())
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("/points", "/scans"))
    return bag


def _text(tmp_path):
    (tmp_path / "bag").write_text("no bag")
    return tmp_path / "bag"


@pytest.mark.parametrize(
    "source, options, says",
    [
        (lambda folder: folder / "absent", {}, "there is no bag at .*absent"),
        (_text, {}, "is not a rosbag2"),
        (_without_clouds, {}, r"no PointCloud2 topic; its topics: /odom \(nav_msgs"),
        (_two_topics, {}, "several .* topics; choose one as topic: /points, /rear"),
        (_two_topics, {"topic": "/front"}, "has no sensor_msgs/msg/PointCloud2 topic /front; its topics: /points"),
        (_without_clouds, {"topic": "/odom"}, "has no sensor_msgs/msg/PointCloud2 topic /odom"),
        (_one_sweep, {"odometry": "/odom"}, "has no nav_msgs/msg/Odometry topic /odom"),
        (_empty, {}, "has no messages in /points"),
        (_metadata_of_another, {}, "counts 5 messages in /scans, but its files have none; .*reindex"),
        (_all_broken, {}, "none of the clouds in /points .* can be used; the first: /points at"),
        (_one_sweep, {}, "no two usable clouds within a second, .*of 1: 1 had no other within a second"),
        (_far_apart, {}, "no two usable clouds within a second, .*of 3: 3 had no other within a second"),
    ],
)
def test_a_bad_source_is_one_sentence_and_leaves_nothing(tmp_path, source, options, says):
    with pytest.raises(ZeroFlowError, match=says) as error:
        import_bag(source(tmp_path), tmp_path / "logs", **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "logs").exists() or list((tmp_path / "logs").iterdir()) == []


@pytest.mark.parametrize("plugin", list(StoragePlugin))
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.99])
def test_a_truncated_bag_is_one_sentence_and_leaves_nothing(tmp_path, plugin, keep, short_logs):
    drive = Drive(tuple(range(7)))
    bag = drive.record(tmp_path / "bag", drive.clouds(), drive.odometry(), drive.mounting(), plugin=plugin)
    (file,) = (path for path in bag.iterdir() if path.suffix != ".yaml")
    os.truncate(file, int(keep * file.stat().st_size))
    with pytest.raises(ZeroFlowError, match="damaged or incomplete"):
        import_bag(bag, tmp_path / "logs")
    assert not (tmp_path / "logs").exists() or list((tmp_path / "logs").iterdir()) == []


def test_damage_that_shows_late_leaves_nothing(tmp_path, short_logs, monkeypatch):
    """As of a bag on a disk that fails: the samples can be read, but not all that lies between them."""
    from zeroflow_core.datasets.bags import Bag, DamagedBag

    drive = Drive(tuple(range(7)))
    bag = drive.record(tmp_path / "bag", drive.clouds())
    read = Bag.messages

    def failing(self, topics=None, start_ns=None):
        for k, message in enumerate(read(self, topics, start_ns)):
            if start_ns is None and k == 5:
                raise DamagedBag(f"the bag {self.path} cannot be read")
            yield message

    monkeypatch.setattr(Bag, "messages", failing)
    with pytest.raises(ZeroFlowError, match="cannot be read"):
        import_bag(bag, tmp_path / "logs")
    assert list((tmp_path / "logs").iterdir()) == []


def test_a_full_disk_is_one_sentence_and_complete_logs_stay(tmp_path, short_logs):
    drive = Drive(tuple(range(9)))
    bag = drive.record(tmp_path / "bag", drive.clouds())
    import_bag(bag, tmp_path / "expected")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=450k", "none", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("small file systems can be mounted by root alone")
    try:
        with pytest.raises(ZeroFlowError, match=f"cannot write {disk}/logs/bag_.*: No space left on device"):
            import_bag(bag, disk / "logs")
        complete = sorted(path.name for path in (disk / "logs").iterdir())
        assert complete and complete == sorted(os.listdir(tmp_path / "expected"))[: len(complete)]
        expected = content(tmp_path / "expected")
        assert all(expected[name] == data for name, data in content(disk / "logs").items())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_files_that_may_not_grow_are_one_sentence(tmp_path):
    bag = DRIVE.record(tmp_path / "bag", DRIVE.clouds())
    script = (
        "import sys; from zeroflow_core.datasets.recording import import_bag\n"
        "from zeroflow_core.errors import ZeroFlowError\n"
        "try: import_bag(sys.argv[1], sys.argv[2])\n"
        "except ZeroFlowError as error: print(error); sys.exit(1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, bag, tmp_path / "logs"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert f"cannot write {tmp_path}/logs/{NAME}" in done.stdout
    assert os.listdir(tmp_path / "logs") == []


# --- real clouds -------------------------------------------------------------------------------------------


def test_kitti_without_odometry_and_tf(test_data, tmp_path):
    """The log's own poses are KISS-ICP's as well, made elsewhere: they agree, which proves no more than that."""
    source = test_data / "kitti/sensor/test/55f75bc3-6fc4-5c75-8954-f5a939177f70"
    convert(source, tmp_path / "bag", no_odom=True, no_tf=True)
    (log,) = import_bag(tmp_path / "bag", tmp_path / "logs")
    recording, imported, original = read_recording(log), Log(log), Log(source)
    assert recording.ego_motion == "kiss_icp" and recording.z_offset == 0.0
    assert imported.stamps_ns.tolist() == original.stamps_ns.tolist()
    metres, degrees = relative_pose_errors(
        [imported.pose(int(stamp)) for stamp in imported.stamps_ns],
        [original.pose(int(stamp)) for stamp in original.stamps_ns],
    )
    assert metres.mean() < 0.04 and metres.max() < 0.12  # of 0.8 m a sweep
    assert degrees.mean() < 0.1
    for mine, theirs, recorded in zip(imported.sweeps(), original.sweeps(), read_sweeps(tmp_path / "bag"), strict=True):
        np.testing.assert_array_equal(mine.points, theirs.points)
        np.testing.assert_array_equal(mine.points, recorded.points)
