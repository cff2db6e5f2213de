"""What to learn from: a split of logs or a bag, told apart from mistakes, and the launch command that fits it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from zeroflow_core.datasets.recording import Recording
from zeroflow_core.datasets.recording.settings import write_recording
from zeroflow_core.distillation import sources
from zeroflow_core.distillation.launching import launch_command
from zeroflow_core.distillation.sources import LogSource, find_sources
from zeroflow_core.errors import ZeroFlowError

RECORDING = Recording(
    bag="drive", topic="/ouster/points", frame_id="os", vehicle_frame="os", world_frame="", ego_motion="kiss_icp",
    odometry=None, deskewed=False, height=None, ground_z=-1.8, z_offset=1.4712, bag_start_ns=0, bag_clouds=22,
)  # fmt: skip


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "nothing to learn from"),
        ({"data": Path("a"), "bag": Path("b")}, "both logs and a bag"),
        ({"bag": Path("b"), "names": ("log",)}, "--log"),
        ({"data": Path("a"), "topic": "/points"}, "--topic is for --bag"),
        ({"data": Path("a"), "height": 1.8}, "--height is for --bag"),
        ({"data": Path("a"), "deskew": "never"}, "--deskew is for --bag"),
        ({"data": Path("a"), "ego_motion": "tf"}, "--ego-motion is for --bag"),
        ({"data": Path("a"), "split": "a/b"}, "a split can't be called 'a/b'"),
        ({"data": Path("a"), "split": ""}, "a split can't be called ''"),
        ({"bag": Path("b"), "split": "mine"}, "--split is of --data"),
        ({"bag": Path("b"), "ego_motion": "guess"}, "ego motion 'guess' is unknown"),
        ({"bag": Path("b"), "deskew": "yes"}, "deskew 'yes' is unknown"),
        ({"bag": Path("b"), "height": -1.0}, "height of -1.0 m"),
    ],
)
def test_a_source_that_can_not_be_meant(given: dict, says: str):
    with pytest.raises(ZeroFlowError, match=says):
        LogSource(**given)


def _log(root: Path, name: str) -> Path:
    (root / "sensor" / "train" / name / "sensors" / "lidar").mkdir(parents=True)
    return root / "sensor" / "train" / name


def test_logs_of_a_split_all_or_some(tmp_path: Path):
    logs = [_log(tmp_path, name) for name in ("a", "b", "c")]
    assert find_sources(LogSource(tmp_path), tmp_path / "unused") == logs
    assert find_sources(LogSource(tmp_path, names=("c", "a")), tmp_path / "unused") == [logs[0], logs[2]]
    with pytest.raises(ZeroFlowError, match="there is no log d, e in .*train"):
        find_sources(LogSource(tmp_path, names=("e", "a", "d")), tmp_path / "unused")
    assert not (tmp_path / "unused").exists()


def test_bags_are_imported_one_after_the_other(tmp_path: Path, monkeypatch):
    asked = []

    def import_bag(bag, folder, *, on_sweep, **how):
        asked.append((bag, folder, how))
        on_sweep(3, 7)
        return [folder / f"{bag.name}_2", folder / f"{bag.name}_1"]

    monkeypatch.setattr(sources, "find_bags", lambda path: [path / "x", path / "y"])
    monkeypatch.setattr(sources, "import_bag", import_bag)
    told = []
    source = LogSource(bag=tmp_path, topic="/points", height=1.7, deskew="always")
    found = find_sources(source, tmp_path / "data", told.append)
    assert [log.name for log in found] == ["x_1", "x_2", "y_1", "y_2"]
    assert {folder for _, folder, _ in asked} == {tmp_path / "data" / "sensor" / "train"}
    how = {"topic": "/points", "odometry": None, "ego_motion": "auto", "deskew": "always", "height": 1.7}
    assert [given for _, _, given in asked] == [how, how]
    assert [(now.bag.name, now.number, now.bags, now.done, now.total) for now in told] == [
        ("x", 1, 2, 3, 7),
        ("y", 2, 2, 3, 7),
    ]


def test_the_launch_command_says_what_the_recording_said(tmp_path: Path):
    student = tmp_path / "student.safetensors"
    command = f"ros2 launch zeroflow_ros flow.launch.py checkpoint:={student}"
    assert launch_command(student, None) == command
    kiss = launch_command(student, RECORDING)
    given = "points:=/ouster/points ego_motion:=kiss_icp base_frame:=os deskew:=never z_offset:=1.47"
    assert kiss == f"{command} {given}"
    moved = replace(RECORDING, ego_motion="tf", vehicle_frame="base_link", world_frame="map", z_offset=0.0)
    given = "points:=/ouster/points ego_motion:=tf odom_frame:=map deskew:=never"
    assert launch_command(student, moved) == f"{command} {given}"
    other = replace(RECORDING, ego_motion="odometry", odometry="/odom", deskewed=True, z_offset=0.0)
    given = "points:=/ouster/points odom:=/odom ego_motion:=odom deskew:=always"
    assert launch_command(student, other) == f"{command} {given}"


def test_a_path_with_a_space_is_quoted(tmp_path: Path):
    command = launch_command(tmp_path / "my run" / "student.safetensors", None)
    assert command.endswith(f"checkpoint:='{tmp_path}/my run/student.safetensors'")


def test_bags_of_another_set_up_are_told(tmp_path: Path, monkeypatch, caplog):
    logs = []

    def imported(name: str, **changes) -> None:
        logs.append(tmp_path / f"{name}_{len(logs)}")
        logs[-1].mkdir()
        write_recording(logs[-1], replace(RECORDING, bag=name, **changes))

    imported("a")
    imported("a", sweeps=7)
    imported("b", z_offset=RECORDING.z_offset + 0.04, height=1.8, bag_clouds=9)
    assert sources.unlike_bags(logs) == []
    imported("c", topic="/points", z_offset=RECORDING.z_offset + 0.06)
    imported("c", topic="/points", z_offset=RECORDING.z_offset + 0.06)
    imported("d", ego_motion="tf", deskewed=True)
    told = sources.unlike_bags(logs)
    assert [sentence.partition(":")[0] for sentence in told] == ["the bag c is not like a", "the bag d is not like a"]
    assert "its topic is /points, not /ouster/points; its z_offset is 1.53" in told[0]
    assert told[1].endswith("its ego_motion is tf, not kiss_icp; its deskewed is True, not False")

    monkeypatch.setattr(sources, "find_bags", lambda path: [path])
    monkeypatch.setattr(sources, "import_bag", lambda bag, folder, **how: logs)
    with caplog.at_level("WARNING"):
        find_sources(LogSource(bag=tmp_path), tmp_path / "data")
    assert all(sentence in caplog.text for sentence in told) and len(caplog.records) == 2
