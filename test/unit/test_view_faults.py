"""`zeroflow view` with what cannot be shown, and ended all of a sudden: one sentence, and nothing half-written."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bag_cases import START, cloud_message, record
from scene_cases import road
from typer.testing import CliRunner

pytest.importorskip("rerun", reason="the extra viz is not installed")

import rerun as rr

from zeroflow_core.cli import main
from zeroflow_core.errors import ZeroFlowError
from zeroflow_core.simulation.log import simulate_log
from zeroflow_core.viewing import outlets

_COMMAND = "import sys; from zeroflow_core.cli.main import main; sys.exit(main())"
_HOUR_NS = 3_600_000_000_000


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "drive"
    simulate_log(path, seed=21, sweeps=7, scanner="small", scene="junction")
    return path


def _view(*arguments: object) -> None:
    result = CliRunner().invoke(main.app, ["view", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        pytest.param("x" * 300 + ".rrd", [], "cannot write .*name too long", id="a long name"),
        ("a.rrd", ["--min-speed", "nan"], "--min-speed nan cannot be"),
        ("a.rrd", ["--start", "6"], "log drive has no sweep 6 to begin with; its last is 5"),
        ("a.rrd", ["--topic", "/points"], "--topic is of a bag"),
        ("a.rrd", ["--log", "other"], "there is no log other in .*; it has: drive"),
        ("a.png", [], r"is no name of a Rerun recording; give a file that ends in \.rrd"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_written(log, tmp_path, name, options, sentence):
    with pytest.raises(ZeroFlowError, match=sentence):
        _view(log, "--save", tmp_path / name, "--method", "zero", *options)
    assert list(tmp_path.iterdir()) == []


def test_where_no_sweep_can_be_used_there_is_no_recording(tmp_path):
    points = road().points
    messages = [("/points", cloud_message(points, START + k * _HOUR_NS), START + k) for k in range(3)]
    bag = record(tmp_path / "drive", messages)
    with pytest.raises(ZeroFlowError, match="there is nothing to show of bag drive: no sweep could be used"):
        _view(bag, "--save", tmp_path / "a.rrd", "--method", "zero", "--height", 1.8)
    assert [path.name for path in tmp_path.iterdir()] == ["drive"]


def test_a_damaged_sweep_in_between_leaves_no_recording(tmp_path):
    simulate_log(tmp_path / "drive", seed=4, sweeps=3, scanner="small", scene="street")
    last = max((tmp_path / "drive" / "sensors" / "lidar").iterdir())
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(ZeroFlowError, match="is damaged or incomplete"):
        _view(tmp_path / "drive", "--save", tmp_path / "a.rrd", "--method", "zero")
    assert [path.name for path in tmp_path.iterdir()] == ["drive"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sudden_end_leaves_nothing(log, tmp_path, number):
    words = [sys.executable, "-c", _COMMAND, "view", log, "--save", tmp_path / "a.rrd", "--method", "labels"]
    process = subprocess.Popen(list(map(str, words)), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


class _Gone:
    """A recording whose viewer does not take it."""

    def __init__(self) -> None:
        self.waited_s: list[float] = []

    def flush(self, *, timeout_sec: float) -> None:
        self.waited_s.append(timeout_sec)
        time.sleep(0.01)
        raise RuntimeError("unable to connect")


def test_a_viewer_that_is_gone_is_not_waited_for(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.setattr(rr, "spawn", lambda **_: None)
    monkeypatch.setattr(outlets, "_LOOK_EVERY_S", 0.005)
    monkeypatch.setattr(outlets, "_VIEWER_PORT", 1)  # nobody is there
    stream = _Gone()
    with pytest.raises(ZeroFlowError, match="the viewer was closed, or did not start"):
        with outlets.to_screen(stream, live=False):
            pass
    assert sum(stream.waited_s) < 1.0


def test_a_viewer_that_is_slow_is_waited_for(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.setattr(rr, "spawn", lambda **_: None)
    monkeypatch.setattr(outlets, "_LOOK_EVERY_S", 0.005)
    monkeypatch.setattr(outlets._Watch, "check", lambda self: None)
    stream = _Gone()
    refuse = stream.flush

    def flush(*, timeout_sec: float) -> None:
        if len(stream.waited_s) < 4:
            refuse(timeout_sec=timeout_sec)

    stream.flush = flush
    with outlets.to_screen(stream, live=False):
        pass
    assert len(stream.waited_s) == 4
