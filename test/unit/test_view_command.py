"""``zeroflow view`` as a command: what it takes, where it shows it, and what it says when it cannot."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

pytest.importorskip("rerun", reason="the extra viz is not installed")

from rrd_cases import Recording, verify

from zeroflow_core.cli import doctor, main
from zeroflow_core.cli import view as view_module
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.playback import Playback

BAG = Path(__file__).resolve().parents[2] / "rosbags/small_scanner"  # 12 clouds


def _run(*words: object):
    return CliRunner().invoke(main.app, ["view", *map(str, words)])


def _refused(*words: object) -> str:
    result = _run(*words)
    assert isinstance(result.exception, ZeroFlowError), result.output
    return str(result.exception)


def test_a_bag_becomes_a_file(tmp_path):
    path = tmp_path / "drive.rrd"
    result = _run(BAG, "--method", "zero", "--save", path, "--start", 2, "--every", 3)
    assert result.exit_code == 0, result.output
    assert re.search(r"drive\.rrd: \d sweeps of .*small_scanner, .* MB", result.output)
    verify(path)
    there = Recording(path)
    assert int(re.search(r"(\d) sweeps", result.output)[1]) == len(there.sweeps) in (3, 4)
    stamps = sorted(there.sweeps)
    assert set(round((b - a) / 1e8) for a, b in zip(stamps, stamps[1:], strict=False)) == {3}
    assert all(len(there.of("/world/vehicle/estimate/still", "positions", stamp)) > 3000 for stamp in stamps)


def test_ctrl_c_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupted(self, indices):
        yield from []
        raise KeyboardInterrupt

    monkeypatch.setattr(Playback, "moments", interrupted)
    result = _run(BAG, "--method", "zero", "--save", tmp_path / "a.rrd")
    assert result.exit_code == 130 and "Stopped" in result.output
    assert list(tmp_path.iterdir()) == []


def test_browsers_are_served_until_ctrl_c():
    port = _two_free_ports()
    words = [sys.executable, "-c", "from zeroflow_core.cli.main import main; main()", "view", BAG]
    words += ["--method", "zero", "--count", "2", "--serve", "--port", port]
    environment = os.environ | {"PYTHONPATH": str(BAG.parents[1])}
    process = subprocess.Popen(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    try:
        url = process.stdout.readline().strip()
        assert url == f"http://localhost:{port}/?url=rerun%2Bhttp%3A%2F%2Flocalhost%3A{port + 1}%2Fproxy"
        assert "Ctrl-C" in process.stdout.readline()
        with urlopen(url, timeout=30) as page:
            assert b"<html" in page.read(500)
        socket.create_connection(("127.0.0.1", port + 1), timeout=30).close()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode in (0, 130) and "Traceback" not in rest
    finally:
        process.kill()
        process.wait()


def _two_free_ports() -> int:
    for port in range(18100, 18200, 2):
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("", port))
                second.bind(("", port + 1))
            except OSError:
                continue
            return port
    pytest.skip("no two ports are free")


@pytest.mark.parametrize("which", [0, 1])
def test_a_port_that_is_taken(which: int):
    port = _two_free_ports()
    with socket.socket() as other:
        other.bind(("", port + which))
        other.listen()
        said = _refused(BAG, "--method", "zero", "--serve", "--port", port)
    assert f"port {port + which} is taken" in said and "--port" in said


@pytest.mark.parametrize(
    "words, says",
    [
        (("--save", "a.mp4"), r"\.rrd"),
        (("--save", "no_such_folder/a.rrd"), "create it first"),
        (("--save", "a.rrd", "--serve"), "one of them"),
        (("--serve", "--port", "80"), "from 1024"),
        (("--save", "a.rrd", "--start", "99"), "no sweep 99.* last is"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_done(words, says: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert re.search(says, _refused(BAG, "--method", "zero", *words))
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_a_screen(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    if sys.platform == "linux":
        assert re.search(r"no screen.*--save.*--serve", _refused(BAG, "--method", "zero"))


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun.blueprint", None)
    said = _refused(BAG, "--save", "a.rrd")
    assert said.endswith("pip install 'zeroflow_ros[viz]'") and "\n" not in said


def test_neither_a_file_nor_a_topic():
    assert "there is no drive_bag" in _refused("drive_bag", "--save", "a.rrd")
    assert "write /ns/flow" in _refused("ns/flow", "--save", "a.rrd")


def test_a_topic_is_shown_by_the_package_that_speaks_ros(tmp_path, monkeypatch):
    called = []

    def replaced(program: str, words: list[str]) -> None:
        called.append(words)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", replaced)
    monkeypatch.setattr(view_module, "find_spec", lambda name: object())
    path = tmp_path / "a.rrd"
    _run("/left/flow", "--save", path, "--min-speed", 1.5)
    _run("/flow", "--serve", "--port", 9200)
    start = [sys.executable, "-m", "zeroflow_ros.live_view"]
    assert called[0] == [*start, "/left/flow", "--min-speed", "1.5", "--save", str(path)]
    assert called[1] == [*start, "/flow", "--min-speed", "0.5", "--serve", "--port", "9200"]


def test_a_topic_without_ros(monkeypatch):
    monkeypatch.setattr(view_module, "find_spec", lambda name: None if name == "rclpy" else find_spec(name))
    said = _refused("/flow")
    assert "no file /flow" in said and "source a ROS 2" in said and "zeroflow_ros[ros]" in said


def test_a_topic_has_no_sweeps_to_choose_from(monkeypatch):
    monkeypatch.setattr(view_module, "find_spec", lambda name: object())
    assert "--teacher-config means nothing" in _refused("/flow", "--teacher-config", "fast")


def test_doctor_knows_the_viewer(monkeypatch):
    def missing(name: str) -> str:
        raise doctor.metadata.PackageNotFoundError(name)

    found = next(finding for finding in doctor.findings() if finding.name == "rerun-sdk")
    assert "zeroflow view" in found.found and not found.advice
    monkeypatch.setattr(doctor.metadata, "version", missing)
    gone = doctor._rerun()
    assert gone.advice == "pip install 'zeroflow_ros[viz]'" and not gone.needed
