"""zeroflow convert: logs as bags, and bags as logs."""

from __future__ import annotations

from pathlib import Path

import pytest
from bag_cases import START, assert_same, make_sweeps, messages_of
from drive_cases import Drive

from zeroflow_core.cli.convert import convert
from zeroflow_core.datasets.av2 import Log
from zeroflow_core.datasets.av2_writer import write_log
from zeroflow_core.datasets.bags import Bag, read_sweeps
from zeroflow_core.datasets.recording import read_recording
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.geometry import SE3

AV2_LOG = "av2/sensor/val/7fab2350-7eaf-3b7e-a39d-6937a4c1bede"
KITTI_SHORT = "kitti/sensor/test/55f75bc3-6fc4-5c75-8954-f5a939177f70"


# --- logs as bags ------------------------------------------------------------------------------------------


@pytest.fixture
def log_dir(tmp_path) -> Path:
    path = tmp_path / "sensor" / "val" / "a-log"
    write_log(path, make_sweeps(4), None, {"up_lidar": SE3.identity()})
    return path


def test_convert(log_dir, tmp_path, capsys):
    convert(log_dir, tmp_path / "out" / "bag")
    assert "4 sweeps, 0.3 s" in capsys.readouterr().out
    for read, written in zip(read_sweeps(tmp_path / "out" / "bag"), Log(log_dir).sweeps(), strict=True):
        assert_same(read, written)


def test_convert_takes_a_root_with_a_single_log(log_dir, tmp_path):
    convert(tmp_path, tmp_path / "bag", storage="mcap", no_odom=True, no_tf=True)
    with Bag(tmp_path / "bag") as bag:
        assert set(bag.topics) == {"/lidar/points"} and bag.count("/lidar/points") == 4


def test_convert_needs_neither_poses_nor_calibration_that_it_leaves_out(log_dir, tmp_path):
    (log_dir / "calibration" / "egovehicle_SE3_sensor.feather").unlink()
    with pytest.raises(ZeroFlowError, match="egovehicle_SE3_sensor.feather is missing"):
        convert(log_dir, tmp_path / "bag")
    convert(log_dir, tmp_path / "bag", no_tf=True)
    assert [s.world_SE3_ego is not None for s in read_sweeps(tmp_path / "bag")] == [True] * 4


def test_convert_says_what_is_wrong(log_dir, tmp_path):
    with pytest.raises(ZeroFlowError, match="there is no .*absent; give an AV2 log's folder, or a rosbag2"):
        convert(tmp_path / "absent", tmp_path / "bag")
    write_log(log_dir.parent / "b-log", make_sweeps(1), None, {})
    with pytest.raises(ZeroFlowError, match="holds 2 logs"):
        convert(log_dir.parent, tmp_path / "bag")
    with pytest.raises(ZeroFlowError, match="choose one of: sqlite3, mcap"):
        convert(log_dir, tmp_path / "bag", storage="tape")
    next((log_dir / "sensors" / "lidar").iterdir()).write_bytes(b"")
    with pytest.raises(ZeroFlowError, match="damaged"):
        convert(log_dir, tmp_path / "bag")
    assert not (tmp_path / "bag").exists()


# --- bags as logs ------------------------------------------------------------------------------------------


def test_a_bag_becomes_logs_and_is_kept(tmp_path, capsys):
    drive = Drive(tuple(range(3)))
    bag = drive.record(tmp_path / "drive", drive.clouds(), drive.odometry(), drive.mounting())
    for _ in range(2):
        convert(bag, tmp_path / "train")
        said = capsys.readouterr().out
        assert said == (
            f"{bag}: 1 log in {tmp_path / 'train'}, 3 sweeps, ego motion from /odom, ground at z = 0.00 m, all raised "
            "by z_offset -0.33 m\n"
        )
    assert [len(Log(log)) for log in (tmp_path / "train").iterdir()] == [3]


def test_a_folder_of_bags_and_all_options(tmp_path, capsys):
    drive = Drive(tuple(range(3)), skewed=True)
    parts = drive.clouds(), drive.odometry(), drive.mounting()
    rear = [("/rear", message, time_ns) for _, message, time_ns in drive.clouds()]
    other = [("/other", message, time_ns) for _, message, time_ns in drive.odometry()]
    days = ("monday", "tuesday")
    for name in days:
        drive.record(tmp_path / "bags" / name, *parts, rear, other)
    how = {"topic": "/rear", "odometry": "/other", "ego_motion": "odometry", "deskew": "always", "height": 2.0}
    convert(tmp_path / "bags", tmp_path / "train", **how)
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said] == [
        str(tmp_path / "bags" / name) for name in ("monday", "tuesday")
    ]
    for name in days:
        recording = read_recording(tmp_path / "train" / f"{name}_{START}")
        assert (recording.topic, recording.odometry, recording.deskewed) == ("/rear", "/other", True)
        assert recording.height == 2.0


def test_from_a_bag_to_a_log_and_back(tmp_path):
    drive = Drive(tuple(range(3)))
    convert(drive.record(tmp_path / "drive", drive.clouds(), drive.tf(), drive.mounting()), tmp_path / "train")
    convert(tmp_path / "train", tmp_path / "back")
    (log,) = (tmp_path / "train").iterdir()
    for read, written in zip(read_sweeps(tmp_path / "back"), Log(log).sweeps(), strict=True):
        assert_same(read, written)
    convert(tmp_path / "back", tmp_path / "again")
    (again,) = (tmp_path / "again").iterdir()
    for read, written in zip(Log(again).sweeps(), Log(log).sweeps(), strict=True):
        assert_same(read, written)


def test_options_of_the_other_direction_are_refused(log_dir, tmp_path):
    drive = Drive((0, 1))
    bag = drive.record(tmp_path / "drive", drive.clouds())
    for options in ({"storage": "mcap"}, {"no_odom": True}, {"no_tf": True}):
        name = "--" + next(iter(options)).replace("_", "-")
        with pytest.raises(ZeroFlowError, match=f"{name} cannot be used to convert a bag"):
            convert(bag, tmp_path / "out", **options)
    for options in ({"topic": "/p"}, {"odometry": "/o"}, {"ego_motion": "tf"}, {"deskew": "auto"}, {"height": 1.0}):
        name = "--" + next(iter(options)).replace("_", "-")
        with pytest.raises(ZeroFlowError, match=f"{name} cannot be used to convert a log"):
            convert(log_dir, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_is_neither_is_said(tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(ZeroFlowError, match="neither an AV2 log nor a rosbag2 in .*notes"):
        convert(tmp_path / "notes", tmp_path / "out")
    (tmp_path / "notes" / "a.txt").write_text("fog")
    with pytest.raises(ZeroFlowError, match="there is no rosbag2 at .*a.txt"):
        convert(tmp_path / "notes" / "a.txt", tmp_path / "out")


# --- real logs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [AV2_LOG, KITTI_SHORT])
def test_real_logs_come_back_bit_for_bit(test_data, tmp_path, name):
    convert(test_data / name, tmp_path / "bag")
    log = Log(test_data / name)
    for read, written in zip(read_sweeps(tmp_path / "bag"), log.sweeps(), strict=True):
        assert_same(read, written)
    with Bag(tmp_path / "bag") as bag:
        assert bag.duration_ns == log.stamps_ns[-1] - log.stamps_ns[0]
        assert bag.count("/lidar/points") == len(log)
        assert bag.count("/odom") == bag.count("/tf") >= len(log)
    speeds = [m.twist.twist.linear.x for _, m in messages_of(tmp_path / "bag", "/odom")]
    assert all(0.3 < speed < 15 for speed in speeds)  # both drive ahead, in traffic
